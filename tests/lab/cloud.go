package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// Cloud is moto, a stand-in for AWS's APIs, with its checks of signatures and
// policies switched on: two buckets, and a user for the engine.
type Cloud struct {
	Endpoint string // moto itself
	API      string // moto's IAM and STS as the engine is to reach them, see front
	Engine   Key    // the user that the engine is configured with

	auditor Key // may do everything: for looking at what the engine has done

	mu       sync.Mutex
	calls    []url.Values    // what came through, in order
	refused  string          // the action that is refused
	together map[string]bool // the actions that wait for one another, and whether each has come
	met      chan struct{}   // closed when all of them have
	failing  map[string]failure

	watch      func(call url.Values)
	sealing    bool              // users' boundaries may be set
	boundaries map[string]string // by user
	renamed    map[string]string // users' names, by those that they had before
	deleted    map[string]bool   // keys of users that were renamed, which moto can't delete

	sessions  map[string]Session // by access key
	shortened map[string]string  // users' policies as they were put, by user and policy
}

// Account is the number of moto's one account.
const Account = "123456789012"

// enginePolicy is the least that the engine needs of IAM, with what finding
// orphans takes. On AWS the resource
// would be arn:aws:iam::<account>:user/precision/*; moto judges IAM's own
// actions without one.
const enginePolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"*","Action":[
 "iam:CreateUser","iam:TagUser","iam:PutUserPolicy","iam:CreateAccessKey",
 "iam:DeleteAccessKey","iam:DeleteUserPolicy","iam:DeleteUser","iam:ListAccessKeys",
 "iam:GetAccessKeyLastUsed","iam:ListUsers","iam:GetUser",
 "iam:ListUserPolicies","iam:ListAttachedUserPolicies","iam:DetachUserPolicy","iam:ListGroupsForUser","iam:RemoveUserFromGroup",
 "iam:DeleteLoginProfile","iam:ListMFADevices","iam:DeactivateMFADevice","iam:DeleteVirtualMFADevice",
 "iam:ListSigningCertificates","iam:DeleteSigningCertificate","iam:ListSSHPublicKeys","iam:DeleteSSHPublicKey",
 "iam:ListServiceSpecificCredentials","iam:DeleteServiceSpecificCredential"]}]}`

const auditorPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`

func (l *Lab) startCloud(ctx context.Context) error {
	binary, err := tool("moto_server")
	if err != nil {
		return err
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	server, err := l.run("moto", binary, nil, "-H", "127.0.0.1", "-p", fmt.Sprint(ports[0]))
	if err != nil {
		return err
	}
	cloud := &Cloud{Endpoint: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}
	if err := server.ready(ctx, cloud.Endpoint+"/moto-api/"); err != nil {
		return err
	}
	l.Cloud = cloud
	if err := cloud.setUp(ctx); err != nil {
		return fmt.Errorf("setting up moto: %w", err)
	}
	target, err := url.Parse(cloud.Endpoint)
	if err != nil {
		return err
	}
	front := httptest.NewServer(cloud.front(target))
	l.closers = append(l.closers, front.Close)
	cloud.API = front.URL
	return nil
}

func (c *Cloud) setUp(ctx context.Context) error {
	open := Key{Access: "before", Secret: "checks"} // nothing is checked yet
	for name, user := range map[string]struct {
		policy string
		key    *Key
	}{
		"precision-engine": {enginePolicy, &c.Engine},
		"auditor":          {auditorPolicy, &c.auditor},
	} {
		var err error
		if *user.key, err = c.makeUser(ctx, c.iam(open), name, user.policy); err != nil {
			return err
		}
	}
	if err := makeBuckets(ctx, c.S3(open)); err != nil {
		return err
	}
	if err := c.setUpSessions(ctx, c.iam(open)); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Endpoint+"/moto-api/reset-auth", strings.NewReader("0"))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

func (c *Cloud) makeUser(ctx context.Context, client *iam.Client, name, policy string) (Key, error) {
	if _, err := client.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String(name)}); err != nil {
		return Key{}, err
	}
	if _, err := client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String(name), PolicyName: aws.String("rights"), PolicyDocument: aws.String(policy)}); err != nil {
		return Key{}, err
	}
	made, err := client.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String(name)})
	if err != nil {
		return Key{}, err
	}
	return Key{Access: *made.AccessKey.AccessKeyId, Secret: *made.AccessKey.SecretAccessKey}, nil
}

func (c *Cloud) iam(key Key) *iam.Client {
	return iam.New(iam.Options{
		Region:       Region,
		BaseEndpoint: aws.String(c.Endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider(key.Access, key.Secret, ""),
	})
}

// User is an IAM user that the engine has made.
type User struct {
	Name, Path string
	Tags       map[string]string
}

// Users lists the users that the engine has made.
func (c *Cloud) Users(ctx context.Context) ([]User, error) {
	client := c.iam(c.auditor)
	listed, err := client.ListUsers(ctx, &iam.ListUsersInput{PathPrefix: aws.String("/precision/"), MaxItems: aws.Int32(1000)})
	if err != nil {
		return nil, err
	}
	var users []User
	for _, entry := range listed.Users {
		found, err := client.GetUser(ctx, &iam.GetUserInput{UserName: entry.UserName})
		if gone := new(types.NoSuchEntityException); errors.As(err, &gone) {
			continue // deleted since it was listed
		}
		if err != nil {
			return nil, err
		}
		user := User{Name: *entry.UserName, Path: *entry.Path, Tags: map[string]string{}}
		for _, tag := range found.User.Tags {
			user.Tags[*tag.Key] = *tag.Value
		}
		users = append(users, user)
	}
	return users, nil
}

// AddUser makes a user with an access key, as a stranger with rights over IAM would.
func (c *Cloud) AddUser(ctx context.Context, user User) (Key, error) {
	client := c.iam(c.auditor)
	input := &iam.CreateUserInput{UserName: aws.String(user.Name), Path: aws.String(user.Path)}
	for key, value := range user.Tags {
		input.Tags = append(input.Tags, types.Tag{Key: aws.String(key), Value: aws.String(value)})
	}
	if _, err := client.CreateUser(ctx, input); err != nil {
		return Key{}, err
	}
	made, err := client.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String(user.Name)})
	if err != nil {
		return Key{}, err
	}
	return Key{Access: *made.AccessKey.AccessKeyId, Secret: *made.AccessKey.SecretAccessKey}, nil
}

// AddPolicy makes a managed policy that allows everything, and returns its ARN.
func (c *Cloud) AddPolicy(ctx context.Context, name string) (string, error) {
	made, err := c.iam(c.auditor).CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String(name), PolicyDocument: aws.String(auditorPolicy)})
	if err != nil {
		return "", err
	}
	return *made.Policy.Arn, nil
}

// AddKey gives a user a further access key, as a stranger with rights over IAM would.
func (c *Cloud) AddKey(ctx context.Context, user string) error {
	_, err := c.iam(c.auditor).CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String(user)})
	return err
}

// Calls are the forms of the calls that the engine has made for a grant's user.
func (c *Cloud) Calls(grant string) []url.Values {
	c.mu.Lock()
	defer c.mu.Unlock()
	var own []url.Values
	for _, call := range c.calls {
		if strings.Contains(call.Get("UserName"), grant) {
			own = append(own, call)
		}
	}
	return own
}

// Refuse lets an action fail from now on, as a missing right would; the empty
// action lets all pass.
func (c *Cloud) Refuse(action string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = action
}

// Together holds calls of these actions back until each of them has come, and
// returns whether they have. One that has to wait too long passes.
func (c *Cloud) Together(actions ...string) (met func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.together, c.met = map[string]bool{}, make(chan struct{})
	for _, action := range actions {
		c.together[action] = false
	}
	all := c.met
	return func() bool {
		select {
		case <-all:
			return true
		default:
			return false
		}
	}
}

// note keeps a call, and says whether it is refused and what it has to wait for.
func (c *Cloud) note(form url.Values) (refused bool, wait <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, form)
	action := form.Get("Action")
	if came, waits := c.together[action]; waits {
		wait = c.met
		if c.together[action] = true; !came && !slices.Contains(slices.Collect(maps.Values(c.together)), false) {
			close(c.met)
		}
	}
	return c.refused != "" && c.refused == action, wait
}

// refusal is how IAM refuses.
const refusal = `<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>refused</Message></Error></ErrorResponse>`

// front stands between the engine and moto. It notes the calls, shortens the
// documents of PutUserPolicy to what moto can read, and writes moto's refusals
// as AWS does, so that the SDK can read them.
func (c *Cloud) front(target *url.URL) http.Handler {
	const longest = 10 * time.Second // that a call is held back
	signer := v4.NewSigner()
	pass := &httputil.ReverseProxy{Rewrite: func(request *httputil.ProxyRequest) {
		request.SetURL(target)
		request.Out.Host = request.In.Host // the signature is over the name that the engine called
		body, err := io.ReadAll(request.In.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if form.Get("Action") == "PutUserPolicy" {
			c.keepWhole(form.Get("UserName"), form.Get("PolicyName"), form.Get("PolicyDocument"))
			shortened := maps.Clone(form)
			shortened.Set("PolicyDocument", asMotoReads(form.Get("PolicyDocument")))
			body = []byte(shortened.Encode())
			sum := sha256.Sum256(body)
			request.Out.Header.Del("Authorization")
			request.Out.Header.Del("X-Amz-Security-Token")
			request.Out.ContentLength = int64(len(body))
			if err := signer.SignHTTP(request.In.Context(), aws.Credentials{AccessKeyID: c.Engine.Access, SecretAccessKey: c.Engine.Secret}, request.Out, hex.EncodeToString(sum[:]), "iam", Region, time.Now()); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		if form.Get("Action") == "AssumeRoleWithWebIdentity" {
			// Moto asks for a signature of what nobody can sign.
			if err := c.signForMoto(request.Out, body); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		request.Out.Body = io.NopCloser(bytes.NewReader(body))
		request.Out.ContentLength = int64(len(body))
	}, ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
		panic(http.ErrAbortHandler) // as if there were no proxy
	}, ModifyResponse: func(answer *http.Response) error {
		if answer.StatusCode < http.StatusBadRequest {
			return errors.Join(c.noteSession(answer), c.showWhole(answer), c.showOwner(answer), c.show(answer))
		}
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("<Errors>"), nil), []byte("</Errors>"), nil)
		setBody(answer, text)
		return nil
	}}
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		refused, wait := c.note(form)
		if code := c.failure(form); code != "" {
			writer.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(writer, failed, code)
			return
		}
		if refused {
			writer.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(writer, refusal)
			return
		}
		if form.Get("Action") == "PutUserPermissionsBoundary" {
			c.putBoundary(writer, form)
			return
		}
		if c.answersOfRenamed(request.Context(), writer, form) {
			return
		}
		if wait != nil {
			select {
			case <-wait:
			case <-time.After(longest):
			}
		}
		request.Body = io.NopCloser(bytes.NewReader(body))
		pass.ServeHTTP(writer, request.WithContext(context.WithValue(request.Context(), formOf{}, form)))
	})
}

// asMotoReads leaves out of a policy the denials that moto misreads: it does
// not look at conditions, so a denial after a date would deny always, and it
// takes a denial of all other resources for a permission. Of other services than
// S3 it judges actions only, as if they were about everything. What is left, moto
// enforces; that the whole document is right is proved elsewhere.
func asMotoReads(document string) string {
	var policy struct {
		Version   string
		Statement []map[string]any
	}
	if err := json.Unmarshal([]byte(document), &policy); err != nil {
		return document
	}
	var kept []map[string]any
	for _, statement := range policy.Statement {
		_, conditional := statement["Condition"]
		_, otherResources := statement["NotResource"]
		if statement["Effect"] == "Deny" && (conditional || otherResources) {
			continue
		}
		if statement["Effect"] == "Allow" && !strings.HasPrefix(firstOf(statement["Action"]), "s3:") {
			statement["Resource"] = "*"
		}
		kept = append(kept, statement)
	}
	if len(kept) == 0 { // moto wants one
		kept = []map[string]any{{"Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"}}
	}
	policy.Statement = kept
	text, err := json.Marshal(policy)
	if err != nil {
		return document
	}
	return string(text)
}

// firstOf is the first of an element's values, which may be one text.
func firstOf(element any) string {
	if list, several := element.([]any); several && len(list) > 0 {
		element = list[0]
	}
	text, _ := element.(string)
	return text
}
