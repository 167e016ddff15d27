package postgresql

import (
	"fmt"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// dragging is what hangs on the shop's tables. What the owner of a table fires with
// its own rights names no search_path at first.
const dragging = `SET ROLE shop_owner;
CREATE TABLE ledger.lines (entry int REFERENCES ledger.entries (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE ledger.notes (id int PRIMARY KEY, entry int UNIQUE REFERENCES ledger.entries (id) ON DELETE CASCADE);
CREATE TABLE ledger.marks (note int REFERENCES ledger.notes (id) ON DELETE SET NULL);
CREATE TABLE ledger.trail (what text);
CREATE FUNCTION ledger.follow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO trail VALUES (TG_OP); RETURN NULL; END $$;
CREATE FUNCTION ledger.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN COALESCE(NEW, OLD); END $$;
CREATE FUNCTION ledger.next() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TABLE ledger.watched (id int DEFAULT ledger.next(), what text, other text);
CREATE TRIGGER follows AFTER INSERT OR UPDATE OF what ON ledger.watched FOR EACH ROW EXECUTE FUNCTION ledger.follow();
CREATE TRIGGER looks BEFORE DELETE ON ledger.watched FOR EACH ROW EXECUTE FUNCTION ledger.look();
CREATE TRIGGER sleeps BEFORE DELETE ON ledger.watched FOR EACH ROW EXECUTE FUNCTION ledger.look();
ALTER TABLE ledger.watched DISABLE TRIGGER sleeps;
CREATE RULE also AS ON INSERT TO ledger.accounts DO ALSO INSERT INTO ledger.trail VALUES ('also');
CREATE TABLE ledger.heirs () INHERITS (ledger.watched);
CREATE VIEW ledger.cheap AS SELECT id, amount FROM ledger.entries WHERE amount * 1 * 1 * 1 * 1 < 7300005;
CREATE VIEW ledger.cheaper AS SELECT id, amount FROM ledger.cheap;
CREATE VIEW ledger.asking WITH (security_invoker = true) AS SELECT id FROM ledger.entries;
CREATE VIEW ledger.counted AS SELECT count(*) AS n FROM ledger.entries;
CREATE VIEW ledger.ordering AS SELECT id, item FROM ledger.orders;
CREATE TABLE ledger.fenced (id int, who text);
ALTER TABLE ledger.fenced ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION ledger.aimless() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT note FROM ledger.entries';
CREATE FUNCTION ledger.aimed() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER SET search_path = ledger, pg_temp AS 'SELECT note FROM entries';
CREATE FUNCTION ledger.bound() RETURNS bigint LANGUAGE sql SECURITY DEFINER RETURN (SELECT count(*) FROM ledger.entries);
RESET ROLE;
REVOKE ALL ON ALL ROUTINES IN SCHEMA ledger FROM PUBLIC;`

// effects are roles, and what their author is told.
var effects = []struct {
	action, resource string
	more             []any
	refused          bool
	says             []string
}{
	{"DELETE", "ledger.entries", []any{"key", "id"}, false, []string{
		"deleting the rows of ledger.lines", "deleting the rows of ledger.notes", "setting columns to null in the rows of ledger.marks", "LOCK TABLE"}},
	{"UPDATE", "ledger.entries(id)", []any{"key", "id"}, false, []string{"changing the rows of ledger.lines"}},
	{"INSERT", "ledger.watched", nil, true, []string{"ledger.follow() as shop_owner", "search_path", "ALTER ROUTINE ledger.follow() SET search_path", "allow_escalation"}},
	{"INSERT", "ledger.watched", []any{"allow_escalation", true}, false, []string{"fires the trigger follows", "ledger.follow() as shop_owner", "ledger.next(), and needs EXECUTE"}},
	{"UPDATE", "ledger.watched(what)", []any{"whole_table", true}, true, []string{"ledger.follow()"}},
	{"UPDATE", "ledger.watched(other)", []any{"whole_table", true}, false, []string{"ledger.heirs"}},
	{"DELETE", "ledger.watched", []any{"whole_table", true}, false, []string{"trigger looks", "as the login", "ledger.heirs"}},
	{"SELECT", "ledger.watched", nil, false, []string{"ledger.heirs"}},
	{"INSERT", "ledger.accounts", nil, false, []string{"rule also", "INSERT INTO ledger.trail"}},
	{"SELECT", "ledger.cheap", nil, true, []string{"ledger.cheap leaves rows out", "ALTER VIEW ledger.cheap SET (security_barrier = true)"}},
	{"SELECT", "ledger.cheaper", nil, true, []string{"ledger.cheap leaves rows out"}},
	{"SELECT", "ledger.asking", nil, true, []string{"security_invoker"}},
	{"SELECT", "ledger.counted", nil, false, []string{"works on ledger.entries as shop_owner"}},
	{"DELETE", "ledger.counted", []any{"whole_table", true}, true, []string{"can't be written by DELETE"}},
	{"SELECT", "ledger.fenced", nil, false, []string{"row security is on", "no policy"}},
	{"INSERT", "ledger.orders", nil, false, []string{"ledger.orders_id_seq in companion_resources"}},
	{"INSERT", "ledger.ordering", nil, false, []string{"ledger.orders_id_seq in companion_resources"}},
	{"EXECUTE", "ledger.aimless()", nil, true, []string{"caller's search_path", "ALTER ROUTINE ledger.aimless() SET search_path"}},
	{"EXECUTE", "ledger.aimless()", []any{"allow_escalation", true}, false, []string{"caller's search_path"}},
	{"EXECUTE", "ledger.aimed()", nil, false, []string{"runs as shop_owner"}},
	{"EXECUTE", "ledger.bound()", nil, false, []string{"runs as shop_owner"}},
	{"EXECUTE", "ledger.add(integer,integer)", nil, false, []string{"the login's own rights"}},
}

// Who writes a role is told what its action drags along, and refused what a caller
// could turn into something else.
func TestEffects(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	s.exec(dragging)
	if err := servers.PostgreSQL.GrantEngine(t.Context(), s.name, schema, owner); err != nil {
		t.Fatal(err)
	}
	m.configure(s, servers.PostgreSQL.Engine)
	refused := 0
	for i, effect := range effects {
		fields := map[string]any{"action": effect.action, "resource": effect.resource}
		for i := 0; i < len(effect.more); i += 2 {
			fields[effect.more[i].(string)] = effect.more[i+1]
		}
		answer, err := m.tryRole(fmt.Sprintf("effect-%d", i), fields)
		if effect.refused {
			if err == nil {
				t.Errorf("%s on %s is taken", effect.action, effect.resource)
				continue
			}
			says(t, refusal(t, err), effect.says...)
			refused++
			continue
		}
		if err != nil {
			t.Errorf("%s on %s: %v", effect.action, effect.resource, err)
			continue
		}
		told := ""
		if answer != nil {
			told = strings.Join(answer.Warnings, "\n")
		}
		says(t, told, effect.says...)
		if strings.Contains(told, "sleeps") {
			t.Errorf("a disabled trigger is told of: %s", told)
		}
	}
	figures.Log(t, "%d roles: %d refused for what a caller could make of them, the others told what they drag along", len(effects), refused)
}

// What the refusals are for is real: a caller's condition is tried on rows that a view
// leaves out, and a trigger before a cascade runs as the owner by the caller's
// search_path. What the refusal asks for ends it.
func TestEffectsAreReal(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	s.exec(dragging)
	s.exec(`SET ROLE shop_owner;
CREATE FUNCTION ledger.kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO trail VALUES (current_user); RETURN OLD; END $$;
CREATE TRIGGER keeps BEFORE DELETE ON ledger.lines FOR EACH ROW EXECUTE FUNCTION ledger.kept();
CREATE TABLE hidden.trail (what text); INSERT INTO ledger.lines SELECT id FROM ledger.entries;
RESET ROLE; REVOKE ALL ON ALL ROUTINES IN SCHEMA ledger FROM PUBLIC`)
	if err := servers.PostgreSQL.GrantEngine(t.Context(), s.name, schema, owner); err != nil {
		t.Fatal(err)
	}
	m.configure(s, servers.PostgreSQL.Engine)

	probe := "SELECT 1 FROM ledger.cheap WHERE 1 / (amount - 7300020) > 5" // of a row that the view leaves out
	s.exec("CREATE ROLE prober_" + s.name + " LOGIN PASSWORD 'probe'; GRANT USAGE ON SCHEMA ledger TO prober_" + s.name + "; GRANT SELECT ON ledger.cheap TO prober_" + s.name + "; GRANT CONNECT ON DATABASE " + s.name + " TO prober_" + s.name)
	s.exec("SET ROLE prober_" + s.name)
	_, err := s.super.Exec(t.Context(), probe)
	s.exec("RESET ROLE; DROP OWNED BY prober_" + s.name + "; DROP ROLE prober_" + s.name)
	if code(err) != "22012" {
		t.Errorf("without the refusal nothing is learnt of the rows that are left out: %v", err)
	}
	s.exec("ALTER VIEW ledger.cheap SET (security_barrier = true)")
	m.role("cheap", map[string]any{"action": "SELECT", "resource": "ledger.cheap"})
	minted := m.mint("cheap/JIRA-1")
	if _, err := s.connect(minted.login).Exec(t.Context(), probe); err != nil {
		t.Errorf("of the rows that are left out: %v", err)
	}
	m.revoke(minted)

	removes := map[string]any{"action": "DELETE", "resource": "ledger.entries", "key": "id"}
	_, err = m.tryRole("removes", removes)
	says(t, refusal(t, err), "ledger.kept() as shop_owner", "ALTER ROUTINE ledger.kept() SET search_path")
	m.role("trusts", with(removes, "allow_escalation", true))
	minted = m.mint("trusts/JIRA-1")
	session := s.connect(minted.login).PgConn()
	if _, err := session.Exec(t.Context(), "SET search_path = hidden; DELETE FROM ledger.entries WHERE id = 7100001").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if got := s.text("SELECT string_agg(what, ',') FROM hidden.trail"); got != owner {
		t.Errorf("a caller's search_path has not led the trigger elsewhere as its owner: %s", got)
	}
	m.revoke(minted)
	s.exec("ALTER ROUTINE ledger.kept() SET search_path = ledger, pg_temp")
	m.role("removes", removes)
	minted = m.mint("removes/JIRA-1")
	session = s.connect(minted.login).PgConn()
	if _, err := session.Exec(t.Context(), "SET search_path = hidden; DELETE FROM ledger.entries WHERE id = 7100002").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if got := s.text("SELECT count(*) FROM hidden.trail") + s.text("SELECT count(*) FROM ledger.trail"); got != "11" {
		t.Errorf("the trigger was led elsewhere again: %s", got)
	}
	m.revoke(minted)
}
