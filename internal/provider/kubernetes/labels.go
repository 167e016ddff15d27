package kubernetes

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

const (
	fieldLabels = "labels"
	maxLabels   = 32
)

// reserved are the domains whose prefixes are Kubernetes' own, and shared the one of
// them that is everybody's.
// https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
var reserved = []string{"kubernetes.io", "k8s.io"}

const shared = "app.kubernetes.io/"

// parseLabels reads a role's labels, which are filled in by then. The engine finds its
// own objects by their labels, so no role has those. The errors are *invalid.Error.
func parseLabels(settings provider.Settings) (map[string]string, error) {
	labels := settings.Pairs(fieldLabels)
	if len(labels) > maxLabels {
		return nil, invalid.Hidden(fieldLabels, fmt.Sprintf("%d labels are too many", len(labels)), fmt.Sprintf("give %d at most", maxLabels))
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value := labels[key]
		switch {
		case len(validation.IsQualifiedName(key)) > 0:
			return nil, invalid.Field(fieldLabels, key, "not the key of a label", "write up to 63 letters, digits and -_. with a letter or digit first and last, behind a domain and \"/\" if you like")
		case ours(key):
			return nil, invalid.Field(fieldLabels, key, "the engine knows what it has made by it", "write another key, which does not start with "+markPrefix)
		case isReserved(key):
			return nil, invalid.Field(fieldLabels, key, "its domain is Kubernetes' own", "write a domain of yours, or "+shared)
		case len(validation.IsValidLabelValue(value)) > 0:
			return nil, invalid.Field(fieldLabels, value, "not the value of a label, "+key, "see that it becomes 63 letters, digits and -_. at most, with a letter or digit first and last")
		}
	}
	return labels, nil
}

// ours says whether a label is one that the engine itself sets.
func ours(key string) bool { return key == managedBy || strings.HasPrefix(key, markPrefix) }

func isReserved(key string) bool {
	domain, _, prefixed := strings.Cut(key, "/")
	return prefixed && !strings.HasPrefix(key, shared) && slices.ContainsFunc(reserved, func(one string) bool {
		return domain == one || strings.HasSuffix(domain, "."+one)
	})
}

// labelled is the metadata with a role's labels beside the engine's own.
func labelled(made meta.ObjectMeta, labels map[string]string) meta.ObjectMeta {
	for key, value := range labels {
		if !ours(key) {
			made.Labels[key] = value
		}
	}
	return made
}
