package expr

import "strings"

// insteadOf says what to write for a character that has no meaning here but has in
// another language, or comes with pasted text; nil = nothing is known of it.
func insteadOf(r rune) []string {
	switch r {
	case '.':
		return []string{`a key in brackets, as in j["a"]["b"]`}
	case '\u2265':
		return []string{`">="`}
	case '\u2264':
		return []string{`"<="`}
	case '\u2260':
		return []string{`"!="`}
	case '\u201c', '\u201d', '\u201e', '\u2018', '\u2019', '`':
		return []string{`a straight " or '`}
	case '\u00a0', '\u2003', '\u200b', '\ufeff':
		return []string{"a plain space"}
	case ';':
		return []string{"the end"}
	}
	return nil
}

// insteadOfWord says what to write for a word of other languages that stands where an
// operator should; "" = nothing is known of it.
func insteadOfWord(t token) string {
	if t.kind != tIdent {
		return ""
	}
	switch strings.ToLower(t.text) {
	case "between":
		return "a range as 1 <= a <= 3"
	case "ilike":
		return `=~ "(?i)..."`
	case "isnull":
		return `"is null"`
	case "notnull":
		return `"is not null"`
	case "contains":
		return "array_contains(a, 1), json_contains(j, 1) or like \"%x%\""
	}
	return ""
}
