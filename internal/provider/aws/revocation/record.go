package revocation

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TakeoverDelay is how much longer a Deny of an engine that was here before is kept than its sessions live. An engine
// that runs on a copy of the storage changes nothing at AWS before the original, if that still runs, has.
const TakeoverDelay = 2 * time.Hour

// Stamp tells which write of which engine a policy is from. It is the Sid of the policy's statement.
type Stamp struct {
	// Epoch is raised in storage before each commit. A policy with a higher one than storage has was written by an
	// engine on newer storage, or on a copy of this one.
	Epoch  uint64
	Writer string // drawn by each engine when it starts
}

const (
	writerChars = 8
	epochDigits = 10
)

var stampShape = regexp.MustCompile(fmt.Sprintf(`\Ae([0-9]{%d})w([a-z2-7]{%d})\z`, epochDigits, writerChars))

// String is the stamp as a Sid; empty for a policy without one.
func (s Stamp) String() string {
	if s == (Stamp{}) {
		return ""
	}
	return fmt.Sprintf("e%0*dw%s", epochDigits, s.Epoch, s.Writer)
}

// parseStamp reads a Sid.
func parseStamp(text string) (Stamp, error) {
	if text == "" {
		return Stamp{}, nil
	}
	parts := stampShape.FindStringSubmatch(text)
	if parts == nil {
		return Stamp{}, fmt.Errorf("revocation: %q is not a Sid of this engine", text)
	}
	epoch, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return Stamp{}, fmt.Errorf("revocation: %q is not a Sid of this engine", text)
	}
	return Stamp{Epoch: epoch, Writer: parts[2]}, nil
}

func newWriter() string {
	drawn := make([]byte, 5)
	_, _ = rand.Read(drawn) // never fails: https://pkg.go.dev/crypto/rand#Read
	return strings.ToLower(base32.StdEncoding.EncodeToString(drawn))[:writerChars]
}

// Record is what storage keeps of one base's policies. It is written before each commit, so that an engine whose storage
// takes no write changes nothing. It is only believed of policies whose stamps it names: what storage from before does
// not know was written since.
type Record struct {
	Epoch  uint64   `json:"epoch"`
	Stamps []string `json:"stamps,omitempty"` // of the policies that are there, or are about to be; empty: without one
	// Denied says until when each prefix that is in force is needed, by AWS's clock.
	Denied map[string]time.Time `json:"denied,omitempty"`
}

// Reason is why live sessions are revoked that nobody asked to revoke.
type Reason int

const (
	// Collateral sessions are revoked since the policies have no room to spare them.
	Collateral Reason = iota
	// AlreadyDenied sessions are covered by a Deny that was found at AWS, and that the ledger does not explain.
	AlreadyDenied
)

// load reads the record, once.
func (c *Committer) load() error {
	c.mu.Lock()
	loaded := c.loaded
	c.mu.Unlock()
	if loaded {
		return nil
	}
	var record Record
	if c.Recorded != nil {
		err := c.call(func(ctx context.Context) (err error) {
			record, err = c.Recorded(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("revocation: reading what was recorded of the base role's policies: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record, c.loaded = record, true
	return nil
}

// keep keeps in force what was found at AWS and this engine has not written itself, until no session that it covers
// can live: as the record says, where that knows the policy's stamp, else for the longest life of a session since now.
// It returns the highest stamp that is higher than this storage has ever had, if there is one, and whether the record
// has to be written.
func (c *Committer) keep(found layout) (newer Stamp, changed bool) {
	now := c.passed()
	for _, policy := range found {
		known := policy.stamp == (Stamp{}) || policy.stamp.Writer == c.writer || slices.Contains(c.record.Stamps, policy.stamp.String())
		if !known && policy.stamp.Epoch > max(c.record.Epoch, newer.Epoch) {
			newer = policy.stamp
		}
		if !policy.attached || policy.foreign {
			continue
		}
		for _, prefix := range policy.entries {
			if _, wrote := c.wrote[prefix]; wrote && policy.stamp.Writer == c.writer || prefix.mark() != c.Mark {
				continue
			}
			until, recorded := c.record.Denied[prefix.text]
			if !recorded || !slices.Contains(c.record.Stamps, policy.stamp.String()) {
				until, recorded = now.Add(c.longest()+Grace), false
			}
			for _, code := range prefix.bounds() {
				if c.revoked[code] == nil {
					c.revoked[code] = &revocation{until: until, late: TakeoverDelay, acked: true}
					changed = changed || !recorded
				}
			}
		}
	}
	// What its engine has withdrawn in time is not denied again.
	trusted := found.trusted()
	maps.DeleteFunc(c.revoked, func(code Code, one *revocation) bool {
		return one.late > 0 && !now.Before(one.until) && !trusted.covers(code)
	})
	return newer, changed
}

// settled says whether what is in force is left as it is: all of it is needed, and some of it only because it was found
// there. To make that tidier, prefixes would be shortened that an engine on a copy of the storage may rely on. What
// nothing covers yet is added all the same. Called with mu held.
func (c *Committer) settled() bool {
	held := false
	codes := make([]Code, 0, len(c.revoked))
	for code, one := range c.revoked {
		held = held || one.late > 0
		codes = append(codes, code)
	}
	if !held {
		return false
	}
	slices.SortFunc(codes, compareCodes)
	for _, policy := range c.layout {
		if policy.foreign || !policy.attached {
			return false
		}
		for _, prefix := range policy.entries {
			if len(below(codes, prefix.text)) == 0 {
				return false
			}
		}
	}
	return true
}

func (c *Committer) longest() time.Duration {
	if c.Longest > 0 {
		return c.Longest
	}
	return longestSession
}

func (p Prefix) mark() Mark { return Mark{p.text[:markChars]} }

// bounds are the first and the last code that a prefix covers. They stand for all of them in a cover: as long as no
// session below the prefix lives, what covers these covers the prefix.
func (p Prefix) bounds() []Code {
	rest := codeLength - len(p.text)
	if rest == 0 {
		return []Code{{p.text}}
	}
	return []Code{{p.text + strings.Repeat("2", rest)}, {p.text + strings.Repeat("z", rest)}}
}

// next is the record of a commit: with the next epoch, and the prefixes of what is there and what is about to be.
// Called with mu held.
func (c *Committer) next(planned plan) Record {
	stamp := Stamp{Epoch: c.record.Epoch + 1, Writer: c.writer}
	record := c.describe(stamp.Epoch, planned)
	record.Stamps = append(record.Stamps, stamp.String())
	slices.Sort(record.Stamps)
	record.Stamps = slices.Compact(record.Stamps)
	return record
}

// describe is a record of what is there and of what a plan adds. Called with mu held.
func (c *Committer) describe(epoch uint64, planned plan) Record {
	record := Record{Epoch: epoch, Denied: map[string]time.Time{}}
	prefixes := map[Prefix]bool{}
	for _, policy := range c.layout {
		record.Stamps = append(record.Stamps, policy.stamp.String())
		for _, prefix := range policy.entries {
			prefixes[prefix] = true
		}
	}
	for _, step := range planned.steps {
		for _, prefix := range step.entries {
			prefixes[prefix] = true
		}
	}
	codes := slices.SortedFunc(maps.Keys(c.revoked), compareCodes)
	for prefix := range prefixes {
		var until time.Time
		for _, code := range below(codes, prefix.text) {
			if one := c.revoked[code]; one.until.After(until) {
				until = one.until
			}
		}
		if until.IsZero() { // it is about to be withdrawn, and may not be yet
			until = c.record.Denied[prefix.text]
		}
		if !until.IsZero() {
			record.Denied[prefix.text] = until
		}
	}
	slices.Sort(record.Stamps)
	record.Stamps = slices.Compact(record.Stamps)
	return record
}

// persist writes a record, and goes on with it.
func (c *Committer) persist(record Record) error {
	if c.Config.Record != nil {
		err := c.call(func(ctx context.Context) error { return c.Config.Record(ctx, record) })
		if err != nil {
			return fmt.Errorf("revocation: recording what is denied: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record = record
	return nil
}

// notice tells the engine that its storage is older than what has written at AWS, and remembers it: what is told once
// is not told again, though its Denies are kept for as long.
func (c *Committer) notice(newer Stamp) error {
	c.mu.Lock()
	own := c.record.Epoch
	c.mu.Unlock()
	if c.Older != nil {
		if err := c.call(func(ctx context.Context) error { return c.Older(ctx, newer, own) }); err != nil {
			return fmt.Errorf("revocation: telling that the storage is older than what it was: %w", err)
		}
	}
	c.mu.Lock()
	record := c.describe(newer.Epoch, plan{})
	c.mu.Unlock()
	return c.persist(record)
}

// yield has the ledger know of live sessions that a Deny at AWS covers already, and then counts them as revoked: to
// spare them, what others have revoked would have to be revived.
func (c *Committer) yield() error {
	c.mu.Lock()
	trusted := c.trusted()
	var covered []Session
	for code, until := range c.live {
		if trusted.covers(code) {
			covered = append(covered, Session{Code: code, ExpiresAt: until.Add(-Grace)})
		}
	}
	c.mu.Unlock()
	if len(covered) == 0 {
		return nil
	}
	return c.tell(covered, AlreadyDenied, nil)
}
