package tests

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// office is a mount with roles that ask for approvals, and people.
type office struct {
	*mount
	alice, bob, carol, dave person // alice asks; bob and carol are leads; dave is not
	users                   *people
	leads                   string // their group's id
	task                    string // of the attempt
	role                    map[string]any
}

const keyed = "arn:aws:s3:::releases/app/{{key}}"

func newOffice(t *testing.T) *office {
	m := newMount(t)
	o := &office{mount: m, users: m.people("-users")}
	o.alice, o.bob, o.carol, o.dave = o.users.login("alice"), o.users.login("bob"), o.users.login("carol"), o.users.login("dave")
	o.leads = m.gather("leads", o.bob, o.carol)
	o.role = map[string]any{
		"target": "store", "action": putObject, "resource": keyed, "parameters": map[string]any{"key": "[a-z0-9.]+"},
		"ttl": "10m", "max_ttl": "30m", "approvals": 1, "approver_group_ids": o.leads,
	}
	m.write("roles/deploy", o.role)
	m.write("roles/two", with(o.role, map[string]any{"approvals": 2}))
	m.write("roles/often", with(o.role, map[string]any{"approval_uses": 2}))
	m.write("roles/brief", with(o.role, map[string]any{"approval_ttl": "2s"}))
	m.write("roles/open", with(o.role, map[string]any{"approver_group_ids": nil}))
	m.write("roles/plain", with(o.role, map[string]any{"approver_group_ids": nil, "approvals": nil}))
	return o
}

// ask opens a request for the attempt's task with key=one, unless more says else.
func (o *office) ask(who *api.Client, role string, more map[string]any) (string, error) {
	data := with(map[string]any{"role": role, "task": o.task, "key": "one", "reason": "INC-7: restore the index"}, more)
	answer, err := who.Logical().WriteWithContext(o.t.Context(), o.path+"/requests", data)
	if err != nil {
		return "", err
	}
	return answer.Data["id"].(string), nil
}

func (o *office) asked(role string) string {
	o.t.Helper()
	id, err := o.ask(o.alice.Client, role, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	return id
}

func (o *office) decide(who *api.Client, id, what string, data map[string]any) error {
	_, err := who.Logical().WriteWithContext(o.t.Context(), o.path+"/requests/"+id+"/"+what, data)
	return err
}

func (o *office) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// approved is a request for a role that has all its approvals.
func (o *office) approved(role string, by ...person) string {
	o.t.Helper()
	id := o.asked(role)
	for _, one := range by {
		o.must(o.decide(one.Client, id, "approve", nil))
	}
	return id
}

func (o *office) take(who *api.Client, role string, parameters ...string) error {
	_, err := o.tryMint(who, role+"/"+o.task, append([]string{"key=one"}, parameters...)...)
	return err
}

// rewrite writes a role of the attempt's own.
func (o *office) rewrite(name string, changes map[string]any) string {
	o.t.Helper()
	o.write("roles/"+name, with(o.role, changes))
	return name
}

func (o *office) remove(path string) {
	o.t.Helper()
	_, err := o.Logical().DeleteWithContext(o.t.Context(), o.path+"/"+path)
	o.must(err)
}

// approvalAttempt is one try to get at a credential, or to decide, and how it has to end.
type approvalAttempt struct {
	name string
	try  func(o *office) error
	want int
	says string
}

var approvalAttempts = []approvalAttempt{
	{"without a request", func(o *office) error { return o.take(o.alice.Client, "deploy") }, 403, "requests role=deploy task="},
	{"while it waits", func(o *office) error { o.asked("deploy"); return o.take(o.alice.Client, "deploy") }, 403, "0 of 1 approvals"},
	{"once it is approved", func(o *office) error { o.approved("deploy", o.bob); return o.take(o.alice.Client, "deploy") }, 200, ""},
	{"by a write with parameters in the body", func(o *office) error {
		o.approved("deploy", o.bob)
		_, err := o.alice.Logical().WriteWithContext(o.t.Context(), o.path+"/creds/deploy/"+o.task, map[string]any{"key": "one"})
		return err
	}, 200, ""},
	{"by a write, not approved", func(o *office) error {
		o.asked("deploy")
		_, err := o.alice.Logical().WriteWithContext(o.t.Context(), o.path+"/creds/deploy/"+o.task, map[string]any{"key": "one"})
		return err
	}, 403, "0 of 1"},
	{"a second time", func(o *office) error {
		o.approved("deploy", o.bob)
		o.must(o.take(o.alice.Client, "deploy"))
		return o.take(o.alice.Client, "deploy")
	}, 403, "used"},
	{"again after the lease has been revoked", func(o *office) error {
		o.approved("deploy", o.bob)
		minted, err := o.tryMint(o.alice.Client, "deploy/"+o.task, "key=one")
		o.must(err)
		o.must(o.Sys().RevokeWithOptionsWithContext(o.t.Context(), revokeNow(minted.LeaseID)))
		return o.take(o.alice.Client, "deploy")
	}, 403, "used"},
	{"twice of two uses", func(o *office) error {
		o.approved("often", o.bob)
		o.must(o.take(o.alice.Client, "often"))
		return o.take(o.alice.Client, "often")
	}, 200, ""},
	{"thrice of two uses", func(o *office) error {
		o.approved("often", o.bob)
		o.must(o.take(o.alice.Client, "often"))
		o.must(o.take(o.alice.Client, "often"))
		return o.take(o.alice.Client, "often")
	}, 403, "used"},
	{"with one approval of two", func(o *office) error { o.approved("two", o.bob); return o.take(o.alice.Client, "two") }, 403, "1 of 2 approvals"},
	{"with two of two", func(o *office) error { o.approved("two", o.bob, o.carol); return o.take(o.alice.Client, "two") }, 200, ""},
	{"by the approver", func(o *office) error { o.approved("deploy", o.bob); return o.take(o.bob.Client, "deploy") }, 403, "none for this task, entity and scope"},
	{"by somebody else", func(o *office) error { o.approved("deploy", o.bob); return o.take(o.dave.Client, "deploy") }, 403, "none for this task, entity and scope"},
	{"by the same name of another auth method", func(o *office) error {
		o.approved("deploy", o.bob)
		return o.take(o.people("-others").login("alice").Client, "deploy")
	}, 403, "none for this task, entity and scope"},
	{"by a new entity of the old one's name", func(o *office) error {
		erin := o.users.login("erin")
		path := "identity/entity/id/" + erin.entity
		name := o.mount.path + "-erin"
		_, err := o.Logical().WriteWithContext(o.t.Context(), path, map[string]any{"name": name})
		o.must(err)
		id, err := o.ask(erin.Client, "deploy", nil)
		o.must(err)
		o.must(o.decide(o.bob.Client, id, "approve", nil))
		_, err = o.Logical().DeleteWithContext(o.t.Context(), path)
		o.must(err)
		again := o.users.login("erin")
		_, err = o.Logical().WriteWithContext(o.t.Context(), "identity/entity/id/"+again.entity, map[string]any{"name": name})
		o.must(err)
		if again.entity == erin.entity {
			o.t.Fatal("the entity is the same")
		}
		return o.take(again.Client, "deploy")
	}, 403, "none for this task, entity and scope"},
	{"by root, who is no entity", func(o *office) error { o.approved("deploy", o.bob); return o.take(o.Client, "deploy") }, 403, "no entity"},
	{"for another task", func(o *office) error {
		o.approved("deploy", o.bob)
		o.task += "-b"
		return o.take(o.alice.Client, "deploy")
	}, 403, "none for this task, entity and scope"},
	{"for no task", func(o *office) error {
		o.approved("deploy", o.bob)
		_, err := o.tryMint(o.alice.Client, "deploy", "key=one")
		return err
	}, 400, "for one task"},
	{"with another parameter", func(o *office) error {
		o.approved("deploy", o.bob)
		_, err := o.tryMint(o.alice.Client, "deploy/"+o.task, "key=two")
		return err
	}, 403, "none for this task, entity and scope"},
	{"without the parameter", func(o *office) error {
		o.approved("deploy", o.bob)
		_, err := o.tryMint(o.alice.Client, "deploy/"+o.task)
		return err
	}, 400, "key"},
	{"of another role with the same scope", func(o *office) error { o.approved("deploy", o.bob); return o.take(o.alice.Client, "often") }, 403, "none for this task, entity and scope"},
	{"for longer than approved", func(o *office) error {
		o.approved("deploy", o.bob)
		return o.take(o.alice.Client, "deploy", "ttl=11m")
	}, 400, "approved for, 10m"},
	{"for less than approved", func(o *office) error {
		o.approved("deploy", o.bob)
		return o.take(o.alice.Client, "deploy", "ttl=1m")
	}, 200, ""},
	{"for as long as was approved, where that is less than the role's", func(o *office) error {
		id, err := o.ask(o.alice.Client, "deploy", map[string]any{"ttl": "2m"})
		o.must(err)
		o.must(o.decide(o.bob.Client, id, "approve", nil))
		minted, err := o.tryMint(o.alice.Client, "deploy/"+o.task, "key=one")
		if err == nil && minted.LeaseDuration > 120 {
			o.t.Errorf("the lease has %d s, and 120 were approved", minted.LeaseDuration)
		}
		return err
	}, 200, ""},

	{"after the role was changed", func(o *office) error {
		role := o.rewrite("changed", nil)
		o.approved(role, o.bob)
		o.rewrite(role, map[string]any{"ttl": "9m"})
		return o.take(o.alice.Client, role)
	}, 403, "none for this task, entity and scope"},
	{"after the role was changed, and changed back", func(o *office) error {
		role := o.rewrite("back", nil)
		o.approved(role, o.bob)
		o.rewrite(role, map[string]any{"ttl": "9m"})
		o.rewrite(role, nil)
		return o.take(o.alice.Client, role)
	}, 403, "none for this task, entity and scope"},
	{"after the role asked for nothing, and asks again", func(o *office) error {
		role := o.rewrite("rested", nil)
		o.approved(role, o.bob)
		_, err := o.Logical().JSONMergePatch(o.t.Context(), o.path+"/roles/"+role, map[string]any{"approvals": nil, "approver_group_ids": nil})
		o.must(err)
		o.write("roles/"+role, map[string]any{"approvals": 1, "approver_group_ids": o.leads})
		return o.take(o.alice.Client, role)
	}, 403, "none for this task, entity and scope"},
	{"after the role was deleted", func(o *office) error {
		role := o.rewrite("deleted", nil)
		o.approved(role, o.bob)
		o.remove("roles/" + role)
		return o.take(o.alice.Client, role)
	}, 400, "no such role"},
	{"after the role was deleted and made again", func(o *office) error {
		role := o.rewrite("again", nil)
		o.approved(role, o.bob)
		o.remove("roles/" + role)
		o.rewrite(role, nil)
		return o.take(o.alice.Client, role)
	}, 403, "none for this task, entity and scope"},
	{"after the target became another system", func(o *office) error {
		o.write("config/moved", o.storeConfig())
		role := o.rewrite("moved", map[string]any{"target": "moved"})
		o.approved(role, o.bob)
		o.write("config/moved", with(o.storeConfig(), map[string]any{"access_key": servers.Store.Root.Access, "secret_key": servers.Store.Root.Secret}))
		return o.take(o.alice.Client, role)
	}, 403, "none for this task, entity and scope"},
	{"after the approval has lapsed", func(o *office) error {
		o.approved("brief", o.bob)
		time.Sleep(2100 * time.Millisecond)
		return o.take(o.alice.Client, "brief")
	}, 403, "lapsed"},
	{"after it was denied", func(o *office) error {
		o.must(o.decide(o.bob.Client, o.asked("deploy"), "deny", nil))
		return o.take(o.alice.Client, "deploy")
	}, 403, "denied"},
	{"after it was approved, and denied by another", func(o *office) error {
		o.must(o.decide(o.carol.Client, o.approved("deploy", o.bob), "deny", map[string]any{"reason": "not before Monday"}))
		return o.take(o.alice.Client, "deploy")
	}, 403, "denied"},
	{"after it was cancelled", func(o *office) error {
		o.must(o.decide(o.alice.Client, o.approved("deploy", o.bob), "cancel", nil))
		return o.take(o.alice.Client, "deploy")
	}, 403, "cancelled"},
	{"with a preview, which mints nothing", func(o *office) error {
		_, err := o.alice.Logical().ReadWithDataWithContext(o.t.Context(), o.path+"/preview/deploy/"+o.task, map[string][]string{"key": {"one"}})
		return err
	}, 200, ""},

	{"approving one's own", func(o *office) error { return o.decide(o.alice.Client, o.asked("open"), "approve", nil) }, 403, "somebody else"},
	{"approving one's own, as a lead", func(o *office) error {
		id, err := o.ask(o.bob.Client, "deploy", nil)
		o.must(err)
		return o.decide(o.bob.Client, id, "approve", nil)
	}, 403, "somebody else"},
	{"approving one's own by another token", func(o *office) error {
		return o.decide(o.users.login("alice").Client, o.asked("open"), "approve", nil)
	}, 403, "somebody else"},
	{"approving one's own after another has", func(o *office) error {
		o.write("roles/any-two", with(o.role, map[string]any{"approvals": 2, "approver_group_ids": nil}))
		return o.decide(o.alice.Client, o.approved("any-two", o.bob), "approve", nil)
	}, 403, "somebody else"},
	{"approving twice", func(o *office) error { return o.decide(o.bob.Client, o.approved("two", o.bob), "approve", nil) }, 403, "already"},
	{"approving twice by another token", func(o *office) error {
		return o.decide(o.users.login("bob").Client, o.approved("two", o.bob), "approve", nil)
	}, 403, "already"},
	{"approving what has all its approvals", func(o *office) error {
		return o.decide(o.carol.Client, o.approved("deploy", o.bob), "approve", nil)
	}, 400, "all its approvals"},
	{"approving without being in the group", func(o *office) error { return o.decide(o.dave.Client, o.asked("deploy"), "approve", nil) }, 403, "approver_group_ids"},
	{"approving where no group is asked for", func(o *office) error { return o.decide(o.dave.Client, o.asked("open"), "approve", nil) }, 200, ""},
	{"approving once out of the group", func(o *office) error {
		own := o.gather("passing", o.dave)
		role := o.rewrite("passing", map[string]any{"approver_group_ids": own})
		o.gather("passing", o.carol)
		return o.decide(o.dave.Client, o.asked(role), "approve", nil)
	}, 403, "approver_group_ids"},
	{"approving by a group in the group", func(o *office) error {
		inner := o.gather("inner", o.dave)
		outer := o.gather("outer")
		_, err := o.Logical().WriteWithContext(o.t.Context(), "identity/group/id/"+outer, map[string]any{"member_group_ids": inner})
		o.must(err)
		role := o.rewrite("nested", map[string]any{"approver_group_ids": outer})
		return o.decide(o.dave.Client, o.asked(role), "approve", nil)
	}, 200, ""},
	{"approving as root, who is no entity", func(o *office) error { return o.decide(o.Client, o.asked("deploy"), "approve", nil) }, 403, "no entity"},
	{"approving what has lapsed", func(o *office) error {
		id := o.asked("brief")
		time.Sleep(2100 * time.Millisecond)
		return o.decide(o.bob.Client, id, "approve", nil)
	}, 400, "lapsed"},
	{"approving what was denied", func(o *office) error {
		id := o.asked("deploy")
		o.must(o.decide(o.carol.Client, id, "deny", nil))
		return o.decide(o.bob.Client, id, "approve", nil)
	}, 400, "denied"},
	{"approving what was cancelled", func(o *office) error {
		id := o.asked("deploy")
		o.must(o.decide(o.alice.Client, id, "cancel", nil))
		return o.decide(o.bob.Client, id, "approve", nil)
	}, 400, "cancelled"},
	{"approving what was used", func(o *office) error {
		id := o.approved("deploy", o.bob)
		o.must(o.take(o.alice.Client, "deploy"))
		return o.decide(o.carol.Client, id, "approve", nil)
	}, 400, "used"},
	{"approving after the role was changed", func(o *office) error {
		role := o.rewrite("late", nil)
		id := o.asked(role)
		o.rewrite(role, map[string]any{"resource": "arn:aws:s3:::releases/{{key}}"})
		return o.decide(o.bob.Client, id, "approve", nil)
	}, 400, "void"},
	{"approving after the role was deleted", func(o *office) error {
		role := o.rewrite("later", nil)
		id := o.asked(role)
		o.remove("roles/" + role)
		return o.decide(o.bob.Client, id, "approve", nil)
	}, 400, "void"},
	{"approving what does not exist", func(o *office) error {
		return o.decide(o.bob.Client, "00000000-aaaaaaaa-aaaaaaaa", "approve", nil)
	}, 400, "no such request"},
	{"approving something that is no id", func(o *office) error { return o.decide(o.bob.Client, "..x", "approve", nil) }, 400, "no such request"},
	{"approving with a field of one's own", func(o *office) error {
		return o.decide(o.bob.Client, o.asked("deploy"), "approve", map[string]any{"entity_id": o.carol.entity})
	}, 400, "entity_id"},
	{"denying one's own", func(o *office) error { return o.decide(o.alice.Client, o.asked("open"), "deny", nil) }, 403, "somebody else"},
	{"denying without being in the group", func(o *office) error { return o.decide(o.dave.Client, o.asked("deploy"), "deny", nil) }, 403, "approver_group_ids"},
	{"denying what was used", func(o *office) error {
		id := o.approved("deploy", o.bob)
		o.must(o.take(o.alice.Client, "deploy"))
		return o.decide(o.carol.Client, id, "deny", nil)
	}, 400, "used"},
	{"cancelling another's", func(o *office) error { return o.decide(o.bob.Client, o.asked("deploy"), "cancel", nil) }, 403, "only who has made"},
	{"cancelling as root", func(o *office) error { return o.decide(o.Client, o.asked("deploy"), "cancel", nil) }, 403, "only who has made"},
	{"cancelling twice", func(o *office) error {
		id := o.asked("deploy")
		o.must(o.decide(o.alice.Client, id, "cancel", nil))
		return o.decide(o.alice.Client, id, "cancel", nil)
	}, 400, "cancelled"},

	{"asking as root, who is no entity", func(o *office) error { _, err := o.ask(o.Client, "deploy", nil); return err }, 403, "no entity"},
	{"asking without a reason", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"reason": nil})
		return err
	}, 400, "reason"},
	{"asking with an empty reason", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"reason": "  "})
		return err
	}, 400, "reason"},
	{"asking with a second line", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"reason": "a\nstate approved"})
		return err
	}, 400, "printed"},
	{"asking with an escape", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"reason": "a\x1b[2J"})
		return err
	}, 400, "printed"},
	{"asking with text that turns around", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"reason": "a\u202eb"})
		return err
	}, 400, "printed"},
	{"asking with a long reason", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"reason": strings.Repeat("x", 513)})
		return err
	}, 400, "512"},
	{"asking without a task", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"task": nil})
		return err
	}, 400, "task"},
	{"asking for an odd task", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"task": "a/b"})
		return err
	}, 400, "task"},
	{"asking for no role", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"role": "nobody"})
		return err
	}, 400, "nobody"},
	{"asking with another parameter", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"kye": "one"})
		return err
	}, 400, "kye"},
	{"asking without the parameter", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"key": nil})
		return err
	}, 400, "key"},
	{"asking for longer than the role allows", func(o *office) error {
		_, err := o.ask(o.alice.Client, "deploy", map[string]any{"ttl": "31m"})
		return err
	}, 400, "max_ttl"},
	{"asking twice for the same", func(o *office) error {
		o.asked("deploy")
		_, err := o.ask(o.alice.Client, "deploy", nil)
		return err
	}, 400, "waiting already"},
	{"asking again after a denial", func(o *office) error {
		o.must(o.decide(o.bob.Client, o.asked("deploy"), "deny", nil))
		_, err := o.ask(o.alice.Client, "deploy", nil)
		return err
	}, 200, ""},
	{"asking again after a denial, and taking", func(o *office) error {
		o.must(o.decide(o.bob.Client, o.asked("deploy"), "deny", nil))
		o.approved("deploy", o.bob)
		return o.take(o.alice.Client, "deploy")
	}, 200, ""},
	{"asking for what needs no approval", func(o *office) error { _, err := o.ask(o.alice.Client, "plain", nil); return err }, 400, "needs no approval"},
	{"asking for a seventeenth", func(o *office) error {
		frank := o.users.login("frank")
		for i := range 16 {
			_, err := o.ask(frank.Client, "deploy", map[string]any{"key": fmt.Sprintf("k%d", i)})
			o.must(err)
		}
		_, err := o.ask(frank.Client, "deploy", nil)
		return err
	}, 403, "16 requests"},
	{"asking for a seventeenth after one was cancelled", func(o *office) error {
		grace := o.users.login("grace")
		last := ""
		for i := range 16 {
			id, err := o.ask(grace.Client, "deploy", map[string]any{"key": fmt.Sprintf("k%d", i)})
			o.must(err)
			last = id
		}
		o.must(o.decide(grace.Client, last, "cancel", nil))
		_, err := o.ask(grace.Client, "deploy", nil)
		return err
	}, 200, ""},
}

func TestApprovals(t *testing.T) {
	o := newOffice(t)
	granted := 0
	for i, attempt := range approvalAttempts {
		o.task = fmt.Sprintf("TRY-%d", i)
		before := len(o.grants)
		status, text := answered(t, attempt.try(o))
		if status != attempt.want || !strings.Contains(text, attempt.says) {
			t.Errorf("%s: %d %s, want %d and %q", attempt.name, status, text, attempt.want, attempt.says)
		}
		if len(text) > 800 {
			t.Errorf("%s: the refusal has %d bytes", attempt.name, len(text))
		}
		granted += len(o.grants) - before
		// Open requests are bounded, and the attempts leave some.
		o.cancelAll()
		if i%20 == 19 {
			o.tidy("store") // so are those of late
		}
	}
	figures.Log(t, "%d attempts at approvals, as they have to end; %d credentials were minted on the way", len(approvalAttempts), granted)
}

// cancelAll takes alice's and bob's requests back.
func (o *office) cancelAll() {
	o.t.Helper()
	listed, err := o.Logical().ListWithContext(o.t.Context(), o.path+"/requests")
	o.must(err)
	if listed == nil {
		return
	}
	for id, info := range listed.Data["key_info"].(map[string]any) {
		for _, who := range []person{o.alice, o.bob} {
			if info.(map[string]any)["entity_id"] == who.entity {
				o.must(o.decide(who.Client, id, "cancel", nil))
			}
		}
	}
}

// A request tells who asked for what and why, who approved and when, and what it was
// used for; its grant names it.
func TestApprovalIsRecorded(t *testing.T) {
	o := newOffice(t)
	o.task = "REL-7"
	id := o.asked("two")
	o.must(o.decide(o.bob.Client, id, "approve", nil))
	if listed, err := o.carol.Logical().ListWithContext(t.Context(), o.path+"/requests"); err != nil || !strings.Contains(fmt.Sprint(listed.Data), "1 of 2") {
		t.Errorf("requests are listed as %v: %v", listed, err)
	}
	output, err := servers.Vault.Command(t.Context(), "list", "-detailed", o.path+"/requests").CombinedOutput()
	for _, part := range []string{id, "waiting", "1 of 2", "INC-7: restore the index", "REL-7"} {
		if err != nil || !strings.Contains(string(output), part) {
			t.Errorf("vault list -detailed does not say %q: %v\n%s", part, err, output)
		}
	}
	o.must(o.decide(o.carol.Client, id, "approve", nil))
	minted, err := o.tryMint(o.alice.Client, "two/REL-7", "key=one")
	o.must(err)
	allowed(t, "the approved session", minted.inStoreAs(t.Context(), "app/one"))
	denied(t, "the approved session with another key", minted.inStoreAs(t.Context(), "app/two"))

	read, err := o.bob.Logical().ReadWithContext(t.Context(), o.path+"/requests/"+id)
	o.must(err)
	for field, want := range map[string]any{
		"state": "used", "role": "two", "task": "REL-7", "action": putObject, "resource": "arn:aws:s3:::releases/app/one",
		"parameters": map[string]any{"key": "one"}, "reason": "INC-7: restore the index", "entity_id": o.alice.entity,
	} {
		if fmt.Sprint(read.Data[field]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", field, read.Data[field], want)
		}
	}
	for i, by := range []person{o.bob, o.carol} {
		given := read.Data["approvals"].([]any)[i].(map[string]any)
		at, err := time.Parse(time.RFC3339, fmt.Sprint(given["at"]))
		if given["entity_id"] != by.entity || given["display_name"] == "" || err != nil || time.Since(at) > time.Minute {
			t.Errorf("approval %d reads as %v", i, given)
		}
	}
	if uses := read.Data["uses"].([]any); len(uses) != 1 || uses[0].(map[string]any)["grant_id"] != minted.grant() {
		t.Errorf("uses reads as %v", uses)
	}
	if grant := o.read("grants/" + minted.grant()).Data; grant["approval"] != id {
		t.Errorf("the grant names %v", grant["approval"])
	}
	if listed, err := o.bob.Logical().ListWithContext(t.Context(), o.path+"/requests/past"); err != nil || !strings.Contains(fmt.Sprint(listed.Data["keys"]), id) {
		t.Errorf("past requests are listed as %v: %v", listed, err)
	}
	if listed, err := o.bob.Logical().ListWithContext(t.Context(), o.path+"/requests"); err != nil || listed != nil && len(listed.Data["keys"].([]any)) > 0 {
		t.Errorf("requests are listed as %v: %v", listed, err)
	}
}

// Of 64 readers at once, as many get a credential as were approved, also when the
// plugin is killed in between.
func TestApprovalsAreUsedOnce(t *testing.T) {
	o := newOffice(t)
	const callers = 64
	for round, role := range []string{"deploy", "often", "deploy", "often"} {
		o.task = fmt.Sprintf("RACE-%d", round)
		id := o.approved(role, o.bob)
		want := int64(1)
		if role == "often" {
			want = 2
		}
		if round >= 2 {
			for _, pid := range pluginProcesses(t, servers.Vault) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		var got, refused atomic.Int64
		var all sync.WaitGroup
		start := make(chan struct{})
		for range callers {
			all.Go(func() {
				<-start
				_, err := o.alice.Logical().ReadWithDataWithContext(t.Context(), o.path+"/creds/"+role+"/"+o.task, map[string][]string{"key": {"one"}})
				switch status, text := answered(t, err); status {
				case http.StatusOK:
					got.Add(1)
				case http.StatusForbidden:
					refused.Add(1)
				default:
					t.Errorf("%d %s", status, text)
				}
			})
		}
		close(start)
		all.Wait()
		if got.Load() != want || refused.Load() != callers-want {
			t.Errorf("%s: %d credentials and %d refusals, want %d credentials", role, got.Load(), refused.Load(), want)
		}
		if uses := o.read("requests/" + id).Data["uses"].([]any); int64(len(uses)) != want {
			t.Errorf("the request was used %d times", len(uses))
		}
		if grants := o.readGrants("grants/by-task/" + o.task)["grants"].([]any); int64(len(grants)) != want {
			t.Errorf("%d grants live", len(grants))
		}
	}
	figures.Log(t, "4 rounds of %d simultaneous callers, 2 after a kill of the plugin: never more credentials than were approved", callers)
}
