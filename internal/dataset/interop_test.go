package dataset

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

const writeFiles = `
import itertools, sys, numpy, pyarrow as pa, pyarrow.parquet as pq
d, n = sys.argv[1], 5000
v = numpy.random.default_rng(1).integers(-5, 5, (n, 17)).astype("f4")
numpy.save(d + "/v.npy", v)
lists = {"list": pa.list_(pa.float32()), "fixed": pa.list_(pa.float32(), 17), "large": pa.large_list(pa.float64())}
for codec, version, dictionary, kind in itertools.product(["NONE", "SNAPPY", "GZIP", "ZSTD", "BROTLI", "LZ4"], ["1.0", "2.0"], [True, False], lists):
    t = pa.table({
        "id": pa.array(range(n), pa.int64()),
        "tag": pa.array([None if i % 5 == 0 else "tag%d" % (i % 7) for i in range(n)]),
        "d": pa.array([None if i % 3 == 0 else float(i % 11) for i in range(n)]),
        "b": pa.array([i % 2 == 0 for i in range(n)]),
        "when": pa.array(range(n), pa.timestamp("ms")),
        "word": pa.array(["x%d" % (i % 4) for i in range(n)]).dictionary_encode(),
        "vec": pa.array(v.tolist(), lists[kind]),
        "tags": pa.array([None if i % 5 == 0 else ["tag%d" % k for k in range(i % 3)] for i in range(n)]),
        "utc": pa.array(range(n), pa.timestamp("us", tz="UTC")),
    })
    pq.write_table(t, f"{d}/{codec}-{version}-{dictionary}-{kind}.parquet", compression=codec, data_page_version=version,
                   use_dictionary=dictionary, row_group_size=1700, data_page_size=3000)
`

// tags are those of row i.
func tags(i int) []string {
	if i%5 == 0 {
		return nil
	}
	return []string{"tag0", "tag1"}[:i%3]
}

// Runs where QUERYNODE_PYTHON names a Python with numpy and pyarrow.
func TestFilesOfNumpyAndPyarrowAreRead(t *testing.T) {
	python := os.Getenv("QUERYNODE_PYTHON")
	if python == "" {
		t.Skip("QUERYNODE_PYTHON is not set")
	}
	dir := t.TempDir()
	if out, err := exec.Command(python, "-c", writeFiles, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, _, err := all(filepath.Join(dir, "v.npy"), Options{}, 999)
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.parquet"))
	for _, path := range files {
		b, r, err := all(path, Options{}, 777)
		if strings.HasPrefix(filepath.Base(path), "LZ4") {
			if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), "LZ4") {
				t.Errorf("%s: %v", path, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if len(b.Columns) != 9 || len(r.Skipped()) != 0 || !slices.Equal(b.Columns[6].Float, want.Columns[1].Float) {
			t.Errorf("%s: columns or vectors differ; skipped %v", path, r.Skipped())
		}
		for i := range b.Rows {
			tag, d := "", 0.0
			if i%5 != 0 {
				tag = fmt.Sprintf("tag%d", i%7)
			}
			if i%3 != 0 {
				d = float64(i % 11)
			}
			c := b.Columns
			if c[0].Int[i] != int64(i) || c[1].Str[i] != tag || c[1].Null(i) != (i%5 == 0) || c[2].Double[i] != d || c[2].Null(i) != (i%3 == 0) ||
				c[3].Bool[i] != (i%2 == 0) || c[4].Int[i] != int64(i) || c[5].Str[i] != fmt.Sprintf("x%d", i%4) ||
				c[7].Null(i) != (i%5 == 0) || !slices.Equal(c[7].Elements(i, i+1).Str, tags(i)) || c[8].Type != schema.Timestamptz || c[8].Int[i] != int64(i) {
				t.Errorf("%s: row %d differs", path, i)
				break
			}
		}
	}
	if len(files) != 72 {
		t.Errorf("%d files", len(files))
	}
}
