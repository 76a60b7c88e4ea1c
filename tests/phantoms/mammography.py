# One mammogram phantom: 128 × 192 pixels of 0.5 mm, a side view of a breast on black.
# make(rng, vendor) → (findings, uint8 (192, 128)).
#
# Sides as mammograms are hung: the chest wall of the RIGHT breast is the RIGHT edge of the picture (the nipple points left), that of the left breast the left edge.
# Quadrant: upper when the mass lies above the row of the nipple, lower when below; a mass never crosses that row.
# Rule: no mass: BI-RADS 1 without, 4 with calcifications; spiculated mass → 5; circumscribed mass: 4 with calcifications, else 2 (oval, round) or 3 (irregular).
# Assessment: 1 negative, 2 and 3 benign, 4 and 5 malignant.
import numpy as np

from common import Outline, blur, box_text, chance, pick, pixel_grid, ramp, smooth_noise, spikes, to_bytes

H, W, MM = 192, 128, 0.5
SHARE = {"a": 0.05, "b": 0.3, "c": 0.6, "d": 0.94}  # glandular share of the breast's area
DENSE = {"a": 30, "b": 50, "c": 72, "d": 98}  # its brightness above fat
NOISE = {"A": 4.0, "B": 5.5, "C": 3.0}
ASSESSMENT = {1: "negative", 2: "benign", 3: "benign", 4: "malignant", 5: "malignant"}


class Breast:
    """A half ellipse with its chest wall at x = 0."""

    def __init__(self, rng):
        self.row = float(rng.integers(90, 103))  # of the nipple
        self.depth, self.half = rng.uniform(100, 114), rng.uniform(80, 87)

    def level(self, x, y):
        return np.sqrt((x / self.depth) ** 2 + ((y - self.row) / self.half) ** 2)

    def holds(self, box):
        return all(self.level(x, y) < 0.93 for x in (box[2],) for y in (box[1], box[3]))


def tissue(rng, breast, density):
    y, x = pixel_grid(H, W)
    level = breast.level(x, y)
    inside = ramp((1 - level) * 60)
    gland = smooth_noise(rng, H, W, 22) + 0.7 * smooth_noise(rng, H, W, 9) + 0.35 * smooth_noise(rng, H, W, 4) + 1.2 * (1 - level)
    cut = np.quantile(gland[::3, ::3][level[::3, ::3] < 0.95], 1 - SHARE[density])
    picture = 48 + 5 * smooth_noise(rng, H, W, 6) + DENSE[density] * ramp((gland - cut) * 1.5) * ramp((0.96 - level) * 25)
    picture += 24 * np.exp(-(((1 - level) * 70 - 1) ** 2))  # skin
    nipple = ramp(5 - np.sqrt((x - breast.depth) ** 2 + (y - breast.row) ** 2))
    return np.maximum(picture * inside, 110 * nipple)


def place(rng, breast, w, h, upper, avoid=None):
    """A box (w, h) in the upper or lower half of the breast, clear of the box `avoid`; None when there is no room."""
    for _ in range(60):
        x1 = int(rng.integers(5, max(6, int(breast.depth) - w)))
        gap = int(rng.integers(4, max(5, int(breast.half) - h)))
        y1 = int(breast.row) - gap - h if upper else int(breast.row) + gap
        box = (x1, y1, x1 + w, y1 + h)
        apart = avoid is None or box[0] > avoid[2] + 14 or box[2] < avoid[0] - 14 or box[1] > avoid[3] + 14 or box[3] < avoid[1] - 14
        if apart and breast.holds(box):
            return box
    return None


def add_mass(rng, picture, f, box):
    outline = Outline(rng, f["shape"], box)
    d, radius, angle_bin = outline.distance(H, W)
    if f["margin"] == "circumscribed":
        picture = picture * (1 - 0.55 * np.exp(-(((d - 2.5) / 1.8) ** 2)))  # the thin dark halo of a sharp edge
        alpha = ramp(-d / 1.2)
    else:
        mask, _ = spikes(rng, d, radius, angle_bin, int(rng.integers(12, 17)), 15, 3.6)
        alpha = np.maximum(ramp(-d / 3), mask)
    return picture + (222 + 4 * smooth_noise(rng, H, W, 6) - picture) * alpha


def add_calcifications(rng, picture, box):
    """Bright dots of 2 × 2 pixels, never touching; → their own box."""
    spots = []
    for _ in range(300):
        p = (int(rng.integers(box[0], box[2] - 1)), int(rng.integers(box[1], box[3] - 1)))
        if all(abs(p[0] - q[0]) > 3 or abs(p[1] - q[1]) > 3 for q in spots):
            spots.append(p)
        if len(spots) == 14:
            break
    for x, y in spots:
        picture[y - 1:y + 3, x - 1:x + 3] *= 0.7
    for x, y in spots:
        picture[y:y + 2, x:x + 2] = 255
    xs, ys = [p[0] for p in spots], [p[1] for p in spots]
    return (min(xs), min(ys), max(xs) + 2, max(ys) + 2)


def make(rng, vendor):
    f = {"laterality": pick(rng, "left", "right"), "density": pick(rng, "a", "b", "c", "d"), "mass": "yes" if chance(rng, 0.76) else "no",
         "calcifications": "yes" if chance(rng, 0.45) else "no"}
    breast = Breast(rng)
    picture = tissue(rng, breast, f["density"])
    boxes = {}
    calcs, mass, upper = f["calcifications"] == "yes", f["mass"] == "yes", chance(rng, 0.5)
    if mass:
        f.update(shape=pick(rng, "oval", "round", "irregular"), margin="circumscribed" if chance(rng, 0.56) else "spiculated", quadrant="upper" if upper else "lower")
        size, flat, across = int(rng.integers(30, 59)), rng.uniform(0.54, 0.66), chance(rng, 0.5)
        box = None
        while box is None:
            if f["shape"] == "oval":
                w, h = (size, int(size * flat)) if across else (int(size * flat), size)
            else:
                w = h = size
            box = place(rng, breast, w, h, upper)
            size -= 2
        boxes["mass_box"] = box
    if calcs:
        w, h = (int(v) for v in rng.integers(18, 29, 2))
        half = chance(rng, 0.5)
        box = place(rng, breast, w, h, half, boxes.get("mass_box")) or place(rng, breast, w, h, not upper)
        boxes["calc_box"] = box
    blurred = rng.standard_normal((H, W), dtype=np.float32) * NOISE[vendor]
    picture = picture + (blur(blurred, 0.8) * 2 if vendor == "C" else blurred) * (picture > 10)
    if mass:
        picture = add_mass(rng, picture, f, boxes["mass_box"])
    if calcs:
        boxes["calc_box"] = add_calcifications(rng, picture, boxes["calc_box"])
    if mass:
        box = boxes["mass_box"]
        f["size_mm"] = int(max(box[2] - box[0], box[3] - box[1]) * MM + 0.5)
        f["birads"] = 5 if f["margin"] == "spiculated" else 4 if calcs else 3 if f["shape"] == "irregular" else 2
    else:
        f["birads"] = 4 if calcs else 1
    f["assessment"] = ASSESSMENT[f["birads"]]
    if f["laterality"] == "right":
        picture = picture[:, ::-1]
        boxes = {k: (W - b[2], b[1], W - b[0], b[3]) for k, b in boxes.items()}
    f.update({k: box_text(b) for k, b in boxes.items()})
    return f, to_bytes(picture)
