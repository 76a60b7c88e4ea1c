"""Goldens of volumes (NIfTI, .npy, the path to patch vectors), made with nibabel, numpy and torch; nothing of this project runs here.

Pinned: Python 3.11, nibabel 5.4.2, numpy 2.4.6, torch 2.15.0 (on the CPU, one thread).
Command, from the root of the repository:  python tests/oracle/volumes.py
Writes tests/golden/volumes/: the volume files, and
  load.txt        file format nx ny nz sha256 has_affine affine (12 numbers, rows) spacing (3)
                  sha256 of get_fdata(dtype=float64).astype(float32) in file order, (z, y, x); affine in millimetres (nibabel's, times the header's unit)
  prepare.txt     nx ny nz kind seed out_nx out_ny sha256             step 0, little-endian int16
  steps.txt       name nx ny nz kind seed prescale window level width W' H' D' frame_w frame_h grid_t grid_h grid_w low high
                  NAME.f32: 4000 numbers of the patch vectors, number i at (i·7919) mod (their count)
  mask.header     the 352 bytes before the voxels of a mask on the grid of sform_oblique.nii, by nibabel
kind int: a hash of (i, seed) in -200 … 823; float: that/64 in float32; smooth: integers that vary slowly; constant: 7.
"""
import gzip
import hashlib
import math
import pathlib
import zlib

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F

assert (nib.__version__, np.__version__, torch.__version__.split("+")[0]) == ("5.4.2", "2.4.6", "2.15.0")
torch.set_num_threads(1)
OUT = pathlib.Path("tests/golden/volumes")
OUT.mkdir(parents=True, exist_ok=True)
for old in OUT.iterdir():
    old.unlink()
load_lines, prepare_lines, step_lines = [], [], []


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def write_gzip(data):
    return gzip.compress(data, mtime=0)


# ---- files ----
def header(kind, endian, dtype, shape):
    h = (nib.Nifti1Header if kind == 1 else nib.Nifti2Header)(endianness=endian)
    h.set_data_dtype(np.dtype(dtype).newbyteorder(endian))
    h.set_data_shape(shape)
    h["vox_offset"] = 352 if kind == 1 else 544
    h["xyzt_units"] = 2
    h["pixdim"][1:4] = (0.75, 1.25, 3.5)
    return h


def ramp(dtype, shape):
    """Numbers to the ends of the type's range, none symmetric."""
    n = int(np.prod(shape))
    if np.dtype(dtype).kind == "f":
        return ((np.arange(n) * 0.37 - 5) ** 3).astype(dtype).reshape(shape)
    info = np.iinfo(dtype)
    v = [info.min + (info.max - info.min) * i // (n - 1) for i in range(n)]
    return np.array(v, dtype=dtype).reshape(shape)


def nifti(name, h, array, extension=b"\0\0\0\0"):
    """array (x, y, z)."""
    data = h.binaryblock + extension
    data += b"\0" * (int(h["vox_offset"]) - len(data))
    data += array.astype(h.get_data_dtype()).tobytes(order="F")
    (OUT / name).write_bytes(write_gzip(data) if name.endswith(".gz") else data)
    image = nib.load(OUT / name)
    voxels = image.get_fdata(dtype=np.float64).astype(np.float32)
    while voxels.ndim > 3:
        voxels = voxels[..., 0]
    unit = {1: 1000.0, 3: 0.001}.get(int(h["xyzt_units"]) & 7, 1.0)
    affine = image.affine[:3] * unit
    spacing = np.sqrt((affine[:, :3] ** 2).sum(0))
    fields = [name, "NIfTI-1" if isinstance(h, nib.Nifti1Header) and h["sizeof_hdr"] == 348 else "NIfTI-2", *voxels.shape,
              sha(voxels.transpose(2, 1, 0)), 1, *[repr(float(v)) for v in affine.ravel()], *[repr(float(v)) for v in spacing]]
    load_lines.append(" ".join(map(str, fields)))


def npy(name, array):
    """array (z, y, x) in either order."""
    with open(OUT / name, "wb") as f:
        version = {"v2": (2, 0), "v3": (3, 0)}.get(name.split("_")[1].split(".")[0], (1, 0))
        np.lib.format.write_array(f, array, version=version)
    voxels = np.load(OUT / name).astype(np.float64).astype(np.float32)
    nz, ny, nx = voxels.shape[:3]
    load_lines.append(" ".join(map(str, [name, "NPY", nx, ny, nz, sha(voxels), 0, *[0] * 15])))


SHAPE = (3, 5, 4)
INTS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
for dtype in INTS + ["float32", "float64"]:
    nifti(f"{dtype}_le.nii", header(1, "<", dtype, SHAPE), ramp(dtype, SHAPE))
    nifti(f"{dtype}_be2.nii.gz", header(2, ">", dtype, SHAPE), ramp(dtype, SHAPE))
    h = header(1, ">", dtype, SHAPE)
    h["scl_slope"], h["scl_inter"] = 0.37, -1024.25
    nifti(f"{dtype}_be_scaled.nii.gz", h, ramp(dtype, SHAPE))
    npy(f"{dtype}_c.npy", ramp(dtype, SHAPE[::-1]))
    npy(f"{dtype}_f.npy", np.asfortranarray(ramp(dtype, SHAPE[::-1])).astype(np.dtype(dtype).newbyteorder(">"), order="F"))
npy("float16_c.npy", np.linspace(-70, 65504, 60).astype(np.float16).reshape(4, 5, 3))
tiny = np.array([6e-8, -6e-8, 5e-5, -0.0], dtype=">f2").reshape(1, 2, 2)
npy("float16_v2.npy", tiny)
npy("int16_v3.npy", ramp("int16", (4, 5, 3)))
npy("int16_v2.npy", np.asfortranarray(ramp("int16", (4, 5, 3, 1, 1))))

for name, slope, inter in [("slope0", 0, 5), ("slopenan", np.nan, 5), ("slopeinf", np.inf, np.nan), ("slopeneg", -2.5, 0), ("inter", 1, -7.5)]:
    for kind in (1, 2):
        h = header(kind, "<", "int16", SHAPE)
        h["scl_slope"], h["scl_inter"] = slope, inter
        nifti(f"{name}_{kind}.nii", h, ramp("int16", SHAPE))

turn = np.array([[0.9, -0.3, 0.1, -90.5], [0.25, 1.1, -0.4, 12.25], [-0.2, 0.35, 2.9, 33.125], [0, 0, 0, 1]])
for kind, endian in [(1, "<"), (2, ">")]:
    suffix = "" if kind == 1 else "2"
    h = header(kind, endian, "int16", SHAPE)
    h.set_sform(turn, code=1)
    h.set_qform(np.diag([1, 2, 3, 1]), code=1)  # the sform wins
    nifti(f"sform_oblique{suffix}.nii", h, ramp("int16", SHAPE))
    for qfac in (1, -1, 0):
        h = header(kind, endian, "int16", SHAPE)
        h["qform_code"] = 1
        h["pixdim"][0] = qfac
        h["quatern_b"], h["quatern_c"], h["quatern_d"] = 0.1, -0.35, 0.6
        h["qoffset_x"], h["qoffset_y"], h["qoffset_z"] = -80.5, 99, 7.25
        nifti(f"qform{suffix}_{qfac}.nii", h, ramp("int16", SHAPE))
    for name, c in [("half", 0.8), ("below", 0.79999995), ("above", 0.8 + 1e-16)]:  # half a turn: w is 0 up to the rounding of a NIfTI-1 header
        h = header(kind, endian, "int16", SHAPE)
        h["qform_code"] = 1
        h["pixdim"][0] = 1
        h["quatern_b"], h["quatern_c"], h["quatern_d"] = 0.6, c, 0
        nifti(f"qform{suffix}_{name}.nii", h, ramp("int16", SHAPE))
    h = header(kind, endian, "int16", SHAPE)
    h["pixdim"][1:4] = (-0.5, 0, 2)  # repaired as nibabel does
    nifti(f"pixdim{suffix}.nii", h, ramp("int16", SHAPE))
    for unit in (1, 3):
        h = header(kind, endian, "int16", SHAPE)
        h["xyzt_units"] = unit | 8
        nifti(f"unit{suffix}_{unit}.nii", h, ramp("int16", SHAPE))
    h = header(kind, endian, "uint8", SHAPE + (1, 1))
    nifti(f"axes{suffix}.nii.gz", h, ramp("uint8", SHAPE))

h = header(1, "<", "int16", SHAPE)
h["vox_offset"] = 400
nifti("extension.nii", h, ramp("int16", SHAPE), b"\1\0\0\0" + np.array([48, 6], "<i4").tobytes() + b"a comment".ljust(40, b"\0"))
plain = (OUT / "int16_le.nii").read_bytes()
(OUT / "members.nii.gz").write_bytes(write_gzip(plain[:200]) + write_gzip(plain[200:380]) + write_gzip(plain[380:]) + b"\0\0")
line = next(x for x in load_lines if x.startswith("int16_le.nii "))
load_lines.append("members.nii.gz" + line[len("int16_le.nii"):])

h = nib.Nifti1Header(endianness="<")
h.set_data_dtype(np.uint8)
h.set_data_shape(SHAPE)
h["vox_offset"], h["xyzt_units"], h["cal_max"] = 352, 2, 1
h["scl_slope"], h["scl_inter"] = 1, 0
h.set_sform(turn.astype(np.float32), code=2)
h["pixdim"][1:4] = np.sqrt((turn.astype(np.float32).astype(np.float64)[:3, :3] ** 2).sum(0))
(OUT / "mask.header").write_bytes(h.binaryblock + b"\0\0\0\0")


# ---- steps ----
def volume(kind, nx, ny, nz, seed):
    n = nx * ny * nz
    if kind == "constant":
        return np.full((nz, ny, nx), 7, np.float32)
    if kind == "smooth":
        z, y, x = np.meshgrid(*[np.arange(k) for k in (nz, ny, nx)], indexing="ij", sparse=True)
        return ((x * 5 + y * y // 7 + z * 11 + (x * z) // 3 + seed) % 1024).astype(np.float32)
    v = (np.arange(n, dtype=np.uint64) * 2654435761 + seed) & 0xFFFFFFFF
    v = ((v ^ (v >> np.uint64(15))) * 2246822519) & 0xFFFFFFFF
    v = ((v ^ (v >> np.uint64(13))) & 1023).astype(np.float32).reshape(nz, ny, nx) - 200
    return v / np.float32(64) if kind == "float" else v


def area(x, shape):
    return F.interpolate(torch.from_numpy(x)[None, None], size=shape, mode="area")[0, 0].numpy()


def prepare(v):
    nz, ny, nx = v.shape
    longest = max(v.shape)
    side = lambda n: max(1, int(np.round(n * 384 / longest)))  # np.round: half to even
    v = area(v, (side(nz), side(ny), side(nx)))
    return np.trunc(area(v, (48,) + v.shape[1:])).astype(np.int16)


def frame_side(n):
    return max(32, 32 * round(n / 32))


def patches(v, prescale, window):
    a = prepare(v) if prescale else v
    if window:
        level, width = window
        a = np.clip(a, level - width // 2, level + width // 2)
    a = a.astype(np.float32)
    low, high = a.min(), a.max()
    a = (a - low) / (high - low + np.float32(1e-6)) * np.float32(255)
    d, h, w = a.shape
    s = min(384 / h, 384 / w, 1)
    h2, w2, d2 = int(h * s), int(w * s), max(min(d, 48) // 3 * 3, 3)
    t = F.interpolate(torch.from_numpy(a)[None, None], size=(d2, h2, w2), mode="trilinear", align_corners=False)[0, 0]
    fh, fw = frame_side(h2), frame_side(w2)
    assert fh * fw <= 786432 and max(h2, w2) <= 200 * min(h2, w2)
    frames = t[:, None].repeat(1, 3, 1, 1)
    if (fh, fw) != (h2, w2):
        frames = F.interpolate(frames, size=(fh, fw), mode="bicubic", antialias=True, align_corners=False)
    x = (frames.numpy() - np.float32(127.5)) / np.float32(127.5)
    if len(x) % 2:
        x = np.concatenate([x, x[-1:]])
    gt, gh, gw = len(x) // 2, fh // 16, fw // 16
    x = x.reshape(gt, 2, 3, gh // 2, 2, 16, gw // 2, 2, 16)
    x = x.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1)  # t, block row, block column, row, column, c, tau, y, x
    return x, [w2, h2, d2, fw, fh, gt, gh, gw, float(low), float(high)]


for nx, ny, nz, kind, seed in [(384, 384, 48, "int", 1), (40, 30, 7, "int", 2), (51, 77, 13, "float", 3), (20, 50, 90, "int", 4), (64, 64, 1, "smooth", 5),
                               (400, 300, 20, "int", 6), (500, 333, 61, "float", 7), (9, 700, 30, "int", 8), (1000, 1000, 1, "int", 9),
                               (5, 6, 1000, "float", 10), (33, 21, 9, "constant", 11)]:
    p = prepare(volume(kind, nx, ny, nz, seed))
    assert p.shape[0] == 48
    prepare_lines.append(f"{nx} {ny} {nz} {kind} {seed} {p.shape[2]} {p.shape[1]} {sha(p)}")

odd383 = next(h for h in range(385, 2000) if int(h * (384 / h)) == 383)
for name, nx, ny, nz, kind, seed, prescale, window in [
        ("identity", 384, 384, 48, "int", 1, True, None), ("up", 40, 30, 7, "int", 2, True, None), ("tall", 20, 50, 90, "smooth", 3, True, (300, 401)),
        ("one", 64, 64, 1, "int", 4, True, None), ("one_plain", 64, 64, 1, "int", 4, False, None), ("same_plain", 64, 96, 6, "float", 5, False, None),
        ("odd", 70, 45, 5, "int", 6, False, None), ("odd47", 50, 41, 47, "float", 7, False, None), ("many", 45, 50, 61, "int", 8, False, (100, 255)),
        ("two", 33, 100, 2, "float", 9, False, None), ("wide", 500, 333, 7, "int", 10, False, None), ("cut383", 90, odd383, 9, "smooth", 11, False, None),
        ("float_window", 64, 50, 6, "float", 12, False, (3, 7)), ("constant", 64, 64, 6, "constant", 0, False, None), ("tiny", 1, 2, 3, "int", 13, False, None)]:
    x, sizes = patches(volume(kind, nx, ny, nz, seed), prescale, window)
    level, width = window or (0, 0)
    step_lines.append(" ".join(map(str, [name, nx, ny, nz, kind, seed, int(prescale), int(window is not None), level, width, *sizes])))
    x[(np.arange(4000, dtype=np.int64) * 7919) % x.size].astype("<f4").tofile(OUT / f"{name}.f32")

(OUT / "load.txt").write_text("\n".join(load_lines) + "\n")
(OUT / "prepare.txt").write_text("\n".join(prepare_lines) + "\n")
(OUT / "steps.txt").write_text("\n".join(step_lines) + "\n")
