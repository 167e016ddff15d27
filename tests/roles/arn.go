package roles

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

var (
	regions = []string{"eu-west-1", "us-east-1", "ap-southeast-2"}
	words   = []string{"app", "billing", "orders", "releases", "web", "audit", "nightly", "core"}
	// odd characters are those that mean something somewhere: in JSON, in a URL,
	// in a regular expression, in a policy.
	odd = []string{"a+b", "x=1,y=2", "v1.2.3", "a@b", "it's", "q&a", "a b", "a(1)", "caf\u00e9", "~tmp", "$x", "a|b", "[a]", `"q"`, `b\s`, "<t>", "a#b", "100%"}
)

// variable is a part of an ARN pattern that stands for something: ${Name}, and
// what the reference writes in other ways.
var variable = regexp.MustCompile(`\$?\{[^}]*\}|\*`)

func (d drawer) fill(pattern string) string { return d.fillIn(pattern, d.oneOf(regions...)) }

// fillIn writes an ARN of the pattern, with literals that look like those of
// AWS.
func (d drawer) fillIn(pattern, region string) string {
	return variable.ReplaceAllStringFunc(pattern, func(name string) string {
		word := d.oneOf(words...)
		switch strings.Trim(name, "${}") {
		case "Partition":
			return "aws"
		case "Region":
			return region
		case "Account":
			return Account
		case "BucketName":
			return fmt.Sprintf("%s-%d", word, d.IntN(1000))
		case "SecretId":
			return word + "/db-AbCdE" + d.oneOf("f", "4")
		case "EncodedPackageGroupPattern":
			return "/npm/" + word
		default:
			return d.oneOf(word, fmt.Sprintf("%s-%04d", word, d.IntN(10_000)), fmt.Sprintf("%08x", d.Uint32()), strings.ToUpper(word[:1])+word[1:])
		}
	})
}

// widen makes more of an ARN that fills the pattern: a nested name where a name
// may be nested, or a wildcard where one may stand. What it makes may be refused.
func (d drawer) widen(pattern, arn string) string {
	read, err := scope.ParsePattern(pattern)
	if err != nil {
		return arn
	}
	split, err := scope.ParseARN(arn)
	if err != nil {
		return arn
	}
	spans, err := read.Locate(split)
	if err != nil || len(spans) == 0 {
		return arn
	}
	leaf := spans[len(spans)-1]
	if leaf.End != len(arn) {
		return arn
	}
	before := arn[:leaf.Start]
	if !read.Wildcard() {
		if leaf.Path && d.IntN(2) == 0 {
			return before + "team/" + arn[leaf.Start:]
		}
		return arn
	}
	switch choice := d.IntN(10); {
	case leaf.Path && choice < 3:
		return before + d.oneOf("app/*", "app/sub/*", "a b/*", "team.x/*")
	case leaf.Path && choice < 6:
		return before + d.oneOf("app/", "") + d.oneOf(odd...)
	case choice < 9:
		return before + "*"
	default:
		return arn
	}
}

// Instance is a resource that the granted text covers: itself, or one below its
// wildcard.
func Instance(granted string) string {
	prefix, wild := strings.CutSuffix(granted, "*")
	if !wild {
		return granted
	}
	if strings.Contains(granted, ":log-group:") && strings.HasSuffix(prefix, ":") {
		return prefix + "log-stream:main"
	}
	return prefix + "x1"
}

// Sibling is a resource beside a granted one, and how it differs.
type Sibling struct{ Kind, ARN string }

// Siblings are resources that a grant must not reach: one part of the name
// changed at a time, from the partition to the last character.
func Siblings(granted string) []Sibling {
	parts := strings.SplitN(granted, ":", 6)
	prefix, wild := strings.CutSuffix(granted, "*")
	var all []Sibling
	add := func(kind, arn string) {
		if arn != granted && !(wild && strings.HasPrefix(arn, prefix)) {
			all = append(all, Sibling{kind, arn})
		}
	}
	with := func(kind string, at int, text string) {
		changed := append([]string(nil), parts...)
		changed[at] = text
		add(kind, Instance(strings.Join(changed, ":")))
	}
	with("another partition", 1, "aws-cn")
	if parts[3] != "" {
		with("another region", 3, "eu-central-1")
	}
	if parts[4] != "" {
		with("another account", 4, Other)
	}
	name := parts[5]
	for _, at := range segments(name) {
		start, end := at[0], at[1]
		segment := name[start:end]
		kind := "a container that "
		if end == len(name) {
			kind = "a name that "
		}
		if segment == "*" {
			continue
		}
		// app/* has the siblings app2/x, ap/x, ap_/x, APp/x: none of them begins with app/.
		replace := func(how, segment string) { with(kind+how, 5, name[:start]+segment+name[end:]) }
		replace("is longer", segment+"2")
		replace("begins otherwise", "x"+segment)
		replace("is cut short", segment[:len(segment)-1])
		replace("ends otherwise", segment[:len(segment)-1]+"_")
		replace("has another case", segment[:len(segment)-1]+strings.ToUpper(segment[len(segment)-1:]))
	}
	add("what is below", granted+"/x")
	bare := strings.TrimRight(prefix, "/:")
	add("the container", bare)
	if wild {
		add("a name beside the container", bare+"x1")
	}
	if at := strings.LastIndexAny(bare, "/:"); at > len(granted)-len(name) {
		add("the parent", bare[:at])
		add("another child of the parent", bare[:at+1]+"other")
	}
	return all
}

// segments are where the parts of a name begin and end that "/" and ":" separate.
func segments(name string) [][2]int {
	var all [][2]int
	start := 0
	for i := range len(name) + 1 {
		if i < len(name) && name[i] != '/' && name[i] != ':' {
			continue
		}
		if i > start {
			all = append(all, [2]int{start, i})
		}
		start = i + 1
	}
	return all
}

// Types are the action's resource types that an ARN has the form of, as loosely
// as may be: a variable stands for any text.
func Types(action catalog.Action, arn string) []catalog.ResourceUse {
	service, _ := catalog.ServiceByPrefix(ServiceOf(action.Name))
	var uses []catalog.ResourceUse
	for _, use := range action.Resources {
		kind, known := service.ResourceType(use.Type)
		if known && form(kind).MatchString(arn) {
			uses = append(uses, use)
		}
	}
	return uses
}

var forms sync.Map // of the resource types, by their patterns

func form(kind catalog.ResourceType) *regexp.Regexp {
	id := strings.Join(kind.Patterns, ", ")
	if known, found := forms.Load(id); found {
		return known.(*regexp.Regexp)
	}
	var alternatives []string
	for _, pattern := range kind.Patterns {
		var text strings.Builder
		last := 0
		for _, at := range variable.FindAllStringIndex(pattern, -1) {
			text.WriteString(regexp.QuoteMeta(pattern[last:at[0]]) + ".+")
			last = at[1]
		}
		text.WriteString(regexp.QuoteMeta(pattern[last:]))
		alternatives = append(alternatives, text.String())
	}
	made := regexp.MustCompile(`(?is)\A(?:` + strings.Join(alternatives, "|") + `)\z`)
	forms.Store(id, made)
	return made
}
