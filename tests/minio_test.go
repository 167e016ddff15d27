package tests

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

func TestStoreSessionIsExact(t *testing.T) {
	m := newMount(t)
	minted := m.mint(onStore + "/JIRA-123")

	if minted.Renewable {
		t.Error("the lease is renewable")
	}
	if _, err := m.Sys().RenewWithContext(t.Context(), minted.LeaseID, 3600); err == nil {
		t.Error("the lease was renewed")
	}
	if left := time.Until(minted.expiresAt); left < 9*time.Minute || left > 10*time.Minute+time.Second {
		t.Errorf("expires_at is %s away, want 10m", left)
	}
	// As long as the credential, rounded down; reading the answer takes a moment.
	if lead := time.Until(minted.expiresAt) - time.Duration(minted.LeaseDuration)*time.Second; minted.LeaseDuration > 600 || lead > time.Second || lead < -5*time.Second {
		t.Errorf("lease of %d s for a credential that lives %s longer", minted.LeaseDuration, lead)
	}
	want := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:PutObject","Resource":"` + uploads +
		`","Condition":{"DateLessThan":{"aws:CurrentTime":"` + minted.Data["expires_at"].(string) +
		`"},"ForAllValues:StringEquals":{"aws:CurrentTime":"${aws:CurrentTime}"}}},{"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::*","Condition":{"Null":{"s3:RequestObjectTagKeys":"false"}}}]}`
	if minted.Data["policy"] != want {
		t.Errorf("policy %s, want %s", minted.Data["policy"], want)
	}
	for field, want := range map[string]string{"action": putObject, "resource": uploads, "task": "JIRA-123"} {
		if minted.Data[field] != want {
			t.Errorf("%s is %q, want %q", field, minted.Data[field], want)
		}
	}

	ctx, client, root := t.Context(), servers.Store.S3(minted.key), servers.Store.S3(servers.Store.Root)
	for bucket, object := range map[string]string{"releases": "app/there", "private": "app/there"} {
		if err := lab.Put(ctx, root, bucket, object); err != nil {
			t.Fatal(err)
		}
	}
	allowed(t, "the action on the resource", lab.Put(ctx, client, "releases", "app/1.tgz"))
	allowed(t, "the action deeper in the resource", lab.Put(ctx, client, "releases", "app/2026/11/1.tgz"))
	denied(t, "another action", lab.Get(ctx, client, "releases", "app/there"))
	denied(t, "deleting", lab.Delete(ctx, client, "releases", "app/there"))
	denied(t, "listing", lab.List(ctx, client, "releases"))
	denied(t, "another prefix", lab.Put(ctx, client, "releases", "other/1.tgz"))
	denied(t, "a prefix that starts alike", lab.Put(ctx, client, "releases", "application/1.tgz"))
	denied(t, "the prefix as an object", lab.Put(ctx, client, "releases", "app"))
	denied(t, "another bucket", lab.Put(ctx, client, "private", "app/1.tgz"))
	_, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("new")})
	denied(t, "making a bucket", err)

	session := sts.New(sts.Options{Region: lab.Region, BaseEndpoint: aws.String(servers.Store.Endpoint), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(minted.key.Access, minted.key.Secret, minted.key.Token)})
	_, err = session.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: aws.String("arn:x:x:x:x:x"), RoleSessionName: aws.String("x")})
	denied(t, "opening a further session", err)
}

// A bucket that is open to everybody is open to nobody's session: what the
// policy does not name stays refused.
func TestStoreSessionGainsNothingFromAPublicBucket(t *testing.T) {
	m := newMount(t)
	ctx, root := t.Context(), servers.Store.S3(servers.Store.Root)
	_, err := root.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: aws.String("private"), Policy: aws.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:PutObject","s3:GetObject"],"Resource":["arn:aws:s3:::private/*"]}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := root.DeleteBucketPolicy(context.Background(), &s3.DeleteBucketPolicyInput{Bucket: aws.String("private")}); err != nil {
			t.Error(err)
		}
	})
	if err := lab.Put(ctx, root, "private", "there"); err != nil {
		t.Fatal(err)
	}
	client := servers.Store.S3(m.mint(onStore + "/JIRA-1").key)
	allowed(t, "the action on the resource", lab.Put(ctx, client, "releases", "app/1.tgz"))
	denied(t, "the action in a public bucket", lab.Put(ctx, client, "private", "1.tgz"))
	denied(t, "another action in a public bucket", lab.Get(ctx, client, "private", "there"))
}

func TestStoreSessionDiesOnRevoke(t *testing.T) {
	m := newMount(t)
	revoked, other := m.mint(onStore+"/JIRA-1"), m.mint(onStore+"/JIRA-1")
	allowed(t, "the session before", revoked.inStore(t.Context()))
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(revoked.LeaseID)); err != nil {
		t.Fatal(err)
	}
	denied(t, "the revoked session", revoked.inStore(t.Context()))
	allowed(t, "another session of the same task", other.inStore(t.Context()))
}

// A store that has been restarted has its sessions on disk only, and revoking
// one that it has not loaded yet does nothing, without a word.
func TestStoreSessionDiesOnRevokeAfterARestart(t *testing.T) {
	m := newMount(t)
	used, unused := m.mint(onStore+"/JIRA-1"), m.mint(onStore+"/JIRA-2")
	if err := servers.Store.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store answers after its restart", 30*time.Second, func() bool { return used.inStore(t.Context()) == nil })
	for _, session := range []credential{used, unused} {
		if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(session.LeaseID)); err != nil {
			t.Fatal(err)
		}
		denied(t, "a session from before the restart", session.inStore(t.Context()))
	}
}

// The shortest life is one second, and its lease is no longer.
func TestStoreSessionOfOneSecond(t *testing.T) {
	m := newMount(t)
	minted := m.mint(onStore+"/JIRA-1", "ttl=1s")
	if minted.LeaseDuration != 1 {
		t.Errorf("lease of %d s, want 1", minted.LeaseDuration)
	}
	if left := time.Until(minted.expiresAt); left > 2*time.Second {
		t.Errorf("the credential lives for %s, want less than 2s", left)
	}
	time.Sleep(time.Until(minted.expiresAt))
	denied(t, "the session at expires_at", minted.inStore(t.Context()))
}

// Within its lease a session works; at its end it is dead, whether Vault's revoke
// or the store's clock came first. That the clock alone ends it, the provider's
// contract proves.
func TestStoreSessionEndsWithItsLease(t *testing.T) {
	m := newMount(t)
	minted := m.mint(onStore+"/JIRA-1", "ttl=4s")
	if minted.LeaseDuration < 1 || minted.LeaseDuration > 4 {
		t.Errorf("lease of %d s, want 4 s at most", minted.LeaseDuration)
	}
	allowed(t, "the session before its end", minted.inStore(t.Context()))
	time.Sleep(time.Until(minted.expiresAt))
	denied(t, "the session at expires_at", minted.inStore(t.Context()))
}
