package iampolicy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

const (
	// maxDocument is the longest policy that AWS takes anywhere, a KMS key's.
	// https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html
	maxDocument = 32 << 10
	// maxDepth leaves room for what the grammar nests: document, statements,
	// statement, condition, operator, values.
	maxDepth = 8
)

// Document is a policy that can be evaluated. The zero value allows nothing and
// denies nothing.
type Document struct {
	field      string // that it was read from
	statements []statement
}

// statement is one statement of a Document.
type statement struct {
	deny         bool
	principals   *principals // nil in a policy of an identity
	notPrincipal bool
	actions      []pattern
	notAction    bool
	resources    []pattern // empty where a policy is of one resource only, such as a role's trust policy
	notResource  bool
	short        bool // an ARN of fewer than six parts is among the resources
	conditions   []condition
	text         string // as compact JSON
}

// Len is the number of statements.
func (d Document) Len() int { return len(d.statements) }

// Statement is the statement at index as compact JSON.
func (d Document) Statement(index int) string { return d.statements[index].text }

// Parse reads a policy: one that an identity, a session or a boundary has, or
// one of a resource. What it doesn't know, or what AWS could take in two ways,
// it refuses; nothing is ignored. The error is an *invalid.Error for field.
//
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
func Parse(field, text string) (Document, error) {
	refuse := func(problem string) error {
		return invalid.Field(field, text, problem, "write a policy in the JSON policy language of IAM")
	}
	if len(text) > maxDocument {
		return Document{}, refuse(fmt.Sprintf("the policy has %d bytes, more than the %d that AWS takes", len(text), maxDocument))
	}
	root, err := readJSON(text)
	if err != nil {
		return Document{}, refuse(err.Error())
	}
	document, err := newDocument(root)
	if err != nil {
		return Document{}, refuse(err.Error())
	}
	document.field = field
	return document, nil
}

func newDocument(root node) (Document, error) {
	if err := root.only("Version", "Id", "Statement"); err != nil {
		return Document{}, fmt.Errorf("the policy: %w", err)
	}
	variables := false
	if written, ok := root.members["Version"]; ok {
		if written.kind != isString || written.text != version && written.text != oldVersion {
			return Document{}, fmt.Errorf("its Version is neither %q nor %q", version, oldVersion)
		}
		variables = written.text == version
	}
	if id, ok := root.members["Id"]; ok && id.kind != isString {
		return Document{}, fmt.Errorf("its Id is %s, not a string", id.kind)
	}
	written, ok := root.members["Statement"]
	statements := written.list
	switch {
	case !ok:
		return Document{}, fmt.Errorf("it has no Statement")
	case written.kind == isObject:
		statements = []node{written}
	case written.kind != isList || len(statements) == 0:
		return Document{}, fmt.Errorf("its Statement holds no statement")
	}
	var document Document
	for i, written := range statements {
		read, err := newStatement(written, variables)
		if err != nil {
			return Document{}, fmt.Errorf("statement %d: %w", i+1, err)
		}
		document.statements = append(document.statements, read)
	}
	return document, nil
}

func newStatement(written node, variables bool) (statement, error) {
	if err := written.only("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"); err != nil {
		return statement{}, err
	}
	if sid, ok := written.members["Sid"]; ok && sid.kind != isString {
		return statement{}, fmt.Errorf("its Sid is %s, not a string", sid.kind)
	}
	effect := written.members["Effect"]
	if effect.kind != isString || effect.text != effectAllow && effect.text != effectDeny {
		return statement{}, fmt.Errorf("its Effect is neither %q nor %q", effectAllow, effectDeny)
	}
	read := statement{deny: effect.text == effectDeny}

	name, element, err := written.either("Principal", "NotPrincipal")
	if err != nil {
		return statement{}, err
	}
	if name != "" {
		if read.principals, err = newPrincipals(element); err != nil {
			return statement{}, fmt.Errorf("%s: %w", name, err)
		}
		read.notPrincipal = name == "NotPrincipal"
	}

	if name, element, err = written.either("Action", "NotAction"); err != nil {
		return statement{}, err
	}
	if name == "" {
		return statement{}, fmt.Errorf("it has neither Action nor NotAction")
	}
	if read.actions, err = patterns(element, newAction); err != nil {
		return statement{}, fmt.Errorf("%s: %w", name, err)
	}
	read.notAction = name == "NotAction"

	if name, element, err = written.either("Resource", "NotResource"); err != nil {
		return statement{}, err
	}
	if name != "" {
		resource := func(text string) (pattern, error) {
			compiled, err := newResource(text, variables)
			read.short = read.short || err == nil && text != "*" && len(compiled.variables) == 0 && strings.Count(text, ":") < arnSegments-1
			return compiled, err
		}
		if read.resources, err = patterns(element, resource); err != nil {
			return statement{}, fmt.Errorf("%s: %w", name, err)
		}
		read.notResource = name == "NotResource"
	}

	if written, ok := written.members["Condition"]; ok {
		if read.conditions, err = newConditions(written, variables); err != nil {
			return statement{}, fmt.Errorf("its Condition: %w", err)
		}
	}
	read.text, err = compact(written)
	return read, err
}

// patterns compiles one text or a list of them.
func patterns(element node, compile func(string) (pattern, error)) ([]pattern, error) {
	texts, err := element.texts(false)
	if err != nil {
		return nil, err
	}
	var compiled []pattern
	for _, text := range texts {
		next, err := compile(text)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", invalid.Clip(text), err)
		}
		compiled = append(compiled, next)
	}
	return compiled, nil
}

// actionText is a service's prefix, without a wildcard, and a name, or all.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_action.html
var actionText = regexp.MustCompile(`\A(?:\*|\*:\*|[A-Za-z0-9-]+:[A-Za-z0-9*?_.-]+)\z`)

func newAction(text string) (pattern, error) {
	if !actionText.MatchString(text) {
		return pattern{}, fmt.Errorf(`not of the form "service:action"`)
	}
	return newPattern(strings.ToLower(text), true, false)
}

// newResource takes an ARN. One with fewer than six parts has "*" for the rest.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns
func newResource(text string, variables bool) (pattern, error) {
	if text == "*" {
		return newPattern(text, true, false)
	}
	if !strings.HasPrefix(text, "arn:") {
		return pattern{}, fmt.Errorf(`neither an ARN nor "*"`)
	}
	compiled, err := newPattern(text, true, variables)
	if err != nil {
		return pattern{}, err
	}
	if len(compiled.variables) == 0 {
		for compiled.segments() < arnSegments {
			compiled.parts = append(compiled.parts, part{char: ':'}, part{kind: anyMany})
		}
	}
	compiled.withinSegments()
	return compiled, nil
}

func newConditions(written node, variables bool) ([]condition, error) {
	if written.kind != isObject {
		return nil, fmt.Errorf("%s, not an object", written.kind)
	}
	var conditions []condition
	for _, name := range written.names {
		op, err := newOperator(name)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", invalid.Clip(name), err)
		}
		keys := written.members[name]
		if keys.kind != isObject || len(keys.names) == 0 {
			return nil, fmt.Errorf("%s holds no condition key", name)
		}
		seen := map[string]bool{}
		for _, key := range keys.names {
			lower := strings.ToLower(key)
			if key == "" || seen[lower] {
				return nil, fmt.Errorf("%s: the condition key %q is empty or stands twice", name, invalid.Clip(key))
			}
			seen[lower] = true
			values, err := keys.members[key].texts(true)
			if err != nil {
				return nil, fmt.Errorf("%s on %s: %w", name, invalid.Clip(key), err)
			}
			compiled, err := newCondition(op, key, values, variables)
			if err != nil {
				return nil, fmt.Errorf("%s on %s: %w", name, invalid.Clip(key), err)
			}
			conditions = append(conditions, compiled)
		}
	}
	return conditions, nil
}

// only refuses what isn't an object of these members.
func (n node) only(names ...string) error {
	if n.kind != isObject {
		return fmt.Errorf("%s, not an object", n.kind)
	}
	for _, name := range n.names {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown element %q", invalid.Clip(name))
		}
	}
	return nil
}

// either is the one of two members that is there, or none.
func (n node) either(one, other string) (string, node, error) {
	first, hasFirst := n.members[one]
	second, hasSecond := n.members[other]
	switch {
	case hasFirst && hasSecond:
		return "", node{}, fmt.Errorf("it has both %s and %s", one, other)
	case hasFirst:
		return one, first, nil
	case hasSecond:
		return other, second, nil
	default:
		return "", node{}, nil
	}
}

// texts is a string or a list of them; numbers and booleans count as such where
// literals says so.
func (n node) texts(literals bool) ([]string, error) {
	elements := []node{n}
	if n.kind == isList {
		elements = n.list
	}
	if len(elements) == 0 {
		return nil, fmt.Errorf("an empty list")
	}
	var texts []string
	for _, element := range elements {
		if element.kind != isString && !(literals && element.kind == isLiteral) {
			return nil, fmt.Errorf("%s, not a string", element.kind)
		}
		texts = append(texts, element.text)
	}
	return texts, nil
}
