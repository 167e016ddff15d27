package docs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Stage is what a page is played on.
type Stage struct {
	// Environment is what everybody has set, as NAME=value, such as the server's
	// address. PATH is the test's own, unless it is among them.
	Environment []string
	// People are the variables of each name at a prompt, on top of Environment: their
	// VAULT_TOKEN, mostly. The empty name is the operator.
	People map[string][]string
	// Scenes are called where the page has a comment of that text. All have to be
	// in the page.
	Scenes map[string]func(t *testing.T)
	// Files are put into the folder that the commands run in, by name.
	Files map[string]string
}

// Play runs a page of docs/, say "tasks.md", from its first command to its last. It
// stops at the first that does not do what the page shows. "tasks.md#Freezing" is the section of that heading alone.
func Play(t *testing.T, page string, stage Stage) {
	t.Helper()
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	file, heading, _ := strings.Cut(page, "#")
	text, err := os.ReadFile(filepath.Join(root, "docs", file))
	if err != nil {
		t.Fatal(err)
	}
	steps, err := parse(section(string(text), heading))
	if err != nil {
		t.Fatalf("%s: %v", page, err)
	}
	if err := stage.knows(steps); err != nil {
		t.Fatalf("%s: %v", page, err)
	}
	folder := t.TempDir()
	for name, content := range stage.Files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	variables := filepath.Join(t.TempDir(), "variables")
	commands := 0
	for _, step := range steps {
		if step.scene != "" {
			stage.Scenes[step.scene](t)
			if t.Failed() {
				t.FailNow()
			}
			continue
		}
		commands++
		printed, failed := stage.run(t, step, folder, variables)
		switch {
		case failed && !step.fails():
			t.Fatalf("%s, line %d: %s\nfailed:\n%s", page, step.line, step.script, strings.Join(printed, "\n"))
		case !failed && step.fails():
			t.Fatalf("%s, line %d: %s\nsucceeded, but the page shows an error:\n%s", page, step.line, step.script, strings.Join(printed, "\n"))
		case step.output == nil:
		default:
			if difference := differs(step.output, printed); difference != "" {
				t.Fatalf("%s, line %d: %s\n%s", page, step.line, step.script, difference)
			}
		}
	}
	if commands == 0 {
		t.Fatalf("%s has no commands", page)
	}
	figures.Log(t, "commands of docs/%s run: %d", page, commands)
}

// section is the part of a page below a heading of the second level, with the lines before it empty, so that lines have
// the page's numbers. Without a heading it is all of the page.
func section(page, heading string) string {
	if heading == "" {
		return page
	}
	lines, inside := strings.Split(page, "\n"), false
	for i, line := range lines {
		if strings.HasPrefix(line, "## ") {
			inside = line == "## "+heading
		}
		if !inside {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

// knows refuses a page that the stage was not made for.
func (s Stage) knows(steps []step) error {
	unseen := maps.Clone(s.Scenes)
	for _, step := range steps {
		if _, known := s.Scenes[step.scene]; step.scene != "" && !known {
			return fmt.Errorf("line %d: nobody plays the scene %q", step.line, step.scene)
		}
		delete(unseen, step.scene)
		if _, known := s.People[step.person]; step.person != "" && !known {
			return fmt.Errorf("line %d: nobody is called %q", step.line, step.person)
		}
	}
	if len(unseen) > 0 {
		return fmt.Errorf("the page lacks the scenes %q", slices.Sorted(maps.Keys(unseen)))
	}
	return nil
}

// wrapper runs a command with the variables of those before it, and leaves its own.
// A person's own variables, such as the address of another server, are not passed on.
const wrapper = `
set -a
if [ -e "$PLAY_VARIABLES" ]; then . "$PLAY_VARIABLES"; fi
eval "$PLAY_PERSON"
set -o pipefail
trap 'status=$?; export -p | grep -vE "^declare -x (PLAY_|($PLAY_PRIVATE)=|PATH=|SHLVL|OLDPWD|PWD)" >"$PLAY_VARIABLES"; exit $status' EXIT
eval "$PLAY_SCRIPT"
`

// run runs a command, and returns what it has printed, errors included.
func (s Stage) run(t *testing.T, step step, folder, variables string) (printed []string, failed bool) {
	t.Helper()
	private := map[string]bool{"VAULT_TOKEN": true}
	for _, variables := range s.People {
		for _, variable := range variables {
			name, _, _ := strings.Cut(variable, "=")
			private[name] = true
		}
	}
	var person strings.Builder
	for _, variable := range s.People[step.person] {
		name, value, _ := strings.Cut(variable, "=")
		fmt.Fprintf(&person, "%s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	script := step.script
	if step.output == nil {
		script = "set -e\n" + script
	}
	command := exec.CommandContext(t.Context(), "bash", "-c", wrapper)
	command.Dir = folder
	command.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + folder, "LC_ALL=C.UTF-8", "VAULT_CLI_NO_COLOR=1"}, s.Environment...)
	command.Env = append(command.Env, "PLAY_VARIABLES="+variables, "PLAY_PRIVATE="+strings.Join(slices.Sorted(maps.Keys(private)), "|"),
		"PLAY_PERSON="+person.String(), "PLAY_SCRIPT="+script)
	output, err := command.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.SplitSeq(string(output), "\n") {
		lines = append(lines, strings.TrimRight(line, " \t\r"))
	}
	return trimmed(lines), err != nil
}

// Vault is the Environment of a stage with a Vault: its address, and its
// command-line tool in front of PATH.
func Vault(vault *lab.Vault) []string {
	return []string{"VAULT_ADDR=" + vault.Address, "PATH=" + filepath.Dir(vault.Binary) + ":" + os.Getenv("PATH")}
}
