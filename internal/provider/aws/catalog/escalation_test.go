package catalog

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestEscalationTable(t *testing.T) {
	classes := []string{"identity", "policy", "credential", "code", "exec", "pass", "fas-proxy", "guard", "runs", "secret", "traffic", "copy"}
	count := map[string]int{}
	for _, row := range table("escalation.tsv", tableFiles["escalation.tsv"]...) {
		action, _ := Find(row[0])
		if !slices.Contains(classes, row[1]) || row[2] != Refuse && row[2] != Warn || row[6] == "" {
			t.Errorf("%s: class %q, verdict %q, reason %q", row[0], row[1], row[2], row[6])
		}
		if levels := strings.Join(action.AccessLevels, ", "); row[3] != levels {
			t.Errorf("%s: access level %q, in the catalogue %q", row[0], row[3], levels)
		}
		if resources := len(action.Resources) > 0; resources != (row[4] == "yes") {
			t.Errorf("%s: resource level %q, in the catalogue %v", row[0], row[4], resources)
		}
		count[row[2]]++
	}
	if want := map[string]int{Refuse: 4595, Warn: 696}; !maps.Equal(count, want) {
		t.Errorf("%v rows, not %v", count, want)
	}
}

func TestEscalationOf(t *testing.T) {
	for name, want := range map[string]struct{ class, verdict string }{
		"iam:CreateAccessKey": {"identity", Refuse}, "iam:PassRole": {"pass", Refuse}, "sts:AssumeRole": {"credential", Refuse},
		"s3:PutBucketPolicy": {"policy", Refuse}, "lambda:UpdateFunctionCode": {"code", Refuse}, "ssm:SendCommand": {"exec", Refuse},
		"secretsmanager:GetSecretValue": {"secret", Warn}, "s3:PutObject": {"runs", Warn},
		// by rule
		"sso-oauth:RevokeTokenWithIAM": {"identity", Refuse}, "bedrock-agentcore:InvokeGateway": {"policy", Refuse},
	} {
		action, _ := Find(name)
		escalation, found := EscalationOf(action)
		if !found || escalation.Action != name || escalation.Class != want.class || escalation.Verdict != want.verdict || escalation.Reason == "" || escalation.Source == "" {
			t.Errorf("%s: %+v, %v; want %v", name, escalation, found, want)
		}
	}
	for _, name := range []string{"s3:GetObject", "s3:DeleteObject", "sqs:ReceiveMessage", "dynamodb:GetItem", "iam:GetUser", "iam:ListRoles", "billing:GetResourcePolicy"} {
		action, _ := Find(name)
		if escalation, found := EscalationOf(action); found {
			t.Errorf("%s: %+v", name, escalation)
		}
	}
}

// TestEscalationRules holds the rules for actions that no table knows.
func TestEscalationRules(t *testing.T) {
	for _, action := range []Action{
		{Name: "iam:New", AccessLevels: []string{"Write"}},
		{Name: "iam:New", AccessLevels: []string{"Tagging", "Write"}},
		{Name: "sso-new:New", AccessLevels: []string{"Write"}},
		{Name: "identitystore-new:New", AccessLevels: []string{"Read", "Write"}},
		{Name: "account:New"},
		{Name: "s3:New", AccessLevels: []string{"Permissions management", "Write"}},
		{Name: "s3:New", AccessLevels: []string{"Permissions management"}},
	} {
		if escalation, found := EscalationOf(action); !found || escalation.Verdict != Refuse {
			t.Errorf("%+v: %+v, %v", action, escalation, found)
		}
	}
	if escalation, found := EscalationOf(Action{Name: "iam:New", AccessLevels: []string{"List"}}); found {
		t.Errorf("a new action that only lists: %+v", escalation)
	}
}

// TestNothingEscapesTheRules holds the table and the exceptions to the rules over
// the whole catalogue.
func TestNothingEscapesTheRules(t *testing.T) {
	excepted := 0
	for _, prefix := range Services() {
		service, _ := ServiceByPrefix(prefix)
		for _, action := range service.Actions() {
			escalation, found := EscalationOf(action)
			if identityPlane(prefix) && !readsOnly(action.AccessLevels) && escalation.Verdict != Refuse {
				t.Errorf("%s writes in an identity service and is not refused", action.Name)
			}
			switch manages := slices.Contains(action.AccessLevels, permissionsManagement); {
			case exceptions()[action.Name] && (!manages || found):
				t.Errorf("%s is no exception to the rule on access levels", action.Name)
			case exceptions()[action.Name]:
				excepted++
			case manages && !found:
				t.Errorf("%s manages permissions and is not listed", action.Name)
			}
		}
	}
	if excepted != len(exceptions()) {
		t.Errorf("%d exceptions are in force, not %d", excepted, len(exceptions()))
	}
}
