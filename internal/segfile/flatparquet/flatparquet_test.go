package flatparquet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

var allTypes = []Field{
	{Name: "$timestamp", Type: schema.Int64, Unsigned: true, Sorted: true},
	{Name: "key", ID: 100, Type: schema.Int64, Sorted: true},
	{Name: "b", ID: 101, Type: schema.Bool, Nullable: true},
	{Name: "i8", ID: 102, Type: schema.Int8, Nullable: true},
	{Name: "i16", ID: 103, Type: schema.Int16},
	{Name: "i32", ID: 104, Type: schema.Int32, Nullable: true},
	{Name: "f", ID: 105, Type: schema.Float, Nullable: true},
	{Name: "d", ID: 106, Type: schema.Double},
	{Name: "tag", ID: 107, Type: schema.VarChar, Nullable: true},
	{Name: "text", ID: 108, Type: schema.VarChar, Unique: true},
	{Name: "a_json", ID: 2, Type: schema.JSON},
	{Name: "at", ID: 109, Type: schema.Timestamptz, Nullable: true},
	{Name: "ab", ID: 110, Type: schema.Array, Element: schema.Bool},
	{Name: "a8", ID: 111, Type: schema.Array, Element: schema.Int8, Nullable: true},
	{Name: "a64", ID: 112, Type: schema.Array, Element: schema.Int64},
	{Name: "af", ID: 113, Type: schema.Array, Element: schema.Float, Nullable: true},
	{Name: "ad", ID: 114, Type: schema.Array, Element: schema.Double},
	{Name: "as", ID: 115, Type: schema.Array, Element: schema.VarChar, Nullable: true},
}

// numbered returns n rows of every field, the values made from the row's number.
func numbered(fields []Field, n int) []*schema.Column {
	cols := make([]*schema.Column, len(fields))
	for j, f := range fields {
		c := schema.NewColumn(schema.Field{ID: int64(f.ID), Type: f.Type, Element: f.Element}, n)
		if f.Type == schema.Array {
			cols[j] = numberedLists(c, f, n)
			continue
		}
		for i := range n {
			switch {
			case f.Type == schema.Bool:
				c.Bool = append(c.Bool, i%3 == 0)
			case f.Type == schema.Int8:
				c.Int = append(c.Int, int64(int8(i)))
			case f.Type == schema.Int16:
				c.Int = append(c.Int, int64(int16(i)))
			case f.Type.IsInt():
				c.Int = append(c.Int, int64(i)-5)
			case f.Type == schema.Float:
				c.Float = append(c.Float, float32(i)/3)
			case f.Type == schema.Double:
				c.Double = append(c.Double, float64(i)/3)
			case f.Unique:
				c.Str = append(c.Str, fmt.Sprintf("text %d", i))
			default:
				c.Str = append(c.Str, strings.Repeat("t", i%7))
			}
		}
		if f.Unsigned {
			c.Int[0] = -1 // 2^64-1
		}
		if f.Nullable {
			c.Valid = make([]bool, n)
			for i := range n {
				c.Valid[i] = i%5 != 0
				if !c.Valid[i] {
					clearRow(c, i)
				}
			}
		}
		cols[j] = c
	}
	return cols
}

// numberedLists fills c with lists of 0 to 3 elements, some null if f may be.
func numberedLists(c *schema.Column, f Field, n int) *schema.Column {
	elements := numbered([]Field{{Name: "e", Type: f.Element}}, 2*n)[0]
	at := 0
	for i := range n {
		null := f.Nullable && i%5 == 0
		for k := 0; k < i%4 && !null; k++ {
			e := c.New()
			e.Type, e.Element = f.Element, schema.None
			e.AppendRow(elements, at)
			at++
			c.Bool, c.Int, c.Float, c.Double, c.Str = append(c.Bool, e.Bool...), append(c.Int, e.Int...), append(c.Float, e.Float...), append(c.Double, e.Double...), append(c.Str, e.Str...)
		}
		c.Offsets = append(c.Offsets, at)
		if f.Nullable {
			c.Valid = append(c.Valid, !null)
		}
	}
	return c
}

func clearRow(c *schema.Column, i int) {
	switch {
	case c.Bool != nil:
		c.Bool[i] = false
	case c.Int != nil:
		c.Int[i] = 0
	case c.Float != nil:
		c.Float[i] = 0
	case c.Double != nil:
		c.Double[i] = 0
	case c.Str != nil:
		c.Str[i] = ""
	}
}

func write(t testing.TB, fields []Field, batches ...[]*schema.Column) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, fields, map[string]string{"k": "v"})
	for _, cols := range batches {
		if err := w.Write(cols); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// readAll reads every column of a file, at most step rows at a time.
func readAll(b []byte, limits Limits, step int) ([]*schema.Column, error) {
	f, err := Open(bytes.NewReader(b), int64(len(b)), limits)
	if err != nil {
		return nil, err
	}
	var cols []*schema.Column
	for i, col := range f.Columns() {
		if col.Type == schema.None {
			continue
		}
		dst := schema.NewColumn(schema.Field{ID: int64(col.FieldID), Type: col.Type}, 0)
		cur, err := f.Cursor(i, true)
		if err != nil {
			return nil, err
		}
		read := cur.Read
		if col.List {
			dst = schema.NewColumn(schema.Field{ID: int64(col.FieldID), Type: schema.Array, Element: col.Type}, 0)
			read = cur.ReadArrays
		}
		for err == nil {
			_, err = read(dst, step)
		}
		cur.Close()
		if err != io.EOF {
			return nil, err
		}
		cols = append(cols, dst)
	}
	return cols, nil
}

func equal(a, b *schema.Column) bool {
	return a.Type == b.Type && a.Element == b.Element && slices.Equal(a.Offsets, b.Offsets) && slices.Equal(a.Bool, b.Bool) && slices.Equal(a.Int, b.Int) && slices.Equal(a.Float, b.Float) &&
		slices.Equal(a.Double, b.Double) && slices.Equal(a.Str, b.Str) && slices.Equal(a.Valid, b.Valid)
}

func TestEveryTypeComesBackInOrder(t *testing.T) {
	const rows = 150_000 // two row groups
	want := numbered(allTypes, rows)
	b := write(t, allTypes, want)
	f, err := Open(bytes.NewReader(b), int64(len(b)), Limits{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, col := range f.Columns() {
		w := allTypes[i]
		if col.List != (w.Type == schema.Array) {
			t.Errorf("column %q is a list: %t", col.Name, col.List)
		}
		if col.List {
			w.Type = w.Element
		}
		if col.Name != w.Name || col.Type != w.Type || col.FieldID != w.ID || col.Nullable != w.Nullable || col.Unsigned != w.Unsigned {
			t.Errorf("column %d: got %+v, want %+v", i, col, w)
		}
	}
	if v, _ := f.file.Lookup("k"); v != "v" || f.Rows() != rows {
		t.Fatalf("metadata %q, %d rows", v, f.Rows())
	}
	for _, step := range []int{rows, 1000, 777} {
		got, err := readAll(b, Limits{Strict: true}, step)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if !equal(got[i], want[i]) {
				t.Errorf("step %d: column %q differs", step, allTypes[i].Name)
			}
		}
	}
}

func TestUnsignedAboveInt64IsAnErrorUnlessRaw(t *testing.T) {
	b := write(t, allTypes, numbered(allTypes, 3))
	f, err := Open(bytes.NewReader(b), int64(len(b)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := f.Cursor(0, false)
	defer c.Close()
	if _, err := c.Read(schema.NewColumn(schema.Field{Type: schema.Int64}, 0), 3); !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), "18446744073709551615") {
		t.Fatal(err)
	}
}

func TestRandomBatchesConcatenate(t *testing.T) {
	fields := []Field{{Name: "s", Type: schema.VarChar, Nullable: true}, {Name: "n", Type: schema.Int64, Nullable: true}}
	rapid.Check(t, func(rt *rapid.T) {
		want := numbered(fields, 0)
		want[0].Valid, want[1].Valid = nil, nil
		var batches [][]*schema.Column
		for range rapid.IntRange(1, 4).Draw(rt, "batches") {
			n := rapid.IntRange(0, 40).Draw(rt, "rows")
			cols := numbered(fields, 0)
			for _, c := range cols {
				c.Valid = nil
				if rapid.Bool().Draw(rt, "nulls") {
					c.Valid = make([]bool, n)
				}
				for i := range n {
					ok := c.Valid == nil || rapid.Bool().Draw(rt, "valid")
					if c.Valid != nil {
						c.Valid[i] = ok
					}
					s, v := rapid.String().Draw(rt, "s"), rapid.Int64().Draw(rt, "n")
					if !ok {
						s, v = "", 0
					}
					if c.Type == schema.VarChar {
						c.Str = append(c.Str, s)
					} else {
						c.Int = append(c.Int, v)
					}
				}
			}
			batches = append(batches, cols)
			for i, c := range cols {
				want[i].AppendRange(c, 0, n)
			}
		}
		got, err := readAll(write(t, fields, batches...), Limits{Strict: true}, rapid.IntRange(1, 50).Draw(rt, "step"))
		if err != nil {
			rt.Fatal(err)
		}
		for i, w := range want {
			if !slices.Contains(w.Valid, false) {
				w.Valid = nil
			}
			if !equal(got[i], w) {
				rt.Fatalf("column %d: got %+v, want %+v", i, got[i], w)
			}
		}
	})
}

// lists is a file as other tools write them: dictionaries, standard lists, nested junk.
func lists(t testing.TB, rows [][]float32) []byte {
	t.Helper()
	type row struct {
		ID   int32     `parquet:"id,dict"`
		V    []float32 `parquet:"v,list,dict"`
		D    []float64 `parquet:"d"`
		Bin  []byte    `parquet:"bin"`
		Junk struct {
			A, B int64
		} `parquet:"junk"`
	}
	var out bytes.Buffer
	w := parquet.NewGenericWriter[row](&out, parquet.Compression(&parquet.Snappy), parquet.PageBufferSize(64), parquet.MaxRowsPerRowGroup(100))
	for i, v := range rows {
		r := row{ID: int32(i), V: v}
		for _, x := range v {
			r.D = append(r.D, float64(x))
		}
		if _, err := w.Write([]row{r}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func vectors(n, dim int) [][]float32 {
	rows := make([][]float32, n)
	for i := range rows {
		for j := range dim {
			rows[i] = append(rows[i], float32(i*dim+j))
		}
	}
	return rows
}

func column(t testing.TB, f *File, name string) int {
	t.Helper()
	i := slices.IndexFunc(f.Columns(), func(c Column) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no column %q", name)
	}
	return i
}

func TestListsBecomeVectors(t *testing.T) {
	b := lists(t, vectors(250, 5))
	f, err := Open(bytes.NewReader(b), int64(len(b)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"v", "d"} {
		i := column(t, f, name)
		if n, err := f.ListLen(i); n != 5 || err != nil {
			t.Fatalf("%s: ListLen = %d, %v", name, n, err)
		}
		dst := &schema.Column{Type: schema.FloatVector, Dim: 5}
		cur, err := f.Cursor(i, false)
		if err != nil {
			t.Fatal(err)
		}
		var sizes []int
		for {
			n, err := cur.ReadLists(dst, 70)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, n)
		}
		cur.Close()
		if !slices.Equal(sizes, []int{70, 70, 70, 40}) || !slices.Equal(dst.Float, slices.Concat(vectors(250, 5)...)) {
			t.Fatalf("%s: batches %v, %d floats", name, sizes, len(dst.Float))
		}
	}
	for name, want := range map[string]string{"junk": "several columns", "bin": "BYTE_ARRAY"} {
		if c := f.Columns()[column(t, f, name)]; c.Type != schema.None || !strings.Contains(c.Why, want) {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestOddListsNameTheirRow(t *testing.T) {
	for name, bad := range map[string][]float32{"short": {1}, "long": {1, 2, 3, 4}, "null": nil} {
		rows := vectors(120, 3)
		rows[110] = bad
		b := lists(t, rows)
		f, err := Open(bytes.NewReader(b), int64(len(b)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		cur, _ := f.Cursor(column(t, f, "v"), false)
		defer cur.Close()
		_, err = cur.ReadLists(&schema.Column{Type: schema.FloatVector, Dim: 3}, 1000)
		if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), "row 110 ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimitsAreKept(t *testing.T) {
	b := write(t, allTypes, numbered(allTypes, 1000))
	for name, l := range map[string]Limits{
		"footer": {Footer: 100}, "page": {Page: 100}, "total": {Total: 500}, "rows": {Rows: 999}, "columns": {Columns: 3},
	} {
		if _, err := readAll(b, l, 1000); !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	snappy := lists(t, vectors(3, 3))
	if _, err := readAll(snappy, Limits{Strict: true}, 10); !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), "SNAPPY") {
		t.Errorf("strict: %v", err)
	}
}

func TestTruncatedAndFlippedFilesNeverPanic(t *testing.T) {
	small := []Field{{Name: "k", Type: schema.Int64}, {Name: "s", Type: schema.VarChar, Nullable: true}}
	b := write(t, small, numbered(small, 20))
	for n := range len(b) {
		if _, err := readAll(b[:n], Limits{}, 100); err == nil {
			t.Errorf("the first %d of %d bytes read without an error", n, len(b))
		}
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 0x55
		_, _ = readAll(c, Limits{Page: 1 << 20}, 100) // may pass: statistics, names
	}
}

func TestHostileFootersAreRefusedBeforeTheyCost(t *testing.T) {
	file := func(footer []byte) []byte {
		b := append([]byte("PAR1"), footer...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(footer)))
		return append(b, "PAR1"...)
	}
	for name, footer := range map[string][]byte{
		"nested structures": bytes.Repeat([]byte{0x1c}, 1<<20),
		"nested lists":      append([]byte{0x19}, bytes.Repeat([]byte{0x19}, 1<<20)...),
		"huge list":         {0x15, 0x02, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00},
		"huge name":         {0x18, 0xff, 0xff, 0xff, 0xff, 0x07, 'x', 0x00},
		"many row groups":   slices.Concat([]byte{0x49, 0xfc, 0xff, 0xff, 0x07}, bytes.Repeat([]byte{0}, 1<<17)),
	} {
		b := file(footer)
		if _, err := Open(bytes.NewReader(b), int64(len(b)), Limits{}); !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	lying := file(nil)
	binary.LittleEndian.PutUint32(lying[4:], 0xffffffff)
	if _, err := Open(bytes.NewReader(lying), int64(len(lying)), Limits{}); !errclass.Is(err, errclass.Corrupt) {
		t.Error(err)
	}
}

func TestDeepThriftIsRefusedWithoutRecursion(t *testing.T) {
	for name, b := range map[string][]byte{
		"structures": bytes.Repeat([]byte{0x1c}, 1000),
		"lists":      append([]byte{0x19}, bytes.Repeat([]byte{0x19}, 1000)...),
		"maps":       append([]byte{0x1b}, bytes.Repeat([]byte{0x01, 0xbb}, 1000)...),
	} {
		if n, err := skim(b); err == nil || !strings.Contains(err.Error(), "nested deeper") || n > 64 {
			t.Errorf("%s: %v after %d bytes", name, err, n)
		}
	}
}

func TestListOfTooManyStructuresIsRefused(t *testing.T) {
	b := append([]byte{0x19, 0xfc, 0x80, 0x80, 0x08}, make([]byte, 1<<17+1)...)
	if _, err := skim(b); err == nil || !strings.Contains(err.Error(), "131072 structures") {
		t.Fatal(err)
	}
}

func TestPanicOfTheLibraryIsAnError(t *testing.T) {
	if err := guard("x", func() error { panic("boom") }); !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), "boom") {
		t.Fatal(err)
	}
}

func FuzzFlatParquet(f *testing.F) {
	small := []Field{{Name: "k", Type: schema.Int64}, {Name: "s", Type: schema.VarChar, Nullable: true}}
	f.Add(write(f, small, numbered(small, 20)))
	f.Add(write(f, allTypes, numbered(allTypes, 3)))
	f.Add(lists(f, vectors(5, 3)))
	f.Fuzz(func(t *testing.T, b []byte) {
		limits := Limits{Page: 1 << 16, Total: 1 << 20, Rows: 1 << 16, Values: 1 << 16}
		_, _ = readAll(b, limits, 100)
		p, err := Open(bytes.NewReader(b), int64(len(b)), limits)
		if err != nil {
			return
		}
		for i, c := range p.Columns() {
			if !c.List {
				continue
			}
			n, err := p.ListLen(i)
			if err != nil || n == 0 {
				continue
			}
			cur, err := p.Cursor(i, false)
			if err != nil {
				continue
			}
			for err == nil {
				_, err = cur.ReadLists(&schema.Column{Type: schema.FloatVector, Dim: n}, 7)
			}
			cur.Close()
		}
	})
}
