"""Decoders of Qwen3 shapes and the ViT of the 8B with random weights as GGUF files that llama.cpp loads: the files of the peers in kernels/PERFORMANCE.md.

    python tests/oracle/peer_files.py 0.6B|4B|8B BF16|Q8_0|Q4_K_M OUT.gguf [LAYERS]
    python tests/oracle/peer_files.py ViT F16|BF16|Q8_0 OUT.gguf

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
    if kind == T.F16:
        u = (b.reshape(-1).view(np.uint16) & 0x83FF) | 0x2400
        return u.view(np.uint8)
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


def vit(kind, out, depth=27, d=1152, heads=16, ffn=4304, width=4096, levels=(8, 16, 24)):
    kind = {"F16": T.F16, "BF16": T.BF16, "Q8_0": T.Q8_0}[kind]
    w = gguf.GGUFWriter(out, "clip")
    w.add_string("clip.projector_type", "qwen3vl_merger")
    w.add_bool("clip.has_vision_encoder", True)
    w.add_bool("clip.use_gelu", True)
    for key, value in {"embedding_length": d, "attention.head_count": heads, "feed_forward_length": ffn, "block_count": depth, "projection_dim": width,
                       "image_size": 768, "patch_size": 16, "spatial_merge_size": 2}.items():
        w.add_uint32("clip.vision." + key, value)
    w.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    w.add_array("clip.vision.image_mean", [0.5] * 3)
    w.add_array("clip.vision.image_std", [0.5] * 3)
    w.add_array("clip.vision.is_deepstack_layers", [i in levels for i in range(depth)])

    def small(name, *shape, scale=0.01):
        w.add_tensor(name, (rng.standard_normal(shape) * scale).astype(np.float32))

    def linear(name, outputs, inputs):
        k = kind if inputs % gguf.GGML_QUANT_SIZES[kind][0] == 0 else T.F16
        raw = data(k, outputs * inputs)
        w.add_tensor(name + ".weight", raw.reshape(outputs, -1), raw_dtype=k)
        small(name + ".bias", outputs)

    def norm(name, n):
        w.add_tensor(name + ".weight", np.ones(n, np.float32))
        small(name + ".bias", n)

    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        small(name, d, 3, 16, 16)
    small("v.patch_embd.bias", d)
    small("v.position_embd.weight", 2304, d)
    for i in range(depth):
        b = f"v.blk.{i}."
        norm(b + "ln1", d)
        linear(b + "attn_qkv", 3 * d, d)
        linear(b + "attn_out", d, d)
        norm(b + "ln2", d)
        linear(b + "ffn_up", ffn, d)
        linear(b + "ffn_down", d, ffn)
        if i in levels:
            b = f"v.deepstack.{i}."
            norm(b + "norm", 4 * d)
            linear(b + "fc1", 4 * d, 4 * d)
            linear(b + "fc2", width, 4 * d)
    norm("v.post_ln", d)
    linear("mm.0", 4 * d, 4 * d)
    linear("mm.2", width, 4 * d)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    name, kind, out = sys.argv[1:4]
    if name == "ViT":
        return vit(kind, out)
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
