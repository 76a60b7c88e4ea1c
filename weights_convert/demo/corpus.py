"""Cases of a benchmark file (breastgpt-stage build) as tensors: media as the runtime would present them to the ViT or LongNet, text as token ids.

The preprocessing here is short because the phantoms need none of the resizing: pictures have sides that are multiples of 32, volumes are 96 x 96 x 12
already. Anything else is refused.
"""
import gzip
import json
import os
import random
import re
import struct
import zlib

import numpy as np
import torch
from tokenizers import Tokenizer

PLACES = {"ultrasound": "image", "mammography": "image", "ct": "volume", "mri": "volume", "pathology": "slide"}


def read_png(path):
    """8-bit grey, filter 0 on every row, as the phantoms are written."""
    with open(path, "rb") as f:
        data = f.read()
    at, pixels = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 0), f"{path}: expected 8-bit grey"
        if kind == b"IDAT":
            pixels += body
        at += size + 12
    rows = np.frombuffer(zlib.decompress(pixels), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any() and height % 32 == 0 and width % 32 == 0, f"{path}: expected unfiltered rows, sides multiples of 32"
    return rows[:, 1:]


def read_nifti(path):
    with gzip.open(path) as f:
        data = f.read()
    nx, ny, nz = struct.unpack_from("<3h", data, 42)
    assert struct.unpack_from("<h", data, 70)[0] == 4 and (nx, ny, nz) == (96, 96, 12), f"{path}: expected int16 96 x 96 x 12"
    return np.frombuffer(data, "<i2", nx * ny * nz, int(struct.unpack_from("<f", data, 108)[0])).reshape(nz, ny, nx)


def read_features(path):
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack_from("<Q", data)[0]
    entry = json.loads(data[8:8 + size])["features"]
    assert entry["dtype"] == "F32", path
    begin, end = entry["data_offsets"]
    return np.frombuffer(data[8 + size + begin:8 + size + end], "<f4").reshape(entry["shape"])


def present(kind, stack):
    """Media of one size, as stored → what the encoder takes."""
    if kind == "slide":
        return torch.from_numpy(np.stack(stack))
    x = torch.from_numpy(np.stack(stack).astype(np.float32))
    if kind == "image":
        return ((x - 127.5) / 127.5)[:, None].expand(-1, 2, -1, -1)
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return ((x - low) / (high - low + 1e-6) * 255 - 127.5) / 127.5


def box_text(ref, box, shape):
    """shape: x, y[, z] of the medium. Numbers of MODEL.md section 5b."""
    half = len(box) // 2
    numbers = [str(round(v / shape[i % half] * 1000)) for i, v in enumerate(box)]  # Python rounds half to even
    return f"<|object_ref_start|>{ref}<|object_ref_end|><|box_start|>({','.join(numbers[:half])}),({','.join(numbers[half:])})<|box_end|>"


def with_boxes(text, item, shape):
    objects = item.get("objects", {"ref": [], "bbox": []})
    for ref, box in zip(objects["ref"], objects["bbox"]):
        text = text.replace("<ref-object><bbox>", box_text(ref, box, shape), 1)
    assert "<bbox>" not in text, item["meta"]["id"]
    return text


class Text:
    def __init__(self, path):
        self.tokenizer = Tokenizer.from_file(path)
        self.special = {t: i for t, i in ((t.content, i) for i, t in self.tokenizer.get_added_tokens_decoder().items())}
        self.pattern = re.compile("(" + "|".join(re.escape(t) for t in sorted(self.special)) + ")")
        self.cache = {}

    def __getitem__(self, token):
        return self.special[f"<|{token}|>"]

    def plain(self, text):
        if text not in self.cache:
            self.cache[text] = [i for piece in [text] for i in self._encode(piece)]
        return self.cache[text]

    def _encode(self, text):
        self.tokenizer.encode_special_tokens = True                                # special tokens are text here
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def answer(self, text):
        return [i for piece in self.pattern.split(text) if piece for i in ([self.special[piece]] if piece in self.special else self.plain(piece))]

    def opening(self, system, kind, tokens):
        """Everything before the question's words, and the column of the first visual token."""
        ids = [self["im_start"], *self.plain("system\n" + system), self["im_end"], *self.plain("\n")] if system else []
        ids += [self["im_start"], *self.plain("user\n")] + ([] if kind == "volume" else [self["vision_start"]])
        at = len(ids)
        pad = self[{"image": "image_pad", "volume": "video_pad", "slide": "histo_pad"}[kind]]
        return ids + [pad] * tokens + ([] if kind == "volume" else [self["vision_end"]]), at

    def question(self, text):
        return [*self.plain(text), self["im_end"], *self.plain("\n"), self["im_start"], *self.plain("assistant\n")]


class Corpus:
    """Cases by (modality, size of the medium): media stacked, and per case its questions as (stage, question, answer) numbers into the lists of texts."""

    def __init__(self, path, root):
        self.groups, self.questions, self.answers = {}, [], []
        names, self.roles = {}, {}
        read = {"image": read_png, "volume": read_nifti, "slide": read_features}
        cases = {}
        with open(path, encoding="utf-8") as f:
            for line in f:
                item = json.loads(line)
                meta = item["meta"]
                kind = PLACES[meta["modality"]]
                if meta["case"] not in cases:
                    media = item["images"] + item["videos"]
                    assert len(media) == 1, meta["id"]
                    data = read[kind](os.path.join(root, media[0]))
                    group = self.groups.setdefault((meta["modality"], data.shape), dict(media=[], turns=[], names=[]))
                    group["media"].append(data)
                    group["turns"].append([])
                    group["names"].append(meta["case"])
                    cases[meta["case"]] = (data.shape[::-1], group["turns"][-1])
                shape, turns = cases[meta["case"]]
                by_role = {m["role"]: m["content"] for m in item["messages"]}
                self.roles[meta["stage"]] = by_role.get("system", "")
                marker = "<video>" if kind == "volume" else "<image>"
                assert by_role["user"].startswith(marker), meta["id"]
                question, answer = by_role["user"][len(marker):], with_boxes(by_role["assistant"], item, shape)
                turns.append((meta["stage"], names.setdefault(("q", question), len(names)), names.setdefault(("a", answer), len(names))))
        self.texts = [text for _, text in names]

    def sizes(self):
        return {key: len(group["media"]) for key, group in self.groups.items()}


class Packer:
    """Batches: every row one case, its questions packed behind the shared picture; a question sees the picture and itself, at the positions it would have alone."""

    def __init__(self, corpus, text, budgets, seed):
        self.corpus, self.text, self.budgets, self.random = corpus, text, budgets, random.Random(seed)
        self.tokens = {}

    def cells(self, number, answer):
        if (number, answer) not in self.tokens:
            words = self.corpus.texts[number]
            self.tokens[number, answer] = self.text.answer(words) + [self.text["im_end"]] if answer else self.text.question(words)
        return self.tokens[number, answer]

    def batch(self, key, cases, questions):
        group, kind = self.corpus.groups[key], PLACES[key[0]]
        length = {"image": lambda s: s[0] * s[1] // 1024, "volume": lambda s: s[0] // 2 * s[1] * s[2] // 1024, "slide": lambda s: s[0]}[kind](key[1])
        stages = sorted({t[0] for t in group["turns"][cases[0]]})
        stage = self.random.choice(stages + ["none"]) if stages else "none"
        opening, at = self.text.opening("" if stage == "none" else self.corpus.roles[stage], kind, min(length, self.budgets[kind]))
        rows = []
        for case in cases:
            turns = [t for t in group["turns"][case] if stage in ("none", t[0])] or group["turns"][case]
            self.random.shuffle(turns)
            ids, position, block, label, weight = list(opening), list(range(len(opening))), [0] * len(opening), [0] * len(opening), [0.0] * len(opening)
            start = len(opening)
            for number, (_, question, answer) in enumerate(turns[:questions]):
                q, a = self.cells(question, False), self.cells(answer, True)
                follows = number > 0 and self.random.random() < 0.1               # sometimes a second turn of one conversation
                if follows:
                    q = self.text.plain("\n") + [self.text["im_start"], *self.text.plain("user\n")] + q
                first = position[-1] + 1 if follows else start
                ids += q + a
                position += range(first, first + len(q) + len(a))
                block += [block[-1] if follows else number + 1] * (len(q) + len(a))
                label += [0] * (len(q) - 1) + [1] * len(a) + [0]                   # a cell is labelled where the next one is an answer's
                weight += [0.0] * (len(q) - 1) + [len(a) ** -0.5] * len(a) + [0.0]
            rows.append((ids, position, block, label, weight))
        width = -(-max(len(r[0]) for r in rows) // 64) * 64                       # few sizes: memory is used again instead of asked for
        pad = lambda values, with_: torch.tensor([v + [with_] * (width - len(v)) for v in values])
        ids, position, block = (pad([r[i] for r in rows], w) for i, w in ((0, 0), (1, 0), (2, -1)))
        label, weight = pad([r[3] for r in rows], 0).bool(), pad([r[4] for r in rows], 0.0)
        cell = torch.arange(width)
        mask = (cell[:, None] >= cell) & ((block[:, None, :] == 0) | (block[:, None, :] == block[:, :, None]))
        return dict(kind=kind, data=present(kind, [group["media"][c] for c in cases]), ids=ids, position=position, mask=mask[:, None], at=at,
                    label=label, target=ids.roll(-1, 1)[label], weight=weight[label])
