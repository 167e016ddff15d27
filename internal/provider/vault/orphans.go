package vault

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// mark says whose a token role is, and when its token ends: mount, ledger and seconds
// since 1970. It stands where a token role has a text that the engine may choose: as
// a part of its tokens' path.
func mark(mount, ledger string, expiresAt time.Time) string {
	return mount + "." + ledger + "." + strconv.FormatInt(expiresAt.Unix(), 10)
}

// readMark reads what mark wrote; what it can't read is empty.
func readMark(text string) (mount, ledger string, expiresAt time.Time) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return "", "", time.Time{}
	}
	seconds, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return "", "", time.Time{}
	}
	return parts[0], parts[1], time.Unix(seconds, 0).UTC()
}

// Marked implements provider.OrphanFinder: it lists the token roles, and reads those
// whose names are the mount's and don't name a known grant.
func (v *vault) Marked(ctx context.Context, mount string, known func(grant string, handle provider.Handle) bool) iter.Seq2[provider.Marked, error] {
	return func(yield func(provider.Marked, error) bool) {
		names, err := v.tokenRoles(ctx)
		if err != nil {
			yield(provider.Marked{}, err)
			return
		}
		for _, name := range names {
			grant, ours := strings.CutPrefix(name, tokenRole(mount, ""))
			if mount == "" || !ours || known(grant, nil) {
				continue
			}
			marked, err := v.markOf(ctx, name, grant)
			if statusOf(err) == http.StatusNotFound {
				continue // since it was listed
			}
			if !yield(marked, err) || err != nil {
				return
			}
		}
	}
}

func (v *vault) tokenRoles(ctx context.Context) ([]string, error) {
	var answer struct{ Data struct{ Keys []string } }
	err := v.call(ctx, http.MethodGet, "auth/token/roles?list=true", nil, &answer)
	switch statusOf(err) {
	case http.StatusNotFound: // there is none
		return nil, nil
	case http.StatusForbidden:
		return nil, fmt.Errorf("listing token roles: %w: allow it list on auth/token/roles", provider.ErrNotPermitted)
	default:
		return answer.Data.Keys, err
	}
}

func (v *vault) markOf(ctx context.Context, name, grant string) (provider.Marked, error) {
	var answer struct {
		Data struct {
			Mark string `json:"path_suffix"`
		}
	}
	if err := v.call(ctx, http.MethodGet, "auth/token/roles/"+name, nil, &answer); err != nil {
		return provider.Marked{}, err
	}
	mount, ledger, expiresAt := readMark(answer.Data.Mark)
	return provider.Marked{Handle: provider.Handle{handleTokenRole: name}, Mount: mount, Ledger: ledger, Grant: grant, ExpiresAt: expiresAt}, nil
}
