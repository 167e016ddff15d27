package tests

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// forbidden is the text of a 403 of the engine's own: Vault's says no more than that.
func forbidden(t *testing.T, err error) string {
	t.Helper()
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		t.Fatalf("not an answer of Vault: %v", err)
	}
	text := strings.Join(answer.Errors, "\n")
	if answer.StatusCode != http.StatusForbidden || !strings.Contains(text, "not allowed: ") {
		t.Errorf("status %d, want 403: %v", answer.StatusCode, answer.Errors)
	}
	return text
}

// openUntil is a window of a zone that is open now, and for so long.
func openUntil(t *testing.T, zone string, left time.Duration) (window map[string]any, closing time.Time) {
	t.Helper()
	location, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().In(location)
	closing = now.Add(left).Truncate(time.Second)
	opening := now.Truncate(time.Minute)
	return map[string]any{
		"window":          fmt.Sprintf("%d %d * * *", opening.Minute(), opening.Hour()),
		"window_duration": closing.Sub(opening).String(), "window_timezone": zone,
	}, closing
}

// What is read in a window ends with it, at the target, and after it nothing is.
func TestTasksWindow(t *testing.T) {
	m := newMount(t)
	for _, zone := range []string{"Asia/Tokyo", "America/St_Johns"} {
		window, closing := openUntil(t, zone, 6*time.Second)
		m.write("roles/release", with(window, map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "10m"}))
		minted := m.mint("release/JIRA-1")
		if !minted.expiresAt.Equal(closing) || minted.LeaseDuration > 6 {
			t.Errorf("%s: expires at %s, with a lease of %d s, want the window's end, %s", zone, minted.expiresAt, minted.LeaseDuration, closing)
		}
		if len(minted.Warnings) != 1 {
			t.Fatalf("%s: warnings %v, want one", zone, minted.Warnings)
		}
		says(t, minted.Warnings[0], "ttl of 10m0s was cut to ", "the role's window closes at "+closing.Format(time.RFC3339))
		allowed(t, "the session in the window", minted.inStore(t.Context()))
		says(t, minted.Data["policy"].(string), `"aws:CurrentTime":"`+closing.UTC().Format(time.RFC3339)+`"`)

		time.Sleep(time.Until(closing))
		denied(t, "the session when the window has closed", minted.inStore(t.Context()))
		_, err := m.tryMint(m.Client, "release/JIRA-1")
		says(t, forbidden(t, err), "the role's window is closed; it opens at "+closing.Add(-durationOf(t, window)).AddDate(0, 0, 1).Format(time.RFC3339))
		preview := m.read("preview/release/JIRA-1")
		if len(preview.Warnings) != 1 || !strings.Contains(preview.Warnings[0], "would be refused now") {
			t.Errorf("%s: the preview warns of %v", zone, preview.Warnings)
		}
		check, err := m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/check/release", map[string][]string{"action": {putObject}, "resource": {"arn:aws:s3:::releases/app/1"}})
		if err != nil || check.Data["allowed"] != true {
			t.Errorf("%s: what the role is for can't be asked outside of its window: %v, %v", zone, check, err)
		}
	}
	// Times of one day are said once and for all.
	from := time.Now().Add(3 * time.Second).Truncate(time.Second)
	m.write("roles/once", map[string]any{"target": "store", "action": putObject, "resource": uploads, "not_before": from.Format(time.RFC3339), "not_after": from.Add(3 * time.Second).UTC().Format(time.RFC3339)})
	_, err := m.tryMint(m.Client, "once")
	says(t, forbidden(t, err), "it opens at "+from.UTC().Format(time.RFC3339))
	time.Sleep(time.Until(from))
	minted := m.mint("once")
	if !minted.expiresAt.Equal(from.Add(3 * time.Second)) {
		t.Errorf("expires at %s, want %s", minted.expiresAt, from.Add(3*time.Second))
	}
	time.Sleep(time.Until(minted.expiresAt))
	denied(t, "the session at not_after", minted.inStore(t.Context()))
	_, err = m.tryMint(m.Client, "once")
	says(t, forbidden(t, err), "it does not open any more")
	if answer := m.write("roles/once", map[string]any{"ttl": "5m"}); answer == nil || !slices.Contains(answer.Warnings, "the role's window does not open any more: no credential can be read") {
		t.Errorf("no warning of a window that has passed: %v", answer)
	}
	figures.Log(t, "windows closed while a credential lived: 3; credentials that lived on: 0")
}

func durationOf(t *testing.T, window map[string]any) time.Duration {
	t.Helper()
	duration, err := time.ParseDuration(window["window_duration"].(string))
	if err != nil {
		t.Fatal(err)
	}
	return duration
}

// The plugin knows the zones on a machine that doesn't.
func TestTasksZonesAreInThePlugin(t *testing.T) {
	binary, err := os.ReadFile(servers.Plugin)
	if err != nil {
		t.Fatal(err)
	}
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "Antarctica/Troll"} {
		if !bytes.Contains(binary, []byte(zone)) {
			t.Errorf("%s is not in the plugin", zone)
		}
	}
}

// A lease is renewed up to the window's end, and neither to beyond nor after.
func TestTasksRenewal(t *testing.T) {
	m := newMount(t)
	window, closing := openUntil(t, "UTC", 12*time.Second)
	m.write("roles/long", with(window, map[string]any{"target": "prod", "action": putObject, "resource": uploads, "ttl": "3s", "max_ttl": "1h", "renewable": true}))
	minted := m.mint("long/JIRA-1")
	if !minted.expiresAt.Before(closing) {
		t.Fatalf("expires at %s, not before the window's end, %s", minted.expiresAt, closing)
	}
	renewed, err := m.renew(minted, 600)
	if err != nil {
		t.Fatal(err)
	}
	if end := endSent(t, minted.grant()); !end.Equal(closing) {
		t.Errorf("renewed until %s, want the window's end, %s", end, closing)
	}
	if left := time.Until(closing); time.Duration(renewed.LeaseDuration)*time.Second > left+time.Second {
		t.Errorf("renewed for %d s, and the window closes in %s", renewed.LeaseDuration, left)
	}
	if len(renewed.Warnings) == 0 || !strings.Contains(renewed.Warnings[0], "the role's window closes at") {
		t.Errorf("warnings %v", renewed.Warnings)
	}
	m.write("roles/long", map[string]any{"not_before": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
	if _, err := m.renew(minted, 600); err == nil || !strings.Contains(err.Error(), "window is closed") {
		t.Errorf("renewed outside of the window: %v", err)
	}
	goneSoon(t, minted.inCloud)
}
