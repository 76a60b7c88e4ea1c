# One ultrasound phantom: 160 × 128 pixels of 0.25 mm, skin on top; layered tissue with speckle, and perhaps a lesion.
# make(rng, vendor) → (findings, uint8 (128, 160)).
#
# Rule: no mass → BI-RADS 1; circumscribed and anechoic → 2; circumscribed otherwise → 3; indistinct → 4; spiculated → 5.
# Assessment: 1 negative, 2 and 3 benign, 4 and 5 malignant. The box and size_mm (its longest side) are those of the body, without spikes.
import numpy as np

from common import Outline, blur, box_text, chance, pick, pixel_grid, ramp, smooth_noise, spikes, to_bytes

H, W, MM = 128, 160, 0.25
GREY = {"anechoic": 4, "hypoechoic": 40, "hyperechoic": 225}
POSTERIOR = {"none": 1.0, "shadowing": 0.2, "enhancement": 1.65}
BLUR = {"A": 0.6, "B": 0.5, "C": 0.75}
GAIN = {"A": 1.0, "B": 1.06, "C": 0.94}
ASSESSMENT = {1: "negative", 2: "benign", 3: "benign", 4: "malignant", 5: "malignant"}


def tissue(rng):
    y, _ = pixel_grid(H, W)
    echo = np.full((H, W), 96, np.float32) + 7 * smooth_noise(rng, H, W, 10, 30)
    fat = rng.uniform(9, 14) + 1.5 * smooth_noise(rng, 1, W, 1, 40)
    muscle = rng.uniform(106, 114) + 2 * smooth_noise(rng, 1, W, 1, 40)
    echo += -20 * ramp((fat - y) / 3) + (-14 + 12 * np.sin(y * 1.1 + smooth_noise(rng, 1, W, 1, 25))) * ramp((y - muscle) / 3)
    echo += 75 * np.exp(-(((y - muscle) / 1.6) ** 2))  # fascia
    for _ in range(int(rng.integers(2, 5))):  # Cooper's ligaments
        line = rng.uniform(15, 100) + 4 * smooth_noise(rng, 1, W, 1, 35)
        echo += 22 * np.exp(-(((y - line) / 1.3) ** 2))
    return echo + 90 * ramp((4 - y) / 2)  # skin


def draw_findings(rng):
    f = {"shape": pick(rng, "oval", "round", "irregular"), "margin": pick(rng, "circumscribed", "indistinct", "spiculated"),
         "echo": pick(rng, "anechoic", "hypoechoic", "hyperechoic"), "posterior": pick(rng, "none", "enhancement", "shadowing")}
    upright = chance(rng, 0.5)
    if f["shape"] == "round":
        w = h = int(rng.integers(36, 81))
    else:
        f["orientation"] = "vertical" if upright else "parallel"
        long = int(rng.integers(56, 86)) if upright else int(rng.integers(56, 111))
        short = int(round(long * rng.uniform(0.56, 0.66)))
        w, h = (short, long) if upright else (long, short)
    side = 12
    x1 = int(rng.integers(side, W - side - w + 1))
    y1 = int(rng.integers(15, 102 - h + 1))
    return f, (x1, y1, x1 + w, y1 + h)


def add_lesion(rng, echo, f, box):
    outline = Outline(rng, f["shape"], box)
    d, radius, angle_bin = outline.distance(H, W)
    y, x = pixel_grid(H, W)
    w, h = box[2] - box[0], box[3] - box[1]
    if f["posterior"] != "none":
        column = ramp((0.42 * w - np.abs(x - (box[0] + box[2]) / 2)) / 5)
        below = ramp((d - 2) / 4) * (y > outline.cy)
        echo *= 1 + (POSTERIOR[f["posterior"]] - 1) * column * below
    grey = GREY[f["echo"]]
    if f["margin"] == "indistinct":
        soft = min(16.0, 0.42 * min(w, h))
        alpha = ramp(-(d + 1.5 * smooth_noise(rng, H, W, 7)) / soft)
        alpha = alpha * alpha * (3 - 2 * alpha)
    else:
        alpha = ramp(-d / 1.2)
    echo = echo + (grey - echo) * alpha
    if f["margin"] == "circumscribed":
        rim = np.exp(-(((d - 1.8) / 1.3) ** 2))
        echo = echo + (250 - echo) * 0.9 * rim
    if f["margin"] == "spiculated":
        mask, number = spikes(rng, d, radius, angle_bin, 2 * int(rng.integers(7, 10)), 17, 4.2)
        echo = echo + (np.where(number % 2 == 0, 8, 245) - echo) * mask
    return echo


def make(rng, vendor):
    f = {"mass": "yes" if chance(rng, 0.8) else "no", "birads": 1}
    echo = tissue(rng)
    if f["mass"] == "yes":
        more, box = draw_findings(rng)
        f.update(more, mass_box=box_text(box), size_mm=int(max(box[2] - box[0], box[3] - box[1]) * MM + 0.5))
        echo = add_lesion(rng, echo, f, box)
        f["birads"] = {"indistinct": 4, "spiculated": 5}.get(f["margin"], 2 if f["echo"] == "anechoic" else 3)
    f["assessment"] = ASSESSMENT[f["birads"]]
    # Speckle: the magnitude of a complex normal field (Rayleigh, mean 1.25), softened as by log compression.
    field = blur(rng.standard_normal((2, H, W), dtype=np.float32), BLUR[vendor], 1.6 * BLUR[vendor])
    speckle = np.sqrt(field[0] ** 2 + field[1] ** 2)
    picture = echo * GAIN[vendor] * (0.55 + 0.45 * speckle / speckle.mean()) + 2
    return f, to_bytes(picture)
