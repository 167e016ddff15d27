package iampolicy

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

const (
	// maxRequest is the number of bytes that a request's own texts may have: an
	// S3 key has up to 1,024, a tag's value 256.
	maxRequest = 16 << 10
	// maxSteps bounds the work of one evaluation to some tenths of a second; what
	// policies of the usual kind need is a thousandth of it.
	maxSteps = 1 << 25
)

// evaluation is one request under evaluation.
type evaluation struct {
	request Request
	context map[string][]string // by key in lower case
	account string              // the principal's
	owner   string              // the account that has the resource
	bounded bool                // the principal has a permissions boundary
	steps   int
	err     error // the first reason why there is no answer
}

// actionName is one action, written out.
var actionName = regexp.MustCompile(`\A[A-Za-z0-9-]+:[A-Za-z0-9_.-]+\z`)

// newEvaluation checks the request and adds the condition keys that follow from
// it.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
func newEvaluation(request Request) (*evaluation, error) {
	if !actionName.MatchString(request.Action) {
		return nil, invalid.Field("action", request.Action, "not of the form service:action", "name one action, such as s3:GetObject")
	}
	resource, isARN := splitARN(request.Resource)
	if request.Resource != "*" && !isARN {
		return nil, invalid.Field("resource", request.Resource, "not an ARN", `name one resource's ARN, or "*" for an action that has none`)
	}
	kind, account, err := request.Principal.check()
	if err != nil {
		return nil, err
	}
	e := &evaluation{request: request, context: map[string][]string{}, account: account}
	size := len(request.Action) + len(request.Resource)
	for key, values := range request.Context {
		lower := strings.ToLower(key)
		if _, twice := e.context[lower]; twice || key == "" {
			return nil, invalid.Field("context", key, "the condition key is empty or given twice", "give each key once: their case does not matter")
		}
		e.context[lower] = values
		for _, value := range values {
			size += len(value)
		}
	}
	if size > maxRequest {
		return nil, invalid.Hidden("context", fmt.Sprintf("the request has %d bytes, more than %d", size, maxRequest), "leave out what no policy asks for")
	}
	if e.owner, err = e.ownerOf(resource); err != nil {
		return nil, err
	}
	e.derive(kind)
	return e, nil
}

// ownerOf is the account that has the resource.
func (e *evaluation) ownerOf(resource arn) (string, error) {
	said := e.context["aws:resourceaccount"]
	owner := e.request.ResourceAccount
	switch {
	case owner != "":
	case accountID.MatchString(resource.account):
		return resource.account, nil
	case len(said) == 1:
		owner = said[0]
	default:
		return e.account, nil
	}
	if !accountID.MatchString(owner) {
		return "", invalid.Field("resource_account", owner, "not an account", "write its 12 digits")
	}
	return owner, nil
}

// derive adds what AWS would know. What the caller gave stays, and a key that
// was given without a value stays missing.
func (e *evaluation) derive(kind string) {
	derived := map[string]string{
		"aws:principalaccount": e.account,
		"aws:principaltype":    kind,
		"aws:principalarn":     e.request.Principal.ARN,
		"aws:resourceaccount":  e.owner,
	}
	switch kind {
	case "AssumedRole":
		derived["aws:principalarn"] = e.request.Principal.Issuer
	case "User":
		derived["aws:username"] = e.request.Principal.ARN[strings.LastIndex(e.request.Principal.ARN, "/")+1:]
	}
	if now := e.context["aws:currenttime"]; len(now) == 1 {
		if at, err := parseDate(now[0]); err == nil {
			derived["aws:epochtime"] = strconv.FormatInt(at.Unix(), 10)
		}
	}
	for key, value := range derived {
		if _, given := e.context[key]; !given {
			e.context[key] = []string{value}
		}
	}
}

// values of a condition key; none where the request doesn't have it.
func (e *evaluation) values(key string) []string { return e.context[strings.ToLower(key)] }

// single is the value of a key that is used as one with a single value. AWS says
// that others "require a condition set operator" and can't be variables, not
// what comes of it: then there is no answer.
func (e *evaluation) single(key string) string {
	values := e.values(key)
	switch len(values) {
	case 0:
		return ""
	case 1:
		return values[0]
	default:
		e.fail(invalid.Field("context", key, fmt.Sprintf("it has %d values, and a policy takes it for a key with one", len(values)), "give one value"))
		return ""
	}
}

// spend counts work, and says whether there may be more of it.
func (e *evaluation) spend(steps int) bool {
	e.steps += steps
	if e.steps > maxSteps {
		e.fail(invalid.Hidden("policy", "its wildcards and variables take too long to compare with this request", "name resources and values with fewer wildcards"))
	}
	return e.err == nil
}

func (e *evaluation) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}
