package catalog

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog/internal/review"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// dataFile reads a table that is not packed.
func dataFile(t *testing.T, name string, columns ...string) [][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("data", name))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parse(string(text), columns)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return rows
}

// reviewable is the whole catalogue as the generators of hits take it.
func reviewable() []review.Action {
	var actions []review.Action
	for _, prefix := range Services() {
		service, _ := ServiceByPrefix(prefix)
		for _, action := range service.Actions() {
			grantable := slices.Contains([]Joint{Single, All, One, Leaf}, Authorised(action).Kind)
			actions = append(actions, review.Action{Name: action.Name, Writes: !readsOnly(action.AccessLevels), Grantable: grantable})
		}
	}
	return actions
}

func verdictOf(name string) string {
	action, _ := Find(name)
	escalation, _ := EscalationOf(action)
	return escalation.Verdict
}

// answerHits turns the table of answers into hits.
func answerHits(t *testing.T, actions []review.Action) []review.Hit {
	t.Helper()
	grantable := map[string]bool{}
	for _, action := range actions {
		grantable[action.Name] = action.Grantable
	}
	var hits []review.Hit
	for _, row := range dataFile(t, "answers.tsv", "action", "members", "source") {
		if !canonical(row[0]) {
			t.Errorf("answers.tsv: no action %q", row[0])
		}
		if grantable[row[0]] {
			hits = append(hits, review.Hit{Action: row[0], Reason: "it answers with " + row[1]})
		}
	}
	return hits
}

// TestEveryHitHasAVerdict fails for an action that looks like a reviewed one, takes
// from a guard or answers with something like a credential, and that nobody has
// judged. Its verdict belongs into escalation.tsv (refuse, warn) or reviewed.tsv
// (fine), with a reason and a source.
func TestEveryHitHasAVerdict(t *testing.T) {
	fine := map[string]bool{}
	for _, row := range dataFile(t, "reviewed.tsv", "action", "reason", "source") {
		switch {
		case !canonical(row[0]):
			t.Errorf("reviewed.tsv: no action %q", row[0])
		case fine[row[0]]:
			t.Errorf("reviewed.tsv: %s is there twice", row[0])
		case row[1] == "" || row[2] == "":
			t.Errorf("reviewed.tsv: %s has no reason or no source", row[0])
		case escalations()[row[0]].Verdict != "":
			t.Errorf("%s is in reviewed.tsv and in escalation.tsv", row[0])
		}
		fine[row[0]] = true
	}
	refused := func(name string) bool { return verdictOf(name) == Refuse }
	reviewed := func(name string) bool { return fine[name] || exceptions()[name] || verdictOf(name) != "" }
	actions := reviewable()
	for name, hits := range map[string][]review.Hit{
		"siblings": review.Siblings(actions, refused), "twins": review.Twins(actions, refused), "guards": review.Guards(actions),
		"named": review.Named(actions), "answers": answerHits(t, actions),
	} {
		if len(hits) == 0 {
			t.Errorf("%s finds nothing", name)
		}
		for _, hit := range review.Unreviewed(hits, reviewed) {
			t.Errorf("%s: %s has no verdict: %s", name, hit.Action, hit.Reason)
		}
		count := map[string]int{}
		seen := map[string]bool{}
		for _, hit := range hits {
			if !seen[hit.Action] {
				seen[hit.Action] = true
				count[verdictOf(hit.Action)]++
			}
		}
		figures.Log(t, "%s: %d hits, %d refused, %d warned of, %d fine", name, len(seen), count[Refuse], count[Warn], count[""])
	}
}

// TestHitsAreFound takes the verdict of each of these away and wants the
// generators to ask for it.
func TestHitsAreFound(t *testing.T) {
	actions := reviewable()
	for name, missed := range map[string][]string{
		"sibling": {
			"glue:UpdateJobFromSourceControl", "synthetics:StartCanaryDryRun", "autoscaling:StartInstanceRefresh", "codecommit:MergePullRequestBySquash",
			"lambda:UpdateFunctionEventInvokeConfig", "guardduty:UpdateIPSet", "states:UpdateStateMachineAlias", "bedrock:UpdateAgentAlias",
		},
		"guard": {
			"guardduty:UpdateIPSet", "cloudwatch:DeleteAlarms", "logs:PutRetentionPolicy", "ssm:UpdatePatchBaseline",
			"backup:PutBackupVaultLockConfiguration", "config:PutConfigurationRecorder", "sagemaker:StopMonitoringSchedule",
			"servicequotas:RequestServiceQuotaIncrease", "ec2:DetachImageWatermark",
		},
		"answer": {
			"kinesisvideo:GetHLSStreamingSessionURL", "bedrock-agentcore:GetWorkloadAccessToken", "chime:CreateAttendee",
			"connect:CreateParticipant", "finspace:GetKxConnectionString", "iotwireless:GetWirelessDevice",
			"iotanalytics:GetDatasetContent", "quicksight:DescribeAssetBundleExportJob",
		},
		"named": {"codeconnections:GetConnectionToken", "codestar-connections:GetConnectionToken"},
	} {
		for _, action := range missed {
			refused := func(name string) bool { return name != action && verdictOf(name) == Refuse }
			var hits []review.Hit
			switch name {
			case "sibling":
				hits = append(review.Siblings(actions, refused), review.Twins(actions, refused)...)
			case "guard":
				hits = review.Guards(actions)
			case "answer":
				hits = answerHits(t, actions)
			case "named":
				hits = review.Named(actions)
			}
			if !slices.ContainsFunc(hits, func(hit review.Hit) bool { return hit.Action == action }) {
				t.Errorf("%s: nothing asks for a verdict on %s", name, action)
			}
		}
	}
}

// TestLook holds that each warning says what its reader can look at.
func TestLook(t *testing.T) {
	for name, escalation := range escalations() {
		if warns := escalation.Verdict == Warn; warns != (escalation.Look != "") {
			t.Errorf("%s: verdict %s, look %q", name, escalation.Verdict, escalation.Look)
		}
		if strings.Contains(escalation.Look, "{") && !strings.Contains(escalation.Look, "{resource}") && !strings.Contains(escalation.Look, "{name}") && !strings.Contains(escalation.Look, "{bucket}") {
			t.Errorf("%s: %q has no known place to fill in", name, escalation.Look)
		}
	}
}
