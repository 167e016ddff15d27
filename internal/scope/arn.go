package scope

import (
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

// String is the ARN as written.
func (a ARN) String() string {
	return strings.Join([]string{"arn", a.Partition, a.Service, a.Region, a.Account, a.Resource}, ":")
}

// samples are the partitions that AWS has for the public, each with a region of
// it to show in errors.
// https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
var samples = map[string]string{"aws": "eu-west-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}

// IsRegion says whether text has the shape of an AWS region's name: eu-west-1,
// us-gov-west-1.
func IsRegion(text string) bool {
	words := 0
	for {
		word, rest, more := strings.Cut(text, "-")
		switch {
		case !more:
			return words >= 2 && len(word) == 1 && isDigit(word[0])
		case word == "" || words == 0 && len(word) != 2:
			return false
		}
		for i := range len(word) {
			if word[i] < 'a' || word[i] > 'z' {
				return false
			}
		}
		text, words = rest, words+1
	}
}

// regionOf says whether region belongs to partition, by the names that AWS
// gives them. A partition that AWS doesn't have owns no region.
func regionOf(partition, region string) bool {
	owner := "aws"
	switch {
	case strings.HasPrefix(region, "cn-"):
		owner = "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		owner = "aws-us-gov"
	}
	return owner == partition
}

// isAccount says whether text is an account's number.
func isAccount(text string) bool {
	for i := range len(text) {
		if !isDigit(text[i]) {
			return false
		}
	}
	return len(text) == 12
}

// isService says whether text has the shape of a service's name in an ARN.
func isService(text string) bool {
	for i := range len(text) {
		if char := text[i]; (char < 'a' || char > 'z') && !isDigit(char) && char != '-' {
			return false
		}
	}
	return text != ""
}

func isDigit(char byte) bool { return '0' <= char && char <= '9' }
