"""Our quantisers beside the public ones on the same tensors: relative RMS error and time. Writes nothing; the table is in weights_convert/QUANTISE.md.

    python tests/oracle/quantise_quality.py GGML [WEIGHTS.gguf]     (from the repository root; two minutes)

GGML: a checkout of ggml-org/ggml (used: commit d99724f2, version 0.21.0); its ggml-quants.c is compiled into a temporary folder, beside our quantise.cpp
with the flags of the Makefile. Needs gcc, g++, gguf 0.19.0 (PyPI; its reader dequantises both), numpy 2.4.6.
WEIGHTS.gguf: a file in F32, BF16 or F16, made with --layout rows, whose matrices are compared too; a tensor on which ours is worse is named.
"""
import ctypes
import subprocess
import sys
import tempfile
import time

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

KINDS = ("Q8_0", "Q6_K", "Q4_K")
# What the public file expects of the rest of its library.
STUBS = """
#include "ggml.h"
#include "ggml-impl.h"
#include <stdlib.h>
float ggml_table_f32_f16[1 << 16];
float ggml_table_f32_e8m0_half[1 << 8];
void ggml_abort(const char * file, int line, const char * text, ...) { (void) file; (void) line; (void) text; abort(); }
void ggml_log_internal(enum ggml_log_level level, const char * text, ...) { (void) level; (void) text; }
const char * ggml_type_name(enum ggml_type type) { (void) type; return ""; }
size_t ggml_type_size(enum ggml_type type) { (void) type; return 0; }
size_t ggml_row_size(enum ggml_type type, int64_t n) { return type == GGML_TYPE_Q8_0 ? n / 32 * 34 : type == GGML_TYPE_Q4_K ? n / 256 * 144 : n / 256 * 210; }
"""
OURS = """
#include "weights_convert/quantise.h"
extern "C" void ours(void* y, int type, const float* x, long n) { bg::quantise(y, bg::Type(type), x, n); }
"""


def build(ggml, folder):
    for name, text in (("stubs.c", STUBS), ("ours.cpp", OURS)):
        with open(f"{folder}/{name}", "w") as f:
            f.write(text)
    subprocess.run(["gcc", "-O2", "-march=native", "-fPIC", "-shared", "-w", f"-I{ggml}/src", f"-I{ggml}/include", f"{ggml}/src/ggml-quants.c", f"{folder}/stubs.c",
                    "-o", f"{folder}/public.so", "-lm"], check=True)
    subprocess.run(["g++", "-std=c++20", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-I.", f"{folder}/ours.cpp", "weights_convert/quantise.cpp",
                    "weights_convert/elements.cpp", "-o", f"{folder}/ours.so"], check=True)
    return ctypes.CDLL(f"{folder}/public.so"), ctypes.CDLL(f"{folder}/ours.so")


def quantised(library, kind, x):
    """x through one of the two and back: values, nanoseconds per value."""
    type_, (n, size) = GGMLQuantizationType[kind], GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    blocks = np.zeros((x.size // n, size), np.uint8)
    source, target, start = x.ctypes.data_as(ctypes.c_void_p), blocks.ctypes.data_as(ctypes.c_void_p), time.time()
    if hasattr(library, "ours"):
        library.ours(target, int(type_), source, ctypes.c_long(x.size))
    else:
        getattr(library, "quantize_" + kind.replace("Q8", "q8").replace("Q6", "q6").replace("Q4", "q4"))(source, target, ctypes.c_int64(x.size // n), ctypes.c_int64(n), None)
    return dequantize(blocks, type_).reshape(-1), (time.time() - start) / x.size * 1e9


def tensors():
    rng, n = np.random.default_rng(1), 1 << 19
    rows = n // 4096
    yield "Gauss, sigma 0.02", rng.normal(0, .02, n)
    yield "Laplace, sigma 0.02", rng.laplace(0, .0141, n)
    outliers = rng.normal(0, .02, (rows, 4096))
    outliers[:, rng.choice(4096, 8, False)] *= 30
    yield "0.2 % of channels x30", outliers
    yield "Student t, 4 degrees", rng.standard_t(4, n) * .01
    yield "rows and channels of own size", rng.normal(0, .015, (rows, 4096)) * np.exp(rng.normal(0, .5, (rows, 1))) * np.exp(rng.normal(0, .3, (1, 4096)))
    yield "uniform", rng.uniform(-.05, .05, n)
    yield "mean of one sigma", rng.normal(.02, .02, n)
    yield "sigma 1e-4", rng.normal(0, 1e-4, n)
    yield "sigma 100", rng.normal(0, 100, n)
    yield "90 % zeros", rng.normal(0, .02, n) * (rng.random(n) < .1)


def main():
    with tempfile.TemporaryDirectory() as folder:
        public, ours = build(sys.argv[1], folder)
    print("| tensor | " + " | ".join(f"{k}: public, ours, ratio" for k in KINDS) + " |\n|---|" + "---|" * len(KINDS))
    took = {k: [0, 0] for k in KINDS}
    for name, x in tensors():
        x = np.ascontiguousarray(x, np.float32).reshape(-1)
        cells = []
        for kind in KINDS:
            (a, slow), (b, fast) = quantised(public, kind, x), quantised(ours, kind, x)
            p, o = (np.sqrt(((x - y).astype(np.float64) ** 2).sum() / (x.astype(np.float64) ** 2).sum()) for y in (a, b))
            cells.append(f"{p:.3e}, {o:.3e}, {o / p:.4f}")
            took[kind] = [took[kind][0] + slow / 10, took[kind][1] + fast / 10]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    for path in sys.argv[2:]:
        sums = {k: [] for k in KINDS}
        for t in GGUFReader(path).tensors:
            for kind in KINDS if len(t.shape) == 2 else ():
                if t.shape[0] % GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]:
                    continue
                x = np.ascontiguousarray(dequantize(t.data, t.tensor_type), np.float32).reshape(-1)
                p, o = (np.sqrt(((x - quantised(l, kind, x)[0]).astype(np.float64) ** 2).sum() / (x.astype(np.float64) ** 2).sum()) for l in (public, ours))
                sums[kind].append((p, o))
                if o > p:
                    print(f"worse: {t.name} as {kind}: {o:.4e} against {p:.4e}")
        rms = {k: np.sqrt(np.mean(np.square(v), axis=0)) for k, v in sums.items()}
        print(f"| matrices of {path.split('/')[-1]} (" + ", ".join(str(len(sums[k])) for k in KINDS) + ") | "
              + " | ".join(f"{rms[k][0]:.3e}, {rms[k][1]:.3e}, {rms[k][1] / rms[k][0]:.4f}" for k in KINDS) + " |")
    print("| nanoseconds per value, reading back included | " + " | ".join(f"{took[k][0]:.0f}, {took[k][1]:.0f}" for k in KINDS) + " |")


if __name__ == "__main__":
    main()
