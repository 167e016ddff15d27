package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog/internal/pack"
)

// The package's files, as far as the catalogue needs them. Each maps a name in
// lower case to what is known of it.
type (
	sourceAction struct {
		Name             string
		AccessLevel      string
		ResourceTypes    []sourceUse
		ConditionKeys    []string
		DependentActions []string
	}
	sourceUse struct {
		Name             string
		Required         bool
		ConditionKeys    []string
		DependentActions []string
	}
	sourceType struct {
		Key           string
		Arn           string
		ConditionKeys []string
	}
	sourceKey struct {
		Key  string
		Type string
	}
)

// addServices packs every service of the current release, with the dependent
// actions of the older one.
func addServices(builder *pack.Builder, current, older release) error {
	var prefixes []string
	if err := current.decode("data/services.json", &prefixes); err != nil {
		return err
	}
	var titles map[string]string
	if err := current.decode("data/serviceNames.json", &titles); err != nil {
		return err
	}
	slices.Sort(prefixes)
	for _, prefix := range prefixes {
		service, err := convert(prefix, current)
		if err != nil {
			return fmt.Errorf("service %s: %w", prefix, err)
		}
		if err := addDependents(prefix, service, older); err != nil {
			return fmt.Errorf("service %s: %w", prefix, err)
		}
		if err := builder.AddService(prefix, titles[prefix], service); err != nil {
			return err
		}
	}
	return nil
}

// convert brings one service into the packed form: names sorted, references by
// position.
func convert(prefix string, current release) (pack.Service, error) {
	var actions map[string]sourceAction
	var types map[string]sourceType
	var keys map[string]sourceKey
	for path, value := range map[string]any{"actions": &actions, "resourceTypes": &types, "conditionKeys": &keys} {
		if err := current.decode("data/"+path+"/"+prefix+".json", value); err != nil {
			return pack.Service{}, err
		}
	}
	var service pack.Service
	keyAt := map[string]int{}
	for i, name := range slices.Sorted(maps.Keys(keys)) {
		keyAt[name] = i
		service.Keys = append(service.Keys, pack.Key{Name: keys[name].Key, Type: keys[name].Type})
	}
	typeAt := map[string]int{}
	for i, name := range slices.Sorted(maps.Keys(types)) {
		typeAt[types[name].Key] = i
		refs, err := positions(types[name].ConditionKeys, keyAt)
		if err != nil {
			return pack.Service{}, fmt.Errorf("resource type %s: %w", name, err)
		}
		service.Types = append(service.Types, pack.Type{Name: types[name].Key, Patterns: patterns(types[name].Arn), Keys: refs})
	}
	for _, name := range slices.Sorted(maps.Keys(actions)) {
		action, err := convertAction(actions[name], typeAt, keyAt)
		if err != nil {
			return pack.Service{}, fmt.Errorf("action %s: %w", name, err)
		}
		service.Actions = append(service.Actions, action)
	}
	return service, nil
}

func convertAction(action sourceAction, typeAt, keyAt map[string]int) (pack.Action, error) {
	result := pack.Action{Name: action.Name, Levels: strings.Split(action.AccessLevel, ", ")}
	var err error
	if result.Keys, err = positions(action.ConditionKeys, keyAt); err != nil {
		return pack.Action{}, err
	}
	for _, source := range action.ResourceTypes {
		at, known := typeAt[source.Name]
		if !known {
			return pack.Action{}, fmt.Errorf("unknown resource type %q", source.Name)
		}
		use := pack.Use{Type: at, Required: source.Required}
		if use.Keys, err = positions(source.ConditionKeys, keyAt); err != nil {
			return pack.Action{}, err
		}
		result.Uses = merge(result.Uses, use)
	}
	return result, nil
}

// merge adds a use of a type. The reference lists a type twice where an action
// takes two resources of it; one use that has both rows' rules stands for them.
func merge(uses []pack.Use, use pack.Use) []pack.Use {
	for i := range uses {
		if uses[i].Type == use.Type {
			uses[i].Required = uses[i].Required || use.Required
			uses[i].Keys = slices.Compact(slices.Sorted(slices.Values(append(uses[i].Keys, use.Keys...))))
			return uses
		}
	}
	return append(uses, use)
}

// addDependents fills in the dependent actions from the older release: those of
// the action and of each of its resource types.
func addDependents(prefix string, service pack.Service, older release) error {
	path := "data/actions/" + prefix + ".json"
	if _, there := older.files[path]; !there {
		return nil // a newer service
	}
	var actions map[string]sourceAction
	if err := older.decode(path, &actions); err != nil {
		return err
	}
	for i, action := range service.Actions {
		source := actions[strings.ToLower(action.Name)]
		names := slices.Clone(source.DependentActions)
		for _, use := range source.ResourceTypes {
			names = append(names, use.DependentActions...)
		}
		slices.Sort(names)
		service.Actions[i].Dependents = slices.Compact(names)
	}
	return nil
}

// positions turns names of condition keys into their positions, sorted.
func positions(names []string, at map[string]int) ([]int, error) {
	var result []int
	for _, name := range names {
		position, known := at[strings.ToLower(name)]
		if !known {
			return nil, fmt.Errorf("unknown condition key %q", name)
		}
		result = append(result, position)
	}
	slices.Sort(result)
	return slices.Compact(result), nil
}

// patterns splits what the reference writes in one field: some types have two or
// three ARN patterns.
func patterns(text string) []string {
	parts := strings.Split(text, ", arn:")
	for i := range parts[1:] {
		parts[i+1] = "arn:" + parts[i+1]
	}
	return parts
}
