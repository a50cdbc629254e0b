"""How well the first N of the released demonstrations cover all of them: in the diverse order beside the random one.

Three measures over the pool's rows: the mean distance (1 less cosine) to the nearest of the N in words, by the vectors
that the order goes by; the same and the largest in pieces of words (3 to 5 letters), which it knows nothing of; and
the share of the pool's words, each as often as it stands there, that stand in one of the N. Needs the data set
``safety-tuned-llamas`` (``SAFETY_NB_DATA``, or the network).

    python benchmarks/ordering.py --rounds 5 [--json FILE]
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from safety_nb.data import ordering
from safety_nb.data.datasets import sources

DOSES = (30, 100, 300, 1000)


class Cover:
    """How well some of the rows cover all of them."""

    def __init__(self, pool: list[dict]) -> None:
        texts = [ordering.asked(row) for row in pool]
        self._words = TfidfVectorizer(stop_words="english", min_df=2).fit_transform(texts)
        self._pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=2).fit_transform(texts)
        self._stand = self._words > 0
        self._counts = np.asarray(self._stand.sum(axis=0)).ravel()

    def measure(self, chosen: list[int]) -> dict[str, float]:
        words, pieces = self._far(self._words, chosen), self._far(self._pieces, chosen)
        seen = np.asarray(self._stand[chosen].sum(axis=0)).ravel() > 0
        return {
            "distance in words, mean": words.mean(),
            "distance in pieces, mean": pieces.mean(),
            "distance in pieces, largest": pieces.max(),
            "words covered": self._counts[seen].sum() / self._counts.sum(),
        }

    @staticmethod
    def _far(vectors, chosen: list[int]) -> np.ndarray:
        return 1 - (vectors @ vectors[chosen].T).toarray().max(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="seeds")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    pool = sources.training_rows("safety-tuned-llamas")
    cover = Cover(pool)
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    seconds = []
    for seed in range(arguments.rounds):
        seeded = ordering.seeded(len(pool), "safety", seed)
        started = time.process_time()
        diverse = list(ordering.diverse(seeded, pool))
        seconds.append(time.process_time() - started)
        for n in DOSES:
            of_random, of_diverse = cover.measure(seeded[:n]), cover.measure(diverse[:n])
            for measure, value in of_random.items():
                found.setdefault((n, measure), []).append((value, of_diverse[measure]))
    print(f"{len(pool):,} rows, {arguments.rounds} seeds; the whole order in {statistics.median(seconds):.2f} s")
    print(f"{'N':>5} {'measure':28} {'random':>8} {'diverse':>8}   ratio (range over seeds)")
    rows = []
    for (n, measure), pairs in found.items():
        ratios = [ours / theirs for theirs, ours in pairs]
        one, other = (statistics.mean(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(ratios)
        print(f"{n:>5} {measure:28} {one:8.3f} {other:8.3f}   {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        rows.append(
            {
                "case": "safety-nb diverse", "baseline": "random order", "ratio": ratio, "ratio_low": min(ratios),
                "ratio_high": max(ratios), "unit": f"{measure}, N = {n}", "rounds": len(ratios),
            }
        )  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
