package segfile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// segment writes a segment of 50 rows and returns its folder.
func segment(t testing.TB) (string, *Manifest) {
	t.Helper()
	meta := testMeta()
	dir := filepath.Join(t.TempDir(), "42")
	return dir, write(t, dir, meta, batch(&meta.Schema, 0, 50))
}

func TestFlippedByteIsFoundAndNamed(t *testing.T) {
	dir, m := segment(t)
	for _, f := range m.Files {
		good := readFile(t, filepath.Join(dir, f.Name))
		for _, at := range []int{0, len(good) / 3, len(good) - 1} {
			bad := bytes.Clone(good)
			bad[at] ^= 1
			overwrite(t, filepath.Join(dir, f.Name), bad)
			err := m.Verify(context.Background(), dir, nil)
			if !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), fmt.Sprintf("%s, block %d ", f.Name, at/BlockSize)) {
				t.Errorf("%s, byte %d: %v", f.Name, at, err)
			}
			c, _ := m.Checker(f.Name)
			_, err = c.Write(bad)
			if err == nil {
				err = c.Close()
			}
			if !errclass.Is(err, errclass.Corrupt) {
				t.Errorf("%s, byte %d: the checker says %v", f.Name, at, err)
			}
		}
		overwrite(t, filepath.Join(dir, f.Name), good)
	}
	if err := m.Verify(context.Background(), dir, nil); err != nil {
		t.Fatal(err)
	}
}

func TestRowsAndDeletesNeverReadFlippedBytes(t *testing.T) {
	dir, _ := segment(t)
	for _, name := range []string{"rows.parquet", "deletes.parquet"} {
		good := readFile(t, filepath.Join(dir, name))
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 0x10
		overwrite(t, filepath.Join(dir, name), bad)
		s := open(t, dir)
		_, err := s.Rows(context.Background())
		if name == "deletes.parquet" {
			_, _, err = s.Deletes()
		}
		if !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), name+", block 0") {
			t.Errorf("%s: %v", name, err)
		}
		overwrite(t, filepath.Join(dir, name), good)
	}
}

func TestTruncatedAndMissingFilesAreRefused(t *testing.T) {
	dir, m := segment(t)
	for _, f := range m.Files {
		path := filepath.Join(dir, f.Name)
		good := readFile(t, path)
		for _, n := range []int{0, 1, 63, 64, 4095, 4096, len(good) / 2, len(good) - 1, len(good) + 1} {
			overwrite(t, path, append(bytes.Clone(good), 0)[:min(n, len(good)+1)])
			if n == len(good) {
				continue
			}
			if s, err := Open(dir, Options{}); !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), f.Name) {
				t.Errorf("%s with %d of %d bytes: %v, %v", f.Name, n, len(good), s, err)
			}
			if err := m.Verify(context.Background(), dir, nil); !errclass.Is(err, errclass.Corrupt) {
				t.Errorf("%s with %d bytes: verify says %v", f.Name, n, err)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Options{}); !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), f.Name) {
			t.Errorf("%s missing: %v", f.Name, err)
		}
		overwrite(t, path, good)
	}
	if err := os.Remove(filepath.Join(dir, ManifestName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errclass.Is(err, errclass.NotFound) {
		t.Errorf("no manifest: %v", err)
	}
}

func TestEveryDamagedManifestIsRefused(t *testing.T) {
	dir, _ := segment(t)
	good := readFile(t, filepath.Join(dir, ManifestName))
	if _, err := ParseManifest(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := ParseManifest(good[:n]); !errclass.Is(err, errclass.Corrupt) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := ParseManifest(bad); !errclass.Is(err, errclass.Corrupt) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	if _, err := ParseManifest(append(good, '\n')); !errclass.Is(err, errclass.Corrupt) {
		t.Fatalf("a line too many: %v", err)
	}
}

func TestManifestIsPlainJSON(t *testing.T) {
	dir, m := segment(t)
	var v map[string]any
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, ManifestName)), &v); err != nil {
		t.Fatal(err)
	}
	if v["format"] != FormatName || v["version"] != float64(1) || v["crc32c"] == "" {
		t.Fatalf("%v", v)
	}
	names := append(m.FileNames(), ManifestName)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(names, e.Name()) {
			t.Errorf("file %s is in no list", e.Name())
		}
	}
	if len(entries) != len(names) {
		t.Errorf("%d files, %d listed", len(entries), len(names))
	}
}

func TestLyingManifestsAreRefused(t *testing.T) {
	dir, m := segment(t)
	good := readFile(t, filepath.Join(dir, ManifestName))
	vec := m.file("vector_101.npy")
	for name, c := range map[string]struct{ old, new string }{
		"no rows":           {`"rows": 50`, `"rows": 0`},
		"negative rows":     {`"rows": 50`, `"rows": -50`},
		"huge rows":         {`"rows": 50`, `"rows": 9223372036854775807`},
		"rows overflow":     {`"rows": 50`, `"rows": 99223372036854775807`},
		"fractional rows":   {`"rows": 50`, `"rows": 0.5`},
		"vector rows":       {`"rows": 50,` + "\n        \"offset\"", `"rows": 51,` + "\n        \"offset\""},
		"vector dim":        {`"dim": 3,` + "\n        \"rows\"", `"dim": 4,` + "\n        \"rows\""},
		"schema dim":        {`"dim": 3`, `"dim": 2`},
		"huge dim":          {`"dim": 3`, `"dim": 1000000000`},
		"vector offset":     {`"offset": 4096`, `"offset": 128`},
		"negative offset":   {`"offset": 4096`, `"offset": -4096`},
		"vector size":       {fmt.Sprintf(`"size": %d`, vec.Size), fmt.Sprintf(`"size": %d`, vec.Size+1)},
		"negative size":     {fmt.Sprintf(`"size": %d`, vec.Size), `"size": -1`},
		"huge size":         {fmt.Sprintf(`"size": %d`, vec.Size), `"size": 9223372036854775807`},
		"block size":        {`"block_size": 1048576`, `"block_size": 1`},
		"zero block size":   {`"block_size": 1048576`, `"block_size": 0`},
		"too many blocks":   {`"block_crc32c": "`, `"block_crc32c": "AAAAAAAAAAAAAAAA`},
		"bad base64":        {`"block_crc32c": "`, `"block_crc32c": "!`},
		"bad crc":           {`"crc32c": "`, `"crc32c": "0`},
		"path":              {`"name": "rows.parquet"`, `"name": "../rows.parquet"`},
		"other name":        {`"name": "index_101.bin"`, `"name": "index_110.bin"`},
		"no bloom":          {`"name": "keys.bloom",` + "\n      \"kind\": \"bloom\"", `"name": "rows.parquet",` + "\n      \"kind\": \"rows\""},
		"unknown kind":      {`"kind": "bloom"`, `"kind": "blob"`},
		"no kind":           {`"kind": "bloom"`, `"kind": ""`},
		"index of a scalar": {`"field_id": 101,` + "\n        \"type\"", `"field_id": 103,` + "\n        \"type\""},
		"deletes":           {`"delete_rows": 50`, `"delete_rows": 0`},
		"huge deletes":      {`"delete_rows": 50`, `"delete_rows": 99999999999`},
		"scalar bytes":      {`"scalar_bytes": `, `"scalar_bytes": -`},
		"huge scalar bytes": {`"scalar_bytes": `, `"scalar_bytes": 99999999999999`},
		"time":              {`"min_timestamp": 1`, `"min_timestamp": 18446744073709551615`},
		"nulls":             {`"nulls": 13`, `"nulls": 51`},
		"stats range":       {`"min": 0`, `"min": 1000`},
		"stats field":       {`"field_id": 102`, `"field_id": 101`},
		"schema":            {`"type": "Int64"`, `"type": "Int65"`},
		"two keys":          {`"name": "i32",`, `"name": "i32", "primary_key": true,`},
		"format":            {FormatName, "something-else"},
		"version":           {`"version": 1`, `"version": 0`},
		"no stats":          {`"stats": [`, `"stats": [], "x": [`},
		"no files":          {`"files": [`, `"files": [], "x": [`},
		"null file":         {`"files": [`, `"files": [{},`},
		"array":             {"{", "["},
	} {
		if _, err := ParseManifest(reseal(t, good, c.old, c.new)); !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	twice := *m
	twice.Files = append(slices.Clone(m.Files), *m.file("index_101.bin"))
	if err := twice.validate(); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("file twice: %v", err)
	}
	if _, err := ParseManifest(make([]byte, MaxManifestBytes+1)); !errclass.Is(err, errclass.Corrupt) {
		t.Error("a manifest over the limit passed")
	}
}

func TestNewerVersionSaysWhatToDo(t *testing.T) {
	dir, _ := segment(t)
	path := filepath.Join(dir, ManifestName)
	good := readFile(t, path)
	overwrite(t, path, reseal(t, good, `"version": 1`, `"version": 4`))
	_, err := Open(dir, Options{})
	if !errclass.Is(err, errclass.Unimplemented) || !strings.Contains(err.Error(), "up to version 3") || !strings.Contains(err.Error(), "upgrade") {
		t.Fatal(err)
	}
	// Members that this build does not know are no new version.
	overwrite(t, path, reseal(t, good, `"rows": 50`, `"colour": {"a": [1]}, "rows": 50`))
	open(t, dir)
}

// consistent files of another segment under a manifest that is right in itself
func TestManifestOfAnotherSegmentIsNoticed(t *testing.T) {
	dir, _ := segment(t)
	meta := testMeta()
	other := filepath.Join(t.TempDir(), "43")
	write(t, other, meta, batch(&meta.Schema, 100, 50))
	overwrite(t, filepath.Join(dir, "rows.parquet"), readFile(t, filepath.Join(other, "rows.parquet")))
	if s, err := Open(dir, Options{}); err == nil {
		_, err = s.Rows(context.Background())
		_ = s.Close()
		if !errclass.Is(err, errclass.Corrupt) {
			t.Fatal(err)
		}
	}
}

func TestHeadersAreComparedWithTheManifest(t *testing.T) {
	for name, c := range map[string]struct{ file, old, new string }{
		"shape":       {"vector_101.npy", "(50, 3)", "(30, 5)"},
		"type":        {"vector_101.npy", "<f4", "<f8"},
		"order":       {"vector_101.npy", "False", "True "},
		"magic":       {"vector_101.npy", "NUMPY", "NUMPX"},
		"bloom magic": {"keys.bloom", "QNBLOOM1", "QNBLOOM2"},
		"bloom size":  {"keys.bloom", "QNBLOOM1\x02", "QNBLOOM1\xff"},
	} {
		dir, _ := segment(t)
		path := filepath.Join(dir, c.file)
		b := readFile(t, path)
		if !bytes.Contains(b, []byte(c.old)) {
			t.Fatalf("%s: no %q in %q", name, c.old, b[:64])
		}
		overwrite(t, path, bytes.Replace(b, []byte(c.old), []byte(c.new), 1))
		if _, err := Open(dir, Options{}); !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), c.file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyStopsWithItsContext(t *testing.T) {
	dir, m := segment(t)
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	err := m.Verify(ctx, dir, func(int64, int64) { calls++; cancel() })
	if err == nil || calls != 1 {
		t.Fatalf("%v after %d blocks", err, calls)
	}
	if _, err := open(t, dir).Rows(ctx); err == nil {
		t.Fatal("Rows ignores its context")
	}
}

func TestStatsAreUnknownRatherThanWrong(t *testing.T) {
	nan := 0.0
	nan /= nan
	for name, c := range map[string]struct {
		col  *schema.Column
		want string
	}{
		"ints":      {&schema.Column{Type: schema.Int64, Int: []int64{3, -1, 2}}, `{"field_id":0,"nulls":0,"int":{"min":-1,"max":3}}`},
		"nulls":     {&schema.Column{Type: schema.Int64, Int: []int64{0, 5}, Valid: []bool{false, true}}, `{"field_id":0,"nulls":1,"int":{"min":5,"max":5}}`},
		"all null":  {&schema.Column{Type: schema.Bool, Bool: []bool{false}, Valid: []bool{false}}, `{"field_id":0,"nulls":1}`},
		"bools":     {&schema.Column{Type: schema.Bool, Bool: []bool{true, false}}, `{"field_id":0,"nulls":0,"bool":{"min":false,"max":true}}`},
		"nan":       {&schema.Column{Type: schema.Double, Double: []float64{1, nan}}, `{"field_id":0,"nulls":0}`},
		"text":      {&schema.Column{Type: schema.VarChar, Str: []string{"b", ""}}, `{"field_id":0,"nulls":0,"text":{"min":"","max":"b"}}`},
		"long text": {&schema.Column{Type: schema.VarChar, Str: []string{"b", strings.Repeat("x", 300)}}, `{"field_id":0,"nulls":0}`},
		"json":      {&schema.Column{Type: schema.JSON, Str: []string{"{}"}}, `{"field_id":0,"nulls":0}`},
	} {
		var s statsBuilder
		s.add(c.col)
		if got, _ := json.Marshal(s.result()); string(got) != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestChecksumOfTheWholeIsChecked(t *testing.T) {
	dir, m := segment(t)
	path := filepath.Join(dir, ManifestName)
	overwrite(t, path, reseal(t, readFile(t, path), m.Files[0].CRC.String(), (m.Files[0].CRC^1).String()))
	if err := open(t, dir).Verify(context.Background(), nil); !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), "contradict") {
		t.Fatal(err)
	}
}
