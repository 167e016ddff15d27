package scope

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// ErrTooLarge is the cause of a refusal where a scope is longer than its target
// can hold.
var ErrTooLarge = errors.New("scope: larger than the target can hold")

// MaxTask is the length of the longest task, in bytes.
const MaxTask = 128

// Stand-ins for what is only known when a credential is read. They differ in
// length and form, so that one of them fits where any could.
var (
	someTasks    = []string{"x", "task-1", "INC-7", "xxx-AbCdEf"}
	longestTask  = strings.Repeat("x", MaxTask)
	someIdentity = []string{"x", "xxx", "xxx-AbCdEf", "123e4567-e89b-42d3-a456-426614174000"}
)

// attempts is how many combinations of samples are tried.
const attempts = 8

// Try says whether the definition makes sense to compile, which returns what is
// wrong with a scope: some value that the parameters' patterns admit has to
// work, and every value of an enumeration. Where the values' lengths are
// bounded, the longest have to fit: then only ErrTooLarge counts.
func (d Definition) Try(compile func(Scope) error) error {
	references := d.References()
	samples, longest := map[Reference][]string{}, map[Reference]string{}
	for _, reference := range references {
		name, isParameter := reference.Parameter()
		switch {
		case isParameter:
			parameter := d.parameters[name]
			samples[reference] = parameter.samples(name)
			if len(samples[reference]) == 0 {
				return wrongParameter(name, "no example of a value that it admits could be made", "use a pattern of letters, digits and !'()+,-./=@_~")
			}
			longest[reference], _ = parameter.longest(name)
		case reference == Task:
			samples[reference], longest[reference] = someTasks, longestTask
		default:
			samples[reference] = someIdentity // of no known length
		}
	}
	attempt := func(values map[Reference]string) error {
		scope, err := d.fill(func(reference Reference) (string, error) { return values[reference], nil })
		if err != nil {
			return err
		}
		return compile(scope)
	}

	works, err := firstThatWorks(samples, attempt)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.parameters)) {
		for _, value := range d.parameters[name].OneOf {
			if err := attempt(changed(works, Reference(name), value)); err != nil {
				return because(name, value, err)
			}
		}
	}
	longer := maps.Clone(works)
	for reference, value := range longest {
		if value != "" {
			longer[reference] = value
		}
	}
	if err := attempt(longer); errors.Is(err, ErrTooLarge) {
		return err
	}
	return nil
}

// maxEvery is how many scopes Every goes through at most: each is looked at on the target.
const maxEvery = 100

// Every calls visit with each scope that the definition can become, in a fixed order. It
// refuses a definition with a value that is not one of an enumeration, and one that can
// become too many.
func (d Definition) Every(visit func(Scope) error) error {
	references := d.References()
	all := []map[Reference]string{{}}
	for _, reference := range references {
		name, isParameter := reference.Parameter()
		if !isParameter || len(d.parameters[name].OneOf) == 0 {
			return wrongParameter(string(reference), "each value is looked at when the role is written, and nobody can list those of this one", `define a parameter with an enumeration: {"one_of": ["a", "b"]}`)
		}
		var longer []map[Reference]string
		for _, values := range all {
			for _, value := range d.parameters[name].OneOf {
				longer = append(longer, changed(values, reference, value))
			}
		}
		if all = longer; len(all) > maxEvery {
			return wrongParameter(name, fmt.Sprintf("the role can become more than %d different ones, and each is looked at", maxEvery), "list fewer values, or write several roles")
		}
	}
	for _, values := range all {
		granted, err := d.fill(func(reference Reference) (string, error) { return values[reference], nil })
		if err == nil {
			err = visit(granted)
		}
		if err != nil && len(references) > 0 {
			return because(string(references[0]), values[references[0]], err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// firstThatWorks tries the samples side by side: the first of each, then the
// second of each, and so on. The error is that of the first try.
func firstThatWorks(samples map[Reference][]string, attempt func(map[Reference]string) error) (map[Reference]string, error) {
	var first error
	for i := range attempts {
		values := map[Reference]string{}
		for reference, some := range samples {
			values[reference] = some[i%len(some)]
		}
		err := attempt(values)
		if err == nil {
			return values, nil
		}
		if first == nil {
			first = err
		}
		if len(samples) == 0 {
			break
		}
	}
	return nil, first
}

func changed(values map[Reference]string, reference Reference, value string) map[Reference]string {
	other := maps.Clone(values)
	other[reference] = value
	return other
}

// because names the value of an enumeration that does not work.
func because(name, value string, err error) error {
	var refusal *invalid.Error
	if !errors.As(err, &refusal) {
		return err
	}
	return invalid.Field("parameters", name+"="+value, "the role would be refused with it: "+refusal.Error(), "leave that value out")
}
