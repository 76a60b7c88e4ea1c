"""The demo model's tokenizer: a small byte-level BPE in the published form (Qwen's pattern, NFC, added tokens at the end), from the text of benchmark files.

    python weights_convert/demo/make_tokenizer.py OUT/tokenizer.json BENCH.jsonl...
"""
import json
import sys

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ("endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end vision_start vision_end vision_pad image_pad "
           "video_pad histo_pad").split()
SIZE = 2048


def texts(paths):
    seen = set()
    for path in paths:
        with open(path, encoding="utf-8") as f:
            for line in f:
                for message in json.loads(line)["messages"]:
                    if message["content"] not in seen:
                        seen.add(message["content"])
                        yield message["content"]


def main():
    out, *paths = sys.argv[1:]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=SIZE - len(SPECIAL), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(list(texts(paths)) + ["system\n", "user\n", "assistant\n"] * 1000, trainer)
    tokenizer.add_special_tokens([f"<|{name}|>" for name in SPECIAL])
    with open(out, "w", encoding="utf-8") as f:
        json.dump(json.loads(tokenizer.to_str()), f, ensure_ascii=True, indent=None, separators=(",", ":"))
    print(tokenizer.get_vocab_size(), "tokens")


if __name__ == "__main__":
    main()
