package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// fakeUsers is the part of AWS that users hang on, in memory: for thousands of users,
// and for throttling as hard as no server can be told to.
type fakeUsers struct {
	url     string
	account string

	mu        sync.Mutex
	users     map[string]*fakeUser
	rate      float64 // calls a second that are served; 0: all
	tokens    float64
	filled    time.Time
	calls     int // served and throttled, since rate was set
	throttled int
	made      int
	refused   map[string]bool // actions that the engine has no right to
	lastKill  time.Time       // when the last key went, or the last policy that allowed anything
	lastTidy  time.Time       // when the last user went
}

type fakeUser struct {
	id, key, policy, path string
	sealed                bool // its permissions boundary denies everything
	tags                  map[string]string
	extra                 map[string]string // what others have added: an id, by the field that it is named in
}

// additions are what IAM refuses to delete a user with, by the call that lists it:
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteUser.html
var additions = map[string]struct{ list, id, remove string }{
	"ListUserPolicies":               {"PolicyNames", "PolicyName", "DeleteUserPolicy"},
	"ListAttachedUserPolicies":       {"AttachedPolicies", "PolicyArn", "DetachUserPolicy"},
	"ListGroupsForUser":              {"Groups", "GroupName", "RemoveUserFromGroup"},
	"ListMFADevices":                 {"MFADevices", "SerialNumber", "DeactivateMFADevice"},
	"ListSigningCertificates":        {"Certificates", "CertificateId", "DeleteSigningCertificate"},
	"ListSSHPublicKeys":              {"SSHPublicKeys", "SSHPublicKeyId", "DeleteSSHPublicKey"},
	"ListServiceSpecificCredentials": {"ServiceSpecificCredentials", "ServiceSpecificCredentialId", "DeleteServiceSpecificCredential"},
	"GetLoginProfile":                {"LoginProfile", "UserName", "DeleteLoginProfile"},
}

// list answers a call that lists additions.
func (u *fakeUser) list(action string) (result string, is bool) {
	kind, is := additions[action]
	if !is {
		return "", false
	}
	items := ""
	if id := u.extra[kind.id]; id != "" && kind.id == "PolicyName" {
		items = element("member", id)
	} else if id != "" {
		items = element("member", element(kind.id, id))
	}
	return element("IsTruncated", "false") + element(kind.list, items), true
}

// remove answers a call that removes an addition. The code is IAM's for an error.
func (u *fakeUser) remove(action string, form url.Values) (code string, is bool) {
	for _, kind := range additions {
		if kind.remove != action {
			continue
		}
		if u.extra[kind.id] == "" || u.extra[kind.id] != form.Get(kind.id) {
			return "NoSuchEntity", true
		}
		delete(u.extra, kind.id)
		return "", true
	}
	return "", false
}

func newFakeUsers(t *testing.T) *fakeUsers {
	t.Helper()
	f := &fakeUsers{account: lab.Account, users: map[string]*fakeUser{}, refused: map[string]bool{"PutUserPermissionsBoundary": true}}
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
		if user.key != "" || strings.Contains(user.policy, "Allow") {
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
	if f.refused[action] {
		return "", "AccessDenied"
	}
	switch action {
	case "GetCallerIdentity":
		return element("Arn", "arn:aws:iam::"+f.account+":user/engine") + element("Account", f.account) + element("UserId", "AIDAENGINE"), ""
	case "ListUsers":
		var list []string
		for name, user := range f.users {
			if strings.HasPrefix(user.path, form.Get("PathPrefix")) {
				list = append(list, element("UserName", name)+element("UserId", user.id)+element("Path", user.path))
			}
		}
		return element("IsTruncated", "false") + element("Users", members(list)), ""
	case "GetAccessKeyLastUsed":
		for name, user := range f.users {
			if user.key == form.Get("AccessKeyId") {
				return element("UserName", name) + element("AccessKeyLastUsed", element("ServiceName", "N/A")+element("Region", "N/A")), ""
			}
		}
		return "", "NoSuchEntity"
	case "CreateUser":
		if user != nil {
			return "", "EntityAlreadyExists"
		}
		f.made++
		made := &fakeUser{id: fmt.Sprintf("AIDAFAKE%08d", f.made), path: form.Get("Path"), tags: map[string]string{}, extra: map[string]string{}}
		for i := 1; form.Get(fmt.Sprintf("Tags.member.%d.Key", i)) != ""; i++ {
			made.tags[form.Get(fmt.Sprintf("Tags.member.%d.Key", i))] = form.Get(fmt.Sprintf("Tags.member.%d.Value", i))
		}
		f.users[name] = made
		return element("User", element("UserName", name)+element("UserId", made.id)+element("Path", made.path)), ""
	}
	if user == nil {
		return "", "NoSuchEntity"
	}
	if result, is := user.list(action); is {
		return result, ""
	}
	if own := action == "DeleteUserPolicy" && form.Get("PolicyName") == "precision"; !own {
		if code, is := user.remove(action, form); is {
			return "", code
		}
	}
	switch action {
	case "GetUser":
		tags := ""
		for key, value := range user.tags {
			tags += element("member", element("Key", key)+element("Value", value))
		}
		return element("User", element("UserName", name)+element("UserId", user.id)+element("Path", user.path)+element("Tags", tags)), ""
	case "DeleteVirtualMFADevice":
	case "PutUserPolicy":
		before := user.policy
		if user.policy = form.Get("PolicyDocument"); strings.Contains(before, "Allow") && !strings.Contains(user.policy, "Allow") {
			f.lastKill = time.Now()
		}
	case "PutUserPermissionsBoundary":
		user.sealed = form.Get("PermissionsBoundary") == "arn:aws:iam::aws:policy/AWSDenyAll"
	case "CreateAccessKey":
		user.key = "AKIA" + user.id
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
		user.policy = ""
	case "DeleteUser":
		if user.key != "" || user.policy != "" || len(user.extra) > 0 {
			return "", "DeleteConflict"
		}
		delete(f.users, name)
		f.lastTidy = time.Now()
	default:
		return "", "InvalidAction"
	}
	return "", ""
}
