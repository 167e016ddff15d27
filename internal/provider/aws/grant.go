package aws

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// grant is a scope that AWS can grant exactly, with everything that its policy
// says. newGrant makes one.
type grant struct {
	name       string // the role's action: one of AWS's, or a named one
	parts      []part
	account    string // who owns the resources that AWS does not own
	conditions []scope.Condition
	sourceIP   netip.Addr  // invalid for any
	encryption *encryption // nil where the role names no key
	end        time.Time
	notes      []string   // what the role's author should know
	resource   scope.Text // the resource as the role has it
	reach      []string   // what the service reads into a request beyond its ARN, which the role allows
}

// part is some actions of a grant that are granted on the same resources. A single
// action is one part.
type part struct {
	actions    []catalog.Action
	resources  []scope.ARN          // the resource, then its companions; none where AWS judges the actions on no resource
	amazons    []bool               // which of them AWS owns
	conditions iampolicy.Conditions // what these actions alone depend on
	token      bool                 // whether they hand out a token that can do no more than the credential
}

// newGrant checks that the scope is one action on one resource for IAM, and no
// more, or a named action. The errors are *invalid.Error.
func (a *account) newGrant(granted scope.Scope, bounds provider.Bounds) (grant, error) {
	members, err := membersOf(granted, bounds.AllowEscalation)
	if err != nil {
		return grant{}, err
	}
	if a.id == "" {
		return grant{}, invalid.Hidden("target", "its AWS account is not known, because its connection was never verified", "write its config again with verify_connection=true")
	}
	made := grant{name: granted.Action(), account: a.id, sourceIP: bounds.SourceIP, end: bounds.ExpiresAt, resource: granted.ResourceText()}
	if other := bounds.Options.Text("resource_account"); other != "" {
		if !accountShape.MatchString(other) {
			return grant{}, invalid.Field("resource_account", other, "not the number of an account", "write its 12 digits")
		}
		made.account = other
	}
	for _, member := range members {
		amazons, err := a.checkPlaces(member.found, made.account)
		if err != nil {
			return grant{}, err
		}
		if made.conditions, err = checkConditions(member.action, member.found, granted.Conditions(),
			bounds.SourceIP.IsValid()); err != nil {
			return grant{}, err
		}
		made.add(member, amazons)
	}
	if key := bounds.Options.Text("kms_key"); key != "" {
		if made.encryption, err = newEncryption(key, made.name, members, made.account); err != nil {
			return grant{}, err
		}
	}
	return made, nil
}

// member is an action of AWS and what it is granted on.
type member struct {
	action     catalog.Action
	found      resolved // the zero value where AWS judges the action on no resource
	conditions iampolicy.Conditions
	token      bool
	reach      []string // see grant
}

// membersOf finds the actions that a scope grants, and what on. The errors are
// *invalid.Error.
func membersOf(granted scope.Scope, escalation bool) ([]member, error) {
	found, isNamed := FindNamed(granted.Action())
	if !isNamed {
		action, err := FindAction(granted.Action())
		if err != nil {
			return nil, err
		}
		found = Named{Name: action.Name, anchor: action.Name, Members: []Member{{Action: action.Name}}}
	}
	for _, each := range found.Members {
		action, known := catalog.Find(each.Action)
		if !known {
			return nil, fmt.Errorf("aws: %s: no action %s", found.Name, each.Action)
		}
		if err := checkEscalation(found.Name, action, escalation || each.Token); err != nil {
			return nil, err
		}
	}
	resource, companions, err := arnsOf(granted)
	if err != nil {
		return nil, err
	}
	anchor, on, err := found.resolve(resource, companions)
	if err != nil {
		return nil, err
	}
	if err := anchor.checkSlots(granted); err != nil {
		return nil, err
	}
	var members []member
	for i, each := range found.Members {
		action, _ := catalog.Find(each.Action)
		made := member{action: action, found: on[i], token: each.Token}
		if made.reach, err = checkMeaning(action, on[i].Resource, granted.ResourceText(), escalation); err != nil {
			return nil, err
		}
		if each.when != nil {
			made.conditions = each.when(anchor.Resource)
		}
		members = append(members, made)
	}
	return members, nil
}

// add puts a member to the part with the same resources and conditions.
func (g *grant) add(added member, amazons []bool) {
	resources := added.found.arns()
	g.notes = append(g.notes, added.found.Notes...)
	g.reach = append(g.reach, added.reach...)
	for i, other := range g.parts {
		if slices.Equal(other.resources, resources) && reflect.DeepEqual(other.conditions, added.conditions) &&
			other.token == added.token {
			g.parts[i].actions = append(g.parts[i].actions, added.action)
			return
		}
	}
	g.parts = append(g.parts, part{[]catalog.Action{added.action}, resources, amazons, added.conditions, added.token})
}

// actions are the grant's actions of AWS, in the order of its parts.
func (g grant) actions() []catalog.Action {
	var all []catalog.Action
	for _, part := range g.parts {
		all = append(all, part.actions...)
	}
	return all
}

// names are the names of actions.
func names(actions []catalog.Action) []string {
	list := make([]string, len(actions))
	for i, action := range actions {
		list[i] = action.Name
	}
	return list
}

// arns are the resource and its companions; none for the zero value.
func (r resolved) arns() []scope.ARN {
	if r.Type == "" {
		return nil
	}
	return append([]scope.ARN{r.Resource}, r.Companions...)
}

// checkPlaces checks where each resource is, and says which of them AWS owns.
func (a *account) checkPlaces(found resolved, owner string) (amazons []bool, err error) {
	for i, arn := range found.arns() {
		field, ours := fieldOf(i), false
		if i < len(found.patterns()) {
			ours = found.patterns()[i].OfAmazon(arn)
		}
		amazons = append(amazons, ours)
		if err := a.checkPlace(field, arn, owner, ours); err != nil {
			return nil, err
		}
	}
	return amazons, nil
}

func arnsOf(granted scope.Scope) (resource scope.ARN, companions []scope.ARN, err error) {
	if resource, err = scope.ParseARN(granted.Resource()); err != nil {
		return scope.ARN{}, nil, err
	}
	for _, text := range granted.Companions() {
		companion, err := scope.ParseARN(text.String())
		if err != nil {
			return scope.ARN{}, nil, invalid.Field(companionField, text.String(), "not an ARN", "write arn:partition:service:region:account:resource")
		}
		companions = append(companions, companion)
	}
	return resource, companions, nil
}

// checkSlots holds every value that was filled into an ARN to its slot.
func (r resolved) checkSlots(granted scope.Scope) error {
	texts := append([]scope.Text{granted.ResourceText()}, granted.Companions()...)
	arns := append([]scope.ARN{r.Resource}, r.Companions...)
	for i, pattern := range r.patterns() {
		spans, err := pattern.Locate(arns[i])
		if err != nil {
			return err
		}
		if err := scope.InSlots(texts[i], spans); err != nil {
			return err
		}
	}
	return nil
}

// patterns are the shapes of the resource and its companions.
func (r resolved) patterns() []scope.Pattern {
	return append([]scope.Pattern{r.Pattern}, r.CompanionPatterns...)
}

// checkPlace holds a resource to the target's partition, and to the account
// whose resources the role is about unless AWS owns it.
func (a *account) checkPlace(field string, arn scope.ARN, owner string, amazons bool) error {
	if arn.Partition != a.partition {
		return invalid.Field(field, arn.String(), "not in the target's partition", "write it as arn:"+a.partition+":…")
	}
	if arn.Account != "" && arn.Account != owner && !amazons {
		return invalid.Field(field, arn.String(), "not in account "+owner, "name a resource of that account, or its own account as resource_account")
	}
	return nil
}

// listsBucket says whether an action shows the names of all objects.
func listsBucket(action string) bool {
	return action == "s3:ListBucket" || action == "s3:ListBucketVersions"
}

// advise says what a role's author and a credential's holder should know.
func (g grant) advise() provider.Advice {
	all := g.actions()
	advice := provider.Advice{Mint: slices.Clone(g.reach)} // each holder has more in hands than the grant
	note := func(text string) {
		if !slices.Contains(advice.Definition, text) {
			advice.Definition = append(advice.Definition, text)
		}
	}
	for _, text := range g.notes {
		note(text)
	}
	for _, part := range g.parts {
		for _, action := range part.actions {
			if listsBucket(action.Name) && g.listsAll() {
				// https://docs.aws.amazon.com/AmazonS3/latest/userguide/amazon-s3-policy-keys.html
				note(action.Name + ` lists every key of the bucket; a condition narrows it: {"StringLike": {"s3:prefix": "app/*"}}`)
			}
			others := slices.DeleteFunc(slices.Clone(action.DependentActions),
				func(other string) bool { return slices.Contains(names(all), other) })
			if len(others) > 0 {
				note(fmt.Sprintf("%s depends on other actions for some requests, and they are not granted: %s", action.Name,
					strings.Join(others, ", ")))
			}
			escalation, escalates := catalog.EscalationOf(action)
			switch {
			case part.token:
				advice.Mint = append(advice.Mint, action.Name+tokenWarning)
			case escalates && escalation.Verdict == catalog.Refuse:
				advice.Mint = append(advice.Mint, fmt.Sprintf("%s can be turned into more than this grant: %s", action.Name, because(escalation)))
			case escalates:
				note(heedful(escalation, g.resource))
			}
		}
	}
	if g.encryption != nil {
		note("kms_key " + g.encryption.describe())
	}
	return advice
}

// listsAll says whether a listing is of more than the role says: nothing holds it to a
// prefix. A named action does that itself, or grants all objects of the bucket.
func (g grant) listsAll() bool {
	_, isNamed := FindNamed(g.name)
	return !isNamed && !slices.ContainsFunc(g.conditions, func(condition scope.Condition) bool {
		return strings.EqualFold(condition.Key, "s3:prefix")
	})
}

// tokenWarning is what each mint says of an action that hands out a token.
const tokenWarning = " hands out a token of up to 12 hours, which has the credential's own rights and no others;" +
	" AWS does not document that it stops when the credential expires or is revoked"
