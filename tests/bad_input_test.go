package tests

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Whatever is refused has status 400 and says which field is wrong, what it
// holds and what would be right; and nothing has changed.
func TestBadInput(t *testing.T) {
	m := newMount(t)
	store, cloud := m.storeConfig(), m.cloudConfig()
	role := map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "10m", "max_ttl": "30m"}
	type fields = map[string]any
	for name, test := range map[string]struct {
		path string
		data map[string]any
		says []string // field, value and remedy; nil where Vault itself refuses
	}{
		"config: unknown field":         {"config/new", with(store, fields{"endpiont": "x"}), []string{"endpiont", "endpoint"}},
		"config: no type":               {"config/new", with(store, fields{"type": nil}), []string{"type", "name aws, "}},
		"config: unknown type":          {"config/new", with(store, fields{"type": "gcp"}), []string{"type", "gcp", "name aws, "}},
		"config: type of a live target": {"config/prod", store, []string{"type", "minio", "aws"}},
		"config: another type's field":  {"config/new", with(store, fields{"iam_endpoint": "http://x"}), []string{"iam_endpoint", "leave it out"}},
		"config: odd name":              {"config/a b", store, []string{"target", "a b", "letters"}},
		"config: slash in the name":     {"config/a/b", store, []string{"target", "a/b", "letters"}},
		"config: no endpoint":           {"config/new", with(store, fields{"endpoint": nil}), []string{"endpoint", "missing", "https://"}},
		"config: no URL":                {"config/new", with(store, fields{"endpoint": "minio.example.com"}), []string{"endpoint", "minio.example.com", "https://"}},
		"config: path in the URL":       {"config/new", with(store, fields{"endpoint": "http://127.0.0.1/x"}), []string{"endpoint", "/x", "https://"}},
		"config: password in the URL":   {"config/new", with(store, fields{"endpoint": "http://u:hunter2@127.0.0.1"}), []string{"endpoint", "credentials", "https://host:port"}},
		"config: out of reach":          {"config/new", with(store, fields{"endpoint": "http://127.0.0.1:1"}), []string{"endpoint", "127.0.0.1:1", "connection refused", "verify_connection"}},
		"config: not a store":           {"config/new", with(store, fields{"endpoint": servers.Vault.Address}), []string{"endpoint", servers.Vault.Address, "check the URL"}},
		"config: unknown access key":    {"config/new", with(store, fields{"access_key": "nobody"}), []string{"access_key", "nobo…", "user of this store"}},
		"config: wrong secret key":      {"config/new", with(store, fields{"secret_key": "hunter2"}), []string{"secret_key", store["access_key"].(string)[:4] + "…"}},
		"config: empty secret key":      {"config/new", with(store, fields{"secret_key": ""}), []string{"secret_key", "missing"}},
		"config: swapped keys":          {"config/new", with(store, fields{"access_key": "hunter2-hunter2", "secret_key": "precision-engine"}), []string{"access_key", "hunt…"}},
		"config: password, no scheme":   {"config/new", with(store, fields{"endpoint": "user:hunter2@127.0.0.1:9000"}), []string{"endpoint", "https://host:port"}},
		"config: keys for an endpoint":  {"config/new", with(store, fields{"endpoint": "user:hunter2"}), []string{"endpoint", "https://host:port"}},
		"config: query in the URL":      {"config/new", with(cloud, fields{"iam_endpoint": "https://127.0.0.1/?token=hunter2"}), []string{"iam_endpoint", "https://host:port"}},
		"config: list of secret keys":   {"config/new", with(store, fields{"secret_key": []string{"hunter2"}}), []string{"secret_key", "a string", "a list"}},
		"config: verify perhaps":        {"config/new", with(store, fields{"verify_connection": "perhaps"}), []string{"verify_connection", "perhaps", "true or false"}},
		"config: no region":             {"config/new", with(cloud, fields{"region": nil}), []string{"region", "eu-west-1"}},
		"config: odd region":            {"config/new", with(cloud, fields{"region": "x; rm"}), []string{"region", "x; rm", "eu-west-1"}},
		"config: key without secret":    {"config/new", with(cloud, fields{"secret_key": nil}), []string{"secret_key", "both"}},
		"config: secret without key":    {"config/new", with(cloud, fields{"access_key": nil}), []string{"access_key", "both"}},
		"config: unknown AWS key":       {"config/new", with(cloud, fields{"access_key": "AKIANOBODY"}), []string{"access_key", "AKIA…", "active"}},
		"config: wrong AWS secret":      {"config/new", with(cloud, fields{"secret_key": "hunter2"}), []string{"secret_key", cloud["access_key"].(string)[:4] + "…"}},
		"config: AWS out of reach":      {"config/new", with(cloud, fields{"sts_endpoint": "http://127.0.0.1:1"}), []string{"sts_endpoint", "connection refused", "verify_connection"}},
		"config: IAM out of reach":      {"config/new", with(cloud, fields{"iam_endpoint": "http://127.0.0.1:1"}), []string{"iam_endpoint", "connection refused", "verify_connection"}},

		"role: unknown field":            {"roles/new", with(role, fields{"resuorce": "x"}), []string{"resuorce", "resource"}},
		"role: name in the data":         {"roles/new", with(role, fields{"role": "other"}), []string{"role", "part of the path"}},
		"role: no target":                {"roles/new", with(role, fields{"target": nil}), []string{"target", "missing", "config/"}},
		"role: unknown target":           {"roles/new", with(role, fields{"target": "stroe"}), []string{"target", "stroe", "prod or store"}},
		"role: no action":                {"roles/new", with(role, fields{"action": nil}), []string{"action", "s3:PutObject"}},
		"role: wildcard action":          {"roles/new", with(role, fields{"action": "s3:*"}), []string{"action", "s3:*", "wildcard"}},
		"role: unknown action":           {"roles/new", with(role, fields{"action": "s3:PutObjects"}), []string{"action", "s3:PutObjects", "s3:PutObject"}},
		"role: action in another case":   {"roles/new", with(role, fields{"action": "s3:putobject"}), []string{"action", "s3:putobject", "s3:PutObject"}},
		"role: escalating action":        {"roles/new", with(role, fields{"target": "prod", "action": "iam:CreateAccessKey", "resource": "arn:aws:iam::123456789012:user/x"}), []string{"action", "iam:CreateAccessKey"}},
		"role: action that MinIO widens": {"roles/new", with(role, fields{"action": "s3:DeleteObject"}), []string{"action", "s3:DeleteObject", "exactly", "every version"}},
		"role: key that MinIO bends":     {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases/app//x"}), []string{"resource", "app//x", "${ObjectName}"}},
		"role: key that ends in a dot":   {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases/app./*"}), []string{"resource", "app./*", "plain key"}},
		"role: too long for MinIO":       {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases/" + strings.Repeat("x", 1000)}), []string{"resource", "2048", "shorter"}},
		"role: number for an action":     {"roles/new", with(role, fields{"action": 5}), []string{"action", "a string", "a number"}},
		"role: object for an action":     {"roles/new", with(role, fields{"action": fields{"a": "b"}}), []string{"action", "a string", "an object"}},
		"role: null action":              {"roles/new", map[string]any{"target": "store", "action": nil, "resource": uploads}, []string{"action", "a string", "null"}},
		"role: no resource":              {"roles/new", with(role, fields{"resource": nil}), []string{"resource", "arn:aws:s3:::"}},
		"role: no ARN":                   {"roles/new", with(role, fields{"resource": "releases/app"}), []string{"resource", "releases/app", "arn:aws:s3:::"}},
		"role: bucket for an object":     {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases"}), []string{"resource", "arn:aws:s3:::releases", "${ObjectName}"}},
		"role: wildcard bucket":          {"roles/new", with(role, fields{"resource": "arn:aws:s3:::rel*/app"}), []string{"resource", "rel*/app"}},
		"role: half a segment":           {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases/app*"}), []string{"resource", "app*", "may only follow"}},
		"role: policy variable":          {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases/${aws:username}/*"}), []string{"resource", "${aws:username}", "write it out"}},
		"role: huge resource":            {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases/" + strings.Repeat("x", 100_000)}), []string{"resource", "bytes", "shorten"}},
		"role: another partition":        {"roles/new", with(role, fields{"resource": "arn:aws-cn:s3:::releases/app/*"}), []string{"resource", "aws-cn", "partition"}},
		"role: another account":          {"roles/new", with(role, fields{"target": "prod", "action": "sqs:SendMessage", "resource": "arn:aws:sqs:us-east-1:999999999999:jobs"}), []string{"resource", "999999999999", "123456789012"}},
		"role: policy too long":          {"roles/new", with(role, fields{"target": "prod", "resource": "arn:aws:s3:::releases/" + strings.Repeat("x", 1000)}), []string{"resource", "2048", "shorter"}},
		"role: operation of the API":     {"roles/new", with(role, fields{"target": "prod", "action": "s3:HeadObject"}), []string{"action", "s3:HeadObject", "s3:GetObject"}},
		"role: no resource level":        {"roles/new", with(role, fields{"target": "prod", "action": "ec2:DescribeInstances", "resource": "arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0"}), []string{"resource", "resource-level", "ec2:Region"}},
		"role: every index":              {"roles/new", with(role, fields{"target": "prod", "action": "es:ESHttpPost", "resource": "arn:aws:es:eu-west-1:123456789012:domain/logs/_bulk"}), []string{"resource", "_bulk", "INDEX/_doc/ID"}},
		"role: any topic":                {"roles/new", with(role, fields{"target": "prod", "action": "iot:Subscribe", "resource": "arn:aws:iot:eu-west-1:123456789012:topicfilter/devices/+"}), []string{"resource", "devices/+", "name/#"}},
		"role: sibling of a refused one": {"roles/new", with(role, fields{"target": "prod", "action": "glue:UpdateJobFromSourceControl", "resource": "arn:aws:glue:eu-west-1:123456789012:job/x"}), []string{"action", "glue:UpdateJobFromSourceControl", "allow_escalation"}},
		"role: undefined parameter":      {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases/{{key}}"}), []string{"parameters", "key", "pattern"}},
		"role: parameters, no JSON":      {"roles/new", with(role, fields{"parameters": "key"}), []string{"parameters", "key", "JSON"}},
		"role: parameter twice":          {"roles/new", with(role, fields{"parameters": `{"key":"a","key":"b"}`}), []string{"parameters", "twice", "JSON"}},
		"role: list of parameters":       {"roles/new", with(role, fields{"parameters": []string{"key"}}), []string{"parameters", "an object", "a list"}},
		"role: reserved parameter":       {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases/{{ttl}}", "parameters": fields{"ttl": ".*"}}), []string{"parameters", "ttl", "meaning"}},
		"role: unfinished reference":     {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases/{{key"}), []string{"resource", "{{key", "not closed"}},
		"role: conditions on MinIO":      {"roles/new", with(role, fields{"conditions": fields{"Bool": fields{"aws:SecureTransport": true}}}), []string{"conditions", "MinIO", "leave them out"}},
		"role: address on MinIO":         {"roles/new", with(role, fields{"bound_source_ip": true}), []string{"bound_source_ip", "MinIO", "leave it out"}},
		"role: companion on MinIO":       {"roles/new", with(role, fields{"companion_resources": []string{"arn:aws:s3:::releases"}}), []string{"companion_resources", "MinIO", "leave them out"}},
		"role: number for a companion":   {"roles/new", with(role, fields{"companion_resources": []any{5}}), []string{"companion_resources", "a list of strings", "a number"}},
		"role: unknown condition key":    {"roles/new", with(role, fields{"target": "prod", "conditions": fields{"StringEquals": fields{"s3:nothing": "x"}}}), []string{"conditions", "s3:nothing", "s3:x-amz-acl"}},
		"role: unknown operator":         {"roles/new", with(role, fields{"target": "prod", "conditions": fields{"StringIs": fields{"aws:PrincipalTag/a": "x"}}}), []string{"conditions", "StringIs"}},
		"role: odd kms_key":              {"roles/new", with(role, fields{"target": "prod", "kms_key": "alias/app"}), []string{"kms_key", "alias/app", "arn:aws:kms"}},
		"role: odd resource_account":     {"roles/new", with(role, fields{"target": "prod", "resource_account": "*"}), []string{"resource_account", "*", "12 digits"}},
		"role: longest value too long":   {"roles/new", with(role, fields{"target": "prod", "resource": "arn:aws:s3:::releases/{{key}}", "parameters": fields{"key": "[a-z]{1,900}"}}), []string{"resource", "2048", "shorter"}},
		"role: longest value on MinIO":   {"roles/new", with(role, fields{"resource": "arn:aws:s3:::releases/{{key}}", "parameters": fields{"key": "[a-z]{1,900}"}}), []string{"resource", "2048", "shorter"}},
		"role: ttl above max_ttl":        {"roles/new", with(role, fields{"ttl": "31m"}), []string{"ttl", "31m", "max_ttl"}},
		"role: negative ttl":             {"roles/new", with(role, fields{"ttl": "-5m"}), []string{"ttl", "-5m", "one second or more"}},
		"role: zero ttl":                 {"roles/new", with(role, fields{"ttl": 0}), []string{"ttl", `"0"`, "one second or more"}},
		"role: half a second":            {"roles/new", with(role, fields{"ttl": "500ms"}), []string{"ttl", "500ms", "whole seconds"}},
		"role: empty ttl":                {"roles/new", with(role, fields{"ttl": ""}), []string{"ttl", "whole seconds"}},
		"role: word for a ttl":           {"roles/new", with(role, fields{"ttl": "soon"}), []string{"ttl", "soon", "whole seconds"}},
		"role: endless ttl":              {"roles/new", with(role, fields{"ttl": "99999999999999999999"}), []string{"ttl", "whole seconds"}},
		"role: overflowing ttl":          {"roles/new", with(role, fields{"ttl": "18446744073709"}), []string{"ttl", "18446744073709", "whole seconds"}},
		"role: negative max_ttl":         {"roles/new", with(role, fields{"max_ttl": -1}), []string{"max_ttl", "-1", "one second or more"}},
		"role: another type's field":     {"roles/new", with(role, fields{"credential_type": "iam_user"}), []string{"credential_type", "minio", "leave it out"}},
		"role: unknown credential type":  {"roles/new", with(role, fields{"target": "prod", "credential_type": "root"}), []string{"credential_type", "root", "iam_user"}},
		"role: odd boundary":             {"roles/new", with(role, fields{"target": "prod", "permissions_boundary_arn": "*"}), []string{"permissions_boundary_arn", "*", "arn:aws:iam::"}},
		"role: odd task_pattern":         {"roles/new", with(role, fields{"task_pattern": "JIRA-("}), []string{"task_pattern", "JIRA-(", "RE2"}},
		"role: pattern of two halves":    {"roles/new", with(role, fields{"task_pattern": "a)|(b"}), []string{"task_pattern", "a)|(b", "RE2"}},
		"role: empty task_pattern":       {"roles/new", with(role, fields{"task_pattern": ""}), []string{"task_pattern", "empty", "null in a patch"}},
		"role: odd require_task":         {"roles/new", with(role, fields{"require_task": "yes"}), []string{"require_task", "yes", "true or false"}},
		"role: odd window":               {"roles/new", with(role, fields{"window": "fridays", "window_duration": "4h"}), []string{"window", "fridays", "0 22 * * 5"}},
		"role: window with seconds":      {"roles/new", with(role, fields{"window": "0 0 22 * * 5", "window_duration": "4h"}), []string{"window", "0 0 22 * * 5", "five fields"}},
		"role: window with its own zone": {"roles/new", with(role, fields{"window": "TZ=UTC 22 * * 5", "window_duration": "4h"}), []string{"window", "TZ=UTC", "no field"}},
		"role: first Friday":             {"roles/new", with(role, fields{"window": "0 22 1-7 * 5", "window_duration": "4h"}), []string{"window", "1-7", "different ways"}},
		"role: window that never opens":  {"roles/new", with(role, fields{"window": "0 22 30 2 *", "window_duration": "4h"}), []string{"window", "30 2", "no such day"}},
		"role: window that never closes": {"roles/new", with(role, fields{"window": "0 * * * *", "window_duration": "1h"}), []string{"window_duration", "1h", "never does"}},
		"role: window, how long":         {"roles/new", with(role, fields{"window": "0 22 * * 5"}), []string{"window_duration", "missing", "4h"}},
		"role: how long, of what":        {"roles/new", with(role, fields{"window_duration": "4h"}), []string{"window_duration", "4h", "window"}},
		"role: odd zone":                 {"roles/new", with(role, fields{"window": "0 22 * * 5", "window_duration": "4h", "window_timezone": "Local"}), []string{"window_timezone", "Local", "Europe/Berlin"}},
		"role: zone of nothing":          {"roles/new", with(role, fields{"window_timezone": "UTC"}), []string{"window_timezone", "UTC", "window"}},
		"role: odd not_before":           {"roles/new", with(role, fields{"not_before": "tomorrow"}), []string{"not_before", "tomorrow", "2026-11-27T22:00:00+01:00"}},
		"role: not_after in no zone":     {"roles/new", with(role, fields{"not_after": "2026-11-27T22:00:00"}), []string{"not_after", "2026-11-27T22:00:00", "Z for UTC"}},
		"role: not_after before":         {"roles/new", with(role, fields{"not_before": "2026-11-27T22:00:00Z", "not_after": "2026-11-27T22:00:00+01:00"}), []string{"not_after", "not_before", "later"}},
		"role: negative max_active":      {"roles/new", with(role, fields{"max_active": -1}), []string{"max_active", "-1", "0 for any"}},
		"role: huge max_active":          {"roles/new", with(role, fields{"max_active": "99999999999"}), []string{"max_active", "99999999999", "whole number"}},
		"role: limit of no task":         {"roles/new", with(role, fields{"max_active_per_task": 1}), []string{"max_active_per_task", "require_task=true"}},
		"role: odd on_limit":             {"roles/new", with(role, fields{"on_limit": "kill"}), []string{"on_limit", "kill", "refuse or replace"}},
		"role: odd network":              {"roles/new", with(role, fields{"bound_cidrs": "10.0.0.0/8,10.1"}), []string{"bound_cidrs", "10.1", "10.1.0.0/16"}},
		"role: network with a host":      {"roles/new", with(role, fields{"bound_cidrs": "10.1.2.3/8"}), []string{"bound_cidrs", "10.1.2.3/8", "10.0.0.0/8"}},
		"role: empty networks":           {"roles/new", with(role, fields{"bound_cidrs": ""}), []string{"bound_cidrs", "empty", "null in a patch"}},
		"role: name of an entity":        {"roles/new", with(role, fields{"bound_entity_ids": "alice"}), []string{"bound_entity_ids", "alice", "identity/entity/name"}},
		"role: name of a group":          {"roles/new", with(role, fields{"bound_group_ids": []string{"ops"}}), []string{"bound_group_ids", "ops", "identity/group/name"}},
		"role: space in the name":        {"roles/a b", role, []string{"role", "a b", "letters"}},
		"role: slash in the name":        {"roles/a/b", role, []string{"role", "a/b", "letters"}},
		"role: newline in the name":      {"roles/a\nb", role, nil},
		"role: dots in the name":         {"roles/a..b", role, []string{"role", "a..b", "letters"}},
		"role: look-alike in the name":   {"roles/upl\u043ead", role, []string{"role", "letters"}},
		"role: huge name":                {"roles/" + strings.Repeat("x", 4000), role, []string{"role", "64", "shorten"}},

		"role: groups and no approvals":  {"roles/new", with(role, fields{"approver_group_ids": "5f0e6c1b-0000-0000-0000-000000000000"}), []string{"approver_group_ids", "approvals"}},
		"role: time and no approvals":    {"roles/new", with(role, fields{"approval_ttl": "1h"}), []string{"approval_ttl", "approvals"}},
		"role: uses and no approvals":    {"roles/new", with(role, fields{"approval_uses": 2}), []string{"approval_uses", "approvals"}},
		"role: no uses":                  {"roles/new", with(role, fields{"approvals": 1, "approval_uses": 0}), []string{"approval_uses", `"0"`, "one approval"}},
		"role: a group's name":           {"roles/new", with(role, fields{"approvals": 1, "approver_group_ids": "leads"}), []string{"approver_group_ids", "leads", "identity/group/name"}},
		"role: an empty group":           {"roles/new", with(role, fields{"approvals": 1, "approver_group_ids": ""}), []string{"approver_group_ids", "empty", "null in a patch"}},
		"role: too many approvals":       {"roles/new", with(role, fields{"approvals": 11}), []string{"approvals", "11", "0 and 10"}},
		"role: negative approvals":       {"roles/new", with(role, fields{"approvals": -1}), []string{"approvals", "-1", "0 and 10"}},
		"role: approvals in a word":      {"roles/new", with(role, fields{"approvals": "two"}), []string{"approvals", "two", "digits"}},
		"role: long approval":            {"roles/new", with(role, fields{"approvals": 1, "approval_ttl": "169h"}), []string{"approval_ttl", "169h", "168h"}},
		"role: approvals and renewal":    {"roles/new", with(role, fields{"target": "prod", "approvals": 1, "renewable": true}), []string{"renewable", "approved", "ask again"}},
		"role: a parameter named reason": {"roles/new", with(role, fields{"approvals": 1, "resource": "arn:aws:s3:::releases/{{reason}}", "parameters": fields{"reason": "[a-z]+"}}), []string{"parameters", "reason", "another name"}},

		"requests: no role":          {"requests", fields{"task": "T-1", "reason": "x"}, []string{"role", "letters"}},
		"requests: unknown role":     {"requests", fields{"role": "nobody", "task": "T-1", "reason": "x"}, []string{"role", "nobody"}},
		"requests: nothing to ask":   {"requests", fields{"role": "upload", "task": "T-1", "reason": "x"}, []string{"role", "upload", "no approval", "creds/upload/T-1"}},
		"requests: unknown field":    {"requests", fields{"role": "upload", "task": "T-1", "reason": "x", "approved_by": "bob"}, []string{"approved_by", "ttl"}},
		"requests: list of reasons":  {"requests", fields{"role": "upload", "task": "T-1", "reason": []string{"x"}}, []string{"reason", "a string", "a list"}},
		"requests: odd id":           {"requests/x/approve", nil, []string{"id", "x", "list requests/"}},
		"requests: unknown id":       {"requests/00000000-aaaaaaaa-aaaaaaaa/deny", nil, []string{"id", "00000000-aaaaaaaa-aaaaaaaa", "list requests/"}},
		"requests: id in the data":   {"requests/x/cancel", fields{"id": "y"}, []string{"id", "part of the path"}},
		"freeze: nothing":            {"freeze", fields{"reason": "x"}, []string{"role", "all=true"}},
		"freeze: two":                {"freeze", fields{"reason": "x", "role": "upload", "target": "store"}, []string{"more than one", "one of them only"}},
		"freeze: role and all":       {"freeze", fields{"reason": "x", "role": "upload", "all": true}, []string{"more than one", "one of them only"}},
		"freeze: all=false":          {"freeze", fields{"reason": "x", "all": false}, []string{"all", "false", "all=true"}},
		"freeze: role and all=false": {"freeze", fields{"reason": "x", "role": "upload", "all": false}, []string{"all", "false"}},
		"freeze: no reason":          {"freeze", fields{"role": "upload"}, []string{"reason", "missing"}},
		"freeze: two lines":          {"freeze", fields{"role": "upload", "reason": "x\ny"}, []string{"reason", "printed"}},
		"freeze: unknown role":       {"freeze", fields{"role": "uplaod", "reason": "x"}, []string{"role", "uplaod", "upload", "nothing was frozen"}},
		"freeze: unknown target":     {"freeze", fields{"target": "stores", "reason": "x"}, []string{"target", "stores", "did you mean store?"}},
		"freeze: nothing like it":    {"freeze", fields{"target": "zzzzzz", "reason": "x"}, []string{"target", "zzzzzz", "list config/"}},
		"freeze: odd name":           {"freeze", fields{"role": "../x", "reason": "x"}, []string{"role", "../x", "letters"}},
		"freeze: empty name":         {"freeze", fields{"role": "", "reason": "x"}, []string{"role", "letters"}},
		"freeze: unknown field":      {"freeze", fields{"task": "T-1", "reason": "x"}, []string{"task", "role"}},
		"unfreeze: what is not":      {"unfreeze", fields{"role": "upload", "reason": "x"}, []string{"upload", "not frozen", "nothing"}},
		"unfreeze: no reason":        {"unfreeze", fields{"all": true}, []string{"reason", "missing"}},

		"creds: unknown role":          {"creds/nobody/T-1", nil, []string{"role", "nobody", "roles/"}},
		"creds: odd role":              {"creds/a b/T-1", nil, []string{"role", "a b", "letters"}},
		"creds: dots in the task":      {"creds/upload/v1..2", nil, []string{"task", "v1..2", "letters"}},
		"creds: slash in the task":     {"creds/upload/a/b", nil, []string{"task", "a/b", "letters"}},
		"creds: space in the task":     {"creds/upload/a b", nil, []string{"task", "a b", "letters"}},
		"creds: newline in the task":   {"creds/upload/a\nb", nil, nil},
		"creds: huge task":             {"creds/upload/" + strings.Repeat("x", 4000), nil, []string{"task", "128", "shorten"}},
		"creds: unknown field":         {"creds/upload/T-1", fields{"tll": "5m"}, []string{"tll", "ttl"}},
		"creds: resource":              {"creds/upload/T-1", fields{"resource": "arn:aws:s3:::private/*"}, []string{"resource", "ttl"}},
		"creds: role in the data":      {"creds/upload/T-1", fields{"role": "publish"}, []string{"role", "part of the path"}},
		"creds: ttl above max_ttl":     {"creds/upload/T-1", fields{"ttl": "31m"}, []string{"ttl", "31m", "max_ttl"}},
		"creds: no task, odd role":     {"creds/a b", nil, []string{"role", "a b", "letters"}},
		"creds: zero ttl":              {"creds/upload/T-1", fields{"ttl": "0"}, []string{"ttl", `"0"`, "one second or more"}},
		"creds: negative ttl":          {"creds/upload/T-1", fields{"ttl": "-1s"}, []string{"ttl", "-1s", "one second or more"}},
		"tidy-config: unknown field":   {"tidy-config", fields{"retntion": "1h"}, []string{"retntion", "retention"}},
		"tidy-config: short retention": {"tidy-config", fields{"retention": "59m"}, []string{"retention", "59m", "1h"}},
		"tidy-config: no retention":    {"tidy-config", fields{"retention": "0"}, []string{"retention", `"0"`, "one second or more"}},
		"tidy-config: short interval":  {"tidy-config", fields{"orphan_interval": 30}, []string{"orphan_interval", "30s", "1m"}},
		"tidy-config: word":            {"tidy-config", fields{"orphan_interval": "often"}, []string{"orphan_interval", "often", "whole seconds"}},
		"tidy: data":                   {"tidy", fields{"safety_buffer": "1h"}, []string{"safety_buffer", "no such field", "accept_restore"}},

		"creds: list of ttls": {"creds/upload/T-1", fields{"ttl": []string{"5m", "6m"}}, []string{"ttl", "a duration", "a list"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := m.state()
			_, err := m.Logical().WriteWithContext(t.Context(), m.path+"/"+test.path, test.data)
			text := refusal(t, err)
			for _, part := range test.says {
				if !strings.Contains(text, part) {
					t.Errorf("%q does not say %q", text, part)
				}
			}
			if strings.Contains(text, "hunter2") {
				t.Errorf("%q repeats a secret", text)
			}
			if len(text) > 1500 {
				t.Errorf("the refusal has %d bytes", len(text))
			}
			if after := m.state(); after != before {
				t.Errorf("something has changed: %s, before: %s", after, before)
			}
		})
	}
}

// state is what the mount has stored that a user can see.
func (m *mount) state() string {
	m.t.Helper()
	var state strings.Builder
	for _, folder := range []string{"config", "roles"} {
		listed, err := m.Logical().ListWithContext(m.t.Context(), m.path+"/"+folder)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, name := range listed.Data["keys"].([]any) {
			data := m.read(folder + "/" + name.(string)).Data
			delete(data, "clock_skew") // it is measured at each call of AWS
			fmt.Fprintf(&state, "%s: %v\n", name, data)
		}
	}
	fmt.Fprintln(&state, m.read("freeze").Data)
	users := m.users()
	slices.Sort(users)
	fmt.Fprintln(&state, users)
	return state.String()
}

// A read that repeats a query parameter sends a list, and one with an unknown
// parameter is refused as a write is.
func TestBadQuery(t *testing.T) {
	m := newMount(t)
	for _, parameters := range [][]string{{"ttl=5m", "ttl=6m"}, {"tll=5m"}, {"ttl=500ms"}, {"ttl=0"}, {"ttl="}, {"role=publish"}, {"task=other"}} {
		_, err := m.tryMint(m.Client, onStore+"/JIRA-1", parameters...)
		refusal(t, err)
	}
}

func TestConfigIsReadWithoutSecrets(t *testing.T) {
	m := newMount(t)
	for name, want := range map[string]map[string]any{
		"store": with(m.storeConfig(), map[string]any{"secret_key": nil}),
		"prod":  with(m.cloudConfig(), map[string]any{"secret_key": nil, "account_id": "123456789012", "partition": "aws", "caller_arn": lab.EngineARN}),
	} {
		got := m.read("config/" + name).Data
		skew, shown := got["clock_skew"]
		if seconds, err := strconv.ParseFloat(fmt.Sprint(skew), 64); shown && (err != nil || math.Abs(seconds) > 60) || shown != (name == "prod") {
			t.Errorf("config/%s: clock_skew is %v", name, skew)
		}
		delete(got, "clock_skew")
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("config/%s reads as %v, want %v", name, got, want)
		}
	}
}

func TestConfigOfAnAdministratorWarns(t *testing.T) {
	m := newMount(t)
	answer := m.write("config/root", with(m.storeConfig(), map[string]any{"access_key": servers.Store.Root.Access, "secret_key": servers.Store.Root.Secret}))
	if answer == nil || len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], "administrator") {
		t.Errorf("no warning of an administrator's key: %v", answer)
	}
	if answer := m.write("config/other", m.storeConfig()); answer != nil && len(answer.Warnings) != 0 {
		t.Errorf("a user's key is warned of: %v", answer.Warnings)
	}
}

func TestTargetInUseIsKept(t *testing.T) {
	m := newMount(t)
	ctx := t.Context()
	remove := func(query map[string][]string) error {
		_, err := m.Logical().DeleteWithDataWithContext(ctx, m.path+"/config/store", query)
		return err
	}
	if text := refusal(t, remove(nil)); !strings.Contains(text, `role "`+onStore+`" uses it`) {
		t.Errorf("%q does not name the role", text)
	}
	_, err := m.Logical().ReadWithDataWithContext(ctx, m.path+"/roles/"+onStore, map[string][]string{"ttl": {"5m"}})
	if text := refusal(t, err); !strings.Contains(text, "read does not take it") {
		t.Errorf("%q does not say that a read takes no ttl", text)
	}
	minted := m.mint(onStore + "/JIRA-1")
	if _, err := m.Logical().DeleteWithContext(ctx, m.path+"/roles/"+onStore); err != nil {
		t.Fatal(err)
	}
	if text := refusal(t, remove(nil)); !strings.Contains(text, "live grants on it: 1") {
		t.Errorf("%q does not count the live grants", text)
	}
	allowed(t, "a session whose role is gone", minted.inStore(ctx))

	// By force: the lease can't be revoked until the target is there again.
	if err := remove(map[string][]string{"force": {"true"}}); err != nil {
		t.Fatal(err)
	}
	if err := m.Sys().RevokeWithOptionsWithContext(ctx, revokeNow(minted.LeaseID)); err == nil {
		t.Error("a lease was revoked although its target is not configured")
	}
	// Nor elsewhere, where there is nothing to revoke.
	m.write("config/store", with(m.storeConfig(), map[string]any{"endpoint": "http://127.0.0.1:1", "verify_connection": false}))
	if err := m.Sys().RevokeWithOptionsWithContext(ctx, revokeNow(minted.LeaseID)); err == nil {
		t.Error("a lease was revoked although its target is another system")
	}
	if err := remove(map[string][]string{"force": {"true"}}); err != nil {
		t.Fatal(err)
	}
	m.write("config/store", m.storeConfig())
	if err := m.Sys().RevokeWithOptionsWithContext(ctx, revokeNow(minted.LeaseID)); err != nil {
		t.Error(err)
	}
	denied(t, "the session", minted.inStore(ctx))
	if err := remove(nil); err != nil {
		t.Errorf("a target without roles and grants is kept: %v", err)
	}
}

// A target with live grants stays what it is: elsewhere, revoking them would
// find nothing and call them dead.
func TestTargetWithGrantsStays(t *testing.T) {
	m := newMount(t)
	minted := m.mint(onStore + "/JIRA-1")
	elsewhere := with(m.storeConfig(), map[string]any{"endpoint": "http://127.0.0.1:1", "verify_connection": false})
	_, err := m.Logical().WriteWithContext(t.Context(), m.path+"/config/store", elsewhere)
	if text := refusal(t, err); !strings.Contains(text, "live grants on it: 1") || !strings.Contains(text, "revoke their leases first") {
		t.Errorf("%q does not say what is in the way", text)
	}
	_, err = m.Logical().WriteWithContext(t.Context(), m.path+"/config/store", with(m.storeConfig(), map[string]any{
		"access_key": servers.Store.Root.Access, "secret_key": servers.Store.Root.Secret,
	}))
	refusal(t, err)
	m.write("config/store", m.storeConfig()) // the same system and user again
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID)); err != nil {
		t.Fatal(err)
	}
	denied(t, "the session", minted.inStore(t.Context()))
	m.write("config/store", elsewhere)
}

func TestRoleIsUpdatedAndPatched(t *testing.T) {
	m := newMount(t)
	expect := func(want string) {
		t.Helper()
		if got := fmt.Sprint(m.read("roles/" + onStore).Data); got != want {
			t.Errorf("the role reads as %s, want %s", got, want)
		}
	}
	m.write("roles/"+onStore, map[string]any{"ttl": "5m"})
	expect("map[action:s3:PutObject max_ttl:1800 resource:" + uploads + " target:store ttl:300]")
	if _, err := m.Logical().JSONMergePatch(t.Context(), m.path+"/roles/"+onStore, map[string]any{"max_ttl": nil}); err != nil {
		t.Fatal(err)
	}
	expect("map[action:s3:PutObject resource:" + uploads + " target:store ttl:300]")
	_, err := m.Logical().JSONMergePatch(t.Context(), m.path+"/roles/"+onStore, map[string]any{"action": nil})
	refusal(t, err)
	if _, err := m.Logical().JSONMergePatch(t.Context(), m.path+"/roles/none", map[string]any{"ttl": "5m"}); err == nil {
		t.Error("a role that does not exist was patched")
	}
}

// What the mount does not allow cuts a credential's life, with a warning.
func TestMountLimitsCut(t *testing.T) {
	m := newMount(t)
	if err := m.Sys().TuneMountAllowNilWithContext(t.Context(), m.path, api.TuneMountConfigInput{MaxLeaseTTL: pointer("5m")}); err != nil {
		t.Fatal(err)
	}
	// The engine asks Vault for the mount's limits every 5 s.
	var minted credential
	eventually(t, "the mint is cut with a warning", 20*time.Second, func() bool {
		minted = m.mint(onStore + "/JIRA-1")
		return len(minted.Warnings) == 1 && strings.Contains(minted.Warnings[0], "cut")
	})
	if minted.LeaseDuration > 300 || minted.LeaseDuration < 290 {
		t.Errorf("lease of %d s, want 300", minted.LeaseDuration)
	}
	if left := time.Until(minted.expiresAt); left > 5*time.Minute+time.Second {
		t.Errorf("the credential lives for %s, want 5m", left)
	}
}

func pointer[T any](value T) *T { return &value }
