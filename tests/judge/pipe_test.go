package judge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Many requests, more than pipes hold, each get their own answer.
func TestManyRequests(t *testing.T) {
	judge := start(t)
	actions := []string{upload, "s3:GetObject", "s3:DeleteObject"}
	want := []Verdict{Allowed, ExplicitlyDenied, ImplicitlyDenied}
	identity := policy(allow(upload, place), `{"Effect":"Deny","Action":"s3:GetObject","Resource":"*"}`)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			var requests []Request
			for i := range 1000 {
				requests = append(requests, request(actions[(i*i+worker)%3], fmt.Sprintf("%s-%d", object, i), identity))
			}
			verdicts, err := judge.Decide(t.Context(), requests)
			if err != nil {
				t.Error(err)
				return
			}
			for i, got := range verdicts {
				if got != want[(i*i+worker)%3] {
					t.Errorf("request %d of %d: got %s", i, worker, got)
				}
			}
		})
	}
	all.Wait()
	if verdicts, err := judge.Decide(t.Context(), nil); err != nil || len(verdicts) != 0 {
		t.Errorf("no request at all: got %v and error %v", verdicts, err)
	}
}

func TestAStoppedJudge(t *testing.T) {
	judge := start(t)
	requests := []Request{request(upload, object, bare)}
	ended, end := context.WithCancel(t.Context())
	end()
	if verdicts, err := judge.Decide(ended, requests); !errors.Is(err, context.Canceled) || verdicts != nil {
		t.Errorf("a request that has ended: got %v and error %v", verdicts, err)
	}
	expect(t, judge, Allowed, requests...) // nothing was asked, so nothing is broken

	requests = slices.Repeat(requests, 100_000) // takes far longer than it gets
	hurried, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if verdicts, err := judge.Decide(hurried, requests); !errors.Is(err, context.DeadlineExceeded) || verdicts != nil {
		t.Fatalf("got %d verdicts and error %v, want none and why", len(verdicts), err)
	}
	if _, err := judge.Decide(t.Context(), requests[:1]); err == nil {
		t.Error("a judge that was stopped still answers")
	}
}

func TestAClosedJudge(t *testing.T) {
	judge := start(t)
	judge.Close()
	judge.Close()
	if verdicts, err := judge.Decide(t.Context(), []Request{request(upload, object, bare)}); err == nil {
		t.Errorf("a closed judge answers %v", verdicts)
	}
}

func TestNodeIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Start(t.Context()); err == nil || !strings.Contains(err.Error(), "install") {
		t.Errorf("got error %v, want how to get node", err)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, line := range []string{
		"",
		"no JSON",
		`{"id":6,"verdict":"Allowed"}`,
		`{"id":7}`,
		`{"id":7,"verdict":"Allowed","refused":"why"}`,
		`{"id":7,"verdict":"Denied"}`,
	} {
		judge := Judge{output: bufio.NewReader(strings.NewReader(line + "\n"))}
		if got, err := judge.read(7); err == nil {
			t.Errorf("%q is taken for %v", line, got)
		}
	}
	judge := Judge{output: bufio.NewReader(strings.NewReader(`{"id":7,"verdict":"Allowed"}` + "\n"))}
	if got, err := judge.read(7); err != nil || got.Verdict != Allowed {
		t.Errorf("got %v and error %v", got, err)
	}
}

func BenchmarkDecide(b *testing.B) {
	judge, err := Start(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer judge.Close()
	for b.Loop() {
		requests := make([]Request, 1000)
		for i := range requests {
			requests[i] = request("s3:GetObject", fmt.Sprintf("%s-%d", object, i), fenced).at(everyone)
		}
		if _, err := judge.Decide(b.Context(), requests); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "requests/s")
}
