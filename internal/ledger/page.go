package ledger

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// maxLooked is how many grants are looked at for one page. What is left is for
// the next.
const maxLooked = 20_000

// Page is some of the finished grants, those with the latest ends first: by their ids, from the greatest on.
type Page struct {
	Grants  []Grant
	Next    string // what the next page comes after; empty at the end
	Damaged int    // records and segments that can't be read, or not to their end
}

// Selection chooses finished grants for a page.
type Selection struct {
	Query  Query             // what Wanted asks for of them, as far as it can be looked up
	From   time.Time         // those that had their latest end then or later
	After  string            // those with smaller ids; empty for all
	Limit  int               // how many, at least 1
	Skip   func(string) bool // whose ids are not to be looked at, as of grants that aren't finished
	Wanted func(Grant) bool
}

// follows says whether an id may be on the page.
func (s Selection) follows(id string) bool { return s.After == "" || id < s.After }

func descending(a, b string) int { return cmp.Compare(b, a) }

// Finished reads a page of the finished grants, from records and from segments.
// It looks at some 20,000 at most, so a page may have fewer than there are, and
// even none, and name the next all the same.
func Finished(ctx context.Context, storage logical.Storage, want Selection) (Page, error) {
	var page Page
	var buckets []string
	for _, prefix := range []string{HistoryPrefix, Prefix} {
		names, err := listBuckets(ctx, storage, prefix)
		if err != nil {
			return page, err
		}
		if prefix == HistoryPrefix {
			if names, err = lookup(ctx, storage, want.Query, names); err != nil {
				return page, err
			}
		}
		buckets = append(buckets, names...)
	}
	slices.SortFunc(buckets, descending)
	earliest, latest := bucket(want.From), want.After[:min(len(want.After), bucketDigits)]
	buckets = slices.DeleteFunc(slices.Compact(buckets), func(name string) bool {
		return name < earliest || (latest != "" && name > latest)
	})
	looked := 0
	for i, name := range buckets {
		more, err := page.read(ctx, storage, name, want, &looked)
		if err != nil || page.Next != "" {
			return page, err
		}
		looked += more
		if i < len(buckets)-1 && (len(page.Grants) >= want.Limit || looked >= maxLooked) {
			page.Next = name + strings.Repeat("2", 16) // the smallest id of the bucket
			return page, nil
		}
	}
	return page, nil
}

// read adds a bucket to the page, records first: what is packed meanwhile is then
// in a segment. Of the segments it looks at all.
func (p *Page) read(ctx context.Context, storage logical.Storage, bucket string, want Selection, looked *int) (segmented int, err error) {
	ids, err := storage.List(ctx, Prefix+bucket+"/")
	if err != nil {
		return 0, wrap(err, "ledger: listing bucket "+bucket)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !want.follows(id) || (want.Skip != nil && want.Skip(id)) })
	slices.SortFunc(ids, descending)
	found, recorded := map[string]Grant{}, map[string]bool{}
	last, wanted := "", len(p.Grants)
	for len(ids) > 0 && last == "" {
		some := ids[:min(len(ids), batch)]
		ids = ids[len(some):]
		*looked += len(some)
		for _, read := range readAll(ctx, storage, some) {
			switch {
			case errors.Is(read.err, ErrNotFound):
			case errors.Is(read.err, ErrDamaged):
				p.Damaged++
			case read.err != nil:
				return 0, read.err
			default:
				recorded[read.id] = true
				if read.grant.Finished() && want.Wanted(read.grant) {
					found[read.id] = read.grant
					wanted++
				}
			}
		}
		if len(ids) > 0 && (wanted >= want.Limit || *looked >= maxLooked) {
			last = some[len(some)-1]
		}
	}
	numbers, err := segments(ctx, storage, bucket)
	if err != nil {
		return 0, err
	}
	for _, number := range numbers {
		err := walkSegment(ctx, storage, bucket, number, func(grant Grant) {
			segmented++
			// A record is newer: what was found at a target after it was packed has one again.
			if recorded[grant.ID] || (want.Skip != nil && want.Skip(grant.ID)) {
				return
			}
			if want.follows(grant.ID) && grant.ID >= last && want.Wanted(grant) {
				found[grant.ID] = grant
				p.trim(found, want)
			}
		})
		switch {
		case errors.Is(err, ErrDamaged):
			p.Damaged++
		case err != nil && !errors.Is(err, ErrNotFound): // not one retired since
			return 0, err
		}
	}
	p.add(found, want)
	if p.Next == "" {
		p.Next = last
	}
	return segmented, nil
}

// trim drops what there will be no room for: a bucket's segments may have far more
// than a page. One more is kept, to tell that there is a next page.
func (p *Page) trim(found map[string]Grant, want Selection) {
	most := want.Limit - len(p.Grants) + 1
	if len(found) < most+batch {
		return
	}
	for _, id := range slices.SortedFunc(maps.Keys(found), descending)[most:] {
		delete(found, id)
	}
}

// add puts what was found in a bucket on the page, as far as there is room.
func (p *Page) add(found map[string]Grant, want Selection) {
	wanted := slices.SortedFunc(maps.Values(found), func(a, b Grant) int { return descending(a.ID, b.ID) })
	if room := want.Limit - len(p.Grants); len(wanted) > room {
		wanted = wanted[:room]
		p.Next = wanted[room-1].ID
	}
	p.Grants = append(p.Grants, wanted...)
}

// Find reads a grant from its record, or from the history. The error is
// ErrNotFound where it is in neither.
func Find(ctx context.Context, storage logical.Storage, id string) (Grant, error) {
	grant, err := Get(ctx, storage, id)
	if !errors.Is(err, ErrNotFound) {
		return grant, err
	}
	numbers, err := segments(ctx, storage, id[:bucketDigits])
	if err != nil {
		return Grant{}, err
	}
	for _, number := range numbers {
		grants, err := readSegment(ctx, storage, id[:bucketDigits], number)
		if at := slices.IndexFunc(grants, func(grant Grant) bool { return grant.ID == id }); at >= 0 {
			return grants[at], nil
		}
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
			return Grant{}, err
		}
	}
	return Grant{}, ErrNotFound
}
