package segfile

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const interop = `
import json, sys, numpy, pyarrow.parquet as pq
d = sys.argv[1]
m = json.load(open(d + "/manifest.json"))
t = pq.read_table(d + "/rows.parquet")
assert t.num_rows == m["rows"] == 50, t
assert t.column_names == ["$timestamp", "id", "flag", "i8", "i16", "i32", "f32", "f64", "title", "extra", "$meta"], t.column_names
assert [str(f.type) for f in t.schema] == ["uint64", "int64", "bool", "int8", "int16", "int32", "float", "double", "string", "string", "string"] or "json" in str(t.schema), t.schema
assert t["id"].to_pylist() == list(range(50))
assert t["$timestamp"].to_pylist() == [i << 18 | 1 for i in range(50)]
assert t["title"].to_pylist() == [None if i % 4 == 1 else "row %d" % i for i in range(50)]
assert t["f64"].to_pylist() == [None if i % 4 == 1 else i / 4 for i in range(50)]
assert t["flag"].to_pylist() == [None if i % 4 == 1 else i % 2 == 1 for i in range(50)]
v = numpy.load(d + "/vector_101.npy", mmap_mode="r")
assert v.shape == (50, 3) and v.dtype == numpy.float32 and v.offset == 4096, v
assert (v == numpy.arange(150, dtype="f4").reshape(50, 3)).all()
k = pq.read_table(d + "/deletes.parquet")
assert k.column_names == ["primary_key", "$timestamp"] and k["primary_key"].to_pylist() == list(range(50)), k
`

// Runs where QUERYNODE_PYTHON names a Python with numpy and pyarrow.
func TestNumpyAndPyarrowReadASegment(t *testing.T) {
	python := os.Getenv("QUERYNODE_PYTHON")
	if python == "" {
		t.Skip("QUERYNODE_PYTHON is not set")
	}
	meta := testMeta()
	dir := filepath.Join(t.TempDir(), "42")
	write(t, dir, meta, batch(&meta.Schema, 0, 50))
	if out, err := exec.Command(python, "-c", interop, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
