"""Random rows with scalars: filters, deletes and upserts against numpy masks,
with restarts in the middle."""

import signal

import numpy as np
from querynode.v1 import types_pb2

import truth
from node import Collection, field

ROWS, DIM, K = 6000, 32, 10


def make(rng, ids):
    n = len(ids)
    return {
        "id": ids,
        "small": rng.integers(-128, 128, n).astype(np.int64),
        "price": rng.normal(100, 30, n),
        "flag": rng.random(n) < 0.5,
        "color": [None if rng.random() < 0.1 else ("red", "green", "blue", "blau äöü")[rng.integers(4)] for _ in range(n)],
        "v": rng.normal(size=(n, DIM)).astype(np.float32),
    }


class Model:
    """The rows that should be there: a dict of arrays, ordered by key."""

    def __init__(self):
        self.rows = None

    def put(self, rows):
        if self.rows is not None:
            keep = ~np.isin(self.rows["id"], rows["id"])
            rows = {k: self._join(self._pick(self.rows[k], keep), v) for k, v in rows.items()}
        order = np.argsort(rows["id"])
        self.rows = {k: [v[i] for i in order] if isinstance(v, list) else v[order] for k, v in rows.items()}

    def drop(self, mask):
        self.rows = {k: self._pick(v, ~mask) for k, v in self.rows.items()}

    @staticmethod
    def _pick(v, mask):
        return [x for x, m in zip(v, mask) if m] if isinstance(v, list) else v[mask]

    @staticmethod
    def _join(a, b):
        return a + b if isinstance(a, list) else np.concatenate([a, b])

    def color(self, fn):
        return np.array([c is not None and fn(c) for c in self.rows["color"]])


def filters(m):
    r = m.rows
    return {
        "small > 100": r["small"] > 100,
        "small in [1, 2, 3, -128]": np.isin(r["small"], [1, 2, 3, -128]),
        "-10 <= small < 10": (r["small"] >= -10) & (r["small"] < 10),
        "price < 60.5 or price > 150": (r["price"] < 60.5) | (r["price"] > 150),
        "flag": r["flag"],
        "not flag and small % 2 == 0": ~r["flag"] & (r["small"] % 2 == 0),
        "color == 'red'": m.color(lambda c: c == "red"),
        "color != 'red'": m.color(lambda c: c != "red"),
        "color like 'bl%'": m.color(lambda c: c.startswith("bl")),
        "color == 'blau äöü'": m.color(lambda c: c == "blau äöü"),
        "color is null": ~m.color(lambda c: True),
        "not (color in ['red', 'green'])": m.color(lambda c: c not in ("red", "green")),
        "color in [] or starts_with(color, 'gr')": m.color(lambda c: c.startswith("gr")),
        "color =~ '^[a-d]l' && small ** 2 > 100": m.color(lambda c: c.startswith("bl")) & (r["small"] ** 2 > 100),
        "price * 2 - 50 >= small": r["price"] * 2 - 50 >= r["small"],
        "id >= 100 and id < 200 and price > 100": (r["id"] >= 100) & (r["id"] < 200) & (r["price"] > 100),
        "small > 1000": np.zeros(len(r["id"]), bool),
        "id == 77": r["id"] == 77,
    }


def run(report, node, _):
    rng = np.random.default_rng(2)
    model = Model()
    c = Collection(node, "scalars", [
        field("id", types_pb2.DATA_TYPE_INT64, primary_key=True),
        field("small", types_pb2.DATA_TYPE_INT8),
        field("price", types_pb2.DATA_TYPE_DOUBLE),
        field("flag", types_pb2.DATA_TYPE_BOOL),
        field("color", types_pb2.DATA_TYPE_VARCHAR, nullable=True),
        field("v", types_pb2.DATA_TYPE_FLOAT_VECTOR, dim=DIM),
    ], "v", types_pb2.IndexSpec(field="v", type="FLAT", metric="IP"))
    queries = rng.normal(size=(20, DIM)).astype(np.float32)

    rows = make(rng, rng.permutation(ROWS).astype(np.int64))
    c.put(rows)
    model.put(rows)
    compare(report, c, model, queries, "growing")

    gone = rng.choice(ROWS, 500, replace=False)
    c.delete(ids=gone)
    model.drop(np.isin(model.rows["id"], gone))
    c.delete(where="small > 100 and flag")
    model.drop((model.rows["small"] > 100) & model.rows["flag"])
    compare(report, c, model, queries, "deletes")

    c.flush()
    rows = make(rng, np.concatenate([rng.choice(ROWS, 700, replace=False), np.arange(ROWS, ROWS + 300)]).astype(np.int64))
    c.put(rows, upsert=True, batch=400)
    model.put(rows)
    compare(report, c, model, queries, "upserts")

    code = node.stop(signal.SIGTERM)
    node.start()
    report.check("scalars: stopped and started again", code == 0, f"exit code {code}")
    compare(report, c, model, queries, "after a restart")

    gone = rng.choice(ROWS, 300, replace=False)
    c.delete(ids=gone)
    model.drop(np.isin(model.rows["id"], gone))
    node.stop(signal.SIGKILL)
    node.start()
    compare(report, c, model, queries, "deletes, kill -9")
    c.flush()
    compare(report, c, model, queries, "all sealed")


def compare(report, c, model, queries, when):
    report.right(f"scalars: all rows, {when}", differs(c, model))
    wrong = ""
    for text, mask in filters(model).items():
        if c.count(text) != int(mask.sum()):
            wrong = wrong or f"{text}: {c.count(text)} rows, numpy has {int(mask.sum())}"
        keys, base = model.rows["id"][mask], model.rows["v"][mask]
        ids, scores = c.search(queries, K, filter=text)
        if not mask.any():
            bad = "" if all(len(i) == 0 for i in ids) else "hits where no row matches"
        else:
            bad = truth.exact("IP", queries, base, keys, K, ids, scores)
        wrong = wrong or (bad and f"{text}: {bad}")
    report.right(f"scalars: {len(filters(model))} filters, {when}", wrong)


def differs(c, model):
    """Says how the rows of the collection differ from the model, "" if not."""
    got = c.rows(fields=["*"])
    for name, want in model.rows.items():
        have = got.get(name, [])
        want = want.ravel().tolist() if not isinstance(want, list) else want
        if have != want:
            at = next((i for i, (a, b) in enumerate(zip(have, want)) if a != b), min(len(have), len(want)))
            return f"{name}: {len(have)} values, want {len(want)}; the first that differs is {at}: {have[at:at + 1]} {want[at:at + 1]}"
    return ""
