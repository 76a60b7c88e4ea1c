"""Opens converted weights files with the public gguf reader and compares every tensor, hash and key with the checkpoint they came from.

Independent of our code: names are translated by the rules below, values are rounded by torch, hashes are hashlib's.
Versions: Python 3.11, gguf 0.19.0, safetensors 0.8.0, torch 2.15.0, numpy 2.4.6.
Command (from the repository root, after `make cli`):
  build/release/breastgpt-convert tests/golden/tiny-8b -o /path/tiny.gguf --type bf16 --layout rows
  python tests/oracle/check_gguf.py tests/golden/tiny-8b /path/tiny.gguf
Prints one line and exits 0 when all is equal.
"""
import hashlib
import json
import re
import sys
from pathlib import Path

import torch
from gguf import GGUFReader, GGMLQuantizationType
from safetensors import safe_open

TORCH = {GGMLQuantizationType.F32: torch.float32, GGMLQuantizationType.BF16: torch.bfloat16, GGMLQuantizationType.F16: torch.float16}

# Published name -> ours; the first rule that matches the whole name.
RULES = [
    (r"model\.language_model\.embed_tokens\.weight", "token_embd.weight"),
    (r"model\.language_model\.norm\.weight", "output_norm.weight"),
    (r"lm_head\.weight", "output.weight"),
    (r"model\.language_model\.layers\.(\d+)\.input_layernorm\.weight", r"blk.\1.attn_norm.weight"),
    (r"model\.language_model\.layers\.(\d+)\.post_attention_layernorm\.weight", r"blk.\1.ffn_norm.weight"),
    (r"model\.language_model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.weight", r"blk.\1.attn_\2.weight"),
    (r"model\.language_model\.layers\.(\d+)\.self_attn\.([qk])_norm\.weight", r"blk.\1.attn_\2_norm.weight"),
    (r"model\.language_model\.layers\.(\d+)\.self_attn\.o_proj\.weight", r"blk.\1.attn_output.weight"),
    (r"model\.language_model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight", r"blk.\1.ffn_\2.weight"),
    (r"model\.visual\.patch_embed\.proj\.(weight|bias)", r"v.patch_embd.\1"),
    (r"model\.visual\.pos_embed\.weight", "v.position_embd.weight"),
    (r"model\.visual\.blocks\.(\d+)\.norm([12])\.(weight|bias)", r"v.blk.\1.ln\2.\3"),
    (r"model\.visual\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)", r"v.blk.\1.attn_qkv.\2"),
    (r"model\.visual\.blocks\.(\d+)\.attn\.proj\.(weight|bias)", r"v.blk.\1.attn_out.\2"),
    (r"model\.visual\.blocks\.(\d+)\.mlp\.linear_fc1\.(weight|bias)", r"v.blk.\1.ffn_up.\2"),
    (r"model\.visual\.blocks\.(\d+)\.mlp\.linear_fc2\.(weight|bias)", r"v.blk.\1.ffn_down.\2"),
    (r"model\.visual\.merger\.norm\.(weight|bias)", r"v.merger.norm.\1"),
    (r"model\.visual\.merger\.linear_fc([12])\.(weight|bias)", r"v.merger.fc\1.\2"),
    (r"model\.visual\.deepstack_merger_list\.(\d+)\.norm\.(weight|bias)", r"v.deepstack.\1.norm.\2"),
    (r"model\.visual\.deepstack_merger_list\.(\d+)\.linear_fc([12])\.(weight|bias)", r"v.deepstack.\1.fc\2.\3"),
    (r"(?:model\.)?slide\.layers\.(\d+)\.ln([12])\.(weight|bias)", r"s.blk.\1.ln\2.\3"),
    (r"(?:model\.)?slide\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", r"s.blk.\1.attn_\2.\3"),
    (r"(?:model\.)?slide\.layers\.(\d+)\.self_attn\.out_proj\.(weight|bias)", r"s.blk.\1.attn_out.\2"),
    (r"(?:model\.)?slide\.layers\.(\d+)\.ffn\.0\.(weight|bias)", r"s.blk.\1.ffn_up.\2"),
    (r"(?:model\.)?slide\.layers\.(\d+)\.ffn\.2\.(weight|bias)", r"s.blk.\1.ffn_down.\2"),
    (r"(?:model\.)?slide\.feature_projector\.(weight|bias)", r"s.proj.\1"),
    (r"(?:model\.)?slide\.intermediate_projectors\.(\d+)\.(weight|bias)", r"s.deepstack.\1.\2"),
    (r"(?:model\.)?visual_selector\.cross_attn\.([qk])_proj\.weight", r"sel.top.attn_\1.weight"),
    (r"(?:model\.)?deepstack_selector\.cross_attn\.([qk])_proj\.weight", r"sel.deep.attn_\1.weight"),
    (r"(?:model\.)?visual_selector\.concept_queries", "sel.top.queries.weight"),
    (r"(?:model\.)?deepstack_selector\.concept_queries", "sel.deep.queries.weight"),
    (r"(?:model\.)?visual_selector\.concept_gate\.0\.(weight|bias)", r"sel.top.gate.\1"),
    (r"(?:model\.)?deepstack_selector\.concept_gate\.0\.(weight|bias)", r"sel.deep.gate.\1"),
]


def our_name(published):
    for pattern, name in RULES:
        match = re.fullmatch(pattern, published)
        if match:
            return match.expand(name)
    return None


def check(condition, what):
    if not condition:
        sys.exit(f"check_gguf: {what}")


def check_tensors(folder, config, reader):
    tied = config.get("tie_word_embeddings", config["text_config"].get("tie_word_embeddings", False))
    ours = {t.name: t for t in reader.tensors}
    hashes = dict(zip([t.name for t in reader.tensors], reader.get_field("breastgpt.sha256").contents()))
    check(len(hashes) == len(reader.tensors) == len(ours), "one hash for each tensor")
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for published in file.keys():
                if published.endswith("._step") or (tied and published == "lm_head.weight"):
                    continue
                name = our_name(published)
                check(name in ours, f"{published} is not in the file as {name}")
                tensor, expected = ours.pop(name), file.get_tensor(published)
                shape = [int(n) for n in reversed(tensor.shape)]
                matrix = expected.dim() > 1
                if published.endswith("patch_embed.proj.weight"):
                    expected = expected.flatten(1)
                if published.endswith("concept_queries"):
                    expected = expected[0]
                check(shape == list(expected.shape), f"{name}: shape {shape}, expected {list(expected.shape)}")
                check(matrix or tensor.tensor_type == GGMLQuantizationType.F32, f"{name}: vectors are F32")
                data = tensor.data.tobytes()
                stored = expected.contiguous().to(TORCH[tensor.tensor_type])
                check(data == stored.view(torch.uint8 if stored.element_size() == 1 else {2: torch.int16, 4: torch.int32}[stored.element_size()]).numpy().tobytes(),
                      f"{name}: values differ from torch's rounding of {published}")
                check(hashlib.sha256(data).hexdigest() == hashes[name], f"{name}: breastgpt.sha256 is wrong")
    check(not ours, f"tensors that the checkpoint does not have: {sorted(ours)}")


def check_keys(folder, config, reader):
    text, vision = config["text_config"], config["vision_config"]
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    generation = json.loads((folder / "generation_config.json").read_text()) if (folder / "generation_config.json").exists() else {}
    stop = generation.get("eos_token_id")
    expected = {
        "general.architecture": "breastgpt", "general.alignment": 64, "general.name": folder.resolve().name,
        "breastgpt.model_type": config["model_type"],
        "breastgpt.block_count": text["num_hidden_layers"], "breastgpt.embedding_length": text["hidden_size"],
        "breastgpt.feed_forward_length": text["intermediate_size"], "breastgpt.attention.head_count": text["num_attention_heads"],
        "breastgpt.attention.head_count_kv": text["num_key_value_heads"], "breastgpt.attention.key_length": text["head_dim"],
        "breastgpt.context_length": text["max_position_embeddings"], "breastgpt.rope.freq_base": rope.get("rope_theta", text.get("rope_theta")),
        "breastgpt.rope.dimension_sections": rope["mrope_section"],
        "breastgpt.tied_embeddings": config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)),
        "breastgpt.vision.block_count": vision["depth"], "breastgpt.vision.embedding_length": vision["hidden_size"],
        "breastgpt.vision.feed_forward_length": vision["intermediate_size"], "breastgpt.vision.attention.head_count": vision["num_heads"],
        "breastgpt.vision.patch_size": vision["patch_size"], "breastgpt.vision.temporal_patch_size": vision["temporal_patch_size"],
        "breastgpt.vision.spatial_merge_size": vision["spatial_merge_size"], "breastgpt.vision.position_count": vision["num_position_embeddings"],
        "breastgpt.vision.deepstack_layers": vision["deepstack_visual_indexes"],
        "breastgpt.token.image_pad": config["image_token_id"], "breastgpt.token.video_pad": config["video_token_id"],
        "breastgpt.token.vision_start": config["vision_start_token_id"], "breastgpt.token.vision_end": config["vision_end_token_id"],
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2",
    }
    if stop is not None:
        expected["breastgpt.token.stop"] = stop if isinstance(stop, list) else [stop]
        expected["tokenizer.ggml.eos_token_id"] = expected["breastgpt.token.stop"][0]
    if config["model_type"] == "breastgpt":
        expected.update({
            "breastgpt.slide.feature_length": config.get("feature_dim", 768), "breastgpt.slide.block_count": config.get("long_net_layers", 3),
            "breastgpt.slide.attention.head_count": config.get("long_net_heads", 8),
            "breastgpt.selector.kind": config.get("selector", "CoverageTokenSelector"), "breastgpt.selector.use_text": config.get("selector_use_txt", False),
            "breastgpt.selector.enabled": config.get("do_select", True), "breastgpt.selector.image_tokens": config.get("image_token_num", 64),
            "breastgpt.selector.volume_tokens": config.get("video_token_num", 128), "breastgpt.selector.slide_tokens": config.get("histo_token_num", 128),
            "breastgpt.token.slide_pad": config.get("histo_token_id", 151669),
        })
    else:
        expected["breastgpt.selector.enabled"] = False
    for key, value in expected.items():
        field = reader.get_field(key)
        check(field is not None, f"key {key} is missing")
        check(field.contents() == value, f"{key} is {field.contents()!r}, expected {value!r}")
    eps = reader.get_field("breastgpt.attention.layer_norm_rms_epsilon").contents()
    check(abs(eps - text["rms_norm_eps"]) <= 1e-7 * eps, f"layer_norm_rms_epsilon is {eps}")


def check_tokenizer_and_sources(folder, reader):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokens, types = reader.get_field("tokenizer.ggml.tokens").contents(), reader.get_field("tokenizer.ggml.token_type").contents()
    rows = next(int(t.shape[1]) for t in reader.tensors if t.name == "token_embd.weight")
    check(len(tokens) == len(types) == rows == reader.get_field("breastgpt.vocab_size").contents(), "one token for each row of the embedding")
    for token, index in tokenizer["model"]["vocab"].items():
        check(tokens[index] == token, f"token {index} is {tokens[index]!r}, expected {token!r}")
    for added in tokenizer["added_tokens"]:
        check(tokens[added["id"]] == added["content"] and types[added["id"]] == (3 if added["special"] else 4), f"added token {added['id']}")
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    check(reader.get_field("tokenizer.ggml.merges").contents() == merges, "merges differ")
    for name in ("im_start", "im_end"):
        check(tokens[reader.get_field(f"breastgpt.token.{name}").contents()] == f"<|{name}|>", name)
    sources = dict(s.rsplit(" ", 1) for s in reader.get_field("breastgpt.source").contents())
    for name, digest in sources.items():
        check(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, f"breastgpt.source: {name}")
    for path in [folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")]:
        check(path.name in sources, f"breastgpt.source lacks {path.name}")


def main():
    folder, path = Path(sys.argv[1]), sys.argv[2]
    config, reader = json.loads((folder / "config.json").read_text()), GGUFReader(path)
    check_tensors(folder, config, reader)
    check_keys(folder, config, reader)
    check_tokenizer_and_sources(folder, reader)
    print(f"{path}: {len(reader.tensors)} tensors and every key equal {folder}")


if __name__ == "__main__":
    main()
