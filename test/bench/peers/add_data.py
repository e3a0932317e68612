#!/usr/bin/env python3
"""Brings vectors of one's own into the form that prep_data.py gives.

  add_data.py NAME --base b.npy --queries q.npy --metric l2|ip|cosine
  add_data.py NAME --hdf5 sift-128-euclidean.hdf5 --metric l2          (as ann-benchmarks keeps them: train, test)

Files: .npy, .fvecs, .bvecs.  Output in $BENCH_DIR/data: NAME.{base,query,gt,gtd}.npy and NAME.metric.
"""
import argparse
import os

import numpy as np

HERE = os.environ.get("BENCH_DIR", os.path.expanduser("~/.cache/querynode-bench"))
D = os.path.join(HERE, "data")
NQ, K, SLACK = 1000, 100, 64


def read(path):
    if path.endswith(".npy"):
        return np.load(path).astype(np.float32)
    kind = np.uint8 if path.endswith(".bvecs") else np.float32
    raw = np.fromfile(path, np.uint8)
    dim = int(raw[:4].view(np.int32)[0])
    rows = raw.reshape(-1, 4 + dim * np.dtype(kind).itemsize)[:, 4:]
    return np.ascontiguousarray(rows).view(kind).astype(np.float32)


def exact(base, q, metric):
    """the K nearest: candidates in float32, order and distances in float64"""
    import faiss
    b, qq = base, q
    if metric == "cos":
        b, qq = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (base, q))
    k = min(K + SLACK, len(base))
    _, cand = faiss.knn(qq, b, k, metric=faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)
    dist = np.empty(cand.shape)
    for i, c in enumerate(cand):
        v, w = b[c].astype(np.float64), qq[i].astype(np.float64)
        dist[i] = ((v - w) ** 2).sum(1) if metric == "l2" else (metric == "cos") - v @ w
    o = np.lexsort((cand, dist), axis=1)[:, :K]
    return np.take_along_axis(cand, o, 1).astype(np.int32), np.take_along_axis(dist, o, 1)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("name")
    ap.add_argument("--base")
    ap.add_argument("--queries")
    ap.add_argument("--hdf5")
    ap.add_argument("--metric", required=True, choices=["l2", "ip", "cosine"])
    a = ap.parse_args()
    if a.hdf5:
        import h5py
        with h5py.File(a.hdf5) as f:
            base, q = f["train"][:].astype(np.float32), f["test"][:NQ].astype(np.float32)
    else:
        base, q = read(a.base), read(a.queries)[:NQ]
    metric = "cos" if a.metric == "cosine" else a.metric
    os.makedirs(D, exist_ok=True)
    gt, gtd = exact(base, q, metric)
    for part, x in (("base", base), ("query", q), ("gt", gt), ("gtd", gtd)):
        np.save(f"{D}/{a.name}.{part}.npy", np.ascontiguousarray(x))
    with open(f"{D}/{a.name}.metric", "w") as f:
        f.write(metric)
    print(a.name, base.shape, q.shape, metric)


if __name__ == "__main__":
    main()
