package kubernetes

import (
	"context"
	"fmt"
	"iter"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Marked implements provider.OrphanFinder: it lists the accounts that bear the mount's
// mark, and then the bindings of whose grants it has seen no account. Anybody who may
// make bindings in some namespace can give one any mark and any name, and would have the
// account of that name ended: what is not named by its own grant is not the engine's.
func (c *cluster) Marked(ctx context.Context, mount string, known func(grant string, handle provider.Handle) bool) iter.Seq2[provider.Marked, error] {
	return func(yield func(provider.Marked, error) bool) {
		if mount == "" {
			return // the mark would be everybody's
		}
		selector := markMount + "=" + mount
		seen := map[string]bool{}
		more := true
		err := list(ctx, c.client, accountsPath(c.namespace), selector, func(accounts []meta.PartialObjectMetadata) bool {
			for _, account := range accounts {
				found := marked(account.ObjectMeta, c.namespace, account.Annotations[markFor])
				seen[account.Name] = true
				if more = !namedByGrant(found) || known(found.Grant, nil) || yield(found, nil); !more {
					return false
				}
			}
			return true
		})
		if err == nil && more {
			err = list(ctx, c.client, "/apis/rbac.authorization.k8s.io/v1/rolebindings", selector, func(bindings []meta.PartialObjectMetadata) bool {
				for _, binding := range bindings {
					found := marked(binding.ObjectMeta, c.namespace, binding.Namespace)
					if seen[binding.Name] || !namedByGrant(found) || known(found.Grant, nil) {
						continue
					}
					if more = yield(found, nil); !more {
						return false
					}
				}
				return true
			})
		}
		switch {
		case err == nil || !more:
		case forbidden(err):
			yield(provider.Marked{}, fmt.Errorf("kubernetes: %w: allow it to list service accounts in %s, and role bindings everywhere", provider.ErrNotPermitted, c.namespace))
		default:
			yield(provider.Marked{}, wrapped("listing what bears the mount's mark", err))
		}
	}
}

// namedByGrant says whether an object has the name that Prepare gave it.
func namedByGrant(found provider.Marked) bool {
	name := found.Handle[handleName]
	return found.Grant != "" && (name == accountPrefix+found.Grant || name == restartPrefix+found.Grant)
}
