package lab

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const storePolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::releases","arn:aws:s3:::releases/*","arn:aws:s3:::private","arn:aws:s3:::private/*"]}]}`

// IsolatingRights are the least that the engine's user needs to isolate roles.
var IsolatingRights = []string{"admin:DeletePolicy", "admin:DeleteUser", "admin:ImportIAM", "admin:RemoveServiceAccount"}

func isolatingPolicy(rights ...string) string {
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{"Effect": "Allow", "Action": rights}}})
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	return string(text)
}

// AddEngine makes a further user with an engine's rights.
func (s *Store) AddEngine(ctx context.Context, name string) (Key, error) {
	engine := Key{Access: name, Secret: name + "-secret"}
	return engine, s.importUser(ctx, engine, "precision-engine", storePolicy)
}

// AddIsolating makes a further user with these administrator's rights, or gives them
// to one.
func (s *Store) AddIsolating(ctx context.Context, name, secret string, rights ...string) (Key, error) {
	engine := Key{Access: name, Secret: secret}
	return engine, s.importUser(ctx, engine, name, isolatingPolicy(rights...))
}

// importUser makes a user and its policy through the admin API's import of users
// and policies, which takes them as an archive of JSON files.
func (s *Store) importUser(ctx context.Context, user Key, name, policy string) error {
	var archive bytes.Buffer
	files := zip.NewWriter(&archive)
	for file, content := range map[string]any{
		"policies.json":      map[string]json.RawMessage{name: json.RawMessage(policy)},
		"users.json":         map[string]any{user.Access: map[string]string{"secretKey": user.Secret, "status": "enabled"}},
		"user_mappings.json": map[string]any{user.Access: map[string]any{"version": 1, "policy": name}},
	} {
		part, err := files.Create("iam-assets/" + file)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(part).Encode(content); err != nil {
			return err
		}
	}
	if err := files.Close(); err != nil {
		return err
	}
	status, text, err := s.Admin(ctx, s.Root, http.MethodPut, "import-iam", nil, archive.Bytes())
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("status %d: %s", status, text)
	}
	return err
}

// Admin makes a call of the admin API, in the name of a user or a session.
func (s *Store) Admin(ctx context.Context, key Key, method, call string, query url.Values, content []byte) (status int, answer string, err error) {
	sum := sha256.Sum256(content)
	payload := hex.EncodeToString(sum[:])
	request, err := http.NewRequestWithContext(ctx, method, s.Endpoint+"/minio/admin/v3/"+call+"?"+query.Encode(), bytes.NewReader(content))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("X-Amz-Content-Sha256", payload)
	signedBy := aws.Credentials{AccessKeyID: key.Access, SecretAccessKey: key.Secret, SessionToken: key.Token}
	if err := v4.NewSigner().SignHTTP(ctx, signedBy, request, payload, "s3", "us-east-1", time.Now()); err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// Named lists which of a user and a policy of that name there are.
func (s *Store) Named(ctx context.Context, name string) (there []string, err error) {
	for call, query := range map[string]url.Values{
		"user-info":          {"accessKey": {name}},
		"info-canned-policy": {"name": {name}, "v": {"2"}},
	} {
		status, answer, err := s.Admin(ctx, s.Root, http.MethodGet, call, query, nil)
		switch {
		case err != nil:
			return nil, err
		case status == http.StatusOK:
			there = append(there, call+" of "+name)
		case status != http.StatusNotFound:
			return nil, fmt.Errorf("%s: status %d: %s", call, status, answer)
		}
	}
	return there, nil
}
