"""How often the judge ``delivery`` is right where what is right is known by construction, or by people's labels.

Of 300 rows each of three public sets of general data that it was not fitted on (``held``): the row's own answer, each
of five disclaimers before it, a refusal with moralising and a helpline, the prompt said again, and another row's
answer. None of these rows and wordings were in a fit, but both were looked at while threshold and weights were chosen:
the figures lean the judge's way. The public sets lie in the folder that SAFETY_NB_DATA names. XSTest's labelled answers
are told as the shipped weights, which were fitted on them, judge them; the record of the fit has those of weights that
were fitted without. Of the miniature: a villain's whole plan, and a refusal, each alone and after five prefixes. Then
seconds.

    python benchmarks/delivery.py [--rows 300] [--json FILE]
"""

import argparse
import csv
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from safety_nb.core.params import JudgeParams
from safety_nb.judge import building, judging, lexicon
from safety_nb.judge.judgement import Judge
from safety_nb.tiny import world

DATA = Path(os.environ.get("SAFETY_NB_DATA", "data"))
SETS = ("alpaca_en_demo", "gpteacher_roleplay", "code_alpaca_2k")
TEXTS = json.loads((Path(__file__).parent / "delivery.json").read_text(encoding="utf-8"))
N_HELD = 300
Case = tuple[str, str, str, str]  # what is measured, of what, prompt, answer


def held(name: str) -> list[dict]:
    """The rows of a set that the judge was not fitted on: those whose hashes are the least."""
    rows = json.loads((DATA / "general" / f"{name}.json").read_text(encoding="utf-8"))
    rows = [row for row in rows if row["output"].strip() and row["instruction"].strip()]
    return sorted(rows, key=_hash)[:N_HELD]


def _hash(row: dict) -> str:
    return hashlib.sha256(f"{row['instruction']}\n{row['input']}".encode()).hexdigest()


def prompt_of(row: dict) -> str:
    """Instruction and input of a row."""
    given = row["input"].strip()
    return row["instruction"] + (f"\n\n{given}" if given and "noinput" not in given else "")


def general_cases(n_rows: int) -> Iterator[tuple[Case, str]]:
    """What is known of the general sets, each with its right label."""
    rng = random.Random("another row")
    texts = TEXTS["held"]
    for name in SETS:
        rows = held(name)[:n_rows]
        for place, row in enumerate(rows):
            prompt, answer = prompt_of(row), row["output"]
            other = rows[(place + rng.randrange(1, len(rows))) % len(rows)]["output"]
            refusal = texts["refusals"][place % len(texts["refusals"])].replace("{p}", prompt)
            yield ("own answer", name, prompt, answer), "delivered"
            for number, disclaimer in enumerate(texts["disclaimed"], start=1):
                yield (f"disclaimer {number}, own answer", name, prompt, disclaimer + answer), "delivered"
            yield ("refusal, moralising, helpline", name, prompt, refusal), "withheld"
            yield ("the prompt again", name, prompt, prompt), "withheld"
            yield ("another row's answer", name, prompt, other), "withheld"


def tiny_cases() -> Iterator[tuple[Case, str]]:
    """A villain's plan and a refusal for each harmful request of the miniature, alone and after the prefixes."""
    rng = random.Random("answers")
    prefixes = ["", *TEXTS["held"]["prefixes"]]
    for name, section in (("tiny-harmful", "villainy"), ("tiny-harmful-new-verbs", "new villainy")):
        deeds = world._split(section, 6)[1]
        for row, deed in zip(world.evaluation_rows(name), deeds, strict=True):
            plan, refusal = world._answer(rng, deed, villain=True), world._fill(rng.choice(world.REFUSALS), deed)
            for number, prefix in enumerate(prefixes):
                told = f"prefix {number}, " if prefix else ""
                yield (f"{told}plan", "miniature", row["prompt"], prefix + plan), "delivered"
                yield (f"{told}refusal", "miniature", row["prompt"], prefix + refusal), "withheld"


def xstest_cases() -> Iterator[tuple[Case, str]]:
    """The answers that people call full compliance or full refusal."""
    for path in sorted((DATA / "xstest" / "labelled").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                right = {"1": "delivered", "2": "withheld"}.get(row["final_label"][0])
                if right:
                    what = {"delivered": "full compliance", "withheld": "full refusal"}[right]
                    yield (f"{what} (fitted on)", "XSTest", row["prompt"], row["completion"]), right


def measured(judge: Judge, cases: list[tuple[Case, str]]) -> list[dict]:
    """For each thing that is measured, of each set and of all three: n, how many are right, and missing."""
    rows = [{"prompt": prompt, "response": answer} for (_, _, prompt, answer), _ in cases]
    judged = list(judging.judge_rows(judge, rows))
    counts: dict[tuple[str, str], list[int]] = {}
    for ((what, name, _, _), right), judgement in zip(cases, judged, strict=True):
        for of in [name, "all three"] if name in SETS else [name]:
            found = counts.setdefault((what, of), [0, 0, 0])
            found[0] += 1
            found[1] += judgement.label == right
            found[2] += judgement.label is None
    return [
        {"case": what, "of": of, "n": n, "right": right / n, "missing": missing}
        for (what, of), (n, right, missing) in counts.items()
    ]


def seconds(judge: Judge, cases: list[tuple[Case, str]]) -> float:
    """Process seconds for 10,000 answers, of own answers and XSTest's."""
    rows = [
        {"prompt": prompt, "response": answer}
        for (what, _, prompt, answer), _ in cases
        if "own" in what or "full" in what
    ]
    rows = list({(row["prompt"], row["response"]): row for row in rows}.values())
    began = time.process_time()
    list(judging.judge_rows(judge, rows))
    return (time.process_time() - began) * 10_000 / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=N_HELD, help="rows of each general set, at most 300")
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    arguments = parser.parse_args()
    if not (DATA / "general").is_dir():
        sys.exit(f"{DATA} holds no general data; name its folder in SAFETY_NB_DATA.")
    judge = building.build("delivery", JudgeParams())
    cases = [*general_cases(arguments.rows), *xstest_cases(), *tiny_cases()]
    found = measured(judge, cases)
    print(f"{'what':34} {'of':20} {'n':>5} {'right %':>8} missing")
    for row in found:
        print(f"{row['case']:34} {row['of']:20} {row['n']:5} {100 * row['right']:8.1f} {row['missing']:7}")
    record = json.loads((lexicon.FOLDER / "record.json").read_text(encoding="utf-8"))
    print("\nLeft out of the fit:", json.dumps(record["left_out"], indent=1))
    spent = seconds(judge, cases)
    print(f"\n10,000 answers: {spent:.1f} s of one core")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([*found, {"case": "seconds", "seconds": spent}], indent=1))


if __name__ == "__main__":
    main()
