package aws

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// specimen is a resource of a pattern. Two numbers give two resources.
func specimen(t *testing.T, text, number string) scope.ARN {
	t.Helper()
	example := scope.NewPattern(text).Example("aws")
	example = strings.NewReplacer("${BucketName}", "releases"+number, "${EncodedPackageGroupPattern}", "/npm"+number, "${SecretId}", "db"+number+"-AbCdEf", "${Vendor}", "ec2").Replace(example)
	for {
		before, rest, found := strings.Cut(example, "${")
		if !found {
			return parse(t, strings.Replace(example, "{Date-and-Time-Stamp-of-Backup}", "1", 1))
		}
		_, after, _ := strings.Cut(rest, "}")
		example = before + "name" + number + after
	}
}

// refusedType says of which resource types no single resource is granted, and
// why, in the words of the error.
func refusedType(action catalog.Action, kind string) string {
	service, verb, _ := strings.Cut(action.Name, ":")
	switch {
	case service == "backup" && kind == "recoveryPoint":
		return "of any shape"
	case service == "s3" && (kind == "accesspointobject" || kind == "accesspoint" && takes(action, "bucket")):
		return "through an access point"
	case service == "es" && strings.HasPrefix(verb, "ESHttp"):
		return "a domain alone matches none"
	case action.Name == "secretsmanager:CreateSecret":
		return "nobody knows"
	case action.Name == "ssm:GetParametersByPath":
		return "returns everything below"
	case service == "connect" && strings.HasPrefix(kind, "wildcard-") && !takes(action, strings.TrimPrefix(kind, "wildcard-")), service == "identitystore" && strings.HasPrefix(kind, "All"),
		service == "imagebuilder" && strings.HasPrefix(kind, "all"), service == "aws-marketplace" && strings.HasPrefix(kind, "All"):
		return "at once"
	}
	return ""
}

func everyAction(t *testing.T, visit func(catalog.Service, catalog.Action, catalog.Authorisation)) {
	t.Helper()
	for _, prefix := range catalog.Services() {
		service, _ := catalog.ServiceByPrefix(prefix)
		for _, action := range service.Actions() {
			visit(service, action, catalog.Authorised(action))
		}
	}
}

// Every action takes one resource of each type that AWS judges it on, alone or
// with the companions that it needs, and nothing else.
func TestResolveEveryAction(t *testing.T) {
	counts := map[string]int{}
	refused := func(action catalog.Action, problem string, resource scope.ARN, companions ...scope.ARN) {
		t.Helper()
		counts["refused"]++
		_, err := resolve(action, resource, companions)
		var refusal *invalid.Error
		if !errors.As(err, &refusal) || !strings.Contains(refusal.Problem, problem) || refusal.Remedy == "" || len(err.Error()) > 2000 {
			t.Errorf("%s on %s with %v: %v, want %q", action.Name, resource, companions, err, problem)
		}
	}
	accepted := func(action catalog.Action, resource scope.ARN, companions ...scope.ARN) {
		t.Helper()
		counts["accepted"]++
		got, err := resolve(action, resource, companions)
		if err != nil {
			t.Errorf("%s: %v", action.Name, err)
			return
		}
		if err := got.Pattern.Match(got.Resource); err != nil || len(got.Companions) != len(companions) {
			t.Errorf("%s: %s with %v: %v", action.Name, got.Resource, got.Companions, err)
		}
	}
	elsewhere := parse(t, "arn:aws:nosuchservice"+here+"name1")
	everyAction(t, func(service catalog.Service, action catalog.Action, authorised catalog.Authorisation) {
		counts["actions"]++
		counts["reference: "+classOf(action)]++
		counts["judged on: "+string(authorised.Kind)]++
		resources := func(name, number string) []scope.ARN {
			kind, known := service.ResourceType(name)
			if !known {
				t.Fatalf("%s: no type %s", action.Name, name)
			}
			var all []scope.ARN
			for _, pattern := range kind.Patterns {
				all = append(all, specimen(t, pattern, number))
			}
			return all
		}
		refused(action, "", elsewhere)
		always := slices.Concat(authorised.Groups...)
		for _, use := range action.Resources {
			for _, resource := range resources(use.Type, "1") {
				switch problem := refusedType(action, use.Type); {
				case authorised.Kind == catalog.Created, authorised.Kind == catalog.Unreviewed:
					refused(action, "know", resource) // "not known" or "nobody knows"
				case !slices.Contains(always, use.Type):
					// Lex has aliases and versions of a bot, whose ARNs look the same.
					if !slices.ContainsFunc(always, func(name string) bool { return slices.Contains(resources(name, "1"), resource) }) {
						refused(action, "", resource)
					}
				case problem != "":
					refused(action, problem, resource)
				case authorised.Kind != catalog.All:
					accepted(action, resource)
					refused(action, "reach further", resource, resources(use.Type, "2")[0])
				}
			}
		}
		if authorised.Kind != catalog.All {
			return
		}
		var all []scope.ARN
		numbers, problem := []string{"1", "2", "3", "4"}, ""
		for i, group := range authorised.Groups {
			same := 0
			for _, earlier := range authorised.Groups[:i] {
				if earlier[0] == group[0] {
					same++
				}
			}
			resource := resources(group[0], numbers[same])[0]
			problem += refusedType(action, group[0])
			if !slices.Contains(all, resource) { // two names for one ARN
				all = append(all, resource)
			}
		}
		if problem != "" {
			refused(action, "", all[0], all[1:]...)
			return
		}
		for i := range all { // whichever is the resource, the others are its companions
			rotated := slices.Concat(all[i:], all[:i])
			accepted(action, rotated[0], rotated[1:]...)
			refused(action, "not each is named", rotated[0], rotated[2:]...)
			refused(action, "", rotated[0], slices.Concat(rotated[1:], resources(authorised.Groups[0][0], "9")[:1])...)
			refused(action, "named twice", rotated[0], slices.Concat(rotated[1:], rotated[1:2])...)
		}
	})
	t.Log(counts)
	for name, want := range map[string]int{
		"actions":         22091,
		"reference: none": 6724, "reference: one type": 12632, "reference: one of several": 1002, "reference: several required": 1405,
		"reference: one required, others optional": 328,
	} {
		if counts[name] != want {
			t.Errorf("%s: %d, want %d", name, counts[name], want)
		}
	}
}

// classOf sorts actions as the reference marks their resource types.
func classOf(action catalog.Action) string {
	required := 0
	for _, use := range action.Resources {
		if use.Required {
			required++
		}
	}
	switch {
	case len(action.Resources) == 0:
		return "none"
	case len(action.Resources) == 1:
		return "one type"
	case required == 0:
		return "one of several"
	case required == 1:
		return "one required, others optional"
	default:
		return "several required"
	}
}

// Of some actions the wildcard of one type covers another. A pattern that ends
// in a name has such a wildcard in 125 of them; a "*" of the reference's own, in
// 25 more.
func TestWildcardsOverTypes(t *testing.T) {
	named, unnamed := map[string]bool{}, map[string]bool{}
	everyAction(t, func(service catalog.Service, action catalog.Action, authorised catalog.Authorisation) {
		for _, use := range action.Resources {
			kind, _ := service.ResourceType(use.Type)
			for _, text := range kind.Patterns {
				pattern := scope.NewPattern(text)
				if !pattern.Wildcard() {
					continue
				}
				resource := specimen(t, text, "1")
				spans, err := pattern.Locate(resource)
				if err != nil {
					t.Fatal(err)
				}
				leaf := spans[len(spans)-1]
				wildcard := parse(t, resource.String()[:leaf.Start]+"*")
				if pattern.Match(wildcard) != nil {
					wildcard = parse(t, resource.String()[:leaf.Start]+"name1/*")
				}
				for _, other := range action.Resources {
					another, _ := service.ResourceType(other.Type)
					for _, text := range another.Patterns {
						if other.Type == use.Type || !scope.NewPattern(text).Overlaps(wildcard) {
							continue
						}
						if leaf.Variable == "*" {
							unnamed[action.Name] = true
						} else {
							named[action.Name] = true
						}
						if got, err := resolve(action, wildcard, nil); err == nil {
							t.Errorf("%s: %s of type %s is granted, and covers %s", action.Name, wildcard, got.Type, other.Type)
						}
					}
				}
			}
		}
	})
	for name := range named {
		delete(unnamed, name)
	}
	t.Logf("%d actions, and %d more", len(named), len(unnamed))
	if len(named) != 125 || len(unnamed) != 25 {
		t.Errorf("%d and %d actions, want 125 and 25", len(named), len(unnamed))
	}
}

func BenchmarkResolve(b *testing.B) {
	for _, test := range []struct{ action, resource string }{
		{"s3:GetObject", "arn:aws:s3:::releases/app/*"},
		{"dynamodb:Query", "arn:aws:dynamodb:eu-west-1:123456789012:table/orders"},
		{"apigateway:GET", "arn:aws:apigateway:eu-west-1::/restapis/a1b2c3"},
	} {
		action, _ := catalog.Find(test.action)
		resource, err := scope.ParseARN(test.resource)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(test.action, func(b *testing.B) {
			for b.Loop() {
				if _, err := resolve(action, resource, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
