package tests

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/roles"
)

// proveGrants asks for all that is around each grant.
func proveGrants(t *testing.T, subjects []subject) {
	few := 0
	for i := range subjects {
		few += count(len(otherResources(&subjects[i])) < 5) // resources with a fixed name have few
	}
	if few*50 > len(subjects) {
		t.Errorf("%d of %d roles have fewer than five siblings to try", few, len(subjects))
	}
	c := newCourt(t)
	c.try(subjects, func(s *subject) []ask {
		all := grantAsks(s)
		all = append(all, otherActions(s)...)
		all = append(all, otherResources(s)...)
		return append(all, otherConditions(s)...)
	}, always)
	t.Log(c.line())
}

// grantAsks are for the grant itself, up to its last second.
func grantAsks(s *subject) []ask {
	var all []ask
	for _, resource := range s.instances() {
		asked := s.ask("the grant", s.Action.Name, resource)
		asked.granted = true
		all = append(all, asked, asked.with("the grant", "aws:CurrentTime", stamp(s.end.Add(-30*time.Minute))))
	}
	if prefix, wild := strings.CutSuffix(s.Resource, "*"); wild && strings.HasSuffix(prefix, "/") {
		asked := s.ask("the grant", s.Action.Name, prefix+"deep/er.x")
		asked.granted = true
		all = append(all, asked)
	}
	return all
}

// otherActions are all others of the service that could work on the resource,
// some that work on everything or nothing, and some of other services.
func otherActions(s *subject) []ask {
	var all []ask
	service, _ := catalog.ServiceByPrefix(s.Service())
	everywhere := 3
	for _, action := range service.Actions() {
		if action.Name == s.Action.Name {
			continue
		}
		if catalog.Authorised(action).Kind == catalog.None && everywhere > 0 && !slices.Contains(ungoverned, action.Name) {
			everywhere--
			all = append(all, s.ask("an action on everything", action.Name, "*"))
		}
		for _, resource := range s.instances() {
			if len(roles.Types(action, resource)) > 0 {
				all = append(all, s.ask("another action", action.Name, resource))
			}
		}
	}
	draw := rand.New(rand.NewPCG(seed, uint64(len(s.policy))))
	for range 3 {
		stranger := strangers[draw.IntN(len(strangers))]
		if roles.ServiceOf(stranger.action) != s.Service() {
			all = append(all, s.ask("another service", stranger.action, stranger.resource))
		}
	}
	return all
}

// ungoverned are actions that no policy forbids.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_getsessiontoken.html
var ungoverned = []string{"sts:GetCallerIdentity", "sts:GetSessionToken"}

// strangers are requests to other services than the granted one.
var strangers = []struct{ action, resource string }{
	{"s3:GetObject", "arn:aws:s3:::private/key"},
	{"s3:ListAllMyBuckets", "*"},
	{"iam:CreateAccessKey", "arn:aws:iam::123456789012:user/admin"},
	{"sts:AssumeRole", "arn:aws:iam::123456789012:role/admin"},
	{"secretsmanager:GetSecretValue", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:root-AbCdEf"},
	{"lambda:InvokeFunction", "arn:aws:lambda:eu-west-1:123456789012:function:any"},
	{"sqs:ReceiveMessage", "arn:aws:sqs:eu-west-1:123456789012:any"},
	{"kms:Decrypt", "arn:aws:kms:eu-west-1:123456789012:key/any"},
	{"ec2:DescribeInstances", "*"},
}

// otherResources are the granted action on what is beside the granted resource.
func otherResources(s *subject) []ask {
	var all []ask
	for _, granted := range append([]string{s.Resource}, s.Companions...) {
		for _, sibling := range roles.Siblings(granted) {
			if !s.covers(sibling.ARN) && len(roles.Types(s.Action, sibling.ARN)) > 0 {
				all = append(all, s.ask(sibling.Kind, s.Action.Name, sibling.ARN))
			}
		}
	}
	return all
}

// otherConditions are the granted action on the granted resource, too late, from
// elsewhere, or with a condition that is not met.
func otherConditions(s *subject) []ask {
	resource := s.instances()[0]
	grant := s.ask("", s.Action.Name, resource)
	var all []ask
	for _, late := range []time.Duration{0, time.Second, 24 * 365 * time.Hour} {
		all = append(all, grant.with("at or after the end", "aws:CurrentTime", stamp(s.end.Add(late))))
	}
	if s.BoundSourceIP {
		all = append(all,
			grant.with("another address", "aws:SourceIp", "127.0.0.2"),
			grant.with("another address", "aws:SourceIp", "2001:db8::1"),
			grant.with("no address", "aws:SourceIp"))
	}
	for _, condition := range s.Conditions {
		if !carries(s.Action, resource, condition.Key) {
			continue
		}
		all = append(all, grant.with("a condition unmet", condition.Key, condition.Unmet...))
		if !condition.Always && condition.Unmet != nil && condition.Met != nil {
			without := grant.with("a condition's key missing", condition.Key)
			without.granted = condition.MetWithout
			all = append(all, without)
		}
	}
	if strings.SplitN(resource, ":", 6)[4] == "" {
		const stranger = "111122223333"
		foreign := grant.with("another account's resource of that name", "aws:ResourceAccount", stranger)
		foreign.account = stranger
		all = append(all, foreign)
	}
	return all
}
