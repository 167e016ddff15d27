package tests

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// maxPolicy is how many characters the inline policies of an IAM user may have.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const maxPolicy = 2048

// TestPolicySize writes roles at the edge of what IAM takes: the longest that
// fits is taken, with a policy that has no room left, and one character more is
// refused when the role is written, with what could be shorter.
func TestPolicySize(t *testing.T) {
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName})
	m.write("config/prod", m.cloudConfig())
	const bucket, key = "arn:aws:s3:::releases/", "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	for name, test := range map[string]struct {
		fields map[string]any
		before string // of the part that grows
		shrink []string
	}{
		"plain":      {map[string]any{"action": "s3:GetObject"}, bucket, []string{"shorter resource"}},
		"conditions": {map[string]any{"action": "s3:GetObject", "conditions": map[string]any{"StringEquals": map[string]any{"aws:PrincipalTag/team": "a"}}}, bucket, []string{"shorter resource", "conditions"}},
		"key":        {map[string]any{"action": "s3:PutObject", "kms_key": key}, bucket, []string{"shorter resource", "kms_key"}},
		"companions": {map[string]any{"action": "ssm:SendCommand", "allow_escalation": true, "companion_resources": []string{"arn:aws:ssm:eu-west-1:123456789012:document/restart"}}, "arn:aws:ec2:eu-west-1:123456789012:instance/i-", []string{"shorter resource", "companion_resources"}},
	} {
		t.Run(name, func(t *testing.T) {
			try := func(length int) error {
				fields := with(test.fields, map[string]any{"target": "prod", "resource": test.before + strings.Repeat("x", length)})
				_, err := m.Logical().WriteWithContext(t.Context(), m.path+"/roles/"+name, fields)
				return err
			}
			// The longest that is taken, by halves: it is taken, and one more is not.
			taken, refused := 1, 1000
			for refused-taken > 1 {
				if middle := (taken + refused) / 2; try(middle) == nil {
					taken = middle
				} else {
					refused = middle
				}
			}
			if err := try(taken); err != nil {
				t.Fatal(err)
			}
			longest := utf8.RuneCountInString(m.read("preview/" + name + "/JIRA-1").Data["policy"].(string))
			err := try(taken + 1)
			if err == nil {
				t.Fatal("one more is taken")
			}
			text := refusal(t, err)
			for _, part := range append(test.shrink, fmt.Sprint(maxPolicy)) {
				if !strings.Contains(text, part) {
					t.Errorf("%q does not mention %q", text, part)
				}
			}
			// Each character of a resource is there a few times.
			if most := 4; longest > maxPolicy || longest <= maxPolicy-most {
				t.Errorf("the longest policy that is taken has %d characters", longest)
			}
			t.Logf("%d characters with %d in the resource", longest, len(test.before)+taken)
		})
	}
}

// TestPolicySizeOfWhatComes holds that a role is measured with the longest that
// may come: a task, a parameter, an address.
func TestPolicySizeOfWhatComes(t *testing.T) {
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName})
	m.write("config/prod", m.cloudConfig())
	written := 0
	write := func(changes map[string]any) error {
		written++ // a role of its own: what is left out of a write stays as it was
		fields := with(map[string]any{"target": "prod", "action": "s3:GetObject"}, changes)
		_, err := m.Logical().WriteWithContext(t.Context(), fmt.Sprintf("%s/roles/x%d", m.path, written), fields)
		return err
	}
	const bucket = "arn:aws:s3:::releases/"
	// As much as fits, found with a plain role.
	longest := 1
	for longest < 1000 && write(map[string]any{"resource": bucket + strings.Repeat("x", longest+1)}) == nil {
		longest++
	}
	filled := func(left int, end string) string { return bucket + strings.Repeat("x", longest-left) + end }
	for name, test := range map[string]struct {
		fits, exceeds map[string]any
	}{
		"a task": {
			map[string]any{"resource": filled(128, "{{task}}")},
			map[string]any{"resource": filled(127, "{{task}}")},
		},
		"a parameter": {
			map[string]any{"resource": filled(20, "{{key}}"), "parameters": map[string]any{"key": map[string]any{"pattern": "[a-z]{1,20}"}}},
			map[string]any{"resource": filled(19, "{{key}}"), "parameters": map[string]any{"key": map[string]any{"pattern": "[a-z]{1,20}"}}},
		},
		"one of several": {
			map[string]any{"resource": filled(5, "{{key}}"), "parameters": map[string]any{"key": map[string]any{"one_of": []string{"a", "abcde"}}}},
			map[string]any{"resource": filled(4, "{{key}}"), "parameters": map[string]any{"key": map[string]any{"one_of": []string{"a", "abcde"}}}},
		},
		"an address": {
			map[string]any{"resource": filled(200, ""), "bound_source_ip": true},
			map[string]any{"resource": filled(60, ""), "bound_source_ip": true}, // enough for 127.0.0.1, not for any
		},
	} {
		if err := write(test.fits); err != nil {
			t.Errorf("%s that fits: %v", name, err)
		}
		err := write(test.exceeds)
		if err == nil {
			t.Errorf("%s that does not fit is taken", name)
		} else if text := refusal(t, err); !strings.Contains(text, fmt.Sprint(maxPolicy)) {
			t.Errorf("%s: %s", name, text)
		}
	}
}
