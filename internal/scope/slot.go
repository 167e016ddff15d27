package scope

import (
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// InSlots says whether each value that was filled into a text stands inside the
// value of one variable of its pattern, which spans locate. A value with a "/"
// needs a variable that is a path. Nothing that names who a resource belongs to
// is filled in. The errors are *invalid.Error and name the value's parameter.
func InSlots(text Text, spans []Span) error {
	for _, filled := range text.filled {
		value := text.text[filled.Start:filled.End]
		wrong := func(problem, remedy string) error {
			return invalid.Field(string(filled.Reference), value, problem, remedy)
		}
		slot, found := Span{}, false
		for _, span := range spans {
			if span.Start <= filled.Start && filled.End <= span.End {
				slot, found = span, true
			}
		}
		switch {
		case !found:
			return wrong("it leaves the part of the resource's name that it stands for", "give the name of one part, without what separates parts")
		case slot.Frame:
			return wrong("partition, service and account can't be filled in", "write it out in the role")
		case strings.Contains(value, "/") && !slot.Path:
			return wrong("\"/\" separates parts of the resource's name", "give the name of one part")
		}
	}
	return nil
}
