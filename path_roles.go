package precision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

func (b *backend) pathRoles() []*framework.Path {
	fields := maps.Clone(b.roleFields)
	maps.Copy(fields, admissionFields())
	maps.Copy(fields, map[string]*framework.FieldSchema{
		"role": {
			Type:         framework.TypeString,
			Description:  "Name of the role.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Role"},
		},
		"target": {
			Type:         framework.TypeString,
			Description:  "Name of the target, as configured at config/.",
			Required:     true,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Target"},
		},
		"action": {
			Type: framework.TypeString,
			Description: "The one action that is granted, such as s3:PutObject; or a named action, which is what one task " +
				"needs of one resource, such as s3:sync-up. List catalog/<service> for those of AWS.",
			Required:     true,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Action"},
		},
		"resource": {
			Type:         framework.TypeString,
			Description:  "The one resource that it is granted on, such as arn:aws:s3:::releases/app/*. A \"*\" may only be the last character, for a whole name or after a \"/\".",
			Required:     true,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Resource"},
		},
		"companion_resources": {
			Type:         framework.TypeStringSlice,
			Description:  "The further resources that the target asks the action to be allowed on, one for each, none left out and none more. Only for actions that need them; the refusal names them.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Companion resources"},
		},
		"conditions": {
			Type:         framework.TypeMap,
			Description:  `What the grant depends on besides, as a condition block of the target's policies: {"StringEquals": {"aws:RequestTag/env": "prod"}}. Conditions only narrow.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Conditions"},
		},
		"parameters": {
			Type:         framework.TypeMap,
			Description:  `What the reader of a credential gives, by name: {"key": {"pattern": "[a-z0-9]+", "description": "…"}} or {"env": {"one_of": ["prod", "test"]}}; a bare string is a pattern. {{key}} stands for the value in the resource, its companions and the conditions, as do {{task}} and {{identity.entity.name}} and its like.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Parameters"},
		},
		"allow_escalation": {
			Type:         framework.TypeBool,
			Description:  "Grant an action that hands out further power, such as one that makes keys or changes policies. Each read of a credential then warns of it.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Allow escalation"},
		},
		"bound_source_ip": {
			Type:         framework.TypeBool,
			Description:  "Bind each credential to the address that its reader's request came from, as Vault saw it.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Bound source IP"},
		},
		"renewable": {
			Type:         framework.TypeBool,
			Description:  "Let leases be renewed, up to max_ttl from when the credential was read: its end at the target moves with its lease's. Refused where the target can't. Default: false; who needs more time reads a new credential.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Renewable"},
		},
		"ttl": {
			Type:         framework.TypeDurationSecond,
			Description:  "How long a credential lives whose reader asks for no particular time. Default: the mount's default.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "TTL"},
		},
		"max_ttl": {
			Type:         framework.TypeDurationSecond,
			Description:  "The longest time that a reader may ask for. Default: the mount's maximum.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Max TTL"},
		},
	})
	maps.Copy(fields, approvalFields())
	return []*framework.Path{
		{
			Pattern:      "roles/?$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "roles"},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{Callback: listEntries(rolePrefix), Summary: "List the roles."},
			},
			HelpSynopsis:    "List the roles.",
			HelpDescription: "Lists the names of the roles that credentials can be read for.",
		},
		{
			Pattern:        "roles/(?P<role>(?s:.+))",
			DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "role"},
			Fields:         fields,
			ExistenceCheck: entryExists(rolePrefix, "role"),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation:   &framework.PathOperation{Callback: b.readRole, Summary: "Read a role."},
				logical.CreateOperation: &framework.PathOperation{Callback: b.writeRole, Summary: "Create a role.", ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true},
				logical.UpdateOperation: &framework.PathOperation{Callback: b.writeRole, Summary: "Update a role: fields that are left out stay as they are.", ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true},
				logical.PatchOperation:  &framework.PathOperation{Callback: b.writeRole, Summary: "Update a role: fields that are null are unset, objects are merged.", ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true},
				logical.DeleteOperation: &framework.PathOperation{Callback: b.deleteRole, Summary: "Delete a role.", ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true},
			},
			HelpSynopsis:    "Define a role: one action on one resource of one target.",
			HelpDescription: strings.TrimSpace(roleHelp),
		},
	}
}

func (b *backend) readRole(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "role")
	if err != nil {
		return refuse(err)
	}
	stored, err := readRole(ctx, req.Storage, name)
	if errors.Is(err, errNoRole) {
		return nil, nil
	}
	if err == nil {
		err = b.optionsKnown(name, stored.Options)
	}
	if err != nil {
		return refuse(err)
	}
	answer := describeRole(stored)
	// What is not the role's own can't be written.
	observed := b.observed.of(name)
	maps.Copy(answer, observed.values)
	return &logical.Response{Data: answer, Warnings: observed.warnings}, nil
}

// describeRole is a role for operators.
func describeRole(stored role) map[string]any {
	answer := map[string]any{
		"target":   stored.Target,
		"action":   stored.Action,
		"resource": stored.Resource,
	}
	// One that is not set is left out, so that what is read can be written.
	if len(stored.CompanionResources) > 0 {
		answer["companion_resources"] = stored.CompanionResources
	}
	for name, object := range map[string]map[string]any{"conditions": stored.Conditions, "parameters": stored.Parameters} {
		if len(object) > 0 {
			answer[name] = object
		}
	}
	for name, set := range map[string]bool{"allow_escalation": stored.AllowEscalation, "bound_source_ip": stored.BoundSourceIP, "renewable": stored.Renewable} {
		if set {
			answer[name] = true
		}
	}
	for name, duration := range map[string]time.Duration{"ttl": stored.TTL, "max_ttl": stored.MaxTTL} {
		if duration != 0 {
			answer[name] = int64(duration / time.Second)
		}
	}
	readApproval(stored.Approval, answer)
	describeAdmission(stored.Admission, answer)
	for name, value := range stored.Options {
		answer[name] = value
	}
	return answer
}

// writeTries is how often a role is checked whose definition or target is changed meanwhile by others.
const writeTries = 4

var errRoleChanged = errors.New("the role or its target was changed while the role was being checked")

// writeRole creates, updates and patches: what is left out stays as it is, and
// what a patch says is null is unset.
func (b *backend) writeRole(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "role")
	if err != nil {
		return refuse(err)
	}
	for range writeTries {
		attempt := *data
		attempt.Raw = maps.Clone(data.Raw)
		response, err := b.tryWriteRole(ctx, req, &attempt, name)
		if !errors.Is(err, errRoleChanged) {
			return response, err
		}
	}
	return nil, logical.CodedError(http.StatusConflict, errRoleChanged.Error()+"; try again")
}

// readRoleForWrite reads the role that a write changes, and its version; both are empty where it does not exist, or
// is damaged: then the write replaces it.
func (b *backend) readRoleForWrite(ctx context.Context, storage logical.Storage, name string) (read role, version string, err error) {
	read, err = readForWrite[role](ctx, storage, rolePrefix+name, errNoRole)
	if err == nil {
		err = b.optionsKnown(name, read.Options)
	}
	if err == nil {
		version, err = versionOf(read)
	}
	if err != nil {
		return role{}, "", err
	}
	return read, version, nil
}

// tryWriteRole checks a role, which calls its target, and then stores it if neither it nor its target was changed
// meanwhile. The error is errRoleChanged where one was.
func (b *backend) tryWriteRole(ctx context.Context, req *logical.Request, data *framework.FieldData, name string) (*logical.Response, error) {
	changed, version, err := b.readRoleForWrite(ctx, req.Storage, name)
	switch {
	case errors.Is(err, errNoRole) && req.Operation == logical.PatchOperation:
		return logical.RespondWithStatusCode(logical.ErrorResponse("role %q does not exist; create it with a write", name), req, 404)
	case errors.Is(err, errNoRole):
	case err != nil:
		return refuse(err)
	}
	if req.Operation == logical.PatchOperation {
		mergeObjects(data, changed.objects())
	}
	changed = b.changeRole(changed, data)
	advice, err := changed.changeApproval(data)
	if err != nil {
		return refuse(err)
	}
	if changed.Admission, err = changeAdmission(changed.Admission, data); err != nil {
		return refuse(err)
	}
	rules, err := admission.Parse(changed.Admission)
	if err != nil {
		return refuse(err)
	}
	opened, err := b.roleTarget(ctx, req.Storage, changed.Target)
	if err != nil {
		return refuse(err)
	}
	for _, option := range slices.Sorted(maps.Keys(changed.Options)) {
		if _, taken := b.types[opened.Type].Role[option]; !taken {
			return refuse(invalid.Hidden(option, fmt.Sprintf("target %q, of type %s, does not take it", changed.Target, opened.Type), "leave it out, or name another target"))
		}
	}
	changed.Tagged, changed.Choice = b.types[opened.Type].Tagged, b.types[opened.Type].Choice
	valid, err := changed.validate(ctx, opened, b.grants.Now(), b.System())
	if err != nil {
		return refuse(err)
	}
	crowd, err := b.adviseOccupancy(ctx, req.Storage, name, valid.role, opened)
	if err != nil {
		return refuse(err)
	}
	if crowd != "" {
		valid.warnings = append(valid.warnings, crowd)
	}
	if valid.policy != "" {
		release, err := b.grants.Install(ctx, req.Storage, b.orderOn(changed.Target, opened), valid.policy)
		if err != nil {
			return refuse(err)
		}
		defer release()
	}
	for _, policy := range valid.policies {
		if err := b.grants.InstallAgain(ctx, req.Storage, b.orderOn(changed.Target, opened), policy); err != nil {
			return refuse(err)
		}
	}
	err = b.storeRole(ctx, req.Storage, name, version, valid, opened)
	switch {
	case errors.Is(err, errRoleChanged):
		return nil, err
	case err != nil:
		return refuse(err)
	}
	return warn(slices.Concat(valid.warnings, advice, b.roleWarnings(changed), rules.Advice(b.grants.Now()))), nil
}

// storeRole stores a role if it has still the version that it was checked with, and its target is still the same
// system. The error is errRoleChanged otherwise.
func (b *backend) storeRole(ctx context.Context, storage logical.Storage, name, version string, valid validated, checkedOn openTarget) error {
	defer b.edits.lock(rolePrefix + name)()
	defer b.edits.lock(configPrefix + valid.Target)()
	past, current, err := b.readRoleForWrite(ctx, storage, name)
	if err != nil && !errors.Is(err, errNoRole) {
		return err
	}
	opened, err := b.openTarget(ctx, storage, valid.Target)
	if err != nil && !errors.Is(err, errNoTarget) {
		return err
	}
	if current != version || err != nil || opened.Type != checkedOn.Type || opened.system != checkedOn.system {
		return errRoleChanged
	}
	if current != "" {
		if err := b.storePast(ctx, storage, name, past); err != nil {
			return err
		}
	}
	err = writeEntry(ctx, storage, rolePrefix+name, valid.role)
	b.roleChanged(name) // on an error too: storage may have taken the write
	if err != nil {
		return err
	}
	if err := b.storeVersion(ctx, storage, name, valid.role, valid.blank); err != nil { // the sweeper tries again
		b.Logger().Warn("the version of a role could not be stored", "role", name, "error", err)
	}
	return nil
}

// roleChanged forgets what is known of a role.
func (b *backend) roleChanged(name string) {
	b.roles.drop(name)
	b.observed.forget(name)
	b.needed.forget()
}

// warn is an answer that holds warnings and nothing else, nil where there are none.
func warn(warnings []string) *logical.Response {
	if len(warnings) == 0 {
		return nil
	}
	return &logical.Response{Warnings: warnings}
}

// changeRole applies the request's fields to a role.
func (b *backend) changeRole(changed role, data *framework.FieldData) role {
	options := maps.Clone(changed.Options)
	if options == nil {
		options = provider.Settings{}
	}
	for name := range b.roleFields {
		if raw, given := data.Raw[name]; given && raw == nil {
			delete(options, name)
		} else if given {
			options[name] = data.Get(name)
		}
	}
	changed.Options = options
	change(data, "target", &changed.Target)
	change(data, "action", &changed.Action)
	change(data, "resource", &changed.Resource)
	change(data, "companion_resources", &changed.CompanionResources)
	change(data, "conditions", &changed.Conditions)
	change(data, "parameters", &changed.Parameters)
	change(data, "allow_escalation", &changed.AllowEscalation)
	change(data, "bound_source_ip", &changed.BoundSourceIP)
	change(data, "renewable", &changed.Renewable)
	for name, duration := range map[string]*time.Duration{"ttl": &changed.TTL, "max_ttl": &changed.MaxTTL} {
		seconds := int(*duration / time.Second)
		change(data, name, &seconds)
		*duration = time.Duration(seconds) * time.Second
	}
	return changed
}

// change sets a value to what the request's field holds, if it is there; null
// unsets it.
func change[T any](data *framework.FieldData, name string, value *T) {
	if raw, given := data.Raw[name]; given && raw == nil {
		*value = *new(T)
	} else if given {
		*value = data.Get(name).(T)
	}
}

// objects are the role's fields that a patch completes instead of replacing them.
func (r role) objects() map[string]map[string]any {
	objects := map[string]map[string]any{"conditions": r.Conditions, "parameters": r.Parameters}
	for name, value := range r.Options {
		if object, is := value.(map[string]any); is {
			objects[name] = object
		}
	}
	return objects
}

// mergeObjects completes the objects that a patch names from what is stored, as a
// JSON merge patch says (RFC 7396): a condition that it does not name stays.
func mergeObjects(data *framework.FieldData, stored map[string]map[string]any) {
	for name, object := range stored {
		if patch, given := data.Raw[name].(map[string]any); given {
			data.Raw[name] = merge(object, patch)
		}
	}
}

// merge is object with the patch's members; one that is null is removed.
func merge(object any, patch map[string]any) map[string]any {
	members, _ := object.(map[string]any)
	merged := maps.Clone(members)
	if merged == nil {
		merged = map[string]any{}
	}
	for name, value := range patch {
		inner, isObject := value.(map[string]any)
		switch {
		case value == nil:
			delete(merged, name)
		case isObject:
			merged[name] = merge(merged[name], inner)
		default:
			merged[name] = value
		}
	}
	return merged
}

// roleTarget opens the target that a role names.
func (b *backend) roleTarget(ctx context.Context, storage logical.Storage, name string) (openTarget, error) {
	if name == "" {
		return openTarget{}, invalid.Field("target", name, "missing", "name a target that is configured at config/")
	}
	opened, err := b.openTarget(ctx, storage, name)
	if errors.Is(err, errNoTarget) {
		names, err := storage.List(ctx, configPrefix)
		if err != nil {
			return openTarget{}, fmt.Errorf("listing targets: %w", err)
		}
		return openTarget{}, invalid.Field("target", name, "no such target is configured", "name "+invalid.OneOf(names)+", or write config/"+invalid.Clip(name))
	}
	return opened, err
}

// roleWarnings says where the mount will cut what the role promises.
func (b *backend) roleWarnings(stored role) (warnings []string) {
	mountMax := b.System().MaxLeaseTTL()
	if mountMax <= 0 {
		return nil // Vault did not say
	}
	if stored.TTL > mountMax {
		warnings = append(warnings, fmt.Sprintf("ttl of %s is longer than the mount's maximum, %s: credentials will be cut to that", stored.TTL, mountMax))
	}
	if stored.MaxTTL > mountMax {
		warnings = append(warnings, fmt.Sprintf("max_ttl of %s is longer than the mount's maximum, %s: no credential will live longer than that", stored.MaxTTL, mountMax))
	}
	return warnings
}

func (b *backend) deleteRole(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "role")
	if err != nil {
		return refuse(err)
	}
	defer b.edits.lock(rolePrefix + name)()
	if past, version, err := b.readRoleForWrite(ctx, req.Storage, name); err == nil && version != "" {
		if err := b.storePast(ctx, req.Storage, name, past); err != nil {
			return refuse(err)
		}
	}
	err = deleteEntry(ctx, req.Storage, rolePrefix+name)
	b.roleChanged(name)
	if err != nil {
		return refuse(err)
	}
	b.sweeper.Nudge(req.Storage) // what only this role needed at its target goes
	return nil, nil
}

const roleHelp = `
A role names exactly one action on exactly one resource of one target. What
can't be expressed exactly on the target is refused here, with the reason. A named
action, such as s3:sync-up, is a closed list of actions that one task needs of one
resource. "catalog/<service>/<name>" lists its members.

Reading "creds/<role>/<task>" mints a credential that can do that and nothing
else. Changing or deleting a role does not change how credentials end that were
minted before.
`
