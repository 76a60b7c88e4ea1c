# One slide phantom: 48, 64, 80 or 96 tiles of 512 level-0 pixels on an irregular piece of tissue, each drawn as 64 × 64 RGB, H&E-like.
# Bank(seed): the tiles, drawn once per run. make(rng, vendor, bank) → (findings, features (N, 64), coords (N, 2), thumbnail uint8 (h, w, 3)).
#
# tumour_percent of the tiles (rounded to whole tiles) are tumour, in one or few connected areas; with necrosis a quarter of these, at least 2, are necrotic.
# Grade: size, variety and number of the nuclei. Subtype: round nests (ductal) or single files (lobular). TIL high: lymphocytes (small dark dots) in the tumour tiles.
# Rule: no tumour → benign, else malignant. Therapy: grade 1 → endocrine; grade 2 or 3: neoadjuvant with TIL high, else chemotherapy.
import numpy as np

from common import chance, pick, smooth_noise, to_bytes
from encoder import encode

SIDE, TILE0, THUMB = 64, 512, 8
GRADES, SUBTYPES, TILS = ("1", "2", "3"), ("ductal", "lobular"), ("low", "high")
CLASSES = ["stroma", "fat", "necrosis"] + [g + s + t for g in GRADES for s in SUBTYPES for t in TILS]
STAIN = {"A": (1.0, 1.0, 1.0), "B": (0.97, 1.0, 1.03), "C": (1.03, 1.0, 0.96)}
PINK, PURPLE, BLUE, DARK = (232, 170, 200), (188, 140, 196), (92, 58, 140), (42, 26, 92)
YY, XX = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5, indexing="ij")


def stamp(tile, x, y, rx, ry, angle, colour):
    """A soft-edged ellipse; only its window is touched."""
    r = max(rx, ry) + 1
    x0, x1, y0, y1 = max(0, int(x - r)), min(SIDE, int(x + r) + 1), max(0, int(y - r)), min(SIDE, int(y + r) + 1)
    if x0 >= x1 or y0 >= y1:
        return
    dx, dy = XX[y0:y1, x0:x1] - x, YY[y0:y1, x0:x1] - y
    c, s = np.cos(angle), np.sin(angle)
    level = np.sqrt(((dx * c + dy * s) / rx) ** 2 + ((dy * c - dx * s) / ry) ** 2)
    alpha = np.clip((1 - level) * min(rx, ry) + 0.5, 0, 1)[..., None]
    tile[y0:y1, x0:x1] += (np.asarray(colour) - tile[y0:y1, x0:x1]) * alpha


def stroma(rng, strength=14):
    turn = rng.uniform(0, np.pi)
    wave = np.sin((XX * np.cos(turn) + YY * np.sin(turn)) * 0.8 + 2.2 * smooth_noise(rng, SIDE, SIDE, 14))
    tile = np.asarray(PINK, np.float64) + strength * (wave * 0.6 + 0.5 * smooth_noise(rng, SIDE, SIDE, 5))[..., None] * np.asarray((0.6, 1.2, 0.8))
    return tile, turn


def fat(rng):
    tile = np.full((SIDE, SIDE, 3), 245.0)
    p = rng.uniform(-6, SIDE + 6, (14, 2))
    d = np.sort(np.sqrt((XX[..., None] - p[:, 0]) ** 2 + (YY[..., None] - p[:, 1]) ** 2), axis=2)
    wall = np.clip(1.6 - (d[..., 1] - d[..., 0]) / 1.6, 0, 1)[..., None]
    return tile + (np.asarray(PINK) - 15 - tile) * wall


def nucleus(rng, tile, x, y, grade):
    size, variety = {"1": (2.0, 0.06), "2": (3.3, 0.16), "3": (4.9, 0.3)}[grade]
    rx = size * np.exp(variety * rng.standard_normal())
    ry = rx * rng.uniform(1 - 1.2 * variety, 1)
    shade = rng.uniform(-18, 18) * (variety * 3)
    stamp(tile, x, y, rx, ry, rng.uniform(0, np.pi), np.asarray(BLUE) + shade)
    if grade == "3":
        stamp(tile, x + 0.3 * rx, y, 1.1, 1.1, 0, DARK)  # nucleolus


def tumour(rng, grade, subtype, til):
    tile, _ = stroma(rng)
    spacing = {"1": 6.0, "2": 7.8, "3": 10.4}[grade]
    if subtype == "ductal":
        for k in range(3):  # nests on a jittered triangle
            a = k * 2.1 + rng.uniform(0, 6.3) * (k == 0)
            turn = rng.uniform(-0.3, 0.3) + a
            cx, cy, r = 32 + 19 * np.cos(turn), 32 + 19 * np.sin(turn), rng.uniform(14, 17)
            stamp(tile, cx, cy, r, r * 0.95, 0, PURPLE)
            for u in np.arange(-r, r, spacing * 0.85):
                for v in np.arange(-r, r, spacing * 0.85):
                    if u * u + v * v < (r - spacing * 0.35) ** 2:
                        nucleus(rng, tile, cx + u + rng.uniform(-1.2, 1.2), cy + v + rng.uniform(-1.2, 1.2), grade)
    else:
        a = rng.uniform(0, np.pi)
        c, s = np.cos(a), np.sin(a)
        for row in np.arange(-42, 43, 14) + rng.uniform(-3, 3):
            phase = rng.uniform(0, 6.3)
            for t in np.arange(-45, 45, spacing) + rng.uniform(0, spacing):
                u, v = t, row + 2.2 * np.sin(t / 11 + phase)
                nucleus(rng, tile, 32 + u * c - v * s, 32 + u * s + v * c, grade)
    if til == "high":
        for x, y in rng.uniform(0, SIDE, (75, 2)):
            stamp(tile, x, y, 1.35, 1.35, 0, DARK)
    return tile


def necrosis(rng):
    smear = smooth_noise(rng, SIDE, SIDE, 9) + 0.6 * smooth_noise(rng, SIDE, SIDE, 3)
    tile = np.asarray((222, 120, 150.0)) + 16 * smear[..., None] * np.asarray((0.5, 1, 1))
    for x, y in rng.uniform(0, SIDE, (26, 2)):  # debris
        stamp(tile, x, y, rng.uniform(0.7, 1.8), 0.8, rng.uniform(0, 3), (120, 60, 110))
    return tile


def draw_tile(rng, kind):
    if kind == "stroma":
        tile, turn = stroma(rng)
        for x, y in rng.uniform(0, SIDE, (int(rng.integers(5, 11)), 2)):
            stamp(tile, x, y, 3.2, 1.0, turn + np.pi / 2 + rng.uniform(-0.3, 0.3), BLUE)  # spindle cells along the fibres
    elif kind == "fat":
        tile = fat(rng)
    elif kind == "necrosis":
        tile = necrosis(rng)
    else:
        tile = tumour(rng, kind[0], kind[1:-3] if kind.endswith("low") else kind[1:-4], "low" if kind.endswith("low") else "high")
    return to_bytes(tile + rng.standard_normal((SIDE, SIDE, 1)) * 3)


class Bank:
    """EACH tiles of every class from the run's seed; features and thumbnails of a tile, a flip and a vendor are computed once, when first drawn."""

    def __init__(self, seed, each=40):
        self.tiles = {k: np.stack([draw_tile(np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 100 + c, i]))), k) for i in range(each)])
                      for c, k in enumerate(CLASSES)}
        self.each, self.known = each, {}

    def all_tiles(self):
        return np.concatenate(list(self.tiles.values()))

    def pixels(self, key):
        kind, number, flip, vendor = key
        tile = self.tiles[kind][number]
        if flip & 1:
            tile = tile[::-1]
        if flip & 2:
            tile = tile[:, ::-1]
        return to_bytes(255 - (255 - tile.astype(np.float32)) * np.float32(STAIN[vendor]))

    def get(self, keys):
        """[(class, number, flip, vendor)] → features (n, 64), thumbnails uint8 (n, 8, 8, 3)."""
        fresh = [k for k in dict.fromkeys(keys) if k not in self.known]
        if fresh:
            pixels = np.stack([self.pixels(k) for k in fresh])
            small = to_bytes(pixels.reshape(len(fresh), THUMB, SIDE // THUMB, THUMB, SIDE // THUMB, 3).mean((2, 4)))
            self.known.update(zip(fresh, zip(encode(pixels), small)))
        found = [self.known[k] for k in keys]
        return np.stack([f for f, _ in found]), np.stack([t for _, t in found])


def footprint(rng, n):
    """n cells (column, row) of an irregular piece of tissue, column by column, and the shape of their grid."""
    g = 14
    y, x = np.meshgrid(np.arange(g) - 6.5, np.arange(g) - 6.5, indexing="ij")
    score = -np.sqrt((x * rng.uniform(0.8, 1)) ** 2 + (y * rng.uniform(1, 1.25)) ** 2) + 1.1 * smooth_noise(rng, g, g, 4)
    ys, xs = np.unravel_index(np.argsort(-score, axis=None)[:n], (g, g))
    order = np.lexsort((ys, xs))
    xs, ys = xs[order] - xs.min(), ys[order] - ys.min()
    return xs, ys, (int(ys.max()) + 1, int(xs.max()) + 1)


def make(rng, vendor, bank):
    n = pick(rng, 48, 64, 80, 96)
    xs, ys, (rows, cols) = footprint(rng, n)
    percent = 10 * int(rng.integers(1, 10)) if chance(rng, 0.8) else 0
    f = {"tumour": "yes" if percent else "no", "tumour_percent": percent, "assessment": "malignant" if percent else "benign"}
    kinds = np.where(smooth_noise(rng, rows, cols, 3)[ys, xs] > 0.5, "fat", "stroma").astype(object)
    if percent:
        grade, subtype, til, dead = pick(rng, *GRADES), pick(rng, *SUBTYPES), pick(rng, *TILS), chance(rng, 0.5)
        f.update(grade=grade, subtype=subtype, til=til, necrosis="yes" if dead else "no",
                 therapy="endocrine" if grade == "1" else "neoadjuvant" if til == "high" else "chemotherapy")
        count = (n * percent + 50) // 100
        centre = rng.integers(n)
        score = -np.hypot(xs - xs[centre], ys - ys[centre]) + 0.9 * smooth_noise(rng, rows, cols, 3)[ys, xs]
        sick = np.argsort(-score)[:count]
        kinds[sick] = grade + subtype + til
        if dead:
            kinds[sick[:max(2, count // 4)]] = "necrosis"  # the middle of the tumour
    numbers, flips = rng.integers(bank.each, size=n), rng.integers(4, size=n)
    features, small = bank.get([(k, int(i), int(b), vendor) for k, i, b in zip(kinds, numbers, flips)])
    thumbnail = np.full((rows, THUMB, cols, THUMB, 3), 243, np.uint8)
    thumbnail[ys, :, xs] = small
    coords = np.stack([xs, ys], 1).astype(np.int64) * TILE0 + TILE0 * rng.integers(1, 20, 2)
    return f, features, coords, thumbnail.reshape(rows * THUMB, cols * THUMB, 3)
