package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Facts of a role: where its path is.
const (
	factMount   = "mount"      // with its "/"
	factKind    = "mount_type" // as the Vault calls it
	factVersion = "kv_version" // of a mount of type kv
	factOurs    = "precision"  // the mount is one of this engine
)

// place is the mount that a path is in.
type place struct {
	mount, kind string
	versioned   bool // KV version 2
	ours        bool
}

var errNoFacts = errors.New("vault: the role does not say what its path is in: write it again")

// placeIn reads what Examine has learnt.
func placeIn(facts provider.Facts) (place, error) {
	if facts[factMount] == "" || facts[factKind] == "" {
		return place{}, errNoFacts
	}
	return place{mount: facts[factMount], kind: facts[factKind], versioned: facts[factVersion] == "2", ours: facts[factOurs] != ""}, nil
}

func (p place) facts() provider.Facts {
	facts := provider.Facts{factMount: p.mount, factKind: p.kind}
	if p.versioned {
		facts[factVersion] = "2"
	}
	if p.ours {
		facts[factOurs] = "true"
	}
	return facts
}

// Examine implements provider.Examiner: it asks the Vault what the path is in. The
// answer is a list of mounts, which names no secret.
func (v *vault) Examine(ctx context.Context, granted scope.Scope, bounds provider.Bounds) (provider.Findings, error) {
	asked, err := parse(granted, bounds)
	if err != nil {
		return provider.Findings{}, err
	}
	var answer struct {
		Data map[string]struct {
			Type    string
			Options map[string]string
			SHA256  string `json:"running_sha256"` // of a plugin's binary
		}
	}
	if err := v.call(ctx, http.MethodGet, "sys/mounts", nil, &answer); err != nil {
		return provider.Findings{}, fmt.Errorf("looking up the path's mount: %w", err)
	}
	if strings.HasPrefix(asked.path+"/", "auth/") { // its methods are no secrets engines
		return provider.Findings{Facts: place{mount: "auth/", kind: "auth"}.facts()}, nil
	}
	for path, mount := range answer.Data {
		if !strings.HasPrefix(asked.path+"/", path) {
			continue // no mount is inside of another
		}
		kind := strings.TrimPrefix(mount.Type, "ns_") // so called in a namespace
		found := place{mount: path, kind: kind, versioned: stores(kind) && mount.Options["version"] == "2"}
		found.ours = strings.Contains(kind, "precision") || (mount.SHA256 != "" && mount.SHA256 == v.binary())
		return provider.Findings{Facts: found.facts()}, nil
	}
	return provider.Findings{}, invalid.Field("resource", granted.Resource(), "the Vault has nothing mounted there", "name a path below one of its mounts")
}

// ownBinary is the hash of the program that this is, as Vault shows it of a plugin;
// empty where it can't be read.
func ownBinary() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return ""
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func stores(kind string) bool { return kind == "kv" || kind == "generic" }

// stores says whether the mount keeps what is written to it, and does nothing else.
func (p place) stores() bool { return stores(p.kind) }

// check refuses what would not be exact, or not work, where it is. The errors are
// *invalid.Error.
func (p place) check(asked wanted, escalationAllowed bool) error {
	rest, inside := strings.CutPrefix(asked.full(), p.mount)
	if !inside {
		return errNoFacts // of another path
	}
	for _, filled := range asked.filled {
		if filled.Start < len(p.mount) {
			return invalid.Field(string(filled.Reference), asked.path[filled.Start:filled.End], "the mount "+p.mount+" can't be filled in", "write it out in the role")
		}
	}
	if p.kind == "cubbyhole" {
		return invalid.Field("resource", asked.full(), "a cubbyhole is a token's own: nobody else ever sees what is in it", "name a path of another mount")
	}
	if why := p.escalates(asked); why != "" && !escalationAllowed {
		return invalid.Field("resource", asked.full(), "it could hand out further power: "+why, "name another path, or say that this is meant: allow_escalation=true")
	}
	switch {
	case p.versioned:
		return p.checkVersioned(asked, rest)
	case p.stores() && asked.action == "patch":
		return invalid.Field("action", asked.action, "the mount "+p.mount+" is KV version 1, which has no such request", "name create, read, update, delete or list")
	}
	return nil
}

// versionedPaths are the requests that each path of KV version 2 takes, as measured
// on Vault 1.21.0. https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
var versionedPaths = map[string][]string{
	"data":     {"create", "read", "update", "patch", "delete"},
	"metadata": {"create", "read", "update", "patch", "delete", "list"},
	"delete":   {"update"},
	"undelete": {"update"},
	"destroy":  {"update"},
	"subkeys":  {"read"},
	"config":   {"read", "update"},
}

func (p place) checkVersioned(asked wanted, rest string) error {
	first, below, deeper := strings.Cut(rest, "/")
	takes, known := versionedPaths[first]
	right := "data"
	if asked.action == "list" {
		right = "metadata"
	}
	switch {
	case first == "config" && !deeper:
	case first == "metadata" && !deeper && asked.action == "list": // the mount's first level
	case !known || !deeper || first == "config":
		return invalid.Field("resource", asked.full(), "the mount "+p.mount+" is KV version 2, where a path says first what is asked of a secret", "write "+p.mount+right+"/"+rest)
	case asked.action == "list" && first == "data":
		return invalid.Field("resource", asked.full(), "KV version 2 lists names below metadata/", "write "+p.mount+"metadata/"+below)
	}
	if !slices.Contains(takes, asked.action) {
		return invalid.Field("action", asked.action, "no request for "+p.mount+first+" is of this kind", "name "+invalid.OneOf(takes))
	}
	for _, filled := range asked.filled {
		if filled.Start < len(p.mount)+len(first) {
			return invalid.Field(string(filled.Reference), asked.path[filled.Start:filled.End], "what is asked of a secret can't be filled in", "write "+p.mount+"data/{{"+string(filled.Reference)+"}}")
		}
	}
	return nil
}

// defining are the first segments of paths that say, in a secrets engine that hands
// out credentials, what others may get of it.
var defining = []string{
	"config", "roles", "role", "static-roles", "static-role", "roleset", "static-account", "impersonated-account", "rotate-root", "rotate-role", "library",
	"root", "issuers", "issuer", "intermediate", "sign-verbatim", "sign-intermediate", "cross-sign", "keys", "key", "import", "restore",
}

// escalates says why a grant could give its holder, or others, more than the grant
// itself; it is empty where it could not.
func (p place) escalates(asked wanted) string {
	switch {
	case p.kind == "system":
		return "below sys/ Vault itself is governed"
	case p.kind == "auth":
		return "below auth/ tokens are made"
	case p.kind == "identity":
		return "below identity/ policies are given to people"
	case p.ours:
		return "the mount " + p.mount + " is this engine's, which mints credentials"
	case p.needsSudo(asked):
		return "the path needs sudo"
	case !p.stores() && asked.action != "read" && asked.action != "list":
		first, _, _ := strings.Cut(strings.TrimPrefix(asked.full(), p.mount), "/")
		if slices.Contains(defining, first) || first == "*" {
			return "the mount " + p.mount + " is of type " + p.kind + ", and there " + first + " can say what others get"
		}
	}
	return ""
}

// needsSudo says whether Vault takes a request for the path only from who has sudo
// there, too. A path for everything below one is none: what of it needs sudo stays
// closed.
func (p place) needsSudo(asked wanted) bool {
	switch p.kind {
	case "system", "auth":
		return !asked.below && api.IsSudoPath("/"+asked.path)
	case "pki":
		rest := strings.TrimPrefix(asked.path, p.mount)
		return !asked.below && (rest == "root" || rest == "root/sign-self-issued")
	default:
		return false
	}
}
