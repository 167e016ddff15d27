package vault

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// capabilities are those that can be granted: each stands for one kind of request.
// https://developer.hashicorp.com/vault/docs/concepts/policies#capabilities
var capabilities = []string{"create", "read", "update", "patch", "delete", "list"}

// inexact are the capabilities that can't be granted alone, and why.
var inexact = map[string]string{
	"sudo":      "it is no kind of request; where a path needs it, allow_escalation=true adds it",
	"deny":      "a grant that allows nothing is none",
	"root":      "it stands for everything",
	"subscribe": "an event tells of other paths, too",
	"recover":   "it also needs the right to read a snapshot",
}

// wanted is what a role asks for, checked by itself.
type wanted struct {
	action    string
	path      string         // without the "/*" of a prefix
	below     bool           // everything below path, and not path itself
	filled    []scope.Filled // which parts of path are not the role's own
	uses      int            // 0 for any number
	boundCIDR string         // empty for any address
}

// full is the path as the policy names it.
func (w wanted) full() string {
	if w.below {
		return w.path + "/*"
	}
	return w.path
}

// parse checks what needs no knowledge of the target. The errors are *invalid.Error.
func parse(granted scope.Scope, bounds provider.Bounds) (wanted, error) {
	switch {
	case len(granted.Conditions()) > 0:
		return wanted{}, invalid.Hidden("conditions", "a policy of Vault has no conditions", "leave them out")
	case len(granted.Companions()) > 0:
		return wanted{}, invalid.Hidden("companion_resources", "every request to Vault is for one path", "leave them out")
	}
	if err := checkCapability(granted.Action()); err != nil {
		return wanted{}, err
	}
	path, below := strings.CutSuffix(granted.Resource(), "/*")
	if err := checkPath(granted.Resource(), path); err != nil {
		return wanted{}, err
	}
	uses, _ := bounds.Options.Number(fieldUses)
	if uses < 0 || uses > math.MaxInt32 {
		return wanted{}, invalid.Field(fieldUses, fmt.Sprint(uses), "not a number of requests", "write 1 for once, or leave it out for any number")
	}
	asked := wanted{action: granted.Action(), path: path, below: below, filled: granted.ResourceText().Filled(), uses: uses}
	if bounds.SourceIP.IsValid() {
		address := bounds.SourceIP.Unmap().WithZone("")
		asked.boundCIDR = netip.PrefixFrom(address, address.BitLen()).String()
	}
	return asked, checkFilled(asked)
}

func checkCapability(action string) error {
	for _, capability := range capabilities {
		if action == capability {
			return nil
		}
	}
	remedy := "name " + invalid.OneOf(capabilities)
	if why, known := inexact[action]; known {
		return invalid.Field("action", action, "can't be granted exactly: "+why, remedy)
	}
	if near := nearest(action); near != "" {
		remedy = "perhaps " + near + "; " + remedy
	}
	return invalid.Field("action", action, "not a capability of Vault's policies", remedy)
}

// nearest is the capability that a word stands for in other places, if any.
func nearest(action string) string {
	word := strings.ToLower(action)
	if at := strings.LastIndexAny(word, ":/."); at >= 0 {
		word = word[at+1:]
	}
	others := map[string]string{
		"write": "update", "put": "update", "post": "update", "modify": "update", "get": "read", "view": "read", "remove": "delete", "destroy": "delete", "ls": "list", "add": "create",
	}
	for _, capability := range capabilities {
		if strings.HasPrefix(word, capability) || (len(word) > 2 && strings.HasPrefix(capability, word)) {
			return capability
		}
	}
	return others[word]
}

// notPlain are the characters that a path may not have: those that mean something in
// a policy or in a URL, or could be taken for others. A space may stand inside.
func notPlain(char rune) bool {
	return char < ' ' || char >= 0x7F || strings.ContainsRune(`*"\{}$%?#<>|^`+"`", char)
}

// checkPath refuses what a policy could not take as it is written, or Vault would
// not find. resource is the path as the role has it.
func checkPath(resource, path string) error {
	wrong := func(problem, remedy string) error { return invalid.Field("resource", resource, problem, remedy) }
	const example = "name a path such as secret/data/payments/db"
	switch {
	case path == "" || path == "*":
		return wrong("everything is not one resource", example)
	case strings.HasPrefix(path, "/"):
		return wrong("a path starts with its mount, not with a \"/\"", "write "+strings.TrimLeft(path, "/"))
	case strings.HasSuffix(path, "/"):
		return wrong("a path ends with a name", "leave the last \"/\" off, or write /* for all that is below")
	case strings.Contains(path, "*"):
		return wrong("a \"*\" may only be the last character, after a \"/\"", example+", or secret/data/payments/* for all that is below")
	case strings.Contains(path, "{{") || strings.Contains(path, "}}"):
		return wrong("Vault would fill in what is between braces", "write it out, or use a parameter")
	case strings.ContainsFunc(path, notPlain):
		return wrong("it has a character that could mean more than itself in a policy or a URL", "name a path of letters, digits and !&'()+,-.:;=@_~")
	}
	for segment := range strings.SplitSeq(path, "/") {
		switch {
		case segment == "":
			return wrong("it has an empty segment", "put one \"/\" between two names")
		case segment == "." || segment == "..":
			return wrong("a segment \"..\" or \".\" means another place", "name the place itself")
		case strings.HasPrefix(segment, "+"):
			return wrong("a segment that starts with \"+\" stands for any other in a policy", "name the segment itself")
		case strings.TrimSpace(segment) != segment:
			return wrong("a segment starts or ends with a space", "leave it off")
		}
	}
	if !strings.Contains(resource, "/") {
		return wrong("it names a mount and nothing in it", example)
	}
	return nil
}

// checkFilled sees to it that what is filled in is whole segments: one of them, or
// several where nothing comes after. That the mount is none of them place.check says.
func checkFilled(asked wanted) error {
	for _, filled := range asked.filled {
		value := asked.path[filled.Start:min(filled.End, len(asked.path))]
		wrong := func(problem, remedy string) error {
			return invalid.Field(string(filled.Reference), value, problem, remedy)
		}
		last := filled.End == len(asked.path)
		switch {
		case filled.Start == 0:
			return wrong("the mount can't be filled in", "write it out in the role")
		case asked.path[filled.Start-1] != '/' || (!last && asked.path[filled.End] != '/'):
			return wrong("it is filled in beside other text", "let the parameter stand for a whole segment of the path")
		case strings.Contains(value, "/") && !last:
			return wrong("it would stand for several segments of the path", "give the name of one segment")
		}
	}
	return nil
}
