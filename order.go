package precision

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// order reads what a caller asks for at creds/ or preview/, and checks it
// against the role. The warnings say what the caller should know of it. Where
// nothing is to be minted, what would be refused now is one of them.
func (b *backend) order(ctx context.Context, req *logical.Request, data *framework.FieldData, mints bool) (order lifecycle.Order, warnings []string, err error) {
	order, stored, err := b.orderFor(ctx, req, data, parametersOf(req, data))
	if err != nil {
		return lifecycle.Order{}, nil, err
	}
	requested := time.Duration(data.Get("ttl").(int)) * time.Second
	if order.TTL, warnings, err = stored.lifetime(requested, b.System()); err != nil {
		return lifecycle.Order{}, nil, err
	}
	if stored.Renewable {
		if order.Longest, err = stored.longest(b.System()); err != nil {
			return lifecycle.Order{}, nil, err
		}
	}
	cuts, refusal := b.admitMint(ctx, req, data, stored, &order)
	if refusal != nil && (mints || !refuses(refusal)) {
		return lifecycle.Order{}, nil, refusal
	}
	warnings = append(warnings, cuts...)
	if refusal != nil {
		warnings = append(warnings, foresee(refusal))
	}
	if adviser, able := order.Provider.(provider.Adviser); able {
		warnings = append(warnings, adviser.Advise(order.Scope, order.Bounds).Mint...)
	}
	return order, warnings, nil
}

// parametersOf are a request's fields that the path does not know: the role's
// parameters.
func parametersOf(req *logical.Request, data *framework.FieldData) map[string]string {
	parameters := map[string]string{}
	for name, raw := range req.Data {
		if _, field := data.Schema[name]; !field {
			parameters[name] = raw.(string) // guard has seen to that
		}
	}
	return parameters
}

// orderFor fills the role that the path names in: everything of an order but
// its TTL.
func (b *backend) orderFor(ctx context.Context, req *logical.Request, data *framework.FieldData, parameters map[string]string) (lifecycle.Order, openRole, error) {
	nothing := func(err error) (lifecycle.Order, openRole, error) { return lifecycle.Order{}, openRole{}, err }
	name, err := nameIn(data, "role")
	if err != nil {
		return nothing(err)
	}
	task := ""
	if _, withTask := data.Schema["task"]; withTask {
		task = data.Get("task").(string)
		if err := checkName("task", task, maxTask); err != nil && task != "" {
			return nothing(err)
		}
	}
	return b.fill(ctx, req.Storage, wish{
		role: name, task: task, parameters: parameters, address: callerAddress(req), entityID: req.EntityID, displayName: req.DisplayName, accessor: req.ClientTokenAccessor,
	})
}

// wish is what somebody wants of a role.
type wish struct {
	role, task            string
	parameters            map[string]string
	address               netip.Addr // where the credential is read from; invalid where that is not known
	entityID, displayName string
	accessor              string // of the token
}

// fill makes an order of a wish, as the role is now.
func (b *backend) fill(ctx context.Context, storage logical.Storage, wish wish) (lifecycle.Order, openRole, error) {
	nothing := func(err error) (lifecycle.Order, openRole, error) { return lifecycle.Order{}, openRole{}, err }
	stored, err := b.openRole(ctx, storage, wish.role)
	if errors.Is(err, errNoRole) {
		return nothing(invalid.Field("role", wish.role, "no such role exists", "read a role that is defined at roles/"))
	}
	if err != nil {
		return nothing(err)
	}
	opened, err := b.openTarget(ctx, storage, stored.Target)
	if errors.Is(err, errNoTarget) {
		return nothing(invalid.Field("role", wish.role, fmt.Sprintf("its target %q is not configured any more", stored.Target), "configure the target again, or change the role"))
	}
	if err != nil {
		return nothing(err)
	}
	identity := b.identityOf(wish.entityID)
	granted, err := stored.definition.Fill(scope.Values{Parameters: wish.parameters, Task: wish.task, Identity: identity})
	if err != nil {
		return nothing(err)
	}
	bounds := stored.bounds(wish.address)
	if stored.BoundSourceIP && !bounds.SourceIP.IsValid() {
		return nothing(errors.New("vault did not say which address the request came from, and the role binds credentials to it"))
	}
	order := b.orderOn(stored.Target, opened)
	order.Role, order.Task, order.Scope, order.Bounds = wish.role, wish.task, granted, within(bounds, granted)
	order.RoleVersion = stored.version
	if order.Filled, err = filledOf(stored.definition, wish.parameters, identity); err != nil {
		return nothing(err)
	}
	order.EntityID, order.DisplayName, order.Accessor = wish.entityID, wish.displayName, wish.accessor
	order.EntityName = func() (string, error) { return identity("identity.entity.name") }
	return order, stored, nil
}

// orderOn is an order on a target, with nothing ordered yet.
func (b *backend) orderOn(name string, opened openTarget) lifecycle.Order {
	return lifecycle.Order{Provider: opened.provider, Target: name, System: opened.system, Mount: b.mountUUID}
}

// callerAddress is where the request came from, as Vault saw it; invalid where
// Vault did not say.
func callerAddress(req *logical.Request) netip.Addr {
	if req.Connection == nil {
		return netip.Addr{}
	}
	text := req.Connection.RemoteAddr
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return address.Unmap().WithZone("")
}
