package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// fakeUsers is the part of AWS that users hang on, in memory: for thousands of users,
// and for throttling as hard as no server can be told to.
type fakeUsers struct {
	url string

	mu        sync.Mutex
	users     map[string]*fakeUser
	rate      float64 // calls a second that are served; 0: all
	tokens    float64
	filled    time.Time
	calls     int // served and throttled, since rate was set
	throttled int
	lastKill  time.Time // when the last key or policy went
	lastTidy  time.Time // when the last user went
}

type fakeUser struct{ key, policy string }

func newFakeUsers(t *testing.T) *fakeUsers {
	t.Helper()
	f := &fakeUsers{users: map[string]*fakeUser{}}
	server := httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// throttle has so many calls a second served from now on.
func (f *fakeUsers) throttle(rate float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rate, f.tokens, f.filled, f.calls, f.throttled = rate, rate/10, time.Now(), 0, 0
}

// left counts the users that are there, and those of them whose key or policy is.
func (f *fakeUsers) left() (users, alive int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, user := range f.users {
		if user.key != "" || user.policy != "" {
			alive++
		}
	}
	return len(f.users), alive
}

func (f *fakeUsers) serve(writer http.ResponseWriter, request *http.Request) {
	if err := request.ParseForm(); err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	action := request.PostForm.Get("Action")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	result, code := "", "Throttling"
	if f.admits(time.Now()) {
		result, code = f.do(action, request.PostForm)
	} else {
		f.throttled++
	}
	if code != "" {
		writer.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(writer, "<ErrorResponse><Error><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>", code, action)
		return
	}
	_, _ = fmt.Fprintf(writer, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>", action, result)
}

func (f *fakeUsers) admits(now time.Time) bool {
	if f.rate == 0 {
		return true
	}
	f.tokens = min(f.rate/10, f.tokens+now.Sub(f.filled).Seconds()*f.rate)
	f.filled = now
	if f.tokens < 1 {
		return false
	}
	f.tokens--
	return true
}

// do carries a call out. The code is IAM's for an error.
func (f *fakeUsers) do(action string, form url.Values) (result, code string) {
	name := form.Get("UserName")
	user := f.users[name]
	switch action {
	case "GetCallerIdentity":
		return element("Arn", "arn:aws:iam::"+lab.Account+":user/engine") + element("Account", lab.Account) + element("UserId", "AIDAENGINE"), ""
	case "ListUsers":
		return element("IsTruncated", "false") + element("Users", ""), ""
	case "CreateUser":
		if user != nil {
			return "", "EntityAlreadyExists"
		}
		f.users[name] = &fakeUser{}
		return "", ""
	}
	if user == nil {
		return "", "NoSuchEntity"
	}
	switch action {
	case "PutUserPolicy":
		user.policy = form.Get("PolicyDocument")
	case "CreateAccessKey":
		user.key = "AKIA" + name
		return element("AccessKey", element("UserName", name)+element("AccessKeyId", user.key)+element("SecretAccessKey", "secret")+element("Status", "Active")), ""
	case "ListAccessKeys": // by an engine that was killed: its ledger does not have the key
		list := ""
		if user.key != "" {
			list = element("member", element("UserName", name)+element("AccessKeyId", user.key)+element("Status", "Active"))
		}
		return element("IsTruncated", "false") + element("AccessKeyMetadata", list), ""
	case "DeleteAccessKey":
		if user.key != form.Get("AccessKeyId") {
			return "", "NoSuchEntity"
		}
		user.key, f.lastKill = "", time.Now()
	case "DeleteUserPolicy":
		if user.policy == "" {
			return "", "NoSuchEntity"
		}
		user.policy, f.lastKill = "", time.Now()
	case "DeleteUser":
		if user.key != "" || user.policy != "" {
			return "", "DeleteConflict"
		}
		delete(f.users, name)
		f.lastTidy = time.Now()
	default:
		return "", "InvalidAction"
	}
	return "", ""
}
