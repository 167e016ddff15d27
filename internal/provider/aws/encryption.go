package aws

import (
	"fmt"
	"reflect"
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

// newEncryption checks the role's kms_key against what the role's action needs, which
// is what its members need together. The errors are *invalid.Error.
func newEncryption(key, name string, members []member, account string) (*encryption, error) {
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
	suffix := ""
	if arn.Partition == "aws-cn" {
		suffix = ".cn"
	}
	var made *encryption
	for _, member := range members {
		resource := member.found.Resource
		needed, known := catalog.EncryptionOf(member.action.Name)
		if !known || len(needed.Actions) == 0 {
			continue
		}
		if !scope.IsRegion(arn.Region) || arn.Partition != resource.Partition || (resource.Region != "" &&
			resource.Region != arn.Region) {
			return wrong("not in the resource's partition and region", "name the key that the resource is encrypted with")
		}
		one := &encryption{key: key, actions: needed.Actions, via: strings.ReplaceAll(needed.ViaService, "{region}",
			arn.Region) + suffix}
		one.context = encryptionContext(needed.Context, resource, account)
		if made, err = made.and(one); err != nil {
			return nil, err
		}
	}
	if made == nil {
		return wrong(name+" needs no right on a key of its caller", "leave kms_key out")
	}
	return made, nil
}

// and is what both need of the key. All members of a named action use it through one
// service, for one resource.
func (e *encryption) and(other *encryption) (*encryption, error) {
	if e == nil {
		return other, nil
	}
	if e.via != other.via || !reflect.DeepEqual(e.context, other.context) {
		return nil, fmt.Errorf("aws: %s is used in two ways: %v through %s, %v through %s", e.key, e.context, e.via,
			other.context, other.via)
	}
	both := *e
	both.actions = slices.Clone(e.actions)
	for _, action := range other.actions {
		if !slices.Contains(both.actions, action) {
			both.actions = append(both.actions, action)
		}
	}
	return &both, nil
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

// allow is the right to use the key, through its service only: one statement for
// all actions that the same conditions hold for.
func (e *encryption) allow() []iampolicy.Statement {
	if e == nil {
		return nil
	}
	var statements []iampolicy.Statement
	for _, action := range e.actions {
		conditions := e.conditions(action)
		at := slices.IndexFunc(statements, func(other iampolicy.Statement) bool { return reflect.DeepEqual(other.Condition, conditions) })
		if at < 0 {
			at = len(statements)
			statements = append(statements, iampolicy.Statement{Effect: "Allow", Action: []string(nil), Resource: e.key, Condition: conditions})
		}
		statements[at].Action = append(statements[at].Action.([]string), action)
	}
	return statements
}

// conditions are what an action on the key depends on. What has no encryption
// context, such as looking the key up, can't be held to one; and a grant on the
// key is for the service, never for whom it works for.
// https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-grant-is-for-aws-resource
func (e *encryption) conditions(action string) iampolicy.Conditions {
	conditions := iampolicy.Conditions{"StringLike": {"kms:ViaService": e.via}}
	if hasContext(action) {
		conditions = merged(conditions, e.context)
	}
	if action == "kms:CreateGrant" {
		conditions = merged(conditions, iampolicy.Conditions{"Bool": {"kms:GrantIsForAWSResource": "true"}})
	}
	return conditions
}

// hasContext says whether a request for the KMS action carries an encryption
// context.
func hasContext(name string) bool {
	action, _ := catalog.Find(name)
	return slices.ContainsFunc(action.ConditionKeys, func(key string) bool { return strings.HasPrefix(key, "kms:EncryptionContext:") })
}

// fence denies every action but the granted ones and what the key needs; and KMS
// with any other key, or through any other service, or directly.
func (e *encryption) fence(service string, actions []string) []iampolicy.Statement {
	switch {
	case e != nil:
		return []iampolicy.Statement{
			{Effect: "Deny", NotAction: slices.Concat(actions, e.actions), Resource: "*"},
			{Effect: "Deny", Action: "kms:*", NotResource: e.key},
			{Effect: "Deny", Action: "kms:*", Resource: "*", Condition: iampolicy.Conditions{"StringNotLike": {"kms:ViaService": e.via}}},
		}
	case service == "kms":
		return []iampolicy.Statement{{Effect: "Deny", NotAction: actions, Resource: "*"}}
	default:
		return []iampolicy.Statement{
			{Effect: "Deny", NotAction: slices.Concat(actions, []string{"kms:*"}), Resource: "*"},
			{Effect: "Deny", Action: "kms:*", Resource: "*", Condition: iampolicy.Conditions{"StringNotLike": {"kms:ViaService": service + ".*"}}},
		}
	}
}

// describe says in words what the key adds.
func (e *encryption) describe() string {
	return fmt.Sprintf("also allows %s on %s, through %s only", strings.Join(e.actions, ", "), e.key, e.via)
}
