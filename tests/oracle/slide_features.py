"""Goldens of slide feature files, written by h5py and safetensors; nothing of this project runs here.

Pinned: Python 3.11, h5py 3.12.1 (HDF5 1.14.4), numpy 2.4.6, safetensors 0.8.0.
Command, from the root of the repository:  python tests/oracle/slide_features.py
           python tests/oracle/slide_features.py --check FILE.h5    says whether FILE.h5, saved by breastgpt, is laid out as Trident lays it out
Writes tests/golden/slides/: the files, and expected.txt with tab-separated lines
  slide      file format tiles width sha256(features as float32) sha256(coords as int64, or -)
  attribute  file key value
Files that expected.txt does not name are to be refused; tests/test_slide_features.cpp says with which words.
"""
import hashlib
import pathlib
import sys

import h5py
import numpy as np
import safetensors.numpy

OUT = pathlib.Path("tests/golden/slides")
lines = []
TRIDENT = {"patch_size": 512, "patch_size_level0": 1024, "level0_magnification": 40, "target_magnification": 20, "overlap": 0, "name": "slide-A",
           "savetodir": "/out/patches", "level0_width": 4096, "level0_height": 3072}


def numbers(tiles, width, seed):
    return np.random.default_rng(seed).standard_normal((tiles, width)).astype(np.float32)


def grid(tiles):
    return np.array([[1024 * (i // 3), 1024 * (i % 3)] for i in range(tiles)], dtype=np.int64)


def save(name, features, coords=None, coords_attributes={}, features_attributes={}, libver="earliest", **options):
    """As Trident's save_hdf5: chunks of one row, first axis unlimited; `options` replace that."""
    with h5py.File(OUT / name, "w", libver=libver) as f:
        how = options or {"chunks": (1,) + features.shape[1:], "maxshape": (None,) + features.shape[1:]}
        d = f.create_dataset("features", data=features, **how)
        for key, value in features_attributes.items():
            d.attrs[key] = value
        if coords is not None:
            d = f.create_dataset("coords", data=coords, chunks=(1,) + coords.shape[1:], maxshape=(None,) + coords.shape[1:])
            for key, value in coords_attributes.items():
                d.attrs[key] = value


def sha(array, kind):
    return hashlib.sha256(np.ascontiguousarray(array).astype(kind).tobytes()).hexdigest()


def expect(name, kind, features, coords=None, attributes={}):
    features = features.reshape(features.shape[-2:])
    lines.append("\t".join(["slide", name, kind, str(features.shape[0]), str(features.shape[1]), sha(features, "<f4"), "-" if coords is None else sha(coords, "<i8")]))
    lines.extend("\t".join(["attribute", name, key, str(value)]) for key, value in attributes.items())


def good():
    x = numbers(3, 768, 1)
    save("trident.h5", x, grid(3), TRIDENT, {"name": "slide-A", "encoder": "conch_v15"})
    expect("trident.h5", "Trident HDF5", x, grid(3), {**TRIDENT, "encoder": "conch_v15"})
    with h5py.File(OUT / "trident.h5") as f, open(OUT / "trident.h5", "rb") as raw:
        assert f["features"].chunks == (1, 768) and f["features"].maxshape == (None, 768) and raw.read()[8] == 0  # superblock version 0

    x = numbers(7, 8, 2)
    newer = {**TRIDENT, "level0_magnification": 40.0, "target_magnification": 0.1}
    save("newer.h5", x, grid(7), newer, {"name": "another", "encoder": "conch_v15", "savetodir": "/out/patches"}, libver="latest")
    expect("newer.h5", "Trident HDF5", x, grid(7), {**newer, "encoder": "conch_v15", "features.name": "another"})
    save("clam.h5", x, grid(7).astype(np.int32))
    expect("clam.h5", "CLAM HDF5", x, grid(7))
    save("one.h5", x[:1], grid(1))
    expect("one.h5", "CLAM HDF5", x[:1], grid(1))
    save("batch.h5", x[None], grid(7))
    expect("batch.h5", "CLAM HDF5", x, grid(7))
    save("batch-both.h5", x[None], grid(7)[None])
    expect("batch-both.h5", "CLAM HDF5", x, grid(7))
    save("bare.h5", x, chunks=None)
    expect("bare.h5", "CLAM HDF5", x)
    save("big-endian.h5", x.astype(">f8"), (grid(7) - 5).astype(">i4"))
    expect("big-endian.h5", "CLAM HDF5", x, grid(7) - 5)

    # Every exponent of float16, both zeros, the smallest and largest subnormal, the largest number; and a float64 that rounds to even.
    half = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0xFBFF] + [i << 10 | 0x155 for i in range(31)], dtype=np.uint16).view(np.float16).reshape(5, 8)
    save("float16.h5", half, grid(5))
    expect("float16.h5", "CLAM HDF5", half, grid(5))
    double = np.array([1 + 2.0**-24, 1 + 3 * 2.0**-24, 1e-310, -(2.0**-149), 3.4028234e38, 1 / 3, -0.0, 0.0]).reshape(2, 4)
    save("float64.h5", double, grid(2))
    expect("float64.h5", "CLAM HDF5", double, grid(2))

    x = numbers(37, 8, 3)
    for name, options in {"gzip": {"compression": "gzip", "shuffle": True, "chunks": (16, 8)}, "fletcher32": {"fletcher32": True, "chunks": (3, 5)}}.items():
        save(name + ".h5", x, grid(37), **options)
        expect(name + ".h5", "CLAM HDF5", x, grid(37))

    odd = {"integer": np.uint64(2**64 - 1), "small": np.int8(-3), "single": np.float32(0.5), "fixed": np.bytes_("abc"), "latin": np.bytes_(b"M\xfcnchen"), "empty": "", "unicode": "Gr\u00fc\u00dfe \u2603",
           "one": np.array([7]), "1024": "1024", "exponent": 1e30, "whole": -2.0}
    left_out = {"list": np.array([1, 2, 3]), "flag": True, "nothing": h5py.Empty("i8"), "complex": 1j}
    x = numbers(2, 3, 4)
    save("attributes.h5", x, grid(2), {**odd, **left_out})
    expect("attributes.h5", "CLAM HDF5", x, grid(2), {**odd, "fixed": "abc", "latin": "M\ufffdnchen", "one": 7, "exponent": "1e+30"})

    safetensors.numpy.save_file({"features": x, "coords": grid(2)}, OUT / "good.safetensors", {"patch_size_level0": "512", "name": "\u00e4 \"quoted\""})
    expect("good.safetensors", "safetensors", x, grid(2), {"patch_size_level0": "512", "name": "\u00e4 \"quoted\""})
    safetensors.numpy.save_file({"features": x}, OUT / "bare.safetensors")
    expect("bare.safetensors", "safetensors", x)


def refused():
    x = numbers(3, 4, 5)
    save("empty.h5", np.zeros(0, np.float32))
    save("empty-rows.h5", np.zeros((0, 768), np.float32))
    bad = x.copy()
    bad[1, 2], bad[2, 0] = np.nan, -np.inf
    save("nan.h5", bad, grid(3))
    save("overflow.h5", np.full((1, 2), 1e300), grid(1))
    save("rank1.h5", x[0])
    save("rank3.h5", numbers(6, 4, 6).reshape(2, 3, 4), grid(3))
    save("batch-bare.h5", x[None])
    save("wide.h5", np.zeros((1, 16385), np.float32), compression="gzip")
    save("no-width.h5", np.zeros((3, 0), np.float32), chunks=None)
    save("coords-rows.h5", x, grid(2))
    save("coords-three.h5", x, np.zeros((3, 3), np.int64))
    save("coords-float.h5", x, grid(3).astype(np.float32))
    save("coords-far.h5", x, grid(3) + 2**62)
    save("integers.h5", np.ones((3, 4), np.int16), grid(3))
    save("text.h5", np.array([[b"a", b"b"]]), grid(1))
    save("lzf.h5", x, grid(3), compression="lzf", chunks=(3, 4))
    save("scaleoffset.h5", x, grid(3), scaleoffset=3, chunks=(3, 4))
    save("long-attribute.h5", x, grid(3), {"notes": "n" * 17000})
    save("many-attributes.h5", x, grid(3), {f"a{i}": i for i in range(257)}, libver="latest")

    def file(name, fill):
        with h5py.File(OUT / name, "w", libver="earliest") as f:
            fill(f)

    def scalar(f):
        f["features"] = np.float32(1)

    def group(f):
        f.create_group("features")["data"] = x

    def virtual(f):
        layout = h5py.VirtualLayout(shape=(3, 4), dtype=np.float32)
        layout[:] = h5py.VirtualSource("trident.h5", "features", shape=(3, 768))[:3, :4]
        f.create_virtual_dataset("features", layout)

    def unfinished(f):
        f.create_dataset("features", (10, 4), np.float32, chunks=(1, 4), maxshape=(None, 4))[:3] = x

    def bfloat(f):
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_size(2)
        kind.set_ebias(127)
        h5py.h5d.create(f.id, b"features", kind, h5py.h5s.create_simple((3, 4)))

    def twice(f):
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((3, 4))
        how.set_deflate(1)
        how.set_deflate(1)
        h5py.h5d.create(f.id, b"features", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3, 4)), how).write(h5py.h5s.ALL, h5py.h5s.ALL, x)

    file("scalar.h5", scalar)
    file("group.h5", group)
    file("nothing.h5", lambda f: f.create_group("slide").create_dataset("features", data=x))
    file("coords-only.h5", lambda f: f.create_dataset("coords", data=grid(3)))
    file("soft-link.h5", lambda f: (f.create_dataset("data", data=x), f.__setitem__("features", h5py.SoftLink("/data"))))
    file("external-link.h5", lambda f: f.__setitem__("features", h5py.ExternalLink("trident.h5", "/features")))
    file("coords-link.h5", lambda f: (f.create_dataset("features", data=x), f.__setitem__("coords", h5py.ExternalLink("trident.h5", "/coords"))))
    file("external-data.h5", lambda f: f.create_dataset("features", (3, 4), np.float32, external=[("trident.h5", 0, 48)]))
    file("virtual.h5", virtual)
    file("unfinished.h5", unfinished)
    file("never-written.h5", lambda f: f.create_dataset("features", (10, 4), np.float32))
    file("sparse.h5", lambda f: f.create_dataset("features", (2000000, 768), np.float32, chunks=(1, 768), maxshape=(None, 768)))
    file("sparse-gzip.h5", lambda f: f.create_dataset("features", (2, 8), np.float32, chunks=(1, 8), compression="gzip"))
    file("too-many.h5", lambda f: f.create_dataset("features", (2000001, 768), np.float32, chunks=(1, 768), maxshape=(None, 768)))
    file("large-chunk.h5", lambda f: f.create_dataset("features", (2, 4), np.float32, chunks=(1 << 23, 4), maxshape=(None, 4), compression="gzip").__setitem__(slice(0, 0), 0))
    file("long-chunk.h5", lambda f: f.create_dataset("features", (2, 4), np.float32, chunks=(1 << 27, 4), maxshape=(None, 4), compression="gzip").__setitem__(slice(0, 0), 0))
    file("bfloat16.h5", bfloat)
    file("gzip-twice.h5", twice)

    safetensors.numpy.save_file({"features": x.astype(np.float16)}, OUT / "half.safetensors")
    safetensors.numpy.save_file({"features": x, "coords": grid(3).astype(np.int32)}, OUT / "coords32.safetensors")
    safetensors.numpy.save_file({"weights": x}, OUT / "nothing.safetensors")
    safetensors.numpy.save_file({"features": np.zeros((0, 768), np.float32)}, OUT / "empty.safetensors")
    safetensors.numpy.save_file({"features": bad}, OUT / "nan.safetensors")


def check(path):
    """By hand: a file saved by breastgpt against what Trident's own readers take for granted, and the layout of Trident's own files."""
    with h5py.File(path) as f, open(path, "rb") as raw:
        assert raw.read()[8] == 0, "superblock"
        x, c = f["features"], f.get("coords")
        assert x.dtype == np.float32 and x.chunks == (1, x.shape[1]) and x.maxshape == (None, x.shape[1]) and x.compression is None, x
        assert c is None or (c.dtype == np.int64 and c.chunks == (1, 2) and c.maxshape == (None, 2) and c.shape[0] == x.shape[0]), c
        print(set(f.keys()), x.shape, sha(x[:], "<f4"))
        for d in filter(None, (x, c)):
            print(d.name, {key: (type(value).__name__, value) for key, value in d.attrs.items()})


if sys.argv[1:2] == ["--check"]:
    check(sys.argv[2])
else:
    OUT.mkdir(parents=True, exist_ok=True)
    good()
    refused()
    (OUT / "expected.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
