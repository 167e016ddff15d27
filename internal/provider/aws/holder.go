package aws

import (
	"context"
	"fmt"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/smithy-go/middleware"
)

// inlinePage is some of the names of inline policies.
type inlinePage struct {
	names []string
	next  *string   // where the list goes on; nil at its end
	at    time.Time // what AWS's clock said; zero where it did not say
}

// toldBy is what AWS's clock said when it answered.
func toldBy(answer middleware.Metadata) time.Time {
	at, _ := awsmiddleware.GetServerTime(answer)
	return at
}

// roleHolder is a role that sessions are assumed from.
type roleHolder struct {
	api  *iam.Client
	name string
}

func (h roleHolder) listInline(ctx context.Context, marker *string) (inlinePage, error) {
	answer, err := h.api.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: awssdk.String(h.name), Marker: marker})
	if err != nil {
		return inlinePage{}, fmt.Errorf("aws: ListRolePolicies: %w", err)
	}
	return inlinePage{answer.PolicyNames, further(answer.IsTruncated, answer.Marker), toldBy(answer.ResultMetadata)}, nil
}

func (h roleHolder) getInline(ctx context.Context, name string) (*string, error) {
	answer, err := h.api.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: awssdk.String(h.name), PolicyName: awssdk.String(name)})
	if err != nil {
		return nil, fmt.Errorf("aws: GetRolePolicy: %w", err)
	}
	return answer.PolicyDocument, nil
}

func (h roleHolder) putInline(ctx context.Context, name, document string) error {
	_, err := h.api.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: awssdk.String(h.name), PolicyName: awssdk.String(name), PolicyDocument: awssdk.String(document)})
	if err != nil {
		return fmt.Errorf("aws: PutRolePolicy: %w", err)
	}
	return nil
}

func (h roleHolder) deleteInline(ctx context.Context, name string) error {
	_, err := h.api.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: awssdk.String(h.name), PolicyName: awssdk.String(name)})
	return unlessGone("DeleteRolePolicy", err)
}

func (h roleHolder) listAttached(ctx context.Context, marker *string) ([]types.AttachedPolicy, *string, error) {
	answer, err := h.api.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: awssdk.String(h.name), Marker: marker})
	if err != nil {
		return nil, nil, fmt.Errorf("aws: ListAttachedRolePolicies: %w", err)
	}
	return answer.AttachedPolicies, further(answer.IsTruncated, answer.Marker), nil
}

func (h roleHolder) attach(ctx context.Context, arn string) error {
	_, err := h.api.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: awssdk.String(h.name), PolicyArn: awssdk.String(arn)})
	if err != nil {
		return fmt.Errorf("aws: AttachRolePolicy: %w", err)
	}
	return nil
}

func (h roleHolder) detach(ctx context.Context, arn string) error {
	_, err := h.api.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: awssdk.String(h.name), PolicyArn: awssdk.String(arn)})
	return unlessGone("DetachRolePolicy", err)
}

// userHolder is a user that asks for federation tokens.
type userHolder struct {
	api  *iam.Client
	name string
}

func (h userHolder) listInline(ctx context.Context, marker *string) (inlinePage, error) {
	answer, err := h.api.ListUserPolicies(ctx, &iam.ListUserPoliciesInput{UserName: awssdk.String(h.name), Marker: marker})
	if err != nil {
		return inlinePage{}, fmt.Errorf("aws: ListUserPolicies: %w", err)
	}
	return inlinePage{answer.PolicyNames, further(answer.IsTruncated, answer.Marker), toldBy(answer.ResultMetadata)}, nil
}

func (h userHolder) getInline(ctx context.Context, name string) (*string, error) {
	answer, err := h.api.GetUserPolicy(ctx, &iam.GetUserPolicyInput{UserName: awssdk.String(h.name), PolicyName: awssdk.String(name)})
	if err != nil {
		return nil, fmt.Errorf("aws: GetUserPolicy: %w", err)
	}
	return answer.PolicyDocument, nil
}

func (h userHolder) putInline(ctx context.Context, name, document string) error {
	_, err := h.api.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: awssdk.String(h.name), PolicyName: awssdk.String(name), PolicyDocument: awssdk.String(document)})
	if err != nil {
		return fmt.Errorf("aws: PutUserPolicy: %w", err)
	}
	return nil
}

func (h userHolder) deleteInline(ctx context.Context, name string) error {
	_, err := h.api.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: awssdk.String(h.name), PolicyName: awssdk.String(name)})
	return unlessGone("DeleteUserPolicy", err)
}

func (h userHolder) listAttached(ctx context.Context, marker *string) ([]types.AttachedPolicy, *string, error) {
	answer, err := h.api.ListAttachedUserPolicies(ctx, &iam.ListAttachedUserPoliciesInput{UserName: awssdk.String(h.name), Marker: marker})
	if err != nil {
		return nil, nil, fmt.Errorf("aws: ListAttachedUserPolicies: %w", err)
	}
	return answer.AttachedPolicies, further(answer.IsTruncated, answer.Marker), nil
}

func (h userHolder) attach(ctx context.Context, arn string) error {
	_, err := h.api.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: awssdk.String(h.name), PolicyArn: awssdk.String(arn)})
	if err != nil {
		return fmt.Errorf("aws: AttachUserPolicy: %w", err)
	}
	return nil
}

func (h userHolder) detach(ctx context.Context, arn string) error {
	_, err := h.api.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: awssdk.String(h.name), PolicyArn: awssdk.String(arn)})
	return unlessGone("DetachUserPolicy", err)
}

// further is where a list goes on, nil at its end.
func further(truncated bool, marker *string) *string {
	if !truncated {
		return nil
	}
	return marker
}
