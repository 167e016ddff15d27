package catalog

import (
	"fmt"
	"strings"
)

// table returns the rows of one of the project's tables, without comments and
// heading. It panics on a table that has not the given columns: only a broken
// build can hold one.
func table(name string, columns ...string) [][]string {
	archive := opened().archive
	for _, section := range archive.Tables {
		if section.Name != name {
			continue
		}
		text, err := archive.Read(section)
		if err != nil {
			panic(err)
		}
		rows, err := parse(string(text), columns)
		if err != nil {
			panic(fmt.Errorf("catalogue: table %s: %w", name, err))
		}
		return rows
	}
	panic(fmt.Sprintf("catalogue: no table %s", name))
}

// parse reads tab-separated lines: comments, which begin with #, a heading, rows.
func parse(text string, columns []string) ([][]string, error) {
	var rows [][]string
	heading := strings.Join(columns, "\t")
	headed := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case !headed:
			if line != heading {
				return nil, fmt.Errorf("heading is %q, not %q", line, heading)
			}
			headed = true
		default:
			row := strings.Split(line, "\t")
			if len(row) != len(columns) {
				return nil, fmt.Errorf("%d columns, not %d: %q", len(row), len(columns), line)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}
