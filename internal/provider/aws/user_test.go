package aws

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// iamSays opens an account whose IAM API answers each action with an error's code, or
// with nothing where it has none; called says what was asked.
func iamSays(t *testing.T, code func(action string) string) (opened *account, called func() []string) {
	t.Helper()
	return iamAnswers(t, func(form url.Values) (result, said string) { return "", code(form.Get("Action")) })
}

// iamAnswers is iamSays with an API that sees the whole request and answers with a result
// where it has no error's code.
func iamAnswers(
	t *testing.T, answer func(form url.Values) (result, code string),
) (opened *account, called func() []string) {
	t.Helper()
	var mu sync.Mutex
	var calls []string
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if err := request.ParseForm(); err != nil {
			t.Error(err)
		}
		action := request.Form.Get("Action")
		mu.Lock()
		calls = append(calls, action)
		mu.Unlock()
		result, said := answer(request.Form)
		if said != "" {
			writer.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(writer, errorAnswer(said))
			return
		}
		_, _ = fmt.Fprintf(writer, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>", action, result)
	}))
	t.Cleanup(server.Close)
	opened, err := open(provider.Settings{"region": "eu-west-1", "access_key": "AKIA", "secret_key": "x", "iam_endpoint": server.URL, "max_retries": 0}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return opened, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(calls)
	}
}

var someUser = provider.Handle{handleUser: "precision-002da961aaaaaaaaaaaaaaaa", handleKey: "AKIAX"}

// Cleaning up after a disabled user that AWS throttles makes no call that would go before
// those that disable others, while the user is denied everything.
func TestCleaningUpTakesNoDisablingsTurn(t *testing.T) {
	opened, called := iamSays(t, func(action string) string {
		if action == "DeleteUserPolicy" {
			return "Throttling"
		}
		return ""
	})
	if err := opened.Tidy(t.Context(), someUser); err == nil {
		t.Error("a user that is still there was said to be gone")
	}
	if calls := called(); !slices.Equal(calls, []string{"PutUserPermissionsBoundary", "DeleteUserPolicy"}) {
		t.Errorf("calls %q", calls)
	}
}

// Whatever keeps a user from being deleted, it is denied everything again, and is dead.
func TestAUserThatStaysIsDeniedEverything(t *testing.T) {
	for _, code := range []string{"AccessDenied", "Throttling", "ServiceFailure"} {
		opened, called := iamSays(t, func(action string) string {
			if action == "DeleteUser" {
				return code
			}
			return ""
		})
		if err := opened.Revoke(t.Context(), someUser); err == nil {
			t.Errorf("%s: a user that is still there was said to be gone", code)
		}
		if calls := called(); calls[len(calls)-1] != "PutUserPolicy" {
			t.Errorf("%s: calls %q", code, calls)
		}
		if left, err := opened.Kill(t.Context(), someUser); err != nil || !left {
			t.Errorf("%s: the disabled user was not said to be dead: left %t, %v", code, left, err)
		}
	}
}

// A user that could not be denied everything again is not dead.
func TestAUserThatIsNotDeniedIsNotDead(t *testing.T) {
	puts := 0
	opened, _ := iamSays(t, func(action string) string {
		switch {
		case action == "DeleteUser":
			return "AccessDenied"
		case action == "PutUserPolicy":
			if puts++; puts > 1 {
				return "AccessDenied"
			}
		}
		return ""
	})
	if _, err := opened.Kill(t.Context(), someUser); !errors.Is(err, errNotDenied) {
		t.Errorf("a user that nothing denies was said to be dead: %v", err)
	}
}

// What the engine may not remove is told with what would remove it.
func TestACleanUpThatIsBlocked(t *testing.T) {
	opened, _ := iamSays(t, func(action string) string {
		return map[string]string{"DeleteUser": "DeleteConflict", "GetUser": "AccessDenied"}[action]
	})
	var blocked *provider.CleanupBlocked
	if err := opened.Tidy(t.Context(), someUser); !errors.As(err, &blocked) || blocked.Reason == "" || !strings.Contains(blocked.Remedy, someUser[handleUser]) {
		t.Errorf("got %v", err)
	}
}

// A user that is not found by its name is only gone where AWS says that its key is.
func TestAUserThatIsNotFound(t *testing.T) {
	for name, test := range map[string]struct {
		code        string // of GetAccessKeyLastUsed
		gone, again bool
	}{
		"no such key":   {code: "NoSuchEntity", gone: true},
		"no right":      {code: "AccessDenied"},
		"a fault":       {code: "ServiceFailure", again: true},
		"without owner": {code: "", again: true},
	} {
		opened, called := iamSays(t, func(action string) string {
			if action == "GetAccessKeyLastUsed" {
				return test.code
			}
			return "NoSuchEntity"
		})
		err := opened.Revoke(t.Context(), someUser)
		unconfirmed := errors.As(err, new(*provider.Unconfirmed))
		if (err == nil) != test.gone || unconfirmed == (test.gone || test.again) {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Contains(called(), "GetAccessKeyLastUsed") {
			t.Errorf("%s: nobody was asked for the key: %q", name, called())
		}
	}
}

// AWS refuses what is done to a user that somebody has moved out of the engine's path. That
// is told as not confirmed, unless the engine has lost its rights altogether, or lacks one.
func TestAUserThatWasMoved(t *testing.T) {
	const owner = "<UserName>precision-002da961aaaaaaaaaaaaaaaa</UserName>"
	const moved, unmoved = "<User><Path>/elsewhere/</Path></User>", "<User><Path>/precision/mount/</Path></User>"
	for name, test := range map[string]struct {
		owner, user string // the answers; empty for AccessDenied
		fault       string // of GetUser
		unconfirmed bool
	}{
		"nor may it be asked for": {owner: owner, unconfirmed: true},
		"to another path":         {owner: owner, user: moved, unconfirmed: true},
		"nowhere":                 {owner: owner, user: unmoved},
		"as AWS has a fault":      {owner: owner, fault: "ServiceFailure"},
		"as no right is left":     {},
	} {
		opened, _ := iamAnswers(t, func(form url.Values) (result, code string) {
			switch action := form.Get("Action"); {
			case action == "GetAccessKeyLastUsed" && test.owner != "":
				return test.owner, ""
			case action == "GetUser" && test.user != "":
				return test.user, ""
			case action == "GetUser" && test.fault != "":
				return "", test.fault
			default:
				return "", "AccessDenied"
			}
		})
		handle := maps.Clone(someUser)
		handle[handlePath] = "/precision/mount/"
		err := opened.Revoke(t.Context(), handle)
		if err == nil || errors.As(err, new(*provider.Unconfirmed)) != test.unconfirmed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// AWS may still answer with the name that a key's user had before somebody renamed it. The
// user is found by its id then.
func TestAnOwnerOfAnOldName(t *testing.T) {
	handle := maps.Clone(someUser)
	handle[handleUserID] = "AIDAX"
	denied := false
	opened, _ := iamAnswers(t, func(form url.Values) (result, code string) {
		old := form.Get("UserName") == someUser[handleUser]
		switch action := form.Get("Action"); {
		case action == "GetAccessKeyLastUsed":
			return "<UserName>" + someUser[handleUser] + "</UserName>", ""
		case action == "ListUsers":
			return "<IsTruncated>false</IsTruncated>" +
				"<Users><member><UserName>renamed</UserName><UserId>AIDAX</UserId></member></Users>", ""
		case old:
			return "", "NoSuchEntity"
		case action == "PutUserPolicy" && form.Get("UserName") == "renamed":
			denied = true
		}
		return "", ""
	})
	if _, err := opened.Kill(t.Context(), handle); err != nil || !denied {
		t.Errorf("the renamed user was denied everything: %t, %v", denied, err)
	}
}

// A fault of AWS while it seals a user does not mean that the engine lacks the right: AWS is
// asked again the next time, and the user stays denied everything until then.
func TestSealingIsTriedAgain(t *testing.T) {
	for code, again := range map[string]bool{
		"ServiceFailure": true, "ConcurrentModification": true, "AccessDenied": false, "InvalidAction": false,
	} {
		opened, called := iamSays(t, func(action string) string {
			if action == "PutUserPermissionsBoundary" {
				return code
			}
			return ""
		})
		for range 2 {
			if err := opened.Tidy(t.Context(), someUser); (err != nil) != again {
				t.Errorf("%s: %v", code, err)
			}
		}
		seals := 0
		for _, call := range called() {
			if call == "PutUserPermissionsBoundary" {
				seals++
			}
		}
		if again != (seals > 1) || again && slices.Contains(called(), "DeleteUserPolicy") {
			t.Errorf("%s: calls %q", code, called())
		}
	}
}

// A user that was never made is dead, and there is nothing to tidy up.
func TestAUserThatWasNeverMadeIsDead(t *testing.T) {
	for name, end := range map[string]func(*account) error{
		"kill": func(opened *account) error {
			opened.client.limiter.Answered(true)
			_, err := opened.Kill(t.Context(), someUser)
			return err
		},
		"kill without a key": func(opened *account) error {
			opened.client.limiter.Answered(true)
			_, err := opened.Kill(t.Context(), provider.Handle{handleUser: someUser[handleUser]})
			return err
		},
		"tidy":   func(opened *account) error { return opened.Tidy(t.Context(), someUser) },
		"revoke": func(opened *account) error { return opened.Revoke(t.Context(), someUser) },
	} {
		opened, _ := iamSays(t, func(string) string { return "NoSuchEntity" })
		if err := end(opened); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Where the engine may not ask whose a user is, what others have added stays, and the
// user is not called gone.
func TestAUserOfUnknownMark(t *testing.T) {
	opened, called := iamSays(t, func(action string) string {
		return map[string]string{"DeleteUser": "DeleteConflict", "GetUser": "AccessDenied"}[action]
	})
	if err := opened.Tidy(t.Context(), someUser); err == nil {
		t.Error("a user that is still there was said to be gone")
	}
	for _, call := range called() {
		if slices.Contains([]string{"ListMFADevices", "DeleteLoginProfile", "ListUserPolicies", "DetachUserPolicy"}, call) {
			t.Errorf("%s was called on a user of unknown mark", call)
		}
	}
}
