package kubernetes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Verify implements provider.Verifier: it asks who the engine is and which cluster
// that is, and looks at what the engine may do.
func (c *cluster) Verify(ctx context.Context) (provider.Verification, error) {
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := c.client.do(ctx, call{verb: http.MethodGet, path: "/version"}, &version); err != nil {
		return provider.Verification{}, c.explain(err)
	}
	engine, err := c.whoAmI(ctx)
	if err != nil {
		return provider.Verification{}, c.explain(err)
	}
	uid, err := c.clusterUID(ctx)
	if err != nil {
		return provider.Verification{}, err
	}
	verification := provider.Verification{Facts: provider.Facts{factCluster: uid, factVersion: version.GitVersion, factEngine: engine}}
	lacks, err := c.lacks(ctx)
	if err != nil {
		return provider.Verification{}, c.explain(err)
	}
	if len(lacks) > 0 {
		verification.Warnings = append(verification.Warnings, fmt.Sprintf("%s may not, in the namespace %s: %s", engine, c.namespace, strings.Join(lacks, ", ")))
	}
	administrator, err := c.client.may(ctx, "", authorization.ResourceAttributes{Verb: "*", Group: "*", Resource: "*"})
	if err != nil {
		return provider.Verification{}, c.explain(err)
	}
	if administrator {
		verification.Warnings = append(verification.Warnings, engine+" is an administrator of the cluster: make an account for this engine, with what the documentation lists")
	}
	if endpoint, err := url.Parse(c.host); err == nil && endpoint.Scheme == "http" && !isLoopback(endpoint.Hostname()) {
		verification.Warnings = append(verification.Warnings, fieldHost+" is plain http: every token crosses the network in clear")
	}
	return verification, nil
}

// whoAmI is the engine's own user name.
func (c *cluster) whoAmI(ctx context.Context) (string, error) {
	answer := authentication.SelfSubjectReview{}
	err := c.client.do(ctx, call{verb: http.MethodPost, path: "/apis/authentication.k8s.io/v1/selfsubjectreviews", body: authentication.SelfSubjectReview{
		TypeMeta: meta.TypeMeta{APIVersion: authentication.SchemeGroupVersion.String(), Kind: "SelfSubjectReview"},
	}}, &answer)
	return answer.Status.UserInfo.Username, wrapped("asking who the engine is", err)
}

// clusterUID tells the cluster from all others, and what it is now from what it was
// before somebody made it anew.
func (c *cluster) clusterUID(ctx context.Context) (string, error) {
	namespace := meta.PartialObjectMetadata{}
	err := c.client.do(ctx, call{verb: http.MethodGet, path: namespacePath(systemNamespace)}, &namespace)
	switch {
	case forbidden(err):
		return "", invalid.Hidden("target", "the engine may not read the namespace "+systemNamespace+", by which it tells one cluster from another: "+saysNo(err), "let it get that namespace")
	case err == nil && namespace.UID == "":
		err = errors.New("the answer holds no UID")
	}
	return string(namespace.UID), wrapped("reading the namespace "+systemNamespace, err)
}

// lacks are the rights that the engine needs in the namespace of its accounts and does
// not have.
func (c *cluster) lacks(ctx context.Context) ([]string, error) {
	needed := []authorization.ResourceAttributes{
		{Verb: "create", Resource: "serviceaccounts"},
		{Verb: "create", Resource: "serviceaccounts", Subresource: "token"},
		{Verb: "delete", Resource: "serviceaccounts"},
		{Verb: "list", Resource: "serviceaccounts"},
	}
	missing := make([]string, len(needed))
	var work []func() error
	for i, one := range needed {
		one.Namespace = c.namespace
		work = append(work, func() error {
			may, err := c.client.may(ctx, "", one)
			if !may {
				missing[i] = one.Verb + " " + kind{resource: one.Resource, subresource: one.Subresource}.String()
			}
			return err
		})
	}
	if err := sideBySide(work...); err != nil {
		return nil, err
	}
	var lacks []string
	for _, one := range missing {
		if one != "" {
			lacks = append(lacks, one)
		}
	}
	if len(lacks) > 0 {
		return lacks, nil
	}
	// Making the account that every role needs tells whether the namespace is there.
	if err := c.makeCanary(ctx); apierrors.IsNotFound(err) {
		return nil, invalid.Field(fieldNamespace, c.namespace, "the cluster has no such namespace", "make it, for the minted accounts alone: kubectl create namespace "+c.namespace)
	} else if err != nil {
		return nil, err
	}
	return nil, nil
}

// explain turns a failed verification into what the operator can mend.
func (c *cluster) explain(err error) error {
	var mendable *invalid.Error
	var unknownAuthority x509.UnknownAuthorityError
	var badCertificate *tls.CertificateVerificationError
	var fromNetwork *net.OpError
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &mendable):
		return mendable
	case errors.As(err, &unknownAuthority):
		return invalid.Hidden(fieldCA, "the API server's certificate is not signed by these authorities", "give the cluster's own: kubectl config view --raw --minify")
	case errors.As(err, &badCertificate):
		return invalid.Field(fieldHost, c.host, "the API server's certificate is not for it: "+invalid.Clip(badCertificate.Err.Error()), "write the name that is in the certificate")
	case errors.As(err, &fromNetwork):
		return invalid.Field(fieldHost, c.host, "the API server can't be reached: "+fromNetwork.Error(), "check the URL and that it runs, or write verify_connection=false")
	case errors.Is(err, context.DeadlineExceeded):
		return invalid.Field(fieldHost, c.host, "the API server does not answer in time", "check the URL and that it runs, or write verify_connection=false")
	case apierrors.IsUnauthorized(err):
		return invalid.Hidden(fieldToken, "the API server does not take it", "give a token of a service account of this cluster that has not expired")
	case errors.As(err, &status):
		return invalid.Field(fieldHost, c.host, "the API server does not answer as Kubernetes does: "+saysNo(err), "check the URL, and give the engine the rights that the documentation lists")
	default:
		return invalid.Field(fieldHost, c.host, "the API server does not answer as Kubernetes does: "+invalid.Clip(err.Error()), "check the URL, or write verify_connection=false")
	}
}

func isLoopback(host string) bool {
	address := net.ParseIP(host)
	return host == "localhost" || (address != nil && address.IsLoopback())
}
