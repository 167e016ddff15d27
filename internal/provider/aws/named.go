package aws

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Named is a named action: what one task needs of one resource, as a closed list of
// IAM's actions. No name of one is an action of AWS.
type Named struct {
	Name    string
	Members []Member
	// Resource says which resource a role names.
	Resource string

	anchor string // the action that the role's resource has to suit
	// form holds the resource to what the task works on; nil for what the anchor takes.
	form func(scope.ARN) error
}

// Member is one of IAM's actions in a named action.
type Member struct {
	Action string
	Why    string // why the task needs it
	// On says in words what it is granted on, where that is not the role's resource.
	On string
	// Token says that the action hands out a token that can do what the credential can
	// do, and no more. It is not refused as an escalation; each mint warns of it.
	Token bool

	kind string                    // the type of resource that on makes; empty for the role's own
	on   func(scope.ARN) scope.ARN // nil for the role's own, or for none if there is no kind either and Token is set
	when func(scope.ARN) iampolicy.Conditions
}

// namedActions are all named actions by name.
var namedActions = func() map[string]Named {
	all := map[string]Named{}
	for _, each := range slices.Concat(namedOfS3(), namedOfECR(), namedOfData(), namedOfOperations()) {
		all[each.Name] = each
	}
	return all
}()

// FindNamed returns the named action of that name.
func FindNamed(name string) (Named, bool) {
	found, known := namedActions[name]
	return found, known
}

// NamedActions lists the names of a service's named actions, sorted; of all
// services where the prefix is empty.
func NamedActions(prefix string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(namedActions)) {
		if prefix == "" || prefixOf(name) == prefix {
			names = append(names, name)
		}
	}
	return names
}

// free says whether the member's action is judged on no resource at all.
func (m Member) free() bool { return m.Token && m.kind == "" }

// resolve checks the role's resource by the anchor, and returns what each member is
// granted on. The errors are *invalid.Error.
func (n Named) resolve(resource scope.ARN, companions []scope.ARN) (anchor resolved, members []resolved, err error) {
	action, known := catalog.Find(n.anchor)
	if !known {
		return resolved{}, nil, fmt.Errorf("aws: %s: no action %s", n.Name, n.anchor)
	}
	if n.form != nil {
		if err := n.form(resource); err != nil {
			return resolved{}, nil, err
		}
	}
	if anchor, err = resolve(action, resource, companions); err != nil {
		return resolved{}, nil, err
	}
	for _, member := range n.Members {
		found, err := member.resolve(anchor, resource, companions)
		if err != nil {
			return resolved{}, nil, err
		}
		members = append(members, found)
	}
	return anchor, members, nil
}

// resolve returns what the member is granted on: nothing where AWS judges it on no
// resource.
func (m Member) resolve(anchor resolved, resource scope.ARN, companions []scope.ARN) (resolved, error) {
	action, known := catalog.Find(m.Action)
	switch {
	case !known:
		return resolved{}, fmt.Errorf("aws: no action %s", m.Action)
	case m.free():
		return resolved{}, nil
	case m.kind != "":
		return resolved{Type: m.kind, Resource: m.on(anchor.Resource)}, nil
	default:
		return resolve(action, resource, companions)
	}
}

// prefixForm takes a bucket or a path in it, with all objects below.
func prefixForm(resource scope.ARN) error {
	if !strings.HasSuffix(resource.Resource, "/*") {
		return invalid.Field(resourceField, resource.String(), "a sync works on all objects below a prefix",
			"write it as arn:aws:s3:::bucket/prefix/*")
	}
	return nil
}

// oneForm refuses a wildcard: what is granted besides belongs to one resource.
func oneForm(resource scope.ARN) error {
	if strings.HasSuffix(strings.TrimSuffix(resource.Resource, ":*"), "*") {
		return invalid.Field(resourceField, resource.String(), "the action works on one resource, without a wildcard",
			"write it out")
	}
	return nil
}

// bucketOf is the bucket of an object's ARN.
func bucketOf(object scope.ARN) scope.ARN {
	object.Resource, _, _ = strings.Cut(object.Resource, "/")
	return object
}

// listsPrefix holds a listing of the bucket to the keys below the prefix. A listing of
// all keys needs no condition: the role's resource is all objects.
func listsPrefix(objects scope.ARN) iampolicy.Conditions {
	_, prefix, _ := strings.Cut(objects.Resource, "/")
	if prefix == "*" {
		return nil
	}
	return iampolicy.Conditions{"StringLike": {"s3:prefix": prefix}}
}

func namedOfS3() []Named {
	list := Member{Action: "s3:ListBucket", Why: "compares what is there, by name, size and time",
		On:   "the bucket, for keys below the prefix only",
		kind: "bucket", on: bucketOf, when: listsPrefix}
	put := Member{Action: "s3:PutObject", Why: "writes each object, in parts where it is large"}
	abort := Member{Action: "s3:AbortMultipartUpload", Why: "removes the parts of an upload that has failed"}
	const prefix = "all objects below a prefix: arn:aws:s3:::bucket/prefix/*"
	return []Named{
		{Name: "s3:sync-up", Resource: prefix, anchor: "s3:PutObject", form: prefixForm, Members: []Member{put, abort, list}},
		{Name: "s3:sync-down", Resource: prefix, anchor: "s3:GetObject", form: prefixForm,
			Members: []Member{{Action: "s3:GetObject", Why: "reads each object"}, list}},
		{Name: "s3:multipart-upload", Resource: "an object, or all below a prefix", anchor: "s3:PutObject",
			Members: []Member{put, abort,
				{Action: "s3:ListMultipartUploadParts", Why: "finds out which parts have arrived, to resume an upload"}}},
	}
}

func namedOfECR() []Named {
	token := Member{Action: "ecr:GetAuthorizationToken", Token: true, On: "no resource: AWS judges it on none",
		Why: "docker login: a token that can do in the registry what the credential can do"}
	const repository = "a repository"
	return []Named{
		{Name: "ecr:push", Resource: repository, anchor: "ecr:PutImage", Members: []Member{
			{Action: "ecr:BatchCheckLayerAvailability", Why: "skips the layers that are there"},
			{Action: "ecr:InitiateLayerUpload", Why: "begins a layer"},
			{Action: "ecr:UploadLayerPart", Why: "sends a layer"},
			{Action: "ecr:CompleteLayerUpload", Why: "ends a layer"},
			{Action: "ecr:PutImage", Why: "writes the manifest and its tag"},
			{Action: "ecr:BatchGetImage", Why: "looks whether the manifest is there, as buildx and containerd do first"},
			token,
		}},
		{Name: "ecr:pull", Resource: repository, anchor: "ecr:BatchGetImage", Members: []Member{
			{Action: "ecr:BatchGetImage", Why: "reads the manifest"},
			{Action: "ecr:GetDownloadUrlForLayer", Why: "reads a layer"},
			token,
		}},
	}
}

func namedOfData() []Named {
	read := []Member{
		{Action: "dynamodb:GetItem", Why: "reads an item"},
		{Action: "dynamodb:BatchGetItem", Why: "reads several"},
		{Action: "dynamodb:Query", Why: "reads the items of a key"},
		{Action: "dynamodb:Scan", Why: "reads all items"},
		{Action: "dynamodb:ConditionCheckItem", Why: "the checks of a transaction"},
	}
	write := []Member{
		{Action: "dynamodb:PutItem", Why: "writes an item"},
		{Action: "dynamodb:UpdateItem", Why: "changes an item"},
		{Action: "dynamodb:DeleteItem", Why: "deletes an item"},
		{Action: "dynamodb:BatchWriteItem", Why: "writes and deletes several"},
		{Action: "dynamodb:ConditionCheckItem", Why: "the checks of a transaction"},
	}
	const table = "a table, without its indexes"
	return []Named{
		{Name: "sqs:consume", Resource: "a queue", anchor: "sqs:ReceiveMessage", Members: []Member{
			{Action: "sqs:GetQueueUrl", Why: "finds the queue by its name"},
			{Action: "sqs:GetQueueAttributes", Why: "how long a message stays hidden, and how many wait"},
			{Action: "sqs:ReceiveMessage", Why: "takes messages"},
			{Action: "sqs:ChangeMessageVisibility", Why: "keeps one longer, or gives it back"},
			{Action: "sqs:DeleteMessage", Why: "what is done does not come again"},
		}},
		{Name: "kinesis:consume", Resource: "a stream", anchor: "kinesis:GetRecords", Members: []Member{
			{Action: "kinesis:DescribeStreamSummary", Why: "whether the stream is there, and its retention"},
			{Action: "kinesis:DescribeStream", Why: "the same for older clients, aws kinesis wait among them"},
			{Action: "kinesis:ListShards", Why: "which shards there are"},
			{Action: "kinesis:GetShardIterator", Why: "where to read from"},
			{Action: "kinesis:GetRecords", Why: "reads"},
		}},
		{Name: "dynamodb:items-read", Resource: table, anchor: "dynamodb:GetItem", Members: read},
		{Name: "dynamodb:items-write", Resource: table, anchor: "dynamodb:PutItem", Members: write},
		{Name: "dynamodb:items", Resource: table, anchor: "dynamodb:PutItem", Members: append(slices.Clone(read),
			write[:len(write)-1]...)},
	}
}

func namedOfOperations() []Named {
	return []Named{
		{Name: "ssm:run-document", Resource: "a document; its companion is the instance that it runs on",
			anchor: "ssm:SendCommand", Members: []Member{
				{Action: "ssm:SendCommand", Why: "runs the document", On: "the document and the instance"},
			}},
		{Name: "logs:write", Resource: "a log group", anchor: "logs:DescribeLogStreams", form: oneForm, Members: []Member{
			{Action: "logs:CreateLogStream", Why: "begins a stream", On: "the group's streams", kind: "log-stream",
				on: streamsOf},
			{Action: "logs:PutLogEvents", Why: "writes to it", On: "the group's streams", kind: "log-stream", on: streamsOf},
		}},
		{Name: "codeartifact:publish", Resource: "a repository", anchor: "codeartifact:GetRepositoryEndpoint",
			form: oneForm, Members: []Member{
				{Action: "codeartifact:GetRepositoryEndpoint", Why: "where the repository is, for login"},
				{Action: "codeartifact:ReadFromRepository",
					Why: "npm, Maven and NuGet read a package's metadata before they publish"},
				{Action: "codeartifact:PublishPackageVersion", Why: "writes a version", On: "the repository's packages",
					kind: "package", on: packagesOf},
				{Action: "codeartifact:PutPackageMetadata", Why: "npm's tags and Maven's metadata",
					On: "the repository's packages", kind: "package", on: packagesOf},
				{Action: "codeartifact:GetAuthorizationToken", Why: "login: a token that can do what the credential can do",
					On:    "the repository's domain",
					Token: true, kind: "domain", on: domainOf},
				{Action: "sts:GetServiceBearerToken", Why: "AWS asks for it before CodeArtifact hands out its token",
					On:    "no resource: for CodeArtifact only",
					Token: true, when: func(scope.ARN) iampolicy.Conditions {
						return iampolicy.Conditions{"StringEquals": {"sts:AWSServiceName": "codeartifact.amazonaws.com"}}
					}},
			}},
	}
}

// streamsOf are all streams of a log group.
func streamsOf(group scope.ARN) scope.ARN {
	group.Resource = strings.TrimSuffix(group.Resource, ":*") + ":log-stream:*"
	return group
}

// packagesOf are all packages of a repository, and domainOf is its domain.
func packagesOf(repository scope.ARN) scope.ARN {
	repository.Resource = "package/" + strings.TrimPrefix(repository.Resource, "repository/") + "/*"
	return repository
}

func domainOf(repository scope.ARN) scope.ARN {
	name, _, _ := strings.Cut(strings.TrimPrefix(repository.Resource, "repository/"), "/")
	repository.Resource = "domain/" + name
	return repository
}

// checkNamed judges each member of a named action on what a role with that resource
// would grant it on. The credential may do the task if it may do each.
func (a *account) checkNamed(found Named, policy provider.Policy, question provider.Question) (provider.Verdict,
	error) {
	resource, err := scope.ParseARN(question.Resource)
	if err != nil {
		return provider.Verdict{}, err
	}
	if found.form != nil {
		if err := found.form(resource); err != nil {
			return provider.Verdict{}, err
		}
	}
	var verdict provider.Verdict
	for _, member := range found.Members {
		one := question
		one.Action, one.Context = member.Action, maps.Clone(question.Context)
		switch {
		case member.free():
			one.Resource = "*"
		case member.kind != "":
			one.Resource = member.on(resource).String()
		}
		if member.when != nil {
			for _, keys := range member.when(resource) {
				for key, values := range keys {
					if one.Context == nil {
						one.Context = map[string][]string{}
					}
					one.Context[key] = []string{strings.TrimSuffix(fmt.Sprint(values), "*")}
				}
			}
		}
		if verdict, err = a.Check(policy, one); err != nil {
			return provider.Verdict{}, err
		}
		if !verdict.Allowed {
			verdict.Reason = fmt.Sprintf("%s needs %s on %s: %s", found.Name, one.Action, one.Resource, verdict.Reason)
			return verdict, nil
		}
	}
	verdict.Reason = fmt.Sprintf("each of the %d actions of %s is allowed", len(found.Members), found.Name)
	return verdict, nil
}
