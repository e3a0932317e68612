package segments

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/pool"
)

// benchDim is the dimension of the vectors of benchmarks.
const benchDim = 128

// served is a collection of a number of sealed segments of rows rows each.
func served(b *testing.B, segments, rows int, ix VectorIndex) *Collection {
	b.Helper()
	return servedOf(b, segments, ix, benchSchema(), func(s *schema.Schema, id int64) *schema.Batch { return benchRows(s, id, rows) })
}

func benchSchema() *schema.Schema {
	s := items()
	s.Fields[3].Dim = benchDim
	return s
}

// servedOf is served with rows that are made by batch.
func servedOf(b *testing.B, segments int, ix VectorIndex, s *schema.Schema, batch func(s *schema.Schema, id int64) *schema.Batch) *Collection {
	b.Helper()
	p, err := pool.New(pool.Options{Workers: 1})
	must(b, err)
	bucket := objstore.NewMem(nil)
	set, err := New(Options{Dir: filepath.Join(b.TempDir(), "segments"), Pool: p, Bucket: bucket})
	must(b, err)
	b.Cleanup(func() {
		must(b, set.Close(context.Background()))
		must(b, p.Close(context.Background()))
	})
	c := set.Add(CollectionInfo{ID: 1, Name: "items", Schema: s, Indexes: map[int64]VectorIndex{vectorField: ix}})
	_, err = c.Watch("v", Position{Timestamp: 1}, nil)
	must(b, err)
	r := &rig{bucket: bucket}
	for id := range int64(segments) {
		left := true
		o := BuildOptions{Dir: filepath.Join(b.TempDir(), "built"), Meta: Meta{ID: id, CollectionID: 1, VChannel: "v"}, Info: c.Info(), Workers: 2}
		m, err := Build(b.Context(), o, func() (*schema.Batch, error) {
			if !left {
				return nil, io.EOF
			}
			left = false
			return batch(s, id), nil
		})
		must(b, err)
		for _, name := range append(m.FileNames(), segfile.ManifestName) {
			raw, err := os.ReadFile(filepath.Join(o.Dir, name))
			must(b, err)
			r.putObject(b, "segments/"+name, raw)
		}
		must(b, c.Load(b.Context(), LoadRequest{SegmentID: id, VChannel: "v", Path: "segments"}))
		must(b, os.RemoveAll(o.Dir))
	}
	ch, _ := c.Channel("v")
	ch.Advance(Position{Timestamp: 1000})
	return c
}

// benchRows are rows around a few hundred centres, as embeddings are.
func benchRows(s *schema.Schema, segment int64, rows int) *schema.Batch {
	rnd := rand.New(rand.NewPCG(1, uint64(segment)))
	batch := &schema.Batch{Rows: rows, Timestamps: make([]uint64, rows)}
	for _, f := range s.Fields {
		c := schema.NewColumn(f, rows)
		for i := range rows {
			key := segment*int64(rows) + int64(i)
			switch f.ID {
			case idField, priceField:
				c.Int = append(c.Int, key)
			case colorField:
				c.Str = append(c.Str, colors[key&3])
			case vectorField:
				c.Float = append(c.Float, benchVector(rnd)...)
			}
		}
		batch.Columns = append(batch.Columns, c)
	}
	for i := range batch.Timestamps {
		batch.Timestamps[i] = 10
	}
	return batch
}

func benchVector(rnd *rand.Rand) []float32 {
	centre := rand.New(rand.NewPCG(7, rnd.Uint64N(300)))
	v := make([]float32, benchDim)
	for i := range v {
		v[i] = float32(centre.NormFloat64() + 0.5*rnd.NormFloat64())
	}
	return v
}

func benchQueries(n int) []float32 {
	rnd := rand.New(rand.NewPCG(3, 3))
	var out []float32
	for range n {
		out = append(out, benchVector(rnd)...)
	}
	return out
}

// BenchmarkSearchSealed is a search of one vector in 100,000 rows of 128 values
// by graph: alone in the index, and through Collection.Search.
func BenchmarkSearchSealed(b *testing.B) {
	c := served(b, 1, 100_000, VectorIndex{Type: "HNSW", Metric: index.L2})
	queries := benchQueries(256)
	b.Run("index", func(b *testing.B) {
		snap := c.Acquire()
		defer snap.Release()
		g := snap.view.segments[0].segment.(*Sealed).vectors[0].index
		var sc index.Scratch
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			at := i % 256 * benchDim
			g.Search(queries[at:at+benchDim], &index.Query{K: 10}, &sc)
		}
	})
	b.Run("collection", func(b *testing.B) { benchSearch(b, c, queries, Read{}) })
	b.Run("collection, a field", func(b *testing.B) { benchSearch(b, c, queries, Read{OutputFields: []int64{priceField}}) })
	b.Run("collection, filter of half", func(b *testing.B) {
		p, err := expr.Compile("price < 50000", c.Info().Schema, nil, "")
		must(b, err)
		benchSearch(b, c, queries, Read{Plan: p})
	})
}

// BenchmarkSearchNulls is a search of one vector in 100,000 rows of 128 values, one in
// ten of which is null.
func BenchmarkSearchNulls(b *testing.B) {
	queries := benchQueries(256)
	for _, typ := range []string{"FLAT", "HNSW", "HNSW_SQ"} {
		s := benchSchema()
		s.Fields[3].Nullable = true
		c := servedOf(b, 1, VectorIndex{Type: typ, Metric: index.L2}, s, func(s *schema.Schema, id int64) *schema.Batch {
			rows := benchRows(s, id, 100_000)
			v := rows.Columns[3]
			for i := range rows.Rows {
				v.Valid = append(v.Valid, i%10 != 3)
			}
			return rows
		})
		b.Run(typ, func(b *testing.B) { benchSearch(b, c, queries, Read{}) })
	}
}

// BenchmarkSearchNarrow is a search for one vector of float16, bfloat16 or int8 in 100,000 rows of 128 values.
func BenchmarkSearchNarrow(b *testing.B) {
	for _, typ := range []schema.Type{schema.Float16Vector, schema.BFloat16Vector, schema.Int8Vector} {
		s := benchSchema()
		s.Fields[3].Type = typ
		queries := narrowed(s.Fields[3], benchQueries(256))
		for _, kind := range []string{"FLAT", "HNSW"} {
			c := servedOf(b, 1, VectorIndex{Type: kind, Metric: index.L2}, s, func(s *schema.Schema, id int64) *schema.Batch {
				wide := *s
				wide.Fields = slices.Clone(s.Fields)
				wide.Fields[3].Type = schema.FloatVector
				rows := benchRows(&wide, id, 100_000)
				rows.Columns[3] = narrowed(s.Fields[3], rows.Columns[3].Float)
				return rows
			})
			b.Run(fmt.Sprintf("%s/%s", typ, kind), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					one := *queries
					one.Raw = queries.Raw[i%256*queries.RowBytes():][:queries.RowBytes()]
					_, err := c.Search(b.Context(), &SearchRequest{FieldID: vectorField, Queries: &one, NQ: 1, TopK: 10, Metric: index.L2})
					must(b, err)
				}
			})
		}
	}
}

func benchSearch(b *testing.B, c *Collection, queries []float32, read Read) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at := i % 256 * benchDim
		q := SearchRequest{Read: read, FieldID: vectorField, Vectors: queries[at : at+benchDim], NQ: 1, TopK: 10, Metric: c.Info().Indexes[vectorField].Metric}
		if _, err := c.Search(b.Context(), &q); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMerge is the work outside the indexes: a search of 16 segments so
// small that they cost nothing.
func BenchmarkMerge(b *testing.B) {
	c := served(b, 16, 64, VectorIndex{Type: "FLAT", Metric: index.L2})
	benchSearch(b, c, benchQueries(256), Read{})
}

// BenchmarkScanCosine is an exact search: the norms are computed once.
func BenchmarkScanCosine(b *testing.B) {
	c := served(b, 1, 20_000, VectorIndex{Type: "FLAT", Metric: index.Cosine})
	benchSearch(b, c, benchQueries(256), Read{})
}

// BenchmarkGetByKey reads one row of 100,000 by its key.
func BenchmarkGetByKey(b *testing.B) {
	c := served(b, 1, 100_000, VectorIndex{Type: "FLAT", Metric: index.L2})
	p, err := expr.Compile("id in [77777]", c.Info().Schema, nil, "")
	must(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, err := c.Query(b.Context(), &QueryRequest{Read: Read{Plan: p, OutputFields: []int64{idField, priceField}}},
			func(*schema.Batch, uint64) error { return nil })
		must(b, err)
	}
}

// BenchmarkFilter is a filter over 100,000 rows without the search.
func BenchmarkFilter(b *testing.B) {
	c := served(b, 1, 100_000, VectorIndex{Type: "FLAT", Metric: index.L2})
	p, err := expr.Compile("price < 50000", c.Info().Schema, nil, "")
	must(b, err)
	snap := c.Acquire()
	defer snap.Release()
	m := newMatch(p, c.Info().Schema)
	sealed, out := snap.view.segments[0].segment.(*Sealed), bitset.Set{}
	b.ReportAllocs()
	for b.Loop() {
		must(b, sealed.evaluate(b.Context(), m, 100_000, &out))
	}
}

// BenchmarkInsert appends batches of 100 rows of 128 values.
func BenchmarkInsert(b *testing.B) {
	c := served(b, 0, 0, VectorIndex{Type: "FLAT", Metric: index.L2})
	ch, _ := c.Channel("v")
	batch := benchRows(c.Info().Schema, 0, 100)
	b.ReportAllocs()
	segment, ts := int64(1), uint64(2000)
	for i := 0; b.Loop(); i++ {
		if i%5000 == 4999 {
			ch.Forget(segment)
			segment++
		}
		ts++
		keys := *batch.Columns[0]
		keys.Int = seq(int64(i)*100, int64(i)*100+100)
		rows := *batch
		rows.Columns = append([]*schema.Column{&keys}, batch.Columns[1:]...)
		must(b, ch.ApplyRows(Rows{SegmentID: segment, Batch: &rows}, Position{Timestamp: ts}))
	}
	b.SetBytes(100 * benchDim * 4)
}

// BenchmarkPages is a page of 100 rows of 100,000 in order of distance, and fifty one
// after the other.
func BenchmarkPages(b *testing.B) {
	for _, kind := range []string{"FLAT", "HNSW_SQ"} {
		c := served(b, 1, 100_000, VectorIndex{Type: kind, Metric: index.L2})
		queries := benchQueries(256)
		request := uint64(0)
		turn := func(b *testing.B, pages int) {
			for i := 0; b.Loop(); i++ {
				request++
				at := i % 256 * benchDim
				q := SearchRequest{
					Read: Read{ReadTimestamp: 1000, OneTime: true}, FieldID: vectorField, NQ: 1, TopK: 100, Metric: index.L2,
					Vectors: queries[at : at+benchDim], Page: &Paging{Request: request},
				}
				for range pages {
					res, err := c.Search(b.Context(), &q)
					must(b, err)
					q.Page.After = res.Last
				}
			}
		}
		b.Run(kind+"/first", func(b *testing.B) { turn(b, 1) })
		b.Run(kind+"/50", func(b *testing.B) { turn(b, 50) })
	}
}

// BenchmarkRefine is a search of 100,000 rows ranked by codes, and of as many rows or
// twice as many by their vectors.
func BenchmarkRefine(b *testing.B) {
	for _, kind := range []string{"HNSW_SQ", "SCANN"} {
		c := served(b, 1, 100_000, VectorIndex{Type: kind, Metric: index.L2})
		queries := benchQueries(256)
		for _, k := range []int{10, 100} {
			for _, refine := range []float32{0, 1, 2} {
				b.Run(fmt.Sprintf("%s/k=%d/refine_k=%v", kind, k, refine), func(b *testing.B) {
					for i := 0; b.Loop(); i++ {
						at := i % 256 * benchDim
						q := SearchRequest{
							Read: Read{ReadTimestamp: 1000}, FieldID: vectorField, NQ: 1, TopK: k, Metric: index.L2,
							Vectors: queries[at : at+benchDim], Effort: Effort{Refine: refine},
						}
						_, err := c.Search(b.Context(), &q)
						must(b, err)
					}
				})
			}
		}
	}
}
