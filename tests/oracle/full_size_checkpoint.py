"""Writes a checkpoint with the published 8B's names and shapes as sparse files, and measures the converter on it.

The tensors are zeros that take no disk; the converted file takes 17.6 GB. Not a golden: nothing is stored.
Versions: Python 3.11, no packages. Names and shapes are written out here, independently of runtime/names.cpp.
Command (from the repository root, after `make cli`):
  python tests/oracle/full_size_checkpoint.py [--tokenizer TOKENIZER.json] FOLDER [build/release/breastgpt-convert TARGET.gguf [--type bf16]]
--tokenizer: Qwen3's own file, to which the slide's token is added; without it the tests' small one, which starts faster. The second form
also runs the converter and prints its wall time and the peak of its own memory: RssAnon of /proc/PID/status, read every 20 ms, which is
what the process holds beside the pages of mapped files.
"""
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

H, FFN, V, D, F, SLIDE = 4096, 12288, 151936, 1152, 4304, 768
SHARDS = 4
SMALL = "tests/golden/tiny-8b/tokenizer.json"


def tokenizer_and_ids(file):
    tokenizer = json.loads(Path(file or SMALL).read_text(encoding="utf-8"))
    if file is not None:
        last = max(token["id"] for token in tokenizer["added_tokens"])
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": last + 1, "content": "<|histo_pad|>"})
    id_of = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end",
             "histo_token_id": "histo_pad"}
    return tokenizer, {key: id_of[f"<|{name}|>"] for key, name in names.items()}


def tensors():
    text, vit = "model.language_model.", "model.visual."

    def affine(name, rows, columns):
        return [(name + ".weight", [rows, columns]), (name + ".bias", [rows])]

    def norm(name, n):
        return [(name + ".weight", [n]), (name + ".bias", [n])]

    yield text + "embed_tokens.weight", [V, H]
    for i in range(36):
        p = f"{text}layers.{i}."
        yield p + "input_layernorm.weight", [H]
        yield p + "post_attention_layernorm.weight", [H]
        for name, rows, columns in (("q", 4096, H), ("k", 1024, H), ("v", 1024, H), ("o", H, 4096)):
            yield f"{p}self_attn.{name}_proj.weight", [rows, columns]
        yield p + "self_attn.q_norm.weight", [128]
        yield p + "self_attn.k_norm.weight", [128]
        yield p + "mlp.gate_proj.weight", [FFN, H]
        yield p + "mlp.up_proj.weight", [FFN, H]
        yield p + "mlp.down_proj.weight", [H, FFN]
    yield text + "norm.weight", [H]
    yield "lm_head.weight", [V, H]
    yield vit + "patch_embed.proj.weight", [D, 3, 2, 16, 16]
    yield vit + "patch_embed.proj.bias", [D]
    yield vit + "pos_embed.weight", [2304, D]
    for i in range(27):
        p = f"{vit}blocks.{i}."
        yield from norm(p + "norm1", D) + norm(p + "norm2", D) + affine(p + "attn.qkv", 3 * D, D) + affine(p + "attn.proj", D, D)
        yield from affine(p + "mlp.linear_fc1", F, D) + affine(p + "mlp.linear_fc2", D, F)
    for p, width in [(vit + "merger.", D)] + [(f"{vit}deepstack_merger_list.{i}.", 4 * D) for i in range(3)]:
        yield from norm(p + "norm", width) + affine(p + "linear_fc1", 4 * D, 4 * D) + affine(p + "linear_fc2", H, 4 * D)
    for i in range(3):
        p = f"slide.layers.{i}."
        yield from norm(p + "ln1", SLIDE) + norm(p + "ln2", SLIDE)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from affine(p + "self_attn." + name, SLIDE, SLIDE)
        yield from affine(p + "ffn.0", 4 * SLIDE, SLIDE) + affine(p + "ffn.2", SLIDE, 4 * SLIDE)
        yield from affine(f"slide.intermediate_projectors.{i}", H, SLIDE)
    yield from affine("slide.feature_projector", H, SLIDE)


def elements(shape):
    n = 1
    for size in shape:
        n *= size
    return n


def write_checkpoint(folder, tokenizer_file):
    folder.mkdir(parents=True, exist_ok=True)
    everything = list(tensors())
    total = sum(elements(shape) for _, shape in everything)
    shards, done = [[] for _ in range(SHARDS)], 0
    for name, shape in everything:
        shards[done * SHARDS // total].append((name, shape))
        done += elements(shape)
    index = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in shard:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + 2 * elements(shape)]}
            end += 2 * elements(shape)
            index[name] = file
        text = json.dumps(header).encode()
        with open(folder / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 2 * total}, "weight_map": index}))
    tokenizer, ids = tokenizer_and_ids(tokenizer_file)
    text = {"num_hidden_layers": 36, "hidden_size": H, "intermediate_size": FFN, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
            "rope_theta": 5e6, "rope_scaling": {"mrope_section": [24, 20, 20], "rope_type": "default"}, "max_position_embeddings": 262144}
    vision = {"depth": 27, "hidden_size": D, "intermediate_size": F, "num_heads": 16, "out_hidden_size": H}
    (folder / "config.json").write_text(json.dumps({"model_type": "breastgpt", "text_config": text, "vision_config": vision, **ids}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    print(f"{folder}: {len(everything)} tensors, {total / 1e9:.3f} G parameters, {2 * total / 1e9:.2f} GB in {SHARDS} shards")


def own_memory(pid):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def measure(program, folder, target, options):
    start, peak = time.monotonic(), 0
    process = subprocess.Popen([program, str(folder), "-o", target, *options])
    while process.poll() is None:
        peak = max(peak, own_memory(process.pid))
        time.sleep(0.02)
    print(f"exit code {process.returncode}, {time.monotonic() - start:.1f} s, own memory at most {peak / 2**20:.1f} MiB, "
          f"file {os.path.getsize(target) if os.path.exists(target) else 0} bytes")
    return process.returncode


if __name__ == "__main__":
    arguments, tokenizer = sys.argv[1:], None
    if arguments[:1] == ["--tokenizer"] and len(arguments) > 1:
        tokenizer, arguments = arguments[1], arguments[2:]
    if len(arguments) < 1 or len(arguments) == 2:
        sys.exit(__doc__)
    write_checkpoint(Path(arguments[0]), tokenizer)
    if len(arguments) >= 3:
        sys.exit(measure(arguments[1], Path(arguments[0]), arguments[2], arguments[3:]))
