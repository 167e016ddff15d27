package aws

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// usersPage answers a ListUsers with users under the mount's path.
func usersPage(marker string, names ...string) string {
	var users string
	for _, name := range names {
		users += fmt.Sprintf("<member><UserName>%s</UserName><Path>/precision/m/</Path></member>", name)
	}
	return fmt.Sprintf(`<ListUsersResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><ListUsersResult><IsTruncated>%t</IsTruncated><Marker>%s</Marker><Users>%s</Users></ListUsersResult></ListUsersResponse>`,
		marker != "", marker, users)
}

func errorAnswer(code string) string {
	return `<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Code>` + code + `</Code><Message>no</Message></Error></ErrorResponse>`
}

// markedAt is what Marked finds at an IAM API that answers so.
func markedAt(t *testing.T, known func(string, provider.Handle) bool, answer func(url.Values) (int, string)) (marked []provider.Marked, calls []string, failed error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if err := request.ParseForm(); err != nil {
			t.Error(err)
		}
		calls = append(calls, request.Form.Get("Action")+" "+request.Form.Get("UserName")+request.Form.Get("Marker"))
		status, text := answer(request.Form)
		writer.WriteHeader(status)
		_, _ = io.WriteString(writer, text)
	}))
	defer server.Close()
	opened, err := open(provider.Settings{"region": "eu-west-1", "access_key": "AKIA", "secret_key": "x", "iam_endpoint": server.URL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for found, err := range opened.Marked(t.Context(), "m", known) {
		if err != nil {
			failed = err
			continue
		}
		marked = append(marked, found)
	}
	return marked, calls, failed
}

// All pages are read; the tags of a known grant's user are not asked for, but those of
// another that was given a name with the grant's id; what has gone since is passed over.
func TestMarkedReadsAllPages(t *testing.T) {
	known, other, gone := "precision-002da961aaaaaaaaaaaaaaaa-upload-T-1", "precision-002da961aaaaaaaaaaaaaaaa-renamed", "by-hand"
	user := fmt.Sprintf(`<GetUserResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetUserResult><User><UserName>%s</UserName><UserId>AIDAOTHER</UserId><Path>/precision/m/</Path><Tags>`+
		`<member><Key>precision:mount</Key><Value>m</Value></member><member><Key>precision:ledger</Key><Value>l</Value></member>`+
		`<member><Key>precision:grant</Key><Value>g</Value></member><member><Key>precision:role</Key><Value>r</Value></member>`+
		`<member><Key>precision:task</Key><Value>t</Value></member><member><Key>precision:expires</Key><Value>2026-11-24T12:30:00Z</Value></member>`+
		`</Tags></User></GetUserResult></GetUserResponse>`, other)
	marked, calls, err := markedAt(t, func(id string, handle provider.Handle) bool {
		return id == "002da961aaaaaaaaaaaaaaaa" && handle[handleUser] == known
	}, func(form url.Values) (int, string) {
		switch {
		case form.Get("Action") == "ListUsers" && form.Get("PathPrefix") != "/precision/m/":
			return http.StatusOK, usersPage("", "stranger")
		case form.Get("Action") == "ListUsers" && form.Get("Marker") == "":
			return http.StatusOK, usersPage("2", known, gone)
		case form.Get("Action") == "ListUsers":
			return http.StatusOK, usersPage("", other)
		case form.Get("UserName") == gone:
			return http.StatusNotFound, errorAnswer("NoSuchEntity")
		default:
			return http.StatusOK, user
		}
	})
	want := provider.Marked{
		Handle: provider.Handle{handleType: iamUser, handleUser: other, handlePath: "/precision/m/", handleUserID: "AIDAOTHER"},
		Mount:  "m", Ledger: "l", Grant: "g", Role: "r", Task: "t", ExpiresAt: time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC),
	}
	if err != nil || len(marked) != 1 || fmt.Sprint(marked[0]) != fmt.Sprint(want) {
		t.Errorf("found %+v, want %+v: %v", marked, want, err)
	}
	if want := []string{"ListUsers ", "GetUser " + gone, "ListUsers 2", "GetUser " + other}; !slices.Equal(calls, want) {
		t.Errorf("calls %q, want %q", calls, want)
	}
}

func TestMarkedWithoutTheRight(t *testing.T) {
	for _, refused := range []string{"ListUsers", "GetUser"} {
		_, _, err := markedAt(t, func(string, provider.Handle) bool { return false }, func(form url.Values) (int, string) {
			if form.Get("Action") == refused {
				return http.StatusForbidden, errorAnswer("AccessDenied")
			}
			return http.StatusOK, usersPage("", "someone")
		})
		if !errors.Is(err, provider.ErrNotPermitted) {
			t.Errorf("%s refused: got %v, want ErrNotPermitted", refused, err)
		}
	}
	_, _, err := markedAt(t, func(string, provider.Handle) bool { return false }, func(url.Values) (int, string) {
		return http.StatusBadRequest, errorAnswer("ValidationError")
	})
	if err == nil || errors.Is(err, provider.ErrNotPermitted) {
		t.Errorf("a fault is told as %v", err)
	}
}

// A user made by prepare's handle can be told whose it is and when it ends.
func TestAUsersTagsAreItsMark(t *testing.T) {
	expiresAt := time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)
	handle, err := (&users{client: &client{usernamePrefix: usualUsernamePrefix}}).prepare(t.Context(), provider.Grant{ID: "002da961aaaaaaaaaaaaaaaa", Mount: "m", Ledger: "l", Role: "r", ExpiresAt: expiresAt})
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]string{tagMount: "m", tagLedger: "l", tagGrant: "002da961aaaaaaaaaaaaaaaa", tagExpires: "2026-11-24T12:30:00Z"} {
		if handle[tag] != want {
			t.Errorf("tag %s is %q, want %q", tag, handle[tag], want)
		}
	}
	if found := grantInName.FindStringSubmatch(handle[handleUser]); found == nil || found[1] != "002da961aaaaaaaaaaaaaaaa" {
		t.Errorf("the name %q does not tell its grant", handle[handleUser])
	}
	if handle[handlePath] != userPath("m") {
		t.Errorf("the path is %q", handle[handlePath])
	}
}
