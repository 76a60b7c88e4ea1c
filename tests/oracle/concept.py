"""The learned ConceptSelector, written from its definition alone (MODEL.md section 3b) in float64, and goldens for it.

    python tests/oracle/concept.py            (from the repository root; writes tests/golden/concept/*.safetensors)

Needs numpy 2.4.6, safetensors 0.8.0. Dot products are taken one at a time, so that equal rows have equal scores whatever their place.

A case is only written when every choice is clear: the last kept and the first dropped score differ by at least GAP, or are exactly equal (equal rows, or
both at the floor of ln 1e-8), and no score lies within GAP of the floor without being at it.
  NAME.safetensors: v (L, D), text (m, D), q, k (D, D), queries (1, 32, D), gate (1, D), bias (1) float32; score (L) float64; kept.K ascending; gap.K (1)
"""
import os

import numpy as np
from safetensors.numpy import save_file

FOLDER = "tests/golden/concept"
HEADS = 8
GAP = 1e-3
FLOOR = np.log(1e-8)

# name, L, D, m, budgets, kind of rows, bias of the gate
CASES = [
    ("random", 50, 16, 5, (1, 7, 49, 50, 64), "random", 0.3),
    ("one-text-row", 40, 24, 1, (5, 33), "random", -0.5),
    ("long-text", 30, 40, 60, (8,), "random", 0.0),
    ("gate-open", 45, 16, 6, (9,), "random", 40.0),     # g = 1: only the learned queries
    ("gate-shut", 45, 16, 6, (9,), "random", -40.0),    # g = 0: only the text
    ("duplicated", 60, 16, 4, (4, 20, 31, 59), "duplicated", 0.1),
    ("constant", 12, 8, 3, (5,), "constant", 0.1),
    ("floor", 60, 40, 4, (6, 45), "floor", 0.2),        # a few long rows take all attention, most scores are at the floor
    ("zero-rows", 25, 16, 3, (10,), "zero", 0.2),
    ("wide", 33, 64, 9, (10,), "random", 0.2),
]


def dots(a, b):
    """a (n, D), b (m, D) -> (n, m), each a sum of its own."""
    return np.array([[np.dot(x, y) for y in b] for x in a])


def scores(v, text, q, k, queries, gate, bias):
    v, text, q, k, queries, gate = (x.astype(np.float64) for x in (v, text, q, k, queries[0], gate))
    g = 1 / (1 + np.exp(-(np.dot(gate[0], text.mean(axis=0)) + float(bias[0]))))
    concepts = np.concatenate([g * queries, (1 - g) * text])
    query, key, d = dots(concepts, q), dots(v, k), v.shape[1] // HEADS
    mean = np.zeros(len(v))
    for h in range(HEADS):
        part = slice(h * d, (h + 1) * d)
        z = dots(query[:, part], key[:, part]) / np.sqrt(d)  # (concepts, tokens)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        mean += (e / e.sum(axis=1, keepdims=True)).max(axis=0) / HEADS
    return np.log(np.maximum(1e-8, mean))


def keep(score, k):
    """Ascending indices of the k largest (lowest index on a tie), and the distance to the best dropped one."""
    if len(score) <= k:
        return np.arange(len(score)), np.inf
    order = np.lexsort((np.arange(len(score)), -score))
    return np.sort(order[:k]), score[order[k - 1]] - score[order[k]]


def make_rows(kind, n, d, rng):
    rows = rng.normal(size=(n, d))
    if kind == "duplicated":  # every row three times, scattered
        rows = rows[rng.permutation(np.repeat(np.arange((n + 2) // 3), 3)[:n])]
    if kind == "constant":
        rows[:] = rows[0]
    if kind == "floor":
        rows *= np.where(np.arange(n) % 3 == 1, 40.0, 0.2)[:, None]
    if kind == "zero":
        rows[[3, 11, 12]] = 0.0
    return rows.astype(np.float32)


def make(case, seed):
    name, n, d, m, budgets, kind, bias = case
    rng = np.random.default_rng(seed)

    def matrix(rows):
        return (rng.normal(size=(rows, d)) / np.sqrt(d)).astype(np.float32)

    t = dict(v=make_rows(kind, n, d, rng), text=rng.normal(size=(m, d)).astype(np.float32), q=2 * matrix(d), k=2 * matrix(d),
             queries=rng.normal(size=(1, 32, d)).astype(np.float32), gate=matrix(1), bias=np.array([bias], dtype=np.float32))
    score = scores(**t)
    above = score[score > FLOOR]
    if np.any(above - FLOOR < GAP):
        return None
    t["score"] = score
    for k in budgets:
        kept, gap = keep(score, k)
        if 0 < gap < GAP:
            return None
        t[f"kept.{k}"], t[f"gap.{k}"] = kept.astype(np.int64), np.array([gap])
    return t


def main():
    os.makedirs(FOLDER, exist_ok=True)
    for number, case in enumerate(CASES):
        seed = 1000 * number
        while (t := make(case, seed)) is None:
            seed += 1
        save_file({key: np.ascontiguousarray(x) for key, x in t.items()}, f"{FOLDER}/{case[0]}.safetensors")
        gaps = " ".join(f"{k}:{t[f'gap.{k}'][0]:.1e}" for k in case[4])
        print(f"{case[0]:14s} seed {seed}, gaps {gaps}, at the floor {int((t['score'] <= FLOOR).sum())} of {case[1]}")


if __name__ == "__main__":
    main()
