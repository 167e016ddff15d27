package postgresql

import (
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// SQLSTATE codes that mean something here.
// https://www.postgresql.org/docs/15/errcodes-appendix.html
const (
	invalidAuthorization  = "28000"
	invalidPassword       = "28P01"
	invalidCatalog        = "3D000"
	divisionByZero        = "22012"
	serializationFailure  = "40001"
	deadlock              = "40P01"
	insufficientPrivilege = "42501"
	invalidSchemaName     = "3F000"
	syntaxError           = "42601"
	invalidText           = "22P02"
	invalidName           = "42602"
	undefinedObject       = "42704"
	duplicateObject       = "42710"
	duplicateSchema       = "42P06"
	uniqueViolation       = "23505"
	dependentObjects      = "2BP01"
	tooManyConnections    = "53300"
	diskFull              = "53100"
	outOfMemory           = "53200"
	lockNotAvailable      = "55P03"
	queryCanceled         = "57014"
	adminShutdown         = "57P01"
	crashShutdown         = "57P02"
	cannotConnectNow      = "57P03"
	internalError         = "XX000" // "tuple concurrently updated" among them
)

// isState says whether an error is the server's, with one of these codes.
func isState(err error, states ...string) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && slices.Contains(states, answer.Code)
}

// answered says whether an error is what the server said, so that the transaction
// it belongs to was rolled back for certain.
func answered(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Code != "" && !isState(err, adminShutdown, crashShutdown)
}

// passing are answers that say nothing against what was asked: it could work in a
// moment.
var passing = []string{
	tooManyConnections, diskFull, outOfMemory, lockNotAvailable, queryCanceled, adminShutdown, crashShutdown, cannotConnectNow,
	serializationFailure, deadlock, internalError,
}

// said wraps an error of the server's: what was being done, and whether it is worth
// trying again. It never holds a statement, and so no password.
func said(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case isState(err, passing...):
		return fmt.Errorf("postgresql: %s: %w: %w", doing, err, provider.ErrUnavailable)
	default:
		return fmt.Errorf("postgresql: %s: %w", doing, err)
	}
}

// lacks is the refusal where the engine's login has not the right to do something,
// with what would give it. Every other error is wrapped as said does.
func lacks(doing string, err error, field, value, remedy string) error {
	if !isState(err, insufficientPrivilege) {
		return said(doing, err)
	}
	var answer *pgconn.PgError
	errors.As(err, &answer)
	return invalid.Field(field, value, fmt.Sprintf("the engine's login may not do this, %s: %s", doing, answer.Message), remedy).Because(err)
}

// Throttled implements provider.Throttler.
func (p *postgres) Throttled(err error) bool { return isState(err, tooManyConnections) }
