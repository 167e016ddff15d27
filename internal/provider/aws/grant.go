package aws

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// grant is a scope that AWS can grant exactly, with everything that its policy
// says. newGrant makes one.
type grant struct {
	action     catalog.Action
	resources  []scope.ARN // the resource, then its companions
	amazons    []bool      // which of them AWS owns
	account    string      // who owns the others
	conditions []scope.Condition
	sourceIP   netip.Addr  // invalid for any
	encryption *encryption // nil where the role names no key
	end        time.Time
	notes      []string // what the role's author should know
}

// newGrant checks that the scope is one action on one resource for IAM, and no
// more. The errors are *invalid.Error.
func (a *account) newGrant(granted scope.Scope, bounds provider.Bounds) (grant, error) {
	action, err := FindAction(granted.Action())
	if err != nil {
		return grant{}, err
	}
	if err := checkEscalation(action, bounds.AllowEscalation); err != nil {
		return grant{}, err
	}
	resource, companions, err := arnsOf(granted)
	if err != nil {
		return grant{}, err
	}
	found, err := resolve(action, resource, companions)
	if err != nil {
		return grant{}, err
	}
	if err := found.checkSlots(granted); err != nil {
		return grant{}, err
	}
	if a.id == "" {
		return grant{}, invalid.Hidden("target", "its AWS account is not known, because its connection was never verified", "write its config again with verify_connection=true")
	}
	made := grant{
		action: action, resources: append([]scope.ARN{found.Resource}, found.Companions...),
		account: a.id, sourceIP: bounds.SourceIP, end: bounds.ExpiresAt, notes: found.Notes,
	}
	if other := bounds.Options.Text("resource_account"); other != "" {
		if !accountShape.MatchString(other) {
			return grant{}, invalid.Field("resource_account", other, "not the number of an account", "write its 12 digits")
		}
		made.account = other
	}
	for i, pattern := range found.patterns() {
		field := resourceField
		if i > 0 {
			field = companionField
		}
		amazons := pattern.OfAmazon(made.resources[i])
		made.amazons = append(made.amazons, amazons)
		if err := a.checkPlace(field, made.resources[i], made.account, amazons); err != nil {
			return grant{}, err
		}
	}
	if made.conditions, err = checkConditions(action, found, granted.Conditions(), bounds.SourceIP.IsValid()); err != nil {
		return grant{}, err
	}
	if key := bounds.Options.Text("kms_key"); key != "" {
		if made.encryption, err = newEncryption(key, action, found.Resource, made.account); err != nil {
			return grant{}, err
		}
	}
	return made, nil
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
	advice := provider.Advice{Definition: slices.Clone(g.notes)}
	if listsBucket(g.action.Name) && !slices.ContainsFunc(g.conditions, func(condition scope.Condition) bool { return strings.EqualFold(condition.Key, "s3:prefix") }) {
		// https://docs.aws.amazon.com/AmazonS3/latest/userguide/amazon-s3-policy-keys.html
		advice.Definition = append(advice.Definition, g.action.Name+` lists every key of the bucket; a condition narrows it: {"StringLike": {"s3:prefix": "app/*"}}`)
	}
	if len(g.action.DependentActions) > 0 {
		advice.Definition = append(advice.Definition, fmt.Sprintf("%s depends on other actions for some requests, and they are not granted: %s", g.action.Name, strings.Join(g.action.DependentActions, ", ")))
	}
	if escalation, escalates := catalog.EscalationOf(g.action); escalates {
		warning := fmt.Sprintf("%s can be turned into more than this grant: %s", g.action.Name, because(escalation))
		if escalation.Verdict == catalog.Refuse {
			advice.Mint = append(advice.Mint, warning) // each holder has more in hands than the grant
		} else {
			advice.Definition = append(advice.Definition, warning)
		}
	}
	if g.encryption != nil {
		advice.Definition = append(advice.Definition, "kms_key "+g.encryption.describe())
	}
	return advice
}
