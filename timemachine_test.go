package precision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ending"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/revocation"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// The time machine: random schedules of what restores, copies, failovers and clocks do to the engine. The target, whose
// clock is right, knows what works; that is compared with what the engine says.
const (
	machineSchedules = 500
	machineSteps     = 24
	machineSeed      = 20261129
)

// machineTarget is a target with sessions, which are denied by name in one policy, and logins, which are deleted.
type machineTarget struct {
	mu       sync.Mutex
	inline   string
	managed  map[int]revocation.Managed
	sessions map[revocation.Code]time.Time // and when each expires
	logins   map[string]time.Time
}

// denied are the codes of sessions, of all that there were, that the target denies.
func (m *machineTarget) denied() map[revocation.Code]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	documents := []string{m.inline}
	for _, managed := range m.managed {
		if managed.Attached {
			documents = append(documents, managed.Document)
		}
	}
	text, found := strings.Join(documents, "\n"), map[revocation.Code]bool{}
	for code := range m.sessions {
		for length := 8; length <= len(code.String()); length++ {
			if strings.Contains(text, `"*:`+code.String()[:length]+`*"`) {
				found[code] = true
			}
		}
	}
	return found
}

// Read implements revocation.Policies.
func (m *machineTarget) Read(context.Context) (revocation.Observed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return revocation.Observed{
		Inline: m.inline, Managed: maps.Clone(m.managed), Room: revocation.Room{Inline: 10240, Managed: 10}, At: time.Now().Truncate(time.Second),
	}, nil
}

func (m *machineTarget) change(call func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	call()
	return nil
}

func (m *machineTarget) set(slot int, document string) error {
	return m.change(func() {
		m.managed[slot] = revocation.Managed{Document: document, Attached: m.managed[slot].Attached}
	})
}

func (m *machineTarget) attached(slot int, is bool) error {
	return m.change(func() {
		m.managed[slot] = revocation.Managed{Document: m.managed[slot].Document, Attached: is}
	})
}

func (m *machineTarget) PutInline(_ context.Context, document string) error {
	return m.change(func() { m.inline = document })
}
func (m *machineTarget) DeleteInline(context.Context) error {
	return m.change(func() { m.inline = "" })
}
func (m *machineTarget) Create(_ context.Context, slot int, text string) error {
	return m.set(slot, text)
}
func (m *machineTarget) Update(_ context.Context, slot int, text string) error {
	return m.set(slot, text)
}
func (m *machineTarget) Attach(_ context.Context, slot int) error { return m.attached(slot, true) }
func (m *machineTarget) Detach(_ context.Context, slot int) error { return m.attached(slot, false) }
func (m *machineTarget) Delete(_ context.Context, slot int) error {
	return m.change(func() { delete(m.managed, slot) })
}

// machineProvider is one node's provider of the target. Roles whose names begin with "session" mint sessions.
type machineProvider struct {
	*machineTarget
	once      sync.Once
	ledger    provider.Ledger
	committer *revocation.Committer
}

const machineBase = "role/base"

func (p *machineProvider) Remember(known provider.Ledger) { p.ledger = known }

func (p *machineProvider) Base(handle provider.Handle) string {
	if handle["session"] == "" {
		return ""
	}
	return machineBase
}

func machineSession(handle provider.Handle) (revocation.Session, error) {
	name, err := revocation.ParseName(handle["session"])
	if err != nil {
		return revocation.Session{}, err
	}
	expiresAt, err := time.Parse(time.RFC3339, handle["expires_at"])
	return revocation.Session{Code: name.Code(), ExpiresAt: expiresAt}, err
}

// of makes the base's committer, as the AWS provider does.
func (p *machineProvider) of(ctx context.Context) (*revocation.Committer, error) {
	mount, id, err := p.ledger.Identity(ctx)
	if err != nil {
		return nil, err
	}
	p.once.Do(func() {
		chosen := func(sessions []revocation.Session) func(provider.Handle) bool {
			return func(handle provider.Handle) bool {
				one, err := machineSession(handle)
				return err == nil && slices.ContainsFunc(sessions, func(session revocation.Session) bool { return session.Code == one.Code })
			}
		}
		p.committer = revocation.New(p.ledger.Life(), revocation.Config{
			Mark: revocation.NewMark(mount, id), Policies: p.machineTarget, Now: p.ledger.Now, Elapsed: p.ledger.Elapsed, Longest: 12 * time.Hour,
			Recorded: func(ctx context.Context) (record revocation.Record, err error) {
				text, err := p.ledger.Recorded(ctx, machineBase)
				if err == nil && len(text) > 0 {
					err = json.Unmarshal(text, &record)
				}
				return record, err
			},
			Record: func(ctx context.Context, record revocation.Record) error {
				text, err := json.Marshal(record)
				if err != nil {
					return err
				}
				return p.ledger.Record(ctx, machineBase, text)
			},
			Announce: func(ctx context.Context, sessions []revocation.Session, why revocation.Reason) error {
				if why == revocation.AlreadyDenied {
					return p.ledger.FoundDenied(ctx, machineBase, chosen(sessions))
				}
				return p.ledger.EndEarly(ctx, machineBase, chosen(sessions))
			},
			Older: func(ctx context.Context, found revocation.Stamp, own uint64) error {
				return p.ledger.Older(ctx, machineBase, found.Epoch, own)
			},
			Passive: p.ledger.Passive,
		})
		go p.restore()
	})
	return p.committer, nil
}

func (p *machineProvider) restore() {
	grants, err := p.ledger.OnBase(p.ledger.Life(), machineBase)
	if err != nil {
		return
	}
	var live, revoked []revocation.Session
	for _, grant := range grants {
		one, err := machineSession(grant.Handle)
		if err != nil {
			continue
		}
		if one.ExpiresAt = grant.ExpiresAt; grant.Over {
			revoked = append(revoked, one)
		} else {
			live = append(live, one)
		}
	}
	_ = p.committer.Restore(live, revoked)
}

func (p *machineProvider) Keep(ctx context.Context, _ string) error {
	committer, err := p.of(ctx)
	if err != nil {
		return err
	}
	return committer.Check(ctx)
}

func (p *machineProvider) Forget(handle provider.Handle) {
	if one, err := machineSession(handle); err == nil && p.committer != nil {
		p.committer.Forget(one.Code)
	}
}

func (p *machineProvider) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	return provider.Policy(fmt.Sprintf("%s on %s until %s", granted.Action(), granted.Resource(), bounds.ExpiresAt.Format(time.RFC3339))), nil
}

func (p *machineProvider) Prepare(ctx context.Context, grant provider.Grant) (provider.Handle, error) {
	if !strings.HasPrefix(grant.Role, "session") {
		return provider.Handle{"name": grant.ID}, nil
	}
	if err := p.ledger.Await(ctx); err != nil {
		return nil, err
	}
	committer, err := p.of(ctx)
	if err != nil {
		return nil, err
	}
	name, err := committer.Draw(ctx, grant.Role, grant.Task, grant.ID[len(grant.ID)-16:], grant.ExpiresAt)
	if err != nil {
		return nil, err
	}
	return provider.Handle{"session": name.String(), "expires_at": grant.ExpiresAt.UTC().Format(time.RFC3339)}, nil
}

func (p *machineProvider) Mint(_ context.Context, handle provider.Handle, _ provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	minted := provider.Credential{Handle: handle, Fields: map[string]any{"secret": "x"}}
	one, err := machineSession(handle)
	if err != nil {
		return minted, p.change(func() { p.logins[handle["name"]] = expiresAt })
	}
	if !p.committer.Lives(one.Code) {
		return minted, &provider.NotMade{Reason: provider.ErrUnavailable}
	}
	return minted, p.change(func() { p.sessions[one.Code] = expiresAt })
}

func (p *machineProvider) Revoke(ctx context.Context, handle provider.Handle) error {
	one, err := machineSession(handle)
	if err != nil {
		return p.change(func() { delete(p.logins, handle["name"]) })
	}
	committer, err := p.of(ctx)
	if err != nil {
		return err
	}
	return committer.Revoke(ctx, one)
}

// machineGrant is a credential as its holder knows it.
type machineGrant struct {
	id     string
	role   string
	handle provider.Handle
	lease  *logical.Secret
	until  time.Time // of the lease, by the node's clock
}

// machineVault is what one Vault has stored: the mount, and its leases.
type machineVault struct {
	storage *logical.InmemStorage
	leases  map[string]machineGrant
	known   map[string]machineGrant // all that the ledger has ever had, but for damaged ones
}

func (v *machineVault) clone(t *testing.T) *machineVault {
	copied := &machineVault{storage: &logical.InmemStorage{}, leases: maps.Clone(v.leases), known: maps.Clone(v.known)}
	keys, err := logical.CollectKeys(t.Context(), v.storage)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		entry, err := v.storage.Get(t.Context(), key)
		if err == nil {
			err = copied.storage.Put(t.Context(), entry)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return copied
}

// machineNode is an engine that runs on what a Vault has stored, with a clock of its own.
type machineNode struct {
	*backend
	*machineVault
	ahead time.Duration
}

// machine is one schedule.
type machine struct {
	t       *testing.T
	random  *rand.Rand
	target  *machineTarget
	node    *machineNode
	copy    *machineNode // nil for none
	taken   *machineVault
	revoked map[string]machineGrant // what was reported as revoked, by whomever
	steps   []string
	kinds   map[string]int // of steps, by the first word of their names
	minted  int
	faults  int
	expiry  map[string]time.Time // at the target, by key
}

func (m *machine) fault(format string, values ...any) {
	m.faults++
	if m.faults == 1 {
		m.t.Errorf(format+"\nafter the steps %v", append(values, m.steps)...)
	}
}

func (m *machine) boot(vault *machineVault, ahead time.Duration) *machineNode {
	node := &machineNode{machineVault: vault, ahead: ahead}
	begun := time.Now()
	opened := &machineProvider{machineTarget: m.target}
	kind := provider.Type{Name: "machine", Open: func(provider.Settings, provider.Facts) (provider.Provider, error) { return opened, nil }}
	made, err := newBackend(m.t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), StorageView: vault.storage, BackendUUID: "uuid", System: &logical.StaticSystemView{
		DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour,
		ReplicationStateVal: consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled,
	}}, []provider.Type{kind}, func() time.Time { return time.Now().Add(node.ahead).Round(0) })
	if err != nil {
		m.t.Fatal(err)
	}
	node.backend = made
	made.grants.Elapsed = func() time.Duration { return time.Since(begun) }
	if err := made.initialize(m.t.Context(), &logical.InitializationRequest{Storage: vault.storage}); err != nil {
		m.t.Fatal(err)
	}
	synctest.Wait()
	return node
}

func (n *machineNode) stop() {
	n.Cleanup(context.Background())
	synctest.Wait()
}

func (n *machineNode) ask(operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	answer, err := n.HandleRequest(context.Background(), &logical.Request{Operation: operation, Path: path, Data: data, Storage: n.storage})
	if err == nil && answer != nil && answer.IsError() {
		err = answer.Error()
	}
	return answer, err
}

// now is the node's clock.
func (n *machineNode) now() time.Time { return time.Now().Add(n.ahead) }

// live waits and does what Vault and the engine do by themselves in half a minute: leases run out, and the sweeper runs.
func (m *machine) live(n *machineNode) {
	for id, grant := range n.leases {
		if n.now().Before(grant.until) {
			continue
		}
		if err := n.end(grant); err == nil || errors.Is(err, ledger.ErrDamaged) {
			delete(n.leases, id)
			if n == m.node {
				m.revoked[id] = grant
			}
		}
	}
	if err := n.periodic(context.Background(), &logical.Request{Storage: n.storage}); err != nil {
		m.t.Fatal(err)
	}
	time.Sleep(30 * time.Second)
	synctest.Wait()
}

// end revokes a lease.
func (n *machineNode) end(grant machineGrant) error {
	lease := *grant.lease
	text, err := json.Marshal(lease.InternalData)
	if err != nil {
		return err
	}
	lease.InternalData = nil
	if err := json.Unmarshal(text, &lease.InternalData); err != nil {
		return err
	}
	_, err = n.HandleRequest(context.Background(), &logical.Request{Operation: logical.RevokeOperation, Path: "creds/" + grant.role, Secret: &lease, Storage: n.storage})
	return err
}

// works says what of the credentials that were ever minted works at the target now.
func (m *machine) works() map[string]bool {
	denied, now, works := m.target.denied(), time.Now(), map[string]bool{}
	m.target.mu.Lock()
	defer m.target.mu.Unlock()
	for code, expiresAt := range m.target.sessions {
		works[code.String()] = now.Before(expiresAt) && !denied[code]
	}
	for login, expiresAt := range m.target.logins {
		works[login] = now.Before(expiresAt)
	}
	return works
}

// key names a credential at the target.
func (g machineGrant) key() string {
	if one, err := machineSession(g.handle); err == nil {
		return one.Code.String()
	}
	return g.handle["name"]
}

func (m *machine) mint() {
	role := []string{"session-a", "session-b", "login"}[m.random.IntN(3)]
	path := fmt.Sprintf("creds/%s/T-%d", role, m.random.IntN(3))
	answer, err := m.node.ask(logical.ReadOperation, path, map[string]any{"ttl": fmt.Sprintf("%dm", 5+m.random.IntN(120))})
	frozen := m.node.grants.KnownOlder() != nil
	if err != nil {
		if !frozen {
			m.fault("a mint failed: %v", err)
		}
		return
	}
	if frozen {
		m.fault("something was minted on storage that is known to be older than what it was")
	}
	data, err := readLease(answer.Secret)
	if err != nil {
		m.t.Fatal(err)
	}
	grant := machineGrant{id: data.GrantID, role: role, handle: data.Handle, lease: answer.Secret, until: m.node.now().Add(answer.Secret.TTL)}
	m.node.leases[grant.id], m.node.known[grant.id] = grant, grant
	m.minted++
	m.target.mu.Lock()
	defer m.target.mu.Unlock()
	if one, err := machineSession(grant.handle); err == nil {
		m.expiry[grant.key()] = m.target.sessions[one.Code]
	} else {
		m.expiry[grant.key()] = m.target.logins[grant.key()]
	}
}

// some is one of the leases, chosen at random; false where there is none.
func (m *machine) some() (machineGrant, bool) {
	ids := slices.Sorted(maps.Keys(m.node.leases))
	if len(ids) == 0 {
		return machineGrant{}, false
	}
	return m.node.leases[ids[m.random.IntN(len(ids))]], true
}

func (m *machine) revoke() {
	grant, any := m.some()
	if !any {
		return
	}
	// The revocation of one whose record is damaged may say so, and has done what it could.
	if err := m.node.end(grant); err != nil && !errors.Is(err, ledger.ErrDamaged) {
		m.fault("a revoke failed: %v", err)
		return
	}
	delete(m.node.leases, grant.id)
	m.revoked[grant.id] = grant
}

func (m *machine) bulk() {
	role := []string{"session-a", "login"}[m.random.IntN(2)]
	answer, err := m.node.ask(logical.UpdateOperation, "end", map[string]any{"role": role, "reason": "INC-1"})
	if err != nil || answer.Data["failed"] != 0 {
		m.fault("a bulk revocation failed: %v %v", answer, err)
		return
	}
	for id, grant := range m.node.known {
		if grant.role == role {
			m.revoked[id] = grant
		}
	}
}

// restart has another engine take the place, on this node or on one with another clock.
func (m *machine) restart(vault *machineVault, ahead time.Duration) {
	older := vault == m.node.machineVault && m.node.grants.KnownOlder() != nil
	m.node.stop()
	m.node = m.boot(vault, ahead)
	if older && m.node.grants.KnownOlder() == nil {
		m.fault("that the storage is older than what it was is not known after a restart")
	}
}

// damage spoils the record of a grant, which is noticed when it is read next.
func (m *machine) damage() {
	grant, any := m.some()
	if !any {
		return
	}
	key := ledger.Prefix + grant.id[:8] + "/" + grant.id
	if entry, err := m.node.storage.Get(m.t.Context(), key); err != nil || entry == nil {
		return
	}
	if err := m.node.storage.Put(m.t.Context(), &logical.StorageEntry{Key: key, Value: []byte("{")}); err != nil {
		m.t.Fatal(err)
	}
	delete(m.node.known, grant.id)
	m.restart(m.node.machineVault, m.node.ahead)
	if m.node.grants.Index.Damaged() == 0 {
		m.fault("a damaged record is not told of")
	}
}

func (m *machine) step() {
	offset := func() time.Duration { return time.Duration(m.random.IntN(241)-120) * time.Minute }
	var act func()
	var name string
	switch choice := m.random.IntN(20); {
	case choice < 6:
		act, name = m.mint, "mint"
	case choice < 9:
		act, name = m.revoke, "revoke"
	case choice < 10:
		act, name = m.bulk, "bulk revocation"
	case choice < 13:
		long := time.Duration(1+m.random.IntN(40)) * time.Minute
		act, name = func() { time.Sleep(long) }, "wait "+long.String()
	case choice < 14:
		act, name = func() { m.restart(m.node.machineVault, m.node.ahead) }, "restart"
	case choice < 15:
		ahead := offset()
		act, name = func() { m.restart(m.node.machineVault, ahead) }, "failover to a clock of "+ahead.String()
	case choice < 16:
		act, name = func() { m.taken = m.node.clone(m.t) }, "snapshot"
	case choice < 17 && m.taken != nil:
		act, name = func() { m.restart(m.taken.clone(m.t), m.node.ahead) }, "restore"
	case choice < 18 && m.copy == nil:
		act, name = func() { m.copy = m.boot(m.node.clone(m.t), 0) }, "copy"
	case choice < 18:
		act, name = func() { m.copy.stop(); m.copy = nil }, "the copy stops"
	case choice < 19:
		ahead := offset()
		act, name = func() { m.node.ahead = ahead }, "clock step to "+ahead.String()
	case m.node.grants.KnownOlder() != nil:
		act, name = m.accept, "accept the restore"
	default:
		act, name = m.damage, "damage"
	}
	m.steps = append(m.steps, name)
	m.kinds[strings.Fields(name)[0]]++
	act()
	m.live(m.node)
	m.check()
	if m.copy != nil {
		m.besides()
	}
}

func (m *machine) accept() {
	if _, err := m.node.ask(logical.UpdateOperation, "tidy", map[string]any{"accept_restore": true}); err != nil {
		m.fault("a restore can't be accepted: %v", err)
	}
	synctest.Wait()
}

// check holds what must hold after each step.
func (m *machine) check() {
	works := m.works()
	for id, grant := range m.revoked {
		if works[grant.key()] {
			m.fault("grant %s of role %s was revoked, and works", id, grant.role)
		}
	}
	listed, matched := map[string]bool{}, map[string]bool{}
	for _, grant := range m.node.grants.Index.Open(ledger.Query{}, m.node.now()) {
		listed[grant.ID] = true
	}
	for _, grant := range m.node.ends.Matching(ending.Filter{All: true}, time.Time{}) {
		matched[grant.ID] = true
	}
	counts := map[string]int{}
	for id, grant := range m.node.known {
		if !works[grant.key()] {
			continue
		}
		counts[grant.role]++
		if !listed[id] || !matched[id] {
			m.fault("grant %s of role %s works, and is in lists: %t, in a bulk revocation: %t", id, grant.role, listed[id], matched[id])
		}
	}
	for role, count := range counts {
		if counted := m.node.grants.Index.Count(ledger.Query{Role: role}, m.node.now()); counted < count {
			m.fault("%d grants of role %s work, and limits count %d", count, role, counted)
		}
	}
}

// besides lets the copy live for a while: nothing changes at the target but what expires by itself.
func (m *machine) besides() {
	synctest.Wait()
	before, denied := m.works(), m.target.denied()
	m.live(m.copy)
	after, still := m.works(), m.target.denied()
	now := time.Now()
	m.target.mu.Lock()
	defer m.target.mu.Unlock()
	for key, worked := range before {
		if worked && !after[key] && now.Before(m.expiry[key]) {
			m.fault("a copy has ended %s", key)
		}
	}
	for code, expiresAt := range m.target.sessions {
		if now.Before(expiresAt) && denied[code] != still[code] {
			m.fault("a copy has changed whether session %s is denied", code)
		}
	}
}

func TestTimeMachine(t *testing.T) {
	steps, minted, revoked, faults := 0, 0, 0, 0
	kinds := map[string]int{}
	for schedule := range machineSchedules {
		t.Run(fmt.Sprint(schedule), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &machine{
					t: t, random: rand.New(rand.NewPCG(machineSeed, uint64(schedule))), revoked: map[string]machineGrant{}, expiry: map[string]time.Time{}, kinds: kinds,
					target: &machineTarget{managed: map[int]revocation.Managed{}, sessions: map[revocation.Code]time.Time{}, logins: map[string]time.Time{}},
				}
				m.node = m.boot(&machineVault{storage: &logical.InmemStorage{}, leases: map[string]machineGrant{}, known: map[string]machineGrant{}}, 0)
				if _, err := m.node.ask(logical.CreateOperation, "config/cloud", map[string]any{"type": "machine"}); err != nil {
					t.Fatal(err)
				}
				for _, role := range []string{"session-a", "session-b", "login"} {
					if _, err := m.node.ask(logical.CreateOperation, "roles/"+role, map[string]any{"target": "cloud", "action": "reset", "resource": "one", "ttl": "1h", "max_ttl": "4h"}); err != nil {
						t.Fatal(err)
					}
				}
				// Another ledger id would be another mark, whose policies are others.
				if _, err := m.node.ask(logical.ReadOperation, "tidy-status", nil); err != nil {
					t.Fatal(err)
				}
				for range machineSteps {
					m.step()
				}
				m.node.stop()
				if m.copy != nil {
					m.copy.stop()
				}
				steps, minted, revoked, faults = steps+len(m.steps), minted+m.minted, revoked+len(m.revoked), faults+m.faults
			})
		})
	}
	for _, kind := range []string{
		"mint", "revoke", "bulk", "wait", "restart", "failover", "snapshot", "restore", "copy", "clock", "accept", "damage",
	} {
		if kinds[kind] == 0 {
			t.Errorf("no schedule had a step of kind %s", kind)
		}
	}
	figures.Log(t, "time machine: %d schedules, %d steps, %d credentials, %d of them revoked; violations: %d; steps by kind: %v", machineSchedules, steps, minted, revoked, faults, kinds)
}
