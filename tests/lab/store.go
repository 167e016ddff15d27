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
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Store is a real MinIO server with two buckets, releases and private, and a
// user for the engine that may use both and administer nothing.
type Store struct {
	Endpoint string
	Root     Key // the administrator
	Engine   Key // the user that the engine is configured with

	server *process
	start  func() (*process, error)
}

// Key is an access key. Token is empty but for a session.
type Key struct{ Access, Secret, Token string }

// Buckets are what store and cloud start with.
var Buckets = []string{"releases", "private"}

const storePolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::releases","arn:aws:s3:::releases/*","arn:aws:s3:::private","arn:aws:s3:::private/*"]}]}`

func (l *Lab) startStore(ctx context.Context) error {
	binary, err := tool("minio")
	if err != nil {
		return err
	}
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	store := &Store{
		Endpoint: "http://" + address,
		Root:     Key{Access: "administrator", Secret: "lab-administrator-secret"},
		Engine:   Key{Access: "precision-engine", Secret: "lab-engine-secret"},
	}
	store.start = func() (*process, error) {
		return l.run("minio", binary,
			[]string{"MINIO_ROOT_USER=" + store.Root.Access, "MINIO_ROOT_PASSWORD=" + store.Root.Secret, "MINIO_BROWSER=off", "MINIO_UPDATE=off"},
			"server", "--quiet", "--address", address, "--console-address", fmt.Sprintf("127.0.0.1:%d", ports[1]), filepath.Join(l.Folder, "minio"))
	}
	if err := store.Restart(ctx); err != nil {
		return err
	}
	l.Store = store
	// MinIO says that it is ready a little before its user administration is.
	for end := time.Now().Add(startTimeout); ; time.Sleep(pollInterval) {
		err := store.importUser(ctx, store.Engine)
		if err == nil {
			break
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("making the engine's user on MinIO: %w", err)
		}
	}
	if err := makeBuckets(ctx, store.S3(store.Root)); err != nil {
		return err
	}
	// What was imported while it was still loading may have been lost again.
	for end := time.Now().Add(startTimeout); ; time.Sleep(pollInterval) {
		err := List(ctx, store.S3(store.Engine), Buckets[0])
		if err == nil {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("using MinIO as the engine's user: %w", err)
		}
		if err := store.importUser(ctx, store.Engine); err != nil {
			return fmt.Errorf("making the engine's user on MinIO: %w", err)
		}
	}
}

// Stop stops the server; Restart starts it again.
func (s *Store) Stop() { s.server.stop() }

// Restart stops the server, if it runs, and starts it with what it has on disk.
func (s *Store) Restart(ctx context.Context) error {
	if s.server != nil {
		s.server.stop()
	}
	server, err := s.start()
	if err != nil {
		return err
	}
	s.server = server
	return server.ready(ctx, s.Endpoint+"/minio/health/ready")
}

// AddEngine makes a further user with an engine's rights.
func (s *Store) AddEngine(ctx context.Context, name string) (Key, error) {
	engine := Key{Access: name, Secret: name + "-secret"}
	return engine, s.importUser(ctx, engine)
}

// importUser makes an engine's user through the admin API's import of users
// and policies, which takes them as an archive of JSON files.
func (s *Store) importUser(ctx context.Context, engine Key) error {
	var archive bytes.Buffer
	files := zip.NewWriter(&archive)
	for name, content := range map[string]any{
		"policies.json":      map[string]json.RawMessage{"precision-engine": json.RawMessage(storePolicy)},
		"users.json":         map[string]any{engine.Access: map[string]string{"secretKey": engine.Secret, "status": "enabled"}},
		"user_mappings.json": map[string]any{engine.Access: map[string]any{"version": 1, "policy": "precision-engine"}},
	} {
		file, err := files.Create("iam-assets/" + name)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(file).Encode(content); err != nil {
			return err
		}
	}
	if err := files.Close(); err != nil {
		return err
	}
	sum := sha256.Sum256(archive.Bytes())
	payload := hex.EncodeToString(sum[:])
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, s.Endpoint+"/minio/admin/v3/import-iam", &archive)
	if err != nil {
		return err
	}
	request.Header.Set("X-Amz-Content-Sha256", payload)
	if err := v4.NewSigner().SignHTTP(ctx, aws.Credentials{AccessKeyID: s.Root.Access, SecretAccessKey: s.Root.Secret}, request, payload, "s3", "us-east-1", time.Now()); err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("status %d: %s", answer.StatusCode, text)
	}
	return nil
}
