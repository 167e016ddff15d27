package aws

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Where AWS has refused a new key, the second one that a user has was made by
// somebody else meanwhile: it must not be taken for the rotation's and deleted.
func TestARefusedKeyIsNobodys(t *testing.T) {
	for code, notMade := range map[string]bool{"LimitExceeded": true, "AccessDenied": true, "Throttling": true, "ServiceFailure": false} {
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			status := http.StatusBadRequest
			if code == "ServiceFailure" {
				status = http.StatusInternalServerError
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, "<ErrorResponse><Error><Code>%s</Code></Error></ErrorResponse>", code)
		}))
		defer server.Close()
		opened := engineAs(t, engineUser, provider.Settings{"iam_endpoint": server.URL, "sts_endpoint": server.URL})
		_, _, err := opened.NextRoot(t.Context(), provider.RotationPlan{planUser: "engine"})
		if errors.As(err, new(*provider.NotMade)) != notMade || err == nil || asked.Load() != 1 {
			t.Errorf("%s: got %v after %d calls, want that nothing was made: %v", code, err, asked.Load(), notMade)
		}
	}
}
