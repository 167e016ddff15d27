package lab

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// watchdog is a process that ends a lab whose own process has gone without
// ending it: killed, panicked, or with nobody left to read what it prints. It
// waits for the end of its input, which comes when the lab's process ends,
// however that happens.
type watchdog struct {
	command *exec.Cmd
	input   io.WriteCloser
}

// watching reads the process groups that are to be killed, one a line, with a
// "-" before those that have ended, and kills them at the end of its input; then
// it removes the lab's folder.
const watching = `groups=
while read -r group; do
  case $group in
  -*) groups=$(printf '%s\n' $groups | grep -vx -- "${group#-}") ;;
  *) groups="$groups $group" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
sleep 1
rm -rf "$1"`

func startWatchdog(folder string) (*watchdog, error) {
	command := exec.Command("sh", "-c", watching, "watchdog", folder)
	command.Dir = os.TempDir()
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is not for it
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("starting the watchdog: %w", err)
	}
	return &watchdog{command: command, input: input}, nil
}

// watch adds a process's group to those that are killed.
func (w *watchdog) watch(server *process) error {
	_, err := fmt.Fprintln(w.input, server.command.Process.Pid)
	return err
}

// forget takes a process's group off again.
func (w *watchdog) forget(server *process) {
	_, _ = fmt.Fprintln(w.input, -server.command.Process.Pid) // a watchdog that is gone kills nobody
}

// dismiss ends the watchdog without a deed.
func (w *watchdog) dismiss() {
	_ = w.command.Process.Kill()
	_ = w.command.Wait() // killed
}
