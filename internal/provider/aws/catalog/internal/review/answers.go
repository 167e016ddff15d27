package review

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// secret is how members, operations and actions are named that hold what a caller
// can prove himself with.
var secret = regexp.MustCompile(`(?i)token|secret|passw|passphrase|credential|presigned|signed_?ur[il]|session_?ur[il]|certificate|` +
	`private_?key|key_?material|authorization|cookie|access_?key|api_?key|auth_?code|plaintext|unlock_?code|bearer|` +
	`connection_?string|auth_?key|app_?s?_?key|environment_?variables|user_?data|` +
	`(download|dashboard|upload|webhook|report|artifacts?|log)_?url$|(download|data)_?uri$`)

// harmless are names that only sound so: they page, count, order or lock, or they
// say where a secret is, when it ends and of which kind it is.
var harmless = regexp.MustCompile(`(?i)next_?(backward|forward|page|shard)?_?token|page_?token|pagination|continuation|clienttoken|client_?request_?token|idempotency|` +
	`synctoken|locktoken|changetoken|updatetoken|versiontoken|tokens?count|tokens?used|maxtoken|token_?validity|revision|` +
	`(arn|arns|status|type|types|expiry|expiration|expiresat|count|id|ids|date|time|enabled|name|names|mode|state|provider|vendor|location|` +
	`endpoint|preference|behaviou?r|fingerprint|field|version|last4)$`)

// Secret says whether a name is one of a credential.
func Secret(name string) bool { return secret.MatchString(name) && !harmless.MatchString(name) }

// depth is how far into an answer's structures Answer looks.
const depth = 7

// Model is an API model as AWS's SDKs for JavaScript and Python ship it.
type Model struct {
	Metadata struct {
		EndpointPrefix, SigningName, ServiceID string
	}
	Operations map[string]struct{ Output *Shape }
	Shapes     map[string]Shape
}

// Shape is a structure, a list, a map or a simple type, or the name of one.
type Shape struct {
	Shape   string // the name of a shape, in place of all else
	Type    string
	Members map[string]Shape
	Member  *Shape
	Value   *Shape
}

// ReadModel reads a model.
func ReadModel(text []byte) (Model, error) {
	var model Model
	if err := json.Unmarshal(text, &model); err != nil {
		return Model{}, fmt.Errorf("no API model: %w", err)
	}
	return model, nil
}

// Prefixes are the names that a model's service may have in IAM. folder is the
// name that the SDK gives it.
func (m Model) Prefixes(folder string) []string {
	id := strings.ToLower(strings.ReplaceAll(m.Metadata.ServiceID, " ", ""))
	return []string{m.Metadata.SigningName, m.Metadata.EndpointPrefix, folder, id}
}

// Answer lists the members of an operation's answer that are named like a
// credential, sorted. A blob or text alone can be one.
func (m Model) Answer(operation string) []string {
	output := m.Operations[operation].Output
	if output == nil {
		return nil
	}
	found := map[string]bool{}
	m.walk(*output, nil, found)
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (m Model) walk(shape Shape, within []string, found map[string]bool) {
	if shape.Shape != "" {
		if slices.Contains(within, shape.Shape) {
			return
		}
		within = append(slices.Clone(within), shape.Shape)
		shape = m.Shapes[shape.Shape]
	}
	if len(within) > depth {
		return
	}
	for name, member := range shape.Members {
		if Secret(name) && m.simple(member) {
			found[name] = true
		}
		m.walk(member, within, found)
	}
	for _, inner := range []*Shape{shape.Member, shape.Value} {
		if inner != nil {
			m.walk(*inner, within, found)
		}
	}
}

// simple says whether a shape is a text or bytes. A model leaves the type of a
// text out.
func (m Model) simple(shape Shape) bool {
	if shape.Shape != "" {
		shape = m.Shapes[shape.Shape]
	}
	return shape.Type == "" && shape.Members == nil || shape.Type == "string" || shape.Type == "blob"
}
