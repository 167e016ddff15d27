package scope

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// ARN is an Amazon Resource Name, split at its first five colons.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
type ARN struct {
	Partition, Service, Region, Account, Resource string
}

// ParseARN splits text. It checks the frame only: six parts, the first "arn".
// The error is an *invalid.Error for the field "resource".
func ParseARN(text string) (ARN, error) {
	parts := strings.SplitN(text, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[5] == "" {
		return ARN{}, invalid.Field("resource", text, "not an ARN", "write arn:partition:service:region:account:resource")
	}
	return ARN{Partition: parts[1], Service: parts[2], Region: parts[3], Account: parts[4], Resource: parts[5]}, nil
}

// IsRegion says whether text has the shape of an AWS region's name.
func IsRegion(text string) bool { return region.MatchString(text) }

// String is the ARN as written.
func (a ARN) String() string {
	return strings.Join([]string{"arn", a.Partition, a.Service, a.Region, a.Account, a.Resource}, ":")
}

// Pattern is the shape of one resource type's ARN, in the notation of the
// Service Authorization Reference: arn:${Partition}:s3:::${BucketName}/${ObjectName}.
// https://docs.aws.amazon.com/service-authorization/latest/reference/reference.html
type Pattern struct {
	text    string
	frame   ARN // partition, service, region and account, variables included
	exact   *regexp.Regexp
	upTo    *regexp.Regexp // everything before a leaf that may end in "*"; nil where no "*" is possible
	example string
}

// pathVariables may hold "/": a name in them is a path.
var pathVariables = map[string]bool{
	"ObjectName":                       true,
	"SecretId":                         true,
	"ParameterNameWithoutLeadingSlash": true,
}

// shapes of the variables whose values AWS restricts. Any other variable holds
// no "/", no ":" and no wildcard.
var shapes = map[string]string{
	// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
	"BucketName": `[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]`,
}

const (
	segment     = `[^/:*?]+`     // one segment of a name
	path        = `[^/*?][^*?]*` // a name that may hold "/" and ":", but not first
	leafSegment = `(?:[^/*?]+/)`
)

var (
	variable   = regexp.MustCompile(`\$\{(\w+)\}`)
	partitions = regexp.MustCompile(`\A(?:aws|aws-cn|aws-us-gov)\z`)
	region     = regexp.MustCompile(`\A[a-z]{2}(?:-[a-z]+)+-[0-9]\z`)
	account    = regexp.MustCompile(`\A[0-9]{12}\z`)
)

// NewPattern reads a pattern. It panics on one that it can't read, since
// patterns are data of the program, never input.
func NewPattern(text string) Pattern {
	frame, err := ParseARN(text)
	if err != nil {
		panic(fmt.Sprintf("pattern %q: %v", text, err))
	}
	pattern := Pattern{text: text, frame: frame}
	resource := frame.Resource

	var exact strings.Builder
	variables, at, beforeLeaf, leaf := 0, 0, "", ""
	for _, span := range variable.FindAllStringSubmatchIndex(resource, -1) {
		exact.WriteString(regexp.QuoteMeta(resource[at:span[0]]))
		name := resource[span[2]:span[3]]
		beforeLeaf, leaf = exact.String(), name
		exact.WriteString(shapeOf(name))
		at, variables = span[1], variables+1
	}
	exact.WriteString(regexp.QuoteMeta(resource[at:]))
	pattern.exact = regexp.MustCompile(`\A` + exact.String() + `\z`)
	pattern.example = strings.NewReplacer("${Partition}", "aws", "${Region}", "eu-west-1", "${Account}", "123456789012").Replace(text)

	// A "*" may stand for the whole leaf or, where the leaf is a path, for what
	// follows a "/" in it, if an earlier part of the name says which container
	// is meant. A path that is the only variable needs at least one segment of
	// its own before the "*".
	before := strings.TrimSuffix(resource, "${"+leaf+"}")
	if variables > 0 && at == len(resource) && (strings.HasSuffix(before, "/") || strings.HasSuffix(before, ":")) {
		switch {
		case variables > 1 && pathVariables[leaf]:
			pattern.upTo = regexp.MustCompile(`\A` + beforeLeaf + leafSegment + `*\z`)
		case variables > 1:
			pattern.upTo = regexp.MustCompile(`\A` + beforeLeaf + `\z`)
		case pathVariables[leaf]:
			pattern.upTo = regexp.MustCompile(`\A` + beforeLeaf + leafSegment + `+\z`)
		}
	}
	return pattern
}

func shapeOf(name string) string {
	if shape, ok := shapes[name]; ok {
		return shape
	}
	if pathVariables[name] {
		return path
	}
	return segment
}

// String is the pattern as the reference writes it.
func (p Pattern) String() string { return p.text }

// Match says whether arn is exactly one resource of this type, or one
// container's leaves where the pattern allows a trailing "*". The error is an
// *invalid.Error for the field "resource" that says which part is wrong.
func (p Pattern) Match(arn ARN) error {
	wrong := func(problem string) error {
		return invalid.Field("resource", arn.String(), problem, "write it as "+p.example)
	}
	if arn.Service != p.frame.Service {
		return wrong(fmt.Sprintf("the ARN is of service %q, the action needs one of %q", arn.Service, p.frame.Service))
	}
	for _, part := range []struct {
		name, value, want string
		shape             *regexp.Regexp
	}{
		{"partition", arn.Partition, p.frame.Partition, partitions},
		{"region", arn.Region, p.frame.Region, region},
		{"account", arn.Account, p.frame.Account, account},
	} {
		if !strings.HasPrefix(part.want, "${") {
			if part.value != part.want {
				return wrong(fmt.Sprintf("the %s must be %q", part.name, part.want))
			}
			continue
		}
		if !part.shape.MatchString(part.value) {
			return wrong(fmt.Sprintf("the %s must be written out", part.name))
		}
	}
	for _, segment := range strings.Split(arn.Resource, "/") {
		if segment == ".." || segment == "." {
			return wrong("a segment \"..\" or \".\" means another place to some programs")
		}
	}
	if prefix, wild := strings.CutSuffix(arn.Resource, "*"); wild {
		if p.upTo == nil {
			return wrong("this type of resource takes no wildcard")
		}
		if !p.upTo.MatchString(prefix) {
			return wrong("what contains the resource has to be written out, and a \"*\" may only follow a \"/\" or stand for the whole last part")
		}
		return nil
	}
	if !p.exact.MatchString(arn.Resource) {
		return wrong("it does not have the shape of the resource that the action works on")
	}
	return nil
}
