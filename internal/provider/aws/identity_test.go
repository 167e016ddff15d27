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
		{provider.Settings{fieldAssumeRole: someRole}, ""},
		{provider.Settings{fieldAssumeRole: someRole, fieldAssumeExternalID: "x1"}, ""},
		{provider.Settings{fieldAssumeRole: someRole, fieldAssumeExternalID: "x"}, fieldAssumeExternalID},
		{provider.Settings{fieldAssumeRole: someRole, fieldAssumeExternalID: strings.Repeat("x", 1225)}, fieldAssumeExternalID},
		{provider.Settings{fieldAssumeRole: "arn:aws:iam::123456789012:user/x"}, fieldAssumeRole},
		{provider.Settings{fieldAssumeRole: someRole + "\n"}, fieldAssumeRole},
		{provider.Settings{fieldAssumeExternalID: "x1"}, fieldAssumeRole},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token"}, ""},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://sts.eu-west-1.amazonaws.com"}, ""},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "http://[::1]:4566"}, ""},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://evilamazonaws.com"}, "sts_endpoint"},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://sts.amazonaws.com"}, ""},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://sts-fips.us-east-1.amazonaws.com"}, ""},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://sts.cn-north-1.amazonaws.com.cn"}, ""},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://sts.us-gov-west-1.amazonaws.com"}, ""},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://sts.eu-west-1.api.aws"}, ""},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://vpce-0123456789abcdef0-abcdefgh.sts.us-east-1.vpce.amazonaws.com"}, ""},
		// Anybody's own code answers there.
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://abcdefghij.execute-api.us-east-1.amazonaws.com"}, "sts_endpoint"},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://sts.s3.eu-west-1.amazonaws.com"}, "sts_endpoint"},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "sts_endpoint": "https://vpce-0123.vpce-svc-0123.us-east-1.vpce.amazonaws.com"}, "sts_endpoint"},
		{provider.Settings{fieldTokenFile: "/token"}, fieldAssumeRole},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "token"}, fieldTokenFile},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", fieldAssumeExternalID: "x1"}, fieldAssumeExternalID},
		{provider.Settings{fieldAssumeRole: someRole, fieldTokenFile: "/token", "access_key": "a", "secret_key": "s"}, "access_key"},
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
