package kubernetes

import (
	"cmp"
	"regexp"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// kind is a resource as RBAC and kubectl name it, in the plural: deployments.apps. A
// subresource has its name behind a "/": deployments.apps/scale.
type kind struct{ resource, group, subresource string }

func (k kind) String() string {
	text := k.resource
	if k.group != "" {
		text += "." + k.group
	}
	if k.subresource != "" {
		text += "/" + k.subresource
	}
	return text
}

// inRule is the kind as it stands in the resources of an RBAC rule.
func (k kind) inRule() string {
	if k.subresource == "" {
		return k.resource
	}
	return k.resource + "/" + k.subresource
}

// of is the kind's subresource; the kind itself where that is empty.
func (k kind) of(subresource string) kind {
	k.subresource = subresource
	return k
}

func compareKinds(a, b kind) int {
	return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.resource, b.resource), cmp.Compare(a.subresource, b.subresource))
}

// parseKind reads what String writes.
func parseKind(text string) kind {
	text, subresource, _ := strings.Cut(text, "/")
	resource, group, _ := strings.Cut(text, ".")
	return kind{resource: resource, group: group, subresource: subresource}
}

// resource is what a role is about: one object, all objects of a kind in a namespace,
// or what the table has of a namespace.
type resource struct {
	namespace string
	all       bool // <namespace>/*; kind and name are empty then
	kind      kind
	name      string // empty for all objects of the kind
}

func (r resource) String() string {
	text := r.namespace + "/" + r.kind.String()
	switch {
	case r.all:
		return r.namespace + "/*"
	case r.name != "":
		text += "/" + r.name
	}
	return text
}

const resourceShape = "write <namespace>/<resource>[.<group>][/<name>], such as prod/deployments.apps/web, or <namespace>/*"

// Names as RFC 1123 has them: a label, and labels with dots between them.
// https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
var (
	label     = regexp.MustCompile(`\A[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\z`)
	subdomain = regexp.MustCompile(`\A[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\z`)
)

// Longest label and subdomain, in bytes.
const (
	maxLabel     = 63
	maxSubdomain = 253
)

func isLabel(text string) bool { return len(text) <= maxLabel && label.MatchString(text) }

func isSubdomain(text string) bool { return len(text) <= maxSubdomain && subdomain.MatchString(text) }

// parseResource reads a resource. The error is an *invalid.Error.
func parseResource(text string) (resource, error) {
	wrong := func(problem, remedy string) (resource, error) {
		return resource{}, invalid.Field("resource", text, problem, remedy)
	}
	parts := strings.Split(text, "/")
	if len(parts) != 2 && len(parts) != 3 {
		return wrong("not the name of a resource in a namespace", resourceShape)
	}
	parsed := resource{namespace: parts[0]}
	switch {
	case strings.Contains(parsed.namespace, "*"):
		return wrong("a namespace has no wildcard", "name one namespace")
	case !isLabel(parsed.namespace):
		return wrong("not the name of a namespace: small letters, digits and \"-\"", resourceShape)
	case parts[1] == "*" && len(parts) == 2:
		parsed.all = true
		return parsed, nil
	case strings.Contains(parts[1], "*"):
		return wrong("\"*\" stands alone, behind the namespace", "write "+parsed.namespace+"/* for what the documentation lists of a namespace, or name one resource")
	}
	parsed.kind = parseKind(parts[1])
	switch group := parsed.kind.group; {
	case !isLabel(parsed.kind.resource):
		return wrong("not the name of a resource: small letters, in the plural", resourceShape)
	case group == "" && strings.Contains(parts[1], "."), group != "" && !isSubdomain(group):
		return wrong("not the name of a resource's group", resourceShape)
	}
	if len(parts) == 2 {
		return parsed, nil
	}
	parsed.name = parts[2]
	switch {
	case parsed.name == "*":
		return wrong("all objects of a resource are named without \"*\"", "write "+parsed.namespace+"/"+parsed.kind.String())
	case !isSubdomain(parsed.name):
		return wrong("not the name of an object: RFC 1123 has small letters, digits, \"-\" and \".\"", resourceShape)
	}
	return parsed, nil
}

// checkSlots sees to it that what is filled in stands in the object's name only. The
// error is an *invalid.Error that names the parameter.
func (r resource) checkSlots(text scope.Text) error {
	start := len(r.String()) - len(r.name)
	for _, filled := range text.Filled() {
		value := text.String()[filled.Start:filled.End]
		if r.name == "" || filled.Start < start {
			return invalid.Field(string(filled.Reference), value, "namespace and resource can't be filled in, only an object's name", "write them out in the role")
		}
		if strings.Contains(value, "/") {
			return invalid.Field(string(filled.Reference), value, "\"/\" separates parts of the resource's name", "give the name of one object")
		}
	}
	return nil
}
