package aws

import (
	"context"
	"errors"
	"fmt"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// pacePause is the most that a paced call waits before it asks for its turn again.
const pacePause = time.Second

// paced retries calls whose pace a limiter sets. The SDK's own adaptive mode finds
// the pace as well, but lets who came first go first.
func paced(attempts int) awssdk.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff, o.RateLimiter = attempts, pacePause, ratelimit.None
	})
}

// pace has each attempt of a client's calls wait for its turn.
func pace(limiter *circuit.Limiter) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("PrecisionPace", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if err := limiter.Wait(ctx); err != nil {
				if errors.Is(err, circuit.ErrPressed) {
					err = fmt.Errorf("%w: AWS throttles this account's calls; try again in some seconds: %w", provider.ErrUnavailable, err)
				}
				return middleware.FinalizeOutput{}, middleware.Metadata{}, err
			}
			out, metadata, err := next.HandleFinalize(ctx, in)
			var answered smithy.APIError
			if err == nil || errors.As(err, &answered) {
				limiter.Answered(throttled(err))
			}
			return out, metadata, err
		}), "Retry", middleware.After)
	}
}
