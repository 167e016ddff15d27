package tests

import (
	"fmt"
	"strings"
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
	for round, role := range []string{"deploy", "often", "deploy", "often"} {
		o.task = fmt.Sprintf("RACE-%d", round)
		id := o.approved(role, o.bob)
		want := 1
		if role == "often" {
			want = 2
		}
		if round >= 2 {
			killPlugin(t)
		}
		minted, refusals := o.readTogether(o.alice.Client, role+"/"+o.task, map[string][]string{"key": {"one"}})
		if len(minted) != want {
			t.Errorf("%s: %d credentials and %d refusals, want %d credentials", role, len(minted), len(refusals), want)
		}
		for _, err := range refusals {
			forbidden(t, err)
		}
		if uses := o.read("requests/" + id).Data["uses"].([]any); len(uses) != want {
			t.Errorf("the request was used %d times", len(uses))
		}
		if grants := o.readGrants("grants/by-task/" + o.task)["grants"].([]any); len(grants) != want {
			t.Errorf("%d grants live", len(grants))
		}
	}
	figures.Log(t, "4 rounds of %d simultaneous callers, 2 after a kill of the plugin: never more credentials than were approved", limitCallers)
}
