package aws

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// assign gives each ARN a group of its own, so that no group is left without.
// The first of the matches is the resource's, the others are its companions'.
func assign(action catalog.Action, groups [][]kind, resource scope.ARN, companions []scope.ARN) ([]match, error) {
	arns := append([]scope.ARN{resource}, companions...)
	fits := make([][]*match, len(arns)) // by ARN and group; nil where it is not of the group
	for i, arn := range arns {
		field := fieldOf(i)
		if slices.Contains(arns[:i], arn) {
			return nil, invalid.Field(field, arn.String(), "named twice", "leave it out")
		}
		var err error
		if fits[i], err = fitting(action, groups, arn, field); err != nil {
			return nil, err
		}
		if i > 0 && slices.ContainsFunc(fits[i], func(fit *match) bool { return fit != nil && fit.wild }) {
			return nil, invalid.Field(field, arn.String(), "a companion is one resource, without a wildcard", "write it out")
		}
	}
	ofGroup := make([]int, len(groups)) // which ARN a group is given, -1 for none
	for j := range ofGroup {
		ofGroup[j] = -1
	}
	for i, arn := range arns {
		if !place(i, fits, ofGroup, make([]bool, len(groups))) {
			return nil, invalid.Field(fieldOf(i), arn.String(), fmt.Sprintf("AWS judges %s on no second resource of this type; the grant would reach further", action.Name), "leave it out")
		}
	}
	var missing []string
	result := make([]match, len(arns))
	for j, i := range ofGroup {
		if i < 0 {
			missing = append(missing, listed(groups[j], resource.Partition))
			continue
		}
		result[i] = *fits[i][j]
	}
	if len(missing) > 0 {
		return nil, invalid.Hidden(companionField, fmt.Sprintf("AWS judges %s on several resources at once, and not each is named", action.Name), "add "+strings.Join(missing, ", and "))
	}
	return result, nil
}

func fieldOf(number int) string {
	if number == 0 {
		return resourceField
	}
	return companionField
}

// place finds a group for ARN number i, moving others to where they fit too.
func place(i int, fits [][]*match, ofGroup []int, tried []bool) bool {
	for j, fit := range fits[i] {
		if fit == nil || tried[j] {
			continue
		}
		tried[j] = true
		if ofGroup[j] < 0 || place(ofGroup[j], fits, ofGroup, tried) {
			ofGroup[j] = i
			return true
		}
	}
	return false
}

// fitting matches an ARN with each group. It is an error if it fits none.
func fitting(action catalog.Action, groups [][]kind, arn scope.ARN, field string) ([]*match, error) {
	kinds := slices.Concat(groups...)
	fits := make([]*match, len(groups))
	fitted := false
	var refused []error
	var near []kind
	for j, group := range groups {
		spans := 0
		for _, kind := range group {
			found, err := kind.match(arn)
			switch {
			case err == nil:
				// Of two types that an ARN may be of, the one that says most about it.
				if located, err := found.pattern.Locate(found.arn); err == nil && len(located) > spans {
					fits[j], fitted, spans = &found, true, len(located)
				}
			case !errors.Is(err, errMisfit):
				refused = append(refused, err)
			case len(kinds) == 1, kind.near(arn):
				near = append(near, kind)
			}
		}
	}
	switch {
	case fitted:
		return fits, nil
	case len(refused) > 0:
		return nil, inField(field, arn, refused[0])
	}
	if problem, remedy := hint(action, arn); problem != "" {
		return nil, invalid.Field(field, arn.String(), problem, remedy)
	}
	if len(near) == 1 {
		return nil, inField(field, arn, near[0].misfit(arn))
	}
	return nil, invalid.Field(field, arn.String(), fmt.Sprintf("AWS judges %s on no resource of this shape", action.Name), "name "+listed(kinds, arn.Partition))
}

// inField gives a pattern's error the field and the value that the caller wrote.
func inField(field string, arn scope.ARN, err error) error {
	var refusal *invalid.Error
	if !errors.As(err, &refusal) {
		return err
	}
	return invalid.Field(field, arn.String(), refusal.Problem, refusal.Remedy)
}

// hint explains ARNs that people name in good faith and AWS never judges by.
func hint(action catalog.Action, arn scope.ARN) (problem, remedy string) {
	service, verb, _ := strings.Cut(action.Name, ":")
	switch {
	case service == "kms" && strings.HasPrefix(arn.Resource, "alias/") && !takes(action, "alias"):
		// https://docs.aws.amazon.com/kms/latest/developerguide/alias-authorization.html
		return "AWS judges by the key, and an alias never matches", "name the key; a condition on kms:ResourceAliases holds it to an alias"
	case service == "es" && strings.HasPrefix(verb, "ESHttp") && strings.Count(arn.Resource, "/") == 1:
		return "the path of a request is part of what AWS judges it by, so a domain alone matches none", "write it as " + arn.String() + "/INDEX/_doc/ID or " + arn.String() + "/INDEX/_search"
	}
	for _, use := range optionalTypes(action, catalog.Authorised(action)) {
		kind, err := kindOf(action, use)
		if err != nil {
			continue
		}
		if _, err := kind.match(arn); err == nil {
			return fmt.Sprintf("a call of %s may name a %s, but AWS never judges it on that alone", action.Name, use), "name the resource that it always works on"
		}
	}
	return "", ""
}
