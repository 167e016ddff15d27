// Package iampolicy writes policies in the JSON policy language that AWS IAM
// defined and MinIO reads too.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
package iampolicy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// version of the policy language.
const version = "2012-10-17"

type document struct {
	Version   string      `json:"Version"`
	Statement []Statement `json:"Statement"`
}

// Statement allows or denies. Of Action and NotAction, and of Resource and
// NotResource, one is set.
type Statement struct {
	Effect      string     `json:"Effect"`
	Action      string     `json:"Action,omitempty"`
	NotAction   []string   `json:"NotAction,omitempty"`
	Resource    string     `json:"Resource,omitempty"`
	NotResource string     `json:"NotResource,omitempty"`
	Condition   Conditions `json:"Condition,omitempty"`
}

// Conditions map an operator to a condition key and its value.
type Conditions map[string]map[string]string

// Time writes a point in time as date conditions take it.
func Time(at time.Time) string { return at.UTC().Format(time.RFC3339) }

// Policy is the document of these statements as compact JSON.
func Policy(statements ...Statement) (provider.Policy, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // "&" in a resource stays one character
	if err := encoder.Encode(document{Version: version, Statement: statements}); err != nil {
		return "", fmt.Errorf("writing a policy: %w", err)
	}
	return provider.Policy(bytes.TrimSpace(text.Bytes())), nil
}
