package aws

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// command is a row of the table of commands in docs/aws.md.
type command struct {
	line, actions, resource, companion, result string
}

// What the table says of a role.
const (
	resultYes     = "yes"
	resultConsent = "with `allow_escalation`"
	resultNo      = "no"
)

const page = "../../../docs/aws.md"

// section is the part of a page below a heading of that level.
func section(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/aws.md has no section %q", heading)
	}
	part, _, _ := strings.Cut(rest, "\n## ")
	return part
}

// cells are the cells of a table's row, nil for what is none.
func cells(line string) []string {
	if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") {
		return nil
	}
	var all []string
	for _, cell := range strings.Split(strings.Trim(line, "| "), " | ") {
		all = append(all, strings.TrimSpace(cell))
	}
	return all
}

func commandsOf(t *testing.T) []command {
	var all []command
	for _, line := range strings.Split(section(t, "What pipelines run"), "\n") {
		row := cells(line)
		if len(row) < 4 || row[0] == "command" {
			continue
		}
		bare := func(cell string) string { return strings.ReplaceAll(cell, "`", "") }
		resource, companion, _ := strings.Cut(bare(row[2]), " with ")
		all = append(all, command{bare(row[0]), bare(row[1]), resource, companion, row[3]})
	}
	return all
}

// The roles of the table are accepted or refused as it says, and where it says that none
// will do, no named action has what the command needs.
func TestCommandsThatPipelinesRun(t *testing.T) {
	const commands = 88
	account := testAccount(t, "123456789012", "aws")
	all := commandsOf(t)
	counts, services := map[string]int{}, map[string]bool{}
	for _, each := range all {
		counts[each.result]++
		services[strings.Fields(each.line)[1]] = true
		if members := strings.Split(each.actions, " + "); len(members) > 1 {
			checkNotNamed(t, each, members)
			continue
		}
		granted := grants(each.actions, each.resource)
		if each.companion != "" {
			granted.Companions = []string{each.companion}
		}
		_, err := granted.compile(t, account)
		granted.escalation = true
		_, consented := granted.compile(t, account)
		got := resultNo
		switch {
		case err == nil:
			got = resultYes
		case consented == nil:
			got = resultConsent
		}
		if got != each.result {
			t.Errorf("%s: %s on %s is %q and not %q: %v", each.line, each.actions, each.resource, got, each.result, consented)
		}
	}
	figures.Log(t, "commands that pipelines run: %d, of them %d with a role as it is, %d with allow_escalation, %d that can't be had",
		len(all), counts[resultYes], counts[resultConsent], counts[resultNo])
	if len(all) != commands || counts[resultYes]+counts[resultConsent]+counts[resultNo] != commands {
		t.Errorf("%d rows, %v, want %d", len(all), counts, commands)
	}
}

// checkNotNamed holds a row that needs several actions to what there is.
func checkNotNamed(t *testing.T, row command, members []string) {
	t.Helper()
	if row.result != resultNo {
		t.Errorf("%s: several actions, and %q", row.line, row.result)
	}
	for _, member := range members {
		if _, known := catalog.Find(member); !known {
			t.Errorf("%s: no action %s", row.line, member)
		}
	}
	for _, name := range NamedActions("") {
		has := func(member string) bool {
			return slices.ContainsFunc(mustNamed(t, name).Members, func(own Member) bool { return own.Action == member })
		}
		if !slices.ContainsFunc(members, func(member string) bool { return !has(member) }) {
			t.Errorf("%s: %s has all that it needs", row.line, name)
		}
	}
}

// The page lists each member of each named action, and no other.
func TestPageListsNamedActions(t *testing.T) {
	listed := map[string]string{}
	for _, line := range strings.Split(section(t, "Named actions"), "\n") {
		if row := cells(line); len(row) == 3 && strings.Contains(row[0], ":") {
			listed[strings.Trim(row[0], "`")] += line
		}
	}
	for _, name := range NamedActions("") {
		text, found := listed[name]
		delete(listed, name)
		if !found {
			t.Errorf("docs/aws.md does not list %s", name)
		}
		for _, member := range mustNamed(t, name).Members {
			_, short, _ := strings.Cut(member.Action, ":")
			if !strings.Contains(text, "`"+short+"`") && !strings.Contains(text, "`"+member.Action+"`") {
				t.Errorf("docs/aws.md does not say why %s has %s", name, member.Action)
			}
		}
		if got, want := strings.Count(text, "`")/2-1, len(mustNamed(t, name).Members); got != want {
			t.Errorf("docs/aws.md lists %d members of %s, want %d", got, name, want)
		}
	}
	for name := range listed {
		t.Errorf("docs/aws.md lists %s, which is not a named action", name)
	}
}
