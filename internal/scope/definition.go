package scope

import (
	"fmt"
	"maps"
	"slices"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Definition is a scope as a role defines it, with parameters still to fill in.
type Definition struct {
	action     string
	resource   Template
	companions []Template
	conditions []ConditionTemplate
	parameters map[string]Parameter
	tags       tagTemplates
}

// Texts are the parts of a definition as they are written and stored.
type Texts struct {
	Action, Resource string
	Companions       []string
	Conditions       map[string]any // decoded JSON
	Parameters       map[string]any // decoded JSON
	Tags             Tags
}

// Define reads a definition. The errors are *invalid.Error.
func Define(texts Texts) (Definition, error) {
	definition := Definition{action: texts.Action}
	if err := checkAction(texts.Action); err != nil {
		return Definition{}, err
	}
	var err error
	if definition.resource, err = ParseTemplate("resource", texts.Resource); err != nil {
		return Definition{}, err
	}
	if len(texts.Companions) > maxCompanions {
		return Definition{}, invalid.Hidden("companion_resources", fmt.Sprintf("more than %d", maxCompanions), "name one for each further resource that the action is authorised on")
	}
	for _, text := range texts.Companions {
		companion, err := ParseTemplate("companion_resources", text)
		if err != nil {
			return Definition{}, err
		}
		definition.companions = append(definition.companions, companion)
	}
	if definition.conditions, err = ParseConditions(texts.Conditions); err != nil {
		return Definition{}, err
	}
	if definition.parameters, err = ParseParameters(texts.Parameters); err != nil {
		return Definition{}, err
	}
	if definition.tags, err = parseTags(texts.Tags); err != nil {
		return Definition{}, err
	}
	used := map[string]bool{}
	for _, reference := range definition.References() {
		name, parameter := reference.Parameter()
		if _, declared := definition.parameters[name]; parameter && !declared {
			return Definition{}, wrongParameter(name, "it is referred to, and not defined", `define it: {"`+name+`": {"pattern": "[a-z0-9-]+"}}`)
		}
		used[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(definition.parameters)) {
		if !used[name] {
			return Definition{}, wrongParameter(name, "nothing refers to it", "write {{"+name+"}} where its value belongs, or leave it out")
		}
	}
	return definition, nil
}

// References lists what the definition refers to, each once.
func (d Definition) References() []Reference {
	all := d.resource.References()
	for _, companion := range d.companions {
		all = append(all, companion.References()...)
	}
	for _, condition := range d.conditions {
		for _, value := range condition.Values {
			all = append(all, value.References()...)
		}
	}
	all = append(all, d.tags.references()...)
	slices.Sort(all)
	return slices.Compact(all)
}

// Advice is what the author of the definition should know of it.
func (d Definition) Advice() []string {
	templates := append([]Template{d.resource}, d.companions...)
	for _, condition := range d.conditions {
		templates = append(templates, condition.Values...)
	}
	var advice []string
	for _, template := range templates {
		for _, pair := range template.blurred() {
			advice = append(advice, fmt.Sprintf("%s: {{%s}} and {{%s}} stand in one segment, so that a reader of a credential may choose one to look like a part of the other; put \"/\" between them, or see that neither admits what is between them",
				template.field, pair[0], pair[1]))
		}
	}
	return advice
}

// Parameters are what a reader of a credential has to give, by name.
func (d Definition) Parameters() map[string]Parameter { return d.parameters }

// Values are what is filled in.
type Values struct {
	Parameters map[string]string
	Task       string // empty where the caller gave none
	// Identity looks up what Vault knows of the caller. What the caller can mend
	// is an *invalid.Error.
	Identity func(Reference) (string, error)
}

// Fill makes the scope. All parameters have to be there, and no others. The
// caller's mistakes are *invalid.Error.
func (d Definition) Fill(values Values) (Scope, error) {
	for _, name := range slices.Sorted(maps.Keys(values.Parameters)) {
		parameter, defined := d.parameters[name]
		if !defined {
			return Scope{}, invalid.Hidden(fmt.Sprintf("field %q", invalid.Clip(name)), "the role has no such parameter", "it takes ttl"+d.listed())
		}
		if err := parameter.Admit(name, values.Parameters[name]); err != nil {
			return Scope{}, err
		}
	}
	return d.fill(func(reference Reference) (string, error) {
		name, parameter := reference.Parameter()
		switch {
		case parameter:
			value, given := values.Parameters[name]
			if !given {
				return "", invalid.Hidden(name, "missing: the role has this parameter", "give it as "+name+"=…")
			}
			return value, nil
		case reference == Task:
			if values.Task == "" {
				return "", invalid.Hidden("task", "missing: the role's scope depends on it", "read creds/<role>/<task>")
			}
			return values.Task, nil
		default:
			return values.Identity(reference)
		}
	})
}

func (d Definition) listed() string {
	text := ""
	for _, name := range slices.Sorted(maps.Keys(d.parameters)) {
		text += ", " + name
	}
	return text
}

func (d Definition) fill(value func(Reference) (string, error)) (Scope, error) {
	scope := Scope{action: d.action}
	var err error
	if scope.resource, err = d.resource.Fill(value); err != nil {
		return Scope{}, err
	}
	if err := checkText("resource", scope.resource.text); err != nil {
		return Scope{}, err
	}
	for _, template := range d.companions {
		companion, err := template.Fill(value)
		if err != nil {
			return Scope{}, err
		}
		if err := checkText("companion_resources", companion.text); err != nil {
			return Scope{}, err
		}
		scope.companions = append(scope.companions, companion)
	}
	for _, template := range d.conditions {
		condition, err := template.Fill(value)
		if err != nil {
			return Scope{}, err
		}
		scope.conditions = append(scope.conditions, condition)
	}
	if scope.tags, err = d.tags.fill(value); err != nil {
		return Scope{}, err
	}
	return scope, nil
}
