"""Volumes, slides and mixed prompts end to end on tiny-breastgpt: what the definition makes of them, stage by stage.

    python tests/oracle/mixed.py [CASE ...]       (from the repository root, after model.py; no name: media and all cases, about a minute; with names
                                                   media are read as they are; see README.md here for versions; also nibabel 5.4.2)

Writes tests/golden/mixed-media (volumes, slide features) and tests/golden/mixed-cases/NAME/{case.txt, golden.safetensors}.
Reads tests/golden/tiny-breastgpt and tests/golden/tiny-images/grey.png.

ViT and decoder are transformers' Qwen3VL in float64, as in model.py. The way to the frames (INPUTS.md), the slide branch (MODEL.md section 2), prompt
and positions are written here from their definitions; the slide branch must equal longnet.py, written apart from it. The seed of a medium and the
question of a case are the first for which every choice (kept row, greedy token) is far from a tie and a float32 run chooses the same.
"""
import gzip
import os
import shutil
import sys

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import Qwen3VLForConditionalGeneration

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common
import longnet
import model as images_oracle
import selector

MEDIA = f"{common.GOLDEN}/mixed-media"
MARGIN = images_oracle.MARGIN
GAP = MARGIN / 5
TOKENS = 32
LEVELS = ("top", "deep.0", "deep.1", "deep.2")
KEYS = {"image": "image_token_num", "volume": "video_token_num", "slide": "histo_token_num"}
DEFAULT = {"image": 64, "volume": 128, "slide": 128}

IMAGE = ("image", "tiny-images/grey.png", {})
PLAIN = ("volume", "mixed-media/plain.nii.gz", dict(no_prescale=True))
FULL = ("volume", "mixed-media/prescale.nii.gz", {})
SLIDE = ("slide", "mixed-media/slide-70.safetensors", {})
FEW = ("slide", "mixed-media/slide-5.safetensors", {})
MANY = ("slide", "mixed-media/slide-1500.safetensors", {})
# file: medium, budgets at which its choice without text must be safe
MEDIA_CHECKS = {PLAIN[1]: (PLAIN, (6, 4)), FULL[1]: (FULL, (16,)), SLIDE[1]: (SLIDE, (7,)), FEW[1]: (FEW, ()), MANY[1]: (MANY, (12,))}
VOLUMES = {PLAIN[1]: (90, 55, 10), FULL[1]: (12, 60, 20)}  # x, y, z
TILES = {SLIDE[1]: 70, FEW[1]: 5, MANY[1]: 1500}

QUESTIONS = ["Finding?", "What is it?", "Is it benign?", "Which grade?", "Name the lesion.", "Is there a mass?", "What next?", "Describe it.",
             "Where?", "Why?", "Is it new?", "Any sign?", "Report.", "Tell me more.", "Which stage?", "How large?", "Which side?", "What type?",
             "Normal?", "Explain."]
# name, media in the order added, user text ({}: the question), budgets, options: use_text, system, brief (no stages of the encoders, which
# other cases have, and the last 8 rows of logits), few (no stages but the last row of logits)
CASES = [
    ("volume-6", [PLAIN], "{}", dict(volume=6), {}),
    ("volume-16-prescale", [FULL], "<volume>\n{}", dict(volume=16), dict(few=True)),
    ("slide-7", [SLIDE], "<slide>\n{}", dict(slide=7), {}),
    ("slide-7-text", [SLIDE], "<image>\n{}", dict(slide=7), dict(use_text=True, system="You read slides.", brief=True)),
    ("slide-all", [FEW], "{}", dict(slide=7), {}),
    ("slide-1500", [MANY], "{}", dict(slide=12), dict(few=True)),
    ("mixed-markers", [IMAGE, PLAIN, SLIDE], "A <volume> B <slide> C <image> D? {}", dict(image=5, volume=6, slide=7), {}),
    ("mixed-image-markers", [IMAGE, PLAIN, SLIDE], "<image> and <image>, <video>: {}", dict(image=5, volume=4, slide=7), dict(use_text=True, brief=True)),
    ("mixed-no-markers", [SLIDE, IMAGE, PLAIN], "{}", dict(image=5, volume=6, slide=7), dict(brief=True)),
]


# ---- volumes: file to patch vectors --------------------------------------------------------------------------------------------------------

def write_volume(path, shape, seed):
    """int16, (x, y, z) as NIfTI stores it. A slow field, blocks of other brightness, and a bright mark near one corner: no two axes or directions
    alike."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.arange(n) / max(shape) for n in shape), indexing="ij")
    out = sum(rng.normal() * np.sin(rng.uniform(3, 25) * x + rng.uniform(3, 25) * y + rng.uniform(5, 40) * z + rng.uniform(0, 6)) for _ in range(4))
    for _ in range(12):
        low = [rng.integers(0, n) for n in shape]
        high = [a + rng.integers(1, max(2, n // 2)) for a, n in zip(low, shape)]
        out[low[0]:high[0], low[1]:high[1], low[2]:high[2]] += 2 * rng.normal()
    out[shape[0] // 10:shape[0] // 4 + 1, :shape[1] // 8 + 1, -max(1, shape[2] // 5):] = 5
    voxels = (8 * np.round(25 * out)).astype(np.int16)
    image = nib.Nifti1Image(voxels, np.array([[0.7, 0, 0, -31.5], [0, 0.9, 0, 12.25], [0, 0, 3.5, 40], [0, 0, 0, 1]]))
    image.header.set_xyzt_units("mm")
    with open(path, "wb") as f:
        f.write(gzip.compress(image.to_bytes(), mtime=0))


def area_axis(v, axis, m):
    n = v.shape[axis]
    parts = [v.take(range(i * n // m, -(-(i + 1) * n // m)), axis=axis).mean(axis=axis, dtype=np.float64) for i in range(m)]
    return np.stack(parts, axis=axis)


def area(v, shape):
    """Means over boxes, one axis after the other. Float32 at the end; for these volumes every sum is exact, so the order does not matter."""
    for axis, m in enumerate(shape):
        v = area_axis(v, axis, m)
    return v.astype(np.float32)


def volume_patches(path, prescale):
    """(patch vectors (P, 1536) float64, grid (t, h, w) in patches). INPUTS.md, Volumes."""
    v = np.asarray(nib.load(path).get_fdata(dtype=np.float64)).transpose(2, 1, 0).astype(np.float32)
    if prescale:
        nz, ny, nx = (round(n * 384 / max(v.shape)) for n in v.shape)  # Python's round: half to even
        v = np.trunc(area(area(v, (nz, ny, nx)), (48, ny, nx))).astype(np.int16).astype(np.float32)
    v = (v - v.min()) / (v.max() - v.min() + np.float32(1e-6)) * np.float32(255)
    assert v.dtype == np.float32
    depth, height, width = v.shape
    scale = min(384 / height, 384 / width, 1)
    target = max(min(depth, 48) // 3 * 3, 3), int(height * scale), int(width * scale)
    frames = F.interpolate(torch.tensor(v).double()[None, None], size=target, mode="trilinear", align_corners=False)[0, 0]
    rows, cols = (max(32, 32 * round(n / 32)) for n in target[1:])
    assert rows * cols <= 786432
    if (rows, cols) != target[1:]:
        frames = F.interpolate(frames[:, None], size=(rows, cols), mode="bicubic", antialias=True, align_corners=False)[:, 0]
    x = (frames.numpy() - 127.5) / 127.5
    if len(x) % 2:
        x = np.concatenate([x, x[-1:]])
    grid = [len(x) // 2, rows // 16, cols // 16]
    vectors = []
    for t in range(grid[0]):
        for block_row in range(grid[1] // 2):
            for block_col in range(grid[2] // 2):
                for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    r, c = 32 * block_row + 16 * i, 32 * block_col + 16 * j
                    vectors.append(np.broadcast_to(x[2 * t:2 * t + 2, r:r + 16, c:c + 16], (3, 2, 16, 16)).reshape(-1))
    return np.array(vectors), grid


# ---- slides: features to rows --------------------------------------------------------------------------------------------------------------

def write_slide(path, tiles, seed):
    """Features in clumps, as tissue gives them, float32 numbers that are no bfloat16 numbers; coordinates column by column with holes."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 40))
    features = centres[rng.integers(0, 6, tiles)] + 0.6 * rng.normal(size=(tiles, 40))
    side = int(np.ceil(np.sqrt(1.5 * tiles)))
    places = np.sort(rng.choice(side * side, tiles, replace=False))
    coords = np.stack([places // side, places % side], axis=1).astype(np.int64) * 512
    save_numpy({"features": features.astype(np.float32), "coords": coords}, path, metadata={"patch_size_level0": "512"})


def mixed_heads(q, k, v, heads):
    """Dilated attention by counting: padding rows are not laid out, their number is. q, k, v (N, H*d)."""
    n, width = q.shape
    d = width // heads
    outs, sums = [], []
    for segment, dilation in ((512, 1), (1024, 2), (2048, 4)):
        segment = min(segment, n)
        o, s = torch.zeros(n, heads, d, dtype=q.dtype), torch.full((n, heads), -1e8, dtype=q.dtype)
        for start in range(0, n, segment):
            for h in range(heads):
                first = h // -(-heads // dilation)
                slots = len(range(first, -(-segment // dilation) * dilation, dilation))
                rows = torch.arange(start + first, min(start + segment, n), dilation)
                if not len(rows):
                    continue
                part = slice(h * d, (h + 1) * d)
                z = q[rows, part] @ k[rows, part].T * d**-0.5
                z = torch.cat([z, torch.zeros(len(rows), slots - len(rows), dtype=q.dtype)], dim=1)  # a zero key scores 0 ...
                s[rows, h] = z.logsumexp(1)
                o[rows, h] = z.softmax(1)[:, :len(rows)] @ v[rows, part]  # ... and gives 0
        s[s == 0] = -1e8
        outs.append(o)
        sums.append(s)
    w = torch.stack(sums).softmax(0)
    return (w[..., None] * torch.stack(outs)).sum(0).reshape(n, width)


def slide_branch(weights, features, dtype, heads, layers):
    """(rows of the levels top, 0, 1, 2; the state after each layer)."""
    w = {name.removeprefix("slide."): x.to(dtype) for name, x in weights.items()}
    x = features.bfloat16().to(dtype)

    def affine(name, y):
        return F.linear(y, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(name, y):
        return F.layer_norm(y, y.shape[1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    states, deep = [], []
    for i in range(layers):
        y = norm(f"layers.{i}.ln1", x)
        q, k, v = (affine(f"layers.{i}.self_attn.{part}_proj", y) for part in "qkv")
        x = x + affine(f"layers.{i}.self_attn.out_proj", mixed_heads(q, k, v, heads))
        x = x + affine(f"layers.{i}.ffn.2", F.gelu(affine(f"layers.{i}.ffn.0", norm(f"layers.{i}.ln2", x))))
        states.append(x)
        deep.append(affine(f"intermediate_projectors.{i}", x))
    return [affine("feature_projector", x)] + deep, states


# ---- models and media ----------------------------------------------------------------------------------------------------------------------

class Models:
    def __init__(self):
        folder = f"{common.GOLDEN}/tiny-breastgpt"
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        tensors = {name: x.float() for name, x in load_file(f"{folder}/model.safetensors").items()}
        spec = images_oracle.CHECKPOINTS["tiny-breastgpt"]
        self.slide = {name: x for name, x in tensors.items() if name.startswith("slide.")}
        self.slide_shape = spec["slide"]["heads"], spec["slide"]["layers"]
        self.single = Qwen3VLForConditionalGeneration(images_oracle.make_config(spec, self.tokenizer)).eval()
        self.single.load_state_dict({name: x for name, x in tensors.items() if not name.startswith("slide.")})
        self.double = common.to_double(self.single)
        config = self.single.config
        self.pad = {"image": config.image_token_id, "volume": config.video_token_id, "slide": images_oracle.special(self.tokenizer, "<|histo_pad|>")}
        self.not_text = set(self.pad.values()) | {config.vision_start_token_id, config.vision_end_token_id}
        self.forbidden = images_oracle.unwanted(self.tokenizer, config.text_config.vocab_size)
        self.media = {}

    def medium(self, entry):
        if entry[1] not in self.media:
            self.media[entry[1]] = Medium(self, entry)
        return self.media[entry[1]]


class Medium:
    """kind, grid (t, rows, columns) of its feature rows, levels by type (top, 0, 1, 2), states of the slide branch."""

    def __init__(self, models, entry):
        self.kind, self.path, self.options = entry
        full = f"{common.GOLDEN}/{self.path}"
        if self.kind == "slide":
            features = load_file(full)["features"]
            double, self.states = slide_branch(models.slide, features, torch.float64, *models.slide_shape)
            self.levels = {torch.float64: double, torch.float32: slide_branch(models.slide, features, torch.float32, *models.slide_shape)[0]}
            self.grid = [1, 1, len(features)]
            heads, layers = models.slide_shape
            other = longnet.branch(models.slide, features.numpy().astype(np.float64), heads, layers)
            for name, x in [("top", double[0])] + [(f"deepstack.{i}", x) for i, x in enumerate(double[1:])]:
                assert torch.allclose(other[f"slide.{name}"], x, rtol=1e-11, atol=1e-11), name
        else:
            if self.kind == "image":
                _, pixels, patches = common.patches(os.path.basename(full).removesuffix(".png"))
            else:
                pixels, patches = volume_patches(full, not self.options.get("no_prescale"))
            self.levels = {}
            for model in (models.double, models.single):
                top, deep = model.model.visual(torch.tensor(pixels).to(model.dtype), grid_thw=torch.tensor([patches]))
                self.levels[model.dtype] = [top, *deep]
            self.grid = [patches[0], patches[1] // 2, patches[2] // 2]
        self.rows = int(np.prod(self.grid))
        assert all(len(x) == self.rows for x in self.levels[torch.float64])
        self.memory = {}

    def choose(self, budget, text):
        """Per level the selector's result, float32 on rows rounded from float64. NearTie when another arithmetic would choose otherwise."""
        key = budget, None if text is None else text.tobytes()
        if key not in self.memory:
            def pick(which, dtype):
                return [selector.select(x.numpy().astype(dtype), text, budget, dtype) for x in self.levels[which]]

            exact = pick(torch.float64, np.float64)  # the fast one first
            gap = min(selector.smallest_gap(r) for r in exact)
            if gap < GAP:
                raise common.NearTie(f"{self.path} budget {budget}: selection gap {gap:.1e}")
            single, rough = pick(torch.float64, np.float32), pick(torch.float32, np.float32)
            gap = min(selector.smallest_gap(r) for r in single)
            orders = [[r["order"].tolist() for r in results] for results in (exact, single, rough)]
            if gap < GAP or orders[0] != orders[1] or orders[0] != orders[2]:
                raise common.NearTie(f"{self.path} budget {budget}: selection gap {gap:.1e} in float32")
            self.memory[key] = single, gap
        return self.memory[key]


def write_media(models):
    os.makedirs(MEDIA, exist_ok=True)
    for path, (entry, budgets) in MEDIA_CHECKS.items():
        for seed in range(1000):
            full = f"{common.GOLDEN}/{path}"
            if path in VOLUMES:
                write_volume(full, VOLUMES[path], seed)
            else:
                write_slide(full, TILES[path], seed)
            medium = Medium(models, entry)
            try:
                gaps = [medium.choose(k, None)[1] for k in budgets]
            except common.NearTie as reason:
                print(f"seed {seed}: {reason}", flush=True)
                continue
            models.media[path] = medium
            print(f"{path}: seed {seed}, grid {medium.grid}, gaps {['%.1e' % g for g in gaps]}, {os.path.getsize(full)} bytes", flush=True)
            break
        else:
            raise SystemExit(f"{path}: no seed does")


# ---- prompt and positions (PROMPT.md, MODEL.md section 4) ----------------------------------------------------------------------------------

def render(system, user, kinds, counts):
    """(the prompt, the media's indices in the order of their placeholders). kinds, counts: by medium, in the order added."""
    order = []

    def block(m):
        order.append(m)
        if kinds[m] == "volume":
            return "<|video_pad|>" * counts[m]
        return "<|vision_start|>" + {"image": "<|image_pad|>", "slide": "<|histo_pad|>"}[kinds[m]] * counts[m] + "<|vision_end|>"

    takes = {"<image>": ("image",) if "<slide>" in user else ("image", "slide"), "<slide>": ("slide",),
             "<volume>": ("volume",), "<video>": ("volume",)}
    free, pieces, rest = list(range(len(kinds))), [], user
    while True:
        at, marker = min(((rest.find(m), m) for m in takes if m in rest), default=(-1, None))
        if marker is None:
            break
        m = next(m for m in free if kinds[m] in takes[marker])
        free.remove(m)
        pieces += [rest[:at], m]
        rest = rest[at + len(marker):]
    pieces = [m for m in free if kinds[m] == "volume"] + [m for m in free if kinds[m] != "volume"] + pieces + [rest]
    body = "".join(p if isinstance(p, str) else block(p) for p in pieces)
    head = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return f"{head}<|im_start|>user\n{body}<|im_end|>\n<|im_start|>assistant\n", order


def positions(ids, pads, runs):
    """(3, T) and the position of the next token. runs: (kept indices of the top selection, grid (t, rows, columns)) in the order of the prompt."""
    out, i, run = [], 0, 0  # the running position equals the index in the sequence
    while i < len(ids):
        if ids[i] not in pads:
            out.append((i, i, i))
            i += 1
            continue
        kept, (_, rows, cols) = runs[run]
        run += 1
        out += [(i + s // (rows * cols), i + s % (rows * cols) // cols, i + s % cols) for s in kept.tolist()]
        i += len(kept)
    assert run == len(runs) and len(out) == len(ids)
    return np.array(out, dtype=np.int64).T.copy(), len(ids)


# ---- one case ------------------------------------------------------------------------------------------------------------------------------

class Case:
    def __init__(self, models, entry, question):
        self.models, self.question = models, question
        self.name, self.entries, template, budgets, self.options = entry
        self.user = template.format(question)
        self.budgets = {**DEFAULT, **budgets}
        self.media = [models.medium(m) for m in self.entries]
        counts = [min(m.rows, self.budgets[m.kind]) for m in self.media]
        prompt, self.order = render(self.options.get("system"), self.user, [m.kind for m in self.media], counts)
        self.ids = models.tokenizer.encode(prompt, add_special_tokens=False).ids
        pads = [i for i in self.ids if i in models.pad.values()]
        assert pads == sum(([models.pad[self.media[m].kind]] * counts[m] for m in self.order), [])
        text = None
        if self.options.get("use_text"):
            keep = torch.tensor([i for i in self.ids if i not in models.not_text])
            text = models.single.model.language_model.embed_tokens(keep).numpy()
        chosen = [m.choose(self.budgets[m.kind], text) for m in self.media]
        self.chosen, self.gap = [c for c, _ in chosen], min(gap for _, gap in chosen)
        runs = [(self.chosen[m][0]["kept"], self.media[m].grid) for m in self.order]
        self.positions, self.following = positions(self.ids, models.pad.values(), runs)

    def prepared(self, model):
        """What the decoder gets: the kept rows of each level, one medium after the other as in the prompt."""
        def kept(m, level):
            return self.media[m].levels[model.dtype][level][torch.tensor(self.chosen[m][level]["kept"])]

        levels = [torch.cat([kept(m, level) for m in self.order]) for level in range(len(LEVELS))]
        embeds = model.model.language_model.embed_tokens(torch.tensor(self.ids)).clone()
        visual_at = torch.tensor([i in self.models.pad.values() for i in self.ids])
        embeds[visual_at] = levels[0]
        return dict(embeds=embeds, position_ids=self.positions, visual_at=visual_at, deep=levels[1:])

    def find(self):
        """Fills tokens; NearTie when this question does not do."""
        def answer(model, margin):
            return common.greedy(model, **self.prepared(model), following=self.following, count=TOKENS, forbidden=self.models.forbidden,
                                 margin=margin)

        self.tokens, self.margin = answer(self.models.double, MARGIN)
        if len(set(self.tokens)) < 8:
            raise common.NearTie("the answer repeats itself")
        if self.tokens != answer(self.models.single, 0)[0]:
            raise common.NearTie("float32 differs")

    def stages(self, model):
        taps = common.Stages(model)
        logits = common.decode(model, **self.prepared(model))
        return {**taps.take(), "decoder.logits": logits}

    def write(self):
        out = self.stages(self.models.double)
        rough = self.stages(self.models.single)
        errors = {key: float((rough[key].double() - x).norm() / x.norm()) for key, x in out.items()}
        if self.options.get("few"):
            out = {"decoder.logits": out["decoder.logits"][-1:]}
        elif self.options.get("brief"):
            out["decoder.logits"] = out["decoder.logits"][-8:]
        else:
            visual = [m.levels[torch.float64] for m in self.media if m.kind != "slide"]
            if visual:
                out["vit.merger"] = torch.cat([x[0] for x in visual])
                out.update({f"vit.deepstack.{i}": torch.cat([x[1 + i] for x in visual]) for i in range(3)})
            for m in self.media:
                if m.kind == "slide":
                    out.update({f"slide.layer.{i}.out": x for i, x in enumerate(m.states)})
        out = {key: x.float().contiguous() for key, x in out.items()}
        out.update(input_ids=torch.tensor(self.ids), positions=torch.tensor(self.positions), tokens=torch.tensor(self.tokens))
        for i, m in enumerate(self.media):
            out[f"medium.{i}.grid"] = torch.tensor(m.grid)
            for level, result in zip(LEVELS, self.chosen[i]):
                out.update({f"medium.{i}.{key}.{level}": torch.tensor(value) for key, value in result.items() if len(value)})
        folder = f"{common.GOLDEN}/mixed-cases/{self.name}"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        save_file(out, f"{folder}/golden.safetensors")
        with open(f"{folder}/case.txt", "w") as f:
            f.write(self.describe())
        print(f"{self.name:20s} T {len(self.ids):3d}  grids {[m.grid for m in self.media]}  distinct {len(set(self.tokens)):2d}  "
              f"logit margin {self.margin:.1e}  gain gap {self.gap:.1e}  float32 logits {errors['decoder.logits']:.1e}  "
              f"{os.path.getsize(folder + '/golden.safetensors') // 1024} KiB", flush=True)

    def describe(self):
        """One `key value` per line; in a value \\n is a line break, \\\\ a backslash."""
        lines = [("checkpoint", "tiny-breastgpt")] + [(KEYS[kind], self.budgets[kind]) for kind in KEYS]
        lines.append(("selector_use_txt", int(self.options.get("use_text", False))))
        if any("no_prescale" in options for _, _, options in self.entries):
            lines.append(("no_prescale", 1))
        if "system" in self.options:
            lines.append(("system", self.options["system"]))
        lines += [(kind, path) for kind, path, _ in self.entries]
        lines += [("user", self.user), ("generate", TOKENS), ("next_position", self.following)]
        return "".join(f"{key} {str(value).replace(chr(92), chr(92) * 2).replace(chr(10), chr(92) + 'n')}\n" for key, value in lines)


def run(models, entry):
    for question in QUESTIONS:
        try:
            case = Case(models, entry, question)
            case.find()
        except common.NearTie as reason:
            print(f"{entry[0]} '{question}': {reason}", flush=True)
            continue
        case.write()
        return
    raise SystemExit(f"{entry[0]}: no question does")


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    common.use_exact_float64()
    models = Models()
    names = sys.argv[1:]
    if not names:
        write_media(models)
    for entry in CASES:
        if not names or entry[0] in names:
            run(models, entry)


if __name__ == "__main__":
    main()
