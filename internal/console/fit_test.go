package console

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/text"
)

// drawn is a table on a terminal that is so wide.
func drawn(width int, t *Table) string {
	var out bytes.Buffer
	c := New(Options{Out: &out, Getenv: func(string) string { return "" }, Terminal: func(io.Writer) (bool, int) { return true, width }})
	c.Table(t)
	return out.String()
}

func TestANarrowTerminalLosesNothingThatMatters(t *testing.T) {
	c := New(Options{Out: io.Discard, Getenv: func(string) string { return "" }, Terminal: func(io.Writer) (bool, int) { return true, 80 }})
	tab := &Table{Title: "Segments", Columns: []Column{Right("id"), Left("collection"), {Name: "partition", Spare: 3}, Left("state"), {Name: "tier", Spare: 5},
		Right("rows"), {Name: "deleted", Right: true, Spare: 2}, {Name: "memory", Right: true, Spare: 1}, {Name: "mapped", Right: true, Spare: 4}, Left("index")}}
	tab.Add(4503599627370497, "products_of_2026", "_default", c.Paint(Bad, "quarantined"), "warm", "1,000,000", "12,345", "512 MiB", "1.2 GiB", "image HNSW_SQ, text_embedding SCANN, words BM25")
	for _, width := range []int{80, 100, 160} {
		out := drawn(width, tab)
		for line := range strings.Lines(out) {
			if n := text.StringWidthWithoutEscSequences(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("%d columns: a line has %d:\n%s", width, n, out)
			}
		}
		// A text may be wrapped, even within a word.
		flat := strings.Map(func(r rune) rune {
			if strings.ContainsRune("│ \n", r) {
				return -1
			}
			return r
		}, out)
		for _, want := range []string{"4503599627370497", "products_of_20", "1,000,000", "quarantined"} {
			if !strings.Contains(flat, want) {
				t.Errorf("%d columns: no %q in:\n%s", width, want, out)
			}
		}
		for _, want := range []string{"HNSW_SQ", "SCANN", "BM25"} {
			if !strings.Contains(out, want) {
				t.Errorf("%d columns: no %q in:\n%s", width, want, out)
			}
		}
		if strings.Contains(out, "≈") || strings.Contains(out, "…") {
			t.Errorf("%d columns: something is cut off:\n%s", width, out)
		}
	}
	if out := drawn(80, tab); !strings.Contains(out, "left out, as there is no room: tier, mapped, partition") {
		t.Errorf("what is left out is not said:\n%s", out)
	}
	if out := drawn(200, tab); strings.Contains(out, "left out") || !strings.Contains(out, "1.2 GiB") {
		t.Errorf("there is room for all:\n%s", out)
	}
	if len(tab.Columns) != 10 || len(tab.Rows[0]) != 10 {
		t.Error("the table of the caller was changed")
	}
}
