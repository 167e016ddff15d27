package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// client sends requests to one Vault. It takes nothing from the environment: that
// is the one of the Vault that this engine runs in.
type client struct {
	address   *url.URL
	namespace string
	http      *http.Client
}

// maxAnswer is more than any answer that the engine reads has, in bytes.
const maxAnswer = 16 << 20

// send sends a request with a token, or without one, and decodes the answer into
// answer unless that is nil. What no Vault answers to what it has done is an error:
// a page of a balancer's must not prove an end. path is without the API's version.
func (c *client) send(ctx context.Context, token, method, path string, body, answer any) error {
	request, err := c.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("X-Vault-Token", token)
	}
	if c.namespace != "" && !strings.HasPrefix(path, "sys/health") { // which no namespace has
		request.Header.Set("X-Vault-Namespace", c.namespace)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("vault: %s %s: %w", method, path, err)
	}
	if response.StatusCode/100 != 2 {
		return refusal(method, path, response.StatusCode, text)
	}
	if answer == nil && response.StatusCode == http.StatusNoContent {
		return nil
	}
	if response.StatusCode == http.StatusAccepted { // which is a promise
		return fmt.Errorf("vault: %s %s: the target has accepted the request, and not carried it out", method, path)
	}
	if answer == nil { // with warnings; or what is in between has answered, and nothing was done
		answer = new(struct{})
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("vault: %s %s: the answer can't be read: %w", method, path, err)
	}
	return nil
}

func (c *client) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("vault: %s %s: encoding the request: %w", method, path, err)
		}
		content = bytes.NewReader(text)
	}
	name, query, _ := strings.Cut(path, "?")
	target := *c.address
	target.Path, target.RawQuery = "/v1/"+name, query
	request, err := http.NewRequestWithContext(ctx, method, target.String(), content)
	if err != nil {
		return nil, fmt.Errorf("vault: %s %s: %w", method, path, err)
	}
	request.Header.Set("X-Vault-Request", "true") // an agent in between may ask for it
	return request, nil
}

// followOnce follows a standby that names the active node, and no further. What goes
// encrypted stays so: the token goes along.
func followOnce(next *http.Request, before []*http.Request) error {
	if len(before) > 1 || (before[0].URL.Scheme == "https" && next.URL.Scheme != "https") {
		return errors.New("redirected more than once, or to plain http")
	}
	return nil
}

// answerError is an answer that says no.
type answerError struct {
	call   string
	status int
	says   string
}

func refusal(method, path string, status int, text []byte) error {
	var body struct{ Errors []string }
	_ = json.Unmarshal(text, &body) // an answer that isn't JSON has no reason to show
	name, _, _ := strings.Cut(path, "?")
	return &answerError{call: method + " " + name, status: status, says: strings.Join(strings.Fields(strings.Join(body.Errors, "; ")), " ")}
}

func (e *answerError) Error() string {
	text := fmt.Sprintf("vault: %s: status %d", e.call, e.status)
	if e.says != "" {
		text += ": " + invalid.Clip(e.says)
	}
	return text
}

// Is says that a Vault which is sealed, or asked too much, may answer in a moment.
func (e *answerError) Is(target error) bool {
	return target == provider.ErrUnavailable && (e.status == http.StatusTooManyRequests || e.status == http.StatusServiceUnavailable)
}

// said says whether the Vault itself has given an answer that says no, with that status:
// what is in between gives no reasons in Vault's form.
func said(err error, status int) bool {
	var refused *answerError
	return statusOf(err) == status && errors.As(err, &refused) && refused.says != ""
}

// statusOf is the status of an answer that says no; 0 for any other error, and where
// the request was not sent.
func statusOf(err error) int {
	var refused *answerError
	if !errors.As(err, new(*tokenless)) && errors.As(err, &refused) {
		return refused.status
	}
	return 0
}

// Throttled implements provider.Throttler.
func (v *vault) Throttled(err error) bool {
	var refused *answerError // to a login, too
	return errors.As(err, &refused) && refused.status == http.StatusTooManyRequests
}

// call sends a request with the engine's own token. One that was refused because the
// Vault knows that token no more is sent again with a new one, where there can be one.
func (v *vault) call(ctx context.Context, method, path string, body, answer any) error {
	for attempt := 0; ; attempt++ {
		token, err := v.own.get(ctx)
		if err != nil {
			return &tokenless{err}
		}
		err = v.client.send(ctx, token, method, path, body, answer)
		if statusOf(err) != http.StatusForbidden || attempt > 0 || !v.own.lost(ctx, token) {
			return err
		}
	}
}
