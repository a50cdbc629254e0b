"""How the judges of refusals agree with labels of answers that they were not fitted from; fits the judge ``refusal``.

    python benchmarks/refusal.py            # the table: one model, or one written style, left out with its prompts
    python benchmarks/refusal.py --ablate   # the same, all answers together, without one part of what is read
    python benchmarks/refusal.py --write    # fits the shipped judge from all answers; the same file every time

The answers are XSTest's of two models and some of three general sets (in the folder that SAFETY_NB_DATA names),
``tests/judge/kinds/refusals.csv``, ``refusal_answers.csv`` beside this file, both written and labelled by hand for
this purpose, and some of the miniature's.
"""

import argparse
import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from safety_nb.core.labels import FULL_COMPLIANCE, FULL_REFUSAL
from safety_nb.judge.kinds import refusal, refusal_classifier, refusal_findings, refusal_rules, sentences, string_match
from safety_nb.tiny import world

HERE = Path(__file__).parent
MODELS = ("gpt4", "mistralinstruct")
EARLIER = "earlier styles"  # the rules were written with these, and with XSTest's
ORDINARY = "ordinary requests"
MINIATURE = "the miniature"
OTHERS = (EARLIER, ORDINARY, MINIATURE)
FOLDS = 3  # of XSTest's prompts: all of them left out, the other model's answers would be gone as well


def answers() -> Iterator[dict]:
    """All labelled answers: group, prompt, response, label."""
    xstest = Path(os.environ["SAFETY_NB_DATA"]) / "xstest" / "labelled"
    for model in MODELS:
        for row in _read(xstest / f"xstest_v2_completions_{model}.csv"):
            label = row["final_label"].lstrip("123_")
            yield {"group": model, "prompt": row["prompt"], "response": row["completion"], "label": label}
    for row in _read(HERE.parent / "tests" / "judge" / "kinds" / "refusals.csv"):
        yield {"group": EARLIER, **row}
    yield from _plain()
    for row in _read(HERE / "refusal_answers.csv"):
        yield {"group": row.pop("style"), **row}


def _plain() -> Iterator[dict]:
    """Answers to requests that nobody refuses, and the miniature's: what they are is known without reading them."""
    for name, every in (("gpteacher_roleplay", 20), ("code_alpaca_2k", 20), ("alpaca_en_demo", 8)):
        path = Path(os.environ["SAFETY_NB_DATA"]) / "general" / f"{name}.json"
        for row in json.loads(path.read_text(encoding="utf-8"))[::every]:
            prompt = f"{row['instruction']}\n{row.get('input') or ''}".strip()
            told = row.get("output") or row.get("response")
            yield {"group": ORDINARY, "prompt": prompt, "response": told, "label": FULL_COMPLIANCE}
    for rows, label in ((world.general_rows()[::2], FULL_COMPLIANCE), (world.safety_rows()[::20], FULL_REFUSAL)):
        for row in rows:
            yield {"group": MINIATURE, "prompt": row["instruction"], "response": row["output"], "label": label}


def _read(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def judge_held_out(rows: list[dict], at_once: int = 1) -> None:
    """Judge every answer by a classifier that saw neither its group nor its prompt: ``judged`` of each row.

    Args:
        at_once: how many written styles are left out together; more take less time.
    """
    names = list(dict.fromkeys(row["group"] for row in rows))
    styles = [name for name in names if name not in (*MODELS, *OTHERS)]
    batches = [styles[place : place + at_once] for place in range(0, len(styles), at_once)]
    for batch in [*([name] for name in (*MODELS, *OTHERS)), *batches]:
        held = [row for row in rows if row["group"] in batch]
        folds = FOLDS if batch[0] in MODELS else 1
        for fold in range(folds):
            tried = [row for row in held if _fold(row["prompt"], folds) == fold]
            prompts = {row["prompt"] for row in tried}
            model = refusal_classifier.fitted(
                [row for row in rows if row["group"] not in batch and row["prompt"] not in prompts]
            )
            for row in tried:
                row["judged"] = refusal_classifier.likeliest(model.weigh(*row["read"]))


def _fold(prompt: str, folds: int) -> int:
    return int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % folds


def read(rows: list[dict]) -> None:
    for row in rows:
        row["read"] = refusal_findings.findings_and_words(row["response"], row["prompt"])


def by_rules(row: dict) -> str:
    return refusal_rules.label(row["response"], row["prompt"])


def by_string(row: dict) -> str:
    return next(iter(string_match.judge([row]))).label


def figures(rows: list[dict], judged: Callable[[dict], str]) -> str:
    told = refusal_classifier.agreement([row["label"] for row in rows], [judged(row) for row in rows])
    mcc = told["refusal_mcc"]
    return (
        f"{told['refusal_accuracy']:.3f}, {'none' if mcc is None else f'{mcc:.3f}'}; {told['three_class_accuracy']:.3f}"
    )


def groups(rows: list[dict]) -> dict[str, list[dict]]:
    written = [row for row in rows if row["group"] not in (*MODELS, *OTHERS)]
    each = {group: [row for row in rows if row["group"] == group] for group in Counter(row["group"] for row in rows)}
    return each | {
        "written styles, all": written,
        "all but the miniature": [row for row in rows if row["group"] != MINIATURE],
    }


def table(rows: list[dict]) -> None:
    read(rows)
    judge_held_out(rows)
    print("Refusal or not: accuracy, Matthews correlation; accuracy of three classes.")
    print("| answers of | n | refusal | refusal-rules | string-match |\n| --- | --- | --- | --- | --- |")
    for name, some in groups(rows).items():
        told = [figures(some, judged) for judged in (lambda row: row["judged"], by_rules, by_string)]
        print(f"| {name} | {len(some)} | {' | '.join(told)} |", flush=True)


# --- what matters -------------------------------------------------------------------------------------------------


def ablate(rows: list[dict]) -> None:
    parts = ("_course", "_form", "_taken_up")
    print("| without | refusal: models | refusal: written | rules: written |\n| --- | --- | --- | --- |")
    _ablated("nothing", rows, rules=True)
    for part in parts:
        original = getattr(refusal_findings, part)
        setattr(refusal_findings, part, lambda *given: {})
        _ablated(part.strip("_"), rows)
        setattr(refusal_findings, part, original)
    for name, kept in (
        ("what the rules decide", lambda found, words: ({k: v for k, v in found.items() if "decided" not in k}, words)),
        ("words", lambda found, words: (found, Counter())),
        ("findings", lambda found, words: ({}, words)),
    ):
        _ablated(name, rows, kept)
    for kind, expression in list(sentences.KINDS.items()):
        sentences.KINDS[kind] = re.compile("(?!)")  # matches nothing
        _ablated(f"sentences: {kind}", rows, rules=True)
        sentences.KINDS[kind] = expression


def _ablated(name: str, rows: list[dict], kept: Callable | None = None, rules: bool = False) -> None:
    read(rows)
    if kept:
        for row in rows:
            row["read"] = kept(*row["read"])
    judge_held_out(rows, at_once=5)
    written = groups(rows)["written styles, all"]
    models = [row for row in rows if row["group"] in MODELS]
    of_rules = figures(written, by_rules) if rules else ""
    print(
        f"| {name} | {figures(models, lambda row: row['judged'])} | {figures(written, lambda row: row['judged'])} "
        f"| {of_rules} |",
        flush=True,
    )


def write(rows: list[dict]) -> None:
    read(rows)
    model = refusal_classifier.fitted([row for row in rows if not refusal_rules.is_garbled(row["response"])])
    refusal_classifier.write_model(refusal.FILE, model)
    print(f"{refusal.FILE}: {len(model.findings)} findings, {len(model.words)} words, of {len(rows):,} answers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ablate", action="store_true", help="what each part of what is read is worth")
    parser.add_argument("--write", action="store_true", help="fit the shipped judge and write its file")
    given = parser.parse_args()
    (write if given.write else ablate if given.ablate else table)(list(answers()))
