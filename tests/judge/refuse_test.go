package judge

import (
	"errors"
	"strings"
	"testing"
)

// What the simulator would answer wrongly, most often with "denied", is refused.
func TestRefusals(t *testing.T) {
	judge := start(t)
	on := func(action, resource string, statements ...string) Request {
		return request(action, resource, policy(statements...))
	}
	when := func(condition string) Request {
		return on(upload, object, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+condition+`}`)
	}
	change := func(change func(*Request)) Request {
		changed := request(upload, object, bare)
		change(&changed)
		return changed
	}
	for _, test := range []struct {
		name    string
		request Request
		want    string
	}{
		{"unknown action", on("s3:HeadObject", object, allow("*", "*")), "catalogue"},
		{"unknown service", on("nope:Do", object, allow("*", "*")), "catalogue"},
		{"no action", on("", object, allow("*", "*")), "catalogue"},
		{"resource of another type", on(upload, "arn:aws:s3:::releases", allow("*", "*")), "no type of resource"},
		{"pattern for a resource", on(upload, place, allow("*", "*")), "one resource"},
		{"everything for a resource", on(upload, "*", allow("*", "*")), "for one resource"},
		{"resource for an action without", on("ec2:DescribeInstances", "arn:aws:ec2:us-east-1:"+account+":instance/i-1", allow("*", "*")), "must.use.wildcard"},
		{"resource with a line feed", on(upload, object+"\nx", allow("*", "*")), "control characters"},
		{"resource of another account", on("sqs:SendMessage", "arn:aws:sqs:us-east-1:"+other+":q", allow("*", "*")), "is of account " + other},
		{"account", change(func(r *Request) { r.Account = "1" }), "12 digits"},
		{"account that the context denies", change(func(r *Request) { r.Account = other }), "aws:ResourceAccount"},
		{"key without a key policy", on("kms:Decrypt", key, allow("*", "*")), "key policy"},
		{"role without a trust policy", on("sts:AssumeRole", "arn:aws:iam::"+account+":role/r", allow("*", "*")), "trust policy"},

		{"principal", change(func(r *Request) { r.Principal = "arn:aws:iam::" + account + ":role/deploy" }), "principal"},
		{"session policy of a user", change(func(r *Request) { r.Session = bare }), "session.policy.invalid.principal"},
		{"federated user without a session policy", change(func(r *Request) { r.Principal = "arn:aws:sts::" + account + ":federated-user/x" }), "federated"},
		{"user id of another session", change(func(r *Request) {
			r.Principal = session
			r.Context["aws:userid"] = []string{"AROAEXAMPLE:s2"}
		}), "aws:userid"},

		{"key that does not exist", request(upload, object, bare).with("aws:usrid", "x"), "no condition key"},
		{"key that the action does not have", request(upload, object, bare).with("kms:ViaService", "s3.us-east-1.amazonaws.com"), "does not have it"},
		{"key that a resource of no type does not have", request("dms:DeleteDataMigration", "arn:aws:dms:us-east-1:"+account+":data-migration:x", bare).with("s3:prefix", "x"), "does not have it"},
		{"two values of a key with one", request(upload, object, bare).with("aws:SourceIp", "10.0.0.1", "10.0.0.2"), "one value"},
		{"key twice", request(upload, object, bare).with("AWS:CURRENTTIME", end), "twice"},
		{"value with a line feed", request(upload, object, bare).with("aws:userid", "a\nb"), "control character"},
		{"key that was forgotten", when(`{"StringNotEquals":{"aws:userid":"x"}}`), "put it into the context"},
		{"variable without a value", on(upload, object, allow("*", "arn:aws:s3:::releases/${aws:username}/*")), "no value"},

		{"not JSON", request(upload, object, "{"), "identity policy 1: not JSON"},
		{"no policy", request(upload, object, "{}"), "no statement"},
		{"effect", on(upload, object, `{"Effect":"allow","Action":"*","Resource":"*"}`), "Effect"},
		{"element", on(upload, object, `{"Effect":"Allow","action":"*","Resource":"*"}`), "Invalid key"},
		{"no ARN", on(upload, object, allow("*", "releases/*")), "neither * nor a whole ARN"},
		{"half an ARN", on(upload, object, allow("*", "arn:aws:s3:::")+`,{"Effect":"Deny","Action":"*","NotResource":"arn:aws:s3"}`), "neither * nor a whole ARN"},
		{"wildcard in a type", on(upload, object, allow("*", "arn:aws:dynamodb:*:*:tab*/x")), "wildcard"},
		{"variable in an old policy", request(upload, object, `{"Statement":[`+allow("*", "arn:aws:s3:::${aws:username}/*")+`]}`), "Version"},
		{"ambient policy for nobody", request(upload, object, bare).at(admin), "no Principal"},
		{"ambient policy for a pattern", request(upload, object, bare).at(policy(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + account + `:user/*"},"Action":"*","Resource":"*"}`)), "principal"},
		{"ambient policy for all but one", request(upload, object, bare).at(policy(`{"Effect":"Deny","NotPrincipal":{"AWS":"` + user + `"},"Action":"*","Resource":"*"}`)), "NotPrincipal"},

		{"operator", when(`{"StringEquls":{"aws:CurrentTime":"x"}}`), "not an operator"},
		{"half an operator", when(`{"String":{"aws:CurrentTime":"x"}}`), "not an operator"},
		{"condition without a value", when(`{"StringNotEquals":{"aws:CurrentTime":[]}}`), "no value"},
		{"condition's key", when(`{"StringNotEquals":{"aws:CurentTime":"x"}}`), "no condition key"},
		{"date", when(`{"DateLessThan":{"aws:CurrentTime":"1 Jan 2030"}}`), "neither a date"},
		{"seconds against a date", when(`{"DateLessThan":{"aws:CurrentTime":"1893456000"}}`), "not written as"},
		{"number", when(`{"NumericLessThan":{"aws:CurrentTime":"5"}}`), "not a number"},
		{"truth", when(`{"Bool":{"aws:SecureTransport":"yes"}}`), "neither true nor false"},
		{"truth of the request", when(`{"Bool":{"aws:SecureTransport":"true"}}`).with("aws:SecureTransport", "yes"), "neither true nor false"},
		{"every address", when(`{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}`).with("aws:SourceIp", "10.0.0.1"), "one address"},
		{"address as text", when(`{"IpAddress":{"aws:SourceIp":"2001:DB8::1"}}`).with("aws:SourceIp", "2001:db8::1"), "as text"},
		{"other kind of address", when(`{"NotIpAddress":{"aws:SourceIp":"10.0.0.1"}}`).with("aws:SourceIp", "2001:db8::1"), "no IPv4 address"},
		{"no address", when(`{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`).with("aws:SourceIp", "here"), "not an address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			verdicts, err := judge.Decide(t.Context(), []Request{test.request})
			var refused *RefusedError
			if !errors.As(err, &refused) {
				t.Fatalf("got %v and error %v, want a refusal", verdicts, err)
			}
			if verdicts[0] != "" {
				t.Errorf("what was refused has the verdict %s", verdicts[0])
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want %q in it", err, test.want)
			}
			if strings.Contains(err.Error(), "failed") {
				t.Errorf("the simulator failed: %s", err)
			}
		})
	}
}

// A refusal does not hide the verdicts beside it, and says which one it is.
func TestARefusalAmongOthers(t *testing.T) {
	judge := start(t)
	verdicts, err := judge.Decide(t.Context(), []Request{
		request(upload, object, bare),
		request("s3:HeadObject", object, bare),
		request("s3:GetObject", object, bare),
	})
	var refused *RefusedError
	if !errors.As(err, &refused) || len(refused.Refusals) != 1 || refused.Refusals[0].Index != 1 {
		t.Fatalf("got error %v, want one refusal, of request 1", err)
	}
	if verdicts[0] != Allowed || verdicts[1] != "" || verdicts[2] != ImplicitlyDenied {
		t.Errorf("got verdicts %q", verdicts)
	}
	if _, err := judge.Explain(t.Context(), request("s3:HeadObject", object, bare)); !errors.As(err, &refused) {
		t.Errorf("explaining it: got error %v, want a refusal", err)
	}
}
