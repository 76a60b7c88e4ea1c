"""What PyTorch answers to the held-out phantoms: the demo checkpoint in float32, greedy, item by item.

    python tests/oracle/demo_answers.py CHECKPOINT [PREDICTIONS.jsonl KEPT.jsonl]

From the repository root; see README.md here for versions; also nibabel 5.4.2. PREDICTIONS (of breastgpt bench) only save time: they are guesses, of which as
many tokens are taken as PyTorch itself finds likeliest, one after the other, in a single pass; from the first other token on it goes on alone.

KEPT ({"file", "kept": rows per level} per medium, from breastgpt ask --json) decides ties of the selection. Late in a greedy choice gains are tiny and
many are equal up to rounding (slices of air, tiles alike), so that another order of sums chooses other rows. Where another row than PyTorch's best
is in KEPT and its gain is closer to the best than TIE of the largest gain, that row is taken, and `ties` counts it. Without KEPT 13 of the 1,071 answers
(98.8 % equal) are others than the runtime's, all on volumes.

Reads tests/golden/phantoms/{bench.jsonl, media} and the trained checkpoint that weights_convert/demo/breastgpt-demo.gguf was converted from (its tensors are
bfloat16; the same numbers stand in that file). Writes tests/golden/phantoms/answers-pytorch.jsonl.

ViT and decoder are transformers' Qwen3VL, slide branch, selection, prompt and positions those of mixed.py and selector.py: nothing of the training's
own network.py. A line holds id, text (without special tokens), ties, and gap: the smallest distance of the best two logits over the answer's tokens as a share of the
norm of the logits. By it a difference from another implementation is judged to be a near-tie or an error.
"""
import functools
import json
import multiprocessing
import os
import re
import sys

import nibabel as nib
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common
import mixed
import selector

ROOT = f"{common.GOLDEN}/phantoms"
MOST = 160
TIE = 2e-5  # twice the relative error that a stage may have in float32 (README, Numbers): features on both sides


def choose(v, k, wanted):
    """Greedy coverage as selector.select, ties decided by `wanted` (rows, or None). → kept rows, ascending, and how often a tie was decided otherwise."""
    if len(v) <= k:
        return np.arange(len(v)), 0
    c = selector.coverage_matrix(v, None, np.float32).astype(np.float64)
    best, taken, ties, slack = np.zeros(len(c)), [], 0, None
    for _ in range(k):
        gain = np.maximum(0.0, c - best[:, None]).sum(axis=0)
        gain[taken] = -1.0
        slack = TIE * gain.max() if slack is None else slack
        j = int(np.argmax(gain))
        if wanted is not None and j not in wanted:
            close = [i for i in wanted if gain[i] >= gain[j] - slack]
            if close:
                j, ties = max(close, key=lambda i: gain[i]), ties + 1
        taken.append(j)
        best = np.maximum(best, c[:, j])
    return np.sort(np.array(taken)), ties


def frames_of(kind, path):
    """(frames, H, W) float32 in −1 … 1. The phantoms need no resize: sides are multiples of 32, volumes 96 x 96 x 12 already."""
    if kind == "image":
        x = np.asarray(Image.open(path).convert("L")).astype(np.float32)
        x = np.stack([x, x])
    else:
        v = np.asarray(nib.load(path).dataobj).transpose(2, 1, 0).astype(np.float32)
        assert v.shape == (12, 96, 96)
        x = (v - v.min()) / (v.max() - v.min() + np.float32(1e-6)) * np.float32(255)
    assert x.dtype == np.float32
    return (x - np.float32(127.5)) / np.float32(127.5)


def patch_vectors(x):
    vectors, grid = [], [len(x) // 2, x.shape[1] // 16, x.shape[2] // 16]
    for t in range(grid[0]):
        for row in range(0, grid[1], 2):
            for col in range(0, grid[2], 2):
                for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    r, c = 16 * (row + i), 16 * (col + j)
                    vectors.append(np.broadcast_to(x[2 * t:2 * t + 2, r:r + 16, c:c + 16], (3, 2, 16, 16)).reshape(-1))
    return torch.tensor(np.array(vectors)), grid


class Demo:
    def __init__(self, folder):
        with open(f"{folder}/config.json") as f:
            self.config = json.load(f)
        config = Qwen3VLConfig(text_config=dict(self.config["text_config"], tie_word_embeddings=True), vision_config=self.config["vision_config"], tie_word_embeddings=True,
                               **{key: self.config[key] for key in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")})
        config._attn_implementation = "eager"
        tensors = {name: x.float() for name, x in load_file(f"{folder}/model.safetensors").items()}
        self.slide = {name: x for name, x in tensors.items() if name.startswith("slide.")}
        self.model = Qwen3VLForConditionalGeneration(config).eval()
        missing = self.model.load_state_dict({name: x for name, x in tensors.items() if not name.startswith("slide.")}, strict=False)
        assert missing.missing_keys == ["lm_head.weight"] and not missing.unexpected_keys, missing
        self.model.tie_weights()
        assert self.model.lm_head.weight is self.model.model.language_model.embed_tokens.weight
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.pad = {"image": self.config["image_token_id"], "volume": self.config["video_token_id"], "slide": self.config["histo_token_id"]}
        self.budget = {"image": self.config["image_token_num"], "volume": self.config["video_token_num"], "slide": self.config["histo_token_num"]}

    @functools.lru_cache(2)                                                        # items of one case follow each other
    def levels(self, kind, path):
        if kind == "slide":
            features = load_file(path)["features"]
            rows = mixed.slide_branch(self.slide, features, torch.float32, self.config["long_net_heads"], self.config["long_net_layers"])[0]
            return rows, [1, 1, len(features)]
        vectors, grid = patch_vectors(frames_of(kind, path))
        top, deep = self.model.model.visual(vectors, grid_thw=torch.tensor([grid]))
        return [top, *deep], [grid[0], grid[1] // 2, grid[2] // 2]

    def answer(self, item, guess):
        path = (item["images"] + item["videos"])[0]
        kind = "volume" if item["videos"] else "slide" if path.endswith(".safetensors") else "image"
        levels, grid = self.levels(kind, f"{ROOT}/{path}")
        wanted = kept_rows()[path] if len(sys.argv) > 3 else [None] * len(levels)
        chosen, ties = zip(*(choose(x.numpy(), self.budget[kind], w) for x, w in zip(levels, wanted)))
        said = {m["role"]: m["content"] for m in item["messages"]}
        prompt, _ = mixed.render(said["system"], said["user"], [kind], [len(chosen[0])])
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        places, following = mixed.positions(ids, self.pad.values(), [(chosen[0], grid)])
        visual_at = torch.tensor([i == self.pad[kind] for i in ids])
        rows = [x[torch.tensor(c)] for x, c in zip(levels, chosen)]
        table = self.model.model.language_model.embed_tokens
        embeds = table(torch.tensor(ids)).clone()
        embeds[visual_at] = rows[0]
        out, gap, stop = [], np.inf, self.config["text_config"]["eos_token_id"]
        while not out or out[-1] != stop and len(out) < MOST:
            ahead = out + guess                                                    # guess: tokens that may follow; empty after the first pass
            n = len(ahead)
            logits = common.decode(self.model, torch.cat([embeds, table(torch.tensor(ahead, dtype=torch.long))]),
                                   np.concatenate([places, np.arange(following, following + n)[None].repeat(3, 0)], axis=1),
                                   torch.cat([visual_at, torch.zeros(n, dtype=torch.bool)]), rows[1:])[len(ids) - 1 + len(out):]
            for at, row in enumerate(logits):
                best = row.topk(2).values
                gap = min(gap, float((best[0] - best[1]) / row.norm()))
                out.append(int(row.argmax()))
                if out[-1] == stop or at == len(guess) or out[-1] != guess[at]:
                    break
            guess = []
        return self.tokenizer.decode([i for i in out if i != stop]), gap, sum(ties)


@functools.lru_cache(1)
def demo():
    torch.set_num_threads(1)
    return Demo(sys.argv[1])


@functools.lru_cache(1)
def guesses():
    """id → text with the tokens of boxes and names, which breastgpt leaves out of its text."""
    box = re.compile(r"(\w+)(\([\d,]+\),\([\d,]+\))")
    with open(sys.argv[2], encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    return {r["id"]: box.sub(r"<|object_ref_start|>\1<|object_ref_end|><|box_start|>\2<|box_end|>", r["prediction"]) for r in records}


@functools.lru_cache(1)
def kept_rows():
    with open(sys.argv[3], encoding="utf-8") as f:
        return {entry["file"]: entry["kept"] for entry in map(json.loads, f)}


@torch.no_grad()
def line_of(line):
    item = json.loads(line)
    guess = demo().tokenizer.encode(guesses()[item["meta"]["id"]], add_special_tokens=False).ids if len(sys.argv) > 2 else []
    text, gap, ties = demo().answer(item, guess)
    return json.dumps({"id": item["meta"]["id"], "text": text, "ties": ties, "gap": float(f"{gap:.3g}")}) + "\n"


def main():
    with open(f"{ROOT}/bench.jsonl", encoding="utf-8") as f, multiprocessing.get_context("spawn").Pool() as pool:
        answers = pool.map(line_of, f.readlines(), chunksize=8)
    with open(f"{ROOT}/answers-pytorch.jsonl", "w", encoding="utf-8") as out:
        out.writelines(answers)


if __name__ == "__main__":
    main()
