package aws

import (
	"fmt"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// checkEscalation refuses an action that hands out further power, unless the
// role allows it. The role names the action or one that it is a member of.
func checkEscalation(role string, action catalog.Action, allowed bool) error {
	escalation, escalates := catalog.EscalationOf(action)
	if !escalates || escalation.Verdict != catalog.Refuse || allowed {
		return nil
	}
	problem := "it hands out further power: "
	if role != action.Name {
		problem = "its " + action.Name + " hands out further power: "
	}
	return invalid.Field("action", role, problem+because(escalation),
		"grant something narrower, or say allow_escalation=true")
}

// because gives an escalation's reason and the first of its sources.
func because(escalation catalog.Escalation) string {
	source, _, _ := strings.Cut(escalation.Source, "; ")
	return fmt.Sprintf("%s (%s)", escalation.Reason, source)
}

// heedful is a warning that its reader can act on: what the action can be turned
// into, and what to look at or to narrow for this very resource.
func heedful(escalation catalog.Escalation, resource scope.Text) string {
	return fmt.Sprintf("%s on %s: %s; %s", escalation.Action, asWritten(resource), escalation.Reason, lookAt(escalation.Look, asWritten(resource)))
}

// lookAt fills a resource into what a warning says to look at.
func lookAt(look, resource string) string {
	path := resource
	if parts := strings.SplitN(resource, ":", arnParts); len(parts) == arnParts {
		path = parts[arnParts-1]
	}
	bucket, _, _ := strings.Cut(path, "/")
	name := path
	if at := strings.IndexAny(path, "/:"); at >= 0 {
		name = path[at+1:]
	}
	return strings.NewReplacer("{resource}", resource, "{name}", name, "{bucket}", bucket).Replace(look)
}

// arnParts is the number of parts of an ARN.
const arnParts = 6

// asWritten is a resource as its role names it: with {{key}} where a value is filled in.
func asWritten(resource scope.Text) string {
	text := resource.String()
	var name strings.Builder
	at := 0
	for _, filled := range resource.Filled() {
		name.WriteString(text[at:filled.Start] + "{{" + string(filled.Reference) + "}}")
		at = filled.End
	}
	name.WriteString(text[at:])
	return name.String()
}
