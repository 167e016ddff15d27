package minio

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// The policies that sessions get, byte for byte.
func TestPolicies(t *testing.T) {
	store, err := open(provider.Settings{"endpoint": "http://127.0.0.1:9000", "access_key": "engine", "secret_key": "secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, granted := range map[string][2]string{
		"prefix": {"s3:PutObject", "arn:aws:s3:::releases/app/*"},
		"bucket": {"s3:ListBucket", "arn:aws:s3:::releases"},
		"object": {"s3:GetObject", "arn:aws:s3:::releases/app/x"},

		"sync-up":          {"s3:sync-up", "arn:aws:s3:::releases/*"},
		"sync-down":        {"s3:sync-down", "arn:aws:s3:::releases/*"},
		"multipart-upload": {"s3:multipart-upload", "arn:aws:s3:::releases/app/x"},
	} {
		scope, err := scope.New(granted[0], granted[1])
		if err != nil {
			t.Fatal(err)
		}
		got, err := store.Compile(scope, provider.Bounds{ExpiresAt: time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)})
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if string(got)+"\n" != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

// What MinIO can't be trusted with is refused, and so is not left out.
func TestBoundsThatMinIOCantKeep(t *testing.T) {
	store, err := open(provider.Settings{"endpoint": "http://127.0.0.1:9000", "access_key": "engine", "secret_key": "secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*scope.Texts, *provider.Bounds){
		"conditions": func(texts *scope.Texts, _ *provider.Bounds) {
			texts.Conditions = map[string]any{"Bool": map[string]any{"aws:SecureTransport": true}}
		},
		"companion_resources": func(texts *scope.Texts, _ *provider.Bounds) { texts.Companions = []string{"arn:aws:s3:::releases"} },
		"bound_source_ip":     func(_ *scope.Texts, bounds *provider.Bounds) { bounds.SourceIP = netip.MustParseAddr("203.0.113.7") },
	} {
		texts, bounds := scope.Texts{Action: "s3:PutObject", Resource: "arn:aws:s3:::releases/app/*"}, provider.Bounds{ExpiresAt: time.Unix(0, 0)}
		change(&texts, &bounds)
		definition, err := scope.Define(texts)
		if err != nil {
			t.Fatal(err)
		}
		granted, err := definition.Fill(scope.Values{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Compile(granted, bounds)
		var refusal *invalid.Error
		if !errors.As(err, &refusal) || refusal.Field != field {
			t.Errorf("%s: got %v, want a refusal", field, err)
		}
	}
}

func TestCheck(t *testing.T) {
	store, err := open(provider.Settings{"endpoint": "http://127.0.0.1:9000", "access_key": "engine", "secret_key": "secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	granted, err := scope.New("s3:PutObject", "arn:aws:s3:::releases/app/*")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := store.Compile(granted, provider.Bounds{ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		question provider.Question
		allowed  bool
	}{
		"granted":          {provider.Question{Action: "s3:PutObject", Resource: "arn:aws:s3:::releases/app/1", Time: now}, true},
		"another action":   {provider.Question{Action: "s3:GetObject", Resource: "arn:aws:s3:::releases/app/1", Time: now}, false},
		"another resource": {provider.Question{Action: "s3:PutObject", Resource: "arn:aws:s3:::releases/other/1", Time: now}, false},
		"after the end":    {provider.Question{Action: "s3:PutObject", Resource: "arn:aws:s3:::releases/app/1", Time: now.Add(time.Minute)}, false},
	} {
		verdict, err := store.(provider.Checker).Check(policy, test.question)
		if err != nil || verdict.Allowed != test.allowed {
			t.Errorf("%s: %+v, %v", name, verdict, err)
		}
	}
}

// What MinIO does not tell apart is allowed, and what is no action is no question.
func TestCheckKnowsWhatMinIODoesNotTellApart(t *testing.T) {
	store, err := open(provider.Settings{"endpoint": "http://127.0.0.1:9000", "access_key": "engine", "secret_key": "secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ask := func(granted, asked, resource string) (provider.Verdict, error) {
		one, err := scope.New(granted, resource)
		if err != nil {
			t.Fatal(err)
		}
		policy, err := store.Compile(one, provider.Bounds{ExpiresAt: now.Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		return store.(provider.Checker).Check(policy, provider.Question{Action: asked, Resource: resource, Time: now})
	}
	for asked, granted := range comesWith {
		resource := "arn:aws:s3:::releases"
		if strings.Contains(granted, "Object") {
			resource += "/app/1"
		}
		if verdict, err := ask(granted, asked, resource); err != nil || !verdict.Allowed {
			t.Errorf("%s of one who has %s: %+v, %v", asked, granted, verdict, err)
		}
	}
	for _, asked := range []string{"s3:HeadObject", "s3:ListObjectsV2", "s3:Nothing", "s3:getobject*"} {
		var refusal *invalid.Error
		if verdict, err := ask("s3:GetObject", asked, "arn:aws:s3:::releases/app/1"); !errors.As(err, &refusal) || refusal.Field != "action" {
			t.Errorf("%s: %+v, %v", asked, verdict, err)
		}
	}
}

// What is too large for a session is known when the role is written.
func TestTooLargeIsToldApart(t *testing.T) {
	store, err := open(provider.Settings{"endpoint": "http://127.0.0.1:9000", "access_key": "engine", "secret_key": "secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	granted, err := scope.New("s3:PutObject", "arn:aws:s3:::releases/"+strings.Repeat("x", 1000))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Compile(granted, provider.Bounds{}); !errors.Is(err, scope.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// MinIO can't hold a listing to a prefix, so a sync of a prefix is refused.
func TestNamedActionsThatMinIOCantNarrow(t *testing.T) {
	store, err := open(provider.Settings{"endpoint": "http://127.0.0.1:9000", "access_key": "engine",
		"secret_key": "secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ action, resource, says string }{
		{"s3:sync-up", "arn:aws:s3:::releases/app/*", "arn:aws:s3:::releases/*"},
		{"s3:sync-down", "arn:aws:s3:::releases/app/x", "arn:aws:s3:::releases/*"},
		{"s3:sync-down", "arn:aws:s3:::releases", ""},
		{"s3:multipart-upload", "arn:aws:s3:::releases", ""},
		{"s3:multipart-upload", "arn:aws:s3:::releases/app*", ""},
		{"ecr:push", "arn:aws:ecr:eu-west-1:123456789012:repository/app", ""},
	} {
		granted, err := scope.New(test.action, test.resource)
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Compile(granted, provider.Bounds{ExpiresAt: time.Unix(0, 0)})
		var refusal *invalid.Error
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s on %s: %v", test.action, test.resource, err)
		}
	}
}

// Check of a named action judges all its members.
func TestCheckOfNamedActions(t *testing.T) {
	opened, err := open(provider.Settings{"endpoint": "http://127.0.0.1:9000", "access_key": "engine",
		"secret_key": "secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)
	const all = "arn:aws:s3:::releases/*"
	for _, name := range append(NamedActions(), "s3:GetObject") {
		granted, err := scope.New(name, all)
		if err != nil {
			t.Fatal(err)
		}
		policy, err := opened.Compile(granted, provider.Bounds{ExpiresAt: end})
		if err != nil {
			t.Fatal(err)
		}
		for _, asked := range NamedActions() {
			for _, at := range []time.Time{end.Add(-time.Minute), end} {
				verdict, err := opened.(provider.Checker).Check(policy, provider.Question{Action: asked, Resource: all, Time: at})
				if err != nil || verdict.Allowed != (asked == name && at.Before(end)) {
					t.Errorf("%s at %s by a role with %s: %+v, %v", asked, at, name, verdict, err)
				}
			}
		}
	}
}
