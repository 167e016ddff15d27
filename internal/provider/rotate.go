package provider

import "context"

// RootRotator is a Provider that can replace the root credential that it is
// configured with by one that nobody has seen. The steps are apart so that a
// crash between any two of them leaves a target that works, and notes of what
// else there is.
type RootRotator interface {
	// PlanRotation looks at the stored credential and whose it is. What the
	// operator can mend, such as that none is stored, is an *invalid.Error.
	PlanRotation(ctx context.Context) (RotationPlan, error)

	// NextRoot makes a new credential beside the stored one, and returns the plan
	// with its name. On an error it may have made one, unless that is a *NotMade.
	NextRoot(ctx context.Context, plan RotationPlan) (RotationPlan, Settings, error)

	// AwaitRoot waits until the credential that this provider is configured with
	// works everywhere that the provider needs it.
	AwaitRoot(ctx context.Context) error

	// EndOtherRoots ends what a rotation by the plan has left beside the credential
	// that this provider is configured with: the new one or the old one. It is
	// idempotent, and never ends the one that is configured.
	EndOtherRoots(ctx context.Context, plan RotationPlan) error
}

// RotationPlan is what a RootRotator has to know to find the credentials of a
// rotation again. It holds no secret, and is kept in storage while one is under
// way.
type RotationPlan map[string]string
