package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// Store is a real MinIO server with two buckets, releases and private, and a
// user for the engine that may use both and administer nothing; another may do no
// more than make and remove users, and end their sessions.
type Store struct {
	Endpoint  string
	Root      Key // the administrator
	Engine    Key // the user that the engine is configured with
	Isolating Key // the same where it isolates roles

	server *process
	start  func() (*process, error)
}

// Key is an access key. Token is empty but for a session.
type Key struct{ Access, Secret, Token string }

// Buckets are what store and cloud start with.
var Buckets = []string{"releases", "private"}

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
		Endpoint:  "http://" + address,
		Root:      Key{Access: "administrator", Secret: "lab-administrator-secret"},
		Engine:    Key{Access: "precision-engine", Secret: "lab-engine-secret"},
		Isolating: Key{Access: "precision-isolating", Secret: "lab-isolating-secret"},
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
		err := store.makeEngines(ctx)
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
		if err := store.makeEngines(ctx); err != nil {
			return fmt.Errorf("making the engine's user on MinIO: %w", err)
		}
	}
}

// makeEngines makes the engines' users.
func (s *Store) makeEngines(ctx context.Context) error {
	if err := s.importUser(ctx, s.Engine, "precision-engine", storePolicy); err != nil {
		return err
	}
	return s.importUser(ctx, s.Isolating, "precision-isolating", isolatingPolicy(IsolatingRights...))
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
