package aws

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// encryption is what a grant needs of the KMS key that its resource is encrypted
// with: some actions, on that key, through the service that asks for them. A nil
// encryption needs nothing.
type encryption struct {
	key     string
	actions []string
	via     string // the service as kms:ViaService names it; may hold a "*"
	context iampolicy.Conditions
}

// keyShape is a key's ARN. A policy is judged on the key: an alias never matches.
// https://docs.aws.amazon.com/kms/latest/developerguide/alias-authorization.html
var keyShape = regexp.MustCompile(`\Aarn:(?:aws|aws-cn|aws-us-gov):kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+\z`)

// newEncryption checks the role's kms_key against what the action needs. The
// errors are *invalid.Error.
func newEncryption(key string, action catalog.Action, resource scope.ARN, account string) (*encryption, error) {
	wrong := func(problem, remedy string) (*encryption, error) {
		return nil, invalid.Field("kms_key", key, problem, remedy)
	}
	if !keyShape.MatchString(key) {
		return wrong("not the ARN of a key", "write it as arn:aws:kms:eu-west-1:123456789012:key/<key id>; an alias never matches")
	}
	arn, err := scope.ParseARN(key)
	if err != nil {
		return wrong("not an ARN", "write it as arn:aws:kms:eu-west-1:123456789012:key/<key id>")
	}
	if !scope.IsRegion(arn.Region) || arn.Partition != resource.Partition || (resource.Region != "" && resource.Region != arn.Region) {
		return wrong("not in the resource's partition and region", "name the key that the resource is encrypted with")
	}
	needed, known := catalog.EncryptionOf(action.Name)
	if !known || len(needed.Actions) == 0 {
		return wrong(action.Name+" needs no right on a key of its caller", "leave kms_key out")
	}
	suffix := ""
	if arn.Partition == "aws-cn" {
		suffix = ".cn"
	}
	made := &encryption{key: key, actions: needed.Actions, via: strings.ReplaceAll(needed.ViaService, "{region}", arn.Region) + suffix}
	made.context = encryptionContext(needed.Context, resource, account)
	if slices.Contains(needed.Actions, "kms:CreateGrant") {
		made.context = merged(made.context, iampolicy.Conditions{"BoolIfExists": {"kms:GrantIsForAWSResource": "true"}})
	}
	return made, nil
}

// encryptionContext is what the service binds the data key to, as far as that is
// known before the call.
func encryptionContext(pairs []catalog.ContextPair, resource scope.ARN, account string) iampolicy.Conditions {
	bucket := resource
	bucket.Resource, _, _ = strings.Cut(resource.Resource, "/")
	_, name, _ := strings.Cut(resource.Resource, "/")
	table, _, _ := strings.Cut(name, "/") // of table/name/index/name
	fill := strings.NewReplacer("{resource}", resource.String(), "{bucket}", bucket.String(), "{table}", table, "{account}", account)
	conditions := iampolicy.Conditions{}
	for _, pair := range pairs {
		operator, values := "StringEquals", []string{}
		for _, value := range pair.Values {
			filled := fill.Replace(value)
			if strings.HasSuffix(filled, "*") {
				operator = "StringLike"
			}
			values = append(values, filled)
		}
		if len(values) > 0 {
			conditions = merged(conditions, iampolicy.Conditions{operator: {"kms:EncryptionContext:" + pair.Key: values}})
		}
	}
	return conditions
}

// allow is the right to use the key, through its service only. What has no
// encryption context, such as looking the key up, can't be held to one.
func (e *encryption) allow() []iampolicy.Statement {
	if e == nil {
		return nil
	}
	bound, free := e.actions, []string(nil)
	if len(e.context) > 0 {
		bound, free = nil, nil
		for _, action := range e.actions {
			if hasContext(action) {
				bound = append(bound, action)
			} else {
				free = append(free, action)
			}
		}
	}
	via := iampolicy.Conditions{"StringLike": {"kms:ViaService": e.via}}
	var statements []iampolicy.Statement
	if len(bound) > 0 {
		statements = append(statements, iampolicy.Statement{Effect: "Allow", Action: bound, Resource: e.key, Condition: merged(e.context, via)})
	}
	if len(free) > 0 {
		statements = append(statements, iampolicy.Statement{Effect: "Allow", Action: free, Resource: e.key, Condition: via})
	}
	return statements
}

// hasContext says whether a request for the KMS action carries an encryption
// context.
func hasContext(name string) bool {
	action, _ := catalog.Find(name)
	return slices.ContainsFunc(action.ConditionKeys, func(key string) bool { return strings.HasPrefix(key, "kms:EncryptionContext:") })
}

// fence denies every action but the granted one and what the key needs; and KMS
// with any other key, or through any other service, or directly.
func (e *encryption) fence(action string) []iampolicy.Statement {
	service := prefixOf(action)
	switch {
	case e != nil:
		return []iampolicy.Statement{
			{Effect: "Deny", NotAction: append([]string{action}, e.actions...), Resource: "*"},
			{Effect: "Deny", Action: "kms:*", NotResource: e.key},
			{Effect: "Deny", Action: "kms:*", Resource: "*", Condition: iampolicy.Conditions{"StringNotLike": {"kms:ViaService": e.via}}},
		}
	case service == "kms":
		return []iampolicy.Statement{{Effect: "Deny", NotAction: action, Resource: "*"}}
	default:
		return []iampolicy.Statement{
			{Effect: "Deny", NotAction: []string{action, "kms:*"}, Resource: "*"},
			{Effect: "Deny", Action: "kms:*", Resource: "*", Condition: iampolicy.Conditions{"StringNotLike": {"kms:ViaService": service + ".*"}}},
		}
	}
}

// describe says in words what the key adds.
func (e *encryption) describe() string {
	return fmt.Sprintf("also allows %s on %s, through %s only", strings.Join(e.actions, ", "), e.key, e.via)
}
