package vault

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

const reset = `{"data":{"password":"new"}}`

// A token is good for as many requests as the role says, under as many callers as
// there are.
func TestUses(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/uses/db", "old")
	const callers, rounds = 40, 5
	attempts := 0
	for _, uses := range []int{1, 3} {
		role := fmt.Sprintf("uses-%d", uses)
		m.role(role, "update", "secret/data/uses/db", map[string]any{"uses": uses})
		one := m.mint(role + "/INC-7")
		for range uses {
			allowed(t, "a request that is left", one.ask(t.Context(), http.MethodPut, "secret/data/uses/db", reset))
		}
		denied(t, "a request more", one.ask(t.Context(), http.MethodPut, "secret/data/uses/db", reset))
		for range rounds {
			token, before := m.mint(role+"/INC-7"), version(t, "uses/db")
			var won, lost atomic.Int64
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					switch err := token.ask(t.Context(), http.MethodPut, "secret/data/uses/db", reset); {
					case err == nil:
						won.Add(1)
					case refused(err), statusOf(err) == http.StatusInternalServerError: // which Vault says while it revokes the token
						lost.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			all.Wait()
			attempts += callers
			if written := version(t, "uses/db") - before; written != uses {
				t.Errorf("%d callers at once wrote %d times, want %d", callers, written, uses)
			}
			if int(won.Load()) != uses || int(lost.Load()) != callers-uses {
				t.Errorf("of %d callers at once %d won and %d lost, want %d to win", callers, won.Load(), lost.Load(), uses)
			}
		}
	}
	figures.Log(t, "requests by %d callers at once: %d; as many succeeded as each token was good for", callers, attempts)
}

// What Vault refuses uses a token up, too, and so it can't be found out with one what
// else there is.
func TestRefusedRequestsAreUses(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/refused/db", "old")
	m.role("once", "update", "secret/data/refused/db", map[string]any{"uses": 1})
	for _, wasted := range []struct{ method, path, body string }{
		{http.MethodGet, "secret/data/refused/db", ""},
		{http.MethodPut, "secret/data/refused/db", `{"data":{"password":"new"},"options":{"cas":77}}`},
		{http.MethodPut, "secret/data/refused/db", `{}`},
		{http.MethodGet, "secret/data/refused/db?help=1", ""},
	} {
		token := m.mint("once/INC-7")
		_ = token.ask(t.Context(), wasted.method, wasted.path, wasted.body) // whatever it says
		denied(t, "a reset after "+wasted.method+" "+wasted.path, token.ask(t.Context(), http.MethodPut, "secret/data/refused/db", reset))
	}
	token := m.mint("once/INC-7")
	allowed(t, "what everybody may ask", token.ask(t.Context(), http.MethodGet, "sys/internal/ui/mounts", ""))
	allowed(t, "a reset after it", token.ask(t.Context(), http.MethodPut, "secret/data/refused/db", reset))
}

// version is how often a secret of the other Vault has been written.
func version(t testing.TB, name string) int {
	t.Helper()
	secret, err := servers.Other.Client.Logical().ReadWithContext(t.Context(), "secret/metadata/"+name)
	if err != nil {
		t.Fatal(err)
	}
	written, err := secret.Data["current_version"].(json.Number).Int64()
	if err != nil {
		t.Fatal(err)
	}
	return int(written)
}

// A token that is bound to its reader's address works from there, and from nowhere
// else.
func TestBoundSourceIP(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/bound/db", "old")
	m.role("bound", "update", "secret/data/bound/db", map[string]any{"bound_source_ip": true})
	token := m.mint("bound/INC-7")
	allowed(t, "from the reader's address", token.ask(t.Context(), http.MethodPut, "secret/data/bound/db", reset))
	denied(t, "from another address", requestFrom(t.Context(), "127.0.0.9", servers.Other.Address, token.token, http.MethodPut, "secret/data/bound/db", reset))
	m.role("free", "update", "secret/data/bound/db", nil)
	allowed(t, "a token without bounds, from another address", requestFrom(t.Context(), "127.0.0.9", servers.Other.Address, m.mint("free/INC-7").token, http.MethodPut, "secret/data/bound/db", reset))
}
