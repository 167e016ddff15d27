package kubernetes

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// heldBack is a request whose body has not come yet: the server has authorized it, and
// waits for the body.
type heldBack struct {
	connection net.Conn
	answers    *bufio.Reader
	rest       string
}

// holdBack sends a request but for the end of its body. It returns when the server asks for
// the body: with "100 Continue", after it has authorized the request.
// https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
func holdBack(token, method, path, contentType, body string) (*heldBack, error) {
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM([]byte(servers.Kubernetes.CA))
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}}
	connection, err := dialer.DialContext(context.Background(), "tcp", strings.TrimPrefix(servers.Kubernetes.Host, "https://"))
	if err != nil {
		return nil, err
	}
	half := len(body) / 2
	if err := connection.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(connection, "%s %s HTTP/1.1\r\nHost: kubernetes\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n"+
		"Expect: 100-continue\r\n\r\n", method, path, token, contentType, len(body))
	if err != nil {
		return nil, err
	}
	answers := bufio.NewReader(connection)
	asked, err := answers.ReadString('\n')
	if err != nil || !strings.HasPrefix(asked, "HTTP/1.1 100 ") {
		return nil, fmt.Errorf("the server does not ask for the body: %q, %w", asked, err)
	}
	if _, err := answers.ReadString('\n'); err != nil { // the empty line
		return nil, err
	}
	_, err = connection.Write([]byte(body[:half]))
	return &heldBack{connection, answers, body[half:]}, err
}

// finish sends the rest, and returns the status of the answer.
func (h *heldBack) finish() (int, error) {
	defer h.connection.Close()
	if err := h.connection.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	if _, err := h.connection.Write([]byte(h.rest)); err != nil {
		return 0, err
	}
	answer, err := http.ReadResponse(h.answers, nil)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	return answer.StatusCode, nil
}

// heldBackRequests are requests of each way to write, on objects of their own. There has
// to be a config map of each name but "<name>-post": for what apply creates, the API server
// itself asks again.
func heldBackRequests(token, namespace, name string) (map[string]*heldBack, error) {
	const object = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"by":"held-back"}}`
	path := "/api/v1/namespaces/" + namespace + "/configmaps"
	of := func(way string) string { return path + "/" + name + "-" + way }
	held := map[string]*heldBack{}
	for way, one := range map[string][4]string{
		"POST":   {http.MethodPost, path, "application/json", fmt.Sprintf(object, name+"-post")},
		"PUT":    {http.MethodPut, of("put"), "application/json", fmt.Sprintf(object, name+"-put")},
		"PATCH":  {http.MethodPatch, of("patch"), "application/merge-patch+json", `{"data":{"by":"held-back"}}`},
		"apply":  {http.MethodPatch, of("apply") + "?fieldManager=test", "application/apply-patch+yaml", fmt.Sprintf(object, name+"-apply")},
		"DELETE": {http.MethodDelete, of("delete"), "application/json", `{"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":0}`},
	} {
		request, err := holdBack(token, one[0], one[1], one[2], one[3])
		if err != nil {
			return nil, err
		}
		held[way] = request
	}
	return held, nil
}

func makeHeldBackObjects(t *testing.T, namespace, name string) {
	t.Helper()
	for _, way := range []string{"put", "patch", "apply", "delete"} {
		object := &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: name + "-" + way}}
		if _, err := servers.Kubernetes.CoreV1().ConfigMaps(namespace).Create(t.Context(), object, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// A request whose body comes after the revoke is refused by the policy that asks RBAC
// again, however late it comes; without the policy it would be carried out, and a body that
// is held back while the grant lives is.
func TestHeldBackBodiesAreRefused(t *testing.T) {
	const namespace = "held-back"
	ctx := t.Context()
	m := newMount(t, namespace)
	if answer := m.role("write", "write", namespace+"/configmaps"); !warned(answer, "holds back", "precision-revoked") {
		t.Errorf("a role write without the policy does not say so: %v", answer)
	}
	later := []time.Duration{50 * time.Millisecond, 2 * time.Second, 10 * time.Second, 20 * time.Second}
	carriedOut := m.heldBackOver(namespace, "open", later[:2], true)
	guarded(t, "held-back-guarded")
	awaitRevokedPolicy(t, "held-back-guarded")
	if answer := m.role("write", "write", namespace+"/configmaps"); warned(answer, "precision-revoked") {
		t.Errorf("a role write with the policy warns: %v", answer.Warnings)
	}
	alive := m.heldBackOver(namespace, "alive", later[:2], false)
	refusals := m.heldBackOver(namespace, "revoked", later, true)
	if carriedOut[http.StatusForbidden] > 0 || len(carriedOut) == 0 {
		t.Errorf("without the policy: %v, so this test proves nothing", carriedOut)
	}
	if alive[http.StatusForbidden] > 0 {
		t.Errorf("while the grant lives: %v", alive)
	}
	if len(refusals) != 1 || refusals[http.StatusForbidden] == 0 {
		t.Errorf("after the revoke: %v", refusals)
	}
	found, err := servers.Kubernetes.CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range found.Items {
		if strings.HasPrefix(object.Name, "revoked-") && object.Data["by"] != "" {
			t.Errorf("%s was written after the revoke", object.Name)
		}
	}
	figures.Log(t, "bodies held back over a revoke, for %s at most: %v; without the policy %v, while the grant lives %v", later[len(later)-1], refusals, carriedOut, alive)
}

// heldBackOver mints, holds bodies back, revokes if that is asked for, and counts the
// answers by status.
func (m *mount) heldBackOver(namespace, name string, later []time.Duration, revoke bool) map[int]int {
	m.t.Helper()
	minted := m.mint("write/" + strings.ToUpper(name))
	var all []map[string]*heldBack
	for i := range later {
		round := fmt.Sprintf("%s-%d", name, i)
		makeHeldBackObjects(m.t, namespace, round)
		held, err := heldBackRequests(minted.token, namespace, round)
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, held)
	}
	if revoke {
		m.revoke(minted)
	} else {
		defer m.revoke(minted)
	}
	var mu sync.Mutex
	statuses := map[int]int{}
	var done sync.WaitGroup
	for i, held := range all {
		done.Go(func() {
			time.Sleep(later[i])
			for _, way := range slices.Sorted(maps.Keys(held)) {
				status, err := held[way].finish()
				if err != nil {
					m.t.Errorf("%s after %s: %v", way, later[i], err)
				}
				mu.Lock()
				statuses[status]++
				mu.Unlock()
			}
		})
	}
	done.Wait()
	return statuses
}

// A held-back request is one of an account of the engine; others' are let alone.
func TestHeldBackBodiesOfOthersAreLetAlone(t *testing.T) {
	const namespace = "held-back-others"
	guarded(t, namespace)
	makeHeldBackObjects(t, namespace, "others")
	held, err := heldBackRequests(token(t, namespace, "own"), namespace, "others")
	if err != nil {
		t.Fatal(err)
	}
	for way, one := range held {
		if status, err := one.finish(); err != nil || status/100 != 2 {
			t.Errorf("%s of an account that is not the engine's: %d, %v", way, status, err)
		}
	}
}

// awaitRevokedPolicy waits until the policy that asks RBAC again is in force.
func awaitRevokedPolicy(t *testing.T, namespace string) {
	t.Helper()
	ctx, bindings := t.Context(), servers.Kubernetes.RbacV1().RoleBindings(namespace)
	makeAccount(t, lab.AccountsNamespace, "late-"+namespace)
	secret := token(t, lab.AccountsNamespace, "late-"+namespace)
	eventually(t, "the policy precision-revoked is in force", 30*time.Second, func() bool {
		bound := bind(t, namespace, "ClusterRole", "cluster-admin", account(lab.AccountsNamespace, "late-"+namespace))
		eventually(t, "the server has seen the binding", 10*time.Second, func() bool { return listConfigMaps(ctx, namespace, secret) == nil })
		late, err := holdBack(secret, http.MethodPost, "/api/v1/namespaces/"+namespace+"/configmaps?dryRun=All", "application/json", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"late"}}`)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		if err := bindings.Delete(ctx, bound.Name, meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		status, err := late.finish()
		return err == nil && status == http.StatusForbidden
	})
}
