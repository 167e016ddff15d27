package kubernetes

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// A list is read in the binary form and as JSON alike. Cluster role bindings have the form
// of role bindings.
func TestBindingsAreListedInBothForms(t *testing.T) {
	want := []binding{{
		Metadata: meta.ObjectMeta{Name: "admins", ResourceVersion: "7"},
		Subjects: []rbac.Subject{{Kind: rbac.GroupKind, APIGroup: rbac.GroupName, Name: "admins"}},
		RoleRef:  rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
	}}
	list := rbac.ClusterRoleBindingList{Items: []rbac.ClusterRoleBinding{
		{ObjectMeta: want[0].Metadata, Subjects: want[0].Subjects, RoleRef: want[0].RoleRef},
	}}
	encoded, err := list.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := (&runtime.Unknown{Raw: encoded}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	for form, answer := range map[string]struct {
		body []byte
		fine bool
	}{
		"binary":        {append([]byte("k8s\x00"), envelope...), true},
		"JSON":          {text, true},
		"half a binary": {append([]byte("k8s\x00"), envelope[:len(envelope)-3]...), false},
		"half a JSON":   {text[:len(text)-3], false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer.body) }))
		asked, err := newClient(&rest.Config{Host: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		found, err := (&cluster{client: asked}).listBindings(t.Context(), "clusterrolebindings", "")
		if answer.fine != (err == nil) || answer.fine && !reflect.DeepEqual(found, want) {
			t.Errorf("%s: %+v, %v", form, found, err)
		}
		server.Close()
	}
}
