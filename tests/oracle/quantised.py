"""Quantised blocks and the floats that the public reader makes of them; and our files through that reader.

    python tests/oracle/quantised.py                          (from the repository root; writes tests/golden/quantised.safetensors; a second)
    python tests/oracle/quantised.py MODEL.gguf BASE.gguf     (writes nothing: a quantised file of ours against the F32 file it was made from)

Needs gguf 0.19.0 (PyPI), numpy 2.4.6, safetensors 0.8.0.

Golden, per type T of q8_0, q4_k, q6_k: "T.blocks" (blocks, bytes) uint8, random bytes in every field but that the f16 scales are finite, with the
largest, smallest, negative and zero among them; "T.values" (blocks, values) float32, gguf.quants.dequantize of them.
The comparison of files: names, shapes and hashes, that every value is finite, and the relative RMS error of each type.
"""
import hashlib
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file

SCALES = {"q8_0": (0,), "q4_k": (0, 2), "q6_k": (208,)}  # where a block's f16 numbers are
BLOCKS = {"q8_0": 96, "q4_k": 24, "q6_k": 24}
EDGES = (0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0xFBFF)
LARGEST = {"Q8_0": 0.02, "Q6_K": 0.05, "Q4_K": 0.15}  # relative RMS error of a tensor of weights: about 3 times a Gauss tensor's


def golden():
    rng = np.random.default_rng(20)
    out = {}
    for name, places in SCALES.items():
        kind = GGMLQuantizationType[name.upper()]
        blocks = rng.integers(0, 256, (BLOCKS[name], GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
        for i, row in enumerate(blocks):
            for k, at in enumerate(places):
                edge = EDGES[(i + k * 4) % len(EDGES)] if i < 2 * len(EDGES) else int(rng.integers(0, 0x7C00)) | int(rng.integers(0, 2)) << 15
                row[at:at + 2] = np.frombuffer(np.uint16(edge).tobytes(), np.uint8)
        out[f"{name}.blocks"] = blocks
        out[f"{name}.values"] = dequantize(blocks, kind).astype(np.float32)
        assert np.isfinite(out[f"{name}.values"]).all()
    save_file(out, "tests/golden/quantised.safetensors")


def compare(path, base):
    model, exact = GGUFReader(path), {t.name: t for t in GGUFReader(base).tensors}
    assert {t.name for t in model.tensors} == set(exact), "names differ"
    hashes = model.get_field("breastgpt.sha256").contents()
    kinds = {}
    for tensor, digest in zip(model.tensors, hashes):
        x = dequantize(exact[tensor.name].data, exact[tensor.name].tensor_type).astype(np.float64)
        y = dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
        assert list(tensor.shape) == list(exact[tensor.name].shape) and x.shape == y.shape, tensor.name
        assert hashlib.sha256(tensor.data.tobytes()).hexdigest() == digest, f"{tensor.name}: hash"
        assert np.isfinite(y).all(), tensor.name
        error, kind = np.sqrt(((x - y) ** 2).sum() / max((x ** 2).sum(), 1e-300)), tensor.tensor_type.name
        assert error <= LARGEST.get(kind, 0.005 if kind == "BF16" else 0), f"{tensor.name}: {kind}, relative error {error}"
        kinds.setdefault(kind, []).append(error)
    for kind, errors in sorted(kinds.items()):
        print(f"{kind}: {len(errors)} tensors, relative RMS error {np.mean(errors):.3e} on average, at most {max(errors):.3e}")


if __name__ == "__main__":
    golden() if len(sys.argv) == 1 else compare(sys.argv[1], sys.argv[2])
