package aws

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

const (
	fieldReady        = "wait_ready"
	fieldReadyTimeout = "ready_timeout"

	// A mint has 30 s in all, and three other calls to make.
	readyDefault = 20 * time.Second
	readyLongest = 25 * time.Second
	// A new key is asked for after readyPause, and then after twice as long each
	// time up to readyLastPause.
	readyPause     = 100 * time.Millisecond
	readyLastPause = 2 * time.Second
)

// checkReady refuses a time that a mint does not have, and one for nothing.
func checkReady(options provider.Settings) error {
	seconds, given := options.Number(fieldReadyTimeout)
	switch timeout := time.Duration(seconds) * time.Second; {
	case given && !options.True(fieldReady):
		return invalid.Field(fieldReadyTimeout, timeout.String(), "nothing is waited for", "say "+fieldReady+"=true, or leave it out")
	case timeout > readyLongest:
		return invalid.Field(fieldReadyTimeout, timeout.String(), fmt.Sprintf("longer than a mint may take, %s", readyLongest), "shorten it")
	}
	return nil
}

// checkOnlyUsers refuses what is for users alone.
func checkOnlyUsers(bounds provider.Bounds) error {
	options := bounds.Options
	if cmp.Or(options.Text(handleType), iamUser) == iamUser {
		return nil
	}
	if bounds.Renewable {
		return invalid.Hidden("renewable", "only an "+iamUser+" can be moved to a later end; a session ends when it was said to", "leave it out")
	}
	for _, field := range []string{fieldReady, fieldReadyTimeout} {
		if _, given := options[field]; given {
			return invalid.Hidden(field, "only the key of an "+iamUser+" may need some time; a session works at once", "leave it out")
		}
	}
	return nil
}

// readyIn is how long to wait for a key, as the handle says it: in seconds, empty
// for not at all.
func readyIn(options provider.Settings) string {
	if !options.True(fieldReady) {
		return ""
	}
	seconds, _ := options.Number(fieldReadyTimeout)
	return strconv.Itoa(cmp.Or(seconds, int(readyDefault/time.Second)))
}

// awaitReady waits until AWS knows a new key: IAM is eventually consistent. It
// asks with the key who that is, which no policy can forbid
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html).
func (u *users) awaitReady(ctx context.Context, within string, key *types.AccessKey) error {
	if within == "" {
		return nil
	}
	seconds, err := strconv.Atoi(within)
	if err != nil {
		return fmt.Errorf("aws: the handle's %s: %w", fieldReady, err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	client := u.newSTS(credentials.NewStaticCredentialsProvider(*key.AccessKeyId, *key.SecretAccessKey, ""))
	return poll(ctx, func() error {
		_, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		return err
	})
}

// settling says whether an answer is one that AWS gives while it does not know a
// new key everywhere.
func settling(err error) bool {
	switch errorCode(err) {
	case "InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure", "AccessDenied":
		return true
	default:
		return throttled(err)
	}
}

// poll asks until the answer is yes, or ctx ends: the error is then
// provider.ErrUnavailable, and holds the last answer. An answer that is not
// settling is final.
func poll(ctx context.Context, ask func() error) error {
	var last error
	for pause := readyPause; ; pause = min(2*pause, readyLastPause) {
		err := ask()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			if last = err; !settling(err) {
				return err
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: AWS does not know the new key yet; try again: %w", provider.ErrUnavailable, cmp.Or(last, ctx.Err()))
		}
	}
}
