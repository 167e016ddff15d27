package kubernetes

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// tryAnotherChange tries, with the token that is about to be handed out, a change that is
// not a restart. The admission policy has to refuse it. The API server is asked to change
// nothing. Without an object to try it on, the mint warns.
func (m *mint) tryAnotherChange(ctx context.Context) error {
	path, err := m.restartable(ctx)
	if err != nil || path == "" {
		return err
	}
	change := map[string]any{"metadata": map[string]any{"annotations": map[string]string{markPrefix + "tried": m.handle[handleName]}}}
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for pause := readyFirst; ; pause = min(2*pause, readyMost) {
		err := m.client.do(limited, call{
			verb: http.MethodPatch, path: path, query: url.Values{"dryRun": {meta.DryRunAll}}, token: m.token.Status.Token,
			contentType: string(types.MergePatchType), body: change,
		}, nil)
		switch {
		case deniedBy(err, restartPolicy):
			return nil
		case apierrors.IsNotFound(err):
			m.untried = "the object does not exist"
			return nil
		case apierrors.IsUnauthorized(err): // a token for other audiences changes nothing here
			return nil
		case err == nil:
			return noRestartPolicy("the API server lets the account change something else, so it does not ask the policy")
		case !forbidden(err) && limited.Err() == nil:
			return wrapped("trying a change that is not a restart", err)
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("kubernetes: trying a change that is not a restart: %w", ctx.Err())
			}
			return fmt.Errorf("kubernetes: the API server refuses a change that is not a restart for another reason than %s: %w", restartPolicy, provider.ErrUnavailable)
		case <-time.After(pause): // RBAC has not seen the binding yet
		}
	}
}

// restartable is the path of an object that the grant can restart; empty where there is
// none, or where the engine may not look for one.
func (m *mint) restartable(ctx context.Context) (string, error) {
	rule := m.needed.Rules[0] // of one resource; see allow
	path := "/apis/apps/v1/namespaces/" + m.needed.Namespace + "/" + rule.Resources[0]
	if len(rule.ResourceNames) > 0 {
		return path + "/" + rule.ResourceNames[0], nil
	}
	var found struct {
		Items []meta.PartialObjectMetadata `json:"items"`
	}
	err := m.client.do(ctx, call{verb: http.MethodGet, path: path, query: url.Values{"limit": {"1"}}}, &found)
	switch {
	case forbidden(err):
		m.untried = "the engine may not list " + rule.Resources[0] + " in " + m.needed.Namespace
		return "", nil
	case err != nil:
		return "", wrapped("looking for an object to try a change on", err)
	case len(found.Items) == 0:
		m.untried = "there are no " + rule.Resources[0] + " in " + m.needed.Namespace
		return "", nil
	}
	return path + "/" + found.Items[0].Name, nil
}
