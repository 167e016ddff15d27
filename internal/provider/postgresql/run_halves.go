package postgresql

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// undoLine finds the line of a migration tool's file after which comes what takes the
// migration back. The tools look at lines, in whatever quotes those are:
//
//	-- +goose Down                           https://github.com/pressly/goose
//	-- +migrate Down                         https://github.com/rubenv/sql-migrate
//	-- migrate:down                          https://github.com/amacneil/dbmate
//	-- //@UNDO                               https://github.com/mybatis/migrations
//	---- create above / drop below ----      https://github.com/jackc/tern
//	-- Down Migration                        https://github.com/salsita/node-pg-migrate
//	-- rambler down                          https://github.com/elwinar/rambler
//	-- !Downs                                https://www.playframework.com
var undoLine = regexp.MustCompile(`(?im)^[\s\pZ]*--[-\pZ\t\f\v]*` +
	`(?:\+[a-z]+[\pZ\t\f\v]+down\b|migrate:down\b|(?://[\pZ\t\f\v]*)?@undo\b|` +
	`create above / drop below|down migration\b|rambler down\b|!downs\b).*$`)

// checkHalves refuses a command that is a migration and what takes it back: the tool would
// run one of the two. The error is an *invalid.Error.
func checkHalves(field, text string, tokens []token) error {
	// The server ends a comment at a carriage return, too.
	line := undoLine.FindStringIndex(strings.ReplaceAll(text, "\r", "\n"))
	if line == nil {
		return nil
	}
	for _, next := range tokens {
		if next.start >= line[1] && !next.is(";") {
			return invalid.Hidden(field,
				fmt.Sprintf("it has both halves of a migration: what follows %q takes back what is before it, and both would run",
					invalid.Clip(strings.TrimSpace(text[line[0]:line[1]]))),
				"give the part before that line as one command, and the other as another role's")
		}
	}
	return nil
}

// placeholder is what Flyway, MyBatis and goose fill in before a file is run.
var placeholder = regexp.MustCompile(`\$\{[^}\s]*\}`)

// placeholders warns of what a migration tool would have filled into a command.
func placeholders(text string) []string {
	found := placeholder.FindString(text)
	if found == "" {
		return nil
	}
	return []string{fmt.Sprintf("the command has %s in it: a migration tool fills that in, and the engine does not",
		invalid.Clip(found))}
}
