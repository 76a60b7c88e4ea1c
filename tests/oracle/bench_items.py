"""Boxes of benchmark entries: generated entries, and the text and boxes that they stand for, computed in Python alone.

    python tests/oracle/bench_items.py       (from the repository root; writes tests/golden/bench/boxes.jsonl and boxes-expected.jsonl)

Needs Python 3.11 (standard library only). Seeded: the same bytes each time. Sizes are those of the media in tests/golden (tiny-images, mixed-media).

The definition, in words of its own: "real" boxes are pixels or voxels, n = round(v / size * 1000); "norm1" boxes are fractions, n = round(v * 1000);
Python's round goes to the even number on a tie. Names take the place of <ref-object>, corners that of <bbox>, in the order of the messages.
"""
import json
import random
from pathlib import Path

IMAGES = {"tiny-images/grey.png": (170, 190), "tiny-images/spots.png": (150, 100), "tiny-images/tall.png": (97, 211)}
VOLUMES = {"mixed-media/plain.nii.gz": (90, 55, 10), "mixed-media/prescale.nii.gz": (12, 60, 20)}
OUT = Path("tests/golden/bench")


def corner(values):
    return "(" + ",".join(str(v) for v in values) + ")"


def make(rng, number):
    images = [rng.choice(list(IMAGES)) for _ in range(rng.randint(0, 2))]
    videos = [rng.choice(list(VOLUMES))] if not images or rng.random() < 0.3 else []
    media = [IMAGES[m] for m in images] + [VOLUMES[m] for m in videos]
    fractions = rng.random() < 0.5
    count = rng.randint(1, 4)
    first = rng.randint(0, count) if number % 3 == 0 else 0    # this many stand in the question
    boxes, medium_of, numbers = [], [], []
    for _ in range(count):
        m = rng.randrange(len(media))
        axes = 3 if len(media[m]) == 3 and rng.random() < 0.7 else 2
        low, high = [], []
        for size in media[m][:axes]:
            scale = 1 if fractions else size
            kind = rng.randrange(4)
            # any place; whole pixels or hundredths; exact ties of the thousandths; the edges
            pick = {0: lambda: rng.uniform(0, scale), 1: lambda: rng.randint(0, scale * 100) / 100 if fractions else rng.randint(0, size),
                    2: lambda: (rng.randint(0, 999) + 0.5) * scale / 1000, 3: lambda: rng.choice([0, scale])}[kind]
            a, b = sorted([pick(), pick()])
            low.append(a)
            high.append(b)
        boxes.append(low + high)
        medium_of.append(m)
        scales = [1] * axes if fractions else media[m][:axes]
        numbers.append([[round(v / s * 1000) for v, s in zip(side, scales)] for side in (low, high)])
    names = [rng.choice(["mass", "a lesion", "Knoten (links)", "calcification", "größter Herd"]) for _ in range(count)]

    question = " ".join(["<image>"] * len(images) + ["<video>"] * len(videos)) + " What about "
    asked = question
    for i in range(first):
        question += "<ref-object><bbox>; "
        asked += f"<|object_ref_start|>{names[i]}<|object_ref_end|><|box_start|>{corner(numbers[i][0])},{corner(numbers[i][1])}<|box_end|>; "
    reference = answered = "Seen:"
    labels = []
    for i in range(first, count):
        joined = rng.random() < 0.7
        between = " " if joined else " at "
        reference += f" <ref-object>{between}<bbox>"
        answered += f" {names[i]}{between}{corner(numbers[i][0])},{corner(numbers[i][1])}"
        labels.append(names[i] if joined else "")
    objects = {"ref": names, "bbox": boxes}
    if fractions or rng.random() < 0.5:
        objects["bbox_type"] = "norm1" if fractions else "real"
    if any(medium_of) or rng.random() < 0.5:
        objects["image_id"] = medium_of
    entry = {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reference}], "images": images, "videos": videos,
             "objects": objects}
    expected = {"question": asked, "reference": answered,
                "boxes": [{"label": labels[i - first], "box": numbers[i][0] + numbers[i][1], "medium": medium_of[i]} for i in range(first, count)]}
    return entry, expected


rng = random.Random(20)
pairs = [make(rng, i) for i in range(36)]
OUT.mkdir(parents=True, exist_ok=True)
for name, column in (("boxes.jsonl", 0), ("boxes-expected.jsonl", 1)):
    (OUT / name).write_text("".join(json.dumps(p[column], ensure_ascii=False) + "\n" for p in pairs), encoding="utf-8")
