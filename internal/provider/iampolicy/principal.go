package iampolicy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Principal is who makes a request.
type Principal struct {
	// ARN of an IAM user, of a role's session (arn:aws:sts::…:assumed-role/…) or
	// of a federated user (arn:aws:sts::…:federated-user/…).
	ARN string
	// Issuer of a session: the ARN of the role that was assumed, or of the IAM
	// user that asked for a federation token. CloudTrail calls it sessionIssuer.
	Issuer string
}

// arn is an ARN's parts.
type arn struct{ partition, service, region, account, resource string }

func splitARN(text string) (arn, bool) {
	parts := strings.SplitN(text, ":", arnSegments)
	if len(parts) != arnSegments || parts[0] != "arn" || parts[1] == "" || parts[2] == "" || parts[5] == "" {
		return arn{}, false
	}
	return arn{parts[1], parts[2], parts[3], parts[4], parts[5]}, true
}

var accountID = regexp.MustCompile(`\A[0-9]{12}\z`)

// check says what kind of principal it is, as aws:PrincipalType does, and of
// which account.
func (p Principal) check() (kind, account string, err error) {
	refuse := func(problem string) (string, string, error) {
		return "", "", invalid.Field("principal", p.ARN, problem, "name an IAM user, or a session with the role or user that it comes from")
	}
	parts, ok := splitARN(p.ARN)
	if !ok || !accountID.MatchString(parts.account) {
		return refuse("it is no principal's ARN")
	}
	issuer, issued := splitARN(p.Issuer)
	what, _, _ := strings.Cut(parts.resource, "/")
	from, _, _ := strings.Cut(issuer.resource, "/")
	switch {
	case parts.service == "iam" && what == "user":
		if p.Issuer != "" {
			return refuse("an IAM user has no issuer")
		}
		return "User", parts.account, nil
	case parts.service == "sts" && what == "assumed-role":
		if !issued || issuer.service != "iam" || issuer.account != parts.account || from != "role" {
			return refuse("the role that the session comes from is missing or not of its account")
		}
		return "AssumedRole", parts.account, nil
	case parts.service == "sts" && what == "federated-user":
		if !issued || issuer.service != "iam" || issuer.account != parts.account || from != "user" {
			return refuse("the user that the session comes from is missing or not of its account")
		}
		return "FederatedUser", parts.account, nil
	default:
		return refuse("it is neither a user nor a session")
	}
}

// principals are what a Principal or NotPrincipal element names. Services,
// identity providers and canonical users are none that a credential of ours
// could be, so that they are checked and forgotten.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html
type principals struct {
	everyone bool
	accounts []string
	arns     []string
}

// principalID is what AWS puts in the place of a principal that was deleted.
var principalID = regexp.MustCompile(`\A[A-Z0-9]{16,128}\z`)

func newPrincipals(element node) (*principals, error) {
	if element.kind == isString && element.text == "*" {
		return &principals{everyone: true}, nil
	}
	if element.kind != isObject || len(element.names) == 0 {
		return nil, errors.New(`neither "*" nor an object of principals`)
	}
	if err := element.only("AWS", "Service", "Federated", "CanonicalUser"); err != nil {
		return nil, err
	}
	read := new(principals)
	for _, kind := range element.names {
		texts, err := element.members[kind].texts(false)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		for _, text := range texts {
			if text == "" || text != "*" && strings.ContainsAny(text, "*?") {
				return nil, fmt.Errorf("%s: %q is no principal: it has to be written out", kind, invalid.Clip(text))
			}
			if kind != "AWS" {
				continue
			}
			if err := read.add(text); err != nil {
				return nil, err
			}
		}
	}
	return read, nil
}

func (p *principals) add(text string) error {
	parts, isARN := splitARN(text)
	switch {
	case text == "*":
		p.everyone = true
	case accountID.MatchString(text):
		p.accounts = append(p.accounts, text)
	case isARN && parts.service == "iam" && parts.resource == "root" && accountID.MatchString(parts.account):
		p.accounts = append(p.accounts, parts.account)
	case isARN && (parts.service == "iam" || parts.service == "sts") && accountID.MatchString(parts.account):
		p.arns = append(p.arns, text)
	case principalID.MatchString(text): // matches nobody any more
	default:
		return fmt.Errorf("AWS: %q is no account and no principal's ARN", invalid.Clip(text))
	}
	return nil
}

// reach is how a statement names the one who asks. What it says of a principal
// itself counts for more than what it says of the account behind it.
type reach int

const (
	nobody    reach = iota
	byAccount       // the whole account: its own policies decide
	byIssuer        // the role or user that a session comes from
	directly        // the principal itself, or everyone
)

// names is how the element names who asks.
func (p *principals) names(e *evaluation) reach {
	asking := e.request.Principal
	switch {
	case p.everyone || slices.Contains(p.arns, asking.ARN):
		return directly
	case asking.Issuer != "" && slices.Contains(p.arns, asking.Issuer):
		return byIssuer
	case slices.Contains(p.accounts, e.account):
		return byAccount
	default:
		return nobody
	}
}

// spares says whether a NotPrincipal of a Deny leaves out who asks. AWS may look
// at the account first, then at the role, then at the session, so that all of
// them have to be named; and it spares nobody who has a permissions boundary.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notprincipal.html
// https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html
func (p *principals) spares(e *evaluation) bool {
	if e.bounded {
		return false
	}
	asking := e.request.Principal
	return p.everyone || slices.Contains(p.arns, asking.ARN) && slices.Contains(p.accounts, e.account) &&
		(asking.Issuer == "" || slices.Contains(p.arns, asking.Issuer))
}

// reaches is how the statement applies to who asks. A policy without principals
// is the principal's own.
func (s statement) reaches(e *evaluation) reach {
	switch {
	case s.principals == nil:
		return directly
	case !s.notPrincipal:
		return s.principals.names(e)
	case s.deny && !s.principals.spares(e), !s.deny && s.principals.names(e) == nobody:
		return directly
	default:
		return nobody
	}
}
