package tests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	model "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	names "github.com/prometheus/common/model"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// scrape reads a mount's metrics as Prometheus does, with the token in a header,
// and returns the value of a counter or gauge, and whether it is there.
func scrape(t *testing.T, client *api.Client, mount, header, before string) func(name string, labels ...string) (float64, bool) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, client.Address()+"/v1/"+mount+"/metrics?format=prometheus", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set(header, before+client.Token())
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if kind := answer.Header.Get("Content-Type"); answer.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Fatalf("status %d, %s: %s", answer.StatusCode, kind, text)
	}
	parser := expfmt.NewTextParser(names.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		t.Fatalf("Prometheus can't read it: %v\n%s", err, text)
	}
	return func(name string, labels ...string) (float64, bool) {
		t.Helper()
		for _, metric := range families[name].GetMetric() {
			var got []string
			for _, label := range metric.GetLabel() {
				got = append(got, label.GetName()+"="+label.GetValue())
			}
			if !slices.Equal(got, labels) {
				continue
			}
			if families[name].GetType() == model.MetricType_COUNTER {
				return metric.GetCounter().GetValue(), true
			}
			return metric.GetGauge().GetValue(), true
		}
		return 0, false
	}
}

func TestMetrics(t *testing.T) {
	m := newMount(t)
	revoked := m.mint(onStore + "/JIRA-1")
	m.mint(onStore + "/JIRA-2")
	m.mint(onCloud + "/JIRA-2")
	if _, err := m.tryMint(m.Client, onStore+"/JIRA-3", "ttl=24h"); err == nil {
		t.Error("more than max_ttl was granted")
	}
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(revoked.LeaseID)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the ledger is in memory", 10*time.Second, func() bool {
		in, _ := scrape(t, m.Client, m.path, "X-Vault-Token", "")("precision_ledger_in_memory")
		return in == 1
	})
	value := scrape(t, m.Client, m.path, "Authorization", "Bearer ")
	counted := func(target, kind, operation, outcome string) []string {
		return []string{"target=" + target, "type=" + kind, "operation=" + operation, "outcome=" + outcome}
	}
	for _, test := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{2, "precision_operations_total", counted("store", "minio", "mint", "ok")},
		{1, "precision_operations_total", counted("store", "minio", "mint", "refused")},
		{0, "precision_operations_total", counted("store", "minio", "mint", "failed")},
		{1, "precision_operations_total", counted("store", "minio", "revoke", "ok")},
		{1, "precision_operations_total", counted("prod", "aws", "mint", "ok")},
		{1, "precision_live_grants", []string{"target=store", "type=minio"}},
		{1, "precision_live_grants", []string{"target=prod", "type=aws"}},
		{0, "precision_unended_grants", []string{"target=store", "type=minio"}},
		{0, "precision_untidy_grants", []string{"target=store", "type=minio"}},
		{1, "precision_target_up", []string{"target=store", "type=minio"}},
	} {
		if got, there := value(test.name, test.labels...); got != test.want || !there {
			t.Errorf("%s%v is %v (%v), want %v", test.name, test.labels, got, there, test.want)
		}
	}

	var shown struct {
		Targets map[string]struct {
			Type       string
			Operations map[string]map[string]int
			Present    struct {
				Answers bool
				Live    int `json:"live_grants"`
			}
		}
	}
	text, err := json.Marshal(m.read("metrics").Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &shown); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(shown.Targets["store"]); got != "{minio map[mint:map[ok:2 refused:1] revoke:map[ok:1]] {true 1}}" {
		t.Errorf("as JSON: %s", got)
	}

	_, err = m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/metrics", map[string][]string{"format": {"xml"}})
	if got := refusal(t, err); !strings.Contains(got, "xml") || !strings.Contains(got, "json or prometheus") {
		t.Errorf("an unknown format: %s", got)
	}
	if _, err := m.caller().Logical().ReadWithContext(t.Context(), m.path+"/metrics"); err == nil {
		t.Error("a token that may only read creds has read the metrics")
	}
}

// silent is a server that takes connections and never answers, until it is
// closed.
func silent(t *testing.T) (endpoint string, taken *atomic.Int32, end func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken = &atomic.Int32{}
	ended := make(chan struct{})
	go func() {
		var open []net.Conn
		for {
			connection, err := listener.Accept()
			if err != nil {
				break
			}
			open = append(open, connection)
			taken.Add(1)
		}
		for _, connection := range open {
			_ = connection.Close()
		}
		close(ended)
	}()
	end = sync.OnceFunc(func() {
		_ = listener.Close()
		<-ended
	})
	t.Cleanup(end)
	return "http://" + listener.Addr().String(), taken, end
}

// A target that hangs, with 64 callers on it, holds up nobody on another; once it
// is known to be dead its callers are told at once, with status 503.
func TestATargetThatHangsHoldsUpNobodyElse(t *testing.T) {
	m := newMount(t)
	endpoint, taken, end := silent(t)
	m.write("config/hung", with(m.storeConfig(), map[string]any{"endpoint": endpoint, "verify_connection": false}))
	m.write("roles/hangs", map[string]any{"target": "hung", "action": putObject, "resource": uploads})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var answered atomic.Int32
	const callers = 64
	for range callers {
		all.Go(func() {
			_, err := m.Logical().ReadWithContext(ctx, m.path+"/creds/hangs/JIRA-1")
			if err == nil {
				t.Error("a target that never answers has minted")
			}
			answered.Add(1)
		})
	}
	defer all.Wait()
	defer cancel()
	eventually(t, "the callers are on the dead target", 20*time.Second, func() bool { return taken.Load() >= 32 })
	minted := 0
	for ; minted < 25; minted++ {
		session := m.mint(onStore + "/JIRA-1")
		if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(session.LeaseID)); err != nil {
			t.Fatal(err)
		}
		if minted == 0 && answered.Load() > 0 {
			t.Errorf("%d callers of the dead target had an answer before the first of the other", answered.Load())
		}
	}
	end() // what is under way fails now, and what comes
	var last error
	eventually(t, "the target is known to be dead", 60*time.Second, func() bool {
		_, last = m.Logical().ReadWithContext(t.Context(), m.path+"/creds/hangs/JIRA-1")
		var answer *api.ResponseError
		return errors.As(last, &answer) && answer.StatusCode == http.StatusServiceUnavailable && strings.Contains(last.Error(), "has not answered since")
	})
	if up, there := scrape(t, m.Client, m.path, "X-Vault-Token", "")("precision_target_up", "target=hung", "type=minio"); up != 0 || !there {
		t.Errorf("the dead target is up: %v (%v); %v", up, there, last)
	}
	m.mint(onStore + "/JIRA-1")
}

// outage is how long the target of a mass revocation is away.
const outage = 2 * time.Minute

// A target that is away when hundreds of leases are revoked at once: after it has
// come back all of them end, with nobody's help.
func TestATargetIsAwayDuringAMassRevocation(t *testing.T) {
	t.Parallel()
	own, err := lab.Start(t.Context(), lab.Options{Plugin: servers.Plugin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Close)
	client := own.Vault.Client
	if err := client.Sys().MountWithContext(t.Context(), "precision", &api.MountInput{Type: lab.PluginName}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		path string
		data map[string]any
	}{
		{"config/store", map[string]any{"type": "minio", "endpoint": own.Store.Endpoint, "access_key": own.Store.Engine.Access, "secret_key": own.Store.Engine.Secret}},
		{"roles/upload", map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "30m"}},
	} {
		if _, err := client.Logical().WriteWithContext(t.Context(), "precision/"+step.path, step.data); err != nil {
			t.Fatal(err)
		}
	}
	const leases, callers = 300, 15
	minted := make([]credential, leases)
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for i := caller; i < leases; i += callers {
				secret, err := client.Logical().ReadWithContext(t.Context(), "precision/creds/upload/INC-1")
				if err != nil {
					t.Error(err)
					return
				}
				if minted[i], err = readCredential(secret); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if all.Wait(); t.Failed() {
		return
	}
	upload := func(one credential) error {
		return lab.Put(t.Context(), own.Store.S3(one.key), "releases", "app/1.tgz")
	}
	allowed(t, "a session before the outage", upload(minted[0]))

	own.Store.Stop()
	if err := client.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: "precision/creds", Prefix: true}); err != nil {
		t.Fatal(err)
	}
	gauge := func(name string) float64 {
		got, _ := scrape(t, client, "precision", "X-Vault-Token", "")(name, "target=store", "type=minio")
		return got
	}
	eventually(t, "the outage is noticed", time.Minute, func() bool {
		return gauge("precision_target_up") == 0 && gauge("precision_unended_grants") == leases
	})
	time.Sleep(outage)
	if live := gauge("precision_live_grants"); live != leases {
		t.Errorf("%v grants live by the ledger while their target is away, want %d", live, leases)
	}
	if err := own.Store.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}

	eventually(t, "all grants have ended", 3*time.Minute, func() bool {
		return gauge("precision_live_grants") == 0 && gauge("precision_unended_grants") == 0
	})
	for _, one := range minted {
		denied(t, "a session after the outage", upload(one))
	}
	// Vault drops each lease with its next try, which may be minutes away, so long
	// as it has not given it up.
	given, err := client.Logical().ReadWithDataWithContext(t.Context(), "sys/leases/count", map[string][]string{"type": {"irrevocable"}})
	if err != nil {
		t.Fatal(err)
	}
	if count := fmt.Sprint(given.Data["lease_count"]); count != "0" {
		t.Errorf("Vault has given %s leases up", count)
	}
	if up := gauge("precision_target_up"); up != 1 {
		t.Error("the target is not known to be back")
	}
}
