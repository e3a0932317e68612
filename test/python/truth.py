"""What is right, by numpy in double precision."""

import numpy as np

TOLERANCE = 1e-5  # of a score, relative to its size if that is above 1


def scores(metric, queries, base):
    """Scores of each query with each row; see proto for what they mean."""
    q, b = queries.astype(np.float64), base.astype(np.float64)
    if metric == "L2":
        return np.maximum((q * q).sum(1)[:, None] - 2 * q @ b.T + (b * b).sum(1)[None, :], 0)
    if metric == "COSINE":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return q @ b.T


def best(metric, s, k):
    """The k best scores of each row of s, best first."""
    return np.sort(s, axis=1)[:, :k] if metric == "L2" else -np.sort(-s, axis=1)[:, :k]


def close(a, b):
    return np.abs(a - b) <= TOLERANCE * np.maximum(1, np.abs(b))


def exact(metric, queries, base, keys, k, got_ids, got_scores):
    """Says what is wrong with an exact answer, "" if nothing is.

    The answer has to hold the k best scores; which of the rows with equal
    scores it holds is free.
    """
    s = scores(metric, queries, base)
    want = best(metric, s, k)
    row_of = {int(key): i for i, key in enumerate(keys)}
    for q, (ids, sc) in enumerate(zip(got_ids, got_scores)):
        if len(ids) != want.shape[1]:
            return f"query {q}: {len(ids)} hits, want {want.shape[1]}"
        if len(set(ids.tolist())) != len(ids):
            return f"query {q}: a key is there twice: {ids}"
        unknown = [i for i in ids.tolist() if i not in row_of]
        if unknown:
            return f"query {q}: keys {unknown} should not be there"
        true = s[q, [row_of[i] for i in ids.tolist()]]
        if not close(sc, true).all():
            return f"query {q}: scores {sc}, the rows have {true}"
        if not close(sc, want[q]).all():
            return f"query {q}: scores {sc}, the best are {want[q]}"
    return ""


def recall(metric, queries, base, keys, k, got_ids):
    """Share of the hits that are as good as the k best."""
    s = scores(metric, queries, base)
    worst = best(metric, s, k)[:, -1]
    row_of = {int(key): i for i, key in enumerate(keys)}
    good = 0
    for q, ids in enumerate(got_ids):
        true = s[q, [row_of[i] for i in ids.tolist()]]
        margin = TOLERANCE * max(1, abs(worst[q]))
        good += int((true <= worst[q] + margin).sum() if metric == "L2" else (true >= worst[q] - margin).sum())
    return good / (len(got_ids) * k)
