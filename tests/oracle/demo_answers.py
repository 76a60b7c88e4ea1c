"""What PyTorch answers to the held-out phantoms: the demo checkpoint in float32, greedy, item by item.

    python tests/oracle/demo_answers.py CHECKPOINT        (from the repository root; see README.md here for versions; also nibabel 5.4.2)

Reads tests/golden/phantoms/{bench.jsonl, media} and the trained checkpoint that weights_convert/demo/breastgpt-demo.gguf was converted from (its tensors are
bfloat16; the same numbers stand in that file). Writes tests/golden/phantoms/answers-pytorch.jsonl.

ViT and decoder are transformers' Qwen3VL, slide branch, selection, prompt and positions those of mixed.py and selector.py: nothing of the training's
own network.py. A line holds id, text (without special tokens), gap and choice: the smallest distance of the best two logits over the answer's tokens as a
share of the norm of the logits, and of the best two gains over the selection's steps as a share of the gain. By these a difference from another
implementation is judged to be a near-tie or an error.
"""
import functools
import json
import multiprocessing
import os
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
        config = Qwen3VLConfig(text_config=self.config["text_config"], vision_config=self.config["vision_config"], tie_word_embeddings=True,
                               **{key: self.config[key] for key in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")})
        config._attn_implementation = "eager"
        tensors = {name: x.float() for name, x in load_file(f"{folder}/model.safetensors").items()}
        self.slide = {name: x for name, x in tensors.items() if name.startswith("slide.")}
        self.model = Qwen3VLForConditionalGeneration(config).eval()
        missing = self.model.load_state_dict({name: x for name, x in tensors.items() if not name.startswith("slide.")}, strict=False)
        assert missing.missing_keys == ["lm_head.weight"] and not missing.unexpected_keys, missing
        self.model.tie_weights()
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

    def answer(self, item):
        path = (item["images"] + item["videos"])[0]
        kind = "volume" if item["videos"] else "slide" if path.endswith(".safetensors") else "image"
        levels, grid = self.levels(kind, f"{ROOT}/{path}")
        chosen = [selector.select(x.numpy(), None, self.budget[kind], np.float32) for x in levels]
        said = {m["role"]: m["content"] for m in item["messages"]}
        prompt, _ = mixed.render(said["system"], said["user"], [kind], [len(chosen[0]["kept"])])
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        places, following = mixed.positions(ids, self.pad.values(), [(chosen[0]["kept"], grid)])
        visual_at = torch.tensor([i == self.pad[kind] for i in ids])
        rows = [x[torch.tensor(c["kept"])] for x, c in zip(levels, chosen)]
        table = self.model.model.language_model.embed_tokens
        embeds = table(torch.tensor(ids)).clone()
        embeds[visual_at] = rows[0]
        out, gap = [], np.inf
        while len(out) < MOST:
            logits = common.decode(self.model, embeds, places, visual_at, rows[1:], last_only=True)[0]
            best = logits.topk(2).values
            gap = min(gap, float((best[0] - best[1]) / logits.norm()))
            token = int(logits.argmax())
            if token == self.config["text_config"]["eos_token_id"]:
                break
            out.append(token)
            embeds = torch.cat([embeds, table(torch.tensor([token]))])
            places = np.concatenate([places, np.full((3, 1), following + len(out) - 1, dtype=np.int64)], axis=1)
            visual_at = torch.cat([visual_at, torch.zeros(1, dtype=torch.bool)])
        return self.tokenizer.decode(out), gap, min(selector.smallest_gap(c) for c in chosen)


@functools.lru_cache(1)
def demo():
    torch.set_num_threads(1)
    return Demo(sys.argv[1])


@torch.no_grad()
def line_of(line):
    item = json.loads(line)
    text, gap, choice = demo().answer(item)
    return json.dumps({"id": item["meta"]["id"], "text": text, "gap": float(f"{gap:.3g}"), "choice": float(f"{choice:.3g}")}) + "\n"


def main():
    with open(f"{ROOT}/bench.jsonl", encoding="utf-8") as f, multiprocessing.get_context("spawn").Pool() as pool:
        answers = pool.map(line_of, f.readlines(), chunksize=8)
    with open(f"{ROOT}/answers-pytorch.jsonl", "w", encoding="utf-8") as out:
        out.writelines(answers)


if __name__ == "__main__":
    main()
