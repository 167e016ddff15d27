package scope

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Pattern is the shape of one resource type's ARN, in the notation of the
// Service Authorization Reference: arn:${Partition}:s3:::${BucketName}/${ObjectName}.
// https://docs.aws.amazon.com/service-authorization/latest/reference/reference.html
//
// It is read once and never changes; matching compiles and allocates nothing.
type Pattern struct {
	text   string
	frame  ARN      // partition, service, region and account, variables included
	owners []string // what else than a number the account may be
	tokens []token  // the resource part
	wild   bool     // whether a "*" may end the resource
	least  int      // segments that a "*" needs before it in the leaf
	// principal is who a "*" in the leaf would stand for, "" where that is nobody.
	principal string
	// example is Example("aws").
	example string
}

// token is a piece of the resource part: text that is always there, or a slot.
type token struct {
	literal  string
	variable string // "" for a literal; unnamed for a "*" in the reference
	shape    shape
}

// unnamed is the variable that the reference writes as "*": arn:…:cert:*.
const unnamed = "*"

// maxTokens bounds the pieces of a resource part, so that matching needs no heap.
const maxTokens = 24

// NewPattern reads a pattern. It panics on one that it can't read, since
// patterns are data of the program, never input.
func NewPattern(text string) Pattern {
	pattern, err := ParsePattern(text)
	if err != nil {
		panic(err)
	}
	return pattern
}

// ParsePattern reads a pattern. A text with alternatives ("arn:…, arn:…") is
// several patterns: split it first.
func ParsePattern(text string) (Pattern, error) {
	frame, err := ParseARN(text)
	if err != nil {
		return Pattern{}, fmt.Errorf("pattern %q: not an ARN", text)
	}
	if strings.Contains(text, ", arn:") {
		return Pattern{}, fmt.Errorf("pattern %q: several ARNs in one", text)
	}
	for _, part := range []string{frame.Partition, frame.Service, frame.Region, frame.Account} {
		if inner := strings.TrimSuffix(strings.TrimPrefix(part, "${"), "}"); strings.ContainsAny(inner, "${}") || part != inner && part != "${"+inner+"}" {
			return Pattern{}, fmt.Errorf("pattern %q: %q is neither text nor one variable", text, part)
		}
	}
	pattern := Pattern{text: text, frame: frame}
	id := frame.Service + ":" + frame.Resource
	pattern.owners = owners[id]
	if pattern.tokens, err = tokenise(id, frame.Resource); err != nil {
		return Pattern{}, fmt.Errorf("pattern %q: %w", text, err)
	}
	pattern.wild, pattern.least = wildcard(pattern.tokens)
	if pattern.principal = principals[id]; principalServices[frame.Service] {
		pattern.principal = "any principal or account"
	}
	if pattern.principal != "" || isVariable(frame.Service) {
		pattern.wild = false
	}
	pattern.example = pattern.Example("aws")
	return pattern, nil
}

// tokenise cuts a resource part into literals and variables. The reference also
// has "*" for a variable without a name, and one variable without its "$".
func tokenise(id, resource string) ([]token, error) {
	var tokens []token
	for rest := resource; rest != ""; {
		at := strings.IndexAny(rest, "${}*?")
		if at < 0 {
			at = len(rest)
		}
		if at > 0 {
			tokens, rest = append(tokens, token{literal: rest[:at]}), rest[at:]
			continue
		}
		name, after, closed := unnamed, rest[1:], true
		if rest[0] != '*' {
			name, after, closed = strings.Cut(strings.TrimPrefix(rest, "$"), "}")
			closed = closed && strings.HasPrefix(name, "{")
			name = strings.TrimPrefix(name, "{")
		}
		if !closed || name == "" || strings.ContainsAny(name, "${}/:?") {
			return nil, fmt.Errorf("can't be read from %q", rest)
		}
		tokens, rest = append(tokens, token{variable: name, shape: shapeOf(id, name)}), after
	}
	if len(tokens) > maxTokens {
		return nil, fmt.Errorf("has more than %d parts", maxTokens)
	}
	return tokens, nil
}

// wildcard says whether a "*" may end a resource of these tokens, and how many
// segments of the leaf have to stand before it. A "*" may stand for the whole
// leaf or, where the leaf is a path, for what follows a "/" in it, if an earlier
// variable says which container is meant. A path that is the only variable needs
// a segment of its own before the "*".
func wildcard(tokens []token) (allowed bool, least int) {
	last := len(tokens) - 1
	if last < 1 || tokens[last].variable == "" {
		return false, 0
	}
	if before := tokens[last-1].literal; !strings.HasSuffix(before, "/") && !strings.HasSuffix(before, ":") {
		return false, 0
	}
	for _, earlier := range tokens[:last] {
		if earlier.variable != "" {
			return true, 0
		}
	}
	return tokens[last].shape.nests(), 1
}

func isVariable(part string) bool { return strings.HasPrefix(part, "${") || part == unnamed }

// String is the pattern as the reference writes it.
func (p Pattern) String() string { return p.text }

// Wildcard says whether a "*" may end a resource of this type at all.
func (p Pattern) Wildcard() bool { return p.wild }

// Example shows the pattern with partition, region and account filled in. A
// partition that AWS doesn't have becomes "aws".
func (p Pattern) Example(partition string) string {
	region, known := samples[partition]
	if !known {
		partition, region = "aws", samples["aws"]
	}
	arn := p.frame
	for part, sample := range map[*string]string{&arn.Partition: partition, &arn.Region: region, &arn.Account: "123456789012"} {
		if isVariable(*part) {
			*part = sample
		}
	}
	var resource strings.Builder
	for _, token := range p.tokens {
		switch token.variable {
		case "":
			resource.WriteString(token.literal)
		case unnamed:
			resource.WriteString("${Name}")
		default:
			resource.WriteString("${" + token.variable + "}")
		}
	}
	arn.Resource = resource.String()
	return arn.String()
}

// Match says whether arn is exactly one resource of this type, or one
// container's leaves where the pattern allows a trailing "*". The error is an
// *invalid.Error for the field "resource" that says which part is wrong.
func (p Pattern) Match(arn ARN) error {
	var ends [maxTokens]int
	problem := p.match(arn, &ends)
	if problem == "" {
		return nil
	}
	remedy := "write it as " + p.Example(arn.Partition)
	if narrowest, found := p.Narrowest(arn); found {
		remedy = "write it as " + narrowest
	}
	return invalid.Field("resource", arn.String(), problem, remedy)
}

// Fits says the same as Match, without a reason and for less.
func (p Pattern) Fits(arn ARN) bool {
	var ends [maxTokens]int
	return p.match(arn, &ends) == ""
}

// match fills in where each token of the resource part ends. It returns what is
// wrong, "" if nothing is.
func (p Pattern) match(arn ARN, ends *[maxTokens]int) string {
	if problem := p.checkFrame(arn); problem != "" {
		return problem
	}
	if problem := checkCharacters(arn.Resource); problem != "" {
		return problem
	}
	prefix, wild := strings.CutSuffix(arn.Resource, "*")
	switch {
	case wild && p.principal != "":
		return "this type of resource takes no wildcard, which would stand for " + p.principal
	case wild && !p.wild:
		return "this type of resource takes no wildcard"
	case !wild && !p.walk(arn.Resource, exact, 0, 0, ends):
		return "it does not have the shape of the resource that the action works on"
	case wild && !p.walk(prefix, upToLeaf, 0, 0, ends):
		return "what contains the resource has to be written out, and a \"*\" may only follow a \"/\" or stand for the whole last part"
	}
	return ""
}

// checkFrame says what is wrong with everything before the resource part.
func (p Pattern) checkFrame(arn ARN) string {
	_, known := samples[arn.Partition]
	switch {
	case isVariable(p.frame.Service) && !isService(arn.Service):
		return "the service must be written out"
	case !isVariable(p.frame.Service) && arn.Service != p.frame.Service:
		return fmt.Sprintf("the ARN is of service %q, the action needs one of %q", arn.Service, p.frame.Service)

	case isVariable(p.frame.Partition) && !known:
		return "the partition must be written out"
	case !isVariable(p.frame.Partition) && arn.Partition != p.frame.Partition:
		return fmt.Sprintf("the partition must be %q", p.frame.Partition)

	case p.frame.Region == unnamed && (arn.Region == "" || arn.Region == "global"):
		// https://docs.aws.amazon.com/health/latest/APIReference/API_Event.html
	case isVariable(p.frame.Region) && !IsRegion(arn.Region):
		return "the region must be written out"
	case isVariable(p.frame.Region) && !regionOf(arn.Partition, arn.Region):
		return fmt.Sprintf("the region %q is not one of partition %q", arn.Region, arn.Partition)
	case !isVariable(p.frame.Region) && arn.Region != p.frame.Region:
		return fmt.Sprintf("the region must be %q", p.frame.Region)
	}
	switch {
	case p.frame.Account == unnamed && arn.Account == "":
	case isVariable(p.frame.Account) && !isAccount(arn.Account) && !p.OfAmazon(arn):
		return "the account must be written out"
	case !isVariable(p.frame.Account) && arn.Account != p.frame.Account:
		return fmt.Sprintf("the account must be %q", p.frame.Account)
	}
	return ""
}

// OfAmazon says whether AWS owns the resource, so that its ARN has "aws" or
// nothing in the place of a customer's account.
func (p Pattern) OfAmazon(arn ARN) bool { return slices.Contains(p.owners, arn.Account) }

// checkCharacters says what no resource part may hold, whatever its type.
func checkCharacters(resource string) string {
	for _, char := range resource {
		// IAM takes only U+0020 to U+00FF (and tab, LF, CR, which no resource
		// name needs) in a policy document.
		// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
		if unicode.IsControl(char) || char > 0xFF {
			return "it holds a character that a policy can't"
		}
	}
	if strings.Contains(resource, "${") {
		return "a policy variable would be filled in by the target, not by the role"
	}
	for rest, more := resource, true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		if segment == "." || segment == ".." {
			return "a segment \"..\" or \".\" means another place to some programs"
		}
	}
	return ""
}
