package scope

import (
	"maps"
	"slices"
)

// Tags are texts that mark a credential and don't say what it may do, by the field
// that they are written in and by key.
type Tags map[string]map[string]string

// tagTemplates are tags whose values are still to be filled in.
type tagTemplates map[string]map[string]Template

func parseTags(tags Tags) (tagTemplates, error) {
	templates := tagTemplates{}
	for _, field := range slices.Sorted(maps.Keys(tags)) {
		templates[field] = map[string]Template{}
		for _, key := range slices.Sorted(maps.Keys(tags[field])) {
			template, err := ParseTemplate(field, tags[field][key])
			if err != nil {
				return nil, err
			}
			templates[field][key] = template
		}
	}
	return templates, nil
}

func (t tagTemplates) references() []Reference {
	var all []Reference
	for _, field := range t {
		for _, template := range field {
			all = append(all, template.References()...)
		}
	}
	return all
}

func (t tagTemplates) fill(value func(Reference) (string, error)) (Tags, error) {
	tags := Tags{}
	for _, field := range slices.Sorted(maps.Keys(t)) {
		tags[field] = map[string]string{}
		for _, key := range slices.Sorted(maps.Keys(t[field])) {
			text, err := t[field][key].Fill(value)
			if err != nil {
				return nil, err
			}
			tags[field][key] = text.text
		}
	}
	return tags, nil
}

// Tags are the scope's tags, with every value filled in.
func (s Scope) Tags() Tags { return s.tags }
