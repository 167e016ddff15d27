package postgresql

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// direct is a provider without a Vault in front of it, and one role of it.
type direct struct {
	t       *testing.T
	shop    *shop
	opened  provider.Provider
	granted scope.Scope
	bounds  provider.Bounds
	mount   string
}

const anyLedger = "abcdefghijklmnopqrstuvwx"

// newDirect makes one that reads ids of entries. Its mount is its own.
func newDirect(t *testing.T, s *shop, opened provider.Provider, mount string) *direct {
	t.Helper()
	granted, err := scope.New("SELECT", "ledger.entries(id)")
	if err != nil {
		t.Fatal(err)
	}
	d := &direct{t: t, shop: s, opened: opened, granted: granted, mount: mount}
	findings, err := opened.(provider.Examiner).Examine(t.Context(), granted, d.bounds)
	if err != nil {
		t.Fatal(err)
	}
	d.bounds.Facts = findings.Facts
	return d
}

func settings(s *shop, engine lab.Login) provider.Settings {
	return provider.Settings{"username": engine.Name, "password": engine.Password, "connection_url": config(s, engine)["connection_url"]}
}

func (d *direct) policy(end time.Time) provider.Policy {
	d.t.Helper()
	bounds := d.bounds
	bounds.ExpiresAt = end
	policy, err := d.opened.Compile(d.granted, bounds)
	if err != nil {
		d.t.Fatal(err)
	}
	return policy
}

func (d *direct) install() provider.Handle {
	d.t.Helper()
	installer, policy := d.opened.(provider.Installer), d.policy(time.Now().Add(time.Hour))
	handle := installer.Plan(policy, d.mount, anyLedger)
	if err := installer.Install(d.t.Context(), handle, policy); err != nil {
		d.t.Fatal(err)
	}
	return handle
}

func (d *direct) uninstall() {
	d.t.Helper()
	installer := d.opened.(provider.Installer)
	if err := installer.Uninstall(d.t.Context(), installer.Plan(d.policy(time.Now().Add(time.Hour)), d.mount, anyLedger)); err != nil {
		d.t.Error(err)
	}
}

func (d *direct) tryMint(ttl time.Duration) (provider.Credential, error) {
	d.t.Helper()
	end := time.Now().Add(ttl).Truncate(time.Second)
	handle, err := d.opened.Prepare(d.t.Context(), provider.Grant{ID: ledger.NewID(end), Mount: d.mount, Ledger: anyLedger, ExpiresAt: end})
	if err != nil {
		d.t.Fatal(err)
	}
	return d.opened.Mint(d.t.Context(), handle, d.policy(end), end)
}

func (d *direct) mint(ttl time.Duration) provider.Credential {
	d.t.Helper()
	minted, err := d.tryMint(ttl)
	if err != nil {
		d.t.Fatal(err)
	}
	return minted
}

func (d *direct) revoke(minted provider.Credential) {
	d.t.Helper()
	if err := d.opened.Revoke(d.t.Context(), minted.Handle); err != nil {
		d.t.Error(err)
	}
}

func loginOf(minted provider.Credential) lab.Login {
	return lab.Login{Name: minted.Fields["username"].(string), Password: minted.Fields["password"].(string)}
}

// A rotation that breaks off anywhere leaves a target that works, and goes on from
// there.
func TestRotationThatBreaksOff(t *testing.T) {
	s := newShop(t)
	engine := lab.Login{Name: s.name + "_engine", Password: "known-to-somebody"}
	s.exec(fmt.Sprintf("CREATE ROLE %s LOGIN CREATEROLE PASSWORD '%s'", engine.Name, engine.Password))
	s.exec(fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s", s.name, engine.Name))
	before := settings(s, engine)
	rotator := func(stored provider.Settings) provider.RootRotator {
		t.Helper()
		text, err := json.Marshal(stored) // as storage keeps them
		if err != nil {
			t.Fatal(err)
		}
		var kept provider.Settings
		if err := json.Unmarshal(text, &kept); err != nil {
			t.Fatal(err)
		}
		return open(t, kept).(provider.RootRotator) // which logs in
	}
	works := func(password any) bool {
		session, err := servers.PostgreSQL.Connect(t.Context(), lab.Login{Name: engine.Name, Password: password.(string)}, s.name)
		if err != nil && code(err) != "28P01" {
			t.Fatal(err)
		}
		if err == nil {
			_ = session.Close(t.Context())
		}
		return err == nil
	}
	next := func(stored provider.Settings) (provider.RotationPlan, provider.Settings) {
		t.Helper()
		first := rotator(stored)
		plan, err := first.PlanRotation(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		plan, after, err := first.NextRoot(t.Context(), plan)
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(plan); strings.Contains(text, after["password"].(string)) || strings.Contains(text, stored["password"].(string)) {
			t.Error("the plan holds a password")
		}
		if err := rotator(after).AwaitRoot(t.Context()); err != nil {
			t.Fatal(err)
		}
		return plan, after
	}
	end := func(stored provider.Settings, plan provider.RotationPlan) {
		t.Helper()
		if err := rotator(stored).EndOtherRoots(t.Context(), plan); err != nil {
			t.Error(err)
		}
	}

	plan, after := next(before) // the new one is never stored
	if !works(before["password"]) || works(after["password"]) {
		t.Error("the password changed before the new one was stored")
	}
	end(before, plan)
	if !works(before["password"]) {
		t.Error("the password that is stored does not work")
	}

	_, first := next(before) // stored, and never set
	if !works(before["password"]) {
		t.Error("the password changed before its rotation was ended")
	}
	plan, second := next(first) // on top of that
	end(second, plan)
	end(second, plan)
	if works(before["password"]) || works(first["password"]) || !works(second["password"]) {
		t.Error("the rotation did not leave the last password, and that alone")
	}
	rotator(second)

	// Somebody else's password is left alone.
	other := settings(s, servers.PostgreSQL.Engine)
	end(other, plan)
	if !works(second["password"]) {
		t.Error("a rotation was ended that another login is configured for")
	}
	s.exec(fmt.Sprintf("REVOKE CONNECT ON DATABASE %s FROM %s", s.name, engine.Name))
	s.exec("DROP ROLE " + engine.Name)
}

// Until PostgreSQL 15 a login can take on its holder's role, and leave what is the
// holder's own there. The next mints nevertheless, and nothing of it stays.
func TestHolderThatWasTampered(t *testing.T) {
	forEngines(t, func(t *testing.T, engine lab.Login) {
		s := newShop(t)
		d := newDirect(t, s, open(t, settings(s, engine)), "22222222-2222-3333-4444-555555555555")
		holder := d.install()["holder"]
		if !strings.Contains(holder, "_h_") {
			t.Fatalf("the holder is %s", holder)
		}
		minted := d.mint(time.Hour)
		session := s.connect(loginOf(minted))
		for _, statement := range []string{
			"SET ROLE " + holder,
			"SELECT lo_from_bytea(0, 'left behind')",
			"ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
			"ALTER ROLE " + holder + " PASSWORD 'known'",
			"ALTER ROLE " + holder + " SET search_path = hidden",
		} {
			if _, err := session.Exec(t.Context(), statement); err != nil && code(err) != "42501" {
				t.Fatalf("%s: %v", statement, err)
			}
		}
		d.revoke(minted)

		// What the engine can take back it does. Where it can't, a new holder takes the place
		// of the old one. Nothing is minted in between, but for what a login has left.
		as := s.connect(engine)
		for _, change := range []struct {
			what, statement, back string
		}{
			{"what a login left", "SELECT 1", ""},
			{"one privilege less", "REVOKE SELECT (id) ON ledger.entries FROM " + holder, ""},
			{"another of the engine's", "GRANT SELECT (note) ON ledger.entries TO " + holder, ""},
			{"the right to give it", "GRANT SELECT (id) ON ledger.entries TO " + holder + " WITH GRANT OPTION", ""},
			{"another of somebody else's", "GRANT SELECT ON pg_catalog.pg_authid TO " + holder, "REVOKE SELECT ON pg_catalog.pg_authid FROM " + holder},
			{"a membership", "GRANT " + owner + " TO " + holder, ""},
			{"an attribute", "ALTER ROLE " + holder + " BYPASSRLS", "ALTER ROLE " + holder + " NOBYPASSRLS"},
			{"another comment", "COMMENT ON ROLE " + holder + " IS 'mine'", "COMMENT ON ROLE " + holder + " IS 'vault-plugin-secrets-precision mount=" + d.mount + " ledger=" + anyLedger + "'"},
		} {
			if _, err := as.Exec(t.Context(), change.statement); err != nil || change.back != "" {
				s.exec(change.statement)
			}
			if minted, err := d.tryMint(time.Hour); err == nil {
				if change.what != "what a login left" {
					t.Errorf("%s: minted", change.what)
				}
				d.revoke(minted)
			}
			installer, policy := d.opened.(provider.Installer), d.policy(time.Now().Add(time.Hour))
			err := installer.Install(t.Context(), installer.Plan(policy, d.mount, anyLedger), policy)
			if err != nil {
				says(t, err.Error(), holder)
			}
			if foreign := change.what == "another comment"; (err != nil) != foreign {
				t.Errorf("%s: installing says %v", change.what, err)
			}
			if change.back != "" {
				s.exec(change.back)
				d.install()
			}
			d.revoke(d.mint(time.Hour))
		}
		// The old holders go as soon as they can.
		for _, spoiled := range s.list("SELECT rolname::text FROM pg_roles WHERE starts_with(rolname::text, $1::text || '_')", holder) {
			s.exec("REVOKE SELECT ON pg_catalog.pg_authid FROM " + spoiled)
		}
		d.uninstall()
		if left := s.list("SELECT rolname FROM pg_roles WHERE rolname LIKE 'precision\\_222222222222%'"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// One watchdog runs for a mount, and another when it is gone; a stranger's of the
// same name is none.
func TestWatchdog(t *testing.T) {
	forEngines(t, func(t *testing.T, engine lab.Login) {
		s := newShop(t)
		d := newDirect(t, s, open(t, settings(s, engine)), "33333333-2222-3333-4444-555555555555")
		d.install()
		watchdogs := func() []string {
			return s.list("SELECT pid::text FROM pg_stat_activity WHERE application_name = 'precision_333333332222_watchdog' AND usename = $1", engine.Name)
		}
		first := d.mint(time.Hour)
		if got := watchdogs(); len(got) != 1 {
			t.Fatalf("watchdogs: %v", got)
		}
		// Its client is gone, and it goes on: a second provider starts no other.
		other := newDirect(t, s, open(t, settings(s, engine)), d.mount)
		other.revoke(other.mint(time.Hour))
		if got := watchdogs(); len(got) != 1 {
			t.Errorf("watchdogs: %v", got)
		}
		s.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'precision_333333332222_watchdog'")
		eventually(t, "the watchdog's end", 5*time.Second, func() bool { return len(watchdogs()) == 0 })
		session := s.connect(loginOf(first))
		if _, err := session.Exec(t.Context(), "SET application_name = 'precision_333333332222_watchdog'"); err != nil {
			t.Fatal(err)
		}
		for range d.opened.(provider.OrphanFinder).Marked(t.Context(), d.mount, func(string, provider.Handle) bool { return false }) {
			break
		}
		if got := watchdogs(); len(got) != 1 {
			t.Errorf("watchdogs after the search for orphans: %v", got)
		}
		s.exec("ALTER ROLE " + loginOf(first).Name + " VALID UNTIL '2020-01-01'")
		eventually(t, "the session's end", 2*time.Second, func() bool { return session.Ping(t.Context()) != nil })
		d.revoke(first)
		d.uninstall()
		s.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'precision_333333332222_watchdog'")
	})
}

// An engine that may not signal any session ends those of its own logins all the
// same, by Vault's word and by the clock.
func TestEngineWithoutSignals(t *testing.T) {
	s := newShop(t)
	engine := lab.Login{Name: s.name + "_engine", Password: "known-to-somebody"}
	s.exec(fmt.Sprintf("CREATE ROLE %s LOGIN CREATEROLE PASSWORD '%s'", engine.Name, engine.Password))
	s.exec(fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s WITH GRANT OPTION", s.name, engine.Name))
	s.exec(fmt.Sprintf("GRANT USAGE ON SCHEMA ledger TO %s WITH GRANT OPTION", engine.Name))
	s.exec(fmt.Sprintf("GRANT SELECT ON ledger.entries TO %s WITH GRANT OPTION", engine.Name))
	d := newDirect(t, s, open(t, settings(s, engine)), "66666666-2222-3333-4444-555555555555")
	d.install()
	for what, end := range map[string]func(provider.Credential){
		"a revoke": d.revoke,
		"the clock": func(minted provider.Credential) {
			s.exec("ALTER ROLE " + loginOf(minted).Name + " VALID UNTIL '2020-01-01'")
		},
	} {
		minted := d.mint(time.Hour)
		session := s.connect(loginOf(minted))
		if err := session.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		end(minted)
		eventually(t, "the session's end by "+what, 2*time.Second, func() bool { return session.Ping(t.Context()) != nil })
		d.revoke(minted)
	}
	d.uninstall()
	s.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '" + engine.Name + "'")
	s.exec("DROP OWNED BY " + engine.Name)
	s.exec("DROP ROLE " + engine.Name)
}

// What the engine has made is found again by its mark, and what bears another is not.
func TestOrphans(t *testing.T) {
	s := newShop(t)
	d := newDirect(t, s, open(t, settings(s, servers.PostgreSQL.Engine)), "44444444-2222-3333-4444-555555555555")
	d.install()
	minted, known := d.mint(time.Hour), d.mint(2*time.Hour)
	s.exec("CREATE ROLE precision_444444442222_0000000000000000000000aa LOGIN VALID UNTIL '2030-01-01'")
	s.exec("COMMENT ON ROLE precision_444444442222_0000000000000000000000aa IS 'vault-plugin-secrets-precision mount=44444444-2222-3333-4444-666666666666 ledger=x grant=0000000000000000000000aa'")
	var found []provider.Marked
	for one, err := range d.opened.(provider.OrphanFinder).Marked(t.Context(), d.mount, func(grant string, _ provider.Handle) bool { return grant == known.Handle["grant"] }) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, one)
	}
	if len(found) != 1 || found[0].Grant != minted.Handle["grant"] || found[0].Mount != d.mount || found[0].Ledger != anyLedger || found[0].ExpiresAt.IsZero() {
		t.Fatalf("found %+v", found)
	}
	if err := d.opened.Revoke(t.Context(), found[0].Handle); err != nil {
		t.Error(err)
	}
	if _, err := servers.PostgreSQL.Connect(context.Background(), loginOf(minted), s.name); code(err) != "28P01" && code(err) != "28000" {
		t.Errorf("the orphan is not dead: %v", err)
	}
	d.revoke(known)
	d.uninstall()
	s.exec("DROP ROLE precision_444444442222_0000000000000000000000aa")
}
