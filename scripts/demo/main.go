// Command demo plays a story on real servers that it starts and stops itself, such
// as one exact credential from "vault read" to dead. It checks what it shows: an
// answer that is not the expected one ends it with an error.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/smithy-go"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: demo PLUGIN [STORY]")
		os.Exit(2)
	}
	name := "upload"
	if len(os.Args) == 3 && os.Args[2] != "" {
		name = os.Args[2]
	}
	told, known := stories[name]
	if !known {
		fmt.Fprintf(os.Stderr, "demo: no story is called %q; there are %s\n", name, strings.Join(slices.Sorted(maps.Keys(stories)), ", "))
		os.Exit(2)
	}
	plugin, err := filepath.Abs(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err = run(ctx, plugin, told)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Println("\nInterrupted: everything has been stopped and removed.")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

// story is what is shown.
type story struct {
	title   string
	servers lab.Options
	scenes  func(*demo) []func() error
	moral   string
}

// stories are those that can be asked for; the first one that was told is the default.
var stories = map[string]story{
	"upload": {
		title:  "Precision access: one action, on one resource, for one task, and then gone",
		scenes: func(d *demo) []func() error { return []func() error{d.setUp, d.use, d.revoke, d.outliveVault} },
		moral:  "Vault and MinIO are stopped and their files removed.",
	},
	"reset": resetStory,
}

// demo is the show: where it talks, and what it talks to.
type demo struct {
	*lab.Lab
	ctx    context.Context
	colour bool
	first  lab.Key // the first credential of JIRA-123
	token  string  // of whoever types; empty for root
	alice  string  // her token
}

func run(ctx context.Context, plugin string, told story) error {
	d := &demo{ctx: ctx, colour: onTerminal()}
	d.title(told.title)
	options := told.servers
	options.Plugin, options.Said = plugin, func(what string) { fmt.Println("  ...", what) }
	servers, err := lab.Start(ctx, options)
	if err != nil {
		return err
	}
	defer servers.Close()
	d.Lab = servers

	for _, scene := range told.scenes(d) {
		if err := scene(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	servers.Close()
	fmt.Println()
	fmt.Println(told.moral)
	fmt.Println("Next: \"make dev\" leaves servers running, to play with.")
	return nil
}

func (d *demo) setUp() error {
	d.title("1. An operator says what may be done")
	d.say("The engine is one mount in Vault, like any other secrets engine.")
	if _, err := d.vault("secrets", "enable", "-path=precision", lab.PluginName); err != nil {
		return err
	}
	d.say("A target is a system to mint credentials on: here, a MinIO store.")
	if _, err := d.vault("write", "precision/config/store", "type=minio", "endpoint="+d.Store.Endpoint,
		"access_key="+d.Store.Engine.Access, "secret_key="+d.Store.Engine.Secret); err != nil {
		return err
	}
	d.say("A role names one action on one resource. Anything wider is refused:")
	if err := d.refusedByVault("write", "precision/roles/upload", "target=store", "action=s3:*", "resource=arn:aws:s3:::releases/app/*"); err != nil {
		return err
	}
	if err := d.refusedByVault("write", "precision/roles/upload", "target=store", "action=s3:PutObject", "resource=arn:aws:s3:::rel*"); err != nil {
		return err
	}
	_, err := d.vault("write", "precision/roles/upload", "target=store", "action=s3:PutObject", "resource=arn:aws:s3:::releases/app/*", "ttl=10m", "max_ttl=30m")
	return err
}

func (d *demo) use() error {
	d.title("2. A pipeline reads a credential for its task, JIRA-123")
	key, _, err := d.read("precision/creds/upload/JIRA-123")
	if err != nil {
		return err
	}
	d.say("It can do the one thing it is for. MinIO itself judges the rest:")
	d.first = key
	client := d.Store.S3(key)
	for _, attempt := range []struct {
		what    string
		err     error
		allowed bool
	}{
		{"PUT  releases/app/1.0.tgz    the action, on the resource", lab.Put(d.ctx, client, "releases", "app/1.0.tgz"), true},
		{"GET  releases/app/1.0.tgz    another action", lab.Get(d.ctx, client, "releases", "app/1.0.tgz"), false},
		{"PUT  releases/web/1.0.tgz    another prefix", lab.Put(d.ctx, client, "releases", "web/1.0.tgz"), false},
		{"PUT  private/app/1.0.tgz     another bucket", lab.Put(d.ctx, client, "private", "app/1.0.tgz"), false},
		{"LIST releases                looking around", lab.List(d.ctx, client, "releases"), false},
	} {
		if err := d.judge(attempt.what, attempt.err, attempt.allowed); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) revoke() error {
	d.title("3. An incident: everything of this task ends now")
	d.say("The pipeline has read once more meanwhile, so the task has two credentials:")
	second, _, err := d.read("precision/creds/upload/JIRA-123")
	if err != nil {
		return err
	}
	attempt := func(when string, allowed bool) error {
		for i, key := range []lab.Key{d.first, second} {
			what := fmt.Sprintf("PUT  releases/app/1.1.tgz    the %s credential, %s", []string{"first", "second"}[i], when)
			if err := d.judge(what, lab.Put(d.ctx, d.Store.S3(key), "releases", "app/1.1.tgz"), allowed); err != nil {
				return err
			}
		}
		return nil
	}
	if err := attempt("before", true); err != nil {
		return err
	}
	fmt.Println()
	if _, err := d.vault("lease", "revoke", "-sync", "-prefix", "precision/creds/upload/JIRA-123"); err != nil {
		return err
	}
	return attempt("after", false)
}

func (d *demo) outliveVault() error {
	d.title("4. Vault is lost: the credential ends by itself")
	d.say("A credential for 3 seconds:")
	key, expiresAt, err := d.read("precision/creds/upload/JIRA-124", "ttl=3s")
	if err != nil {
		return err
	}
	d.KillVault()
	d.say("Vault has been killed: nobody is left to revoke anything.")
	fmt.Println()
	client := d.Store.S3(key)
	if err := d.judge("PUT  releases/app/1.3.tgz    without Vault", lab.Put(d.ctx, client, "releases", "app/1.3.tgz"), true); err != nil {
		return err
	}
	for left := time.Until(expiresAt); left > 0; left = time.Until(expiresAt) {
		fmt.Printf("  ... %.1f s to its expires_at\n", left.Seconds())
		select {
		case <-time.After(min(time.Second, left)):
		case <-d.ctx.Done():
			return d.ctx.Err()
		}
	}
	return d.judge("PUT  releases/app/1.4.tgz    at expires_at", lab.Put(d.ctx, client, "releases", "app/1.4.tgz"), false)
}

// vault runs a command of Vault's tool, shows it and what it prints.
func (d *demo) vault(arguments ...string) (string, error) {
	output, err := d.command(arguments)
	d.show(output)
	if err != nil {
		return "", fmt.Errorf("vault %s: %w", arguments[0], err)
	}
	return output, nil
}

// refusedByVault runs a command that Vault is to refuse, and shows why it does.
func (d *demo) refusedByVault(arguments ...string) error {
	output, err := d.command(arguments)
	if err == nil {
		return fmt.Errorf("vault %s was to be refused", strings.Join(arguments, " "))
	}
	_, reason, found := strings.Cut(output, "* ")
	if !found {
		d.show(output)
		return err
	}
	fmt.Println("  " + d.red("REFUSED") + "  " + strings.TrimSpace(reason))
	fmt.Println()
	return nil
}

func (d *demo) command(arguments []string) (string, error) {
	quoted := make([]string, len(arguments))
	for i, argument := range arguments {
		quoted[i] = argument
		if name, _, given := strings.Cut(argument, "="); given && slices.Contains(secrets, name) {
			quoted[i] = name + "=..."
		} else if strings.ContainsAny(argument, "*") {
			quoted[i] = "'" + argument + "'"
		}
	}
	fmt.Println("  " + d.bold("$ vault "+strings.Join(quoted, " ")))
	command := d.Vault.Command(d.ctx, arguments...)
	if d.token != "" {
		command.Env = append(command.Env, "VAULT_TOKEN="+d.token)
	}
	output, err := command.CombinedOutput()
	return string(output), err
}

// secrets are the fields whose values are not shown.
var secrets = []string{"secret_key", "session_token", "secret_id", "token"}

// read mints a credential as a user would, shows what the user sees, the
// secrets cut, and returns what a program would use.
func (d *demo) read(path string, parameters ...string) (lab.Key, time.Time, error) {
	values, err := d.readAll(path, parameters...)
	if err != nil {
		return lab.Key{}, time.Time{}, err
	}
	expiresAt, err := time.Parse(time.RFC3339, values["expires_at"])
	if err != nil {
		return lab.Key{}, time.Time{}, err
	}
	return lab.Key{Access: values["access_key"], Secret: values["secret_key"], Token: values["session_token"]}, expiresAt, nil
}

func (d *demo) readAll(path string, parameters ...string) (map[string]string, error) {
	output, err := d.command(append([]string{"read", path}, parameters...))
	if err != nil {
		d.show(output)
		return nil, fmt.Errorf("vault read: %w", err)
	}
	values := map[string]string{}
	var shown strings.Builder
	for line := range strings.Lines(output) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.TrimSpace(value)
		values[name] = value
		const start = 4
		if slices.Contains(secrets, name) && len(value) > start {
			line = strings.Replace(line, value, value[:start]+"...", 1)
		}
		shown.WriteString(line)
	}
	d.show(shown.String())
	return values, nil
}

// judge shows how a server answered, and checks that it is the right answer.
func (d *demo) judge(what string, err error, allowed bool) error {
	var refusal smithy.APIError
	switch {
	case err == nil:
		fmt.Printf("  %-64s %s\n", what, d.green("ALLOWED"))
	case errors.As(err, &refusal):
		fmt.Printf("  %-64s %s  %s\n", what, d.red("REFUSED"), refusal.ErrorCode())
	default:
		return err
	}
	if (err == nil) != allowed {
		return fmt.Errorf("%s: not the expected answer (%v)", strings.Join(strings.Fields(what), " "), err)
	}
	return nil
}

func (d *demo) show(output string) {
	for line := range strings.Lines(strings.TrimSpace(output)) {
		fmt.Println("  " + strings.TrimRight(line, "\n"))
	}
	fmt.Println()
}

func (d *demo) title(text string) { fmt.Println("\n" + d.bold(text) + "\n") }
func (d *demo) say(text string)   { fmt.Println("  " + text) }

func (d *demo) bold(text string) string  { return d.paint("1", text) }
func (d *demo) green(text string) string { return d.paint("32", text) }
func (d *demo) red(text string) string   { return d.paint("31", text) }

func (d *demo) paint(code, text string) string {
	if !d.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// onTerminal says whether colours would be seen as such. https://no-color.org
func onTerminal() bool {
	info, err := os.Stdout.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == ""
}
