package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/roles"
)

// proveCheck asks the plugin what the judge was asked, and expects the same
// answers. The end of a grant to the second can't be asked about, since each
// check is of a credential that would be read at that moment.
func proveCheck(t *testing.T, m *mount, subjects []subject) {
	const count = 2400
	draw := rand.New(rand.NewPCG(seed, 1))
	var questions []question
	for len(questions) < count {
		// One of each kind, so that rare kinds are as many as common ones.
		s := &subjects[draw.IntN(len(subjects))]
		asks := slices.Concat(grantAsks(s), otherActions(s), otherResources(s), otherConditions(s), keysOfTheService(s))
		if s.key != "" {
			asks = slices.Concat(grantAsks(s), keyAsks(s))
		}
		draw.Shuffle(len(asks), func(i, j int) { asks[i], asks[j] = asks[j], asks[i] })
		asked := map[string]bool{}
		for _, each := range asks {
			if asked[each.kind] || !s.checkable(each) {
				continue
			}
			asked[each.kind] = true
			if draw.IntN(6) == 0 {
				each = each.through(via[draw.IntN(len(via))])
			}
			set := settings[draw.IntN(len(settings))]
			for set.session {
				set = settings[draw.IntN(len(settings))]
			}
			questions = append(questions, each.in(s, set))
		}
	}

	evaluator, err := judge.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer evaluator.Close()
	requests := make([]judge.Request, len(questions))
	for i, each := range questions {
		requests[i] = each.Request
	}
	verdicts, err := evaluator.Decide(t.Context(), requests)
	if err != nil {
		t.Fatal(err)
	}
	kinds, effects := map[string]int{}, map[string]int{}
	for i, each := range questions {
		kinds[each.ask.kind]++
		effects[string(verdicts[i])]++
	}
	differ := make([]string, len(questions))
	sideBySide(writers, len(questions), func(i int) error {
		effect, reason, err := m.check(t.Context(), questions[i])
		if err == nil && effect != string(verdicts[i]) {
			differ[i] = fmt.Sprintf("%s because %s", effect, reason)
		}
		return err
	}, t.Error)
	wrong := 0
	for i, said := range differ {
		if said == "" {
			continue
		}
		const shown = 10
		if wrong++; wrong > shown {
			continue
		}
		each := questions[i]
		why, err := evaluator.Explain(t.Context(), each.Request)
		if err != nil {
			t.Error(err)
		}
		t.Errorf("%s, %s: %s on %s with %v under %s by\n%s\ncheck says %s\nthe judge says %s", each.ask.kind, each.setting.name, each.Action, each.Resource, each.Context, each.ResourcePolicy, each.subject.policy, said, why)
	}
	t.Logf("checks: %d (%s), differing from the judge: %d; %s", len(questions), roles.Counted(effects), wrong, roles.Counted(kinds))
}

// checkable says whether the question can be put to the plugin.
func (s *subject) checkable(asked ask) bool {
	const late = 30 * 24 * time.Hour // no test runs for so long
	at, err := time.Parse(time.RFC3339, asked.context["aws:CurrentTime"][0])
	return err == nil && (at.Before(s.end) || at.After(s.end.Add(late)))
}

// check asks check/:role, which judges a user.
func (m *mount) check(ctx context.Context, asked question) (effect, reason string, err error) {
	more := map[string]any{}
	query := map[string][]string{"action": {asked.Action}, "resource": {asked.Resource}, "task": {"JIRA-1"}}
	for key, values := range asked.Context {
		switch {
		case len(values) == 0:
		case key == "aws:CurrentTime":
			query["time"] = values
		case key == "aws:SourceIp":
			query["source_ip"] = values
		case len(values) == 1:
			more[key] = values[0]
		default:
			more[key] = values
		}
	}
	text, err := json.Marshal(more)
	if err != nil {
		return "", "", err
	}
	query["context"] = []string{string(text)}
	if asked.ResourcePolicy != "" {
		query["resource_policy"] = []string{asked.ResourcePolicy}
	}
	secret, err := m.Logical().ReadWithDataWithContext(ctx, m.path+"/check/"+asked.subject.name, query)
	if err != nil {
		return "", "", fmt.Errorf("%s on %s: %w", asked.Action, asked.Resource, err)
	}
	effect, _ = secret.Data["effect"].(string)
	reason, _ = secret.Data["reason"].(string)
	return effect, reason, nil
}
