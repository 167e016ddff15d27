package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// document is what a mint makes: a policy of Vault in its JSON notation, and what
// the token is bound to besides.
type document struct {
	Path  map[string]rule `json:"path"`
	Token *binding        `json:"token,omitempty"`
}

type rule struct {
	Capabilities []string `json:"capabilities"`
}

// binding is named as the token role's parameters are.
type binding struct {
	Uses  int      `json:"num_uses,omitempty"`
	CIDRs []string `json:"bound_cidrs,omitempty"`
}

// compile writes the one rule. Where the path needs sudo, that comes with it: alone,
// the capability would be good for nothing, and sudo is no kind of request.
func compile(asked wanted, where place) document {
	written := document{Path: map[string]rule{asked.full(): {Capabilities: []string{asked.action}}}}
	if where.needsSudo(asked) {
		written.Path[asked.full()] = rule{Capabilities: []string{asked.action, "sudo"}}
	}
	if asked.uses > 0 || asked.boundCIDR != "" {
		written.Token = &binding{Uses: asked.uses}
		if asked.boundCIDR != "" {
			written.Token.CIDRs = []string{asked.boundCIDR}
		}
	}
	return written
}

func (d document) text() (provider.Policy, error) {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(d); err != nil {
		return "", fmt.Errorf("vault: encoding the policy: %w", err)
	}
	return provider.Policy(strings.TrimSpace(text.String())), nil
}

// read reads what text has written.
func read(policy provider.Policy) (document, error) {
	var written document
	if err := json.Unmarshal([]byte(policy), &written); err != nil {
		return document{}, fmt.Errorf("vault: reading the policy: %w", err)
	}
	if len(written.Path) != 1 {
		return document{}, fmt.Errorf("vault: the policy has %d paths, not one", len(written.Path))
	}
	if written.Token == nil {
		written.Token = &binding{}
	}
	return written, nil
}

// rules is the part of the document that is the Vault's policy: tokens that differ
// in what else they are bound to share it.
func (d document) rules() (string, error) {
	text, err := document{Path: d.Path}.text()
	return string(text), err
}

// only returns the one path and its capability.
func (d document) only() (path, capability string) {
	for path, rule := range d.Path {
		if len(rule.Capabilities) > 0 {
			return path, rule.Capabilities[0]
		}
	}
	return "", ""
}

// namePrefix starts the names of all that the engine makes at a target; its own
// policy there goes by it.
const namePrefix = "precision-"

// mountPart is the part of a name that is the mount's.
func mountPart(mount string) string { return mount[:min(len(mount), 8)] }

// policyName names a policy by what it says, for one mount and ledger.
func policyName(mount, ledger, rules string) string {
	text, err := json.Marshal([]string{mount, ledger, rules})
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	sum := sha256.Sum256(text)
	return namePrefix + mountPart(mount) + "-" + hex.EncodeToString(sum[:16])
}

// tokenRole names the token role of one grant.
func tokenRole(mount, grant string) string { return namePrefix + mountPart(mount) + "-" + grant }
