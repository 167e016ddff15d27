package main

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// endpoint answers IAM's and STS's API as AWS would to somebody who makes no
// mistakes: it knows which users there are, checks nothing, and takes as long for
// each call as it is told to. So what is measured is the engines.
type endpoint struct {
	*httptest.Server
	delay atomic.Int64 // of each call, in nanoseconds
	calls atomic.Int64
	drawn atomic.Int64

	mu    sync.Mutex
	users map[string]*user
}

type user struct{ keys, policies []string }

func startEndpoint() *endpoint {
	e := &endpoint{users: map[string]*user{}}
	e.Server = httptest.NewServer(http.HandlerFunc(e.serve))
	return e
}

func (e *endpoint) serve(writer http.ResponseWriter, request *http.Request) {
	if err := request.ParseForm(); err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	e.calls.Add(1)
	time.Sleep(time.Duration(e.delay.Load()))
	action := request.PostForm.Get("Action")
	if action == "PutUserPermissionsBoundary" { // the engine has the least rights
		writer.WriteHeader(http.StatusForbidden)
		fmt.Fprint(writer, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`)
		return
	}
	answer, found := e.answer(action, request.PostForm.Get("UserName"), request)
	if !found {
		writer.WriteHeader(http.StatusNotFound)
		fmt.Fprint(writer, `<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>gone</Message></Error></ErrorResponse>`)
		return
	}
	fmt.Fprintf(writer, `<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></%[1]sResponse>`, action, answer)
}

func (e *endpoint) answer(action, name string, request *http.Request) (answer string, found bool) {
	number := e.drawn.Add(1)
	session := fmt.Sprintf("<Credentials><AccessKeyId>ASIA%016d</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken><Expiration>%s</Expiration></Credentials>",
		number, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	switch action {
	case "GetCallerIdentity":
		return "<Arn>arn:aws:iam::123456789012:user/engine</Arn><UserId>AIDA</UserId><Account>123456789012</Account>", true
	case "AssumeRole":
		return session + fmt.Sprintf("<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/base/%[1]s</Arn><AssumedRoleId>AROA:%[1]s</AssumedRoleId></AssumedRoleUser><PackedPolicySize>10</PackedPolicySize>", escaped(request.PostForm.Get("RoleSessionName"))), true
	case "PutRolePolicy":
		return "", true
	case "ListRolePolicies":
		return "<IsTruncated>false</IsTruncated><PolicyNames></PolicyNames>", true
	case "ListAttachedRolePolicies":
		return "<IsTruncated>false</IsTruncated><AttachedPolicies></AttachedPolicies>", true
	case "ListPolicies":
		return "<IsTruncated>false</IsTruncated><Policies></Policies>", true
	case "ListUsers":
		return "<IsTruncated>false</IsTruncated><Users></Users>", true
	case "GetRolePolicy", "DeleteRolePolicy":
		return "", false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if action == "CreateUser" {
		e.users[name] = &user{}
		return fmt.Sprintf("<User><UserName>%[1]s</UserName><UserId>AIDA%016[2]d</UserId><Arn>arn:aws:iam::123456789012:user/%[1]s</Arn><Path>/</Path></User>", escaped(name), number), true
	}
	known, found := e.users[name]
	if !found {
		return "", false
	}
	switch action {
	case "PutUserPolicy":
		known.policies = append(known.policies, request.PostForm.Get("PolicyName"))
	case "CreateAccessKey":
		key := fmt.Sprintf("AKIA%016d", number)
		known.keys = append(known.keys, key)
		return fmt.Sprintf("<AccessKey><UserName>%s</UserName><AccessKeyId>%s</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><Status>Active</Status></AccessKey>", escaped(name), key), true
	case "DeleteAccessKey":
		known.keys = nil
	case "DeleteUserPolicy":
		known.policies = nil
	case "DeleteUser":
		delete(e.users, name)
	case "ListAccessKeys":
		return "<IsTruncated>false</IsTruncated><AccessKeyMetadata>" + members(known.keys, "<AccessKeyId>", "</AccessKeyId>") + "</AccessKeyMetadata>", true
	case "ListUserPolicies":
		return "<IsTruncated>false</IsTruncated><PolicyNames>" + members(known.policies, "", "") + "</PolicyNames>", true
	case "ListGroupsForUser":
		return "<IsTruncated>false</IsTruncated><Groups></Groups>", true
	case "ListAttachedUserPolicies":
		return "<IsTruncated>false</IsTruncated><AttachedPolicies></AttachedPolicies>", true
	case "GetUser":
		return fmt.Sprintf("<User><UserName>%[1]s</UserName><UserId>AIDA</UserId><Arn>arn:aws:iam::123456789012:user/%[1]s</Arn><Path>/</Path></User>", escaped(name)), true
	}
	return "", true
}

func members(values []string, before, after string) string {
	var text strings.Builder
	for _, value := range values {
		text.WriteString("<member>" + before + escaped(value) + after + "</member>")
	}
	return text.String()
}

func escaped(text string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(text)) // a Builder takes everything
	return out.String()
}
