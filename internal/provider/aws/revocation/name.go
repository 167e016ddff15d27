// Package revocation ends AWS STS sessions early. A session can't be deleted:
// what ends it is a Deny on its name in a policy of the role that it was assumed
// from (or of the user that called GetFederationToken). The package draws names
// that are cheap to deny, computes the fewest prefixes that cover the revoked
// ones, and commits them to the role's policies in groups.
//
// It holds no SDK: what it needs of IAM is the interface Policies.
package revocation

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"
)

// The parts of a code, in characters of lower-case base32.
const (
	markChars = 5
	roleChars = 3
	taskChars = 4
	idChars   = 16

	// shortest is the length of a mark and a role part. A shorter prefix is never
	// denied: it would deny every name that is still to be drawn.
	shortest   = markChars + roleChars
	taskEnd    = shortest + taskChars
	codeLength = taskEnd + idChars
)

const (
	// maxSessionName is the longest RoleSessionName.
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
	maxSessionName = 64
	// maxFederatedName is the longest Name of a federated user.
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetFederationToken.html
	maxFederatedName = 32
)

// Mark is what all names of one mount begin with, so that two mounts, two Vaults
// and strangers on one base role never deny each other's sessions.
type Mark struct{ text string }

// NewMark is the mark of a mount whose ledger has this id. A restored copy of the
// ledger has another id, and so another mark.
func NewMark(mountUUID, ledgerID string) Mark {
	return Mark{hash(fmt.Sprintf("mark %q %q", mountUUID, ledgerID), markChars)}
}

// String implements fmt.Stringer.
func (m Mark) String() string { return m.text }

// Code is the part of a session's name that tells it from all others: mark, role
// part, task part and id.
type Code struct{ text string }

// String implements fmt.Stringer.
func (c Code) String() string { return c.text }

// Mark is the mark that the code begins with.
func (c Code) Mark() Mark { return Mark{c.text[:markChars]} }

func (c Code) prefix(length int) Prefix { return Prefix{c.text[:length]} }

// Prefix is the beginning of codes, at least a mark and a role part. A denied
// prefix ends every session whose code begins with it.
type Prefix struct{ text string }

// String implements fmt.Stringer.
func (p Prefix) String() string { return p.text }

// Covers says whether denying the prefix ends the session of that code.
func (p Prefix) Covers(code Code) bool { return strings.HasPrefix(code.text, p.text) }

// Name is a session's name: its code, and role and task for people to read.
type Name struct {
	code     Code
	readable string
}

// Code is what the session is revoked by.
func (n Name) Code() Code { return n.code }

// After has a text stand before what people read of the name; empty for nothing.
func (n Name) After(text string) Name {
	if text != "" {
		n.readable = strings.TrimSuffix(text+"-"+n.readable, "-")
	}
	return n
}

// String is the name as AssumeRole takes it.
func (n Name) String() string { return n.cut(maxSessionName) }

// Federated is the name as GetFederationToken takes it: with less to read.
func (n Name) Federated() string { return n.cut(maxFederatedName) }

func (n Name) cut(length int) string {
	text := n.code.text
	if n.readable != "" {
		text += "-" + n.readable
	}
	return text[:min(len(text), length)]
}

const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

func hash(text string, chars int) string {
	sum := sha256.Sum256([]byte(text))
	return encoding.EncodeToString(sum[:])[:chars]
}

// part is the role's or the task's part of a code. The counter gives the same
// role another part where the one before is denied.
func part(kind, name string, counter, chars int) string {
	return hash(fmt.Sprintf("%s %d %q", kind, counter, name), chars)
}

var (
	idShape     = regexp.MustCompile(fmt.Sprintf(`\A[a-z2-7]{%d}\z`, idChars))
	prefixShape = regexp.MustCompile(fmt.Sprintf(`\A[a-z2-7]{%d,%d}\z`, shortest, codeLength))
	nameShape   = regexp.MustCompile(fmt.Sprintf(`\A([a-z2-7]{%d})(?:-([A-Za-z0-9_+=,.@-]{0,%d}))?\z`, codeLength, maxReadable))
	unreadable  = regexp.MustCompile(`[^A-Za-z0-9_+=,.@-]+`)
)

// ParsePrefix reads a prefix of codes.
func ParsePrefix(text string) (Prefix, error) {
	if !prefixShape.MatchString(text) {
		return Prefix{}, fmt.Errorf("revocation: %q is no prefix of sessions' codes", text)
	}
	return Prefix{text}, nil
}

// ParseName reads a session's name, cut to whatever length.
func ParseName(text string) (Name, error) {
	parts := nameShape.FindStringSubmatch(text)
	if parts == nil {
		return Name{}, fmt.Errorf("revocation: %q is no session name of this engine", text)
	}
	return Name{code: Code{parts[1]}, readable: parts[2]}, nil
}

// maxReadable is what a code and a hyphen leave of a session's name.
const maxReadable = maxSessionName - codeLength - 1

// readable is role and task in a session name's characters, cut to fit.
func readable(role, task string) string {
	role, task = unreadable.ReplaceAllString(role, "_"), unreadable.ReplaceAllString(task, "_")
	if task == "" {
		return role[:min(len(role), maxReadable)]
	}
	// The role is cut only where it takes more than half and the task needs it.
	role = role[:min(len(role), max(maxReadable/2, maxReadable-1-len(task)))]
	text := role + "-" + task
	return text[:min(len(text), maxReadable)]
}
