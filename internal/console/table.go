package console

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table is a list for people. Cells are shown as they are, except that control
// characters other than those of Paint are made visible.
type Table struct {
	Title    string // a line above, after an empty one; "" = none
	Verbatim bool   // names of columns are data: they are not put in capitals
	Columns  []Column
	Rows     [][]string
}

// Column is the head of a column.
type Column struct {
	Name  string
	Right bool // aligned to the right, for numbers
	Spare int  // above 0: may be left out on a narrow terminal, the highest first
}

// Left and Right make columns.
func Left(name string) Column { return Column{Name: name} }

// Right makes a column for numbers.
func Right(name string) Column { return Column{Name: name, Right: true} }

// Add appends a row; each value is formatted as fmt.Sprint does.
func (t *Table) Add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.Rows = append(t.Rows, row)
}

// Table writes t: with lines around it on a terminal, else as aligned columns
// that awk and grep can read. A table without rows is its head. Where a terminal is
// too narrow, columns that are spare are left out, and named, and texts are wrapped:
// nothing is cut off.
func (c *Console) Table(t *Table) {
	if c.o.JSON {
		return
	}
	t, widths, left := c.fit(t)
	w := table.NewWriter()
	head := make(table.Row, len(t.Columns))
	var configs []table.ColumnConfig
	for i, col := range t.Columns {
		name := col.Name
		if c.out.rich {
			name = c.Paint(Strong, name)
		} else if !t.Verbatim {
			name = strings.ToUpper(strings.ReplaceAll(name, " ", "_"))
		}
		head[i] = name
		cc := table.ColumnConfig{Number: i + 1}
		if col.Right {
			cc.Align, cc.AlignHeader = text.AlignRight, text.AlignRight
		}
		if widths != nil && !col.Right {
			cc.WidthMax, cc.WidthMaxEnforcer = widths[i], text.WrapSoft
		}
		configs = append(configs, cc)
	}
	w.AppendHeader(head)
	w.SetColumnConfigs(configs)
	for _, row := range t.Rows {
		cells := make(table.Row, len(row))
		for i, cell := range row {
			cells[i] = c.clean(cell)
		}
		w.AppendRow(cells)
	}
	w.SetStyle(c.tableStyle())
	if t.Title != "" {
		c.Printf("\n%s", c.Paint(Strong, t.Title))
	}
	for line := range strings.SplitSeq(w.Render(), "\n") {
		c.Printf("%s", strings.TrimRight(line, " "))
	}
	if len(left) > 0 {
		c.Printf("%s", c.Paint(Faint, "left out, as there is no room: "+strings.Join(left, ", ")))
	}
}

func (c *Console) tableStyle() table.Style {
	s := table.StyleRounded
	s.Format.Header = text.FormatDefault
	s.Options.DoNotColorBordersAndSeparators = true
	if !c.out.rich {
		s.Options = table.OptionsNoBordersAndSeparators
		s.Box.PaddingLeft, s.Box.PaddingRight = "", "  "
		return s
	}
	return s
}

// clean makes control characters visible: what is stored in a collection must
// not steer the reader's terminal. The sequences of Paint pass.
func (c *Console) clean(cell string) string {
	if utf8.ValidString(cell) && strings.IndexFunc(cell, unicode.IsControl) < 0 {
		return cell
	}
	var b strings.Builder
	for i := 0; i < len(cell); {
		if n := paintLen(cell[i:]); c.out.color && n > 0 {
			b.WriteString(cell[i : i+n])
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(cell[i:])
		if unicode.IsControl(r) || r == utf8.RuneError && n == 1 {
			for k := range n {
				fmt.Fprintf(&b, "\\x%02x", cell[i+k])
			}
		} else {
			b.WriteString(cell[i : i+n])
		}
		i += n
	}
	return b.String()
}

// paintLen is the length of the colour sequence that s begins with, 0 if none.
func paintLen(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	for i := 2; i < len(s) && i < 8; i++ {
		switch {
		case s[i] == 'm':
			return i + 1
		case s[i] != ';' && (s[i] < '0' || s[i] > '9'):
			return 0
		}
	}
	return 0
}
