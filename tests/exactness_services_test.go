package tests

import (
	"maps"
	"slices"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/roles"
)

// via are services that act for their caller with the caller's rights.
var via = []string{"cloudformation", "athena", "ssm", "servicecatalog"}

// proveServices asks for what is ambient through other services, and for keys
// through the granted action's own, which is the one thing that the policy
// leaves to the key.
func proveServices(t *testing.T, subjects []subject) {
	const every = 10 // of the roles; each goes through all services
	var sample []subject
	for i := 0; i < len(subjects); i += every {
		sample = append(sample, subjects[i])
	}
	c := newCourt(t)
	c.try(sample, func(s *subject) []ask {
		const most = 10 // of the other actions
		outside := otherActions(s)
		outside = slices.Concat(outside[:min(most, len(outside))], otherResources(s))
		var all []ask
		for _, service := range via {
			for _, asked := range outside {
				all = append(all, asked.through(service))
			}
		}
		return all
	}, openly)
	t.Log(c.line())

	c = newCourt(t)
	c.try(sample, keysOfTheService, always)
	t.Log(c.line())
}

// through is the ask as a service makes it for its caller.
func (a ask) through(service string) ask {
	a.kind = "through " + service
	a.context = maps.Clone(a.context)
	for key, values := range map[string][]string{
		"aws:ViaAWSService": {"true"}, "aws:CalledVia": {service + ".amazonaws.com"},
		"aws:CalledViaFirst": {service + ".amazonaws.com"}, "aws:CalledViaLast": {service + ".amazonaws.com"},
	} {
		a.context[key] = values
	}
	return a
}

const anyKey = "arn:aws:kms:eu-west-1:" + roles.Account + ":key/1234abcd-12ab-34cd-56ef-1234567890ab"

// keysOfTheService are uses of a key that the role does not name.
func keysOfTheService(s *subject) []ask {
	if s.Service() == "kms" {
		return nil // has no such exception
	}
	var all []ask
	for _, action := range []string{"kms:Decrypt", "kms:GenerateDataKey", "kms:CreateGrant"} {
		other := "workmail"
		if s.Service() == other {
			other = "s3"
		}
		direct := s.ask("a key", action, anyKey)
		own := direct.with("a key through the own service", "kms:ViaService", s.Service()+".eu-west-1.amazonaws.com")
		own.ambient = true
		all = append(all, direct, own,
			own.with("a key after the end", "aws:CurrentTime", stamp(s.end)).denied(),
			direct.with("a key through another service", "kms:ViaService", "x"+s.Service()+".eu-west-1.amazonaws.com"),
			direct.with("a key through another service", "kms:ViaService", s.Service()+"x.eu-west-1.amazonaws.com"),
			direct.with("a key through another service", "kms:ViaService", other+".eu-west-1.amazonaws.com"))
	}
	return all
}

// denied is the ask where it has become none that the key may decide on.
func (a ask) denied() ask {
	a.ambient = false
	return a
}
