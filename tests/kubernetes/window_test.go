package kubernetes

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// What is read in a release window ends with it at the API server, however much time was
// asked for, and after it nothing is read.
func TestReleaseWindow(t *testing.T) {
	const namespace, left = "window", 6 * time.Second
	ctx := t.Context()
	m := newMount(t, namespace)
	now := time.Now().UTC()
	opening := now.Truncate(time.Minute)
	closing := now.Add(left).Truncate(time.Second)
	m.role("release", "apply", namespace+"/*", fields{
		"ttl": "30m", "task_pattern": "CHG-[0-9]+",
		"window": fmt.Sprintf("%d %d * * *", opening.Minute(), opening.Hour()), "window_duration": closing.Sub(opening).String(), "window_timezone": "UTC",
	})
	minted := m.mint("release/CHG-4711")
	if minted.LeaseDuration > int(left/time.Second) || minted.text("expires_at") != closing.Format(time.RFC3339) {
		t.Errorf("a lease of %d s, until %s; the window closes at %s", minted.LeaseDuration, minted.text("expires_at"), closing)
	}
	if !warned(minted.Secret, "window closes at") {
		t.Errorf("nothing says that its time was cut: %v", minted.Warnings)
	}
	client := minted.client(t)
	use := func() error {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/api/v1/namespaces/" + namespace + "/configmaps/any").DoRaw(ctx)
		return err
	}
	if refused(use()) {
		t.Error("the credential is refused in its window")
	}
	if _, err := m.tryMint("release/latest"); err == nil || !strings.Contains(err.Error(), "task") {
		t.Errorf("what is no change: %v", err)
	}
	time.Sleep(time.Until(closing))
	eventually(t, "the credential is refused when the window has closed", 3*time.Second, func() bool { return refused(use()) })
	late := time.Since(closing)
	_, err := m.tryMint("release/CHG-4712")
	answer, ok := err.(*api.ResponseError)
	if !ok || answer.StatusCode != http.StatusForbidden || !strings.Contains(strings.Join(answer.Errors, " "), "the role's window is closed; it opens at ") {
		t.Errorf("a mint after the window: %v", err)
	}
	eventually(t, "account and binding are gone", 5*time.Second, func() bool { return m.bindings(namespace, minted.account) == 0 })
	figures.Log(t, "1 credential of a window, refused %s after it closed", late.Round(time.Millisecond))
}
