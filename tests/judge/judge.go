package judge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Verdict is what the judge says of a request.
type Verdict string

// The verdicts. What was refused has none.
const (
	Allowed          Verdict = "Allowed"
	ImplicitlyDenied Verdict = "ImplicitlyDenied" // nothing allows it
	ExplicitlyDenied Verdict = "ExplicitlyDenied" // something denies it, whatever else allows it
)

// Context is what AWS knows of a request, by condition key in any case. A key
// without values is one that this request doesn't have. Each key that a policy
// asks for, and that AWS lists for the action, must be in here: a key that was
// forgotten is refused, since it would be denied for the wrong reason.
type Context map[string][]string

// Request is one call of an AWS API, and all that decides on it.
type Request struct {
	// Principal is the ARN of a user, an assumed-role session
	// (arn:aws:sts::<account>:assumed-role/<role>/<session>) or a federated user.
	Principal string `json:"principal"`
	Action    string `json:"action"`
	// Resource is one ARN without a wildcard, or "*" where the action is not
	// about a resource.
	Resource string `json:"resource"`
	// Account is the resource's, 12 digits.
	Account string  `json:"account"`
	Context Context `json:"context,omitempty"`

	// Identity holds the policies of the user, or of the role or user that a
	// session comes from. Each policy is a JSON document.
	Identity []string `json:"identity,omitempty"`
	// Session is the session policy; empty if there is none, as below.
	Session        string `json:"session,omitempty"`
	ResourcePolicy string `json:"resourcePolicy,omitempty"`
	Boundary       string `json:"boundary,omitempty"`
	// ServiceControl holds the policies of one level of the organisation. None
	// stands for no organisation.
	ServiceControl []string `json:"serviceControl,omitempty"`
}

// Refusal is a request that can't be judged, and why.
type Refusal struct {
	Index int // in the requests that were asked
	Why   string
}

// RefusedError says which requests were refused. It is not a verdict: a test
// that meets it has not shown anything.
type RefusedError struct {
	Refusals []Refusal
	asked    []Request
}

func (e *RefusedError) Error() string {
	const shown = 5
	var text strings.Builder
	fmt.Fprintf(&text, "the judge refuses %d of %d requests", len(e.Refusals), len(e.asked))
	for i, refusal := range e.Refusals {
		if i == shown {
			fmt.Fprintf(&text, "\n  and %d more", len(e.Refusals)-shown)
			break
		}
		request := e.asked[refusal.Index]
		fmt.Fprintf(&text, "\n  %d: %s on %s: %s", refusal.Index, request.Action, request.Resource, refusal.Why)
	}
	return text.String()
}

// Judge is a running simulator. It may be used by many at once, and answers one
// after the other.
type Judge struct {
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Reader
	faults  *bytes.Buffer // is complete once the process has ended

	lock   sync.Mutex
	next   int   // the id of the next request
	broken error // why no more can be asked
}

// Start starts the simulator. It ends with Close, or when ctx does.
func Start(ctx context.Context) (*Judge, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, errors.New(`the judge needs node on PATH: install it with your package manager (Debian: apt-get install nodejs npm), then run "scripts/tools.sh judge"`)
	}
	root, err := lab.Repository()
	if err != nil {
		return nil, err
	}
	installed := filepath.Join(root, ".cache/judge")
	if _, err := os.Stat(filepath.Join(installed, "node_modules")); err != nil {
		return nil, errors.New(`the judge is not installed yet: run "scripts/tools.sh judge"`)
	}
	command := exec.CommandContext(ctx, node, filepath.Join(root, "tests/tools/judge/judge.mjs"), installed)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the tests, which then close their input
	faults := new(bytes.Buffer)
	command.Stderr = faults
	input, err := command.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the judge: %w", err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the judge: %w", err)
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("starting the judge: %w", err)
	}
	return &Judge{command: command, input: input, output: bufio.NewReaderSize(output, 1<<16), faults: faults}, nil
}

// Decide judges the requests: one verdict each, in order. Where some were
// refused, the error is a *RefusedError and the others' verdicts are there; the
// verdict of a refused one is empty.
func (j *Judge) Decide(ctx context.Context, requests []Request) ([]Verdict, error) {
	answers, err := j.ask(ctx, requests, false)
	if err != nil {
		return nil, err
	}
	verdicts := make([]Verdict, len(requests))
	var refusals []Refusal
	for i, answer := range answers {
		verdicts[i] = answer.Verdict
		if answer.Refused != "" {
			refusals = append(refusals, Refusal{Index: i, Why: answer.Refused})
		}
	}
	if refusals != nil {
		return verdicts, &RefusedError{Refusals: refusals, asked: requests}
	}
	return verdicts, nil
}

// Explain judges one request and names the policies and statements that
// decided, for the message of a test that fails.
func (j *Judge) Explain(ctx context.Context, request Request) (string, error) {
	answers, err := j.ask(ctx, []Request{request}, true)
	if err != nil {
		return "", err
	}
	if why := answers[0].Refused; why != "" {
		return "", &RefusedError{Refusals: []Refusal{{Why: why}}, asked: []Request{request}}
	}
	return fmt.Sprintf("%s: %s", answers[0].Verdict, strings.Join(answers[0].Reasons, "; ")), nil
}

type answer struct {
	ID      int      `json:"id"`
	Verdict Verdict  `json:"verdict"`
	Refused string   `json:"refused"`
	Reasons []string `json:"reasons"`
}

// ask writes all requests while it reads the answers, so that neither side
// waits for the other.
func (j *Judge) ask(ctx context.Context, requests []Request, explain bool) ([]answer, error) {
	j.lock.Lock()
	defer j.lock.Unlock()
	if j.broken != nil {
		return nil, j.broken
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	// What is half asked or half answered can't be taken up again.
	stop := context.AfterFunc(ctx, func() { _ = j.command.Process.Kill() })
	defer stop()
	first := j.next
	j.next += len(requests)
	written := make(chan error, 1)
	go func() { written <- j.write(first, requests, explain) }()

	answers := make([]answer, 0, len(requests))
	for i := range requests {
		got, err := j.read(first + i)
		if err != nil {
			return nil, j.fail(ctx, err)
		}
		answers = append(answers, got)
	}
	if err := <-written; err != nil {
		return nil, j.fail(ctx, err)
	}
	return answers, nil
}

func (j *Judge) write(first int, requests []Request, explain bool) error {
	output := bufio.NewWriterSize(j.input, 1<<16)
	encoder := json.NewEncoder(output) // ends each with a line feed
	for i := range requests {
		line := struct {
			ID int `json:"id"`
			*Request
			Explain bool `json:"explain,omitempty"`
		}{first + i, &requests[i], explain}
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
	return output.Flush()
}

func (j *Judge) read(id int) (answer, error) {
	line, err := j.output.ReadBytes('\n')
	if err != nil {
		return answer{}, err
	}
	var got answer
	if err := json.Unmarshal(line, &got); err != nil {
		return answer{}, fmt.Errorf("reading %q: %w", line, err)
	}
	if got.ID != id {
		return answer{}, fmt.Errorf("request %d got the answer of %d", id, got.ID)
	}
	if (got.Refused == "") == (got.Verdict == "") {
		return answer{}, fmt.Errorf("%q is neither a verdict nor a refusal", line)
	}
	switch got.Verdict {
	case Allowed, ImplicitlyDenied, ExplicitlyDenied, "":
		return got, nil
	default:
		return answer{}, fmt.Errorf("unknown verdict %q", got.Verdict)
	}
}

// fail ends the process, since what comes next from it would be the answer to
// something else.
func (j *Judge) fail(ctx context.Context, err error) error {
	_ = j.command.Process.Kill()
	_ = j.input.Close()
	_ = j.command.Wait()
	j.broken = fmt.Errorf("the judge has failed: %w", err)
	if ctx.Err() != nil {
		j.broken = fmt.Errorf("the judge was stopped: %w", context.Cause(ctx))
	} else if faults := strings.TrimSpace(j.faults.String()); faults != "" {
		j.broken = fmt.Errorf("%w\n%s", j.broken, faults)
	}
	return j.broken
}

// Close ends the simulator. Closing it again does nothing.
func (j *Judge) Close() {
	j.lock.Lock()
	defer j.lock.Unlock()
	if j.broken != nil {
		return
	}
	j.broken = errors.New("the judge is closed")
	_ = j.input.Close()  // is what makes it end
	_ = j.command.Wait() // all that was asked has been answered: how it ends says nothing more
}
