package roles

import (
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
)

// Condition is a condition of a role, with values of the request that meet it
// and values that don't.
type Condition struct {
	Operator, Key string
	Values        []string
	Met           []string // what the request has where it is met; none: no such key
	Unmet         []string // what it has where it is not
	// MetWithout says that a request without the key meets it.
	MetWithout bool
	// Always says that no request is without the key.
	Always bool
}

// global conditions are on keys that a request to any service may have.
var global = []Condition{
	{Operator: "Bool", Key: "aws:SecureTransport", Values: []string{"true"}, Met: []string{"true"}, Unmet: []string{"false"}},
	{Operator: "BoolIfExists", Key: "aws:MultiFactorAuthPresent", Values: []string{"true"}, Met: []string{"true"}, Unmet: []string{"false"}, MetWithout: true},
	{Operator: "Bool", Key: "aws:ViaAWSService", Values: []string{"false"}, Met: []string{"false"}, Unmet: []string{"true"}},
	{Operator: "Null", Key: "aws:MultiFactorAuthAge", Values: []string{"false"}, Met: []string{"10"}, Unmet: nil},
	{Operator: "Null", Key: "aws:SourceVpce", Values: []string{"true"}, Met: nil, Unmet: []string{"vpce-1"}, MetWithout: true},
	{Operator: "NumericLessThan", Key: "aws:MultiFactorAuthAge", Values: []string{"300"}, Met: []string{"299"}, Unmet: []string{"300"}},
	{Operator: "NumericLessThanEquals", Key: "aws:MultiFactorAuthAge", Values: []string{"300"}, Met: []string{"300"}, Unmet: []string{"301"}},
	{Operator: "NumericGreaterThan", Key: "aws:MultiFactorAuthAge", Values: []string{"5"}, Met: []string{"6"}, Unmet: []string{"5"}},
	{Operator: "NumericGreaterThanEquals", Key: "aws:MultiFactorAuthAge", Values: []string{"5"}, Met: []string{"5"}, Unmet: []string{"4"}},
	{Operator: "NumericEquals", Key: "aws:MultiFactorAuthAge", Values: []string{"5", "7"}, Met: []string{"7"}, Unmet: []string{"6"}},
	{Operator: "NumericNotEquals", Key: "aws:MultiFactorAuthAge", Values: []string{"5", "7"}, Met: []string{"6"}, Unmet: []string{"7"}, MetWithout: true},
	{Operator: "NumericLessThanIfExists", Key: "aws:MultiFactorAuthAge", Values: []string{"300"}, Met: []string{"299"}, Unmet: []string{"300"}, MetWithout: true},
	{Operator: "DateGreaterThan", Key: "aws:TokenIssueTime", Values: []string{"2026-01-01T00:00:00Z"}, Met: []string{"2026-01-01T00:00:01Z"}, Unmet: []string{"2026-01-01T00:00:00Z"}},
	{Operator: "DateLessThanEquals", Key: "aws:TokenIssueTime", Values: []string{"2026-01-01T00:00:00Z"}, Met: []string{"2026-01-01T00:00:00Z"}, Unmet: []string{"2026-01-01T00:00:01Z"}},
	{Operator: "DateGreaterThanEqualsIfExists", Key: "aws:TokenIssueTime", Values: []string{"2026-01-01T00:00:00Z"}, Met: []string{"2026-01-01T00:00:00Z"}, Unmet: []string{"2025-12-31T23:59:59Z"}, MetWithout: true},
	{Operator: "DateEquals", Key: "aws:TokenIssueTime", Values: []string{"2026-01-01T00:00:00Z"}, Met: []string{"2026-01-01T00:00:00Z"}, Unmet: []string{"2026-01-01T00:00:01Z"}},
	{Operator: "DateNotEquals", Key: "aws:TokenIssueTime", Values: []string{"2026-01-01T00:00:00Z"}, Met: []string{"2026-01-01T00:00:01Z"}, Unmet: []string{"2026-01-01T00:00:00Z"}, MetWithout: true},
	{Operator: "DateGreaterThan", Key: "aws:CurrentTime", Values: []string{"2020-01-01T00:00:00Z"}, Met: nil, Unmet: []string{"2019-12-31T23:59:59Z"}, Always: true},
	{Operator: "DateLessThan", Key: "aws:EpochTime", Values: []string{"4102444800"}, Met: []string{"1893456000"}, Unmet: []string{"4102444800"}, Always: true},
	{Operator: "IpAddress", Key: "aws:SourceIp", Values: []string{"203.0.113.0/24", "2001:db8::/32"}, Met: []string{"203.0.113.7"}, Unmet: []string{"203.0.114.7"}},
	{Operator: "IpAddress", Key: "aws:SourceIp", Values: []string{"2001:db8::/32"}, Met: []string{"2001:db8::1"}, Unmet: []string{"2001:db9::1"}},
	{Operator: "NotIpAddress", Key: "aws:SourceIp", Values: []string{"10.0.0.0/8"}, Met: []string{"203.0.113.7"}, Unmet: []string{"10.255.0.1"}, MetWithout: true},
	{Operator: "IpAddress", Key: "aws:VpcSourceIp", Values: []string{"10.1.0.0/16"}, Met: []string{"10.1.2.3"}, Unmet: []string{"10.2.2.3"}},
	{Operator: "ArnLike", Key: "aws:SourceArn", Values: []string{"arn:aws:sns:*:123456789012:app-*"}, Met: []string{"arn:aws:sns:eu-west-1:123456789012:app-1"}, Unmet: []string{"arn:aws:sns:eu-west-1:999988887777:app-1"}},
	{Operator: "ArnEquals", Key: "aws:SourceArn", Values: []string{"arn:aws:sns:eu-west-1:123456789012:app"}, Met: []string{"arn:aws:sns:eu-west-1:123456789012:app"}, Unmet: []string{"arn:aws:sns:eu-west-1:123456789012:app2"}},
	{Operator: "ArnNotLike", Key: "aws:SourceArn", Values: []string{"arn:aws:sns:*:*:app-*"}, Met: []string{"arn:aws:sns:eu-west-1:123456789012:web"}, Unmet: []string{"arn:aws:sns:eu-west-1:123456789012:app-1"}, MetWithout: true},
	{Operator: "ArnLikeIfExists", Key: "aws:SourceArn", Values: []string{"arn:aws:sns:*:123456789012:*"}, Met: []string{"arn:aws:sns:eu-west-1:123456789012:x"}, Unmet: []string{"arn:aws:sqs:eu-west-1:123456789012:x"}, MetWithout: true},
	{Operator: "StringEquals", Key: "aws:PrincipalTag/team", Values: []string{"blue", "green"}, Met: []string{"green"}, Unmet: []string{"Green"}},
	{Operator: "StringEquals", Key: "aws:SourceVpce", Values: []string{"vpce-0a1b2c3d"}, Met: []string{"vpce-0a1b2c3d"}, Unmet: []string{"vpce-0a1b2c3"}},
	{Operator: "StringLike", Key: "aws:PrincipalTag/team", Values: []string{"blue-*", "?x"}, Met: []string{"ax"}, Unmet: []string{"aax"}},
	{Operator: "StringNotEquals", Key: "aws:PrincipalTag/env", Values: []string{"prod"}, Met: []string{"test"}, Unmet: []string{"prod"}, MetWithout: true},
	{Operator: "StringNotLike", Key: "aws:UserAgent", Values: []string{"curl*", "wget*"}, Met: []string{"aws-cli"}, Unmet: []string{"wget/1"}, MetWithout: true},
	{Operator: "StringEqualsIgnoreCase", Key: "aws:PrincipalTag/Cost-Center", Values: []string{"Dev"}, Met: []string{"dEV"}, Unmet: []string{"dEVs"}},
	{Operator: "StringNotEqualsIgnoreCase", Key: "aws:PrincipalTag/env", Values: []string{"Prod"}, Met: []string{"test"}, Unmet: []string{"prod"}, MetWithout: true},
	{Operator: "StringEqualsIfExists", Key: "aws:PrincipalTag/env", Values: []string{"test"}, Met: []string{"test"}, Unmet: []string{"prod"}, MetWithout: true},
	{Operator: "StringLikeIfExists", Key: "aws:SourceVpc", Values: []string{"vpc-1*"}, Met: []string{"vpc-12"}, Unmet: []string{"vpc-2"}, MetWithout: true},
	{Operator: "ForAnyValue:StringEquals", Key: "aws:CalledVia", Values: []string{"athena.amazonaws.com"}, Met: []string{"cloudformation.amazonaws.com", "athena.amazonaws.com"}, Unmet: []string{"cloudformation.amazonaws.com"}},
	{Operator: "ForAllValues:StringEquals", Key: "aws:CalledVia", Values: []string{"athena.amazonaws.com", "glue.amazonaws.com"}, Met: []string{"glue.amazonaws.com"}, Unmet: []string{"glue.amazonaws.com", "ssm.amazonaws.com"}, MetWithout: true},
	{Operator: "ForAllValues:StringNotEquals", Key: "aws:CalledVia", Values: []string{"athena.amazonaws.com"}, Met: []string{"glue.amazonaws.com"}, Unmet: []string{"glue.amazonaws.com", "athena.amazonaws.com"}, MetWithout: true},
	{Operator: "ForAnyValue:StringLike", Key: "aws:CalledVia", Values: []string{"athena.*"}, Met: []string{"athena.amazonaws.com"}, Unmet: []string{"x-athena.amazonaws.com"}},
	{Operator: "ForAnyValue:StringNotEquals", Key: "aws:CalledVia", Values: []string{"athena.amazonaws.com"}, Met: []string{"glue.amazonaws.com", "athena.amazonaws.com"}, Unmet: []string{"athena.amazonaws.com"}},
}

// conditions draws one to three, no two on the same key.
func (d drawer) conditions(service catalog.Service, role Role) []Condition {
	var drawn []Condition
	for range 1 + d.IntN(3) {
		next := global[d.IntN(len(global))]
		if own, found := d.ofAction(service, role); found && d.IntN(2) == 0 {
			next = own
		}
		taken := slices.ContainsFunc(drawn, func(other Condition) bool { return strings.EqualFold(other.Key, next.Key) })
		if !taken && !(role.BoundSourceIP && next.Key == "aws:SourceIp") {
			drawn = append(drawn, next)
		}
	}
	return drawn
}

// KeysOf are the condition keys that a request for the action on such a resource
// carries besides the global ones, as the reference writes them.
func KeysOf(action catalog.Action, arn string) []string {
	keys := slices.Clone(action.ConditionKeys)
	service, _ := catalog.ServiceByPrefix(ServiceOf(action.Name))
	for _, use := range Types(action, arn) {
		keys = append(keys, use.ConditionKeys...)
		kind, _ := service.ResourceType(use.Type)
		keys = append(keys, kind.ConditionKeys...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// ofAction draws a condition on a key of the action itself.
func (d drawer) ofAction(service catalog.Service, role Role) (Condition, bool) {
	keys := KeysOf(role.Action, Instance(role.Resource))
	if len(keys) == 0 {
		return Condition{}, false
	}
	name := keys[d.IntN(len(keys))]
	if service.Prefix == "s3" && strings.HasPrefix(name, "aws:ResourceTag/") {
		return Condition{}, false // the judge knows no bucket whose tags count, and refuses it
	}
	key, known := service.ConditionKey(name)
	if prefix, _, _ := strings.Cut(name, ":"); prefix != service.Prefix && prefix != "aws" {
		return Condition{}, false // the judge does not know the keys of another service
	}
	if !known || strings.EqualFold(name, "aws:ResourceAccount") {
		return Condition{}, false
	}
	name = strings.NewReplacer("${TagKey}", "env", "<key>", "env").Replace(name)
	name = variable.ReplaceAllString(name, "env")
	made := Condition{Key: name, Values: []string{"blue"}, Met: []string{"blue"}, Unmet: []string{"red"}}
	element, several := strings.CutPrefix(key.Type, "ArrayOf")
	switch element {
	case "String":
		made.Operator = d.oneOf("StringEquals", "StringLike", "StringEqualsIgnoreCase")
	case "Bool":
		made.Operator, made.Values, made.Met, made.Unmet = "Bool", []string{"true"}, []string{"true"}, []string{"false"}
	case "Numeric":
		made.Operator, made.Values, made.Met, made.Unmet = "NumericLessThanEquals", []string{"10"}, []string{"10"}, []string{"10.5"}
	case "Date":
		made.Operator, made.Values, made.Met, made.Unmet = "DateGreaterThan", []string{"2026-01-01T00:00:00Z"}, []string{"2026-01-02T00:00:00Z"}, []string{"2025-12-31T00:00:00Z"}
	case "ARN":
		arn := "arn:aws:sns:eu-west-1:123456789012:app"
		made.Operator, made.Values, made.Met, made.Unmet = d.oneOf("ArnEquals", "ArnLike"), []string{arn}, []string{arn}, []string{arn + "2"}
	case "IPAddress":
		made.Operator, made.Values, made.Met, made.Unmet = "IpAddress", []string{"192.0.2.0/24"}, []string{"192.0.2.1"}, []string{"192.0.3.1"}
	default:
		return Condition{}, false
	}
	if several {
		if d.IntN(2) == 0 {
			made.Operator, made.MetWithout = "ForAllValues:"+made.Operator, true
		} else {
			made.Operator = "ForAnyValue:" + made.Operator
		}
	}
	return made, true
}
