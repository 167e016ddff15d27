package ledger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// some makes a grant that lives for a while from now on.
func some(life time.Duration) Grant {
	expiresAt := now.Add(life)
	return Grant{
		ID: NewID(expiresAt), State: Pending, Target: "store", System: "0123456789abcdef", Role: "upload", Task: "T-1",
		Action: "s3:PutObject", Resource: "arn:aws:s3:::releases/*", EntityID: "entity", DisplayName: "token", Accessor: "accessor",
		Companions: []string{"arn:aws:s3:::releases", ""}, Conditions: `{"Bool":{"aws:SecureTransport":["true"]}}`, SourceIP: "192.0.2.1",
		Handle: provider.Handle{"user_name": "precision-x", "user_path": "/", "empty": ""}, IssuedAt: now, ExpiresAt: expiresAt,
	}
}

func admit(t testing.TB, x *Index, grant Grant) Grant {
	t.Helper()
	if err := x.Admit(grant, now, nil); err != nil {
		t.Fatal(err)
	}
	return grant
}

func wantLive(t *testing.T, x *Index, query Query, at time.Time, want ...Grant) {
	t.Helper()
	ids := func(grants []Grant) []string {
		var all []string
		for _, grant := range grants {
			all = append(all, grant.ID)
		}
		slices.Sort(all)
		return all
	}
	if got := ids(x.Live(query, at)); !slices.Equal(got, ids(want)) {
		t.Errorf("%+v lists %v, want %v", query, got, ids(want))
	}
	if got := x.Count(query, at); got != len(want) {
		t.Errorf("%+v counts %d, want %d", query, got, len(want))
	}
}

func TestTheIndexReturnsWhatWasPutIn(t *testing.T) {
	x := NewIndex()
	for _, grant := range []Grant{some(time.Hour), {ID: NewID(now), State: Pending, ExpiresAt: now.Add(time.Hour)}} {
		admit(t, x, grant)
		got, known := x.Get(grant.ID)
		if !known || fmt.Sprint(got) != fmt.Sprint(grant) {
			t.Errorf("got %v %+v, want %+v", known, got, grant)
		}
	}
}

func TestLists(t *testing.T) {
	x := NewIndex()
	one, two, three, four := some(time.Hour), some(2*time.Hour), some(3*time.Hour), some(time.Hour)
	two.Role, three.Task, three.Target, four.EntityID = "other", "", "cloud", ""
	for _, grant := range []Grant{one, two, three, four} {
		admit(t, x, grant)
	}
	wantLive(t, x, Query{}, now, one, two, three, four)
	wantLive(t, x, Query{Role: "upload"}, now, one, three, four)
	wantLive(t, x, Query{Task: "T-1"}, now, one, two, four)
	wantLive(t, x, Query{EntityID: "entity"}, now, one, two, three)
	wantLive(t, x, Query{Target: "cloud"}, now, three)
	wantLive(t, x, Query{Role: "upload", EntityID: "entity"}, now, one, three)
	wantLive(t, x, Query{Role: "upload", Target: "nowhere"}, now)

	later := now.Add(time.Hour) // one and four have expired, for all that the clock says
	wantLive(t, x, Query{}, later, one, two, three, four)
	for _, expired := range []Grant{one, four} {
		expired.State = Ended
		x.Update(expired, later)
	}
	wantLive(t, x, Query{}, later, two, three)
	wantLive(t, x, Query{Role: "upload"}, later, three)

	two.State = Ending
	x.Update(two, later)
	wantLive(t, x, Query{}, later, two, three)
	if unended := x.Unended(); len(unended) != 1 || unended[0].ID != two.ID {
		t.Errorf("%v are to end, want %s", unended, two.ID)
	}
	two.State = Ended
	x.Update(two, later)
	wantLive(t, x, Query{}, later, three)
	if _, known := x.Get(two.ID); known || len(x.Unended()) != 0 {
		t.Error("the index keeps what has ended")
	}
	x.Remove(three.ID)
	wantLive(t, x, Query{}, later)
	if x.Unfinished(one.ID) != 0 || x.Unfinished(two.ID) != 0 {
		t.Errorf("%d and %d unfinished, want none", x.Unfinished(one.ID), x.Unfinished(two.ID))
	}
}

// A renewal moves the end; the id stays in its bucket.
func TestARenewedGrantLivesLonger(t *testing.T) {
	x := NewIndex()
	grant := admit(t, x, some(time.Hour))
	grant.ExpiresAt = grant.ExpiresAt.Add(time.Hour)
	x.Update(grant, now)
	wantLive(t, x, Query{}, now.Add(90*time.Minute), grant)
}

func TestAdmissionIsOneAtATime(t *testing.T) {
	x := NewIndex()
	full := errors.New("full")
	limit := func(counts Counts) error {
		if counts.Live(Query{Role: "upload"}) >= 10 {
			return full
		}
		return nil
	}
	refused := make(chan bool)
	for range 50 {
		go func() { refused <- errors.Is(x.Admit(some(time.Hour), now, limit), full) }()
	}
	count := 0
	for range 50 {
		if <-refused {
			count++
		}
	}
	if live := x.Count(Query{}, now); live != 10 || count != 40 {
		t.Errorf("%d admitted and %d refused, want 10 and 40", live, count)
	}
	if err := x.Admit(some(time.Hour), now.Add(time.Hour), limit); !errors.Is(err, full) {
		t.Errorf("what has not been revoked takes up no room: %v", err)
	}
	ended := x.Live(Query{}, now)[0]
	ended.State = Ended
	x.Update(ended, now)
	if err := x.Admit(some(time.Hour), now.Add(time.Hour), limit); err != nil {
		t.Errorf("what was revoked takes up room: %v", err)
	}
	if grant := admit(t, x, some(time.Hour)); x.Admit(grant, now, nil) == nil {
		t.Error("a grant was admitted twice")
	}
}

func TestOverdueGrantsAreGivenOutOnce(t *testing.T) {
	x := NewIndex()
	first, second := admit(t, x, some(time.Minute)), admit(t, x, some(2*time.Minute))
	admit(t, x, some(time.Hour))
	at := second.ExpiresAt.Add(SweepDelay)
	if early := x.Overdue(10, first.ExpiresAt.Add(SweepDelay-1)); len(early) != 0 {
		t.Errorf("%v are overdue before they are", early)
	}
	if due := x.Overdue(1, at); len(due) != 1 || due[0].ID != first.ID {
		t.Errorf("%v are overdue, want %s first", due, first.ID)
	}
	if due := x.Overdue(10, at); len(due) != 1 || due[0].ID != second.ID {
		t.Errorf("%v are overdue, want %s", due, second.ID)
	}
	// Who was given a grant writes it down before it ends it.
	first.State = Ending
	x.Update(first, at)
	if due := x.Overdue(10, at); len(due) != 0 {
		t.Errorf("%v were given out twice", due)
	}
	x.Retry(first.ID, at.Add(time.Minute))
	x.Retry(first.ID, at) // is in the queue already
	second.State = Ended
	x.Update(second, at)
	x.Retry(second.ID, at)
	if due := x.Overdue(10, at.Add(time.Minute-1)); len(due) != 0 {
		t.Errorf("%v are tried again too early, or although they have ended", due)
	}
	if due := x.Overdue(10, at.Add(time.Minute)); len(due) != 1 || due[0].ID != first.ID {
		t.Errorf("%v are tried again, want %s", due, first.ID)
	}
}

// What hangs on a base has to be kept dead until it has expired by the target's
// clock, too.
func TestABaseIsRememberedUntilItsGrantsAreGone(t *testing.T) {
	x := NewIndex()
	ended, live := some(time.Hour), some(2*time.Hour)
	ended.Base, live.Base = "role/base", "role/base"
	admit(t, x, ended)
	admit(t, x, live)
	ended.State, ended.Ending, ended.EndedAt = Ended, LeaseRevoked, now
	x.Update(ended, now)
	wantLive(t, x, Query{Base: "role/base"}, now, live)
	if on := x.OnBase("role/base", now); len(on) != 2 || on[0].State != Ended || on[1].State != Pending {
		t.Errorf("on the base are %v, want one that has ended and one that lives", on)
	}
	if x.Unfinished(ended.ID) != 0 {
		t.Error("what has ended counts as unfinished")
	}
	if on := x.OnBase("role/base", ended.ExpiresAt.Add(BaseKept-1)); len(on) != 2 {
		t.Errorf("on the base are %v, want both", on)
	}
	if on := x.OnBase("role/base", ended.ExpiresAt.Add(BaseKept)); len(on) != 1 || on[0].ID != live.ID {
		t.Errorf("on the base are %v, want %s", on, live.ID)
	}
	if _, known := x.Get(ended.ID); known {
		t.Error("the index keeps what has ended and expired long ago")
	}
}

// One grant of each base and target is enough to find who keeps up the base.
func TestHanging(t *testing.T) {
	x := NewIndex()
	for i, on := range []struct{ base, target string }{{"a", "prod"}, {"a", "prod"}, {"a", "test"}, {"b", "prod"}, {"", "prod"}} {
		grant := some(time.Duration(i+1) * time.Hour)
		grant.Base, grant.Target = on.base, on.target
		admit(t, x, grant)
	}
	var found []string
	for _, grant := range x.Hanging(now) {
		found = append(found, grant.Base+" "+grant.Target)
	}
	slices.Sort(found)
	if want := []string{"a prod", "a test", "b prod"}; !slices.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
}

func TestMinted(t *testing.T) {
	x := NewIndex()
	grant := admit(t, x, some(time.Hour))
	grant.Handle = provider.Handle{"access_key_id": "AKIA"}
	if !x.Minted(grant) {
		t.Error("a pending grant was not minted")
	}
	if got, _ := x.Get(grant.ID); got.Handle["access_key_id"] != "AKIA" {
		t.Errorf("the handle is %v", got.Handle)
	}
	grant.State = Ending
	x.Update(grant, now)
	if x.Minted(grant) {
		t.Error("a grant that is to end was minted")
	}
	x.Remove(grant.ID)
	if x.Minted(grant) {
		t.Error("a grant that is gone was minted")
	}
}

// The index against a list that is looked through: whatever happens to grants,
// both know the same.
func TestTheIndexAgreesWithALookAtAll(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	x, all, at := NewIndex(), map[string]Grant{}, now
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	for range 2_000 {
		at = at.Add(time.Duration(random.IntN(3)) * time.Second)
		switch random.IntN(4) {
		case 0, 1:
			grant := some(0)
			grant.ExpiresAt = at.Add(time.Duration(1+random.IntN(3600)) * time.Second)
			grant.ID = NewID(grant.ExpiresAt)
			grant.Role, grant.Task, grant.EntityID, grant.Base = pick("a", "b", "c"), pick("", "d", "e"), pick("", "f"), pick("", "", "g")
			if err := x.Admit(grant, at, nil); err != nil {
				t.Fatal(err)
			}
			all[grant.ID] = grant
		default:
			for id, grant := range all {
				grant.State = State(pick(string(Ending), string(Ended), string(Failed)))
				all[id] = grant
				x.Update(grant, at)
				break
			}
		}
		query := Query{Role: pick("", "a", "b"), Task: pick("", "d"), EntityID: pick("", "f"), Base: pick("", "g")}
		want, onBase := 0, 0
		for id, grant := range all {
			forgotten := grant.ExpiresAt
			if grant.Base != "" {
				forgotten = forgotten.Add(BaseKept)
			}
			if grant.Finished() && !at.Before(forgotten) {
				delete(all, id)
				continue
			}
			if grant.Base == "g" && (at.Before(forgotten) || !grant.Finished()) {
				onBase++
			}
			if grant.Open() && (query.Role == "" || query.Role == grant.Role) && (query.Task == "" || query.Task == grant.Task) &&
				(query.EntityID == "" || query.EntityID == grant.EntityID) && (query.Base == "" || query.Base == grant.Base) {
				want++
			}
		}
		if got := x.Count(query, at); got != want {
			t.Fatalf("%+v counts %d, want %d", query, got, want)
		}
		if got := len(x.OnBase("g", at)); got != onBase {
			t.Fatalf("%d on the base, want %d", got, onBase)
		}
	}
	for _, grant := range all {
		grant.State, grant.Base = Ended, ""
		x.Update(grant, at)
	}
	if len(x.byID) != 0 || len(x.ends) != 0 || len(x.overdue) != 0 || len(x.unfinished) != 0 || len(x.ending) != 0 || x.open != 0 {
		t.Error("the index keeps something of grants that are gone")
	}
	for by, groups := range x.groups {
		if len(groups) != 0 {
			t.Errorf("the index keeps groups by key %d: %d", by, len(groups))
		}
	}
}

// full is an index with a number of users' grants, each with a task of its own.
func full(t testing.TB, count int) *Index {
	t.Helper()
	x := NewIndex()
	for i := range count {
		admit(t, x, numbered(i))
	}
	return x
}

// numbered is one of many grants, as a user of AWS has it.
func numbered(i int) Grant {
	grant := some(time.Duration(i%86_400+1) * time.Second)
	grant.Role, grant.Task, grant.EntityID = fmt.Sprintf("role-%d", i%50), fmt.Sprintf("JIRA-%d", i), fmt.Sprintf("11111111-2222-3333-4444-%012d", i%1000)
	grant.Handle = provider.Handle{
		"user_name": "precision-" + grant.ID + "-" + grant.Role + "-" + grant.Task, "user_path": "/precision/11111111-2222-3333-4444-555555555555/",
		"precision:mount": "11111111-2222-3333-4444-555555555555", "precision:role": grant.Role, "precision:task": grant.Task,
		"precision:grant": grant.ID, "precision:entity": grant.EntityID, "access_key_id": fmt.Sprintf("AKIA%016d", i),
	}
	return grant
}

const many = 100_000

func BenchmarkMemory(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := full(b, many)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/grant")
		runtime.KeepAlive(x)
	}
}

// One grant in and out among many.
func BenchmarkAdmitAndEnd(b *testing.B) {
	x := full(b, many)
	limit := func(counts Counts) error {
		if counts.Live(Query{Role: "upload"}) > many {
			return errTwice
		}
		return nil
	}
	for b.Loop() {
		grant := some(12 * time.Hour)
		if err := x.Admit(grant, now, limit); err != nil {
			b.Fatal(err)
		}
		grant.State = Ended
		x.Update(grant, now)
	}
}

func BenchmarkExpire(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		x := full(b, many)
		b.StartTimer()
		for at, given := now, 0; given < many; at = at.Add(time.Hour) {
			given += len(x.Overdue(many, at))
		}
	}
}

func BenchmarkListAll(b *testing.B) {
	x := full(b, many)
	for b.Loop() {
		if got := len(x.Live(Query{}, now)); got != many {
			b.Fatal(got)
		}
	}
}

// A clock that is ahead for a moment takes no grant out of what is counted, listed and limited: not while it is ahead,
// and not for good once it has been put right.
func TestAClockThatIsAheadUncountsNothing(t *testing.T) {
	x := NewIndex()
	grant := admit(t, x, some(time.Hour))
	for _, at := range []time.Time{now, now.Add(2 * time.Hour), now, now.Add(-2 * time.Hour)} {
		wantLive(t, x, Query{}, at, grant)
		wantLive(t, x, Query{Role: grant.Role}, at, grant)
		wantLive(t, x, Query{Role: grant.Role, Task: grant.Task}, at, grant)
		if oldest, any := x.Oldest(Query{Role: grant.Role}, at); !any || oldest.ID != grant.ID {
			t.Errorf("at %s the oldest is %v %s", at, any, oldest.ID)
		}
		refused := errors.New("full")
		if err := x.Admit(some(time.Hour), at, func(counts Counts) error {
			if counts.Live(Query{Role: grant.Role}) > 0 {
				return refused
			}
			return nil
		}); !errors.Is(err, refused) {
			t.Errorf("at %s a limit of one admits a second grant: %v", at, err)
		}
	}
	// It is given out as overdue by the clock of the moment, and not before.
	if due := x.Overdue(1, now); len(due) != 0 {
		t.Errorf("%v are overdue although the clock was put right", due)
	}
	if due := x.Overdue(1, now.Add(2*time.Hour)); len(due) != 1 {
		t.Errorf("%v are overdue after two hours", due)
	}
	// One whose target is not configured as it was can't be revoked, and fills no limit for good.
	x.Discount(grant.ID)
	wantLive(t, x, Query{}, now)
	if open := x.Open(Query{}, now); len(open) != 1 {
		t.Errorf("%d grants are unfinished, want 1", len(open))
	}
}
