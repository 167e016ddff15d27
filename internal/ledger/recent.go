package ledger

// recent are the finished grants whose records are not packed into segments yet, as far as they are known: what each
// may be looked for by, so that a lookup reads no record for nothing.
type recent map[string]map[string]recentNames // by bucket and id

// recentNames are hashes of a grant's role, task, entity and target.
type recentNames [4]uint32

var recentKeys = [len(recentNames{})]int{byRole, byTask, byEntity, byTarget}

func (q Query) hashes() (names recentNames) {
	values := q.values()
	for i, by := range recentKeys {
		if values[by] != "" {
			names[i] = uint32(lookupHash(by, values[by]))
		}
	}
	return names
}

func (g Grant) names() Query {
	return Query{Role: g.Role, Task: g.Task, EntityID: g.EntityID, Target: g.Target, Base: g.Base, Installed: g.Installed}
}

func (r recent) add(grant Grant) {
	if !IsID(grant.ID) {
		return // no record is of it
	}
	name := grant.ID[:bucketDigits]
	if r[name] == nil {
		r[name] = map[string]recentNames{}
	}
	r[name][grant.ID[bucketDigits:]] = grant.names().hashes()
}

func (r recent) remove(id string) {
	if !IsID(id) {
		return
	}
	name := id[:bucketDigits]
	if delete(r[name], id[bucketDigits:]); len(r[name]) == 0 {
		delete(r, name)
	}
}

// Passes says whether a grant is known not to be among the finished ones that a query names: the record of any other
// has to be read.
func (x *Index) Passes(id string, query Query) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, known := x.byID[id]; known {
		return !e.finished() || !e.matches(query)
	}
	if !IsID(id) {
		return false
	}
	names, known := x.recent[id[:bucketDigits]][id[bucketDigits:]]
	for i, wanted := range query.hashes() {
		if known && wanted != 0 && wanted != names[i] {
			return true
		}
	}
	return false
}

// Packed is told that the finished grants of a bucket are in segments by now.
func (x *Index) Packed(bucket string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.recent, bucket)
}
