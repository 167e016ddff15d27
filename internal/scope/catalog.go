package scope

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Catalog maps the actions that a target knows, in their canonical spelling, to
// the type of resource that each works on.
type Catalog map[string]Pattern

// Check says whether the catalog has the scope's action, in this spelling, and
// whether its resource is exactly one of the type that the action works on. It
// returns the resource's ARN. The errors are *invalid.Error.
func (c Catalog) Check(scope Scope) (ARN, error) {
	pattern, known := c[scope.action]
	if !known {
		return ARN{}, invalid.Field("action", scope.action, "not an action that can be granted on one resource of this target", "name "+invalid.OneOf(Nearest(scope.action, slices.Collect(maps.Keys(c)))))
	}
	arn, err := ParseARN(scope.Resource())
	if err != nil {
		return ARN{}, invalid.Field("resource", scope.Resource(), "not an ARN", fmt.Sprintf("%s works on %s", scope.action, pattern.example))
	}
	if err := pattern.Match(arn); err != nil {
		return ARN{}, err
	}
	spans, err := pattern.Locate(arn)
	if err != nil {
		return ARN{}, err
	}
	return arn, InSlots(scope.resource, spans)
}

// Nearest lists up to three of the names that the wrong one may have meant.
func Nearest(wrong string, names []string) []string {
	names = slices.Sorted(slices.Values(names))
	wrong = strings.ToLower(wrong)
	slices.SortStableFunc(names, func(a, b string) int {
		return distance(wrong, strings.ToLower(a)) - distance(wrong, strings.ToLower(b))
	})
	return names[:min(3, len(names))]
}

// distance is the number of single-character edits between two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
