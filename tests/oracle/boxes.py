"""Boxes in text: generated texts and what a regular-expression parser written from the definition alone finds in them.

    python tests/oracle/boxes.py            (from the repository root; writes tests/golden/boxes/texts.txt)

Needs Python 3.11 (standard library only). Seeded: the same bytes each time.

The definition, in words of its own:
- `<|box_start|>` ... `<|box_end|>` around (x,y) or (x,y,z): a point; around two of them, of the same length, with a comma between: a box.
- Where the stretch between two special tokens (or the text's end) is not that: lists of exactly 4 or 6 numbers in square brackets, and comma-separated
  runs of (x,y) or (x,y,z) of even length, taken two by two, all pairs of equal length inside.
- The name is what stands between `<|object_ref_start|>` and the next special token when that is `<|object_ref_end|>`; it belongs to the boxes that
  follow with only spaces, `,`, `;`, `[`, `]`, other boxes or unpaired special tokens between.
- Corners are ordered per axis (flag s), a number outside 0 ... 1000 is kept (flag o), a point has flag p.

File: per case `T` + the text with \\n, \\t, \\\\ escaped, then one line per box: `B` at length dimensions flags low... high... | name; numbers as Python repr.
"""
import random
import re
from pathlib import Path

NUM = r"-?[0-9]+(?:\.[0-9]+)?"
S = r"[ \t\n\r]*"


def nums(count):
    return (S + "," + S).join([NUM] * count)


CORNER = rf"\({S}(?:{nums(2)}|{nums(3)}){S}\)"
LIST = rf"\[{S}(?:{nums(4)}|{nums(6)}){S}\]"
RUN = rf"{CORNER}(?:{S},{S}{CORNER})*"
PLAIN = re.compile(rf"(?P<list>{LIST})|(?P<run>{RUN})")
WHOLE = re.compile(rf"{S}(?P<a>{CORNER}){S}(?:,{S}(?P<b>{CORNER}){S})?")
TOKEN = re.compile(r"<\|(object_ref_start|object_ref_end|box_start|box_end)\|>")


def values(s):
    return [float(x) + 0.0 for x in re.findall(NUM, s)]


def make(a, b, at, length, point):
    flags = "p" if point else ""
    if any(x > y for x, y in zip(a, b)):
        flags += "s"
    low, high = [min(p) for p in zip(a, b)], [max(p) for p in zip(a, b)]
    if min(low) < 0 or max(high) > 1000:
        flags += "o"
    return {"at": at, "length": length, "low": low, "high": high, "flags": flags}


def plain(text, begin, end):
    for m in PLAIN.finditer(text, begin, end):
        if m["list"]:
            v = values(m["list"])
            half = len(v) // 2
            yield make(v[:half], v[half:], m.start(), m.end() - m.start(), False)
            continue
        corners = [(values(c[0]), c.start(), c.end()) for c in re.compile(CORNER).finditer(text, m.start(), m.end())]
        pairs = list(zip(corners[::2], corners[1::2]))
        if len(corners) % 2 == 0 and all(len(a[0]) == len(b[0]) for a, b in pairs):
            for a, b in pairs:
                yield make(a[0], b[0], a[1], b[2] - a[1], False)


def find(text):
    tokens = list(TOKEN.finditer(text))
    found, names, at, skip = [], [], 0, False  # names: (end of the name's token, name)
    for i, t in enumerate(tokens):
        if skip:
            skip = False
            at = t.end()
            continue
        found += plain(text, at, t.start())
        at = t.end()
        nxt = tokens[i + 1] if i + 1 < len(tokens) else None
        if nxt is None:
            continue
        inner = text[t.end():nxt.start()]
        if (t[1], nxt[1]) == ("object_ref_start", "object_ref_end"):
            names.append((nxt.end(), inner.strip(" \t\n\r")))
            skip = True
        elif (t[1], nxt[1]) == ("box_start", "box_end") and (m := WHOLE.fullmatch(inner)):
            a = values(m["a"])
            b = values(m["b"]) if m["b"] else a
            if len(a) == len(b):
                found.append(make(a, b, t.start(), nxt.end() - t.start(), m["b"] is None))
                skip = True
    found += plain(text, at, len(text))
    found.sort(key=lambda b: b["at"])
    for n, box in enumerate(found):
        box["label"] = ""
        before = [x for x in names if x[0] <= box["at"]]
        if not before:
            continue
        gap_start, name = before[-1]
        gap = ""
        for other in found[:n]:
            if other["at"] >= gap_start:
                gap += text[gap_start:other["at"]]
                gap_start = other["at"] + other["length"]
        gap += text[gap_start:box["at"]]
        if re.fullmatch(r"[ \t\n\r,;\[\]]*", TOKEN.sub("", gap)):
            box["label"] = name
    return found


def generate(r):
    def number():
        k = r.random()
        if k < 0.75:
            return str(r.randint(0, 1000))
        return r.choice([str(r.randint(-50, 1300)), f"{r.uniform(0, 1000):.2f}", "-0", "0", "1000", "007", "5.", ".5", "1e3", "x",
                         str(10 ** r.randint(4, 14))])

    def sp():
        return r.choice(["", "", "", " ", "  ", "\n", "\t"])

    def corner(n=None):
        n = n or r.choice([2, 2, 2, 3, 3, 1, 4])
        return "(" + sp() + ("," + r.choice(["", " "])).join(sp() + number() + sp() for _ in range(n)) + ")"

    def run():
        n = r.choice([2, 3])
        return (sp() + "," + sp()).join(corner(n if r.random() < 0.93 else None) for _ in range(r.choice([1, 2, 2, 2, 2, 3, 4, 5])))

    def square():
        inner = (", " if r.random() < 0.8 else ",").join(number() for _ in range(r.choice([4, 4, 4, 6, 6, 1, 2, 3, 5, 7, 8])))
        return "[" + inner + r.choice(["]", "]", "]", "]", ")", ""])

    def tokens():
        before = r.choice(["<|box_start|>"] * 8 + ["", "<|box_end|>"]) + sp()
        inner = corner() if r.random() < 0.2 else square() if r.random() < 0.1 else run()
        return before + inner + sp() + r.choice(["<|box_end|>"] * 8 + ["", "<|box_start|>"])

    def name():
        words = ["mass", "左乳", "a lesion, upper", "calcification [1,2,3,4]", "", " cyst ", "(1,2),(3,4)", "node\nB"]
        return r.choice(["<|object_ref_start|>"] * 9 + [""]) + r.choice(words) + r.choice(["<|object_ref_end|>"] * 9 + ["<|object_ref_start|>"])

    prose = [" at ", "The finding is ", ", ", "; ", " and ", "on 2024-03-05, ", "ratio (3:4) ", "see [1, 2, 3] ", "(3,4) ", "[[", "]]", "<|im_end|>",
             "<|box", "((", "é", "\n", "bbox_2d: "]
    out = ""
    for _ in range(r.randint(1, 5)):
        k = r.random()
        if k < 0.25:
            out += r.choice(prose)
        elif k < 0.40:
            out += name()
        elif k < 0.55:
            out += name() + sp() + "".join(tokens() + r.choice(["", "", " ", ","]) for _ in range(r.randint(1, 3)))
        elif k < 0.75:
            out += tokens()
        elif k < 0.88:
            out += square()
        else:
            out += run()
    return out


def escape(s):
    return s.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def main():
    r = random.Random(20261123)
    lines, boxes = [], 0
    for _ in range(400):
        text = generate(r)
        lines.append("T" + escape(text))
        place = [0]  # bytes before each character
        for c in text:
            place.append(place[-1] + len(c.encode()))
        for b in find(text):
            boxes += 1
            at, end = place[b["at"]], place[b["at"] + b["length"]]
            numbers = " ".join(repr(v) for v in b["low"] + b["high"])
            lines.append(f"B{at} {end - at} {len(b['low'])} {b['flags'] or '-'} {numbers}|{escape(b['label'])}")
    target = Path("tests/golden/boxes/texts.txt")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    print(f"{len(lines) - boxes} texts, {boxes} boxes, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
