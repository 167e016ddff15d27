package postgresql

import "strings"

// mark is what the comment on a role of the engine's says. Every login of the server
// can read it.
type mark struct {
	mount, ledger string
	grant         string // empty on a holder
}

const marked = "vault-plugin-secrets-precision"

func (m mark) String() string {
	text := marked + " mount=" + m.mount + " ledger=" + m.ledger
	if m.grant != "" {
		text += " grant=" + m.grant
	}
	return text
}

// readMark reads a comment, and says whether it is a mark.
func readMark(comment string) (mark, bool) {
	words := strings.Fields(comment)
	if len(words) == 0 || words[0] != marked {
		return mark{}, false
	}
	var read mark
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "mount":
			read.mount = value
		case "ledger":
			read.ledger = value
		case "grant":
			read.grant = value
		default:
			return mark{}, false
		}
	}
	return read, read.mount != ""
}
