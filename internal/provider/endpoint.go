package provider

import (
	"net/url"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// ParseEndpoint reads the URL of a target's API from a field: a scheme, a host
// and perhaps a port. The error is an *invalid.Error, and repeats the value only
// where it can't hold a password.
func ParseEndpoint(field, text string) (*url.URL, error) {
	const remedy = "write it as https://host:port"
	if text == "" {
		return nil, invalid.Hidden(field, "missing", remedy)
	}
	if strings.ContainsAny(text, "@?#") {
		return nil, invalid.Hidden(field, "credentials, a query or a fragment don't belong in it", remedy)
	}
	endpoint, err := url.Parse(text)
	switch {
	case err != nil || endpoint.Opaque != "": // as in name:password
		return nil, invalid.Hidden(field, "not a URL", remedy)
	case endpoint.Scheme != "https" && endpoint.Scheme != "http":
		return nil, invalid.Field(field, text, "neither https nor http", remedy)
	case endpoint.Host == "" || (endpoint.Path != "" && endpoint.Path != "/"):
		return nil, invalid.Field(field, text, "more or less than a scheme, a host and a port", remedy)
	}
	endpoint.Path = ""
	return endpoint, nil
}
