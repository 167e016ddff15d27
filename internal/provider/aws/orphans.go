package aws

import (
	"context"
	"fmt"
	"iter"
	"regexp"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Tags that say whose a user is, and when it was to end.
const (
	tagMount   = tagPrefix + "mount"
	tagLedger  = tagPrefix + "ledger"
	tagGrant   = tagPrefix + "grant"
	tagExpires = tagPrefix + "expires" // RFC 3339
)

// grantInName is where a user's name carries its grant's id.
var grantInName = regexp.MustCompile(`\A[^-]+-([0-9a-z]{24})(?:-|\z)`)

// userPath is the path of the users of a mount.
func userPath(mount string) string { return "/precision/" + mount + "/" }

// Marked implements provider.OrphanFinder: it lists the users under the mount's
// path, and asks for the tags of those that are not users of known grants.
// IAM's list leaves tags out:
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListUsers.html
func (a *account) Marked(ctx context.Context, mount string, known func(grant string, handle provider.Handle) bool) iter.Seq2[provider.Marked, error] {
	return func(yield func(provider.Marked, error) bool) {
		if mount == "" {
			return // the path would be everybody's
		}
		ctx := circuit.WithUrgency(ctx, circuit.Tidy) // in no hurry
		pages := iam.NewListUsersPaginator(a.client.iam, &iam.ListUsersInput{PathPrefix: awssdk.String(userPath(mount)), MaxItems: awssdk.Int32(1000)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(provider.Marked{}, notPermitted("ListUsers", err))
				return
			}
			for _, user := range page.Users {
				name := awssdk.ToString(user.UserName)
				if isKnown(name, known) {
					continue
				}
				marked, err := a.client.markOf(ctx, name)
				if isGone(err) {
					continue // since it was listed
				}
				if err != nil {
					yield(provider.Marked{}, notPermitted("GetUser", err))
					return
				}
				if !yield(marked, nil) {
					return
				}
			}
		}
	}
}

// isKnown says whether a user is the one of a grant that is known. A name that only
// carries the grant's id may have been given to another user.
func isKnown(name string, known func(grant string, handle provider.Handle) bool) bool {
	carried := grantInName.FindStringSubmatch(name)
	return carried != nil && known(carried[1], provider.Handle{handleUser: name})
}

func (c *client) markOf(ctx context.Context, name string) (provider.Marked, error) {
	answer, err := c.iam.GetUser(ctx, &iam.GetUserInput{UserName: awssdk.String(name)})
	if err != nil {
		return provider.Marked{}, err
	}
	if answer.User == nil {
		return provider.Marked{}, fmt.Errorf("the answer holds no user %q", name)
	}
	tags := map[string]string{}
	for _, tag := range answer.User.Tags {
		tags[awssdk.ToString(tag.Key)] = awssdk.ToString(tag.Value)
	}
	marked := provider.Marked{
		Handle: provider.Handle{handleType: iamUser, handleUser: name, handlePath: awssdk.ToString(answer.User.Path), handleUserID: awssdk.ToString(answer.User.UserId)},
		Mount:  tags[tagMount], Ledger: tags[tagLedger], Grant: tags[tagGrant], Role: tags[tagPrefix+"role"], Task: tags[tagPrefix+"task"],
	}
	if expiresAt, err := time.Parse(time.RFC3339, tags[tagExpires]); err == nil {
		marked.ExpiresAt = expiresAt
	}
	return marked, nil
}

func notPermitted(call string, err error) error {
	if errorCode(err) == "AccessDenied" {
		return fmt.Errorf("aws: %s: %w: allow it iam:ListUsers and iam:GetUser", call, provider.ErrNotPermitted)
	}
	return fmt.Errorf("aws: %s: %w", call, err)
}
