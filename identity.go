package precision

import (
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// identityOf looks up what Vault knows of a caller. Vault is asked once, and only
// if a role refers to it. The id is empty for a caller without an entity.
func (b *backend) identityOf(entityID string) func(scope.Reference) (string, error) {
	entity := sync.OnceValues(func() (*logical.Entity, error) { return b.System().EntityInfo(entityID) })
	groups := sync.OnceValues(func() ([]*logical.Group, error) { return b.System().GroupsForEntity(entityID) })
	return func(reference scope.Reference) (string, error) {
		missing := func(problem string) error {
			return invalid.Hidden(string(reference), problem, "use a token of an identity that has it")
		}
		if entityID == "" {
			return "", missing("the caller's token belongs to no entity")
		}
		_, path, _ := strings.Cut(string(reference), ".")
		kind, path, _ := strings.Cut(path, ".")
		var value string
		switch kind {
		case "entity":
			known, err := entity()
			if err != nil {
				return "", fmt.Errorf("asking Vault for the caller's entity: %w", err)
			}
			if known == nil || known.ID != entityID {
				return "", missing("Vault does not know the caller's entity")
			}
			value = ofEntity(known, path)
		case "groups":
			known, err := groups()
			if err != nil {
				return "", fmt.Errorf("asking Vault for the caller's groups: %w", err)
			}
			value = ofGroups(known, path)
		}
		if value == "" {
			return "", missing("the caller's identity has no such value")
		}
		return value, nil
	}
}

// checkEntity refuses a caller whose entity is one no more, such as one that was merged
// into another: tokens of before bear its id as long as they live, and it would count as
// another person. One without an entity is for the caller to refuse.
func (b *backend) checkEntity(id string) error {
	if id == "" {
		return nil
	}
	known, err := b.System().EntityInfo(id)
	if err != nil {
		return fmt.Errorf("asking Vault for the caller's entity: %w", err)
	}
	if known == nil || known.ID != id {
		return invalid.Deny("the entity of the caller's token was deleted, or merged into another", "log in again")
	}
	return nil
}

// groupsOf are the ids of the groups that an entity is in.
func (b *backend) groupsOf(entity string) ([]string, error) {
	if entity == "" {
		return nil, nil
	}
	groups, err := b.System().GroupsForEntity(entity)
	if err != nil {
		return nil, fmt.Errorf("asking Vault for the caller's groups: %w", err)
	}
	ids := make([]string, 0, len(groups))
	for _, group := range groups {
		ids = append(ids, group.ID)
	}
	return ids, nil
}

// ofEntity is the value at a path below identity.entity, empty where there is none.
func ofEntity(entity *logical.Entity, path string) string {
	field, rest, _ := strings.Cut(path, ".")
	switch field {
	case "id":
		return entity.ID
	case "name":
		return entity.Name
	case "metadata":
		return entity.Metadata[rest]
	case "aliases":
		accessor, rest, _ := strings.Cut(rest, ".")
		for _, alias := range entity.Aliases {
			if alias.MountAccessor == accessor {
				return ofAlias(alias, rest)
			}
		}
	}
	return ""
}

func ofAlias(alias *logical.Alias, path string) string {
	field, rest, _ := strings.Cut(path, ".")
	switch field {
	case "id":
		return alias.ID
	case "name":
		return alias.Name
	case "metadata":
		return alias.Metadata[rest]
	case "custom_metadata":
		return alias.CustomMetadata[rest]
	}
	return ""
}

// ofGroups is the value at a path below identity.groups: ids.<id>.name or
// names.<name>.id, of a group that the caller is in.
func ofGroups(groups []*logical.Group, path string) string {
	by, rest, _ := strings.Cut(path, ".")
	for _, group := range groups {
		if by == "ids" && rest == group.ID+".name" {
			return group.Name
		}
		if by == "names" && rest == group.Name+".id" {
			return group.ID
		}
	}
	return ""
}
