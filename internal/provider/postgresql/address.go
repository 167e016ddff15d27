package postgresql

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Config fields. They are named as those of Vault's own PostgreSQL plugin, where it
// has them.
const (
	fieldURL         = "connection_url"
	fieldUsername    = "username"
	fieldPassword    = "password"
	fieldMaxOpen     = "max_open_connections"
	fieldCA          = "tls_ca"
	fieldCertificate = "tls_certificate"
	fieldPrivateKey  = "private_key"
	fieldServerName  = "tls_server_name"
	fieldStandbys    = "standby_urls"
	// fieldFormer is no field that anybody writes: it stands in storage beside a
	// password that a rotation has stored, see rotate.go.
	fieldFormer = "former_password"
)

const (
	defaultPort    = 5432
	defaultMaxOpen = 10
	mostOpen       = 1000
	connectTimeout = 5 * time.Second
)

// encryption is what is asked of TLS, in libpq's words.
// https://www.postgresql.org/docs/15/libpq-ssl.html
type encryption string

const (
	disable    encryption = "disable"
	prefer     encryption = "prefer"
	require    encryption = "require"
	verifyCA   encryption = "verify-ca"
	verifyFull encryption = "verify-full"
)

// address is where a database is, and how it is spoken to.
type address struct {
	host       string // a name, an address, or the folder of a socket
	port       uint16
	database   string
	encryption encryption
	tls        *tls.Config // nil without encryption
	timeout    time.Duration
}

const urlRemedy = "write it as postgresql://{{username}}:{{password}}@host:5432/database?sslmode=verify-full"

// parseAddress reads a target's settings. The errors are *invalid.Error.
func parseAddress(settings provider.Settings) (address, error) {
	text := settings.Text(fieldURL)
	hidden := func(problem string) (address, error) {
		return address{}, invalid.Hidden(fieldURL, problem, urlRemedy)
	}
	if text == "" {
		return hidden("missing")
	}
	scheme, rest, found := strings.Cut(text, "://")
	if !found || (scheme != "postgresql" && scheme != "postgres") {
		return hidden("not a URL of PostgreSQL")
	}
	before, after, credentials := strings.Cut(rest, "@")
	if credentials {
		if before != "{{username}}:{{password}}" && before != "{{username}}" {
			return hidden("it can be read back, so it holds no credentials but the words {{username}}:{{password}}")
		}
		rest = after
	}
	if strings.ContainsAny(rest, "@{}") {
		return hidden("credentials stand before the host, as {{username}}:{{password}}@")
	}
	parsed, err := url.Parse(scheme + "://" + rest)
	if err != nil || parsed.Opaque != "" || parsed.Fragment != "" || parsed.User != nil {
		return hidden("not a URL")
	}
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return hidden("its query can't be read")
	}
	at := address{host: parsed.Hostname(), port: defaultPort, database: strings.TrimPrefix(parsed.Path, "/"), timeout: connectTimeout}
	wrong := func(problem, remedy string) (address, error) { // its query might hold a password
		return address{}, invalid.Hidden(fieldURL, problem, remedy)
	}
	if at.database == "" {
		return wrong("no database is named", urlRemedy)
	}
	if err := checkName(at.database); err != nil { // a zero byte in it would begin a setting
		return wrong("the database: "+err.Error(), urlRemedy)
	}
	if port := parsed.Port(); port != "" {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 {
			return wrong("the port is no number from 1 to 65535", urlRemedy)
		}
		at.port = uint16(number)
	}
	for name, values := range query {
		switch {
		case len(values) != 1:
			return wrong(name+" is given more than once", "give it once")
		case name == "sslmode":
			at.encryption = encryption(values[0])
		case name == "connect_timeout":
			seconds, err := strconv.Atoi(values[0])
			if err != nil || seconds < 1 || seconds > 60 {
				return wrong("connect_timeout is not from 1 to 60 seconds", "leave it out")
			}
			at.timeout = time.Duration(seconds) * time.Second
		case name == "host" && strings.HasPrefix(values[0], "/") && at.host == "":
			at.host = values[0]
		default:
			return wrong(invalid.Clip(name)+" is not taken", "use sslmode and connect_timeout only, or host=/folder for a socket")
		}
	}
	if at.host == "" || strings.ContainsAny(at.host, ", \x00") {
		return wrong("it does not name one host", urlRemedy)
	}
	return at.withTLS(settings)
}

// socket says whether the server is on this machine, behind a file.
func (a address) socket() bool { return strings.HasPrefix(a.host, "/") }

// private says whether what is sent stays on this machine.
func (a address) private() bool {
	ip, err := netip.ParseAddr(a.host)
	return a.socket() || a.host == "localhost" || (err == nil && ip.IsLoopback())
}

// withTLS completes the address by what the settings say of TLS.
func (a address) withTLS(settings provider.Settings) (address, error) {
	ca, certificate, key, name := settings.Text(fieldCA), settings.Text(fieldCertificate), settings.Text(fieldPrivateKey), settings.Text(fieldServerName)
	if a.encryption == "" {
		a.encryption = prefer
		if ca != "" {
			a.encryption = verifyFull
		}
	}
	modes := []encryption{disable, prefer, require, verifyCA, verifyFull}
	if !slices.Contains(modes, a.encryption) {
		return address{}, invalid.Field(fieldURL, string(a.encryption), "not an sslmode that is taken", "use disable, prefer, require, verify-ca or verify-full")
	}
	if a.socket() {
		a.encryption = disable
	}
	if a.encryption == disable {
		for field, value := range map[string]string{fieldCA: ca, fieldCertificate: certificate, fieldPrivateKey: key, fieldServerName: name} {
			if value != "" {
				return address{}, invalid.Hidden(field, "the connection has no TLS", "write sslmode=verify-full, or leave it out")
			}
		}
		return a, nil
	}
	a.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.host}
	if name != "" {
		a.tls.ServerName = name
	}
	if ca != "" {
		a.tls.RootCAs = x509.NewCertPool()
		if !a.tls.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return address{}, invalid.Hidden(fieldCA, "it holds no certificate", "give certificates in PEM")
		}
		if a.encryption == require {
			a.encryption = verifyCA // as libpq does
		}
		if a.encryption == prefer {
			return address{}, invalid.Hidden(fieldCA, "sslmode=prefer looks at no certificate", "write sslmode=verify-full")
		}
	}
	if (certificate == "") != (key == "") {
		return address{}, invalid.Hidden(fieldPrivateKey, "a certificate and its private key go together", "give tls_certificate and private_key, or neither")
	}
	if certificate != "" {
		pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
		if err != nil {
			return address{}, invalid.Hidden(fieldCertificate, "it is no certificate of this private key", "give both in PEM")
		}
		a.tls.Certificates = []tls.Certificate{pair}
	}
	switch a.encryption {
	case prefer, require:
		a.tls.InsecureSkipVerify = true // as the mode says; Verify warns
	case verifyCA:
		a.tls.InsecureSkipVerify = true
		a.tls.VerifyConnection = signedBy(a.tls.RootCAs)
	case verifyFull, disable:
	}
	return a, nil
}

// signedBy checks a server's certificate without its name.
func signedBy(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the server shows no certificate")
		}
		intermediates := x509.NewCertPool()
		for _, certificate := range state.PeerCertificates[1:] {
			intermediates.AddCert(certificate)
		}
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
		return err
	}
}

// url is the address for a login, as drivers take it.
func (a address) url(username, password string) string {
	location := url.URL{Scheme: "postgresql", User: url.UserPassword(username, password), Path: "/" + a.database}
	query := url.Values{"sslmode": {string(a.encryption)}}
	if a.socket() {
		query.Set("host", a.host)
		query.Set("port", strconv.Itoa(int(a.port)))
	} else {
		location.Host = net.JoinHostPort(a.host, strconv.Itoa(int(a.port)))
	}
	location.RawQuery = query.Encode()
	return location.String()
}
