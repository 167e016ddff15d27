package kubernetes

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"
)

//go:embed data/namespace-resources.tsv
var tableText string

// risk is what somebody who may change an object of a kind gets by it.
type risk string

const (
	noRisk   risk = "none"
	caution  risk = "caution"  // it reaches its neighbours
	workload risk = "workload" // it runs code in the namespace
	power    risk = "power"    // it gives rights that were not granted
)

// row is what is known of one of Kubernetes' own kinds.
type row struct {
	kind        kind
	write, read bool // whether <namespace>/* has it
	risk        risk
	reason      string
}

// table is what is known of Kubernetes' own kinds, read once.
var table = sync.OnceValue(func() map[kind]row {
	rows, err := parseTable(tableText)
	if err != nil {
		panic(err) // a test reads it
	}
	return rows
})

func parseTable(text string) (map[kind]row, error) {
	rows := map[kind]row{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "resource\t") {
			continue
		}
		fields := strings.Split(line, "\t")
		if len(fields) != 5 {
			return nil, fmt.Errorf("kubernetes: table: %q has not five columns", line)
		}
		read := row{kind: parseKind(fields[0]), write: fields[1] == "allow", read: fields[2] == "allow", risk: risk(fields[3]), reason: fields[4]}
		if !slices.Contains([]risk{noRisk, caution, workload, power}, read.risk) || read.reason == "" {
			return nil, fmt.Errorf("kubernetes: table: %q has no known risk", line)
		}
		if _, twice := rows[read.kind]; twice {
			return nil, fmt.Errorf("kubernetes: table: %s stands twice", read.kind)
		}
		rows[read.kind] = read
	}
	return rows, nil
}

// builtIn says whether a group is one of Kubernetes' own that the table has.
func builtIn(group string) bool {
	for known := range table() {
		if known.group == group {
			return true
		}
	}
	return false
}

// secrets are what a namespace keeps its credentials in.
var secrets = kind{resource: "secrets"}

// Verbs by what they do to an object.
var (
	changing  = []string{"create", "patch", "update"}
	owning    = []string{"patch", "update"}
	deleting  = []string{"delete", "deletecollection"}
	revealing = []string{"delete", "deletecollection", "patch"} // with dryRun=All they show what they leave as it is
	reading   = []string{"get", "list", "watch"}
)

func anyOf(verbs, of []string) bool {
	return slices.ContainsFunc(verbs, func(verb string) bool { return slices.Contains(of, verb) })
}
