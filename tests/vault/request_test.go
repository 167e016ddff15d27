package vault

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// request sends one request to a Vault as it is written, without what a client library
// would do to its path.
func request(ctx context.Context, address, token, method, path, body string) error {
	return send(ctx, http.DefaultTransport, address, token, method, path, body)
}

// requestFrom sends it from one of this machine's addresses.
func requestFrom(ctx context.Context, source, address, token, method, path, body string) error {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	return send(ctx, &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}, address, token, method, path, body)
}

func send(ctx context.Context, way http.RoundTripper, address, token, method, path, body string) error {
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
	answer, err := way.RoundTrip(asked)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	says, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return answerError{method + " " + path, answer.StatusCode, string(says)}
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
