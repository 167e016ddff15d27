package postgresql

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// migration is a file of testdata/migrations: what a migration tool or a person would run.
// Its first lines, which begin with "--?", say what becomes of it as the command of a role.
type migration struct {
	name, text string
	header     map[string]string
}

// readMigrations reads the files, in order.
func readMigrations(t *testing.T) []migration {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "migrations", "*.sql"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no migrations: %v", err)
	}
	slices.Sort(files)
	var all []migration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		one := migration{name: filepath.Base(file), text: string(text), header: map[string]string{}}
		for strings.HasPrefix(one.text, "--? ") {
			line, rest, _ := strings.Cut(one.text, "\n")
			key, value, _ := strings.Cut(strings.TrimPrefix(line, "--? "), ": ")
			if !slices.Contains([]string{"refused", "warns", "fails", "verify", "rows", "search_path", "setup",
				"teardown"}, key) || one.header[key] != "" {
				t.Fatalf("%s: %s", one.name, line)
			}
			one.header[key], one.text = value, rest
		}
		all = append(all, one)
	}
	return all
}

// Migrations as people write them are run, or refused when the role is written with what
// would help; what may fail later is warned of.
func TestMigrations(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		counts := map[string]int{}
		for _, one := range readMigrations(t) {
			for _, key := range []string{"setup", "teardown", "verify"} {
				one.header[key] = strings.ReplaceAll(one.header[key], "{database}", s.name)
			}
			s.exec(one.header["setup"])
			counts[m.migrate(s, one)]++
			s.exec(one.header["teardown"])
		}
		figures.Log(t,
			"%d migrations: %d work, %d of them with a warning, %d are refused when the role is written, %d are warned of and fail when they are run",
			counts["works"]+counts["warned"]+counts["refused"]+counts["fails"], counts["works"]+counts["warned"], counts["warned"], counts["refused"], counts["fails"])
	})
}

// migrate writes a role for a migration, runs it where that is taken, and says what came of it.
func (m *mount) migrate(s *shop, one migration) string {
	t := m.t
	t.Helper()
	fields := map[string]any{"action": "RUN", "resource": s.name, "command": one.text, "run_as": owner,
		"run_once": true, "search_path": one.header["search_path"]}
	answer, err := m.tryRole("migrate", fields)
	if want := one.header["refused"]; want != "" {
		if err == nil {
			t.Errorf("%s is not refused", one.name)
			return "works"
		}
		says(t, one.name+": "+refusal(t, err), want)
		return "refused"
	}
	if err != nil {
		t.Errorf("%s: %v", one.name, err)
		return "refused"
	}
	var warnings string
	if answer != nil {
		warnings = strings.Join(answer.Warnings, "\n")
	}
	if want := one.header["warns"]; !strings.Contains(warnings,
		want) || want == "" && warnings != "" && one.header["rows"] == "" {
		t.Errorf("%s: the warnings are %q", one.name, warnings)
	}
	minted := m.mint("migrate/" + strings.NewReplacer("__", "_", ".sql", "").Replace(one.name))
	defer m.revoke(minted)
	session := s.connect(minted.login)
	if want := one.header["rows"]; want != "" {
		var rows string
		if err := session.QueryRow(t.Context(), minted.command).Scan(&rows); err != nil || rows != want {
			t.Errorf("%s: %s, %v", one.name, rows, err)
		}
		return "works"
	}
	_, err = session.Exec(t.Context(), minted.command)
	if want := one.header["fails"]; want != "" {
		if code(err) != want {
			t.Errorf("%s: %v, want %s", one.name, err, want)
		}
		return "fails"
	}
	if err != nil {
		t.Errorf("%s: %v", one.name, err)
		return "fails"
	}
	if got := s.text(one.header["verify"]); got != "true" {
		t.Errorf("%s has run, and %s is %s", one.name, one.header["verify"], got)
	}
	if one.header["warns"] != "" {
		return "warned"
	}
	return "works"
}
