package tests

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/roles"
)

const (
	holder      = "arn:aws:iam::" + roles.Account + ":user/precision/holder"
	baseRole    = "arn:aws:iam::" + roles.Account + ":role/base"
	baseSession = "arn:aws:sts::" + roles.Account + ":assumed-role/base/precision-x"
	everything  = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
)

// ambient is a resource's policy that lets somebody do everything.
func ambient(principal, condition string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":` + principal + `,"Action":"*","Resource":"*"` + condition + `}]}`
}

// delegated lets the account's own policies decide. Keys and roles ask for that.
var delegated = ambient(`{"AWS":"`+roles.Account+`"}`, "")

// setting is who holds the credential, and what the resource's own policy says.
type setting struct {
	name           string
	session        bool // a session of an administrator's role, with the policy as its session policy
	resourcePolicy string
}

var settings = func() []setting {
	open := map[string]string{
		"alone":            "",
		"everybody":        ambient(`"*"`, ""),
		"the organisation": ambient(`{"AWS":"*"}`, `,"Condition":{"StringEquals":{"aws:PrincipalOrgID":"`+organisation+`"}}`),
	}
	var all []setting
	for _, name := range []string{"alone", "everybody", "the organisation"} {
		all = append(all, setting{"user, " + name, false, open[name]}, setting{"session, " + name, true, open[name]})
	}
	return append(all,
		setting{"user, the user by name", false, ambient(`{"AWS":"`+holder+`"}`, "")},
		setting{"session, the session by name", true, ambient(`{"AWS":"`+baseSession+`"}`, "")},
		setting{"session, its role by name", true, ambient(`{"AWS":"`+baseRole+`"}`, "")},
	)
}()

// question is a request in a setting, and the answers that are right.
type question struct {
	judge.Request
	subject *subject
	ask     ask
	setting setting
}

// in is the request that the judge gets.
func (a ask) in(s *subject, set setting) question {
	request := judge.Request{
		Principal: holder, Action: a.action, Resource: a.resource, Account: a.account, Context: a.context,
		Identity: []string{s.policy}, ResourcePolicy: set.resourcePolicy,
	}
	if set.session {
		request.Principal, request.Identity, request.Session = baseSession, []string{everything}, s.policy
	}
	if set.resourcePolicy == "" && needsPolicy(a.action, a.resource) {
		request.ResourcePolicy = delegated
	}
	return question{request, s, a, set}
}

// needsPolicy says whether the resource always has a policy of its own.
func needsPolicy(action, resource string) bool {
	return strings.Contains(resource, ":kms:") && strings.Contains(resource, ":key/") ||
		strings.HasPrefix(strings.ToLower(action), "sts:assume") && strings.Contains(resource, ":role/")
}

// want says what the answer has to be. Where nothing but the policy allows
// anything, whatever is not granted must not be allowed. Where the resource's
// own policy allows it, only a denial keeps it out.
func (q question) want(got judge.Verdict) (string, bool) {
	switch {
	case q.ask.granted:
		return "Allowed", got == judge.Allowed
	case q.ask.ambient && q.setting.resourcePolicy == "":
		return "ImplicitlyDenied", got == judge.ImplicitlyDenied
	case q.ask.ambient && q.setting.session:
		return "not ExplicitlyDenied", got != judge.ExplicitlyDenied // AWS and the judge differ on what a session gets
	case q.ask.ambient:
		return "Allowed", got == judge.Allowed
	case q.setting.resourcePolicy == "":
		return "not Allowed", got == judge.ImplicitlyDenied || got == judge.ExplicitlyDenied
	default:
		return "ExplicitlyDenied", got == judge.ExplicitlyDenied
	}
}

// court judges questions and counts the answers.
type court struct {
	t        *testing.T
	lock     sync.Mutex
	kinds    map[string]int
	verdicts map[string]int
	total    int
	wrong    int
}

func newCourt(t *testing.T) *court {
	return &court{t: t, kinds: map[string]int{}, verdicts: map[string]int{}}
}

// try judges what asks there are of each subject, in every setting that suits.
func (c *court) try(subjects []subject, asks func(*subject) []ask, suits func(setting) bool) {
	c.t.Helper()
	next := make(chan *subject)
	var wait sync.WaitGroup
	for range judges {
		evaluator, err := judge.Start(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		wait.Go(func() {
			defer evaluator.Close()
			for each := range next {
				var questions []question
				for _, set := range settings {
					if !suits(set) {
						continue
					}
					for _, asked := range asks(each) {
						questions = append(questions, asked.in(each, set))
					}
				}
				c.decide(evaluator, questions)
			}
		})
	}
	for i := range subjects {
		next <- &subjects[i]
	}
	close(next)
	wait.Wait()
}

func always(setting) bool   { return true }
func openly(s setting) bool { return s.resourcePolicy != "" }
func (c *court) line() string {
	return fmt.Sprintf("verdicts: %d (%s), wrong: %d; %s", c.total, roles.Counted(c.verdicts), c.wrong, roles.Counted(c.kinds))
}

func (c *court) decide(evaluator *judge.Judge, questions []question) {
	requests := make([]judge.Request, len(questions))
	for i, each := range questions {
		requests[i] = each.Request
	}
	verdicts, err := evaluator.Decide(c.t.Context(), requests)
	c.lock.Lock()
	defer c.lock.Unlock()
	if err != nil {
		c.t.Errorf("role %s (%s on %s): %v", questions[0].subject.name, questions[0].subject.Action.Name, questions[0].subject.Resource, err)
	}
	for i, got := range verdicts {
		if got == "" {
			continue
		}
		c.total++
		c.kinds[questions[i].ask.kind]++
		c.verdicts[string(got)]++
		if want, right := questions[i].want(got); !right {
			c.accuse(evaluator, questions[i], want)
		}
	}
}

// accuse reports a wrong answer, the first few of them with all that is needed
// to see why.
func (c *court) accuse(evaluator *judge.Judge, asked question, want string) {
	const shown = 10
	if c.wrong++; c.wrong > shown {
		return
	}
	why, err := evaluator.Explain(c.t.Context(), asked.Request)
	if err != nil {
		why = err.Error()
	}
	c.t.Errorf("%s, %s: %s on %s with %v: got %s, want %s, by\n%s", asked.ask.kind, asked.setting.name, asked.Action, asked.Resource, asked.Context, why, want, asked.subject.policy)
}
