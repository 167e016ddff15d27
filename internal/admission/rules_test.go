package admission

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

func mustParse(t *testing.T, texts Texts) Rules {
	t.Helper()
	rules, err := Parse(texts)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// friday is a release window, and a Friday's opening and closing.
var friday = Texts{Window: "0 22 * * 5", WindowDuration: 4 * time.Hour, WindowTimezone: berlin}

const (
	opening = "2026-11-27T22:00:00+01:00"
	closing = "2026-11-28T02:00:00+01:00"
)

// denied demands an error of status 403.
func denied(t *testing.T, name string, err error, says string) {
	t.Helper()
	if refused := new(invalid.Denied); !errors.As(err, &refused) {
		t.Errorf("%s: %v, want a denial", name, err)
	} else if !contains(err.Error(), says) {
		t.Errorf("%s: %q does not say %q", name, err, says)
	}
}

// Whatever its TTL, what is read ends with the window, and the last second of it is
// enough for one of a second.
func TestCut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		texts   Texts
		now     string
		ttl     time.Duration
		want    time.Duration
		warning string // empty where nothing is cut
	}{
		"fits":                          {friday, opening, time.Hour, time.Hour, ""},
		"fits to the second":            {friday, opening, 4 * time.Hour, 4 * time.Hour, ""},
		"a second too long":             {friday, opening, 4*time.Hour + time.Second, 4 * time.Hour, closing},
		"late":                          {friday, "2026-11-28T01:30:00+01:00", time.Hour, 30 * time.Minute, "ttl of 1h0m0s was cut to 30m0s: the role's window closes at " + closing},
		"a second before the end":       {friday, "2026-11-28T01:59:59+01:00", time.Hour, time.Second, closing},
		"the last second, for a second": {friday, "2026-11-28T01:59:59+01:00", time.Second, time.Second, ""},
		"within a second":               {friday, "2026-11-28T01:59:50.4+01:00", time.Hour, 9 * time.Second, closing},
		"over the spring change": {Texts{Window: "0 1 29 3 *", WindowDuration: 2 * time.Hour, WindowTimezone: berlin},
			"2026-03-29T01:30:00+01:00", 3 * time.Hour, 90 * time.Minute, "2026-03-29T04:00:00+02:00"},
		"over the autumn change": {Texts{Window: "0 1 25 10 *", WindowDuration: 2 * time.Hour, WindowTimezone: berlin},
			"2026-10-25T01:30:00+02:00", 3 * time.Hour, 90 * time.Minute, "2026-10-25T02:00:00+01:00"},
		"over the spring change, New York": {Texts{Window: "0 1 8 3 *", WindowDuration: 2 * time.Hour, WindowTimezone: newYork},
			"2026-03-08T01:30:00-05:00", 3 * time.Hour, 90 * time.Minute, "2026-03-08T04:00:00-04:00"},
		"over the autumn change, New York": {Texts{Window: "0 0 1 11 *", WindowDuration: 2 * time.Hour, WindowTimezone: newYork},
			"2026-11-01T00:30:00-04:00", 3 * time.Hour, 90 * time.Minute, "2026-11-01T01:00:00-05:00"},
		"not_after":                 {Texts{NotAfter: "2026-11-28T00:00:00Z"}, "2026-11-27T23:50:00Z", time.Hour, 10 * time.Minute, "2026-11-28T00:00:00Z"},
		"not_after in the window":   {Texts{Window: friday.Window, WindowDuration: friday.WindowDuration, WindowTimezone: berlin, NotAfter: "2026-11-28T00:30:00+01:00"}, opening, 4 * time.Hour, 150 * time.Minute, "2026-11-28T00:30:00+01:00"},
		"not_after past the window": {Texts{Window: friday.Window, WindowDuration: friday.WindowDuration, WindowTimezone: berlin, NotAfter: "2026-12-28T00:30:00+01:00"}, opening, 5 * time.Hour, 4 * time.Hour, closing},
		"no window":                 {Texts{RequireTask: true}, opening, 100 * time.Hour, 100 * time.Hour, ""},
		"two windows that overlap":  {Texts{Window: "0 22,23 * * 5", WindowDuration: 2 * time.Hour, WindowTimezone: berlin}, opening, 4 * time.Hour, 3 * time.Hour, "2026-11-28T01:00:00+01:00"},
	} {
		rules, now := mustParse(t, test.texts), at(t, test.now)
		until, err := rules.Admit(Request{Task: "T-1"}, now, now.Add(test.ttl+time.Second))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ttl, warning := rules.Cut(test.ttl, now, until)
		if ttl != test.want || (warning == "") != (test.warning == "") || !contains(warning, test.warning) {
			t.Errorf("%s: %s (%q), want %s (%q)", name, ttl, warning, test.want, test.warning)
		}
		if !until.IsZero() && now.Add(ttl).After(until) {
			t.Errorf("%s: what lives for %s outlives the window, which closes at %s", name, ttl, until)
		}
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	bounded := func(before, after string) Texts { return Texts{NotBefore: before, NotAfter: after} }
	both := friday
	both.NotBefore, both.NotAfter = "2026-12-01T00:00:00Z", "2026-12-04T22:00:00Z"
	for name, test := range map[string]struct {
		texts Texts
		now   string
		says  string // empty where it is open
	}{
		"a second before":             {friday, "2026-11-27T21:59:59+01:00", "it opens at " + opening + ", for 4h0m0s"},
		"at the start":                {friday, opening, ""},
		"a second after the start":    {friday, "2026-11-27T22:00:01+01:00", ""},
		"a second before the end":     {friday, "2026-11-28T01:59:59+01:00", ""},
		"less than a second before":   {friday, "2026-11-28T01:59:59.001+01:00", "closes in less than a second; it opens at 2026-12-04T22:00:00+01:00"},
		"at the end":                  {friday, closing, "it opens at 2026-12-04T22:00:00+01:00"},
		"a second after the end":      {friday, "2026-11-28T02:00:01+01:00", "it opens at 2026-12-04T22:00:00+01:00"},
		"another zone's Friday":       {friday, "2026-11-27T22:30:00-08:00", "it opens at 2026-12-04T22:00:00+01:00"},
		"not_before, a second before": {bounded("2026-11-27T10:00:00Z", ""), "2026-11-27T09:59:59Z", "it opens at 2026-11-27T10:00:00Z"},
		"not_before, at":              {bounded("2026-11-27T10:00:00Z", ""), "2026-11-27T10:00:00Z", ""},
		"not_before, a second after":  {bounded("2026-11-27T10:00:00Z", ""), "2026-11-27T10:00:01Z", ""},
		"not_before, in another zone": {bounded("2026-11-27T10:00:00+05:30", ""), "2026-11-27T04:29:59Z", "it opens at 2026-11-27T04:30:00Z"},
		"not_after, a second before":  {bounded("", "2026-11-27T10:00:00Z"), "2026-11-27T09:59:59Z", ""},
		"not_after, at":               {bounded("", "2026-11-27T10:00:00Z"), "2026-11-27T10:00:00Z", "it does not open any more"},
		"not_after, a second after":   {bounded("", "2026-11-27T10:00:00Z"), "2026-11-27T10:00:01Z", "it does not open any more"},
		"both, before":                {both, "2026-11-27T22:30:00+01:00", "it opens at 2026-12-04T22:00:00+01:00"},
		"both, in the last second":    {both, "2026-12-04T22:59:59+01:00", ""},
		"both, at the end":            {both, "2026-12-04T23:00:00+01:00", "it does not open any more"},
		"in the gap, before it":       {Texts{Window: "30 2 29 3 *", WindowDuration: time.Hour, WindowTimezone: berlin}, "2026-03-29T01:59:59+01:00", "it opens at 2026-03-29T03:00:00+02:00"},
		"the second of two, closed":   {Texts{Window: "30 2 25 10 *", WindowDuration: 10 * time.Minute, WindowTimezone: berlin}, "2026-10-25T02:35:00+01:00", "it opens at 2027-10-25T02:30:00+02:00"},
		"nothing is said":             {Texts{}, opening, ""},
	} {
		now := at(t, test.now)
		_, err := mustParse(t, test.texts).Admit(Request{}, now, now.Add(time.Hour))
		if test.says != "" {
			denied(t, name, err, test.says)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTask(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		texts Texts
		task  string
		says  string // empty where it is admitted
	}{
		"none":                        {Texts{}, "", ""},
		"any":                         {Texts{}, "x", ""},
		"none, required":              {Texts{RequireTask: true}, "", "missing"},
		"one, required":               {Texts{RequireTask: true}, "x", ""},
		"matches":                     {Texts{TaskPattern: "JIRA-[0-9]+"}, "JIRA-1", ""},
		"matches in part":             {Texts{TaskPattern: "JIRA-[0-9]+"}, "JIRA-1x", "JIRA-[0-9]+"},
		"matches in part, before":     {Texts{TaskPattern: "JIRA-[0-9]+"}, "xJIRA-1", "JIRA-[0-9]+"},
		"a line of it matches":        {Texts{TaskPattern: "(?m)^JIRA-[0-9]+$"}, "JIRA-1\nx", "invalid task"},
		"alternatives, whole":         {Texts{TaskPattern: "JIRA-[0-9]+|INC-[0-9]+"}, "INC-1", ""},
		"alternatives, in part":       {Texts{TaskPattern: "JIRA-[0-9]+|INC-[0-9]+"}, "JIRA-1 or INC-", "invalid task"},
		"none, and a pattern":         {Texts{TaskPattern: "JIRA-[0-9]+"}, "", "missing"},
		"none, and a pattern of it":   {Texts{TaskPattern: "(JIRA-[0-9]+)?"}, "", ""},
		"none, required all the same": {Texts{TaskPattern: "(JIRA-[0-9]+)?", RequireTask: true}, "", "missing"},
	} {
		_, err := mustParse(t, test.texts).Admit(Request{Task: test.task}, at(t, opening), at(t, closing))
		mendable := new(invalid.Error)
		switch {
		case test.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.says != "" && (!errors.As(err, &mendable) || !contains(err.Error(), test.says)):
			t.Errorf("%s: %v does not say %q", name, err, test.says)
		}
	}
}

const (
	alice = "11111111-1111-1111-1111-111111111111"
	bob   = "22222222-2222-2222-2222-222222222222"
	ops   = "33333333-3333-3333-3333-333333333333"
	devs  = "44444444-4444-4444-4444-444444444444.a1b2c"
)

func TestCaller(t *testing.T) {
	t.Parallel()
	groups := func(ids ...string) func() ([]string, error) { return func() ([]string, error) { return ids, nil } }
	fault := errors.New("vault is gone")
	from := func(text string) netip.Addr { return netip.MustParseAddr(text) }
	networks := Texts{BoundCIDRs: []string{"10.1.0.0/16", "192.0.2.7", "2001:db8::/32"}}
	people := Texts{BoundEntityIDs: []string{alice}}
	members := Texts{BoundGroupIDs: []string{ops, devs}}
	for name, test := range map[string]struct {
		texts  Texts
		caller Caller
		says   string // empty where it is admitted
	}{
		"no bounds":                {Texts{}, Caller{}, ""},
		"in a network":             {networks, Caller{Address: from("10.1.255.255")}, ""},
		"in another":               {networks, Caller{Address: from("2001:db8:ffff::1")}, ""},
		"the address":              {networks, Caller{Address: from("192.0.2.7")}, ""},
		"IPv4 as IPv6":             {networks, Caller{Address: from("::ffff:10.1.2.3")}, ""},
		"beside the network":       {networks, Caller{Address: from("10.2.0.0")}, "not for callers from 10.2.0.0"},
		"beside the address":       {networks, Caller{Address: from("192.0.2.8")}, "192.0.2.8"},
		"beside IPv6":              {networks, Caller{Address: from("2001:db9::1")}, "2001:db9::1"},
		"no address":               {networks, Caller{}, "did not say"},
		"IPv4 is no IPv6":          {Texts{BoundCIDRs: []string{"::/0"}}, Caller{Address: from("10.1.2.3")}, "10.1.2.3"},
		"any IPv4":                 {Texts{BoundCIDRs: []string{"0.0.0.0/0"}}, Caller{Address: from("10.1.2.3")}, ""},
		"the entity":               {people, Caller{EntityID: alice}, ""},
		"another entity":           {people, Caller{EntityID: bob}, bob},
		"no entity":                {people, Caller{}, "belongs to none"},
		"a member":                 {members, Caller{EntityID: bob, Groups: groups("x", ops)}, ""},
		"a member, in a namespace": {members, Caller{EntityID: bob, Groups: groups(devs)}, ""},
		"no member":                {members, Caller{EntityID: bob, Groups: groups("x")}, "groups"},
		"of no group":              {members, Caller{EntityID: bob, Groups: groups()}, "groups"},
		"of the group, no entity":  {members, Caller{Groups: groups(ops)}, "belongs to none"},
		"entity and group":         {Texts{BoundEntityIDs: []string{alice}, BoundGroupIDs: []string{ops}}, Caller{EntityID: alice, Groups: groups(ops)}, ""},
		"entity, not the group":    {Texts{BoundEntityIDs: []string{alice}, BoundGroupIDs: []string{ops}}, Caller{EntityID: alice, Groups: groups(devs)}, "groups"},
		"group, not the entity":    {Texts{BoundEntityIDs: []string{alice}, BoundGroupIDs: []string{ops}}, Caller{EntityID: bob, Groups: groups(ops)}, bob},
		"all but the network":      {Texts{BoundCIDRs: []string{"10.0.0.0/8"}, BoundEntityIDs: []string{alice}}, Caller{EntityID: alice, Address: from("11.0.0.0")}, "11.0.0.0"},
	} {
		_, err := mustParse(t, test.texts).Admit(Request{Caller: test.caller}, at(t, opening), at(t, closing))
		if test.says != "" {
			denied(t, name, err, test.says)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := mustParse(t, members).Admit(Request{Caller: Caller{EntityID: bob, Groups: func() ([]string, error) { return []string{ops}, fault }}}, at(t, opening), at(t, closing))
	if !errors.Is(err, fault) {
		t.Errorf("groups that Vault does not tell: %v", err)
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		limits           Limits
		ofRole, ofTask   int
		full, fullOfTask bool
	}{
		"no limit":            {Limits{}, 1000, 1000, false, false},
		"room":                {Limits{Active: 2}, 1, 1, false, false},
		"full":                {Limits{Active: 2}, 2, 1, true, false},
		"over full":           {Limits{Active: 2}, 3, 1, true, false},
		"room for the task":   {Limits{PerTask: 1}, 9, 0, false, false},
		"full for the task":   {Limits{PerTask: 1}, 9, 1, true, true},
		"full for both":       {Limits{Active: 2, PerTask: 1}, 2, 1, true, true},
		"full for the others": {Limits{Active: 2, PerTask: 1}, 2, 0, true, false},
	} {
		count := func(live int) func() int { return func() int { return live } }
		ofTask, denied := test.limits.Room(count(test.ofRole), count(test.ofTask))
		if (denied != nil) != test.full || ofTask != test.fullOfTask {
			t.Errorf("%s: %t, %v", name, ofTask, denied)
		}
	}
}

func TestBadRules(t *testing.T) {
	t.Parallel()
	many := slices.Repeat([]string{"10.0.0.0/8"}, maxBounds+1)
	for name, test := range map[string]struct {
		texts Texts
		says  []string
	}{
		"pattern":                     {Texts{TaskPattern: "JIRA-("}, []string{"task_pattern", "JIRA-(", "RE2"}},
		"pattern that ends its group": {Texts{TaskPattern: "a)|(b"}, []string{"task_pattern", "RE2"}},
		"look-ahead":                  {Texts{TaskPattern: "(?!x)"}, []string{"task_pattern", "RE2"}},
		"huge pattern":                {Texts{TaskPattern: strings.Repeat("a", 257)}, []string{"task_pattern", "256"}},
		"window without a duration":   {Texts{Window: "0 22 * * 5"}, []string{"window_duration", "missing"}},
		"duration without a window":   {Texts{WindowDuration: time.Hour}, []string{"window_duration", "window"}},
		"zone without a window":       {Texts{WindowTimezone: berlin}, []string{"window_timezone", "window"}},
		"odd window":                  {Texts{Window: "fridays", WindowDuration: time.Hour}, []string{"window", "fridays", "0 22 * * 5"}},
		"odd zone":                    {Texts{Window: "0 22 * * 5", WindowDuration: time.Hour, WindowTimezone: "CEST"}, []string{"window_timezone", "CEST", "Europe/Berlin"}},
		"not_before, a date":          {Texts{NotBefore: "2026-11-27"}, []string{"not_before", "2026-11-27", "+01:00"}},
		"not_before, no zone":         {Texts{NotBefore: "2026-11-27T22:00:00"}, []string{"not_before", "Z for UTC"}},
		"not_after, a fraction":       {Texts{NotAfter: "2026-11-27T22:00:00.5Z"}, []string{"not_after", "whole seconds"}},
		"not_after, a number":         {Texts{NotAfter: "1795816800"}, []string{"not_after", "1795816800"}},
		"not_after, no such day":      {Texts{NotAfter: "2026-02-30T00:00:00Z"}, []string{"not_after", "2026-02-30"}},
		"not_after, before":           {Texts{NotBefore: "2026-11-27T22:00:00Z", NotAfter: "2026-11-27T22:00:00Z"}, []string{"not_after", "not_before", "later"}},
		"negative limit":              {Texts{MaxActive: -1}, []string{"max_active", "-1", "0 for any"}},
		"negative limit of a task":    {Texts{MaxActivePerTask: -1, RequireTask: true}, []string{"max_active_per_task", "-1"}},
		"limit of no task":            {Texts{MaxActivePerTask: 1}, []string{"max_active_per_task", "require_task=true"}},
		"limit, task may be empty":    {Texts{MaxActivePerTask: 1, TaskPattern: "x*"}, []string{"max_active_per_task", "require_task=true"}},
		"odd on_limit":                {Texts{OnLimit: "kill"}, []string{"on_limit", "kill", "refuse or replace"}},
		"on_limit in another case":    {Texts{OnLimit: "Replace"}, []string{"on_limit", "Replace", "refuse or replace"}},
		"no network":                  {Texts{BoundCIDRs: []string{"10.1"}}, []string{"bound_cidrs", "10.1", "10.1.0.0/16"}},
		"empty network":               {Texts{BoundCIDRs: []string{"10.0.0.0/8", ""}}, []string{"bound_cidrs", `""`}},
		"network with a host":         {Texts{BoundCIDRs: []string{"10.1.2.3/8"}}, []string{"bound_cidrs", "10.1.2.3/8", "10.0.0.0/8"}},
		"mapped network":              {Texts{BoundCIDRs: []string{"::ffff:10.0.0.0/104"}}, []string{"bound_cidrs", "IPv4"}},
		"address with a zone":         {Texts{BoundCIDRs: []string{"fe80::1%eth0"}}, []string{"bound_cidrs", "fe80::1%eth0"}},
		"network too long":            {Texts{BoundCIDRs: []string{"10.0.0.0/33"}}, []string{"bound_cidrs", "/33"}},
		"too many networks":           {Texts{BoundCIDRs: many}, []string{"bound_cidrs", "100"}},
		"name of an entity":           {Texts{BoundEntityIDs: []string{"alice"}}, []string{"bound_entity_ids", "alice", "identity/entity/name"}},
		"name of a group":             {Texts{BoundGroupIDs: []string{"ops"}}, []string{"bound_group_ids", "ops", "identity/group/name"}},
		"empty entity":                {Texts{BoundEntityIDs: []string{""}}, []string{"bound_entity_ids", `""`}},
		"wildcard for a group":        {Texts{BoundGroupIDs: []string{"*"}}, []string{"bound_group_ids", "*"}},
	} {
		_, err := Parse(test.texts)
		if mendable := new(invalid.Error); !errors.As(err, &mendable) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, part := range test.says {
			if !contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", name, err, part)
			}
		}
	}
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		texts Texts
		says  string // empty for nothing
	}{
		"nothing":            {Texts{}, ""},
		"a window":           {friday, ""},
		"over":               {Texts{NotAfter: "2026-11-27T00:00:00Z"}, "no credential can be read"},
		"never opens":        {Texts{Window: "0 0 1 1 *", WindowDuration: time.Hour, NotAfter: "2026-12-31T00:00:00Z"}, "no credential can be read"},
		"replaces":           {Texts{MaxActive: 1, OnLimit: Replace}, "can end another's"},
		"nothing to replace": {Texts{OnLimit: Replace}, ""},
	} {
		advice := strings.Join(mustParse(t, test.texts).Advice(at(t, opening)), "\n")
		if (advice == "") != (test.says == "") || !contains(advice, test.says) {
			t.Errorf("%s: %q, want %q", name, advice, test.says)
		}
	}
}
