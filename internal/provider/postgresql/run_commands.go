package postgresql

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// commandName is what a command of several may be called: the name of a file, without its
// folder.
var commandName = regexp.MustCompile(`\A[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?\z`)

// commandsIn are the commands of a role by name. The one of a role without several has
// the empty name. The errors are *invalid.Error.
func commandsIn(options provider.Settings) (map[string]string, error) {
	single, raw := options.Text(fieldCommand), options[fieldCommands]
	several := options.Pairs(fieldCommands)
	if object, is := raw.(map[string]any); is && len(several) != len(object) {
		return nil, invalid.Hidden(fieldCommands, "not every command is a text",
			`give an object of names and SQL, as in {"0042_add_note.sql": "ALTER TABLE …"}`)
	}
	switch {
	case single != "" && len(several) > 0:
		return nil, invalid.Hidden(fieldCommands, "the role has command too", "leave out one of the two")
	case len(several) > 0:
		return several, checkCommands(several)
	case strings.TrimSpace(single) == "":
		return nil, invalid.Hidden(fieldCommand, "missing: RUN is one predefined command",
			"give its text, as in command=@migrate.sql, or several by name, as in commands=@migrations.json")
	default:
		return map[string]string{"": single}, checkLength(fieldCommand, single)
	}
}

func checkCommands(several map[string]string) error {
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(several)) {
		if !commandName.MatchString(name) || strings.Contains(name, "..") {
			return invalid.Field(fieldCommands, name, "not a name that a command can have",
				`use up to 128 letters, digits, "_", "-" and ".", with a letter, digit or "_" at both ends and no ".."`)
		}
		if strings.TrimSpace(several[name]) == "" {
			return invalid.Hidden(commandField(name), "it has no text", "give the command's SQL, or leave the name out")
		}
		if err := checkLength(commandField(name), several[name]); err != nil {
			return err
		}
		sum += len(several[name])
	}
	if sum > maxCommands {
		return invalid.Hidden(fieldCommands, fmt.Sprintf("longer than %d bytes in all", maxCommands),
			"leave out those that nobody needs again, or write several roles")
	}
	return nil
}

func checkLength(field, text string) error {
	switch {
	case len(text) > maxCommand:
		return invalid.Hidden(field, fmt.Sprintf("longer than %d bytes", maxCommand), "shorten it")
	case strings.ContainsRune(text, 0) || !utf8.ValidString(text):
		return invalid.Hidden(field, "it has a character that no statement has", "give its text in UTF-8")
	default:
		return nil
	}
}

// commandField is what errors call the field that holds a command.
func commandField(name string) string {
	if name == "" {
		return fieldCommand
	}
	return fmt.Sprintf("%s[%q]", fieldCommands, name)
}

// customName is the form of a setting that the server does not know: it has a dot in it.
var customName = regexp.MustCompile(`\A[a-z_][a-z0-9_$]*(?:\.[a-z_][a-z0-9_$]*)+\z`)

// Bounds of the custom settings of a role.
const (
	maxCustom      = 32
	maxCustomValue = 1024
)

// customSettings checks the settings that a role pins. Names are in small letters, since
// the server does not tell others apart. The errors are *invalid.Error.
func customSettings(given map[string]string) (map[string]string, error) {
	if len(given) == 0 {
		return nil, nil
	}
	if len(given) > maxCustom {
		return nil, invalid.Hidden(fieldSettings, fmt.Sprintf("more than %d", maxCustom),
			"name those that the command depends on")
	}
	settings := map[string]string{}
	for _, written := range slices.Sorted(maps.Keys(given)) {
		name, value := strings.ToLower(written), given[written]
		_, twice := settings[name]
		switch {
		case !strings.Contains(name, "."):
			return nil, invalid.Field(fieldSettings, written,
				"a setting of the server's own: those that change what a text means are pinned already", "SET it in the command")
		case !customName.MatchString(name) || len(name) > maxName:
			return nil, invalid.Field(fieldSettings, written, "not the name of a custom setting",
				"write it as app.user")
		case twice:
			return nil, invalid.Field(fieldSettings, written,
				"it is there twice: the server takes no notice of capital letters", "leave one out")
		case len(value) > maxCustomValue:
			return nil, invalid.Field(fieldSettings, written,
				fmt.Sprintf("its value is longer than %d bytes", maxCustomValue), "shorten it")
		case !utf8.ValidString(value) || strings.ContainsFunc(value,
			func(char rune) bool { return char < ' ' || char == 0x7F }):
			return nil, invalid.Field(fieldSettings, written, "its value has a control character", "leave it out")
		}
		settings[name] = value
	}
	return settings, nil
}
