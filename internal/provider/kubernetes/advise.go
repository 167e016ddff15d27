package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// systemNamespace is where a cluster's own components run.
const systemNamespace = "kube-system"

// escalations says how a grant hands out more than it names.
func (c *cluster) escalations(of grant) []string {
	var reasons []string
	changes := false
	for _, one := range of.granted {
		if one.kind.subresource != "" {
			continue // scale and log
		}
		changes = changes || anyOf(one.verbs, changing)
		switch known := table()[one.kind]; {
		case known.risk == power && anyOf(one.verbs, changing):
			reasons = append(reasons, one.kind.String()+": "+known.reason)
		case one.kind == secrets && of.on.name == "":
			reasons = append(reasons, "secrets: all of a namespace's show whatever its workloads hold")
		}
	}
	if some := of.options.tolerated.impersonating(); len(some) > 0 {
		reasons = append(reasons, "its credentials may act as others, which no admission policy sees: "+strings.Join(some.texts(), "; "))
	}
	switch {
	case !changes || of.action.name == actionRestart:
	case of.on.namespace == systemNamespace:
		reasons = append(reasons, "the cluster's own components, and what they are configured by, are in "+systemNamespace)
	case of.on.namespace == c.engineNamespace():
		reasons = append(reasons, "the engine's own account is in the namespace "+of.on.namespace)
	}
	return reasons
}

// engineNamespace is where the engine's own account is; empty where it is not a
// service account, or the connection was never verified.
func (c *cluster) engineNamespace() string {
	account, is := strings.CutPrefix(c.facts[factEngine], "system:serviceaccount:")
	if !is {
		return ""
	}
	namespace, _, _ := strings.Cut(account, ":")
	return namespace
}

// Advise implements provider.Adviser.
func (c *cluster) Advise(granted scope.Scope, bounds provider.Bounds) provider.Advice {
	made, err := c.newGrant(granted, bounds)
	if err != nil {
		return provider.Advice{} // Compile has refused it
	}
	var advice provider.Advice
	toMint := func(format string, values ...any) {
		advice.Mint = append(advice.Mint, fmt.Sprintf(format, values...))
	}
	toDefine := func(format string, values ...any) {
		advice.Definition = append(advice.Definition, fmt.Sprintf(format, values...))
	}
	for _, reason := range c.escalations(made) {
		toMint("this grant can be turned into more than it is: %s", reason)
	}
	var runs, unknown []string
	for _, one := range made.granted {
		if one.kind.subresource != "" || !anyOf(one.verbs, changing) || made.action.name == actionRestart {
			continue
		}
		known, judged := table()[one.kind]
		switch {
		case !judged:
			unknown = append(unknown, one.kind.String())
		case known.risk == workload:
			runs = append(runs, one.kind.String())
		case known.risk == caution:
			toDefine("%s: %s", one.kind, known.reason)
		}
		if one.kind.String() == "cronjobs.batch" {
			toDefine("%s: %s", one.kind, known.reason)
		}
	}
	if len(runs) > 0 {
		toMint("who may change %s can run pods in %s: as any of its service accounts, with any of its secrets, and on after the grant has ended, unless an admission policy forbids it; the documentation has one",
			strings.Join(runs, ", "), made.on.namespace)
	}
	if len(unknown) > 0 {
		toMint("what the controllers of %s do for who may change them is not known here", strings.Join(unknown, ", "))
	}
	if made.options.watch {
		toMint("a stream that is open when the credential is ended, a watch or a log that is followed, goes on until its holder closes it")
	}
	if verbs := made.verbs(); anyOf(verbs, revealing) && !anyOf(verbs, reading) {
		toDefine("patch, delete and deletecollection show what they are asked to change: with dryRun=All they change nothing")
	}
	if verbs := made.verbs(); anyOf(verbs, owning) && !slices.Contains(verbs, "delete") && made.action.subresource == "" && made.action.name != actionRestart {
		toDefine("who may patch or update an object can have the cluster delete it, by naming an owner that is not there, unless an admission policy forbids it; the documentation has one")
	}
	if verbs := made.verbs(); made.on.name != "" && slices.Contains(verbs, "create") && slices.Contains(verbs, "delete") {
		toDefine("with one name, the object can be created by server-side apply only: " +
			"kubectl replace --force deletes it and then fails; kubectl apply --server-side makes it again")
	}
	if bounds.TTL > 0 && bounds.TTL < shortestToken+tokenLeeway {
		toDefine("the API server gives no token for less than %d s, and takes it for %d s more: until then it is the end of the lease that ends a credential", shortestToken/time.Second, tokenLeeway/time.Second)
	}
	return advice
}

// verbs are all that the grant has on anything.
func (g grant) verbs() []string {
	var all []string
	for _, one := range g.granted {
		all = append(all, one.verbs...)
	}
	return inOrder(all)
}
