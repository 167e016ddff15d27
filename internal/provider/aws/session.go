package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"golang.org/x/sync/errgroup"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/revocation"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// The types of credential that are sessions.
const (
	assumedRole     = "assumed_role"
	federationToken = "federation_token"
)

// Keys of a session's handle.
const (
	handleBase           = "base_arn" // the role that it is assumed from, or the user that asked for it
	handleSession        = "session_name"
	handleEnd            = "expires_at"
	handleExternalID     = "external_id"
	handleSourceIdentity = "source_identity"
	handleTransitive     = "transitive_tag_keys"
	handleTag            = "session_tag:" // and a key
)

// How long a session lives at AWS. A shorter life is its policy's.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetFederationToken.html
const (
	shortestSession  = 15 * time.Minute
	longestAssumed   = 12 * time.Hour
	longestChained   = time.Hour
	longestFederated = 36 * time.Hour
)

// caller is who the engine is at AWS.
type caller struct{ scope.ARN }

// chained says whether the engine is itself the session of a role.
func (c caller) chained() bool {
	return c.Service == "sts" && strings.HasPrefix(c.Resource, "assumed-role/")
}

// callerWarnings says what follows for sessions from who the engine is.
func callerWarnings(arn scope.ARN) []string {
	if !(caller{arn}).chained() {
		return nil
	}
	return []string{fmt.Sprintf("the engine is itself a role's session, %s: sessions of type %s then live an hour at most, since AWS chains roles no longer", arn, assumedRole)}
}

// isUser says whether the engine is an IAM user.
func (c caller) isUser() bool {
	return c.Service == "iam" && strings.HasPrefix(c.Resource, "user/")
}

// maker opens a session at STS.
type maker interface {
	// open makes the call. The life is whole seconds.
	open(ctx context.Context, handle provider.Handle, policy provider.Policy, life time.Duration) (session, error)
	// base is the ARN that the sessions of such a role hang on.
	base(options provider.Settings) (string, error)
	// principal is the ARN of a session of that name.
	principal(base scope.ARN, name string) string
	// name is a drawn name as the call takes it.
	name(revocation.Name) string
	// longest is the longest life that AWS gives such a session, and why.
	longest() (time.Duration, string)
}

// session is what STS answers.
type session struct {
	credentials *types.Credentials
	// How much of what AWS allows they take, in per cent: policy and tags packed,
	// and the token. AWS means the second to replace the first, and answers either.
	packed, token *int32
}

// sessions mints an STS session for each grant: with the grant's policy as its
// session policy, and a name that it can be ended by.
type sessions struct {
	*account
	maker
}

// check implements credentialType.
func (s *sessions) check(options provider.Settings) error {
	if _, err := s.base(options); err != nil {
		return err
	}
	return checkSessionFields(options)
}

// checkLife refuses a life that AWS does not give; 0 where it is not known.
func (s *sessions) checkLife(ttl time.Duration) error {
	limit, why := s.longest()
	if ttl > limit {
		return invalid.Field("ttl", ttl.String(), fmt.Sprintf("longer than %s, %s", limit, why), "set ttl and max_ttl to that or less")
	}
	return nil
}

// holder stands for a session: no resource's policy can name it, since its own
// name is unguessable.
func (s *sessions) holder(options provider.Settings) (iampolicy.Principal, error) {
	base, err := s.base(options)
	if err != nil {
		return iampolicy.Principal{}, err
	}
	arn, err := scope.ParseARN(base)
	if err != nil {
		return iampolicy.Principal{}, err
	}
	return iampolicy.Principal{ARN: s.principal(arn, "holder"), Issuer: base}, nil
}

// prepare implements credentialType. It waits for the ledger, since a name must
// not be one that is denied.
func (s *sessions) prepare(ctx context.Context, grant provider.Grant) (provider.Handle, error) {
	base, err := s.base(grant.Options)
	if err != nil {
		return nil, err
	}
	identity, err := sourceIdentity(grant)
	if err != nil {
		return nil, err
	}
	committer, err := s.bases.await(ctx, base, s.client)
	if err != nil {
		return nil, err
	}
	drawn, err := committer.Draw(ctx, grant.Role, grant.Task, grant.ID[len(grant.ID)-idRandom:], grant.ExpiresAt)
	if err != nil {
		return nil, fmt.Errorf("aws: drawing a session's name: %w", err)
	}
	handle := provider.Handle{handleBase: base, handleSession: s.name(drawn.After(s.client.sessionPrefix)), handleEnd: grant.ExpiresAt.UTC().Format(time.RFC3339)}
	for key, value := range grant.Options.Pairs(fieldTags) {
		handle[handleTag+key] = value
	}
	for key, value := range map[string]string{
		handleExternalID:     grant.Options.Text(fieldBaseExternalID),
		handleSourceIdentity: identity,
		handleTransitive:     strings.Join(grant.Options.List(fieldTransitive), "\n"),
	} {
		if value != "" {
			handle[key] = value
		}
	}
	return handle, nil
}

// idRandom is the number of a grant id's last characters that are random.
const idRandom = 16

// named is what a session is known by at AWS.
func named(handle provider.Handle) (revocation.Session, error) {
	name, err := revocation.ParseName(handle[handleSession])
	if err != nil {
		return revocation.Session{}, fmt.Errorf("aws: the handle: %w", err)
	}
	end, err := time.Parse(time.RFC3339, handle[handleEnd])
	if err != nil {
		return revocation.Session{}, fmt.Errorf("aws: the handle's end: %w", err)
	}
	return revocation.Session{Code: name.Code(), ExpiresAt: end}, nil
}

// mint implements credentialType, in one call.
func (s *sessions) mint(ctx context.Context, handle provider.Handle, policy provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	if s.bases.overtaken(handle) {
		return provider.Credential{}, &provider.NotMade{Reason: fmt.Errorf("%w: the session's name was denied before it was minted; try again", provider.ErrUnavailable)}
	}
	limit, _ := s.longest()
	// Not a second more than was asked for: a role's MaxSessionDuration is often
	// just what its sessions live.
	life := min(max(time.Until(expiresAt).Truncate(time.Second), shortestSession), limit)
	began := s.client.skew.wall()
	made, err := s.open(ctx, handle, policy, life)
	if err != nil {
		explained := explainSession(err, life)
		if neverMade(err) {
			explained = &provider.NotMade{Reason: explained}
		}
		return provider.Credential{}, explained
	}
	if made.credentials == nil || made.credentials.AccessKeyId == nil || made.credentials.SecretAccessKey == nil || made.credentials.SessionToken == nil {
		return provider.Credential{}, errors.New("aws: the answer of STS holds no session")
	}
	s.client.skew.hearSession(made.credentials.Expiration, life, began)
	credential := provider.Credential{
		Fields: map[string]any{
			"access_key":    *made.credentials.AccessKeyId,
			"secret_key":    *made.credentials.SecretAccessKey,
			"session_token": *made.credentials.SessionToken,
		},
		// What ends it, and no more.
		Handle: provider.Handle{handleType: handle[handleType], handleBase: handle[handleBase], handleSession: handle[handleSession], handleEnd: handle[handleEnd]},
	}
	credential.Observed, credential.Warnings = made.sizes()
	return credential, nil
}

// sizes is how much room the session takes of what AWS allows.
func (s session) sizes() (observed map[string]any, warnings []string) {
	observed = map[string]any{}
	for name, share := range map[string]*int32{"packed_policy_size": s.packed, "session_token_utilization": s.token} {
		if share == nil {
			continue
		}
		observed[name] = int(*share)
		if *share > packedWarning {
			warnings = append(warnings, fmt.Sprintf("%s: policy and tags of a session take %d %% of what AWS allows, and beyond 100 %% none is minted; %s", name, *share, shrink))
		}
	}
	return observed, warnings
}

// packedWarning is the share of the packed size, in per cent, above which people
// are told.
const packedWarning = 90

// shrink says what takes room in a session.
const shrink = "use a shorter resource, fewer or shorter conditions, fewer or shorter session_tags, or no kms_key"

// revoke implements credentialType. It makes no call of its own: the base's
// committer ends what is to end in groups.
func (s *sessions) revoke(ctx context.Context, handle provider.Handle) error {
	ending, err := named(handle)
	if err != nil {
		return err
	}
	committer, err := s.bases.of(ctx, handle[handleBase], s.client)
	if err != nil {
		return err
	}
	if err := committer.Revoke(ctx, ending); err != nil {
		return fmt.Errorf("aws: ending session %s: %w", handle[handleSession], err)
	}
	return nil
}

// RevokeBatch implements provider.BatchRevoker, with one commit for each base.
func (a *account) RevokeBatch(ctx context.Context, handles []provider.Handle) error {
	type group struct {
		*sessions
		base string
	}
	byBase := map[group][]revocation.Session{}
	for _, handle := range handles {
		kind, able := a.types[handle[handleType]].(*sessions)
		if !able {
			continue
		}
		ending, err := named(handle)
		if err != nil {
			return err
		}
		of := group{kind, handle[handleBase]}
		byBase[of] = append(byBase[of], ending)
	}
	var all errgroup.Group
	for of, ending := range byBase {
		all.Go(func() error {
			committer, err := of.bases.of(ctx, of.base, of.client)
			if err != nil {
				return err
			}
			return committer.Revoke(ctx, ending...)
		})
	}
	return all.Wait()
}

// neverMade says whether STS has refused to make a session. One that it made for
// a try before, of which the answer was lost, has no holder. Codes:
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
// https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
func neverMade(err error) bool {
	switch errorCode(err) {
	case "AccessDenied", "ValidationError", "MalformedPolicyDocument", "PackedPolicyTooLarge", "RegionDisabledException",
		"InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken":
		return true
	default:
		return throttled(err)
	}
}

// explainSession turns what STS refuses into what can be mended.
func explainSession(err error, life time.Duration) error {
	switch code := errorCode(err); {
	case code == "PackedPolicyTooLarge":
		return invalid.Hidden("resource", "policy and tags of the session are larger than AWS packs: "+invalid.Clip(err.Error()), shrink)
	case code == "ValidationError" && life > longestChained:
		return invalid.Field("ttl", life.String(), "AWS does not take it, or something else of the session: "+invalid.Clip(err.Error()),
			"ask for less, set ttl and max_ttl to the base role's MaxSessionDuration, or raise that")
	default:
		return err
	}
}
