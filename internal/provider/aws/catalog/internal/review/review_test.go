package review

import (
	"slices"
	"testing"
)

func TestWords(t *testing.T) {
	for name, want := range map[string][]string{
		"UpdateIPSet": {"Update", "Ip", "Set"}, "CreateDBClusterSnapshot": {"Create", "Db", "Cluster", "Snapshot"}, "GetHLSStreamingSessionURL": {"Get", "Hls", "Streaming", "Session", "Url"},
		"GET": {"Get"}, "document": {"Document"}, "UpdateUserDefinedFunction": {"Update", "User", "Defined", "Function"}, "ListVPCEConfigurations": {"List", "Vpce", "Configurations"},
	} {
		if got := Words(name); !slices.Equal(got, want) {
			t.Errorf("Words(%s) = %q, not %q", name, got, want)
		}
	}
}

func TestNoun(t *testing.T) {
	for name, want := range map[string]string{
		"UpdateJob": "Job", "UpdateJobFromSourceControl": "Job", "StartCanaryDryRun": "Canary", "MergePullRequestBySquash": "Pull Request", "PutFunctionEventInvokeConfig": "Function Event Invoke",
		"BatchDeleteImage": "Image", "AdminSetUserPassword": "User Password", "UpdateIPSet": "Ip Set", "DeleteAlarms": "Alarm", "UpdatePolicies": "Policy", "Publish": "",
		"CreateBotVersion": "Bot", "UpdateWebACL": "Web Acl",
	} {
		if got := Noun(name); got != want {
			t.Errorf("Noun(%s) = %q, not %q", name, got, want)
		}
	}
}

func actions(names ...string) []Action {
	var all []Action
	for _, name := range names {
		all = append(all, Action{Name: name, Writes: true, Grantable: true})
	}
	return all
}

func names(hits []Hit) []string {
	var all []string
	for _, hit := range hits {
		all = append(all, hit.Action)
	}
	return all
}

func TestGenerators(t *testing.T) {
	all := actions("a:UpdateJob", "a:UpdateJobFromSourceControl", "a:DeleteJob", "a:TagJob", "a:UpdateOther", "b:UpdateJob", "b:StopTrail", "b:PutLogGroupDeletionProtection", "a:GetConnectionToken", "a:ListTokens", "a:GetNextToken")
	all = append(all, Action{Name: "a:ImportJob", Writes: true}, Action{Name: "a:DescribeJob", Grantable: true})
	refused := func(name string) bool { return name == "a:UpdateJob" }
	if got := names(Siblings(all, refused)); !slices.Equal(got, []string{"a:UpdateJobFromSourceControl"}) {
		t.Errorf("siblings %q", got)
	}
	if got := names(Twins(all, refused)); !slices.Equal(got, []string{"b:UpdateJob"}) {
		t.Errorf("twins %q", got)
	}
	if got := names(Guards(all)); !slices.Equal(got, []string{"b:StopTrail", "b:PutLogGroupDeletionProtection"}) {
		t.Errorf("guards %q", got)
	}
	if got := names(Named(all)); !slices.Equal(got, []string{"a:GetConnectionToken"}) {
		t.Errorf("named %q", got)
	}
	if got := names(Unreviewed([]Hit{{"a:X", "1"}, {"a:X", "2"}, {"a:Y", "3"}}, func(name string) bool { return name == "a:Y" })); !slices.Equal(got, []string{"a:X"}) {
		t.Errorf("unreviewed %q", got)
	}
}

func TestAnswer(t *testing.T) {
	model, err := ReadModel([]byte(`{"metadata":{"endpointPrefix":"e","signingName":"s","serviceId":"Service Id"},
		"operations":{"Get":{"output":{"shape":"Out"}},"Inline":{"output":{"type":"structure","members":{"Nested":{"type":"list","member":{"type":"structure","members":{"SecretKey":{}}}}}}},"None":{}},
		"shapes":{"Out":{"type":"structure","members":{"nextToken":{"shape":"T"},"authToken":{"shape":"T"},"inner":{"shape":"In"},"certificateArn":{"shape":"T"},"secretCount":{"type":"integer"}}},
			"In":{"type":"structure","members":{"again":{"shape":"Out"},"password":{"shape":"T"},"credentials":{"shape":"In"},"map":{"type":"map","key":{"shape":"T"},"value":{"shape":"In"}}}},"T":{"type":"string"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for operation, want := range map[string][]string{"Get": {"authToken", "password"}, "Inline": {"SecretKey"}, "None": nil, "Unknown": nil} {
		if got := model.Answer(operation); !slices.Equal(got, want) {
			t.Errorf("Answer(%s) = %q, not %q", operation, got, want)
		}
	}
	if got := model.Prefixes("f"); !slices.Equal(got, []string{"s", "e", "f", "serviceid"}) {
		t.Errorf("Prefixes = %q", got)
	}
	if _, err := ReadModel([]byte("{")); err == nil {
		t.Error("half a model is read")
	}
}
