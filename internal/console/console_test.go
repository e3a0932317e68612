package console

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// screen is a writer that says it is a terminal.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// open returns a console that writes results and remarks to one place.
func open(tty, asJSON bool, env map[string]string) (*Console, *screen) {
	s := &screen{}
	return New(Options{Out: s, Err: s, JSON: asJSON, Getenv: func(k string) string { return env[k] },
		Terminal: func(io.Writer) (bool, int) { return tty, 80 }}), s
}

func sample(c *Console) *Table {
	t := &Table{Title: "Things", Columns: []Column{Left("name"), Right("some rows")}}
	t.Add(c.Paint(Good, "one"), 1)
	t.Add("three", 3333)
	return t
}

func TestOneThingIsNoSeveralThings(t *testing.T) {
	for n, want := range map[int]string{0: "0 rows", 1: "1 row", 2: "2 rows", 20_000: "20,000 rows"} {
		if got := Several(n, "row"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestATableInAPipeIsForAwk(t *testing.T) {
	c, s := open(false, false, nil)
	c.Table(sample(c))
	want := "\nThings\nNAME   SOME_ROWS\none            1\nthree       3333\n"
	if s.String() != want {
		t.Errorf("got\n%q, want\n%q", s, want)
	}
}

func TestATableOnATerminalHasLinesAndColours(t *testing.T) {
	c, s := open(true, false, nil)
	c.Table(sample(c))
	for _, want := range []string{"╭", "\x1b[1mThings\x1b[0m", "\x1b[32mone\x1b[0m", "│"} {
		if !strings.Contains(s.String(), want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	for line := range strings.SplitSeq(s.String(), "\n") {
		if len([]rune(line)) > 80+40 { // 80 columns, and what colours take
			t.Errorf("a line is too long: %q", line)
		}
	}
}

func TestNoColorAndDumbTerminalsAreHonoured(t *testing.T) {
	for _, env := range []map[string]string{{"NO_COLOR": "1"}, {"TERM": "dumb"}} {
		c, s := open(true, false, env)
		c.Table(sample(c))
		c.Notef("%s", c.PaintNote(Bad, "bad"))
		if strings.Contains(s.String(), "\x1b") {
			t.Errorf("%v: %q", env, s)
		}
		if lines := strings.Contains(s.String(), "╭"); lines != (env["TERM"] == "") {
			t.Errorf("%v: lines around the table: %v", env, lines)
		}
	}
}

func TestStoredTextCannotSteerTheTerminal(t *testing.T) {
	for _, tty := range []bool{false, true} {
		c, s := open(tty, false, nil)
		tb := &Table{Columns: []Column{Left("x")}}
		tb.Add("a\x1b]0;owned\x07b\x1b[2Jc\nd é日本 " + c.Paint(Name, "painted"))
		c.Table(tb)
		for _, bad := range []string{"\x1b]", "\x07", "\x1b[2J", "c\nd"} {
			if strings.Contains(s.String(), bad) {
				t.Errorf("terminal %v: %q got through: %q", tty, bad, s)
			}
		}
		if !strings.Contains(s.String(), `\x1b]0;owned\x07b`) || !strings.Contains(s.String(), "é日本") {
			t.Errorf("terminal %v: %q", tty, s)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b[31mred\x1b[0m\xff\x00")
	f.Fuzz(func(t *testing.T, cell string) {
		c, _ := open(false, false, nil)
		if got := c.clean(cell); strings.ContainsAny(got, "\x1b\n\r\x07\x00") {
			t.Errorf("%q became %q", cell, got)
		}
	})
}

func TestWithJSONThereIsNothingElse(t *testing.T) {
	c, s := open(true, true, nil)
	c.Printf("x")
	c.Notef("y")
	c.Table(sample(c))
	b := c.Bar("work", 10, Rows)
	b.Set(5)
	b.Done()
	if s.String() != "" {
		t.Fatalf("%q", s)
	}
	if err := c.Document(map[string]any{"a": "<b>"}); err != nil {
		t.Fatal(err)
	}
	if !json.Valid([]byte(s.String())) || !strings.Contains(s.String(), "<b>") {
		t.Errorf("%q", s)
	}
	if err := c.Line(1); err != nil || !strings.HasSuffix(s.String(), "\n1\n") {
		t.Errorf("%v, %q", err, s)
	}
}

func TestABarInAPipeIsOneLine(t *testing.T) {
	c, s := open(false, false, nil)
	b := c.Bar("write", 0, Rows)
	b.Total(2000)
	b.Set(1000)
	b.Done()
	b.Done()
	b.Fail()
	c.Bar("load", 0, Steps).Done()
	c.Bar("copy", 4096, Bytes).Done()
	c.Bar("break", 9, Rows).Fail()
	c.Bar("add", 1, Rows).Done()
	lines := strings.Split(strings.TrimSpace(s.String()), "\n")
	for i, want := range []string{"write: 2,000 rows in ", "load: done in ", "copy: 4.0 KiB in ", "break: stopped after ", "add: 1 row in "} {
		if len(lines) != 5 || !strings.HasPrefix(lines[i], want) {
			t.Fatalf("%q, want %q", lines, want)
		}
	}
}

func TestABarOnATerminalEndsWithAMark(t *testing.T) {
	c, s := open(true, false, map[string]string{"NO_COLOR": "1"})
	b := c.Bar("write", 100, Rows)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 25 {
				b.Set(int64(25*i + k))
			}
		})
	}
	wg.Wait()
	b.Done()
	c.Bar("fall", 100, Rows).Fail()
	for _, want := range []string{"write", "✓", "100", "fall", "✗"} {
		if !strings.Contains(s.String(), want) {
			t.Errorf("no %q in %q", want, s)
		}
	}
	var none *Bar
	none.Set(1)
	none.Total(1)
	none.Done()
	none.Fail()
}

func TestNumbersForPeople(t *testing.T) {
	for got, want := range map[string]string{
		Count(20000): "20,000", Size(0): "0 B", Size(1536): "1.5 KiB", Size(-1536): "-1.5 KiB", Took(412 * time.Microsecond): "412 µs",
		Took(1240 * time.Microsecond): "1.24 ms", Took(83 * time.Millisecond): "83 ms", Took(1240 * time.Millisecond): "1.24 s", Took(83 * time.Second): "1m23s",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
