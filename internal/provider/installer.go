package provider

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Examiner is a Provider that looks at its target before a role is stored:
// whether what the role names is there, and what everybody may do there anyway.
type Examiner interface {
	// Examine checks against the target what Compile can't judge without it. It is
	// asked before Compile, so it checks the scope itself first; where the role has
	// parameters, an example is filled in. What the role's author can mend is an
	// *invalid.Error.
	Examine(ctx context.Context, granted scope.Scope, bounds Bounds) (Findings, error)
}

// Findings is what Examine learnt.
type Findings struct {
	Facts    Facts    // kept with the role, and given to Compile and Advise in Bounds
	Warnings []string // to who writes the role
	// Each says that the findings hold for this scope alone: what else the role's parameters
	// admit is examined too, value by value.
	Each bool
}

// Installer is a Provider whose credentials hang on something that is made at the
// target once for all of them that have it in common: a Kubernetes Role, a
// PostgreSQL role that holds the privileges, a Vault policy. It is made when a role
// is written, or by the first mint where the role has parameters, and removed with
// the last role and the last grant that need it.
type Installer interface {
	// Plan names what a policy needs, for one mount and ledger; it is empty where
	// the policy needs nothing. Policies that can share it have equal handles, others
	// never have. The handle is recorded before Install, so that whatever Install
	// leaves behind can be found. No network call is made.
	Plan(policy Policy, mount, ledger string) Handle
	// Install makes it, and whatever is missing of it. It is idempotent. What
	// somebody has changed since is put right, or an error. What the role's author
	// can mend is an *invalid.Error.
	Install(ctx context.Context, handle Handle, policy Policy) error
	// Uninstall removes it. It is idempotent: what is gone, half made or was never
	// made succeeds. Nothing is called that grants still hang on.
	Uninstall(ctx context.Context, handle Handle) error
}

// ErrNotInstalled is wrapped by a *NotMade of Mint where what Install made is gone, or
// is more than it should be. It is installed again, and the mint tried once more. What
// somebody has taken away or replaced on purpose is no such case: it is refused.
var ErrNotInstalled = errors.New("what the credential hangs on is not at the target")

// TolerateAmbient is the role field of that name. What a target gives to everybody
// adds to what is granted, and can't be denied where the target has no deny.
const TolerateAmbient = "tolerate_ambient"

// TolerateAmbientField describes TolerateAmbient; examples are rights as the target
// names them.
func TolerateAmbientField(examples string) *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:         framework.TypeStringSlice,
		Description:  "Rights that the target gives to everybody and that the role's credentials may have besides, each as the refusal names it, such as " + examples + ". Every other such right refuses the role and its credentials.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Tolerate ambient"},
	}
}

// Untolerated are the rights that are found and not tolerated, each once, in order.
func Untolerated(found, tolerated []string) []string {
	var rest []string
	for _, right := range found {
		if !slices.Contains(tolerated, right) {
			rest = append(rest, right)
		}
	}
	slices.Sort(rest)
	return slices.Compact(rest)
}

// AmbientWarning says which rights a credential has besides its grant, since its
// target gives them to everybody and the role tolerates that. It is empty for none.
func AmbientWarning(tolerated []string) string {
	if len(tolerated) == 0 {
		return ""
	}
	return "the target gives everybody rights that the credential has besides its grant, and the role tolerates: " + strings.Join(tolerated, "; ")
}
