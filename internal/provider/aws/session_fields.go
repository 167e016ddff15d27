package aws

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Fields of a role whose credentials are sessions, and of a target that has such
// roles.
const (
	fieldBaseRole       = "role_arn"
	fieldDefaultRole    = "default_role_arn"
	fieldBaseExternalID = "external_id"
	fieldTags           = "session_tags"
	fieldUserTags       = "user_tags"
	fieldTransitive     = "transitive_tag_keys"
	fieldSourceIdentity = "source_identity"
)

// defaultRoleField is what a target's configuration takes.
func defaultRoleField() *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:         framework.TypeString,
		Description:  "ARN of the role that sessions are assumed from where a role does not name one as role_arn.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Default role ARN"},
	}
}

// sessionFields are what a role takes.
func sessionFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldBaseRole: {
			Type:         framework.TypeString,
			Description:  "For assumed_role: ARN of the role that the sessions are assumed from. Default: the target's default_role_arn.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Role ARN"},
		},
		fieldBaseExternalID: {
			Type:         framework.TypeString,
			Description:  "For assumed_role: the external id that the role's trust policy asks for.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "External ID"},
		},
		fieldTags: {
			Type:         framework.TypeKVPairs,
			Description:  "For assumed_role and federation_token: tags of the session, by key. A value may hold {{task}}, a parameter or {{identity.entity.name}} and its like.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Session tags"},
		},
		fieldUserTags: {
			Type:         framework.TypeKVPairs,
			Description:  "For iam_user: tags of the user beside the engine's own, by key. A value may hold {{task}}, a parameter or {{identity.entity.name}} and its like.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "User tags"},
		},
		fieldTransitive: {
			Type:         framework.TypeStringSlice,
			Description:  "For assumed_role: keys of session_tags that stay with the session if it assumes a further role.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Transitive tag keys"},
		},
		fieldSourceIdentity: {
			Type:         framework.TypeString,
			Description:  "For assumed_role: what CloudTrail shows as the session's source identity, entity_name (of the caller) or task. Default: none.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Source identity"},
		},
	}
}

// fieldsOf are the role's fields that only some types of credential take.
var fieldsOf = map[string][]string{
	"permissions_boundary_arn": {iamUser},
	fieldBaseRole:              {assumedRole},
	fieldBaseExternalID:        {assumedRole},
	fieldTags:                  {assumedRole, federationToken},
	fieldUserTags:              {iamUser},
	fieldTransitive:            {assumedRole},
	fieldSourceIdentity:        {assumedRole},
}

// checkFields refuses fields that the role's type of credential does not take.
func checkFields(options provider.Settings) error {
	kind := cmp.Or(options.Text(handleType), iamUser)
	for _, field := range slices.Sorted(maps.Keys(fieldsOf)) {
		if _, set := options[field]; set && !slices.Contains(fieldsOf[field], kind) {
			return invalid.Hidden(field, "credentials of type "+kind+" do not take it", "leave it out, or set credential_type to "+invalid.OneOf(fieldsOf[field]))
		}
	}
	return nil
}

// Limits of STS.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
const (
	maxTags     = 50
	maxTagKey   = 128
	maxTagValue = 256

	minExternalID, maxExternalID = 2, 1224
)

var (
	roleNameShape       = regexp.MustCompile(`\A(?:[\x21-\x7e]+/)?[\w+=,.@-]{1,64}\z`)
	externalIDShape     = regexp.MustCompile(`\A[\w+=,.@:/-]+\z`)
	tagShape            = regexp.MustCompile(`\A[\p{L}\p{Z}\p{N}_.:/=+\-@]*\z`)
	sourceIdentityShape = regexp.MustCompile(`\A[\w+=,.@-]{2,64}\z`)
)

// isExternalID says whether text can be an external id.
func isExternalID(text string) bool {
	return len(text) >= minExternalID && len(text) <= maxExternalID && externalIDShape.MatchString(text)
}

// What source_identity may say.
const (
	byEntityName = "entity_name"
	byTask       = "task"
)

// checkRoleARN holds a base role to its shape and to the target's account: only
// there can the engine end its sessions.
func (a *account) checkRoleARN(field, text string) error {
	arn, err := scope.ParseARN(text)
	name, isRole := strings.CutPrefix(arn.Resource, "role/")
	switch {
	case text == "":
		return invalid.Field(field, text, "missing", "name the role that the sessions are assumed from, here or as the target's default_role_arn")
	case err != nil || arn.Service != "iam" || arn.Region != "" || !isRole || !roleNameShape.MatchString(name):
		return invalid.Field(field, text, "not the ARN of a role", "write it as arn:aws:iam::123456789012:role/name")
	case a.id != "" && (arn.Account != a.id || arn.Partition != a.partition):
		return invalid.Field(field, text, "not a role of the target's account, "+a.id+", where its sessions could be ended", "name one, or configure a target in that account")
	}
	return nil
}

// checkSessionFields holds the role's fields to what STS takes.
func checkSessionFields(options provider.Settings) error {
	if id := options.Text(fieldBaseExternalID); options[fieldBaseExternalID] != nil && !isExternalID(id) {
		return invalid.Field(fieldBaseExternalID, id, "not an external id", "write 2 to 1,224 letters, digits and +=,.@:/-_")
	}
	tags, err := tagsOf(options, fieldTags, maxTags)
	if err != nil {
		return err
	}
	for _, key := range options.List(fieldTransitive) {
		if _, known := tags[key]; !known {
			return invalid.Field(fieldTransitive, key, "no key of session_tags", "name one of "+invalid.OneOf(slices.Sorted(maps.Keys(tags))))
		}
	}
	switch wanted := options.Text(fieldSourceIdentity); wanted {
	case "", byEntityName, byTask:
		return nil
	default:
		return invalid.Field(fieldSourceIdentity, wanted, "not known", "write "+byEntityName+" or "+byTask+", or leave it out")
	}
}

// tagsOf are a role's tags in one of its fields, held to what AWS takes.
func tagsOf(options provider.Settings, field string, most int) (map[string]string, error) {
	tags := options.Pairs(field)
	if len(tags) > most {
		return nil, invalid.Hidden(field, fmt.Sprintf("%d tags are too many", len(tags)), fmt.Sprintf("give %d at most", most))
	}
	folded := map[string]bool{} // AWS takes keys that differ in case for the same
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		value := tags[key]
		lower := strings.ToLower(key)
		switch {
		case key == "" || len([]rune(key)) > maxTagKey || !tagShape.MatchString(key) || strings.HasPrefix(lower, "aws:"):
			return nil, invalid.Field(field, key, "not a key of a tag", "write up to 128 letters, digits, spaces and _.:/=+-@, not aws: first")
		case len([]rune(value)) > maxTagValue || !tagShape.MatchString(value):
			return nil, invalid.Field(field, value, "not a value of a tag", "write up to 256 letters, digits, spaces and _.:/=+-@")
		case folded[lower]:
			return nil, invalid.Field(field, key, "there is another key that differs in case only", "leave one out")
		}
		folded[lower] = true
	}
	return tags, nil
}

// sourceIdentity is what the grant's session gets; empty for none.
func sourceIdentity(grant provider.Grant) (string, error) {
	var value, remedy string
	switch grant.Options.Text(fieldSourceIdentity) {
	case "":
		return "", nil
	case byEntityName:
		if grant.EntityName == nil {
			return "", errors.New("aws: nobody says whose session it is")
		}
		name, err := grant.EntityName()
		if err != nil {
			return "", err
		}
		value, remedy = name, "use a token of an entity whose name STS takes"
	case byTask:
		value, remedy = grant.Task, "read with a task that STS takes"
	}
	if !sourceIdentityShape.MatchString(value) {
		return "", invalid.Field(fieldSourceIdentity, value, "STS does not take it for a source identity", remedy+": 2 to 64 letters, digits and +=,.@-_")
	}
	return value, nil
}
