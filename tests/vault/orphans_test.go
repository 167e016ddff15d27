package vault

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// What bears the ledger's mark and is unknown to it is reported by its name, and ended
// once its own end has passed; what bears another ledger's mark is left alone.
func TestOrphans(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/orphans/db", "old")
	m.role("reset", "update", "secret/data/orphans/db", nil)
	policy, _ := policyOf(t, m.mint("reset/INC-7"))
	status := m.read("tidy-status").Data
	mount, own := status["mount_uuid"].(string), status["ledger_id"].(string)
	root := servers.Other.Client
	orphan := func(own string, end time.Time) (name, token string) {
		name = "precision-" + mount[:8] + "-" + ledger.NewID(end)
		if _, err := root.Logical().WriteWithContext(t.Context(), "auth/token/roles/"+name, map[string]any{
			"allowed_policies": policy, "orphan": true, "token_no_default_policy": true, "path_suffix": fmt.Sprintf("%s.%s.%d", mount, own, end.Unix()),
		}); err != nil {
			t.Fatal(err)
		}
		made, err := root.Auth().Token().CreateWithRoleWithContext(t.Context(), &api.TokenCreateRequest{Policies: []string{policy}, TTL: "1h"}, name)
		if err != nil {
			t.Fatal(err)
		}
		return name, made.Auth.ClientToken
	}
	use := func(token string) error {
		return request(t.Context(), servers.Other.Address, token, http.MethodPut, "secret/data/orphans/db", reset)
	}
	past, over := orphan(own, time.Now().Add(-time.Hour))
	future, waiting := orphan(own, time.Now().Add(time.Hour))
	_, foreign := orphan("anotherledgersidanother0", time.Now().Add(-time.Hour))
	allowed(t, "an orphan's token", use(over))

	fates := map[string]string{}
	m.tidyUntil("the orphan is ended, and the status names the other", func() bool {
		found, _ := m.read("tidy-status").Data["orphans"].(map[string]any)["targets"].(map[string]any)["other"].(map[string]any)
		orphans, _ := found["orphans"].([]any)
		for _, item := range orphans {
			about := item.(map[string]any)
			fates[about["name"].(string)] = about["fate"].(string)
		}
		return refused(use(over)) && fates[future] != ""
	})
	if fates[future] != "waits for its end" || (fates[past] != "" && fates[past] != "ended") || fates[""] != "" {
		t.Errorf("the status says %v of %s, which is over, and %s", fates, past, future)
	}
	allowed(t, "an orphan's token before its end", use(waiting))
	allowed(t, "what another ledger has made", use(foreign))
	if _, roles := ours(t); len(roles) == 0 {
		t.Error("no token role is left")
	}
}
