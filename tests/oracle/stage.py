"""What `breastgpt-stage build` must write: a renderer of findings and task templates, written from the definition alone.

    python tests/oracle/stage.py            (from the repository root; checks tools/templates, prints their counts, writes tests/golden/stage)
    python tests/oracle/stage.py findings.csv TEMPLATES... -o out.jsonl [--root DIR] [--roles DIR] [--seed N] [--per-template N]
                                 [--stage S] [--modality M] [--task T]

Needs Python 3.11 (standard library only). The same bytes each time; the C++ tool must write equal JSON values, line by line.

The definition, in words of its own:
- Rows in the order of the csv; for each row the templates in the order of the files given (a folder stands for its *.json, sorted by name), inside
  a file in its order. A column that the csv lacks is empty everywhere.
- A template applies to a row when the modality is equal, every `when` column has a listed value ("*": any but empty), every media column is filled,
  and so is every column that a wording of the question (any of them) or a kept part of the answer names. Parts are joined with nothing between.
- Wording: first 8 bytes of SHA-256("{seed}\\n{case}\\n{template}\\nask"), big end first, modulo the number of wordings.
- --per-template N keeps, for each template, the N applicable rows with the smallest SHA-256("{seed}\\n{case}\\n{template}\\npick").
- A cell of media may hold several paths with `;` between; each gives a marker before the question. `image` and `slide` are images, `volume` videos.
- A box is 4 or 6 numbers with spaces between; it lies on the template's first medium; `image_id` counts all images, then all videos.
- `vendor`, `density` and `options` are in `meta` where they are known.
The goldens: findings.csv and extra.json (what our own templates do not use) are made here; commands.txt has one line per expected file, its name
and the arguments that give it.
"""
import argparse
import csv
import hashlib
import io
import itertools
import json
import re
import sys
from collections import Counter
from pathlib import Path

PLACE = re.compile(r"\{\{|\}\}|\{(?:(box):)?([^{}|]+)(?:\|([^{}]+))?\}|[{}]")
MARKER = {"image": "<image>", "slide": "<image>", "volume": "<video>"}
TASKS = ["closed_vqa", "open_vqa", "grounding", "grounded_caption", "caption", "report"]


def digest(seed, case, template, what):
    return hashlib.sha256(f"{seed}\n{case}\n{template}\n{what}".encode()).hexdigest()


def number(text):
    v = float(text)
    return int(v) if v == int(v) else v


def holds(when, row):
    return all((v := row.get(c, "")) in allowed or ("*" in allowed and v != "") for c, allowed in when.items())


def columns(text):
    return [m[2] for m in PLACE.finditer(text) if m[2]]


def fill(text, row, template, words, boxes):
    """`text` with its placeholders filled; each box adds (name, numbers) to `boxes`."""
    def one(m):
        kind, column, table = m[1], m[2], m[3]
        if column is None:
            if m[0] not in ("{{", "}}"):
                raise SystemExit(f"template {template['id']}: a lone {m[0]}")
            return m[0][0]
        value = row[column]
        if kind:
            numbers = [number(x) for x in value.split()]
            if len(numbers) not in (4, 6):
                raise SystemExit(f"case {row['case']}: column {column} holds no box")
            boxes.append((template["ref"][column], numbers))
            return "<ref-object><bbox>"
        return words[table][value] if table else value
    return PLACE.sub(one, text)


def applies(template, row):
    """The kept parts of the answer, joined, or None where the template does not apply."""
    if template["modality"] != row["modality"] or not holds(template.get("when", {}), row):
        return None
    answer = template["answer"]
    parts = [p if isinstance(p, str) else p["text"] for p in ([answer] if isinstance(answer, str) else answer)
             if isinstance(p, str) or holds(p["when"], row)]
    used = template["media"] + [c for text in parts + template["ask"] for c in columns(text)]
    return "".join(parts) if all(row.get(c, "") for c in used) else None


def render(template, words, row, answer, options):
    asked = template["ask"][int(digest(options.seed, row["case"], template["id"], "ask")[:16], 16) % len(template["ask"])]
    root = options.root.rstrip("/") + "/" if options.root else ""
    images, videos, markers, first = [], [], "", None
    for column in template["media"]:
        for path in row[column].split(";"):
            kind = videos if column == "volume" else images
            first = first or (kind, len(kind))
            kind.append(root + path.strip())
            markers += MARKER[column]
    boxes = []
    user = markers + fill(asked, row, template, words, boxes)
    told = fill(answer, row, template, words, boxes)
    if not told or told not in template.get("options", [told]):
        raise SystemExit(f"case {row['case']}, template {template['id']}: no answer, or none of the options")
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": told}]
    if options.roles:
        messages.insert(0, {"role": "system", "content": Path(options.roles, template["stage"] + ".txt").read_text().strip()})
    line = {"messages": messages, "images": images, "videos": videos}
    if boxes:
        at = first[1] + (len(images) if first[0] is videos else 0)
        line["objects"] = {"ref": [b[0] for b in boxes], "bbox": [b[1] for b in boxes], "bbox_type": "real", "image_id": [at] * len(boxes)}
    meta = {"id": f"{row['case']}/{template['id']}", "case": row["case"], "template": template["id"]}
    meta |= {k: template[k] for k in ("stage", "modality", "task")}
    meta |= {"options": template["options"]} if "options" in template else {}
    line["meta"] = meta | {k: row[k] for k in ("vendor", "density") if row.get(k)}
    return line


def read_templates(paths):
    files = [f for p in map(Path, paths) for f in (sorted(p.glob("*.json")) if p.is_dir() else [p])]
    return [(t, d.get("words", {})) for f in files for d in [json.loads(f.read_text())] for t in d["templates"]]


def build(options):
    with open(options.findings, newline="", encoding="utf-8-sig") as f:
        rows = list(csv.DictReader(f))
    templates = [(t, w) for t, w in read_templates(options.templates)
                 if all(getattr(options, k) in (None, t[k]) for k in ("stage", "modality", "task"))]
    found = [(row, t, w, a) for row in rows for t, w in templates if (a := applies(t, row)) is not None]
    if options.per_template:
        kept = set()
        for t, _ in templates:
            order = sorted((digest(options.seed, row["case"], t["id"], "pick"), row["case"]) for row, u, _, _ in found if u is t)
            kept |= {(case, t["id"]) for _, case in order[:options.per_template]}
        found = [x for x in found if (x[0]["case"], x[1]["id"]) in kept]
    lines = [render(t, w, row, a, options) for row, t, w, a in found]
    Path(options.out).write_text("".join(json.dumps(x, ensure_ascii=False, separators=(",", ":")) + "\n" for x in lines))
    return lines


# ------------------------------------------------------------------------------------------------------- the check of our own templates
YES, SIDES, ASSESS, BIRADS = ["yes", "no"], ["left", "right"], ["negative", "benign", "malignant"], list("12345")
SHAPES = ["oval", "round", "irregular"]
BOX2, BOX3 = ["3 4 50 60"], ["3 4 5 50 60 7"]
SCHEMA = {  # modality → column → what it may hold; "" where a finished report may lack it (a round mass has no orientation)
    "ultrasound": {"mass": YES, "shape": SHAPES, "margin": ["circumscribed", "indistinct", "spiculated"],
                   "echo": ["anechoic", "hypoechoic", "hyperechoic"],
                   "posterior": ["none", "enhancement", "shadowing"], "orientation": ["parallel", "vertical", ""], "size_mm": ["12"],
                   "mass_box": BOX2, "birads": BIRADS, "assessment": ASSESS},
    "mammography": {"laterality": SIDES, "density": list("abcd"), "mass": YES, "shape": SHAPES, "margin": ["circumscribed", "spiculated"],
                    "quadrant": ["upper", "lower"], "size_mm": ["12"], "mass_box": BOX2, "calcifications": YES, "calc_box": BOX2,
                    "birads": BIRADS, "assessment": ASSESS},
    "ct": {"mass": YES, "side": SIDES, "size_mm": ["12"], "enhancement": ["mild", "strong"], "mass_box": BOX3, "node": YES, "assessment": ASSESS},
    "mri": {"mass": YES, "side": SIDES, "size_mm": ["12"], "enhancement": ["homogeneous", "heterogeneous", "rim"],
            "background": ["minimal", "marked"], "focality": ["unifocal", "multifocal"], "mass_box": BOX3, "birads": BIRADS, "assessment": ASSESS,
            "surgery": ["breast-conserving", "mastectomy"]},
    "pathology": {"tumour": YES, "tumour_percent": [str(p) for p in range(0, 100, 10)], "grade": list("123"), "subtype": ["ductal", "lobular"],
                  "til": ["low", "high"], "necrosis": YES, "therapy": ["endocrine", "chemotherapy", "neoadjuvant"],
                  "assessment": ["benign", "malignant"]}}
MEDIA = {"ultrasound": ["image"], "mammography": ["image"], "ct": ["volume"], "mri": ["volume"], "pathology": ["slide"]}
LONGEST = {"closed_vqa": 4, "open_vqa": 20, "grounding": 1, "grounded_caption": 25, "caption": 35, "report": 60}  # words of an answer


def every_answer(t, words, also=()):
    """All answers that template t gives when its columns hold what the schema says, or `also`."""
    schema = SCHEMA[t["modality"]]
    parts = t["answer"] if isinstance(t["answer"], list) else [t["answer"]]
    used = set(t.get("when", {})) | {c for p in parts if isinstance(p, dict) for c in p["when"]}
    used |= {c for p in parts for c in columns(p if isinstance(p, str) else p["text"])} | {c for a in t["ask"] for c in columns(a)}
    unknown = used - set(schema)
    assert not unknown, (t["id"], unknown)
    for c, allowed in [*t.get("when", {}).items(), *(w for p in parts if isinstance(p, dict) for w in p["when"].items())]:
        assert set(allowed) <= {"*", *schema[c]}, (t["id"], c, allowed)
    used = sorted(used)
    out = set()
    for values in itertools.product(*([*schema[c], *also] for c in used)):
        row = {"case": "x", "modality": t["modality"], **dict(zip(used, values)), **dict.fromkeys(t["media"], "p")}
        if (answer := applies(t, row)) is not None:
            out.add(fill(answer, row, t, words, []))
    return out


def check(templates):
    ids = Counter(t["id"] for t, _ in templates)
    assert max(ids.values()) == 1, [i for i, n in ids.items() if n > 1]
    vocabulary, questions = set(), {}
    for t, words in templates:
        who = t["id"]
        assert set(t) <= {"id", "stage", "modality", "task", "media", "when", "ask", "options", "answer", "ref"}, who
        assert t["task"] in TASKS and t["stage"] in ("screening", "diagnosis", "treatment") and t["media"] == MEDIA[t["modality"]], who
        assert 1 <= len(t["ask"]) <= 3 and all(a == a.strip() and a[-1] in ".?" for a in t["ask"]), who
        answers = every_answer(t, words)
        assert answers and all(a == a.strip() and "  " not in a and len(a.split()) <= LONGEST[t["task"]] for a in answers), (who, answers)
        assert every_answer(t, words, [""]) == answers, f"{who}: an empty column leaves out a part; add it to \"when\""
        assert ("options" in t) == (t["task"] == "closed_vqa"), who
        if "options" in t:
            assert len(t["options"]) >= 2 and set(t["options"]) == answers, (who, answers)
        text = json.dumps(t["answer"])
        assert ("{box:" in text) == (t["task"] in ("grounding", "grounded_caption")), who
        if t["task"] == "grounding":
            assert answers == {"<ref-object><bbox>"}, who
        for asked in t["ask"]:
            assert questions.setdefault((t["modality"], asked), who) == who, (asked, who)
            vocabulary |= set(re.findall(r"[A-Za-z-]+", asked))
        vocabulary |= {w for a in answers for w in re.findall(r"[A-Za-z-]+", a)}
    for keys in (["stage"], ["modality"], ["task"], ["stage", "modality"], ["modality", "task"]):
        counts = Counter(" ".join(t[k] for k in keys) for t, _ in templates)
        print(f"{', '.join(keys)}: {', '.join(f'{k} {n}' for k, n in counts.items())}")
    print(f"{len(templates)} templates, {sum(len(t['ask']) for t, _ in templates)} wordings, {len(vocabulary)} words")


# ------------------------------------------------------------------------------------------------------------------------------ goldens
GOLDEN = Path("tests/golden/stage")
MEDIUM = {"ultrasound": ("image", "png"), "mammography": ("image", "png"), "ct": ("volume", "nii.gz"), "mri": ("volume", "nii.gz"),
          "pathology": ("slide", "h5")}
ROWS = """
ultrasound A no - - - - - - - 1 negative
ultrasound B yes oval circumscribed anechoic enhancement parallel 14 40,30,80,70 2 benign
ultrasound C yes round circumscribed hypoechoic none - 9 12,20,48,56 3 benign
ultrasound - yes irregular indistinct hypoechoic shadowing vertical 21 60.5,40.25,99,101.75 4 malignant
ultrasound A yes irregular spiculated hyperechoic shadowing vertical 17 0,0,68,60 5 malignant
ultrasound B yes oval circumscribed - none parallel - 5,6,70,80 3 benign
ultrasound C no - - - - - - - - negative
ultrasound A yes round spiculated hypoechoic enhancement - 11 100,50,144,94 5 malignant
mammography A left a no - - - - - no - 1 negative
mammography B right b yes oval circumscribed upper 15 20,30,50,52 no - 2 benign
mammography C left c yes irregular spiculated lower 22 60,90,104,130 yes 64,100,90,120 5 malignant
mammography A right d no - - - - - yes 31,41,59,65 4 malignant
mammography B left - yes round circumscribed upper 10 70,20,90,40 no - 2 benign
mammography - right b no - - - - - - - 1 negative
mammography C left d yes irregular circumscribed lower 18 44,88,80,110 no - 3 benign
ct A no - - - - no negative
ct B yes left 24 mild 10,20,3,22,30,8 no benign
ct C yes right 40 strong 60,24,2,80,42,9 yes malignant
ct A no - - - - yes malignant
ct B yes left 31 strong 12.5,22,3,28,36,7 no malignant
ct - yes right - mild - no benign
mri A no - - - minimal - - 1 negative -
mri B yes left 30 homogeneous minimal unifocal 10,50,2,25,64,7 3 benign breast-conserving
mri C yes right 48 heterogeneous marked unifocal 55,52,3,79,74,8 4 malignant mastectomy
mri A yes right 26 rim marked multifocal 60,48,4,73,60,9 5 malignant mastectomy
mri B yes left 28 rim minimal unifocal 20,40,1,34,52,6 5 malignant breast-conserving
mri C yes left 24 heterogeneous marked unifocal 14,44,2,26,55,6 4 malignant -
mri A no - - - marked - - 1 negative -
pathology A no 0 - - - no - benign
pathology B yes 20 1 ductal low no endocrine malignant
pathology C yes 50 2 lobular low yes chemotherapy malignant
pathology A yes 90 3 ductal high yes neoadjuvant malignant
pathology B yes 40 3 lobular - no chemotherapy malignant
pathology - no 0 - - - no - benign
"""
EXTRA = {"words": {"Sure": {"1": "surely \u201cfine\u201d", "2": "fine"}, "any": {"left": "L", "right": "R"}},
         "templates": [
    {"id": "x.comment", "stage": "diagnosis", "modality": "ultrasound", "task": "open_vqa", "media": ["image"], "when": {"comment": ["*"]},
     "ask": ["Braces {{ and }} in {case}?"],
     "answer": ["{{{vendor}}} says: ", {"when": {"mass": ["yes"], "birads": ["2", "3"]}, "text": "{birads}, "},
                {"when": {"mass": ["no"]}, "text": "none, "}, "{comment}"]},
    {"id": "x.asked-box", "stage": "screening", "modality": "mammography", "task": "grounded_caption", "media": ["image"],
     "ask": ["Is {box:mass_box} in the {laterality|any} breast?", "What is {box:mass_box}?"],
     "answer": [{"when": {"calcifications": ["yes"]}, "text": "{box:calc_box} and "}, "{box:mass_box}"],
     "ref": {"mass_box": "a mass", "calc_box": "calcifications"}},
    {"id": "x.two-media", "stage": "treatment", "modality": "mri", "task": "grounded_caption", "media": ["volume", "image"],
     "ask": ["Compare.", "Compare both.", "Compare volume and picture."], "answer": "{box:mass_box}", "ref": {"mass_box": "mass"}},
    {"id": "x.picture-first", "stage": "treatment", "modality": "mri", "task": "closed_vqa", "media": ["image", "slide", "volume"],
     "when": {"mass": ["yes", "*"]}, "ask": ["Mass?"], "options": ["yes", "no"], "answer": "{mass}"},
    {"id": "x.other-modality", "stage": "screening", "modality": "thermography", "task": "caption", "media": ["image"], "ask": ["Describe."],
     "answer": "{Reader's note|Sure}"}]}
COMMANDS = {
    "expected-own.jsonl": "tools/templates --per-template 2 --roles tools/templates/roles",
    "expected-extra.jsonl": "tests/golden/stage/extra.json tools/templates/treatment-mri.json --root /data/breast --seed 7",
    "expected-screening.jsonl": "tools/templates --stage screening --modality ct --root ct/ --seed 18446744073709",
    "expected-grounding.jsonl": "tools/templates/diagnosis-mri.json tools/templates/diagnosis-ultrasound.json --task grounding "
                                "--per-template 1 --seed 3",
}


def findings():
    """A table of every column, with what RFC 4180 allows: quotes, commas and line ends in fields, both line ends, an empty line."""
    order = ["case", "modality", "image", "volume", "slide", "vendor", "comment", "Reader's note"]
    order += dict.fromkeys(c for columns_ in SCHEMA.values() for c in columns_)
    rows = []
    for number, line in enumerate(ROWS.split("\n")[1:-1], 1):
        modality, vendor, *values = ["" if v == "-" else v.replace(",", " ") for v in line.split()]
        assert len(values) == len(SCHEMA[modality]), line
        column, ending = MEDIUM[modality]
        rows.append({"case": f"{modality[:2]}-{number:03}", "modality": modality, "vendor": vendor, column: f"{modality}/{number:03}.{ending}"}
                    | dict(zip(SCHEMA[modality], values)))
    rows[1] |= {"image": "ultrasound/2 left, upper.png; ultrasound/2b.png", "comment": 'quoted "twice", with a comma'}
    rows[2] |= {"case": "us-\u00e9\u4e73", "image": "ultrasound/\u00e9.png", "comment": "two\nlines\r\nand a third; {mass}"}
    rows[6] |= {"comment": " spaces stay "}
    rows[10] |= {"image": "mammography/cc.png;mammography/mlo.png"}
    rows[17] |= {"volume": ""}
    rows[22] |= {"image": "mri/23 a.png;mri/23 b.png ", "slide": "slides/23.h5"}
    rows[23] |= {"volume": "mri/024 t1.nii.gz;mri/024 t2.nii.gz", "image": "mri/24.png"}
    rows.append({"case": "thermo 1", "modality": "thermography", "image": "t/1.png", "vendor": "D", "Reader's note": "1"})
    rows.append({"case": "none", "modality": "tomosynthesis", "image": "t/2.png"})
    text = io.StringIO(newline="")
    out = csv.DictWriter(text, order, restval="", lineterminator="\n")
    out.writeheader()
    out.writerows(rows[:20])
    text.write("\n")
    csv.DictWriter(text, order, restval="", lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(rows[20:])
    return text.getvalue()


def arguments(words=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("findings")
    parser.add_argument("templates", nargs="+")
    parser.add_argument("-o", dest="out", required=True)
    for name in ("--root", "--roles", "--stage", "--modality", "--task"):
        parser.add_argument(name)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-template", type=int)
    return parser.parse_intermixed_args(words)


def main():
    if len(sys.argv) > 1:
        build(arguments())
        return
    check(read_templates(["tools/templates"]))
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "findings.csv").write_text(findings(), encoding="utf-8", newline="")
    (GOLDEN / "extra.json").write_text(json.dumps(EXTRA, indent=1) + "\n")
    (GOLDEN / "commands.txt").write_text("".join(f"{name} {words}\n" for name, words in COMMANDS.items()))
    for name, words in COMMANDS.items():
        lines = build(arguments([str(GOLDEN / "findings.csv"), *words.split(), "-o", str(GOLDEN / name)]))
        print(f"{name}: {len(lines)} items")


if __name__ == "__main__":
    main()
