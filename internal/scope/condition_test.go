package scope

import (
	"strings"
	"testing"
)

func TestParseConditionsRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		raw  map[string]any
		says string
	}{
		"a key twice, case aside": {map[string]any{"StringEquals": map[string]any{"aws:SourceVpc": "vpc-1", "aws:sourcevpc": "vpc-2"}}, "twice"},
		"a variable in a key":     {map[string]any{"StringEquals": map[string]any{"aws:ResourceTag/${aws:username}": "a"}}, "written out"},
		"a key as the reference":  {map[string]any{"StringEquals": map[string]any{"s3:ExistingObjectTag/<key>": "a"}}, "written out"},
		"a wildcard in a key":     {map[string]any{"StringEquals": map[string]any{"aws:ResourceTag/*": "a"}}, "written out"},
		"a look-alike in a key":   {map[string]any{"StringEquals": map[string]any{"aws:ResourceTag/\u0435nv": "a"}}, "written out"},
		"a control in a key":      {map[string]any{"StringEquals": map[string]any{"aws:ResourceTag/a\nb": "a"}}, "written out"},
	} {
		_, err := ParseConditions(test.raw)
		if err == nil || !strings.Contains(err.Error(), "invalid conditions") || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want a refusal that says %q", name, err, test.says)
		}
	}
	two := map[string]any{"StringEquals": map[string]any{"aws:ResourceTag/Cost Centre": "a"}, "StringLike": map[string]any{"aws:resourcetag/cost centre": "b*"}}
	if _, err := ParseConditions(two); err != nil {
		t.Errorf("one key below two operators: %v", err)
	}
}
