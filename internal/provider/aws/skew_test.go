package aws

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// cloudWithAClock is an account whose AWS has its clock off by what off says.
func cloudWithAClock(t *testing.T) (opened *account, off *atomic.Int64) {
	t.Helper()
	off = &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if err := request.ParseForm(); err != nil {
			t.Error(err)
		}
		writer.Header().Set("Date", time.Now().Add(time.Duration(off.Load())).UTC().Format(http.TimeFormat))
		_, _ = io.WriteString(writer, map[string]string{
			"GetCallerIdentity": `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/engine</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>`,
			"CreateUser":        `<CreateUserResponse><CreateUserResult><User><UserName>u</UserName><UserId>AIDAU</UserId><Path>/</Path></User></CreateUserResult></CreateUserResponse>`,
			"CreateAccessKey":   `<CreateAccessKeyResponse><CreateAccessKeyResult><AccessKey><UserName>u</UserName><AccessKeyId>AKIAU</AccessKeyId><SecretAccessKey>s</SecretAccessKey><Status>Active</Status></AccessKey></CreateAccessKeyResult></CreateAccessKeyResponse>`,
		}[request.Form.Get("Action")])
	}))
	t.Cleanup(server.Close)
	kind := Type()
	made, err := kind.Open(provider.Settings{"region": "eu-west-1", "access_key": "AKIA", "secret_key": "x", "iam_endpoint": server.URL, "sts_endpoint": server.URL, "max_retries": 0}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made.(*account), off
}

// How far the clocks are apart is measured by each answer: above five seconds people are warned, above a minute nothing is
// minted, and once somebody has set the clock it goes on.
func TestClocksThatAreApart(t *testing.T) {
	opened, off := cloudWithAClock(t)
	if _, known := opened.ClockSkew(); known {
		t.Error("the skew is known before AWS has answered")
	}
	for _, test := range []struct {
		off    time.Duration // of AWS's clock
		warns  string
		minted bool
	}{
		{0, "", true},
		{-20 * time.Second, "20s ahead of AWS's", true},
		{20 * time.Second, "20s behind AWS's", true},
		{-2 * time.Minute, "2m0s ahead of AWS's", false},
		{2 * time.Minute, "2m0s behind AWS's", false},
		{0, "", true},
	} {
		off.Store(int64(test.off))
		minted, err := opened.Mint(t.Context(), someUser, "{}", time.Now().Add(time.Hour))
		if (err == nil) != test.minted || err != nil && !errors.Is(err, provider.ErrUnavailable) {
			t.Errorf("AWS's clock off by %s: minting says %v", test.off, err)
		}
		told := strings.Join(minted.Warnings, "")
		if err != nil {
			told = err.Error()
		}
		if (test.warns == "") != (told == "") || !strings.Contains(told, test.warns) {
			t.Errorf("AWS's clock off by %s: told %q, want %q", test.off, told, test.warns)
		}
		if ahead, known := opened.ClockSkew(); !known || (ahead+test.off).Abs() > 3*time.Second {
			t.Errorf("AWS's clock off by %s: measured %s, known %t", test.off, ahead, known)
		}
	}
	off.Store(int64(-7 * time.Second))
	verified, err := opened.Verify(t.Context())
	if err != nil || len(verified.Warnings) != 1 || !strings.Contains(verified.Warnings[0], "ahead of AWS's") {
		t.Errorf("verifying says %q: %v", verified.Warnings, err)
	}
}

// What a target has told is known to the provider that is opened after its configuration was written again; a slow answer
// tells nothing.
func TestSkewOutlivesItsProvider(t *testing.T) {
	known := &skews{}
	settings := provider.Settings{"iam_endpoint": "https://iam.amazonaws.com"}
	began := time.Now()
	known.of(settings).hear(began.Add(-30*time.Second), began, began.Add(time.Second))
	known.of(settings).hear(began.Add(-90*time.Second), began, began.Add(time.Minute))
	if ahead, is := known.of(settings).measured(); !is || ahead != 30*time.Second {
		t.Errorf("measured %s, known %t", ahead, is)
	}
	if _, is := known.of(nil).measured(); is {
		t.Error("another target's clock is known by this one's")
	}
	var session skew
	expires := began.Add(15 * time.Minute)
	session.hearSession(&expires, 15*time.Minute, began)
	if ahead, is := session.measured(); !is || ahead.Abs() > 3*time.Second {
		t.Errorf("by a session's expiry: measured %s, known %t", ahead, is)
	}
}
