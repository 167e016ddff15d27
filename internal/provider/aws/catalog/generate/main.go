// Command generate writes catalog.bin from the two pinned releases of the
// package that has AWS's Service Authorization Reference as data, and from the
// tables in data. The same inputs give the same bytes with the same Go release
// (another may compress differently).
//
// It also lists the actions that answer with something named like a credential,
// see answers.go.
//
// It runs in the catalogue's folder. With -tables only the tables are packed
// again and the rest is taken from the catalog.bin that is there, without network.
// With -models and -source the answers of those models are added.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog/internal/pack"
)

const (
	file   = "catalog.bin"
	folder = "data"
	limit  = 1 << 20 // bytes of the file
)

// tables are those that the package reads, sorted; quirks.tsv is for people.
var tables = []string{
	"escalation.tsv", "exceptions.tsv", "global-keys.tsv", "kms.tsv", "operations.tsv", "several-required.tsv",
}

func main() {
	tablesOnly := flag.Bool("tables", false, "pack the tables only")
	models := flag.String("models", "", "folder of API models: SERVICE/VERSION/service-2.json.gz")
	source := flag.String("source", "", "name and version of what the models are from")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *tablesOnly)
	if err == nil && *models != "" {
		err = addAnswers(*models, *source)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, tablesOnly bool) error {
	var builder *pack.Builder
	var err error
	if tablesOnly {
		builder, err = keepServices()
	} else {
		builder, err = packServices(ctx)
	}
	if err != nil {
		return err
	}
	if err := packTables(builder); err != nil {
		return err
	}
	data, err := builder.Bytes()
	if err != nil {
		return err
	}
	if len(data) > limit {
		return fmt.Errorf("%s would have %d bytes, more than %d", file, len(data), limit)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil || tablesOnly {
		return err
	}
	return fetchAnswers(ctx, data)
}

// fetchAnswers fetches the API models and writes what their operations answer with.
func fetchAnswers(ctx context.Context, catalogue []byte) error {
	actions, err := packedActions(catalogue)
	if err != nil {
		return err
	}
	downloads, err := os.MkdirTemp("", "models")
	if err != nil {
		return err
	}
	defer os.RemoveAll(downloads)
	models, err := fetch(ctx, downloads, sdk)
	if err != nil {
		return err
	}
	found, err := ofPackage(models, actions)
	if err != nil {
		return err
	}
	return writeAnswers(found, sdk.name+" "+sdk.version)
}

// addAnswers adds the answers of the models in a folder.
func addAnswers(models, source string) error {
	if source == "" {
		return errors.New("-models needs -source: the name and version of what they are from")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	actions, err := packedActions(data)
	if err != nil {
		return err
	}
	found, err := ofFolder(models, source, actions)
	if err != nil {
		return err
	}
	return writeAnswers(found, source)
}

// keepServices copies sources and services of the file that is there.
func keepServices() (*pack.Builder, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	archive, err := pack.Open(data)
	if err != nil {
		return nil, err
	}
	builder := pack.NewBuilder(archive.Sources)
	for _, section := range archive.Services {
		service, err := archive.ReadService(section)
		if err != nil {
			return nil, err
		}
		if err := builder.AddService(section.Name, section.Title, service); err != nil {
			return nil, err
		}
	}
	return builder, nil
}

// packServices fetches the sources and packs what they know.
func packServices(ctx context.Context) (*pack.Builder, error) {
	downloads, err := os.MkdirTemp("", "catalog")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(downloads)
	current, err := fetch(ctx, downloads, reference)
	if err != nil {
		return nil, err
	}
	older, err := fetch(ctx, downloads, dependents)
	if err != nil {
		return nil, err
	}
	builder := pack.NewBuilder([]pack.Source{current.source, older.source})
	return builder, addServices(builder, current, older)
}

// packTables packs the project's own tables as they are.
func packTables(builder *pack.Builder) error {
	for _, name := range tables {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		if err := builder.AddTable(name, text); err != nil {
			return err
		}
	}
	return nil
}
