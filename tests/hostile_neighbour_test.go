package tests

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/registry"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

const (
	allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	// everybodys is a bucket's policy that gives everything to everybody.
	everybodys = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::releases/*"}]}`
	denyAllARN = "arn:aws:iam::aws:policy/AWSDenyAll"
)

// neighbour is somebody else in the account who may do everything there, and helps the
// holder of a grant.
type neighbour struct {
	t      *testing.T
	random *rand.Rand
	admin  *iam.Client
	target provider.Provider
	decide court
	scope  scope.Scope
	// What the neighbour gives to users: a managed policy's ARN, and a group.
	managed, group string

	mu      sync.Mutex // of what follows: the engine makes calls concurrently
	id      string     // of the grant's user
	keys    []lab.Key  // that the neighbour has got of it
	decoys  []lab.Key  // of other users that were given its name
	altered bool       // the grant's own policy was changed, so that it says nothing any more
	denied  bool       // the engine has denied the user everything
	midway  func()     // is done after the engine's next call
	drawn   int

	acts, states, confirmed, unconfirmed, spared int
}

// Whatever a neighbour does to what a grant has at AWS, before or while it is revoked:
// afterwards nothing works that the holder or the neighbour got from the grant, or the
// revoke says that it could not be confirmed. At every moment in between, a session of the
// user may do no more than the grant.
func TestHostileNeighbour(t *testing.T) {
	const sequences = 200
	n := newNeighbour(t)
	servers.Cloud.Seal(true)
	defer servers.Cloud.Seal(false)
	var failed *int // the first; the next ones may tell more
	for i := range sequences {
		if i%4 == 3 {
			n.session(i)
		} else {
			n.user(i)
		}
		if t.Failed() && failed == nil {
			failed = &i
		}
		if failed != nil && i > *failed+30 {
			t.Fatalf("the first sequence that failed is %d", *failed)
		}
	}
	figures.Log(t, "a hostile neighbour in the account, %d sequences: %d acts, %d states judged while grants were revoked, %d revocations confirmed and true, %d could not be confirmed, %d users of the same name left alone",
		sequences, n.acts, n.states, n.confirmed, n.unconfirmed, n.spared)
	if n.confirmed == 0 || n.unconfirmed == 0 || n.spared == 0 {
		t.Error("the sequences show nothing")
	}
}

func newNeighbour(t *testing.T) *neighbour {
	t.Helper()
	uploading, err := scope.New(putObject, uploads)
	if err != nil {
		t.Fatal(err)
	}
	n := &neighbour{t: t, random: rand.New(rand.NewPCG(20261129, 23)), admin: servers.Cloud.Admin(), decide: newCourt(t), scope: uploading}
	at := slices.IndexFunc(registry.Types(), func(kind provider.Type) bool { return kind.Name == "aws" })
	n.target = openProvider(t, registry.Types()[at], provider.Settings{
		"region": lab.Region, "iam_endpoint": servers.Cloud.API, "sts_endpoint": servers.Cloud.API,
		"access_key": servers.Cloud.Engine.Access, "secret_key": servers.Cloud.Engine.Secret,
	})
	n.target.(provider.Keeper).Remember(emptyLedger{t})
	if n.managed, err = servers.Cloud.AddPolicy(t.Context(), "neighbours"); err != nil {
		t.Fatal(err)
	}
	n.group = "neighbours"
	n.must(n.admin.CreateGroup(t.Context(), &iam.CreateGroupInput{GroupName: aws.String(n.group)}))
	return n
}

func (n *neighbour) must(_ any, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *neighbour) mint(options provider.Settings, task string) provider.Credential {
	n.t.Helper()
	expiresAt := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	policy, err := n.target.Compile(n.scope, provider.Bounds{ExpiresAt: expiresAt, TTL: time.Hour, Options: options})
	if err != nil {
		n.t.Fatal(err)
	}
	handle, err := n.target.Prepare(n.t.Context(), provider.Grant{
		ID: ledger.NewID(expiresAt), Mount: "11111111-2222-3333-4444-555555555555", Ledger: "ledger", Role: "hostile", Task: task, ExpiresAt: expiresAt, Options: options, Policy: policy,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	minted, err := n.target.Mint(n.t.Context(), handle, policy, expiresAt)
	if err != nil {
		n.t.Fatal(err)
	}
	return minted
}

// name is what the grant's user is called by now; empty where it is gone.
func (n *neighbour) name() string {
	n.t.Helper()
	listed, err := n.admin.ListUsers(n.t.Context(), &iam.ListUsersInput{MaxItems: aws.Int32(1000)})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, user := range listed.Users {
		if aws.ToString(user.UserId) == n.id {
			return *user.UserName
		}
	}
	return ""
}

func (n *neighbour) draw(kind string) string {
	n.drawn++
	return fmt.Sprintf("%s-%d", kind, n.drawn)
}

// harmless are acts that can be done at any moment; they give the neighbour rights of his
// own at most.
func (n *neighbour) harmless() []func(name string) {
	ctx := context.Background()
	return []func(name string){
		func(name string) { n.must(nil, servers.Cloud.RenameUser(ctx, name, n.draw("renamed"), "/precision/")) },
		func(name string) { n.must(nil, servers.Cloud.RenameUser(ctx, name, name, "/elsewhere/")) },
		func(name string) {
			n.must(n.admin.UntagUser(ctx, &iam.UntagUserInput{UserName: aws.String(name), TagKeys: []string{"precision:mount", "precision:ledger", "precision:grant"}}))
		},
		func(name string) {
			n.must(n.admin.TagUser(ctx, &iam.TagUserInput{UserName: aws.String(name), Tags: []types.Tag{{Key: aws.String("precision:mount"), Value: aws.String("another")}}}))
		},
		func(name string) {
			if made, err := n.admin.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String(name)}); err == nil { // two at most
				n.keys = append(n.keys, lab.Key{Access: *made.AccessKey.AccessKeyId, Secret: *made.AccessKey.SecretAccessKey})
			}
		},
		func(name string) {
			n.must(n.admin.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String(name), PolicyName: aws.String("neighbours"), PolicyDocument: aws.String(allowAll)}))
		},
		func(name string) {
			n.must(n.admin.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: aws.String(name), PolicyArn: aws.String(n.managed)}))
		},
		func(name string) {
			n.must(n.admin.AddUserToGroup(ctx, &iam.AddUserToGroupInput{UserName: aws.String(name), GroupName: aws.String(n.group)}))
		},
		func(name string) { // another user gets its name
			n.must(nil, servers.Cloud.RenameUser(ctx, name, n.draw("moved-away"), "/"))
			n.decoy(name)
		},
	}
}

// acted are harmless ones, and those that spoil what is proved of the moments in between.
func (n *neighbour) acted(original, key string) []func(name string) {
	ctx := context.Background()
	return append(n.harmless(),
		func(name string) { servers.Cloud.SetBoundary(name, n.managed) },
		func(name string) {
			_, err := n.admin.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: aws.String(name), AccessKeyId: aws.String(key)})
			if err != nil && !errors.As(err, new(*types.NoSuchEntityException)) {
				n.t.Fatal(err)
			}
		},
		func(name string) {
			n.altered = true
			n.must(n.admin.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String(name), PolicyName: aws.String("precision"), PolicyDocument: aws.String(allowAll)}))
		},
		func(name string) { // it is deleted, and another gets its name
			n.remove(name)
			if n.taken(original) {
				return
			}
			n.decoy(original)
		},
	)
}

func (n *neighbour) taken(name string) bool {
	_, err := n.admin.GetUser(context.Background(), &iam.GetUserInput{UserName: aws.String(name)})
	return err == nil
}

// decoy creates a user of the neighbour's own.
func (n *neighbour) decoy(name string) {
	n.t.Helper()
	ctx := context.Background()
	n.must(n.admin.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String(name), Path: aws.String("/precision/")}))
	n.must(n.admin.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String(name), PolicyName: aws.String("own"), PolicyDocument: aws.String(allowAll)}))
	made, err := n.admin.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String(name)})
	n.must(nil, err)
	n.decoys = append(n.decoys, lab.Key{Access: *made.AccessKey.AccessKeyId, Secret: *made.AccessKey.SecretAccessKey})
}

// remove deletes a user with everything that it has.
func (n *neighbour) remove(name string) {
	n.t.Helper()
	ctx, user := context.Background(), aws.String(name)
	inline, err := n.admin.ListUserPolicies(ctx, &iam.ListUserPoliciesInput{UserName: user})
	n.must(nil, err)
	for _, policy := range inline.PolicyNames {
		n.must(n.admin.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: user, PolicyName: aws.String(policy)}))
	}
	attached, err := n.admin.ListAttachedUserPolicies(ctx, &iam.ListAttachedUserPoliciesInput{UserName: user})
	n.must(nil, err)
	for _, policy := range attached.AttachedPolicies {
		n.must(n.admin.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: user, PolicyArn: policy.PolicyArn}))
	}
	n.must(n.admin.DeleteUser(ctx, &iam.DeleteUserInput{UserName: user}))
}

// user plays a sequence with a user: acts, a revoke, and perhaps an act within it.
func (n *neighbour) user(i int) {
	n.t.Helper()
	minted := n.mint(nil, fmt.Sprintf("T-%d", i))
	key := keyIn(minted.Fields)
	original := minted.Handle["user_name"]
	n.id, n.keys, n.decoys, n.altered, n.denied, n.midway = minted.Handle["user_id"], nil, nil, false, false, nil
	if n.id == "" {
		n.t.Fatal("the handle does not name the user's id")
	}
	acts := n.acted(original, key.key.Access)
	for range 1 + n.random.IntN(4) {
		if name := n.name(); name != "" {
			acts[n.random.IntN(len(acts))](name)
			n.acts++
		}
	}
	if n.random.IntN(3) == 0 {
		act := n.random.IntN(len(n.harmless()))
		n.midway = func() {
			if name := n.name(); name != "" {
				n.harmless()[act](name)
				n.acts++
			}
		}
	}
	if i%10 == 8 { // the engine may not ask whose a key is
		servers.Cloud.Refuse("GetAccessKeyLastUsed")
		defer servers.Cloud.Refuse("")
	}
	servers.Cloud.Watch(n.look)
	err := n.revoke(minted.Handle, i%2 == 0)
	servers.Cloud.Watch(nil)
	n.judge(key, err)
	for _, decoy := range n.decoys {
		allowed(n.t, "another user of the same name", lab.Put(n.t.Context(), servers.Cloud.S3(decoy), "releases", "app/1.tgz"))
		n.spared++
	}
	if n.taken(original) {
		n.remove(original)
	}
}

// revoke revokes as the engine does, which tries again what has failed.
func (n *neighbour) revoke(handle provider.Handle, whole bool) (err error) {
	killer := n.target.(provider.Killer)
	for range 4 {
		left := false
		if whole {
			err = n.target.Revoke(n.t.Context(), handle)
		} else if left, err = killer.Kill(n.t.Context(), handle); err == nil && left {
			err = killer.Tidy(n.t.Context(), handle)
		}
		if err == nil || errors.As(err, new(*provider.Unconfirmed)) {
			return err
		}
	}
	return err
}

// look judges what a session of the user may do right after a call of the engine, in an
// account whose bucket gives everything to everybody.
func (n *neighbour) look(call url.Values) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := n.name()
	if name == "" {
		return
	}
	if call.Get("Action") == "PutUserPolicy" && call.Get("UserName") == name {
		n.denied = true
	}
	policies, err := servers.Cloud.Policies(n.t.Context(), "arn:aws:iam::"+lab.Account+":user/"+name)
	if err != nil {
		n.t.Error(err)
		return
	}
	boundary := ""
	if servers.Cloud.Boundary(name) == denyAllARN {
		boundary = denyAll
	}
	var requests []judge.Request
	for _, action := range []string{putObject, "s3:DeleteObject"} {
		requests = append(requests, judge.Request{
			Principal: "arn:aws:iam::" + lab.Account + ":user/" + name, Action: action, Resource: "arn:aws:s3:::releases/app/1.tgz", Account: lab.Account,
			Context:  judge.Context{"aws:CurrentTime": {time.Now().UTC().Format(time.RFC3339)}, "aws:ResourceAccount": {lab.Account}},
			Identity: slices.Collect(maps.Values(policies)), Boundary: boundary, ResourcePolicy: everybodys,
		})
	}
	decided, err := n.decide.Decide(context.Background(), requests)
	if err != nil {
		n.t.Error(err)
		return
	}
	n.states++
	if n.denied && (decided[0] != judge.ExplicitlyDenied || decided[1] != judge.ExplicitlyDenied) {
		n.t.Errorf("after %s of %s a session of the disabled user is %s to put and %s to delete; it has %v", call.Get("Action"), call.Get("UserName"), decided[0], decided[1], policies)
	}
	if !n.altered && decided[1] != judge.ExplicitlyDenied {
		n.t.Errorf("after %s a session of the user is %s to delete", call.Get("Action"), decided[1])
	}
	if midway := n.midway; midway != nil {
		n.midway = nil
		midway()
	}
}

// judge holds a revoke to what it says.
func (n *neighbour) judge(key credential, err error) {
	n.t.Helper()
	if errors.As(err, new(*provider.Unconfirmed)) {
		n.unconfirmed++
		if name := n.name(); name != "" {
			n.remove(name)
		}
		return
	}
	if err != nil {
		n.t.Errorf("revoking: %v", err)
		return
	}
	n.confirmed++
	denied(n.t, "the holder's key", key.inCloud(n.t.Context()))
	for _, got := range n.keys {
		denied(n.t, "a key of the neighbour's", lab.Put(n.t.Context(), servers.Cloud.S3(got), "releases", "app/1.tgz"))
	}
	if name := n.name(); name != "" {
		n.t.Errorf("the user is left, as %q", name)
	}
}

// session plays a sequence with a session of a base role.
func (n *neighbour) session(i int) {
	n.t.Helper()
	ctx, base := context.Background(), lab.RoleARN(lab.BaseRole2)
	role := aws.String(lab.BaseRole2)
	minted := n.mint(provider.Settings{"credential_type": "assumed_role", "role_arn": base}, fmt.Sprintf("T-%d", i))
	acts := []func(){
		func() { // what is denied is edited
			for name := range n.revocations() {
				n.must(n.admin.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: role, PolicyName: aws.String(name), PolicyDocument: aws.String(allowAll)}))
			}
		},
		func() {
			for name := range n.revocations() {
				n.must(n.admin.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: role, PolicyName: aws.String(name)}))
			}
		},
		func() { n.must(nil, servers.Cloud.RecreateRole(ctx, lab.BaseRole2)) },
		func() {
			n.must(n.admin.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: role, PolicyName: aws.String("neighbours"), PolicyDocument: aws.String(allowAll)}))
		},
	}
	act := func() { acts[n.random.IntN(len(acts))](); n.acts++ }
	act()
	if err := n.target.Revoke(n.t.Context(), minted.Handle); err != nil {
		n.t.Errorf("revoking a session: %v", err)
		return
	}
	if n.random.IntN(2) == 0 {
		act()
	}
	// What others have changed is put right within a minute.
	if err := n.target.(provider.Keeper).Keep(n.t.Context(), base); err != nil {
		n.t.Error(err)
	}
	n.states++
	n.confirmed++
	if got := n.decide.verdicts(time.Now(), keyIn(minted.Fields).key.Access)[0]; got != judge.ExplicitlyDenied {
		n.t.Errorf("the revoked session is %s", got)
	}
}

// revocations are the engine's policies of the base role.
func (n *neighbour) revocations() map[string]string {
	n.t.Helper()
	policies, err := servers.Cloud.Policies(context.Background(), lab.RoleARN(lab.BaseRole2))
	if err != nil {
		n.t.Fatal(err)
	}
	maps.DeleteFunc(policies, func(name, _ string) bool { return !strings.HasPrefix(name, "precision-revoked-") })
	return policies
}
