package aws

import (
	"errors"
	"fmt"
	"testing"

	"github.com/aws/smithy-go"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
)

func TestThrottled(t *testing.T) {
	for code, want := range map[string]bool{"Throttling": true, "AccessDenied": false, "": false} {
		err := errors.New("no answer of the API")
		if code != "" {
			err = &smithy.GenericAPIError{Code: code}
		}
		if got := (&account{}).Throttled(fmt.Errorf("aws: CreateUser: %w", errors.Join(err))); got != want {
			t.Errorf("%q is throttled: %v, want %v", code, got, want)
		}
	}
	if !(&account{}).Throttled(fmt.Errorf("aws: CreateUser: %w", circuit.ErrPressed)) {
		t.Error("a call whose turn did not come is not called throttled")
	}
}
