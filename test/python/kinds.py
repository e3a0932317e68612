"""Vectors of other numbers than float32, of bits and sparse ones, five fields of
one collection: each searched exactly, with values for the filter sent apart, while
rows are in memory, in files and after a restart."""

import signal

import numpy as np
from querynode.v1 import catalog_pb2, query_pb2, types_pb2, write_pb2

import truth
from node import STRONG, TIMEOUT, column, field

ROWS, DIM, WORDS, K = 3000, 48, 400, 10
FIELDS = {
    "half": (types_pb2.DATA_TYPE_FLOAT16_VECTOR, "L2"),
    "brain": (types_pb2.DATA_TYPE_BFLOAT16_VECTOR, "COSINE"),
    "small": (types_pb2.DATA_TYPE_INT8_VECTOR, "IP"),
    "bits": (types_pb2.DATA_TYPE_BINARY_VECTOR, "HAMMING"),
    "spread": (types_pb2.DATA_TYPE_SPARSE_FLOAT_VECTOR, "IP"),
}


def brain(x):
    """float32 rounded to 16 bits, to the nearest, ties to even."""
    u = x.astype("<f4").view("<u4").astype(np.uint64)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2")


def make(rng, n):
    spread = rng.random((n, WORDS)).astype(np.float32)
    spread[rng.random((n, WORDS)) > 0.02] = 0
    return {
        "half": rng.normal(size=(n, DIM)).astype("<f2"),
        "brain": brain(rng.normal(size=(n, DIM)).astype(np.float32)),
        "small": rng.integers(-128, 128, (n, DIM)).astype(np.int8),
        "bits": rng.integers(0, 2, (n, DIM)).astype(np.uint8),
        "spread": spread,
    }


def wire(name, part):
    """The API form of vectors, by the name of its field in a message."""
    if name == "spread":
        out = types_pb2.SparseVectors()
        for row in part:
            at = np.flatnonzero(row)
            out.lengths.append(len(at))
            out.indices.extend(at.tolist())
            out.values.extend(row[at].tolist())
        return {"sparse_vectors": out}
    raw = np.packbits(part, axis=1) if name == "bits" else part
    return {"byte_vectors": types_pb2.ByteVectors(dim=DIM, raw=raw.tobytes())}


def numbers(name, part):
    """What the vectors are, in double precision."""
    if name == "brain":
        part = (part.astype("<u4") << 16).view("<f4")
    return part.astype(np.float64)


def value(v):
    if isinstance(v, list):
        if isinstance(v[0], str):
            return types_pb2.Value(strings=types_pb2.StringArray(values=v))
        return types_pb2.Value(ints=types_pb2.Int64Array(values=v))
    return types_pb2.Value(string_value=v) if isinstance(v, str) else types_pb2.Value(int_value=v)


class Kinds:
    """The collection and the rows that should be in it."""

    def __init__(self, node, rng):
        self.node = node
        self.rows = make(rng, ROWS)
        self.color = rng.choice(["red", "green", "blau"], ROWS)
        self.there = np.ones(ROWS, bool)
        fields = [field("id", types_pb2.DATA_TYPE_INT64, primary_key=True), field("color", types_pb2.DATA_TYPE_VARCHAR)]
        fields += [field(n, t, **({} if n == "spread" else {"dim": DIM})) for n, (t, _) in FIELDS.items()]
        indexes = [types_pb2.IndexSpec(field=n, type="AUTOINDEX" if n == "spread" else "FLAT", metric=m) for n, (_, m) in FIELDS.items()]
        node.catalog.CreateCollection(catalog_pb2.CreateCollectionRequest(
            name="kinds", schema=types_pb2.CollectionSchema(fields=fields), indexes=indexes), timeout=TIMEOUT)
        for at in range(0, ROWS, 1000):
            part = slice(at, at + 1000)
            data = [column("id", np.arange(at, at + 1000, dtype=np.int64)), column("color", self.color[part].tolist())]
            data += [types_pb2.FieldData(field=n, **wire(n, v[part])) for n, v in self.rows.items()]
            node.write.Append(write_pb2.AppendRequest(collection="kinds", insert=write_pb2.InsertOperation(rows=1000, fields=data)), timeout=TIMEOUT)

    def flush(self):
        self.node.write.Flush(write_pb2.FlushRequest(collection="kinds", wait=True), timeout=TIMEOUT)

    def delete(self, where, mask, **values):
        op = write_pb2.DeleteOperation(filter=where, filter_values={k: value(v) for k, v in values.items()})
        self.node.write.Append(write_pb2.AppendRequest(collection="kinds", delete=op), timeout=TIMEOUT)
        self.there &= ~mask

    def search(self, name, queries, where="", **values):
        r = self.node.query.Search(query_pb2.SearchRequest(
            collection="kinds", field=name, top_k=K, freshness=STRONG, filter=where, filter_values={k: value(v) for k, v in values.items()},
            **wire(name, queries)), timeout=TIMEOUT)
        ends = np.cumsum(r.counts)
        return np.split(np.array(r.ids.ints.values, dtype=np.int64), ends[:-1]), np.split(np.array(r.scores, dtype=np.float32), ends[:-1])

    def hybrid(self, queries, where, **values):
        searches = [query_pb2.SubSearch(field=n, top_k=ROWS, filter=where, filter_values={k: value(v) for k, v in values.items()}, **wire(n, q))
                    for n, q in queries.items()]
        weights = query_pb2.WeightedRanker(weights=[1.0] * len(searches))
        r = self.node.query.HybridSearch(query_pb2.HybridSearchRequest(
            collection="kinds", searches=searches, weighted=weights, top_k=K, freshness=STRONG), timeout=TIMEOUT)
        ends = np.cumsum(r.counts)
        return np.split(np.array(r.ids.ints.values, dtype=np.int64), ends[:-1]), np.split(np.array(r.scores, dtype=np.float32), ends[:-1])

    def truth(self, name, queries, keep):
        """What numpy has for the rows of keep: keys and scores of each query."""
        q, b = numbers(name, queries), numbers(name, self.rows[name][keep])
        metric = FIELDS[name][1]
        if metric == "HAMMING":
            return (q[:, None, :] != b[None, :, :]).sum(2)
        return truth.scores(metric, q, b)


def differs(c, name, queries, ids, scores, keep):
    """Says what is wrong with an exact answer, "" if nothing is."""
    metric, keys = FIELDS[name][1], np.flatnonzero(keep)
    near = metric in ("L2", "HAMMING")
    for q, s in enumerate(c.truth(name, queries, keep)):
        if name == "spread":
            keys_q, s = keys[s > 0], s[s > 0]  # a row that shares no dimension is not found
        else:
            keys_q = keys
        want = np.sort(s if near else -s)[:K] * (1 if near else -1)
        row_of = {int(k): i for i, k in enumerate(keys_q)}
        got = ids[q].tolist()
        if len(got) != len(want) or len(set(got)) != len(got) or any(i not in row_of for i in got):
            return f"query {q}: keys {got}, want {len(want)} of {len(keys_q)}"
        own = s[[row_of[i] for i in got]]
        if not truth.close(scores[q], own).all() or not truth.close(scores[q], want).all():
            return f"query {q}: scores {scores[q]}, the rows have {own}, the best are {want}"
    return ""


def compare(report, c, rng, when):
    queries = make(rng, 20)
    conditions = {
        "": (np.ones(ROWS, bool), {}),
        "color in {colors} and id < {most}": (np.isin(c.color, ["red", "blau"]) & (np.arange(ROWS) < 2500), {"colors": ["red", "blau"], "most": 2500}),
        "id in {ids}": (np.isin(np.arange(ROWS), np.arange(0, ROWS, 97)), {"ids": list(range(0, ROWS, 97))}),
        "color like {pattern}": (c.color == "green", {"pattern": "gr%"}),
    }
    for name in FIELDS:
        wrong = ""
        for where, (mask, values) in conditions.items():
            ids, scores = c.search(name, queries[name], where, **values)
            bad = differs(c, name, queries[name], ids, scores, mask & c.there)
            wrong = wrong or (bad and f"{where}: {bad}")
        report.right(f"kinds: {name}, {len(conditions)} filters, {when}", wrong)
    together(report, c, queries, when)


def together(report, c, queries, when):
    """Two fields fused by scores, which IP leaves as they are."""
    mask = (c.color == "red") & c.there
    keys = np.flatnonzero(mask)
    ids, scores = c.hybrid({n: queries[n] for n in ("small", "spread")}, "color == {color}", color="red")
    s = sum(c.truth(n, queries[n], mask) for n in ("small", "spread"))
    wrong = ""
    for q, got in enumerate(ids):
        own = s[q, np.searchsorted(keys, got)]
        if not np.isin(got, keys).all() or not truth.close(scores[q], own).all() or not truth.close(scores[q], -np.sort(-s[q])[:K]).all():
            wrong = f"query {q}: keys {got} scores {scores[q]}, the rows have {own}"
    report.right(f"kinds: two fields at once, {when}", wrong)


def run(report, node, _):
    rng = np.random.default_rng(5)
    c = Kinds(node, rng)
    compare(report, c, rng, "growing")
    c.delete("id in {ids} or color == {color} and id >= {least}",
             np.isin(np.arange(ROWS), [1, 2, 97]) | (c.color == "blau") & (np.arange(ROWS) >= 2000), ids=[1, 2, 97], color="blau", least=2000)
    compare(report, c, rng, "deletes")
    c.flush()
    compare(report, c, rng, "sealed")
    code = node.stop(signal.SIGTERM)
    node.start()
    report.check("kinds: stopped and started again", code == 0, f"exit code {code}")
    compare(report, c, rng, "after a restart")
