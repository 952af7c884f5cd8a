package query

import "strings"

// onlyReads refuses what is not one statement that reads (Q1). SQLite would run
// every statement of a string, and ATTACH among them makes files.
func onlyReads(statement string) error {
	rest := skipBlank(statement)
	word := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return (r|0x20) < 'a' || (r|0x20) > 'z' }); i >= 0 {
		word = rest[:i]
	}
	switch strings.ToUpper(word) {
	case "SELECT", "WITH", "VALUES", "EXPLAIN":
	default:
		return ErrNotRead
	}
	for rest != "" {
		switch c := rest[0]; {
		case c == ';':
			if skipBlank(rest[1:]) != "" {
				return ErrNotRead
			}
			return nil
		case c == '\'' || c == '"' || c == '`':
			rest = after(rest[1:], string(c))
		case c == '[':
			rest = after(rest[1:], "]")
		case strings.HasPrefix(rest, "--"), strings.HasPrefix(rest, "/*"):
			rest = skipBlank(rest)
		default:
			rest = rest[1:]
		}
	}
	return nil
}

// skipBlank goes past white space and comments.
func skipBlank(s string) string {
	for {
		s = strings.TrimLeft(s, " \t\r\n\f\v")
		switch {
		case strings.HasPrefix(s, "--"):
			s = after(s, "\n")
		case strings.HasPrefix(s, "/*"):
			s = after(s[2:], "*/")
		default:
			return s
		}
	}
}

// after gives what follows the first end in s, or nothing.
func after(s, end string) string {
	if _, rest, ok := strings.Cut(s, end); ok {
		return rest
	}
	return ""
}
