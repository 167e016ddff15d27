package aws

import (
	"fmt"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// resolved is what AWS authorises a call on: one resource, or one and its
// companions where AWS wants to be allowed each of several.
type resolved struct {
	Type       string        // the resource's type
	Resource   scope.ARN     // as a policy has to spell it
	Companions []scope.ARN   // likewise, in the order given
	Pattern    scope.Pattern // the shape of Resource, to hold a filled-in value to its slot
	// CompanionTypes and CompanionPatterns are the types and shapes of Companions.
	CompanionTypes    []string
	CompanionPatterns []scope.Pattern
	Notes             []string // what a role's author should know
}

// Fields that the errors name.
const (
	resourceField  = "resource"
	companionField = "companion_resources"
)

// resolve finds out which of the action's resource types resource is of, and
// refuses whatever AWS would not judge the call on, or on more than it. The
// errors are *invalid.Error.
func resolve(action catalog.Action, resource scope.ARN, companions []scope.ARN) (resolved, error) {
	authorised := catalog.Authorised(action)
	if err := ungrantable(action, authorised, resource); err != nil {
		return resolved{}, err
	}
	if authorised.Kind != catalog.All && len(companions) > 0 {
		return resolved{}, invalid.Field(companionField, companions[0].String(),
			fmt.Sprintf("AWS judges %s on one resource; with a second one the grant would reach further", action.Name), "leave it out")
	}
	groups, err := groupsOf(action, authorised)
	if err != nil {
		return resolved{}, err
	}
	found, err := assign(action, groups, resource, companions)
	if err != nil {
		return resolved{}, err
	}
	if err := staysWithin(action, found[0]); err != nil {
		return resolved{}, err
	}
	result := resolved{Type: found[0].kind.name, Resource: found[0].arn, Pattern: found[0].pattern, Notes: notes(action, authorised, found[0])}
	for _, companion := range found[1:] {
		result.Companions = append(result.Companions, companion.arn)
		result.CompanionTypes = append(result.CompanionTypes, companion.kind.name)
		result.CompanionPatterns = append(result.CompanionPatterns, companion.pattern)
	}
	return result, nil
}

// ungrantable says why no ARN at all makes a grant of the action exact.
func ungrantable(action catalog.Action, authorised catalog.Authorisation, resource scope.ARN) error {
	refuse := func(problem, remedy string) error {
		return invalid.Field(resourceField, resource.String(), action.Name+" "+problem, remedy)
	}
	if action.Name == "ssm:GetParametersByPath" {
		// https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-access.html
		return refuse("returns everything below a path, even what is denied", "name ssm:GetParameter or ssm:GetParameters")
	}
	types := clipped(slices.Concat(authorised.Groups...))
	switch authorised.Kind {
	case catalog.Single, catalog.All, catalog.One, catalog.Leaf:
		return nil
	case catalog.None:
		remedy := "name an action that works on one resource"
		if len(action.ConditionKeys) > 0 {
			remedy += " (AWS narrows this one by conditions only: " + clipped(action.ConditionKeys) + ")"
		}
		return refuse("has no resource-level permission: AWS allows it on everything or not at all", remedy)
	case catalog.Created:
		return refuse("makes one of the resources that AWS judges it on ("+types+"), whose name nobody knows before the call", "name an action on a resource that exists")
	case catalog.Unreviewed:
		return refuse("lists several resource types ("+types+"), and whether AWS judges a call on each or on one of them is not known", "name an action that works on one resource")
	default:
		return refuse(fmt.Sprintf("is authorised in a way that is not known (%s)", authorised.Kind), "name an action that works on one resource")
	}
}

// staysWithin refuses a wildcard that also covers resources of another type that
// the action works on: a grant on the ingestions of one bundle is none on the
// destinations of each.
func staysWithin(action catalog.Action, resource match) error {
	if !strings.HasSuffix(resource.arn.Resource, "*") {
		return nil
	}
	service := serviceOf(action)
	for _, use := range action.Resources {
		kind, _ := service.ResourceType(use.Type)
		for _, text := range kind.Patterns {
			pattern, err := scope.ParsePattern(text)
			if err != nil {
				return fmt.Errorf("aws: %s: %w", action.Name, err)
			}
			if use.Type != resource.kind.name && pattern.Overlaps(resource.arn) {
				return invalid.Field(resourceField, resource.arn.String(),
					fmt.Sprintf("its wildcard also covers resources of type %s, on which %s works too", use.Type, action.Name), "name one resource")
			}
		}
	}
	return nil
}

// notes says what an author of a role might expect of the grant and not get.
func notes(action catalog.Action, authorised catalog.Authorisation, resource match) []string {
	var all []string
	if authorised.Kind == catalog.Leaf {
		all = append(all, fmt.Sprintf("AWS documents no whole list of the resources that it judges %s on: it may ask for more than this one", action.Name))
	}
	if optional := optionalTypes(action, authorised); len(optional) > 0 {
		all = append(all, fmt.Sprintf("a call of %s that also names a resource of type %s needs permission on that too, which this grant does not have", action.Name, invalid.OneOf(optional)))
	}
	if resource.kind.fixedEnd != "" && strings.HasSuffix(resource.arn.Resource, resource.kind.fixedEnd) {
		all = append(all, fmt.Sprintf("AWS names a log group with %q at its end: the group and its streams, no wildcard over groups", resource.kind.fixedEnd))
	}
	if strings.HasPrefix(action.Name, "lambda:Invoke") && strings.Count(resource.arn.Resource, ":") == 1 {
		// https://docs.aws.amazon.com/lambda/latest/dg/lambda-api-permissions-ref.html
		all = append(all, "a call that names a version or an alias is judged on function:NAME:QUALIFIER, which this grant does not cover")
	}
	return all
}

// optionalTypes lists the types that a call may name besides those it is always
// judged on.
func optionalTypes(action catalog.Action, authorised catalog.Authorisation) []string {
	var optional []string
	always := slices.Concat(authorised.Groups...)
	for _, use := range action.Resources {
		if !slices.Contains(always, use.Type) {
			optional = append(optional, use.Type)
		}
	}
	return optional
}

// clipped lists the first few of names.
func clipped(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func serviceOf(action catalog.Action) catalog.Service {
	prefix, _, _ := strings.Cut(action.Name, ":")
	service, _ := catalog.ServiceByPrefix(prefix)
	return service
}
