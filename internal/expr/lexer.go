package expr

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

type tok uint8

const (
	tEOF tok = iota
	tIdent
	tInt
	tFloat
	tString
	tOp // one of the operators and punctuation, in token.text
)

// token is one lexeme. text is the operator, the name or the number as written.
type token struct {
	kind tok
	pos  int // byte offset of its first byte
	end  int // byte offset past its last byte
	text string
	str  string  // tString: the value
	i    uint64  // tInt: the magnitude, at most 1<<63 (only as a negative number)
	f    float64 // tFloat
}

func (t token) isOp(op string) bool { return t.kind == tOp && t.text == op }

// isWord reports whether t is the keyword w (lower case), in any case.
func (t token) isWord(w string) bool {
	return t.kind == tIdent && len(t.text) == len(w) && strings.EqualFold(t.text, w)
}

// describe names the token in an error.
func (t token) describe() string {
	switch t.kind {
	case tEOF:
		return "end of filter"
	case tString:
		return fmt.Sprintf("string %q", clip(t.str))
	}
	return strconv.Quote(clip(t.text))
}

type lexer struct {
	text string
	pos  int
}

var operators = [...]string{
	"&&", "||", "==", "!=", "<=", ">=", "**", "<<", ">>", "=~", "!~",
	"<", ">", "=", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ",", "&", "|", "^", "~",
}

// next returns the next token; at the end tEOF, for ever.
func (l *lexer) next() (token, error) {
	for l.pos < len(l.text) && isSpace(l.text[l.pos]) {
		l.pos++
	}
	start := l.pos
	if start == len(l.text) {
		return token{kind: tEOF, pos: start, end: start}, nil
	}
	c := l.text[start]
	switch {
	case c == '"' || c == '\'':
		return l.string(start, false)
	case (c == 'r' || c == 'R') && start+1 < len(l.text) && (l.text[start+1] == '"' || l.text[start+1] == '\''):
		l.pos++
		return l.string(start, true)
	case isLetter(c) || c == '$':
		l.pos++
		for l.pos < len(l.text) && (isLetter(l.text[l.pos]) || isDigit(l.text[l.pos])) {
			l.pos++
		}
		if l.pos < len(l.text) && (l.text[l.pos] == '"' || l.text[l.pos] == '\'') && isEncoding(l.text[start:l.pos]) {
			return l.string(start, false)
		}
		return token{kind: tIdent, pos: start, end: l.pos, text: l.text[start:l.pos]}, nil
	case isDigit(c), c == '.' && start+1 < len(l.text) && isDigit(l.text[start+1]):
		return l.number(start)
	}
	if strings.IndexByte("()[]{},+-/%^", c) >= 0 { // no longer operator begins so
		l.pos++
		return token{kind: tOp, pos: start, end: l.pos, text: l.text[start:l.pos]}, nil
	}
	for _, op := range operators {
		if strings.HasPrefix(l.text[start:], op) {
			l.pos += len(op)
			return token{kind: tOp, pos: start, end: l.pos, text: op}, nil
		}
	}
	r := []rune(l.text[start:min(start+4, len(l.text))])[0]
	return token{}, errAt(l.text, start, insteadOf(r), "unexpected character %q", r)
}

func (l *lexer) number(start int) (token, error) {
	t := token{kind: tInt, pos: start}
	i := start
	hex := strings.HasPrefix(l.text[i:], "0x") || strings.HasPrefix(l.text[i:], "0X")
	for ; i < len(l.text); i++ {
		c := l.text[i]
		exponent := byte('e')
		if hex {
			exponent = 'p'
		}
		sign := (c == '+' || c == '-') && i > start && l.text[i-1]|0x20 == exponent
		if !isLetter(c) && !isDigit(c) && c != '.' && !sign {
			break
		}
	}
	i -= wordAfter(l.text[start:i])
	t.text, t.end, l.pos = l.text[start:i], i, i
	if strings.ContainsRune(t.text, '_') {
		return token{}, errAt(l.text, start, nil, "invalid number %q", clip(t.text))
	}
	if !hex && strings.ContainsAny(t.text, ".eE") || hex && strings.ContainsAny(t.text, ".pP") {
		f, err := strconv.ParseFloat(t.text, 64)
		switch {
		case err == nil:
		case math.IsInf(f, 0):
			return token{}, errAt(l.text, start, nil, "number %q does not fit a 64-bit float", clip(t.text))
		default:
			return token{}, errAt(l.text, start, nil, "invalid number %q", clip(t.text))
		}
		t.kind, t.f = tFloat, f
		return t, nil
	}
	n, err := strconv.ParseUint(t.text, 0, 64)
	switch {
	case err == nil && n <= 1<<63:
	case err == nil, strings.Contains(err.Error(), "range"):
		return token{}, errAt(l.text, start, nil, "number %q does not fit a 64-bit integer", clip(t.text))
	case t.text[0] == '0' && strings.Trim(t.text, "0123456789") == "":
		return token{}, errAt(l.text, start, nil, "invalid number %q (a leading 0 means octal)", clip(t.text))
	default:
		return token{}, errAt(l.text, start, nil, "invalid number %q", clip(t.text))
	}
	t.i = n
	return t, nil
}

// wordAfter returns the length of the operator that stands right behind a number, as in 1and.
func wordAfter(s string) int {
	for _, w := range [...]string{"and", "or", "in", "not", "is"} {
		if n := len(s) - len(w); n > 0 && strings.EqualFold(s[n:], w) && isDecimal(s[:n]) {
			return len(w)
		}
	}
	return 0
}

// isDecimal reports whether s is digits, perhaps with a point among them.
func isDecimal(s string) bool {
	return strings.Trim(s, ".0123456789") == ""
}

// isEncoding reports whether w may stand in front of a string: as in C, where these tell
// encodings apart. Here they mean nothing.
func isEncoding(w string) bool { return w == "u8" || w == "u" || w == "U" || w == "L" }

// string reads a literal; l.pos is at its opening quote.
func (l *lexer) string(start int, raw bool) (token, error) {
	quote := l.text[l.pos]
	i := l.pos + 1
	body := i
	escaped := false
	for ; ; i++ {
		if i >= len(l.text) || l.text[i] == '\n' || l.text[i] == '\r' {
			return token{}, errAt(l.text, start, []string{"a closing " + string(quote)}, "unterminated string")
		}
		if l.text[i] == quote {
			break
		}
		if l.text[i] == '\\' {
			escaped = true
			i++
			if i >= len(l.text) || l.text[i] == '\n' || l.text[i] == '\r' {
				return token{}, errAt(l.text, start, []string{"a closing " + string(quote)}, "unterminated string")
			}
		}
	}
	l.pos = i + 1
	t := token{kind: tString, pos: start, end: l.pos, text: l.text[start:l.pos], str: l.text[body:i]}
	if raw || !escaped {
		return t, nil
	}
	s, bad := unescape(t.str)
	if bad >= 0 {
		return token{}, errAt(l.text, body+bad, []string{`\\`, `r"..." for text with backslashes`}, "unknown escape %q in a string", clip(l.text[body+bad:min(body+bad+2, i)]))
	}
	t.str = s
	return t, nil
}

// unescape resolves the escapes of s. bad is the offset of one it does not
// know, -1 if all is well. \% and \_ stay as they are, since they mean something to
// like, and so do those that mean something to a regular expression.
func unescape(s string) (out string, bad int) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			b = append(b, s[i])
			i++
			continue
		}
		if i+1 == len(s) {
			return "", i
		}
		c := s[i+1]
		digits, base, limit := 0, 16, uint64(math.MaxUint8)
		from := i + 2
		switch c {
		case '%', '_', '.', '^', '$', '(', ')', '[', ']', '{', '}', '+', '*', '|', '-', 'd', 'D', 's', 'S', 'w', 'W':
			b = append(b, '\\', c)
		case '\\', '\'', '"', '?', '/':
			b = append(b, c)
		case 'a', 'b', 'f', 'n', 'r', 't', 'v':
			b = append(b, "\a\b\f\n\r\t\v"[strings.IndexByte("abfnrtv", c)])
		case 'x':
			digits = 2
		case 'u':
			digits, limit = 4, 0xffff
		case 'U':
			digits, limit = 8, 0x10ffff
		case '0', '1', '2', '3', '4', '5', '6', '7':
			base, from = 8, i+1
			for digits < 3 && from+digits < len(s) && s[from+digits] >= '0' && s[from+digits] <= '7' {
				digits++
			}
		default:
			return "", i
		}
		if digits > 0 {
			if from+digits > len(s) {
				return "", i
			}
			n, err := strconv.ParseUint(s[from:from+digits], base, 64)
			if err != nil || n > limit || n >= 0xd800 && n < 0xe000 {
				return "", i
			}
			if c == 'u' || c == 'U' {
				b = append(b, string(rune(n))...)
			} else {
				b = append(b, byte(n))
			}
		}
		i = from + digits
	}
	return string(b), -1
}

func isSpace(c byte) bool  { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
