// Package judge asks an evaluator of AWS policies by others, iam-simulate, what
// AWS would say to a request. It is for proofs about policies that this project
// writes, knows nothing of how they are written, and is never shipped.
//
// A verdict rests on what the request states: there is no clock, no account and
// no default. What the simulator would misread, most often as "denied", is
// refused with the reason ([RefusedError]): unknown actions, operators and
// condition keys, keys that the action doesn't have, keys that a policy asks for
// and the request does not state, dates written in two ways, half ARNs, and more
// in the tests.
//
// # What it knows
//
// All 22,091 actions of iam-data 0.21.202609261 can be judged, on each form of
// resource that it lists; a test holds that. For 346 of them (dms, lex, lambda
// versions and others: two types or none for an ARN) this takes the simulator's
// core past its choice of a type. About 6,500 requests a second; a new policy
// costs about a request.
//
// # What a proof has to know
//
//   - Ambient policies and sessions. The simulator lets an implicit deny of the
//     session policy stand against every resource policy. In AWS one that names
//     the session is not limited by it. So a proof with a session and an ambient
//     policy demands ExplicitlyDenied. One that names the base role is limited by
//     the session policy, in AWS too.
//   - A resource policy that names an account lets that account's identity
//     policies decide, no more. One that names a role gives to its sessions, and
//     no permissions boundary is passed by; one that names the session or "*"
//     passes by a boundary's implicit deny.
//   - A role in a resource policy is found by the last part of its name: roles of
//     one name under two paths are one. A federated user is taken for the IAM
//     user of the same name, not for the one that called GetFederationToken.
//   - KMS keys need a key policy, and roles a trust policy, in the request.
//   - Which services have resource policies, and what context AWS sends with an
//     action, is for the proof to know: a key that AWS sends and iam-data does not
//     list for the action is refused.
//   - sts:GetCallerIdentity is always allowed. sts:GetSessionToken is denied
//     without an Allow, though AWS asks for none.
//   - aws:ResourceTag on S3 buckets and objects is refused: it needs a setting of
//     the bucket. NotPrincipal is refused. There are no resource control
//     policies, no VPC endpoint policies, no roots and no services as principals.
//   - Action names in policies are not checked: a misspelt one matches nothing.
//     Nor are the size of a policy, its characters, and Sids. Of a JSON member
//     that is there twice, the last counts.
//   - Binary conditions are compared as text.
package judge
