package tests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/roles"
)

const (
	// seed draws the roles of the proof. Any will do.
	seed = 20261124
	// writers is how many roles are written side by side.
	writers = 8
	// judges is how many evaluators work side by side.
	judges = 2
)

// subject is a role that the engine took, with the policy that it would mint.
type subject struct {
	roles.Role
	name    string
	policy  string
	end     time.Time
	account string // that the resource is of
	key     string // kms_key, empty without one
}

// TestExactness holds what the engine mints against an evaluator of policies by
// others: roles all over AWS's catalogue are written, and everything around each
// grant has to be denied, whatever the resource's own policy says.
func TestExactness(t *testing.T) {
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName})
	m.write("config/prod", m.cloudConfig())

	subjects := accepted(t, m, roles.Generate(seed))
	t.Run("grants", func(t *testing.T) { proveGrants(t, subjects) })
	t.Run("services", func(t *testing.T) { proveServices(t, subjects) })
	t.Run("accounts", func(t *testing.T) { subjects = append(subjects, proveAccounts(t, m)...) })
	t.Run("keys", func(t *testing.T) { subjects = append(subjects, proveKeys(t, m)...) })
	t.Run("check", func(t *testing.T) { proveCheck(t, m, subjects) })
}

// accepted writes the roles and returns those that the engine took. It fails
// where that are too few for a proof, or too many to be true.
func accepted(t *testing.T, m *mount, candidates []roles.Role) []subject {
	t.Helper()
	taken := make([]*subject, len(candidates))
	refusals := make([]string, len(candidates))
	sideBySide(writers, len(candidates), func(i int) error {
		var err error
		taken[i], refusals[i], err = m.subject(t.Context(), fmt.Sprintf("role-%d", i), candidates[i], nil)
		return err
	}, t.Error)

	var subjects []subject
	for _, each := range taken {
		if each != nil {
			subjects = append(subjects, *each)
		}
	}
	reasons := map[string]int{}
	for _, text := range refusals {
		if text != "" {
			reasons[reasonOf(text)]++
		}
	}
	for _, reason := range slices.SortedFunc(maps.Keys(reasons), func(a, b string) int { return cmp.Or(reasons[b]-reasons[a], strings.Compare(a, b)) }) {
		t.Logf("refused %4d: %s", reasons[reason], reason)
	}

	services, wild, conditions, companions, bound := map[string]bool{}, 0, 0, 0, 0
	var granted []roles.Role
	for _, each := range subjects {
		services[each.Service()] = true
		granted = append(granted, each.Role)
		wild += count(strings.HasSuffix(each.Resource, "*"))
		conditions += len(each.Conditions)
		companions += len(each.Companions)
		bound += count(each.BoundSourceIP)
	}
	levels := roles.Levels(granted)
	t.Logf("roles: %d of %d were taken, %d services; %d with a wildcard, %d conditions, %d companions, %d bound to an address", len(subjects), len(candidates), len(services), wild, conditions, companions, bound)
	t.Logf("access levels: %s", roles.Counted(levels))
	if len(subjects) < 500 || len(services) < 60 || len(subjects)*100 < len(candidates)*45 || len(subjects)*100 > len(candidates)*90 {
		t.Errorf("%d of %d roles in %d services make no proof", len(subjects), len(candidates), len(services))
	}
	if wild*4 < len(subjects) || conditions < 200 || companions < 10 || bound < 50 {
		t.Errorf("the roles are too much alike")
	}
	for _, level := range []string{"Read", "List", "Write", "Tagging", "Permissions management"} {
		if levels[level] < 20 {
			t.Errorf("%d roles of level %s make no proof", levels[level], level)
		}
	}
	return subjects
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

// subject writes a role with further options and reads its policy. It is nil
// where the engine refuses the role, and then the refusal is there.
func (m *mount) subject(ctx context.Context, name string, role roles.Role, options map[string]any) (*subject, string, error) {
	fields := with(role.Fields(), map[string]any{"target": "prod", "ttl": "1h"})
	maps.Copy(fields, options)
	_, err := m.Logical().WriteWithContext(ctx, m.path+"/roles/"+name, fields)
	var answer *api.ResponseError
	if errors.As(err, &answer) && answer.StatusCode == http.StatusBadRequest {
		return nil, strings.Join(answer.Errors, "; "), nil
	}
	if err != nil {
		return nil, "", err
	}
	secret, err := m.Logical().ReadWithContext(ctx, m.path+"/preview/"+name+"/JIRA-1")
	if err != nil {
		return nil, "", err
	}
	end, err := time.Parse(time.RFC3339, secret.Data["expires_at"].(string))
	if err != nil {
		return nil, "", err
	}
	made := &subject{Role: role, name: name, policy: secret.Data["policy"].(string), end: end, account: roles.Account}
	made.key, _ = options["kms_key"].(string)
	if other, foreign := options["resource_account"].(string); foreign {
		made.account = other
	}
	return made, "", nil
}

// quoted is what differs between refusals for the same reason.
var quoted = regexp.MustCompile(`"[^"]*"|\b[a-z0-9-]+:[A-Za-z0-9]+\b|arn:\S+|; .*|\(.*\)|of type.*|names? .*`)

// reasonOf is the kind of a refusal.
func reasonOf(refusal string) string {
	reason := strings.Join(strings.Fields(quoted.ReplaceAllString(refusal, "_")), " ")
	return reason[:min(len(reason), 110)]
}

// sideBySide does all of count tasks, some at once.
func sideBySide(workers, count int, task func(int) error, failed func(...any)) {
	next := make(chan int)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for i := range next {
				if err := task(i); err != nil {
					failed(err)
				}
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	wait.Wait()
}

// covers says whether the role grants something on the resource.
func (s subject) covers(resource string) bool {
	for _, granted := range append([]string{s.Resource}, s.Companions...) {
		prefix, wild := strings.CutSuffix(granted, "*")
		if resource == granted || wild && strings.HasPrefix(resource, prefix) {
			return true
		}
	}
	return false
}

// instances are resources that the role grants: each of its own.
func (s subject) instances() []string {
	var all []string
	for _, granted := range append([]string{s.Resource}, s.Companions...) {
		all = append(all, roles.Instance(granted))
	}
	return all
}

// ask is a request that somebody with the credential makes.
type ask struct {
	kind             string // of what it tries
	action, resource string
	account          string // of the resource
	context          judge.Context
	granted          bool // whether it is the grant
	// ambient: what the resource's own policy gives, this one neither gives nor
	// denies.
	ambient bool
}

// ask is a request of the credential for an action on a resource, all
// conditions met, in time.
func (s subject) ask(kind, action, resource string) ask {
	asked := ask{kind: kind, action: action, resource: resource, account: s.account, context: judge.Context{
		"aws:CurrentTime":    {stamp(s.end.Add(-time.Second))},
		"aws:PrincipalOrgID": {organisation},
	}}
	if parts := strings.SplitN(resource, ":", 6); len(parts) == 6 && parts[4] != "" {
		asked.account = parts[4]
	}
	asked.context["aws:ResourceAccount"] = []string{asked.account}
	if s.BoundSourceIP {
		asked.context["aws:SourceIp"] = []string{loopback}
	}
	if roles.ServiceOf(action) == "kms" {
		asked.context["kms:ViaService"] = nil
		if needed, _ := catalog.EncryptionOf(s.Action.Name); s.key != "" {
			asked.context["kms:GrantIsForAWSResource"] = nil
			for _, pair := range needed.Context {
				asked.context["kms:EncryptionContext:"+pair.Key] = nil
			}
		}
	}
	known, _ := catalog.Find(action)
	for _, condition := range s.Conditions {
		switch {
		case condition.Always && condition.Met == nil:
		case carries(known, resource, condition.Key):
			asked.context[condition.Key] = condition.Met
		default:
			asked.context[condition.Key] = nil
		}
	}
	return asked
}

const (
	organisation = "o-example"
	loopback     = "127.0.0.1" // where the tests call Vault from
)

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339) }

// with is the ask with another value in its context, or none.
func (a ask) with(kind, key string, values ...string) ask {
	a.kind, a.context = kind, maps.Clone(a.context)
	a.context[key] = values
	return a
}

// ofSome are global keys that only some actions carry.
var ofSome = regexp.MustCompile(`(?i)\Aaws:(?:ResourceTag/|RequestTag/|TagKeys\z)`)

// carries says whether a request for the action on that resource has the key.
func carries(action catalog.Action, resource, key string) bool {
	if _, global := catalog.GlobalKey(key); global && !ofSome.MatchString(key) {
		return true
	}
	if roles.ServiceOf(action.Name) == "s3" && strings.HasPrefix(strings.ToLower(key), "aws:resourcetag/") {
		return false // only with a setting of the bucket, which the judge does not know
	}
	for _, carried := range roles.KeysOf(action, resource) {
		fixed, _, _ := strings.Cut(strings.ReplaceAll(carried, "<", "${"), "${")
		if strings.EqualFold(carried, key) || fixed != carried && len(key) > len(fixed) && strings.EqualFold(fixed, key[:len(fixed)]) {
			return true
		}
	}
	return false
}
