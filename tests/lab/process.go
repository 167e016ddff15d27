package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second
	pollInterval = 50 * time.Millisecond
)

// process is a server that the lab has started, with what it started itself in
// one process group.
type process struct {
	name    string
	command *exec.Cmd
	log     *os.File
	ended   chan struct{}
	once    sync.Once
	end     syscall.Signal // that asks it to end
	stopped func()         // is called when the process has ended, if set
}

func startProcess(folder, name string, command *exec.Cmd) (*process, error) {
	log, err := os.OpenFile(filepath.Join(folder, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	command.Dir = folder
	command.Stdout, command.Stderr = log, log
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Setpgid = true // a Ctrl-C is for the lab, which then stops all in order
	if err := command.Start(); err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	started := &process{name: name, command: command, log: log, ended: make(chan struct{}), end: syscall.SIGTERM}
	go func() {
		_ = command.Wait() // how it ended is seen in its log
		close(started.ended)
	}()
	return started, nil
}

// stop asks the process to end, and kills what is left of its group. Stopping
// it again does nothing.
func (p *process) stop() {
	p.once.Do(func() { p.ask(p.end) })
}

// kill ends the process and its group as a crash would.
func (p *process) kill() {
	p.once.Do(func() { p.killGroup() })
}

// crash ends the process alone; what it has started itself is left to notice.
func (p *process) crash() {
	p.once.Do(func() {
		_ = syscall.Kill(p.command.Process.Pid, syscall.SIGKILL)
		p.gone()
	})
}

// ask lets the process end by a signal, and kills what is left then.
func (p *process) ask(end syscall.Signal) {
	_ = syscall.Kill(p.command.Process.Pid, end)
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
	}
	p.killGroup()
}

func (p *process) killGroup() {
	_ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL)
	p.gone()
}

// gone waits for the end of the process.
func (p *process) gone() {
	<-p.ended
	_ = p.log.Close()
	if p.stopped != nil {
		p.stopped()
	}
}

// ready waits until the server answers at url.
func (p *process) ready(ctx context.Context, url string) error {
	return p.until(ctx, func(ctx context.Context) bool { return answers(ctx, url) })
}

// until waits until the server is as asked.
func (p *process) until(ctx context.Context, asked func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if asked(ctx) {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended before it was ready; its log is %s:\n%s", p.name, p.log.Name(), tail(p.log.Name()))
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready within %s; its log is %s:\n%s", p.name, startTimeout, p.log.Name(), tail(p.log.Name()))
		case <-time.After(pollInterval):
		}
	}
}

func answers(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode < http.StatusInternalServerError || answer.StatusCode == http.StatusNotImplemented // Vault before init
}

// tail is the end of a log, for an error.
func tail(path string) string {
	const shown = 2000
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(text) > shown {
		text = text[len(text)-shown:]
	}
	return string(text)
}

// given are the ports that labs of this process have got: one that is free may be
// another lab's, whose server does not listen yet.
var given struct {
	sync.Mutex
	ports map[int]bool
}

// freePorts finds loopback ports that nothing listens on, and none twice.
func freePorts(count int) ([]int, error) {
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = map[int]bool{}
	}
	var ports []int
	for len(ports) < count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		defer listener.Close() // all are held until all are found
		port := listener.Addr().(*net.TCPAddr).Port
		if !given.ports[port] {
			given.ports[port] = true
			ports = append(ports, port)
		}
	}
	return ports, nil
}

// tool finds a server's binary: on PATH, or where "make tools" puts it.
func tool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	root, err := Repository()
	if err != nil {
		return "", err
	}
	for _, folder := range []string{".cache/bin", ".cache/moto/bin"} {
		path := filepath.Join(root, folder, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is neither on PATH nor built yet: run \"make tools\"", name)
}

// Repository is the project's root folder.
func Repository() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder, nil
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", errors.New("not inside the project's folder")
		}
		folder = parent
	}
}
