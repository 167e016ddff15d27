package postgresql

import (
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// everyVersion runs a test on each version of PostgreSQL that was chosen, see
// lab.PostgreSQLVersions. The others run on the oldest.
func everyVersion(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	onVersions(t, chosenVersions(t), test)
}

// oldestAndNewest runs a test that takes long on the oldest and the newest version that
// were chosen.
func oldestAndNewest(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	versions := chosenVersions(t)
	if len(versions) > 1 {
		versions = []string{versions[0], versions[len(versions)-1]}
	}
	onVersions(t, versions, test)
}

func chosenVersions(t *testing.T) []string {
	t.Helper()
	versions, err := lab.PostgreSQLVersions()
	if err != nil {
		t.Fatal(err)
	}
	return versions
}

// onVersions lets servers.PostgreSQL be each version's server in turn. Tests of this
// package don't run in parallel.
func onVersions(t *testing.T, versions []string, test func(t *testing.T)) {
	t.Helper()
	before := servers.PostgreSQL
	defer func() { servers.PostgreSQL = before }()
	for _, version := range versions {
		started, err := servers.PostgreSQLVersion(t.Context(), version)
		if err != nil {
			t.Fatal(err)
		}
		servers.PostgreSQL = started
		t.Run("v"+version, test)
	}
}

// Each version that the suite claims to run on is the one that answers.
func TestVersions(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		s := shopNamed(t, "versions")
		if number := s.text("SELECT current_setting('server_version_num')::integer / 10000"); number != servers.PostgreSQL.Version {
			t.Errorf("the server of version %s says that it is %s", servers.PostgreSQL.Version, number)
		}
	})
}
