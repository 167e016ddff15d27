package postgresql

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

const callers = 32

// sideBySide does something so many times, by 32 callers at once.
func sideBySide(count int, do func(int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for at := int(next.Add(1)) - 1; at < count; at = int(next.Add(1)) - 1 {
				do(at)
			}
		})
	}
	all.Wait()
}

// 500 credentials on one table are minted and revoked side by side without an error,
// and none is left.
func TestManyAtOnce(t *testing.T) {
	asEngine(t, func(t *testing.T, engine lab.Login) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, engine)
		m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.entries"})
		const count = 500
		minted := make([]credential, count)
		var failed atomic.Int64
		sideBySide(count, func(at int) {
			var err error
			if minted[at], err = m.tryMint(fmt.Sprintf("reads/JIRA-%d", at)); err != nil {
				failed.Add(1)
				t.Errorf("mint %d: %v", at, err)
			}
		})
		if failed.Load() > 0 {
			t.FailNow()
		}
		if live := s.text("SELECT count(DISTINCT rolname) FROM pg_roles WHERE rolname = ANY ($1)", names(minted)); live != fmt.Sprint(count) {
			t.Errorf("%s logins, want %d", live, count)
		}
		sideBySide(count, func(at int) {
			if err := m.tryRevoke(minted[at]); err != nil {
				failed.Add(1)
				t.Errorf("revoke %d: %v", at, err)
			}
		})
		s.gone(minted...)
		figures.Log(t, "%d mints by %d callers on one table and %d revokes: %d errors, none left", count, callers, count, failed.Load())
	})
}

// More logins live on one table than its list of privileges has room for. They are
// made by the provider itself: what Vault keeps of them is not what is in question.
func TestManyLiveLogins(t *testing.T) {
	s := newShop(t)
	const count, mount, ledger = 2600, "5f3b2a10-0000-4000-8000-000000000000", "ledger"
	engine := servers.PostgreSQL.Engine
	opened := open(t, provider.Settings{"username": engine.Name, "password": engine.Password, "connection_url": config(s, engine)["connection_url"], "max_open_connections": callers})
	granted, err := scope.New("SELECT", "ledger.entries")
	if err != nil {
		t.Fatal(err)
	}
	ends := time.Now().Add(time.Hour).Truncate(time.Second)
	policy, err := opened.Compile(granted, provider.Bounds{ExpiresAt: ends})
	if err != nil {
		t.Fatal(err)
	}
	installs := opened.(provider.Installer)
	installed := installs.Plan(policy, mount, ledger)
	if err := installs.Install(t.Context(), installed, policy); err != nil {
		t.Fatal(err)
	}
	minted, handles := make([]credential, count), make([]provider.Handle, count)
	sideBySide(count, func(at int) {
		handle, err := opened.Prepare(t.Context(), provider.Grant{ID: fmt.Sprintf("%024d", at), Mount: mount, Ledger: ledger, ExpiresAt: ends})
		if err != nil {
			t.Errorf("prepare %d: %v", at, err)
			return
		}
		made, err := opened.Mint(t.Context(), handle, policy, ends)
		if err != nil {
			t.Errorf("mint %d: %v", at, err)
			return
		}
		handles[at], minted[at] = made.Handle, credential{login: lab.Login{Name: made.Fields["username"].(string), Password: made.Fields["password"].(string)}}
	})
	if t.Failed() {
		return
	}
	if live := s.text("SELECT count(*) FROM pg_roles WHERE rolname = ANY ($1)", names(minted)); live != fmt.Sprint(count) {
		t.Errorf("%s logins, want %d", live, count)
	}
	for _, at := range []int{0, count / 2, count - 1} {
		if _, err := s.connect(minted[at].login).Exec(t.Context(), "SELECT card FROM ledger.entries"); err != nil {
			t.Errorf("login %d: %v", at, err)
		}
	}
	sideBySide(count, func(at int) {
		if err := opened.Revoke(t.Context(), handles[at]); err != nil {
			t.Errorf("revoke %d: %v", at, err)
		}
	})
	s.gone(minted...)
	if err := installs.Uninstall(t.Context(), installed); err != nil {
		t.Error(err)
	}
	figures.Log(t, "%d live logins on one table, and none left", count)
}

func names(minted []credential) []string {
	var all []string
	for _, one := range minted {
		all = append(all, one.login.Name)
	}
	return all
}
