package kubernetes

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// An account of a question whose process has died is removed later. One that is young may
// be of a question that is under way. A real server gives no account an old date.
func TestLeftCanariesAreRemoved(t *testing.T) {
	var removed []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodDelete {
			removed = append(removed, request.URL.Path)
			_, _ = w.Write([]byte("{}"))
			return
		}
		if request.URL.Query().Get("labelSelector") != canaryOnce {
			t.Errorf("%s is listed with %s", request.URL.Path, request.URL.RawQuery)
		}
		var accounts struct {
			Items []meta.PartialObjectMetadata `json:"items"`
		}
		for name, age := range map[string]time.Duration{"left": shortestToken + time.Minute, "young": time.Minute} {
			accounts.Items = append(accounts.Items, meta.PartialObjectMetadata{
				ObjectMeta: meta.ObjectMeta{Name: name, CreationTimestamp: meta.NewTime(time.Now().Add(-age))},
			})
		}
		_ = json.NewEncoder(w).Encode(accounts)
	}))
	defer server.Close()
	asked, err := newClient(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{client: asked, namespace: "precision"}
	if err := c.removeLeftCanaries(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{accountsPath("precision") + "/left"}; !slices.Equal(removed, want) {
		t.Errorf("removed %q, want %q", removed, want)
	}
}
