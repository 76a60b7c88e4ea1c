# Shared by the phantom makers: random streams, smooth noise, blur, lesion outlines, and writers of PNG, NIfTI-1 and safetensors.
# Pictures are numpy arrays, rows first; volumes are (z, y, x). Boxes are edges: pixel i covers i … i+1.
# Not here: anything of one modality.
import functools
import gzip
import json
import struct
import zlib

import numpy as np

MODALITIES = ("ultrasound", "mammography", "ct", "mri", "pathology")
VENDORS = ("A", "B", "C")
ANGLES = 720  # bins of an outline's radius table


def stream(seed, *path):
    """One random stream per case: (seed, modality number, index) → Generator."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *path])))


def pick(rng, *values):
    return values[int(rng.integers(len(values)))]


def chance(rng, p):
    return bool(rng.random() < p)


@functools.lru_cache(maxsize=None)
def _ramp(n, cell, coarse):
    # (n, coarse) matrix: row i mixes two neighbours of a coarse grid with a cosine ramp.
    at = (np.arange(n) + 0.5) / cell
    left = np.minimum(at.astype(int), coarse - 2)
    t = (0.5 - 0.5 * np.cos(np.pi * (at - left))).astype(np.float32)
    m = np.zeros((n, coarse), np.float32)
    m[np.arange(n), left] = 1 - t
    m[np.arange(n), left + 1] += t
    return m


def smooth_noise(rng, h, w, cell, cell_x=None):
    """(h, w) float32, about unit variance, features of `cell` pixels (`cell_x` along x)."""
    cell_x = cell_x or cell
    gh, gw = int(h / cell) + 2, int(w / cell_x) + 2
    coarse = rng.standard_normal((gh, gw), dtype=np.float32)
    return 1.6 * (_ramp(h, cell, gh) @ coarse @ _ramp(w, cell_x, gw).T)


@functools.lru_cache(maxsize=None)
def _gauss(n, sigma):
    i = np.arange(n)
    m = np.exp(-0.5 * ((i[:, None] - i[None, :]) / sigma) ** 2)
    return (m / m.sum(1, keepdims=True)).astype(np.float32)


def blur(picture, sigma_y, sigma_x=None):
    """Gaussian blur of the last two axes, edges renormalised."""
    h, w = picture.shape[-2:]
    return _gauss(h, sigma_y) @ picture @ _gauss(w, sigma_x or sigma_y).T


def ramp(x):
    """0 below −0.5, 1 above 0.5, linear between."""
    return np.clip(x + 0.5, 0, 1)


@functools.lru_cache(maxsize=None)
def pixel_grid(h, w):
    """Pixel centres y (h, 1) and x (1, w)."""
    return (np.arange(h, dtype=np.float32)[:, None] + 0.5), (np.arange(w, dtype=np.float32)[None, :] + 0.5)


class Outline:
    """A star-shaped outline that exactly fills a box: radius as a function of the angle around (cx, cy), in pixels."""

    def __init__(self, rng, shape, box):
        t = np.linspace(0, 2 * np.pi, 360, endpoint=False)
        r = np.ones(360)
        if shape == "irregular":  # an angular star: deep notches between 4 or 5 corners, edges straight in the angle
            corners = 2 * pick(rng, 4, 5)
            radii = np.where(np.arange(corners) % 2 == 0, rng.uniform(0.92, 1.08, corners), rng.uniform(0.48, 0.62, corners))
            at = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * (2 * np.pi / corners) + rng.uniform(0, 2 * np.pi)
            r = np.interp(t, at, radii, period=2 * np.pi)
        x, y = r * np.cos(t), r * np.sin(t)
        sx, sy = (box[2] - box[0]) / np.ptp(x), (box[3] - box[1]) / np.ptp(y)
        self.cx, self.cy = box[0] - x.min() * sx, box[1] - y.min() * sy
        x, y = x * sx, y * sy
        self.table = np.interp((np.arange(ANGLES) + 0.5) * (2 * np.pi / ANGLES) - np.pi, np.arctan2(y, x), np.hypot(x, y), period=2 * np.pi).astype(np.float32)

    def distance(self, h, w):
        """Pixels outside (> 0) or inside (< 0) the outline, along the ray from the centre; the radius; the angle's bin."""
        y, x = pixel_grid(h, w)
        dy, dx = y - np.float32(self.cy), x - np.float32(self.cx)
        radius = np.sqrt(dy * dy + dx * dx)
        angle_bin = ((np.arctan2(dy, dx) + np.float32(np.pi)) * np.float32(ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
        return radius - self.table[angle_bin], radius, angle_bin


def spikes(rng, d, radius, angle_bin, count, length, width):
    """(h, w) 0…1: `count` tapering spikes outward from the outline, `length` and `width` pixels; and the number of each pixel's spike."""
    at = (np.arange(count) + rng.uniform(-0.25, 0.25, count)) * (2 * np.pi / count) + rng.uniform(0, 2 * np.pi)
    lengths = length * rng.uniform(0.75, 1.25, count)
    t = (np.arange(ANGLES) + 0.5) * (2 * np.pi / ANGLES)
    off = np.abs((t[:, None] - at[None, :] + np.pi) % (2 * np.pi) - np.pi)
    near = off.argmin(1)
    across = radius * np.sin(np.minimum(off.min(1), 1.5)).astype(np.float32)[angle_bin]
    left = 1 - d / lengths.astype(np.float32)[near][angle_bin]  # 1 at the outline, 0 at the tip
    mask = ramp((0.35 + 0.65 * left) * (width / 2) - across) * (left > 0) * (d > -1.5)
    return mask, near[angle_bin]


def to_bytes(picture):
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def box_text(box):
    return " ".join(str(int(v)) for v in box)


def write_png(path, picture):
    """uint8 (h, w) grey or (h, w, 3) RGB."""
    h, w = picture.shape[:2]
    colour = 2 if picture.ndim == 3 else 0
    rows = np.zeros((h, 1 + w * (3 if colour else 1)), np.uint8)  # filter 0 before each row
    rows[:, 1:] = picture.reshape(h, -1)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, colour, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)) + chunk(b"IEND", b""))


def write_nifti(path, volume, spacing, direction):
    """int16 (z, y, x) → NIfTI-1 .nii.gz; spacing in mm along x, y, z; direction ±1 along x, y, z in RAS+."""
    nz, ny, nx = volume.shape
    affine = np.zeros((3, 4), np.float32)
    for k, n in enumerate((nx, ny, nz)):
        affine[k, k] = spacing[k] * direction[k]
        affine[k, 3] = -affine[k, k] * (n - 1) / 2
    h = bytearray(352)  # 348 bytes of header, then "no extension"
    struct.pack_into("<i", h, 0, 348)
    struct.pack_into("<8h", h, 40, 3, nx, ny, nz, 1, 1, 1, 1)
    struct.pack_into("<2h", h, 70, 4, 16)  # int16
    struct.pack_into("<8f", h, 76, 1, *spacing, 0, 0, 0, 0)
    struct.pack_into("<3f", h, 108, 352, 1, 0)  # vox_offset, slope, intercept
    h[123] = 2  # mm
    struct.pack_into("<2h", h, 252, 0, 2)  # no qform; sform: aligned
    struct.pack_into("<12f", h, 280, *affine.ravel())
    h[344:348] = b"n+1\0"
    with open(path, "wb") as f:
        f.write(gzip.compress(bytes(h) + volume.astype("<i2").tobytes(), compresslevel=1, mtime=0))


def write_safetensors(path, features, coords, metadata):
    """features (N, D) float32, coords (N, 2) int64, metadata text → text."""
    parts = {"coords": ("I64", coords.astype("<i8")), "features": ("F32", features.astype("<f4"))}
    header, at = {"__metadata__": metadata}, 0
    for name, (kind, data) in parts.items():
        header[name] = {"dtype": kind, "shape": list(data.shape), "data_offsets": [at, at + data.nbytes]}
        at += data.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data.tobytes() for _, data in parts.values()))
