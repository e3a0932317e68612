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
assert t.column_names == ["$timestamp", "id", "flag", "i8", "i16", "i32", "f32", "f64", "title", "extra", "at", "bools", "int8s", "int64s", "floats", "doubles", "texts", "later", "$meta"], t.column_names
types = {f.name: str(f.type).replace("item", "element") for f in t.schema}
for name, want in {"$timestamp": "uint64", "id": "int64", "flag": "bool", "i8": "int8", "i16": "int16", "i32": "int32", "f32": "float", "f64": "double", "title": "string",
                   "at": "timestamp[us, tz=UTC]", "bools": "list<element: bool not null>", "int8s": "list<element: int8 not null>", "int64s": "list<element: int64 not null>",
                   "floats": "list<element: float not null>", "doubles": "list<element: double not null>", "texts": "list<element: string not null>", "later": "int64"}.items():
    assert types[name] == want, (name, types[name])
null = lambda i: i % 4 == 1
assert t["bools"].to_pylist() == [[(i + k) % 2 == 1 for k in range(i % 4)] for i in range(50)]
assert t["int8s"].to_pylist() == [None if null(i) else [i + k for k in range(i % 4)] for i in range(50)]
assert t["int64s"].to_pylist() == [[i + k for k in range(i % 4)] for i in range(50)]
assert t["floats"].to_pylist() == [[(i + k) / 2 for k in range(i % 4)] for i in range(50)]
assert t["doubles"].to_pylist() == [None if null(i) else [(i + k) / 4 for k in range(i % 4)] for i in range(50)]
assert t["texts"].to_pylist() == [None if null(i) else ["row %d" % (i + k) for k in range(i % 4)] for i in range(50)]
assert t["at"].cast("int64").to_pylist() == [None if null(i) else i for i in range(50)]
assert t["id"].to_pylist() == list(range(50))
assert t["$timestamp"].to_pylist() == [i << 18 | 1 for i in range(50)]
assert t["title"].to_pylist() == [None if i % 4 == 1 else "row %d" % i for i in range(50)]
assert t["f64"].to_pylist() == [None if i % 4 == 1 else i / 4 for i in range(50)]
assert t["flag"].to_pylist() == [None if i % 4 == 1 else i % 2 == 1 for i in range(50)]
v = numpy.load(d + "/vector_101.npy", mmap_mode="r")
assert v.shape == (50, 3) and v.dtype == numpy.float32 and v.offset == 4096, v
assert (v == numpy.arange(150, dtype="f4").reshape(50, 3)).all()
ok = numpy.array([i % 4 != 1 for i in range(50)])
n = lambda i: 0 if i % 4 == 1 else i
pattern = lambda values, w: numpy.array([[((v + k) % 256 & 0x3b) * min(v, 1) % 256 for k in range(w)] for v in values], dtype="u1")
half = numpy.load(d + "/vector_130.npy")
assert half.dtype == numpy.float16 and half.shape == (50, 3) and (half.view("u1") == pattern(range(50), 6)).all(), half
assert abs(float(half[7, 0]) - float(numpy.frombuffer(bytes(pattern([7], 6)[0][:2]), "<f2")[0])) == 0
brain = numpy.load(d + "/vector_131.npy")
assert brain.dtype == numpy.uint16 and brain.shape == (50, 2) and (brain.view("u1") == pattern(map(n, range(50)), 4)).all(), brain
small = numpy.load(d + "/vector_132.npy")
assert small.dtype == numpy.int8 and small.shape == (50, 5) and (small.view("u1") == pattern(map(n, range(50)), 5)).all(), small
bits = numpy.load(d + "/vector_133.npy")
assert bits.dtype == numpy.uint8 and bits.shape == (50, 2) and numpy.unpackbits(bits, axis=1).shape == (50, 16) and (bits == pattern(range(50), 2)).all(), bits
for f in (131, 132, 134, 135):
    valid = numpy.load(d + "/vector_%d_valid.npy" % f)
    assert valid.dtype == numpy.bool_ and (valid == ok).all(), (f, valid)
ptr, idx, data = (numpy.load(d + "/vector_134_%s.npy" % p) for p in ("indptr", "indices", "data"))
assert (ptr.dtype, idx.dtype, data.dtype) == (numpy.int64, numpy.uint32, numpy.float32) and ptr[-1] == len(idx) == len(data)
for i in range(50):
    want = [(i + 1000 * k, i / 2) for k in range(i % 4)] if ok[i] else []
    assert list(zip(idx[ptr[i]:ptr[i+1]].tolist(), data[ptr[i]:ptr[i+1]].tolist())) == want, i
k = pq.read_table(d + "/deletes.parquet")
assert k.column_names == ["primary_key", "$timestamp"] and k["primary_key"].to_pylist() == list(range(50)), k
`

// Runs where QUERYNODE_PYTHON names a Python with numpy and pyarrow.
func TestNumpyAndPyarrowReadASegment(t *testing.T) {
	python := os.Getenv("QUERYNODE_PYTHON")
	if python == "" {
		t.Skip("QUERYNODE_PYTHON is not set")
	}
	meta := fullMeta()
	dir := filepath.Join(t.TempDir(), "42")
	write(t, dir, meta, batch(&meta.Schema, 0, 50))
	if out, err := exec.Command(python, "-c", interop, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
