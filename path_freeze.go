package precision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// shownFreezes is how many lifted freezes an answer has.
const shownFreezes = 100

func (b *backend) pathFreeze() []*framework.Path {
	fields := func(does, why string) map[string]*framework.FieldSchema {
		return map[string]*framework.FieldSchema{
			"role":   {Type: framework.TypeString, Description: "Name of the role to " + does + ".", DisplayAttrs: &framework.DisplayAttributes{Name: "Role"}},
			"target": {Type: framework.TypeString, Description: "Name of the target to " + does + ", with all its roles.", DisplayAttrs: &framework.DisplayAttributes{Name: "Target"}},
			"all":    {Type: framework.TypeBool, Description: "Whether to " + does + " the whole mount.", DisplayAttrs: &framework.DisplayAttributes{Name: "All"}},
			"reason": {Type: framework.TypeString, Description: why, DisplayAttrs: &framework.DisplayAttributes{Name: "Reason"}},
		}
	}
	return []*framework.Path{
		{
			Pattern:      "freeze",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "freezes"},
			Fields:       fields("freeze", "Why: one line, which everybody reads who is refused."),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{Callback: b.readFreezes, Summary: "Read what is frozen, and what was.", ForwardPerformanceStandby: true},
				logical.UpdateOperation: &framework.PathOperation{
					Callback: b.writeFreeze, Summary: "Refuse every new credential of a role, a target or the mount.", ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
					DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "freeze", OperationSuffix: "minting"},
				},
			},
			HelpSynopsis:    "Refuse every new credential of a role, a target or the mount, at once.",
			HelpDescription: strings.TrimSpace(freezeHelp),
		},
		{
			Pattern:      "unfreeze",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "unfreeze", OperationSuffix: "minting"},
			Fields:       fields("unfreeze", "Why it is over: one line."),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{Callback: b.writeUnfreeze, Summary: "Lift a freeze.", ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true},
			},
			HelpSynopsis:    "Lift a freeze.",
			HelpDescription: strings.TrimSpace(freezeHelp),
		},
	}
}

// subjectIn reads what is to be frozen, or not any more.
func subjectIn(data *framework.FieldData) (admission.Subject, error) {
	const remedy = "give role=<name>, target=<name> or all=true, and one of them only"
	var named []admission.Subject
	for field, kind := range map[string]admission.Kind{"role": admission.FreezeRole, "target": admission.FreezeTarget} {
		name, given := data.GetOk(field)
		if !given {
			continue
		}
		if err := checkName(field, name.(string), maxName); err != nil {
			return admission.Subject{}, err
		}
		named = append(named, admission.Subject{Kind: kind, Name: name.(string)})
	}
	if all, given := data.GetOk("all"); given {
		if !all.(bool) {
			return admission.Subject{}, invalid.Field("all", "false", "it says nothing", remedy)
		}
		named = append(named, admission.Subject{Kind: admission.FreezeAll})
	}
	switch len(named) {
	case 1:
		return named[0], nil
	case 0:
		return admission.Subject{}, invalid.Hidden("role", "neither role, target nor all is given", remedy)
	default:
		return admission.Subject{}, invalid.Hidden("role", "more than one of role, target and all is given", remedy)
	}
}

// decisionIn reads who freezes or unfreezes, and why.
func (b *backend) decisionIn(req *logical.Request, data *framework.FieldData) (approval.Decision, error) {
	reason, err := reasonIn(data)
	return approval.Decision{Entity: req.EntityID, DisplayName: req.DisplayName, At: b.grants.Now().UTC(), Reason: reason}, err
}

// subjectExists refuses what is not there: a misspelt name would freeze nothing.
func (b *backend) subjectExists(ctx context.Context, storage logical.Storage, subject admission.Subject) error {
	prefix := map[admission.Kind]string{admission.FreezeRole: rolePrefix, admission.FreezeTarget: configPrefix}[subject.Kind]
	if prefix == "" {
		return nil // all is always there
	}
	entry, err := storage.Get(ctx, prefix+subject.Name)
	if err != nil || entry != nil {
		return err
	}
	names, err := storage.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("listing %s: %w", prefix, err)
	}
	remedy := "list " + prefix
	if near := nearest(subject.Name, names); len(near) > 0 {
		remedy = "did you mean " + invalid.OneOf(near) + "?"
	}
	return invalid.Field(string(subject.Kind), subject.Name, "there is none of this name, and nothing was frozen", remedy)
}

// sameSystem returns which system a target is, and the other targets that are the same
// one. Both are empty for any other subject. The error says that a target could not be
// opened; it stops no freeze.
func (b *backend) sameSystem(ctx context.Context, storage logical.Storage, subject admission.Subject) (system string, same []string, err error) {
	if subject.Kind != admission.FreezeTarget {
		return "", nil, nil
	}
	opened, err := b.openTarget(ctx, storage, subject.Name)
	if err != nil || opened.system == "" {
		return "", nil, err
	}
	names, err := storage.List(ctx, configPrefix)
	if err != nil {
		return opened.system, nil, fmt.Errorf("listing %s: %w", configPrefix, err)
	}
	var problems []error
	for _, name := range names {
		other, err := b.openTarget(ctx, storage, name)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("target %q: %w", name, err))
		case name != subject.Name && other.system == opened.system:
			same = append(same, name)
		}
	}
	return opened.system, same, errors.Join(problems...)
}

func (b *backend) writeFreeze(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	subject, err := subjectIn(data)
	if err != nil {
		return refuse(err)
	}
	by, err := b.decisionIn(req, data)
	if err != nil {
		return refuse(err)
	}
	if err := b.subjectExists(ctx, req.Storage, subject); err != nil {
		return refuse(err)
	}
	system, same, problem := b.sameSystem(ctx, req.Storage, subject)
	inForce, already, err := b.freeze(ctx, req.Storage, admission.Freeze{ID: newFreezeID(by.At), Subject: subject, System: system, By: by})
	if err != nil {
		return refuse(err)
	}
	response := &logical.Response{Data: b.describeFreeze(inForce)}
	if _, held := b.held.get(subject); held {
		response.AddWarning(inMemoryOnly)
	}
	if problem != nil {
		response.AddWarning(fmt.Sprintf("only roles of %s are frozen for certain: whether another target is the same system could not be told: %v", subject, problem))
	}
	switch {
	case len(same) == 0:
	case inForce.System == system:
		response.AddWarning(fmt.Sprintf("%s is the same system as %s: their roles are frozen with it", subject, invalid.AllOf(same)))
	default: // the freeze is of what the target was before, or its record can't be read
		response.AddWarning(fmt.Sprintf("%s is the same system as %s, whose roles this freeze does not hold: freeze each of them",
			subject, invalid.AllOf(same)))
	}
	if already {
		response.AddWarning(fmt.Sprintf("%s is frozen already, since %s, and that stays as it is: one unfreeze lifts it", subject, stamp(inForce.By.At)))
		return response, nil
	}
	b.Logger().Warn("frozen", "subject", subject.String(), "entity_id", by.Entity, "reason", by.Reason)
	return response, nil
}

func (b *backend) writeUnfreeze(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	subject, err := subjectIn(data)
	if err != nil {
		return refuse(err)
	}
	by, err := b.decisionIn(req, data)
	if err != nil {
		return refuse(err)
	}
	lifted, err := b.unfreeze(ctx, req.Storage, subject, by)
	if errors.Is(err, errNoFreeze) {
		frozen, err := b.freezes(ctx, req.Storage)
		if err != nil {
			return refuse(err)
		}
		var names []string
		for _, one := range inOrder(frozen) {
			names = append(names, one.Subject.String())
		}
		return refuse(invalid.Hidden(string(subject.Kind), subject.String()+" is not frozen", "frozen is "+invalid.OneOf(names)))
	}
	if err != nil {
		return refuse(err)
	}
	b.Logger().Warn("unfrozen", "subject", subject.String(), "entity_id", by.Entity, "reason", by.Reason)
	response := &logical.Response{Data: b.describeFreeze(lifted)}
	frozen, err := b.freezes(ctx, req.Storage)
	if err != nil {
		return refuse(err)
	}
	for _, one := range inOrder(frozen) {
		response.AddWarning(one.Subject.String() + " is still frozen")
	}
	return response, nil
}

func (b *backend) readFreezes(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	frozen, err := b.freezes(ctx, req.Storage)
	if err != nil {
		return refuse(err)
	}
	past, unreadable, err := b.pastFreezes(ctx, req.Storage, shownFreezes)
	if err != nil {
		return refuse(err)
	}
	describe := func(freezes []admission.Freeze) []map[string]any {
		described := make([]map[string]any, 0, len(freezes))
		for _, one := range freezes {
			described = append(described, b.describeFreeze(one))
		}
		return described
	}
	response := &logical.Response{Data: map[string]any{"frozen": describe(inOrder(frozen)), "lifted": describe(past)}}
	if len(b.held.all()) > 0 {
		response.AddWarning(inMemoryOnly)
	}
	if len(unreadable) > 0 {
		response.AddWarning("records of lifted freezes that can't be read: " + invalid.OneOf(unreadable))
	}
	return response, nil
}

// inOrder are freezes in the order that they came into force.
func inOrder(frozen admission.Freezes) []admission.Freeze {
	return slices.SortedFunc(maps.Values(frozen), func(a, b admission.Freeze) int { return strings.Compare(a.ID, b.ID) })
}

// inMemoryOnly warns of what storage has not taken.
const inMemoryOnly = "storage does not take writes: a freeze with in_memory=true is in force on this node, and is lost with a restart, a seal or a step-down. It is stored as soon as storage takes it"

func (b *backend) describeFreeze(freeze admission.Freeze) map[string]any {
	described := map[string]any{
		"id": freeze.ID, "subject": freeze.Subject.Kind, "name": freeze.Subject.Name,
		"reason": freeze.By.Reason, "entity_id": freeze.By.Entity, "display_name": freeze.By.DisplayName, "frozen_at": stamp(freeze.By.At),
	}
	if _, held := b.held.get(freeze.Subject); held && freeze.Lifted == nil {
		described["in_memory"] = true
	}
	if freeze.Lifted != nil {
		described["unfrozen_by"] = describeDecisions(*freeze.Lifted)[0]
	}
	return described
}

// nearest are the names that a misspelt one may stand for, at most three: those
// that have it in them or are in it, or differ by two letters at most.
func nearest(name string, names []string) []string {
	var near []string
	for _, other := range names {
		a, b := strings.ToLower(name), strings.ToLower(other)
		if strings.Contains(b, a) || strings.Contains(a, b) || distance(a, b) <= 2 {
			near = append(near, other)
		}
	}
	return near[:min(len(near), 3)]
}

// distance is how many letters have to be put in, left out or changed to make one
// word of the other.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

const freezeHelp = `
A freeze is the emergency stop: every new credential of a role, of a target (and of
every other target that is the same system) or of the mount is refused with status 403 and the freeze's reason, and no lease is
renewed. Once the write has answered, nothing is minted any more: a mint that was
under way and ends later is refused, too, and its credential ended at the target.

Credentials that live go on living: revoke their leases, "vault lease revoke -prefix
<mount>/creds/<role>". A freeze outlives the role or target that it is of, a restart
and a failover; "unfreeze" lifts it. A read says what is frozen, who did that and
why, and which freezes were lifted, as long as tidy-config keeps that.
`
