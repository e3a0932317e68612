package console

import (
	"slices"

	"github.com/jedib0t/go-pretty/v6/text"
)

// leastText is how narrow a column of texts is made before columns are left out.
const leastText = 12

// fit makes a table that is as wide as the terminal at most, if that can be: it
// returns the table without the columns that were left out, their names, and how
// wide each column may be; nil widths = as wide as they are.
func (c *Console) fit(t *Table) (fitted *Table, widths []int, left []string) {
	if !c.out.rich || c.out.width <= 0 {
		return t, nil, nil
	}
	fitted = t
	for {
		widths = fitted.widths()
		least := make([]int, len(widths))
		for i, col := range fitted.Columns {
			least[i] = widths[i]
			if !col.Right {
				least[i] = min(widths[i], max(leastText, text.StringWidthWithoutEscSequences(col.Name)))
			}
		}
		room := c.out.width - 3*len(widths) - 1 // lines and spaces between and around
		if sum(widths) <= room {
			return fitted, nil, left
		}
		if i := fitted.spare(); sum(least) > room && i >= 0 {
			left = append(left, fitted.Columns[i].Name)
			fitted = fitted.without(i)
			continue
		}
		for sum(widths) > room {
			// The widest text gives way.
			at := -1
			for i := range widths {
				if widths[i] > least[i] && (at < 0 || widths[i] > widths[at]) {
					at = i
				}
			}
			if at < 0 {
				break // the terminal wraps lines: better than to lose what is in them
			}
			widths[at]--
		}
		return fitted, widths, left
	}
}

// widths are those of the columns as they are.
func (t *Table) widths() []int {
	all := make([]int, len(t.Columns))
	for i, col := range t.Columns {
		all[i] = text.StringWidthWithoutEscSequences(col.Name)
	}
	for _, row := range t.Rows {
		for i, cell := range row {
			if i < len(all) {
				all[i] = max(all[i], text.LongestLineLen(cell))
			}
		}
	}
	return all
}

// spare is the column to leave out first, -1 if all have to be there.
func (t *Table) spare() int {
	at := -1
	for i, col := range t.Columns {
		if col.Spare > 0 && (at < 0 || col.Spare > t.Columns[at].Spare) {
			at = i
		}
	}
	return at
}

// without is the table without a column.
func (t *Table) without(i int) *Table {
	out := *t
	out.Columns = slices.Delete(slices.Clone(t.Columns), i, i+1)
	out.Rows = make([][]string, len(t.Rows))
	for r, row := range t.Rows {
		out.Rows[r] = row
		if i < len(row) {
			out.Rows[r] = slices.Delete(slices.Clone(row), i, i+1)
		}
	}
	return &out
}

func sum(all []int) (n int) {
	for _, x := range all {
		n += x
	}
	return n
}
