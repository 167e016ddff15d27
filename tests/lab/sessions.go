package lab

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// BaseRole is the role that the engine may assume sessions from: it may do
// everything in S3. BaseRole2 is another one.
const (
	BaseRole  = "precision-base"
	BaseRole2 = "precision-base-2"
)

// strangerPolicy is the name of a base role's own inline policy.
const strangerPolicy = "rights"

// RoleARN is a role's ARN.
func RoleARN(name string) string { return "arn:aws:iam::" + Account + ":role/" + name }

// EngineARN is the ARN of the engine's user.
const EngineARN = "arn:aws:iam::" + Account + ":user/precision-engine"

// sessionPolicy is the least that the engine needs for sessions. Moto looks at
// the resource of AssumeRole, and at none of IAM's.
var sessionPolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"],"Resource":["` + RoleARN(BaseRole) + `","` + RoleARN(BaseRole2) + `"]},
 {"Effect":"Allow","Action":["sts:GetFederationToken","sts:TagSession"],"Resource":"*"},
 {"Effect":"Allow","Resource":"*","Action":[
 "iam:ListRolePolicies","iam:GetRolePolicy","iam:PutRolePolicy","iam:DeleteRolePolicy",
 "iam:ListUserPolicies","iam:GetUserPolicy","iam:PutUserPolicy","iam:DeleteUserPolicy"]}]}`

// managedPolicy is what the engine may be given besides, so that it can deny more
// sessions than an inline policy has room for.
const managedPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"*","Action":[
 "iam:ListAttachedRolePolicies","iam:AttachRolePolicy","iam:DetachRolePolicy","iam:ListPolicies",
 "iam:CreatePolicy","iam:DeletePolicy","iam:GetPolicy","iam:GetPolicyVersion",
 "iam:CreatePolicyVersion","iam:DeletePolicyVersion","iam:ListPolicyVersions"]}]}`

const basePolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`

const trustPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"],"Principal":{"AWS":"` + EngineARN + `"}}]}`

// setUpSessions makes the base roles and gives the engine its rights over them.
func (c *Cloud) setUpSessions(ctx context.Context, client *iam.Client) error {
	for _, name := range []string{BaseRole, BaseRole2} {
		if _, err := client.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String(name), AssumeRolePolicyDocument: aws.String(trustPolicy)}); err != nil {
			return err
		}
		if _, err := client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String(name), PolicyName: aws.String(strangerPolicy), PolicyDocument: aws.String(basePolicy)}); err != nil {
			return err
		}
	}
	for name, document := range map[string]string{"sessions": sessionPolicy, "managed": managedPolicy} {
		if _, err := client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("precision-engine"), PolicyName: aws.String(name), PolicyDocument: aws.String(document)}); err != nil {
			return err
		}
	}
	return nil
}

// Session is a session that STS has made for the engine.
type Session struct {
	Form url.Values // the call
	ARN  string
	// UserID is what AWS knows a session by in aws:userid.
	UserID string
	Base   string // ARN of the role that it was assumed from, or of the user that asked for it
}

// Session is the one of an access key.
func (c *Cloud) Session(accessKey string) (Session, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, known := c.sessions[accessKey]
	return found, known
}

// stsAnswer is what moto answers to AssumeRole and GetFederationToken.
type stsAnswer struct {
	Key    string `xml:"AssumeRoleResult>Credentials>AccessKeyId"`
	ARN    string `xml:"AssumeRoleResult>AssumedRoleUser>Arn"`
	UserID string `xml:"AssumeRoleResult>AssumedRoleUser>AssumedRoleId"`
	FedKey string `xml:"GetFederationTokenResult>Credentials>AccessKeyId"`
	FedARN string `xml:"GetFederationTokenResult>FederatedUser>Arn"`
	FedID  string `xml:"GetFederationTokenResult>FederatedUser>FederatedUserId"`
}

// SessionKeys are the access keys of sessions in answers of STS.
func SessionKeys(answers [][]byte) (keys []string) {
	for _, text := range answers {
		var made stsAnswer
		if xml.Unmarshal(text, &made) == nil && made.Key+made.FedKey != "" {
			keys = append(keys, made.Key+made.FedKey)
		}
	}
	return keys
}

// formOf is the key of a call's form in its context.
type formOf struct{}

// noteSession keeps a session that moto has made. Moto gives all federated users
// the same key, so they get one of their own here.
func (c *Cloud) noteSession(answer *http.Response) error {
	form, _ := answer.Request.Context().Value(formOf{}).(url.Values)
	action := form.Get("Action")
	if answer.StatusCode != http.StatusOK || (action != "AssumeRole" && action != "GetFederationToken") {
		return nil
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	var made stsAnswer
	if err := xml.Unmarshal(text, &made); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions == nil {
		c.sessions = map[string]Session{}
	}
	if action == "AssumeRole" {
		c.sessions[made.Key] = Session{Form: form, ARN: made.ARN, UserID: made.UserID, Base: form.Get("RoleArn")}
	} else {
		key := fmt.Sprintf("ASIAFEDERATED%07d", len(c.sessions))
		text = bytes.ReplaceAll(text, []byte(made.FedKey), []byte(key))
		c.sessions[key] = Session{Form: form, ARN: made.FedARN, UserID: made.FedID, Base: EngineARN}
	}
	setBody(answer, text)
	return nil
}

func setBody(answer *http.Response, text []byte) {
	answer.Body = io.NopCloser(bytes.NewReader(text))
	answer.ContentLength = int64(len(text))
	answer.Header.Set("Content-Length", fmt.Sprint(len(text)))
}

// Log are the calls that the engine has made, from the given one on.
func (c *Cloud) Log(from int) []url.Values {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]url.Values(nil), c.calls[min(from, len(c.calls)):]...)
}

// Policies are the documents of all policies of a base, by name, as they are in
// force.
func (c *Cloud) Policies(ctx context.Context, base string) (map[string]string, error) {
	name := base[strings.LastIndex(base, "/")+1:]
	client := c.iam(c.auditor)
	documents := map[string]string{}
	if strings.Contains(base, ":user/") {
		listed, err := client.ListUserPolicies(ctx, &iam.ListUserPoliciesInput{UserName: aws.String(name)})
		if err != nil {
			return nil, err
		}
		for _, policy := range listed.PolicyNames {
			found, err := client.GetUserPolicy(ctx, &iam.GetUserPolicyInput{UserName: aws.String(name), PolicyName: aws.String(policy)})
			if err != nil {
				return nil, err
			}
			if documents[policy], err = url.PathUnescape(c.whole(name, policy, *found.PolicyDocument)); err != nil {
				return nil, err
			}
		}
		return documents, nil
	}
	listed, err := client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: aws.String(name)})
	if err != nil {
		return nil, err
	}
	for _, policy := range listed.PolicyNames {
		found, err := client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: aws.String(name), PolicyName: aws.String(policy)})
		if gone := new(types.NoSuchEntityException); errors.As(err, &gone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if documents[policy], err = url.PathUnescape(*found.PolicyDocument); err != nil {
			return nil, err
		}
	}
	attached, err := client.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: aws.String(name)})
	if err != nil {
		return nil, err
	}
	for _, policy := range attached.AttachedPolicies {
		found, err := client.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: policy.PolicyArn})
		if err != nil {
			return nil, err
		}
		version, err := client.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: policy.PolicyArn, VersionId: found.Policy.DefaultVersionId})
		if err != nil {
			return nil, err
		}
		if documents[*policy.PolicyName], err = url.PathUnescape(*version.PolicyVersion.Document); err != nil {
			return nil, err
		}
	}
	return documents, nil
}

// RemoveDenies removes the inline policies by which sessions of the engine's user are revoked.
func (c *Cloud) RemoveDenies(ctx context.Context) error {
	client, name := c.iam(c.auditor), aws.String(path.Base(EngineARN))
	listed, err := client.ListUserPolicies(ctx, &iam.ListUserPoliciesInput{UserName: name})
	if err != nil {
		return err
	}
	for _, policy := range listed.PolicyNames {
		if !strings.HasPrefix(policy, "precision-revoked-") {
			continue
		}
		_, err := client.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: name, PolicyName: aws.String(policy)})
		if err != nil {
			return err
		}
	}
	return nil
}

// The documents that are shortened for moto, see front. A policy that ends
// sessions would in moto deny everything to the user that has it.

func (c *Cloud) keepWhole(user, policy, document string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shortened == nil {
		c.shortened = map[string]string{}
	}
	c.shortened[user+"/"+policy] = document
}

// whole is a user's policy as it was put.
func (c *Cloud) whole(user, policy, document string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept, known := c.shortened[user+"/"+policy]; known {
		return kept
	}
	return document
}

// showWhole answers GetUserPolicy with the policy as it was put.
func (c *Cloud) showWhole(answer *http.Response) error {
	form, _ := answer.Request.Context().Value(formOf{}).(url.Values)
	if answer.StatusCode != http.StatusOK || form.Get("Action") != "GetUserPolicy" {
		return nil
	}
	kept := c.whole(form.Get("UserName"), form.Get("PolicyName"), "")
	if kept == "" {
		return nil
	}
	text := fmt.Sprintf("<GetUserPolicyResponse><GetUserPolicyResult><UserName>%s</UserName><PolicyName>%s</PolicyName><PolicyDocument>%s</PolicyDocument></GetUserPolicyResult></GetUserPolicyResponse>",
		form.Get("UserName"), form.Get("PolicyName"), url.PathEscape(kept))
	_ = answer.Body.Close()
	setBody(answer, []byte(text))
	return nil
}
