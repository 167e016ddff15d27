package iampolicy

import (
	"strings"
	"testing"
	"time"
)

const (
	allowGet   = `{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::releases/app/*"}`
	denyGet    = `{"Effect":"Deny","Action":"s3:Get*","Resource":"*"}`
	allowOther = `{"Effect":"Allow","Action":"s3:PutObject","Resource":"*"}`
)

// grants is a statement of a resource's policy for these principals.
func grants(effect, principal string) string {
	return `{"Effect":"` + effect + `",` + principal + `,"Action":"s3:*","Resource":"arn:aws:s3:::releases/*"}`
}

func TestActionsAndResources(t *testing.T) {
	for _, test := range []struct {
		elements, action, resource string
		want                       bool
	}{
		{`"Action":"s3:GetObject","Resource":"*"`, "S3:getobject", testObject, true},
		{`"Action":"S3:GETOBJECT","Resource":"*"`, "s3:GetObject", testObject, true},
		{`"Action":"s3:GetObject","Resource":"*"`, "s3:GetObjectAcl", testObject, false},
		{`"Action":"s3:Get*","Resource":"*"`, "s3:GetObjectAcl", testObject, true},
		{`"Action":"s3:Get?bject","Resource":"*"`, "s3:GetObject", testObject, true},
		{`"Action":"s3:*","Resource":"*"`, "s3-outposts:GetObject", testObject, false},
		{`"Action":["sqs:*","*"],"Resource":"*"`, "s3:GetObject", testObject, true},
		{`"Action":"*:*","Resource":"*"`, "s3:GetObject", testObject, true},
		{`"NotAction":["s3:Put*","sqs:*"],"Resource":"*"`, "s3:GetObject", testObject, true},
		{`"NotAction":["s3:Get*","sqs:*"],"Resource":"*"`, "s3:GetObject", testObject, false},
		{`"Action":"*","Resource":"arn:aws:s3:::releases/app/*"`, "s3:GetObject", testObject, true},
		{`"Action":"*","Resource":"arn:aws:s3:::releases/app/*"`, "s3:GetObject", "arn:aws:s3:::releases/app/", true},
		{`"Action":"*","Resource":"arn:aws:s3:::releases/app/*"`, "s3:GetObject", "arn:aws:s3:::releases/app", false},
		{`"Action":"*","Resource":"arn:aws:s3:::releases/app/*"`, "s3:GetObject", "arn:aws:s3:::releases/App/1", false},
		{`"Action":"*","Resource":"arn:aws:s3:::releases/*/1.?gz"`, "s3:GetObject", "arn:aws:s3:::releases/a:b/c/1.tgz", true},
		{`"Action":"*","Resource":"arn:aws:s3:::releases/[ab].(x|y)"`, "s3:GetObject", "arn:aws:s3:::releases/[ab].(x|y)", true},
		{`"Action":"*","Resource":"arn:aws:s3:::releases/[ab]"`, "s3:GetObject", "arn:aws:s3:::releases/a", false},
		{`"Action":"*","Resource":"arn:aws:s3:::releases/a\nb*"`, "s3:GetObject", "arn:aws:s3:::releases/a\nb\nc", true},
		{`"Action":"*","NotResource":"arn:aws:s3:::releases/app/*"`, "s3:GetObject", testObject, false},
		{`"Action":"*","NotResource":["arn:aws:s3:::other","arn:aws:s3:::releases/b/*"]`, "s3:GetObject", testObject, true},
		{`"Action":"*","Resource":"arn:aws:s3:::${aws:username}/*"`, "s3:GetObject", "arn:aws:s3:::ann/x", true},
		{`"Action":"*","Resource":"arn:aws:s3:::${aws:PrincipalTag/team}/*"`, "s3:GetObject", "arn:aws:s3:::ann/x", false},
		{`"Action":"*","NotResource":"arn:aws:s3:::${aws:PrincipalTag/team}/*"`, "s3:GetObject", "arn:aws:s3:::ann/x", true},
		{`"Action":"*","Resource":"arn:aws:s3:::a${*}b/*"`, "s3:GetObject", "arn:aws:s3:::a*b/x", true},
		{`"Action":"*","Resource":"arn:aws:s3:::a${*}b/*"`, "s3:GetObject", "arn:aws:s3:::aXb/x", false},
		{`"Action":"*","Resource":"arn:aws:sqs:*:123456789012:jobs"`, "sqs:SendMessage", "arn:aws:sqs:eu-west-1:123456789012:jobs", true},
		{`"Action":"*","Resource":"arn:aws:sqs:eu*1:123456789012:jobs"`, "sqs:SendMessage", "arn:aws:sqs:eu-west-1:123456789012:jobs", true},
		{`"Action":"*","Resource":"arn:aws:sqs:e*t-1:*:jobs"`, "sqs:SendMessage", "arn:aws:sqs:eu:west-1:x:jobs", false},
		{`"Action":"*","Resource":"arn:aws:sqs:*:jobs:*"`, "sqs:SendMessage", "arn:aws:sqs:eu-west-1:123456789012:jobs:1", true}, // "beyond the colon boundaries"
		{`"Action":"*","Resource":"arn:aws:sqs:eu?west-1:123456789012:jobs"`, "sqs:SendMessage", "arn:aws:sqs:eu-west-1:123456789012:jobs", true},
		{`"Action":"*","Resource":"arn:aws:sqs:eu-west-1?123456789012:jobs:x"`, "sqs:SendMessage", "arn:aws:sqs:eu-west-1:123456789012:jobs:x", false},
		{`"Action":"*","Resource":"arn:aws:logs:*:*:log-group:*:log-stream:a?c"`, "logs:PutLogEvents", "arn:aws:logs:eu:123456789012:log-group:/x/y:log-stream:a:c", true},
		{`"Action":"*","Resource":"arn:aws:sqs"`, "sqs:SendMessage", "arn:aws:sqs:eu-west-1:123456789012:jobs", true}, // completed with "*"
		{`"Action":"*","Resource":"arn:aws:sqs:eu-west-1"`, "sqs:SendMessage", "arn:aws:sqs:eu-west-2:123456789012:jobs", false},
		{`"Action":"*","Resource":"arn:aws:s3:::*"`, "s3:ListAllMyBuckets", "*", false},
		{`"Action":"*","Resource":"*"`, "s3:ListAllMyBuckets", "*", true},
		{`"Action":"*","NotResource":"arn:aws:s3:::b"`, "s3:ListAllMyBuckets", "*", true},
	} {
		decision, err := Evaluate(Request{Action: test.action, Resource: test.resource, Principal: user()},
			Policies{Identity: parsed(t, policy(`{"Effect":"Allow",`+test.elements+`}`))})
		if err != nil || (decision.Effect == Allowed) != test.want {
			t.Errorf("%s for %s on %s: %v, %v", test.elements, test.action, test.resource, decision.Effect, err)
		}
	}
}

// Who has a say, within one account and across two.
func TestDocumentsTogether(t *testing.T) {
	const (
		foreign = "210987654321"
		root    = `"Principal":{"AWS":"arn:aws:iam::123456789012:root"}`
		byID    = `"Principal":{"AWS":"123456789012"}`
		anyone  = `"Principal":"*"`
		anyAWS  = `"Principal":{"AWS":"*"}`
		ann     = `"Principal":{"AWS":["210987654321","` + testUser + `"]}`
		role    = `"Principal":{"AWS":"` + testRole + `"}`
		itself  = `"Principal":{"AWS":"` + testSession + `"}`
		others  = `"Principal":{"AWS":"arn:aws:iam::123456789012:user/bob","Service":"sns.amazonaws.com"}`
		notBob  = `"NotPrincipal":{"AWS":"arn:aws:iam::123456789012:user/bob"}`
		notAnn  = `"NotPrincipal":{"AWS":["` + testUser + `","123456789012"]}`
		notOnly = `"NotPrincipal":{"AWS":"` + testUser + `"}`
		notRoot = `"NotPrincipal":{"AWS":"123456789012"}`
		notRole = `"NotPrincipal":{"AWS":["` + testSession + `","` + testRole + `","123456789012"]}`
		notSelf = `"NotPrincipal":{"AWS":["` + testSession + `","123456789012"]}`
	)
	for name, test := range map[string]struct {
		principal                             Principal
		identity, session, boundary, resource string
		account                               string
		effect                                Effect
		source                                Source
	}{
		"nothing at all":                        {user(), "", "", "", "", "", ImplicitlyDenied, ""},
		"a session of which nothing is known":   {session(), "", "", "", "", "", ImplicitlyDenied, ""},
		"identity allows":                       {user(), allowGet, "", "", "", "", Allowed, FromIdentity},
		"identity allows something else":        {user(), allowOther, "", "", "", "", ImplicitlyDenied, FromIdentity},
		"identity denies":                       {user(), allowGet + "," + denyGet, "", "", "", "", ExplicitlyDenied, FromIdentity},
		"boundary doesn't allow":                {user(), allowGet, "", allowOther, "", "", ImplicitlyDenied, FromBoundary},
		"boundary allows":                       {user(), allowGet, "", allowGet, "", "", Allowed, FromIdentity},
		"boundary alone":                        {user(), "", "", allowGet, "", "", ImplicitlyDenied, ""},
		"boundary denies":                       {user(), allowGet, "", denyGet, grants("Allow", ann), "", ExplicitlyDenied, FromBoundary},
		"session policy of an unknown role":     {session(), "", allowGet, "", "", "", Allowed, FromSession},
		"session policy allows something else":  {session(), "", allowOther, "", "", "", ImplicitlyDenied, FromSession},
		"session policy and role":               {session(), allowGet, allowGet, "", "", "", Allowed, FromSession},
		"session policy, but not the role":      {session(), allowOther, allowGet, "", "", "", ImplicitlyDenied, FromIdentity},
		"role, but not the session policy":      {session(), allowGet, allowOther, "", "", "", ImplicitlyDenied, FromSession},
		"role without a session policy":         {session(), allowGet, "", "", "", "", Allowed, FromIdentity},
		"session policy denies":                 {session(), allowGet, denyGet, "", grants("Allow", itself), "", ExplicitlyDenied, FromSession},
		"resource names the user":               {user(), allowOther, "", allowOther, grants("Allow", ann), "", Allowed, FromResource},
		"resource names everyone":               {user(), "", "", "", grants("Allow", anyone), "", Allowed, FromResource},
		"resource names all of AWS":             {user(), "", "", "", grants("Allow", anyAWS), "", Allowed, FromResource},
		"resource names the account":            {user(), allowOther, "", "", grants("Allow", root), "", ImplicitlyDenied, FromIdentity},
		"resource names the account, and allow": {user(), allowGet, "", "", grants("Allow", byID), "", Allowed, FromIdentity},
		"resource names others":                 {user(), "", "", "", grants("Allow", others), "", ImplicitlyDenied, ""},
		"resource denies the user":              {user(), allowGet, "", "", grants("Deny", ann), "", ExplicitlyDenied, FromResource},
		"resource denies the account":           {user(), allowGet, "", "", grants("Deny", root), "", ExplicitlyDenied, FromResource},
		"resource denies everyone":              {user(), allowGet, "", "", grants("Deny", anyone), "", ExplicitlyDenied, FromResource},
		"resource denies others":                {user(), allowGet, "", "", grants("Deny", others), "", Allowed, FromIdentity},
		"resource denies all but bob":           {user(), allowGet, "", "", grants("Deny", notBob), "", ExplicitlyDenied, FromResource},
		"resource denies all but ann":           {user(), allowGet, "", "", grants("Deny", notAnn), "", Allowed, FromIdentity},
		"spared without her account":            {user(), allowGet, "", "", grants("Deny", notOnly), "", ExplicitlyDenied, FromResource},
		"only her account spared":               {user(), allowGet, "", "", grants("Deny", notRoot), "", ExplicitlyDenied, FromResource},
		"spared with a boundary":                {user(), allowGet, "", allowGet, grants("Deny", notAnn), "", ExplicitlyDenied, FromResource},
		"resource allows all but bob":           {user(), "", "", "", grants("Allow", notBob), "", Allowed, FromResource},
		"resource allows all but ann":           {user(), "", "", "", grants("Allow", notOnly), "", ImplicitlyDenied, ""},
		"resource allows all but an account":    {user(), "", "", "", grants("Allow", notRoot), "", ImplicitlyDenied, ""},
		"session spared":                        {session(), allowGet, "", "", grants("Deny", notRole), "", Allowed, FromIdentity},
		"session spared without its role":       {session(), allowGet, "", "", grants("Deny", notSelf), "", ExplicitlyDenied, FromResource},
		"resource names the role":               {session(), allowOther, "", "", grants("Allow", role), "", Allowed, FromResource},
		"named role, narrowed session":          {session(), allowOther, allowOther, "", grants("Allow", role), "", ImplicitlyDenied, FromIdentity},
		"named role, session allows":            {session(), allowOther, allowGet, "", grants("Allow", role), "", Allowed, FromResource},
		"named role, narrow boundary":           {session(), allowGet, "", allowOther, grants("Allow", role), "", ImplicitlyDenied, FromBoundary},
		"named session":                         {session(), allowOther, allowOther, allowOther, grants("Allow", itself), "", Allowed, FromResource},
		"everyone, narrowed session":            {session(), allowOther, allowOther, allowOther, grants("Allow", anyone), "", Allowed, FromResource},
		"resource denies the role":              {session(), allowGet, "", "", grants("Deny", role), "", ExplicitlyDenied, FromResource},
		"resource denies the session":           {session(), allowGet, "", "", grants("Deny", itself), "", ExplicitlyDenied, FromResource},
		"abroad, identity alone":                {user(), allowGet, "", "", "", foreign, ImplicitlyDenied, ""},
		"abroad, resource alone":                {user(), allowOther, "", "", grants("Allow", ann), foreign, ImplicitlyDenied, FromIdentity},
		"abroad, both":                          {user(), allowGet, "", "", grants("Allow", ann), foreign, Allowed, FromIdentity},
		"abroad, the account":                   {user(), allowGet, "", "", grants("Allow", root), foreign, Allowed, FromIdentity},
		"abroad, others":                        {user(), allowGet, "", "", grants("Allow", others), foreign, ImplicitlyDenied, FromResource},
		"abroad, narrowed session":              {session(), "", allowOther, "", grants("Allow", itself), foreign, ImplicitlyDenied, FromSession},
		"abroad, session":                       {session(), "", allowGet, "", grants("Allow", role), foreign, Allowed, FromSession},
	} {
		document := func(statements string) *Document {
			if statements == "" {
				return nil
			}
			return parsed(t, policy(statements))
		}
		decision, err := Evaluate(
			Request{Action: "s3:GetObject", Resource: testObject, ResourceAccount: test.account, Principal: test.principal},
			Policies{Identity: document(test.identity), Session: document(test.session), Boundary: document(test.boundary), Resource: document(test.resource)},
		)
		if err != nil || decision.Effect != test.effect || decision.Source != test.source {
			t.Errorf("%s: %+v, %v", name, decision, err)
		}
		if decision.Reason == "" || (decision.Statement == "") != (decision.Index < 0) {
			t.Errorf("%s: %+v", name, decision)
		}
	}
}

// A federated user's session is limited where the policy names the user behind
// it, and not where it names the session.
func TestFederatedUsers(t *testing.T) {
	federated := Principal{ARN: "arn:aws:sts::123456789012:federated-user/pr-1", Issuer: testUser}
	for principal, want := range map[string]Effect{testUser: ImplicitlyDenied, federated.ARN: Allowed} {
		decision, err := Evaluate(Request{Action: "s3:GetObject", Resource: testObject, Principal: federated}, Policies{
			Identity: parsed(t, policy(allowGet)), Session: parsed(t, policy(allowOther)),
			Resource: parsed(t, policy(grants("Allow", `"Principal":{"AWS":"`+principal+`"}`))),
		})
		if err != nil || decision.Effect != want {
			t.Errorf("%s: %+v, %v", principal, decision, err)
		}
	}
}

// Keys and roles let an account's own policies decide only where they name it.
func TestKeyPolicies(t *testing.T) {
	const key = "arn:aws:kms:eu-west-1:123456789012:key/1"
	identity := parsed(t, policy(`{"Effect":"Allow","Action":"kms:Decrypt","Resource":"*"}`))
	for principal, want := range map[string]Effect{
		"123456789012": Allowed, testUser: Allowed, "*": Allowed, "210987654321": ImplicitlyDenied,
	} {
		resource := parsed(t, policy(`{"Effect":"Allow","Principal":{"AWS":"`+principal+`"},"Action":"kms:*","Resource":"*"}`))
		decision, err := Evaluate(Request{Action: "kms:Decrypt", Resource: key, Principal: user()}, Policies{Identity: identity, Resource: resource})
		if err != nil || decision.Effect != want {
			t.Errorf("%s: %+v, %v", principal, decision, err)
		}
	}
	unknown, err := Evaluate(Request{Action: "kms:Decrypt", Resource: key, Principal: user()}, Policies{Identity: identity})
	if err != nil || unknown.Effect != Allowed || !strings.Contains(unknown.Reason, "if the resource's own policy") {
		t.Errorf("without a key policy: %+v, %v", unknown, err)
	}
	trust := parsed(t, policy(`{"Effect":"Allow","Principal":{"AWS":"`+testUser+`"},"Action":"sts:AssumeRole"}`))
	decision, err := Evaluate(Request{Action: "sts:AssumeRole", Resource: testRole, Principal: user()}, Policies{Resource: trust})
	if err != nil || decision.Effect != Allowed {
		t.Errorf("a trust policy: %+v, %v", decision, err)
	}
}

// Keys that follow from the request, unless the caller says otherwise.
func TestDerivedKeys(t *testing.T) {
	federated := Principal{ARN: "arn:aws:sts::123456789012:federated-user/pr-1", Issuer: testUser}
	now := map[string][]string{"aws:CurrentTime": {"2026-01-31T12:00:00Z"}}
	for _, test := range []struct {
		principal Principal
		account   string
		context   map[string][]string
		condition string
		want      bool
	}{
		{user(), "", nil, `{"StringEquals":{"aws:username":"ann","aws:PrincipalArn":"` + testUser + `","aws:PrincipalType":"User"}}`, true},
		{session(), "", nil, `{"StringEquals":{"aws:PrincipalArn":"` + testRole + `","aws:PrincipalType":"AssumedRole"},"Null":{"aws:username":"true"}}`, true},
		{federated, "", nil, `{"StringEquals":{"aws:PrincipalArn":"` + federated.ARN + `","aws:PrincipalType":"FederatedUser"},"Null":{"aws:username":"true"}}`, true},
		{user(), "", nil, `{"StringEquals":{"aws:PrincipalAccount":"123456789012","aws:ResourceAccount":"${aws:PrincipalAccount}"}}`, true},
		{user(), "123456789012", nil, `{"StringEquals":{"aws:ResourceAccount":"210987654321"}}`, false},
		{user(), "", map[string][]string{"AWS:ResourceAccount": {"210987654321"}}, `{"StringEquals":{"aws:ResourceAccount":"210987654321"}}`, false}, // its policy has a say then
		{user(), "123456789012", map[string][]string{"AWS:ResourceAccount": {"210987654321"}}, `{"StringEquals":{"aws:ResourceAccount":"210987654321"}}`, true},
		{user(), "", map[string][]string{"aws:ResourceAccount": nil}, `{"Null":{"aws:ResourceAccount":"true"}}`, true},
		{user(), "", now, `{"NumericEquals":{"aws:EpochTime":"1769860800"}}`, true},
		{user(), "", nil, `{"Null":{"aws:EpochTime":"true"}}`, true},
	} {
		decision, err := Evaluate(Request{Action: "s3:GetObject", Resource: testObject, ResourceAccount: test.account, Principal: test.principal, Context: test.context},
			Policies{Identity: parsed(t, policy(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+test.condition+`}`))})
		if err != nil || (decision.Effect == Allowed) != test.want {
			t.Errorf("%s: %+v, %v", test.condition, decision, err)
		}
	}
}

func TestReasons(t *testing.T) {
	identity := parsed(t, policy(strings.Join([]string{
		allowOther,
		`{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::other/*"}`,
		`{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::timed/*","Condition":{"StringEquals":{"aws:PrincipalAccount":"123456789012"},"DateLessThan":{"aws:CurrentTime":"2026-01-31T12:00:00Z"}}}`,
		`{"Effect":"Deny","Action":"s3:GetObject","Resource":"arn:aws:s3:::timed/never"}`,
		`{"Effect":"Deny","Action":"s3:GetObject","Resource":"arn:aws:s3:::timed/here","Condition":{"NotIpAddress":{"aws:SourceIp":"203.0.113.7/32"},"BoolIfExists":{"aws:SecureTransport":"true"},"StringEquals":{"aws:PrincipalAccount":"123456789012"}}}`,
	}, ",")))
	late := map[string][]string{"aws:CurrentTime": {"2026-02-01T00:00:00Z"}}
	for _, test := range []struct {
		action, resource string
		context          map[string][]string
		effect           Effect
		index            int
		reason           string
	}{
		{"s3:PutObject", testObject, nil, Allowed, 0, "statement 1 of the identity policy allows it"},
		{"s3:DeleteObject", testObject, nil, ImplicitlyDenied, 0, "the identity policy does not allow it; nearest comes statement 1, but its actions do not include s3:DeleteObject"},
		{"s3:GetObject", testObject, nil, ImplicitlyDenied, 1, "the identity policy does not allow it; nearest comes statement 2, but its resources do not include " + testObject},
		{"s3:GetObject", "arn:aws:s3:::timed/1", nil, ImplicitlyDenied, 2, "the identity policy does not allow it; nearest comes statement 3, but its condition DateLessThan on aws:CurrentTime does not hold: the request has no such key"},
		{"s3:GetObject", "arn:aws:s3:::timed/1", late, ImplicitlyDenied, 2, `the identity policy does not allow it; nearest comes statement 3, but its condition DateLessThan on aws:CurrentTime does not hold: the request has "2026-02-01T00:00:00Z"`},
		{"s3:GetObject", "arn:aws:s3:::timed/never", late, ExplicitlyDenied, 3, "statement 4 of the identity policy denies it"},
		{"s3:GetObject", "arn:aws:s3:::timed/here", nil, ExplicitlyDenied, 4, "statement 5 of the identity policy denies it; its condition is on aws:SourceIp and aws:SecureTransport, which the request does not have"},
		{"s3:GetObject", "arn:aws:s3:::timed/here", map[string][]string{"aws:SourceIp": {"203.0.113.8"}, "aws:SecureTransport": {"true"}}, ExplicitlyDenied, 4, "statement 5 of the identity policy denies it"},
	} {
		decision, err := Evaluate(Request{Action: test.action, Resource: test.resource, Principal: user(), Context: test.context}, Policies{Identity: identity})
		want := Decision{Effect: test.effect, Source: FromIdentity, Index: test.index, Statement: identity.Statement(test.index), Reason: test.reason}
		if err != nil || decision != want {
			t.Errorf("%s on %s: %+v, %v", test.action, test.resource, decision, err)
		}
	}
}

func TestEvaluateRefuses(t *testing.T) {
	fine := func() (Request, Policies) {
		return Request{Action: "s3:GetObject", Resource: testObject, Principal: user()}, Policies{Identity: parsed(t, policy(allowGet))}
	}
	shortARN := `{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3"}`
	for name, test := range map[string]struct {
		change func(*Request, *Policies)
		field  string
	}{
		"an action with a wildcard": {func(r *Request, _ *Policies) { r.Action = "s3:*" }, "action"},
		"no action":                 {func(r *Request, _ *Policies) { r.Action = "" }, "action"},
		"no ARN":                    {func(r *Request, _ *Policies) { r.Resource = "releases/app" }, "resource"},
		"an account of letters":     {func(r *Request, _ *Policies) { r.ResourceAccount = "mine" }, "resource_account"},
		"no principal":              {func(r *Request, _ *Policies) { r.Principal = Principal{} }, "principal"},
		"a role as principal":       {func(r *Request, _ *Policies) { r.Principal = Principal{ARN: testRole} }, "principal"},
		"root as principal":         {func(r *Request, _ *Policies) { r.Principal.ARN = "arn:aws:iam::123456789012:root" }, "principal"},
		"a session of nobody":       {func(r *Request, _ *Policies) { r.Principal = Principal{ARN: testSession} }, "principal"},
		"a session of a user":       {func(r *Request, _ *Policies) { r.Principal = Principal{ARN: testSession, Issuer: testUser} }, "principal"},
		"a session of another account": {func(r *Request, _ *Policies) {
			r.Principal = Principal{ARN: testSession, Issuer: "arn:aws:iam::210987654321:role/deploy"}
		}, "principal"},
		"a user with an issuer":           {func(r *Request, _ *Policies) { r.Principal.Issuer = testRole }, "principal"},
		"a key given twice":               {func(r *Request, _ *Policies) { r.Context = map[string][]string{"a:b": {"1"}, "A:B": {"2"}} }, "context"},
		"a key without a name":            {func(r *Request, _ *Policies) { r.Context = map[string][]string{"": {"1"}} }, "context"},
		"a huge request":                  {func(r *Request, _ *Policies) { r.Context = map[string][]string{"a:b": {strings.Repeat("x", 17<<10)}} }, "context"},
		"a user's session policy":         {func(_ *Request, p *Policies) { p.Session = parsed(t, policy(allowGet)) }, "session_policy"},
		"an identity policy's principal":  {func(_ *Request, p *Policies) { p.Identity = parsed(t, policy(grants("Allow", `"Principal":"*"`))) }, "policy"},
		"a boundary's principal":          {func(_ *Request, p *Policies) { p.Boundary = parsed(t, policy(grants("Allow", `"Principal":"*"`))) }, "policy"},
		"an identity policy for no thing": {func(_ *Request, p *Policies) { p.Identity = parsed(t, policy(`{"Effect":"Allow","Action":"*"}`)) }, "policy"},
		"a resource policy for nobody":    {func(_ *Request, p *Policies) { p.Resource = parsed(t, policy(allowGet)) }, "policy"},
		"a short ARN in a session policy": {func(r *Request, p *Policies) { r.Principal, p.Session = session(), parsed(t, policy(shortARN)) }, "policy"},
		"a short ARN in a resource policy": {func(_ *Request, p *Policies) {
			p.Resource = parsed(t, policy(strings.Replace(shortARN, `"Action"`, `"Principal":"*","Action"`, 1)))
		}, "policy"},
	} {
		request, policies := fine()
		test.change(&request, &policies)
		_, err := Evaluate(request, policies)
		refusedFor(t, name, err, test.field)
	}
	request, policies := fine()
	if decision, err := Evaluate(request, policies); err != nil || decision.Effect != Allowed {
		t.Errorf("with nothing wrong: %+v, %v", decision, err)
	}
}

// A policy that is made to be slow ends in a refusal, not in a stall.
func TestWorkIsBounded(t *testing.T) {
	star := `"` + strings.Repeat("*a", 2000) + `b"`
	condition := `{"StringLike":{"t:a":[` + strings.Repeat(star+",", 6) + star + `]}}`
	identity := parsed(t, policy(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+condition+`}`))
	_, err := Evaluate(Request{Action: "s3:GetObject", Resource: testObject, Principal: user(), Context: map[string][]string{"t:a": {strings.Repeat("a", 15<<10)}}}, Policies{Identity: identity})
	refusedFor(t, "wildcards", err, "policy")

	nested := `"` + strings.Repeat("*${t:b}", 3000) + `"`
	identity = parsed(t, policy(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringLike":{"t:a":`+nested+`}}}`))
	_, err = Evaluate(Request{Action: "s3:GetObject", Resource: testObject, Principal: user(), Context: map[string][]string{"t:a": {strings.Repeat("a", 15<<10)}, "t:b": {"aa"}}}, Policies{Identity: identity})
	refusedFor(t, "variables", err, "policy")
}

func fence(t testing.TB) *Document {
	end := Time(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC))
	text, err := Write(
		Statement{Effect: "Allow", Action: "s3:PutObject", Resource: "arn:aws:s3:::releases/app/*", Condition: Conditions{"DateLessThan": {"aws:CurrentTime": end}, "StringEquals": {"aws:ResourceAccount": "123456789012"}}},
		Statement{Effect: "Deny", NotAction: []string{"s3:PutObject", "kms:*"}, Resource: "*"},
		Statement{Effect: "Deny", Action: "kms:*", Resource: "*", Condition: Conditions{"StringNotLike": {"kms:ViaService": "s3.*"}}},
		Statement{Effect: "Deny", Action: "s3:PutObject", NotResource: "arn:aws:s3:::releases/app/*"},
		Statement{Effect: "Deny", Action: "*", Resource: "*", Condition: Conditions{"DateGreaterThanEquals": {"aws:CurrentTime": end}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	document, err := Parse("policy", text)
	if err != nil {
		t.Fatal(err)
	}
	return &document
}

// An Allow and its fence, against a resource that lets everybody do everything.
func TestFence(t *testing.T) {
	before, after := "2026-01-31T11:59:59Z", "2026-01-31T12:00:00Z"
	ambient := parsed(t, policy(`{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}`))
	for _, test := range []struct {
		action, resource, now, via string
		effect                     Effect
	}{
		{"s3:PutObject", testObject, before, "", Allowed},
		{"s3:PutObject", testObject, after, "", ExplicitlyDenied},
		{"s3:GetObject", testObject, before, "", ExplicitlyDenied},
		{"s3:PutObject", "arn:aws:s3:::releases/other", before, "", ExplicitlyDenied},
		{"sqs:SendMessage", "arn:aws:sqs:eu-west-1:123456789012:jobs", before, "", ExplicitlyDenied},
		{"kms:Decrypt", "arn:aws:kms:eu-west-1:123456789012:key/1", before, "", ExplicitlyDenied},
		{"kms:Decrypt", "arn:aws:kms:eu-west-1:123456789012:key/1", before, "sqs.eu-west-1.amazonaws.com", ExplicitlyDenied},
		{"kms:Decrypt", "arn:aws:kms:eu-west-1:123456789012:key/1", before, "s3.eu-west-1.amazonaws.com", Allowed},
	} {
		context := map[string][]string{"aws:CurrentTime": {test.now}}
		if test.via != "" {
			context["kms:ViaService"] = []string{test.via}
		}
		decision, err := Evaluate(Request{Action: test.action, Resource: test.resource, Principal: user(), Context: context}, Policies{Identity: fence(t), Resource: ambient})
		if err != nil || decision.Effect != test.effect {
			t.Errorf("%+v: %+v, %v", test, decision, err)
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	identity := fence(b)
	request := Request{Action: "s3:PutObject", Resource: testObject, Principal: user(), Context: map[string][]string{"aws:CurrentTime": {"2026-01-31T11:59:59Z"}}}
	for b.Loop() {
		if _, err := Evaluate(request, Policies{Identity: identity}); err != nil {
			b.Fatal(err)
		}
	}
}
