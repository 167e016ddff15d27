package vault

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// requests are the kinds of request that a capability each stands for.
var requests = map[string]string{
	"create": http.MethodPut, "read": http.MethodGet, "update": http.MethodPut, "patch": http.MethodPatch, "delete": http.MethodDelete, "list": "LIST",
}

// pair is a capability and a path.
type pair struct{ capability, path string }

// around are the paths that a token for one of them is tried on.
func around(path string) []string {
	mount, rest, _ := strings.Cut(path, "/")
	kind, name, _ := strings.Cut(rest, "/")
	if mount == "kv1" {
		kind, name = "", rest
	}
	paths := []string{
		path, path + "/under", path + "x", path[:len(path)-1], path + "/", path + "//", path + "%2F", path + "%20", path + "%00", path + "%2A", "/" + path, mount + "//" + rest,
		mount + "/./" + rest, mount + "/x/../" + rest, mount + "/" + kind + "/x%2F..%2F" + name, strings.ToUpper(path), mount + "/" + strings.ToUpper(rest),
		path[:strings.LastIndex(path, "/")], path[:strings.LastIndex(path, "/")] + "/other", mount + "/" + kind + "/elsewhere", mount + "/" + kind, mount, mount + "/config",
		path + "?version=1", path + "?list=true", strings.Replace(path, "/", "%2F", 1), strings.ReplaceAll(path, "/", "%2F"),
		"deep/er/data/" + name, "kv1/" + name, "kv1/a", "cubbyhole/" + name, "cubbyhole/x", "sys/mounts", "sys/mounts/" + mount, "sys/policies/acl/engine", "sys/auth", "sys/leases/lookup", "sys/remount", "sys/seal",
		"auth/token/lookup-self", "auth/token/renew-self", "auth/token/revoke-self", "auth/token/create", "auth/token/roles/x", "identity/entity", "identity/group/id", "sys/wrapping/wrap", "sys/capabilities-self",
	}
	for _, other := range []string{"data", "metadata", "delete", "undelete", "destroy", "subkeys"} {
		if mount != "kv1" {
			paths = append(paths, mount+"/"+other+"/"+name)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// arrange has a path be as a request of a capability expects it: there, or not.
func arrange(t *testing.T, wanted pair) {
	t.Helper()
	path, _, _ := strings.Cut(strings.ReplaceAll(wanted.path, "%2F", "/"), "?")
	root := func(method, path, body string) {
		_ = request(t.Context(), servers.Other.Address, servers.Other.Root, method, path, body) // most paths are no secrets
	}
	mount, rest, _ := strings.Cut(path, "/")
	if mount == "deep" {
		mount, rest = "deep/er", strings.TrimPrefix(rest, "er/")
	}
	_, name, _ := strings.Cut(rest, "/")
	switch {
	case mount == "kv1" && wanted.capability == "create":
		root(http.MethodDelete, path, "")
	case mount == "kv1":
		root(http.MethodPut, path, `{"password":"old"}`)
	case (mount == "secret" || mount == "deep/er") && name != "" && wanted.capability == "create":
		root(http.MethodDelete, mount+"/metadata/"+name, "")
	case (mount == "secret" || mount == "deep/er") && name != "":
		root(http.MethodPut, mount+"/data/"+name, `{"data":{"password":"old"}}`)
	}
}

func bodyOf(wanted pair) string {
	path := strings.ReplaceAll(wanted.path, "%2F", "/")
	switch {
	case wanted.capability == "read" || wanted.capability == "list" || wanted.capability == "delete":
		return ""
	case strings.Contains(path, "/delete/") || strings.Contains(path, "/undelete/") || strings.Contains(path, "/destroy/"):
		return `{"versions":[1]}`
	case strings.Contains(path, "/metadata/"):
		return `{"max_versions":5}`
	case strings.HasPrefix(path, "kv1/"):
		return `{"password":"new"}`
	default:
		return `{"data":{"password":"new"}}`
	}
}

// Of all capabilities on all paths around the granted one, exactly the granted pair
// works, by Vault's own judgement.
func TestExactlyOnePairWorks(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	grants := []pair{
		{"create", "secret/data/exact/create"}, {"read", "secret/data/exact/read"}, {"update", "secret/data/exact/db"}, {"patch", "secret/data/exact/patch"}, {"delete", "secret/data/exact/del"},
		{"list", "secret/metadata/exact"}, {"read", "secret/metadata/exact/meta"}, {"delete", "secret/metadata/exact/gone"}, {"update", "secret/undelete/exact/un"}, {"update", "secret/destroy/exact/de"}, {"read", "secret/subkeys/exact/keys"},
		{"create", "kv1/exact/create"}, {"read", "kv1/exact/read"}, {"update", "kv1/exact/db"}, {"delete", "kv1/exact/del"}, {"list", "kv1/exact"},
	}
	tried, worked := 0, 0
	for i, granted := range grants {
		name := "exact-" + string(rune('a'+i))
		m.role(name, granted.capability, granted.path, nil)
		token := m.mint(name + "/INC-7")
		for _, path := range around(granted.path) {
			for capability, method := range requests {
				asked := pair{capability, path}
				arrange(t, asked)
				err := token.ask(t.Context(), method, path, bodyOf(asked))
				tried++
				switch status := statusOf(err); {
				case isGranted(granted, asked):
					if err != nil {
						t.Errorf("%v: what is granted fails: %v", granted, err)
					}
					worked++
				case status == http.StatusForbidden, status == http.StatusTemporaryRedirect, status == http.StatusMovedPermanently:
					// Refused, or told to ask for another path, which is among these.
				case status == http.StatusBadRequest && malformed(path), status == http.StatusMethodNotAllowed && path == "sys/seal":
					// No request that Vault knows.
				default:
					t.Errorf("%v: %s on %s is not refused: %v", granted, capability, path, err)
				}
			}
		}
	}
	figures.Log(t, "grants: %d; pairs of capability and path tried: %d; worked: %d, the granted ones in their spellings", len(grants), tried, worked)
}

// malformed says whether Vault takes a path for none, before it asks who may use it.
func malformed(path string) bool {
	return strings.HasSuffix(path, "/") || strings.HasSuffix(path, "%2F") || strings.HasSuffix(path, "%00")
}

// isGranted says whether a request is the granted one, as Vault itself spells it: a
// list with or without the last "/", a path with its own separators encoded.
func isGranted(granted, asked pair) bool {
	path, query, _ := strings.Cut(asked.path, "?")
	path = strings.ReplaceAll(path, "%2F", "/")
	if asked.capability == "list" || (asked.capability == "read" && query == "list=true") {
		path = strings.TrimSuffix(path, "/")
		return granted.capability == "list" && path == granted.path
	}
	capability := asked.capability
	for _, post := range []string{"secret/delete/", "secret/undelete/", "secret/destroy/"} {
		if strings.HasPrefix(path, post) && capability == "create" {
			capability = "update" // there is nothing that could be created
		}
	}
	return granted.capability == capability && path == granted.path
}
