package postgresql

import (
	"context"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// mayPrepare is the ambient right that everybody has where letPrepare was called.
const mayPrepare = "PREPARE TRANSACTION (max_prepared_transactions)"

// letPrepare lets everybody prepare transactions until the test ends.
func letPrepare(t *testing.T) {
	t.Helper()
	p := servers.PostgreSQL
	restart := func(ctx context.Context, most string) {
		p.Settings["max_prepared_transactions"] = most
		if err := p.Restart(ctx); err != nil {
			t.Fatal(err)
		}
	}
	restart(t.Context(), "20")
	t.Cleanup(func() { restart(context.Background(), "0") })
}

// rows is the number of rows that a credential for DELETE can reduce.
func (s *shop) rows() string {
	s.t.Helper()
	return s.text("SELECT count(*) FROM ledger.entries")
}

// A helper makes the holder a member of a role. He can't commit after the revoke what the
// holder has prepared as that role. Transactions that the role's own members have prepared stay.
func TestRevokeOfWhatWasPreparedAsAnother(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		p := servers.PostgreSQL
		letPrepare(t)
		s := newShop(t)
		s.withHelper()
		m := newMount(t)
		m.configure(s, p.Engine)
		m.role("deletes", with(deletes, "tolerate_ambient", mayPrepare))
		minted := m.mint("deletes/JIRA-1")
		oid := s.oid(minted.login)
		helping, holding := s.connect(helper), s.connect(minted.login)
		attempt(helping, "GRANT ALL ON helping.own TO "+team, "GRANT USAGE ON SCHEMA helping TO "+team, "GRANT "+team+" TO "+minted.login.Name,
			"BEGIN", "SET LOCAL ROLE "+team, "INSERT INTO helping.own VALUES (1)", "PREPARE TRANSACTION 'of the team'")
		attempt(holding, "BEGIN", "DELETE FROM ledger.entries WHERE id = 7100001", "SET ROLE "+team, "PREPARE TRANSACTION 'of the holder'")
		if prepared := s.text("SELECT count(*) FROM pg_prepared_xacts WHERE owner = '" + team + "'"); prepared != "2" {
			t.Fatalf("%s transactions are prepared", prepared)
		}
		m.revoke(minted)
		attempt(helping, "SET ROLE "+team)
		if _, err := helping.Exec(t.Context(), "COMMIT PREPARED 'of the holder'"); code(err) != "42704" || s.rows() != "20" {
			t.Errorf("what the holder has prepared is committed after the revoke: %v, %s rows", err, s.rows())
		}
		if _, err := helping.Exec(t.Context(), "COMMIT PREPARED 'of the team'"); err != nil {
			t.Errorf("what the team has prepared is gone: %v", err)
		}
		attempt(helping, "RESET ROLE")
		s.dead("prepared as another", minted, oid)
	})
}

// A prepared transaction can hold the lock, and needs no session for it.
func TestRevokeOfAHolderWhoPrepares(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		p := servers.PostgreSQL
		letPrepare(t)
		s := newShop(t)
		m := newMount(t)
		m.configure(s, p.Engine)
		m.role("deletes", with(deletes, "tolerate_ambient", mayPrepare))
		minted := m.mint("deletes/JIRA-1")
		took := s.revokedWhileProbed(m, minted, "prepared", "SELECT id FROM ledger.entries LIMIT 1", func() {
			holding := s.connect(minted.login)
			attempt(holding, "BEGIN", "ALTER ROLE CURRENT_USER PASSWORD 'x'", "PREPARE TRANSACTION 'held'")
			_ = holding.Close(context.Background())
		})

		// The same in a database of a helper's, to which he lets the login connect, and nobody else.
		s.withHelper()
		theirs := s.name + "_theirs"
		s.exec("CREATE DATABASE " + theirs + " OWNER " + helper.Name)
		defer s.exec("DROP DATABASE " + theirs)
		s.exec("REVOKE ALL ON DATABASE " + theirs + " FROM PUBLIC")
		minted = m.mint("deletes/JIRA-2")
		s.exec("GRANT CONNECT ON DATABASE " + theirs + " TO " + minted.login.Name)
		elsewhere := s.revokedWhileProbed(m, minted, "prepared elsewhere", "SELECT id FROM ledger.entries LIMIT 1", func() {
			holding, err := p.Connect(t.Context(), minted.login, theirs)
			if err != nil {
				t.Fatal(err)
			}
			attempt(holding, "BEGIN", "ALTER ROLE CURRENT_USER PASSWORD 'x'", "PREPARE TRANSACTION 'held elsewhere'")
			_ = holding.Close(context.Background())
		})
		if left := s.text("SELECT count(*) FROM pg_prepared_xacts"); left != "0" {
			t.Errorf("%s prepared transactions are left", left)
		}
		took = max(took, elsewhere)
		figures.Log(t, "a prepared transaction that locks: dead %s after the revoke", took.Round(time.Millisecond))
	})
}
