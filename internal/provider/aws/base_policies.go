package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/revocation"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Quotas of IAM, in characters without white space and in policies.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const (
	maxRoleInline = 10240
	maxUserInline = 2048
	maxAttached   = 10 // unless AWS has raised it, which nothing tells
)

// revokedPath is the path of the managed policies that end sessions.
const revokedPath = "/precision/"

// basePolicies are the policies of a base role or user that end its sessions: the
// inline policy precision-revoked-<mark>, and managed ones whose names go on with
// a hash of the base and their slot's number. It implements revocation.Policies.
type basePolicies struct {
	client *atomic.Pointer[client]
	base   scope.ARN
	holder func(*iam.Client) holder
	inline string // the inline policy's name
	// characters that all inline policies of the base may have together.
	characters int
	longest    time.Duration // the longest life of one of the base's sessions
	// barred is the client that managed policies can't be made or attached with.
	barred atomic.Pointer[client]
}

// holder is who has policies: a role or a user.
type holder interface {
	listInline(ctx context.Context, marker *string) (inlinePage, error)
	getInline(ctx context.Context, name string) (document *string, err error)
	putInline(ctx context.Context, name, document string) error
	deleteInline(ctx context.Context, name string) error
	listAttached(ctx context.Context, marker *string) (attached []types.AttachedPolicy, next *string, err error)
	attach(ctx context.Context, arn string) error
	detach(ctx context.Context, arn string) error
}

func newBasePolicies(base string, mark revocation.Mark, using *atomic.Pointer[client]) (*basePolicies, error) {
	arn, err := scope.ParseARN(base)
	if err != nil {
		return nil, fmt.Errorf("aws: a session's base: %s", err) // not the caller's mistake
	}
	made := &basePolicies{client: using, base: arn, inline: "precision-revoked-" + mark.String()}
	name := arn.Resource[strings.LastIndex(arn.Resource, "/")+1:]
	switch what, _, _ := strings.Cut(arn.Resource, "/"); what {
	case "role":
		made.characters, made.longest = maxRoleInline, longestAssumed
		made.holder = func(api *iam.Client) holder { return roleHolder{api, name} }
	case "user":
		made.characters, made.longest = maxUserInline, longestFederated
		made.holder = func(api *iam.Client) holder { return userHolder{api, name} }
	default:
		return nil, fmt.Errorf("aws: a session's base: %q is neither a role nor a user", base)
	}
	return made, nil
}

func (p *basePolicies) api() *iam.Client { return p.client.Load().iam }

// managedName is the name of a slot's managed policy. They are the account's, so
// the base is in it.
func (p *basePolicies) managedName(slot int) string { return p.managedPrefix() + strconv.Itoa(slot) }

func (p *basePolicies) managedPrefix() string {
	sum := sha256.Sum256([]byte(p.base.String()))
	return p.inline + "-" + hex.EncodeToString(sum[:6]) + "-"
}

func (p *basePolicies) managedARN(slot int) string {
	return "arn:" + p.base.Partition + ":iam::" + p.base.Account + ":policy" + revokedPath + p.managedName(slot)
}

// slotOf is the slot of a managed policy's name, 0 where it is another's.
func (p *basePolicies) slotOf(name string) int {
	text, own := strings.CutPrefix(name, p.managedPrefix())
	slot, err := strconv.Atoi(text)
	if !own || err != nil || slot <= 0 || strconv.Itoa(slot) != text {
		return 0
	}
	return slot
}

// Read implements revocation.Policies.
func (p *basePolicies) Read(ctx context.Context) (revocation.Observed, error) {
	seen := revocation.Observed{Managed: map[int]revocation.Managed{}}
	if err := p.readInline(ctx, &seen); err != nil {
		return revocation.Observed{}, err
	}
	if err := p.readManaged(ctx, &seen); err != nil {
		return revocation.Observed{}, err
	}
	return seen, nil
}

func (p *basePolicies) readInline(ctx context.Context, seen *revocation.Observed) error {
	held := p.holder(p.api())
	others := 0
	for marker := (*string)(nil); ; {
		page, err := held.listInline(ctx, marker)
		if err != nil {
			return err
		}
		seen.At = page.at
		for _, name := range page.names {
			document, err := held.getInline(ctx, name)
			if gone := new(types.NoSuchEntityException); errors.As(err, &gone) {
				continue // since it was listed
			}
			if err != nil {
				return err
			}
			text := unescaped(document)
			if name == p.inline {
				seen.Inline = text
			} else {
				others += characters(text)
			}
		}
		if marker = page.next; marker == nil {
			seen.Room.Inline = max(p.characters-others, 0)
			return nil
		}
	}
}

// characters is the size of a policy as IAM counts it.
func characters(text string) (count int) {
	for _, r := range text {
		if !unicode.IsSpace(r) {
			count++
		}
	}
	return count
}

// readManaged finds what managed policies there are. An engine that has no right
// to list or attach any does with its inline policy.
func (p *basePolicies) readManaged(ctx context.Context, seen *revocation.Observed) error {
	held := p.holder(p.api())
	attached, others := map[int]bool{}, 0
	for marker := (*string)(nil); ; {
		some, next, err := held.listAttached(ctx, marker)
		if errorCode(err) == "AccessDenied" {
			return nil
		}
		if err != nil {
			return err
		}
		for _, policy := range some {
			if slot := p.slotOf(awssdk.ToString(policy.PolicyName)); slot > 0 && awssdk.ToString(policy.PolicyArn) == p.managedARN(slot) {
				attached[slot] = true
			} else {
				others++
			}
		}
		if marker = next; marker == nil {
			break
		}
	}
	exist, err := p.listManaged(ctx)
	if errorCode(err) == "AccessDenied" {
		exist, err = attached, nil // what was made and not attached is found when it is made again
	}
	if err != nil {
		return err
	}
	if seen.Room.Managed = max(maxAttached-others, 0); p.barred.Load() == p.client.Load() {
		seen.Room.Managed = len(attached)
	}
	for slot := range exist {
		document, err := p.readVersion(ctx, slot)
		if err != nil {
			return err
		}
		seen.Managed[slot] = revocation.Managed{Document: document, Attached: attached[slot]}
	}
	return nil
}

// listManaged lists the slots whose policies exist.
func (p *basePolicies) listManaged(ctx context.Context) (map[int]bool, error) {
	exist := map[int]bool{}
	for marker := (*string)(nil); ; {
		answer, err := p.api().ListPolicies(ctx, &iam.ListPoliciesInput{PathPrefix: awssdk.String(revokedPath), Scope: types.PolicyScopeTypeLocal, Marker: marker})
		if err != nil {
			return nil, fmt.Errorf("aws: ListPolicies: %w", err)
		}
		for _, policy := range answer.Policies {
			if slot := p.slotOf(awssdk.ToString(policy.PolicyName)); slot > 0 && awssdk.ToString(policy.Arn) == p.managedARN(slot) {
				exist[slot] = true
			}
		}
		if marker = further(answer.IsTruncated, answer.Marker); marker == nil {
			return exist, nil
		}
	}
}

// readVersion reads the document that is in force in a slot.
func (p *basePolicies) readVersion(ctx context.Context, slot int) (string, error) {
	arn := awssdk.String(p.managedARN(slot))
	found, err := p.api().GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: arn})
	if err != nil {
		return "", fmt.Errorf("aws: GetPolicy: %w", err)
	}
	if found.Policy == nil {
		return "", errors.New("aws: GetPolicy: the answer holds no policy")
	}
	version, err := p.api().GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: arn, VersionId: found.Policy.DefaultVersionId})
	if err != nil {
		return "", fmt.Errorf("aws: GetPolicyVersion: %w", err)
	}
	if version.PolicyVersion == nil {
		return "", errors.New("aws: GetPolicyVersion: the answer holds no version")
	}
	return unescaped(version.PolicyVersion.Document), nil
}

// unescaped is a document, which IAM answers as RFC 3986 escapes it. What is not
// escaped so is taken as it is.
func unescaped(document *string) string {
	text, err := url.PathUnescape(awssdk.ToString(document))
	if err != nil {
		return awssdk.ToString(document)
	}
	return text
}

// PutInline implements revocation.Policies.
func (p *basePolicies) PutInline(ctx context.Context, document string) error {
	return p.holder(p.api()).putInline(ctx, p.inline, document)
}

// DeleteInline implements revocation.Policies.
func (p *basePolicies) DeleteInline(ctx context.Context) error {
	return p.holder(p.api()).deleteInline(ctx, p.inline)
}

// Create implements revocation.Policies.
func (p *basePolicies) Create(ctx context.Context, slot int, document string) error {
	_, err := p.api().CreatePolicy(ctx, &iam.CreatePolicyInput{
		PolicyName: awssdk.String(p.managedName(slot)), Path: awssdk.String(revokedPath), PolicyDocument: awssdk.String(document),
		Description: awssdk.String("Ends sessions of " + p.base.String() + " that were revoked"),
	})
	if exists := new(types.EntityAlreadyExistsException); errors.As(err, &exists) {
		return p.Update(ctx, slot, document)
	}
	p.bar(err)
	if err != nil {
		return fmt.Errorf("aws: CreatePolicy: %w", err)
	}
	return nil
}

// Update implements revocation.Policies.
func (p *basePolicies) Update(ctx context.Context, slot int, document string) error {
	create := func() error {
		_, err := p.api().CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: awssdk.String(p.managedARN(slot)), PolicyDocument: awssdk.String(document), SetAsDefault: true})
		return err
	}
	err := create()
	if full := new(types.LimitExceededException); errors.As(err, &full) {
		if err := p.dropVersions(ctx, slot); err != nil {
			return err
		}
		err = create()
	}
	if err != nil {
		return fmt.Errorf("aws: CreatePolicyVersion: %w", err)
	}
	return nil
}

// dropVersions deletes the versions that are not in force.
func (p *basePolicies) dropVersions(ctx context.Context, slot int) error {
	arn := awssdk.String(p.managedARN(slot))
	answer, err := p.api().ListPolicyVersions(ctx, &iam.ListPolicyVersionsInput{PolicyArn: arn})
	if err != nil {
		return unlessGone("ListPolicyVersions", err)
	}
	for _, version := range answer.Versions {
		if version.IsDefaultVersion {
			continue
		}
		_, err := p.api().DeletePolicyVersion(ctx, &iam.DeletePolicyVersionInput{PolicyArn: arn, VersionId: version.VersionId})
		if err := unlessGone("DeletePolicyVersion", err); err != nil {
			return err
		}
	}
	return nil
}

// Attach implements revocation.Policies.
func (p *basePolicies) Attach(ctx context.Context, slot int) error {
	err := p.holder(p.api()).attach(ctx, p.managedARN(slot))
	p.bar(err)
	return err
}

// bar has no more managed policies planned with this client if that is what was
// refused: others may be read, and what has room for fewer prefixes still ends all.
// It holds until the target is opened anew.
func (p *basePolicies) bar(err error) {
	if errorCode(err) == "AccessDenied" {
		p.barred.Store(p.client.Load())
	}
}

// Detach implements revocation.Policies.
func (p *basePolicies) Detach(ctx context.Context, slot int) error {
	return p.holder(p.api()).detach(ctx, p.managedARN(slot))
}

// Delete implements revocation.Policies.
func (p *basePolicies) Delete(ctx context.Context, slot int) error {
	if err := p.dropVersions(ctx, slot); err != nil {
		return err
	}
	_, err := p.api().DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: awssdk.String(p.managedARN(slot))})
	return unlessGone("DeletePolicy", err)
}
