package postgresql

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		url, host  string
		port       uint16
		database   string
		encryption encryption
		login      string
	}{
		{"postgresql://{{username}}:{{password}}@db.example.com/shop", "db.example.com", 5432, "shop", prefer, "postgresql://u:p%2F@db.example.com:5432/shop?sslmode=prefer"},
		{"postgres://{{username}}:{{password}}@10.0.0.7:6432/shop?sslmode=verify-full", "10.0.0.7", 6432, "shop", verifyFull, "postgresql://u:p%2F@10.0.0.7:6432/shop?sslmode=verify-full"},
		{"postgresql://[::1]:5433/My%20Shop?sslmode=disable&connect_timeout=3", "::1", 5433, "My Shop", disable, "postgresql://u:p%2F@[::1]:5433/My%20Shop?sslmode=disable"},
		{"postgresql://{{username}}@/shop?host=/var/run/postgresql", "/var/run/postgresql", 5432, "shop", disable, "postgresql://u:p%2F@/shop?host=%2Fvar%2Frun%2Fpostgresql&port=5432&sslmode=disable"},
	} {
		got, err := parseAddress(provider.Settings{fieldURL: test.url})
		if err != nil {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		if got.host != test.host || got.port != test.port || got.database != test.database || got.encryption != test.encryption || (got.tls == nil) != (test.encryption == disable) {
			t.Errorf("%s: %+v", test.url, got)
		}
		if login := got.url("u", "p/"); login != test.login {
			t.Errorf("%s: a login is told %s, want %s", test.url, login, test.login)
		}
	}
}

func TestTargetsThatAreRefused(t *testing.T) {
	t.Parallel()
	const good = "postgresql://{{username}}:{{password}}@db.example.com/shop"
	for name, test := range map[string]struct {
		settings provider.Settings
		field    string
	}{
		"nothing":                {provider.Settings{}, fieldURL},
		"another kind":           {provider.Settings{fieldURL: "mysql://db/shop"}, fieldURL},
		"words":                  {provider.Settings{fieldURL: "host=db user={{username}}"}, fieldURL},
		"credentials":            {provider.Settings{fieldURL: "postgresql://engine:hunter2@db/shop"}, fieldURL},
		"half of them":           {provider.Settings{fieldURL: "postgresql://{{username}}:hunter2@db/shop"}, fieldURL},
		"two hosts":              {provider.Settings{fieldURL: "postgresql://{{username}}:{{password}}@db1,db2/shop"}, fieldURL},
		"a setting after it":     {provider.Settings{fieldURL: good + "%00options%00-c%20role=postgres"}, fieldURL},
		"a folder and a setting": {provider.Settings{fieldURL: "postgresql://{{username}}@/shop?host=/run%00options"}, fieldURL},
		"no database":            {provider.Settings{fieldURL: "postgresql://{{username}}:{{password}}@db"}, fieldURL},
		"a file":                 {provider.Settings{fieldURL: good + "?sslrootcert=/etc/passwd"}, fieldURL},
		"a password in a query":  {provider.Settings{fieldURL: good + "?password=hunter2"}, fieldURL},
		"options":                {provider.Settings{fieldURL: good + "?options=-csearch_path%3Dx"}, fieldURL},
		"a mode":                 {provider.Settings{fieldURL: good + "?sslmode=allow"}, fieldURL},
		"two modes":              {provider.Settings{fieldURL: good + "?sslmode=require&sslmode=disable"}, fieldURL},
		"a port":                 {provider.Settings{fieldURL: "postgresql://{{username}}:{{password}}@db:99999/shop"}, fieldURL},
		"a CA and no TLS":        {provider.Settings{fieldURL: good + "?sslmode=disable", fieldCA: "x"}, fieldCA},
		"no CA":                  {provider.Settings{fieldURL: good, fieldCA: "hunter2"}, fieldCA},
		"a certificate alone":    {provider.Settings{fieldURL: good, fieldCertificate: "hunter2"}, fieldPrivateKey},
		"a certificate of none":  {provider.Settings{fieldURL: good, fieldCertificate: "hunter2", fieldPrivateKey: "hunter2"}, fieldCertificate},
		"no user":                {provider.Settings{fieldURL: good, fieldPassword: "x"}, fieldUsername},
		"no password":            {provider.Settings{fieldURL: good, fieldUsername: "precision"}, fieldPassword},
		"a number of sessions":   {provider.Settings{fieldURL: good, fieldUsername: "precision", fieldPassword: "x", fieldMaxOpen: -1}, fieldMaxOpen},
		"an impossible username": {provider.Settings{fieldURL: good, fieldUsername: strings.Repeat("x", 64), fieldPassword: "x"}, fieldUsername},
	} {
		_, err := open(test.settings, nil)
		var refusal *invalid.Error
		if !errors.As(err, &refusal) || refusal.Field != test.field {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells a secret: %v", name, err)
		}
	}
}

// A rotation stores nothing that reading the target would refuse as unknown.
func TestNextRootStoresKnownSettings(t *testing.T) {
	t.Parallel()
	opened, err := Type().Open(provider.Settings{
		fieldURL: "postgresql://{{username}}:{{password}}@db.example.com/shop", fieldUsername: "engine", fieldPassword: "first",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, settings, err := opened.(provider.RootRotator).NextRoot(t.Context(), provider.RotationPlan{})
	if err != nil {
		t.Fatal(err)
	}
	if settings.Text(fieldFormer) != "first" {
		t.Error("the former password is not stored")
	}
	for name := range settings {
		if _, known := Type().Config[name]; !known && !slices.Contains(Type().Stored, name) {
			t.Errorf("setting %q is in neither Config nor Stored", name)
		}
	}
}

// The exchange is the example of RFC 7677: who knows the verifier can tell that its
// client knows the password, and can prove to be the server.
func TestVerifier(t *testing.T) {
	t.Parallel()
	const (
		nonce    = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
		salt     = "W22ZaJ0SNY7soEsUEjb6gQ=="
		said     = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=" + nonce + ",s=" + salt + ",i=4096,c=biws,r=" + nonce
		proof    = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
		answered = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	)
	decode := func(text string) []byte {
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return decoded
	}
	got, err := scram("pencil", string(decode(salt)))
	if err != nil {
		t.Fatal(err)
	}
	keys, found := strings.CutPrefix(got, "SCRAM-SHA-256$4096:"+salt+"$")
	stored, server, both := strings.Cut(keys, ":")
	if !found || !both {
		t.Fatalf("the verifier is %s", got)
	}
	sign := func(key []byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(said))
		return mac.Sum(nil)
	}
	client := decode(proof)
	for i, mask := range sign(decode(stored)) {
		client[i] ^= mask
	}
	if sum := sha256.Sum256(client); !hmac.Equal(sum[:], decode(stored)) {
		t.Error("the client's proof does not fit the verifier")
	}
	if !hmac.Equal(sign(decode(server)), decode(answered)) {
		t.Error("the server's proof is not that of the example")
	}
}

func TestMarks(t *testing.T) {
	t.Parallel()
	for _, bears := range []mark{{mount: "m", ledger: "l"}, {mount: "m", ledger: "l", grant: "g"}, {mount: "m", grant: "g"}} {
		if got, ours := readMark(bears.String()); !ours || got != bears {
			t.Errorf("%v is read as %v %t", bears, got, ours)
		}
	}
	for _, comment := range []string{"", "a role of ours", marked, marked + " ledger=l", marked + " mount=m task=t", "x" + mark{mount: "m"}.String()} {
		if got, ours := readMark(comment); ours {
			t.Errorf("%q is read as %v", comment, got)
		}
	}
}

// While a rotation is under way, one of two passwords works, and it is found again
// whichever that is.
func TestPasswords(t *testing.T) {
	t.Parallel()
	wrong := &pgconn.PgError{Code: invalidPassword}
	secrets := &passwords{all: []string{"new", "former"}}
	for _, works := range []string{"former", "former", "new", "former", "new", "new"} {
		got, err := withPasswords(secrets, func(password string) (string, error) {
			if password != works {
				return "", wrong
			}
			return password, nil
		})
		if err != nil || got != works {
			t.Errorf("%s: %q %v", works, got, err)
		}
	}
	tries := 0
	for _, failure := range []error{wrong, errors.New("no network")} {
		if _, err := withPasswords(secrets, func(string) (int, error) { tries++; return 0, failure }); !errors.Is(err, failure) {
			t.Errorf("the error is %v", err)
		}
	}
	if tries != 5 {
		t.Errorf("%d tries, want each password twice, and one without a network", tries)
	}
}

func TestLiterals(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "''", "a": "'a'", "a'b": "'a''b'", `\'`: `'\'''`, "a\x00b": "'ab'"} {
		if got := literal(text); got != want {
			t.Errorf("%q becomes %s, want %s", text, got, want)
		}
	}
}
