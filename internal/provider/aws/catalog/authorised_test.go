package catalog

import (
	"slices"
	"strings"
	"testing"
)

// beyondTheReference are actions that the table has although the reference does
// not require several types of them.
var beyondTheReference = []string{
	"bedrock:UpdateDataAutomationProject", "directconnect:AssociateHostedConnection", "ec2-instance-connect:OpenTunnel", // one type, listed twice
	"dynamodb:PartiQLSelect", "dynamodb:Query", "dynamodb:Scan", "ssm:SendCommand", "ssm:StartSession", // optional types that count
}

func TestSeveralRequiredTable(t *testing.T) {
	kinds := []Joint{All, One, Created, Leaf, Unreviewed}
	for name, authorisation := range authorisations() {
		action, _ := Find(name)
		if !slices.Contains(kinds, authorisation.Kind) {
			t.Errorf("%s is authorised on %q", name, authorisation.Kind)
		}
		if authorisation.Kind != All && len(authorisation.Groups) != 1 {
			t.Errorf("%s: %q has %d groups", name, authorisation.Kind, len(authorisation.Groups))
		}
		types := slices.Concat(authorisation.Groups...)
		for _, kind := range types {
			if !slices.ContainsFunc(action.Resources, func(use ResourceUse) bool { return use.Type == kind }) {
				t.Errorf("%s does not work on %q", name, kind)
			}
		}
		if slices.Contains(beyondTheReference, name) {
			continue
		}
		slices.Sort(types)
		if required := requiredTypes(action); !slices.Equal(types, required) {
			t.Errorf("%s: the table has %q, the reference requires %q", name, types, required)
		}
	}
}

func requiredTypes(action Action) []string {
	var types []string
	for _, use := range action.Resources {
		if use.Required {
			types = append(types, use.Type)
		}
	}
	slices.Sort(types)
	return types
}

// TestEveryActionIsAuthorisedOnSomething holds that no action that requires
// several types is missing in the table, and that what isn't in it is plain.
func TestEveryActionIsAuthorisedOnSomething(t *testing.T) {
	count := map[Joint]int{}
	for _, prefix := range Services() {
		service, _ := ServiceByPrefix(prefix)
		for _, action := range service.Actions() {
			_, listed := authorisations()[action.Name]
			if len(requiredTypes(action)) > 1 && !listed {
				t.Errorf("%s requires %q and is not in the table", action.Name, requiredTypes(action))
			}
			authorisation := Authorised(action)
			if (authorisation.Kind == None) != (len(action.Resources) == 0) || (authorisation.Kind == None) != (len(authorisation.Groups) == 0) || authorisation.Source == "" {
				t.Errorf("%s: %+v", action.Name, authorisation)
			}
			count[authorisation.Kind]++
		}
	}
	for kind, want := range map[Joint]int{None: 6724, All: 931, One: 92, Created: 48, Leaf: 41, Unreviewed: 301, Single: 13954} {
		if count[kind] != want {
			t.Errorf("%d actions are %q, not %d", count[kind], kind, want)
		}
	}
}

// TestLeafTypesAreNested holds what the kind Leaf says: the ARN of one type begins
// with that of another.
func TestLeafTypesAreNested(t *testing.T) {
	for name, authorisation := range authorisations() {
		if authorisation.Kind != Leaf {
			continue
		}
		prefix, _, _ := strings.Cut(name, ":")
		service, _ := ServiceByPrefix(prefix)
		var patterns []string
		for _, kind := range authorisation.Groups[0] {
			resource, _ := service.ResourceType(kind)
			patterns = append(patterns, resource.Patterns...)
		}
		if !slices.ContainsFunc(patterns, func(outer string) bool {
			return slices.ContainsFunc(patterns, func(inner string) bool { return inner != outer && strings.HasPrefix(inner, outer) })
		}) {
			t.Errorf("%s: no type of %q lies in another", name, authorisation.Groups[0])
		}
	}
}

func TestAuthorised(t *testing.T) {
	for name, want := range map[string]struct {
		kind   Joint
		groups [][]string
	}{
		"s3:PutObject":                            {Single, [][]string{{"accesspointobject", "object"}}},
		"s3:ListBucket":                           {Single, [][]string{{"accesspoint", "bucket"}}},
		"sqs:SendMessage":                         {Single, [][]string{{"queue"}}},
		"ec2:DescribeInstances":                   {None, nil},
		"ssm:SendCommand":                         {All, [][]string{{"document"}, {"instance", "managed-instance"}}},
		"ssm:StartSession":                        {All, [][]string{{"document"}, {"instance", "managed-instance", "task"}}},
		"dynamodb:Query":                          {One, [][]string{{"index", "table"}}},
		"dynamodb:PutResourcePolicy":              {Leaf, [][]string{{"stream", "table"}}},
		"amplifybackend:CreateToken":              {Created, [][]string{{"backend", "token"}}},
		"a4b:AssociateDeviceWithRoom":             {Unreviewed, [][]string{{"device", "room"}}},
		"directconnect:AssociateHostedConnection": {All, [][]string{{"dxcon"}, {"dxcon"}}},
	} {
		action, found := Find(name)
		if !found {
			t.Fatalf("no action %s", name)
		}
		authorisation := Authorised(action)
		if authorisation.Kind != want.kind || !slices.EqualFunc(authorisation.Groups, want.groups, slices.Equal) {
			t.Errorf("%s: %s %q, want %s %q", name, authorisation.Kind, authorisation.Groups, want.kind, want.groups)
		}
	}
	unknown := Action{Name: "new:New", Resources: []ResourceUse{{Type: "a", Required: true}, {Type: "b", Required: true}}}
	if authorisation := Authorised(unknown); authorisation.Kind != Unreviewed {
		t.Errorf("an action that no table knows: %+v", authorisation)
	}
}
