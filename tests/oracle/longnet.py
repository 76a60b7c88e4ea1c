"""The slide branch (LongNet), a direct evaluation of its definition in float64 (MODEL.md section 2), and goldens for it.

    python tests/oracle/longnet.py                        (from the repository root; writes tests/golden/longnet/*.safetensors; about a minute)
    python tests/oracle/longnet.py --torchscale FOLDER    (writes nothing: compares the definition below with a checkout of microsoft/torchscale)

Needs numpy 2.4.6, torch 2.15.0, safetensors 0.8.0; the second also einops 0.8.2. torchscale on PyPI (0.3.0) has no dilated attention, its repository has;
that needs a GPU's flash attention, so a plain softmax attention with its log-sum-exp takes that place in the comparison.

In: nothing but numbers from SplitMix64 (values()), which the test makes again, and the slide tensors of tests/golden/tiny-breastgpt.
  attention.safetensors  per case "N.H.d": rows (which rows are stored), o (rows, H*d) float64, of attention_dilated on q, k, v = values(1, 2, 3)
  branch.safetensors     per N: rows, and the stages under the runtime's trace names at these rows, float32 (computed in float64); features = values(4)
"""
import os
import sys
import types

import numpy as np
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file
from safetensors.torch import load_file

FOLDER = "tests/golden/longnet"
PAIRS = ((512, 1), (1024, 2), (2048, 4))
LENGTHS = (1, 7, 511, 512, 513, 1024, 2049, 6000)
HEADS = ((8, 4), (6, 5), (3, 7))  # heads and head width: 8 splits into groups of 4 and 2; 6 does for 2, not for 4; 3 never
MISSING = -1e8


def values(seed, n):
    """n numbers of 24 bits in [-2, 2): the top bits of SplitMix64."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.int64) - 2**23) / 2**22


def one_pair(q, k, v, segment, dilation):
    """q, k, v (N, H, d). Returns o (N, H, d), s (N, H)."""
    n, heads, d = q.shape
    g, r = min(segment, n), dilation
    segments, length = -(-n // g), -(-g // r) * r
    o, s = np.zeros((segments, length, heads, d)), np.full((segments, length, heads), MISSING)

    def cut(x):
        x = np.concatenate([x, np.zeros((segments * g - n, heads, d))]).reshape(segments, g, heads, d)
        return np.concatenate([x, np.zeros((segments, length - g, heads, d))], axis=1)

    q, k, v = cut(q), cut(k), cut(v)
    for h in range(heads):
        kept = np.arange(h // -(-heads // r), length, r)
        for i in range(segments):
            z = q[i, kept, h] @ k[i, kept, h].T / np.sqrt(d)
            most = z.max(axis=1, keepdims=True)
            e = np.exp(z - most)
            o[i, kept, h] = e @ v[i, kept, h] / e.sum(axis=1, keepdims=True)
            s[i, kept, h] = most[:, 0] + np.log(e.sum(axis=1))
    s[s == 0] = MISSING
    return o[:, :g].reshape(-1, heads, d)[:n], s[:, :g].reshape(-1, heads)[:n]


def dilated_attention(q, k, v, heads, pairs=PAIRS):
    """q, k, v (N, H*d) float64."""
    n, width = q.shape
    parts = [one_pair(*(x.reshape(n, heads, width // heads) for x in (q, k, v)), *pair) for pair in pairs]
    s = np.stack([p[1] for p in parts])
    w = np.exp(s - s.max(axis=0))
    w /= w.sum(axis=0)
    return sum(w[i][..., None] * p[0] for i, p in enumerate(parts)).reshape(n, width)


def sampled(n):
    if n <= 16:
        return np.arange(n)
    edges = [0, 1, 2, 3, 255, 510, 511, 512, 513, 514, 515, 1023, 1024, 1025, 2046, 2047, 2048, 2049, 4095, 4096, 5631, 5632] + list(range(n - 5, n))
    return np.array(sorted({e for e in edges if e < n} | set(np.random.default_rng(n).integers(0, n, 8).tolist())))


def branch(weights, features, heads, layers):
    """All stages, float64. features (N, d) float64 holding float32 values."""
    f = torch.nn.functional
    x = torch.tensor(features, dtype=torch.float32).bfloat16().double()
    w = {name: t.double() for name, t in weights.items() if name.startswith("slide.")}

    def affine(name, x):
        return x @ w[f"slide.{name}.weight"].T + w[f"slide.{name}.bias"]

    def norm(name, x):
        return f.layer_norm(x, x.shape[-1:], w[f"slide.{name}.weight"], w[f"slide.{name}.bias"], 1e-6)

    out = {"slide.features": x}
    for i in range(layers):
        y = norm(f"layers.{i}.ln1", x)
        q, k, v = (affine(f"layers.{i}.self_attn.{part}_proj", y).numpy() for part in "qkv")
        a = affine(f"layers.{i}.self_attn.out_proj", torch.tensor(dilated_attention(q, k, v, heads)))
        x = x + a
        b = affine(f"layers.{i}.ffn.2", f.gelu(affine(f"layers.{i}.ffn.0", norm(f"layers.{i}.ln2", x))))
        x = x + b
        out[f"slide.layer.{i}.attn"], out[f"slide.layer.{i}.ffn"], out[f"slide.layer.{i}.out"] = a, b, x
        out[f"slide.deepstack.{i}"] = affine(f"intermediate_projectors.{i}", x)
    out["slide.top"] = affine("feature_projector", x)
    return out


def inputs(n, width):
    return [values(seed, n * width).reshape(n, width) for seed in (1, 2, 3)]


def write():
    os.makedirs(FOLDER, exist_ok=True)
    attention, stages = {}, {}
    for n in LENGTHS:
        rows = sampled(n)
        for heads, d in HEADS:
            attention[f"{n}.{heads}.{d}.rows"] = rows.astype(np.int64)
            attention[f"{n}.{heads}.{d}.o"] = dilated_attention(*inputs(n, heads * d), heads)[rows]
    save_file(attention, f"{FOLDER}/attention.safetensors")
    weights = load_file("tests/golden/tiny-breastgpt/model.safetensors")
    width = weights["slide.feature_projector.weight"].shape[1]
    for n in LENGTHS:
        rows = sampled(n)
        stages[f"{n}.rows"] = rows.astype(np.int64)
        for name, x in branch(weights, values(4, n * width).reshape(n, width), heads=8, layers=3).items():
            stages[f"{n}.{name}"] = x.numpy()[rows].astype(np.float32)
    save_file(stages, f"{FOLDER}/branch.safetensors")
    assert all(np.isfinite(x).all() for x in load_numpy(f"{FOLDER}/branch.safetensors").values())


def compare(folder):
    sys.path.insert(0, folder)
    from torchscale.component import dilated_attention as public
    from torchscale.component import multihead_attention

    def plain(q, k, v, dropout=0.0, bias=None, softmax_scale=None, is_causal=False):  # (b, l, h, d) -> the same and (b, h, l)
        z = torch.einsum("blhd,bmhd->bhlm", q, k) / np.sqrt(q.shape[-1])
        return torch.einsum("bhlm,bmhd->blhd", z.softmax(-1), v), z.logsumexp(-1)

    multihead_attention.flash_attn_func = plain
    worst = 0.0
    for n in LENGTHS + (2, 3, 5, 1025, 4096):
        for heads, d in HEADS + ((1, 3), (5, 2)):
            args = types.SimpleNamespace(flash_attention=True, segment_length=[g for g, _ in PAIRS], dilated_ratio=[r for _, r in PAIRS], seq_parallel=False,
                                         xpos_rel_pos=False, multiway=False, layernorm_eps=1e-6)
            module = public.DilatedAttention(args, heads * d, heads, self_attention=True).double()
            with torch.no_grad():
                for part in (module.q_proj, module.k_proj, module.v_proj, module.out_proj):
                    part.weight.copy_(torch.eye(heads * d))
                    part.bias.zero_()
            for zero_queries in (False, True):  # with these s is exactly 0 where a row has one key
                q, k, v = inputs(n, heads * d)
                q *= not zero_queries
                expected, _ = module(*(torch.tensor(x)[None] for x in (q, k, v)))
                ours = dilated_attention(q, k, v, heads)
                worst = max(worst, float(np.abs(expected.detach().numpy()[0] - ours).max()))
    print(f"largest difference from torchscale {worst:.2e}")
    assert worst < 1e-12


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--torchscale":
        compare(sys.argv[2])
    else:
        write()
