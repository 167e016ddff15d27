package tests

import (
	"fmt"
	"strings"
	"time"
)

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
	{"by an entity that one's own was merged into, and that has approved", func(o *office) error {
		erin, other := o.users.login("erin"), o.people("-merged").login("erin")
		id, err := o.ask(erin.Client, "open", nil)
		o.must(err)
		_, err = o.Logical().WriteWithContext(o.t.Context(), "identity/entity/merge", map[string]any{"from_entity_ids": erin.entity, "to_entity_id": other.entity})
		o.must(err)
		o.must(o.decide(other.Client, id, "approve", nil))
		return o.take(erin.Client, "open")
	}, 403, "merged into another"},
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
