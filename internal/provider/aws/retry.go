package aws

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

const (
	// mostRetries is the most that max_retries may be: the SDK waits up to 20 s
	// before each, and an end goes on for two minutes.
	mostRetries = 20
	// A mint is tried quickAttempts times, with quickPause between them at most:
	// somebody waits for it.
	quickAttempts = 3
	quickPause    = time.Second
)

// attemptsOf is how often a call is tried in all, from max_retries. Where that is
// not set, it is as often as the machine's configuration or else the SDK says.
func attemptsOf(settings provider.Settings, configured int) (int, error) {
	retries, given := settings.Number("max_retries")
	if !given {
		return cmp.Or(configured, retry.DefaultMaxAttempts), nil
	}
	if retries < 0 || retries > mostRetries {
		return 0, invalid.Field("max_retries", fmt.Sprint(retries), fmt.Sprintf("not between 0 and %d", mostRetries), "choose one of these, or leave it out")
	}
	return retries + 1, nil
}

// patient retries what ends a credential or asks: it slows down to the rate that
// AWS lets through.
func patient(attempts int) awssdk.Retryer {
	return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) {
		o.StandardOptions = append(o.StandardOptions, func(o *retry.StandardOptions) { o.MaxAttempts = attempts })
	})
}

// quick retries what somebody waits for. Once AWS has throttled many calls, it
// stops to retry at all until some succeed.
func quick(attempts int) awssdk.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = min(attempts, quickAttempts)
		o.MaxBackoff = quickPause
	})
}

// throttled says whether AWS has refused a call because there were too many.
func throttled(err error) bool {
	return retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err).Bool()
}

// busy says of a mint that AWS has throttled that it may be tried again.
func busy(err error) error {
	if err == nil || errors.Is(err, provider.ErrUnavailable) || !throttled(err) {
		return err
	}
	return fmt.Errorf("%w: AWS throttles this account's calls; try again in some seconds: %w", provider.ErrUnavailable, err)
}
