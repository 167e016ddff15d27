package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// batch is how many records are read before what they hold is packed.
const batch = 1024

// Packed is what became of a bucket.
type Packed struct {
	Grants     int     // moved into segments
	Damaged    int     // records that can't be read; they stay where they are
	Unfinished []Grant // they stay, too, and are to be ended first
}

// PastBuckets lists the buckets with records whose grants have all had their
// latest end by then.
func PastBuckets(ctx context.Context, storage logical.Storage, by time.Time) ([]string, error) {
	buckets, err := listBuckets(ctx, storage, Prefix)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(buckets, func(name string) bool {
		latest, err := LatestEnd(name)
		return err != nil || latest.After(by)
	}), nil
}

// Pack moves the finished grants of a bucket that has gone by from their records
// into segments. A segment is written before its records are deleted: what a
// crash leaves in both places is known by its id, and deleted the next time. Only
// one caller at a time.
func Pack(ctx context.Context, storage logical.Storage, bucket string) (Packed, error) {
	var packed Packed
	if !bucketShape.MatchString(bucket) {
		return packed, fmt.Errorf("%w: %q is not a bucket", ErrDamaged, bucket)
	}
	ids, err := storage.List(ctx, Prefix+bucket+"/")
	if err != nil || len(ids) == 0 {
		return packed, wrap(err, "ledger: listing bucket "+bucket)
	}
	slices.Sort(ids)
	done, next, err := segmented(ctx, storage, bucket)
	if err != nil {
		return packed, err
	}
	segment := newSegment(bucket, next)
	for some := range slices.Chunk(ids, batch) {
		for _, read := range readAll(ctx, storage, some) {
			_, twice := done[read.id]
			switch {
			case errors.Is(read.err, ErrNotFound):
			case errors.Is(read.err, ErrDamaged):
				packed.Damaged++
			case read.err != nil:
				return packed, read.err
			case !read.grant.Finished():
				packed.Unfinished = append(packed.Unfinished, read.grant)
			case twice:
				if err := deleteRecords(ctx, storage, []string{read.id}); err != nil {
					return packed, err
				}
			default:
				full, err := segment.add(read.grant)
				if err != nil {
					return packed, err
				}
				packed.Grants++
				if full {
					if err := segment.close(ctx, storage); err != nil {
						return packed, err
					}
					segment = newSegment(bucket, segment.number+1)
				}
			}
		}
	}
	if err := segment.close(ctx, storage); err != nil || packed.Grants == 0 || next > 0 {
		return packed, err // Cover sees to what was packed before
	}
	return packed, changeCovered(ctx, storage, func(known *covered) { known.add(bucket) })
}

// Retire forgets the grants that had their latest end before a time: it deletes
// their segments, and of their records those that can't be read. It returns how
// many of either it deleted.
func Retire(ctx context.Context, storage logical.Storage, before time.Time) (deleted int, err error) {
	past, err := listBuckets(ctx, storage, HistoryPrefix)
	if err != nil {
		return 0, err
	}
	for _, name := range past {
		if latest, err := LatestEnd(name); err != nil || latest.After(before) {
			continue
		}
		numbers, err := segments(ctx, storage, name)
		if err != nil {
			return deleted, err
		}
		for _, number := range numbers {
			if err := storage.Delete(ctx, segmentKey(name, number)); err != nil {
				return deleted, fmt.Errorf("ledger: deleting history of bucket %s: %w", name, err)
			}
			deleted++
		}
	}
	if err := uncover(ctx, storage, before); err != nil {
		return deleted, err
	}
	left, err := PastBuckets(ctx, storage, before)
	if err != nil {
		return deleted, err
	}
	for _, name := range left {
		damaged, err := retireDamaged(ctx, storage, name)
		deleted += damaged
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

func retireDamaged(ctx context.Context, storage logical.Storage, bucket string) (deleted int, err error) {
	names, err := storage.List(ctx, Prefix+bucket+"/")
	if err != nil {
		return 0, fmt.Errorf("ledger: listing bucket %s: %w", bucket, err)
	}
	for _, name := range names {
		if _, err := Get(ctx, storage, name); !errors.Is(err, ErrDamaged) || errors.Is(err, stored.ErrNewer) {
			continue
		}
		if err := storage.Delete(ctx, Prefix+bucket+"/"+name); err != nil {
			return deleted, fmt.Errorf("ledger: deleting a damaged record of bucket %s: %w", bucket, err)
		}
		deleted++
	}
	return deleted, nil
}

// listBuckets lists the buckets below a prefix, the earliest first. What isn't
// one is passed over.
func listBuckets(ctx context.Context, storage logical.Storage, prefix string) ([]string, error) {
	names, err := storage.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("ledger: listing %s: %w", prefix, err)
	}
	var buckets []string
	for _, name := range names {
		if trimmed, folder := strings.CutSuffix(name, "/"); folder && bucketShape.MatchString(trimmed) {
			buckets = append(buckets, trimmed)
		}
	}
	slices.Sort(buckets)
	return buckets, nil
}

// record is what was found of a grant.
type record struct {
	id    string
	grant Grant
	err   error
}

// readAll reads grants side by side, and returns them in order.
func readAll(ctx context.Context, storage logical.Storage, ids []string) []record {
	records := make([]record, len(ids))
	sideBySide(len(ids), func(i int) {
		grant, err := Get(ctx, storage, ids[i])
		records[i] = record{id: ids[i], grant: grant, err: err}
	})
	return records
}

// deleteRecords deletes the records of grants, side by side.
func deleteRecords(ctx context.Context, storage logical.Storage, ids []string) error {
	failed := make([]error, len(ids))
	sideBySide(len(ids), func(i int) {
		path, err := key(ids[i])
		if err == nil {
			err = storage.Delete(ctx, path)
		}
		failed[i] = wrap(err, "ledger: deleting the packed record of grant "+ids[i])
	})
	return errors.Join(failed...)
}

// sideBySide does a number of things, a few at once.
func sideBySide(count int, do func(int)) {
	var all sync.WaitGroup
	for worker := range min(count, readers) {
		all.Go(func() {
			for i := worker; i < count; i += readers {
				do(i)
			}
		})
	}
	all.Wait()
}

func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
