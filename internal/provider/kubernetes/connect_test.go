package kubernetes

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// An authority's certificate, made for this test: openssl req -x509 -newkey ec … -subj /CN=test.
const someAuthority = `-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUCFkUfO/iXKdsrPFaWtFQt4zUPbwwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjUxNzE0MzdaGA8yMTI2MTEwMTE3MTQz
N1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABE71
qcIaOVGrNZ6tgOw96yv94os2yVZ+K4oTmD4lJGqaEIF8tmUz5mWKH3JjtFpXa8fp
VUwxzO6Z/TaziNXKQLajUzBRMB0GA1UdDgQWBBThHWraVMGj1oVHVov0cGRGNW9F
hzAfBgNVHSMEGDAWgBThHWraVMGj1oVHVov0cGRGNW9FhzAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIGe1AacIGjdMVfO5yrkBI+jHPurZc3jH0/YD
GHwZRCMdAiEA0B5+3ni+MFrNuOwTs7I/XSovQ4/zcs1USEj/COwi7hY=
-----END CERTIFICATE-----
`

func TestConnect(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{"ca.crt": someAuthority, "token": "the pod's"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inside := pod{folder: folder, env: func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}[name]
	}}
	outside := pod{folder: t.TempDir(), env: func(string) string { return "" }}
	full := provider.Settings{fieldHost: "https://10.0.0.1:6443", fieldToken: "given", fieldNamespace: "grants"}
	changed := func(name string, value any) provider.Settings {
		settings := maps.Clone(full)
		settings[name] = value
		return settings
	}
	for name, test := range map[string]struct {
		settings                 provider.Settings
		local                    pod
		host, token, file, space string
		authority                bool
		wrong                    string // the field that is refused
	}{
		"nothing, in a pod":          {local: inside, host: "https://[fd00::1]:6443", file: filepath.Join(folder, "token"), space: "precision", authority: true},
		"all, in a pod":              {settings: full, local: inside, host: "https://10.0.0.1:6443", token: "given", space: "grants", authority: true},
		"all, outside":               {settings: full, local: outside, host: "https://10.0.0.1:6443", token: "given", space: "grants"},
		"nothing of the pod's":       {settings: changed(fieldDisableLocal, true), local: inside, host: "https://10.0.0.1:6443", token: "given", space: "grants"},
		"no token of the pod's":      {settings: provider.Settings{fieldHost: "https://10.0.0.1", fieldDisableLocal: true}, local: inside, wrong: fieldToken},
		"nothing, outside":           {local: outside, wrong: fieldHost},
		"no token, outside":          {settings: provider.Settings{fieldHost: "https://10.0.0.1"}, local: outside, wrong: fieldToken},
		"a host with a password":     {settings: changed(fieldHost, "https://me:secret@10.0.0.1"), local: outside, wrong: fieldHost},
		"a host that is none":        {settings: changed(fieldHost, "10.0.0.1:6443"), local: outside, wrong: fieldHost},
		"an authority that is none":  {settings: changed(fieldCA, "-----BEGIN CERTIFICATE-----"), local: outside, wrong: fieldCA},
		"a namespace that is none":   {settings: changed(fieldNamespace, "Precision"), local: outside, wrong: fieldNamespace},
		"a namespace with a path":    {settings: changed(fieldNamespace, "a/../kube-system"), local: outside, wrong: fieldNamespace},
		"an authority that is given": {settings: changed(fieldCA, someAuthority), local: outside, host: "https://10.0.0.1:6443", token: "given", space: "grants", authority: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := connect(test.settings, test.local)
			if test.wrong != "" {
				var refusal *invalid.Error
				if !errors.As(err, &refusal) || refusal.Field != test.wrong || strings.Contains(err.Error(), "secret") {
					t.Errorf("got %v, want a refusal of %s", err, test.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.config.Host != test.host || got.config.BearerToken != test.token || got.config.BearerTokenFile != test.file || got.namespace != test.space || (got.authority != "") != test.authority {
				t.Errorf("got %s %q %q %s %t", got.config.Host, got.config.BearerToken, got.config.BearerTokenFile, got.namespace, got.authority != "")
			}
		})
	}
}

// What a grant is called is at its objects, whatever it is, and is read back.
func TestMarksAreReadBack(t *testing.T) {
	end := time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)
	grant := provider.Grant{
		ID: "0123456789abcdefghijklmn", Mount: "11111111-2222-3333-4444-555555555555", Ledger: "ledger",
		Role: "release", Task: "CHG 1: what? " + strings.Repeat("x", 100), ExpiresAt: end, Policy: `{"namespace":"prod","rules":[{"verbs":["get"]}],"wait_ready":true}`,
	}
	handle, err := opened(t).Prepare(t.Context(), grant)
	if err != nil {
		t.Fatal(err)
	}
	made := metaOf(handle, handle[handleAccounts])
	if made.Labels[markTask] != "" || made.Labels[markRole] != "release" || made.Namespace != "precision" || made.Name != "precision-"+grant.ID {
		t.Errorf("made %+v", made)
	}
	for key, value := range made.Labels {
		if len(value) > 63 {
			t.Errorf("label %s has %d characters", key, len(value))
		}
	}
	found := marked(made, made.Namespace, made.Annotations[markFor])
	if found.Mount != grant.Mount || found.Ledger != grant.Ledger || found.Grant != grant.ID || found.Role != grant.Role || found.Task != grant.Task || !found.ExpiresAt.Equal(end) {
		t.Errorf("read back as %+v", found)
	}
	for _, key := range []string{handleName, handleAccounts, handleNamespace} {
		if found.Handle[key] != handle[key] {
			t.Errorf("%s is %q, want %q", key, found.Handle[key], handle[key])
		}
	}
}

// Grants share a Role exactly if they have the same rules in the same namespace.
func TestWhoSharesARole(t *testing.T) {
	c := opened(t)
	plan := func(action, resource string, options provider.Settings) string {
		policy, err := c.Compile(scoped(t, action, resource), provider.Bounds{Facts: offered(t), Options: options})
		if err != nil {
			t.Fatal(err)
		}
		return c.Plan(policy, "11111111-2222-3333-4444-555555555555", "ledger")[handleName]
	}
	one := plan("get", "prod/pods/web", nil)
	if !isSubdomain(one) {
		t.Errorf("%q is no name", one)
	}
	for _, options := range []provider.Settings{{fieldWaitReady: false}, {fieldAudiences: []string{"a"}}, {provider.TolerateAmbient: []string{"get /metrics"}}} {
		if other := plan("get", "prod/pods/web", options); other != one {
			t.Errorf("%v makes another Role", options)
		}
	}
	for _, other := range [][2]string{{"list", "prod/pods/web"}, {"get", "prod/pods/db"}, {"get", "prod/pods"}, {"get", "staging/pods/web"}, {"get", "prod/services/web"}} {
		if plan(other[0], other[1], nil) == one {
			t.Errorf("%v shares a Role", other)
		}
	}
}
