package aws

import "github.com/aws/aws-sdk-go-v2/aws/retry"

// throttled knows AWS's answers to who asks too much.
var throttled = retry.ThrottleErrorCode{Codes: retry.DefaultThrottleErrorCodes}

// Throttled implements provider.Throttler.
func (a *account) Throttled(err error) bool { return throttled.IsErrorThrottle(err).Bool() }
