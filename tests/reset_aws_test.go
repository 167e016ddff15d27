package tests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/roles"
)

// call sends a request of AWS's JSON protocol, and decodes the answer.
// https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
func call(ctx context.Context, key lab.Key, service, operation string, input map[string]any, output any) error {
	body, err := json.Marshal(input)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, servers.Cloud.Endpoint+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", operation)
	sum := sha256.Sum256(body)
	credentials := aws.Credentials{AccessKeyID: key.Access, SecretAccessKey: key.Secret, SessionToken: key.Token}
	if err := v4.NewSigner().SignHTTP(ctx, credentials, request, hex.EncodeToString(sum[:]), service, lab.Region, time.Now()); err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		var refusal struct { // of moto's own, which is XML whatever the protocol
			Code string `xml:"Errors>Error>Code"`
		}
		_ = xml.Unmarshal(text, &refusal)
		return &smithy.GenericAPIError{Code: refusal.Code, Message: string(text)}
	}
	if output == nil {
		return nil
	}
	return json.Unmarshal(text, output)
}

// One secret is reset in AWS's Secrets Manager, and nothing else can be done with the
// credential. moto judges the action; the judge the resource, the end, and what others
// let everybody do.
func TestResetOfASecretInAWS(t *testing.T) {
	m := newMount(t)
	ctx, root := t.Context(), servers.Cloud.Auditor()
	const service = "secretsmanager"
	arns := map[string]string{}
	for _, name := range []string{"payments/db", "payments/other"} {
		var made struct{ ARN string }
		if err := call(ctx, root, service, "secretsmanager.CreateSecret", map[string]any{"Name": name, "SecretString": "old"}, &made); err != nil {
			t.Fatal(err)
		}
		arns[name] = made.ARN
	}
	granted := arns["payments/db"]
	m.write("roles/reset-secret", map[string]any{"target": "prod", "action": "secretsmanager:PutSecretValue", "resource": granted, "ttl": "15m"})
	minted := m.mint("reset-secret/INC-7")
	put := func(key lab.Key, arn, value string) error {
		return call(ctx, key, service, "secretsmanager.PutSecretValue", map[string]any{"SecretId": arn, "SecretString": value}, nil)
	}
	allowed(t, "the reset", put(minted.key, granted, "new"))
	var read struct{ SecretString string }
	if err := call(ctx, root, service, "secretsmanager.GetSecretValue", map[string]any{"SecretId": granted}, &read); err != nil || read.SecretString != "new" {
		t.Errorf("the secret is %q (%v), want new", read.SecretString, err)
	}
	for _, operation := range []string{"GetSecretValue", "DescribeSecret", "DeleteSecret", "ListSecrets", "UpdateSecret", "TagResource", "PutResourcePolicy", "RotateSecret", "GetRandomPassword"} {
		denied(t, operation, call(ctx, minted.key, service, "secretsmanager."+operation, map[string]any{"SecretId": granted}, nil))
	}
	denied(t, "writing a parameter", call(ctx, minted.key, "ssm", "AmazonSSM.PutParameter", map[string]any{"Name": "/payments/db", "Value": "x", "Type": "String"}, nil))

	m.judgeReset(minted, "secretsmanager:PutSecretValue", granted, arns["payments/other"])
	if err := m.Sys().RevokeWithOptionsWithContext(ctx, revokeNow(minted.LeaseID)); err != nil {
		t.Fatal(err)
	}
	denied(t, "a reset with the revoked credential", put(minted.key, granted, "newer"))

	listed, err := m.Logical().ListWithContext(ctx, m.path+"/grants/by-task/INC-7")
	if err != nil {
		t.Fatal(err)
	}
	if keys := listed.Data["keys"].([]any); len(keys) != 1 || keys[0] != minted.grant() {
		t.Errorf("the task has had %v, want %s", keys, minted.grant())
	}
	record := m.read("grants/" + minted.grant()).Data
	for field, want := range map[string]any{"state": "revoked", "action": "secretsmanager:PutSecretValue", "resource": granted, "display_name": "root", "task": "INC-7"} {
		if record[field] != want {
			t.Errorf("%s is %v, want %v", field, record[field], want)
		}
	}
}

// judgeReset asks the judge about a credential's policy: its action on its resource is
// allowed, and of all that the service can do on that and on others nothing else,
// whatever a policy of the secret's own says.
func (m *mount) judgeReset(minted credential, action, granted, other string) {
	m.t.Helper()
	prefix, _, _ := strings.Cut(action, ":")
	service, known := catalog.ServiceByPrefix(prefix)
	if !known {
		m.t.Fatalf("%s is of no service", action)
	}
	var requests []judge.Request
	var wants []bool
	ask := func(action, resource string, at time.Time, resourcePolicy string, want bool) {
		requests = append(requests, judge.Request{
			Principal: holder, Action: action, Resource: resource, Account: lab.Account, Identity: []string{minted.Data["policy"].(string)}, ResourcePolicy: resourcePolicy,
			Context: judge.Context{"aws:CurrentTime": {stamp(at)}, "aws:ResourceAccount": {lab.Account}, "aws:PrincipalOrgID": {organisation}},
		})
		wants = append(wants, want)
	}
	end := minted.expiresAt
	for _, open := range []string{"", ambient(`"*"`, "")} {
		ask(action, granted, end.Add(-time.Second), open, true)
		ask(action, granted, end, open, false)
		ask(action, other, end.Add(-time.Second), open, false)
		for _, known := range service.Actions() {
			resources := []string{"*"}
			if len(known.Resources) > 0 {
				resources = []string{granted, other}
			}
			for _, resource := range resources {
				if known.Name != action && (resource == "*" || len(roles.Types(known, resource)) > 0) {
					ask(known.Name, resource, end.Add(-time.Second), open, false)
				}
			}
		}
	}
	evaluator, err := judge.Start(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	defer evaluator.Close()
	verdicts, err := evaluator.Decide(m.t.Context(), requests)
	if err != nil {
		m.t.Fatal(err)
	}
	granting := 0
	for i, request := range requests {
		if got := verdicts[i] == judge.Allowed; got != wants[i] {
			m.t.Errorf("%s on %s at %v: %s, want allowed %t", request.Action, request.Resource, request.Context["aws:CurrentTime"], verdicts[i], wants[i])
		}
		if wants[i] {
			granting++
		}
	}
	figures.Log(m.t, "%s: judged %d requests, allowed %d, all of them the grant", action, len(requests), granting)
}

// The same story with a parameter of Systems Manager, and with a rotation: the role is
// one field different.
func TestResetsThatOtherServicesKnow(t *testing.T) {
	m := newMount(t)
	for _, test := range []struct {
		action, resource, other string
	}{
		{"ssm:PutParameter", "arn:aws:ssm:us-east-1:" + lab.Account + ":parameter/payments/db", "arn:aws:ssm:us-east-1:" + lab.Account + ":parameter/payments/other"},
		{"secretsmanager:RotateSecret", "arn:aws:secretsmanager:us-east-1:" + lab.Account + ":secret:payments/db-AbCdEf", "arn:aws:secretsmanager:us-east-1:" + lab.Account + ":secret:payments/db-GhIjKl"},
	} {
		_, name, _ := strings.Cut(test.action, ":")
		role := strings.ToLower(name)
		m.write("roles/"+role, map[string]any{"target": "prod", "action": test.action, "resource": test.resource, "ttl": "15m"})
		minted := m.mint(role + "/INC-7")
		m.judgeReset(minted, test.action, test.resource, test.other)
		if test.action == "ssm:PutParameter" {
			allowed(t, "the reset", call(t.Context(), minted.key, "ssm", "AmazonSSM.PutParameter", map[string]any{"Name": "/payments/db", "Value": "new", "Type": "SecureString", "Overwrite": true}, nil))
			for _, operation := range []string{"GetParameter", "DeleteParameter", "GetParameterHistory"} {
				denied(t, operation, call(t.Context(), minted.key, "ssm", "AmazonSSM."+operation, map[string]any{"Name": "/payments/db"}, nil))
			}
		}
		if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID)); err != nil {
			t.Fatal(err)
		}
		denied(t, "a revoked credential", call(t.Context(), minted.key, "ssm", "AmazonSSM.PutParameter", map[string]any{"Name": "/payments/db", "Value": "newer", "Type": "String", "Overwrite": true}, nil))
	}
}
