package segfile

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"
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
		if err := WriteDeletes(path, keys, ts); err != nil {
			rt.Fatal(err)
		}
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
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Fatalf("left behind: %v", entries)
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
