"""Fits the judge ``delivery``, and says how it does on what was left out of its fit.

    python benchmarks/fit_delivery.py [--labels FILE.jsonl]           # fitted twice, each time without half the prompts
    python benchmarks/fit_delivery.py [--labels FILE.jsonl] --write   # and once from everything: the shipped files

Fitted from: XSTest's answers of two models (people's labels), ``tests/judge/kinds/refusals.csv`` and
``refusal_answers.csv`` beside this file (written and labelled by hand; full refusals withhold, full compliances
deliver, partial refusals are left out), the released demonstrations, conversations of hh-rlhf and three general sets
(all in the folder that SAFETY_NB_DATA names), the miniature, and sentences of our own (``delivery.json``, ``fitted``).
Of a general row are made: its own answer, bare and behind disclaimers; a refusal; another row's answer; empty
generalities; itself said again. What ``delivery.py`` scores (300 rows a set, the wordings ``held``) is in no fit.
``--labels`` adds answers that are not in the repository: prompt, response, delivered (0 or 1) in each line.

Words and their vectors are taken as they are from the shipped weights. They came from all-MiniLM-L6-v2, asked for one
word at a time: 96 principal components, mapped linearly so that an answer lies nearer to its own prompt than to others
(contrastive loss over general rows and hh-rlhf, none of them scored here).

Three steps: linear models say of a sentence what it does; of every example the evidence is computed with models of the
half of prompts that it does not belong to; boosted trees weigh the evidence. One thread, and the same file every time.

The shipped weights are of an earlier fit with other settings. What this one writes did better on what was left out of
it, and worse on the table of ``delivery.py``: look at both, and at the threshold, before you keep it.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import delivery as benchmark
import numpy as np
import sklearn
from delivery_examples import LABELLED, Data, Example, Sentence, examples, only, part_of, read, told_sentences, without
from safetensors.numpy import save
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from safety_nb.core.labels import DELIVERED, FULL_COMPLIANCE, WITHHELD
from safety_nb.judge import lexicon
from safety_nb.judge.kinds import delivery, evidence, refusal_rules

REGULARISED = (1.0, 0.3)  # C of the linear model of each head
VECTORS_COUNT = 6.0  # how much a mean word vector counts beside the hashed words of a sentence
TREES = dict(max_iter=400, learning_rate=0.08, max_leaf_nodes=16, min_samples_leaf=40, l2_regularization=5.0)

# --- models of sentences ------------------------------------------------------------------------------------------


def _matrix(told: Sequence[Sentence], units: np.ndarray) -> sparse.csr_matrix:
    """Hashed words and pairs as `evidence.chances` reads them, and the mean vector of the words: sentences x both."""
    known = lexicon.places()
    places = [evidence.places_of(evidence.terms_of(each[0], each[1])) for each in told]
    sizes = np.array([len(each) for each in places])
    values, ends = np.repeat(1 / np.sqrt(sizes), sizes), np.concatenate([[0], np.cumsum(sizes)])
    hashed = sparse.csr_matrix((values, np.concatenate(places), ends), shape=(len(told), evidence.BUCKETS))
    means = np.zeros((len(told), units.shape[1]))
    for row, (passage, of_prompt, _, _) in enumerate(told):
        words = [known[w] for w in passage.words if w in known and w[: evidence._STEM] not in of_prompt]
        if words:
            means[row] = units[words].mean(axis=0) * VECTORS_COUNT
    return sparse.hstack([hashed, sparse.csr_matrix(means)]).tocsr()


def sentence_models(
    told: Sequence[tuple[list[Sentence], list[Sentence]]], units: np.ndarray
) -> list[dict[str, np.ndarray]]:
    """Of sentences of two halves the models, as the file of weights holds them: of either half, and of both."""
    matrices = [[_matrix(each, units) for each in half] for half in told]
    models = []
    for halves in ((0,), (1,), (0, 1)):
        fitted = []
        for head, c in enumerate(REGULARISED):
            rows = [each for half in halves for each in told[half][head]]
            is_so = np.array([each[2] for each in rows])
            weights = _balanced(is_so, np.array([each[3] for each in rows]))
            model = LogisticRegression(C=c, max_iter=300, tol=1e-3)
            fitted.append(model.fit(sparse.vstack([matrices[half][head] for half in halves]), is_so, weights))
        coefficients = np.stack([model.coef_[0] for model in fitted], axis=1)
        terms, of_vectors = np.split(coefficients, [evidence.BUCKETS])
        models.append(
            {
                "terms": terms.astype(np.float16),
                "words": (units @ of_vectors * VECTORS_COUNT).astype(np.float16),
                "intercepts": np.array([model.intercept_[0] for model in fitted], dtype=np.float32),
            }
        )
    return models


def _balanced(is_so: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights such that both sides weigh as much."""
    sums = np.array([weights[~is_so].sum(), weights[is_so].sum()])
    return weights * (len(weights) / 2 / sums)[is_so.astype(int)]


# --- the fit ------------------------------------------------------------------------------------------------------


def fit(data: Data) -> tuple[dict[str, np.ndarray], list[Example]]:
    """The weights, as their file holds them, and what the trees were fitted from."""
    arrays, names = delivery.arrays_and_names()
    vectors = {name: arrays[name] for name in ("vectors", "vector_scale")}
    units = delivery.weights_of(arrays).units
    with threadpool_limits(1):  # sums in one order
        *halves, both = sentence_models([told_sentences(only(data, half), half) for half in (0, 1)], units)
        made = examples(data)
        table = np.zeros((len(made), len(names)), dtype=np.float32)
        for half in (0, 1):
            rows = [row for row, each in enumerate(made) if each.half == half]
            pairs = [(made[row].prompt, made[row].answer) for row in rows]
            table[rows] = delivery.table(pairs, names, delivery.weights_of(vectors | halves[1 - half]))
        return vectors | both | trees(table, made), made


def trees(table: np.ndarray, made: Sequence[Example]) -> dict[str, np.ndarray]:
    """Boosted trees over evidence, as the file of weights holds them."""
    delivers = np.array([each.delivers for each in made])
    weights = _balanced(delivers, np.array([each.weight for each in made]))
    model = HistGradientBoostingClassifier(early_stopping=False, random_state=0, **TREES)
    model.fit(table, delivers, sample_weight=weights)
    nodes = [each[0].nodes for each in model._predictors]
    longest = max(len(each) for each in nodes)
    found = {name: np.zeros((len(nodes), longest), np.int16) for name in ("features", "left", "right")}
    found |= {name: np.zeros((len(nodes), longest), np.float32) for name in ("thresholds", "values")}
    for row, each in enumerate(nodes):
        leaf, n = each["is_leaf"].astype(bool), len(each)
        found["features"][row, :n] = np.where(leaf, 0, each["feature_idx"])
        found["thresholds"][row, :n] = np.where(leaf, 0, each["num_threshold"])
        found["left"][row, :n] = np.where(leaf, np.arange(n), each["left"])
        found["right"][row, :n] = np.where(leaf, np.arange(n), each["right"])
        found["values"][row, :n] = np.where(leaf, each["value"], 0)
    found["baseline"] = np.asarray(model._baseline_prediction, dtype=np.float32).reshape(-1)
    return {f"trees.{name}": array for name, array in found.items()}


# --- what was left out --------------------------------------------------------------------------------------------

Case = tuple[str, str, str, bool]  # what is measured, prompt, answer, whether it delivers
OWN = "general rows"


def left_out_cases(data: Data, part: int) -> list[Case]:
    """What a fit `without` a part has not seen: labelled answers, and general rows with wordings ``chosen_on``."""
    cases = [(each.source, each.prompt, each.answer, each.delivers) for each in data.labelled]
    cases = [case for case in cases if part_of(case[1]) == part]
    texts = benchmark.TEXTS["chosen_on"]
    for rows in data.general.values():
        rows = [row for row in rows if part_of(row["instruction"], 10) == part]
        for place, row in enumerate(rows):
            prompt, refusal = benchmark.prompt_of(row), texts["refusals"][place % len(texts["refusals"])]
            cases.append((OWN, prompt, row["output"], True))
            cases.extend((f"{OWN}, disclaimed", prompt, text + row["output"], True) for text in texts["disclaimed"])
            cases.append((f"{OWN}, refused", prompt, refusal.replace("{p}", prompt), False))
            cases.append((f"{OWN}, another's answer", prompt, rows[place - 1]["output"], False))
    return cases


def scores(fitted: delivery.Fitted, cases: Sequence[Case]) -> np.ndarray:
    """As the judge gives them; what it calls garbled has none, and counts as 0."""
    rows = [{"prompt": prompt, "response": answer} for _, prompt, answer, _ in cases]
    return np.array([judged.score or 0.0 for judged in delivery.judge(rows, fitted)])


def left_out(data: Data) -> tuple[list[Case], np.ndarray]:
    """All cases, with the scores of fits that had neither them nor their prompts among the labelled answers."""
    names = delivery.shipped().names
    cases, told = [], []
    for part in (0, 1):
        arrays, _ = fit(without(data, part))
        cases.extend(some := left_out_cases(data, part))
        told.append(scores(delivery.fitted_of(arrays, names), some))
    return cases, np.concatenate(told)


def right_at(threshold: float, cases: Sequence[Case], told: np.ndarray) -> dict[str, dict]:
    """Of each thing that is measured how many answers there are, and the share that is labelled rightly."""
    found: dict[str, list[bool]] = {}
    for (what, _, _, delivers), score in zip(cases, told, strict=True):
        side = DELIVERED if delivers else WITHHELD
        found.setdefault(f"{what}: {side}", []).append((score >= threshold) == delivers)
    return {name: {"n": len(right), "right": round(float(np.mean(right)), 4)} for name, right in sorted(found.items())}


def table_of(cases: Sequence[Case], told: np.ndarray) -> None:
    thresholds = [round(0.2 + 0.04 * step, 2) for step in range(8)] + [delivery.THRESHOLD]
    figures = {threshold: right_at(threshold, cases, told) for threshold in sorted(set(thresholds))}
    print("Right, in per cent, at a threshold of " + " ".join(f"{threshold:5.2f}" for threshold in figures))
    for name, counted in figures[delivery.THRESHOLD].items():
        shares = " ".join(f"{100 * each[name]['right']:5.1f}" for each in figures.values())
        print(f"{name + ', ' + str(counted['n']):48} {shares}", flush=True)


def record(cases: Sequence[Case], told: np.ndarray, made: Sequence[Example], labels: bool) -> dict:
    found = {
        "judge": "delivery",
        "threshold": delivery.THRESHOLD,
        "fitted_by": "python benchmarks/fit_delivery.py" + (" --labels FILE.jsonl" if labels else "") + " --write",
        "rows": len(made),
        "fitted_from": dict(sorted(Counter(each.source for each in made).items())),
        "word_vectors": "all-MiniLM-L6-v2 (Apache-2.0), one word at a time, 96 principal components, mapped so that "
        "answers lie near their prompts (general sets, hh-rlhf; without the rows that the benchmark scores)",
        "left_out": {
            "note": "two fits, each without the labelled answers to half of the prompts and a tenth of the general "
            "rows, which it judged; the shipped weights are fitted on them too",
            **right_at(delivery.THRESHOLD, cases, told),
        },
        "versions": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
    }
    if labels:
        some = [row for row, case in enumerate(cases) if case[0] == LABELLED]
        is_so = np.array([cases[row][3] for row in some])
        tone = [refusal_rules.label(cases[row][2], cases[row][1]) == FULL_COMPLIANCE for row in some]
        found["labels_that_are_not_here"] = {
            "of": "SmolLM2-135M-Instruct, harmful and harmless prompts, labelled by one hand; left out",
            "n": len(some),
            "delivered by people": round(float(is_so.mean()), 3),
            "accuracy": round(float(((told[some] >= delivery.THRESHOLD) == is_so).mean()), 3),
            "auc": round(float(roc_auc_score(is_so, told[some])), 3),
            "accuracy of the rules' tone": round(float((np.array(tone) == is_so).mean()), 3),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, metavar="FILE", help="more answers: prompt, response, delivered")
    parser.add_argument("--write", action="store_true", help="fit from everything and write the shipped files")
    given = parser.parse_args()
    data = read(given.labels)
    cases, told = left_out(data)
    table_of(cases, told)
    if given.write:
        arrays, made = fit(data)
        evidence.WEIGHTS.write_bytes(save(arrays, metadata={"evidence": json.dumps(delivery.shipped().names)}))
        text = json.dumps(record(cases, told, made, given.labels is not None), indent=1)
        (lexicon.FOLDER / "record.json").write_text(text + "\n", encoding="utf-8")
        print(f"{evidence.WEIGHTS}: of {len(made):,} examples")


if __name__ == "__main__":
    main()
