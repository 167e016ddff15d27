package ledger

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// The keys that the index finds grants by.
const (
	byRole = iota
	byTask
	byEntity
	byTarget
	byBase
	byInstalled
	keys
)

// entry is a grant as the index keeps it: what many grants share is kept once.
type entry struct {
	id                                                    string
	state, system, action, resource, displayName, because unique.Handle[string]
	companions, conditions, sourceIP, accessor            unique.Handle[string]
	request, atEnd                                        unique.Handle[string]
	approval, minted, filled                              unique.Handle[string]
	handle                                                packed
	issuedAt, expiresAt, endedAt                          int64 // ns since 1970; 0: not yet

	groups  [keys]*group
	places  [keys]int32 // in the groups
	queue   *queue
	place   int32 // in the queue
	counted bool  // as open, in its groups
	due     int64 // when the queue gives it out, ns since 1970
}

func newEntry(grant Grant) *entry {
	return &entry{
		id: grant.ID, state: unique.Make(string(grant.State)), because: unique.Make(string(grant.Ending)),
		system: unique.Make(grant.System), action: unique.Make(grant.Action), resource: unique.Make(grant.Resource),
		companions: unique.Make(join(grant.Companions)), conditions: unique.Make(grant.Conditions), sourceIP: unique.Make(grant.SourceIP),
		displayName: unique.Make(grant.DisplayName), accessor: unique.Make(grant.Accessor), approval: unique.Make(grant.Approval),
		minted: unique.Make(joinSome(grant.RoleVersion, grant.Options)), filled: unique.Make(joinSome(grant.PolicySHA256, grant.Filled)), handle: pack(grant.Handle),
		request: unique.Make(joinSome(grant.EndedBy, grant.EndReason, grant.Unconfirmed, grant.LeaseID)), atEnd: unique.Make(flatten(grant.AtEnd)),
		issuedAt: nanoseconds(grant.IssuedAt), expiresAt: nanoseconds(grant.ExpiresAt), endedAt: nanoseconds(grant.EndedAt),
	}
}

func (e *entry) grant() Grant {
	request, minted, filled := append(split(e.request.Value()), "", "", "", ""), append(split(e.minted.Value()), "", ""), append(split(e.filled.Value()), "", "")
	return Grant{
		ID: e.id, State: State(e.state.Value()), Ending: Cause(e.because.Value()),
		Target: e.key(byTarget), System: e.system.Value(), Base: e.key(byBase), Installed: e.key(byInstalled), Role: e.key(byRole), Task: e.key(byTask),
		Action: e.action.Value(), Resource: e.resource.Value(),
		Companions: split(e.companions.Value()), Conditions: e.conditions.Value(), SourceIP: e.sourceIP.Value(),
		EntityID: e.key(byEntity), DisplayName: e.displayName.Value(), Accessor: e.accessor.Value(), Approval: e.approval.Value(), Handle: e.handle.unpack(),
		IssuedAt: moment(e.issuedAt), ExpiresAt: moment(e.expiresAt), EndedAt: moment(e.endedAt),
		RoleVersion: minted[0], Options: minted[1], PolicySHA256: filled[0], Filled: filled[1],
		EndedBy: request[0], EndReason: request[1], Unconfirmed: request[2], LeaseID: request[3], AtEnd: unflatten(e.atEnd.Value()),
	}
}

func (e *entry) key(by int) string {
	if e.groups[by] == nil {
		return ""
	}
	return e.groups[by].name
}

func (e *entry) finished() bool {
	return Grant{State: State(e.state.Value())}.Finished()
}

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// group is the grants that one key's value names.
type group struct {
	name    string
	members []*entry
	open    int // members that may still work at their targets
}

func (g *group) add(e *entry, by int) {
	e.groups[by], e.places[by] = g, int32(len(g.members))
	g.members = append(g.members, e)
}

// remove leaves the entry's own mark of the group: it still has its name.
func (g *group) remove(e *entry, by int) {
	last := len(g.members) - 1
	moved := g.members[last]
	g.members[e.places[by]], moved.places[by] = moved, e.places[by]
	g.members[last] = nil
	g.members = g.members[:last]
}

// queue is a heap of entries by the time that they are due at; it implements
// heap.Interface.
type queue []*entry

func (q *queue) Len() int           { return len(*q) }
func (q *queue) Less(i, j int) bool { return (*q)[i].due < (*q)[j].due }

func (q *queue) Swap(i, j int) {
	items := *q
	items[i], items[j] = items[j], items[i]
	items[i].place, items[j].place = int32(i), int32(j)
}

func (q *queue) Push(item any) {
	e := item.(*entry)
	e.queue, e.place = q, int32(len(*q))
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	e.queue = nil
	return e
}

// packed is a handle in a third of a map's space. Its keys are the same for
// most grants of a target.
type packed struct {
	keys   unique.Handle[string]
	values string
}

func pack(handle provider.Handle) packed {
	names := slices.Sorted(maps.Keys(handle))
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = handle[name]
	}
	return packed{keys: unique.Make(join(names)), values: join(values)}
}

func (p packed) unpack() provider.Handle {
	names, values := split(p.keys.Value()), split(p.values)
	if len(names) == 0 {
		return nil
	}
	handle := make(provider.Handle, len(names))
	for i, name := range names {
		handle[name] = values[i]
	}
	return handle
}

// joinSome is empty where all texts are.
func joinSome(texts ...string) string {
	if slices.IndexFunc(texts, func(text string) bool { return text != "" }) < 0 {
		return ""
	}
	return join(texts)
}

// flatten writes pairs as one text, which is the same for equal pairs.
func flatten(pairs map[string]string) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		texts = append(texts, name, pairs[name])
	}
	return join(texts)
}

func unflatten(joined string) map[string]string {
	texts := split(joined)
	if len(texts) == 0 {
		return nil
	}
	pairs := make(map[string]string, len(texts)/2)
	for i := 0; i+1 < len(texts); i += 2 {
		pairs[texts[i]] = texts[i+1]
	}
	return pairs
}

// join writes each text behind its length, so that any text can be told apart.
func join(texts []string) string {
	size := 0
	for _, text := range texts {
		size += len(text) + binary.MaxVarintLen16
	}
	joined := make([]byte, 0, size)
	for _, text := range texts {
		joined = append(binary.AppendUvarint(joined, uint64(len(text))), text...)
	}
	return string(joined)
}

func split(joined string) []string {
	var texts []string
	for reader := strings.NewReader(joined); reader.Len() > 0; {
		length, err := binary.ReadUvarint(reader)
		if err != nil || length > uint64(reader.Len()) {
			return texts // join writes nothing of the kind
		}
		start := len(joined) - reader.Len()
		texts = append(texts, joined[start:start+int(length)])
		reader.Reset(joined[start+int(length):])
		joined = joined[start+int(length):]
	}
	return texts
}
