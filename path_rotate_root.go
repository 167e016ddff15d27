package precision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

const (
	// rotateTimeout bounds a rotation, and awaitRootTimeout the part of it that
	// waits until the new credential works.
	rotateTimeout    = 80 * time.Second
	awaitRootTimeout = 45 * time.Second
	// rollbackAge is how old the note of a rotation is before what it has left is
	// cleared away. By then it isn't under way any more.
	rollbackAge = 2 * time.Minute
	// rollbackTimeout bounds that: Vault waits for it.
	rollbackTimeout = 15 * time.Second
	// walRotation is the kind of the notes.
	walRotation = "rotate-root"
)

func (b *backend) pathRotateRoot() []*framework.Path {
	return []*framework.Path{{
		Pattern:      "rotate-root/(?P<target>(?s:.+))",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "rotate", OperationSuffix: "root"},
		Fields: map[string]*framework.FieldSchema{
			"target": {
				Type:         framework.TypeString,
				Description:  "Name of the target.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Target"},
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                    b.rotateRoot,
				Summary:                     "Replace a target's root credential by one that only Vault knows.",
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    "Replace a target's root credential by one that only Vault knows.",
		HelpDescription: strings.TrimSpace(rotateRootHelp),
	}}
}

// rotation is the note of a rotation, in Vault's write-ahead log. It holds no
// secret.
type rotation struct {
	Version int                   `json:"version,omitempty"` // see stored.Version
	Target  string                `json:"target"`
	Plan    provider.RotationPlan `json:"plan"`
}

// rotateRoot writes down what it is about to do, makes the new credential, has it
// proved, stores it, and ends the old one. A crash in between leaves a target that
// works, and a note by which rollBack ends the credential that is one too many.
func (b *backend) rotateRoot(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "target")
	if err != nil {
		return refuse(err)
	}
	b.rotating.Lock()
	defer b.rotating.Unlock()
	// Whoever hangs up must not leave a rotation half done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rotateTimeout)
	defer cancel()
	before, rotator, err := b.rotator(ctx, req.Storage, name)
	if err != nil {
		return refuse(err)
	}
	plan, err := rotator.PlanRotation(ctx)
	if err != nil {
		return refuse(err)
	}
	notes := notes{backend: b, storage: req.Storage, target: name}
	if err := notes.put(ctx, plan); err != nil {
		return refuse(err)
	}
	after, plan, err := b.nextRoot(ctx, before, rotator, plan, &notes)
	if err == nil {
		err = b.swapTarget(ctx, req.Storage, name, before.target, after.target)
	}
	switch {
	case errors.Is(err, errUnclear):
		return refuse(err) // which one counts is seen when the note is read
	case errors.As(err, new(*provider.NotMade)):
		notes.forget(ctx) // what else there is, is not this rotation's
		return refuse(err)
	case err != nil:
		notes.endOthers(ctx, rotator, plan)
		return refuse(err)
	}
	response := &logical.Response{Data: map[string]any{}}
	for field, schema := range b.types[after.Type].Config {
		if value := after.Settings[field]; !isSensitive(schema) && !reflect.DeepEqual(value, before.Settings[field]) {
			response.Data[field] = value
		}
	}
	if !notes.endOthers(ctx, after.provider.(provider.RootRotator), plan) {
		response.AddWarning("the old credential could not be ended yet; that is tried again")
	}
	return response, nil
}

// rotator opens a target whose root credential is to be rotated.
func (b *backend) rotator(ctx context.Context, storage logical.Storage, name string) (openTarget, provider.RootRotator, error) {
	stored, err := readTarget(ctx, storage, name)
	if errors.Is(err, errNoTarget) {
		return openTarget{}, nil, invalid.Field("target", name, "no such target is configured", "write config/"+invalid.Clip(name)+" first")
	}
	if err != nil {
		return openTarget{}, nil, err
	}
	opened, err := b.open(stored)
	if err != nil {
		return openTarget{}, nil, err
	}
	rotator, able := opened.provider.(provider.RootRotator)
	if !able {
		return openTarget{}, nil, invalid.Field("target", name, "a target of type "+stored.Type+" has no way to replace its own root credential", "change it there, and write config/"+name+" again")
	}
	return opened, rotator, nil
}

// nextRoot makes the new credential and waits until it works. On an error it may
// have made it; the plan then says more of it.
func (b *backend) nextRoot(ctx context.Context, before openTarget, rotator provider.RootRotator, plan provider.RotationPlan, notes *notes) (openTarget, provider.RotationPlan, error) {
	made, settings, err := rotator.NextRoot(ctx, plan)
	if err != nil {
		return openTarget{}, plan, err
	}
	if err := notes.put(ctx, made); err != nil { // by its name it is found for certain
		return openTarget{}, made, err
	}
	after, err := b.open(target{Type: before.Type, Settings: settings, Facts: before.Facts})
	if err != nil {
		return openTarget{}, made, err
	}
	limited, cancel := context.WithTimeout(ctx, awaitRootTimeout)
	defer cancel()
	return after, made, after.provider.(provider.RootRotator).AwaitRoot(limited)
}

// errUnclear is returned where storage has not said which credential it holds.
var errUnclear = errors.New("whether the new root credential was stored is not known; the one that is not in use is ended in some minutes")

// swapTarget stores a target in place of what it was, if it still is that.
func (b *backend) swapTarget(ctx context.Context, storage logical.Storage, name string, before, after target) error {
	b.definitions.Lock()
	defer b.definitions.Unlock()
	current, err := readTarget(ctx, storage, name)
	if errors.Is(err, errNoTarget) || (err == nil && !reflect.DeepEqual(current, before)) {
		return invalid.Field("target", name, "it was changed while its root credential was being rotated", "rotate it again")
	}
	if err != nil {
		return err
	}
	err = writeEntry(ctx, storage, configPrefix+name, after)
	b.targets.drop(name)
	if err == nil {
		return nil
	}
	current, readErr := readTarget(ctx, storage, name) // storage may have taken it
	switch {
	case readErr != nil:
		return fmt.Errorf("%w: %w", errUnclear, err)
	case reflect.DeepEqual(current, after):
		return nil
	default:
		return err
	}
}

// notes are the entries of one rotation in Vault's write-ahead log.
type notes struct {
	backend *backend
	storage logical.Storage
	target  string
	ids     []string
}

func (n *notes) put(ctx context.Context, plan provider.RotationPlan) error {
	id, err := framework.PutWAL(ctx, n.storage, walRotation, rotation{Version: stored.Version, Target: n.target, Plan: plan})
	if id != "" {
		n.ids = append(n.ids, id) // storage may have taken it
	}
	if err != nil {
		return fmt.Errorf("writing down the rotation: %w", err)
	}
	return nil
}

// endOthers ends what the rotation has left beside the credential that the
// rotator is configured with, and then forgets the rotation. What fails is tried
// again by the notes.
func (n *notes) endOthers(ctx context.Context, rotator provider.RootRotator, plan provider.RotationPlan) bool {
	log := n.backend.Logger()
	if err := rotator.EndOtherRoots(ctx, plan); err != nil {
		log.Warn("a root credential that is not in use could not be ended yet", "target", n.target, "error", err)
		return false
	}
	n.forget(ctx)
	return true
}

// forget deletes the notes.
func (n *notes) forget(ctx context.Context) {
	for _, id := range n.ids {
		if err := framework.DeleteWAL(ctx, n.storage, id); err != nil {
			n.backend.Logger().Warn("the note of a rotation that is done could not be deleted", "target", n.target, "error", err)
		}
	}
}

// rollBack ends the credential that a rotation has left beside the one in use.
func (b *backend) rollBack(ctx context.Context, req *logical.Request, kind string, data any) error {
	if kind != walRotation {
		return fmt.Errorf("an unknown kind of note: %q", kind)
	}
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	var noted rotation
	if err := json.Unmarshal(text, &noted); err != nil {
		return err
	}
	if noted.Version > stored.Version {
		return fmt.Errorf("the note of a rotation of target %q was %w", noted.Target, stored.ErrNewer)
	}
	if !b.rotating.TryLock() {
		return errors.New("a rotation is under way")
	}
	defer b.rotating.Unlock()
	ctx, cancel := context.WithTimeout(ctx, rollbackTimeout)
	defer cancel()
	_, rotator, err := b.rotator(ctx, req.Storage, noted.Target)
	var gone *invalid.Error
	if errors.As(err, &gone) {
		b.Logger().Warn("a rotation of a root credential was broken off, and its target is not there to look at: a credential may be left", "target", noted.Target, "plan", maps.Clone(noted.Plan), "reason", gone)
		return nil
	}
	if err != nil {
		return err
	}
	return rotator.EndOtherRoots(ctx, noted.Plan)
}

const rotateRootHelp = `
Makes a new root credential for the target, waits until it works, stores it in
place of the one that was configured, and ends that one. Nobody has seen the new
one; its secret is never read back. Do this right after config/ has been written.

Refused where the target has no credential of its own, such as one that uses the
machine's, or where there is no room for a second one beside it.

If Vault dies in between, the target still works, and the credential that is not
in use is ended some minutes after Vault is back.
`
