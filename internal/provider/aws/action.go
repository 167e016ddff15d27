package aws

import (
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
)

// FindAction returns the action of that name in its canonical spelling. The
// error, an *invalid.Error for "action", says what may have been meant: the
// action behind an API operation that is none, or the nearest names.
func FindAction(name string) (catalog.Action, error) {
	action, known := catalog.Find(name)
	switch {
	case known && action.Name == name:
		return action, nil
	case known:
		return catalog.Action{}, invalid.Field("action", name, "not spelt as AWS does", "write "+action.Name)
	}
	if needed, operation := catalog.Operation(name); operation {
		return catalog.Action{}, invalid.Field("action", name, "an operation of the API and no action of IAM", "name "+needed+", which allows it")
	}
	remedy := "list catalog/ for all services and their actions"
	for known := range namedActions {
		if strings.EqualFold(known, name) {
			return catalog.Action{}, invalid.Field("action", name, "not spelt as the engine does", "write "+known)
		}
	}
	if nearest := catalog.Nearest(name); len(nearest) > 0 {
		remedy = "name " + invalid.OneOf(nearest)
	}
	if own := NamedActions(prefixOf(name)); len(own) > 0 {
		remedy += ", or one of the named actions " + invalid.OneOf(own)
	}
	return catalog.Action{}, invalid.Field("action", name, "no action of AWS has this name", remedy)
}

// prefixOf is the prefix of an action's name: s3 of s3:PutObject.
func prefixOf(action string) string {
	service, _, _ := strings.Cut(action, ":")
	return service
}
