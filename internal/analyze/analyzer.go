package analyze

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/clipperhouse/uax29/v2/words"
	"github.com/kljensen/snowball/english"

	"github.com/querynode/querynode/internal/errclass"
)

// Names of the analyzers.
const (
	// Standard cuts at the word boundaries of Unicode (UAX 29), keeps the words
	// that hold a letter, a digit or an emoji, and makes them lower case. It is the default.
	Standard = "standard"
	// Whitespace cuts at white space and changes nothing.
	Whitespace = "whitespace"
	// English is Standard without the words that carry no meaning, the others cut
	// to their stems (Porter2).
	English = "english"
)

// Names lists the analyzers.
func Names() []string { return []string{Standard, Whitespace, English} }

// MaxToken is the length in bytes beyond which the rest of a token is ignored, so that
// text without boundaries, such as base64, cannot make an index explode.
const MaxToken = 256

// Analyzer is a way to make tokens. It is immutable; the zero value is Standard.
type Analyzer struct{ kind string }

// New returns the analyzer of that name; "" means Standard. The error is of class Invalid.
func New(name string) (Analyzer, error) {
	if name != "" && !slices.Contains(Names(), name) {
		return Analyzer{}, errclass.New(errclass.Invalid, "analyzer %q is unknown: want %s", name, strings.Join(Names(), ", "))
	}
	return Analyzer{kind: name}, nil
}

// Name is the analyzer's name.
func (a Analyzer) Name() string {
	if a.kind == "" {
		return Standard
	}
	return a.kind
}

// Tokens returns the tokens of text in order, each as often as it occurs.
func (a Analyzer) Tokens(text string) []string {
	var tokens []string
	sc := a.Scan()
	sc.Reset(text)
	for sc.Next() {
		tokens = append(tokens, string(sc.Token()))
	}
	return tokens
}

// Scan returns a Scanner for any number of texts, one after the other.
func (a Analyzer) Scan() *Scanner { return &Scanner{kind: a.Name()} }

// Scanner walks the tokens of a text. It belongs to one goroutine.
type Scanner struct {
	kind  string
	words *words.Iterator[string]
	rest  string // Whitespace: what is left
	token []byte
	at    int
}

// Reset begins with a new text.
func (s *Scanner) Reset(text string) {
	s.at = -1
	if s.kind == Whitespace {
		s.rest = text
		return
	}
	if s.words == nil {
		s.words = words.FromString(text)
	} else {
		s.words.SetText(text)
	}
}

// Next moves to the next token; false at the end of the text.
func (s *Scanner) Next() bool {
	if s.kind == Whitespace {
		return s.nextField()
	}
	for s.words.Next() {
		w := s.words.Value()
		if !isWord(w) {
			continue
		}
		s.at++ // words that are left out count: a phrase has gaps there
		s.token = appendLower(s.token[:0], clip(w))
		if s.kind != English {
			return true
		}
		if english.IsStopWord(string(s.token)) {
			continue
		}
		s.token = append(s.token[:0], english.Stem(string(s.token), false)...)
		return true
	}
	return false
}

func (s *Scanner) nextField() bool {
	s.rest = strings.TrimLeftFunc(s.rest, unicode.IsSpace)
	if s.rest == "" {
		return false
	}
	end := strings.IndexFunc(s.rest, unicode.IsSpace)
	if end < 0 {
		end = len(s.rest)
	}
	s.token = append(s.token[:0], clip(s.rest[:end])...)
	s.rest = s.rest[end:]
	s.at++
	return true
}

// Token is the token at hand, valid until the next call.
func (s *Scanner) Token() []byte { return s.token }

// Position counts the words before the token at hand.
func (s *Scanner) Position() int { return s.at }

// isWord reports whether w holds a letter or a digit.
func isWord(w string) bool {
	for i := 0; i < len(w); i++ {
		c := w[i]
		if c >= utf8.RuneSelf {
			return strings.ContainsFunc(w[i:], func(r rune) bool {
				return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsSymbol(r) && r > 0xFFFF
			})
		}
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' {
			return true
		}
	}
	return false
}

// clip cuts what is longer than MaxToken, at the beginning of a character; in what is
// not UTF-8 there may be none near.
func clip(w string) string {
	if len(w) <= MaxToken {
		return w
	}
	n := MaxToken
	for n > MaxToken-utf8.UTFMax && !utf8.RuneStart(w[n]) {
		n--
	}
	return w[:n]
}

func appendLower(dst []byte, w string) []byte {
	for i := 0; i < len(w); i++ {
		c := w[i]
		if c >= utf8.RuneSelf {
			for _, r := range w[i:] {
				dst = utf8.AppendRune(dst, unicode.ToLower(r))
			}
			return dst
		}
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}
