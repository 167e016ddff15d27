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

// kind is a resource type as one action takes it: the reference's patterns, put
// right where AWS judges by other names than the reference lists.
type kind struct {
	name     string
	patterns []scope.Pattern
	refusal  string // why no resource of it is granted, with what to do
	remedy   string
	// fixedEnd is what a policy has to put behind a name, though it looks like a
	// wildcard; noEnd is what it must not.
	fixedEnd, noEnd string
	whole           bool // AWS judges the call on all of them at once: only a "*" ever matches
	suffixed        bool // AWS puts six random characters at the end of a name
	unborn          bool // and this action makes the resource: nobody knows them
}

// match is an ARN and the type that it is of.
type match struct {
	kind    kind
	arn     scope.ARN // as a policy has to spell it
	pattern scope.Pattern
	wild    bool // whether it ends in a wildcard, which a fixed end is not
}

// groupsOf reads the patterns of the types that a call is judged on. Types with
// the same patterns that are all needed are one: one ARN is both.
func groupsOf(action catalog.Action, authorised catalog.Authorisation) ([][]kind, error) {
	var groups [][]kind
	for i, names := range authorised.Groups {
		var group []kind
		for _, name := range names {
			kind, err := kindOf(action, name)
			if err != nil {
				return nil, err
			}
			group = append(group, kind)
		}
		same := func(other []kind) bool {
			return len(group) == 1 && len(other) == 1 && group[0].name != other[0].name && slices.EqualFunc(group[0].patterns, other[0].patterns, samePattern)
		}
		if i == 0 || !slices.ContainsFunc(groups, same) {
			groups = append(groups, group)
		}
	}
	return groups, nil
}

func samePattern(a, b scope.Pattern) bool { return a.String() == b.String() }

// kindOf reads a resource type's patterns and applies what is known of where the
// reference and AWS differ.
func kindOf(action catalog.Action, name string) (kind, error) {
	listed, known := serviceOf(action).ResourceType(name)
	if !known {
		return kind{}, fmt.Errorf("aws: %s: no resource type %q", action.Name, name)
	}
	result := kind{name: name}
	for _, text := range listed.Patterns {
		pattern, err := scope.ParsePattern(text)
		if err != nil {
			return kind{}, fmt.Errorf("aws: %s: %w", action.Name, err)
		}
		result.patterns = append(result.patterns, pattern)
	}
	service, verb, _ := strings.Cut(action.Name, ":")
	switch id := service + ":" + name; {
	case id == "logs:log-group":
		// https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/iam-access-control-overview-cwl.html
		if verb == "TagResource" || verb == "UntagResource" || verb == "ListTagsForResource" {
			result.noEnd = ":*"
		} else {
			result.fixedEnd = ":*"
		}
	case id == "secretsmanager:Secret":
		// https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_iam-policies.html
		result.suffixed, result.unborn = true, verb == "CreateSecret"
	case id == "es:domain" && strings.HasPrefix(verb, "ESHttp"):
		// https://docs.aws.amazon.com/opensearch-service/latest/developerguide/ac.html
		result.patterns = []scope.Pattern{scope.NewPattern("arn:${Partition}:es:${Region}:${Account}:domain/${DomainName}/${Path}")}
	case (id == "s3:accesspoint" || id == "s3:accesspointobject") && (takes(action, "bucket") || takes(action, "object")):
		// Whether a denial is judged on the bucket's ARN as well is not documented:
		// https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-points-policies.html
		result.refusal, result.remedy = "a request through an access point is judged on the access point and on the bucket, which no exact grant covers", "name the bucket or the object itself"
	case strings.HasPrefix(listed.Patterns[0], "arn:${Partition}:${"):
		// https://docs.aws.amazon.com/aws-backup/latest/devguide/access-control.html
		result.refusal, result.remedy = fmt.Sprintf("a %s has an ARN of the service that it protects, of any shape", name), "name another action"
	}
	if folded := strings.ToLower(name); (strings.HasPrefix(folded, "all") || strings.HasPrefix(folded, "wildcard-")) && strings.HasSuffix(listed.Patterns[0], "*") {
		result.whole = true
		if !result.patterns[0].Wildcard() {
			result.refusal, result.remedy = fmt.Sprintf("AWS judges %s on all resources of type %s at once", action.Name, name), "name an action that works on one resource"
		}
	}
	return result, nil
}

func takes(action catalog.Action, kind string) bool {
	return slices.ContainsFunc(action.Resources, func(use catalog.ResourceUse) bool { return use.Type == kind })
}

// errMisfit is match's error for an ARN that is not of the kind; misfit says why.
var errMisfit = errors.New("aws: not of this resource type")

// misfit says why arn, which match refused, is not of the kind.
func (k kind) misfit(arn scope.ARN) error {
	bare := arn
	bare.Resource = strings.TrimSuffix(arn.Resource, k.fixedEnd+k.noEnd)
	return k.patterns[len(k.patterns)-1].Match(bare)
}

// match says whether arn is of the kind, and how a policy spells it. The errors
// are errMisfit, and an *invalid.Error for the resource where arn is of this kind
// and refused all the same.
func (k kind) match(arn scope.ARN) (found match, err error) {
	end := k.fixedEnd + k.noEnd
	bare := arn
	bare.Resource = strings.TrimSuffix(arn.Resource, end)
	spans := 0
	for _, pattern := range k.patterns {
		if !pattern.Fits(bare) {
			continue
		}
		if located, err := pattern.Locate(bare); err == nil && len(located) > spans {
			found, spans = match{k, bare, pattern, strings.HasSuffix(bare.Resource, "*")}, len(located)
		}
	}
	if spans == 0 {
		return match{}, errMisfit
	}
	if k.fixedEnd != "" && !found.wild {
		found.arn.Resource += k.fixedEnd
		found.pattern = scope.NewPattern(found.pattern.String() + k.fixedEnd)
	}
	if found.wild && bare != arn {
		return match{}, invalid.Field(resourceField, arn.String(), fmt.Sprintf("%q is a fixed end of one name, and this one has a wildcard already", end), "write it as "+bare.String())
	}
	if problem, remedy := k.check(bare, found); problem != "" {
		return match{}, invalid.Field(resourceField, arn.String(), problem, remedy)
	}
	return found, nil
}

// check says what is wrong with an ARN that has the shape of the kind.
func (k kind) check(arn scope.ARN, found match) (problem, remedy string) {
	switch {
	case k.refusal != "":
		return k.refusal, k.remedy
	case found.wild && arn.Service == "events" && strings.HasPrefix(arn.Resource, "rule/aws.partner/"):
		// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-saas.html
		return "a partner's event bus has \"/\" in its name, so this would be the rules of every partner's bus", "name one rule"
	case k.whole && !found.wild:
		prefix := arn.Resource[:strings.LastIndexAny(arn.Resource, "/:")+1]
		arn.Resource = prefix + "*"
		return "AWS judges the call on all of them at once, so one would never match", "write it as " + arn.String()
	case k.unborn && !found.wild:
		return "AWS ends a secret's name in six random characters, which nobody knows before it is made", "name a prefix: write it as " + found.pattern.Example(arn.Partition) + "/*"
	case k.suffixed && !found.wild && !hasSuffixOfSecret(arn.Resource):
		return "a secret's ARN ends in a hyphen and six characters that AWS has put there, and would never match without", "copy it from the secret, such as " + arn.String() + "-AbCdEf"
	}
	return "", ""
}

// hasSuffixOfSecret says whether a secret's id ends as Secrets Manager makes it.
func hasSuffixOfSecret(id string) bool {
	const length = 6
	at := len(id) - length - 1
	if at < 1 || id[at] != '-' {
		return false
	}
	for _, char := range id[at+1:] {
		if (char < 'a' || char > 'z') && (char < 'A' || char > 'Z') && (char < '0' || char > '9') {
			return false
		}
	}
	return true
}

// near says whether arn looks as if it was meant to be of the kind: the service
// is right, and the resource part begins as it should.
func (k kind) near(arn scope.ARN) bool {
	return slices.ContainsFunc(k.patterns, func(pattern scope.Pattern) bool {
		frame, err := scope.ParseARN(pattern.String())
		if err != nil || frame.Service != arn.Service {
			return false
		}
		start, _, _ := strings.Cut(frame.Resource, "$")
		return strings.HasPrefix(arn.Resource, strings.TrimRight(start, "*"))
	})
}

// listed shows how resources of the kinds are written, the first few.
func listed(kinds []kind, partition string) string {
	const most = 4
	var all []string
	for _, kind := range kinds {
		for _, pattern := range kind.patterns {
			all = append(all, kind.name+" "+pattern.Example(partition))
		}
	}
	if len(all) > most {
		return fmt.Sprintf("%s or one of %d other kinds", strings.Join(all[:most], ", "), len(all)-most)
	}
	return invalid.OneOf(all)
}
