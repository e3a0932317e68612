package segfile

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/flatparquet"
)

// forgedDeletes is a file with the mark and the checksum of one of deletes, and whatever columns.
func forgedDeletes(t *testing.T, fields []flatparquet.Field, cols []*schema.Column) []byte {
	t.Helper()
	var out bytes.Buffer
	w := flatparquet.NewWriter(&out, fields, map[string]string{"querynode": deletesMark + "1/" + noDigits})
	if err := w.Write(cols); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return resealDeletes(out.Bytes())
}

// TestOtherColumnsAreNoDeletes, though mark and checksum are right.
func TestOtherColumnsAreNoDeletes(t *testing.T) {
	type field = flatparquet.Field
	keys, times := field{Name: keyName, ID: 100, Type: schema.Int64}, field{Name: timestampName, Type: schema.Int64, Unsigned: true}
	with := func(f field, change func(*field)) field { change(&f); return f }
	number := &schema.Column{Type: schema.Int64, Int: []int64{5}}
	text := &schema.Column{Type: schema.VarChar, Str: []string{"x"}}
	float := &schema.Column{Type: schema.Double, Double: []float64{5}}
	null := &schema.Column{Type: schema.Int64, Int: []int64{0}, Valid: []bool{false}}
	list := &schema.Column{Type: schema.Array, Element: schema.Int64, Offsets: []int{0, 1}, Int: []int64{5}}
	nullable := func(f *field) { f.Nullable = true }
	ofLists := func(f *field) { f.Type, f.Element = schema.Array, schema.Int64 }
	for what, c := range map[string]struct {
		fields []field
		cols   []*schema.Column
		good   bool
	}{
		"as it should be":     {[]field{keys, times}, []*schema.Column{number, number}, true},
		"keys alone":          {[]field{keys}, []*schema.Column{number}, false},
		"one column more":     {[]field{keys, times, {Name: "x", Type: schema.Int64}}, []*schema.Column{number, number, number}, false},
		"other keys":          {[]field{with(keys, func(f *field) { f.Name = "key" }), times}, []*schema.Column{number, number}, false},
		"other timestamps":    {[]field{keys, with(times, func(f *field) { f.Name = "time" })}, []*schema.Column{number, number}, false},
		"keys of floats":      {[]field{with(keys, func(f *field) { f.Type = schema.Double }), times}, []*schema.Column{float, number}, false},
		"timestamps of text":  {[]field{keys, {Name: timestampName, Type: schema.VarChar}}, []*schema.Column{number, text}, false},
		"keys that are null":  {[]field{with(keys, nullable), times}, []*schema.Column{null, number}, false},
		"timestamps of null":  {[]field{keys, with(times, nullable)}, []*schema.Column{number, null}, false},
		"keys that might be":  {[]field{with(keys, nullable), times}, []*schema.Column{number, number}, false},
		"keys that are lists": {[]field{with(keys, ofLists), times}, []*schema.Column{list, number}, false},
		"timestamps as lists": {[]field{keys, with(field{Name: timestampName}, ofLists)}, []*schema.Column{number, list}, false},
	} {
		b := forgedDeletes(t, c.fields, c.cols)
		_, err := OpenDeletes(bytes.NewReader(b), int64(len(b)))
		if c.good && err != nil || !c.good && !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// failsOnce is a file of which one read fails.
type failsOnce struct {
	io.ReaderAt
	left int // reads until then
}

func (f *failsOnce) ReadAt(p []byte, at int64) (int, error) {
	if f.left--; f.left == -1 {
		return 0, errclass.New(errclass.Retryable, "the disk does not answer")
	}
	return f.ReaderAt.ReadAt(p, at)
}

// TestADiskThatFailsIsNoDamageToDeletes, whichever read fails: a segment that has damaged ones is left alone for good.
func TestADiskThatFailsIsNoDamageToDeletes(t *testing.T) {
	keys := &schema.Column{FieldID: 100, Type: schema.Int64, Int: make([]int64, 200_000)} // of two row groups
	r := rand.New(rand.NewPCG(1, 2))
	for i := range keys.Int {
		keys.Int[i] = r.Int64()
	}
	b, err := EncodeDeletes(keys, make([]uint64, len(keys.Int)))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) <= deletesFooter {
		t.Fatalf("%d bytes are looked through for the checksum at once", len(b))
	}
	for n := 0; ; n++ {
		r := &failsOnce{bytes.NewReader(b), n}
		read := 0
		d, err := OpenDeletes(r, int64(len(b)))
		if err == nil {
			err = d.Each(func(k *schema.Column, _ []uint64) error {
				read += k.Rows()
				return nil
			})
		}
		if r.left >= 0 { // no read is left that could fail
			if err != nil || read != len(keys.Int) || n < 5 {
				t.Errorf("after %d reads: %d of %d deletes, %v", n, read, len(keys.Int), err)
			}
			return
		}
		if !errclass.Is(err, errclass.Retryable) {
			t.Fatalf("read %d fails: %v (class %v), after %d deletes", n, err, errclass.Of(err), read)
		}
	}
}

// TestAFileThatIsTooLargeForDeletesIsNotRead.
func TestAFileThatIsTooLargeForDeletesIsNotRead(t *testing.T) {
	r := &failsOnce{bytes.NewReader(nil), 0}
	if _, err := OpenDeletes(r, MaxDeletesBytes+1); !errclass.Is(err, errclass.Corrupt) || r.left != 0 {
		t.Errorf("%v", err)
	}
}

// TestPagesComeBeforeAllOtherWishes, of vectors and indexes: to read ahead would push out what others have read.
func TestPagesComeBeforeAllOtherWishes(t *testing.T) {
	all := Options{Populate: true, WillNeed: true, HugePages: true, Scattered: true, Paged: true}
	for kind, want := range map[Kind]Options{
		KindVector: {Scattered: true, Paged: true},
		KindIndex:  {Paged: true},
		KindArray:  {Populate: true, WillNeed: true, HugePages: true},
	} {
		if got := all.of(kind); got != want {
			t.Errorf("of files of kind %q %+v is asked, want %+v", kind, got, want)
		}
	}
	all.Paged = false
	if got, want := all.of(KindVector), (Options{Populate: true, WillNeed: true, Scattered: true}); got != want {
		t.Errorf("of vectors read here and there %+v is asked, want %+v", got, want)
	}
}
