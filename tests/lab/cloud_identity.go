package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// failure is how an action fails.
type failure struct {
	code  string
	times int // negative: always
}

// Fail lets calls of an action fail with a code of AWS's: so many of the next
// ones, or with a negative number all until it is called with 0.
func (c *Cloud) Fail(action, code string, times int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failing == nil {
		c.failing = map[string]failure{}
	}
	c.failing[action] = failure{code, times}
}

// Throttle is Fail as AWS fails calls when there are too many.
func (c *Cloud) Throttle(action string, times int) { c.Fail(action, "Throttling", times) }

// failure is the code that a call fails with, empty for none.
func (c *Cloud) failure(form url.Values) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	action := form.Get("Action")
	due := c.failing[action]
	if due.times == 0 {
		return ""
	}
	due.times--
	c.failing[action] = due
	return due.code
}

// failed is how IAM and STS say no, with the code to fill in.
const failed = `<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type><Code>%s</Code><Message>failed on purpose</Message></Error></ErrorResponse>`

// CallsOf are the forms of the engine's calls of an action, in order.
func (c *Cloud) CallsOf(action string) []url.Values {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []url.Values
	for _, call := range c.calls {
		if call.Get("Action") == action {
			all = append(all, call)
		}
	}
	return all
}

// AddEngine makes a further user with the rights that the engine needs.
func (c *Cloud) AddEngine(ctx context.Context, name string) (Key, error) {
	return c.makeUser(ctx, c.iam(c.auditor), name, enginePolicy)
}

// AddDelegate makes a user that may do nothing but assume roles and manage its
// own keys, and a role that has the rights that the engine needs and may be
// assumed by that user with an external id.
func (c *Cloud) AddDelegate(ctx context.Context, name, externalID string) (key Key, role string, err error) {
	client := c.iam(c.auditor)
	const policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:AssumeRole","iam:ListAccessKeys","iam:CreateAccessKey","iam:DeleteAccessKey"],"Resource":"*"}]}`
	if key, err = c.makeUser(ctx, client, name, policy); err != nil {
		return Key{}, "", err
	}
	trust := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::%s:user/%s"},"Condition":{"StringEquals":{"sts:ExternalId":%q}}}]}`, Account, name, externalID)
	made, err := client.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String(name), AssumeRolePolicyDocument: aws.String(trust)})
	if err != nil {
		return Key{}, "", err
	}
	_, err = client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String(name), PolicyName: aws.String("rights"), PolicyDocument: aws.String(enginePolicy)})
	return key, *made.Role.Arn, err
}

// Keys lists the access keys of a user.
func (c *Cloud) Keys(ctx context.Context, user string) ([]string, error) {
	listed, err := c.iam(c.auditor).ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: aws.String(user)})
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, key := range listed.AccessKeyMetadata {
		keys = append(keys, *key.AccessKeyId)
	}
	return keys, nil
}

// signForMoto signs a call that comes without a signature, as on AWS.
func (c *Cloud) signForMoto(request *http.Request, body []byte) error {
	if request.Header.Get("Authorization") != "" {
		return errors.New("the call is signed")
	}
	sum := sha256.Sum256(body)
	request.ContentLength = int64(len(body))
	return v4.NewSigner().SignHTTP(request.Context(), aws.Credentials{AccessKeyID: c.auditor.Access, SecretAccessKey: c.auditor.Secret}, request, hex.EncodeToString(sum[:]), "sts", Region, time.Now())
}

// Auditor is the key of a user that may do everything, for what a test needs at AWS.
func (c *Cloud) Auditor() Key { return c.auditor }
