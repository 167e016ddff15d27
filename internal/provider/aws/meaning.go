package aws

import (
	"fmt"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// checkMeaning refuses a resource that AWS judges by its ARN and whose service reads
// more into the request than the ARN says. docs/exactness.md has the services that
// were looked at. What a role may allow with allow_escalation is not refused where
// allowed is true: reach then says how far the grant reaches. The errors are
// *invalid.Error.
func checkMeaning(action catalog.Action, arn scope.ARN, text scope.Text, allowed bool) (reach []string, err error) {
	service, verb, _ := strings.Cut(action.Name, ":")
	switch {
	case service == "es" && strings.HasPrefix(verb, "ESHttp"):
		return checkSearch(strings.TrimPrefix(verb, "ESHttp"), arn, text, allowed)
	case service == "iot":
		return nil, checkTopic(arn, text)
	default:
		return nil, nil
	}
}

// checkSearch holds a request to OpenSearch to the index that its path names.
//
// AWS judges method and path. OpenSearch reads a path's first segment as a list of
// indices with wildcards and exclusions (x,-y,_all), and takes the index of some
// requests from their body whatever the path says, unless the domain has
// rest.action.multi.allow_explicit_index=false.
// https://docs.aws.amazon.com/opensearch-service/latest/developerguide/ac.html#ac-advanced
func checkSearch(method string, arn scope.ARN, text scope.Text, allowed bool) ([]string, error) {
	path := pathOf(arn.Resource)
	if err := checkFilledPath(text, len(text.String())-len(path)); err != nil {
		return nil, err
	}
	problem := beyondIndex(method, path)
	if problem == "" {
		return nil, nil
	}
	if allowed {
		return []string{fmt.Sprintf("%s: %s", arn, problem)}, nil
	}
	domain := strings.TrimSuffix(arn.String(), path)
	return nil, invalid.Field(resourceField, arn.String(), problem,
		"write "+domain+"INDEX/_doc/ID or "+domain+"INDEX/_search with one index (ID or INDEX may be a parameter), or say allow_escalation=true")
}

// pathOf is what follows domain/NAME/ in a resource.
func pathOf(resource string) string {
	parts := strings.SplitN(resource, "/", 3)
	return parts[len(parts)-1]
}

// checkFilledPath refuses values that are no plain name in a path of OpenSearch,
// which starts at the byte start of text.
func checkFilledPath(text scope.Text, start int) error {
	whole := text.String()
	for _, filled := range text.Filled() {
		if filled.Start < start {
			continue
		}
		value := whole[filled.Start:filled.End]
		wrong := func(problem string) error {
			return invalid.Field(string(filled.Reference), value, problem, `give the name of one index or document, without "," and not beginning with "_", "-" or "+"`)
		}
		segment := whole[strings.LastIndex(whole[:filled.Start], "/")+1 : filled.Start]
		switch {
		case strings.Contains(value, ","):
			return wrong(`OpenSearch reads "," as the end of one index's name and the start of another's`)
		case strings.HasPrefix(segment, "_"):
			return wrong(`it would complete the name of an operation of OpenSearch, which begins with "_"`)
		}
		for i, part := range strings.Split(value, "/") {
			if (i > 0 || segment == "") && strings.ContainsAny(part[:1], "_-+") {
				return wrong("OpenSearch reads a name that begins so as an operation, an exclusion or every index")
			}
		}
	}
	return nil
}

// narrow are the operations behind an index that work on that index alone. Some of
// them read a document of another index that a query's body refers to, which is
// part of the floor.
var narrow = []string{
	"_analyze", "_close", "_count", "_create", "_doc", "_explain", "_field_caps", "_flush", "_forcemerge", "_mapping", "_mappings", "_open",
	"_recovery", "_refresh", "_search", "_segments", "_settings", "_source", "_stats", "_termvectors", "_update", "_validate",
}

// beyondIndex says how a request of a method with such a path reaches further than
// one index; empty where it doesn't.
func beyondIndex(method, path string) string {
	segments := strings.Split(path, "/")
	first := segments[0]
	reads := method == "Get" || method == "Head"
	switch {
	case method == "Head":
		return "" // answers without a body, and takes none
	case first == "_cat" && reads, path == "_cluster/health" && reads, path == "_cluster/stats" && reads:
		return "" // what the cluster is, not what is in it
	case first == "*":
		return "it is the whole domain: its users and settings and every index"
	case strings.HasPrefix(first, "_"):
		return fmt.Sprintf("OpenSearch takes the index of %s from the body, or works on the whole domain", first)
	case strings.ContainsAny(path, ",%<") || strings.ContainsAny(first[:1], "-+"):
		return "OpenSearch reads more than one index into its path"
	}
	if strings.HasSuffix(path, "*") && method != "Delete" {
		return "it also covers _bulk, _mget and _msearch, whose body names any index of the domain"
	}
	for i, segment := range segments[1:] {
		switch {
		case !strings.HasPrefix(segment, "_"):
		case !slices.Contains(narrow, segment), segment == "_search" && i+2 < len(segments):
			return fmt.Sprintf("OpenSearch takes the index of %s from the body, or more than the index from its query", segment)
		}
	}
	return ""
}

// checkTopic holds a topic filter to the topics below one. MQTT reads "+" as any
// name and "#" as everything below.
// https://docs.aws.amazon.com/iot/latest/developerguide/topics.html#topicfilters
func checkTopic(arn scope.ARN, text scope.Text) error {
	kind, filter, _ := strings.Cut(arn.Resource, "/")
	if kind != "topic" && kind != "topicfilter" {
		return nil
	}
	for _, filled := range text.Filled() {
		if value := text.String()[filled.Start:filled.End]; strings.ContainsAny(value, "+#") {
			return invalid.Field(string(filled.Reference), value, `MQTT reads "+" and "#" as any topic`, "give the name of one topic")
		}
	}
	segments := strings.Split(filter, "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		switch {
		case strings.Contains(segment, "+"), strings.Contains(segment, "#") && (!last || segment != "#" || i == 0):
			return invalid.Field(resourceField, arn.String(), `MQTT reads "+" and "#" as any topic, so that the filter is not of the topics below one`, `name one topic, or all below one as "name/#"`)
		}
	}
	return nil
}
