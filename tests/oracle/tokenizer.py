"""The small tokenizer of the tests and the goldens of the tokenizer, from the public `tokenizers` package.

    python tests/oracle/tokenizer.py small      writes tests/golden/tokenizer/small.json
    python tests/oracle/tokenizer.py goldens    writes tests/golden/tokenizer/*.golden (needs ../shared/data/tokenizer/tokenizer.json)

From the repository root. Made with Python 3.11 (its Unicode data choose the characters) and tokenizers 0.22.2. Same seed, same files.

All numbers little-endian; a hash is 64-bit FNV-1a, over the bytes of a text or over ids as int32.
"Both": Qwen3's own tokenizer (the shared one) with <|histo_pad|>, then small.json.
strings.golden     u32 count; each: u16 length, u16 repeat, bytes (the text is bytes x repeat; invalid parts of its UTF-8 stand for U+FFFD),
                   u64 hash of ids with special tokens disabled, -1, ids with special tokens, for both; u64 hash of the decoded ids of the former
first.golden       for the first 300 strings, for both: u16 count, the ids with special tokens disabled as i32
decode.golden      for both: 1000 sequences of random_ids(): u64 hash of the text with special tokens, u64 hash of the text without
codepoints.golden  for each 256 code points of CODEPOINTS: u64 hash of the ids that pairs_tokenizer() gives for contexts()
"""
import json
import os
import random
import struct
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

OUT = "tests/golden/tokenizer/"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (
    "endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end "
    "vision_start vision_end vision_pad image_pad video_pad"
).split()
PLAIN = (
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|> "
    "<tool_response> </tool_response> <think> </think>"
).split()
ADDED = [(f"<|{name}|>", True) for name in SPECIAL] + [(text, False) for text in PLAIN] + [("<|histo_pad|>", True)]

# Our own words; long enough that merges of several levels and of several scripts come about.
TEXT = """
The mammogram shows a spiculated mass in the upper outer quadrant of the left breast. The mass is irregular in shape and high in density.
There are grouped microcalcifications with a fine linear branching pattern. No axillary lymph nodes are enlarged.
The ultrasound shows a hypoechoic mass with an irregular margin and posterior acoustic shadowing. It is taller than wide.
The lesion is not parallel to the skin. BI-RADS category 4C: a biopsy is recommended. The right breast is unremarkable.
MRI of the breast: a mass with rim enhancement and a washout curve in the late phase. Non-mass enhancement with a segmental distribution.
The tumour measures 23 mm by 17 mm by 15 mm. It's close to the chest wall but doesn't reach the pectoral muscle. We're unsure whether the skin's involved.
Histopathology: invasive ductal carcinoma of no special type, grade 2. The tubules are poorly formed; nuclear pleomorphism is moderate;
mitotic figures are few. Ductal carcinoma in situ with comedo necrosis lies beside the invasive tumour. Lobular carcinoma in situ is not seen.
Oestrogen receptor positive, progesterone receptor positive, HER2 negative, Ki-67 low. The margins are free of tumour. One of three sentinel nodes
holds a metastasis. The patient'll receive endocrine therapy, and radiotherapy after breast conserving surgery. Chemotherapy isn't needed.
Describe the image. Which category do you assign? Is the lesion benign or malignant? Where is the mass? What is the breast density?
Answer: the lesion is benign. Answer: the lesion is malignant. Answer: a fibroadenoma, oval, circumscribed, homogeneous. Answer: a simple cyst.
Screening: no finding. Diagnosis: further imaging and a biopsy. Treatment planning: surgery, then radiotherapy. I'd follow up in 6 months; they've agreed; I'm sure.
    for slide in slides:
        tiles = read(slide)
        print(f"{slide}: {len(tiles)} tiles")
{"image": "left.png", "box": [[120, 340, 560, 780]], "label": "mass", "score": 0.97}
Die Brust zeigt eine Verdichtung im äußeren oberen Quadranten. Größe 23 mm, unscharf begrenzt. Für die Abklärung wird eine Biopsie empfohlen.
Le sein gauche présente une masse irrégulière. Les ganglions axillaires ne sont pas élargis. La lésion est bénigne.
La mama derecha muestra una lesión ovalada. Se recomienda una biopsia en el cuadrante superior.
Молочная железа: образование неправильной формы. Молочная железа без изменений.
乳腺超声显示低回声肿块。乳腺癌。乳腺肿块边界不清。 乳房の超音波検査で低エコー腫瘤を認める。乳房の腫瘤。 유방 초음파 검사에서 종괴가 보입니다. 유방 종괴.
الثدي الأيسر: كتلة غير منتظمة. الثدي الأيمن طبيعي. הגוש בשד השמאלי. स्तन में गांठ। स्तन की जांच।
""" + "".join(f"{name}: {text}.\n" * 3 for name, text in [
    ("Mass", "irregular, spiculated, hypoechoic"), ("Calcifications", "grouped, pleomorphic, fine linear branching"),
    ("Architecture", "distortion in the outer quadrant"), ("Skin", "no thickening, no retraction"), ("Nodes", "no axillary lymphadenopathy")])


def with_added(tok, added):
    """The tokens of `added` [(text, special)] behind the vocabulary, each with the next id."""
    for text, special in added:
        if special:
            tok.add_special_tokens([text])
        else:
            tok.add_tokens([tokenizers.AddedToken(text, special=False, normalized=False)])
    return tok


def small():
    """694 byte-level tokens (all pairs of TEXT that occur twice) and the 27 added ones, configured as Qwen3's tokenizer.json and written the same way."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    level = dict(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), "isolated"), pre_tokenizers.ByteLevel(**level)])
    tok.decoder = decoders.ByteLevel(**level)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=1000, min_frequency=2, initial_alphabet=alphabet, show_progress=False))
    with_added(tok, ADDED)
    data = json.loads(tok.to_str())
    # What the real file has and the package does not write by itself.
    data["post_processor"] = data["decoder"] = {"type": "ByteLevel", **level}
    data["model"].update(continuing_subword_prefix="", end_of_word_suffix="")
    with open(OUT + "small.json", "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, indent=0, separators=(",", ":"))
        f.write("\n")


def fnv(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def pack_ids(ids):
    return struct.pack(f"<{len(ids)}i", *ids)


# ---- texts ----

SPACES = " \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
WORDS = TEXT.split()
CODE = ["for (int i = 0; i < n; ++i) {", "  return a[i] * b;", "}", "\t\tif x != None:", "#include <stdio.h>", "SELECT * FROM t WHERE id='7';",
        "\\frac{1}{2}",
        "a->b::c", "x=>y", "https://example.org/a?b=1&c=%20", "user@example.org", "<div class=\"x\">", "0xFF_FFu", "1e-5", "-3.14", "$PATH:~/bin",
        "//", "/* */", "```py"]
EMOJI = ["\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F1E9\U0001F1EA", "\U0001F44D\U0001F3FD", "\u2764\ufe0f",
         "1\ufe0f\u20e3", "\U0001F3F4\U000E0067\U000E0062\U000E007F",
         "\U0001FA7A", "\u263a", "\U0001F9EC"]
CONTRACTED = [q + c for q in ("'", "\u2019", "''", "\uff07") for c in ("s", "S", "t", "T", "re", "RE", "Re", "rE", "ve", "VE", "vE", "m", "M", "ll", "LL", "lL", "d",
              "D", "\u017f", "l\u017f", "\u212a", "r", "v", "l", "x", "\u00df", "\u1e9e", "e\u0301", "\u24d4", "\ufb06")]
ASSIGNED = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
NUMBERS = [c for c in ASSIGNED if unicodedata.category(chr(c))[0] == "N"]
MARKS = [c for c in ASSIGNED if unicodedata.combining(chr(c))]
COMPOSED = [c for c in ASSIGNED if unicodedata.normalize("NFD", chr(c)) != chr(c) and not 0xAC00 <= c <= 0xD7A3]
PARTS = sorted({ord(k) for c in COMPOSED for k in unicodedata.normalize("NFD", chr(c))})
JAMO = [*range(0x1100, 0x1200), *range(0xA960, 0xA97D), *range(0xD7B0, 0xD7FC), 0xAC00, 0xAC01, 0xAC1C, 0xD788, 0xD7A3]
JAMO += [0x1100, 0x1161, 0x11A7, 0x11A8] * 20


def script_text(rng):
    """Words from one neighbourhood of Unicode."""
    base = rng.choice(ASSIGNED) & ~0x3F
    near = [c for c in range(base, base + 0x40) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    return " ".join("".join(chr(rng.choice(near)) for _ in range(rng.randint(1, 5))) for _ in range(rng.randint(1, 3)))


def pick(rng, codes, low, high):
    return "".join(chr(rng.choice(codes)) for _ in range(rng.randint(low, high)))


def random_text(rng):
    kind = rng.randrange(15)
    if kind == 0:
        return script_text(rng)
    if kind == 1:
        return pick(rng, ASSIGNED, 1, 8)
    if kind == 2:
        start = rng.randrange(len(TEXT))
        return TEXT[start:start + rng.randint(1, 90)]
    if kind == 3:
        return "".join(rng.choice(WORDS) + rng.choice([" ", "  ", "\n", "", ", ", "\u3000"]) for _ in range(rng.randint(1, 8)))
    if kind == 4:
        return rng.choice(["", " ", "\n"]).join(rng.choice(CODE) for _ in range(rng.randint(1, 4)))
    if kind == 5:
        return "".join(rng.choice(EMOJI + [" ", "a", "!"]) for _ in range(rng.randint(1, 6)))
    if kind == 6:
        return pick(rng, NUMBERS, 1, 6) + rng.choice(["", " ", "a", ".", "\n"]) + pick(rng, NUMBERS, 0, 4)
    if kind == 7:
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 7))) + rng.choice(["", "a", "1", "!", "\u4e2d", "'s"]) + "".join(
            rng.choice(" \n\r\t") for _ in range(rng.randint(0, 4)))
    if kind == 8:
        return "".join(rng.choice(["", " ", "I", "we", "1", "!", "\u00e9", "\n"]) + rng.choice(CONTRACTED) + rng.choice(["", "s", " ", "x", "1", "\u0301"])
                       for _ in range(rng.randint(1, 5)))
    if kind == 9:
        form = rng.choice(["NFC", "NFD", "NFKC", "NFKD"])
        return unicodedata.normalize(form, rng.choice([pick(rng, COMPOSED, 1, 6), script_text(rng)]))
    if kind == 10:
        return "".join(rng.choice(["a", "e", "", "A", " "]) + pick(rng, rng.choice([MARKS, PARTS]), 1, 5) for _ in range(rng.randint(1, 3)))
    if kind == 11:
        return pick(rng, JAMO, 1, 8)
    if kind == 12:
        return "".join(chr(rng.choice([*range(32), 127, *range(128, 160), 97, 32])) for _ in range(rng.randint(1, 12)))
    if kind == 13:
        pieces = [text for text, _ in ADDED] + ["<", "<|", "|>", "<|im_start", "think>", "<tool_", "<<", " ", "a", "\n",
                                                      "e", "\u0301", "\u0323", "user"]
        return "".join(rng.choice(pieces) for _ in range(rng.randint(1, 6)))
    return "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randint(1, 40)))


def damaged(rng):
    """UTF-8 with something wrong: bytes cut out, put in, changed, or nothing but noise."""
    data = bytearray(random_text(rng).encode()[:40])
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        noise = rng.choice([b"\x80", b"\xc0\x80", b"\xe0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98",
                            b"\xe2\x82", b"\xff", b"\xf8", b"\xc3", b"\xef\xbf",
                            bytes([rng.randrange(256)]),
                            bytes(rng.randrange(128, 256) for _ in range(3))])
        data[at:at + rng.randint(0, 1)] = noise
    return bytes(data)


def texts():
    """[(bytes, repeat)] in a fixed order."""
    rng = random.Random(20240607)
    out = [(b"", 1)]
    out += [(text.encode(), 1) for text in (TEXT[i:i + 700] for i in range(0, len(TEXT), 700))]
    for text, count in [("a", 60000), (" ", 60000), ("\n", 30000), ("!", 30000), ("1", 20000), ("ab ", 9000), ("\u00e9", 9000),
                        ("e\u0301", 9000), ("a\u0301\u0323", 5000),
                        ("\u0301\u0323", 5000), ("\u4e2d\u6587", 5000), ("\U0001F600", 5000), ("<think>", 3000), ("<|im_end|>", 3000),
                        (" \n", 9000), ("\x00", 5000),
                        ("\u1100\u1161\u11a8", 4000), ("the mass", 5000), ("'s", 5000), ("\u3000", 5000)]:
        out += [(text.encode(), n) for n in (2, 3, 17, 255, 256, count)]
    # Every character with a decomposition, as itself and decomposed.
    for i in range(0, len(COMPOSED), 6):
        group = COMPOSED[i:i + 6]
        out.append(("a".join(unicodedata.normalize("NFD", chr(c)) for c in group).encode(), 1))
    seen = set(out)
    while len(out) < 21000:
        data = damaged(rng) if len(out) % 10 == 0 else random_text(rng).encode()
        if (data, 1) not in seen and len(data) <= 120:
            seen.add((data, 1))
            out.append((data, 1))
    rest = out[1:]
    rng.shuffle(rest)
    return out[:1] + rest


# ---- random ids, and code points one by one ----

def splitmix(state):
    z = state = (state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ z >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return state, z ^ z >> 31


def random_ids(size):
    """1000 sequences of up to 16 ids: half of them single bytes (ids below 256), an eighth added tokens (the last 27)."""
    state = size
    for _ in range(1000):
        state, r = splitmix(state)
        ids = []
        for _ in range(r % 17):
            state, r = splitmix(state)
            kind, value = r & 7, r >> 3
            ids.append(value % 256 if kind < 4 else size - 27 + value % 27 if kind == 4 else value % size)
        yield ids


CODEPOINTS = [*range(0, 0x40000, 256), *range(0xE0000, 0xE1000, 256)]


def pairs_tokenizer():
    """Merges only a, space and ' with a byte above 127, in that order, and such a byte with a: the ids then show where the pieces end."""
    byte_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    printable = printable_bytes()
    merges = [(printable[ord(a)], printable[b]) for a in "a '" for b in range(128, 256)]
    merges += [(printable[b], printable[ord("a")]) for b in range(128, 256)]
    vocab = {char: byte for byte, char in enumerate(printable)}
    for a, b in merges:
        vocab[a + b] = len(vocab)
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"), byte_of])
    return tok


def printable_bytes():
    """Byte -> its printable character."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in own else chr(next(others)) for b in range(256)]


def contexts(start):
    """Each code point beside letters, spaces, apostrophes, a vowel and a final jamo, and marks of low and high combining class."""
    codes = [c for c in range(start, start + 256) if not 0xD800 <= c <= 0xDFFF]
    return "".join(f"a{c}a  {c} '{c}a'{c}a'{c}\u0301q\u0323{c}\u0334q\u0345{c}\u11a8\n" for c in map(chr, codes))


def goldens():
    with open("../shared/data/tokenizer/tokenizer.json", encoding="utf-8") as f:
        real = with_added(Tokenizer.from_str(f.read()), ADDED[-1:])
    both = [real, Tokenizer.from_file(OUT + "small.json")]
    assert [t.get_vocab_size() for t in both] == [151670, 721]
    items = texts()
    strings = [(data * repeat).decode("utf-8", errors="replace") for data, repeat in items]
    hashes, first, decoded = [], [], []
    for tok in both:
        tok.encode_special_tokens = True
        plain = [e.ids for e in tok.encode_batch(strings, add_special_tokens=False)]
        tok.encode_special_tokens = False
        special = [e.ids for e in tok.encode_batch(strings, add_special_tokens=False)]
        hashes.append([fnv(pack_ids([*a, -1, *b])) for a, b in zip(plain, special)])
        first.append(plain[:300])
        decoded.append([tok.decode(ids, skip_special_tokens=False) for ids in plain])
    assert decoded[0] == decoded[1]
    for text, back in zip(strings, decoded[0]):
        assert "<" in text or back == both[0].normalizer.normalize_str(text)
    with open(OUT + "strings.golden", "wb") as f:
        f.write(struct.pack("<I", len(items)))
        for (data, repeat), a, b, back in zip(items, *hashes, decoded[0]):
            f.write(struct.pack("<HH", len(data), repeat) + data + struct.pack("<QQQ", a, b, fnv(back.encode())))
    with open(OUT + "first.golden", "wb") as f:
        for pair in zip(*first):
            for ids in pair:
                f.write(struct.pack("<H", len(ids)) + pack_ids(ids))
    with open(OUT + "decode.golden", "wb") as f:
        for tok in both:
            for ids in random_ids(tok.get_vocab_size()):
                for skip in (False, True):
                    f.write(struct.pack("<Q", fnv(tok.decode(ids, skip_special_tokens=skip).encode())))
    pairs = pairs_tokenizer()
    with open(OUT + "codepoints.golden", "wb") as f:
        for start in CODEPOINTS:
            f.write(struct.pack("<Q", fnv(pack_ids(pairs.encode(contexts(start)).ids))))
    print({name: os.path.getsize(OUT + name) for name in sorted(os.listdir(OUT))})


if __name__ == "__main__":
    {"small": small, "goldens": goldens}[sys.argv[1]]()
