package segfile

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/querynode/querynode/internal/schema"
)

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "25") // each check syncs files; the command line overrides it
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// testSchema has a field of every type that version 1 has. Do not change it:
// testdata/v1 is of it.
func testSchema() schema.Schema {
	return schema.Schema{Version: 1, Dynamic: true, Fields: []schema.Field{
		{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "vec", Type: schema.FloatVector, Dim: 3},
		{ID: 102, Name: "flag", Type: schema.Bool, Nullable: true},
		{ID: 103, Name: "i8", Type: schema.Int8},
		{ID: 104, Name: "i16", Type: schema.Int16, Nullable: true},
		{ID: 105, Name: "i32", Type: schema.Int32},
		{ID: 106, Name: "f32", Type: schema.Float, Nullable: true},
		{ID: 107, Name: "f64", Type: schema.Double, Nullable: true},
		{ID: 108, Name: "title", Type: schema.VarChar, Nullable: true, MaxLength: 1000},
		{ID: 109, Name: "extra", Type: schema.JSON, Nullable: true},
		{ID: 110, Name: "vec2", Type: schema.FloatVector, Dim: 1},
	}}
}

// fullSchema has a field of every type.
func fullSchema() schema.Schema {
	s := testSchema()
	s.Fields = append(s.Fields, []schema.Field{
		{ID: 120, Name: "at", Type: schema.Timestamptz, Nullable: true},
		{ID: 121, Name: "bools", Type: schema.Array, Element: schema.Bool},
		{ID: 122, Name: "int8s", Type: schema.Array, Element: schema.Int8, Nullable: true},
		{ID: 123, Name: "int64s", Type: schema.Array, Element: schema.Int64, MaxCapacity: 5},
		{ID: 124, Name: "floats", Type: schema.Array, Element: schema.Float},
		{ID: 125, Name: "doubles", Type: schema.Array, Element: schema.Double, Nullable: true},
		{ID: 126, Name: "texts", Type: schema.Array, Element: schema.VarChar, Nullable: true},
		{ID: 127, Name: "later", Type: schema.Int64, Default: "7"},
		{ID: 130, Name: "half", Type: schema.Float16Vector, Dim: 3},
		{ID: 131, Name: "brain", Type: schema.BFloat16Vector, Dim: 2, Nullable: true},
		{ID: 132, Name: "small", Type: schema.Int8Vector, Dim: 5, Nullable: true},
		{ID: 133, Name: "bits", Type: schema.BinaryVector, Dim: 16},
		{ID: 134, Name: "sparse", Type: schema.SparseFloatVector, Nullable: true},
		{ID: 135, Name: "maybe", Type: schema.FloatVector, Dim: 2, Nullable: true},
	}...)
	return s
}

func fullMeta() Meta {
	m := testMeta()
	m.Schema = fullSchema()
	return m
}

func testMeta() Meta {
	return Meta{SegmentID: 42, CollectionID: 7, PartitionID: 8, VChannel: "by-dev_0_7v0", Schema: testSchema(), StartPosition: "00ff@1", EndPosition: "01ff@9"}
}

// batch returns rows from, from+1, ... whose values follow from their number.
func batch(s *schema.Schema, from, n int) *schema.Batch {
	b := &schema.Batch{Rows: n}
	for i := range n {
		b.Timestamps = append(b.Timestamps, uint64(from+i)<<18|1)
	}
	for _, f := range s.Columns() {
		c := schema.NewColumn(f, n)
		for i := from; i < from+n; i++ {
			ok := !f.Nullable || i%4 != 1
			if f.Nullable {
				c.Valid = append(c.Valid, ok)
			}
			appendValue(c, f, i, ok)
		}
		b.Columns = append(b.Columns, c)
	}
	return b
}

func appendValue(c *schema.Column, f schema.Field, i int, ok bool) {
	v := i
	if !ok {
		v = 0
	}
	switch {
	case f.Type == schema.Array:
		appendList(c, f, i, ok)
	case f.Type == schema.SparseFloatVector:
		for k := 0; k < i%4 && ok; k++ {
			c.Indices, c.Float = append(c.Indices, uint32(i+1000*k)), append(c.Float, float32(i)/2)
		}
		c.Offsets = append(c.Offsets, len(c.Indices))
	case f.Type.IsRaw():
		for k := range c.RowBytes() {
			c.Raw = append(c.Raw, byte(v+k)&0x3b*byte(min(v, 1)))
		}
	case f.Type == schema.Bool:
		c.Bool = append(c.Bool, v%2 == 1)
	case f.Type == schema.Int8, f.Type == schema.Int16:
		c.Int = append(c.Int, int64(int8(v)))
	case f.Type.IsInt():
		c.Int = append(c.Int, int64(v))
	case f.Type == schema.Float:
		c.Float = append(c.Float, float32(v)/2)
	case f.Type == schema.Double:
		c.Double = append(c.Double, float64(v)/4)
	case f.Type.IsVector():
		for d := range f.Dim {
			c.Float = append(c.Float, float32(v*f.Dim+d))
		}
	case !ok:
		c.Str = append(c.Str, "")
	case f.Type == schema.JSON:
		c.Str = append(c.Str, fmt.Sprintf(`{"n":%d}`, v))
	default:
		c.Str = append(c.Str, fmt.Sprintf("row %d", v))
	}
}

// appendList appends a row of i%4 elements to an Array column.
func appendList(c *schema.Column, f schema.Field, i int, ok bool) {
	e := schema.NewColumn(schema.Field{Type: f.Element}, 0)
	for k := 0; k < i%4 && ok; k++ {
		appendValue(e, schema.Field{Type: f.Element}, i+k, true)
	}
	appendElements(c, e)
}

// appendElements appends the rows of e as one row of the Array column c.
func appendElements(c, e *schema.Column) {
	c.Bool, c.Int, c.Float, c.Double, c.Str = append(c.Bool, e.Bool...), append(c.Int, e.Int...), append(c.Float, e.Float...), append(c.Double, e.Double...), append(c.Str, e.Str...)
	c.Offsets = append(c.Offsets, c.Offsets[len(c.Offsets)-1]+e.Rows())
}

// write makes a segment of the batches, with an index and deletes.
func write(t testing.TB, dir string, meta Meta, batches ...*schema.Batch) *Manifest {
	t.Helper()
	w, err := Create(dir, meta)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if err := w.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	field := vectorFields(&meta.Schema)[0]
	if err := w.WriteIndex(IndexMeta{FieldID: field.ID, Type: "HNSW", Metric: "L2", Params: map[string]string{"M": "16"}}, func(out io.Writer) error {
		_, err := out.Write(image())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	pk := meta.Schema.Primary()
	if err := w.WriteDeletes(batches[0].Column(pk.ID), batches[0].Timestamps); err != nil {
		t.Fatal(err)
	}
	m, err := w.Finish(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func vectorFields(s *schema.Schema) []schema.Field {
	return slices.DeleteFunc(slices.Clone(s.Fields), func(f schema.Field) bool { return !f.Type.IsVector() })
}

// image is what the tests store as an index: more than one block.
func image() []byte {
	b := make([]byte, BlockSize+BlockSize/2)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func open(t testing.TB, dir string) *Segment {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func sameColumn(a, b *schema.Column) bool {
	return a.FieldID == b.FieldID && a.Type == b.Type && a.Element == b.Element && slices.Equal(a.Offsets, b.Offsets) && slices.Equal(a.Bool, b.Bool) && slices.Equal(a.Int, b.Int) && slices.Equal(a.Float, b.Float) &&
		slices.Equal(a.Double, b.Double) && slices.Equal(a.Str, b.Str) && slices.EqualFunc(valid(a), valid(b), func(x, y bool) bool { return x == y })
}

// valid is the validity of a column, nil if all rows are.
func valid(c *schema.Column) []bool {
	if slices.Contains(c.Valid, false) {
		return c.Valid
	}
	return nil
}

// checkRows compares what the segment holds with the rows that went in.
func checkRows(t testing.TB, s *Segment, want *schema.Batch) {
	t.Helper()
	got, err := s.Rows(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got.Rows != want.Rows || !slices.Equal(got.Timestamps, want.Timestamps) {
		t.Fatalf("%d rows, timestamps %v; want %d, %v", got.Rows, got.Timestamps, want.Rows, want.Timestamps)
	}
	n := 0
	for _, w := range want.Columns {
		if w.Type.IsVector() {
			checkVectors(t, s, w)
			continue
		}
		if c := got.Column(w.FieldID); c == nil || !sameColumn(c, w) {
			t.Fatalf("field %d: got %+v, want %+v", w.FieldID, c, w)
		}
		n++
	}
	if len(got.Columns) != n {
		t.Fatalf("%d columns, want %d", len(got.Columns), n)
	}
}

// checkVectors compares a vector field with the column that went in.
func checkVectors(t testing.TB, s *Segment, want *schema.Column) {
	t.Helper()
	ok := true
	switch {
	case want.Type == schema.FloatVector:
		ok = slices.Equal(s.Vectors(want.FieldID), want.Float)
	case want.Type == schema.SparseFloatVector:
		v, found := s.Sparse(want.FieldID)
		ok = found && slices.Equal(v.Indices, want.Indices) && slices.Equal(v.Data, want.Float) && len(v.Indptr) == len(want.Offsets)
		for i := range v.Indptr {
			ok = ok && v.Indptr[i] == int64(want.Offsets[i])
		}
	default:
		ok = slices.Equal(s.RawVectors(want.FieldID), want.Raw) && s.Vectors(want.FieldID) == nil
	}
	if !ok {
		t.Fatalf("vectors of field %d (%s) differ", want.FieldID, want.Type)
	}
	var valid []byte
	for i := range want.Rows() {
		valid = append(valid, 1)
		if want.Null(i) {
			valid[i] = 0
		}
	}
	if !slices.Contains(valid, 0) {
		valid = nil
	}
	if !slices.Equal(s.Valid(want.FieldID), valid) {
		t.Fatalf("nulls of field %d: %v, want %v", want.FieldID, s.Valid(want.FieldID), valid)
	}
}

// joined appends batches to one.
func joined(s *schema.Schema, batches ...*schema.Batch) *schema.Batch {
	all := &schema.Batch{}
	for _, f := range s.Columns() {
		all.Columns = append(all.Columns, schema.NewColumn(f, 0))
	}
	for _, b := range batches {
		all.Rows += b.Rows
		all.Timestamps = append(all.Timestamps, b.Timestamps...)
		for i, c := range b.Columns {
			all.Columns[i].AppendRange(c, 0, b.Rows)
		}
	}
	return all
}

func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func overwrite(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// reseal replaces a text of an encoded manifest and makes the checksum right again.
func reseal(t testing.TB, b []byte, old, new string) []byte {
	t.Helper()
	body := b[:len(b)-sealBytes]
	if !bytes.Contains(body, []byte(old)) {
		t.Fatalf("the manifest has no %q", old)
	}
	body = bytes.Replace(body, []byte(old), []byte(new), 1)
	return fmt.Appendf(body, sealFormat, CRC(crc32.Checksum(body, castagnoli)))
}

func writeText(s string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
}
