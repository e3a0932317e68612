#!/usr/bin/env python3
"""In-process ANN peers on prepared data (see prep_data.py): one JSON line per library.

  python bench_peers.py --data glove --libs hnswlib,faiss,best --threads 1 --recall 0.95
  python bench_peers.py --data glove --libs all --build-only     # fill the index cache first

QPS at the asked recall@k is read off the Pareto front of an ef (or nprobe) sweep, log-linear between
the two neighbouring points.  Queries go in by the library's batch call (1000 queries) where it has one,
else by a Python loop.  Every build and every search runs in its own process.  recall counts an answer
as right when its exact distance is <= the exact k-th distance (ties count).
Cosine data sets are normalised beforehand; libraries then use inner product (svs, symqg: L2).
"""
import argparse, json, math, os, subprocess, sys, time

HERE = os.environ.get("BENCH_DIR", os.path.expanduser("~/.cache/querynode-bench"))   # data and indexes live here
D, IX = os.path.join(HERE, "data"), os.path.join(HERE, "index")
class Metrics(dict):
    """metric of a data set: the three known ones, else what add_data.py noted"""
    def __missing__(self, name):
        try:
            return open(f"{D}/{name}.metric").read().strip()
        except OSError:
            sys.exit(f"no data set {name!r}: run prep_data.py or add_data.py first")
METRIC = Metrics(fashion="l2", glove="cos", clustered="l2")
GROUPS = dict(faiss=["faiss-hnsw"], best=["rabitq-symqg", "glass-sq8u-r"],
              usearch=["usearch-f32", "usearch-bf16", "usearch-i8"])
EF = [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 900, 1280, 1800]
K = 10

def rss():
    import psutil
    return psutil.Process().memory_info().rss

def du(p):
    if os.path.isfile(p):
        return os.path.getsize(p)
    return sum(os.path.getsize(os.path.join(r, f)) for r, _, fs in os.walk(p) for f in fs)

def unit(x):
    import numpy as np
    return np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)

def load_vec(data, part):
    import numpy as np
    x = np.load(f"{D}/{data}.{part}.npy")
    return unit(x) if METRIC[data] == "cos" else x

def busy():
    f = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
    return sum(f[:3] + f[5:]) * 0.01            # all CPU seconds used on this machine, iowait and idle left out

def mem_ns(rows=[]):
    """ns per random 512-byte row out of 256 MiB (numpy take, best of 5): how fast the shared memory system is now"""
    import numpy as np
    if not rows:
        rows += [np.ones((1 << 19, 128), np.float32), np.random.default_rng(1).integers(0, 1 << 19, 50000), np.empty((50000, 128), np.float32)]
    best = 1e9
    for _ in range(5):
        t = time.perf_counter(); np.take(rows[0], rows[1], 0, out=rows[2], mode="clip"); best = min(best, time.perf_counter() - t)
    return round(best / 50000 * 1e9)

def measure(fn, reps, clean=0.15, tries=6):
    """seconds per fn(): the best of `reps` runs of >= 0.1 s during which other processes used < clean CPUs.
    Gives up on cleanness after `tries` runs.  -> (seconds, CPUs used by others, own CPUs, result)"""
    good, bad = [], []
    for _ in range(tries):
        b, c, t, n = busy(), time.process_time(), time.perf_counter(), 0
        while n == 0 or time.perf_counter() - t < 0.1:
            r = fn(); n += 1
        w = time.perf_counter() - t
        own = (time.process_time() - c) / w; foreign = max(0.0, (busy() - b) / w - own)
        (good if foreign < clean + 0.01 / w else bad).append((w / n, round(foreign, 2), round(own, 2), r))
        if len(good) == reps:
            break
        if bad and bad[-1][1] == round(foreign, 2):
            time.sleep(0.1)
    return min(good or bad, key=lambda x: x[0])

class Peer:
    """build(X, path, threads); load(path, data) ; search(Q, ef, threads) -> ids [nq, K]"""
    grid = EF
    def __init__(self, metric, dim, n, opt=""):
        self.cos, self.dim, self.n, self.opt = metric != "l2", dim, n, opt   # ip: as cos, but the vectors keep their lengths
    def loop(self, one, Q, threads):
        """for libraries without a batch call: a Python loop per thread"""
        import numpy as np
        if threads == 1:
            return np.array([one(q) for q in Q])
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(threads) as ex:
            parts = list(ex.map(lambda p: [one(q) for q in p], np.array_split(Q, threads)))
        return np.array([r for p in parts for r in p])

class Hnswlib(Peer):
    def _new(self):
        import hnswlib
        return hnswlib.Index("ip" if self.cos else "l2", self.dim)
    def build(self, X, path, threads):
        ix = self._new(); ix.init_index(len(X), ef_construction=200, M=16)
        ix.add_items(X, num_threads=threads); ix.save_index(path)
    def load(self, path, data):
        self.ix = self._new(); self.ix.load_index(path)
    def search(self, Q, ef, threads):
        self.ix.set_ef(ef)
        return self.ix.knn_query(Q, K, num_threads=threads)[0]

class FaissHnsw(Peer):
    def build(self, X, path, threads):
        import faiss
        faiss.omp_set_num_threads(threads)
        m = faiss.METRIC_INNER_PRODUCT if self.cos else faiss.METRIC_L2
        if self.opt == "hnsw":
            ix = faiss.IndexHNSWFlat(self.dim, 16, m)
        else:
            ix = faiss.IndexHNSWSQ(self.dim, faiss.ScalarQuantizer.QT_8bit, 16, m)
        ix.hnsw.efConstruction = 200
        if not ix.is_trained:
            ix.train(X)
        ix.add(X); faiss.write_index(ix, path)
    def load(self, path, data):
        import faiss
        self.ix = faiss.read_index(path)
    def search(self, Q, ef, threads):
        import faiss
        faiss.omp_set_num_threads(threads)
        self.ix.hnsw.efSearch = ef
        return self.ix.search(Q, K)[1]

class FaissIvf(Peer):
    grid = [(p, f) for f in (5, 20) for p in (2, 6, 12, 24, 48, 96, 192)]
    def build(self, X, path, threads):
        import faiss
        faiss.omp_set_num_threads(threads)
        nlist = 2 ** round(math.log2(2 * math.sqrt(self.n)))
        m = faiss.METRIC_INNER_PRODUCT if self.cos else faiss.METRIC_L2
        code = f"PQ{self.dim // 2}x4fs" if self.opt == "pqfs" else "RaBitQfs"
        ix = faiss.index_factory(self.dim, f"IVF{nlist},{code},RFlat", m)
        ix.train(X); ix.add(X); faiss.write_index(ix, path)
    def load(self, path, data):
        import faiss
        self.ix = faiss.read_index(path); self.ivf = faiss.extract_index_ivf(self.ix)
    def search(self, Q, ef, threads):
        import faiss
        faiss.omp_set_num_threads(threads)
        self.ivf.nprobe, self.ix.k_factor = ef
        return self.ix.search(Q, K)[1]

class Usearch(Peer):
    def build(self, X, path, threads):
        import numpy as np
        from usearch.index import Index
        ix = Index(ndim=self.dim, metric="cos" if self.cos else "l2sq", dtype=self.opt, connectivity=16, expansion_add=200)
        ix.add(np.arange(len(X)), self._in(X), threads=threads); ix.save(path)
    def _in(self, X):      # usearch scales f32 rows to unit length when it casts to i8 (wrong for L2): hand it int8 instead
        import numpy as np
        if self.opt != "i8" or self.cos:
            return X
        lo, hi = (0, 255) if self.dim == 784 else (-2.5, 2.5)
        return np.clip(np.rint((X - lo) * (254 / (hi - lo)) - 127), -127, 127).astype(np.int8)
    def load(self, path, data):
        from usearch.index import Index
        self.ix = Index.restore(path)
    def search(self, Q, ef, threads):
        self.ix.expansion_search = ef
        return self.ix.search(self._in(Q), K, threads=threads).keys.astype("int64").reshape(len(Q), -1)  # one query comes back flat

class Glass(Peer):
    def _mod(self):
        if self.opt.endswith("-avx2"):
            self.opt = self.opt[:-5]
        import glass
        return glass
    def build(self, X, path, threads):
        g = self._mod(); g.set_num_threads(threads)
        g.Index("HNSW", "IP" if self.cos else "L2", "FP32", R=32, L=200).build(X).save(path)
    def load(self, path, data):
        g = self._mod(); gr = g.Graph(path)
        q, r = {"sq8u": ("SQ8U", ""), "sq4u-r": ("SQ4U", "FP32"), "sq8u-r": ("SQ8U", "FP32"), "fp32": ("FP32", ""), "bf16": ("BF16", ""), "fp16": ("FP16", "")}[self.opt]
        self.s = g.Searcher(gr, load_vec(data, "base"), "IP" if self.cos else "L2", q, r)
        self.s.set_ef(64); self.s.optimize(1)
    def search(self, Q, ef, threads):
        self.s.set_ef(ef)
        return self.s.batch_search(Q, K, num_threads=threads)[0]

class Svs(Peer):
    DEG = 32
    def _dist(self):
        import svs
        return svs.DistanceType.L2             # cosine data are unit vectors: same order
    def build(self, X, path, threads):
        import svs, glob
        deg = 64 if self.opt.endswith("-r64") else self.DEG
        p = svs.VamanaBuildParameters(alpha=1.2, graph_max_degree=deg, window_size=200)
        ix = svs.Vamana.build(p, X, self._dist(), num_threads=threads)
        os.makedirs(path); ix.save(path + "/c", path + "/g", path + "/d")
        for t in glob.glob(path + "/c/*.toml"):  # 0.5.0 writes 'alpha = .0', which it can not read back
            s = open(t).read(); open(t, "w").write(s.replace("alpha = .0\n", "alpha = 1.2\n"))
        q = self.opt.split("-")[0]
        if q != "f32":
            prim, res = {"lvq4x8": (4, 8), "lvq8": (8, 0), "lvq4x4": (4, 4)}[q]
            ld = svs.LVQLoader(svs.VectorDataLoader(path + "/d", svs.DataType.float32, dims=self.dim), primary=prim, residual=res,
                               padding=32)
            v = svs.Vamana(path + "/c", svs.GraphLoader(path + "/g"), ld, self._dist(), num_threads=threads)
            v.save(path + "/c2", path + "/g2", path + "/d2")
            import shutil
            for s in "cgd":
                shutil.rmtree(path + "/" + s); os.rename(path + f"/{s}2", path + "/" + s)
            for t in glob.glob(path + "/c/*.toml"):
                s = open(t).read(); open(t, "w").write(s.replace("alpha = .0\n", "alpha = 1.2\n"))
    def load(self, path, data):
        import svs
        f32 = self.opt.split("-")[0] == "f32"
        ld = svs.VectorDataLoader(path + "/d", svs.DataType.float32, dims=self.dim) if f32 else svs.LVQLoader(path + "/d", padding=32)
        self.ix = svs.Vamana(path + "/c", svs.GraphLoader(path + "/g"), ld, self._dist(), num_threads=1)
        self.sp = svs.SearchBufferConfig; self.par = self.ix.search_parameters
    def search(self, Q, ef, threads):
        if self.ix.num_threads != threads:
            self.ix.num_threads = threads
        self.par.buffer_config = self.sp(ef, ef); self.par.search_buffer_visited_set = False
        self.ix.search_parameters = self.par
        return self.ix.search(Q, K)[0].astype("int64")

class Vsag(Peer):
    def _new(self, threads=1):
        import pyvsag
        pyvsag.set_logger_off()
        ip = dict(max_degree=32, ef_construction=200, build_thread_count=threads, base_quantization_type=self.opt.split("-")[0])
        if self.opt.endswith("-r"):
            ip.update(use_reorder=True, precise_quantization_type="fp32")
        return pyvsag.Index("hgraph", json.dumps(dict(dtype="float32", metric_type="ip" if self.cos else "l2", dim=self.dim, index_param=ip)))
    def build(self, X, path, threads):
        import numpy as np
        ix = self._new(threads)
        ix.build(vectors=X.ravel(), ids=np.arange(len(X)), num_elements=len(X), dim=self.dim); ix.save(path)
    def load(self, path, data):
        self.ix = self._new(); self.ix.load(path)
    def search(self, Q, ef, threads):
        p = json.dumps(dict(hgraph=dict(ef_search=ef)))
        return self.loop(lambda q: self.ix.knn_search(vector=q, k=K, parameters=p)[0], Q, threads)

class Rabitq(Peer):
    def build(self, X, path, threads):
        import faiss, numpy as np, rabitqlib
        faiss.omp_set_num_threads(threads)
        met = "ip" if self.cos else "l2"
        km = faiss.Kmeans(self.dim, 16, niter=10, seed=1); km.train(X)
        lab = km.index.search(X, 1)[1].ravel().astype(np.uint32)
        ix = rabitqlib.HnswIndex(self.dim, len(X), 16, 200, int(self.opt), met)
        ix.build(X, km.centroids, lab, threads); ix.save(path)
    def load(self, path, data):
        import rabitqlib
        self.ix = rabitqlib.HnswIndex.load(path)
    def search(self, Q, ef, threads):
        return self.ix.search(Q, K, ef, threads)[0].astype("int64")

class Symqg(Peer):
    def build(self, X, path, threads):
        import rabitqlib
        ix = rabitqlib.SymqgIndex(self.dim, 32, "l2"); ix.build(X, 200, threads); ix.save(path)
    def load(self, path, data):
        import rabitqlib
        self.ix = rabitqlib.SymqgIndex.load(path)
    def search(self, Q, ef, threads):
        return self.ix.search_batch(Q, K, ef, threads)[0].astype("int64")

class Voyager(Peer):
    def _sdt(self):
        import voyager
        return getattr(voyager.StorageDataType, self.opt)
    def build(self, X, path, threads):
        import voyager
        ix = voyager.Index(voyager.Space.InnerProduct if self.cos else voyager.Space.Euclidean, self.dim, M=16,
                           ef_construction=200, storage_data_type=self._sdt())
        ix.add_items(X, num_threads=threads); ix.save(path)
    def load(self, path, data):
        import voyager
        self.ix = voyager.Index.load(path)
    def search(self, Q, ef, threads):
        return self.ix.query(Q, K, num_threads=threads, query_ef=ef)[0].astype("int64")

class Zvec(Peer):
    def build(self, X, path, threads):
        import numpy as np, zvec
        zvec.init(query_threads=threads, optimize_threads=threads, log_level=zvec.LogLevel.ERROR)
        kw = dict(metric_type=zvec.MetricType.IP if self.cos else zvec.MetricType.L2, m=16, ef_construction=200)
        if self.opt == "rabitq":
            par = zvec.HnswRabitqIndexParam(**kw)
        else:
            if self.opt == "int8":
                kw["quantize_type"] = zvec.QuantizeType.INT8
            par = zvec.HnswIndexParam(use_contiguous_memory=True, **kw)
        sch = zvec.CollectionSchema("c", fields=[zvec.FieldSchema("g", zvec.DataType.INT64, nullable=False, index_param=zvec.InvertIndexParam(enable_range_optimization=True))],
                                    vectors=[zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, self.dim, index_param=par)])
        c = zvec.create_and_open(path, sch)
        r = np.random.Generator(np.random.PCG64(7)).permutation(len(X))     # "g < f*n" is a random filter
        for i in range(0, len(X), 1000):
            c.insert([zvec.Doc(id=str(j), vectors={"v": X[j].tolist()}, fields={"g": int(r[j])}) for j in range(i, min(i + 1000, len(X)))])
        c.optimize(); c.flush(); del c
    def load(self, path, data):
        import numpy as np, zvec
        zvec.init(query_threads=1, log_level=zvec.LogLevel.ERROR)
        self.z = zvec; self.c = zvec.open(path, zvec.CollectionOption(read_only=True, enable_mmap=False))
        self.qp = zvec.HnswRabitqQueryParam if self.opt == "rabitq" else zvec.HnswQueryParam
        self.map = None
    def search(self, Q, ef, threads):
        import numpy as np
        z, p = self.z, self.qp(ef=ef)
        qs = list(Q)
        ids = self.loop(lambda q: self.c.query_internal_ids(z.Query("v", vector=q, param=p), topk=K), qs, threads)
        if self.map is None:       # internal ids are insertion positions; verified once through the primary keys
            ok = self.c.resolve_internal_ids(ids.ravel()) == [str(i) for i in ids.ravel()]
            self.map = "identity" if ok else "table"
        if self.map == "table":
            ids = np.array([int(s) if s else -1 for s in self.c.resolve_internal_ids(ids.ravel())]).reshape(ids.shape)
        return ids

class Scann(Peer):
    grid = [(p, r) for r in (20, 40, 80, 160, 400) for p in (4, 8, 16, 32, 64, 128, 256)]
    def build(self, X, path, threads):
        import scann
        nl = 2 ** round(math.log2(2 * math.sqrt(self.n)))
        b = scann.scann_ops_pybind.builder(X, K, "dot_product" if self.cos else "squared_l2")
        ix = b.tree(nl, 100, training_sample_size=min(self.n, 250000)).score_ah(2, anisotropic_quantization_threshold=0.2 if self.cos else float("nan")).reorder(100).build()
        os.makedirs(path); ix.serialize(path)
    def load(self, path, data):
        import scann
        self.ix = scann.scann_ops_pybind.load_searcher(path)
    def search(self, Q, ef, threads):
        import numpy as np
        f = self.ix.search_batched if threads == 1 else self.ix.search_batched_parallel
        return np.asarray(f(Q, K, pre_reorder_num_neighbors=ef[1], leaves_to_search=ef[0])[0]).astype("int64")

PEERS = {"hnswlib": (Hnswlib, ""), "faiss-hnsw": (FaissHnsw, "hnsw"), "faiss-hnsw-sq8": (FaissHnsw, "sq8"),
         "faiss-ivfpqfs": (FaissIvf, "pqfs"), "faiss-ivfrabitq": (FaissIvf, "rabitq"),
         **{f"usearch-{t}": (Usearch, t) for t in ("f32", "bf16", "f16", "i8")},
         **{f"glass-{t}": (Glass, t) for t in ("fp32", "fp16", "bf16", "sq8u", "sq8u-r", "sq4u-r", "sq8u-avx2")},
         **{f"svs-{t}": (Svs, t) for t in ("f32", "lvq8", "lvq4x4", "lvq4x8", "lvq4x8-r64")},
         **{f"vsag-{t}": (Vsag, t) for t in ("fp32", "sq8", "sq8_uniform-r", "sq4_uniform-r", "rabitq-r")},
         **{f"rabitq-hnsw{b}": (Rabitq, str(b)) for b in (4, 5, 7, 8, 9)}, "rabitq-symqg": (Symqg, ""),
         **{f"voyager-{t}": (Voyager, t) for t in ("Float32", "E4M3", "Float8")},
         **{f"zvec-{t}": (Zvec, t) for t in ("fp32", "int8", "rabitq")}, "scann-core": (Scann, "")}

L2_ONLY = (Svs, Symqg, Usearch)          # serve cosine as L2 of unit vectors; no inner product

def index_path(data, lib):
    if lib.startswith("glass"):
        lib = "glass"                    # one fp32-built graph serves every glass quantiser
    return f"{IX}/{data}.{lib}"

def w_build(a, lib):
    cls, opt = PEERS[lib]
    if METRIC[a.data] == "ip" and cls in L2_ONLY:
        sys.exit("no inner product")
    X = load_vec(a.data, "base"); p = cls(METRIC[a.data], X.shape[1], len(X), opt)
    path = index_path(a.data, lib)
    t, c, b = time.perf_counter(), time.process_time(), busy()
    p.build(X, path, a.build_threads)
    w, c = time.perf_counter() - t, time.process_time() - c
    m = dict(build_s=round(w, 1), build_cpu_s=round(c, 1), build_threads=a.build_threads, build_foreign_cpu=round(max(0, (busy() - b - c) / w), 2), disk_bytes_per_vec=round(du(path) / len(X), 1))
    json.dump(m, open(path + ".meta.json", "w")); print(json.dumps(m))

def recall(ids, base, Q, gtd, metric):
    import numpy as np
    ids = np.asarray(ids)[:, :K]; ok = ids >= 0; ids = np.where(ok, ids, 0)
    v = base[ids].astype(np.float64)
    if metric == "l2":
        d = ((v - Q[:, None, :].astype(np.float64)) ** 2).sum(2)
    else:
        d = (metric == "cos") - np.einsum("qkd,qd->qk", v, Q.astype(np.float64))
    last = gtd[:, K - 1:K]
    return float(((d <= last + 1e-6 * np.abs(last) + 1e-6 * (metric == "cos")) & ok).sum() / (len(Q) * K))

def front(pts):
    """Pareto front by (recall up, qps): only points no other beats"""
    out = []
    for r, q, e in sorted(pts, key=lambda x: (-x[0], -x[1])):
        if not out or q > out[-1][1]:
            out.append((r, q, e))
    return out[::-1]

def at_recall(pts, target):
    f = front(pts)
    if not f or f[-1][0] < target:
        return None
    if f[0][0] >= target:
        return round(f[0][1])                       # even the cheapest setting is above the target
    for (r0, q0, _), (r1, q1, _) in zip(f, f[1:]):
        if r0 < target <= r1:
            return round(math.exp(math.log(q0) + (target - r0) / (r1 - r0) * (math.log(q1) - math.log(q0))))

def w_search(a, lib):
    import numpy as np
    Q = load_vec(a.data, "query"); gtd = np.load(f"{D}/{a.data}.gtd.npy")
    bm = np.load(f"{D}/{a.data}.base.npy", mmap_mode="r"); n, dim = bm.shape
    cls, opt = PEERS[lib]; p = cls(METRIC[a.data], dim, n, opt); path = index_path(a.data, lib)
    r0, t0 = rss(), time.perf_counter()
    p.load(path, a.data); p.search(Q[:1], p.grid[len(p.grid) // 2], 1)
    load_s, mem = time.perf_counter() - t0, rss() - r0
    base = load_vec(a.data, "base")
    for e in p.grid[:2]:
        p.search(Q, e, a.threads)
    if a.per_call:
        batch = p.search
        p.search = lambda Q, e, t: np.concatenate([np.asarray(batch(Q[i:i + 1], e, 1))[:, :K] for i in range(len(Q))])
    pts, fs, foreign, mem0, grid = [], {}, 0.0, mem_ns(), p.grid
    rec = lambda ids: round(recall(ids, base, Q, gtd, METRIC[a.data]), 4)
    if not a.curve and not isinstance(grid[0], tuple):     # untimed bisection: only the two settings around each target
        seen, keep = {}, set()
        for t in a.recall:
            lo, hi = -1, len(grid) - 1
            while hi - lo > 1:
                mid = (lo + hi) // 2
                if mid not in seen:
                    seen[mid] = rec(p.search(Q, grid[mid], a.threads))
                lo, hi = (lo, mid) if seen[mid] >= t else (mid, hi)
            keep |= {max(lo, 0), hi}
        grid = [grid[i] for i in sorted(keep)]
    for e in grid:
        best, f, own, ids = measure(lambda: p.search(Q, e, a.threads), a.reps)
        foreign = max(foreign, f)
        pts.append((rec(ids), round(len(Q) / best, 1), e)); fs[e] = f
        if not isinstance(e, tuple) and (best > a.max_s or a.curve and (pts[-1][0] > 0.9975 or (
                len(pts) > 4 and pts[-1][0] - pts[-5][0] < 0.0008))):
            break
    meta = json.load(open(path + ".meta.json"))
    out = dict(lib=lib, data=a.data, per_call=a.per_call, threads=a.threads, n=n, dim=dim, **{f"qps@{r}": at_recall(pts, r) for r in a.recall},
               load_s=round(load_s, 2), mem_bytes_per_vec=round(mem / n, 1), foreign_cpu=foreign, mem_ns=[mem0, mem_ns()], **meta)
    out["points"] = [dict(recall=r, qps=q, ef=e, foreign=fs[e]) for r, q, e in front(pts)]
    print(json.dumps(out))

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", required=True); ap.add_argument("--libs", default="hnswlib,faiss,best")
    ap.add_argument("--threads", type=int, default=1); ap.add_argument("--build-threads", type=int, default=2)
    ap.add_argument("--recall", type=lambda s: [float(x) for x in s.split(",")], default=[0.9, 0.95, 0.99])
    ap.add_argument("--reps", type=int, default=2); ap.add_argument("--max-s", type=float, default=4.0, help="stop a sweep when 1000 queries take longer")
    ap.add_argument("--curve", action="store_true"); ap.add_argument("--build-only", action="store_true"); ap.add_argument("--rebuild", action="store_true")
    ap.add_argument("--per-call", action="store_true", help="one query a call (from Python, whose own cost is in it) instead of all 1000")
    ap.add_argument("--timeout", type=int, default=36000); ap.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.worker:
        return (w_build if a.worker[0] == "build" else w_search)(a, a.worker[1])
    os.makedirs(IX, exist_ok=True)
    libs = list(PEERS) if a.libs == "all" else [x for l in a.libs.split(",") for x in GROUPS.get(l, [l])]
    def run(kind, lib):
        args = [sys.executable, __file__, "--worker", kind, lib] + [x for x in sys.argv[1:] if x not in ("--rebuild",)]
        r = subprocess.run(args, capture_output=True, text=True, timeout=a.timeout,
                           env=dict(os.environ, OMP_NUM_THREADS=str(a.build_threads if kind == "build" else a.threads), OMP_WAIT_POLICY="passive"))
        lines = [l for l in r.stdout.splitlines() if l.startswith("{")]
        return lines[-1] if r.returncode == 0 and lines else json.dumps(dict(lib=lib, data=a.data, error=f"{kind} rc={r.returncode}: " + r.stderr.strip()[-300:]))

    for lib in libs:
        path = index_path(a.data, lib)
        if a.rebuild or not os.path.exists(path + ".meta.json"):
            subprocess.run(["rm", "-rf", path, path + ".meta.json"])
            b = run("build", lib)
            if a.build_only or "error" in b:
                print(json.dumps(dict(lib=lib, data=a.data, **json.loads(b))) if "error" not in b else b, flush=True)
        if not a.build_only and os.path.exists(path + ".meta.json"):
            print(run("search", lib), flush=True)

if __name__ == "__main__":
    main()
