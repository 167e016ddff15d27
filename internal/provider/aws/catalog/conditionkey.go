package catalog

import (
	"strings"
	"sync"
)

// keyIndex finds condition keys by name.
type keyIndex struct {
	exact    map[string]ConditionKey // by name in lower case
	patterns []keyPattern
}

// keyPattern is a key whose name holds a variable, split around it, in lower case.
type keyPattern struct {
	prefix, suffix string
	key            ConditionKey
}

func newKeyIndex(keys []ConditionKey) keyIndex {
	index := keyIndex{exact: map[string]ConditionKey{}}
	for _, key := range keys {
		name := strings.ToLower(key.Name)
		index.exact[name] = key
		if prefix, suffix, variable := cutVariable(name); variable {
			index.patterns = append(index.patterns, keyPattern{prefix, suffix, key})
		}
	}
	return index
}

// cutVariable splits a name around its variable, which the reference writes as
// ${TagKey} and, in a few keys, as <key>.
func cutVariable(name string) (prefix, suffix string, found bool) {
	for _, marks := range [][2]string{{"${", "}"}, {"<", ">"}} {
		before, rest, opened := strings.Cut(name, marks[0])
		if !opened {
			continue
		}
		if _, after, closed := strings.Cut(rest, marks[1]); closed {
			return before, after, true
		}
	}
	return "", "", false
}

// find returns the key that a policy's condition would mean by name. A key with a
// variable is found under its own name and under those that fill the variable in;
// of several the one that leaves the variable least.
func (x keyIndex) find(name string) (ConditionKey, bool) {
	folded, ok := fold(name)
	if !ok {
		return ConditionKey{}, false
	}
	if key, known := x.exact[folded]; known {
		return key, true
	}
	var best *keyPattern
	for i, pattern := range x.patterns {
		literal := len(pattern.prefix) + len(pattern.suffix)
		if len(folded) <= literal || !strings.HasPrefix(folded, pattern.prefix) || !strings.HasSuffix(folded, pattern.suffix) {
			continue
		}
		if best == nil || literal > len(best.prefix)+len(best.suffix) {
			best = &x.patterns[i]
		}
	}
	if best == nil {
		return ConditionKey{}, false
	}
	return best.key, true
}

var globalKeys = sync.OnceValue(func() keyIndex {
	var keys []ConditionKey
	for _, row := range table("global-keys.tsv", "key", "type", "values", "source") {
		key := ConditionKey{row[0], row[1]}
		if row[2] == "multi" {
			key.Type = "ArrayOf" + key.Type
		}
		keys = append(keys, key)
	}
	return newKeyIndex(keys)
})

// GlobalKey returns the condition key that requests to any service may carry, in
// any case: "aws:SourceIp", or "aws:PrincipalTag/team" for a key whose Name is
// "aws:PrincipalTag/${TagKey}".
func GlobalKey(name string) (ConditionKey, bool) { return globalKeys().find(name) }

// ConditionKey returns the condition key of the service's actions and resource
// types that has the name, as GlobalKey does.
func (s Service) ConditionKey(name string) (ConditionKey, bool) {
	if s.content == nil {
		return ConditionKey{}, false
	}
	return s.content().keyIndex.find(name)
}
