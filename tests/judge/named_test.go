package judge

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/roles"
)

// task is a named action, and what AWS has to let a credential with it do: written out
// here from AWS's guides, not asked of the engine.
type task struct {
	action, resource, companion string
	members                     map[string][]string   // what each action is for, as instances
	context                     map[string]Context    // what an action's request carries besides
	unmet                       map[string][]Context  // and what it must not carry
	beside                      map[string]([]string) // further resources that an action must not reach
}

const (
	inAccount = ":" + roles.Account + ":"
	queue     = "arn:aws:sqs:eu-west-1" + inAccount + "jobs"
	stream    = "arn:aws:kinesis:eu-west-1" + inAccount + "stream/clicks"
	table     = "arn:aws:dynamodb:eu-west-1" + inAccount + "table/orders"
	images    = "arn:aws:ecr:eu-west-1" + inAccount + "repository/team/app"
	script    = "arn:aws:ssm:eu-west-1" + inAccount + "document/restart-app"
	machine   = "arn:aws:ec2:eu-west-1" + inAccount + "instance/i-0123456789abcdef0"
	group     = "arn:aws:logs:eu-west-1" + inAccount + "log-group:app"
	artifacts = "arn:aws:codeartifact:eu-west-1" + inAccount + "repository/company/releases"
	published = "arn:aws:codeartifact:eu-west-1" + inAccount + "package/company/releases/npm/scope/app"
)

// each maps every one of the actions of a service to the resources.
func each(service, actions string, resources ...string) map[string][]string {
	all := map[string][]string{}
	for _, name := range strings.Fields(actions) {
		all[service+":"+name] = resources
	}
	return all
}

func and(all ...map[string][]string) map[string][]string {
	together := map[string][]string{}
	for _, one := range all {
		maps.Copy(together, one)
	}
	return together
}

func tasks() []task {
	below := []string{"arn:aws:s3:::releases/app/1.tgz", "arn:aws:s3:::releases/app/a/b"}
	bucket := []string{"arn:aws:s3:::releases"}
	listed := map[string]Context{"s3:ListBucket": {"s3:prefix": {"app/"}}}
	unlisted := map[string][]Context{"s3:ListBucket": {
		{"s3:prefix": nil}, {"s3:prefix": {""}}, {"s3:prefix": {"app"}}, {"s3:prefix": {"ap"}}, {"s3:prefix": {"application/"}}, {"s3:prefix": {"APP/"}}, {"s3:prefix": {"other/app/"}},
	}}
	read := "GetItem BatchGetItem Query Scan ConditionCheckItem"
	write := "PutItem UpdateItem DeleteItem BatchWriteItem ConditionCheckItem"
	nowhere := []string{"*"}
	return []task{
		{action: "s3:sync-up", resource: "arn:aws:s3:::releases/app/*", members: and(each("s3",
			"PutObject AbortMultipartUpload", below...), each("s3", "ListBucket", bucket...)), context: listed, unmet: unlisted},
		{action: "s3:sync-down", resource: "arn:aws:s3:::releases/app/*", members: and(each("s3", "GetObject", below...),
			each("s3", "ListBucket", bucket...)), context: listed, unmet: unlisted},
		{action: "s3:sync-down", resource: "arn:aws:s3:::releases/*", members: and(each("s3", "GetObject", append(below,
			"arn:aws:s3:::releases/x")...), each("s3", "ListBucket", bucket...))},
		{action: "s3:multipart-upload", resource: "arn:aws:s3:::releases/app/*", members: each("s3",
			"PutObject AbortMultipartUpload ListMultipartUploadParts", below...)},
		{action: "ecr:push", resource: images, members: and(each("ecr",
			"BatchCheckLayerAvailability InitiateLayerUpload UploadLayerPart CompleteLayerUpload PutImage "+
				"BatchGetImage", images), each("ecr", "GetAuthorizationToken", nowhere...))},
		{action: "ecr:pull", resource: images, members: and(each("ecr", "BatchGetImage GetDownloadUrlForLayer", images),
			each("ecr", "GetAuthorizationToken", nowhere...))},
		{action: "sqs:consume", resource: queue, members: each("sqs",
			"GetQueueUrl GetQueueAttributes ReceiveMessage ChangeMessageVisibility DeleteMessage", queue)},
		{action: "kinesis:consume", resource: stream, members: each("kinesis",
			"DescribeStreamSummary DescribeStream ListShards GetShardIterator GetRecords", stream)},
		{action: "dynamodb:items-read", resource: table, members: each("dynamodb", read, table)},
		{action: "dynamodb:items-write", resource: table, members: each("dynamodb", write, table)},
		{action: "dynamodb:items", resource: table, members: each("dynamodb", read+" "+write, table),
			beside: each("dynamodb", "Query Scan", table+"/index/by-day")},
		{action: "ssm:run-document", resource: script, companion: machine, members: each("ssm", "SendCommand", script,
			machine)},
		{action: "logs:write", resource: group, members: each("logs", "CreateLogStream PutLogEvents",
			group+":log-stream:one", group+":log-stream:a/b"),
			beside: each("logs", "CreateLogStream PutLogEvents", group+"2:log-stream:one")},
		{action: "codeartifact:publish", resource: artifacts,
			members: and(each("codeartifact", "GetRepositoryEndpoint ReadFromRepository", artifacts), each("codeartifact",
				"PublishPackageVersion PutPackageMetadata", published),
				each("codeartifact", "GetAuthorizationToken",
					"arn:aws:codeartifact:eu-west-1"+inAccount+"domain/company"), each("sts", "GetServiceBearerToken", nowhere...)),
			context: map[string]Context{"sts:GetServiceBearerToken": {"sts:AWSServiceName": {"codeartifact.amazonaws.com"}}},
			unmet: map[string][]Context{"sts:GetServiceBearerToken": {{"sts:AWSServiceName": nil},
				{"sts:AWSServiceName": {"codecommit.amazonaws.com"}}}},
			beside: each("codeartifact", "PublishPackageVersion PutPackageMetadata",
				strings.Replace(published, "/releases/", "/other/", 1), strings.Replace(published, "/company/", "/partner/",
					1), strings.Replace(published, "/releases/", "/releases2/", 1))},
	}
}

var taskEnd = time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)

// compiled is the policy that the engine mints for the task.
func (k task) compiled(t *testing.T) string {
	t.Helper()
	engine, err := aws.Type().Open(provider.Settings{"region": "eu-west-1", "access_key": "AKIA",
		"secret_key": "secret"}, provider.Facts{"account_id": roles.Account, "partition": "aws"})
	if err != nil {
		t.Fatal(err)
	}
	texts := scope.Texts{Action: k.action, Resource: k.resource}
	if k.companion != "" {
		texts.Companions = []string{k.companion}
	}
	definition, err := scope.Define(texts)
	if err != nil {
		t.Fatal(err)
	}
	granted, err := definition.Fill(scope.Values{})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := engine.Compile(granted, provider.Bounds{ExpiresAt: taskEnd, AllowEscalation: true})
	if err != nil {
		t.Fatal(err)
	}
	return string(policy)
}

// jury collects requests and the verdicts that are right.
type jury struct {
	t        *testing.T
	task     task
	policy   string
	requests []Request
	want     []string // "Allowed", "ExplicitlyDenied", or "" for not allowed
}

// ask adds a request as each kind of holder, with and without a resource's own policy.
func (j *jury) ask(action, resource string, at time.Time, granted bool, context Context) {
	const org = "o-example"
	all := Context{"aws:CurrentTime": {at.Format(time.RFC3339)}, "aws:PrincipalOrgID": {org},
		"aws:ResourceAccount": {roles.Account}}
	if strings.HasPrefix(action, "s3:") && catalogHas(action, "s3:prefix") {
		all["s3:prefix"] = []string{"app/"}
	}
	if strings.HasPrefix(action, "sts:") && catalogHas(action, "sts:AWSServiceName") {
		all["sts:AWSServiceName"] = []string{"codeartifact.amazonaws.com"}
	}
	maps.Copy(all, context)
	owner := all["aws:ResourceAccount"][0]
	if parts := strings.SplitN(resource, ":", 6); len(parts) == 6 && parts[4] != "" {
		owner = parts[4]
		all["aws:ResourceAccount"] = []string{owner}
	}
	everything := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	open := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}`
	ofOrg := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalOrgID":"` + org + `"}}}]}`
	for _, ambient := range []string{"", open, ofOrg} {
		if strings.Contains(action, "sts:Assume") && ambient == "" {
			continue // a role always has a trust policy
		}
		want := "Allowed"
		switch {
		case !granted && ambient != "":
			want = string(ExplicitlyDenied)
		case !granted:
			want = ""
		}
		asked := Request{Principal: "arn:aws:iam::" + roles.Account + ":user/precision/holder", Action: action,
			Resource: resource, Account: owner, Context: all, Identity: []string{j.policy}, ResourcePolicy: ambient}
		session := asked
		session.Principal = "arn:aws:sts::" + roles.Account + ":assumed-role/base/precision-x"
		session.Identity, session.Session = []string{everything}, j.policy
		j.requests = append(j.requests, asked, session)
		j.want = append(j.want, want, want)
	}
}

func catalogHas(name, key string) bool {
	action, _ := catalog.Find(name)
	has := slices.Contains(action.ConditionKeys, key)
	for _, use := range action.Resources {
		has = has || slices.Contains(use.ConditionKeys, key)
	}
	return has
}

// Each named action lets exactly its members through, each on what it is for, whatever
// a resource's own policy says: AWS's other actions, siblings of the resources, another
// account's, other conditions and the time after the end are denied.
func TestNamedActionsAreExact(t *testing.T) {
	judge := start(t)
	total, allowed, wrong := 0, 0, 0
	for _, task := range tasks() {
		j := &jury{t: t, task: task, policy: task.compiled(t)}
		j.members()
		j.siblings()
		j.others()
		verdicts, err := judge.Decide(t.Context(), j.requests)
		if err != nil {
			t.Errorf("%s: %v", task.action, err)
		}
		for i, got := range verdicts {
			total++
			want := j.want[i]
			if want == string(Allowed) {
				allowed++
			}
			if string(got) == want || want == "" && got != Allowed && got != "" {
				continue
			}
			if wrong++; wrong < 10 {
				text, _ := json.Marshal(j.requests[i])
				t.Errorf("%s: got %q, want %q: %s", task.action, got, want, text)
			}
		}
	}
	figures.Log(t, "named actions: %d tasks, %d verdicts, %d of them grants, %d wrong", len(tasks()), total, allowed,
		wrong)
	if allowed < 300 || total < 10_000 {
		t.Errorf("%d verdicts with %d grants make no proof", total, allowed)
	}
}

// members asks for what is granted, in time, after the end and under other conditions.
func (j *jury) members() {
	last := taskEnd.Add(-time.Second)
	for action, resources := range j.task.members {
		for _, resource := range resources {
			j.ask(action, resource, last, true, j.task.context[action])
			j.ask(action, resource, taskEnd, false, j.task.context[action])
			for _, unmet := range j.task.unmet[action] {
				j.ask(action, resource, last, false, unmet)
			}
			if strings.HasPrefix(resource, "arn:aws:s3:") {
				foreign := maps.Clone(j.task.context[action])
				if foreign == nil {
					foreign = Context{}
				}
				foreign["aws:ResourceAccount"] = []string{roles.Other}
				j.ask(action, resource, last, false, foreign)
			}
		}
		for _, resource := range j.task.beside[action] {
			j.ask(action, resource, last, false, j.task.context[action])
		}
	}
}

// siblings asks for the members on what is beside their resources.
func (j *jury) siblings() {
	for action, resources := range j.task.members {
		known, _ := catalog.Find(action)
		for _, resource := range resources {
			granted := resource
			switch {
			case resource == "*":
				continue
			case strings.HasPrefix(resource, "arn:aws:s3:") && strings.Contains(resource, "/"):
				granted = j.task.resource
			case strings.Contains(resource, ":log-stream:"):
				granted = group + ":log-stream:*"
			case strings.Contains(resource, ":package/"):
				granted = "arn:aws:codeartifact:eu-west-1" + inAccount + "package/company/releases/*"
			}
			for _, sibling := range roles.Siblings(granted) {
				if len(roles.Types(known, sibling.ARN)) > 0 && !strings.ContainsAny(sibling.ARN, "*") {
					j.ask(action, sibling.ARN, taskEnd.Add(-time.Second), false, j.task.context[action])
				}
			}
		}
	}
}

// others asks for all other actions of the services on everything that is granted.
func (j *jury) others() {
	on, services := map[string]bool{"*": true}, map[string]bool{}
	for action, resources := range j.task.members {
		services[roles.ServiceOf(action)] = true
		for _, resource := range resources {
			on[resource] = true
		}
	}
	for prefix := range services {
		service, _ := catalog.ServiceByPrefix(prefix)
		for _, action := range service.Actions() {
			if _, granted := j.task.members[action.Name]; granted || strings.HasPrefix(action.Name, "sts:Get") {
				continue // nobody needs a permission for sts:GetCallerIdentity and sts:GetSessionToken
			}
			for resource := range on {
				if (resource == "*") == (len(action.Resources) == 0) && (resource == "*" || len(roles.Types(action,
					resource)) > 0) {
					j.ask(action.Name, resource, taskEnd.Add(-time.Second), false, nil)
				}
			}
		}
	}
}

// The judge knows the members for what they are: a task with one left out is not judged
// to be the same.
func TestNamedActionsAreNotJudgedBlindly(t *testing.T) {
	judge := start(t)
	j := &jury{t: t, task: tasks()[0]}
	j.policy = policy(allow("s3:*", "*"))
	j.others()
	verdicts, err := judge.Decide(t.Context(), j.requests)
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for i, got := range verdicts {
		if got == Allowed && j.want[i] != string(Allowed) {
			wrong++
		}
	}
	if wrong < len(verdicts)/2 {
		t.Errorf("of a policy without a fence, %d of %d verdicts are wrong", wrong, len(verdicts))
	}
	figures.Log(t, "%s", fmt.Sprintf("a policy without a fence: %d of %d verdicts wrong", wrong, len(verdicts)))
}
