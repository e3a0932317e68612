package segments

import (
	"cmp"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// steps changes a rig at random: inserts, upserts, deletes and hand-offs.
func (r *rig) steps(rt *rapid.T, most int) {
	keys := rapid.SliceOfNDistinct(rapid.Int64Range(0, 99), 1, 25, rapid.ID[int64])
	open, next := int64(1), int64(2)
	for range rapid.IntRange(1, most).Draw(rt, "steps") {
		switch rapid.SampledFrom([]string{"insert", "upsert", "delete", "hand off", "next"}).Draw(rt, "step") {
		case "insert":
			r.insertNew(open, keys.Draw(rt, "keys"))
		case "upsert":
			r.upsert(open, rapid.Int64Range(1, 9).Draw(rt, "version"), keys.Draw(rt, "keys")...)
		case "delete":
			r.delete(keys.Draw(rt, "keys")...)
		case "hand off":
			if slices.ContainsFunc(r.rows, func(row modelRow) bool { return row.segment == open }) {
				r.handOff(open)
				open, next = next, next+1
			}
		case "next":
			open, next = next, next+1
		}
	}
}

// groupsOf is the model's answer to a search for groups by color or price/100.
func (r *rig) groupsOf(query []float32, want, offset, size int, at uint64, keep func(modelRow, float32) bool, of func(modelRow) any) [][]modelRow {
	var out [][]modelRow
	seen := map[any]int{}
	for _, row := range r.nearest(query, math.MaxInt, at, keep) {
		i, ok := seen[of(row)]
		if !ok {
			i = len(out)
			seen[of(row)], out = i, append(out, nil)
		}
		if len(out[i]) < size {
			out[i] = append(out[i], row)
		}
	}
	out = out[min(offset, len(out)):]
	return out[:min(want, len(out))]
}

// TestGroupsAgainstTheModel: with FLAT, and with graphs too small to walk, every
// answer is exact.
func TestGroupsAgainstTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		metric := rapid.SampledFrom([]index.Metric{index.L2, index.IP, index.Cosine}).Draw(rt, "metric")
		kind := rapid.SampledFrom([]string{"FLAT", "HNSW"}).Draw(rt, "index")
		r := newRig(t, rigOptions{schema: itemsWithDocs(), index: VectorIndex{Type: kind, Metric: metric}})
		defer r.close()
		r.steps(rt, 12)
		for range 6 {
			r.compareGroups(rt)
		}
	})
}

func (r *rig) compareGroups(rt *rapid.T) {
	metric := r.o.index.Metric
	at := rapid.Uint64Range(1000, r.now).Draw(rt, "at")
	p := rapid.SampledFrom(plans).Draw(rt, "filter")
	g := &Grouping{FieldID: colorField, Size: rapid.IntRange(0, 5).Draw(rt, "size"), Strict: rapid.Bool().Draw(rt, "strict")}
	of := func(row modelRow) any { return row.color }
	byColor, quote := true, ""
	switch rapid.SampledFrom([]string{"color", "price", "path"}).Draw(rt, "by") {
	case "price":
		g.FieldID, byColor = priceField, false
		of = func(row modelRow) any { return row.price }
	case "path":
		g.FieldID, quote = docField, `"`
		var err error
		_, g.Path, err = expr.ParsePath(`doc["in"]["c"]`, r.o.schema)
		must(r.t, err)
	}
	q := SearchRequest{Read: Read{ReadTimestamp: at, Plan: r.plan(p.text), OutputFields: []int64{priceField}}, Group: g,
		TopK: rapid.IntRange(1, 6).Draw(rt, "k"), Offset: rapid.IntRange(0, 3).Draw(rt, "offset")}
	for range rapid.IntRange(1, 3).Draw(rt, "nq") {
		q.Vectors = append(q.Vectors, vectorOf(rapid.Int64Range(0, 120).Draw(rt, "query"), 77)...)
	}
	if rapid.Bool().Draw(rt, "radius") {
		x := rapid.Float32Range(-1, 4).Draw(rt, "far")
		q.Radius = &x
	}
	if rapid.Bool().Draw(rt, "range") {
		x := rapid.Float32Range(-1, 4).Draw(rt, "near")
		q.RangeFilter = &x
	}
	res := r.found(q)
	row, group := 0, 0
	for i := range q.NQ0() {
		want := r.groupsOf(q.Vectors[i*dim:(i+1)*dim], q.TopK, q.Offset, max(g.Size, 1), at, func(row modelRow, s float32) bool {
			return p.keep(row) && (q.Radius == nil || metric.Better(s, *q.Radius)) && (q.RangeFilter == nil || !metric.Better(s, *q.RangeFilter))
		}, of)
		end := row + int(res.Counts[i])
		for j, rows := range want {
			n := int(res.GroupCounts[group])
			got := res.Keys.Int[row : row+n]
			keys := make([]int64, len(rows))
			for k := range rows {
				keys[k] = rows[k].key
			}
			if g.Strict && n != len(keys) || n < 1 || n > len(keys) || got[0] != keys[0] {
				rt.Fatalf("query %d, group %d: %v, want %v", i, j, got, keys)
			}
			if g.Strict && !slices.Equal(got, keys) {
				rt.Fatalf("query %d, group %d: %v, want %v", i, j, got, keys)
			}
			for k := range n {
				if !res.GroupValues.Null(row+k) && byColor && res.GroupValues.Str[row+k] != quote+rows[0].color+quote {
					rt.Fatalf("query %d, group %d: value %q, want %q", i, j, res.GroupValues.Str[row+k], rows[0].color)
				}
				if res.GroupValues.Null(row+k) != (byColor && rows[0].color == "") {
					rt.Fatalf("query %d, group %d: null is %t", i, j, res.GroupValues.Null(row+k))
				}
			}
			row, group = row+n, group+1
		}
		if row != end {
			rt.Fatalf("query %d: %d rows in %d groups, want %d groups", i, res.Counts[i], group, len(want))
		}
	}
	if len(res.Keys.Int) != row || len(res.GroupCounts) != group {
		rt.Fatalf("%d keys in %d groups, want %d in %d", len(res.Keys.Int), len(res.GroupCounts), row, group)
	}
}

// TestAsManyGroupsAsThereAre: also if the nearest thousand rows are of one group
// and there is a graph, which would not find the others by itself.
func TestAsManyGroupsAsThereAre(t *testing.T) {
	for _, growing := range []bool{true, false} {
		r := newRig(t, rigOptions{index: VectorIndex{Type: "HNSW", Metric: index.L2}})
		b := &schema.Batch{Rows: 4000}
		for _, f := range r.o.schema.Columns() {
			c := schema.NewColumn(f, b.Rows)
			for k := range int64(b.Rows) {
				switch f.ID {
				case idField:
					c.Int = append(c.Int, k)
				case priceField:
					c.Int = append(c.Int, max(0, k-3980)) // 20 groups, one of them very large
				case colorField:
					c.Str = append(c.Str, "")
					c.Valid = append(c.Valid, false)
				case vectorField:
					v := vectorOf(k, 0)
					if k > 3980 {
						v[0] += 100
					}
					c.Float = append(c.Float, v...)
				}
			}
			b.Columns = append(b.Columns, c)
		}
		at := r.tick()
		must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: b}, at))
		r.ch.Advance(at)
		if !growing {
			r.handOff(1)
		}
		res := r.found(SearchRequest{Vectors: vectorOf(9999, 0), TopK: 20, Group: &Grouping{FieldID: priceField, Size: 2, Strict: true}})
		values := slices.Compact(slices.Clone(res.GroupValues.Int))
		if len(res.GroupCounts) != 20 || len(values) != 20 || res.GroupCounts[0] != 2 {
			t.Fatalf("growing %t: groups %v of %v rows", growing, values, res.GroupCounts)
		}
		if !slices.IsSortedFunc(res.Scores[1:], cmp.Compare[float32]) {
			t.Fatalf("growing %t: scores %v", growing, res.Scores)
		}
		// Null is a value like any other.
		res = r.found(SearchRequest{Vectors: vectorOf(9999, 0), TopK: 20, Group: &Grouping{FieldID: colorField, Size: 3}})
		if len(res.GroupCounts) != 1 || res.GroupCounts[0] != 3 || !res.GroupValues.Null(2) {
			t.Fatalf("growing %t: groups of nothing but nulls: %v", growing, res.GroupCounts)
		}
	}
}
