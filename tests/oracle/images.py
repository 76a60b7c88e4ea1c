"""Goldens of picture decoding and preprocessing, made with Pillow, numpy and transformers; nothing of this project runs here.

Pinned: Python 3.11, pillow 11.3.0, numpy 2.4.6, transformers 4.57.1, scikit-image 0.26.0 (for its two CC0 pictures).
Command, from the root of the repository:  USE_TORCH=0 python tests/oracle/images.py
Not Pillow 13: it resizes the height first where only the height shrinks, which changes bytes; the model's reference and the specification always resize
the width first, as Pillow up to 12 does.
Writes tests/golden/images/: the picture files, and three lists of space-separated fields
  decode.txt      file format width height kind sha256
                  kind rgb: bytes of Image.open(f).convert("RGB"); grey16: little-endian values of np.array(Image.open(f))
  resize.txt      channels in_width in_height out_width out_height seed sha256        input noise(), output Image.resize(…, BICUBIC)
  preprocess.txt  source min_tokens max_tokens prescale grey16 level width grid_h grid_w kind sha256
                  source: a file, or noise:WxH:seed; kind f32: bytes of the float32 patch vectors, from the code below, written from the specification;
                  kind u8: the pixel values of the patch vectors of transformers' Qwen2VLImageProcessor.
"""
import hashlib
import io
import math
import pathlib
import struct
import zlib

import numpy as np
import PIL
from PIL import Image

assert PIL.__version__ == "11.3.0"
OUT = pathlib.Path("tests/golden/images")
decode_lines, resize_lines, preprocess_lines = [], [], []


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def noise(count, seed):
    """Byte i is a hash of (i, seed); the C++ test has the same three lines."""
    v = (np.arange(count, dtype=np.uint64) * 2654435761 + seed) & 0xFFFFFFFF
    v = ((v ^ (v >> np.uint64(15))) * 2246822519) & 0xFFFFFFFF
    return ((v ^ (v >> np.uint64(13))) & 255).astype(np.uint8)


def picture(width, height, channels, seed=1):
    """Smooth gradients and edges with some noise, so that files stay small and chroma matters."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for c in range(channels):
        smooth = 127 + 90 * np.sin(x / (7 + 3 * c) + c) * np.cos(y / (11 - 2 * c)) + 30 * ((x // 9 + y // 7 + c) % 2)
        planes.append(smooth + noise(width * height, seed + c).reshape(height, width) % 8)
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def deep(width, height, top=65535):
    y, x = np.mgrid[0:height, 0:width]
    return ((x * 977 + y * 1531 + (x * y) % 251 * 13) % (top + 1)).astype(np.uint16)


def decoded(name):
    """From memory: Pillow's way through a mapped file mixes up the sides of turned 16-bit TIFF files. load() first: it turns them."""
    im = Image.open(io.BytesIO((OUT / name).read_bytes()))
    kind = im.format
    im.load()
    return kind, np.array(im).astype("<u2") if im.mode.startswith("I") else np.array(im.convert("RGB"))


def record(name):
    kind, expected = decoded(name)
    kind, grey16 = kind.replace("PPM", "PNM"), expected.dtype == np.uint16
    height, width = expected.shape[:2]
    decode_lines.append(f"{name} {kind} {width} {height} {'grey16' if grey16 else 'rgb'} {sha(expected)}")


def store(name, data):
    (OUT / name).write_bytes(data)
    record(name)


def save(name, image, **options):
    image.save(OUT / name, **options)
    record(name)


# --- PNG: own writer, because Pillow writes neither interlaced nor grey of 2 and 4 bits -------------------------------------------------------------
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack(values, bits):
    """(height, n) samples → rows of packed bytes."""
    if bits == 8:
        return [row.astype(np.uint8).tobytes() for row in values]
    if bits == 16:
        return [row.astype(">u2").tobytes() for row in values]
    rows = []
    for row in values:
        per = 8 // bits
        row = np.pad(row, (0, -len(row) % per)).reshape(-1, per)
        rows.append(bytes(int(sum(int(v) << (8 - bits * (i + 1)) for i, v in enumerate(group))) for group in row))
    return rows


def filtered(rows, step, start):
    """All five PNG filters in turn."""
    out, previous = b"", bytes(len(rows[0])) if rows else b""
    for index, row in enumerate(rows):
        kind, line = (index + start) % 5, bytearray()
        for i, v in enumerate(row):
            a, b, c = row[i - step] if i >= step else 0, previous[i], previous[i - step] if i >= step else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line.append((v - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)
        out += bytes([kind]) + line
        previous = row
    return out


def png(array, bits, colour, interlace=False, extra=b"", split=None):
    height, width = array.shape[:2]
    channels = array.shape[2] if array.ndim == 3 else 1
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)] if interlace else [(0, 0, 1, 1)]
    data = b""
    for number, (x0, y0, dx, dy) in enumerate(passes):
        part = array[y0::dy, x0::dx]
        if part.shape[0] and part.shape[1]:
            data += filtered(pack(part.reshape(part.shape[0], -1), bits), max(1, channels * bits // 8), number)
    data = zlib.compress(data, 9)
    parts = [data[i:i + split] for i in range(0, len(data), split)] if split else [data]
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlace))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + b"".join(chunk(b"IDAT", p) for p in parts) + chunk(b"IEND", b"")


def make_png():
    palette = chunk(b"PLTE", noise(48, 5).tobytes())
    for interlace in (False, True):
        tag = "-interlaced" if interlace else ""
        for bits in (1, 2, 4):
            values = (picture(29, 13, 1)[..., 0].astype(int) * ((1 << bits) - 1) + 127) // 255
            store(f"grey{bits}{tag}.png", png(values, bits, 0, interlace))
            store(f"palette{bits}{tag}.png", png(values, bits, 3, interlace, chunk(b"PLTE", noise(3 << bits, 5).tobytes())))
        store(f"grey8{tag}.png", png(picture(23, 17, 1)[..., 0], 8, 0, interlace))
        store(f"rgb8{tag}.png", png(picture(23, 17, 3), 8, 2, interlace))
        store(f"rgba8{tag}.png", png(picture(23, 17, 4), 8, 6, interlace))
        store(f"grey16{tag}.png", png(deep(23, 17), 16, 0, interlace))
        store(f"rgb16{tag}.png", png(np.stack([deep(11, 7), deep(11, 7)[::-1], deep(11, 7)[:, ::-1]], -1), 16, 2, interlace))
    for width, height in ((1, 1), (2, 3), (3, 1), (1, 5)):
        store(f"rgb8-{width}x{height}-interlaced.png", png(picture(width, height, 3), 8, 2, True))
    store("grey-alpha8.png", png(picture(19, 11, 2), 8, 4))
    store("grey-alpha16.png", png(np.stack([deep(9, 8), deep(9, 8)[::-1]], -1), 16, 4))
    store("rgba16.png", png(np.stack([deep(9, 8)] * 4, -1) + np.arange(4, dtype=np.uint16) * 4099, 16, 6))
    index = noise(19 * 11, 7).reshape(11, 19) % 24
    store("palette8-short.png", png(index, 8, 3, False, palette))  # indices 16 … 23 are beyond the palette
    store("palette8-trns.png", png(index % 16, 8, 3, False, palette + chunk(b"tRNS", bytes([255, 0, 128, 3]))))
    store("palette8-trns-one.png", png(index % 16, 8, 3, False, palette + chunk(b"tRNS", bytes([255, 0, 255]))))
    store("grey8-trns.png", png(picture(9, 7, 1)[..., 0], 8, 0, False, chunk(b"tRNS", struct.pack(">H", 130))))
    store("rgb8-trns.png", png(picture(9, 7, 3), 8, 2, False, chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))))
    store("grey16-trns.png", png(deep(9, 7), 16, 0, False, chunk(b"tRNS", struct.pack(">H", 977))))
    store("rgb8-split.png", png(picture(23, 17, 3), 8, 2, False, chunk(b"tEXt", b"Comment\0text") + chunk(b"gAMA", struct.pack(">I", 45455)), 50))
    save("rgb8-1x5000.png", Image.fromarray(picture(1, 5000, 3)))
    save("rgb8-5000x1.png", Image.fromarray(picture(5000, 1, 3)))
    save("rgb8-1x1.png", Image.fromarray(picture(1, 1, 3)))


# --- JPEG -------------------------------------------------------------------------------------------------------------------------------------------
def jpeg(array, mode, **options):
    out = io.BytesIO()
    Image.fromarray(array, mode).save(out, "JPEG", **options) if mode else Image.fromarray(array).save(out, "JPEG", **options)
    return bytearray(out.getvalue())


def sampling(data, value):
    """Changes the sampling of the first component in the frame header; the numbers of blocks must agree (32 × 32 pixels)."""
    at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
    data[at + 11] = value
    return bytes(data)


def make_jpeg():
    for subsampling in (0, 1, 2):
        for width, height in ((1, 1), (17, 33), (35, 16)):
            store(f"rgb-{subsampling}-{width}x{height}.jpg", jpeg(picture(width, height, 3), None, quality=80, subsampling=subsampling))
        store(f"rgb-{subsampling}-progressive.jpg", jpeg(picture(35, 29, 3), None, quality=70, subsampling=subsampling, progressive=True))
    store("grey.jpg", jpeg(picture(31, 17, 1)[..., 0], None))
    store("grey-progressive.jpg", jpeg(picture(31, 17, 1)[..., 0], None, progressive=True))
    store("restart.jpg", jpeg(picture(49, 35, 3), None, restart_marker_blocks=2))
    store("restart-progressive.jpg", jpeg(picture(49, 35, 3), None, restart_marker_rows=1, progressive=True))
    store("adobe-rgb.jpg", jpeg(picture(21, 19, 3), None, keep_rgb=True))
    store("exif-rotated.jpg", jpeg(picture(21, 19, 3), None, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"))
    cmyk = Image.frombytes("CMYK", (25, 19), picture(25, 19, 4).tobytes())
    for name, options in (("cmyk.jpg", {}), ("cmyk-progressive.jpg", {"progressive": True})):
        out = io.BytesIO()
        cmyk.save(out, "JPEG", quality=85, **options)
        store(name, out.getvalue())
        data = bytearray(out.getvalue())
        data[data.index(b"Adobe") + 11] = 2  # the same data understood as YCCK
        store(name.replace("cmyk", "ycck"), bytes(data))
        at = data.index(b"Adobe") - 4
        store(name.replace("cmyk", "cmyk-plain"), bytes(data[:at] + data[at + 16:]))  # no Adobe marker at all
    store("rgb-440.jpg", sampling(jpeg(picture(32, 32, 3), None, subsampling=1), 0x12))
    store("rgb-411.jpg", sampling(jpeg(picture(32, 32, 3), None, subsampling=2), 0x41))


# --- TIFF: own writer for what Pillow does not write -------------------------------------------------------------------------------------------------
def tiff(width, height, bits, samples, photometric, blocks, compression=1, tile=None, rows=None, planar=1, order="<", tags=(), big=False):
    """blocks: the strips' or tiles' bytes. tags: (tag, type, values) more."""
    sizes = {1: "B", 3: "H", 4: "I", 16: "Q"}
    entries = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * samples), (259, 3, [compression]), (262, 3, [photometric]), (277, 3, [samples]),
               (284, 3, [planar])]
    kind = 16 if big else 4
    offset = 16 if big else 8
    starts = []
    for block in blocks:
        starts.append(offset)
        offset += len(block)
    if tile:
        entries += [(322, 4, [tile[0]]), (323, 4, [tile[1]]), (324, kind, starts), (325, kind, [len(b) for b in blocks])]
    else:
        entries += [(278, 4, [rows or height]), (273, kind, starts), (279, kind, [len(b) for b in blocks])]
    entries = sorted(entries + list(tags))
    offset += offset % 2
    inline, wide = (8, "Q") if big else (4, "I")
    table_end = offset + (8 if big else 2) + len(entries) * (20 if big else 12) + inline
    directory, late = struct.pack(order + ("Q" if big else "H"), len(entries)), b""
    for tag, kind, values in entries:
        data = struct.pack(order + sizes[kind] * len(values), *values)
        directory += struct.pack(order + "HH" + wide, tag, kind, len(values))
        if len(data) <= inline:
            directory += data.ljust(inline, b"\0")
        else:
            directory += struct.pack(order + wide, table_end + len(late))
            late += data + b"\0" * (len(data) % 2)
    directory += struct.pack(order + wide, 0)
    mark = b"II" if order == "<" else b"MM"
    head = mark + (struct.pack(order + "HHHQ", 43, 8, 0, offset) if big else struct.pack(order + "HI", 42, offset))
    body = b"".join(blocks)
    return head + body + b"\0" * (len(body) % 2) + directory + late


def tiles(array, side, encode=lambda t: t.tobytes()):
    height, width = array.shape[:2]
    out = []
    for y in range(0, height, side):
        for x in range(0, width, side):
            part = array[y:y + side, x:x + side]
            pad = [(0, side - part.shape[0]), (0, side - part.shape[1])] + [(0, 0)] * (array.ndim - 2)
            out.append(encode(np.ascontiguousarray(np.pad(part, pad, mode="edge"))))
    return out


def make_tiff():
    rgb, grey = picture(37, 29, 3), picture(37, 29, 1)[..., 0]
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        save(f"rgb-{compression}.tif", Image.fromarray(rgb), compression=compression)
        save(f"grey-{compression}.tif", Image.fromarray(grey), compression=compression)
    for compression in ("tiff_lzw", "tiff_adobe_deflate"):
        save(f"rgb-{compression}-predictor.tif", Image.fromarray(rgb), compression=compression, tiffinfo={317: 2})
        save(f"grey16-{compression}-predictor.tif", Image.fromarray(deep(37, 29)), compression=compression, tiffinfo={317: 2})
    for compression in ("raw", "tiff_ccitt", "group3", "group4"):
        save(f"bits-{compression}.tif", Image.fromarray(grey > 120), compression=compression)
    save("grey16.tif", Image.fromarray(deep(37, 29)))
    save("palette.tif", Image.fromarray(rgb).quantize(32))
    save("rgba.tif", Image.fromarray(picture(37, 29, 4)), compression="tiff_lzw")
    save("grey-alpha.tif", Image.fromarray(picture(37, 29, 2), "LA"))
    save("cmyk.tif", Image.frombytes("CMYK", (37, 29), picture(37, 29, 4).tobytes()), compression="tiff_lzw")
    first = Image.fromarray(rgb)
    first.save(OUT / "two-pages.tif", save_all=True, append_images=[Image.fromarray(grey)])
    record("two-pages.tif")
    jpeg_tile = lambda t: bytes(jpeg(t, None, quality=80, subsampling=2))
    deflate = lambda t: zlib.compress(t.tobytes(), 9)
    store("rgb-tiles.tif", tiff(37, 29, 8, 3, 2, tiles(rgb, 16), tile=(16, 16)))
    store("rgb-tiles-deflate.tif", tiff(37, 29, 8, 3, 2, tiles(rgb, 16, deflate), 8, tile=(16, 16)))
    store("ycbcr-tiles-jpeg.tif", tiff(37, 29, 8, 3, 6, tiles(rgb, 16, jpeg_tile), 7, tile=(16, 16), tags=[(530, 3, [2, 2])]))
    jpeg_strips = [bytes(jpeg(rgb[i:i + 16], None, subsampling=1)) for i in (0, 16)]
    store("ycbcr-strips-jpeg.tif", tiff(37, 29, 8, 3, 6, jpeg_strips, 7, rows=16, tags=[(530, 3, [2, 1])]))
    planes = [np.ascontiguousarray(rgb[..., c]) for c in range(3)]
    store("rgb-planes.tif", tiff(37, 29, 8, 3, 2, [p[i:i + 10].tobytes() for p in planes for i in (0, 10, 20)], rows=10, planar=2))
    store("rgb-planes-tiles.tif", tiff(37, 29, 8, 3, 2, [t for p in planes for t in tiles(p, 16, deflate)], 8, tile=(16, 16), planar=2))
    store("grey-strips.tif", tiff(37, 29, 8, 1, 1, [grey[i:i + 7].tobytes() for i in range(0, 29, 7)], rows=7))
    store("grey-white.tif", tiff(37, 29, 8, 1, 0, [grey.tobytes()]))
    store("grey16-white.tif", tiff(37, 29, 16, 1, 0, [deep(37, 29).astype("<u2").tobytes()]))
    store("grey16-big-endian.tif", tiff(37, 29, 16, 1, 1, [deep(37, 29).astype(">u2").tobytes()], order=">"))
    store("grey16-tiles.tif", tiff(37, 29, 16, 1, 1, tiles(deep(37, 29).astype("<u2"), 16, deflate), 8, tile=(16, 16)))
    store("rgb-bigtiff.tif", tiff(37, 29, 8, 3, 2, [rgb[i:i + 10].tobytes() for i in (0, 10, 20)], rows=10, big=True))
    for bits in (1, 2, 4):
        values = (grey.astype(int) * ((1 << bits) - 1) + 127) // 255
        packed = b"".join(pack(values, bits))
        store(f"grey{bits}.tif", tiff(37, 29, bits, 1, 1, [packed]))
        store(f"grey{bits}-white.tif", tiff(37, 29, bits, 1, 0, [zlib.compress(packed)], 8))
        store(f"palette{bits}.tif", tiff(37, 29, bits, 1, 3, [packed], tags=[(320, 3, [int(v) * 257 for v in noise(3 << bits, 9)])]))
    store("bits-fillorder2.tif", tiff(37, 29, 1, 1, 1, [bytes(int(f"{b:08b}"[::-1], 2) for b in b"".join(pack(grey > 120, 1)))], tags=[(266, 3, [2])]))
    colour16 = np.stack([deep(37, 29), deep(37, 29)[::-1], deep(37, 29)[:, ::-1]], -1)
    store("rgb16.tif", tiff(37, 29, 16, 3, 2, [colour16.astype("<u2").tobytes()]))
    store("rgb16-big-endian.tif", tiff(37, 29, 16, 3, 2, [zlib.compress(colour16.astype(">u2").tobytes())], 8, order=">"))
    four = picture(37, 29, 4)
    for name, extra in (("x", 0), ("premultiplied", 1), ("alpha", 2)):
        store(f"rgb-{name}.tif", tiff(37, 29, 8, 4, 2, [zlib.compress(four.tobytes())], 8, tags=[(338, 3, [extra])]))
        store(f"rgb16-{name}.tif", tiff(37, 29, 16, 4, 2, [zlib.compress((four.astype("<u2") * 257).tobytes())], 8, tags=[(338, 3, [extra])]))
    store("cmyk16.tif", tiff(37, 29, 16, 4, 5, [zlib.compress((four.astype("<u2") * 257).tobytes())], 8))
    for orientation in range(1, 9):
        store(f"orientation{orientation}.tif", tiff(13, 7, 8, 3, 2, [picture(13, 7, 3).tobytes()], tags=[(274, 3, [orientation])]))
    store("orientation6-grey16.tif", tiff(13, 7, 16, 1, 1, [deep(13, 7).astype("<u2").tobytes()], tags=[(274, 3, [6])]))


# --- BMP --------------------------------------------------------------------------------------------------------------------------------------------
def bmp(width, height, bits, rows, palette=b"", compression=0, masks=(), colours=0, header=40):
    """rows: the pixel bytes as they stand in the file. masks of a 40-byte header follow it; longer headers hold them."""
    inside = b"".join(struct.pack("<I", m) for m in masks)
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, len(rows), 2835, 2835, colours, 0)
    info = (info + inside).ljust(header, b"\0") if header > 40 else info + inside
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + info + palette + rows


def padded(array):
    return b"".join(r + b"\0" * (-len(r) % 4) for r in array)


def make_bmp():
    rgb = picture(21, 11, 3)
    save("rgb24.bmp", Image.fromarray(rgb))
    save("grey8.bmp", Image.fromarray(picture(21, 11, 1)[..., 0]))
    save("bits.bmp", Image.fromarray(picture(21, 11, 1)[..., 0] > 120))
    save("palette8.bmp", Image.fromarray(rgb).quantize(32))
    save("rgba32.bmp", Image.fromarray(picture(21, 11, 4)))
    colours = lambda n: b"".join(noise(3 * n, 3).tobytes()[3 * i:3 * i + 3] + b"\0" for i in range(n))
    index = noise(21 * 11, 4).reshape(11, 21)
    store("palette1.bmp", bmp(21, 11, 1, padded(pack(index % 2, 1)), colours(2)))
    store("palette4.bmp", bmp(21, 11, 4, padded(pack(index % 16, 4)), colours(16)))
    store("palette4-short.bmp", bmp(21, 11, 4, padded(pack(index % 16, 4)), colours(9), colours=9))
    store("palette8-top-down.bmp", bmp(21, -11, 8, padded(pack(index % 40, 8)), colours(40), colours=40))
    store("os2.bmp", b"BM" + struct.pack("<IHHIIHHHH", 0, 0, 0, 26 + 48, 12, 21, 11, 1, 4) + noise(48, 8).tobytes() + padded(pack(index % 16, 4)))
    words = (noise(21 * 11, 4).astype("<u2") * 257 ^ noise(21 * 11, 6)).astype("<u2").reshape(11, 21)
    store("rgb555.bmp", bmp(21, 11, 16, padded(r.tobytes() for r in words)))
    store("rgb555-masks.bmp", bmp(21, 11, 16, padded(r.tobytes() for r in words), compression=3, masks=(0x7C00, 0x3E0, 0x1F)))
    store("rgb565.bmp", bmp(21, 11, 16, padded(r.tobytes() for r in words), compression=3, masks=(0xF800, 0x7E0, 0x1F)))
    store("rgb24-masks.bmp", bmp(21, 11, 24, padded(r.tobytes() for r in rgb), compression=3, masks=(0xFF0000, 0xFF00, 0xFF)))
    four = padded(r.tobytes() for r in picture(21, 11, 4))
    store("rgb32.bmp", bmp(21, 11, 32, four))
    for number, masks in enumerate(((0xFF0000, 0xFF00, 0xFF, 0), (0xFF000000, 0xFF0000, 0xFF00, 0), (0xFF000000, 0xFF00, 0xFF, 0),
                                    (0xFF000000, 0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000, 0xFF000000), (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
                                    (0xFF000000, 0xFF00, 0xFF, 0xFF0000), (0, 0, 0, 0))):
        store(f"rgb32-masks{number}.bmp", bmp(21, 11, 32, four, compression=3, masks=masks, header=108))
    # Without skips and without odd literal runs of four bits, which Pillow reads wrongly up to version 12; the C++ test has those by hand.
    eight = bytes([5, 7, 16, 9, 0, 0]) + bytes([0, 5, 1, 2, 3, 4, 5, 0, 16, 8, 0, 0]) + bytes([21, 3, 0, 0]) * 8 + bytes([30, 11, 0, 1])
    store("rle8.bmp", bmp(21, 11, 8, eight, colours(16), 1, colours=16))
    four = bytes([21, 0x12, 0, 0, 0, 6, 0x12, 0x34, 0x56, 0, 15, 0x67, 0, 0]) + bytes([21, 0x9A, 0, 0]) * 8 + bytes([21, 0xBC, 0, 0, 0, 1])
    store("rle4.bmp", bmp(21, 11, 4, four, colours(16), 2))


# --- PNM --------------------------------------------------------------------------------------------------------------------------------------------
def plain(values, line=12):
    values = [str(int(v)) for v in np.ravel(values)]
    return "\n".join(" ".join(values[i:i + line]) for i in range(0, len(values), line)).encode() + b"\n"


def make_pnm():
    grey, rgb = picture(19, 7, 1)[..., 0], picture(19, 7, 3)
    store("p1.pbm", b"P1\n# a comment\n19 7\n" + plain(grey > 120))
    store("p1-dense.pbm", b"P1 19 7\n" + plain(grey > 120).replace(b" ", b""))
    store("p4.pbm", b"P4\n19 7\n" + b"".join(pack(grey > 120, 1)))
    for top in (1, 15, 100, 255):
        values = grey.astype(int) * top // 255
        store(f"p2-{top}.pgm", f"P2\n19 7\n{top}\n".encode() + plain(values))
        store(f"p5-{top}.pgm", f"P5 19 7 {top}\n".encode() + values.astype(np.uint8).tobytes())
        store(f"p3-{top}.ppm", f"P3\n19 # width\n7\n{top}\n".encode() + plain(rgb.astype(int) * top // 255))
        store(f"p6-{top}.ppm", f"P6\n19 7\n{top}\n".encode() + (rgb.astype(int) * top // 255).astype(np.uint8).tobytes())
    store("p5-100-above.pgm", b"P5 19 7 100\n" + grey.tobytes())  # values above the maximum
    for top in (256, 4095, 65535):
        values = deep(19, 7, top)
        store(f"p2-{top}.pgm", f"P2\n19 7\n{top}\n".encode() + plain(values))
        store(f"p5-{top}.pgm", f"P5\n19 7\n{top}\n".encode() + values.astype(">u2").tobytes())
        colour = np.stack([values, values[::-1], values[:, ::-1]], -1)
        store(f"p3-{top}.ppm", f"P3\n19 7\n{top}\n".encode() + plain(colour))
        store(f"p6-{top}.ppm", f"P6\n19 7\n{top}\n".encode() + colour.astype(">u2").tobytes())


def make_real():
    """Two CC0 pictures that scikit-image ships; see SOURCES.md."""
    from skimage import data
    retina = Image.fromarray(data.retina()).crop((130, 290, 1330, 1250)).resize((400, 320), Image.Resampling.LANCZOS)
    save("demo.jpg", retina, quality=85)
    save("microaneurysms.png", Image.fromarray(data.microaneurysms()))


# --- resize -----------------------------------------------------------------------------------------------------------------------------------------
def make_resize():
    sizes = [((1, 1), (1, 1)), ((1, 1), (32, 32)), ((2, 3), (5, 7)), ((5, 7), (2, 3)), ((1, 5000), (1, 640)), ((1, 5000), (32, 64)), ((5000, 1), (640, 1)),
             ((5000, 1), (1, 1)), ((97, 61), (96, 64)), ((97, 61), (97, 64)), ((97, 61), (96, 61)), ((100, 100), (100, 100)), ((333, 217), (32, 32)),
             ((31, 37), (320, 352)), ((640, 480), (224, 160)), ((257, 129), (1, 1)), ((3, 400), (64, 32)), ((13, 17), (1, 17)), ((13, 17), (13, 1)),
             ((1000, 3), (999, 2)), ((128, 128), (64, 64)), ((64, 64), (192, 192)), ((419, 283), (416, 288)), ((2048, 1), (2047, 3)), ((700, 500), (699, 501))]
    for seed, ((w, h), (ow, oh)) in enumerate(sizes):
        for channels in (1, 3):
            values = noise(w * h * channels, seed)
            if seed % 3 == 2:
                values = (values > 127).astype(np.uint8) * 255  # black and white: overshoots are clipped
            im = Image.fromarray(values.reshape((h, w, 3) if channels == 3 else (h, w)))
            resize_lines.append(f"{channels} {w} {h} {ow} {oh} {seed} {sha(np.array(im.resize((ow, oh), Image.Resampling.BICUBIC)))}")


# --- preprocessing, written from the specification --------------------------------------------------------------------------------------------------
def half_even(x):
    return int(np.rint(x))


def smart_resize(h, w, low, high, factor=32):
    assert max(h, w) <= 200 * min(h, w)
    a, b = (max(factor, factor * half_even(n / factor)) for n in (h, w))
    if a * b > high:
        beta = math.sqrt(h * w / high)
        a, b = (max(factor, factor * math.floor(n / beta / factor)) for n in (h, w))
    elif a * b < low:
        beta = math.sqrt(low / (h * w))
        a, b = (factor * math.ceil(n * beta / factor) for n in (h, w))
    return a, b


def eight_bits(values, mode, level, width):
    values = values.astype(np.float64)
    if mode == "pil-exact":
        return np.minimum(values, 255).astype(np.uint8)
    low, high = (values.min(), values.max()) if mode == "min-max" else (level - width / 2, level + width / 2)
    if low == high:
        return np.zeros(values.shape, np.uint8)
    return np.clip(np.floor((values - low) * 255 / (high - low) + 0.5), 0, 255).astype(np.uint8)


def patches(rgb, low, high, prescale):
    im = Image.fromarray(rgb)
    area = im.width * im.height
    if prescale and area > 1048576:
        scale = math.sqrt(1048576 / area)
        im = im.resize(tuple(max(1, half_even(n * scale)) for n in im.size), Image.Resampling.BICUBIC)
    h, w = smart_resize(im.height, im.width, low, high)
    v = np.array(im.resize((w, h), Image.Resampling.BICUBIC)).astype(np.float32)
    v = (v - np.float32(127.5)) / np.float32(127.5)
    gh, gw = h // 16, w // 16
    blocks = v.reshape(gh // 2, 2, 16, gw // 2, 2, 16, 3).transpose(0, 3, 1, 4, 6, 2, 5)  # block row, block column, row, column, channel, y, x
    return np.repeat(blocks.reshape(gh * gw, 3, 1, 16, 16), 2, axis=2).reshape(gh * gw, 1536), gh, gw


def source_array(source):
    if source.startswith("noise:"):
        _, size, seed = source.split(":")
        w, h = map(int, size.split("x"))
        return noise(w * h * 3, int(seed)).reshape(h, w, 3)
    return decoded(source)[1]


def make_preprocess():
    def case(source, low, high, prescale=1, mode="none", level=0.0, width=0.0):
        pixels = source_array(source)
        if pixels.dtype != np.uint8:
            grey = eight_bits(pixels, mode, level, width)
            pixels = np.stack([grey] * 3, -1)
        v, gh, gw = patches(pixels, low * 1024, high * 1024, prescale)
        preprocess_lines.append(f"{source} {low} {high} {prescale} {mode} {level} {width} {gh} {gw} f32 {sha(v)}")

    for source in ("demo.jpg", "rgb8-1x1.png", "rgb8.png", "palette8-trns.png", "grey.jpg", "cmyk.jpg", "microaneurysms.png", "noise:31x97:3"):
        case(source, 1, 1024)
    case("demo.jpg", 1, 64)
    case("demo.jpg", 256, 1024)
    case("rgb8.png", 16, 64)
    case("noise:1300x900:4", 1, 1024)
    case("noise:1300x900:4", 1, 1024, 0)
    case("noise:900x1301:5", 1, 100)
    case("noise:20x3900:6", 1, 1024)
    for source in ("grey16.png", "grey16.tif", "p5-4095.pgm"):
        case(source, 4, 1024, 1, "min-max")
        case(source, 1, 1024, 1, "pil-exact")
        case(source, 1, 1024, 1, "window", 30000.0, 20001.0)
        case(source, 1, 1024, 1, "window", 100.25, 0.75)

    from transformers import Qwen2VLImageProcessor
    for source, low, high in (("demo.jpg", 1, 1024), ("demo.jpg", 1, 64), ("demo.jpg", 256, 512), ("rgb8.png", 16, 64), ("rgb-planes.tif", 1, 1024),
                              ("noise:1000x1040:7", 1, 1024), ("noise:333x217:8", 1, 40), ("noise:48x80:9", 1, 1024)):
        processor = Qwen2VLImageProcessor(patch_size=16, merge_size=2, temporal_patch_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3,
                                          min_pixels=low * 1024, max_pixels=high * 1024)
        out = processor(images=[Image.fromarray(source_array(source))], return_tensors="np")
        _, gh, gw = out["image_grid_thw"][0]
        v = out["pixel_values"] * 127.5 + 127.5
        assert np.abs(v - np.rint(v)).max() < 1e-3 and v.shape == (gh * gw, 1536)
        preprocess_lines.append(f"{source} {low} {high} 1 none 0.0 0.0 {gh} {gw} u8 {sha(np.rint(v).astype(np.uint8))}")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for make in (make_png, make_jpeg, make_tiff, make_bmp, make_pnm, make_real, make_resize, make_preprocess):
        make()
    for name, lines in (("decode", decode_lines), ("resize", resize_lines), ("preprocess", preprocess_lines)):
        (OUT / f"{name}.txt").write_text("\n".join(lines) + "\n")


main()
