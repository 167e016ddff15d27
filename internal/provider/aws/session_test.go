package aws

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

const testBase = "arn:aws:iam::123456789012:role/path/base"

// engineAs is the provider of an engine that AWS knows by an ARN.
func engineAs(t *testing.T, arn string, settings provider.Settings) *account {
	t.Helper()
	all := provider.Settings{"region": "eu-west-1", "access_key": "AKIA", "secret_key": "secret"}
	for name, value := range settings {
		all[name] = value
	}
	opened, err := open(all, provider.Facts{factAccount: "123456789012", factPartition: "aws", factCaller: arn})
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

const (
	engineUser    = "arn:aws:iam::123456789012:user/engine"
	engineSession = "arn:aws:sts::123456789012:assumed-role/engine/vault-precision"
)

// What a role says that its sessions could not keep is refused when it is
// written, with the field that is wrong.
func TestRolesOfSessionsThatAreRefused(t *testing.T) {
	granted, err := scope.New("s3:PutObject", "arn:aws:s3:::releases/app/*")
	if err != nil {
		t.Fatal(err)
	}
	assumed := func(changes provider.Settings) provider.Settings {
		options := provider.Settings{handleType: assumedRole, fieldBaseRole: testBase}
		for name, value := range changes {
			if value == nil {
				delete(options, name)
			} else {
				options[name] = value
			}
		}
		return options
	}
	federated := provider.Settings{handleType: federationToken}
	for name, test := range map[string]struct {
		engine  string
		options provider.Settings
		ttl     time.Duration
		says    string // empty where it is taken
	}{
		"a session":                    {engineUser, assumed(nil), time.Hour, ""},
		"of a federated user":          {engineUser, federated, 36 * time.Hour, ""},
		"the longest":                  {engineUser, assumed(nil), 12 * time.Hour, ""},
		"longer":                       {engineUser, assumed(nil), 12*time.Hour + time.Second, "invalid ttl"},
		"longer, of a federated user":  {engineUser, federated, 37 * time.Hour, "invalid ttl"},
		"chained":                      {engineSession, assumed(nil), time.Hour, ""},
		"chained and longer":           {engineSession, assumed(nil), time.Hour + time.Second, "the engine itself uses a role's session"},
		"federated by a session":       {engineSession, federated, time.Hour, "only an IAM user"},
		"federated by the root":        {"arn:aws:iam::123456789012:root", federated, time.Hour, "only an IAM user"},
		"no role":                      {engineUser, assumed(provider.Settings{fieldBaseRole: nil}), time.Hour, "invalid role_arn"},
		"a user for a role":            {engineUser, assumed(provider.Settings{fieldBaseRole: engineUser}), time.Hour, "not the ARN of a role"},
		"a role of another account":    {engineUser, assumed(provider.Settings{fieldBaseRole: "arn:aws:iam::210987654321:role/base"}), time.Hour, "not a role of the target's account"},
		"a role of another partition":  {engineUser, assumed(provider.Settings{fieldBaseRole: "arn:aws-cn:iam::123456789012:role/base"}), time.Hour, "not a role of the target's account"},
		"an external id":               {engineUser, assumed(provider.Settings{fieldBaseExternalID: "a b"}), time.Hour, "invalid external_id"},
		"an empty external id":         {engineUser, assumed(provider.Settings{fieldBaseExternalID: ""}), time.Hour, "invalid external_id"},
		"tags":                         {engineUser, assumed(provider.Settings{fieldTags: map[string]any{"team": "blue"}, fieldTransitive: []any{"team"}}), time.Hour, ""},
		"tags of a federated user":     {engineUser, provider.Settings{handleType: federationToken, fieldTags: map[string]string{"team": "blue"}}, time.Hour, ""},
		"a parameter in a tag":         {engineUser, assumed(provider.Settings{fieldTags: map[string]string{"team": "{{task}}"}}), time.Hour, "not a value of a tag"},
		"two tags to STS one":          {engineUser, assumed(provider.Settings{fieldTags: map[string]string{"team": "a", "Team": "b"}}), time.Hour, "differs in case only"},
		"a tag of AWS":                 {engineUser, assumed(provider.Settings{fieldTags: map[string]string{"aws:team": "a"}}), time.Hour, "not a key of a tag"},
		"a transitive key of no tag":   {engineUser, assumed(provider.Settings{fieldTransitive: []string{"team"}}), time.Hour, "invalid transitive_tag_keys"},
		"a source identity":            {engineUser, assumed(provider.Settings{fieldSourceIdentity: "entity"}), time.Hour, "write entity_name or task"},
		"a boundary":                   {engineUser, assumed(provider.Settings{"permissions_boundary_arn": "arn:aws:iam::aws:policy/x"}), time.Hour, "do not take it"},
		"a role for a federated user":  {engineUser, provider.Settings{handleType: federationToken, fieldBaseRole: testBase}, time.Hour, "do not take it"},
		"a role for a user":            {engineUser, provider.Settings{fieldBaseRole: testBase}, time.Hour, "set credential_type to assumed_role"},
		"another type":                 {engineUser, provider.Settings{handleType: "session"}, time.Hour, "assumed_role, federation_token or iam_user"},
		"a life that nobody knows yet": {engineUser, assumed(nil), 0, ""},
	} {
		_, err := engineAs(t, test.engine, nil).Compile(granted, provider.Bounds{ExpiresAt: end, TTL: test.ttl, Options: test.options})
		var refused *invalid.Error
		if test.says == "" && err != nil || test.says != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: got %v, want %q", name, err, test.says)
		}
	}
}

// A target's default stands in for a role that names none, and is held to the
// same.
func TestDefaultBaseRole(t *testing.T) {
	opened := engineAs(t, engineUser, provider.Settings{fieldDefaultRole: testBase})
	if base, err := (assumes{opened}).base(provider.Settings{}); err != nil || base != testBase {
		t.Errorf("the base is %q, %v", base, err)
	}
	if base, err := (assumes{opened}).base(provider.Settings{fieldBaseRole: testBase + "-2"}); err != nil || base != testBase+"-2" {
		t.Errorf("the base is %q, %v", base, err)
	}
	_, err := open(provider.Settings{"region": "eu-west-1", "access_key": "AKIA", "secret_key": "secret", fieldDefaultRole: engineUser}, nil)
	var refused *invalid.Error
	if !errors.As(err, &refused) || refused.Field != fieldDefaultRole {
		t.Errorf("got %v for a default that is no role", err)
	}
}

// That the engine chains roles is said where a target and a role are written.
func TestChainingIsSaid(t *testing.T) {
	granted, err := scope.New("s3:PutObject", "arn:aws:s3:::releases/app/*")
	if err != nil {
		t.Fatal(err)
	}
	bounds := provider.Bounds{ExpiresAt: end, Options: provider.Settings{handleType: assumedRole, fieldBaseRole: testBase}}
	for arn, want := range map[string]bool{engineUser: false, engineSession: true} {
		opened := engineAs(t, arn, nil)
		if got := strings.Contains(strings.Join(opened.Advise(granted, bounds).Definition, "\n"), "live an hour at most"); got != want {
			t.Errorf("%s: the role's author is told: %v, want %v", arn, got, want)
		}
		if got := len(callerWarnings(opened.caller.ARN)) > 0; got != want {
			t.Errorf("%s: the operator is told: %v, want %v", arn, got, want)
		}
	}
}

func TestSourceIdentity(t *testing.T) {
	entity := func() (string, error) { return "alice@example.com", nil }
	for _, test := range []struct {
		wanted, task string
		name         func() (string, error)
		value        string
		refused      bool
	}{
		{"", "JIRA-1", entity, "", false},
		{byTask, "JIRA-1", entity, "JIRA-1", false},
		{byTask, "", entity, "", true},
		{byTask, "a:b", entity, "", true},
		{byEntityName, "", entity, "alice@example.com", false},
		{byEntityName, "", func() (string, error) { return "Alice A", nil }, "", true},
	} {
		options := provider.Settings{fieldSourceIdentity: test.wanted}
		value, err := sourceIdentity(provider.Grant{Task: test.task, EntityName: test.name, Options: options})
		if value != test.value || (err != nil) != test.refused {
			t.Errorf("%+v: %q, %v", test, value, err)
		}
	}
}

// Without a ledger nothing could be ended, so nothing is minted.
func TestSessionsNeedALedger(t *testing.T) {
	opened := engineAs(t, engineUser, nil)
	grant := provider.Grant{ID: "002da961utfd4w3opud7s2r7", Role: "upload", ExpiresAt: end, Options: provider.Settings{handleType: assumedRole, fieldBaseRole: testBase}}
	if _, err := opened.Prepare(context.Background(), grant); !errors.Is(err, errNoLedger) {
		t.Errorf("got %v, want %v", err, errNoLedger)
	}
	if err := opened.Revoke(t.Context(), provider.Handle{handleType: assumedRole, handleBase: testBase, handleSession: "somebody's", handleEnd: "2026-11-24T12:30:00Z"}); err == nil {
		t.Error("a session that is not the engine's was revoked")
	}
}
