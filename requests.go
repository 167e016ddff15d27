package precision

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// Requests are in the mount's replicated storage, so that there is one truth: what
// uses one up is written where it is, at the primary.
//
//	requests/open/<tag>   those of one entity that aren't finished, in one record,
//	                      so that a read of a credential costs one read of storage
//	requests/past/<id>    those that are, one record each
//	requests/claim/<id>/  a record for each grant that has claimed a use of one
//
// What is finished stays where it was until it is moved: a use is one write, and
// is never undone by a crash.
const (
	openRequests = "requests/open/"
	pastRequests = "requests/past/"
	claims       = "requests/claim/"
)

// maxKept is how many requests an entity may have where they are before they are
// moved. So it can't fill the storage by opening and cancelling: there are so many in
// each turn of the sweeper.
const maxKept = 64

// requests are the mount's requests. Whoever changes one holds the lock from the
// reading to the writing.
type requests struct{ mu sync.Mutex }

// requestID is made of the time that a request was opened at, in seconds and
// hexadecimal, its entity's tag, and 40 random bits.
var requestID = regexp.MustCompile(`\A[0-9a-f]{8}-([a-z2-7]{8})-[a-z2-7]{8}\z`)

var errNoRequest = errors.New("request does not exist")

var base32Letters = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// tagOf names an entity in keys and ids. Two may share a tag, and then a record.
func tagOf(entity string) string {
	sum := sha256.Sum256([]byte(entity))
	return base32Letters.EncodeToString(sum[:5])
}

func newRequestID(entity string, now time.Time) string {
	drawn := make([]byte, 5)
	_, _ = rand.Read(drawn) // never fails: https://pkg.go.dev/crypto/rand#Read
	return fmt.Sprintf("%08x-%s-%s", now.Unix(), tagOf(entity), base32Letters.EncodeToString(drawn))
}

// tagIn is the tag in a request's id; the error is errNoRequest for what is none.
func tagIn(id string) (string, error) {
	match := requestID.FindStringSubmatch(id)
	if match == nil {
		return "", errNoRequest
	}
	return match[1], nil
}

// openedBefore says whether an id was drawn before a time.
func openedBefore(id string, at time.Time) bool {
	seconds, err := strconv.ParseInt(id[:8], 16, 64)
	return err == nil && time.Unix(seconds, 0).Before(at)
}

// readOpen reads the record of a tag.
func readOpen(ctx context.Context, storage logical.Storage, tag string) ([]approval.Request, error) {
	kept, err := readEntry[[]approval.Request](ctx, storage, openRequests+tag, errNoRequest)
	if errors.Is(err, errNoRequest) {
		return nil, nil
	}
	return kept, err
}

// readOpenForWrite is readOpen for a caller that writes the record whole: a damaged one counts as empty.
func readOpenForWrite(ctx context.Context, storage logical.Storage, tag string) ([]approval.Request, error) {
	kept, err := readOpen(ctx, storage, tag)
	if errors.Is(err, stored.ErrDamaged) {
		return nil, nil
	}
	return kept, err
}

func writeOpen(ctx context.Context, storage logical.Storage, tag string, kept []approval.Request) error {
	if len(kept) == 0 {
		return deleteEntry(ctx, storage, openRequests+tag)
	}
	return writeEntry(ctx, storage, openRequests+tag, kept)
}

// versionOf hashes a role as it is stored: what was approved is approved of this.
func versionOf(stored role) (string, error) {
	text, err := json.Marshal(stored)
	if err != nil {
		return "", fmt.Errorf("encoding the role: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// roleVersion is the version that a role has now, empty where there is none.
func (b *backend) roleVersion(ctx context.Context, storage logical.Storage, name string) (string, error) {
	opened, err := b.openRole(ctx, storage, name)
	if errors.Is(err, errNoRole) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return opened.version, nil
}

// findRequest reads a request. The error is errNoRequest where there is none.
func (b *backend) findRequest(ctx context.Context, storage logical.Storage, id string) (approval.Request, error) {
	tag, err := tagIn(id)
	if err != nil {
		return approval.Request{}, err
	}
	// This order: one that is moved meanwhile is written before it is removed.
	kept, err := readOpen(ctx, storage, tag)
	if err != nil {
		return approval.Request{}, err
	}
	for _, one := range kept {
		if one.ID == id {
			return one, nil
		}
	}
	return readEntry[approval.Request](ctx, storage, pastRequests+id, errNoRequest)
}

// changeRequest has a request changed, and writes down what it becomes. The
// version is that which its role has now. The error is errNoRequest where there is
// none.
func (b *backend) changeRequest(ctx context.Context, storage logical.Storage, id string, change func(of approval.Request, version string) (approval.Request, error)) (approval.Request, error) {
	tag, err := tagIn(id)
	if err != nil {
		return approval.Request{}, err
	}
	b.requests.mu.Lock()
	defer b.requests.mu.Unlock()
	kept, err := readOpen(ctx, storage, tag)
	if err != nil {
		return approval.Request{}, err
	}
	at := slices.IndexFunc(kept, func(one approval.Request) bool { return one.ID == id })
	found := approval.Request{}
	if at >= 0 {
		found = kept[at]
	} else if found, err = readEntry[approval.Request](ctx, storage, pastRequests+id, errNoRequest); err != nil {
		return approval.Request{}, err
	}
	version, err := b.roleVersion(ctx, storage, found.Binding.Role)
	if err != nil {
		return approval.Request{}, err
	}
	changed, err := change(found, version)
	if err != nil {
		return approval.Request{}, err
	}
	if at < 0 {
		return approval.Request{}, errors.New("a finished request was changed")
	}
	kept[at] = changed
	return changed, writeOpen(ctx, storage, tag, kept)
}

// openRequest adds a request to those of its entity.
func (b *backend) openRequest(ctx context.Context, storage logical.Storage, asked approval.Request, rule approval.Rule, by approval.Actor) (approval.Request, error) {
	b.requests.mu.Lock()
	defer b.requests.mu.Unlock()
	tag := tagOf(by.Entity)
	kept, err := readOpenForWrite(ctx, storage, tag)
	if err != nil {
		return asked, err
	}
	now := b.grants.Now()
	var others []approval.Request
	for _, one := range kept {
		version, err := b.roleVersion(ctx, storage, one.Binding.Role)
		if err != nil {
			return asked, err
		}
		if one.Binding.Entity == by.Entity && one.Status(now, version).Unfinished() {
			others = append(others, one)
		}
	}
	if len(kept) >= maxKept {
		return asked, invalid.Deny(fmt.Sprintf("the caller has opened %d requests of late, and may open no more for now", len(kept)), "try again in ten minutes")
	}
	if asked, err = asked.Open(newRequestID(by.Entity, now), rule, by, others, now); err != nil {
		return asked, err
	}
	return asked, writeOpen(ctx, storage, tag, append(kept, asked))
}

// standing finds the request that a mint may use. The error is an *invalid.Error
// where there is none that admits it.
func (b *backend) standing(ctx context.Context, storage logical.Storage, wanted approval.Binding) (approval.Request, error) {
	kept, err := readOpen(ctx, storage, tagOf(wanted.Entity))
	if err != nil {
		return approval.Request{}, err
	}
	now := b.grants.Now()
	var refused error
	for _, one := range kept {
		if one.Binding != wanted {
			continue
		}
		err := one.Admits(wanted, now)
		if err == nil {
			return one, nil
		}
		if refused == nil || one.Status(now, wanted.Version).Unfinished() {
			refused = err
		}
	}
	if refused != nil {
		return approval.Request{}, refused
	}
	return approval.Request{}, errNoRequest
}

// useRequest takes a use of a request for a grant, and has written that down when
// it returns: nobody else can take it, here or after a crash.
func (b *backend) useRequest(ctx context.Context, storage logical.Storage, id string, minted approval.Binding, grant string, until time.Time) error {
	_, err := b.changeRequest(ctx, storage, id, func(of approval.Request, version string) (approval.Request, error) {
		if err := sameVersion(minted, version); err != nil {
			return of, err
		}
		used, err := of.Use(minted, grant, until, b.grants.Now())
		if err == nil {
			err = claimUse(ctx, storage, of, grant)
		}
		return used, err
	})
	return err
}

// claimUse writes that a grant claims a use of a request, and then looks for the claims of others. A record of its own
// can't be overwritten by a node that was deposed and writes what it has read before: of two that claim the last use at
// the same time, the one that looks later finds both claims, and refuses. A claim stays where it is not known whether
// what comes after it was carried out.
func claimUse(ctx context.Context, storage logical.Storage, of approval.Request, grant string) error {
	own := claims + of.ID + "/" + grant
	if err := writeEntry(ctx, storage, own, true); err != nil {
		return err
	}
	claimed, err := storage.List(ctx, claims+of.ID+"/")
	if err != nil {
		return fmt.Errorf("listing the claims of request %s: %w", of.ID, err)
	}
	if len(claimed) <= of.Rule.Mints() && slices.Contains(claimed, grant) {
		return nil
	}
	if err := deleteEntry(ctx, storage, own); err != nil {
		return err
	}
	return invalid.Deny(fmt.Sprintf("request %s is being used by another read at the same time, on this node or on another", of.ID), "read again, or open another request")
}

// dropClaims removes the claims of a request that is forgotten.
func dropClaims(ctx context.Context, storage logical.Storage, id string) error {
	claimed, err := storage.List(ctx, claims+id+"/")
	if err != nil {
		return fmt.Errorf("listing the claims of request %s: %w", id, err)
	}
	for _, grant := range claimed {
		if err := deleteEntry(ctx, storage, claims+id+"/"+grant); err != nil {
			return err
		}
	}
	return nil
}

// usable refuses where a use of a request can't be taken any more.
func (b *backend) usable(ctx context.Context, storage logical.Storage, id string, minted approval.Binding) error {
	found, err := b.findRequest(ctx, storage, id)
	if err != nil {
		return err
	}
	version, err := b.roleVersion(ctx, storage, minted.Role)
	if err != nil {
		return err
	}
	return cmp.Or(sameVersion(minted, version), found.Admits(minted, b.grants.Now()))
}

// sameVersion refuses what its role was written anew for.
func sameVersion(minted approval.Binding, version string) error {
	if minted.Version != version {
		return invalid.Deny("the role was written anew while the credential was being prepared", "open a request for the role as it is now")
	}
	return nil
}

// unfinishedRequests are the requests that something can still become of, in the
// order that they were opened in, and apart from them those that are finished and
// have not been moved yet. Records that can't be read are skipped, and named in unreadable.
func (b *backend) unfinishedRequests(ctx context.Context, storage logical.Storage) (open, finished []approval.Request, unreadable []string, err error) {
	tags, err := storage.List(ctx, openRequests)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("listing requests: %w", err)
	}
	now := b.grants.Now()
	for _, tag := range tags {
		kept, err := readOpen(ctx, storage, tag)
		if stored.Unreadable(err) {
			unreadable = append(unreadable, openRequests+tag)
			continue
		}
		if err != nil {
			return nil, nil, nil, err
		}
		for _, one := range kept {
			version, err := b.roleVersion(ctx, storage, one.Binding.Role)
			if stored.Unreadable(err) {
				version, err = one.Binding.Version, nil // nobody knows; a mint by it is refused
			}
			if err != nil {
				return nil, nil, nil, err
			}
			if one = one.Settled(now, version); one.State.Unfinished() {
				open = append(open, one)
			} else {
				finished = append(finished, one)
			}
		}
	}
	byID := func(a, b approval.Request) int { return strings.Compare(a.ID, b.ID) }
	slices.SortFunc(open, byID)
	slices.SortFunc(finished, byID)
	return open, finished, unreadable, nil
}
