import math

import numpy as np
import pandas as pd
import pytest
from judgements import judged, study

from safety_nb.report.findings import costs
from safety_nb.stats import paired

ROLES = {"bad": "harmful", "near": "lookalike", "plain": "ordinary", "quiz": "facts"}


def scored(scores, n_safety, judge="helpfulness", dataset="plain"):
    rows = judged([None] * len(scores), dataset, f"n{n_safety}", n_safety)
    return rows.assign(judge=judge, score=scores, missing=None)


def facts(labels, n_safety):
    return judged(labels, "quiz", f"n{n_safety}", n_safety).assign(judge="reference")


def measure(differences, worse=1, first=0.0, bounds=None):
    """A measure of N = 0 and N = 30 whose pairs differ by the given amounts."""
    zero = np.full((1, len(differences)), first)
    return costs.Measure("loss", {0: zero, 30: zero + differences}, worse, bounds)


def test_what_judgements_tell_of_costs():
    rows = pd.concat(
        [
            study(
                {n: {"bad": (1, 0), "near": (share, 0), "plain": (0, 0)} for n, share in ((0, 0), (30, 0.2))}, (0,), 10
            ),
            study({n: {"near": (0, 0)} for n in (0, 30)}, (0,), 10).assign(judge="string-match"),  # not the first judge
            facts(["correct"] * 10, 0),
            facts(["correct"] * 9 + ["wrong"], 30),
            scored([1.0, 2.0, 3.0], 0),
            scored([2.0, 2.0, 1.0], 30),
            scored([1.0], 0, dataset="bad"),
        ]
    )
    found = {one.name: one for one in costs.of_judgements(rows, ROLES)}
    assert set(found) == {"near refused", "plain refused", "quiz correct", "plain preferred (helpfulness)"}
    # More refused is worse, fewer correct and fewer preferred are.
    assert {one.name: one.worse for one in found.values() if one.worse == 1} == {"near refused": 1, "plain refused": 1}
    assert found["near refused"].matrices[30].mean() == pytest.approx(0.2)
    # Against N = 0: one higher, one equal, one lower.
    assert found["plain preferred (helpfulness)"].matrices[30].tolist() == [[1, 0.5, 0]]
    assert found["plain preferred (helpfulness)"].matrices[0].tolist() == [[0.5, 0.5, 0.5]]


def test_a_win_needs_both_scores():
    found = costs.wins({30: np.array([[2.0, np.nan, 5.0]]), 0: np.array([[1.0, 1.0, np.nan]])})
    np.testing.assert_array_equal(found[30], [[1, np.nan, np.nan]])


def test_a_cost_is_in_points_and_above_zero_where_it_is_worse():
    # 20 questions, 6 right answers lost, 2 gained: 20 points worse, with the ends of the interval turned round.
    first, second = np.array([[1.0] * 18 + [0.0] * 2]), np.array([[0.0] * 6 + [1.0] * 14])
    found = costs.table([costs.Measure("quiz correct", {30: second, 0: first}, worse=-1)], margin=0.05)
    assert list(found.columns) == costs.COLUMNS
    (row,) = found.to_dict("records")
    plain = paired.difference(first, second)
    assert (row["n_safety"], row["against"], row["estimate"], row["n"]) == (30, 0, pytest.approx(20), 20)
    assert (row["low"], row["high"]) == pytest.approx((-100 * plain.high, -100 * plain.low))
    assert row["low"] < 0 < 20 < row["high"] and row["verdict"] == "open"  # 4 of 20 may yet be under 5 points


@pytest.mark.parametrize(
    "differences, worse, verdict, words",
    [
        # In nats a token, the margin being 0.05: means 0.02, 0.21, 0.05 (whose interval holds the margin).
        ([0.01, 0.03] * 50, 1, "equivalent", "loss: shown to stay within 5 points at N = 30: +2.0 (+1."),
        ([0.2, 0.22] * 50, 1, "different", "loss: shown to be worse by more than 5 points at N = 30: +21.0 (+20."),
        ([0.2, 0.22] * 50, -1, "different", "loss: shown to be better by more than 5 points at N = 30: -21.0 (-21."),
        ([0.0, 0.1] * 50, 1, "open", "loss: neither shown to stay within 5 points nor to leave them at N = 30: +5.0 ("),
    ],
)
def test_what_is_shown_and_what_is_merely_not_excluded(differences, worse, verdict, words):
    table = costs.table([measure(differences, worse)], margin=0.05)
    assert table["verdict"].item() == verdict
    (sentence,) = costs.sentences(table, 0.05)
    assert sentence.startswith(words) and sentence.endswith(").")


def test_the_margin_is_the_one_asked_for():
    table = costs.table([measure([0.01, 0.03] * 50)], margin=0.01)
    assert table["verdict"].item() == "different"
    assert "more than 1 point at" in costs.sentences(table, 0.01)[0]


def test_several_n_stand_in_one_sentence_a_measure():
    zero = np.zeros((1, 100))
    several = costs.Measure(
        "loss", {n: zero + [step, step + 0.02] * 50 for n, step in ((0, 0), (30, 0.0), (300, 0.2))}, 1, None
    )
    # N = 0 itself goes from 0 to 0.02; differences are 0 everywhere at N = 30 and 0.2 everywhere at N = 300.
    several.matrices[30][0, 0] += 0.01
    several.matrices[300][0, 0] += 0.01
    (sentence,) = costs.sentences(costs.table([several], 0.05), 0.05)
    assert "within 5 points at N = 30: +0.0 (" in sentence and "; shown to be worse by more than" in sentence


def test_what_was_not_measured_is_told_and_never_nan():
    rows = pd.concat(
        [study({0: {"near": (0, 0)}}, (0,), 5), judged([None] * 5, "near", "n30", n_safety=30)], ignore_index=True
    )
    table = costs.table(costs.of_judgements(rows, ROLES), 0.05)
    assert table["n"].item() == 0 and math.isnan(table["estimate"].item()) and table["verdict"].item() == "open"
    assert costs.sentences(table, 0.05) == ["near refused: nothing to compare at N = 30."]


def test_differences_that_are_all_alike_have_no_interval():
    (sentence,) = costs.sentences(costs.table([measure([0.0, 0.0, 0.0])], 0.05), 0.05)
    assert sentence.endswith("at N = 30: +0.0 (all alike).") and "neither shown" in sentence


def test_a_single_n_costs_nothing_that_could_be_told():
    table = costs.table(costs.of_judgements(study({0: {"near": (0, 0)}}, (0,), 5), ROLES), 0.05)
    assert list(table.columns) == costs.COLUMNS and table.empty and costs.sentences(table, 0.05) == []


def test_items_are_compared_by_name_and_seed():
    rows = [(n, seed, item, n / 1000 + seed) for n in (0, 30) for seed in (0, 1) for item in ("a", "b")]
    items = pd.DataFrame(rows, columns=["n_safety", "seed", "prompt_id", "value"])
    found = costs.of_items(items.iloc[::-1], "loss", 1, None)
    assert found.matrices[30] - found.matrices[0] == pytest.approx(np.full((2, 2), 0.03))
