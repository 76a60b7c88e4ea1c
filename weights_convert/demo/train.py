"""Trains the demo model on phantoms and writes it as a published checkpoint (config.json, model.safetensors in bfloat16, tokenizer.json).

    python weights_convert/demo/train.py CORPUS VALID OUT --minutes 95 [--resume]

CORPUS holds train.jsonl (breastgpt-stage build), findings.csv, tokenizer.json and the media below it; VALID valid.jsonl and its media. By hand only;
README.md has the whole recipe.
"""
import argparse
import csv
import json
import math
import os
import shutil
import threading
import time
from queue import Queue

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from corpus import PLACES, Corpus, Packer, Text
from network import Demo, Layer

SHARE = ({"ultrasound": 0.24, "mammography": 0.24, "ct": 0.17, "mri": 0.2, "pathology": 0.15},   # of the batches, first and later
         {"ultrasound": 0.27, "mammography": 0.27, "ct": 0.14, "mri": 0.26, "pathology": 0.06})
WORDS = 1500  # steps with many questions to a picture, which teach the words; after them few, and more weight on the findings, which teach the pictures
CATEGORIES = ("mass shape margin echo posterior orientation birads assessment laterality density quadrant calcifications side enhancement node background focality "
              "surgery tumour tumour_percent grade subtype til necrosis therapy").split()


def configuration(tokenizer):
    token = lambda name: tokenizer.special[f"<|{name}|>"]
    return {
        "architectures": ["BreastGPTForConditionalGeneration"], "model_type": "breastgpt", "dtype": "bfloat16", "tie_word_embeddings": True,
        "image_token_id": token("image_pad"), "video_token_id": token("video_pad"), "histo_token_id": token("histo_pad"),
        "vision_start_token_id": token("vision_start"), "vision_end_token_id": token("vision_end"),
        "image_token_num": 16, "video_token_num": 32, "histo_token_num": 24, "feature_dim": 64, "long_net_heads": 8, "long_net_layers": 3,
        "selector": "CoverageTokenSelector", "selector_use_txt": False, "do_select": True,
        "image_max_tokens": 24, "volume_side": 96, "volume_slices": 12,
        "text_config": {
            "model_type": "qwen3_vl_text", "vocab_size": tokenizer.tokenizer.get_vocab_size(), "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [12, 10, 10], "rope_type": "default"}, "hidden_act": "silu", "attention_bias": False,
            "bos_token_id": token("endoftext"), "eos_token_id": token("im_end")},
        "vision_config": {
            "model_type": "qwen3_vl", "depth": 4, "hidden_size": 128, "intermediate_size": 512, "num_heads": 4, "patch_size": 16, "temporal_patch_size": 2,
            "spatial_merge_size": 2, "num_position_embeddings": 256, "deepstack_visual_indexes": [0, 1, 2], "out_hidden_size": 256, "in_channels": 3,
            "hidden_act": "gelu_pytorch_tanh"},
    }


class Findings(nn.Module):
    """Heads that read the findings straight off the visual features: they teach the encoders faster than words alone. Thrown away afterwards."""

    def __init__(self, path, width):
        super().__init__()
        self.rows, self.classes = {}, {}
        with open(path, newline="", encoding="utf-8") as f:
            for row in csv.DictReader(f):
                self.rows[row["case"]] = row
                for column in CATEGORIES:
                    if row.get(column):
                        self.classes.setdefault((row["modality"], column), set()).add(row[column])
        self.classes = {key: {value: i for i, value in enumerate(sorted(values))} for key, values in self.classes.items()}
        self.columns = {m: [k for k in self.classes if k[0] == m] for m in PLACES}
        self.look = nn.ModuleDict({m: nn.Linear(width, 4) for m in PLACES})
        self.say = nn.ModuleDict({m: nn.Sequential(nn.Linear(5 * width, width), nn.GELU(), nn.Linear(width, 6 + sum(len(self.classes[k]) for k in self.columns[m]))) for m in PLACES})

    def forward(self, modality, names, shape, features):
        features = features.float()
        weights = self.look[modality](features).softmax(1)
        out = self.say[modality](torch.cat([features.mean(1), torch.einsum("blk,bld->bkd", weights, features).flatten(1)], -1))
        rows = [self.rows[n] for n in names]
        loss, at = 0.0, 6
        for key in self.columns[modality]:
            values = self.classes[key]
            target = torch.tensor([values.get(r[key[1]], -100) for r in rows])
            if (target >= 0).any():
                loss = loss + F.cross_entropy(out[:, at:at + len(values)], target)
            at += len(values)
        size = shape[::-1] * 2
        boxes = [[float(v) / size[i] for i, v in enumerate(r["mass_box"].split())] if r.get("mass_box") else None for r in rows]
        with_box = [i for i, b in enumerate(boxes) if b]
        if with_box:
            target = torch.tensor([boxes[i] for i in with_box])
            loss = loss + 5 * (out[with_box, :target.shape[1]].sigmoid() - target).abs().mean()
        return loss


def answers_right(logits, batch):
    """Per labelled answer: every token the likeliest one, which is what greedy decoding would have written. → (right, answers)"""
    wrong = logits.argmax(-1) != batch["target"]
    rows, cells = batch["label"].nonzero(as_tuple=True)
    start = torch.ones(len(rows), dtype=torch.bool)
    start[1:] = (rows[1:] != rows[:-1]) | (cells[1:] != cells[:-1] + 1)
    number = start.cumsum(0) - 1
    count = int(number[-1]) + 1
    return torch.zeros(count).index_add_(0, number, wrong.float()).eq(0).sum().item(), count


def run(model, batch):
    kept, relative, features = model.see(batch["kind"], batch["data"])
    positions = batch["position"][..., None].expand(-1, -1, 3).clone()
    positions[:, batch["at"]:batch["at"] + relative.shape[1]] = batch["at"] + relative
    logits = model(batch["ids"], positions, batch["mask"], batch["at"], kept, batch["label"]).float()
    loss = F.cross_entropy(logits, batch["target"], reduction="none")
    return (loss * batch["weight"]).sum() / batch["weight"].sum(), logits, features


def export(model, out, text_path, config):
    os.makedirs(out, exist_ok=True)
    state = {name: value.detach().bfloat16().contiguous() for name, value in model.state_dict().items()}
    save_file(state, f"{out}/model.safetensors.part", metadata={"format": "pt"})
    os.replace(f"{out}/model.safetensors.part", f"{out}/model.safetensors")
    for name, value in (("config.json", config), ("generation_config.json", {"eos_token_id": config["text_config"]["eos_token_id"], "do_sample": False})):
        with open(f"{out}/{name}", "w") as f:
            json.dump(value, f, indent=2)
            f.write("\n")
    shutil.copy(text_path, f"{out}/tokenizer.json")


def batches(corpus, text, budgets, seed, step, queue):
    packer = Packer(corpus, text, budgets, seed + step)
    groups = {m: [k for k in corpus.groups if k[0] == m] for m in PLACES}
    while True:
        rows, questions, share = (36, 4, SHARE[0]) if step < WORDS else (64, 2, SHARE[1])
        step += 1
        modality = packer.random.choices(list(share), list(share.values()))[0]
        key = packer.random.choices(groups[modality], [corpus.sizes()[k] for k in groups[modality]])[0]
        cases = packer.random.sample(range(corpus.sizes()[key]), rows)
        batch = packer.batch(key, cases, questions)
        names = [corpus.groups[key]["names"][c] for c in cases]
        queue.put((modality, key[1], names, batch))


def evaluate(model, corpus, text, budgets):
    packer, line = Packer(corpus, text, budgets, 1), []
    for modality in PLACES:
        right = count = 0
        for key in [k for k in corpus.groups if k[0] == modality]:
            for first in range(0, min(64, corpus.sizes()[key]), 32):
                batch = packer.batch(key, list(range(first, min(first + 32, corpus.sizes()[key]))), 8)
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                    r, c = answers_right(run(model, batch)[1], batch)
                right, count = right + r, count + c
        line.append(f"{modality} {right / max(count, 1):.3f}")
    return "  ".join(line)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus")
    parser.add_argument("valid")
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(2)
    Layer.forward = torch.compile(Layer.forward, dynamic=True)  # a fifth faster
    text_path = f"{args.corpus}/tokenizer.json"
    text = Text(text_path)
    config = configuration(text)
    budgets = {"image": config["image_token_num"], "volume": config["video_token_num"], "slide": config["histo_token_num"]}
    model, findings = Demo(config), Findings(f"{args.corpus}/findings.csv", config["text_config"]["hidden_size"])
    print(sum(p.numel() for p in model.parameters()) / 1e6, "million parameters", flush=True)
    corpus, valid = Corpus(f"{args.corpus}/train.jsonl", args.corpus), Corpus(f"{args.valid}/valid.jsonl", args.valid)
    print(corpus.sizes(), valid.sizes(), flush=True)
    parameters = list(model.parameters()) + list(findings.parameters())
    optimiser = torch.optim.AdamW([{"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.05}, {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}],
                                  lr=args.rate, betas=(0.9, 0.98))
    step, spent = 0, 0.0
    state_path = f"{args.out}/state.pt"
    os.makedirs(args.out, exist_ok=True)
    if args.resume:
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        findings.load_state_dict(state["findings"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    queue = Queue(8)
    threading.Thread(target=batches, args=(corpus, text, budgets, args.seed, step, queue), daemon=True).start()
    began = last = time.time() - spent
    shown = {}
    while True:
        passed = (time.time() - began) / 60 / args.minutes
        if passed >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = args.rate * min(1, (step + 1) / 300) * (0.5 + 0.5 * math.cos(math.pi * passed))
        modality, shape, names, batch = queue.get()
        with torch.autocast("cpu", torch.bfloat16):
            loss, logits, features = run(model, batch)
        extra = findings(modality, names, shape, features)
        optimiser.zero_grad(set_to_none=True)
        (loss + (0.1 if step < WORDS else 0.3) * (1 - passed) * extra).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        right, count = answers_right(logits.detach(), batch)
        entry = shown.setdefault(modality, [0, 0.0, 0.0, 0, 0])
        for i, v in enumerate((1, loss.item(), extra.item(), right, count)):
            entry[i] += v
        if step % 100 == 0:
            now = time.time()
            print(f"step {step} {100 * passed:.1f} % {(now - last) * 10:.0f} ms/step  " +
                  "  ".join(f"{m} {e[1] / e[0]:.3f}/{e[2] / e[0]:.2f}/{e[3] / e[4]:.3f}" for m, e in sorted(shown.items())), flush=True)
            shown, last = {}, now
        if step % 500 == 0:
            print("valid", evaluate(model, valid, text, budgets), flush=True)
            torch.save({"model": model.state_dict(), "findings": findings.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "spent": time.time() - began}, state_path)
            export(model, args.out, text_path, config)
    export(model, args.out, text_path, config)
    model.load_state_dict({n: v.bfloat16().float() for n, v in model.state_dict().items()})
    print("valid, weights in bfloat16", evaluate(model, valid, text, budgets), flush=True)


if __name__ == "__main__":
    main()
