"""Decoders of Qwen3 shapes with random weights as GGUF files that llama.cpp loads: the files of the peers in kernels/PERFORMANCE.md.

    python tests/oracle/peer_files.py 0.6B|4B|8B BF16|Q8_0|Q4_K_M OUT.gguf [LAYERS]

Needs gguf 0.19.0, numpy 2.4.6. Blocks are random bytes with scales that keep values near 2^-6, written as they are: no quantiser runs. Q4_K_M is the public
mix: Q6_K for attn_v and ffn_down of the layers that get more bits, and for embedding and output. No vocabulary: llama-bench needs token ids only.
"""
import functools
import sys

import gguf
import numpy as np

SHAPES = {"0.6B": (28, 1024, 3072, 16, True), "4B": (36, 2560, 9728, 32, True), "8B": (36, 4096, 12288, 32, False)}
KV, D, V = 8, 128, 151936
T = gguf.GGMLQuantizationType
rng = np.random.default_rng(1)


def pattern(kind, values):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    b = rng.integers(0, 256, (values // block, size), dtype=np.uint8)
    if kind == T.BF16:
        u = (b.reshape(-1).view(np.uint16) & 0x807F) | 0x3C80
        return u.view(np.uint8)

    def scale(at, exponent):  # f16, the mantissa random
        h = rng.integers(0, 1024, len(b)).astype(np.uint16) | np.uint16((exponent + 15) << 10)
        b[:, at:at + 2] = h.view(np.uint8).reshape(-1, 2)

    if kind == T.Q8_0:
        scale(0, -13)
    elif kind == T.Q4_K:
        scale(0, -14)
        scale(2, -14)
    elif kind == T.Q6_K:
        b[:, 192:208] &= 7
        scale(208, -13)
    return b.reshape(-1)


@functools.cache
def run_of(kind):
    return pattern(kind, 32 << 20)


def data(kind, n):
    """n values: one random run over and over."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return np.resize(run_of(kind), n // block * size)


def more_bits(i, n):
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def main():
    name, kind, out = sys.argv[1:4]
    layers, hidden, ffn, heads, tied = SHAPES[name]
    if len(sys.argv) > 4:
        layers = int(sys.argv[4])
    base = {"BF16": T.BF16, "Q8_0": T.Q8_0, "Q4_K_M": T.Q4_K}[kind]
    wide = T.Q6_K if kind == "Q4_K_M" else base
    w = gguf.GGUFWriter(out, "qwen3")
    w.add_name(f"random {name}")
    w.add_block_count(layers)
    w.add_context_length(40960)
    w.add_embedding_length(hidden)
    w.add_feed_forward_length(ffn)
    w.add_head_count(heads)
    w.add_head_count_kv(KV)
    w.add_key_length(D)
    w.add_value_length(D)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(5e6)
    w.add_vocab_size(V)
    w.add_file_type({"BF16": 32, "Q8_0": 7, "Q4_K_M": 15}[kind])
    w.add_tokenizer_model("no_vocab")
    tensors = [("token_embd.weight", (V, hidden), wide), ("output_norm.weight", (hidden,), T.F32)]
    if not tied:
        tensors.append(("output.weight", (V, hidden), wide))
    for i in range(layers):
        b, sensitive = f"blk.{i}.", wide if more_bits(i, layers) else base
        tensors += [(b + "attn_norm.weight", (hidden,), T.F32), (b + "ffn_norm.weight", (hidden,), T.F32),
                    (b + "attn_q_norm.weight", (D,), T.F32), (b + "attn_k_norm.weight", (D,), T.F32),
                    (b + "attn_q.weight", (heads * D, hidden), base), (b + "attn_k.weight", (KV * D, hidden), base),
                    (b + "attn_v.weight", (KV * D, hidden), sensitive),
                    (b + "attn_output.weight", (hidden, heads * D), base),
                    (b + "ffn_gate.weight", (ffn, hidden), base), (b + "ffn_up.weight", (ffn, hidden), base),
                    (b + "ffn_down.weight", (hidden, ffn), sensitive)]
    for n, shape, t in tensors:
        block, size = gguf.GGML_QUANT_SIZES[t]
        w.add_tensor_info(n, shape, np.dtype(np.float32), int(np.prod(shape)) // block * size, raw_dtype=t)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for n, shape, t in tensors:
        w.write_tensor_data(np.ones(shape, np.float32) if t == T.F32 else data(t, int(np.prod(shape))))
    w.close()


main()
