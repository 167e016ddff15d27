package minio

import (
	"errors"
	"fmt"
	"testing"

	"github.com/aws/smithy-go"
)

func TestThrottled(t *testing.T) {
	for err, want := range map[error]bool{
		&smithy.GenericAPIError{Code: "SlowDownWrite"}:  true,
		&smithy.GenericAPIError{Code: "AccessDenied"}:   false,
		&apiError{code: "TooManyRequests", status: 429}: true,
		&apiError{code: "AccessDenied", status: 403}:    false,
		errors.New("no answer of the store"):            false,
	} {
		if got := (&minio{}).Throttled(fmt.Errorf("minio: AssumeRole: %w", err)); got != want {
			t.Errorf("%v is throttled: %v, want %v", err, got, want)
		}
	}
}
