package tests

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// awscli is the AWS command line with a minted credential, in a folder of its own.
func awscli(t *testing.T, endpoint string, key lab.Key) (*lab.AWSCLI, string) {
	t.Helper()
	folder := t.TempDir()
	made, err := lab.NewAWSCLI(endpoint, folder, key)
	if err != nil {
		t.Fatal(err)
	}
	return made, folder
}

// runs fails the test where a command of the AWS command line does.
func runs(t *testing.T, cli *lab.AWSCLI, arguments ...string) string {
	t.Helper()
	output, err := cli.Run(t.Context(), arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// isRefusal says whether a server has said no, and not something else.
func isRefusal(err error) bool {
	if err == nil {
		return false
	}
	for _, word := range []string{"AccessDenied", "Access Denied", "Forbidden", "InvalidAccessKeyId", "InvalidTokenId", "ExpiredToken",
		"not authorized"} {
		if strings.Contains(err.Error(), word) {
			return true
		}
	}
	return false
}

// isRefused fails the test where a command succeeds, or fails for another reason.
func isRefused(t *testing.T, cli *lab.AWSCLI, arguments ...string) {
	t.Helper()
	output, err := cli.Run(t.Context(), arguments...)
	if !isRefusal(err) {
		t.Errorf("aws %s is not refused: %s %v", strings.Join(arguments, " "), output, err)
	}
}

// keysIn lists a bucket of the store, as its administrator.
func keysIn(t *testing.T, client *s3.Client, bucket string) map[string]bool {
	t.Helper()
	keys := map[string]bool{}
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: aws.String(bucket)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range page.Contents {
			keys[*object.Key] = true
		}
	}
	return keys
}

// files fills a folder with small files, some of them deeper.
func files(t *testing.T, folder string, count int) {
	t.Helper()
	for i := range count {
		path := filepath.Join(folder, fmt.Sprintf("d%d", i%7), fmt.Sprintf("file %03d.txt", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, fmt.Appendf(nil, "content of %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The AWS command line syncs a folder with a bucket both ways, each with a credential that
// can do that and nothing else.
func TestAWSCLISyncsWithAStore(t *testing.T) {
	const count = 200
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName})
	root := servers.Store.S3(servers.Store.Root)
	for _, bucket := range []string{"synced", "beside"} {
		if _, err := root.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucket)}); err != nil {
			t.Fatal(err)
		}
	}
	allowed(t, "an object beside", lab.Put(t.Context(), root, "beside", "secret"))
	m.write("config/store", m.isolatingConfig(servers.Store.Isolating))
	for _, name := range []string{"sync-up", "sync-down"} {
		m.write("roles/"+name, map[string]any{"target": "store", "action": "s3:" + name,
			"resource": "arn:aws:s3:::synced/*", "ttl": "30m"})
	}

	minted := m.mint("sync-up/CI-1")
	up, folder := awscli(t, servers.Store.Endpoint, minted.key)
	files(t, filepath.Join(folder, "out"), count)
	runs(t, up, "s3", "sync", "out", "s3://synced/app")
	if got := keysIn(t, root, "synced"); len(got) != count || !got["app/d0/file 000.txt"] {
		t.Errorf("%d objects were written, want %d", len(got), count)
	}
	if again := runs(t, up, "s3", "sync", "out", "s3://synced/app"); strings.TrimSpace(again) != "" {
		t.Errorf("a second sync does more: %s", again)
	}
	for _, arguments := range [][]string{
		{"s3", "cp", "s3://synced/app/d0/file 000.txt", "stolen"}, {"s3", "rm", "s3://synced/app/d0/file 000.txt"},
		{"s3", "ls", "s3://beside/"}, {"s3", "cp", "s3://beside/secret", "stolen"}, {"s3", "cp", "out/d0/file 000.txt",
			"s3://beside/x"},
		{"s3api", "get-bucket-location", "--bucket", "synced"}, {"s3api", "list-multipart-uploads", "--bucket", "synced"},
	} {
		isRefused(t, up, arguments...)
	}

	reading := m.mint("sync-down/CI-2")
	down, target := awscli(t, servers.Store.Endpoint, reading.key)
	runs(t, down, "s3", "sync", "s3://synced/app", "in")
	read := 0
	for i := range count {
		path := filepath.Join(fmt.Sprintf("d%d", i%7), fmt.Sprintf("file %03d.txt", i))
		if got, err := os.ReadFile(filepath.Join(target, "in", path)); err == nil &&
			string(got) == fmt.Sprintf("content of %d", i) {
			read++
		}
	}
	if read != count {
		t.Errorf("%d files came back, want %d", read, count)
	}
	for _, arguments := range [][]string{
		{"s3", "cp", "in/d0/file 000.txt", "s3://synced/app/new"}, {"s3", "rm", "s3://synced/app/d0/file 000.txt"},
		{"s3", "ls", "s3://beside/"}, {"s3", "cp", "s3://beside/secret", "stolen"},
	} {
		isRefused(t, down, arguments...)
	}
	for _, each := range []credential{minted, reading} {
		if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(each.LeaseID)); err != nil {
			t.Fatal(err)
		}
	}
	isRefused(t, up, "s3", "sync", "out", "s3://synced/app")
	isRefused(t, down, "s3", "sync", "s3://synced/app", "in")
	if got := keysIn(t, root, "beside"); len(got) != 1 {
		t.Errorf("the bucket beside holds %v", got)
	}
	figures.Log(t, "aws s3 sync: %d files up, %d down, 13 requests beside the grants refused", count, read)
}

// A large file goes up in parts, and parts that were left can be found and removed, below
// the role's prefix only.
func TestAWSCLIUploadsInPartsToAStore(t *testing.T) {
	const size = 64 << 20
	m := newMount(t)
	m.write("roles/parts", map[string]any{"target": "store", "action": "s3:multipart-upload",
		"resource": "arn:aws:s3:::releases/app/*", "ttl": "30m"})
	minted := m.mint("parts/CI-1")
	cli, folder := awscli(t, servers.Store.Endpoint, minted.key)
	content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	if err := os.WriteFile(filepath.Join(folder, "large"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	runs(t, cli, "s3", "cp", "large", "s3://releases/app/large", "--only-show-errors")
	root := servers.Store.S3(servers.Store.Root)
	got, err := root.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("releases"),
		Key: aws.String("app/large")})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, got.Body); err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(content)
	if !bytes.Equal(sum.Sum(nil), want[:]) || !strings.Contains(*got.ETag, "-") {
		t.Errorf("what arrived is another file, or came in one part (%s)", *got.ETag)
	}

	var begun struct {
		UploadID string `json:"UploadId"`
	}
	if err := json.Unmarshal([]byte(runs(t, cli, "s3api", "create-multipart-upload", "--bucket", "releases", "--key",
		"app/left")), &begun); err != nil {
		t.Fatal(err)
	}
	upload := []string{"--bucket", "releases", "--key", "app/left", "--upload-id", begun.UploadID}
	runs(t, cli, append([]string{"s3api", "list-parts"}, upload...)...)
	runs(t, cli, append([]string{"s3api", "abort-multipart-upload"}, upload...)...)
	for _, arguments := range [][]string{
		{"s3", "cp", "large", "s3://releases/other/large", "--only-show-errors"}, {"s3", "cp", "large",
			"s3://private/app/large", "--only-show-errors"},
		{"s3", "ls", "s3://releases/app/"}, {"s3", "cp", "s3://releases/app/large", "stolen"}, {"s3", "rm",
			"s3://releases/app/large"},
		{"s3api", "create-multipart-upload", "--bucket", "releases", "--key", "application"},
	} {
		isRefused(t, cli, arguments...)
	}
	figures.Log(t, "aws s3 cp of %d MiB in parts: arrived whole, 6 requests beside the grant refused", size>>20)
}

// MinIO can't hold a listing to a prefix, since it takes a header for the query. The engine
// refuses a sync of a prefix there.
func TestSyncOfAPrefixIsRefusedOnAStore(t *testing.T) {
	m := newMount(t)
	_, err := m.Logical().WriteWithContext(t.Context(), m.path+"/roles/up", map[string]any{"target": "store",
		"action": "s3:sync-up", "resource": "arn:aws:s3:::releases/app/*"})
	if err == nil || !strings.Contains(err.Error(), "arn:aws:s3:::releases/*") {
		t.Errorf("a sync of a prefix: %v", err)
	}
	answer := m.write("roles/up", map[string]any{"target": "store", "action": "s3:sync-up",
		"resource": "arn:aws:s3:::releases/*", "ttl": "5m"})
	if answer != nil && strings.Contains(strings.Join(answer.Warnings, " "), "lists every key") {
		t.Errorf("a sync of a whole bucket warns: %v", answer.Warnings)
	}
	secret, err := m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/check/up",
		map[string][]string{"action": {"s3:sync-up"}, "resource": {"arn:aws:s3:::releases/*"}})
	if err != nil || secret.Data["allowed"] != true {
		t.Errorf("a check of the role's own action: %v, %v", secret, err)
	}
}

// The catalogue lists named actions beside those of AWS, and says what each is made of.
func TestCatalogListsNamedActions(t *testing.T) {
	m := newMount(t)
	listed, err := m.Logical().ListWithContext(t.Context(), m.path+"/catalog/s3")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []any{"sync-up", "sync-down", "multipart-upload", "PutObject"} {
		if !slices.Contains(listed.Data["keys"].([]any), name) {
			t.Errorf("catalog/s3 does not list %s", name)
		}
	}
	read := m.read("catalog/s3/sync-up").Data
	members, _ := read["members"].([]any)
	if len(members) != 3 || read["action"] != "s3:sync-up" || !strings.Contains(fmt.Sprint(members), "s3:ListBucket") {
		t.Errorf("catalog/s3/sync-up is %v", read)
	}
	if got := fmt.Sprint(m.read("catalog/ecr").Data["named_actions"]); got != "[ecr:pull ecr:push]" {
		t.Errorf("catalog/ecr has the named actions %s", got)
	}
}

// tasksOnCloud is the AWS command line at the stand-in for AWS, with a credential for each
// named action in turn.
type tasksOnCloud struct {
	*mount
	admin              *lab.AWSCLI
	commands, refusals int
}

// The AWS command line can do each task with its named action, and nothing else of the
// service. Moto judges the actions of a user's policy.
func TestAWSCLIWithNamedActions(t *testing.T) {
	admin, _ := awscli(t, servers.Cloud.Endpoint, servers.Cloud.Auditor())
	c := &tasksOnCloud{mount: newMount(t), admin: admin}
	c.queue()
	c.stream()
	c.table()
	c.images()
	c.logs()
	figures.Log(t, "aws with named actions: %d commands let through, %d of the same services refused", c.commands,
		c.refusals)
}

// words are the arguments of a command without spaces in them.
func words(line string, further ...string) []string { return append(strings.Fields(line), further...) }

// arn is the ARN of a resource in the stand-in's account.
func (c *tasksOnCloud) arn(service, resource string) string {
	return "arn:aws:" + service + ":" + lab.Region + ":" + lab.Account + ":" + resource
}

// as mints a credential for the action on the resource, does the task with it, and tries
// what must be refused.
func (c *tasksOnCloud) as(action, resource string, do func(cli *lab.AWSCLI), refusedToo ...[]string) {
	c.t.Helper()
	role := strings.ReplaceAll(action, ":", "-")
	c.write("roles/"+role, map[string]any{"target": "prod", "action": action, "resource": resource, "ttl": "30m",
		"allow_escalation": action == "ecr:push"})
	minted := c.mint(role + "/CI-1")
	cli, _ := awscli(c.t, servers.Cloud.Endpoint, minted.key)
	do(cli)
	for _, arguments := range refusedToo {
		isRefused(c.t, cli, arguments...)
		c.refusals++
	}
	if err := c.Sys().RevokeWithOptionsWithContext(c.t.Context(), revokeNow(minted.LeaseID)); err != nil {
		c.t.Fatal(err)
	}
}

// say runs a command that has to succeed, and returns what it prints.
func (c *tasksOnCloud) say(cli *lab.AWSCLI, arguments ...string) string {
	c.t.Helper()
	c.commands++
	return strings.TrimSpace(runs(c.t, cli, arguments...))
}

// passes is say for what moto judges and can't do: it must not be refused.
func (c *tasksOnCloud) passes(cli *lab.AWSCLI, arguments ...string) {
	c.t.Helper()
	c.commands++
	if _, err := cli.Run(c.t.Context(), arguments...); isRefusal(err) {
		c.t.Errorf("aws %s is refused: %v", strings.Join(arguments, " "), err)
	}
}

func (c *tasksOnCloud) queue() {
	c.t.Helper()
	url := strings.TrimSpace(runs(c.t, c.admin,
		words("sqs create-queue --queue-name jobs --query QueueUrl --output text")...))
	runs(c.t, c.admin, words("sqs send-message --message-body one --queue-url", url)...)
	c.as("sqs:consume", c.arn("sqs", "jobs"), func(cli *lab.AWSCLI) {
		url := c.say(cli, words("sqs get-queue-url --queue-name jobs --query QueueUrl --output text")...)
		c.say(cli, words("sqs get-queue-attributes --attribute-names VisibilityTimeout --queue-url", url)...)
		handle := c.say(cli, words("sqs receive-message --query Messages[0].ReceiptHandle --output text --queue-url", url)...)
		c.say(cli, words("sqs change-message-visibility --visibility-timeout 60 --queue-url", url, "--receipt-handle",
			handle)...)
		c.say(cli, words("sqs delete-message --queue-url", url, "--receipt-handle", handle)...)
	},
		words("sqs send-message --message-body x --queue-url", url), words("sqs purge-queue --queue-url", url),
		words("sqs set-queue-attributes --attributes VisibilityTimeout=1 --queue-url", url),
		words("sqs delete-queue --queue-url", url), words("sqs list-queues"))
}

func (c *tasksOnCloud) stream() {
	c.t.Helper()
	runs(c.t, c.admin, words("kinesis create-stream --stream-name clicks --shard-count 1")...)
	runs(c.t, c.admin, words("kinesis put-record --stream-name clicks --partition-key a --data b25l")...)
	c.as("kinesis:consume", c.arn("kinesis", "stream/clicks"), func(cli *lab.AWSCLI) {
		c.say(cli, words("kinesis describe-stream-summary --stream-name clicks")...)
		c.say(cli, words("kinesis describe-stream --stream-name clicks")...)
		shard := c.say(cli, words("kinesis list-shards --stream-name clicks --query Shards[0].ShardId --output text")...)
		iterator := c.say(cli, words("kinesis get-shard-iterator --stream-name clicks --shard-iterator-type TRIM_HORIZON"+
			" --query ShardIterator --output text --shard-id", shard)...)
		if got := c.say(cli, words("kinesis get-records --shard-iterator", iterator)...); !strings.Contains(got, "b25l") {
			c.t.Errorf("the record was not read: %s", got)
		}
	},
		words("kinesis put-record --stream-name clicks --partition-key a --data eA=="),
		words("kinesis delete-stream --stream-name clicks"), words("kinesis list-streams"))
}

func (c *tasksOnCloud) table() {
	c.t.Helper()
	runs(c.t, c.admin, words("dynamodb create-table --table-name orders --billing-mode PAY_PER_REQUEST"+
		" --attribute-definitions AttributeName=id,AttributeType=S --key-schema AttributeName=id,KeyType=HASH")...)
	const key = `{"id":{"S":"1"}}`
	table := c.arn("dynamodb", "table/orders")
	get := words("dynamodb get-item --table-name orders --key", key)
	put := words("dynamodb put-item --table-name orders --item", `{"id":{"S":"1"},"n":{"N":"1"}}`)
	scan := words("dynamodb scan --table-name orders")
	drop := words("dynamodb delete-table --table-name orders")
	c.as("dynamodb:items-write", table, func(cli *lab.AWSCLI) {
		c.say(cli, put...)
		c.say(cli, words("dynamodb update-item --table-name orders --key", key, "--update-expression", "SET n = :n",
			"--expression-attribute-values", `{":n":{"N":"2"}}`)...)
		c.say(cli, words("dynamodb batch-write-item --request-items",
			`{"orders":[{"PutRequest":{"Item":{"id":{"S":"2"}}}}]}`)...)
		c.say(cli, words("dynamodb delete-item --table-name orders --key", `{"id":{"S":"2"}}`)...)
	}, get, scan, drop)
	c.as("dynamodb:items-read", table, func(cli *lab.AWSCLI) {
		c.say(cli, get...)
		c.say(cli, scan...)
		c.say(cli, words("dynamodb query --table-name orders --key-condition-expression", "id = :i",
			"--expression-attribute-values", `{":i":{"S":"1"}}`)...)
		c.say(cli, words("dynamodb batch-get-item --request-items", `{"orders":{"Keys":[`+key+`]}}`)...)
	}, put, drop, words("dynamodb delete-item --table-name orders --key", key), words("dynamodb describe-table "+
		"--table-name orders"))
	c.as("dynamodb:items", table, func(cli *lab.AWSCLI) {
		c.say(cli, put...)
		c.say(cli, get...)
	}, drop, words("dynamodb list-tables"))
}

func (c *tasksOnCloud) images() {
	c.t.Helper()
	runs(c.t, c.admin, words("ecr create-repository --repository-name app")...)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("layer")))
	const upload = " --upload-id 00000000-0000-0000-0000-000000000000"
	of := func(operation string, further ...string) []string {
		return words("ecr "+operation+" --repository-name app", further...)
	}
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","layers":[],"config":` +
		`{"mediaType":"application/vnd.docker.container.image.v1+json","size":5,"digest":"` + digest + `"}}`
	layers := [][]string{
		of("batch-check-layer-availability", "--layer-digests", digest),
		of("initiate-layer-upload"),
		words("ecr upload-layer-part --part-first-byte 0 --part-last-byte 4 --layer-part-blob bGF5ZXI= " +
			"--repository-name app" + upload),
		words("ecr complete-layer-upload --repository-name app --layer-digests " + digest + upload),
	}
	download := of("get-download-url-for-layer", "--layer-digest", digest)
	pull := of("batch-get-image", "--image-ids", "imageTag=v1")
	put := of("put-image", "--image-tag", "v1", "--image-manifest", manifest)
	never := [][]string{of("describe-images"), of("batch-delete-image", "--image-ids", "imageTag=v1"),
		of("delete-repository"),
		of("set-repository-policy", "--policy-text", "{}")}
	repository := c.arn("ecr", "repository/app")
	c.as("ecr:push", repository, func(cli *lab.AWSCLI) {
		c.say(cli, "ecr", "get-authorization-token")
		for _, layer := range layers {
			c.passes(cli, layer...)
		}
		c.say(cli, put...)
		c.say(cli, pull...)
	}, append(never, download)...)
	c.as("ecr:pull", repository, func(cli *lab.AWSCLI) {
		c.say(cli, "ecr", "get-authorization-token")
		c.say(cli, pull...)
		c.passes(cli, download...)
	}, append(never, layers[1], layers[2], layers[3], put)...)
}

func (c *tasksOnCloud) logs() {
	c.t.Helper()
	runs(c.t, c.admin, words("logs create-log-group --log-group-name /ci/app")...)
	const stream = " --log-group-name /ci/app --log-stream-name one"
	c.as("logs:write", c.arn("logs", "log-group:/ci/app"), func(cli *lab.AWSCLI) {
		c.say(cli, words("logs create-log-stream"+stream)...)
		c.say(cli, words("logs put-log-events"+stream+" --log-events", fmt.Sprintf("timestamp=%d,message=one",
			time.Now().UnixMilli()))...)
	}, words("logs get-log-events"+stream), words("logs delete-log-stream"+stream), words("logs describe-log-groups"))
}
