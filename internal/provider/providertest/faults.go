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
	"time"
)

// Fault is what happens to a call on its way.
type Fault string

const (
	None   Fault = ""
	Cut    Fault = "cut before it is sent"
	Fail   Fault = "answered with a fault of the target's, and not executed"
	Lose   Fault = "executed, and the answer lost"
	Late   Fault = "executed, and answered late"
	Twice  Fault = "executed twice"
	Mute   Fault = "executed, and never answered"
	Hang   Fault = "taken, and neither executed nor answered"
	behind       = 1500 * time.Millisecond // of a late answer
)

// Faults stands between a provider and its target, and can do to calls what a
// network or a target might.
type Faults struct {
	URL string // where the provider is to look for its target

	upstream *url.URL
	mu       sync.Mutex
	fault    Fault
	from, to int           // the calls that have it, counted from 0; to is the first that has not
	healed   chan struct{} // closed by Heal: what hangs is cut
	calls    int
	struck   int
	kept     [][]byte
	watch    func([]byte)
}

// NewFaults starts a proxy for target that has no faults yet.
func NewFaults(t testing.TB, target string) *Faults {
	t.Helper()
	upstream, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	faults := &Faults{upstream: upstream, healed: make(chan struct{})}
	pass := &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(upstream)
			request.Out.Host = request.In.Host // what the provider has signed
		},
		ModifyResponse: faults.answered,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // cuts the connection
	}
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		met := faults.next()
		switch met.fault {
		case Cut:
			panic(http.ErrAbortHandler)
		case Fail:
			writer.WriteHeader(http.StatusServiceUnavailable)
			return
		case Hang:
			_, _ = io.Copy(io.Discard, request.Body) // only then is it seen that the caller gives up
			met.caller = request.Context()
			met.wait()
			panic(http.ErrAbortHandler)
		case Twice:
			if err := faults.send(request); err != nil {
				panic(http.ErrAbortHandler)
			}
		case None, Lose, Late, Mute:
		}
		// A call that has been sent is answered, even to a caller who has gone.
		met.caller = request.Context()
		call, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(request.Context()), metKey{}, met))
		defer cancel()
		pass.ServeHTTP(writer, request.WithContext(call))
	}))
	t.Cleanup(func() {
		faults.Heal() // a server that is closed waits for its calls
		server.Close()
	})
	faults.URL = server.URL
	return faults
}

// met is the fault that a call meets.
type met struct {
	fault  Fault
	healed chan struct{}
	caller context.Context
}

type metKey struct{}

// wait waits until the caller gives up or the proxy is healed.
func (m met) wait() {
	select {
	case <-m.caller.Done():
	case <-m.healed:
	}
}

var errLost = errors.New("the answer is lost")

// answered is called with the target's answer to a call.
func (f *Faults) answered(answer *http.Response) error {
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	met := answer.Request.Context().Value(metKey{}).(met)
	f.note(body, met.fault)
	switch met.fault {
	case Lose:
		return errLost
	case Mute:
		met.wait()
		return errLost
	case Late:
		time.Sleep(behind)
	case None, Cut, Fail, Twice, Hang:
	}
	return nil
}

func (f *Faults) note(body []byte, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fault == Lose || fault == Mute {
		f.kept = append(f.kept, body)
	}
	if f.watch != nil {
		f.watch(body)
	}
}

// send sends a call whose answer nobody sees, and leaves it to be sent again.
func (f *Faults) send(request *http.Request) error {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return err
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	first := request.Clone(request.Context())
	first.RequestURI = ""
	first.URL.Scheme, first.URL.Host = f.upstream.Scheme, f.upstream.Host
	first.Body = io.NopCloser(bytes.NewReader(body))
	answer, err := http.DefaultTransport.RoundTrip(first)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	f.note(text, Lose)
	return nil
}

// next counts a call and says what it meets.
func (f *Faults) next() met {
	f.mu.Lock()
	defer f.mu.Unlock()
	call := f.calls
	f.calls++
	if f.fault == None || call < f.from || call >= f.to {
		return met{fault: None}
	}
	f.struck++
	return met{fault: f.fault, healed: f.healed}
}

const forEver = int(^uint(0) >> 1)

// LoseFrom loses every call from the given one on, counted from 0 and from now,
// and forgets what was swallowed before.
func (f *Faults) LoseFrom(call int, executed bool) {
	if executed {
		f.Set(Lose, call, forEver)
	} else {
		f.Set(Cut, call, forEver)
	}
}

// SetFrom has every call from the given one on meet a fault; see LoseFrom.
func (f *Faults) SetFrom(fault Fault, call int) { f.Set(fault, call, forEver) }

// SetOnce has one call meet a fault; see LoseFrom.
func (f *Faults) SetOnce(fault Fault, call int) { f.Set(fault, call, call+1) }

// Set has the calls from one to before another meet a fault; see LoseFrom.
func (f *Faults) Set(fault Fault, from, to int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.from, f.to, f.calls, f.struck, f.kept = fault, from, to, 0, 0, nil
}

// Heal has no faults any more. It returns the number of calls since they were
// set.
func (f *Faults) Heal() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = None
	close(f.healed)
	f.healed = make(chan struct{})
	return f.calls
}

// Struck counts the calls since a fault was set that have met it.
func (f *Faults) Struck() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.struck
}

// Calls counts the calls since a fault was set.
func (f *Faults) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Swallowed are the answers that the provider never saw.
func (f *Faults) Swallowed() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kept
}

// Watch has every answer of the target's shown, one after the other, whether the
// provider sees it or not.
func (f *Faults) Watch(watch func(body []byte)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch = watch
}
