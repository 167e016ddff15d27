package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/hashicorp/vault/sdk/logical"
)

// names finds the fields of a record that a limit counts by, wherever the rest of it is damaged.
var names = regexp.MustCompile(`"(role|task|entity_id|target)":("(?:[^"\\]|\\.)*")`)

// glimpse returns the names that can be found in a record that can't be read. They are good for counting only: nothing
// says that they were not damaged, too.
func glimpse(ctx context.Context, storage logical.Storage, id string) (Query, error) {
	path, err := key(id)
	if err != nil {
		return Query{}, err
	}
	entry, err := storage.Get(ctx, path)
	if err != nil || entry == nil {
		return Query{}, wrap(err, "ledger: reading grant "+id)
	}
	var named Query
	fields := map[string]*string{
		"role": &named.Role, "task": &named.Task, "entity_id": &named.EntityID, "target": &named.Target,
	}
	for _, found := range names.FindAllSubmatch(entry.Value, -1) {
		field := fields[string(found[1])]
		if *field != "" {
			continue // a later one may be of an object within
		}
		if err := json.Unmarshal(found[2], field); err != nil {
			return named, fmt.Errorf("%w: grant %s: %w", ErrDamaged, id, err)
		}
	}
	return named, nil
}
