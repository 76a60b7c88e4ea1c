"""Tiny random checkpoints in the published form, and what the public implementation makes of them, stage by stage.

    python tests/oracle/model.py [CHECKPOINT ...]        (from the repository root; no name: all; see README.md here for versions)

Writes tests/golden/tiny-images, tiny-8b, tiny-4b, tiny-breastgpt (checkpoint folders) and tiny-cases/NAME/{case.txt, golden.safetensors}.
Reads tests/golden/tokenizer/small.json.

In: nothing random but fixed seeds. Out: goldens from a float64 run of transformers' Qwen3VLForConditionalGeneration, for token selection from that
model's own decoder fed with the rows that selector.py keeps. A seed is taken only when every choice (greedy token, kept row) is far from a tie and
the float32 model chooses the same.
"""
import copy
import json
import os
import shutil
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common
import selector

MARGIN = 1e-3  # smallest relative distance of the best two logits, and of the best two gains
TOKENS = 64

# Ratios of the published models (heads to key heads, head width x heads over width, ffn over width), sizes small, some odd on purpose. Only tiny-8b has
# the published rope theta: at so few positions its slow half hardly turns, and an error in mrope_section would not show. patches: scale of the ViT's
# input (patch embedding and learned positions); small in tiny-4b so that the eps of the norms shows.
CHECKPOINTS = {
    "tiny-8b": dict(
        type="qwen3_vl", dtype="bfloat16", shard="800KB", tied=False, theta=5e6, patches=1.0,
        text=dict(hidden_size=64, intermediate_size=197, num_hidden_layers=4,
                  num_attention_heads=8, num_key_value_heads=2, head_dim=32, mrope=[6, 5, 5]),
        vision=dict(hidden_size=40, intermediate_size=149, num_heads=2, depth=4, num_position_embeddings=1296, deepstack_visual_indexes=[0, 1, 2])),
    "tiny-4b": dict(
        type="qwen3_vl", dtype="float32", shard="5GB", tied=True, theta=50.0, patches=0.125,
        text=dict(hidden_size=40, intermediate_size=153, num_hidden_layers=4,
                  num_attention_heads=4, num_key_value_heads=1, head_dim=16, mrope=[3, 3, 2]),
        vision=dict(hidden_size=24, intermediate_size=96, num_heads=2, depth=5, num_position_embeddings=529, deepstack_visual_indexes=[0, 2, 3])),
    "tiny-breastgpt": dict(
        type="breastgpt", dtype="bfloat16", shard="5GB", tied=False, theta=1000.0, patches=1.0,
        text=dict(hidden_size=64, intermediate_size=129, num_hidden_layers=4,
                  num_attention_heads=4, num_key_value_heads=2, head_dim=32, mrope=[6, 5, 5]),
        vision=dict(hidden_size=24, intermediate_size=90, num_heads=3, depth=4, num_position_embeddings=256, deepstack_visual_indexes=[0, 1, 2]),
        slide=dict(feature_dim=40, heads=8, layers=3)),
}

SYSTEM = "You read images."
# name, checkpoint, system, turns [(user, images, answer)], options: wide (float64 goldens), blocks (the ViT's inner stages too), budget, use_text,
# session (the first answer is what the model said, this many tokens)
CASES = [
    ("8b-image", "tiny-8b", SYSTEM, [("What does it show?", ["tall"], None)], dict(wide=True)),
    ("8b-two-images", "tiny-8b", None, [("Compare <image> with\n<image>?", ["spots", "grey"], None)], {}),
    ("8b-text", "tiny-8b", None, [("Name three signs of a benign lesion.", [], None)], {}),
    ("8b-turns", "tiny-8b", SYSTEM, [("<image>\nA mass?", ["spots"], "Yes."), ("Where?", [], None)], {}),
    ("8b-session", "tiny-8b", None, [("<image>\nIs there a mass?", ["spots"], None), ("Where is it?", [], None)], dict(session=12)),
    ("4b-image", "tiny-4b", None, [("<image>Describe the picture.", ["grey"], None)], dict(blocks=True)),
    ("breastgpt-all", "tiny-breastgpt", None, [("<image>\nFinding?", ["grey"], None)], dict(blocks=True)),
    ("breastgpt-5", "tiny-breastgpt", None, [("<image>\nFinding?", ["grey"], None)], dict(budget=5)),
    ("breastgpt-8-text", "tiny-breastgpt", SYSTEM, [("<image>\nFinding?", ["tall"], None)], dict(budget=8, use_text=True)),
    ("breastgpt-two-8-text", "tiny-breastgpt", None, [("First <image> then <image>: what?", ["spots", "grey"], None)], dict(budget=8, use_text=True)),
    ("breastgpt-two-20", "tiny-breastgpt", None, [("First <image> then <image>: what?", ["spots", "grey"], None)], dict(budget=20)),
]


# ---- checkpoints ---------------------------------------------------------------------------------------------------------------------------

def special(tokenizer, name):
    token = tokenizer.token_to_id(name)
    assert token is not None, f"small.json lacks {name}"
    return token


def make_config(spec, tokenizer):
    text = dict(spec["text"])
    section = text.pop("mrope")
    text.update(vocab_size=tokenizer.get_vocab_size() + 5, max_position_embeddings=2048, rope_theta=spec["theta"], rms_norm_eps=1e-6,
                rope_scaling=dict(mrope_interleaved=True, mrope_section=section, rope_type="default"), tie_word_embeddings=spec["tied"],
                bos_token_id=special(tokenizer, "<|endoftext|>"), eos_token_id=special(tokenizer, "<|im_end|>"))
    vision = dict(spec["vision"], patch_size=16, temporal_patch_size=2, spatial_merge_size=2, out_hidden_size=text["hidden_size"])
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=spec["tied"],
                           image_token_id=special(tokenizer, "<|image_pad|>"), video_token_id=special(tokenizer, "<|video_pad|>"),
                           vision_start_token_id=special(tokenizer, "<|vision_start|>"),
                           vision_end_token_id=special(tokenizer, "<|vision_end|>"))
    config._attn_implementation = "sdpa"
    return config


def random_tensor(name, shape, rng, embedding=1.0):
    """bfloat16 values, none of them zero on purpose: a forgotten bias must show. embedding: scale of the embedding rows, small where they are the output
    matrix too, or every answer repeats its first token."""
    if name.endswith("bias"):
        x = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:  # weights of norms
        x = 1 + 0.1 * rng.standard_normal(shape)
    elif "pos_embed" in name:
        x = 0.5 * rng.standard_normal(shape)
    elif "embed_tokens" in name:
        x = embedding * rng.standard_normal(shape)
    elif "lm_head" in name:
        x = 3 / np.sqrt(shape[1]) * rng.standard_normal(shape)
    else:
        x = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return torch.tensor(x, dtype=torch.float32).bfloat16().float()


def slide_shapes(spec, hidden):
    d, shapes = spec["feature_dim"], {}

    def affine(name, out, into):
        shapes[f"slide.{name}.weight"], shapes[f"slide.{name}.bias"] = (out, into), (out,)

    for i in range(spec["layers"]):
        for norm in ("ln1", "ln2"):
            shapes[f"slide.layers.{i}.{norm}.weight"], shapes[f"slide.layers.{i}.{norm}.bias"] = (d,), (d,)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            affine(f"layers.{i}.self_attn.{part}", d, d)
        affine(f"layers.{i}.ffn.0", 4 * d, d)
        affine(f"layers.{i}.ffn.2", d, 4 * d)
    affine("feature_projector", hidden, d)
    for i in range(3):
        affine(f"intermediate_projectors.{i}", hidden, d)
    return shapes


def unwanted(tokenizer, rows):
    """Ids that no greedy answer may hold: markers, and rows of the embedding matrix without a token."""
    return {i for i in range(rows) if i >= tokenizer.get_vocab_size() or (tokenizer.id_to_token(i) or "<|").startswith("<|")}


def build(name, seed, tokenizer):
    config = make_config(CHECKPOINTS[name], tokenizer)
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).eval()
    rng = np.random.default_rng(seed)
    quiet = sorted(unwanted(tokenizer, config.text_config.vocab_size))
    with torch.no_grad():
        for key, value in model.named_parameters():  # a tied lm_head is not listed twice
            value.copy_(random_tensor(key, tuple(value.shape), rng, 0.3 if CHECKPOINTS[name]["tied"] else 1.0))
        model.lm_head.weight[quiet] *= 0.25  # powers of two keep them bfloat16 values
        model.model.visual.patch_embed.proj.weight *= CHECKPOINTS[name]["patches"]
        model.model.visual.patch_embed.proj.bias *= CHECKPOINTS[name]["patches"]
        model.model.visual.pos_embed.weight *= CHECKPOINTS[name]["patches"]
    slide = slide_shapes(CHECKPOINTS[name]["slide"], config.text_config.hidden_size) if "slide" in CHECKPOINTS[name] else {}
    return model, {key: random_tensor(key, shape, rng) for key, shape in slide.items()}


def save(name, model, slide, tokenizer):
    spec, folder = CHECKPOINTS[name], f"{common.GOLDEN}/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    dtype = getattr(torch, spec["dtype"])
    stored = copy.deepcopy(model).to(dtype)
    stored.save_pretrained(folder, max_shard_size=spec["shard"])
    if slide:
        tensors = load_file(f"{folder}/model.safetensors")
        tensors.update({key: x.to(dtype).contiguous() for key, x in slide.items()})
        save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
        with open(f"{folder}/config.json") as f:
            config = json.load(f)
        config.update(model_type="breastgpt", architectures=["BreastGPTForConditionalGeneration"], image_token_num=64,
                      video_token_num=128, histo_token_num=128, histo_token_id=special(tokenizer, "<|histo_pad|>"),
                      feature_dim=spec["slide"]["feature_dim"],
                      long_net_heads=spec["slide"]["heads"], long_net_layers=spec["slide"]["layers"], selector="CoverageTokenSelector",
                      selector_use_txt=False, do_select=True)
        write_json(f"{folder}/config.json", config)
    stop = [special(tokenizer, "<|im_end|>"), special(tokenizer, "<|endoftext|>")]
    write_json(f"{folder}/generation_config.json", dict(bos_token_id=stop[1], do_sample=False, eos_token_id=stop, pad_token_id=stop[1]))
    write_json(f"{folder}/preprocessor_config.json", dict(
        image_mean=[0.5] * 3, image_processor_type="Qwen2VLImageProcessorFast", image_std=[0.5] * 3, merge_size=2, patch_size=16,
        processor_class="Qwen3VLProcessor", size=dict(longest_edge=1048576, shortest_edge=1024), temporal_patch_size=2))
    shutil.copy(f"{common.GOLDEN}/tokenizer/small.json", f"{folder}/tokenizer.json")


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=2, sort_keys=True)
        f.write("\n")


# ---- one case ------------------------------------------------------------------------------------------------------------------------------

class Case:
    """A prompt with pictures, as ids, features, kept rows and positions, for one model (float64 or float32)."""

    def __init__(self, entry, config, tokenizer):
        self.name, self.checkpoint, self.system, self.turns, self.options = entry
        self.config, self.tokenizer = config, tokenizer
        self.plain = CHECKPOINTS[self.checkpoint]["type"] == "qwen3_vl"
        self.budget = None if self.plain else self.options.get("budget", 64)
        self.images = [image for _, images, _ in self.turns for image in images]
        loaded = [common.patches(image) for image in self.images]
        self.grids = [grid for _, _, grid in loaded]
        self.pixels = np.concatenate([p for _, p, _ in loaded]) if loaded else None
        self.lengths = [t * h * w // 4 for t, h, w in self.grids]
        self.counts = [n if self.plain else min(n, self.budget) for n in self.lengths]
        self.ids = self.encode(common.render(self.system, self.turns, self.counts)) if "session" not in self.options else None

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def features(self, model):
        """[top, level 0, 1, 2], each (all rows, width), from the public vision model."""
        if not self.images:
            return []
        top, deep = model.model.visual(torch.tensor(self.pixels).to(model.dtype), grid_thw=torch.tensor(self.grids))
        return [top] + list(deep)

    def text_rows(self, model, ids):
        """Input embeddings of every prompt token but placeholders and vision start and end."""
        c = model.config
        keep = [i for i in ids if i not in (c.image_token_id, c.video_token_id, c.vision_start_token_id, c.vision_end_token_id)]
        return model.model.language_model.embed_tokens(torch.tensor(keep)).float().numpy()

    def choose(self, model, ids, features, dtype=np.float32):
        """Per picture and level the selector's result; None for a plain checkpoint."""
        if self.plain or not self.images:
            return None
        text = self.text_rows(model, ids) if self.options.get("use_text") else None
        per_image, at = [], 0
        for n in self.lengths:
            per_image.append([selector.select(f[at:at + n].numpy().astype(dtype), text, self.budget, dtype) for f in features])
            at += n
        return per_image

    def prepare(self, model, ids):
        """What the decoder gets: embeddings, positions, next position, visual mask, DeepStack rows; and the selection."""
        features = self.features(model)
        chosen = self.choose(model, ids, features)
        starts = np.cumsum([0] + self.lengths[:-1])
        if chosen:
            rows = [torch.tensor(np.concatenate([s + image[level]["kept"] for s, image in zip(starts, chosen)])) for level in range(len(features))]
            features = [f[r] for f, r in zip(features, rows)]
        kept = [image[0]["kept"] for image in chosen] if chosen else [np.arange(n) for n in self.lengths]
        runs = [(k, h // 2, w // 2) for k, (_, h, w) in zip(kept, self.grids)]
        position_ids, following = common.positions(ids, self.config.image_token_id, runs, self.plain)
        embeds = model.model.language_model.embed_tokens(torch.tensor(ids)).clone()
        visual_at = torch.tensor([i == self.config.image_token_id for i in ids])
        if features:
            embeds[visual_at] = features[0]
        return dict(embeds=embeds, position_ids=position_ids, following=following, visual_at=visual_at, deep=features[1:]), chosen

    def answer(self, model, ids, count, margin):
        prepared, _ = self.prepare(model, ids)
        forbidden = unwanted(self.tokenizer, self.config.text_config.vocab_size)
        return common.greedy(model, **prepared, count=count, forbidden=forbidden, margin=margin)

    def find(self, model64, model32):
        """Fills ids and tokens; NearTie when this seed does not do."""
        if "session" in self.options:
            self.first_ids = self.encode(common.render(self.system, [self.turns[0]], self.counts))
            self.first_tokens, _ = self.answer(model64, self.first_ids, self.options["session"], MARGIN)
            assert self.first_tokens == self.answer(model32, self.first_ids, self.options["session"], 0)[0]
            rest = common.render(None, self.turns[1:], [])
            self.ids = self.first_ids + self.first_tokens + self.encode("<|im_end|>\n" + rest)
        chosen = self.choose(model64, self.ids, self.features(model64))
        self.gap = np.inf
        if chosen:
            other = self.choose(model32, self.ids, self.features(model32))
            exact = self.choose(model64, self.ids, self.features(model64), np.float64)
            for a, b, c in zip(sum(chosen, []), sum(other, []), sum(exact, [])):
                self.gap = min(self.gap, selector.smallest_gap(a))
                if self.gap < MARGIN / 5 or not np.array_equal(a["order"], b["order"]) or not np.array_equal(a["order"], c["order"]):
                    raise common.NearTie(f"selection gap {self.gap:.1e}")
        self.tokens, self.margin = self.answer(model64, self.ids, TOKENS, MARGIN)
        if len(set(self.tokens)) < 8:
            raise common.NearTie("the answer repeats itself")
        if self.tokens != self.answer(model32, self.ids, TOKENS, 0)[0]:
            raise common.NearTie("float32 differs")

    # -- goldens

    def stages(self, model):
        """Every stage of prompt processing. Whole runs go through the public model's own forward; selected ones through its two halves."""
        taps = common.Stages(model)
        prepared, chosen = self.prepare(model, self.ids)
        logits = common.decode(model, prepared["embeds"], prepared["position_ids"], prepared["visual_at"], prepared["deep"])
        data = dict(taps.take())
        data["decoder.logits"] = logits
        if self.plain or max(self.lengths) <= self.budget:
            ids = torch.tensor([self.ids])
            args = dict(pixel_values=torch.tensor(self.pixels), image_grid_thw=torch.tensor(self.grids)) if self.images else {}
            if not self.plain:
                args["position_ids"] = torch.tensor(prepared["position_ids"])[:, None, :]
            public = model(input_ids=ids, attention_mask=torch.ones_like(ids), **args).logits[0]
            near = 1e-9 if model.dtype == torch.float64 else 1e-4
            assert torch.allclose(public, logits, rtol=near, atol=near)
            if self.plain:
                own, delta = model.model.get_rope_index(ids, torch.tensor(self.grids) if self.images else None)
                assert np.array_equal(own[:, 0].numpy(), prepared["position_ids"]) and int(delta[0, 0]) == prepared["following"] - len(self.ids)
                said = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, eos_token_id=None,
                                      pad_token_id=0, **args)[0, len(self.ids):].tolist()
                assert said == self.tokens, "generate() of the public package says something else"
        return data, prepared, chosen

    def write(self, model64, model32, seed, report):
        data, prepared, chosen = self.stages(model64)
        rough, _, _ = self.stages(model32)
        for key, x in data.items():
            report.setdefault(key, []).append(float((rough[key].double() - x).norm() / x.norm()))
        if not (self.options.get("wide") or self.options.get("blocks")):
            data = {key: x for key, x in data.items() if not (key.startswith("vit.block") or key in ("vit.patch_embd", "vit.position_embd"))}
        if "session" in self.options:  # the ids and tokens are the point
            data = {"decoder.logits": data["decoder.logits"][-1:]}
        out = {key: (x if self.options.get("wide") else x.float()).contiguous() for key, x in data.items()}
        out["input_ids"] = torch.tensor(self.ids)
        out["positions"] = torch.tensor(prepared["position_ids"])
        out["tokens"] = torch.tensor(self.tokens)
        if self.images:
            out["grid"] = torch.tensor(self.grids)
        if "session" in self.options:
            out["first.input_ids"], out["first.tokens"] = torch.tensor(self.first_ids), torch.tensor(self.first_tokens)
        if chosen:
            for i, image in enumerate(chosen):
                for level, result in zip(["top"] + [f"deep.{d}" for d in range(len(image) - 1)], image):
                    for key, value in result.items():
                        if len(value):
                            out[f"image.{i}.{key}.{level}"] = torch.tensor(value)
        folder = f"{common.GOLDEN}/tiny-cases/{self.name}"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        save_file(out, f"{folder}/golden.safetensors")
        with open(f"{folder}/case.txt", "w") as f:
            f.write(self.describe(prepared, seed))
        print(f"{self.name:22s} T {len(self.ids):3d}  L {self.lengths}  distinct {len(set(self.tokens)):2d}  logit margin {self.margin:.1e}"
              f"  gain gap {self.gap:.1e}  {os.path.getsize(folder + '/golden.safetensors') // 1024} KiB")

    def describe(self, prepared, seed):
        """One `key value` per line; in a value \\n is a line break, \\\\ a backslash."""
        lines = [("checkpoint", self.checkpoint), ("seed", seed)]
        if not self.plain:
            lines += [("image_token_num", self.budget), ("selector_use_txt", int(self.options.get("use_text", False)))]
        if self.system:
            lines.append(("system", self.system))
        for user, images, answer in self.turns:
            lines += [("image", f"tiny-images/{image}.png") for image in images] + [("user", user)]
            if answer is not None:
                lines.append(("assistant", answer))
            elif "session" in self.options and user is self.turns[0][0]:
                lines.append(("generate", self.options["session"]))
        lines += [("generate", TOKENS), ("next_position", prepared["following"])]
        return "".join(f"{key} {str(value).replace(chr(92), chr(92) * 2).replace(chr(10), chr(92) + 'n')}\n" for key, value in lines)


# ---- all -----------------------------------------------------------------------------------------------------------------------------------

def run(name, tokenizer, report):
    for seed in range(1000):
        model32, slide = build(name, seed, tokenizer)
        model64 = common.to_double(model32)
        cases = [Case(entry, model32.config, tokenizer) for entry in CASES if entry[1] == name]
        try:
            for case in cases:
                case.find(model64, model32)
        except common.NearTie as reason:
            print(f"{name} seed {seed}: {case.name}: {reason}")
            continue
        save(name, model32, slide, tokenizer)
        for case in cases:
            case.write(model64, model32, seed, report)
        return
    raise SystemExit(f"{name}: no seed does")


def write_images():
    common.make_images()
    for image in ("spots", "tall", "grey"):
        raw, pixel, grid = common.patches(image)
        frames = raw.reshape(-1, 3, 2, 16, 16)
        assert np.array_equal(frames[:, :, 0], frames[:, :, 1])  # the one frame stands twice
        out = dict(patch_bytes=torch.tensor(frames[:, :, 0].copy()), grid=torch.tensor(grid))
        save_file(out, f"{common.IMAGES}/{image}.safetensors")


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    common.use_exact_float64()
    tokenizer = Tokenizer.from_file(f"{common.GOLDEN}/tokenizer/small.json")
    write_images()
    report = {}
    for name in sys.argv[1:] or CHECKPOINTS:
        run(name, tokenizer, report)
    print("\nfloat32 model against float64 model, relative norm error, largest of the cases:")
    for key, errors in report.items():
        print(f"  {key:24s} {max(errors):.1e}")


if __name__ == "__main__":
    main()
