"""20,000 GloVe vectors: exact with FLAT, recall with HNSW, in all metrics, while
they are in memory, once they are in files, and after a restart."""

import os
import signal

import numpy as np
import pyarrow.parquet as pq
from querynode.v1 import types_pb2

import truth
from node import Collection, field

METRICS = ("L2", "IP", "COSINE")
K = 10


def load(data):
    table = pq.read_table(os.path.join(data, "glove-20k.parquet"))
    base = np.stack(table["vector"].to_numpy(zero_copy_only=False)).astype(np.float32)
    return {"id": table["id"].to_numpy(), "word": table["word"].to_pylist(), "vector": base}


def run(report, node, data):
    rows = load(data)
    rng = np.random.default_rng(1)
    # Words themselves, and places between words.
    picked = rows["vector"][rng.choice(len(rows["id"]), 200, replace=False)]
    queries = np.concatenate([picked[:100], (picked[:100] + picked[100:]) / 2]).astype(np.float32)
    made = {}
    for kind in ("FLAT", "HNSW"):
        for metric in METRICS:
            c = Collection(node, f"words_{kind}_{metric}".lower(), [
                field("id", types_pb2.DATA_TYPE_INT64, primary_key=True),
                field("word", types_pb2.DATA_TYPE_VARCHAR, max_length=200),
                field("vector", types_pb2.DATA_TYPE_FLOAT_VECTOR, dim=100),
            ], "vector", types_pb2.IndexSpec(field="vector", type=kind, metric=metric))
            c.put(rows)
            made[kind, metric] = c
    report.check("words: 6 collections filled", all(c.count() == len(rows["id"]) for c in made.values()), f"{len(rows['id'])} rows each")
    compare(report, made, rows, queries, "growing")
    for c in made.values():
        c.flush()
    report.check("words: flushed", True)
    compare(report, made, rows, queries, "sealed")
    code = node.stop(signal.SIGKILL)
    node.start()
    report.check("words: killed and started again", code == -signal.SIGKILL)
    compare(report, made, rows, queries, "after kill -9")


def compare(report, made, rows, queries, when):
    for (kind, metric), c in made.items():
        ids, scores = c.search(queries, K)
        if kind == "FLAT":
            report.right(f"words: FLAT {metric}, {when}: exact", truth.exact(metric, queries, rows["vector"], rows["id"], K, ids, scores))
            continue
        plain = truth.recall(metric, queries, rows["vector"], rows["id"], K, ids)
        ids, _ = c.search(queries, K, ef=200)
        wide = truth.recall(metric, queries, rows["vector"], rows["id"], K, ids)
        report.check(f"words: HNSW {metric}, {when}: recall@{K} >= 0.99", wide >= 0.99 and plain >= 0.97, f"{wide:.4f} with ef 200, {plain:.4f} without")
    ids, scores = made["FLAT", "COSINE"].search(queries, K, raw=True)
    ids2, scores2 = made["FLAT", "COSINE"].search(queries, K, raw=False)
    same = all((a == b).all() for a, b in zip(ids, ids2)) and all(abs(a - b).max() < 1e-6 for a, b in zip(scores, scores2))
    report.check(f"words: raw and values, {when}: the same answer", same)
