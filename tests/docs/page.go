// Package docs runs the commands that a page of the documentation shows, in the
// page's order, and compares what they print with what the page says.
//
// A command stands in a "console" block behind a prompt, and what it prints
// below it:
//
//		```console
//		$ vault write precision/roles/release \
//		    target=store action=s3:PutObject
//		Success! Data written to: precision/roles/release
//		alice$ vault read precision/creds/release/JIRA-1
//		Error reading precision/creds/release/JIRA-1: …
//		…
//		```
//
//	  - The word before "$" is who types it, see Stage.People; none is the operator.
//	  - A line that ends in "\" goes on in the next, and one that starts with "> "
//	    belongs to the command before it, such as a here-document.
//	  - "…" stands for any text in a line; a line of nothing else, for any lines.
//	  - Where the page shows no output, any will do.
//	  - A command must succeed, unless the output that the page shows has a line that
//	    starts with "Error", or as PostgreSQL's do with "ERROR:" or "psql: error:".
//	  - Variables that a command sets are there for all that come after, whoever
//	    types them.
//
// A block of "sh", "bash" or "shell" is one script without output, typed by the
// operator. An HTML comment <!-- scene: it is Friday --> stands where the world
// changes by itself: see Stage.Scenes.
package docs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// step is a command or a scene of a page.
type step struct {
	line   int    // of the page, from 1
	scene  string // empty for a command
	person string // empty for the operator
	script string
	output []string // that the page shows; nil for none
}

// fails says whether the page shows that the command does.
func (s step) fails() bool {
	return slices.ContainsFunc(s.output, failure.MatchString)
}

var (
	fence   = regexp.MustCompile("^(?:```|~~~)[ \t]*([A-Za-z]*)")
	failure = regexp.MustCompile(`^(Error|ERROR:|psql: error:)`)
	prompt  = regexp.MustCompile(`^([a-z]*)\$ (.+)$`)
	scene   = regexp.MustCompile(`^<!-- scene: (.+) -->$`)
)

var scripts = []string{"sh", "bash", "shell"}

// parse reads the steps of a page.
func parse(page string) ([]step, error) {
	var steps []step
	var script *step // that the lines belong to
	language, inside := "", false
	for i, line := range strings.Split(page, "\n") {
		line, number := strings.TrimRight(line, " \t\r"), i+1
		mark := fence.FindStringSubmatch(line)
		switch {
		case mark != nil && inside:
			if script != nil && strings.TrimSpace(script.script) == "" {
				return nil, fmt.Errorf("line %d: the block has no command", number)
			}
			if script != nil {
				script.output = trimmed(script.output)
			}
			script, inside = nil, false
		case mark != nil:
			language, inside = mark[1], true
			if slices.Contains(scripts, language) {
				steps = append(steps, step{line: number})
				script = &steps[len(steps)-1]
			}
		case !inside:
			if mark := scene.FindStringSubmatch(line); mark != nil {
				steps = append(steps, step{line: number, scene: mark[1]})
			}
		case language == "console":
			if mark := prompt.FindStringSubmatch(line); mark != nil && !(script != nil && goesOn(*script)) {
				if script != nil {
					script.output = trimmed(script.output)
				}
				steps = append(steps, step{line: number, person: mark[1], script: mark[2]})
				script = &steps[len(steps)-1]
				continue
			}
			if script == nil {
				return nil, fmt.Errorf("line %d: the block does not start with a prompt", number)
			}
			switch rest, more := strings.CutPrefix(line, "> "); {
			case goesOn(*script):
				script.script += "\n" + line
			case more && script.output == nil:
				script.script += "\n" + rest
			default:
				script.output = append(script.output, line)
			}
		case slices.Contains(scripts, language):
			script.script += line + "\n"
		default:
			if strings.HasPrefix(line, "$ ") || strings.HasPrefix(line, "vault ") {
				return nil, fmt.Errorf("line %d: a command in a block of %q, which is not run", number, language)
			}
		}
	}
	if inside {
		return nil, fmt.Errorf("the last block is not closed")
	}
	return steps, nil
}

// goesOn says whether the next line is the command's, too.
func goesOn(s step) bool { return s.output == nil && strings.HasSuffix(s.script, `\`) }

// trimmed is output without empty lines at its ends.
func trimmed(lines []string) []string {
	for len(lines) > 0 && lines[0] == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 {
		return nil
	}
	return lines
}

const anything = "…"

// differs says how what was printed is not what the page shows; empty where it is.
func differs(shown, printed []string) string {
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	for _, line := range shown {
		if strings.TrimSpace(line) == anything {
			pattern.WriteString(`(?:.*\n)*`)
			continue
		}
		for i, part := range strings.Split(strings.TrimRight(line, " \t"), anything) {
			if i > 0 {
				pattern.WriteString(`.*`)
			}
			pattern.WriteString(regexp.QuoteMeta(part))
		}
		pattern.WriteString(`\n`)
	}
	pattern.WriteString(`\z`)
	text := strings.Join(printed, "\n") + "\n"
	if len(printed) == 0 {
		text = ""
	}
	if regexp.MustCompile(pattern.String()).MatchString(text) {
		return ""
	}
	return fmt.Sprintf("the page shows\n%s\n\nbut it printed\n%s", strings.Join(shown, "\n"), strings.Join(printed, "\n"))
}
