package kubernetes

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// markPrefix starts the keys of labels and annotations that say whose an object is.
const markPrefix = "precision/"

// Marks. Mount, ledger and grant are always labels, to be found by.
const (
	markMount   = markPrefix + "mount"
	markLedger  = markPrefix + "ledger"
	markGrant   = markPrefix + "grant"
	markRole    = markPrefix + "role"
	markTask    = markPrefix + "task"
	markEntity  = markPrefix + "entity"
	markExpires = markPrefix + "expires" // RFC 3339
	// markFor is the namespace that a grant is for, which its account is not in.
	markFor = markPrefix + "namespace"

	managedBy  = "app.kubernetes.io/managed-by"
	engineName = "vault-plugin-secrets-precision"
)

// markOf is what a grant's handle and objects say of it.
func markOf(grant provider.Grant) provider.Handle {
	handle := provider.Handle{}
	for key, value := range map[string]string{
		markMount:   grant.Mount,
		markLedger:  grant.Ledger,
		markGrant:   grant.ID,
		markRole:    grant.Role,
		markTask:    grant.Task,
		markEntity:  grant.EntityID,
		markExpires: grant.ExpiresAt.UTC().Format(time.RFC3339),
	} {
		if value != "" {
			handle[key] = value
		}
	}
	return handle
}

// metaOf is the metadata of an object of a handle. What is no label's value is an
// annotation.
func metaOf(handle provider.Handle, namespace string) meta.ObjectMeta {
	made := meta.ObjectMeta{
		Name: handle[handleName], Namespace: namespace,
		Labels: map[string]string{managedBy: engineName}, Annotations: map[string]string{},
	}
	for key, value := range handle {
		switch {
		case !strings.HasPrefix(key, markPrefix):
		case len(validation.IsValidLabelValue(value)) == 0:
			made.Labels[key] = value
		default:
			made.Annotations[key] = value
		}
	}
	made.Annotations[markFor] = handle[handleNamespace]
	return made
}

// markIn reads a mark.
func markIn(of meta.ObjectMeta, key string) string {
	if value, labelled := of.Labels[key]; labelled {
		return value
	}
	return of.Annotations[key]
}

// marked is what an object says of itself.
func marked(of meta.ObjectMeta, accounts, namespace string) provider.Marked {
	found := provider.Marked{
		Handle: provider.Handle{handleName: of.Name, handleAccounts: accounts, handleNamespace: namespace},
		Mount:  markIn(of, markMount), Ledger: markIn(of, markLedger), Grant: markIn(of, markGrant),
		Role: markIn(of, markRole), Task: markIn(of, markTask),
	}
	if expiresAt, err := time.Parse(time.RFC3339, markIn(of, markExpires)); err == nil {
		found.ExpiresAt = expiresAt
	}
	return found
}
