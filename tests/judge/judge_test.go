package judge

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const (
	account = "111122223333"
	other   = "444455556666"
	user    = "arn:aws:iam::" + account + ":user/task"
	session = "arn:aws:sts::" + account + ":assumed-role/deploy/s1"
	key     = "arn:aws:kms:us-east-1:" + account + ":key/k1"

	upload = "s3:PutObject"
	place  = "arn:aws:s3:::releases/app/*"
	object = "arn:aws:s3:::releases/app/1.tgz"
	end    = "2026-03-01T10:00:00Z"
	before = "2026-03-01T09:59:59Z"
)

func start(t *testing.T) *Judge {
	t.Helper()
	started, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(started.Close)
	return started
}

// expect fails the test for each request whose verdict is another one.
func expect(t *testing.T, judge *Judge, want Verdict, requests ...Request) {
	t.Helper()
	verdicts, err := judge.Decide(t.Context(), requests)
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range verdicts {
		if got == want {
			continue
		}
		why, err := judge.Explain(t.Context(), requests[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s on %s: got %s, want %s", requests[i].Action, requests[i].Resource, why, want)
	}
}

func policy(statements ...string) string {
	return `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`
}

func allow(action, resource string) string {
	return fmt.Sprintf(`{"Effect":"Allow","Action":%q,"Resource":%q}`, action, resource)
}

var (
	admin    = policy(allow("*", "*"))
	everyone = policy(`{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}`)
	bare     = policy(allow(upload, place))
	// fenced is bare made exact: an end, and a deny of all that it does not allow
	// but the service's own use of a key.
	fenced = policy(
		`{"Effect":"Allow","Action":"s3:PutObject","Resource":"`+place+`","Condition":{
			"DateLessThan":{"aws:CurrentTime":"`+end+`"},"StringEquals":{"aws:ResourceAccount":"`+account+`"}}}`,
		`{"Effect":"Deny","NotAction":["s3:PutObject","kms:*"],"Resource":"*"}`,
		`{"Effect":"Deny","Action":"kms:*","Resource":"*","Condition":{"StringNotLike":{"kms:ViaService":"s3.*"}}}`,
		`{"Effect":"Deny","Action":"s3:PutObject","NotResource":"`+place+`"}`,
		`{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateGreaterThanEquals":{"aws:CurrentTime":"`+end+`"}}}`,
	)
)

// request is the user's, in time, with nothing but an identity policy.
func request(action, resource, identity string) Request {
	return Request{
		Principal: user, Action: action, Resource: resource, Account: account,
		Identity: []string{identity},
		Context:  Context{"aws:CurrentTime": {before}, "aws:ResourceAccount": {account}},
	}
}

// with is the request with more, or other, context.
func (r Request) with(key string, values ...string) Request {
	changed := Context{key: values}
	for name, value := range r.Context {
		if name != key {
			changed[name] = value
		}
	}
	r.Context = changed
	return r
}

func (r Request) at(resourcePolicy string) Request {
	r.ResourcePolicy = resourcePolicy
	return r
}

func TestAnAmbientPolicyWidensABareAllow(t *testing.T) {
	judge := start(t)
	outside := []Request{
		request("s3:GetObject", object, bare),
		request("s3:DeleteObject", object, bare),
		request(upload, "arn:aws:s3:::releases/other/1.tgz", bare),
		request("s3:ListBucket", "arn:aws:s3:::releases", bare),
	}
	expect(t, judge, Allowed, request(upload, object, bare))
	expect(t, judge, ImplicitlyDenied, outside...)
	for i := range outside {
		outside[i] = outside[i].at(everyone)
	}
	expect(t, judge, Allowed, outside...) // which is what makes a bare Allow inexact
	for i := range outside {
		outside[i].Identity = []string{fenced}
	}
	expect(t, judge, ExplicitlyDenied, outside...)
	expect(t, judge, Allowed, request(upload, object, fenced), request(upload, object, fenced).at(everyone))
}

func TestAPolicyEnds(t *testing.T) {
	judge := start(t)
	inTime := request(upload, object, fenced).at(everyone)
	expect(t, judge, Allowed, inTime)
	expect(t, judge, ExplicitlyDenied, inTime.with("aws:CurrentTime", end), inTime.with("aws:CurrentTime", "2027-01-01T00:00:00Z"))
	// Without the fence its Allow ends too, but what is ambient does not.
	late := request(upload, object, bare).at(everyone).with("aws:CurrentTime", "2027-01-01T00:00:00Z")
	expect(t, judge, Allowed, late)
}

func TestAnotherAccountsResource(t *testing.T) {
	judge := start(t)
	taken := request(upload, object, fenced).at(everyone).with("aws:ResourceAccount", other)
	taken.Account = other
	expect(t, judge, ImplicitlyDenied, taken) // both sides have to allow it
	taken.Identity = []string{bare}
	expect(t, judge, Allowed, taken)
}

func TestKeysAreUsedThroughTheServiceOnly(t *testing.T) {
	judge := start(t)
	use := request("kms:GenerateDataKey", key, fenced).at(everyone)
	expect(t, judge, Allowed, use.with("kms:ViaService", "s3.us-east-1.amazonaws.com"))
	expect(t, judge, ExplicitlyDenied,
		use.with("kms:ViaService", "sqs.us-east-1.amazonaws.com"),
		use.with("kms:ViaService"), // a direct call
		use.with("kms:ViaService", "s3.us-east-1.amazonaws.com").with("aws:CurrentTime", end))
}

func TestAnEncryptionContextCounts(t *testing.T) {
	judge := start(t)
	bound := policy(`{"Effect":"Allow","Action":"kms:*","Resource":"*","Condition":{"StringLike":{
		"kms:EncryptionContext:aws:s3:arn":"arn:aws:s3:::releases/app/*","kms:ViaService":"s3.*"}}}`)
	delegated := policy(`{"Effect":"Allow","Principal":{"AWS":"` + account + `"},"Action":"*","Resource":"*"}`)
	use := func(action string, context ...string) Request {
		return request(action, key, bound).at(delegated).with("kms:ViaService", "s3.us-east-1.amazonaws.com").with("kms:EncryptionContext:aws:s3:arn", context...)
	}
	expect(t, judge, Allowed, use("kms:Decrypt", object), use("kms:GenerateDataKey", object), use("kms:CreateGrant", object))
	expect(t, judge, ImplicitlyDenied,
		use("kms:Decrypt", "arn:aws:s3:::releases/other"), use("kms:Decrypt"), use("kms:Decrypt", object).with("kms:ViaService"),
		use("kms:DescribeKey")) // which has none
	if _, err := judge.Decide(t.Context(), []Request{use("kms:DescribeKey", object)}); err == nil {
		t.Error("kms:DescribeKey is judged with an encryption context")
	}
	if _, err := judge.Decide(t.Context(), []Request{request("kms:Decrypt", key, bound).at(delegated).with("kms:ViaService", "s3.us-east-1.amazonaws.com")}); err == nil {
		t.Error("a forgotten encryption context is taken for none")
	}
}

func TestAConditionBindsTwice(t *testing.T) {
	judge := start(t)
	once := `{"Effect":"Allow","Action":"s3:PutObject","Resource":"` + place + `","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}`
	again := `{"Effect":"Deny","Action":"s3:PutObject","Resource":"*","Condition":{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}`
	from := func(address string, statements ...string) Request {
		return request(upload, object, policy(statements...)).at(everyone).with("aws:SourceIp", address)
	}
	expect(t, judge, Allowed, from("10.1.2.3", once, again), from("192.0.2.1", once))
	expect(t, judge, ExplicitlyDenied, from("192.0.2.1", once, again), from("2001:db8::1", once, again))
}

func TestCalledThroughAnotherService(t *testing.T) {
	judge := start(t)
	spared := policy(allow(upload, place),
		`{"Effect":"Deny","NotAction":"s3:PutObject","Resource":"*","Condition":{"Bool":{"aws:ViaAWSService":"false"}}}`,
		`{"Effect":"Deny","Action":"s3:GetObject","Resource":"*","Condition":{"ForAnyValue:StringEquals":{"aws:CalledVia":"athena.amazonaws.com"}}}`)
	call := request("s3:DeleteObject", object, spared).at(everyone).with("aws:CalledVia")
	expect(t, judge, ExplicitlyDenied, call.with("aws:ViaAWSService", "false"))
	expect(t, judge, Allowed, call.with("aws:ViaAWSService", "true"))

	read := request("s3:GetObject", object, spared).at(everyone).with("aws:ViaAWSService", "true")
	expect(t, judge, Allowed, read.with("aws:CalledVia", "cloudformation.amazonaws.com"), read.with("aws:CalledVia"))
	expect(t, judge, ExplicitlyDenied, read.with("aws:CalledVia", "cloudformation.amazonaws.com", "athena.amazonaws.com"))
}

func TestSessions(t *testing.T) {
	judge := start(t)
	by := func(action, resource string) Request {
		made := request(action, resource, admin).with("aws:userid", "AROAEXAMPLE:s1")
		made.Principal = session
		made.Session = bare
		return made
	}
	inside, outside := by(upload, object), by("s3:DeleteObject", object)
	expect(t, judge, Allowed, inside)
	expect(t, judge, ImplicitlyDenied, outside)
	outside.Session = ""
	expect(t, judge, Allowed, outside) // the base role is an admin

	// A session policy can't give what the role does not have.
	inside.Identity = nil
	expect(t, judge, ImplicitlyDenied, inside)

	// A policy that names the session: here the implicit deny still holds.
	outside = by("s3:DeleteObject", object)
	for _, named := range []string{session, "arn:aws:iam::" + account + ":role/deploy"} {
		expect(t, judge, ImplicitlyDenied, outside.at(policy(`{"Effect":"Allow","Principal":{"AWS":"`+named+`"},"Action":"*","Resource":"*"}`)))
	}
	outside.Session = fenced
	expect(t, judge, ExplicitlyDenied, outside.at(everyone))
}

func TestARevokedSession(t *testing.T) {
	judge := start(t)
	revoked := policy(`{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"aws:userid":["*:abcde123*","*:zzzzz*"]}}}`)
	by := func(name string) Request {
		made := request(upload, object, admin).at(everyone).with("aws:userid", "AROAEXAMPLE:"+name)
		made.Principal = "arn:aws:sts::" + account + ":assumed-role/deploy/" + name
		made.Session = bare
		made.Identity = append(made.Identity, revoked)
		return made
	}
	expect(t, judge, ExplicitlyDenied, by("abcde123-upload"), by("zzzzz"))
	expect(t, judge, Allowed, by("abcde124-upload"), by("xabcde123"), by("ABCDE123-upload"))

	federated := by("abcde123")
	federated.Principal = "arn:aws:sts::" + account + ":federated-user/abcde123"
	expect(t, judge, ExplicitlyDenied, federated.with("aws:userid", account+":abcde123"))
	federated.Principal = "arn:aws:sts::" + account + ":federated-user/lives"
	expect(t, judge, Allowed, federated.with("aws:userid", account+":lives"))
}

func TestBoundaryAndServiceControl(t *testing.T) {
	judge := start(t)
	bounded := request(upload, object, admin)
	bounded.Boundary = bare
	controlled := request(upload, object, admin)
	controlled.ServiceControl = []string{admin, bare}
	expect(t, judge, Allowed, bounded, controlled)

	bounded.Action = "s3:DeleteObject"
	controlled.ServiceControl = []string{policy(allow("s3:GetObject", "*"))}
	expect(t, judge, ImplicitlyDenied, bounded, controlled)
}

func TestTags(t *testing.T) {
	judge := start(t)
	tagged := policy(`{"Effect":"Allow","Action":"sqs:SendMessage","Resource":"*","Condition":{"StringEquals":{
		"aws:PrincipalTag/team":"a","aws:ResourceTag/team":"${aws:PrincipalTag/team}"}}}`)
	send := request("sqs:SendMessage", "arn:aws:sqs:us-east-1:"+account+":q", tagged).with("aws:PrincipalTag/team", "a")
	expect(t, judge, Allowed, send.with("aws:ResourceTag/team", "a"))
	expect(t, judge, ImplicitlyDenied, send.with("aws:ResourceTag/team", "b"), send.with("aws:ResourceTag/team"))
}

func TestARequestIsAsGoWritesIt(t *testing.T) {
	text, err := json.Marshal(request(upload, object, bare))
	if err != nil {
		t.Fatal(err)
	}
	for _, absent := range []string{"session", "resourcePolicy", "boundary", "serviceControl"} {
		if strings.Contains(string(text), absent) {
			t.Errorf("%s has %q, which it was not given", text, absent)
		}
	}
}
