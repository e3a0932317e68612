package expr

import (
	"testing"

	"github.com/querynode/querynode/internal/schema"
)

// A sample is of what the rest of the filter leaves, and another one each time.
func TestSample(t *testing.T) {
	const n = 100_000
	s := parseSchema(t, "id Int64 pk\nv FloatVector")
	c := schema.NewColumn(s.Fields[0], n)
	for i := range n {
		c.Int = append(c.Int, int64(i))
	}
	cols := table{s.Fields[0].ID: c}
	p := mustCompile(t, s, "random_sample(0.25) and id < 40000", nil)
	first, second := matching(t, p, cols, n), matching(t, p, cols, n)
	for _, rows := range [][]uint32{first, second} {
		if k := len(rows); k < 9000 || k > 11_000 || rows[k-1] >= 40_000 {
			t.Fatalf("%d rows up to %d, want a quarter of 40,000", k, rows[k-1])
		}
	}
	same := map[uint32]bool{}
	for _, r := range first {
		same[r] = true
	}
	both := 0
	for _, r := range second {
		if same[r] {
			both++
		}
	}
	if both > 4000 {
		t.Fatalf("%d rows are in both samples, want about 2,500", both)
	}
}
