package precision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// settle moves the finished requests of a tag to the past, and returns those that
// are left. The lock is held.
func (b *backend) settle(ctx context.Context, storage logical.Storage, tag string) (left []approval.Request, moved int, err error) {
	kept, err := readOpen(ctx, storage, tag)
	if err != nil {
		return nil, 0, err
	}
	now := b.grants.Now()
	for _, one := range kept {
		version, err := b.roleVersion(ctx, storage, one.Binding.Role)
		if err != nil {
			return nil, 0, err
		}
		if one = one.Settled(now, version); one.State.Unfinished() {
			left = append(left, one)
			continue
		}
		if err := writeEntry(ctx, storage, pastRequests+one.ID, one); err != nil {
			return nil, 0, err
		}
		moved++
	}
	if moved == 0 {
		return left, 0, nil
	}
	return left, moved, writeOpen(ctx, storage, tag, left)
}

// tidyRequests moves what is finished to the past, and forgets what has been there
// since before a time.
func (b *backend) tidyRequests(ctx context.Context, storage logical.Storage, before time.Time) (moved, deleted int, err error) {
	tags, err := storage.List(ctx, openRequests)
	if err != nil {
		return 0, 0, fmt.Errorf("listing requests: %w", err)
	}
	for _, tag := range tags {
		b.requests.mu.Lock()
		_, count, err := b.settle(ctx, storage, tag)
		b.requests.mu.Unlock()
		if stored.Unreadable(err) {
			b.Logger().Warn("requests of an entity, or their role, can't be read, and stay as they are", "record", openRequests+tag, "error", err)
			continue
		}
		if err != nil {
			return moved, 0, err
		}
		moved += count
	}
	ids, err := storage.List(ctx, pastRequests)
	if err != nil {
		return moved, 0, fmt.Errorf("listing past requests: %w", err)
	}
	for _, id := range ids {
		if !requestID.MatchString(id) || !openedBefore(id, before) {
			continue
		}
		past, err := readEntry[approval.Request](ctx, storage, pastRequests+id, errNoRequest)
		if errors.Is(err, errNoRequest) || stored.Unreadable(err) {
			continue
		}
		if err != nil {
			return moved, deleted, err
		}
		if !past.KeptFrom().Before(before) {
			continue
		}
		if err := dropClaims(ctx, storage, id); err != nil {
			return moved, deleted, err
		}
		if err := deleteEntry(ctx, storage, pastRequests+id); err != nil {
			return moved, deleted, err
		}
		deleted++
	}
	return moved, deleted, nil
}

// pastRequests are finished requests, in the order that they were opened in. next
// is where the rest begins after, empty if there is none. Records that can't be read are skipped, and named in
// unreadable.
func (b *backend) pastRequests(ctx context.Context, storage logical.Storage, after string, limit int) (page []approval.Request, next string, unreadable []string, err error) {
	_, unmoved, unreadable, err := b.unfinishedRequests(ctx, storage)
	if err != nil {
		return nil, "", nil, err
	}
	found := map[string]approval.Request{}
	for _, one := range unmoved {
		found[one.ID] = one
	}
	ids, err := storage.List(ctx, pastRequests)
	if err != nil {
		return nil, "", nil, fmt.Errorf("listing past requests: %w", err)
	}
	ids = slices.AppendSeq(ids, maps.Keys(found))
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if id <= after || !requestID.MatchString(id) {
			continue
		}
		if len(page) == limit {
			return page, page[limit-1].ID, unreadable, nil
		}
		one, known := found[id]
		if !known {
			one, err = readEntry[approval.Request](ctx, storage, pastRequests+id, errNoRequest)
			if errors.Is(err, errNoRequest) {
				continue // forgotten since it was listed
			}
			if stored.Unreadable(err) {
				unreadable = append(unreadable, pastRequests+id)
				continue
			}
			if err != nil {
				return nil, "", nil, err
			}
		}
		page = append(page, one)
	}
	return page, "", unreadable, nil
}
