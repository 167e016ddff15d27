package postgresql

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// preparedSQL lists the prepared transactions of a login: its own, its holders', and those
// that a process waits for. It also lists what the login has prepared as another role:
// a stranger who made it a member of that role could commit it. Such a transaction has
// locked something on which the other role has no privilege, and the holder has. A holder
// of functions may reach anything by them.
//
//	$1  the login, and its holders
//	$2  the process
//	$3  the login
//	$4  its holders
const preparedSQL = `
SELECT p.gid, p.owner::text, p.database::text FROM pg_prepared_xacts p LEFT JOIN pg_roles o ON o.rolname = p.owner
 WHERE p.owner = ANY ($1::text[])
    OR p.transaction IN (SELECT w.transactionid FROM pg_locks w
                          WHERE w.pid = $2 AND w.locktype = 'transactionid' AND NOT w.granted)
    OR p.database = current_database() AND NOT o.rolsuper AND pg_has_role($3::oid, o.oid, 'MEMBER') AND EXISTS (
       SELECT FROM pg_locks t JOIN pg_locks l ON l.virtualtransaction = t.virtualtransaction AND l.pid IS NULL
         JOIN pg_database b ON b.oid = l.database AND b.datname = current_database()
         JOIN pg_class c ON c.oid = l.relation AND c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f'),
              LATERAL (SELECT CASE l.mode WHEN 'AccessShareLock' THEN 'SELECT, ' ELSE '' END || 'INSERT, UPDATE') n (needs)
        WHERE t.pid IS NULL AND t.locktype = 'transactionid' AND t.transactionid = p.transaction
          AND NOT has_table_privilege(o.oid, c.oid, n.needs || ', DELETE, TRUNCATE')
          AND NOT has_any_column_privilege(o.oid, c.oid, n.needs)
          AND EXISTS (SELECT FROM pg_roles h WHERE h.rolname = ANY ($4::text[])
                         AND (has_table_privilege(h.oid, c.oid, n.needs || ', DELETE, TRUNCATE')
                           OR has_any_column_privilege(h.oid, c.oid, n.needs)
                           OR EXISTS (SELECT FROM pg_shdepend d
                                       WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = h.oid
                                         AND d.classid = 'pg_proc'::regclass AND d.deptype = 'a'))))`

// rollBack rolls back what the login's sessions have left prepared, and what the process
// waiting waits for; 0 for none. A session that has taken on its holder's role prepares
// as that, which nobody else has a reason to.
func (r *revocation) rollBack(ctx context.Context, waiting uint32) error {
	type transaction struct{ ID, Owner, Database string }
	rows, err := r.conn.Query(ctx, preparedSQL, append([]string{r.name}, r.holders...), int32(waiting), r.oid, r.holders)
	if err != nil {
		return said("prepared transactions", err)
	}
	left, err := pgx.CollectRows(rows, pgx.RowToStructByPos[transaction])
	if err != nil {
		return said("prepared transactions", err)
	}
	if len(left) == 0 {
		return nil
	}
	// As a member of the login, the engine can become what the login can, and connect where it may.
	if err := join(ctx, r.conn, r.name); err != nil {
		return said("GRANT "+r.name, err)
	}
	for _, one := range left {
		err := r.p.server.onDatabase(ctx, one.Database, func(conn *pgx.Conn) error {
			return rollBackOne(ctx, conn, one.ID, one.Owner)
		})
		stranger := one.Owner != r.name && !slices.Contains(r.holders, one.Owner)
		if err != nil && !(stranger && isState(err, insufficientPrivilege)) {
			return said(fmt.Sprintf("rolling back a prepared transaction in database %s", one.Database), err)
		}
	}
	return nil
}

// rollBackOne rolls back a transaction as its owner.
func rollBackOne(ctx context.Context, conn *pgx.Conn, id, owner string) error {
	_, err := conn.Exec(ctx, "SET ROLE "+ident(owner))
	if isState(err, insufficientPrivilege) {
		if err := join(ctx, conn, owner); err != nil {
			return err
		}
		defer func() { _, _ = conn.Exec(ctx, "RESET ROLE; REVOKE "+ident(owner)+" FROM CURRENT_USER") }()
		_, err = conn.Exec(ctx, "SET ROLE "+ident(owner))
	}
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "ROLLBACK PREPARED "+literal(id))
	if isState(err, undefinedObject) {
		return nil // somebody else has
	}
	return err
}
