package precision

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
)

// admissionFields are the fields of a role that say when, for what and by whom its
// credentials may be read.
func admissionFields() map[string]*framework.FieldSchema {
	field := func(kind framework.FieldType, name, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: kind, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: name}}
	}
	return map[string]*framework.FieldSchema{
		"require_task":        field(framework.TypeBool, "Require task", "Refuse to mint a credential without a task. Default: false."),
		"task_pattern":        field(framework.TypeString, "Task pattern", "Regular expression, in RE2's syntax, that the whole task has to match. It requires a task, unless it matches none as well."),
		"window":              field(framework.TypeString, "Window", "When credentials may be read: each time that this cron expression names, minute, hour, day of month, month and day of week, a window opens. No credential outlives the window that it was read in."),
		"window_duration":     field(framework.TypeDurationSecond, "Window duration", "How long each window is open. It is elapsed time, whatever clocks do meanwhile."),
		"window_timezone":     field(framework.TypeString, "Window timezone", "The time zone of window, by its name in the IANA's database, such as Europe/Berlin. Default: UTC."),
		"not_before":          field(framework.TypeString, "Not before", "No credential may be read earlier than this, as in 2026-11-27T22:00:00+01:00."),
		"not_after":           field(framework.TypeString, "Not after", "No credential may be read at this time or later, nor live then."),
		"max_active":          field(framework.TypeInt, "Max active", "How many credentials of the role may live at once. Default: 0, for any number."),
		"max_active_per_task": field(framework.TypeInt, "Max active per task", "How many credentials of the role may live at once for one task. It takes require_task or task_pattern. Default: 0, for any number."),
		"on_limit":            field(framework.TypeString, "On limit", "What is done where a limit is reached: refuse the read, or replace: end the oldest at its target first, then mint. Default: refuse."),
		"bound_cidrs":         field(framework.TypeStringSlice, "Bound CIDRs", "Networks that credentials may be read from, as Vault sees the caller's address. Default: any."),
		"bound_entity_ids":    field(framework.TypeStringSlice, "Bound entity IDs", "Ids of the Vault entities that may read credentials. Default: any caller."),
		"bound_group_ids":     field(framework.TypeStringSlice, "Bound group IDs", "Ids of the Vault groups of which one has to have the caller's entity in it. Default: any caller."),
	}
}

// changeAdmission applies the request's fields to a role's rules. A restriction is
// never dropped by an empty value, as an unset variable of a script is: a patch
// with null does that.
func changeAdmission(texts admission.Texts, data *framework.FieldData) (admission.Texts, error) {
	lists := map[string]*[]string{"bound_cidrs": &texts.BoundCIDRs, "bound_entity_ids": &texts.BoundEntityIDs, "bound_group_ids": &texts.BoundGroupIDs}
	strs := map[string]*string{
		"task_pattern": &texts.TaskPattern, "window": &texts.Window, "window_timezone": &texts.WindowTimezone,
		"not_before": &texts.NotBefore, "not_after": &texts.NotAfter, "on_limit": &texts.OnLimit,
	}
	for name := range admissionFields() {
		if err := notEmpty(data, name); err != nil {
			return texts, err
		}
	}
	for name, value := range strs {
		change(data, name, value)
	}
	for name, value := range lists {
		change(data, name, value)
		*value = elements(*value)
	}
	change(data, "require_task", &texts.RequireTask)
	change(data, "max_active", &texts.MaxActive)
	change(data, "max_active_per_task", &texts.MaxActivePerTask)
	seconds := int(texts.WindowDuration / time.Second)
	change(data, "window_duration", &seconds)
	texts.WindowDuration = time.Duration(seconds) * time.Second
	return texts, nil
}

// notEmpty refuses a field that is given and holds nothing.
func notEmpty(data *framework.FieldData, name string) error {
	empty := false
	switch value := data.Raw[name].(type) {
	case string:
		empty = strings.TrimSpace(value) == ""
	case []any:
		empty = len(value) == 0
	case []string:
		empty = len(value) == 0
	}
	if empty {
		return invalid.Hidden(name, "empty", "give a value, or leave it out; null in a patch removes it")
	}
	return nil
}

// elements are what a list holds, of which the command line writes several with
// commas between them. An empty one stays, and is refused where it is read.
func elements(list []string) []string {
	var all []string
	for _, text := range list {
		for element := range strings.SplitSeq(text, ",") {
			all = append(all, strings.TrimSpace(element))
		}
	}
	return all
}

// describeAdmission adds what is set of a role's rules to what is read of it.
func describeAdmission(texts admission.Texts, answer map[string]any) {
	for name, value := range map[string]string{
		"task_pattern": texts.TaskPattern, "window": texts.Window, "window_timezone": texts.WindowTimezone,
		"not_before": texts.NotBefore, "not_after": texts.NotAfter, "on_limit": texts.OnLimit,
	} {
		if value != "" {
			answer[name] = value
		}
	}
	for name, value := range map[string][]string{"bound_cidrs": texts.BoundCIDRs, "bound_entity_ids": texts.BoundEntityIDs, "bound_group_ids": texts.BoundGroupIDs} {
		if len(value) > 0 {
			answer[name] = value
		}
	}
	for name, value := range map[string]int{"max_active": texts.MaxActive, "max_active_per_task": texts.MaxActivePerTask, "window_duration": int(texts.WindowDuration / time.Second)} {
		if value != 0 {
			answer[name] = int64(value)
		}
	}
	if texts.RequireTask {
		answer["require_task"] = true
	}
}

// admit holds an order to its role's rules: it is refused, or cut to what they
// allow, which the warning says, and bound to the role's limits.
func (b *backend) admit(storage logical.Storage, rules admission.Rules, caller admission.Caller, order *lifecycle.Order) (warning string, err error) {
	now := b.grants.Now()
	if order.Until, err = rules.Admit(admission.Request{Task: order.Task, Caller: caller}, now, now.Add(order.TTL+time.Second)); err != nil {
		return "", err
	}
	order.TTL, warning = rules.Cut(order.TTL, now, order.Until)
	if limits := rules.Limits(); limits.Any() {
		b.grants.Start(storage, b.writes) // the ledger has to be in memory for that
		order.Limit = func(counts ledger.Counts) error { return full(limits, *order, counts.Live) }
		if limits.Replace {
			order.Replace = func(ctx context.Context, grant ledger.Grant) error { return b.replace(ctx, storage, grant) }
		} else if b.grants.Ready() {
			// Whether there is room is decided later. Where there is none now, neither
			// target nor approvals are asked for more.
			err = full(limits, *order, func(query ledger.Query) int { return b.grants.Index.Taken(query, now) })
		}
	}
	return warning, err
}

// full says whether a role's limits leave no room for an order.
func full(limits admission.Limits, order lifecycle.Order, live func(ledger.Query) int) error {
	ofRole := ledger.Query{Role: order.Role}
	ofTask := ledger.Query{Role: order.Role, Task: order.Task}
	byTask, denied := limits.Room(func() int { return live(ofRole) }, func() int { return live(ofTask) })
	switch {
	case denied == nil:
		return nil
	case byTask:
		return &lifecycle.FullError{Of: ofTask, Reason: denied}
	default:
		return &lifecycle.FullError{Of: ofRole, Reason: denied}
	}
}

// replace ends a grant that is to make room for another.
func (b *backend) replace(ctx context.Context, storage logical.Storage, grant ledger.Grant) error {
	ender, err := b.enderOf(ctx, storage, grant)
	if err != nil {
		return err
	}
	return b.grants.End(ctx, storage, lifecycle.EndOrder{
		Provider: ender, ID: grant.ID, Target: grant.Target, System: grant.System, Handle: grant.Handle, Cause: ledger.Replaced, Unasked: true,
	})
}

// foresee says, as a warning, what a read of a credential would be refused for now.
func foresee(refusal error) string {
	return fmt.Sprintf("a credential would be refused now: %s", refusal)
}

// caller is who reads a credential, as far as Vault says.
func (b *backend) caller(address netip.Addr, entityID string) admission.Caller {
	return admission.Caller{Address: address, EntityID: entityID, Groups: func() ([]string, error) { return b.groupsOf(entityID) }}
}
