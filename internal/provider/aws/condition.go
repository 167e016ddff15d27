package aws

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Condition keys that the engine sets itself.
const (
	keySourceIP        = "aws:SourceIp"
	keyResourceAccount = "aws:ResourceAccount"
	keyCurrentTime     = "aws:CurrentTime"
)

// checkConditions admits conditions that only narrow, and that IAM can hold both
// ways: operators that can be negated, keys that a request for the action can
// carry, and nothing that the engine sets itself.
func checkConditions(action catalog.Action, found resolved, conditions []scope.Condition, sourceIP bool) ([]scope.Condition, error) {
	for _, condition := range conditions {
		wrong := func(problem, remedy string) error {
			return invalid.Field("conditions", condition.Operator+" "+condition.Key, problem, remedy)
		}
		key, known := conditionKey(action, found, condition.Key)
		switch {
		case !known:
			return nil, wrong("a request for "+action.Name+" carries no such key", "use a global key or "+invalid.OneOf(keysOf(action, found)))
		case strings.EqualFold(condition.Key, keyResourceAccount):
			return nil, wrong("the engine sets this key", "use resource_account")
		case strings.EqualFold(condition.Key, keyCurrentTime) && strings.HasPrefix(condition.Operator, "DateLessThan"):
			return nil, wrong("the engine sets the end", "use ttl and max_ttl")
		case strings.EqualFold(condition.Key, keySourceIP) && sourceIP:
			return nil, wrong("bound_source_ip sets this key", "use one of the two")
		}
		if problem := unsuited(condition.Operator, key.Type); problem != "" {
			return nil, wrong(problem, "use an operator for keys of type "+key.Type)
		}
		if err := checkAddresses(condition); err != nil {
			return nil, err
		}
	}
	if _, err := iampolicy.DenyUnless([]string{action.Name}, block(conditions)); err != nil {
		return nil, err
	}
	return conditions, nil
}

// conditionKey is the key of that name, if a request for the action can carry it.
func conditionKey(action catalog.Action, found resolved, name string) (catalog.ConditionKey, bool) {
	service := serviceOf(action)
	carried := keysOf(action, found)
	if key, known := service.ConditionKey(name); known && slices.Contains(carried, key.Name) {
		return key, true
	}
	if slices.ContainsFunc(carried, func(key string) bool { return strings.EqualFold(key, name) }) {
		return catalog.ConditionKey{Name: name, Type: "String"}, true // another service's, whose type is not listed
	}
	key, global := catalog.GlobalKey(name)
	return key, global && !slices.Contains(ofTags, key.Name)
}

// ofTags are global keys that only requests about tags carry, and about what has
// tags. A condition on one that a request never carries would hold always, if it
// is a negated one.
var ofTags = []string{"aws:RequestTag/${TagKey}", "aws:ResourceTag/${TagKey}", "aws:TagKeys"}

// keysOf lists the keys of the action, and of the type of its resource. Where AWS
// judges a call on several, each judgement sees the keys of one resource: a
// condition on what another one's lacks would never be met.
func keysOf(action catalog.Action, found resolved) []string {
	keys := keysOfType(action, found.Type)
	for _, companion := range found.CompanionTypes {
		carried := keysOfType(action, companion)
		keys = slices.DeleteFunc(keys, func(key string) bool { return !slices.Contains(carried, key) })
	}
	keys = append(keys, action.ConditionKeys...)
	slices.Sort(keys)
	return slices.Compact(keys)
}

// keysOfType lists the keys that come with a resource of the type.
func keysOfType(action catalog.Action, name string) []string {
	kind, _ := serviceOf(action).ResourceType(name)
	keys := slices.Clone(kind.ConditionKeys)
	for _, use := range action.Resources {
		if use.Type == name {
			keys = append(keys, use.ConditionKeys...)
		}
	}
	return keys
}

// unsuited says why an operator does not suit a key of that type, empty where it
// does. A key with several values needs to be told which of them count, and one
// with a single value must not be: ForAllValues is true where there is none.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html
func unsuited(operator, kind string) string {
	quantifier, base, quantified := strings.Cut(operator, ":")
	if !quantified {
		base, quantifier = operator, ""
	}
	base = strings.TrimSuffix(base, "IfExists")
	element, several := strings.CutPrefix(kind, "ArrayOf")
	switch {
	case base == "Null" && quantifier == "":
		return ""
	case several && quantifier == "":
		return "the key has several values: say ForAnyValue: or ForAllValues:"
	case !several && quantifier != "":
		return quantifier + " is for keys that have several values, and this one has one"
	}
	families := map[string][]string{
		"String": {"String"}, "ARN": {"Arn", "String"}, "Bool": {"Bool"}, "Boolean": {"Bool"},
		"Numeric": {"Numeric"}, "Long": {"Numeric"}, "Date": {"Date"}, "IPAddress": {"IpAddress", "NotIpAddress"}, "Binary": {"Binary"},
	}
	for _, family := range families[element] {
		if strings.HasPrefix(base, family) {
			return ""
		}
	}
	return "the key is of type " + kind
}

// block writes conditions as a policy does.
func block(conditions []scope.Condition) iampolicy.Conditions {
	written := iampolicy.Conditions{}
	for _, condition := range conditions {
		written = merged(written, iampolicy.Conditions{condition.Operator: {condition.Key: condition.Values}})
	}
	return written
}

// bound writes the role's conditions and the caller's address twice: as a block
// for the Allow, and as denials of the granted action for what does not meet it. What
// a part depends on besides is denied likewise, and allowed by the part.
// The denials name the action only: one of everything would keep a service from
// decrypting on the holder's behalf, which it does from an address of its own.
func (g grant) bound() (allow iampolicy.Conditions, fence []iampolicy.Statement, err error) {
	allow = block(g.conditions)
	if g.sourceIP.IsValid() {
		allow = merged(allow, iampolicy.Conditions{"IpAddress": {keySourceIP: netip.PrefixFrom(g.sourceIP, g.sourceIP.BitLen()).String()}})
	}
	if fence, err = denyUnless(g.actions(), allow); err != nil {
		return nil, nil, err
	}
	for _, part := range g.parts {
		own, err := denyUnless(part.actions, part.conditions)
		if err != nil {
			return nil, nil, err
		}
		fence = append(fence, own...)
	}
	return allow, fence, nil
}

// checkAddresses holds a value that was filled into an address to its slot: with
// a "/" it would end the address and make a range of it.
func checkAddresses(condition scope.Condition) error {
	if !strings.Contains(condition.Operator, "IpAddress") {
		return nil
	}
	for _, text := range condition.Texts() {
		for _, filled := range text.Filled() {
			value := text.String()[filled.Start:filled.End]
			if strings.Contains(value, "/") && value != text.String() {
				return invalid.Field(string(filled.Reference), value, "with \"/\" it would make another range of "+condition.Key, "give one part of an address")
			}
		}
	}
	return nil
}

// denyUnless denies actions where the conditions don't hold.
func denyUnless(actions []catalog.Action, conditions iampolicy.Conditions) ([]iampolicy.Statement, error) {
	if len(conditions) == 0 {
		return nil, nil
	}
	fence, err := iampolicy.DenyUnless(names(actions), conditions)
	if err != nil {
		return nil, fmt.Errorf("aws: %w", err)
	}
	return fence, nil
}
