package aws

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/revocation"
)

// An engine that may look at managed policies, as many may at everything, and not
// make or attach any, does with the inline policy. Otherwise each revoke that needs
// more room would fail, and end nothing.
func TestManagedPoliciesThatMayOnlyBeLookedAt(t *testing.T) {
	for _, refused := range []string{"CreatePolicy", "AttachRolePolicy"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch action := r.FormValue("Action"); action {
			case refused:
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code></Error></ErrorResponse>")
			default:
				fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult></%[1]sResult></%[1]sResponse>", action)
			}
		}))
		defer server.Close()
		settings := provider.Settings{"iam_endpoint": server.URL, "max_retries": 0}
		var using atomic.Pointer[client]
		using.Store(engineAs(t, engineUser, settings).client)
		policies, err := newBasePolicies(testBase, revocation.NewMark("mount", "ledger"), &using)
		if err != nil {
			t.Fatal(err)
		}
		room := func() int {
			t.Helper()
			seen, err := policies.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return seen.Room.Managed
		}
		if got := room(); got != maxAttached {
			t.Errorf("there is room for %d managed policies, want %d", got, maxAttached)
		}
		err = policies.Create(t.Context(), 1, "{}")
		if err == nil {
			err = policies.Attach(t.Context(), 1)
		}
		if errorCode(err) != "AccessDenied" {
			t.Errorf("got %v of what is refused", err)
		}
		if got := room(); got != 0 {
			t.Errorf("%s is refused, and there is room for %d managed policies", refused, got)
		}
		using.Store(engineAs(t, engineUser, settings).client)
		if got := room(); got != maxAttached {
			t.Errorf("with another client there is room for %d managed policies, want %d", got, maxAttached)
		}
	}
}
