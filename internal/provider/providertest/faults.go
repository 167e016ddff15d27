package providertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// Faults stands between a provider and its target, and can lose calls: from a
// given one on, either before they reach the target or, worse, afterwards, when
// the target has done what it was asked to and only the answer is lost.
type Faults struct {
	URL string // where the provider is to look for its target

	mu        sync.Mutex
	from      int // the first call that is lost, counted from 0; negative: none
	executed  bool
	calls     int
	swallowed [][]byte
}

// NewFaults starts a proxy for target that loses nothing yet.
func NewFaults(t *testing.T, target string) *Faults {
	t.Helper()
	upstream, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	faults := &Faults{from: -1}
	pass := &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(upstream)
			request.Out.Host = request.In.Host // what the provider has signed
		},
		ModifyResponse: func(answer *http.Response) error {
			if answer.Request.Context().Value(lost{}) == nil {
				return nil
			}
			body, err := io.ReadAll(answer.Body)
			if err != nil {
				return err
			}
			answer.Body = io.NopCloser(bytes.NewReader(body))
			faults.mu.Lock()
			defer faults.mu.Unlock()
			faults.swallowed = append(faults.swallowed, body)
			return errLost
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // cuts the connection
	}
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		fails, executed := faults.next()
		if fails && !executed {
			panic(http.ErrAbortHandler)
		}
		if fails {
			request = request.WithContext(withLost(request.Context()))
		}
		pass.ServeHTTP(writer, request)
	}))
	t.Cleanup(server.Close)
	faults.URL = server.URL
	return faults
}

// next counts a call and says whether it is lost, and whether after it has been
// executed.
func (f *Faults) next() (fails, executed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	call := f.calls
	f.calls++
	return f.from >= 0 && call >= f.from, f.executed
}

// LoseFrom loses every call from the given one on, counted from 0 and from now,
// and forgets what was swallowed before.
func (f *Faults) LoseFrom(call int, executed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from, f.executed, f.calls, f.swallowed = call, executed, 0, nil
}

// Heal loses nothing any more. It returns the number of calls since LoseFrom.
func (f *Faults) Heal() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from = -1
	return f.calls
}

// Swallowed are the answers that the provider never saw.
func (f *Faults) Swallowed() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.swallowed
}

// lost marks the context of a call whose answer is to be lost.
type lost struct{}

func withLost(ctx context.Context) context.Context { return context.WithValue(ctx, lost{}, true) }

var errLost = errors.New("the answer is lost")
