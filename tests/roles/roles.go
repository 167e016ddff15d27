// Package roles draws roles for the proof that what is minted is exact: from
// AWS's whole catalogue, with any kind of resource, companions and conditions
// that a role may have. It does not know what the engine accepts, nor how it
// writes a policy.
package roles

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Accounts of the roles: their own, and one that nothing is granted in.
const (
	Account = "123456789012"
	Other   = "999988887777"
)

// Role is a role that may be written, and what the proof knows of it.
type Role struct {
	Action          catalog.Action
	Resource        string
	Companions      []string
	Conditions      []Condition
	AllowEscalation bool
	BoundSourceIP   bool
}

// Service is the prefix of the role's action.
func (r Role) Service() string { return ServiceOf(r.Action.Name) }

// ServiceOf is the prefix of an action's name.
func ServiceOf(action string) string {
	prefix, _, _ := strings.Cut(action, ":")
	return prefix
}

// Fields is the role as it is written at roles/.
func (r Role) Fields() map[string]any {
	fields := map[string]any{"action": r.Action.Name, "resource": r.Resource}
	if len(r.Companions) > 0 {
		fields["companion_resources"] = r.Companions
	}
	if r.AllowEscalation {
		fields["allow_escalation"] = true
	}
	if r.BoundSourceIP {
		fields["bound_source_ip"] = true
	}
	block := map[string]any{}
	for _, condition := range r.Conditions {
		keys, _ := block[condition.Operator].(map[string]any)
		if keys == nil {
			keys = map[string]any{}
			block[condition.Operator] = keys
		}
		keys[condition.Key] = condition.Values
	}
	if len(block) > 0 {
		fields["conditions"] = block
	}
	return fields
}

// popular services have more roles than others, as they do in life.
var popular = []string{"dynamodb", "ec2", "ecr", "events", "iam", "kinesis", "kms", "lambda", "logs", "rds", "s3", "secretsmanager", "sns", "sqs", "ssm", "states", "sts"}

// Generate draws roles; the same ones for the same seed.
func Generate(seed uint64) []Role {
	const each, ofPopular = 1, 20
	draw := drawer{rand.New(rand.NewPCG(seed, 0))}
	var all []Role
	for _, prefix := range catalog.Services() {
		service, _ := catalog.ServiceByPrefix(prefix)
		actions := slices.Clone(service.Actions())
		draw.Shuffle(len(actions), func(i, j int) { actions[i], actions[j] = actions[j], actions[i] })
		// What can't be narrowed at all is refused for one reason, which needs no
		// thousand examples: those come last.
		slices.SortStableFunc(actions, func(a, b catalog.Action) int { return rank(a) - rank(b) })
		count := each
		if slices.Contains(popular, prefix) {
			count = ofPopular
		}
		// Up to half of them, where there are as many, on what may have a wildcard.
		wild := slices.DeleteFunc(slices.Clone(actions), func(action catalog.Action) bool {
			return rank(action) > 0 || !slices.ContainsFunc(action.Resources, func(use catalog.ResourceUse) bool { return widens(service, use.Type) })
		})
		chosen := wild[:min((count+1)/2, len(wild))]
		for _, action := range actions {
			if len(chosen) < count && !slices.ContainsFunc(chosen, func(other catalog.Action) bool { return other.Name == action.Name }) {
				chosen = append(slices.Clip(chosen), action)
			}
		}
		for _, action := range chosen {
			all = append(all, draw.role(service, action))
		}
	}
	draw.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func rank(action catalog.Action) int {
	switch catalog.Authorised(action).Kind {
	case catalog.None:
		return 2
	case catalog.Created, catalog.Unreviewed:
		return 1
	default:
		return 0
	}
}

// widens says whether a wildcard may end a resource of the type.
func widens(service catalog.Service, name string) bool {
	kind, _ := service.ResourceType(name)
	return slices.ContainsFunc(kind.Patterns, func(text string) bool {
		pattern, err := scope.ParsePattern(text)
		return err == nil && pattern.Wildcard()
	})
}

// drawer draws what a role consists of.
type drawer struct{ *rand.Rand }

func (d drawer) oneOf(texts ...string) string { return texts[d.IntN(len(texts))] }

func (d drawer) role(service catalog.Service, action catalog.Action) Role {
	role := Role{Action: action, Resource: d.fill("arn:${Partition}:" + service.Prefix + ":${Region}:${Account}:${Name}")}
	region := d.oneOf(regions...)
	authorised := catalog.Authorised(action)
	groups := authorised.Groups
	if authorised.Kind == catalog.Single && d.IntN(4) == 0 {
		groups = [][]string{anyTypes(action)} // an optional one is worth a try
	}
	for i, types := range groups {
		if i > 0 && authorised.Kind != catalog.All {
			break
		}
		name := types[d.IntN(len(types))]
		if at := slices.IndexFunc(types, func(name string) bool { return widens(service, name) }); at >= 0 && d.IntN(4) > 0 {
			name = types[at]
		}
		kind, known := service.ResourceType(name)
		if !known {
			continue
		}
		text := kind.Patterns[d.IntN(len(kind.Patterns))]
		arn := d.fillIn(text, region)
		if i > 0 {
			role.Companions = append(role.Companions, arn)
			continue
		}
		role.Resource = d.widen(text, arn)
		if name == "log-group" && service.Prefix == "logs" && !strings.HasSuffix(role.Resource, ":*") && !slices.Contains(bareLogGroup, action.Name) {
			role.Resource += ":*" // which is what AWS compares with
		}
	}
	if escalation, escalates := catalog.EscalationOf(action); escalates && escalation.Verdict == catalog.Refuse {
		role.AllowEscalation = true
	}
	if d.IntN(5) == 0 {
		role.BoundSourceIP = true
	}
	if d.IntN(2) == 0 {
		role.Conditions = d.conditions(service, role)
	}
	return role
}

// bareLogGroup are the actions that AWS compares with a log group's name alone.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/iam-access-control-overview-cwl.html
var bareLogGroup = []string{"logs:ListTagsForResource", "logs:TagResource", "logs:UntagResource"}

func anyTypes(action catalog.Action) []string {
	var types []string
	for _, use := range action.Resources {
		types = append(types, use.Type)
	}
	return types
}

// Levels are the access levels of all roles, each with the number of roles that
// have it. A compound level counts for each of its parts.
func Levels(all []Role) map[string]int {
	levels := map[string]int{}
	for _, role := range all {
		for _, level := range role.Action.AccessLevels {
			levels[level]++
		}
	}
	return levels
}

// Counted writes counts by name.
func Counted(counts map[string]int) string {
	var text []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		text = append(text, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(text, ", ")
}
