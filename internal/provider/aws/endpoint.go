package aws

import (
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

var (
	// instanceServices6 is where an EC2 instance or a pod on it asks for its metadata and
	// credentials over IPv6. The IPv4 addresses are link-local.
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
	instanceServices6 = netip.MustParsePrefix("fd00:ec2::/32")
	// translated are the IPv6 addresses that end in the IPv4 address they lead to, RFC 6052.
	translated = netip.MustParsePrefix("64:ff9b::/96")
)

// addressLike is a host that some resolvers take for an IPv4 address, such as
// 2852039166 or 0xa9fea9fe: its last label is a number.
var addressLike = regexp.MustCompile(`(?i)(?:\A|\.)(?:[0-9]+|0x[0-9a-f]*)\.?\z`)

// hostShape is a name of ASCII alone: a client would take a digit of another script for an ASCII one.
var hostShape = regexp.MustCompile(`\A[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?\z`)

// parseEndpoint reads the URL of an API of AWS. Requests carry signatures and new secret
// keys, so it is https, unless it is on the same machine; and it is not an address that
// only this machine's network answers on, such as the instance metadata's. The error is
// an *invalid.Error.
func parseEndpoint(field, text string) (*url.URL, error) {
	endpoint, err := provider.ParseEndpoint(field, text)
	if err != nil {
		return nil, err
	}
	host := endpoint.Hostname()
	address, err := netip.ParseAddr(host)
	address = meant(address)
	isAddress := err == nil
	const remedy = "leave it out, or name an https endpoint of AWS, such as https://iam.amazonaws.com"
	switch {
	case host == "" || !isAddress && (addressLike.MatchString(host) || !hostShape.MatchString(host)):
		return nil, invalid.Field(field, text, "its host is neither a name nor an IP address", remedy)
	case isAddress && (address.IsLinkLocalUnicast() || address.IsMulticast() || address.IsUnspecified() ||
		instanceServices6.Contains(address)):
		return nil, invalid.Field(field, text, "no API of AWS has a link-local, multicast or unspecified address", remedy)
	case endpoint.Scheme != "https" && !isLoopback(host):
		return nil, invalid.Field(field, text, "secret keys would be sent in the clear: plain http is for a stand-in on the same machine only", remedy)
	}
	return endpoint, nil
}

// meant is the address that a written one leads to.
func meant(address netip.Addr) netip.Addr {
	if address = address.Unmap().WithZone(""); !translated.Contains(address) {
		return address
	}
	bytes := address.As16()
	return netip.AddrFrom4([4]byte(bytes[12:]))
}

// isLoopback says whether a host is the machine itself.
func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}
