"""What PyTorch takes for the ViT, the slide branch and the coverage selection, on real shapes with random weights: the peers of kernels/PERFORMANCE.md.

    python tests/oracle/peers.py [vit-bf16 | vit-f32 | longnet-f32 | longnet-bf16 | coverage-f32 ...] [--threads 2] [--repeat 5]     (no names: all)

Needs torch 2.15.0 (numpy 2.4.6 for the check against tests/oracle/longnet.py). Writes nothing. Prints median and best seconds of the repeats after one
run that is not counted, and FLOP/s of products and attention. Run `build/release/bench --list-ceilings` before and after: only shares compare.

  vit       the 8B's: 27 layers of 1152, 16 heads of 72, ffn 4304, a picture of 1024 x 1024 (4096 patches), merger and three DeepStack mergers; attention
            is torch's scaled_dot_product_attention
  longnet   6000 tiles of 768, three layers: segments of (512, 1024, 2048) with dilations (1, 2, 4), each a dense softmax with its log-sum-exp (MODEL.md 2.3)
  coverage  128 of 6000 rows of 4096: the plain greedy definition (MODEL.md 3a), every gain in every step
"""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F

PAIRS = ((512, 1), (1024, 2), (2048, 4))


def weight(outputs, inputs, dtype):
    return (torch.randn(outputs, inputs) / inputs**0.5).to(dtype), (torch.randn(outputs) * 0.01).to(dtype)


def norm(width, dtype):
    return torch.ones(width, dtype=dtype), torch.zeros(width, dtype=dtype)


def layer_norm(x, w):
    return F.layer_norm(x, x.shape[-1:], *w, eps=1e-6)


def flop_of(rows, *weights):
    return sum(2.0 * rows * w[0].numel() for w in weights)


# ---- ViT ----
def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def make_vit(dtype, patches=4096, depth=27, d=1152, heads=16, ffn=4304, width=4096, levels=(8, 16, 24)):
    embed, positions = weight(d, 1536, dtype), torch.randn(patches, d).to(dtype)
    blocks = [(norm(d, dtype), weight(3 * d, d, dtype), weight(d, d, dtype), norm(d, dtype), weight(ffn, d, dtype), weight(d, ffn, dtype))
              for _ in range(depth)]
    mergers = [(norm(d if i == 0 else 4 * d, dtype), weight(4 * d, 4 * d, dtype), weight(width, 4 * d, dtype)) for i in range(1 + len(levels))]
    angle = torch.rand(patches, d // heads // 2) * 64
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    x = torch.randn(patches, 1536).to(dtype)

    def merge(i, x):
        n, fc1, fc2 = mergers[i]
        y = layer_norm(x, n).view(-1, 4 * d) if i == 0 else layer_norm(x.view(-1, 4 * d), n)
        return F.linear(F.gelu(F.linear(y, *fc1)), *fc2)

    def run():
        h, out = F.linear(x, *embed) + positions, []
        for i, (n1, qkv, proj, n2, fc1, fc2) in enumerate(blocks):
            q, k, v = F.linear(layer_norm(h, n1), *qkv).view(patches, 3, heads, d // heads).permute(1, 2, 0, 3)
            o = F.scaled_dot_product_attention(rotate(q, cos, sin)[None], rotate(k, cos, sin)[None], v[None])[0]
            h = h + F.linear(o.transpose(0, 1).reshape(patches, d), *proj)
            h = h + F.linear(F.gelu(F.linear(layer_norm(h, n2), *fc1), approximate="tanh"), *fc2)
            if i in levels:
                out.append(merge(1 + levels.index(i), h))
        return [merge(0, h)] + out

    flop = flop_of(patches, embed) + sum(flop_of(patches, b[1], b[2], b[4], b[5]) + 4.0 * patches**2 * d for b in blocks)
    return run, flop + sum(flop_of(patches // 4, m[1], m[2]) for m in mergers)


# ---- slide branch ----
def one_pair(q, k, v, segment, dilation):
    """q, k, v (N, H, d): o (N, H, d) and s (N, H) of one pair; heads of a group and all segments at once."""
    n, heads, d = q.shape
    g, r = min(segment, n), dilation
    segments, length = -(-n // g), -(-g // r) * r
    q, k, v = (F.pad(F.pad(x, (0, 0, 0, 0, 0, segments * g - n)).view(segments, g, heads, d), (0, 0, 0, 0, 0, length - g)) for x in (q, k, v))
    o, s = torch.zeros_like(q), q.new_full((segments, length, heads), -1e8)
    group = -(-heads // r)
    for j in range(r):
        h = slice(j * group, min((j + 1) * group, heads))
        qs, ks, vs = (x[:, j::r, h].transpose(1, 2) for x in (q, k, v))
        z = qs @ ks.transpose(-1, -2) / d**0.5
        o[:, j::r, h] = (z.softmax(-1) @ vs).transpose(1, 2)
        s[:, j::r, h] = z.logsumexp(-1).transpose(1, 2)
    s[s == 0] = -1e8
    return o[:, :g].reshape(-1, heads, d)[:n], s[:, :g].reshape(-1, heads)[:n]


def dilated_attention(q, k, v, heads):
    n, width = q.shape
    parts = [one_pair(*(x.view(n, heads, width // heads) for x in (q, k, v)), *pair) for pair in PAIRS]
    w = torch.stack([s for _, s in parts]).softmax(0)
    return sum(w[i][..., None] * o for i, (o, _) in enumerate(parts)).reshape(n, width)


def make_longnet(dtype, n=6000, d=768, heads=8, layers=3):
    w = [[norm(d, dtype)] + [weight(d, d, dtype) for _ in range(4)] + [norm(d, dtype), weight(4 * d, d, dtype), weight(d, 4 * d, dtype)] for _ in range(layers)]
    features = torch.randn(n, d).bfloat16().to(dtype)

    def run():
        x = features
        for n1, q, k, v, out, n2, up, down in w:
            y = layer_norm(x, n1)
            x = x + F.linear(dilated_attention(F.linear(y, *q), F.linear(y, *k), F.linear(y, *v), heads), *out)
            x = x + F.linear(F.gelu(F.linear(layer_norm(x, n2), *up)), *down)
        return x

    scores = sum(-(-n // g) * (g // r) ** 2 for g, r in PAIRS)
    return run, sum(flop_of(n, *l[1:5], *l[6:8]) + 4.0 * scores * d for l in w)


def check_longnet():
    import longnet  # beside this file
    q, k, v = longnet.inputs(2500, 96)
    ours = dilated_attention(*(torch.tensor(x) for x in (q, k, v)), 8).numpy()
    assert abs(ours - longnet.dilated_attention(q, k, v, 8)).max() < 1e-9


# ---- coverage selection ----
def make_coverage(dtype, n=6000, width=4096, k=128, clusters=400):
    v = torch.randn(clusters, width)[torch.randint(clusters, (n,))] + (0.3 + 0.7 * torch.rand(n, 1)) * torch.randn(n, width)
    v = v.to(dtype)

    def run():
        u = F.normalize(v, eps=1e-12)
        c = ((u @ u.T) / 0.2).softmax(-1) / n
        best, taken, chosen = c.new_zeros(n, 1), torch.zeros(n, dtype=torch.bool), []
        for _ in range(k):
            gain = (c - best).clamp_(min=0).sum(0)
            gain[taken] = -1
            j = int(gain.argmax())
            taken[j] = True
            chosen.append(j)
            best = torch.maximum(best, c[:, j:j + 1])
        return sorted(chosen)

    return run, 2.0 * n * n * width


MAKERS = {"vit-bf16": (make_vit, torch.bfloat16), "vit-f32": (make_vit, torch.float32), "longnet-f32": (make_longnet, torch.float32),
          "longnet-bf16": (make_longnet, torch.bfloat16), "coverage-f32": (make_coverage, torch.float32)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", choices=[*MAKERS, []], default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    check_longnet()
    print(f"torch {torch.__version__}, {args.threads} threads")
    with torch.inference_mode():
        for name in args.names or MAKERS:
            maker, dtype = MAKERS[name]
            run, flop = maker(dtype)
            run()
            seconds = []
            for _ in range(args.repeat):
                start = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - start)
            middle = statistics.median(seconds)
            print(f"{name:14} median {middle:8.3f} s  best {min(seconds):8.3f} s  {flop / middle / 1e9:8.1f} GFLOP/s", flush=True)


if __name__ == "__main__":
    main()
