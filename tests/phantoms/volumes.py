# CT and MRI phantoms: 96 × 96 × 12 voxels of 2 × 2 × 4 mm, an axial chest slab with two breasts. make_ct, make_mri: (rng, vendor) → (findings, int16 (12, 96, 96) as (z, y, x)).
#
# Sides (spec/hospital.md). CT: rows anterior → posterior, columns patient right → left, so the patient's LEFT breast is on the RIGHT of the picture.
# MRI: rows posterior → anterior, columns patient left → right, so the patient's LEFT breast is on the LEFT of the picture and the breasts point down. Slices run
# inferior → superior in both.
# The anatomy is drawn once, anterior on top and column 0 = patient right (the CT's way); the MRI is that turned by 180°.
#
# CT rule: no mass → negative; mild enhancement and no node → benign; strong enhancement or a node → malignant. A node occurs only with a mass, on its side.
# MRI rule: no mass → BI-RADS 1, negative; homogeneous and unifocal → 3, benign; homogeneous and multifocal, or heterogeneous → 4, malignant; rim → 5, malignant.
# Surgery (with a mass): mastectomy when multifocal or size_mm ≥ 40, else breast-conserving; sizes between 34 and 44 mm are never drawn.
# size_mm is the longest side in the slice plane.
import numpy as np

from common import blur, box_text, chance, pick, ramp, smooth_noise

N, NZ = 96, 12
SPACING = (2.0, 2.0, 4.0)
CT_DIRECTION, MRI_DIRECTION = (-1, -1, 1), (1, 1, 1)
Z, Y, X = (np.arange(n, dtype=np.float32).reshape(s) + 0.5 for n, s in ((NZ, (-1, 1, 1)), (N, (1, -1, 1)), (N, (1, 1, -1))))
BREAST_X = {"right": 24.0, "left": 72.0}  # columns of the anatomy
CT_NOISE = {"A": 18, "B": 26, "C": 12}
MRI_NOISE = {"A": 14, "B": 20, "C": 10}
CT_GREY = {"mild": 200, "strong": 520}


def ellipse(cx, cy, a, b):
    """Level of an elliptic cylinder, (…, y, x): < 1 inside."""
    return np.sqrt(((X - cx) / a) ** 2 + ((Y - cy) / b) ** 2)


def inside(level, scale):
    return ramp((1 - level) * scale)


class Anatomy:
    """Masks 0 … 1 of (NZ or 1, N, N)."""

    def __init__(self, rng):
        self.a, self.b, self.cy = rng.uniform(20, 22), rng.uniform(24, 26.5), 35.0
        swell = 1 - 0.16 * ((Z - 6) / 6) ** 2  # smaller toward the ends of the slab
        self.breasts = {s: inside(np.sqrt(((X - x) / (self.a * swell)) ** 2 + ((Y - self.cy) / (self.b * swell)) ** 2), 20) for s, x in BREAST_X.items()}
        self.body = np.maximum(inside(ellipse(48, 70, 45, 24), 20), np.maximum(self.breasts["left"], self.breasts["right"]))
        self.wall = inside(ellipse(48, 73, 37, 20), 18)  # muscle and ribs
        size = rng.uniform(0.92, 1.08)
        self.lungs = np.maximum(inside(ellipse(29, 73, 12 * size, 13 * size), 12), inside(ellipse(67, 73, 12 * size, 13 * size), 12))
        self.heart = inside(ellipse(50, 70, 7.5, 9), 8)
        self.spine = inside(ellipse(48, 88, 6, 5), 6)
        self.sternum = inside(ellipse(48, 54.5, 6, 2), 3)
        # Fibroglandular tissue: a smooth random texture in a cone behind the nipple, a new draw every 4 slices.
        texture = np.repeat(np.stack([smooth_noise(rng, N, N, 7) for _ in range(3)]), 4, axis=0)
        cone = {s: inside(ellipse(x, self.cy - 2, self.a * 0.8, self.b * 0.75), 4) for s, x in BREAST_X.items()}
        self.gland = np.maximum(cone["left"], cone["right"]) * ramp(texture + 0.2)

    def holds(self, side, x1, y1, x2, y2, *, most):
        x, y = BREAST_X[side], self.cy
        return all(((u - x) / self.a) ** 2 + ((v - y) / self.b) ** 2 < most for u in (x1, x2) for v in (y1, y2))


def place(rng, anatomy, side, w, h, depth):
    """A box of w × h × depth voxels; the ellipse in it lies inside the breast (its corners may not)."""
    x, y = BREAST_X[side], anatomy.cy
    spread = 1.0  # drawn in slowly: a large mass fits only near the middle
    while True:
        cx = x + spread * rng.uniform(-1, 1) * max(0.0, anatomy.a - w / 2)
        cy = y + spread * rng.uniform(-1, 1) * max(0.0, anatomy.b - h / 2)
        x1, y1 = int(round(cx - w / 2)), int(round(cy - h / 2))
        inset = 0.15  # the corners of the ellipse's box, drawn in
        if anatomy.holds(side, x1 + inset * w, y1 + inset * h, x1 + w - inset * w, y1 + h - inset * h, most=0.85) and y1 + h <= 57:  # clear of the chest wall
            z1 = int(rng.integers(1, NZ - depth))
            return (x1, y1, z1, x1 + w, y1 + h, z1 + depth)
        spread *= 0.97


def ellipsoid(box):
    """(level, mask) of the solid that fills the box; boxy along z, so that the end slices show it."""
    c = [(box[k] + box[k + 3]) / 2 for k in range(3)]
    r = [(box[k + 3] - box[k]) / 2 for k in range(3)]
    level = np.sqrt(((X - c[0]) / r[0]) ** 2 + ((Y - c[1]) / r[1]) ** 2 + (np.abs(Z - c[2]) / r[2]) ** 4)
    return level, ramp((1 - level) * min(r[0], r[1]) / 1.2)


def turned(box):
    """The box after a turn of the picture by 180°."""
    return (N - box[3], N - box[4], box[2], N - box[0], N - box[1], box[5])


def make_ct(rng, vendor):
    f = {"mass": "yes" if chance(rng, 0.8) else "no", "node": "no", "assessment": "negative"}
    body = Anatomy(rng)
    hu = -1000 + 900 * body.body
    hu = hu + 65 * body.gland * body.body
    hu = hu + (55 - hu) * body.wall
    hu = hu + (-820 - hu) * body.lungs
    hu = hu + (90 - hu) * body.heart
    hu = hu + (640 - hu) * body.spine
    hu = hu + (430 - hu) * body.sternum
    if f["mass"] == "yes":
        side, mild, node = pick(rng, "left", "right"), chance(rng, 0.58), chance(rng, 0.5)
        w = int(rng.integers(11, 29))
        h = max(10, int(round(w * rng.uniform(0.75, 1))))
        box = place(rng, body, side, w, h, int(rng.integers(4, 9)))
        f.update(side=side, size_mm=int(2 * w), enhancement="mild" if mild else "strong", node="yes" if node else "no", mass_box=box_text(box),
                 assessment="benign" if mild and not node else "malignant")
        _, mask = ellipsoid(box)
        hu = hu + (CT_GREY[f["enhancement"]] - hu) * mask
        if node:
            x = 11.0 if side == "right" else 85.0
            cx, cy, z1 = x + rng.uniform(-1, 1), rng.uniform(62, 66), int(rng.integers(1, 4))
            _, mask = ellipsoid((cx - 5.5, cy - 6, z1, cx + 5.5, cy + 6, z1 + 8))
            hu = hu + (330 - hu) * mask
    noise = blur(rng.standard_normal((NZ, N, N), dtype=np.float32), 0.6) * (CT_NOISE[vendor] * 2)
    hu = np.clip(hu + noise, -1000, 600)
    hu[:, 86:90, 46:50] = 600  # the brightest bone, the same in every volume
    hu[:, 0, :] = -1000
    return f, np.rint(hu).astype(np.int16)


def foci(rng, anatomy, side, box):
    """Up to 3 further small foci in the same breast, clear of the mass and of each other."""
    found = []
    for size in (7, 6, 5, 5):
        for _ in range(80):
            x1 = int(rng.integers(int(BREAST_X[side] - anatomy.a), int(BREAST_X[side] + anatomy.a) - size))
            y1 = int(rng.integers(int(anatomy.cy - anatomy.b), int(anatomy.cy + anatomy.b) - size))
            z1 = int(rng.integers(max(0, box[2] - 1), min(NZ - 4, box[5] - 3) + 1))
            small = (x1, y1, z1, x1 + size, y1 + size, z1 + 4)
            apart = all(small[0] > b[3] + 2 or small[3] < b[0] - 2 or small[1] > b[4] + 2 or small[4] < b[1] - 2 for b in [box, *found])
            if apart and anatomy.holds(side, x1, y1, x1 + size, y1 + size, most=0.9):
                found.append(small)
            if len(found) == 3:
                return found
    return found


def lesion_texture(rng, kind, level, box):
    if kind == "homogeneous":
        return np.float32(930)
    if kind == "rim":
        thick = 2.6 / (min(box[3] - box[0], box[4] - box[1]) / 2)  # of the level
        return 180 + 800 * ramp((level - (1 - thick)) * 8)
    y, x = np.meshgrid(np.arange(N), np.arange(N), indexing="ij")
    cell = 3.2 if box[3] - box[0] < 20 else 4.2
    wave = np.sin(np.pi * (x + 1.5 * smooth_noise(rng, N, N, 9)) / cell + rng.uniform(0, 6)) * np.sin(np.pi * (y + 1.5 * smooth_noise(rng, N, N, 9)) / cell + rng.uniform(0, 6))
    return (600 + 430 * np.clip(2.2 * wave, -1, 1))[None]


def make_mri(rng, vendor):
    f = {"mass": "yes" if chance(rng, 0.8) else "no", "background": pick(rng, "minimal", "marked"), "birads": 1, "assessment": "negative"}
    body = Anatomy(rng)
    v = 130 * body.body + 70 * body.gland * body.body
    if f["background"] == "marked":  # stippled, in both breasts
        stipple = np.repeat(np.stack([ramp((smooth_noise(rng, N, N, 3.5) - 0.5) * 1.5) for _ in range(4)]), 3, axis=0)
        v = v + 330 * stipple * np.maximum(inside(ellipse(24, body.cy - 1, body.a * 0.85, body.b * 0.85), 6), inside(ellipse(72, body.cy - 1, body.a * 0.85, body.b * 0.85), 6))
    v = v + (210 - v) * body.wall
    v = v + (25 - v) * body.lungs
    v = v + (1200 - v) * body.heart
    v = v + (120 - v) * body.spine
    if f["mass"] == "yes":
        side, kind, multi, large = pick(rng, "left", "right"), pick(rng, "homogeneous", "heterogeneous", "rim"), chance(rng, 0.38), chance(rng, 0.36)
        w = int(rng.integers(22, 29)) if large else int(rng.integers(12, 18))
        h = int(round(w * rng.uniform(0.75, 0.95)))
        while True:
            box = place(rng, body, side, w, h, int(rng.integers(4, 9)))
            extra = foci(rng, body, side, box) if multi else []
            if len(extra) >= 2 or not multi:  # a large mass may leave no room for two: place it anew
                break
        level, mask = ellipsoid(box)
        v = v + (lesion_texture(rng, kind, level, box) - v) * mask
        for b in extra:
            v = v + (930 - v) * ellipsoid(b)[1]
        f.update(side=side, size_mm=2 * w, enhancement=kind, focality="multifocal" if multi else "unifocal", mass_box=box_text(turned(box)),
                 birads={"homogeneous": 4 if multi else 3, "heterogeneous": 4, "rim": 5}[kind], surgery="mastectomy" if multi or large else "breast-conserving")
        f["assessment"] = "benign" if f["birads"] == 3 else "malignant"
    v = np.clip(v + rng.standard_normal((NZ, N, N), dtype=np.float32) * (MRI_NOISE[vendor] * (0.3 + 0.7 * body.body)), 0, 1200)
    v[:, 68:72, 49:52] = 1200  # the heart's blood and the air, the same in every volume
    v[:, 0, :] = 0
    return f, np.rint(v[:, ::-1, ::-1]).astype(np.int16)
