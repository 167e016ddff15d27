package catalog

import (
	"strings"
	"sync"
)

// Joint says on how many resources at once AWS authorises a call.
type Joint string

// Kinds of authorisation. The reference marks resource types as required, which
// means several things; where it marks more than one, the kind was found by
// comparing with what the API's request names.
const (
	// None: the action has no resource-level permission.
	None Joint = "none"
	// Single: on one resource, of the only type, of the only one required, or, if
	// none is required, of any of the types.
	Single Joint = "single"
	// All: on one resource of each group at once. A grant needs all of them.
	All Joint = "all"
	// One: on one resource, of any of the types; the request has one identifier
	// only. Naming a second resource would widen the grant.
	One Joint = "one"
	// Created: on several at once, of which the call itself creates one, whose id
	// nobody knows before. No exact grant is possible.
	Created Joint = "created"
	// Leaf: the types are nested, the ARN of one begins with that of the other, and
	// the request names fewer of them than the reference requires. AWS authorises
	// on the resource that the request names, whether on what is around it too is
	// not documented: a grant on that resource alone is never too wide, but AWS may
	// ask for more.
	Leaf Joint = "leaf"
	// Unreviewed: several are required, and there was nothing to compare with.
	Unreviewed Joint = "unreviewed"
)

// Authorisation says which resources a call is authorised on.
type Authorisation struct {
	Kind Joint
	// Groups are resource types; those of one group are alternatives. Kind All has
	// a group for each resource that a grant must name (a type that is there twice
	// is needed twice); every other kind but None has one.
	Groups [][]string
	Source string
}

var authorisations = sync.OnceValue(func() map[string]Authorisation {
	result := map[string]Authorisation{}
	for _, row := range table("several-required.tsv", "action", "authorised_on", "types", "source") {
		kind, types := Joint(row[1]), strings.Split(row[2], "|")
		groups := [][]string{types}
		if kind == All {
			groups = nil
			for _, alternatives := range types {
				groups = append(groups, strings.Split(alternatives, ","))
			}
		}
		result[row[0]] = Authorisation{kind, groups, row[3]}
	}
	return result
})

// Authorised says which resources a call of the action is authorised on. It fails
// closed: an action that requires several types and is not in the table is
// Unreviewed.
func Authorised(action Action) Authorisation {
	if authorisation, listed := authorisations()[action.Name]; listed {
		return authorisation
	}
	if len(action.Resources) == 0 {
		return Authorisation{Kind: None, Source: reference}
	}
	var types, required []string
	for _, use := range action.Resources {
		types = append(types, use.Type)
		if use.Required {
			required = append(required, use.Type)
		}
	}
	switch len(required) {
	case 0:
		return Authorisation{Single, [][]string{types}, reference}
	case 1:
		return Authorisation{Single, [][]string{required}, reference}
	default:
		return Authorisation{Unreviewed, [][]string{required}, reference}
	}
}
