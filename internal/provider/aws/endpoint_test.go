package aws

import (
	"errors"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Requests to AWS go over https, or to the same machine, and never to its network's own
// services.
func TestEndpoints(t *testing.T) {
	for text, accepted := range map[string]bool{
		"http://127.0.0.1:5000":                             true,
		"http://127.8.9.1":                                  true,
		"http://[::1]:5000":                                 true,
		"http://[::ffff:127.0.0.1]":                         true,
		"http://localhost:5000":                             true,
		"https://iam.amazonaws.com":                         true,
		"https://sts.eu-west-1.amazonaws.com":               true,
		"https://vpce-1-x.sts.eu-west-1.vpce.amazonaws.com": true,
		"https://10.0.0.7":                                  true,
		"http://169.254.169.254":                            false,
		"https://169.254.169.254":                           false,
		"http://169.254.170.2:80":                           false,
		"http://[::ffff:169.254.169.254]":                   false,
		"https://[::ffff:a9fe:a9fe]":                        false,
		"https://[fe80::1]":                                 false,
		"https://[fe80::1%25eth0]":                          false,
		"http://[fd00:ec2::254]":                            false,
		"https://[fd00:ec2::254]":                           false,
		"https://[fd00:ec2::23]":                            false,
		"https://[64:ff9b::a9fe:a9fe]":                      false,
		"https://[64:ff9b::169.254.169.254]":                false,
		"https://１６９.254.169.254":                           false,
		"https://169。254。169。254":                           false,
		"https://169.254.169.254.":                          false,
		"http://localhost.":                                 false,
		"https://x@169.254.169.254":                         false,
		"https://0.0.0.0":                                   false,
		"http://0.0.0.0":                                    false,
		"https://[::]":                                      false,
		"https://224.0.0.1":                                 false,
		"http://10.0.0.7":                                   false,
		"http://iam.amazonaws.com":                          false,
		"http://metadata.google.internal":                   false,
		"http://2852039166":                                 false,
		"https://2852039166":                                false,
		"https://0xa9fea9fe":                                false,
		"https://169.254.43518":                             false,
		"https://0251.0376.0251.0376":                       false,
		"http://localhost.example.com":                      false,
		"http://127.0.0.1.example.com":                      false,
		"http://:5000":                                      false,
		"ftp://127.0.0.1":                                   false,
	} {
		for _, field := range []string{"iam_endpoint", "sts_endpoint"} {
			_, err := open(provider.Settings{"region": "eu-west-1", "access_key": "AKIA", "secret_key": "x", field: text}, nil)
			if accepted != (err == nil) || err != nil && !errors.As(err, new(*invalid.Error)) {
				t.Errorf("%s=%s: got %v", field, text, err)
			}
		}
	}
}

// No text is accepted that is neither https nor of this machine.
func FuzzEndpoints(f *testing.F) {
	for _, text := range []string{"https://iam.amazonaws.com", "http://127.0.0.1:1", "http://[fe80::1%25lo]", "http://0x7f.1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		endpoint, err := parseEndpoint("iam_endpoint", text)
		if err != nil {
			if !errors.As(err, new(*invalid.Error)) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if host := endpoint.Hostname(); endpoint.Scheme != "https" && !isLoopback(host) {
			t.Errorf("%q was accepted", text)
		}
	})
}
