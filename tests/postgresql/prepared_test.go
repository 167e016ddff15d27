package postgresql

import "testing"

// rows is the number of rows that a credential for DELETE can reduce.
func (s *shop) rows() string {
	s.t.Helper()
	return s.text("SELECT count(*) FROM ledger.entries")
}

// What a holder has prepared as a role that a helper has made him a member of, the helper
// can't commit after the revoke. What the role's own members have prepared stays.
func TestRevokeOfWhatWasPreparedAsAnother(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		p := servers.PostgreSQL
		restart := func(most string) {
			p.Settings["max_prepared_transactions"] = most
			if err := p.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		restart("10")
		defer restart("0")
		s := newShop(t)
		s.withHelper()
		m := newMount(t)
		m.configure(s, p.Engine)
		m.role("deletes", with(deletes, "tolerate_ambient", "PREPARE TRANSACTION (max_prepared_transactions)"))
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
