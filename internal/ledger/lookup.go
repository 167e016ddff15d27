package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// The lookup tells which buckets of the history have grants of a task, an entity, a role or a target. It is a tree of
// nodes: one of level l is of 2^l buckets, and is made of two of the level below once its buckets are all past. So a
// lookup reads one entry of at most one node a level, and each bucket's part is rewritten once a level.
//
//	ledger/lookup/<level>-<first bucket>-<bits>/<shard>   a node's pairs of a name's hash and a bucket, in 2^bits shards
//	ledger/lookup-covered                                 the buckets whose history the nodes have
const (
	lookupPrefix  = OwnPrefix + "lookup/"
	coveredKey    = OwnPrefix + "lookup-covered"
	lookupLevels  = 12       // the highest level is of 28 days
	maxShardPairs = 32 << 10 // of some 6 bytes each
	offsetBits    = 16
	hashBits      = 40
)

// errNewerLookup is of a shard that a newer plugin wrote.
var errNewerLookup = fmt.Errorf("ledger: the lookup of the history was %w", stored.ErrNewer)

// lookupNode is a node's place.
type lookupNode struct {
	level int
	first int64 // its first bucket's number
	bits  int
}

func (n lookupNode) key(shard uint64) string {
	return fmt.Sprintf("%s%02d-%08x-%02d/%d", lookupPrefix, n.level, n.first, n.bits, shard)
}

// end is the number of the bucket behind the node's last.
func (n lookupNode) end() int64 { return n.first + 1<<n.level }

func bucketNumber(name string) int64 {
	number, _ := strconv.ParseInt(name, 16, 64) // bucketShape has seen to it
	return number
}

func bucketName(number int64) string { return fmt.Sprintf("%0*x", bucketDigits, number) }

// lookupHash is a name's, of 40 bits: one that two share costs a look at a bucket.
func lookupHash(by int, name string) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte{byte(by)})
	_, _ = sum.Write([]byte(name))
	return sum.Sum64() >> (64 - hashBits)
}

// pairsOf are the pairs of a grant in its bucket's own node.
func pairsOf(grant Grant) (pairs []uint64) {
	for by, name := range map[int]string{byRole: grant.Role, byTask: grant.Task, byEntity: grant.EntityID, byTarget: grant.Target} {
		if name != "" {
			pairs = append(pairs, lookupHash(by, name)<<offsetBits)
		}
	}
	return pairs
}

// lookupKey is the rarest name of a query, as it usually is; empty where it has none.
func (q Query) lookupKey() (by int, name string) {
	switch {
	case q.Task != "":
		return byTask, q.Task
	case q.EntityID != "":
		return byEntity, q.EntityID
	case q.Role != "":
		return byRole, q.Role
	default:
		return byTarget, q.Target
	}
}

func lookupNodes(ctx context.Context, storage logical.Storage) ([]lookupNode, error) {
	names, err := storage.List(ctx, lookupPrefix)
	if err != nil {
		return nil, fmt.Errorf("ledger: listing the lookup: %w", err)
	}
	var nodes []lookupNode
	for _, name := range names {
		var node lookupNode
		if read, err := fmt.Sscanf(name, "%02d-%08x-%02d/", &node.level, &node.first, &node.bits); err == nil && read == 3 && node.level <= lookupLevels && node.bits <= hashBits {
			nodes = append(nodes, node)
		}
	}
	return nodes, nil
}

// readShard calls with each pair of a shard. The error is ErrNotFound where there is none, as beside a merge.
func readShard(ctx context.Context, storage logical.Storage, key string, call func(pair uint64)) error {
	entry, err := storage.Get(ctx, key)
	switch {
	case err != nil:
		return fmt.Errorf("ledger: reading the lookup: %w", err)
	case entry == nil:
		return ErrNotFound
	case len(entry.Value) == 0:
		return fmt.Errorf("%w: %s", ErrDamaged, key)
	case entry.Value[0] > stored.Version:
		return errNewerLookup
	}
	pair, rest := uint64(0), entry.Value[1:]
	for len(rest) > 0 {
		step, size := binary.Uvarint(rest)
		if size <= 0 {
			return fmt.Errorf("%w: %s", ErrDamaged, key)
		}
		pair += step
		rest = rest[size:]
		call(pair)
	}
	return nil
}

// readNode reads all pairs of a node. A crash may have deleted some of its shards: then another node has them.
func readNode(ctx context.Context, storage logical.Storage, node lookupNode) (pairs []uint64, err error) {
	for shard := range uint64(1) << node.bits {
		if err := readShard(ctx, storage, node.key(shard), func(pair uint64) { pairs = append(pairs, pair) }); err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	return pairs, nil
}

// writeNode writes a node's pairs, sorted, and returns its place.
func writeNode(ctx context.Context, storage logical.Storage, level int, first int64, pairs []uint64) (lookupNode, error) {
	node := lookupNode{level: level, first: first, bits: bits.Len(uint(len(pairs) / maxShardPairs))}
	for shard := range uint64(1) << node.bits {
		end, _ := slices.BinarySearch(pairs, (shard+1)<<(hashBits+offsetBits-node.bits))
		value, last := []byte{stored.Version}, uint64(0)
		for _, pair := range pairs[:end] {
			value, last = binary.AppendUvarint(value, pair-last), pair
		}
		pairs = pairs[end:]
		if err := storage.Put(ctx, &logical.StorageEntry{Key: node.key(shard), Value: value}); err != nil {
			return node, fmt.Errorf("ledger: writing the lookup: %w", err)
		}
	}
	return node, nil
}

func deleteNode(ctx context.Context, storage logical.Storage, node lookupNode) error {
	for shard := range uint64(1) << node.bits {
		if err := storage.Delete(ctx, node.key(shard)); err != nil {
			return fmt.Errorf("ledger: deleting from the lookup: %w", err)
		}
	}
	return nil
}

// merge writes one node of all the pairs of some, which are of its buckets, and then deletes those. What a crash leaves
// of both says nothing wrong.
func merge(ctx context.Context, storage logical.Storage, level int, first int64, parts []lookupNode, pairs []uint64) error {
	for _, part := range parts {
		read, err := readNode(ctx, storage, part)
		if errors.Is(err, ErrDamaged) {
			return nil // a lookup says so
		}
		if err != nil {
			return err
		}
		for _, pair := range read {
			pairs = append(pairs, pair+uint64(part.first-first))
		}
	}
	slices.Sort(pairs)
	written, err := writeNode(ctx, storage, level, first, slices.Compact(pairs))
	if err != nil {
		return err
	}
	for _, part := range parts {
		if part == written {
			continue
		}
		if err := deleteNode(ctx, storage, part); err != nil {
			return err
		}
	}
	return nil
}

// addPairs adds to a bucket's own node.
func addPairs(ctx context.Context, storage logical.Storage, bucket string, pairs []uint64) error {
	number := bucketNumber(bucket)
	nodes, err := lookupNodes(ctx, storage)
	if err != nil {
		return err
	}
	nodes = slices.DeleteFunc(nodes, func(node lookupNode) bool { return node.level != 0 || node.first != number })
	return merge(ctx, storage, 0, number, nodes, pairs)
}

// compact makes nodes of the next level of those whose buckets have all gone by.
func compact(ctx context.Context, storage logical.Storage, by time.Time) error {
	past := bucketNumber(bucket(by))
	for level := range lookupLevels {
		nodes, err := lookupNodes(ctx, storage)
		if err != nil {
			return err
		}
		families := map[int64][]lookupNode{}
		for _, node := range nodes {
			first := node.first &^ (1<<(level+1) - 1)
			if (node.level == level && first+1<<(level+1) <= past) || (node.level == level+1 && node.first == first) {
				families[first] = append(families[first], node)
			}
		}
		for first, family := range families {
			if !slices.ContainsFunc(family, func(node lookupNode) bool { return node.level == level }) {
				continue
			}
			if err := merge(ctx, storage, level+1, first, family, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// covered are the buckets whose history the lookup has, as bits from a first bucket on.
type covered struct {
	First int64  `json:"first"` // a multiple of 8
	Bits  []byte `json:"bits"`
}

// maxCovered is how many buckets bits are kept for: far more than the longest retention has. Others are looked at.
const maxCovered = 1 << 20

func (c *covered) has(bucket string) bool {
	at := bucketNumber(bucket) - c.First
	return at >= 0 && at < int64(len(c.Bits))*8 && c.Bits[at/8]>>(at%8)&1 == 1
}

func (c *covered) add(bucket string) {
	number := bucketNumber(bucket)
	if len(c.Bits) == 0 {
		c.First = number &^ 7
	}
	last := max(c.First+int64(len(c.Bits))*8, number+1)
	if first := min(c.First, number&^7); last-first > maxCovered {
		return
	} else if first < c.First {
		c.Bits = append(make([]byte, (c.First-first)/8), c.Bits...)
		c.First = first
	}
	at := number - c.First
	for int64(len(c.Bits)) <= at/8 {
		c.Bits = append(c.Bits, 0)
	}
	c.Bits[at/8] |= 1 << (at % 8)
}

// drop forgets the buckets before another, but for a few.
func (c *covered) drop(before int64) {
	bytes := min(max((before-c.First)/8, 0), int64(len(c.Bits)))
	c.First, c.Bits = c.First+bytes*8, c.Bits[bytes:]
}

func readCovered(ctx context.Context, storage logical.Storage) (covered, error) {
	var known covered
	_, err := stored.Get(ctx, storage, coveredKey, &known)
	if errors.Is(err, stored.ErrDamaged) {
		return covered{}, nil // each bucket is looked at, and added again
	}
	return known, err
}

// changeCovered changes which buckets the lookup is said to have.
func changeCovered(ctx context.Context, storage logical.Storage, change func(*covered)) error {
	known, err := readCovered(ctx, storage)
	if err != nil {
		return err
	}
	change(&known)
	return wrap(stored.Put(ctx, storage, coveredKey, known), "ledger")
}

// Cover adds to the lookup, at most, so many buckets of the history that it does not have, such as those that an older
// plugin packed, and compacts it. Only one caller at a time, and not beside Pack.
func Cover(ctx context.Context, storage logical.Storage, by time.Time, most int) error {
	known, err := readCovered(ctx, storage)
	if err != nil {
		return err
	}
	past, err := listBuckets(ctx, storage, HistoryPrefix)
	if err != nil {
		return err
	}
	for _, name := range past {
		if most == 0 {
			break
		}
		if known.has(name) {
			continue
		}
		most--
		var pairs []uint64
		numbers, err := segments(ctx, storage, name)
		if err != nil {
			return err
		}
		unreadable := false
		for _, number := range numbers {
			err := walkSegment(ctx, storage, name, number, func(grant Grant) { pairs = append(pairs, pairsOf(grant)...) })
			if unreadable = unreadable || errors.Is(err, ErrDamaged); err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		if unreadable {
			continue // a lookup looks at it, and warns
		}
		if err := addPairs(ctx, storage, name, pairs); err != nil {
			return err
		}
		if err := changeCovered(ctx, storage, func(known *covered) { known.add(name) }); err != nil {
			return err
		}
	}
	return compact(ctx, storage, by)
}

// uncover forgets what the lookup has of buckets whose grants had their latest end before a time.
func uncover(ctx context.Context, storage logical.Storage, before time.Time) error {
	nodes, err := lookupNodes(ctx, storage)
	if err != nil {
		return err
	}
	first := bucketNumber(bucket(before))
	for _, node := range nodes {
		if node.end() <= first {
			if err := deleteNode(ctx, storage, node); err != nil {
				return err
			}
		}
	}
	known, err := readCovered(ctx, storage)
	if err != nil || len(known.Bits) == 0 || first-known.First < 8 {
		return err
	}
	return changeCovered(ctx, storage, func(known *covered) { known.drop(first) })
}

// lookup returns those of the past buckets that may have grants of a query.
func lookup(ctx context.Context, storage logical.Storage, query Query, buckets []string) ([]string, error) {
	by, name := query.lookupKey()
	if name == "" {
		return buckets, nil
	}
	known, err := readCovered(ctx, storage)
	if err != nil {
		return nil, err
	}
	nodes, err := lookupNodes(ctx, storage)
	if err != nil {
		return nil, err
	}
	hash, found, blind := lookupHash(by, name), map[string]bool{}, []lookupNode{}
	for _, node := range nodes {
		err := readShard(ctx, storage, node.key(hash>>(hashBits-node.bits)), func(pair uint64) {
			if pair>>offsetBits == hash {
				found[bucketName(node.first+int64(pair&(1<<offsetBits-1)))] = true
			}
		})
		if errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotFound) {
			blind = append(blind, node)
		} else if err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(buckets), func(name string) bool {
		number := bucketNumber(name)
		hidden := slices.ContainsFunc(blind, func(node lookupNode) bool { return node.first <= number && number < node.end() })
		return !found[name] && !hidden && known.has(name)
	}), nil
}
