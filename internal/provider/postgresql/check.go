package postgresql

import (
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Check implements provider.Checker.
func (p *postgres) Check(policy provider.Policy, question provider.Question) (provider.Verdict, error) {
	switch {
	case question.ResourcePolicy != "":
		return provider.Verdict{}, invalid.Hidden("resource_policy", "PostgreSQL has none", "leave it out")
	case len(question.Context) > 0:
		return provider.Verdict{}, invalid.Hidden("context", "a privilege of PostgreSQL has no conditions", "leave it out")
	}
	read, err := readPolicy(policy)
	if err != nil {
		return provider.Verdict{}, err
	}
	kind, known := works[action(question.Action)]
	if !known {
		return provider.Verdict{}, invalid.Field("action", question.Action, "not an action that is known here", "ask about "+invalid.OneOf(Actions()))
	}
	on, err := parseResource("resource", kind, question.Resource)
	if err != nil {
		return provider.Verdict{}, err
	}
	return read.judge(action(question.Action), kind, on)
}

// judge says whether a holder of the document may do something.
func (d document) judge(asked action, kind kind, on resource) (provider.Verdict, error) {
	if kind == database {
		if d.Action == runs && on.String() == d.Resource {
			return d.allowed("the credential may run its command as "+plain(d.Run.RunAs)+", and nothing else", d.place(holderName).call()), nil
		}
		return d.denied("the credential has no command to run there"), nil
	}
	object := ident(on.schema, on.name)
	if kind == routine && d.Action == executes {
		granted, err := d.object()
		if err != nil {
			return provider.Verdict{}, err
		}
		if granted.relation() != on.relation() {
			return d.denied("the holder has no such privilege"), nil
		}
		// Types have several names, which the server alone knows all of.
		if spaceless(granted.arguments) != spaceless(on.arguments) {
			return provider.Verdict{}, invalid.Field("resource", on.String(), "another function of that name, or another name of an argument's type", "write it as the server does, such as "+d.Signature)
		}
		object = d.Signature
	}
	privileges, err := d.privileges()
	if err != nil {
		return provider.Verdict{}, err
	}
	partly := false
	for _, one := range privileges {
		if one.name != string(asked) || one.object != object {
			continue
		}
		if one.columns == nil || (on.columns != nil && !slices.ContainsFunc(on.columns, func(column string) bool { return !slices.Contains(one.columns, column) })) {
			return d.allowed("the holder has the privilege", one.grant(ident(holderName))), nil
		}
		partly = true
	}
	if partly {
		return d.denied("the holder has the privilege on other columns only"), nil
	}
	return d.denied("the holder has no such privilege"), nil
}

func (d document) allowed(reason, clause string) provider.Verdict {
	return provider.Verdict{Allowed: true, Effect: "Granted", Reason: reason, Clause: clause, Of: "the credential's holder"}
}

func (d document) denied(reason string) provider.Verdict {
	if len(d.Tolerated) > 0 {
		reason += "; what everybody may do, and the role tolerates, comes on top: " + strings.Join(d.Tolerated, "; ")
	}
	return provider.Verdict{Effect: "NotGranted", Reason: reason}
}

func spaceless(text string) string { return strings.ReplaceAll(text, " ", "") }
