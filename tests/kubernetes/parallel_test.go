package kubernetes

import (
	"fmt"
	"sync"
	"testing"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// What is answered works, whoever else mints at the same time; and revoked all
// together, none of it does.
func TestManyMintsAtOnceWorkAtOnce(t *testing.T) {
	const namespace, mints, callers = "many", 500, 32
	ctx := t.Context()
	m := newMount(t, namespace)
	m.role("read", "read", namespace+"/configmaps")
	work, results := make(chan int), make(chan error, mints)
	clients := make([]*kubernetes.Clientset, mints)
	start := time.Now()
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			for number := range work {
				results <- func() error {
					minted, err := m.tryMint(fmt.Sprintf("read/RUN-%d", number))
					if err != nil {
						return err
					}
					client, err := kubernetes.NewForConfig(servers.Kubernetes.As(minted.token))
					if err != nil {
						return err
					}
					clients[number] = client
					if _, err := client.CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{}); err != nil {
						return fmt.Errorf("the first use: %w", err)
					}
					return nil
				}()
			}
		})
	}
	for number := range mints {
		work <- number
	}
	close(work)
	running.Wait()
	minting := time.Since(start)
	usable := 0
	for range mints {
		if err := <-results; err != nil {
			t.Error(err)
		} else {
			usable++
		}
	}
	if t.Failed() {
		t.FailNow()
	}

	m.SetClientTimeout(5 * time.Minute) // Vault revokes one after the other
	start = time.Now()
	if err := m.Sys().RevokePrefixWithContext(ctx, m.path+"/creds/read"); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(60 * time.Second)
	left := func() int {
		found, err := servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace).List(ctx, meta.ListOptions{LabelSelector: "precision/role=read,precision/mount=" + m.read("tidy-status").Data["mount_uuid"].(string)})
		if err != nil {
			t.Fatal(err)
		}
		return len(found.Items)
	}
	for left() > 0 && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond)
	}
	ending := time.Since(start)
	refusals := 0
	for _, client := range clients {
		if _, err := client.CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{}); refused(err) {
			refusals++
		}
	}
	if refusals != mints {
		t.Errorf("%d of %d are refused after their revoke", refusals, mints)
	}
	figures.Log(t, "%d mints by %d callers, %d usable at once, in %s; all revoked and refused (%d) in %s", mints, callers, usable, minting.Round(time.Millisecond), refusals, ending.Round(time.Millisecond))
}
