package segfile

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

func TestSegmentComesBackAsItWasWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "42")
	meta := fullMeta()
	b1, b2 := batch(&meta.Schema, 0, 700), batch(&meta.Schema, 700, 301)
	m := write(t, dir, meta, b1, b2)
	s := open(t, dir)
	checkRows(t, s, joined(&meta.Schema, b1, b2))

	got := s.Manifest()
	if got.Rows != 1001 || got.MinTimestamp != 1 || got.MaxTimestamp != 1000<<18|1 || got.SegmentID != 42 || got.EndPosition != "01ff@9" || got.VChannel != meta.VChannel {
		t.Fatalf("manifest %+v", got)
	}
	if k := got.KeyStats(); k.Int == nil || *k.Int != (Range[int64]{0, 1000}) {
		t.Fatalf("key stats %+v", k)
	}
	if st, _ := got.FieldStats(107); st.Nulls != 250 || st.Float == nil || *st.Float != (Range[float64]{0, 250}) {
		t.Fatalf("stats %+v", st)
	}
	x, img, ok := s.Index(101)
	if !ok || x.Type != "HNSW" || x.Params["M"] != "16" || !bytes.Equal(img, image()) {
		t.Fatalf("index %+v of %d bytes", x, len(img))
	}
	if _, _, ok := s.Index(110); ok {
		t.Fatal("an index out of nothing")
	}
	keys, ts, err := s.Deletes()
	if err != nil || !slices.Equal(keys.Int, b1.Columns[0].Int) || !slices.Equal(ts, b1.Timestamps) || keys.FieldID != 100 {
		t.Fatalf("deletes: %v, %v", keys, err)
	}
	if mapped, heap := s.Bytes(); canMap && (mapped != m.MappedBytes() || heap != 0) {
		t.Fatalf("Bytes() = %d, %d, want %d mapped", mapped, heap, m.MappedBytes())
	}
	var last, total int64
	if err := s.Verify(context.Background(), func(d, n int64) { last, total = d, n }); err != nil || last != total || total != m.DiskBytes() {
		t.Fatalf("verify: %v, %d of %d", err, last, total)
	}
	for i := range 1001 {
		if !s.MayHaveInt(int64(i)) {
			t.Fatalf("key %d is denied", i)
		}
	}
	if s.MayHaveInt(-1) || s.MayHaveInt(1001) {
		t.Fatal("keys outside of the range are not denied")
	}
}

func TestBloomFilterDeniesMostForeignKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "1")
	s := schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "k", Type: schema.VarChar, PrimaryKey: true}, {ID: 101, Name: "v", Type: schema.FloatVector, Dim: 1},
	}}
	write(t, dir, Meta{Schema: s}, batch(&s, 0, 5000))
	seg := open(t, dir)
	foreign := batch(&s, 1000, 20_000).Columns[0]
	rows, err := seg.MayHave(foreign, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rows[:4000], count(4000)) {
		t.Fatal("a key that is there was denied")
	}
	if extra := len(rows) - 4000; extra > 16_000*3/100 {
		t.Fatalf("%d of 16000 foreign keys pass", extra)
	}
	if _, err := seg.MayHave(&schema.Column{Type: schema.Int64}, nil); !errclass.Is(err, errclass.Invalid) {
		t.Fatal(err)
	}
}

func count(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func TestRandomSegmentsComeBack(t *testing.T) {
	dir := t.TempDir()
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "a", "b", "ü\x00"}))
	rapid.Check(t, func(rt *rapid.T) {
		meta := fullMeta()
		var batches []*schema.Batch
		for range rapid.IntRange(1, 3).Draw(rt, "batches") {
			b := batch(&meta.Schema, 0, rapid.IntRange(1, 30).Draw(rt, "rows"))
			for _, c := range b.Columns {
				f, _ := meta.Schema.FieldByID(c.FieldID)
				c.Valid = nil
				if f.Nullable && rapid.Bool().Draw(rt, "nulls") {
					c.Valid = make([]bool, b.Rows)
				}
				randomise(rt, c, text)
			}
			b.Timestamps = rapid.SliceOfN(rapid.Uint64(), b.Rows, b.Rows).Draw(rt, "ts")
			batches = append(batches, b)
		}
		path := filepath.Join(dir, "seg")
		write(t, path, meta, batches...)
		s, err := Open(path, Options{WillNeed: true, HugePages: true, Populate: true})
		if err != nil {
			rt.Fatal(err)
		}
		checkRows(t, s, joined(&meta.Schema, batches...))
		if err := s.Close(); err != nil {
			rt.Fatal(err)
		}
		if err := os.RemoveAll(path); err != nil {
			rt.Fatal(err)
		}
	})
}

// randomiseLists draws the lists of a column.
func randomiseLists(rt *rapid.T, c *schema.Column, text *rapid.Generator[string]) {
	rows, valid := c.Rows(), c.Valid
	f := schema.Field{ID: c.FieldID, Type: schema.Array, Element: c.Element}
	*c = *schema.NewColumn(f, 0)
	c.Valid = valid
	for i := range rows {
		e := schema.NewColumn(schema.Field{Type: f.Element}, 0)
		if valid == nil || rapid.Bool().Draw(rt, "valid") {
			for k := range rapid.IntRange(0, 3).Draw(rt, "elements") {
				appendValue(e, schema.Field{Type: f.Element}, k, true)
			}
			if e.Rows() > 0 {
				randomise(rt, e, text)
			}
			if valid != nil {
				valid[i] = true
			}
		}
		appendElements(c, e)
	}
}

// randomise draws the values of a column that batch has filled, zeros for nulls.
func randomise(rt *rapid.T, c *schema.Column, text *rapid.Generator[string]) {
	rows := c.Rows()
	if c.Type == schema.Array {
		randomiseLists(rt, c, text)
		return
	}
	if c.Type == schema.SparseFloatVector || c.Type.IsRaw() {
		for i := range c.Valid { // the values are batch's; some rows lose them
			c.Valid[i] = c.Type == schema.SparseFloatVector && c.Offsets[i] != c.Offsets[i+1] || rapid.Bool().Draw(rt, "valid")
		}
		return
	}
	for i := range rows {
		ok := c.Valid == nil || rapid.Bool().Draw(rt, "valid")
		if c.Valid != nil {
			c.Valid[i] = ok
		}
		switch {
		case c.Type.IsVector():
			for d := range c.Dim {
				c.Float[i*c.Dim+d] = rapid.Float32Range(-math.MaxFloat32, math.MaxFloat32).Draw(rt, "v")
			}
		case c.Bool != nil:
			c.Bool[i] = ok && rapid.Bool().Draw(rt, "b")
		case c.Int != nil:
			limit := map[schema.Type]int64{schema.Int8: math.MaxInt8, schema.Int16: math.MaxInt16, schema.Int32: math.MaxInt32, schema.Int64: math.MaxInt64, schema.Timestamptz: math.MaxInt64}[c.Type]
			c.Int[i] = 0
			if ok {
				c.Int[i] = rapid.Int64Range(-limit-1, limit).Draw(rt, "i")
			}
		case c.Float != nil:
			c.Float[i] = 0
			if ok {
				c.Float[i] = rapid.SampledFrom([]float32{1.5, -2, float32(math.Inf(1)), 0}).Draw(rt, "f")
			}
		case c.Double != nil:
			c.Double[i] = 0
			if ok {
				c.Double[i] = rapid.Float64().Draw(rt, "d")
			}
		case c.Str != nil:
			c.Str[i] = ""
			if ok {
				c.Str[i] = text.Draw(rt, "s")
			}
		}
	}
}

func TestOneRowIsASegmentAndNoneIsNot(t *testing.T) {
	meta := testMeta()
	dir := filepath.Join(t.TempDir(), "1")
	one := batch(&meta.Schema, 0, 1)
	write(t, dir, meta, one)
	checkRows(t, open(t, dir), one)

	empty := filepath.Join(t.TempDir(), "0")
	w, err := Create(empty, meta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Vectors(101); !errclass.Is(err, errclass.Invalid) {
		t.Fatalf("vectors of no rows: %v", err)
	}
	if _, err := w.Finish(context.Background()); !errclass.Is(err, errclass.Invalid) {
		t.Fatalf("finish without rows: %v", err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(empty); !os.IsNotExist(err) {
		t.Fatalf("the folder outlived Abort: %v", err)
	}
}

func TestWriterRefusesWhatDoesNotFit(t *testing.T) {
	meta := testMeta()
	dir := filepath.Join(t.TempDir(), "1")
	w, err := Create(dir, meta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, meta); !errclass.Is(err, errclass.Exists) {
		t.Errorf("second Create: %v", err)
	}
	noTime := batch(&meta.Schema, 0, 2)
	noTime.Timestamps = nil
	wide := batch(&meta.Schema, 0, 2)
	wide.Columns[1].Float = wide.Columns[1].Float[1:]
	for name, b := range map[string]*schema.Batch{"no timestamps": noTime, "short vectors": wide, "no columns": {Rows: 1}} {
		if err := w.Append(b); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := batch(&meta.Schema, 0, 2)
	if err := w.Append(good); err != nil {
		t.Fatalf("after refused batches: %v", err)
	}
	if err := w.WriteIndex(IndexMeta{FieldID: 100, Type: "HNSW"}, nil); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("index of a scalar: %v", err)
	}
	v, err := w.Vectors(101)
	if err != nil || !slices.Equal(v, good.Columns[1].Float) {
		t.Fatalf("Vectors = %v, %v", v, err)
	}
	if err := w.Append(good); !errclass.Is(err, errclass.Conflict) {
		t.Errorf("rows after Vectors: %v", err)
	}
	if _, err := w.Finish(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(good); !errclass.Is(err, errclass.Closed) {
		t.Errorf("rows after Finish: %v", err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	checkRows(t, open(t, dir), good) // Abort after Finish keeps the segment
}

func TestCancelledFinishLeavesNoSegment(t *testing.T) {
	meta := testMeta()
	dir := filepath.Join(t.TempDir(), "1")
	w, err := Create(dir, meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(batch(&meta.Schema, 0, 2)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.Finish(ctx); err == nil {
		t.Fatal("finished after its context ended")
	}
	if _, err := Open(dir, Options{}); !errclass.Is(err, errclass.NotFound) {
		t.Fatalf("open: %v", err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
}

func TestTextThatGrowsOverTheDictionaryComesBack(t *testing.T) {
	s := schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "k", Type: schema.Int64, PrimaryKey: true}, {ID: 101, Name: "v", Type: schema.FloatVector, Dim: 1},
		{ID: 102, Name: "j", Type: schema.JSON},
	}}
	b := batch(&s, 0, 3000)
	for i := range b.Columns[2].Str {
		b.Columns[2].Str[i] = string(bytes.Repeat([]byte{byte('a' + i%26), byte('0' + i%10), byte('0' + i/300)}, 1000))
	}
	b.Columns[2].Str[7] = string(make([]byte, 3<<20))
	dir := filepath.Join(t.TempDir(), "1")
	write(t, dir, Meta{Schema: s}, b)
	checkRows(t, open(t, dir), b)
}

func TestCloseIsIdempotent(t *testing.T) {
	meta := testMeta()
	dir := filepath.Join(t.TempDir(), "1")
	write(t, dir, meta, batch(&meta.Schema, 0, 1))
	s := open(t, dir)
	for range 3 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if mapped, heap := s.Bytes(); mapped != 0 || heap != 0 {
		t.Fatalf("%d, %d bytes after Close", mapped, heap)
	}
}

func TestVectorsOfManyBlocksVerify(t *testing.T) {
	s := schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "k", Type: schema.Int64, PrimaryKey: true}, {ID: 101, Name: "v", Type: schema.FloatVector, Dim: 1000},
	}}
	dir := filepath.Join(t.TempDir(), "1")
	b := batch(&s, 0, 700) // 2.7 MiB
	m := write(t, dir, Meta{Schema: s}, b)
	if n := len(m.file("vector_101.npy").Blocks); n != 3 {
		t.Fatalf("%d blocks", n)
	}
	if err := m.Verify(context.Background(), dir, nil); err != nil {
		t.Fatal(err)
	}
	checkRows(t, open(t, dir), b)
}
