package dataset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"go.uber.org/goleak"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/npy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// put writes a file and returns its path.
func put(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func npyFile(t testing.TB, descr string, rows, dim int64, data []byte) []byte {
	t.Helper()
	h, err := npy.Encode(npy.Header{Descr: descr, Shape: []int64{rows, dim}}, 128)
	if err != nil {
		t.Fatal(err)
	}
	return append(h, data...)
}

func raw32(values ...float32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func vec32(values ...float32) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(values))), raw32(values...)...)
}

// all reads a file in batches of at most step rows.
func all(path string, o Options, step int) (*schema.Batch, *Reader, error) {
	r, err := Open(path, o)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = r.Close() }()
	s := r.Schema()
	sum := &schema.Batch{}
	for _, f := range s.Fields {
		sum.Columns = append(sum.Columns, schema.NewColumn(f, 0))
	}
	for {
		b, err := r.Next(step)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, r, err
		}
		if b.Rows < 1 || b.Rows > step {
			return nil, r, fmt.Errorf("batch of %d rows", b.Rows)
		}
		sum.Rows += b.Rows
		for i, c := range b.Columns {
			sum.Columns[i].AppendRange(c, 0, b.Rows)
		}
	}
	if int64(sum.Rows) != r.Rows() {
		return nil, r, fmt.Errorf("%d rows, Rows() = %d", sum.Rows, r.Rows())
	}
	return sum, r, sum.Check(&s)
}

func TestVectorFilesBecomeRowsWithNumbersForKeys(t *testing.T) {
	f64 := binary.LittleEndian.AppendUint64(nil, math.Float64bits(1.5))
	for name, c := range map[string]struct {
		data []byte
		want []float32
		dim  int
	}{
		"a.npy":   {npyFile(t, "<f4", 3, 2, raw32(1, 2, 3, 4, 5, 6)), []float32{1, 2, 3, 4, 5, 6}, 2},
		"h.npy":   {npyFile(t, "<f2", 2, 1, []byte{0x00, 0x3c, 0x00, 0xc0}), []float32{1, -2}, 1},
		"u.npy":   {npyFile(t, "|u1", 1, 2, []byte{0, 255}), []float32{0, 255}, 2},
		"i.npy":   {npyFile(t, "|i1", 1, 2, []byte{127, 0x80}), []float32{127, -128}, 2},
		"d.npy":   {npyFile(t, "<f8", 1, 1, f64), []float32{1.5}, 1},
		"a.fvecs": {append(vec32(1, 2), vec32(3, 4)...), []float32{1, 2, 3, 4}, 2},
		"A.BVECS": {[]byte{3, 0, 0, 0, 1, 2, 255, 3, 0, 0, 0, 0, 0, 7}, []float32{1, 2, 255, 0, 0, 7}, 3},
	} {
		path := put(t, name, c.data)
		for step := 1; step < 5; step++ {
			b, r, err := all(path, Options{}, step)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			s := r.Schema()
			if s.Fields[0].Name != "id" || !s.Fields[0].PrimaryKey || s.Fields[1].Name != "vector" || s.Fields[1].Dim != c.dim {
				t.Errorf("%s: schema %+v", name, s)
			}
			for i, id := range b.Columns[0].Int {
				if id != int64(i) {
					t.Errorf("%s: row %d has id %d", name, i, id)
				}
			}
			if !slices.Equal(b.Columns[1].Float, c.want) {
				t.Errorf("%s: got %v, want %v", name, b.Columns[1].Float, c.want)
			}
		}
	}
	b, r, err := all(put(t, "l.npy", npyFile(t, "<f4", 3, 1, raw32(1, 2, 3))), Options{Limit: 2, Vector: "emb"}, 10)
	if err != nil || b.Rows != 2 || r.Schema().Fields[1].Name != "emb" {
		t.Fatalf("limit: %+v, %v", b, err)
	}
}

// TestATableWithoutVectors is for collections that make theirs from text.
func TestATableWithoutVectors(t *testing.T) {
	type row struct {
		ID     int64  `parquet:"id"`
		Vector string `parquet:"vector"`
	}
	path := table(t, []row{{1, "dogs run"}, {2, "a cat"}})
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "no column with lists of floats") {
		t.Errorf("a table without vectors: %v", err)
	}
	b, r, err := all(path, Options{NoVectors: true}, 10)
	if err != nil || b.Rows != 2 || len(r.Schema().Fields) != 2 || b.Columns[1].Str[1] != "a cat" {
		t.Fatalf("%+v, %v", b, err)
	}
}

func TestHalfPrecisionIsExact(t *testing.T) {
	for h, want := range map[uint16]float64{
		0: 0, 0x0001: math.Ldexp(1, -24), 0x03ff: math.Ldexp(1023, -24), 0x0400: math.Ldexp(1, -14),
		0x3555: 0.333251953125, 0x7bff: 65504, 0xfc00: math.Inf(-1), 0x8001: -math.Ldexp(1, -24),
	} {
		if got := fromHalf(h); float64(got) != want {
			t.Errorf("%04x: got %v, want %v", h, got, want)
		}
	}
	if v := fromHalf(0x7e00); v == v {
		t.Errorf("NaN became %v", v)
	}
}

func TestBadVectorFilesNameThePlace(t *testing.T) {
	fortran, err := npy.Encode(npy.Header{Descr: "<f4", Fortran: true, Shape: []int64{1, 1}}, 128)
	if err != nil {
		t.Fatal(err)
	}
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		file string
		data []byte
		want string
	}{
		"type":        {"a.npy", npyFile(t, "<i8", 1, 1, make([]byte, 8)), "astype"},
		"big-endian":  {"a.npy", npyFile(t, ">f4", 1, 1, make([]byte, 4)), "'<f4'"},
		"fortran":     {"a.npy", append(fortran, 0, 0, 0, 0), "ascontiguousarray"},
		"short":       {"a.npy", npyFile(t, "<f4", 3, 2, raw32(1, 2, 3)), "takes 24 bytes from byte 128 on, the file has 12"},
		"long":        {"a.npy", npyFile(t, "<f4", 1, 1, raw32(1, 2, 3)), "takes 4 bytes"},
		"huge":        {"a.npy", npyFile(t, "<f4", math.MaxInt64, 32768, nil), "vectors, want 1 to"},
		"wide":        {"a.npy", npyFile(t, "<f4", 1, 32769, nil), "dimension 32769, want 1 to 32768"},
		"no rows":     {"a.npy", npyFile(t, "<f4", 0, 8, nil), "0 vectors"},
		"no npy":      {"a.npy", []byte("hello world, I am text"), "magic"},
		"nan":         {"a.npy", npyFile(t, "<f4", 2, 2, raw32(1, 2, 3, nan)), `row 1, column "vector": dimension 1 is NaN`},
		"overflow":    {"a.npy", npyFile(t, "<f8", 1, 1, binary.LittleEndian.AppendUint64(nil, math.Float64bits(1e300))), "dimension 0 is +Inf"},
		"empty fvecs": {"a.fvecs", nil, "0 bytes"},
		"dim 0":       {"a.fvecs", []byte{0, 0, 0, 0}, "row 0 at byte 0: vectors of dimension 0"},
		"dim -1":      {"a.fvecs", []byte{0xff, 0xff, 0xff, 0xff}, "dimension -1"},
		"cut fvecs":   {"a.fvecs", append(vec32(1, 2), vec32(3, 4)[:9]...), "row 1 at byte 12: want the 12 bytes"},
		"mixed fvecs": {"a.fvecs", slices.Concat(vec32(1, 2), vec32(3, 4), append([]byte{3, 0, 0, 0}, raw32(1, 2)...)), "row 2 at byte 24: vector of dimension 3, want 2"},
		"extension":   {"a.csv", []byte("1,2"), ".npy, .fvecs, .bvecs or .parquet"},
		"no parquet":  {"a.parquet", []byte("hello world, I am text"), "PAR1"},
	} {
		path := put(t, c.file, c.data)
		_, _, err := all(path, Options{}, 10)
		if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v (class %v)", name, err, errclass.Of(err))
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.npy"), Options{}); !errclass.Is(err, errclass.NotFound) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(t.TempDir(), Options{}); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("a folder: %v", err)
	}
}

const glove = "../../testdata/glove-20k.parquet"

func TestGloVeIsReadWithItsKeysAndWords(t *testing.T) {
	s, rows, err := InferSchema(glove)
	if err != nil {
		t.Fatal(err)
	}
	want := []schema.Field{
		{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "word", Type: schema.VarChar, Nullable: true},
		{ID: 102, Name: "length", Type: schema.Int32, Nullable: true},
		{ID: 103, Name: "vector", Type: schema.FloatVector, Dim: 100},
	}
	if rows != 20_000 || !slices.Equal(s.Fields, want) {
		t.Fatalf("%d rows, %+v", rows, s.Fields)
	}
	b, r, err := all(glove, Options{}, 3333) // crosses row groups
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Skipped()) != 0 || b.Columns[0].Int[19_999] != 20_000 || !slices.Equal(b.Columns[1].Str[:3], []string{"the", "of", "to"}) {
		t.Fatalf("%v", b.Columns[1].Str[:3])
	}
	if v := b.Columns[3].Vector(0); v[0] != -0.038194 || v[99] != 0.27062 {
		t.Fatalf("%v", v)
	}
	for i, w := range b.Columns[1].Str {
		if n := b.Columns[2].Int[i]; int(n) != len([]rune(w)) {
			t.Fatalf("%q has length %d", w, n)
		}
	}
	byWord, r, err := all(glove, Options{PrimaryKey: "word", Limit: 7}, 5)
	if err != nil || byWord.Rows != 7 || r.Schema().Fields[1].Nullable || !r.Schema().Fields[1].PrimaryKey {
		t.Fatalf("by word: %v", err)
	}
}

// table writes a Parquet file of rows of any struct.
func table[T any](t testing.TB, rows []T) string {
	t.Helper()
	var out bytes.Buffer
	w := parquet.NewGenericWriter[T](&out)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return put(t, "t.parquet", out.Bytes())
}

type wide struct {
	ID   string    `parquet:"id"`
	N    *int32    `parquet:"n,optional"`
	U8   uint8     `parquet:"u8"`
	U64  uint64    `parquet:"u64"`
	F    float32   `parquet:"f"`
	D    *float64  `parquet:"d,optional"`
	OK   bool      `parquet:"ok"`
	Doc  string    `parquet:"doc,json"`
	Bin  []byte    `parquet:"bin"`
	Bad  int64     `parquet:"no good"`
	V    []float32 `parquet:"v,list"`
	W    []float64 `parquet:"w,list"`
	Nest struct{ A, B int64 }
}

func wideRows(n int) []wide {
	rows := make([]wide, n)
	for i := range rows {
		x, d := int32(i), float64(i)/2
		rows[i] = wide{ID: fmt.Sprint("k", i), U8: uint8(i), U64: uint64(i), F: float32(i), OK: i%2 == 0, Doc: "{}", V: []float32{float32(i), 1}, W: []float64{float64(i)}}
		if i%3 != 0 {
			rows[i].N, rows[i].D = &x, &d
		}
	}
	return rows
}

func TestParquetColumnsBecomeFields(t *testing.T) {
	path := table(t, wideRows(10))
	b, r, err := all(path, Options{}, 4)
	if err != nil {
		t.Fatal(err)
	}
	s := r.Schema()
	for name, want := range map[string]schema.Type{
		"id": schema.VarChar, "n": schema.Int32, "u8": schema.Int16, "u64": schema.Int64, "f": schema.Float, "d": schema.Double,
		"ok": schema.Bool, "doc": schema.JSON, "v": schema.FloatVector, "w": schema.FloatVector,
	} {
		if f, ok := s.Field(name); !ok || f.Type != want {
			t.Errorf("%s: %+v, want %s", name, f, want)
		}
	}
	var skipped []string
	for _, c := range r.Skipped() {
		skipped = append(skipped, c.Column)
	}
	slices.Sort(skipped)
	if !slices.Equal(skipped, []string{"Nest", "bin", "no good"}) {
		t.Errorf("skipped %v", r.Skipped())
	}
	n, _ := s.Field("n")
	if c := b.Column(n.ID); !c.Null(0) || c.Null(1) || c.Int[1] != 1 || !c.Null(9) || c.Int[8] != 8 {
		t.Errorf("n: %+v", c)
	}
	w, _ := s.Field("w")
	if c := b.Column(w.ID); c.Float[9] != 9 {
		t.Errorf("w: %v", c.Float)
	}
	one, r, err := all(path, Options{Vector: "w", PrimaryKey: "u8"}, 100)
	if err != nil || len(r.Skipped()) != 4 || r.Schema().Fields[5].Type == schema.None {
		t.Fatalf("one vector: %v, %v", r.Skipped(), err)
	}
	if s := r.Schema(); s.Primary().Name != "u8" || s.Primary().Type != schema.Int64 || one.Column(s.Primary().ID).Int[9] != 9 {
		t.Errorf("key: %+v", s.Primary())
	}
}

func TestBadParquetNamesThePlace(t *testing.T) {
	change := func(f func(*wide)) []wide {
		rows := wideRows(10)
		f(&rows[6])
		return rows
	}
	type plain struct{ A, B int64 }
	for name, c := range map[string]struct {
		path string
		o    Options
		want string
	}{
		"short vector": {table(t, change(func(w *wide) { w.V = w.V[:1] })), Options{}, `row 6 of column "v" has 1 values, want 2`},
		"null vector":  {table(t, change(func(w *wide) { w.V = nil })), Options{}, `row 6 of column "v" is null`},
		"infinite":     {table(t, change(func(w *wide) { w.V[1] = float32(math.Inf(1)) })), Options{}, `row 6, column "v": dimension 1`},
		"uint64":       {table(t, change(func(w *wide) { w.U64 = math.MaxUint64 })), Options{}, "18446744073709551615"},
		"long text":    {table(t, change(func(w *wide) { w.ID = strings.Repeat("x", 65_536) })), Options{}, `row 6, column "id": has 65536 bytes`},
		"not UTF-8":    {table(t, change(func(w *wide) { w.ID = "\xff" })), Options{}, `row 6, column "id": is not UTF-8`},
		"null key":     {table(t, wideRows(10)), Options{PrimaryKey: "n"}, `row 0, column "n": is null`},
		"float key":    {table(t, wideRows(10)), Options{PrimaryKey: "f"}, "want integers or text"},
		"no key":       {table(t, wideRows(10)), Options{PrimaryKey: "nope"}, "there are "},
		"binary key":   {table(t, wideRows(10)), Options{PrimaryKey: "bin"}, "cannot be read"},
		"no vector":    {table(t, wideRows(10)), Options{Vector: "f"}, `no column "f" with lists of floats`},
		"none at all":  {table(t, []plain{{1, 2}}), Options{}, "A (Int64), B (Int64)"},
		"no rows":      {table(t, wideRows(0)), Options{}, "no rows"},
		"limit":        {table(t, wideRows(1)), Options{Limit: -1}, "limit"},
	} {
		_, _, err := all(c.path, c.o, 3)
		if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (class %v)", name, err, errclass.Of(err))
		}
	}
}

func TestMadeUpKeyAvoidsNamesOfTheFile(t *testing.T) {
	type row struct {
		ID float64   `parquet:"id"`
		V  []float32 `parquet:"v,list"`
	}
	_, r, err := all(table(t, []row{{1, []float32{1}}}), Options{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Schema(); s.Primary().Name != "row_id" {
		t.Fatalf("%+v", r.Schema())
	}
}

func TestReaderEndsAndCloses(t *testing.T) {
	r, err := Open(glove, Options{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(0); !errclass.Is(err, errclass.Invalid) {
		t.Error(err)
	}
	if _, err := r.Next(10); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Next(10); err != io.EOF {
			t.Error(err)
		}
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Next(10); !errclass.Is(err, errclass.Closed) {
		t.Error(err)
	}
}
