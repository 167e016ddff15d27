package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog/internal/pack"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog/internal/review"
)

// sdk has AWS's API models up to its last release; no package of one file has the
// newer ones. The rows that come from newer models are made with -models and kept.
var sdk = pin{
	"aws-sdk", "2.1693.0",
	"cJmb8xEnVLT+R6fBS5sn/EFJiX7tUnDaPtOPZ1vFbOJtd0fnZn/Ky2XGgsvvoeliWeH7mL3TWSX5zXXGSQV6gQ==",
}

// answersFile lists the actions whose operation answers with something that is
// named like a credential. It is not packed: a test asks that each is reviewed.
const answersFile = "answers.tsv"

const answersHeading = "action\tmembers\tsource"

const answersComment = `# Actions whose operation answers with a member that is named like a credential. A question, no verdict: a test asks that each is in
# escalation.tsv or reviewed.tsv. Written by "make catalog" from the API models of the npm package aws-sdk (apis/*.min.json, Apache-2.0);
# rows of another source by "go run ./generate -tables -models DIR -source NAME", DIR being the models of botocore (botocore/data, Apache-2.0).
# Licence: as this repository (MPL-2.0). Names only.
`

// answers maps an action to what it answers with, and to where that is from.
type answers map[string]answer

type answer struct {
	members []string
	source  string
}

// minified is the name of a model's file in the package aws-sdk.
var minified = regexp.MustCompile(`\Aapis/([a-z0-9.-]+)-\d{4}-\d{2}-\d{2}\.min\.json\z`)

// ofPackage reads the models of the package aws-sdk.
func ofPackage(models release, actions []string) (answers, error) {
	found := answers{}
	source := models.source.Package + " " + models.source.Version
	for _, name := range slices.Sorted(maps.Keys(models.files)) { // of several versions the last one counts
		parts := minified.FindStringSubmatch(name)
		if parts == nil {
			continue
		}
		if err := found.read(models.files[name], parts[1], source, actions); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", source, name, err)
		}
	}
	return found, nil
}

// ofFolder reads the models of a folder: SERVICE/VERSION/service-2.json.gz.
func ofFolder(folder, source string, actions []string) (answers, error) {
	found := answers{}
	err := fs.WalkDir(os.DirFS(folder), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasPrefix(path.Base(name), "service-2.json") {
			return err
		}
		text, err := os.ReadFile(filepath.Join(folder, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, ".gz") {
			if text, err = unzip(text); err != nil {
				return err
			}
		}
		service, _, _ := strings.Cut(name, "/")
		return found.read(text, service, source, actions)
	})
	return found, err
}

func unzip(data []byte) ([]byte, error) {
	reader, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(reader)
}

// read adds what a model's operations answer with, where an action allows them.
func (a answers) read(text []byte, service, source string, actions []string) error {
	model, err := review.ReadModel(text)
	if err != nil {
		return err
	}
	for operation := range model.Operations {
		members := model.Answer(operation)
		if len(members) == 0 {
			continue
		}
		for _, prefix := range model.Prefixes(service) {
			at, there := slices.BinarySearchFunc(actions, prefix+":"+operation, func(action, wanted string) int {
				return strings.Compare(strings.ToLower(action), strings.ToLower(wanted))
			})
			if there {
				a[actions[at]] = answer{members, source}
			}
		}
	}
	return nil
}

// writeAnswers writes the table: what was found now, and the rows of another
// source that are there and were not found.
func writeAnswers(found answers, source string) error {
	name := filepath.Join(folder, answersFile)
	kept, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(kept)) {
		if row := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); len(row) == 3 && row[0] != "action" && row[2] != source {
			rows[row[0]] = strings.Join(row, "\t")
		}
	}
	for action, answer := range found {
		if _, there := rows[action]; !there {
			rows[action] = strings.Join([]string{action, strings.Join(answer.members, " "), answer.source}, "\t")
		}
	}
	var text strings.Builder
	text.WriteString(answersComment + answersHeading + "\n")
	for _, action := range slices.Sorted(maps.Keys(rows)) {
		text.WriteString(rows[action] + "\n")
	}
	return os.WriteFile(name, []byte(text.String()), 0o644)
}

// packedActions lists the actions of a packed catalogue, sorted without regard to
// case.
func packedActions(data []byte) ([]string, error) {
	archive, err := pack.Open(data)
	if err != nil {
		return nil, err
	}
	var actions []string
	for _, section := range archive.Services {
		service, err := archive.ReadService(section)
		if err != nil {
			return nil, err
		}
		for _, action := range service.Actions {
			actions = append(actions, section.Name+":"+action.Name)
		}
	}
	slices.SortFunc(actions, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	return actions, nil
}
