// Package deploy holds what an operator applies to a target. Providers compare a target
// with it.
package deploy

import _ "embed"

// AdmissionPolicy is the file of Kubernetes' admission policies, in YAML.
//
//go:embed kubernetes/admission-policy.yaml
var AdmissionPolicy []byte
