"""What the model oracles share: the prompt as ids, patch vectors, positions, the float64 form of the public model, stages, greedy decoding.

Nothing here is ours but the prompt's template and the position rule of `breastgpt`, both written from their definitions (MODEL.md section 4).
"""
import copy
import os

import numpy as np
import PIL
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen

GOLDEN = "tests/golden"
IMAGES = f"{GOLDEN}/tiny-images"


# ---- the public model in float64 -----------------------------------------------------------------------------------------------------------

def use_exact_float64():
    """The public code drops to float32 inside RMSNorm and the ViT's rotation whatever the model's type. In a float64 model these two run in float64
    here; a float32 model is left as published. The rotary angles, their cos and sin, and the interpolation weights of the learned positions stay
    float32 in both: they are the model's definition."""
    def rms_norm(self, x, plain=qwen.Qwen3VLTextRMSNorm.forward):
        if x.dtype != torch.float64:
            return plain(self, x)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    def rotate(q, k, cos, sin, plain=qwen.apply_rotary_pos_emb_vision):
        if q.dtype != torch.float64:
            return plain(q, k, cos, sin)
        cos, sin = cos.unsqueeze(-2).double(), sin.unsqueeze(-2).double()
        return q * cos + qwen.rotate_half(q) * sin, k * cos + qwen.rotate_half(k) * sin

    qwen.Qwen3VLTextRMSNorm.forward = rms_norm
    qwen.apply_rotary_pos_emb_vision = rotate


def to_double(model32):
    model = copy.deepcopy(model32).double()
    model.model.visual.rotary_pos_emb.inv_freq = model32.model.visual.rotary_pos_emb.inv_freq.clone()  # angles in float32, as published
    return model


# ---- pictures ------------------------------------------------------------------------------------------------------------------------------

def make_images():
    """Three small synthetic pictures, none square, one grey. Smooth shapes with edges, so that the resize filter matters."""
    os.makedirs(IMAGES, exist_ok=True)

    def field(w, h, seed):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:h, 0:w] / max(w, h)
        out = np.zeros((h, w))
        for _ in range(5):
            out += rng.normal() * np.sin(rng.uniform(3, 40) * x + rng.uniform(3, 40) * y + rng.uniform(0, 6))
        for _ in range(4):
            cx, cy, r = rng.uniform(0, w / max(w, h)), rng.uniform(0, h / max(w, h)), rng.uniform(0.05, 0.2)
            out += rng.normal() * 2 * ((x - cx) ** 2 + (y - cy) ** 2 < r * r)
        return np.clip(128 + 50 * out, 0, 255).astype(np.uint8)

    for name, w, h, seed in (("spots", 150, 100, 1), ("tall", 97, 211, 11)):
        Image.fromarray(np.stack([field(w, h, seed + c) for c in range(3)], axis=2)).save(f"{IMAGES}/{name}.png", optimize=True)
    Image.fromarray(field(170, 190, 21)).save(f"{IMAGES}/grey.png", optimize=True)


def patches(name):
    """(patch bytes (P, 1536) uint8, pixel values (P, 1536) float32, grid (t, h, w)). The public processor's PIL path does the resize and the patch
    order; (v - 127.5) / 127.5 is the formula of its fast variant, which the published preprocessor config names. The PIL variant computes
    (v * (1 / 255) - 0.5) / 0.5, the same up to rounding: checked here."""
    assert int(PIL.__version__.split(".")[0]) <= 12, "Pillow 13 resizes the height first where only the height shrinks: other bytes. Use 11.3.0"
    processor = Qwen2VLImageProcessor(patch_size=16, merge_size=2, temporal_patch_size=2, min_pixels=1024, max_pixels=1048576, image_mean=[0.5] * 3,
                                      image_std=[0.5] * 3)
    picture = Image.open(f"{IMAGES}/{name}.png")
    raw = processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")
    full = processor(picture, return_tensors="np")["pixel_values"]
    values = raw["pixel_values"]
    assert values.shape[1] == 1536 and np.array_equal(values, np.round(values)) and values.min() >= 0 and values.max() <= 255
    pixel = ((values.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)).astype(np.float32)
    assert np.abs(pixel - full).max() < 2.5e-7, np.abs(pixel - full).max()
    return values.astype(np.uint8), pixel, [int(n) for n in raw["image_grid_thw"][0]]


# ---- prompt --------------------------------------------------------------------------------------------------------------------------------

def render(system, turns, counts):
    """The prompt as text. turns: [(user text, images, answer or None)]; `<image>` in the text is where a picture goes, pictures without a marker come
    before the first user text. counts: placeholders of each picture, in order."""
    counts = list(counts)

    def block():
        return "<|vision_start|>" + "<|image_pad|>" * counts.pop(0) + "<|vision_end|>"

    marked = sum(text.count("<image>") for text, _, _ in turns)
    out = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    for i, (text, _, answer) in enumerate(turns):
        head = "".join(block() for _ in range(len(counts) - marked)) if i == 0 else ""
        while "<image>" in text:
            text = text.replace("<image>", block(), 1)
        out += f"<|im_start|>user\n{head}{text}<|im_end|>\n<|im_start|>assistant\n"
        if answer is not None:
            out += f"{answer}<|im_end|>\n"
    assert not counts
    return out


# ---- positions -----------------------------------------------------------------------------------------------------------------------------

def positions(ids, image_id, runs, plain):
    """(3, T) and the position of the next token. runs: per picture (kept indices of the top selection, merged rows, merged columns)."""
    out, running, i, run = [], 0, 0, 0
    while i < len(ids):
        if ids[i] != image_id:
            out.append((running,) * 3)
            running, i = running + 1, i + 1
            continue
        kept, rows, cols = runs[run]
        run += 1
        assert all(x == image_id for x in ids[i:i + len(kept)])
        for s in kept:
            out.append((running + s // (rows * cols), running + s % (rows * cols) // cols, running + s % cols))
        running += max(rows, cols) if plain else len(kept)
        i += len(kept)
    assert run == len(runs)
    return np.array(out, dtype=np.int64).T.copy(), running


# ---- running the public model --------------------------------------------------------------------------------------------------------------

class Stages:
    """Copies of the intermediate results, under the runtime's own stage names."""

    def __init__(self, model):
        self.data, self.handles = {}, []
        visual, text = model.model.visual, model.model.language_model

        def put(name, x):
            self.data[name] = x.detach().clone().reshape(-1, x.shape[-1])

        def after(module, name):
            self.handles.append(module.register_forward_hook(lambda m, a, out: put(name, out)))

        def before(module, name):
            self.handles.append(module.register_forward_pre_hook(lambda m, a, kw: put(name, a[0] if a else kw["hidden_states"]), with_kwargs=True))

        after(visual.patch_embed, "vit.patch_embd")
        before(visual.blocks[0], "vit.position_embd")
        for i, block in enumerate(visual.blocks):
            after(block, f"vit.block.{i}.out")
        for i, merger in enumerate(visual.deepstack_merger_list):
            after(merger, f"vit.deepstack.{i}")
        after(visual.merger, "vit.merger")
        before(text.layers[0], "decoder.embed")
        for i, layer in enumerate(text.layers):
            # What the next module gets, that is with the DeepStack rows added.
            before(text.layers[i + 1] if i + 1 < len(text.layers) else text.norm, f"decoder.layer.{i}.out")

    def take(self):
        for handle in self.handles:
            handle.remove()
        return self.data


def decode(model, embeds, position_ids, visual_at, deep, last_only=False):
    """Logits (T, V) of the public decoder from its inputs. The mask of ones keeps the public code from taking repeated
    positions for packed sequences."""
    T = embeds.shape[0]
    out = model.model.language_model(
        inputs_embeds=embeds[None].clone(), position_ids=torch.as_tensor(position_ids)[:, None, :],
        attention_mask=torch.ones(1, T, dtype=torch.long),
        visual_pos_masks=visual_at[None], deepstack_visual_embeds=deep if visual_at.any() else None, use_cache=False).last_hidden_state[0]
    return model.lm_head(out[-1:] if last_only else out)


class NearTie(Exception):
    pass


def greedy(model, embeds, position_ids, following, visual_at, deep, count, forbidden, margin):
    """`count` tokens by arg max, everything recomputed for each (no cache). Raises NearTie when the best two logits are closer than margin * |best|,
    or a forbidden id (stop tokens, padding rows) comes up. Returns the ids and the smallest relative margin."""
    table = model.model.language_model.embed_tokens
    tokens, smallest = [], np.inf
    for step in range(count):
        logits = decode(model, embeds, position_ids, visual_at, deep, last_only=True)[0]
        best = torch.topk(logits, 2)
        relative = float((best.values[0] - best.values[1]) / best.values[0].abs())
        token = int(best.indices[0])
        if relative < margin or token in forbidden:
            raise NearTie(f"step {step}: token {token}, relative margin {relative:.2e}")
        smallest = min(smallest, relative)
        tokens.append(token)
        embeds = torch.cat([embeds, table(torch.tensor([token]))])
        position_ids = np.concatenate([position_ids, np.full((3, 1), following + step, dtype=np.int64)], axis=1)
        visual_at = torch.cat([visual_at, torch.zeros(1, dtype=torch.bool)])
    return tokens, smallest
