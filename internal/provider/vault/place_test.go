package vault

import "testing"

// What defines what others get of an engine that mints is power beyond the grant; what
// the engine is for is not.
func TestWhatDefinesWhatOthersGet(t *testing.T) {
	t.Parallel()
	for path, kinds := range map[string][2]string{
		"m/roles/x": {"database", "power"}, "m/roleset/x": {"gcp", "power"}, "m/static-account/x": {"gcp", "power"}, "m/impersonated-account/x": {"gcp", "power"}, "m/config/root": {"aws", "power"},
		"m/issuer/x": {"pki", "power"}, "m/key/x": {"pki", "power"}, "m/sign-verbatim/x": {"pki", "power"}, "m/sign-verbatim": {"pki", "power"}, "m/restore/x": {"transit", "power"}, "m/keys/x/config": {"transit", "power"},
		"m/creds/x": {"database", ""}, "m/issue/x": {"pki", ""}, "m/encrypt/x": {"transit", ""}, "m/sign/x": {"ssh", ""}, "m/roles/y": {"kv", ""},
	} {
		asked := wanted{action: "update", path: path}
		why := place{mount: "m/", kind: kinds[0]}.escalates(asked)
		if (why != "") != (kinds[1] != "") {
			t.Errorf("update of %s of type %s: %q", path, kinds[0], why)
		}
		asked.action = "read"
		if why := (place{mount: "m/", kind: kinds[0]}).escalates(asked); why != "" {
			t.Errorf("read of %s of type %s: %q", path, kinds[0], why)
		}
	}
}
