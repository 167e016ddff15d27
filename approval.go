package precision

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// approvalFields are the fields of a role that say who has to approve.
func approvalFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"approvals": {
			Type:         framework.TypeInt,
			Description:  "How many others have to approve before a credential is minted, for each task. Default: 0, nobody.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Approvals"},
		},
		"approver_group_ids": {
			Type:         framework.TypeStringSlice,
			Description:  "Ids of identity groups: who approves is in one of them. Default: whoever may write requests/<id>/approve.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Approver group IDs"},
		},
		"approval_ttl": {
			Type:         framework.TypeDurationSecond,
			Description:  "How long a request waits for its approvals, and how long it stands once it has them. Default: 1h.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Approval TTL"},
		},
		"approval_uses": {
			Type:         framework.TypeInt,
			Description:  "How many credentials one approval is good for. Default: 1.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Approval uses"},
		},
	}
}

// changeApproval applies the request's fields to a role's rule, checks it, and says
// what its author should know. Whatever else is written, what was approved before is
// of another role.
func (r *role) changeApproval(data *framework.FieldData) (warnings []string, err error) {
	rule := &r.Approval
	if err := notEmpty(data, "approver_group_ids"); err != nil {
		return nil, err
	}
	if raw, given := data.Raw["approval_uses"]; given && raw != nil && data.Get("approval_uses").(int) == 0 {
		return nil, invalid.Field("approval_uses", "0", "an approval that is good for nothing", "say how many credentials one approval is good for")
	}
	change(data, "approvals", &rule.Needed)
	change(data, "approver_group_ids", &rule.Groups)
	rule.Groups = elements(rule.Groups)
	change(data, "approval_uses", &rule.Uses)
	seconds := int(rule.TTL / time.Second)
	change(data, "approval_ttl", &seconds)
	rule.TTL = time.Duration(seconds) * time.Second
	rule.Revision = ""
	if rule.Needed > 0 {
		drawn := make([]byte, 8)
		_, _ = rand.Read(drawn) // never fails: https://pkg.go.dev/crypto/rand#Read
		rule.Revision = hex.EncodeToString(drawn)
	}
	return r.checkApproval()
}

// readApproval adds to a role's answer what is set.
func readApproval(rule approval.Rule, answer map[string]any) {
	for name, number := range map[string]int{"approvals": rule.Needed, "approval_uses": rule.Uses, "approval_ttl": int(rule.TTL / time.Second)} {
		if number != 0 {
			answer[name] = number
		}
	}
	if len(rule.Groups) > 0 {
		answer["approver_group_ids"] = rule.Groups
	}
}

// checkApproval checks a role's rule, and says what its author should know.
func (r role) checkApproval() (warnings []string, err error) {
	if err := r.Approval.Check(); err != nil {
		return nil, err
	}
	if r.Approval.Needed == 0 {
		return nil, nil
	}
	if r.Renewable {
		return nil, invalid.Hidden("renewable", "the role asks for approvals, and a renewal would be more than was approved", "leave it out, and let who needs more time ask again")
	}
	if _, taken := r.Parameters["reason"]; taken {
		return nil, invalid.Field("parameters", "reason", "the role asks for approvals, and a request has a reason of its own", "choose another name")
	}
	if len(r.Approval.Groups) == 0 {
		warnings = append(warnings, "approver_group_ids is not set: everybody may approve but who asks, if their policies let them write requests/<id>/approve")
	}
	return warnings, nil
}

// bindingOf is what an approval has to be for, so that the order may be minted. What
// parameters fill in is not all in the scope.
func bindingOf(order lifecycle.Order, stored openRole, parameters map[string]string) (approval.Binding, error) {
	text, err := json.Marshal([]any{parameters, order.Bounds.Options})
	if err != nil {
		return approval.Binding{}, fmt.Errorf("encoding what is filled into the role: %w", err)
	}
	sum := sha256.Sum256(text)
	return approval.Binding{
		Role: order.Role, Version: stored.version, Target: order.Target, System: order.System,
		Task: order.Task, Scope: order.Scope.Canonical(), Filled: hex.EncodeToString(sum[:]), Entity: order.EntityID,
	}, nil
}

// shownOf is the order as who approves sees it, with the policy that it is compiled to.
func shownOf(order lifecycle.Order, parameters map[string]string, policy provider.Policy, expiresAt time.Time) approval.Shown {
	narrowed := order.Narrowed()
	policy = lifecycle.Blank(policy, expiresAt, order.Bounds.SourceIP)
	return approval.Shown{
		Action: order.Scope.Action(), Resource: order.Scope.Resource(), Companions: narrowed.Companions, Conditions: narrowed.Conditions,
		SourceIP: order.Bounds.SourceIP.IsValid(), Parameters: parameters,
		Options: order.Bounds.Options, Policy: string(policy), PolicySHA256: lifecycle.Hash(policy),
	}
}

// admitMint holds a read of a credential to all that its role asks for, and to what
// is frozen. What refuses it is an *invalid.Error or an *invalid.Denied; the
// warnings say what was cut.
func (b *backend) admitMint(ctx context.Context, req *logical.Request, data *framework.FieldData, stored openRole, order *lifecycle.Order) (warnings []string, err error) {
	if err := b.checkFrozen(ctx, req.Storage, *order); err != nil {
		return nil, err
	}
	stands := func(context.Context) error { return nil }
	if stored.Approval.Needed > 0 {
		var cut string
		if stands, cut, err = b.claimApproval(ctx, req, data, stored, order); err != nil {
			return nil, err
		}
		if cut != "" {
			warnings = append(warnings, cut)
		}
	}
	cut, err := b.admit(req.Storage, stored.rules, b.caller(callerAddress(req), req.EntityID), order)
	if cut != "" {
		warnings = append(warnings, cut)
	}
	if replace := order.Replace; replace != nil {
		admitted := *order
		// Nobody's credential gives way to one that is refused by now.
		order.Replace = func(ctx context.Context, oldest ledger.Grant) error {
			if err := errors.Join(b.checkFrozen(ctx, req.Storage, admitted), stands(ctx)); err != nil {
				return err
			}
			return replace(ctx, oldest)
		}
	}
	return warnings, err
}

// claimApproval has an order use up the approval that its role asks for. stands says
// whether that is still there; cut is what the reader should know. The error is an
// *invalid.Error or an *invalid.Denied where there is none.
func (b *backend) claimApproval(ctx context.Context, req *logical.Request, data *framework.FieldData, stored openRole, order *lifecycle.Order) (stands func(context.Context) error, cut string, err error) {
	if order.Task == "" {
		return nil, "", invalid.Field("task", "", "missing: the role asks for approvals, and each is for one task", "read creds/"+order.Role+"/<task>")
	}
	if order.EntityID == "" {
		return nil, "", invalid.Deny("the role asks for approvals, and the caller's token belongs to no entity that could have one", "log in by a method that has entities; root tokens have none")
	}
	if err := b.checkEntity(order.EntityID); err != nil {
		return nil, "", err
	}
	// Before anything gives way here to what is minted elsewhere.
	if b.System().ReplicationState().HasState(consts.ReplicationPerformanceSecondary) && !b.System().LocalMount() {
		return nil, "", logical.ErrReadOnly // which makes Vault ask the primary
	}
	wanted, err := bindingOf(*order, stored, parametersOf(req, data))
	if err != nil {
		return nil, "", err
	}
	found, err := b.standing(ctx, req.Storage, wanted)
	if errors.Is(err, errNoRequest) {
		return nil, "", needsRequest(req, data, *order, stored)
	}
	if err != nil {
		return nil, "", err
	}
	if order.TTL > found.TTL {
		if _, given := data.GetOk("ttl"); given {
			return nil, "", invalid.Field("ttl", order.TTL.String(), fmt.Sprintf("longer than request %s was approved for, %s", found.ID, found.TTL), "ask for less")
		}
		cut = fmt.Sprintf("ttl of %s was cut to %s: request %s was approved for that", order.TTL, found.TTL, found.ID)
		order.TTL = found.TTL
	}
	order.Approval = found.ID
	order.Claim = func(ctx context.Context, grant ledger.Grant) error {
		return b.useRequest(ctx, req.Storage, found.ID, wanted, grant.ID, grant.ExpiresAt)
	}
	stands = func(ctx context.Context) error { return b.usable(ctx, req.Storage, found.ID, wanted) }
	return stands, cut, nil
}

// needsRequest says how to open a request for the order. None is opened by a read:
// whoever may read could fill the storage, and the approvers' list, by reading.
func needsRequest(req *logical.Request, data *framework.FieldData, order lifecycle.Order, stored openRole) error {
	var command strings.Builder
	fmt.Fprintf(&command, "vault write %srequests role=%s task=%s", req.MountPoint, order.Role, order.Task)
	for _, name := range slices.Sorted(maps.Keys(parametersOf(req, data))) {
		fmt.Fprintf(&command, " %s=…", name)
	}
	command.WriteString(` reason="…"`)
	return invalid.Deny(
		fmt.Sprintf("role %q asks for the approval of %d others, and there is none for this task, entity and scope", order.Role, stored.Approval.Needed),
		"open a request: "+command.String())
}
