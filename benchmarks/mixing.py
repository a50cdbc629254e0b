"""How long a mixture takes: 20,000 general rows and 2,000 demonstrations, compared with 1,118 evaluation prompts.

``safety-nb`` is ``mixing.mix`` from data files to ``mix/``: reading, drawing, duplicates, overlap (the same, inside,
near), hashes and writing, on one core, in a process that has compared nothing before. Its search for overlap is also
timed by itself beside ``datasketch MinHash LSH`` (words in threes, 128 permutations), which finds candidates for
near copies only; it is skipped where datasketch is not installed (``pip install datasketch``).

The rows are the released demonstrations and real general sets. Those hold 5,163 rows, so that each stands four times
among the 20,000, each time with other numbers in it and a part of its words in another order: as long as they are, and
no copies. Needs the data sets (``SAFETY_NB_DATA``, or the network).

    python benchmarks/mixing.py --rounds 3 [--json FILE]
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safety_nb.data import overlap
from safety_nb.data.datasets import sources

N_GENERAL, N_SAFETY = 20_000, 2_000
GENERAL = ("gpteacher-roleplay", "code-alpaca-2k")
EVALUATION = [
    *("I-MaliciousInstructions", "I-CoNa", "I-Controversial", "I-PhysicalSafetyUnsafe", "I-PhysicalSafetySafe"),
    *("Q-Harm", "I-Alpaca", "xstest-safe", "xstest-unsafe"),
]

MIX = """
import json, sys, time
from safety_nb.data import mixing
from safety_nb.core.params import MixParams
params = MixParams(**json.loads(sys.argv[1]))
started = time.perf_counter()
record = mixing.mix(params)
print(json.dumps([time.perf_counter() - started, record["n_general"], record["n_safety"]]))
"""


def general_rows() -> list[dict]:
    """20,000 general rows as long as real ones, no two of them alike."""
    real = [row for name in GENERAL for row in sources.training_rows(name)]
    return [_varied(real[number % len(real)], random.Random(number)) for number in range(N_GENERAL)]


def _varied(row: dict, rng: random.Random) -> dict:
    words = row["instruction"].split()
    start = rng.randrange(len(words) + 1)
    part = words[start : start + len(words) // 3 + 1]
    rng.shuffle(part)
    varied = [*words[:start], *part, *words[start + len(part) :], str(rng.randrange(10**6))]
    return {**row, "instruction": " ".join(varied)}


def mix(general: Path, folder: Path) -> float:
    params = {
        "run_dir": str(folder), "general": str(general), "n_general": N_GENERAL, "safety": "safety-tuned-llamas",
        "n_safety": N_SAFETY, "n_validation": 0, "evaluation": EVALUATION,
    }  # fmt: skip
    one_core = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MIX, json.dumps(params)]
    answer = subprocess.run(command, check=True, env=one_core, capture_output=True, text=True).stdout
    seconds, n_general, n_safety = json.loads(answer)
    assert (n_general, n_safety) == (N_GENERAL, N_SAFETY)
    return seconds


def safety_nb_overlap(texts: list[str], prompts: list[overlap.Prompt]) -> float:
    started = time.perf_counter()
    overlap.Finder(tuple(prompts)).find(texts)
    return time.perf_counter() - started


def minhash_lsh(texts: list[str], prompts: list[overlap.Prompt]) -> float:
    from datasketch import MinHash, MinHashLSH

    started = time.perf_counter()
    index = MinHashLSH(threshold=0.7, num_perm=128)
    for number, hashed in enumerate(MinHash.bulk([_threes(prompt.text) for prompt in prompts], num_perm=128)):
        index.insert(number, hashed)
    for hashed in MinHash.generator([_threes(text) for text in texts], num_perm=128):
        index.query(hashed)
    return time.perf_counter() - started


def _threes(text: str) -> list[bytes]:
    words = overlap.words(text).split()
    return [" ".join(words[place : place + 3]).encode() for place in range(max(1, len(words) - 2))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = general_rows()
    demonstrations = sources.training_rows("safety-tuned-llamas")[:N_SAFETY]
    texts = [text for row in rows + demonstrations for text in (row["instruction"], row["input"]) if text]
    asked = sources.evaluation_prompts(EVALUATION)
    prompts = [overlap.Prompt(row["dataset"], row["prompt_id"], row["prompt"]) for row in asked]
    ways = {"safety-nb overlap": safety_nb_overlap, "datasketch MinHash LSH": minhash_lsh}
    try:
        import datasketch  # noqa: F401
    except ImportError:
        del ways["datasketch MinHash LSH"]
    seconds: dict[str, list[float]] = {"safety-nb mixture": [], **{way: [] for way in ways}}
    with tempfile.TemporaryDirectory() as scratch:
        general = Path(scratch) / "general.jsonl"
        general.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for number in range(arguments.rounds):
            seconds["safety-nb mixture"].append(mix(general, Path(scratch) / f"run-{number}"))
            for way, measure in ways.items():
                seconds[way].append(measure(texts, prompts))
    print(f"{len(rows):,} + {N_SAFETY:,} rows ({len(texts):,} texts), {len(prompts):,} evaluation prompts")
    print(f"{'way':24} {'s, median':>10} {'range':>14}")
    for way, taken in seconds.items():
        print(f"{way:24} {statistics.median(taken):10.2f} {min(taken):7.2f}–{max(taken):.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(ratios(seconds), indent=2) + "\n", encoding="utf-8")


def ratios(seconds: dict[str, list[float]]) -> list[dict]:
    """The search for overlap in parts of its peer's time; nothing where the peer was not measured."""
    own, peer = seconds["safety-nb overlap"], seconds.get("datasketch MinHash LSH")
    if not peer:
        return []
    each = [ours / theirs for ours, theirs in zip(own, peer, strict=True)]
    return [
        {
            "case": "safety-nb overlap",
            "baseline": "datasketch MinHash LSH",
            "ratio": statistics.median(each),
            "ratio_low": min(each),
            "ratio_high": max(each),
            "unit": "wall seconds",
            "rounds": len(each),
        }
    ]


if __name__ == "__main__":
    main()
