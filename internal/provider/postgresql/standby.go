package postgresql

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// A hot standby has the logins of its primary, and sessions of its own, which the primary
// can't end. So revocation ends them there, once the standby knows that the login is
// closed; and a watchdog there ends them at their expiry.

// mostStandbys is how many standbys a target may name. Each revocation asks all of them.
const mostStandbys = 16

// watchedFor is how long a standby's watchdog is taken to run after it was seen.
const watchedFor = 10 * time.Second

// standby is a hot standby of the target's server.
type standby struct {
	*server
	watch *watch

	mu   sync.Mutex
	seen time.Time // when the watchdog was last seen to run
}

// parseStandbys reads the field. The standbys have the primary's database, and its logins
// and passwords.
func parseStandbys(settings provider.Settings, primary *server) ([]*standby, error) {
	urls := settings.List(fieldStandbys)
	if len(urls) > mostStandbys {
		return nil, invalid.Hidden(fieldStandbys, fmt.Sprintf("%d URLs", len(urls)), fmt.Sprintf("name %d at most", mostStandbys))
	}
	var parsed []*standby
	for i, text := range urls {
		own := maps.Clone(settings)
		own[fieldURL] = text
		at, err := parseAddress(own)
		if wrong := new(invalid.Error); errors.As(err, &wrong) && wrong.Field == fieldURL {
			return nil, invalid.Hidden(fieldStandbys, fmt.Sprintf("URL %d: %s", i+1, wrong.Problem), wrong.Remedy)
		} else if err != nil {
			return nil, err
		}
		if at.database != primary.database {
			return nil, invalid.Hidden(fieldStandbys, fmt.Sprintf("URL %d names the database %s", i+1, plain(at.database)), "name "+plain(primary.database)+", as connection_url does")
		}
		one := &server{address: at, username: primary.username, maxOpen: primary.maxOpen, passwords: primary.passwords}
		parsed = append(parsed, &standby{server: one, watch: newWatch(one)})
	}
	return parsed, nil
}

// at is what a standby is called in messages.
func (s *standby) at() string { return net.JoinHostPort(s.host, strconv.Itoa(int(s.port))) }

// verifyStandbys refuses a URL that is not a standby of the target's server.
func (p *postgres) verifyStandbys(ctx context.Context, system string) error {
	for _, one := range p.standbys {
		conn, err := one.forRevocation(ctx)
		if err != nil {
			return invalid.Field(fieldStandbys, one.at(), "the standby does not let the engine in: "+invalid.Clip(err.Error()), "check its URL and that hot_standby is on, or write verify_connection=false").Because(err)
		}
		var recovers bool
		var is string
		err = conn.QueryRow(ctx, "SELECT pg_is_in_recovery(), (SELECT system_identifier::text FROM pg_control_system())").Scan(&recovers, &is)
		conn.Release()
		switch {
		case err != nil:
			return said("looking at the standby "+one.at(), err)
		case is != system:
			return invalid.Field(fieldStandbys, one.at(), "it does not belong to the target's server", "name the hot standbys of the server in connection_url")
		case !recovers:
			return invalid.Field(fieldStandbys, one.at(), "it is not a standby", "name the hot standbys of the server in connection_url")
		}
	}
	return nil
}

// unnamedStandbys warns where more servers follow this one than the target names.
func (e *examination) unnamedStandbys(ctx context.Context, named int) error {
	var follow int
	if err := e.conn.QueryRow(ctx, "SELECT count(*)::integer FROM pg_stat_replication").Scan(&follow); err != nil {
		return said("looking for standbys", err)
	}
	if follow > named {
		e.warnings = append(e.warnings, fmt.Sprintf("%d servers or tools replicate from the database's server (pg_stat_replication), and standby_urls names %d: "+
			"a session on a hot standby that is not named lives on after its credential was revoked or has expired", follow, named))
	}
	return nil
}

// standbys ends the login's sessions on the standbys. The login is closed on the primary.
// The error is a *provider.Unconfirmed where a standby could not be asked.
func (r *revocation) standbys(ctx context.Context) error {
	if len(r.p.standbys) == 0 {
		return nil
	}
	var written string
	if err := r.conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&written); err != nil {
		return said("how far the server has written", err)
	}
	reasons := make([]string, len(r.p.standbys))
	var all sync.WaitGroup
	for i, one := range r.p.standbys {
		all.Go(func() {
			if err := one.cut(ctx, r, written); err != nil {
				reasons[i] = fmt.Sprintf("standby %s: %v", one.at(), err)
			}
		})
	}
	all.Wait()
	if failed := strings.Join(nonEmpty(reasons), "; "); failed != "" {
		return &provider.Unconfirmed{Reason: failed + "; a session of the credential may live there. Bring the standby back, or take it out of standby_urls"}
	}
	return nil
}

func nonEmpty(texts []string) []string {
	var kept []string
	for _, text := range texts {
		if text != "" {
			kept = append(kept, text)
		}
	}
	return kept
}

// cut ends the sessions of a login on the standby, until there are none and the standby
// has replayed what closes the login.
func (s *standby) cut(ctx context.Context, r *revocation, written string) error {
	lent, err := s.forRevocation(ctx)
	if err != nil {
		return err
	}
	defer lent.Release()
	names := []string{r.name, r.handle[handleLogin], setAsideName(r.handle)}
	return poll(ctx, patience, func() (bool, error) {
		var replayed bool
		var left int
		// In this order: a session may begin until it is replayed. One that was promoted
		// replays nothing any longer, and may have the login as it was.
		err := lent.QueryRow(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() >= $1::text::pg_lsn
  ELSE NOT EXISTS (SELECT FROM pg_roles WHERE oid = $2 AND rolname = ANY ($3::text[]) AND rolcanlogin) END`, written, r.oid, names).Scan(&replayed)
		if err != nil {
			return false, said("how far it has replayed", err)
		}
		err = lent.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid))::integer FROM pg_stat_activity
 WHERE usesysid = $1 AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = $1 AND r.rolname <> ALL ($2::text[]))`, r.oid, names).Scan(&left)
		return replayed && left == 0, said("ending sessions", err)
	}, errors.New("it has not replayed yet that the login is closed, or a session there has not ended"))
}

// watched starts the mount's watchdog on the standby, unless it was seen a moment ago.
func (s *standby) watched(ctx context.Context, mount string) error {
	s.mu.Lock()
	recent := time.Since(s.seen) < watchedFor
	s.mu.Unlock()
	if recent {
		return nil
	}
	if err := s.watch.start(ctx, mount); err != nil {
		return fmt.Errorf("standby %s: %w", s.at(), err)
	}
	s.mu.Lock()
	s.seen = time.Now()
	s.mu.Unlock()
	return nil
}

// watchStandbys sees to it that each standby has a watchdog for the mount.
func (p *postgres) watchStandbys(ctx context.Context, mount string) error {
	failed := make([]error, len(p.standbys))
	var all sync.WaitGroup
	for i, one := range p.standbys {
		all.Go(func() { failed[i] = one.watched(ctx, mount) })
	}
	all.Wait()
	return errors.Join(failed...)
}
