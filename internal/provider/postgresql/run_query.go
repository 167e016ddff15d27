package postgresql

import "slices"

// lastQuery splits a command whose last statement returns rows: what comes before that
// statement, and the statement without its semicolon. last is empty where a command
// returns none, and where its text can't be read.
func lastQuery(text string) (before, last string) {
	tokens, err := lex(text)
	if err != nil {
		return "", ""
	}
	statements := split(tokens)
	if len(statements) == 0 {
		return "", ""
	}
	final := statements[len(statements)-1]
	if !final.returnsRows() {
		return "", ""
	}
	start, end := final[0].start, final[len(final)-1].end
	if len(statements) > 1 {
		before = text[:start]
	}
	return before, text[start:end]
}

// returnsRows says whether a statement is a query, or changes rows and returns them.
func (s statement) returnsRows() bool {
	main, rest := s.main()
	switch main {
	case "select", "values", "table", "show", "explain", "(":
		return true
	case "insert", "update", "delete", "merge":
		return slices.ContainsFunc(rest.outside(), func(next token) bool { return next.is("returning") })
	default:
		return false
	}
}

// mainWords begin what follows WITH and its queries.
var mainWords = []string{"select", "values", "table", "insert", "update", "delete", "merge"}

// main is the word that says what a statement does, and what follows it. After WITH it is
// the first such word that names none of its queries.
func (s statement) main() (string, statement) {
	outside := s.outside()
	if !outside[0].is("with") {
		return s[0].text, s[1:]
	}
	for i, next := range outside[1:] {
		named := slices.ContainsFunc([]string{"with", "recursive", ","}, outside[i].is)
		if !named && slices.ContainsFunc(mainWords, next.is) {
			return next.text, outside[i+2:]
		}
	}
	return "", nil
}
