package tests

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// renew asks Vault for so many seconds more.
func (m *mount) renew(minted credential, seconds int) (*api.Secret, error) {
	return m.Sys().RenewWithContext(m.t.Context(), minted.LeaseID, seconds)
}

// endSent is the end in the policy that a grant's user was given last.
func endSent(t *testing.T, grant string) time.Time {
	t.Helper()
	calls := servers.Cloud.Calls(grant)
	document := policyIn(calls[len(calls)-1:])
	_, rest, found := strings.Cut(document, `"DateLessThan":{"aws:CurrentTime":"`)
	text, _, _ := strings.Cut(rest, `"`)
	end, err := time.Parse(time.RFC3339, text)
	if !found || err != nil {
		t.Fatalf("no end in %q: %v", document, err)
	}
	return end
}

func TestCloudUserIsRenewed(t *testing.T) {
	m := newMount(t)
	role := map[string]any{"target": "prod", "action": putObject, "resource": uploads, "ttl": "5m", "max_ttl": "1h", "renewable": true}
	m.write("roles/long", role)
	minted := m.mint("long/JIRA-1")
	if !minted.Renewable {
		t.Error("the lease is not renewable")
	}
	if plain := m.mint(onCloud + "/JIRA-1"); plain.Renewable {
		t.Error("a lease is renewable whose role did not say so")
	} else if _, err := m.renew(plain, 600); err == nil {
		t.Error("it was renewed")
	}

	for seconds, most := range map[int]int{600: 600, 7200: 3600} { // no more than max_ttl
		renewed, err := m.renew(minted, seconds)
		if err != nil {
			t.Fatal(err)
		}
		end := endSent(t, minted.grant())
		lease := time.Now().Add(time.Duration(renewed.LeaseDuration) * time.Second)
		if renewed.LeaseDuration > most || renewed.LeaseDuration < most-30 || lease.After(end.Add(time.Second)) {
			t.Errorf("%d s asked for: the lease has %d s and ends at %s, the user at %s", seconds, renewed.LeaseDuration, lease, end)
		}
		if latest := minted.expiresAt.Add(-5 * time.Minute).Add(time.Hour + time.Second); end.After(latest) {
			t.Errorf("the user ends at %s, after its max_ttl at %s", end, latest)
		}
	}
	allowed(t, "the renewed user", minted.inCloud(t.Context()))

	for part, changes := range map[string]map[string]any{
		"its role has changed":                 {"resource": "arn:aws:s3:::releases/other/*"},
		"would grant something else":           {"conditions": map[string]any{"StringEquals": map[string]any{"s3:x-amz-acl": "private"}}},
		"another kind of credential":           {"permissions_boundary_arn": "arn:aws:iam::123456789012:policy/boundary"},
		"names another target":                 {"target": "other"},
		"does not say renewable=true any more": {"renewable": false},
	} {
		if changes["target"] != nil {
			m.write("config/other", m.cloudConfig())
		}
		m.write("roles/long", changes)
		before := len(servers.Cloud.Calls(minted.grant()))
		_, err := m.renew(minted, 600)
		if err == nil {
			t.Errorf("renewed although %v", changes)
		} else {
			says(t, err.Error(), part)
		}
		if after := len(servers.Cloud.Calls(minted.grant())); after != before {
			t.Errorf("%v: a renewal that was refused called AWS", changes)
		}
		if _, err := m.Logical().DeleteWithContext(t.Context(), m.path+"/roles/long"); err != nil {
			t.Fatal(err)
		}
		m.write("roles/long", role)
	}
	if _, err := m.renew(minted, 600); err != nil {
		t.Errorf("the role is as it was: %v", err)
	}
	m.write("roles/bound", with(role, map[string]any{"bound_source_ip": true, "resource": "arn:aws:s3:::releases/{{task}}/{{file}}", "parameters": map[string]any{"file": "[a-z]+"}}))
	bound := m.mint("bound/JIRA-1", "file=one")
	if _, err := m.renew(bound, 600); err != nil {
		t.Errorf("a user that is bound to an address and a parameter: %v", err)
	}
	says(t, policyIn(servers.Cloud.Calls(bound.grant())[3:]), "arn:aws:s3:::releases/JIRA-1/one", "127.0.0.1")

	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID)); err != nil {
		t.Fatal(err)
	}
	denied(t, "the revoked user", minted.inCloud(t.Context()))
	if _, err := m.renew(minted, 600); err == nil {
		t.Error("a revoked lease was renewed")
	}
	says(t, refusal(t, m.tryWrite("roles/long", map[string]any{"target": "store", "action": putObject, "resource": uploads, "renewable": true})), "invalid renewable: a target of type minio can't move a credential's end")
}
