package aws

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/smithy-go"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

const someRole = "arn:aws:iam::123456789012:role/path/engine"

func TestTheEnginesOwnIdentity(t *testing.T) {
	for _, test := range []struct {
		settings provider.Settings
		wrong    string // the field, empty for none
	}{
		{provider.Settings{}, ""},
		{provider.Settings{"access_key": "a", "secret_key": "s"}, ""},
		{provider.Settings{"access_key": "a"}, "secret_key"},
		{provider.Settings{"secret_key": "s"}, "access_key"},
		{provider.Settings{fieldRole: someRole}, ""},
		{provider.Settings{fieldRole: someRole, fieldExternalID: "x1"}, ""},
		{provider.Settings{fieldRole: someRole, fieldExternalID: "x"}, fieldExternalID},
		{provider.Settings{fieldRole: someRole, fieldExternalID: strings.Repeat("x", 1225)}, fieldExternalID},
		{provider.Settings{fieldRole: "arn:aws:iam::123456789012:user/x"}, fieldRole},
		{provider.Settings{fieldRole: someRole + "\n"}, fieldRole},
		{provider.Settings{fieldExternalID: "x1"}, fieldRole},
		{provider.Settings{fieldRole: someRole, fieldTokenFile: "/token"}, ""},
		{provider.Settings{fieldRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://sts.eu-west-1.amazonaws.com"}, ""},
		{provider.Settings{fieldRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "http://[::1]:4566"}, ""},
		{provider.Settings{fieldRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://evilamazonaws.com"}, "sts_endpoint"},
		{provider.Settings{fieldTokenFile: "/token"}, fieldRole},
		{provider.Settings{fieldRole: someRole, fieldTokenFile: "token"}, fieldTokenFile},
		{provider.Settings{fieldRole: someRole, fieldTokenFile: "/token", fieldExternalID: "x1"}, fieldExternalID},
		{provider.Settings{fieldRole: someRole, fieldTokenFile: "/token", "access_key": "a", "secret_key": "s"}, "access_key"},
	} {
		_, err := newIdentity(test.settings)
		var mendable *invalid.Error
		if test.wrong == "" && err != nil || test.wrong != "" && (!errors.As(err, &mendable) || mendable.Field != test.wrong) {
			t.Errorf("%v: got %v, want a mistake in %q", test.settings, err, test.wrong)
		}
	}
}

// No file but a token is ever read to be sent off.
func TestAWebIdentityToken(t *testing.T) {
	for text, want := range map[string]string{
		"a.b.c": "a.b.c", "a.b.c\n": "a.b.c",
		"": "", "a.b": "", "a.b.c.d": "", "root:x:0:0": "", "a.b.c\nd.e.f": "", "a..c": "",
		strings.Repeat("a", maxToken) + ".b.c": "",
	} {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := tokenFile(file).GetIdentityToken()
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%.40q is read as %q, %v", text, got, err)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{pipe, t.TempDir()} {
		if _, err := tokenFile(file).GetIdentityToken(); err == nil {
			t.Errorf("%s was read", file)
		}
	}
}

func TestAttempts(t *testing.T) {
	for _, test := range []struct {
		settings   provider.Settings
		configured int
		want       int // 0: refused
	}{
		{provider.Settings{}, 0, 3},
		{provider.Settings{}, 5, 5},
		{provider.Settings{"max_retries": 0}, 5, 1},
		{provider.Settings{"max_retries": 20}, 0, 21},
		{provider.Settings{"max_retries": 21}, 0, 0},
		{provider.Settings{"max_retries": -1}, 0, 0},
	} {
		got, err := attemptsOf(test.settings, test.configured)
		if got != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%v: got %d, %v, want %d", test.settings, got, err, test.want)
		}
	}
	if attempts := quick(21).MaxAttempts(); attempts != quickAttempts {
		t.Errorf("a mint is tried %d times", attempts)
	}
}

func TestOnlyThrottlingIsUnavailable(t *testing.T) {
	for code, want := range map[string]bool{"Throttling": true, "ThrottlingException": true, "RequestLimitExceeded": true, "LimitExceeded": false, "AccessDenied": false} {
		if got := errors.Is(busy(&smithy.GenericAPIError{Code: code}), provider.ErrUnavailable); got != want {
			t.Errorf("%s: unavailable is %v, want %v", code, got, want)
		}
	}
	if busy(nil) != nil {
		t.Error("no error became one")
	}
}
