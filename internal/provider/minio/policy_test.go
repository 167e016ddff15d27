package minio

import (
	"os"
	"path/filepath"
	"testing"
	"time"

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
