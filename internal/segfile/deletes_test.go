package segfile

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"
	"github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

func TestDeletesComeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.parquet")
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 50).Draw(rt, "n")
		keys := &schema.Column{FieldID: 100, Type: schema.Int64}
		if rapid.Bool().Draw(rt, "text") {
			keys.Type, keys.Str = schema.VarChar, rapid.SliceOfN(rapid.String(), n, n).Draw(rt, "keys")
		} else {
			keys.Int = rapid.SliceOfN(rapid.Int64(), n, n).Draw(rt, "keys")
		}
		ts := rapid.SliceOfN(rapid.Uint64(), n, n).Draw(rt, "ts")
		if err := writeDeletes(rt, path, keys, ts); err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = os.Remove(path) }()
		k, got, err := readDeletes(path)
		if err != nil || !sameColumn(k, keys) || !slices.Equal(got, ts) {
			rt.Fatalf("%+v, %v, %v", k, got, err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			rt.Fatal(err)
		}
		if k, got, err := inPieces(b); err != nil || !sameColumn(k, keys) || !slices.Equal(got, ts) {
			rt.Fatalf("in pieces: %+v, %v, %v", k, got, err)
		}
	})
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
		t.Fatalf("left behind: %v", entries)
	}
}

// writeDeletes writes a file in pieces that rt draws.
func writeDeletes(rt *rapid.T, path string, keys *schema.Column, ts []uint64) error {
	w, err := CreateDeletes(path, schema.Field{ID: keys.FieldID, Type: keys.Type})
	if err != nil {
		return err
	}
	for from := 0; from < len(ts); {
		to := rapid.IntRange(from+1, len(ts)).Draw(rt, "to")
		if err := w.Write(keys.Slice(from, to), ts[from:to]); err != nil {
			return errors.CombineErrors(err, w.Abort())
		}
		from = to
	}
	_, err = w.Close()
	return err
}

// TestAFileOfDeletesIsWrittenInGroups, so that whoever writes many of them has few of them twice in memory; and it is the file that
// it would be, written at once.
func TestAFileOfDeletesIsWrittenInGroups(t *testing.T) {
	for what, keys := range map[string]*schema.Column{
		"numbers": {FieldID: 100, Type: schema.Int64, Int: make([]int64, 300_000)},
		"texts":   {FieldID: 100, Type: schema.VarChar, Str: slices.Repeat([]string{strings.Repeat("long ", 4000)}, 200)},
	} {
		ts := make([]uint64, keys.Rows())
		for i := range ts {
			ts[i] = uint64(i / 7)
			if keys.Int != nil {
				keys.Int[i] = int64(i) * 1e15
			}
		}
		path := filepath.Join(t.TempDir(), "d")
		w, err := CreateDeletes(path, schema.Field{ID: 100, Type: keys.Type})
		if err != nil {
			t.Fatal(err)
		}
		half := len(ts) / 2
		if err := errors.CombineErrors(w.Write(keys.Slice(0, half), ts[:half]), w.Write(keys.Slice(half, len(ts)), ts[half:])); err != nil {
			t.Fatal(err)
		}
		size, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil || int64(len(b)) != size {
			t.Fatalf("%s: %d bytes, %d are told, %v", what, len(b), size, err)
		}
		f, err := parquet.OpenFile(bytes.NewReader(b), size)
		if err != nil {
			t.Fatal(err)
		}
		if n := int64(len(f.RowGroups())); n < keys.Bytes()/deletesGroup || n < 2 {
			t.Errorf("%s: %d row groups of %d bytes", what, n, keys.Bytes())
		}
		if k, got, err := inPieces(b); err != nil || !sameColumn(k, keys) || !slices.Equal(got, ts) {
			t.Errorf("%s: read otherwise, %v", what, err)
		}
	}
}

// TestWritingDeletesTakesLittleMemory, however many they are, of numbers and of texts that are not alike.
func TestWritingDeletesTakesLittleMemory(t *testing.T) {
	const most = 8 << 20
	live := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for _, keys := range []*schema.Column{{FieldID: 100, Type: schema.Int64, Int: make([]int64, 20_000)}, {FieldID: 100, Type: schema.VarChar, Str: make([]string, 100)}} {
		ts, before := make([]uint64, keys.Rows()), live()
		w, err := CreateDeletes(filepath.Join(t.TempDir(), "d"), schema.Field{ID: 100, Type: keys.Type})
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			for i := range keys.Int {
				keys.Int[i] = rand.Int64()
			}
			for i := range keys.Str {
				keys.Str[i] = randomText(4096)
			}
			if err := w.Write(keys, ts); err != nil {
				t.Fatal(err)
			}
			if taken := live() - before; taken > most {
				t.Errorf("keys of %s: %d KiB after %d keys", keys.Type, taken>>10, w.rows)
			}
		}
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func randomText(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + rand.IntN(26))
	}
	return string(b)
}

// TestAFileOfDeletesThatCannotBeIsNotThere: none of them, others among them, on a disk without room.
func TestAFileOfDeletesThatCannotBeIsNotThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "d")
	pk := schema.Field{ID: 100, Type: schema.Int64}
	begin := func() *DeletesWriter {
		w, err := CreateDeletes(path, pk)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := begin()
	if _, err := w.Close(); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("without any: %v", err)
	}
	w = begin()
	if _, err := CreateDeletes(path, pk); !errclass.Is(err, errclass.Exists) {
		t.Errorf("again: %v", err)
	}
	if err := w.Write(&schema.Column{FieldID: 100, Type: schema.VarChar, Str: []string{"x"}}, []uint64{1}); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("texts among numbers: %v", err)
	}
	if err := w.Write(&schema.Column{FieldID: 100, Type: schema.Int64, Int: []int64{1}}, []uint64{1}); err != nil {
		t.Fatal(err)
	}
	if err := w.file.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err == nil {
		t.Error("closed, though it could not be written")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// inPieces reads a file of deletes as loads do.
func inPieces(b []byte) (keys *schema.Column, timestamps []uint64, err error) {
	d, err := OpenDeletes(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, nil, err
	}
	keys = &schema.Column{Type: d.KeyType()}
	err = d.Each(func(k *schema.Column, ts []uint64) error {
		keys.FieldID, keys.Int, keys.Str, timestamps = k.FieldID, append(keys.Int, k.Int...), append(keys.Str, k.Str...), append(timestamps, ts...)
		return nil
	})
	return keys, timestamps, err
}

// TestReadingDeletesStopsWhereItIsTold, with the error as it is.
func TestReadingDeletesStopsWhereItIsTold(t *testing.T) {
	b, err := EncodeDeletes(&schema.Column{FieldID: 100, Type: schema.Int64, Int: make([]int64, 3*deletesPerRead)}, make([]uint64, 3*deletesPerRead))
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenDeletes(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	calls, enough := 0, errors.New("enough")
	err = d.Each(func(keys *schema.Column, ts []uint64) error {
		if calls++; keys.Rows() != deletesPerRead || len(ts) != deletesPerRead {
			t.Errorf("%d keys and %d timestamps at once", keys.Rows(), len(ts))
		}
		if calls == 2 {
			return enough
		}
		return nil
	})
	if calls != 2 || !errors.Is(err, enough) {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// TestFewLongKeysAreReadAtOnce, of a file that is small because they are alike.
func TestFewLongKeysAreReadAtOnce(t *testing.T) {
	keys := &schema.Column{FieldID: 100, Type: schema.VarChar}
	for i := range 300 {
		keys.Str = append(keys.Str, strings.Repeat("x", schema.MaxVarChar-3)+fmt.Sprintf("%03d", i))
	}
	b, err := EncodeDeletes(keys, make([]uint64, len(keys.Str)))
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenDeletes(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	err = d.Each(func(k *schema.Column, _ []uint64) error {
		if !slices.Equal(k.Str, keys.Str[at:at+k.Rows()]) {
			t.Errorf("keys from %d on are not those of the file", at)
		}
		if bytes := k.Rows() * schema.MaxVarChar; bytes > 2<<20 {
			t.Errorf("%d bytes of keys at once", bytes)
		}
		at += k.Rows()
		return nil
	})
	if err != nil || at != len(keys.Str) {
		t.Errorf("%d keys, %v", at, err)
	}
}

func someDeletes(t testing.TB) []byte {
	t.Helper()
	b, err := EncodeDeletes(&schema.Column{FieldID: 100, Type: schema.VarChar, Str: []string{"a", "querynode-deletes/1/00000000", ""}}, []uint64{3, 1 << 63, 2})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnyDamageToDeletesIsFound(t *testing.T) {
	good := someDeletes(t)
	if _, _, err := DecodeDeletes(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if _, _, err := DecodeDeletes(good[:i]); !errclass.Is(err, errclass.Corrupt) {
			t.Fatalf("the first %d bytes: %v", i, err)
		}
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, _, err := DecodeDeletes(bad); !errclass.Is(err, errclass.Corrupt) {
				t.Fatalf("byte %d, bit %d flipped: %v", i, bit, err)
			}
		}
	}
}

func TestNewerDeletesSayWhatToDo(t *testing.T) {
	b := bytes.Replace(someDeletes(t), []byte("querynode-deletes/1/"), []byte("querynode-deletes/7/"), -1)
	_, _, err := DecodeDeletes(resealDeletes(b))
	if !errclass.Is(err, errclass.Unimplemented) || !strings.Contains(err.Error(), "upgrade") {
		t.Fatal(err)
	}
}

// resealDeletes makes the checksum of a file of deletes right, if it has one.
func resealDeletes(b []byte) []byte {
	b = bytes.Clone(b)
	_, at, err := findDeletesMark(b)
	if err != nil {
		return b
	}
	copy(b[at:], noDigits)
	copy(b[at:], fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli)))
	return b
}

func TestOddDeletesAreNotWritten(t *testing.T) {
	for name, c := range map[string]struct {
		keys *schema.Column
		ts   []uint64
	}{
		"none":       {&schema.Column{Type: schema.Int64}, nil},
		"lengths":    {&schema.Column{Type: schema.Int64, Int: []int64{1}}, []uint64{1, 2}},
		"type":       {&schema.Column{Type: schema.Double, Double: []float64{1}}, []uint64{1}},
		"null":       {&schema.Column{Type: schema.Int64, Int: []int64{0}, Valid: []bool{false}}, []uint64{1}},
		"long key":   {&schema.Column{Type: schema.VarChar, Str: []string{strings.Repeat("x", 70_000)}}, []uint64{1}},
		"field's id": {&schema.Column{FieldID: 1 << 40, Type: schema.Int64, Int: []int64{1}}, []uint64{1}},
	} {
		if _, err := EncodeDeletes(c.keys, c.ts); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := readDeletes(filepath.Join(t.TempDir(), "none")); !errclass.Is(err, errclass.NotFound) {
		t.Error(err)
	}
}

func TestLongKeysLeaveTheFooterSmall(t *testing.T) {
	keys := &schema.Column{FieldID: 100, Type: schema.VarChar}
	for i := range 300_000 {
		keys.Str = append(keys.Str, fmt.Sprintf("%d", i))
	}
	for i := range 40 {
		keys.Str[i*7000] = strings.Repeat(string(rune('a'+i%26)), schema.MaxVarChar)
	}
	b, err := EncodeDeletes(keys, make([]uint64, len(keys.Str)))
	if err != nil {
		t.Fatal(err)
	}
	for _, read := range []func([]byte) (*schema.Column, []uint64, error){DecodeDeletes, inPieces} {
		got, ts, err := read(b)
		if err != nil || !slices.Equal(got.Str, keys.Str) || len(ts) != len(keys.Str) {
			t.Fatal(err)
		}
	}
}

func FuzzDeletes(f *testing.F) {
	f.Add(someDeletes(f))
	b, err := EncodeDeletes(&schema.Column{FieldID: 100, Type: schema.Int64, Int: []int64{1, 2, 3}}, []uint64{1, 2, 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, resealDeletes(b)} {
			keys, ts, err := DecodeDeletes(b)
			if err == nil && keys.Rows() != len(ts) {
				t.Fatalf("%d keys, %d timestamps", keys.Rows(), len(ts))
			}
			if class := errclass.Of(err); err != nil && class != errclass.Corrupt && class != errclass.Unimplemented {
				t.Fatalf("class %v: %v", class, err)
			}
			k, at, perr := inPieces(b)
			if (perr == nil) != (err == nil) || err == nil && (!sameColumn(k, keys) || !slices.Equal(at, ts)) {
				t.Fatalf("in pieces: %v, at once: %v", perr, err)
			}
		}
	})
}
