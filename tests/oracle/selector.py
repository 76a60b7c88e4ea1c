"""Coverage token selection, written from its definition alone (MODEL.md section 3), and goldens for it.

    python tests/oracle/selector.py            (from the repository root; writes tests/golden/tiny-selector/*.safetensors)

Needs numpy 2.4.6, safetensors 0.8.0 (other versions will do: nothing here depends on the order of a library's sums).

Not here: the learned selector.
"""
import numpy as np

EPS = 1e-12


def f32(x):
    return np.asarray(x, dtype=np.float64).astype(np.float32)


def unit_rows(x):
    """Rows of unit length, float32. The norm's sum runs in float64 and is rounded once."""
    x = x.astype(np.float32)
    norm = f32(np.sqrt((x.astype(np.float64) ** 2).sum(axis=1)))
    return x / np.maximum(norm, np.float32(EPS))[:, None]


def softmax_over_columns(a, b, temperature, dtype):
    """softmax over j of (a_i . b_j / temperature). In float32 every result (similarity, quotient, exp, sum, quotient) is the exact one rounded
    once, so equal rows give equal bits whatever their place; in float64 nothing is rounded on the way."""
    if dtype == np.float64:
        s = a @ b.T / temperature
        e = np.exp(s - s.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)
    # One dot product at a time, not one matrix product: the same order of sums for every (i, j).
    s = f32([[np.dot(x, y) for y in b.astype(np.float64)] for x in a.astype(np.float64)]) / np.float32(temperature)
    e = f32(np.exp((s - s.max(axis=1, keepdims=True)).astype(np.float64)))
    return e / f32(e.astype(np.float64).sum(axis=1))[:, None]


def coverage_matrix(v, t, dtype=np.float32):
    """C, rows to be covered x columns to choose from."""
    if dtype == np.float64:
        v = v.astype(np.float64) / np.maximum(np.sqrt((v.astype(np.float64) ** 2).sum(axis=1, keepdims=True)), EPS)
        t = None if t is None else t.astype(np.float64) / np.maximum(np.sqrt((t.astype(np.float64) ** 2).sum(axis=1, keepdims=True)), EPS)
    else:
        v, t = unit_rows(v), None if t is None else unit_rows(t)
    q = softmax_over_columns(v, v, 0.2, dtype) / dtype(len(v))
    if t is None or len(t) == 0:
        return q
    return np.concatenate([softmax_over_columns(t, v, 0.02, dtype) / dtype(len(t)), dtype(0.5) * q])


def select(v, t, k, dtype=np.float32):
    """v (L, D), t (m, D) or None. Returns kept (ascending), order (as taken), gain and second (float64, as taken; second: the best gain among the
    columns that were not taken at that step, -1 when there was none). L <= k: everything, in order, no gains."""
    n = len(v)
    if n <= k:
        every = np.arange(n, dtype=np.int64)
        return dict(kept=every, order=every, gain=np.zeros(0), second=np.zeros(0))
    c = coverage_matrix(v, t, dtype).astype(np.float64)
    best, taken = np.zeros(len(c)), np.zeros(n, dtype=bool)
    order, gains, seconds = [], [], []
    for _ in range(k):
        gain = np.add.accumulate(np.maximum(0.0, c - best[:, None]), axis=0)[-1]  # accumulate: rows in ascending order
        gain[taken] = -1.0
        j = int(np.argmax(gain))  # the first of equals
        order.append(j)
        gains.append(gain[j])
        seconds.append(np.max(np.delete(gain, j), initial=-1.0))
        taken[j] = True
        best = np.maximum(best, c[:, j])
    return dict(kept=np.sort(np.array(order, dtype=np.int64)), order=np.array(order, dtype=np.int64), gain=np.array(gains), second=np.array(seconds))


def smallest_gap(result):
    """Smallest (gain - second best gain) / gain over the steps; infinity when nothing was chosen."""
    if len(result["gain"]) == 0:
        return np.inf
    return float(np.min((result["gain"] - np.maximum(result["second"], 0.0)) / np.maximum(result["gain"], 1e-300)))


# name, rows L, width D, text rows m (0: none), budgets, kind
CASES = [
    ("random", 100, 16, 0, (1, 2, 7, 64, 99), "random"),
    ("random-text", 100, 16, 9, (1, 2, 7, 64, 99), "random"),
    ("clustered", 300, 16, 0, (3, 12, 64, 128), "clustered"),
    ("clustered-text", 300, 16, 17, (3, 12, 64, 128), "clustered"),
    ("duplicated", 60, 8, 0, (5, 20, 40), "duplicated"),
    ("duplicated-text", 60, 8, 4, (5, 20, 40), "duplicated"),
    ("zero-row", 20, 8, 3, (4, 19), "zero"),
    ("two", 2, 4, 1, (1,), "random"),
    ("short", 6, 4, 2, (6, 8), "random"),
    ("odd-width", 33, 37, 5, (10,), "clustered"),
]


def make_rows(kind, n, d, rng):
    if kind == "clustered":
        centres = rng.normal(size=(9, d)) * 2
        rows = centres[rng.integers(0, 9, n)] + 0.3 * rng.normal(size=(n, d))
        rows *= rng.uniform(0.2, 30.0, size=(n, 1))  # lengths must not matter
    else:
        rows = rng.normal(size=(n, d))
    if kind == "duplicated":  # every row appears three times, scattered: exact ties, the lowest index first
        rows = rows[rng.permutation(np.repeat(np.arange((n + 2) // 3), 3)[:n])]
    if kind == "zero":
        rows[[3, 11]] = 0.0
    return rows.astype(np.float32)


def main():
    import os
    from safetensors.numpy import save_file
    folder = "tests/golden/tiny-selector"
    os.makedirs(folder, exist_ok=True)
    for number, (name, n, d, m, budgets, kind) in enumerate(CASES):
        rng = np.random.default_rng(1000 + number)
        v = make_rows(kind, n, d, rng)
        t = rng.normal(size=(m, d)).astype(np.float32) if m else None
        out = {"v": v}
        if m:
            out["text"] = t
        for k in budgets:
            r = select(v, t, k)
            exact = select(v, t, k, np.float64)
            for key in ("kept", "order", "gain", "second"):
                out[f"{key}.{k}"] = r[key]
            same = "same" if np.array_equal(r["order"], exact["order"]) else "DIFFERS"
            print(f"{name:16s} k {k:3d}  smallest relative gap {smallest_gap(r):.2e}  float64 choice: {same}")
        save_file({key: np.ascontiguousarray(x) for key, x in out.items()}, f"{folder}/{name}.safetensors")


if __name__ == "__main__":
    main()
