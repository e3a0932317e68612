// Package console writes for whoever reads: tables, colours and progress bars
// for a person at a terminal, plain lines for a pipe, JSON for a program.
package console

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/errors"
	"golang.org/x/term"
)

// Options configure a Console.
type Options struct {
	// Out takes results, Err progress and remarks. Nil = discard.
	Out, Err io.Writer
	// JSON: Out gets JSON documents only, Err no progress.
	JSON bool
	// Getenv reads NO_COLOR and TERM. Nil = os.Getenv.
	Getenv func(string) string
	// Terminal reports whether a writer is one, and its width in columns (0 =
	// unknown). Nil = ask the system; only an *os.File can be one.
	Terminal func(io.Writer) (is bool, width int)
}

// Console is safe for use by one goroutine; a Bar's methods for any.
type Console struct {
	o        Options
	out, err stream
}

// stream is one of the two writers and what it can show.
type stream struct {
	w     io.Writer
	rich  bool // a terminal that moves its cursor
	color bool
	width int
}

// New returns a console. NO_COLOR (see no-color.org) and TERM=dumb are honoured.
func New(o Options) *Console {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Terminal == nil {
		o.Terminal = terminal
	}
	return &Console{o: o, out: o.stream(o.Out), err: o.stream(o.Err)}
}

func (o *Options) stream(w io.Writer) stream {
	if w == nil {
		return stream{w: io.Discard}
	}
	is, width := o.Terminal(w)
	rich := is && !o.JSON && o.Getenv("TERM") != "dumb"
	return stream{w: w, rich: rich, color: rich && o.Getenv("NO_COLOR") == "", width: width}
}

func terminal(w io.Writer) (bool, int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false, 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return true, 0
	}
	return true, width
}

// JSON reports whether results are to be written as JSON.
func (c *Console) JSON() bool { return c.o.JSON }

// Printf writes a line of a result for people; nothing with JSON.
func (c *Console) Printf(format string, args ...any) {
	if !c.o.JSON {
		_, _ = fmt.Fprintf(c.out.w, format+"\n", args...) // nobody is there to be told
	}
}

// Notef writes a remark beside the result; nothing with JSON.
func (c *Console) Notef(format string, args ...any) {
	if !c.o.JSON {
		_, _ = fmt.Fprintf(c.err.w, format+"\n", args...)
	}
}

// Document writes v as one indented JSON document.
func (c *Console) Document(v any) error {
	e := json.NewEncoder(c.out.w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return errors.Wrap(e.Encode(v), "write JSON")
}

// Line writes v as JSON on one line, for streams.
func (c *Console) Line(v any) error {
	e := json.NewEncoder(c.out.w)
	e.SetEscapeHTML(false)
	return errors.Wrap(e.Encode(v), "write JSON")
}

// Style is how a word looks on a terminal.
type Style string

// The styles, by what they say rather than by their colour.
const (
	Strong Style = "1"
	Faint  Style = "2"
	Good   Style = "32"
	Warn   Style = "33"
	Bad    Style = "31"
	Name   Style = "36"
)

// Paint returns text in a style, for Printf and cells of tables; unchanged
// where there is no colour.
func (c *Console) Paint(s Style, text string) string { return c.out.paint(s, text) }

// PaintNote is Paint for Notef and Err.
func (c *Console) PaintNote(s Style, text string) string { return c.err.paint(s, text) }

func (s *stream) paint(style Style, text string) string {
	if !s.color || text == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}
