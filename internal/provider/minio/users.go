package minio

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// The calls of the admin API that change users.
const (
	importIAM          = "/minio/admin/v3/import-iam"
	removeUser         = "/minio/admin/v3/remove-user"
	removeCannedPolicy = "/minio/admin/v3/remove-canned-policy"
	revokeTokens       = "/minio/admin/v3/revoke-tokens/builtin"
)

// rights are what each of the calls needs; revokeTokens only for another user's
// sessions. All of them are what isolate_roles needs.
var rights = map[string]string{
	importIAM:          "admin:ImportIAM",
	removeUser:         "admin:DeleteUser",
	removeCannedPolicy: "admin:DeletePolicy",
	revokeTokens:       "admin:RemoveServiceAccount",
}

// Rights lists what the engine's user needs where isolate_roles is set, sorted.
func Rights() []string {
	var all []string
	for _, right := range rights {
		all = append(all, right)
	}
	slices.Sort(all)
	return all
}

// lacking turns a refusal for a right that the engine's user lacks into what the
// operator can mend.
func (c *client) lacking(err error) error {
	var refusal *apiError
	if !errors.As(err, &refusal) || refusal.code != "AccessDenied" || rights[refusal.call] == "" {
		return err
	}
	return invalid.Field("access_key", invalid.Mask(c.accessKey), "isolate_roles needs "+rights[refusal.call]+", which the store does not give to this user",
		"give it "+strings.Join(Rights(), ", ")+", or leave isolate_roles out")
}

// importUser makes a user of the engine's and a policy of the same name that is all
// it has, or sets both anew. Of the calls that make users this is the one whose body
// is plain: it takes an archive as an export of users and policies gives it. The store
// makes the policy first, and joins the two last.
func (c *client) importUser(ctx context.Context, name string, rules provider.Policy) error {
	var archive bytes.Buffer
	files := zip.NewWriter(&archive)
	for _, file := range []struct {
		name    string
		content any
	}{
		{"policies.json", map[string]json.RawMessage{name: json.RawMessage(rules)}},
		{"users.json", map[string]any{name: map[string]string{"secretKey": c.keyOf(name).SecretAccessKey, "status": "enabled"}}},
		{"user_mappings.json", map[string]any{name: map[string]any{"version": 1, "policy": name}}},
	} {
		part, err := files.Create("iam-assets/" + file.name)
		if err != nil {
			return fmt.Errorf("minio: writing %s: %w", file.name, err)
		}
		if err := json.NewEncoder(part).Encode(file.content); err != nil {
			return fmt.Errorf("minio: writing %s: %w", file.name, err)
		}
	}
	if err := files.Close(); err != nil {
		return fmt.Errorf("minio: writing the archive: %w", err)
	}
	_, err := c.admin(ctx, c.credentials(), http.MethodPut, importIAM, nil, archive.Bytes())
	return err
}

// removeUser removes a user of the engine's. That there is none is no error.
func (c *client) removeUser(ctx context.Context, name string) error {
	_, err := c.admin(ctx, c.credentials(), http.MethodDelete, removeUser, url.Values{"accessKey": {name}}, nil)
	var refusal *apiError
	if errors.As(err, &refusal) && refusal.code == "XMinioAdminNoSuchUser" {
		return nil
	}
	return err
}

// removePolicy removes the policy of such a user. The store says yes if there is none.
func (c *client) removePolicy(ctx context.Context, name string) error {
	_, err := c.admin(ctx, c.credentials(), http.MethodDelete, removeCannedPolicy, url.Values{"name": {name}}, nil)
	var refusal *apiError
	if errors.As(err, &refusal) && refusal.code == "XMinioAdminNoSuchPolicy" {
		return nil
	}
	return err
}

// policyOf is the policy that the store shows to a user as its own.
func (c *client) policyOf(ctx context.Context, user aws.Credentials) (json.RawMessage, error) {
	body, err := c.admin(ctx, user, http.MethodGet, accountInfo, nil, nil)
	if err != nil {
		return nil, err
	}
	var account struct{ Policy json.RawMessage }
	if err := json.Unmarshal(body, &account); err != nil {
		return nil, fmt.Errorf("minio: AccountInfo: %w", err)
	}
	return account.Policy, nil
}

// administers lists the administrator's rights that the engine's user has, as its
// policy names them.
func (c *client) administers(ctx context.Context) ([]string, error) {
	policy, err := c.policyOf(ctx, c.credentials())
	if err != nil {
		return nil, err
	}
	var document struct {
		Statement []struct {
			Effect string
			Action []string
		}
	}
	if err := json.Unmarshal(policy, &document); err != nil {
		return nil, fmt.Errorf("minio: AccountInfo: %w", err)
	}
	var all []string
	for _, statement := range document.Statement {
		for _, action := range statement.Action {
			if statement.Effect == "Allow" && strings.HasPrefix(action, "admin:") {
				all = append(all, action)
			}
		}
	}
	return all, nil
}

// sameRules compares a policy as the store shows it with one as it was written: the
// store writes every value as a list, in an order of its own.
func sameRules(shown json.RawMessage, written provider.Policy) (bool, error) {
	var documents [2]struct{ Statement []map[string]any }
	for i, text := range [][]byte{shown, []byte(written)} {
		if err := json.Unmarshal(text, &documents[i]); err != nil {
			return false, fmt.Errorf("minio: reading a policy: %w", err)
		}
		for _, statement := range documents[i].Statement {
			for name, value := range statement {
				statement[name] = listed(value)
			}
		}
	}
	left := documents[0].Statement
	for _, statement := range documents[1].Statement {
		at := slices.IndexFunc(left, func(other map[string]any) bool { return reflect.DeepEqual(statement, other) })
		if at < 0 {
			return false, nil
		}
		left = slices.Delete(left, at, at+1)
	}
	return len(left) == 0, nil
}

// listed is a value of a policy with each list in order, and each single text as one.
func listed(value any) any {
	var texts []string
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			value[name] = listed(inner)
		}
		return value
	case []any:
		for _, item := range value {
			texts = append(texts, fmt.Sprint(item))
		}
	default:
		texts = []string{fmt.Sprint(value)}
	}
	slices.Sort(texts)
	return texts
}
