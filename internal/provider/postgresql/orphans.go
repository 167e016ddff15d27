package postgresql

import (
	"context"
	"iter"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Marked implements provider.OrphanFinder: the mount's logins. While there are any,
// it sees to it that the watchdogs run, too: a server that was started again has lost its own.
func (p *postgres) Marked(ctx context.Context, mount string, known func(grant string, handle provider.Handle) bool) iter.Seq2[provider.Marked, error] {
	return func(yield func(provider.Marked, error) bool) {
		found, err := p.logins(ctx, mount)
		if err != nil {
			yield(provider.Marked{}, err)
			return
		}
		if len(found) > 0 {
			_ = p.watch.start(ctx, mount)   // a mint warns where it can't
			_ = p.watchStandbys(ctx, mount) // so does it here
			_, _ = p.server.revocations()   // so that a connection is kept open for what lives; a revoke says what is wrong
		}
		for _, one := range found {
			if !known(one.Grant, nil) && !yield(one, nil) {
				return
			}
		}
	}
}

// logins lists a mount's logins.
func (p *postgres) logins(ctx context.Context, mount string) ([]provider.Marked, error) {
	var found []provider.Marked
	err := p.server.with(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT oid, coalesce(shobj_description(oid, 'pg_authid'), ''), extract(epoch FROM rolvaliduntil)::bigint
  FROM pg_roles WHERE rolname LIKE $1 AND rolvaliduntil IS NOT NULL AND isfinite(rolvaliduntil) OR rolname LIKE $1 AND rolvaliduntil = '-infinity'`, likeLogins(mount))
		if err != nil {
			return err
		}
		var oid uint32
		var comment string
		var ends *int64
		_, err = pgx.ForEachRow(rows, []any{&oid, &comment, &ends}, func() error {
			bears, ours := readMark(comment)
			if !ours || bears.mount != mount || bears.grant == "" {
				return nil
			}
			one := provider.Marked{Mount: bears.mount, Ledger: bears.ledger, Grant: bears.grant, Handle: provider.Handle{
				handleLogin: prefix(mount) + bears.grant, handleMount: bears.mount, handleLedger: bears.ledger, handleGrant: bears.grant, handleOID: strconv.FormatUint(uint64(oid), 10),
			}}
			if ends != nil {
				one.ExpiresAt = time.Unix(*ends, 0).UTC()
			}
			found = append(found, one)
			return nil
		})
		return err
	})
	return found, said("listing logins", err)
}
