package tests

import (
	"fmt"
	"testing"

	"github.com/hashicorp/vault/api"
)

// people are the users of an auth method of the mount's own, each of whom is an
// entity and may do everything on the mount but change roles.
type people struct {
	m        *mount
	method   string // its path, as the mount's with a suffix
	accessor string
}

// person is one of them, logged in.
type person struct {
	*api.Client
	entity string
}

func (m *mount) people(suffix string) *people {
	m.t.Helper()
	p := &people{m: m, method: m.path + suffix}
	if err := m.Sys().EnableAuthWithOptionsWithContext(m.t.Context(), p.method, &api.EnableAuthOptions{Type: "userpass"}); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = servers.Vault.Client.Sys().DisableAuth(p.method) })
	methods, err := m.Sys().ListAuthWithContext(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	p.accessor = methods[p.method+"/"].Accessor
	policy := fmt.Sprintf("path \"%[1]s/requests*\" { capabilities = [\"create\", \"read\", \"update\", \"list\"] }\npath \"%[1]s/creds/*\" { capabilities = [\"read\", \"update\"] }\npath \"%[1]s/preview/*\" { capabilities = [\"read\"] }", m.path)
	if err := m.Sys().PutPolicyWithContext(m.t.Context(), p.method, policy); err != nil {
		m.t.Fatal(err)
	}
	return p
}

// login makes a user, unless there is one of that name, and logs in.
func (p *people) login(name string) person {
	p.m.t.Helper()
	if _, err := p.m.Logical().WriteWithContext(p.m.t.Context(), "auth/"+p.method+"/users/"+name, map[string]any{"password": "hunter2", "token_policies": p.method}); err != nil {
		p.m.t.Fatal(err)
	}
	token, err := p.m.Logical().WriteWithContext(p.m.t.Context(), "auth/"+p.method+"/login/"+name, map[string]any{"password": "hunter2"})
	if err != nil {
		p.m.t.Fatal(err)
	}
	client, err := p.m.CloneWithHeaders()
	if err != nil {
		p.m.t.Fatal(err)
	}
	client.SetToken(token.Auth.ClientToken)
	return person{client, token.Auth.EntityID}
}

// gather makes an identity group of these people, or gives one other members, and
// returns its id.
func (m *mount) gather(name string, members ...person) string {
	m.t.Helper()
	entities := []string{}
	for _, member := range members {
		entities = append(entities, member.entity)
	}
	path := "identity/group/name/" + m.path + "-" + name
	if _, err := m.Logical().WriteWithContext(m.t.Context(), path, map[string]any{"member_entity_ids": entities}); err != nil {
		m.t.Fatal(err)
	}
	group, err := m.Logical().ReadWithContext(m.t.Context(), path)
	if err != nil {
		m.t.Fatal(err)
	}
	return group.Data["id"].(string)
}

// answered is the status and the text of an answer that is an error; 200 for none.
func answered(t *testing.T, err error) (status int, text string) {
	t.Helper()
	if err == nil {
		return 200, ""
	}
	answer, ok := err.(*api.ResponseError)
	if !ok {
		t.Fatalf("not an answer of Vault: %v", err)
	}
	return answer.StatusCode, fmt.Sprint(answer.Errors)
}
