package tests

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every row of the page on wishes names the tests that hold it, which are there.
func TestWishesPage(t *testing.T) {
	page, err := os.ReadFile("../docs/wishes.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	named := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	err = filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != ".." && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, found := range named.FindAllStringSubmatch(string(text), -1) {
			tests[found[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	asked := map[string]bool{}
	for _, row := range wishes(string(page)) {
		rows++
		cells := strings.Split(strings.Trim(row, "|"), "|")
		if len(cells) != 4 {
			t.Errorf("not four cells: %s", row)
			continue
		}
		for _, number := range regexp.MustCompile(`#\d+`).FindAllString(cells[1], -1) {
			asked[number] = true
		}
		if !strings.Contains(cells[2], "`vault ") && !strings.Contains(cells[2], ".md") {
			t.Errorf("no command: %s", row)
		}
		holding := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[3], -1)
		if len(holding) == 0 {
			t.Errorf("no test: %s", row)
		}
		for _, name := range holding {
			if !tests[name[1]] {
				t.Errorf("there is no test %s", name[1])
			}
		}
	}
	for _, number := range []string{"#7367", "#2735", "#11452", "#16685", "#5190", "#15869", "#19412", "#2615", "#26641", "#9728"} {
		if !asked[number] {
			t.Errorf("no row answers %s", number)
		}
	}
	if rows < 10 {
		t.Errorf("only %d rows were read", rows)
	}
}

// wishes are the rows of the page's table, without its head.
func wishes(page string) (rows []string) {
	for line := range strings.Lines(page) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| ---") && !strings.HasPrefix(line, "| the wish |") {
			rows = append(rows, line)
		}
	}
	return rows
}
