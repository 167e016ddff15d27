package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Facts that Examine learns for a role.
const (
	factOffers  = "offers"            // what the cluster has of what the role is about
	factRestart = "restart_admission" // "true" where the admission policy for restarts is in place
	// factRestartProblem says why it is not.
	factRestartProblem = "restart_problem"
)

// offers is what a cluster has: kinds, and the verbs that each takes.
type offers map[kind][]string

// fact writes the offers down.
func (o offers) fact() string {
	named := map[string][]string{}
	for kind, verbs := range o {
		named[kind.String()] = slices.Sorted(slices.Values(verbs))
	}
	text, err := json.Marshal(named) // in the order of the names
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	return string(text)
}

// offersIn reads what a role's facts have of the cluster; nil where they have
// nothing.
func offersIn(facts provider.Facts) (offers, error) {
	text := facts[factOffers]
	if text == "" {
		return nil, nil
	}
	named := map[string][]string{}
	if err := json.Unmarshal([]byte(text), &named); err != nil {
		return nil, fmt.Errorf("kubernetes: the role's facts: %w", err)
	}
	read := offers{}
	for name, verbs := range named {
		read[parseKind(name)] = verbs
	}
	return read, nil
}

// sorted are the offered kinds in a fixed order.
func (o offers) sorted() []kind { return slices.SortedFunc(maps.Keys(o), compareKinds) }
