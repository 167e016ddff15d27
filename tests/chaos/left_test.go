package chaos

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	storage "github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// opened notes a session that the store has opened.
func (w *world) opened(body []byte) {
	var answer struct {
		Session struct {
			AccessKeyID     string `xml:"AccessKeyId"`
			SecretAccessKey string
			SessionToken    string
		} `xml:"AssumeRoleResult>Credentials"`
	}
	if xml.Unmarshal(body, &answer) != nil || answer.Session.AccessKeyID == "" {
		return // the answer to another call
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[answer.Session.AccessKeyID] = lab.Key{Access: answer.Session.AccessKeyID, Secret: answer.Session.SecretAccessKey, Token: answer.Session.SessionToken}
}

// sessionsLeft are the sessions, of all that were ever opened, that work.
func (w *world) sessionsLeft(ctx context.Context) ([]string, error) {
	w.mu.Lock()
	opened := maps.Clone(w.sessions)
	w.mu.Unlock()
	var (
		mu       sync.Mutex
		left     []string
		problems []error
		all      sync.WaitGroup
	)
	keys := make(chan lab.Key)
	for range 8 {
		all.Go(func() {
			for key := range keys {
				err := w.use(ctx, credential{key: key, object: "app/1.tgz"})
				mu.Lock()
				switch {
				case err == nil:
					left = append(left, key.Access)
				case refused(err):
					w.mu.Lock()
					delete(w.sessions, key.Access) // it stays dead
					w.mu.Unlock()
				default:
					problems = append(problems, err)
				}
				mu.Unlock()
			}
		})
	}
	for _, key := range opened {
		keys <- key
	}
	close(keys)
	all.Wait()
	return left, errors.Join(problems...)
}

// usersLeft are the tasks of the users that are left in the cloud.
func (w *world) usersLeft(ctx context.Context) ([]string, error) {
	users, err := w.Cloud.Users(ctx)
	var tasks []string
	for _, user := range users {
		tasks = append(tasks, user.Tags["precision:task"])
	}
	return tasks, err
}

// left says what is left of all grants of a mount, at the targets, in the ledger
// and in Vault: nil is nothing.
func (w *world) left(vault *lab.Vault, path string) error {
	if err := w.alive(vault, path); err != nil {
		return err
	}
	leases, err := leases(w.t.Context(), vault.Client, path+"/creds/")
	if err != nil || len(leases) > 0 {
		return fmt.Errorf("%d leases are left: %v %w", len(leases), first(leases), err)
	}
	if stuck, err := irrevocable(w.t.Context(), vault.Client); err != nil || stuck > 0 {
		return fmt.Errorf("%d leases are irrevocable %w", stuck, err)
	}
	return nil
}

// alive says what is left at the targets and in the ledger: nil is nothing.
func (w *world) alive(vault *lab.Vault, path string) error {
	ctx := w.t.Context()
	if w.Cloud != nil {
		if users, err := w.usersLeft(ctx); err != nil || len(users) > 0 {
			return fmt.Errorf("%d users are left: %v %w", len(users), first(users), err)
		}
	}
	if w.Store != nil {
		if sessions, err := w.sessionsLeft(ctx); err != nil || len(sessions) > 0 {
			return fmt.Errorf("%d sessions are left: %v %w", len(sessions), first(sessions), err)
		}
	}
	grants, err := w.ledger(vault, path)
	if err != nil {
		return err
	}
	var open []string
	for _, grant := range grants {
		if !grant.Finished() {
			open = append(open, fmt.Sprintf("%s of %s, %s, expired %s", grant.ID, grant.Target, grant.State, grant.ExpiresAt))
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("%d grants are unfinished: %v", len(open), first(open))
	}
	return nil
}

func first(of []string) []string { return of[:min(len(of), 5)] }

// leases lists the leases under a prefix, and those under what is below it.
func leases(ctx context.Context, client *api.Client, prefix string) ([]string, error) {
	names, err := keys(ctx, client, "sys/leases/lookup/"+prefix)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var found []string
	var all errgroup.Group
	all.SetLimit(8)
	for _, name := range names {
		if !strings.HasSuffix(name, "/") {
			mu.Lock()
			found = append(found, prefix+name)
			mu.Unlock()
			continue
		}
		all.Go(func() error {
			below, err := leases(ctx, client, prefix+name)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, below...)
			return err
		})
	}
	err = all.Wait()
	return found, err
}

// irrevocable counts the leases that Vault has given up.
func irrevocable(ctx context.Context, client *api.Client) (int64, error) {
	answer, err := client.Logical().ReadWithDataWithContext(ctx, "sys/leases/count", map[string][]string{"type": {"irrevocable"}})
	if err != nil {
		return 0, err
	}
	return answer.Data["lease_count"].(json.Number).Int64()
}

// keys lists what is at a path; nothing is no error.
func keys(ctx context.Context, client *api.Client, path string) ([]string, error) {
	listed, err := client.Logical().ListWithContext(ctx, strings.TrimSuffix(path, "/"))
	if err != nil || listed == nil {
		return nil, err
	}
	names, _ := listed.Data["keys"].([]any)
	var found []string
	for _, name := range names {
		found = append(found, name.(string))
	}
	return found, nil
}

// stored reads a grant as it is stored; nil where there is none any more.
func stored(ctx context.Context, client *api.Client, path string) (*ledger.Grant, error) {
	answer, err := client.Logical().ReadWithContext(ctx, path)
	if err != nil || answer == nil {
		return nil, err
	}
	var grant ledger.Grant
	return &grant, storage.Decode(path, []byte(answer.Data["value"].(string)), &grant)
}

// endings counts grants by how they ended.
func endings(grants []ledger.Grant) string {
	count := map[string]int{}
	for _, grant := range grants {
		name := string(grant.Ending)
		if !grant.Finished() {
			name = string(grant.State)
		}
		count[name]++
	}
	var text []string
	for _, name := range slices.Sorted(maps.Keys(count)) {
		text = append(text, fmt.Sprintf("%d %s", count[name], name))
	}
	return strings.Join(text, ", ")
}
