package tests

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/roles"
)

// encrypted are resources of the actions that need a key, where the reference's
// pattern alone would not say enough.
var encrypted = map[string]string{
	"s3":             "arn:aws:s3:::releases/app/*",
	"secretsmanager": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/db-AbCdEf",
	"dynamodb":       "arn:aws:dynamodb:eu-west-1:123456789012:table/orders",
	"logs":           "arn:aws:logs:eu-west-1:123456789012:log-group:app:*",
	"ssm":            "arn:aws:ssm:eu-west-1:123456789012:parameter/app/db",
	"sqs":            "arn:aws:sqs:eu-west-1:123456789012:jobs",
	"sns":            "arn:aws:sns:eu-west-1:123456789012:news",
	"kinesis":        "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks",
	"states":         "arn:aws:states:eu-west-1:123456789012:stateMachine:flow",
}

// proveKeys grants each action that needs a key with that key.
func proveKeys(t *testing.T, m *mount) []subject {
	var subjects []subject
	known := 0
	for _, prefix := range catalog.Services() {
		service, _ := catalog.ServiceByPrefix(prefix)
		for _, action := range service.Actions() {
			if _, needs := catalog.EncryptionOf(action.Name); !needs {
				continue
			}
			if encrypted[prefix] == "" {
				t.Errorf("%s needs a key, and no resource for it is known here", action.Name)
			}
			known++
			role := roles.Role{Action: action, Resource: encrypted[prefix]}
			switch action.Name {
			case "dynamodb:GetRecords":
				role.Resource += "/stream/2026-01-01T00:00:00.000"
			case "dynamodb:RestoreTableFromBackup":
				role.Companions = []string{role.Resource + "/backup/0123"}
			case "kinesis:SubscribeToShard":
				role.Resource += "/consumer/app:1"
			case "secretsmanager:CreateSecret":
				role.Resource = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/*"
			}
			if escalation, escalates := catalog.EscalationOf(action); escalates && escalation.Verdict == catalog.Refuse {
				role.AllowEscalation = true
			}
			made, refusal, err := m.subject(t.Context(), fmt.Sprintf("key-%d", known), role, map[string]any{"kms_key": anyKey})
			switch {
			case err != nil:
				t.Error(err)
			case refusal != "":
				t.Logf("refused: %s: %s", action.Name, refusal)
			default:
				subjects = append(subjects, *made)
			}
		}
	}
	if len(subjects)*10 < known*9 {
		t.Errorf("%d roles with a key make no proof", len(subjects))
	}
	c := newCourt(t)
	c.try(subjects, keyAsks, always)
	c.try(subjects, func(s *subject) []ask {
		return slices.Concat(grantAsks(s), otherActions(s), otherResources(s), otherConditions(s))
	}, always)
	t.Logf("roles with a key: %d of %d", len(subjects), known)
	t.Log(c.line())
	return subjects
}

// keyAsks are for the use of the key: as the service uses it, and in every other
// way.
func keyAsks(s *subject) []ask {
	needed, _ := catalog.EncryptionOf(s.Action.Name)
	service := strings.NewReplacer("{region}", "eu-west-1", "*", "eu-west-1").Replace(needed.ViaService)
	contexts := encryptionContexts(s, needed)
	use := func(kind, action, key string, context judge.Context) ask {
		asked := s.ask(kind, action, key)
		known, _ := catalog.Find(action)
		maps.Copy(asked.context, context)
		asked.context["kms:ViaService"] = []string{service}
		asked.context["kms:GrantIsForAWSResource"] = []string{"true"}
		for name := range asked.context {
			if strings.HasPrefix(name, "kms:") && !carries(known, key, name) {
				asked.context[name] = nil
			}
		}
		return asked
	}
	var all []ask
	for _, action := range needed.Actions {
		for _, context := range contexts {
			granted := use("the key", action, anyKey, context)
			granted.granted = true
			all = append(all, granted)
		}
		// What the key's own policy gives through the service, the service asks for:
		// that is not for the credential to deny.
		for name, values := range contexts[0] {
			known, _ := catalog.Find(action)
			if values[0] != unknown && carries(known, anyKey, name) {
				other := use("", action, anyKey, contexts[0]).with("the key for another resource", name, "x"+values[0])
				other.ambient = true
				all = append(all, other)
			}
		}
		if action == "kms:CreateGrant" {
			other := use("", action, anyKey, contexts[0]).with("the key for somebody's own grant", "kms:GrantIsForAWSResource", "false")
			other.ambient = true
			all = append(all, other)
		}
		outside := use("", action, anyKey, contexts[0])
		all = append(all,
			outside.with("the key directly", "kms:ViaService"),
			outside.with("the key through another service", "kms:ViaService", "workmail.eu-west-1.amazonaws.com"),
			outside.with("the key through another service", "kms:ViaService", "x"+service),
			outside.with("the key after the end", "aws:CurrentTime", stamp(s.end)),
			outside.with("the key after the end", "aws:CurrentTime", stamp(s.end.Add(time.Hour))),
			use("another key", action, anyKey[:len(anyKey)-1]+"c", contexts[0]),
			use("another key", action, anyKey+"1", contexts[0]),
			use("another account's key", action, strings.Replace(anyKey, roles.Account, roles.Other, 1), contexts[0]))
	}
	kms, _ := catalog.ServiceByPrefix("kms")
	for _, action := range kms.Actions() {
		if !slices.Contains(needed.Actions, action.Name) && len(roles.Types(action, anyKey)) > 0 {
			all = append(all, use("another action on the key", action.Name, anyKey, contexts[0]))
		}
	}
	return all
}

// unknown stands for a value of an encryption context that nobody knows before
// the call.
const unknown = "drawn-by-the-service"

// encryptionContexts are those that the service sends for a resource of the
// role: several where it may send one or the other.
func encryptionContexts(s *subject, needed catalog.Encryption) []judge.Context {
	resource := s.instances()[0]
	bucket, key, _ := strings.Cut(resource, "/")
	table, _, _ := strings.Cut(key, "/")
	fill := strings.NewReplacer("{resource}", resource, "{bucket}", bucket, "{table}", table, "{account}", s.account)
	contexts := []judge.Context{{}}
	for _, pair := range needed.Context {
		values := pair.Values
		if len(values) == 0 {
			values = []string{unknown}
		}
		var more []judge.Context
		for _, value := range values {
			for _, context := range contexts {
				filled := maps.Clone(context)
				filled["kms:EncryptionContext:"+pair.Key] = []string{fill.Replace(value)}
				more = append(more, filled)
			}
		}
		contexts = more
	}
	return contexts
}
