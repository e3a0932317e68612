"""The files of a flushed segment, read by numpy and pyarrow without the node."""

import glob
import os

import numpy as np
import pyarrow.parquet as pq
from querynode.v1 import types_pb2

from node import Collection, field

ROWS, DIM = 5000, 24


def run(report, node, _):
    rng = np.random.default_rng(3)
    rows = {
        "id": rng.permutation(ROWS).astype(np.int64) - 1000,
        "small": rng.integers(-32768, 32768, ROWS).astype(np.int64),
        "price": rng.normal(size=ROWS),
        "flag": rng.random(ROWS) < 0.5,
        "name": [None if i % 7 == 0 else f"Wort {i} ✓" for i in range(ROWS)],
        "doc": [f'{{"i": {i}, "deep": {{"list": [1, null, "ä"]}}}}' for i in range(ROWS)],
        "v": rng.normal(size=(ROWS, DIM)).astype(np.float32),
    }
    c = Collection(node, "files", [
        field("id", types_pb2.DATA_TYPE_INT64, primary_key=True),
        field("small", types_pb2.DATA_TYPE_INT16),
        field("price", types_pb2.DATA_TYPE_DOUBLE),
        field("flag", types_pb2.DATA_TYPE_BOOL),
        field("name", types_pb2.DATA_TYPE_VARCHAR, nullable=True),
        field("doc", types_pb2.DATA_TYPE_JSON),
        field("v", types_pb2.DATA_TYPE_FLOAT_VECTOR, dim=DIM),
    ], "v", types_pb2.IndexSpec(field="v", type="HNSW", metric="L2"))
    c.put(rows, batch=700)
    segments = c.flush()
    report.check("files: one segment", len(segments) == 1, str(segments))
    dirs = glob.glob(os.path.join(node.data_dir, "objects", "segments", str(c.id), f"{segments[0]}-*"))
    report.check("files: its folder", len(dirs) == 1, str([os.path.basename(p) for d in dirs for p in glob.glob(d + "/*")]))
    folder = dirs[0]

    table = pq.read_table(os.path.join(folder, "rows.parquet"))
    ids = table["id"].to_numpy()
    where = {int(k): i for i, k in enumerate(rows["id"])}
    order = [where[int(k)] for k in ids]
    report.check("files: pyarrow reads the keys", sorted(order) == list(range(ROWS)), f"{table.num_rows} rows, columns {table.column_names}")
    for name in ("small", "price", "flag", "name", "doc"):
        have = table[name].to_pylist()
        want = [rows[name][i] for i in order]
        report.check(f"files: pyarrow reads {name}", have == [w.item() if hasattr(w, "item") else w for w in want], str(table.schema.field(name).type))
    times = table["$timestamp"].to_numpy()
    report.check("files: timestamps only grow", bool((np.diff(times.astype(np.int64)) >= 0).all()), f"{times[0]}..{times[-1]}")

    path = os.path.join(folder, f"vector_{c.field_ids['v']}.npy")
    base = np.load(path, mmap_mode="r", allow_pickle=False)
    same = base.shape == (ROWS, DIM) and base.dtype == np.float32 and bool((base == rows["v"][order]).all())
    report.check("files: numpy maps the vectors", same, f"{base.dtype} {base.shape}, data at byte {base.offset}")
    report.check("files: the data begins on a page", base.offset % 4096 == 0, f"byte {base.offset}")
