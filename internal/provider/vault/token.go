package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Handle keys.
const (
	handleTokenRole = "token_role" // that the grant's token comes from, and no other
	handleGrant     = "grant_id"
	handleMount     = "mount"
	handleLedger    = "ledger"
	handleRole      = "role"
	handleTask      = "task"
	handleAccessor  = "accessor" // the token's; only after Mint
	handleUses      = "uses"     // that it is good for; only after Mint
)

// Mint implements provider.Provider in three calls: it looks at the policy, makes a
// token role that can make nothing but this token, and has it made.
//
// The token role is the grant's own. Vault keeps a token's lease under its role's
// name, so that Revoke finds the token although the answer to this was lost; and
// where the role is gone, a request that is still on its way makes nothing.
func (v *vault) Mint(ctx context.Context, handle provider.Handle, policy provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	written, err := read(policy)
	if err != nil {
		return provider.Credential{}, &provider.NotMade{Reason: err}
	}
	rules, err := written.rules()
	if err != nil {
		return provider.Credential{}, &provider.NotMade{Reason: err}
	}
	wish := wish{
		client: v, role: handle[handleTokenRole], policy: policyName(handle[handleMount], handle[handleLedger], rules), bound: *written.Token,
		shown: "precision-" + handle[handleRole], metadata: map[string]string{},
	}
	for _, key := range []string{handleGrant, handleMount, handleRole, handleTask} {
		if handle[key] != "" {
			wish.metadata[key] = handle[key]
		}
	}
	if err := v.installed(ctx, wish.policy, rules); err != nil {
		return provider.Credential{}, err
	}
	asked := time.Now()
	if err := wish.makeRole(ctx, mark(handle[handleMount], handle[handleLedger], expiresAt), expiresAt.Sub(asked)); err != nil {
		return provider.Credential{}, err
	}
	made, err := wish.makeToken(ctx, expiresAt, time.Since(asked))
	if err != nil {
		return provider.Credential{}, err
	}

	minted := maps.Clone(handle)
	minted[handleAccessor] = made.Auth.Accessor
	if written.Token.Uses > 0 {
		minted[handleUses] = strconv.Itoa(written.Token.Uses)
	}
	path, _ := written.only()
	fields := map[string]any{"token": made.Auth.Token, "accessor": made.Auth.Accessor, "address": v.client.address.String(), "path": path}
	if v.client.namespace != "" {
		fields["namespace"] = v.client.namespace
	}
	return provider.Credential{Fields: fields, Handle: minted}, nil
}

// wish is a token that is to be made.
type wish struct {
	client   *vault
	role     string // its token role
	policy   string // its one policy's name
	bound    binding
	shown    string // the display name
	metadata map[string]string
}

// makeRole makes the token role. Whoever may use it gets what the grant allows, and
// no more.
func (w wish) makeRole(ctx context.Context, mark string, life time.Duration) error {
	return w.client.call(ctx, http.MethodPost, "auth/token/roles/"+w.role, map[string]any{
		"allowed_policies":        []string{w.policy},
		"token_no_default_policy": true,
		"orphan":                  true,
		"renewable":               false,
		"token_type":              "service",
		"token_explicit_max_ttl":  int64(life/time.Second) + 1,
		"token_num_uses":          w.bound.Uses,
		"token_bound_cidrs":       w.bound.CIDRs,
		"path_suffix":             mark,
	}, nil)
}

const (
	// margin is how much sooner than its grant a token ends at least. Its life begins
	// when the target makes it, which is after it was asked to.
	margin = 500 * time.Millisecond
	// tries is how often a token is made that would outlive its grant, since the
	// target was slow.
	tries = 3
)

// makeToken has the token made, so that it is dead at expiresAt by the target's own
// doing. took is how long the target takes.
func (w wish) makeToken(ctx context.Context, expiresAt time.Time, took time.Duration) (authAnswer, error) {
	for range tries {
		asked := time.Now()
		left := expiresAt.Sub(asked)
		life := (left - min(margin+2*took, left/4)).Truncate(time.Millisecond)
		if life <= 0 {
			return authAnswer{}, fmt.Errorf("vault: the grant's time is over: %w", provider.ErrUnavailable)
		}
		made, err := w.ask(ctx, life)
		if err != nil {
			return authAnswer{}, err
		}
		if !time.Now().Add(life).After(expiresAt) {
			return made, w.check(made, life)
		}
		took = time.Since(asked)
		if err := w.client.endTokens(ctx, w.role); err != nil {
			return authAnswer{}, err
		}
	}
	return authAnswer{}, fmt.Errorf("vault: the target took too long to make a token that ends in time: %w", provider.ErrUnavailable)
}

func (w wish) ask(ctx context.Context, life time.Duration) (authAnswer, error) {
	ttl := strconv.FormatInt(life.Milliseconds(), 10) + "ms"
	var made authAnswer
	err := w.client.call(ctx, http.MethodPost, "auth/token/create/"+w.role, map[string]any{
		"policies":          []string{w.policy},
		"no_default_policy": true,
		"ttl":               ttl,
		"explicit_max_ttl":  ttl,
		"renewable":         false,
		"num_uses":          w.bound.Uses,
		"display_name":      w.shown,
		"meta":              w.metadata,
	}, &made)
	return made, err
}

// check refuses a token that is anything else than what was asked for.
func (w wish) check(made authAnswer, life time.Duration) error {
	only := []string{w.policy}
	token := made.Auth
	switch {
	case token.Token == "" || token.Accessor == "":
		return errors.New("vault: the answer holds no token")
	case !slices.Equal(token.Policies, only) || !slices.Equal(token.TokenPolicies, only):
		return fmt.Errorf("vault: the token has the policies %q, not %q alone", token.Policies, w.policy)
	case len(token.IdentityPolicies) > 0 || token.EntityID != "":
		return errors.New("vault: the token is an entity's, which has policies of its own")
	case !token.Orphan || token.Renewable || token.Type != "service":
		return errors.New("vault: the token is no orphan, can be renewed, or can't be revoked")
	case token.Uses != w.bound.Uses:
		return fmt.Errorf("vault: the token is good for %d requests, not %d", token.Uses, w.bound.Uses)
	case token.Seconds > int64(life/time.Second)+1:
		return fmt.Errorf("vault: the token lives for %d s, not %s", token.Seconds, life)
	case token.Seconds < int64(life/time.Second):
		return fmt.Errorf("vault: the target lets tokens live for %d s, and the grant is for %s: shorten the role's ttl, or raise the maximum of the target's token method", token.Seconds, life)
	default:
		return nil
	}
}

// Revoke implements provider.Provider. Vault ends all tokens of the role's name, known
// or not, before it answers; then the token role goes. Where the answer to the mint was
// lost, it may have been on its way all the while: it makes nothing any more without
// the role, and what it has made until then ends, too.
func (v *vault) Revoke(ctx context.Context, handle provider.Handle) error {
	role := handle[handleTokenRole]
	if role == "" {
		return errors.New("vault: the handle names no token role")
	}
	if err := v.endTokens(ctx, role); err != nil {
		return err
	}
	if err := v.call(ctx, http.MethodDelete, "auth/token/roles/"+role, nil, nil); err != nil {
		return err
	}
	if handle[handleAccessor] != "" {
		return nil
	}
	return v.endTokens(ctx, role)
}

func (v *vault) endTokens(ctx context.Context, role string) error {
	return v.call(ctx, http.MethodPost, "sys/leases/revoke-prefix/auth/token/create/"+role, map[string]any{"sync": true}, nil)
}

// Witness implements provider.Witness. Vault forgets a token that is used up, as it
// does one that has expired or was revoked: then it is gone, and no more is known. The
// ledger has no accessor where the answer to the mint was lost, or where the engine has
// started anew since and it is not the lease that ends.
func (v *vault) Witness(ctx context.Context, handle provider.Handle) (map[string]string, error) {
	accessor := handle[handleAccessor]
	if accessor == "" {
		return map[string]string{"token": "not known: the engine has no accessor of it any more"}, nil
	}
	seen := map[string]string{}
	if uses := handle[handleUses]; uses != "" {
		seen["uses"] = uses
	}
	var answer struct {
		Data struct {
			Accessor string
			Uses     int `json:"num_uses"`
		}
	}
	err := v.call(ctx, http.MethodPost, "auth/token/lookup-accessor", map[string]string{"accessor": accessor}, &answer)
	switch {
	case said(err, http.StatusBadRequest):
		seen["token"] = "gone"
	case err != nil:
		return nil, err
	case answer.Data.Accessor != accessor:
		return nil, errors.New("vault: the answer is of another token, or of none")
	case handle[handleUses] == "":
		seen["token"] = "live"
	case answer.Data.Uses > 0:
		seen["token"], seen["uses_left"] = "live", strconv.Itoa(answer.Data.Uses)
	default: // less than none: it is about to be forgotten
		seen["token"], seen["uses_left"] = "used up", "0"
	}
	return seen, nil
}
