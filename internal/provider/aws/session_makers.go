package aws

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/revocation"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// assumes opens sessions of a role.
type assumes struct{ *account }

// base implements maker.
func (m assumes) base(options provider.Settings) (string, error) {
	field, arn := fieldBaseRole, options.Text(fieldBaseRole)
	if arn == "" && m.defaultRole != "" {
		field, arn = fieldDefaultRole, m.defaultRole
	}
	return arn, m.checkRoleARN(field, arn)
}

// name implements maker.
func (m assumes) name(drawn revocation.Name) string { return drawn.String() }

// principal implements maker.
func (m assumes) principal(base scope.ARN, name string) string {
	role := base.Resource[strings.LastIndex(base.Resource, "/")+1:]
	return "arn:" + base.Partition + ":sts::" + base.Account + ":assumed-role/" + role + "/" + name
}

// longest implements maker.
func (m assumes) longest() (time.Duration, string) {
	if m.caller.chained() {
		return longestChained, "which is all that AWS gives where the engine itself uses a role's session"
	}
	return longestAssumed, "which is the longest that a role's session lives"
}

// open implements maker.
func (m assumes) open(ctx context.Context, handle provider.Handle, policy provider.Policy, life time.Duration) (session, error) {
	input := &sts.AssumeRoleInput{
		RoleArn:         awssdk.String(handle[handleBase]),
		RoleSessionName: awssdk.String(handle[handleSession]),
		Policy:          awssdk.String(string(policy)),
		DurationSeconds: awssdk.Int32(int32(life / time.Second)),
		Tags:            tagsIn(handle),
	}
	if id := handle[handleExternalID]; id != "" {
		input.ExternalId = awssdk.String(id)
	}
	if identity := handle[handleSourceIdentity]; identity != "" {
		input.SourceIdentity = awssdk.String(identity)
	}
	if keys := handle[handleTransitive]; keys != "" {
		input.TransitiveTagKeys = strings.Split(keys, "\n")
	}
	answer, err := m.client.quickSTS.AssumeRole(ctx, input)
	if err != nil {
		return session{}, fmt.Errorf("aws: AssumeRole: %w", err)
	}
	//lint:ignore SA1019 the one that servers of today answer
	return session{credentials: answer.Credentials, packed: answer.PackedPolicySize, token: answer.SessionTokenUtilization}, nil
}

// federates opens sessions of federated users.
type federates struct{ *account }

// base implements maker.
func (m federates) base(provider.Settings) (string, error) {
	switch {
	case m.caller == (caller{}):
		return "", invalid.Hidden("target", "who the engine is at AWS is not known, because its connection was never verified", "write its config again with verify_connection=true")
	case !m.caller.isUser():
		return "", invalid.Field(handleType, federationToken, fmt.Sprintf("the engine is %s, and only an IAM user gets federation tokens that can be ended", m.caller),
			"give the target an IAM user's access_key, or use "+assumedRole)
	}
	return m.caller.String(), nil
}

// name implements maker.
func (m federates) name(drawn revocation.Name) string { return drawn.Federated() }

// principal implements maker.
func (m federates) principal(base scope.ARN, name string) string {
	return "arn:" + base.Partition + ":sts::" + base.Account + ":federated-user/" + name
}

// longest implements maker.
func (m federates) longest() (time.Duration, string) {
	return longestFederated, "which is the longest that a federated user's session lives"
}

// open implements maker.
func (m federates) open(ctx context.Context, handle provider.Handle, policy provider.Policy, life time.Duration) (session, error) {
	answer, err := m.client.quickSTS.GetFederationToken(ctx, &sts.GetFederationTokenInput{
		Name:            awssdk.String(handle[handleSession]),
		Policy:          awssdk.String(string(policy)),
		DurationSeconds: awssdk.Int32(int32(life / time.Second)),
		Tags:            tagsIn(handle),
	})
	if err != nil {
		return session{}, fmt.Errorf("aws: GetFederationToken: %w", err)
	}
	//lint:ignore SA1019 the one that servers of today answer
	return session{credentials: answer.Credentials, packed: answer.PackedPolicySize, token: answer.SessionTokenUtilization}, nil
}

func tagsIn(handle provider.Handle) (tags []types.Tag) {
	for _, key := range slices.Sorted(maps.Keys(handle)) {
		if name, is := strings.CutPrefix(key, handleTag); is {
			tags = append(tags, types.Tag{Key: awssdk.String(name), Value: awssdk.String(handle[key])})
		}
	}
	return tags
}
