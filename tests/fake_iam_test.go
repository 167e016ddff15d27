package tests

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// fakeIAM is the part of AWS that sessions hang on, with IAM's limits, in memory:
// for thousands of sessions and for clocks that no server can be made to have. It
// has one base role.
type fakeIAM struct {
	url string

	mu       sync.Mutex
	inline   map[string]string
	managed  map[string]*managedPolicy // ARN
	attached []string                  // ARNs
	sessions map[string]lab.Session    // by access key
	calls    []string
	narrow   bool             // the engine may change inline policies alone
	clock    func() time.Time // AWS's; nil: the machine's
}

type managedPolicy struct {
	name     string
	versions []string // the last is the default
	first    int      // number of the first
}

const fakeRoleID = "AROAFAKEBASEROLE00000"

func newFakeIAM(t *testing.T) *fakeIAM {
	t.Helper()
	f := &fakeIAM{
		inline:  map[string]string{"rights": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`},
		managed: map[string]*managedPolicy{}, sessions: map[string]lab.Session{},
	}
	server := httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// fill takes up room: characters of inline policies, and managed ones.
func (f *fakeIAM) fill(characters, attached int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	const frame = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::"}]}`
	f.inline["filler"] = strings.Replace(frame, ":::", ":::"+strings.Repeat("x", characters-len(frame)), 1)
	for i := range attached {
		f.attached = append(f.attached, fmt.Sprintf("arn:aws:iam::aws:policy/Stranger%d", i))
	}
}

func (f *fakeIAM) serve(writer http.ResponseWriter, request *http.Request) {
	if err := request.ParseForm(); err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	action := request.PostForm.Get("Action")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, action)
	if f.clock != nil {
		writer.Header().Set("Date", f.clock().UTC().Format(http.TimeFormat))
	}
	result, code := f.do(action, request.PostForm)
	if code != "" {
		writer.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(writer, "<ErrorResponse><Error><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>", code, action)
		return
	}
	_, _ = fmt.Fprintf(writer, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>", action, result)
}

// do carries a call out. The code is IAM's for an error.
func (f *fakeIAM) do(action string, form url.Values) (result, code string) {
	name, document, arn := form.Get("PolicyName"), form.Get("PolicyDocument"), form.Get("PolicyArn")
	known := f.managed[arn]
	if f.narrow && action != "AssumeRole" && !strings.HasSuffix(action, "RolePolicy") && action != "ListRolePolicies" || f.narrow && (action == "AttachRolePolicy" || action == "DetachRolePolicy") {
		return "", "AccessDenied"
	}
	switch action {
	case "AssumeRole":
		key := fmt.Sprintf("ASIAFAKE%012d", len(f.sessions))
		session := form.Get("RoleSessionName")
		f.sessions[key] = lab.Session{
			Form: form, Base: form.Get("RoleArn"), UserID: fakeRoleID + ":" + session,
			ARN: "arn:aws:sts::" + lab.Account + ":assumed-role/" + lab.BaseRole + "/" + session,
		}
		return element("Credentials", element("AccessKeyId", key)+element("SecretAccessKey", "secret")+element("SessionToken", "token")+element("Expiration", "2030-01-01T00:00:00Z")), ""
	case "ListRolePolicies":
		return element("IsTruncated", "false") + element("PolicyNames", members(slices.Sorted(maps.Keys(f.inline)))), ""
	case "GetRolePolicy":
		if f.inline[name] == "" {
			return "", "NoSuchEntity"
		}
		return element("PolicyName", name) + element("PolicyDocument", url.PathEscape(f.inline[name])), ""
	case "PutRolePolicy":
		total := len(document)
		for other, text := range f.inline {
			if other != name {
				total += len(text)
			}
		}
		if total > 10240 {
			return "", "LimitExceeded"
		}
		f.inline[name] = document
		return "", ""
	case "DeleteRolePolicy":
		if f.inline[name] == "" {
			return "", "NoSuchEntity"
		}
		delete(f.inline, name)
		return "", ""
	case "ListAttachedRolePolicies":
		var list []string
		for _, arn := range f.attached {
			list = append(list, element("PolicyArn", arn)+element("PolicyName", arn[strings.LastIndex(arn, "/")+1:]))
		}
		return element("IsTruncated", "false") + element("AttachedPolicies", members(list)), ""
	case "ListPolicies":
		var list []string
		for arn, policy := range f.managed {
			list = append(list, element("Arn", arn)+element("PolicyName", policy.name))
		}
		return element("IsTruncated", "false") + element("Policies", members(list)), ""
	case "CreatePolicy":
		arn = "arn:aws:iam::" + lab.Account + ":policy" + form.Get("Path") + name
		if f.managed[arn] != nil {
			return "", "EntityAlreadyExists"
		}
		if len(document) > 6144 {
			return "", "LimitExceeded"
		}
		f.managed[arn] = &managedPolicy{name: name, versions: []string{document}}
		return element("Policy", element("Arn", arn)), ""
	case "AttachRolePolicy":
		switch {
		case known == nil:
			return "", "NoSuchEntity"
		case slices.Contains(f.attached, arn):
		case len(f.attached) >= 10:
			return "", "LimitExceeded"
		default:
			f.attached = append(f.attached, arn)
		}
		return "", ""
	case "DetachRolePolicy":
		at := slices.Index(f.attached, arn)
		if at < 0 {
			return "", "NoSuchEntity"
		}
		f.attached = slices.Delete(f.attached, at, at+1)
		return "", ""
	}
	if known == nil {
		return "", "NoSuchEntity"
	}
	version := func(i int) string { return fmt.Sprintf("v%d", known.first+i+1) }
	last := len(known.versions) - 1
	switch action {
	case "GetPolicy":
		return element("Policy", element("Arn", arn)+element("DefaultVersionId", version(last))), ""
	case "GetPolicyVersion":
		if form.Get("VersionId") != version(last) {
			return "", "NoSuchEntity"
		}
		return element("PolicyVersion", element("Document", url.PathEscape(known.versions[last]))), ""
	case "CreatePolicyVersion":
		if len(document) > 6144 || len(known.versions) >= 5 {
			return "", "LimitExceeded"
		}
		known.versions = append(known.versions, document)
		return "", ""
	case "ListPolicyVersions":
		var list []string
		for i := range known.versions {
			list = append(list, element("VersionId", version(i))+element("IsDefaultVersion", fmt.Sprint(i == last)))
		}
		return element("IsTruncated", "false") + element("Versions", members(list)), ""
	case "DeletePolicyVersion": // they go from the oldest on
		if form.Get("VersionId") != version(0) || last == 0 {
			return "", "DeleteConflict"
		}
		known.versions, known.first = known.versions[1:], known.first+1
		return "", ""
	case "DeletePolicy":
		if last > 0 || slices.Contains(f.attached, arn) {
			return "", "DeleteConflict"
		}
		delete(f.managed, arn)
		return "", ""
	default:
		return "", "InvalidAction"
	}
}

func element(name, content string) string { return "<" + name + ">" + content + "</" + name + ">" }

// members is a list; what is not markup is escaped.
func members(items []string) string {
	var list strings.Builder
	for _, item := range items {
		if !strings.HasPrefix(item, "<") {
			var escaped strings.Builder
			_ = xml.EscapeText(&escaped, []byte(item)) // a Builder takes all
			item = escaped.String()
		}
		list.WriteString(element("member", item))
	}
	return list.String()
}

// inForce are the documents that hold for the base role, by name.
func (f *fakeIAM) inForce() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	documents := maps.Clone(f.inline)
	for _, arn := range f.attached {
		if policy := f.managed[arn]; policy != nil {
			documents[policy.name] = policy.versions[len(policy.versions)-1]
		}
	}
	return documents
}

// count is the number of calls that have been made.
func (f *fakeIAM) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func (f *fakeIAM) session(key string) lab.Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sessions[key]
}
