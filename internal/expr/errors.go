package expr

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/querynode/querynode/internal/errclass"
)

// Error says what is wrong with a filter and where. Compile's errors are of
// class Invalid and hold one (errors.As).
type Error struct {
	Pos          int      // byte offset into the text, 0..len(text)
	Line, Column int      // from 1; Column counts characters
	Msg          string   // what is wrong, without the position
	Expected     []string // what would have been right, may be empty
}

// Error returns `filter: column 7: unknown field "agee" (did you mean "age"?)`.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("filter: ")
	if e.Line > 1 {
		fmt.Fprintf(&b, "line %d, ", e.Line)
	}
	fmt.Fprintf(&b, "column %d: %s", e.Column, e.Msg)
	if len(e.Expected) > 0 {
		b.WriteString(", expected ")
		for i, x := range e.Expected {
			switch {
			case i == 0:
			case i == len(e.Expected)-1:
				b.WriteString(" or ")
			default:
				b.WriteString(", ")
			}
			b.WriteString(x)
		}
	}
	return b.String()
}

// caretWindow is how many characters of a long line Caret shows on each side.
const caretWindow = 60

// Caret returns the line of text with the error and a line with ^ below the
// place, cut to about 120 characters. Text is what was given to Compile.
func (e *Error) Caret(text string) string {
	pos := min(max(e.Pos, 0), len(text))
	start := strings.LastIndexByte(text[:pos], '\n') + 1
	end := len(text)
	if i := strings.IndexByte(text[pos:], '\n'); i >= 0 {
		end = pos + i
	}
	before, after := []rune(text[start:pos]), []rune(text[pos:end])
	lead, tail := "", ""
	if len(before) > caretWindow {
		before, lead = before[len(before)-caretWindow:], "..."
	}
	if len(after) > caretWindow {
		after, tail = after[:caretWindow], "..."
	}
	line := strings.Map(printable, lead+string(before)+string(after)+tail)
	return line + "\n" + strings.Repeat(" ", len(lead)+len(before)) + "^"
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

// errAt makes the error for a place in text.
func errAt(text string, pos int, expected []string, format string, args ...any) error {
	pos = min(max(pos, 0), len(text))
	start := strings.LastIndexByte(text[:pos], '\n') + 1
	return errclass.Mark(&Error{
		Pos:      pos,
		Line:     strings.Count(text[:pos], "\n") + 1,
		Column:   utf8.RuneCountInString(text[start:pos]) + 1,
		Msg:      fmt.Sprintf(format, args...),
		Expected: expected,
	}, errclass.Invalid)
}

// clip shortens text that is quoted in a message.
func clip(s string) string {
	const limit = 40
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}
