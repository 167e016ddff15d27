package catalog

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tableFiles has the tables that catalog.bin holds, with their columns.
var tableFiles = map[string][]string{
	"escalation.tsv":       {"action", "class", "verdict", "access_level", "resource_level", "fas_route", "why", "look", "sources"},
	"exceptions.tsv":       {"action", "reason", "source"},
	"global-keys.tsv":      {"key", "type", "values", "source"},
	"kms.tsv":              {"action", "kms_actions", "kms_via_service", "encryption_context", "note", "source"},
	"operations.tsv":       {"operation", "actions", "source"},
	"several-required.tsv": {"action", "authorised_on", "types", "source"},
}

// TestPackedTablesAreThoseOfTheRepository fails when a table was changed and
// catalog.bin was not generated anew.
func TestPackedTablesAreThoseOfTheRepository(t *testing.T) {
	archive := opened().archive
	if len(archive.Tables) != len(tableFiles) {
		t.Errorf("%d tables are packed, not %d", len(archive.Tables), len(tableFiles))
	}
	for _, section := range archive.Tables {
		packed, err := archive.Read(section)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(filepath.Join("data", section.Name))
		if err != nil {
			t.Fatal(err)
		}
		if string(packed) != string(file) {
			t.Errorf("data/%s is not the packed one: run go generate", section.Name)
		}
	}
}

// TestTables holds every row to the catalogue and to its shape.
func TestTables(t *testing.T) {
	quirks, err := os.ReadFile(filepath.Join("data", "quirks.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	columns := []string{"subject", "what the catalogue says", "what AWS does", "rule", "source"}
	if rows, err := parse(string(quirks), columns); err != nil || len(rows) == 0 {
		t.Errorf("quirks.tsv: %d rows, %v", len(rows), err)
	}
	for name, columns := range tableFiles {
		rows := table(name, columns...)
		if len(rows) == 0 {
			t.Errorf("%s is empty", name)
		}
		seen := map[string]bool{}
		for _, row := range rows {
			if key := strings.ToLower(row[0]); seen[key] {
				t.Errorf("%s: %s is there twice", name, row[0])
			} else {
				seen[key] = true
			}
			if columns[0] == "action" && !canonical(row[0]) {
				t.Errorf("%s: no action %q", name, row[0])
			}
			if row[len(row)-1] == "" {
				t.Errorf("%s: %s has no source", name, row[0])
			}
		}
		text, err := os.ReadFile(filepath.Join("data", name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# ") || !strings.Contains(string(text), "\n# Licence: ") {
			t.Errorf("%s does not say what it is and under which licence", name)
		}
	}
}

func canonical(name string) bool {
	action, found := Find(name)
	return found && action.Name == name
}

func TestParseRefusesWhatIsNoTable(t *testing.T) {
	columns := []string{"action", "source"}
	for _, text := range []string{"# c\nsource\taction\n", "action\tsource\na\n", "action\tsource\na\tb\tc\n", "action\tsource\n\n"} {
		if rows, err := parse(text, columns); err == nil {
			t.Errorf("parse(%q) = %q", text, rows)
		}
	}
	rows, err := parse("# comment\naction\tsource\na\tb\n# comment\nc\td\n", columns)
	if err != nil || len(rows) != 2 || !slices.Equal(rows[1], []string{"c", "d"}) {
		t.Errorf("parse = %q, %v", rows, err)
	}
}

func TestKMSTable(t *testing.T) {
	placeholders := []string{"{resource}", "{bucket}", "{table}", "{account}"}
	for name, encryption := range encryptions() {
		if len(encryption.Actions) == 0 {
			t.Errorf("%s needs no KMS action", name)
		}
		for _, action := range encryption.Actions {
			if !canonical(action) || !strings.HasPrefix(action, "kms:") {
				t.Errorf("%s needs %q", name, action)
			}
		}
		prefix, _, _ := strings.Cut(name, ":")
		if want := prefix + ".{region}.amazonaws.com"; encryption.ViaService != want && encryption.ViaService != prefix+".*.amazonaws.com" {
			t.Errorf("%s goes through %q", name, encryption.ViaService)
		}
		for _, pair := range encryption.Context {
			for _, value := range pair.Values {
				if pair.Key == "" || !slices.Contains(placeholders, value) {
					t.Errorf("%s has the context %+v", name, pair)
				}
			}
		}
	}
}

func TestEncryptionOf(t *testing.T) {
	encryption, found := EncryptionOf("s3:GetObject")
	if !found || !slices.Equal(encryption.Actions, []string{"kms:Decrypt"}) || encryption.ViaService != "s3.{region}.amazonaws.com" ||
		len(encryption.Context) != 1 || encryption.Context[0].Key != "aws:s3:arn" || !slices.Equal(encryption.Context[0].Values, []string{"{resource}", "{bucket}"}) {
		t.Errorf("s3:GetObject: %+v, %v", encryption, found)
	}
	if encryption, _ := EncryptionOf("dynamodb:GetItem"); len(encryption.Context) != 2 || encryption.Context[1].Key != "aws:dynamodb:subscriberId" {
		t.Errorf("dynamodb:GetItem: %+v", encryption)
	}
	if encryption, _ := EncryptionOf("secretsmanager:CreateSecret"); len(encryption.Context) != 1 || len(encryption.Context[0].Values) != 0 {
		t.Errorf("secretsmanager:CreateSecret knows the context before the call: %+v", encryption)
	}
	if _, found := EncryptionOf("sqs:PurgeQueue"); found {
		t.Error("sqs:PurgeQueue needs a key")
	}
}

func TestOperationsTable(t *testing.T) {
	for name, actions := range operations() {
		if action, found := Find(name); found {
			t.Errorf("%s is an action", action.Name)
		}
		if len(actions) == 0 {
			t.Errorf("%s needs nothing", name)
		}
		for _, action := range actions {
			if !canonical(action) {
				t.Errorf("%s needs %q", name, action)
			}
		}
	}
}

func TestOperation(t *testing.T) {
	for name, want := range map[string]string{
		"s3:HeadObject": "s3:GetObject", "S3:listobjectsv2": "s3:ListBucket", "s3:CopyObject": "s3:PutObject", "s3:UploadPart": "s3:PutObject",
		"sqs:SendMessageBatch": "sqs:SendMessage", "dynamodb:TransactWriteItems": "dynamodb:PutItem", "lambda:Invoke": "lambda:InvokeFunction",
		"sns:PublishBatch": "sns:Publish", "apigateway:CreateRestApi": "apigateway:POST", "kms:ReEncrypt": "kms:ReEncryptFrom",
	} {
		if action, ok := Operation(name); !ok || action != want {
			t.Errorf("Operation(%q) = %q, %v; want %q", name, action, ok, want)
		}
	}
	for _, name := range []string{"", "s3:GetObject", "HeadObject", "s3:HeadObject ", strings.Repeat("s3:HeadObject", 100000)} {
		if action, ok := Operation(name); ok {
			t.Errorf("Operation(%.40q) = %q", name, action)
		}
	}
	if actions := OperationActions("dynamodb:TransactWriteItems"); len(actions) != 4 {
		t.Errorf("dynamodb:TransactWriteItems needs %q", actions)
	}
}

func TestGlobalKeysTable(t *testing.T) {
	for _, row := range table("global-keys.tsv", tableFiles["global-keys.tsv"]...) {
		if !slices.Contains([]string{"String", "ARN", "Bool", "Numeric", "Date", "IPAddress"}, row[1]) || row[2] != "single" && row[2] != "multi" {
			t.Errorf("%s has the type %q, %q", row[0], row[1], row[2])
		}
		if !strings.HasPrefix(row[0], "aws:") {
			continue // a service's own list may spell or type its key otherwise
		}
		// What the services' lists say of a global key must be the same.
		for _, prefix := range Services() {
			service, _ := ServiceByPrefix(prefix)
			key, there := service.content().exact[strings.ToLower(row[0])]
			global, _ := GlobalKey(row[0])
			if there && key != global {
				t.Errorf("%s is %+v in %s and %+v globally", row[0], key, prefix, global)
			}
		}
	}
}

func TestConditionKeys(t *testing.T) {
	for name, want := range map[string]ConditionKey{
		"aws:sourceip":              {"aws:SourceIp", "IPAddress"},
		"aws:CurrentTime":           {"aws:CurrentTime", "Date"},
		"aws:TagKeys":               {"aws:TagKeys", "ArrayOfString"},
		"aws:CalledVia":             {"aws:CalledVia", "ArrayOfString"},
		"aws:PrincipalTag/team":     {"aws:PrincipalTag/${TagKey}", "String"},
		"aws:RequestTag/${TagKey}":  {"aws:RequestTag/${TagKey}", "String"},
		"aws:ResourceTag/a/b c":     {"aws:ResourceTag/${TagKey}", "String"},
		"AWS:MULTIFACTORAUTHAGE":    {"aws:MultiFactorAuthAge", "Numeric"},
		"aws:PrincipalIsAWSService": {"aws:PrincipalIsAWSService", "Bool"},
	} {
		if key, found := GlobalKey(name); !found || key != want {
			t.Errorf("GlobalKey(%q) = %+v, %v; want %+v", name, key, found, want)
		}
	}
	for _, name := range []string{"", "aws:", "aws:SourceIpp", "aws:PrincipalTag/", "aws:PrincipalTag", "s3:prefix", "aws:Source\u0130p"} {
		if key, found := GlobalKey(name); found {
			t.Errorf("GlobalKey(%q) = %+v", name, key)
		}
	}
	for _, want := range []struct{ service, name, key, kind string }{
		{"s3", "s3:PREFIX", "s3:prefix", "String"},
		{"s3", "s3:ExistingObjectTag/class", "s3:ExistingObjectTag/<key>", "String"},
		{"kms", "kms:EncryptionContext:aws:s3:arn", "kms:EncryptionContext:${EncryptionContextKey}", "String"},
		{"kms", "kms:EncryptionContextKeys", "kms:EncryptionContextKeys", "ArrayOfString"},
		{"events", "events:Metadata/a/Matcher", "events:Metadata/${MetadataKey}/Matcher", "String"},
		{"events", "events:Metadata/a", "events:Metadata/${MetadataKey}", "ArrayOfString"},
		{"codebuild", "codebuild:environment.environmentVariables/A.value", "codebuild:environment.environmentVariables/${name}.value", "String"},
	} {
		service, _ := ServiceByPrefix(want.service)
		if key, found := service.ConditionKey(want.name); !found || key.Name != want.key || key.Type != want.kind {
			t.Errorf("%s: ConditionKey(%q) = %+v, %v", want.service, want.name, key, found)
		}
	}
}
