// Package postgresql mints logins on a PostgreSQL database. Each is a member of one
// role that holds one privilege on one relation, routine or sequence, or that may
// call one procedure with one predefined command in it.
package postgresql
