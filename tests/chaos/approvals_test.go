package chaos

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// An approval is good for no more sessions than it says while a leader steps down and
// another dies, under 64 readers through every node; and what is frozen then stays so.
func TestApprovalsAcrossFailover(t *testing.T) {
	const (
		callers = 64
		uses    = 100
		// unknown is how many uses a request may lose: one whose claim was written when the leader
		// was deposed stays claimed, since nobody knows whether it was used.
		unknown = 5
	)
	w := newWorld(t, lab.Options{Nodes: 3})
	leader, err := lab.Leader(t.Context(), w.Nodes...)
	if err != nil {
		t.Fatal(err)
	}
	w.mount(leader, mounted, "30m")
	w.write(leader, mounted+"/roles/approved", map[string]any{
		"target": "store", "action": putObject, "resource": "arn:aws:s3:::releases/approved/*", "ttl": "30m", "approvals": 1, "approval_uses": uses,
	})
	tokens := w.people(leader, "alice", "bob")
	as := func(node *lab.Vault, name string) *api.Client {
		client := clientOf(t, node)
		client.SetToken(tokens[name])
		return client
	}

	var minted, denied, failed atomic.Int64
	var over atomic.Bool
	var task atomic.Value
	task.Store("REL-0")
	var all sync.WaitGroup
	for caller := range callers {
		client := as(w.Nodes[caller%3], "alice")
		all.Go(func() {
			for !over.Load() {
				_, err := mint(t.Context(), client, mounted+"/creds/approved/"+task.Load().(string))
				var answer *api.ResponseError
				switch {
				case err == nil:
					minted.Add(1)
				case errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden:
					denied.Add(1)
					time.Sleep(20 * time.Millisecond)
				default: // nobody leads, or not yet
					failed.Add(1)
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	defer func() { over.Store(true); all.Wait() }()

	var ids []string
	for round, change := range []func() error{
		func() error { return leader.StepDown(t.Context()) },
		func() error { leader.Kill(); return nil },
	} {
		var id string
		tries := 0
		w.eventually("a request is opened and approved", func() error { // on a busy machine a leader may be deposed meanwhile
			name := fmt.Sprintf("REL-%d-%d", round, tries)
			tries++
			if leader, err = lab.Leader(t.Context(), w.Nodes...); err != nil {
				return err
			}
			opened, err := as(leader, "alice").Logical().WriteWithContext(t.Context(), mounted+"/requests", map[string]any{"role": "approved", "task": name, "reason": "REL-7"})
			if err != nil {
				return err
			}
			id = opened.Data["id"].(string)
			if _, err := as(leader, "bob").Logical().WriteWithContext(t.Context(), mounted+"/requests/"+id+"/approve", nil); err != nil {
				return err
			}
			task.Store(name) // only now: what became of an earlier try is used by nobody
			return nil
		})
		ids = append(ids, id)
		before := minted.Load()
		w.eventually("the approval is being used", func() error {
			if minted.Load() == before {
				return errors.New("nothing was minted")
			}
			return nil
		})
		var gone *lab.Vault
		w.eventually("the leader goes", func() error {
			if leader, err = lab.Leader(t.Context(), w.Nodes...); err != nil {
				return err
			}
			gone = leader
			return change()
		})
		if round == 1 {
			if err := gone.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if leader, err = lab.Leader(t.Context(), w.Nodes...); err != nil {
			t.Fatal(err)
		}
		w.eventually("the approval is used up", func() error {
			read, err := leader.Client.Logical().ReadWithContext(t.Context(), mounted+"/requests/"+id)
			if err != nil {
				return err
			}
			if used, _ := read.Data["uses"].([]any); read.Data["state"] != "used" && len(used) < uses-unknown {
				return fmt.Errorf("the request is %v, with %d uses", read.Data["state"], len(used))
			}
			return nil
		})
	}
	from := denied.Load()
	w.eventually("all callers are refused", func() error {
		if denied.Load() < from+2*callers {
			return errors.New("some have not been")
		}
		return nil
	})
	over.Store(true)
	all.Wait()

	if leader, err = lab.Leader(t.Context(), w.Nodes...); err != nil {
		t.Fatal(err)
	}
	live := w.working("approved")
	for _, id := range ids {
		read, err := leader.Client.Logical().ReadWithContext(t.Context(), mounted+"/requests/"+id)
		if err != nil {
			t.Fatal(err)
		}
		grants := map[any]bool{}
		for _, use := range read.Data["uses"].([]any) {
			grants[use.(map[string]any)["grant_id"]] = true
		}
		if len(grants) > uses || len(grants) < uses-unknown {
			t.Errorf("request %s was used for %d grants, of %d", id, len(grants), uses)
		}
	}
	if live > uses*len(ids) || int64(live) < minted.Load() {
		t.Errorf("%d sessions live at the store and %d were answered, of %d that were approved", live, minted.Load(), uses*len(ids))
	}
	figures.Log(t, "approved: %d, live at the store: %d, answered: %d; refused: %d, failed while a leader stepped down and one was killed: %d", uses*len(ids), live, minted.Load(), denied.Load(), failed.Load())

	w.write(leader, mounted+"/freeze", map[string]any{"target": "store", "reason": "INC-7"})
	if err := leader.StepDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, node := range w.Nodes {
		w.eventually("after a failover, a node refuses what is frozen", func() error {
			_, err := mint(t.Context(), clientOf(t, node), mounted+"/creds/"+onStore+"/JIRA-1")
			var answer *api.ResponseError
			switch {
			case err == nil:
				t.Error("after a failover, a credential of a frozen target was minted")
			case !errors.As(err, &answer) || answer.StatusCode != http.StatusForbidden: // nobody leads, or not yet
				return err
			}
			return nil
		})
	}
}

// people are users who may do everything on the mount, each of them an entity, and
// logged in.
func (w *world) people(vault *lab.Vault, names ...string) map[string]string {
	w.t.Helper()
	if err := vault.Client.Sys().EnableAuthWithOptionsWithContext(w.t.Context(), "userpass", &api.EnableAuthOptions{Type: "userpass"}); err != nil {
		w.t.Fatal(err)
	}
	if err := vault.Client.Sys().PutPolicyWithContext(w.t.Context(), "people", `path "`+mounted+`/*" { capabilities = ["create", "read", "update", "list"] }`); err != nil {
		w.t.Fatal(err)
	}
	tokens := map[string]string{}
	for _, name := range names {
		w.write(vault, "auth/userpass/users/"+name, map[string]any{"password": "hunter2", "token_policies": "people"})
		login, err := vault.Client.Logical().WriteWithContext(w.t.Context(), "auth/userpass/login/"+name, map[string]any{"password": "hunter2"})
		if err != nil {
			w.t.Fatal(err)
		}
		tokens[name] = login.Auth.ClientToken
	}
	return tokens
}
