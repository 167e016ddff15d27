package lab

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// Admin is a client of a stranger who may do everything in the account.
func (c *Cloud) Admin() *iam.Client { return c.iam(c.auditor) }

// Watch has every call of the engine that moto has carried out shown before the engine
// sees its answer; nil for none.
func (c *Cloud) Watch(watch func(call url.Values)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch = watch
}

// show shows a call that moto has carried out.
func (c *Cloud) show(answer *http.Response) error {
	form, _ := answer.Request.Context().Value(formOf{}).(url.Values)
	c.shown(form)
	return nil
}

func (c *Cloud) shown(form url.Values) {
	c.mu.Lock()
	watch := c.watch
	c.mu.Unlock()
	if watch != nil {
		watch(form)
	}
}

// Seal lets the engine set the boundaries of users, or does not.
func (c *Cloud) Seal(may bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sealing = may
}

// putBoundary carries PutUserPermissionsBoundary out, which moto does not know.
func (c *Cloud) putBoundary(writer http.ResponseWriter, form url.Values) {
	c.mu.Lock()
	may := c.sealing
	c.mu.Unlock()
	if !may {
		writer.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(writer, refusal)
		return
	}
	c.SetBoundary(form.Get("UserName"), form.Get("PermissionsBoundary"))
	c.shown(form)
	_, _ = io.WriteString(writer, "<PutUserPermissionsBoundaryResponse></PutUserPermissionsBoundaryResponse>")
}

// SetBoundary sets the permissions boundary of a user.
func (c *Cloud) SetBoundary(user, policy string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.boundaries == nil {
		c.boundaries = map[string]string{}
	}
	c.boundaries[user] = policy
}

// Boundary is the ARN of a user's permissions boundary, empty for none.
func (c *Cloud) Boundary(user string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boundaries[user]
}

// RenameUser gives a user another name and path, as a stranger with iam:UpdateUser would.
func (c *Cloud) RenameUser(ctx context.Context, from, to, path string) error {
	if _, err := c.Admin().UpdateUser(ctx, &iam.UpdateUserInput{UserName: aws.String(from), NewUserName: aws.String(to), NewPath: aws.String(path)}); err != nil {
		return err
	}
	if from == to {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.renamed == nil {
		c.renamed = map[string]string{}
	}
	c.renamed[from] = to
	if boundary, has := c.boundaries[from]; has {
		c.boundaries[to] = boundary
		delete(c.boundaries, from)
	}
	for key, document := range c.shortened {
		if policy, of := strings.CutPrefix(key, from+"/"); of {
			c.shortened[to+"/"+policy] = document
			delete(c.shortened, key)
		}
	}
	return nil
}

// answersOfRenamed answers calls about the keys of users that were renamed. Moto finds a key
// by the name that its user had when it got the key, and so deletes none of theirs.
func (c *Cloud) answersOfRenamed(ctx context.Context, writer http.ResponseWriter, form url.Values) bool {
	action, key, user := form.Get("Action"), form.Get("AccessKeyId"), form.Get("UserName")
	c.mu.Lock()
	gone := c.deleted[key]
	renamed := slices.Contains(slices.Collect(maps.Values(c.renamed)), user)
	c.mu.Unlock()
	switch {
	case action == "GetAccessKeyLastUsed" && gone:
	case action == "DeleteAccessKey" && renamed:
		if keys, err := c.Keys(ctx, user); err == nil && slices.Contains(keys, key) && !gone {
			c.mu.Lock()
			if c.deleted == nil {
				c.deleted = map[string]bool{}
			}
			c.deleted[key] = true
			c.mu.Unlock()
			c.shown(form)
			_, _ = io.WriteString(writer, "<DeleteAccessKeyResponse></DeleteAccessKeyResponse>")
			return true
		}
	default:
		return false
	}
	writer.WriteHeader(http.StatusNotFound)
	_, _ = fmt.Fprintf(writer, failed, "NoSuchEntity")
	return true
}

// showOwner answers GetAccessKeyLastUsed with the name that a key's user has by now: moto
// tells the one that it had when it got the key.
func (c *Cloud) showOwner(answer *http.Response) error {
	form, _ := answer.Request.Context().Value(formOf{}).(url.Values)
	if form.Get("Action") != "GetAccessKeyLastUsed" {
		return nil
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	before, rest, _ := strings.Cut(string(text), "<UserName>")
	name, after, _ := strings.Cut(rest, "</UserName>")
	c.mu.Lock()
	for to, was := c.renamed[name]; was; to, was = c.renamed[name] {
		name = to
	}
	c.mu.Unlock()
	setBody(answer, fmt.Appendf(nil, "%s<UserName>%s</UserName>%s", before, name, after))
	return nil
}

// RecreateRole deletes a base role and creates it again, as a stranger would.
func (c *Cloud) RecreateRole(ctx context.Context, name string) error {
	client, role := c.Admin(), aws.String(name)
	listed, err := client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: role})
	if err != nil {
		return err
	}
	for _, policy := range listed.PolicyNames {
		if _, err := client.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: role, PolicyName: aws.String(policy)}); err != nil {
			return err
		}
	}
	if _, err := client.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: role}); err != nil {
		return err
	}
	if _, err := client.CreateRole(ctx, &iam.CreateRoleInput{RoleName: role, AssumeRolePolicyDocument: aws.String(trustPolicy)}); err != nil {
		return err
	}
	_, err = client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: role, PolicyName: aws.String(strangerPolicy), PolicyDocument: aws.String(basePolicy)})
	return err
}
