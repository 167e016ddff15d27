package iampolicy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Request is what somebody asks AWS for.
type Request struct {
	Action   string // service:action
	Resource string // its ARN, or "*" for an action that has none
	// ResourceAccount has the resource. Where it is empty it is the ARN's account
	// or, where the ARN names none, what Context says or the principal's.
	ResourceAccount string
	Principal       Principal
	// Context has the request's condition keys. What follows from the fields
	// above needs no mention: aws:PrincipalArn, aws:PrincipalAccount,
	// aws:PrincipalType, aws:username, aws:ResourceAccount; and aws:EpochTime
	// follows from aws:CurrentTime. A key without a value is one that the request
	// doesn't have. A value for BinaryEquals is base64.
	Context map[string][]string
}

// Policies are what applies to a request. Without a document nothing is known of
// that kind.
type Policies struct {
	// Identity has the principal's own permissions: the user's, or those of the
	// role or user that a session comes from. Where a session's are not known but
	// its session policy is, they are taken to allow everything.
	Identity *Document
	Session  *Document // narrows a session
	Boundary *Document // narrows the user or role
	Resource *Document // the resource's own policy
}

// Effect is the outcome for a request.
type Effect string

// Outcomes of an evaluation.
const (
	Allowed          Effect = "Allowed"
	ExplicitlyDenied Effect = "ExplicitlyDenied" // a Deny applies
	ImplicitlyDenied Effect = "ImplicitlyDenied" // no Allow applies
)

// Source is the kind of a policy.
type Source string

// Kinds of policies.
const (
	FromIdentity Source = "identity policy"
	FromSession  Source = "session policy"
	FromBoundary Source = "permissions boundary"
	FromResource Source = "resource policy"
)

// Decision is the outcome and the statement that it rests on: the Allow, the
// Deny or, where no Allow applies, the Allow that came nearest to it.
type Decision struct {
	Effect    Effect
	Source    Source // empty where no statement can be named
	Index     int    // of the statement in its document, from 0; -1 where none can be named
	Statement string // as compact JSON
	Reason    string // a sentence that says why, without a full stop
}

// Evaluate decides as AWS does: a Deny anywhere is final; otherwise an Allow is
// needed of whoever has a say. Within one account that is the identity, narrowed
// by its boundary and session policy, or the resource; across accounts it is
// both. Policies of an organisation and of VPC endpoints are not looked at.
//
// An error is an *invalid.Error: the request is malformed, a document is of
// another kind than its place, or AWS doesn't say what would happen.
//
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic-cross-account.html
func Evaluate(request Request, policies Policies) (Decision, error) {
	e, err := newEvaluation(request)
	if err != nil {
		return Decision{}, err
	}
	if err := policies.check(request.Principal); err != nil {
		return Decision{}, err
	}
	e.bounded = policies.Boundary != nil
	decision := e.decide(
		e.examine(FromIdentity, policies.Identity, policies.Identity == nil && policies.Session != nil),
		e.examine(FromSession, policies.Session, policies.Session == nil),
		e.examine(FromBoundary, policies.Boundary, policies.Boundary == nil),
		e.examine(FromResource, policies.Resource, false),
	)
	if e.err != nil {
		return Decision{}, e.err
	}
	return decision, nil
}

// check refuses documents that can't be where they are.
func (p Policies) check(principal Principal) error {
	if p.Session != nil && principal.Issuer == "" {
		return invalid.Hidden("session_policy", "an IAM user has no session policy", "leave it out, or name a session")
	}
	for _, document := range []*Document{p.Identity, p.Session, p.Boundary} {
		if document == nil {
			continue
		}
		for i, statement := range document.statements {
			switch {
			case statement.principals != nil:
				return document.wrong(i, "it names a principal, as policies of resources do", "leave Principal out")
			case len(statement.resources) == 0:
				return document.wrong(i, "it names no resource", "add Resource or NotResource")
			case statement.short && document == p.Session:
				return document.wrong(i, "AWS takes no ARN with fewer than six parts in a session policy", "write all parts")
			}
		}
	}
	if p.Resource != nil {
		for i, statement := range p.Resource.statements {
			switch {
			case statement.principals == nil:
				return p.Resource.wrong(i, "it names no principal, as a resource's policy has to", "add Principal or NotPrincipal")
			case statement.short:
				return p.Resource.wrong(i, "AWS doesn't say what an ARN with fewer than six parts is in a resource's policy", "write all parts")
			}
		}
	}
	return nil
}

func (d *Document) wrong(index int, problem, remedy string) error {
	return invalid.Field(d.field, d.Statement(index), fmt.Sprintf("statement %d: %s", index+1, problem), remedy)
}

// finding is what one document says of the request.
type finding struct {
	source   Source
	document *Document
	open     bool // there is no document that could forbid anything
	deny     int  // index of the first Deny that applies, or -1
	allow    [directly + 1]int
	nearest  int // index of the Allow that came nearest, or -1
	missed   string
}

// examine compares the request with every statement.
func (e *evaluation) examine(source Source, document *Document, open bool) finding {
	found := finding{source: source, document: document, open: open, deny: -1, nearest: -1}
	for i := range found.allow {
		found.allow[i] = -1
	}
	if document == nil {
		return found
	}
	furthest := -1
	for i, statement := range document.statements {
		reach, stage, missed := statement.apply(e)
		switch {
		case missed == "" && statement.deny && found.deny < 0:
			found.deny = i
		case missed == "" && !statement.deny && found.allow[reach] < 0:
			found.allow[reach] = i
		case missed != "" && !statement.deny && stage > furthest:
			furthest, found.nearest, found.missed = stage, i, missed
		}
	}
	return found
}

// apply says whether the statement is about the request and, where it isn't, how
// many of its elements matched and which one did not.
func (s statement) apply(e *evaluation) (reached reach, stage int, missed string) {
	if reached = s.reaches(e); reached == nobody {
		return nobody, 0, "its principals do not include " + e.request.Principal.ARN
	}
	action := strings.ToLower(e.request.Action)
	if slices.ContainsFunc(s.actions, func(p pattern) bool { return p.matches(e, action) }) == s.notAction {
		return reached, 1, "its actions do not include " + e.request.Action
	}
	resource := e.request.Resource
	if len(s.resources) > 0 && slices.ContainsFunc(s.resources, func(p pattern) bool { return p.matches(e, resource) }) == s.notResource {
		return reached, 2, "its resources do not include " + resource
	}
	for i, condition := range s.conditions {
		if !condition.holds(e) {
			return reached, 3 + i, condition.describe(e)
		}
	}
	return reached, 3 + len(s.conditions), ""
}

// unknown says which keys a Deny asks about and the request does not have: that
// they are missing may be why it applies, and a real request may have them.
func (s statement) unknown(e *evaluation) string {
	var missing []string
	for _, condition := range s.conditions {
		if len(e.values(condition.key)) == 0 {
			missing = append(missing, condition.key)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "; its condition is on " + strings.Join(missing, " and ") + ", which the request does not have"
}

// describe says why the condition does not hold.
func (c condition) describe(e *evaluation) string {
	given := "has no such key"
	if values := e.values(c.key); len(values) > 0 {
		given = fmt.Sprintf("has %q", invalid.Clip(strings.Join(values, ", ")))
	}
	return fmt.Sprintf("its condition %s on %s does not hold: the request %s", c.operator, c.key, given)
}

// allows says whether the document lets the request pass.
func (f finding) allows() bool { return f.open || f.allow[directly] >= 0 }

// widest is the index of the Allow that names the principal most closely, and
// how.
func (f finding) widest() (int, reach) {
	for reached := directly; reached > nobody; reached-- {
		if f.allow[reached] >= 0 {
			return f.allow[reached], reached
		}
	}
	return -1, nobody
}

// decide weighs what the documents say.
func (e *evaluation) decide(identity, session, boundary, resource finding) Decision {
	for _, found := range []finding{identity, session, boundary, resource} {
		if found.deny >= 0 {
			return found.decision(ExplicitlyDenied, found.deny, fmt.Sprintf("statement %d of the %s denies it%s", found.deny+1, found.source, found.document.statements[found.deny].unknown(e)))
		}
	}
	granted, reached := resource.widest()
	byResource := resource.decision(Allowed, granted, fmt.Sprintf("statement %d of the resource policy allows it", granted+1))
	own := []finding{identity, session, boundary}
	closed := slices.IndexFunc(own, func(f finding) bool { return !f.allows() })

	if e.owner != e.account {
		switch {
		case closed >= 0:
			return own[closed].nothing()
		case reached == nobody:
			return resource.nothing()
		default:
			return e.byIdentity(own, ", and so does the resource policy of the other account")
		}
	}
	switch {
	case reached == directly:
		return byResource
	case reached == byIssuer && session.allows() && boundary.allows():
		return byResource
	case closed >= 0:
		return own[closed].nothing()
	case resource.document != nil && e.needsResourcePolicy() && reached == nobody:
		return resource.nothing()
	case resource.document == nil && e.needsResourcePolicy():
		return e.byIdentity(own, ", if the resource's own policy leaves it to the account's policies")
	default:
		return e.byIdentity(own, "")
	}
}

// needsResourcePolicy says whether the resource's policy has to let an account's
// own policies decide: KMS keys and roles are not open to their account by
// themselves.
func (e *evaluation) needsResourcePolicy() bool {
	action := strings.ToLower(e.request.Action)
	return strings.HasPrefix(action, "kms:") || strings.HasPrefix(action, "sts:assumerole")
}

// byIdentity rests on the narrowest of the principal's own policies that is
// known.
func (e *evaluation) byIdentity(own []finding, also string) Decision {
	for _, found := range []finding{own[1], own[0], own[2]} {
		if index := found.allow[directly]; index >= 0 {
			return found.decision(Allowed, index, fmt.Sprintf("statement %d of the %s allows it%s", index+1, found.source, also))
		}
	}
	return own[0].nothing() // out of reach: one of them is known, or identity is closed
}

// nothing is the decision where this document has no Allow for the request.
func (f finding) nothing() Decision {
	switch {
	case f.document == nil:
		return f.decision(ImplicitlyDenied, -1, fmt.Sprintf("no %s is known that allows it", f.source))
	case f.nearest < 0:
		return f.decision(ImplicitlyDenied, -1, fmt.Sprintf("the %s allows nothing that comes near", f.source))
	default:
		return f.decision(ImplicitlyDenied, f.nearest, fmt.Sprintf("the %s does not allow it; nearest comes statement %d, but %s", f.source, f.nearest+1, f.missed))
	}
}

func (f finding) decision(effect Effect, index int, reason string) Decision {
	made := Decision{Effect: effect, Source: f.source, Index: -1, Reason: reason}
	if f.document == nil {
		made.Source = ""
	} else if index >= 0 {
		made.Index, made.Statement = index, f.document.Statement(index)
	}
	return made
}
