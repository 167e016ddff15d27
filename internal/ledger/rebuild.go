package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

// readers is how many reads of storage are under way at once. Each is a round
// trip to Vault.
const readers = 64

// Rebuild reads into the index what storage knows, while it is in use: what was
// put into it meanwhile wins over what was read. It tries again what fails until
// ctx ends, which is its only error. What is damaged is logged and counted.
func (x *Index) Rebuild(ctx context.Context, storage logical.Storage, log hclog.Logger, now func() time.Time) error {
	started := now()
	var complain sync.Once // one cause makes every read fail
	failed := func(err error) {
		complain.Do(func() { log.Warn("storage fails while the ledger is read; it is tried again", "error", err) })
	}
	damaged := func(id string, err error, named Query) {
		log.Error("a record of the ledger can't be read", "error", err)
		x.missed(id, err, named)
	}
	buckets, err := persist(ctx, failed, func() ([]string, error) { return storage.List(ctx, Prefix) })
	if err != nil {
		return err
	}
	ids := make(chan string, readers)
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for id := range ids {
				grant, err := persist(ctx, failed, func() (Grant, error) { return Get(ctx, storage, id) })
				switch {
				case err == nil:
					x.restore(grant, now())
				case errors.Is(err, ErrDamaged):
					named, _ := persist(ctx, failed, func() (Query, error) { return glimpse(ctx, storage, id) })
					damaged(id, err, named)
				default: // removed since it was listed, or ctx has ended
				}
			}
		})
	}
	for _, name := range buckets {
		if !bucketShape.MatchString(strings.TrimSuffix(name, "/")) {
			damaged(name, fmt.Errorf("%w: %q is not a bucket", ErrDamaged, name), Query{})
			continue
		}
		names, err := persist(ctx, failed, func() ([]string, error) { return storage.List(ctx, Prefix+name) })
		if err != nil {
			break // ctx has ended
		}
		for _, id := range names {
			ids <- id
		}
	}
	close(ids)
	all.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	x.complete()
	log.Info("the ledger is in memory", "live", x.Count(Query{}, now()), "damaged", x.Damaged(), "took", now().Sub(started))
	return nil
}

// How long persist waits before it tries again.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

// persist tries until storage answers or ctx ends. That there is nothing, or
// nothing that can be read, is an answer.
func persist[T any](ctx context.Context, failed func(error), try func() (T, error)) (T, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		got, err := try()
		if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
			return got, err
		}
		if ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return got, ctx.Err()
		case <-time.After(pause):
		}
	}
}
