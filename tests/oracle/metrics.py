"""Scores of a benchmark by public implementations: generated texts, boxes and probabilities, and what each should give.

    python tests/oracle/metrics.py            (from the repository root; writes tests/golden/metrics/*.json)

Needs Python 3.11, rouge-score 0.1.2, sacrebleu 2.5.1, transformers 4.57.1 (its SQuAD metrics), scikit-learn 1.7.2, statsmodels 0.14.5, scipy 1.17.1,
numpy 2.4.6. Seeded: the same bytes each time.

- texts.json: pairs; ROUGE-L (rouge-score, no stemmer), sentence BLEU (sacrebleu, effective order), token F1 and exact match (SQuAD, from transformers);
  corpus BLEU (sacrebleu) of stretches of the pairs. Left out: Σ, whose lower case depends on its place in the word.
- shares.json: k, n, Wilson bounds (statsmodels).
- certainty.json: option probabilities and the correct option; bins (scikit-learn's calibration_curve, with counts), ECE, Brier score, accuracy over
  coverage and AURC. With equal margins these are means over all orders, tried one by one.
- boxes.json: IoU by counting unit cells of integer boxes (a definition, no formula), the best pairing (scipy), medians (numpy).
- closed.json: closed answers, made from the correct or a wrong option in one of the accepted (or refused) forms, so that the truth is known.
- fields.json: texts put together from sentences that state known values.
"""
import itertools
import json
import random
from pathlib import Path

import numpy as np
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU
from scipy.optimize import linear_sum_assignment
from sklearn.calibration import calibration_curve
from statsmodels.stats.proportion import proportion_confint
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

OUT = Path("tests/golden/metrics")

WORDS = ("a an the mass lesion oval round irregular spiculated margin circumscribed left right breast BI-RADS 4A 4b category 12 mm 1.2 cm 3.5 no of in with and "
         "is benign malignant T2-weighted enhancement, calcifications. (upper outer) quadrant; density c: don't patient's ER+ HER2/neu 1,000 10,5 .5 5. 3-4 -7 e.g. i.e., "
         "U.S. x×y 5% $3 [1,2] {q} <b> &amp; &lt;i&gt; &quot;ok&quot; && <skipped> _under_ naïve Größe café ÉTÉ été ßtraße K İstanbul Ångström 10\u00b5m ½ ² 第一 乳房 "
         "mass—margin a–b the\u2019s an… \U0001f600 --- ... ,, .,. A.B.C 4.a a.4 4,a a,4 7-b b-7 7--8 \\x ` ~ @ # ^ * | \"q\" 'q' ? !").split(" ")
SPACES = [" "] * 12 + ["  ", "\n", "-\n", "\t", "\u00a0", "\u2003", "\r\n", " \n "]


def sentence(rng, count):
    return "".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(count)).rstrip(" ") if count else ""


def changed(rng, text, strength):
    parts = text.split(" ")
    out = []
    for p in parts:
        x = rng.random()
        if x < strength / 3:
            continue
        out.append(rng.choice(WORDS) if x < 2 * strength / 3 else p)
        if x > 1 - strength / 3:
            out.append(p)
    return " ".join(out)


def texts():
    rng = random.Random(1)
    fixed = [("", ""), ("", "mass"), ("mass", ""), ("the", "a"), ("the", ""), ("...", "..."), (" ", "\n"), ("mass", "mass"), ("Mass.", "mass"), ("A mass", "mass"),
             ("a a a a a b", "a a a"), ("one two three four five", "one two three four five"), ("one two three", "one two three"), ("x", "x"), ("1.5", "1.5."),
             ("end .", "end ."), ("a\u2028b\u0085c", "a b c"), ("\u212a\u212a", "kk"), ("\u0130a", "i a"), ("an_apple", "anapple"), ("a–b", "b"), ("éa the", "éa")]
    pairs = list(fixed)
    for i in range(330):
        reference = sentence(rng, rng.choice([1, 2, 3, 5, 8, 13, 21, 34]))
        kind = i % 6
        if kind < 4:
            prediction = changed(rng, reference, [0.1, 0.3, 0.6, 0.9][kind])
        elif kind == 4:
            prediction = sentence(rng, rng.choice([0, 1, 4, 20]))
        else:
            prediction = reference.upper() if rng.random() < 0.5 else reference + " " + reference
        pairs.append((reference, prediction.replace("Σ", "")))
    for count in (64, 65, 150, 500):  # around and over the 64 positions of a machine word
        reference = " ".join(rng.choice("abcdefgh") if rng.random() < 0.7 else "w" + str(rng.randrange(99)) for _ in range(count))
        pairs.append((reference, changed(rng, reference, 0.4)))
    pairs.append(("mass " * 200, "mass " * 300))
    scorer, one, corpus = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False), BLEU(effective_order=True), BLEU()
    rows = [{"reference": r, "prediction": p, "rouge_l": scorer.score(r, p)["rougeL"].fmeasure, "bleu": one.sentence_score(p, [r]).score,
             "f1": float(compute_f1(r, p)), "exact": int(compute_exact(r, p))} for r, p in pairs]
    stretches = [(0, len(pairs)), (0, 22), (22, 100), (100, 101), (7, 9), (10, 11), (12, 14), (0, 7)] + [(i, i + 10) for i in range(30, 340, 31)]
    groups = [{"from": a, "to": b, "bleu": corpus.corpus_score([p for _, p in pairs[a:b]], [[r for r, _ in pairs[a:b]]]).score} for a, b in stretches]
    return {"pairs": rows, "corpus": groups}


def shares():
    rng = random.Random(2)
    cases = [(0, 1), (1, 1), (0, 10), (10, 10), (1, 2), (3, 4), (500, 1000)] + [(rng.randint(0, n), n) for n in (rng.randint(1, 5000) for _ in range(60))]
    return [[k, n, *map(float, proportion_confint(k, n, alpha=0.05, method="wilson"))] for k, n in cases]


def certainty_case(probabilities, correct):
    top = [int(np.argmax(p)) for p in probabilities]
    hit = np.array([t == c for t, c in zip(top, correct)], dtype=float)
    confidence = np.array([max(p) for p in probabilities])
    margin = np.array([sorted(p)[-1] - (sorted(p)[-2] if len(p) > 1 else 0) for p in probabilities])
    brier = float(np.mean([np.sum((np.array(p) - np.eye(len(p))[c]) ** 2) for p, c in zip(probabilities, correct)]))
    true, mean = calibration_curve(hit, confidence, n_bins=10, strategy="uniform")
    counts, _ = np.histogram(np.searchsorted(np.linspace(0, 1, 11)[1:-1], confidence), bins=np.arange(11))
    ece = float(np.sum(counts[counts > 0] / len(hit) * np.abs(true - mean)))
    groups = [[int(i) for i in np.flatnonzero(margin == m)] for m in sorted(set(margin), reverse=True)]
    assert np.prod([float(len(list(itertools.permutations(g)))) if len(g) < 8 else np.inf for g in groups]) < 20000
    orders = [list(itertools.chain(*o)) for o in itertools.product(*[list(itertools.permutations(g)) for g in groups])]
    curves = np.mean([np.cumsum(hit[o]) / np.arange(1, len(hit) + 1) for o in orders], axis=0)
    return {"probabilities": probabilities, "correct": correct, "counts": counts.tolist(), "true": true.tolist(), "mean": mean.tolist(), "ece": ece, "brier": brier,
            "accuracy": curves.tolist(), "aurc": float(np.mean(1 - curves))}


def certainty():
    rng = np.random.default_rng(3)
    cases = []
    for n in (1, 2, 5, 17, 200):
        p = [rng.dirichlet(np.full(rng.integers(2, 6), 0.6)) for _ in range(n)]
        correct = [int(rng.choice(len(x), p=x)) if rng.random() < 0.8 else int(rng.integers(len(x))) for x in p]
        cases.append(certainty_case([x.tolist() for x in p], correct))
    # Equal margins, confidences on the edges of bins, one option alone.
    cases.append(certainty_case([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75], [0.75, 0.25], [0.5, 0.25, 0.25], [1.0], [0.0, 1.0]], [1, 0, 0, 1, 0, 0, 0]))
    cases.append(certainty_case([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1], [0.3, 0.3, 0.2, 0.2], [0.4, 0.3, 0.3]], [0, 1, 0, 1, 2, 1]))
    return cases


def cells(box):
    d = len(box) // 2
    return set(itertools.product(*[range(box[i], box[i + d]) for i in range(d)]))


def iou(a, b):
    if len(a) != len(b) or not cells(a) | cells(b):
        return 0.0
    return len(cells(a) & cells(b)) / len(cells(a) | cells(b))


def boxes():
    rng = random.Random(4)
    cases = []
    for i in range(120):
        d = 2 if i % 3 else 3
        side = 40 if d == 2 else 12

        def one(d):
            corners = [sorted((rng.randint(0, side), rng.randint(0, side))) for _ in range(d)]
            return [c[0] for c in corners] + [c[1] for c in corners]
        reference = [one(d) for _ in range(rng.choice([1, 1, 1, 2, 3, 6]))]
        predicted = [[max(0, v + rng.randint(-3, 3)) for v in b] for b in reference] if i % 2 else [one(d) for _ in range(rng.randint(0, 6))]
        predicted = [[min(b[j], b[j + d]) for j in range(d)] + [max(b[j], b[j + d]) for j in range(d)] for b in predicted]
        if i % 10 == 9:
            predicted.append(one(5 - d))
        rng.shuffle(predicted)
        table = np.array([[iou(r, p) for p in predicted] for r in reference]).reshape(len(reference), len(predicted))
        rows, columns = linear_sum_assignment(-table)
        cases.append({"reference": reference, "predicted": predicted, "table": table.tolist(), "best_sum": float(table[rows, columns].sum()),
                      "median": np.median(np.array(reference, dtype=float), axis=0).tolist()})
    return cases


def closed():
    rng = random.Random(5)
    sets = [["oval", "round", "irregular"], ["yes", "no"], ["BI-RADS 2", "BI-RADS 4A", "BI-RADS 5"], ["a mass", "calcifications", "no finding"], ["Länge ≤ 2 cm", "Länge > 2 cm"]]
    same = [str, str.upper, lambda s: s + ".", lambda s: "  " + s + " \n", lambda s: '"' + s + '".', lambda s: "The " + s, lambda s: s.replace(" ", "  ") + "!"]
    lettered = [lambda c, s: c, lambda c, s: c + ".", lambda c, s: c.lower(), lambda c, s: f"({c})", lambda c, s: f"({c}) {s}", lambda c, s: f"{c}. {s.upper()}.",
                lambda c, s: f"{c}) {s}", lambda c, s: f"{c}: {s}", lambda c, s: s, lambda c, s: f"({c}).", lambda c, s: f"The {s}."]
    cases = []
    for i in range(240):
        options = rng.choice(sets)
        right = rng.randrange(len(options))
        said = right if rng.random() < 0.5 else rng.randrange(len(options))
        letters = "ABC"
        if i % 3 == 0:  # no letters: a letter says nothing
            prediction = rng.choice(same)(options[said]) if i % 4 else rng.choice("ABC") + "."
            cases.append([prediction, options[right], options, "Which one?", int(i % 4 != 0 and said == right)])
            continue
        in_question = i % 3 == 1
        question = "Which one?\n" + "\n".join(f"{c}. {o}" for c, o in zip(letters, options)) if in_question else "Which one?"
        given = (list(letters[:len(options)]) if rng.random() < 0.5 else []) if in_question else [f"{c}. {o}" for c, o in zip(letters, options)]
        reference = rng.choice([letters[right], f"{letters[right]}. {options[right]}"])
        if i % 7 == 0:  # letter and text contradict each other
            other = (said + 1) % len(options)
            cases.append([f"{letters[said]}. {options[other]}", reference, given, question, 0])
        elif i % 11 == 0:
            cases.append([f"{letters[right]} because it looks like that", reference, given, question, 0])
        else:
            cases.append([rng.choice(lettered)(letters[said], options[said]), reference, given, question, int(said == right)])
    cases += [["", "", [], "", 0], ["", "oval", [], "", 0], ["A", "a.", [], "", 1], ["A", "B", ["A", "B"], "Choose.", 0], ["(b)", "B", ["A", "B"], "Choose.", 1], ["B. round", "B", ["A", "B"], "Choose.", 1]]
    return cases


def fields():
    rng = random.Random(6)
    birads = [("BI-RADS 4A", "4a"), ("BI-RADS category 2.", "2"), ("birads: 5", "5"), ("Bi-Rads assessment category is 4c", "4c"), ("BI RADS (3)", "3"), ("BI-RADS IV.", "4"), ("BI-RADS 0", "0"),
              ("BI-RADS is pending, 4 views", None), ("BI-RADS 7", None), ("BI-RADS 12", None), ("BI-RADS 4.5", None), ("grade 2", None)]
    side = [("in the left breast", ["left"]), ("Right-sided", ["right"]), ("bilateral", ["left", "right"]), ("both breasts", ["left", "right"]), ("leftover rightly", []), ("left and RIGHT", ["left", "right"])]
    size = [("12 mm", 12.0), ("1.2 cm", 12.0), ("1,5cm", 15.0), ("a 9-mm nodule", 9.0), ("12 x 8 mm", 12.0), ("0.8 × 1.1 × 0.4 cm", 11.0), ("8 mm x 14 mm", 14.0), ("7 millimetres", 7.0),
            ("12 mm2", None), ("12 mm²", None), ("size 12", None), ("mm 12", None), ("12 of 14", None)]
    density = [("density c", "c"), ("Breast density: category B.", "b"), ("ACR type d", "d"), ("density is a.", "a"), ("heterogeneously dense tissue", "c"), ("almost entirely fatty", "a"),
               ("scattered areas of fibroglandular density", "b"), ("extremely dense", "d"), ("of high density, a mass", None), ("density a mass", None), ("density e", None)]
    judgement = [("benign", ["benign"]), ("Malignant.", ["malignant"]), ("suspicious for malignancy", ["malignant"]), ("no sign of malignancy", []), ("not benign", []),
                 ("no pain. Malignant", ["malignant"]), ("benign or malignant", ["benign", "malignant"]), ("negative for malignancy; benign", ["benign"])]
    cases = []
    for _ in range(250):
        parts, want = [], [[], [], [], [], []]
        for f, (choices, share) in enumerate(((birads, 0.6), (side, 0.6), (size, 0.6), (density, 0.5), (judgement, 0.5))):
            if rng.random() < share:
                text, value = rng.choice(choices)
                parts.append(text.rstrip("."))
                want[f] = value if isinstance(value, list) else [] if value is None else ["%.1f" % value if f == 2 else value]
        rng.shuffle(parts)
        cases.append(["; ".join(parts) + rng.choice([".", ""]), "", want])
    ask_birads, ask_density = "<image>What is the BI-RADS category?", "Which breast density?"
    cases += [["4a", ask_birads, [["4a"], [], [], [], []]], ["Category 3.", ask_birads, [["3"], [], [], [], []]], ["4", "How many?", [[]] * 5], ["C.", ask_density, [[], [], [], ["c"], []]],
              ["c", "Which grade?", [[]] * 5], ["4 views", ask_birads, [[]] * 5], ["a mass", ask_density, [[]] * 5]]
    return cases


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, value in (("texts", texts()), ("shares", shares()), ("certainty", certainty()), ("boxes", boxes()), ("closed", closed()), ("fields", fields())):
        rows = value if isinstance(value, list) else None
        with open(OUT / f"{name}.json", "w", encoding="utf-8", newline="\n") as f:
            if rows is not None:
                f.write("[\n" + ",\n".join(json.dumps(r, ensure_ascii=True) for r in rows) + "\n]\n")
            else:
                f.write("{\n" + ",\n".join(f'"{k}": [\n' + ",\n".join(json.dumps(r, ensure_ascii=True) for r in v) + "\n]" for k, v in value.items()) + "\n}\n")


if __name__ == "__main__":
    main()
