package ledger

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

const (
	// maxSegment is the size of a segment as stored, in bytes. Storage takes
	// entries of 1 MiB by default, and Consul of 512 KiB:
	// https://developer.hashicorp.com/vault/docs/internals/limits
	maxSegment = 512 << 10
	// flushEvery is how much is compressed, in bytes, before its size is looked at.
	flushEvery = 32 << 10
)

// segment is grants of one bucket, as lines of JSON that are compressed.
type segment struct {
	bucket  string
	number  int
	ids     []string
	pairs   []uint64 // for the lookup
	packed  bytes.Buffer
	writer  *gzip.Writer
	pending int // bytes that the writer may not have put into packed yet
}

func newSegment(bucket string, number int) *segment {
	s := &segment{bucket: bucket, number: number}
	s.writer = gzip.NewWriter(&s.packed)
	_, _ = fmt.Fprintf(s.writer, "{\"segment_version\":%d}\n", stored.Version) // into memory
	return s
}

// add says whether the segment is full after it.
func (s *segment) add(grant Grant) (full bool, err error) {
	line, err := json.Marshal(grant)
	if err != nil {
		return false, fmt.Errorf("ledger: encoding grant %s: %w", grant.ID, err)
	}
	line = append(line, '\n')
	if _, err := s.writer.Write(line); err != nil {
		return false, fmt.Errorf("ledger: packing grant %s: %w", grant.ID, err)
	}
	s.ids = append(s.ids, grant.ID)
	s.pairs = append(s.pairs, pairsOf(grant)...)
	if s.pending += len(line); s.pending < flushEvery {
		return false, nil
	}
	if err := s.writer.Flush(); err != nil {
		return false, fmt.Errorf("ledger: packing grant %s: %w", grant.ID, err)
	}
	s.pending = 0
	// There is room for as much again that does not compress, with the last line.
	return s.packed.Len() > maxSegment-4*flushEvery, nil
}

// close writes the segment, if it holds anything, and deletes its records.
func (s *segment) close(ctx context.Context, storage logical.Storage) error {
	if len(s.ids) == 0 {
		return nil
	}
	if err := s.writer.Close(); err != nil {
		return fmt.Errorf("ledger: packing bucket %s: %w", s.bucket, err)
	}
	if err := addPairs(ctx, storage, s.bucket, s.pairs); err != nil { // first, so that the lookup misses nothing
		return err
	}
	if err := storage.Put(ctx, &logical.StorageEntry{Key: segmentKey(s.bucket, s.number), Value: s.packed.Bytes()}); err != nil {
		return fmt.Errorf("ledger: writing history of bucket %s: %w", s.bucket, err)
	}
	return deleteRecords(ctx, storage, s.ids)
}

func segmentKey(bucket string, number int) string {
	return HistoryPrefix + bucket + "/" + strconv.Itoa(number)
}

// segments lists the numbers of a bucket's segments.
func segments(ctx context.Context, storage logical.Storage, bucket string) ([]int, error) {
	names, err := storage.List(ctx, HistoryPrefix+bucket+"/")
	if err != nil {
		return nil, fmt.Errorf("ledger: listing history of bucket %s: %w", bucket, err)
	}
	var numbers []int
	for _, name := range names {
		if number, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// segmented returns the ids that a bucket's segments hold, and the number of the
// next segment. One that can't be read holds nothing: its records are packed
// once more if they are still there.
func segmented(ctx context.Context, storage logical.Storage, bucket string) (ids map[string]struct{}, next int, err error) {
	numbers, err := segments(ctx, storage, bucket)
	if err != nil {
		return nil, 0, err
	}
	ids = map[string]struct{}{}
	for _, number := range numbers {
		grants, err := readSegment(ctx, storage, bucket, number)
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotFound) {
			return nil, 0, err
		}
		for _, grant := range grants {
			ids[grant.ID] = struct{}{}
		}
		next = number + 1
	}
	return ids, next, nil
}

// readSegment returns the grants of a segment. Of a damaged one it returns those that can be read.
func readSegment(ctx context.Context, storage logical.Storage, bucket string, number int) ([]Grant, error) {
	var grants []Grant
	err := walkSegment(ctx, storage, bucket, number, func(grant Grant) { grants = append(grants, grant) })
	return grants, err
}

// walkSegment calls with one grant of a segment after the other: a segment can
// have tens of thousands.
func walkSegment(ctx context.Context, storage logical.Storage, bucket string, number int, call func(Grant)) error {
	entry, err := storage.Get(ctx, segmentKey(bucket, number))
	if err != nil {
		return fmt.Errorf("ledger: reading history of bucket %s: %w", bucket, err)
	}
	if entry == nil {
		return ErrNotFound
	}
	damaged := func(err error) error {
		return fmt.Errorf("%w: segment %d of bucket %s: %w", ErrDamaged, number, bucket, err)
	}
	reader, err := gzip.NewReader(bytes.NewReader(entry.Value))
	if err != nil {
		return damaged(err)
	}
	version := 0 // of a segment without a header
	var unreadable error
	for lines, first := bufio.NewReader(reader), true; ; first = false {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 && err == nil {
			var head header
			if first && json.Unmarshal(line, &head) == nil && head.Version != nil {
				version = *head.Version
				continue
			}
			var grant Grant
			if bad := stored.DecodeAs(entry.Key, version, line, &grant); bad == nil {
				call(grant)
			} else if unreadable = bad; version > stored.Version {
				return damaged(bad) // and so is each line
			}
			continue
		}
		switch {
		case !errors.Is(err, io.EOF):
			return damaged(err)
		case len(line) > 0:
			return damaged(io.ErrUnexpectedEOF)
		case unreadable != nil:
			return damaged(unreadable)
		default:
			return nil
		}
	}
}

// header is the first line of a segment. Version 0 has none.
type header struct {
	Version *int `json:"segment_version"`
}
