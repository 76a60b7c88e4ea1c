"""What PyTorch takes for the ViT, the slide branch, the coverage selection and the decoder, on real shapes with random weights: the peers of kernels/PERFORMANCE.md.

    python tests/oracle/peers.py [NAME ...] [--threads 2] [--repeat 5]                 (no names: all of the CPU's)
    python3 tests/oracle/peers.py --device cuda [NAME ...] [--seconds 75]              (no names: all of the GPU's; the last section of make gpu-bench)

Needs torch 2.15.0 (numpy 2.4.6 for the check against tests/oracle/longnet.py), the decoder transformers 5.24.0; says so where they are missing. Writes nothing. Prints
median and best milliseconds of the repeats after one run that is not counted, and FLOP/s of products and attention (decode: tokens/s). On the CPU run
`build/release/bench --list-ceilings` before and after: only shares compare.

  vit       the 8B's: 27 layers of 1152, 16 heads of 72, ffn 4304, a picture of 1024 x 1024 (4096 patches), merger and three DeepStack mergers; attention
            is torch's scaled_dot_product_attention
  longnet   6000 tiles (GPU: 5987 and 50000) of 768, three layers: segments of (512, 1024, 2048) with dilations (1, 2, 4), each a dense softmax with its
            log-sum-exp (MODEL.md 2.3)
  coverage  128 of 6000 rows (GPU: 5987 and 50000) of 4096: the plain greedy definition (MODEL.md 3a), every gain in every step
  prompt    512 tokens through transformers' Qwen3 with the 8B's sizes, logits of the last
  decode    one token after the other, 1024 tokens before them, the same
  slide     5987 tiles to the first token: longnet, four levels of rows of 4096 and their coverage, a prompt of 300 tokens
"""
import argparse
import statistics
import sys
import time
import warnings

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    sys.exit(f"not installed: {error}")

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
        x, states = features, []
        for n1, q, k, v, out, n2, up, down in w:
            y = layer_norm(x, n1)
            x = x + F.linear(dilated_attention(F.linear(y, *q), F.linear(y, *k), F.linear(y, *v), heads), *out)
            x = x + F.linear(F.gelu(F.linear(layer_norm(x, n2), *up)), *down)
            states.append(x)
        return states

    scores = sum(-(-n // g) * (g // r) ** 2 for g, r in PAIRS)
    return run, sum(flop_of(n, *l[1:5], *l[6:8]) + 4.0 * scores * d for l in w)


def check_longnet():
    import longnet  # beside this file
    q, k, v = longnet.inputs(2500, 96)
    ours = dilated_attention(*(torch.tensor(x) for x in (q, k, v)), 8).numpy()
    assert abs(ours - longnet.dilated_attention(q, k, v, 8)).max() < 1e-9


# ---- coverage selection ----
def choose(v, k):
    n = len(v)
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


def make_coverage(dtype, n=6000, width=4096, k=128, clusters=400):
    v = torch.randn(clusters, width)[torch.randint(clusters, (n,))] + (0.3 + 0.7 * torch.rand(n, 1)) * torch.randn(n, width)
    v = v.to(dtype)
    return lambda: choose(v, k), 2.0 * n * n * width


# ---- decoder, by transformers ----
def decoder_of(dtype, layers=36, width=4096, ffn=12288, heads=32, kv_heads=8, head_dim=128, vocab=151936):
    from transformers import Qwen3Config, Qwen3ForCausalLM
    config = Qwen3Config(vocab_size=vocab, hidden_size=width, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
                         head_dim=head_dim, tie_word_embeddings=False, attn_implementation="sdpa", max_position_embeddings=262144)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # made in place, not first in float32
    try:
        model = Qwen3ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name and "lm_head" not in name)
    return model, 2.0 * matrices, 2.0 * vocab * width, 4.0 * layers * heads * head_dim


def make_prompt(dtype, tokens=512, **sizes):
    model, each, output, attention = decoder_of(dtype, **sizes)
    ids = torch.randint(model.config.vocab_size, (1, tokens))
    return lambda: int(model(input_ids=ids, logits_to_keep=1).logits[0, -1].argmax()), tokens * each + output + attention * tokens * (tokens + 1) / 2


def make_decode(dtype, past=1024, steps=32, **sizes):
    from transformers import DynamicCache
    model, each, output, attention = decoder_of(dtype, **sizes)
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.randint(model.config.vocab_size, (1, past)), past_key_values=cache, logits_to_keep=1)

    def run():
        if cache.get_seq_length() > past:
            cache.crop(past - cache.get_seq_length())  # negative: so many fewer
        token = torch.ones(1, 1, dtype=torch.long)
        for _ in range(steps):
            token = model(input_ids=token, past_key_values=cache).logits[:, -1:].argmax(-1)
            int(token)  # as a session: the text is shown
    run.tokens = steps
    return run, steps * (each + output + attention * past)


def make_slide(dtype, n=5987, width=4096, k=128, tokens=300, d=768, **sizes):
    longnet, flop = make_longnet(dtype, n, d, heads=max(h for h in (8, 4) if d % h == 0))
    model, each, output, attention = decoder_of(dtype, width=width, **sizes)
    projectors = [weight(width, d, dtype) for _ in range(4)]
    text = torch.randn(1, tokens - k, width).to(dtype) * 0.02

    def run():
        states = longnet()
        kept = []
        for state, projector in zip([states[-1], *states], projectors):
            rows = F.linear(state, *projector)
            kept.append(rows[torch.tensor(choose(rows.float(), k))])
        return int(model(inputs_embeds=torch.cat([kept[0][None], text], 1), logits_to_keep=1).logits[0, -1].argmax())

    return run, flop + 4 * 2.0 * n * width * (d + n) + tokens * each + output + attention * tokens * (tokens + 1) / 2


BF16, F32 = torch.bfloat16, torch.float32
CPU = {"vit-bf16": (make_vit, BF16, {}), "vit-f32": (make_vit, F32, {}), "longnet-f32": (make_longnet, F32, {}), "longnet-bf16": (make_longnet, BF16, {}),
       "coverage-f32": (make_coverage, F32, {})}
CUDA = {"decode-8b-bf16": (make_decode, BF16, {}), "slide-8b-bf16": (make_slide, BF16, {}), "prompt-8b-bf16": (make_prompt, BF16, {}), "vit-bf16": (make_vit, BF16, {}),
        "longnet-bf16": (make_longnet, BF16, {"n": 5987}), "coverage-f32": (make_coverage, F32, {"n": 5987}), "longnet-bf16-50k": (make_longnet, BF16, {"n": 50000}),
        "coverage-f32-50k": (make_coverage, F32, {"n": 50000})}
TINY_DECODER = {"layers": 2, "width": 64, "ffn": 96, "heads": 2, "kv_heads": 1, "head_dim": 32, "vocab": 100}
TINY = {"decode": {"past": 8, "steps": 2, **TINY_DECODER}, "prompt": {"tokens": 9, **TINY_DECODER}, "slide": {"n": 40, "k": 5, "tokens": 9, "d": 32, **TINY_DECODER},
        "vit": {"patches": 16, "depth": 2, "d": 32, "heads": 2, "ffn": 48, "width": 64, "levels": (0,)}, "longnet": {"n": 40, "d": 32}, "coverage": {"n": 40, "width": 32, "k": 5, "clusters": 4}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", choices=[*CPU, *CUDA, []], default=[])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after that nothing more is begun")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: only a test of this script")
    args = parser.parse_args()
    cuda = args.device == "cuda"
    if cuda and not torch.cuda.is_available():
        sys.exit(f"not installed: torch {torch.__version__} finds no CUDA device")
    start = time.perf_counter()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    warnings.simplefilter("ignore", FutureWarning)  # past_key_values is renamed after transformers 5.40
    if not cuda and not args.tiny:
        check_longnet()
    torch.set_default_device(args.device)
    print(f"torch {torch.__version__}, " + (torch.cuda.get_device_name() if cuda else f"{args.threads} threads"), flush=True)
    wait = torch.cuda.synchronize if cuda else lambda: None
    table = CUDA if cuda or args.tiny else CPU
    with torch.inference_mode():
        for name in args.names or table:
            if time.perf_counter() - start > args.seconds:
                print(f"{name:18} not measured: the time is over", flush=True)
                continue
            maker, dtype, sizes = table.get(name) or CPU[name]
            run = None
            try:
                if cuda:
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                run, flop = maker(dtype, **(TINY[name.split("-")[0]] if args.tiny else sizes))
                run()
                wait()
                seconds = []
                for _ in range(args.repeat):
                    begin = time.perf_counter()
                    run()
                    wait()
                    seconds.append(time.perf_counter() - begin)
            except ImportError as error:
                print(f"{name:18} not installed: {error}", flush=True)
                continue
            except RuntimeError as error:  # out of memory among them
                print(f"{name:18} FAILED: {str(error).splitlines()[0]}", flush=True)
                continue
            middle = statistics.median(seconds)
            line = f"{name:18} median {middle * 1e3:10.2f} ms  best {min(seconds) * 1e3:10.2f} ms  {flop / middle / 1e9:10.1f} GFLOP/s"
            if hasattr(run, "tokens"):
                line += f"  {run.tokens / middle:.1f} tok/s"
            if cuda:
                line += f"  peak {torch.cuda.max_memory_allocated() / 1e9:.2f} GB"
            print(line, flush=True)


if __name__ == "__main__":
    main()
