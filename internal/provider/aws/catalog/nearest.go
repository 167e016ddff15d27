package catalog

import (
	"cmp"
	"slices"
	"strings"
)

const (
	suggestions = 3 // of Nearest, at most
	neighbours  = 3 // services that a misspelt prefix may have meant
	shortest    = 3 // characters of a name that say something as a part of another
)

// suggestion is a name that may have been meant.
type suggestion struct {
	name     string
	distance int
}

// Nearest returns up to three actions that a wrong name may have meant, in their
// canonical spelling, the likeliest first: those that the API operation of this
// name needs, those of the same service that are spelt almost so, else the action
// of this name in another service, then what is less alike. It may be empty.
func Nearest(name string) []string {
	folded, ok := fold(name)
	if !ok {
		return nil
	}
	prefix, action, divided := strings.Cut(folded, ":")
	if !divided {
		prefix, action = "", prefix
	}
	if action == "" {
		return nil
	}
	result := OperationActions(name)
	var own []suggestion
	if service, known := opened().services[prefix]; known {
		own = service.alike(action)
	} else if prefix != "" {
		for _, service := range neighbourhood(prefix) {
			own = append(own, service.alike(action)...)
		}
	}
	rank(own)
	if len(result) == 0 && (len(own) == 0 || own[0].distance > typo(action)) {
		own = slices.Concat(namesakes(prefix, action), own)
	}
	for _, candidate := range own {
		if len(result) < suggestions && !slices.Contains(result, candidate.name) {
			result = append(result, candidate.name)
		}
	}
	return result[:min(suggestions, len(result))]
}

// typo is how many edits still look like a slip.
func typo(name string) int { return max(2, len(name)/4) }

// alike lists the service's actions of which at least half is as in the name,
// which is in lower case, and those that hold it.
func (s Service) alike(name string) []suggestion {
	var result []suggestion
	for _, action := range s.content().actions {
		folded := strings.ToLower(action.Name[len(s.Prefix)+1:])
		limit := max(len(name), len(folded)) / 2
		distance := editDistance(name, folded, limit)
		if len(name) >= shortest && strings.Contains(folded, name) {
			distance = min(distance, limit)
		}
		if distance <= limit {
			result = append(result, suggestion{action.Name, distance})
		}
	}
	return result
}

// namesakes lists the actions of this name in any service, the service that is
// spelt most like prefix first. The first time it has to unpack every service.
func namesakes(prefix, action string) []suggestion {
	var result []suggestion
	for _, other := range opened().prefixes {
		content := opened().services[other].content()
		if at, known := content.action[action]; known {
			result = append(result, suggestion{content.actions[at].Name, editDistance(prefix, other, longest)})
		}
	}
	rank(result)
	return result
}

// neighbourhood lists the services whose prefix is spelt almost like the given one.
func neighbourhood(prefix string) []Service {
	var near []suggestion
	for _, other := range opened().prefixes {
		if distance := editDistance(prefix, other, typo(prefix)); distance <= typo(prefix) {
			near = append(near, suggestion{other, distance})
		}
	}
	rank(near)
	var result []Service
	for _, candidate := range near[:min(neighbours, len(near))] {
		result = append(result, opened().services[candidate.name])
	}
	return result
}

func rank(list []suggestion) {
	slices.SortFunc(list, func(a, b suggestion) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name))
	})
}

// editDistance is the number of single-character edits between two names, or some
// number above limit if there are more than that. Names are at most longest bytes.
func editDistance(a, b string, limit int) int {
	if difference := len(a) - len(b); difference > limit || -difference > limit {
		return limit + 1
	}
	var row [longest + 1]int
	for j := range len(b) + 1 {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		least := row[0]
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
			least = min(least, row[j+1])
		}
		if least > limit {
			return limit + 1
		}
	}
	return row[len(b)]
}
