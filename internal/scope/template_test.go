package scope

import (
	"slices"
	"strings"
	"testing"
)

func TestParseTemplate(t *testing.T) {
	for text, want := range map[string][]Reference{
		"":                                      nil,
		"arn:aws:s3:::releases/app/*":           nil,
		"arn:aws:s3:::releases/{{key}}":         {"key"},
		"arn:aws:s3:::releases/{{ key }}/*":     {"key"},
		"arn:aws:s3:::{{b}}/{{task}}/{{b}}":     {"b", "task", "b"},
		"a/{{identity.entity.id}}":              {"identity.entity.id"},
		"a/{{identity.entity.name}}":            {"identity.entity.name"},
		"a/{{identity.entity.metadata.repo-1}}": {"identity.entity.metadata.repo-1"},
		"a/{{identity.entity.aliases.auth_jwt_1a2b.metadata.env}}":        {"identity.entity.aliases.auth_jwt_1a2b.metadata.env"},
		"a/{{identity.entity.aliases.auth_jwt_1a2b.custom_metadata.env}}": {"identity.entity.aliases.auth_jwt_1a2b.custom_metadata.env"},
		"a/{{identity.groups.ids.123e-4567.name}}":                        {"identity.groups.ids.123e-4567.name"},
		"a/{{identity.groups.names.admins.id}}":                           {"identity.groups.names.admins.id"},
		"a{b}c":                                                           nil,
	} {
		template, err := ParseTemplate("resource", text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := template.References(); !slices.Equal(got, want) {
			t.Errorf("%s refers to %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{
		"{{", "}}", "a/{{key", "a/key}}", "{{}}", "{{ }}", "{{Key}}", "{{1}}", "{{a b}}", "{{a-b}}", "{{{key}}}", "{{{{key}}}}", "{{a{{b}}}}",
		"{{identity.}}", "{{identity.entity}}", "{{identity.entity.policies}}", "{{identity.entity.metadata}}", "{{identity.entity.metadata.}}",
		"{{identity.entity.aliases.metadata.x}}", "{{identity.groups.names.admins}}", "{{.Name}}", "{{key|upper}}", "{{a}}{{b}}", "{{identity.entity.name}}{{key}}/x", strings.Repeat("a", 10<<20),
	} {
		template, err := ParseTemplate("resource", text)
		if err == nil {
			t.Errorf("%.40s was read as %v", text, template)
		}
		checkRefusal(t, err, text)
	}
}

// A caller of team a who may choose the key b-c must not pass for team a-b by it.
func TestAdviceOnBlurredSegments(t *testing.T) {
	parameters := map[string]any{"key": "[a-z-]+", "other": "[a-z]+"}
	for resource, blurred := range map[string]int{
		"arn:aws:s3:::releases/{{identity.entity.metadata.team}}/{{key}}-{{other}}":    0,
		"arn:aws:s3:::releases/{{key}}/{{task}}.{{identity.entity.name}}/{{other}}":    0,
		"arn:aws:sqs:eu-west-1:{{key}}:{{task}}/{{other}}":                             0,
		"arn:aws:s3:::releases/{{identity.entity.metadata.team}}-{{key}}/{{other}}":    1,
		"arn:aws:s3:::releases/{{key}}/{{other}}.x.{{task}}":                           1,
		"arn:aws:s3:::releases/{{identity.entity.metadata.team}}-{{key}}-{{task}}.tgz": 2,
	} {
		used := map[string]any{}
		for name, pattern := range parameters {
			if strings.Contains(resource, "{{"+name+"}}") {
				used[name] = pattern
			}
		}
		definition, err := Define(Texts{Action: "s3:PutObject", Resource: resource, Parameters: used})
		if err != nil {
			t.Fatal(err)
		}
		if advice := definition.Advice(); len(advice) != blurred {
			t.Errorf("%s: %d warnings, want %d: %q", resource, len(advice), blurred, advice)
		}
	}
}

func TestFillRemembersWhatItFilledIn(t *testing.T) {
	template, err := ParseTemplate("resource", "arn:aws:s3:::{{bucket}}/x/{{key}}")
	if err != nil {
		t.Fatal(err)
	}
	text, err := template.Fill(func(reference Reference) (string, error) {
		return map[Reference]string{"bucket": "releases", "key": "app/1.tgz"}[reference], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != "arn:aws:s3:::releases/x/app/1.tgz" {
		t.Errorf("filled to %s", text.String())
	}
	var values []string
	for _, filled := range text.Filled() {
		values = append(values, string(filled.Reference)+"="+text.String()[filled.Start:filled.End])
	}
	if want := []string{"bucket=releases", "key=app/1.tgz"}; !slices.Equal(values, want) {
		t.Errorf("remembers %v, want %v", values, want)
	}
}

// FuzzTemplate: a template that is filled with its own references' marks is the
// text again; and no value of another alphabet gets in.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"arn:aws:s3:::b/{{key}}", "{{task}}", "{{identity.entity.metadata.x}}", "{{{{a}}}}", "{{", "}}{{"} {
		f.Add(seed, "x")
	}
	f.Add("a/{{key}}", "../x")
	f.Add("a/{{key}}", "*")
	f.Fuzz(func(t *testing.T, text, value string) {
		template, err := ParseTemplate("resource", text)
		if err != nil {
			return
		}
		filled, err := template.Fill(func(Reference) (string, error) { return value, nil })
		if err != nil {
			return
		}
		references := template.References()
		if len(filled.Filled()) != len(references) {
			t.Fatalf("%q: %d values for %d references", text, len(filled.Filled()), len(references))
		}
		if len(references) == 0 {
			if filled.String() != text {
				t.Fatalf("%q became %q", text, filled.String())
			}
			return
		}
		if strings.ContainsAny(value, "*?${}\\\"%:\n\x00 ") || value == "" || slices.Contains(strings.Split(value, "/"), "..") {
			t.Fatalf("%q was filled in", value)
		}
		if strings.Count(filled.String(), "*") != strings.Count(text, "*") {
			t.Fatalf("%q gained a wildcard", filled.String())
		}
	})
}
