package vault

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// request sends one request to a Vault as it is written, without what a client library
// would do to its path.
func request(ctx context.Context, address, token, method, path, body string) error {
	asked, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	name, query, _ := strings.Cut(path, "?")
	plain, err := url.PathUnescape(name)
	if err != nil {
		return err
	}
	asked.URL.Path, asked.URL.RawPath, asked.URL.RawQuery = "/v1/"+plain, "/v1/"+name, query
	if token != "" {
		asked.Header.Set("X-Vault-Token", token)
	}
	if method == http.MethodPatch {
		asked.Header.Set("Content-Type", "application/merge-patch+json")
	}
	// A redirect is an answer of its own.
	answer, err := http.DefaultTransport.RoundTrip(asked)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return answerError{method + " " + path, answer.StatusCode}
	}
	return nil
}

// refused says whether the Vault said no: that the token may not, or that there is no
// such token.
func refused(err error) bool { return statusOf(err) == http.StatusForbidden }

func statusOf(err error) int {
	var answer answerError
	if errors.As(err, &answer) {
		return answer.status
	}
	return 0
}
