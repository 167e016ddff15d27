package catalog

import (
	"slices"
	"strings"
	"sync"
)

var operations = sync.OnceValue(func() map[string][]string {
	result := map[string][]string{}
	for _, row := range table("operations.tsv", "operation", "actions", "source") {
		result[strings.ToLower(row[0])] = strings.Fields(row[1])
	}
	return result
})

// Operation returns the action that calling an API operation needs whose name is
// no action: "s3:HeadObject" needs "s3:GetObject". The name may be in any case.
// Where several are needed it is the usual one; OperationActions has all.
func Operation(name string) (action string, ok bool) {
	actions := OperationActions(name)
	if len(actions) == 0 {
		return "", false
	}
	return actions[0], true
}

// OperationActions returns the actions that calling an API operation needs: all of
// them, or those that fit what the call does. It knows only operations whose name
// is no action, and is empty for all else.
func OperationActions(name string) []string {
	folded, ok := fold(name)
	if !ok {
		return nil
	}
	return slices.Clone(operations()[folded])
}
