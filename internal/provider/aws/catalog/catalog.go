// Package catalog knows AWS's actions: which resource types, ARN patterns and
// condition keys each has, which of them hand out further power, which need a
// KMS key besides, and on how many resources at once AWS authorises them.
//
// All of it is embedded in catalog.bin, which the generator writes from AWS's
// Service Authorization Reference (see Sources and LICENSE-iam-data) and from the
// tables in data. A service is unpacked when it is first asked for. What the
// package returns is shared and must not be changed; everything is safe for
// concurrent use.
package catalog

import (
	_ "embed"
	"slices"
	"strings"
	"sync"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog/internal/pack"
)

//go:generate go run ./generate
//go:generate go test -count=1 -run ^TestEveryHitHasAVerdict$ .

//go:embed catalog.bin
var embedded []byte

// Action is one IAM action. Immutable.
type Action struct {
	Name             string        // canonical spelling, "s3:PutObject"
	AccessLevels     []string      // "Permissions management", "Write"
	Resources        []ResourceUse // empty: no resource-level permission
	ConditionKeys    []string      // those that don't depend on the resource type
	DependentActions []string      // what the reference says that it needs besides, over all its resource types
}

// ResourceUse is a resource type that an action works on. What Required means
// for an action with several is for Authorised to say.
type ResourceUse struct {
	Type          string
	Required      bool
	ConditionKeys []string
}

// ResourceType is a type of resource of one service.
type ResourceType struct {
	Name          string
	Patterns      []string // ARN patterns as the reference writes them, alternatives
	ConditionKeys []string
}

// ConditionKey is a key of a policy's condition.
type ConditionKey struct {
	Name string // may hold a variable: "aws:ResourceTag/${TagKey}"
	Type string // as the reference says: String, ARN, Bool, Numeric, Date, IPAddress, or ArrayOf one of them if it has several values
}

// Source is a release of a package that the catalogue was made from.
type Source struct {
	Package string
	Version string
	Date    string // RFC 3339
	Licence string
}

// Service is one AWS service. The zero value knows nothing.
type Service struct {
	Prefix string // "s3"
	Name   string // "Amazon S3"

	content func() *content
}

// index is the file's header: cheap, and enough to know the services.
type index struct {
	archive  pack.Archive
	prefixes []string // sorted
	services map[string]Service
}

// content is one service, unpacked.
type content struct {
	actions []Action // sorted by name in lower case
	action  map[string]int
	types   []ResourceType
	kind    map[string]int
	keys    []ConditionKey
	keyIndex
}

var opened = sync.OnceValue(func() index {
	archive, err := pack.Open(embedded)
	if err != nil {
		panic(err) // only a broken build can get here
	}
	result := index{archive: archive, services: map[string]Service{}}
	for _, section := range archive.Services {
		result.prefixes = append(result.prefixes, section.Name)
		result.services[section.Name] = Service{section.Name, section.Title, sync.OnceValue(func() *content {
			return unpack(archive, section)
		})}
	}
	return result
})

// unpack reads a service. It panics on data that doesn't fit: only a broken
// build can hold it.
func unpack(archive pack.Archive, section pack.Section) *content {
	packed, err := archive.ReadService(section)
	if err != nil {
		panic(err)
	}
	result := &content{action: map[string]int{}, kind: map[string]int{}}
	for _, key := range packed.Keys {
		result.keys = append(result.keys, ConditionKey{key.Name, key.Type})
	}
	result.keyIndex = newKeyIndex(result.keys)
	for i, kind := range packed.Types {
		result.types = append(result.types, ResourceType{kind.Name, kind.Patterns, result.names(kind.Keys)})
		result.kind[kind.Name] = i
	}
	result.actions = make([]Action, 0, len(packed.Actions))
	for i, action := range packed.Actions {
		uses := make([]ResourceUse, 0, len(action.Uses))
		for _, use := range action.Uses {
			uses = append(uses, ResourceUse{result.types[use.Type].Name, use.Required, result.names(use.Keys)})
		}
		name := section.Name + ":" + action.Name
		result.actions = append(result.actions, Action{name, action.Levels, uses, result.names(action.Keys), action.Dependents})
		result.action[strings.ToLower(action.Name)] = i
	}
	return result
}

// names turns positions of condition keys into their names.
func (c *content) names(positions []int) []string {
	var result []string
	for _, position := range positions {
		result = append(result, c.keys[position].Name)
	}
	return result
}

// Sources lists what the catalogue was made from: first the release that it
// follows, then the older one that has the dependent actions.
func Sources() []Source {
	var result []Source
	for _, source := range opened().archive.Sources {
		result = append(result, Source(source))
	}
	return result
}

// Services lists the prefixes of all services, sorted.
func Services() []string { return slices.Clone(opened().prefixes) }

// ServiceByPrefix returns the service that has the prefix, in any case.
func ServiceByPrefix(prefix string) (Service, bool) {
	folded, ok := fold(prefix)
	if !ok {
		return Service{}, false
	}
	service, known := opened().services[folded]
	return service, known
}

// Find returns the action that has the name, in any case.
func Find(name string) (Action, bool) {
	folded, ok := fold(name)
	if !ok {
		return Action{}, false
	}
	prefix, action, _ := strings.Cut(folded, ":")
	service, known := opened().services[prefix]
	if !known {
		return Action{}, false
	}
	content := service.content()
	at, known := content.action[action]
	if !known {
		return Action{}, false
	}
	return content.actions[at], true
}

// Actions lists the service's actions, sorted by name in lower case.
func (s Service) Actions() []Action {
	if s.content == nil {
		return nil
	}
	return slices.Clone(s.content().actions)
}

// ResourceTypes lists the service's resource types, sorted by name.
func (s Service) ResourceTypes() []ResourceType {
	if s.content == nil {
		return nil
	}
	return slices.Clone(s.content().types)
}

// ResourceType returns the resource type that has exactly this name.
func (s Service) ResourceType(name string) (ResourceType, bool) {
	if s.content == nil {
		return ResourceType{}, false
	}
	content := s.content()
	at, known := content.kind[name]
	if !known {
		return ResourceType{}, false
	}
	return content.types[at], true
}

// ConditionKeys lists the condition keys of the service's actions and resource
// types, sorted by name. Global keys are in GlobalKey.
func (s Service) ConditionKeys() []ConditionKey {
	if s.content == nil {
		return nil
	}
	return slices.Clone(s.content().keys)
}

// longest is how long a name may be to be looked up: the longest action has 71
// characters, and a tag key in a condition key up to 128.
const longest = 256

// fold brings a name to lower case. Names are ASCII: a letter that only folds to
// an ASCII one, like the Kelvin sign, makes another name.
func fold(name string) (string, bool) {
	if len(name) > longest {
		return "", false
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return "", false
		}
	}
	return strings.ToLower(name), true
}
