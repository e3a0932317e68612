package segments

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
)

// narrowed are vectors as a column of another type.
func narrowed(f schema.Field, vectors []float32) *schema.Column {
	c := schema.NewColumn(f, len(vectors)/f.Dim)
	for _, x := range vectors {
		switch f.Type {
		case schema.Float16Vector:
			c.Raw = binary.LittleEndian.AppendUint16(c.Raw, vec.Float32ToFloat16(x))
		case schema.BFloat16Vector:
			c.Raw = binary.LittleEndian.AppendUint16(c.Raw, vec.Float32ToBFloat16(x))
		case schema.Int8Vector:
			c.Raw = append(c.Raw, byte(int8(max(-127, min(127, 40*x)))))
		}
	}
	return c
}

// TestNarrowVectorsHaveAGraph: a sealed segment with vectors of float16, bfloat16 or int8 has a graph that finds
// what a scan does, with the scan's scores, with a filter and within a radius, and where some are null.
func TestNarrowVectorsHaveAGraph(t *testing.T) {
	const wide, n, searches = benchDim, 4096 / slower, 20
	for _, typ := range []schema.Type{schema.Float16Vector, schema.BFloat16Vector, schema.Int8Vector} {
		for _, metric := range []index.Metric{index.L2, index.IP, index.Cosine} {
			t.Run(fmt.Sprintf("%s/%s", typ, metric), func(t *testing.T) {
				s := items()
				s.Fields[3].Dim = wide
				rows := benchRows(s, 1, n)
				s.Fields[3].Type = typ
				if metric == index.Cosine { // some are null
					s.Fields[3].Nullable = true
				}
				rows.Columns[3] = narrowed(s.Fields[3], rows.Columns[3].Float)
				for i := 0; s.Fields[3].Nullable && i < n; i++ {
					rows.Columns[3].Valid = append(rows.Columns[3].Valid, i < searches || i%5 != 0)
				}
				of := func(kind index.Kind) *rig {
					r := newRig(t, rigOptions{schema: s, index: VectorIndex{Type: string(kind), Metric: metric}})
					at := r.tick()
					must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: rows}, at))
					r.ch.Advance(at)
					r.handOff(1)
					return r
				}
				graph, flat := of(index.KindHNSW), of(index.KindFlat)
				if got := graph.status(1).Indexes[vectorField]; got != string(index.KindHNSWSQ) {
					t.Fatalf("the index is %q", got)
				}
				if got := flat.status(1).Indexes[vectorField]; got != string(index.KindFlat) {
					t.Fatalf("the index of FLAT is %q", got)
				}
				queries := *rows.Columns[3]
				width := queries.RowBytes()
				queries.Raw = slices.Clone(queries.Raw[:searches*width])
				for i := range queries.Raw {
					queries.Raw[i] ^= byte(i % 3) // of two bytes, mostly the last bits
					if typ != schema.Int8Vector && i%2 == 1 {
						queries.Raw[i] ^= byte(i % 3)
					}
				}
				for name, req := range map[string]SearchRequest{
					"all":            {TopK: 10},
					"with a filter":  {TopK: 10, Read: Read{Plan: flat.plan("price % 3 == 1")}},
					"within a range": {TopK: 10, Radius: new(flat.found(SearchRequest{Queries: &queries, NQ: searches, TopK: 40}).Scores[30])},
				} {
					req.Queries, req.NQ = &queries, searches
					got, want := graph.found(req), flat.found(req)
					found, of := 0, 0
					from, wantFrom := 0, 0
					for q := range searches {
						keys, scores := got.Keys.Int[from:][:got.Counts[q]], got.Scores[from:][:got.Counts[q]]
						wantKeys, wantScores := want.Keys.Int[wantFrom:][:want.Counts[q]], want.Scores[wantFrom:][:want.Counts[q]]
						from, wantFrom = from+len(keys), wantFrom+len(wantKeys)
						of += len(wantKeys)
						for i, key := range keys {
							if at := slices.Index(wantKeys, key); at >= 0 {
								if found++; math.Abs(float64(wantScores[at]-scores[i])) > 1e-6*math.Abs(float64(scores[i])) { // the last bit differs by how many rows are at hand
									t.Errorf("%s: key %d has score %v, by a scan %v", name, key, scores[i], wantScores[at])
								}
							}
						}
					}
					if float64(found) < 0.97*float64(of) || of == 0 {
						t.Errorf("%s: %d of %d found", name, found, of)
					}
				}
			})
		}
	}
}

// TestWhatIsWidenedHasRoom on the disk while it is: of the widest field, if a graph may come of it. Where the disk has none after all
// a field does without an index if somebody is told.
func TestWhatIsWidenedHasRoom(t *testing.T) {
	s := items()
	s.Fields[3].Type, s.Fields[3].Dim = schema.Int8Vector, 64
	s.Fields = append(s.Fields, schema.Field{ID: 900, Name: "wide", Type: schema.Float16Vector, Dim: 128}, schema.Field{ID: 901, Name: "float", Type: schema.FloatVector, Dim: 512})
	info := CollectionInfo{Schema: s, Indexes: map[int64]VectorIndex{
		s.Fields[3].ID: {Type: "HNSW", Metric: index.L2}, 900: {Type: "AUTOINDEX", Metric: index.L2}, 901: {Type: "HNSW", Metric: index.L2},
	}}
	for rows, want := range map[int]int64{0: 0, 1000: 4 * 64 * 1000, 100_000: 4 * 128 * 100_000} {
		if got := BuildDisk(info, rows); got != want {
			t.Errorf("%d rows: %d bytes, want %d", rows, got, want)
		}
	}
	var told []string
	o := BuildOptions{NoRoom: func(field string, _ error) { told = append(told, field) }}
	full, other := errclass.New(errclass.Exhausted, "the disk is full"), errclass.New(errclass.Internal, "it is broken")
	if err := o.without(s.Fields[3], full); err != nil || !slices.Equal(told, []string{s.Fields[3].Name}) {
		t.Errorf("%v, told of %v", err, told)
	}
	if err := o.without(s.Fields[3], other); !errors.Is(err, other) || len(told) != 1 {
		t.Errorf("%v, told of %v", err, told)
	}
	if err := (&BuildOptions{}).without(s.Fields[3], full); !errors.Is(err, full) {
		t.Errorf("%v where nobody is told", err)
	}
}
