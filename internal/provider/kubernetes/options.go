package kubernetes

import (
	"slices"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Role fields of this provider.
const (
	fieldAudiences      = "audiences"
	fieldWaitReady      = "wait_ready"
	fieldAllowWatch     = "allow_watch"
	fieldIncludeSecrets = "include_secrets"
	fieldIncludeGroups  = "include_groups"
)

func roleFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldAudiences: {
			Type:         framework.TypeStringSlice,
			Description:  "Audiences of the token, one of them the API server's; without that, say wait_ready=false. Default: the API server's own.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Audiences"},
		},
		fieldWaitReady: {
			Type:         framework.TypeBool,
			Description:  "Answer only once the API server lets the account do what is granted, which takes some milliseconds. Default: true.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Wait until ready"},
		},
		fieldAllowWatch: {
			Type:         framework.TypeBool,
			Description:  "Let credentials open streams, which go on after the credential has been ended: read and deploy then have watch, too, and watch and logs can be granted.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Allow watch"},
		},
		fieldIncludeSecrets: {
			Type:         framework.TypeBool,
			Description:  "With <namespace>/*: include the namespace's secrets, which hand out further power.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Include secrets"},
		},
		fieldIncludeGroups: {
			Type:         framework.TypeStringSlice,
			Description:  "With <namespace>/*: groups of custom resources to include, such as argoproj.io.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Include groups"},
		},
		fieldLabels: {
			Type:         framework.TypeKVPairs,
			Description:  "Labels of account and binding beside the engine's own, by key. A value may hold {{task}}, a parameter or {{identity.entity.name}} and its like.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Labels"},
		},
		provider.TolerateAmbient: provider.TolerateAmbientField(`"get,list configmaps in prod"`),
	}
}

// options are a role's fields for this provider.
type options struct {
	audiences []string
	groups    []string
	tolerated rights
	labels    map[string]string
	waitReady bool
	watch     bool
	secrets   bool
}

// Limits of lists in a role.
const (
	maxAudiences = 8
	maxGroups    = 32
)

// parseOptions reads a role's fields. The errors are *invalid.Error.
func parseOptions(settings provider.Settings) (options, error) {
	read := options{
		audiences: inOrder(settings.List(fieldAudiences)), groups: inOrder(settings.List(fieldIncludeGroups)),
		waitReady: true, watch: settings.True(fieldAllowWatch), secrets: settings.True(fieldIncludeSecrets),
	}
	if value, set := settings[fieldWaitReady].(bool); set {
		read.waitReady = value
	}
	if len(read.audiences) > maxAudiences {
		return options{}, invalid.Hidden(fieldAudiences, "too many", "name 8 at most")
	}
	if slices.Contains(read.audiences, "") {
		return options{}, invalid.Hidden(fieldAudiences, "one of them is empty", "leave it out")
	}
	if len(read.groups) > maxGroups {
		return options{}, invalid.Hidden(fieldIncludeGroups, "too many", "name 32 at most")
	}
	for _, group := range read.groups {
		switch {
		case !isSubdomain(group):
			return options{}, invalid.Field(fieldIncludeGroups, group, "not the name of a group", "name one such as argoproj.io")
		case builtIn(group):
			return options{}, invalid.Field(fieldIncludeGroups, group, "a group of Kubernetes itself, of which <namespace>/* has what it can", "leave it out, and name a resource of it in a role of its own")
		}
	}
	var err error
	if read.labels, err = parseLabels(settings); err != nil {
		return options{}, err
	}
	read.tolerated, err = parseRights(settings.List(provider.TolerateAmbient))
	return read, err
}

// fit refuses fields that mean nothing for a resource.
func (o options) fit(on resource) error {
	if on.all {
		return nil
	}
	if o.secrets {
		return invalid.Hidden(fieldIncludeSecrets, "only <namespace>/* has something to include them in", "leave it out")
	}
	if len(o.groups) > 0 {
		return invalid.Hidden(fieldIncludeGroups, "only <namespace>/* has something to include them in", "leave it out")
	}
	return nil
}

// inOrder are the values each once and sorted, so that their order makes no other
// policy.
func inOrder(values []string) []string { return slices.Compact(slices.Sorted(slices.Values(values))) }
