package expr

import (
	"fmt"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/schema"
)

// Arrays of any length, also such that the elements of a few rows fill many blocks.
func TestElementsOfLongArraysAreCounted(t *testing.T) {
	s := parseSchema(t, "id Int64 pk\na Array:Int64\nv FloatVector")
	c := schema.NewColumn(s.Fields[1], 0)
	var met []int
	for row := range 150 {
		n, k := row*row%331, 0
		if row%40 == 7 {
			n = 5000 + row
		}
		for i := range n {
			x := int64(row*7919 + i*i)
			c.Int = append(c.Int, x)
			k += int(b2i(x%3 == 0))
		}
		c.Offsets = append(c.Offsets, len(c.Int))
		met = append(met, k)
	}
	cols := table{s.Fields[0].ID: ids(s.Fields[0], len(met)), s.Fields[1].ID: c}
	for row, k := range met {
		want := []uint32{}
		for r, n := range met {
			if n == k {
				want = append(want, uint32(r))
			}
		}
		p := mustCompile(t, s, fmt.Sprintf("match_exact(a, $ %% 3 == 0, threshold=%d)", k), nil)
		if got := matching(t, p, cols, len(met)); !slices.Equal(got, want) {
			t.Fatalf("%d elements as in row %d: rows %v, want %v", k, row, got, want)
		}
	}
	p := mustCompile(t, s, "match_least(a, $ % 3 == 0, threshold=1) and id % 50 == 47", nil)
	if got := matching(t, p, cols, len(met)); !slices.Equal(got, []uint32{97, 147}) {
		t.Fatalf("rows %v of a few that are asked for", got)
	}
}

func ids(f schema.Field, n int) *schema.Column {
	c := schema.NewColumn(f, n)
	for i := range n {
		c.Int = append(c.Int, int64(i))
	}
	return c
}
