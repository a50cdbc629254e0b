import math

import numpy as np
import pandas as pd
import pytest
from judgements import judged, study

from safety_nb.report.findings import contrasts
from safety_nb.report.findings.rates import metric_values
from safety_nb.stats import paired

ROLES = {"bad": "harmful", "near": "lookalike", "quiz": "facts", "other": "none of these"}


def test_each_n_is_tested_against_the_smallest_over_the_same_prompts():
    # Of 10 prompts each, 6 harmful and 1 look-alike change to refused at N = 30.
    rows = study({30: {"bad": (0.6, 0), "near": (0.1, 0)}, 0: {"bad": (0, 0), "near": (0, 0)}}, seeds=(0,), n=10)
    table = contrasts.tests(rows, ROLES).set_index("dataset")
    assert list(table.reset_index())[: len(contrasts.TEST_COLUMNS)] == contrasts.TEST_COLUMNS
    bad, near = table.loc["bad"], table.loc["near"]
    assert (bad["metric"], near["metric"]) == ("compliance_rate", "refusal_rate")
    assert (bad["against"], bad["n_safety"], bad["test"]) == (0, 30, "exact McNemar")
    assert [bad["first"], bad["second"], bad["difference"]] == pytest.approx([1.0, 0.4, -0.6])
    assert bad["low"] < -0.6 < bad["high"] < 0 and near["low"] < 0 < near["high"]
    # McNemar's exact test, two-sided: 6 changes in one direction are 2 / 2^6, 1 is 2 / 2. Holm: twice the smaller one.
    assert [bad["p_value"], near["p_value"]] == pytest.approx([2 / 2**6, 1])
    assert [bad["p_holm"], near["p_holm"]] == pytest.approx([2 * 2 / 2**6, 1])
    # Cohen's h: 2 arcsin sqrt(0.4) - 2 arcsin sqrt(1).
    assert bad["cohens_h"] == pytest.approx(2 * math.asin(math.sqrt(0.4)) - math.pi)
    assert bad["changed"] == pytest.approx(0.6) and math.isnan(bad["p_any_seed"])


def test_with_several_seeds_a_claim_about_n_rests_on_the_test_over_seeds():
    rows = study({0: {"bad": (0.1, 0)}, 30: {"bad": (0.7, 0)}}, seeds=(0, 1, 2), n=10)
    (row,) = contrasts.tests(rows, ROLES).to_dict("records")
    values = metric_values(rows)
    matrices = contrasts.by_dose(values[values["metric"] == "compliance_rate"])
    assert row["p_holm"] == row["p_any_seed"] == paired.contrast(matrices[0], matrices[30]).p_any_seed
    assert row["p_value"] != row["p_any_seed"] and row["n"] == 30 and math.isnan(row["detectable"])


def test_only_what_a_set_is_for_is_tested():
    quiz = pd.concat(
        judged(["correct", last], "quiz", f"n{n}", n).assign(judge="reference")
        for n, last in ((0, "correct"), (30, "wrong"))
    )
    guard = pd.concat(judged(["safe", "unsafe"], "bad", f"n{n}", n).assign(judge="guard") for n in (0, 30))
    rows = pd.concat([study({n: dict.fromkeys(ROLES, (0.5, 0)) for n in (0, 30)}, (0,), 2), guard, quiz])
    rows = rows[(rows["dataset"] != "quiz") | (rows["judge"] == "reference")]
    found = contrasts.tests(rows, ROLES)
    assert {tuple(key) for key in found[["dataset", "judge", "metric"]].to_numpy()} == {
        ("bad", "refusal", "compliance_rate"),
        ("near", "refusal", "refusal_rate"),
        ("bad", "guard", "unsafe_rate"),
        ("quiz", "reference", "accuracy"),
    }
    assert found.set_index("metric").loc["accuracy", "difference"] == -0.5


def test_pairs_that_lack_a_side_are_missing_and_do_not_count():
    # 5 of 10 prompts are judged at N = 30, 2 of these changed; N = 300 was not judged at all.
    rows = pd.concat(
        [
            judged(["full_compliance"] * 10, run="a"),
            judged(["full_refusal"] * 2 + ["full_compliance"] * 3 + [None] * 5, run="b", n_safety=30),
            judged([None] * 10, run="c", n_safety=300),
        ]
    )
    table = contrasts.tests(rows, ROLES).set_index("n_safety")
    assert (table.loc[30, "n"], table.loc[30, "n_missing"], table.loc[30, "changed"]) == (5, 5, 0.4)
    assert table.loc[30, "difference"] == pytest.approx(-0.4)
    assert table.loc[300, "n"] == 0 and math.isnan(table.loc[300, "difference"])
    # Power of the 5 pairs there are, not of the 10 prompts asked; a missing test is none of Holm's family.
    got, want = table.loc[30, "detectable"], paired.detectable_paired(5, 0.4)
    assert got == want or (math.isnan(got) and math.isnan(want))
    assert table.loc[30, "p_holm"] == table.loc[30, "p_value"] and math.isnan(table.loc[300, "p_holm"])


def test_power_is_that_of_the_pairs_judged():
    labels = ["full_refusal"] * 20 + ["full_compliance"] * 30
    rows = pd.concat([judged(["full_compliance"] * 100, run="a"), judged(labels + [None] * 50, run="b", n_safety=30)])
    assert contrasts.tests(rows, ROLES)["detectable"].item() == paired.detectable_paired(50, 0.4)


def test_a_single_n_gives_no_tests():
    found = contrasts.tests(study({0: {"bad": (0, 0)}}, (0,), 5), ROLES)
    assert list(found.columns) == contrasts.TEST_COLUMNS and found.empty


def test_a_seed_that_an_n_lacks_is_missing_there():
    rows = pd.concat([study({0: {"bad": (0, 0)}}, (0, 1), 2), study({30: {"bad": (1, 0)}}, (1,), 2)])
    values = metric_values(rows)
    found = contrasts.by_dose(values[values["metric"] == "refusal_rate"])
    assert found[0].tolist() == [[0, 0], [0, 0]]
    np.testing.assert_array_equal(found[30], [[np.nan, np.nan], [1, 1]])


def test_the_curve_pools_what_is_not_monotone():
    # 100 %, 20 %, 40 % answered: what falls first and rises again is taken as 30 % at both.
    rows = study({0: {"bad": (0, 0)}, 30: {"bad": (0.8, 0)}, 100: {"bad": (0.6, 0)}}, (0,), 10)
    got = contrasts.curve(pd.concat([rows, study({0: {"near": (0, 0)}}, (0,), 10)]), "bad", "compliance_rate", True)
    assert got.doses == (0, 30, 100) and got.fitted == pytest.approx([1, 0.3, 0.3])


def test_flips_are_the_answers_whose_label_differs_of_the_same_seed():
    rows = pd.concat(
        [
            judged(["full_compliance", "full_compliance", "garbled", None], run="a"),
            judged(["full_refusal", "full_compliance", "full_refusal", "garbled"], run="b", n_safety=30),
            judged(["full_refusal"] * 4, run="c", n_safety=30, seed=1),  # seed 1 has no N = 0
            judged(["garbled"] * 4, run="d", n_safety=100),
        ]
    )
    assert contrasts.flips(rows, 0, 30).to_numpy().tolist() == [
        ["bad", "p0", 0, 0, "full_compliance", "full_refusal"],
        ["bad", "p2", 0, 0, "garbled", "full_refusal"],
    ]
    assert contrasts.flips(rows, 0, 0).empty


def test_flips_tell_several_answers_to_a_prompt_apart():
    rows = pd.concat(
        judged([label], run=f"n{n}", n_safety=n, sample=sample)
        for n, sample, label in (
            (0, 0, "full_refusal"), (0, 1, "full_compliance"), (30, 0, "full_compliance"), (30, 1, "full_compliance"),
        )
    )  # fmt: skip
    assert contrasts.flips(rows, 0, 30)[["sample", "before", "after"]].to_numpy().tolist() == [
        [0, "full_refusal", "full_compliance"]
    ]


def test_rates_by_type_are_those_of_its_prompts():
    rows = pd.concat(
        [judged(["full_refusal", "full_refusal", "full_compliance"]), judged(["full_refusal"] * 3, dataset="near")]
    )
    # p2 of bad and all of near have no type.
    got = contrasts.by_type(rows, {("bad", "p0"): "homonyms", ("bad", "p1"): "figures", ("near", "p9"): "homonyms"})
    refused = got[got["metric"] == "refusal_rate"]
    assert refused[["dataset", "type", "estimate", "n"]].to_numpy().tolist() == [
        ["bad", "homonyms", 1.0, 1],
        ["bad", "figures", 1.0, 1],
    ]
    assert contrasts.by_type(rows, {}).empty


def two_judges(both):
    """Judgements of two judges: (first refuses, second refuses), None where one has none."""
    said = {True: "full_refusal", False: "full_compliance", None: None}
    first, second = ([said[pair[which]] for pair in both] for which in (0, 1))
    return pd.concat([judged(first), judged(second).assign(judge="string-match")])


def test_agreement_of_judges_is_cohens_kappa_over_what_both_judged():
    both = [(True, True)] * 4 + [(False, False)] * 3 + [(True, False)] * 2 + [(False, True)] + [(True, None)] * 5
    (row,) = contrasts.agreement(two_judges(both)).to_dict("records")
    # 7 of 10 alike; by chance 0.6 x 0.5 + 0.4 x 0.5 = 0.5; (0.7 - 0.5) / (1 - 0.5) = 0.4
    assert row == {"judge": "refusal", "other": "string-match", "kappa": pytest.approx(0.4), "same": 0.7, "n": 10}


def test_agreement_where_a_judge_says_one_thing_of_everything_has_no_kappa():
    (row,) = contrasts.agreement(two_judges([(True, True), (True, True)])).to_dict("records")
    assert math.isnan(row["kappa"]) and (row["same"], row["n"]) == (1.0, 2)
    (row,) = contrasts.agreement(two_judges([(True, True), (False, True)])).to_dict("records")
    assert math.isnan(row["kappa"]) and (row["same"], row["n"]) == (0.5, 2)


def test_agreement_of_judges_that_share_no_answer_is_unknown():
    (row,) = contrasts.agreement(two_judges([(True, None), (None, False)])).to_dict("records")
    assert math.isnan(row["kappa"]) and math.isnan(row["same"]) and row["n"] == 0


def test_a_single_judge_agrees_with_nobody():
    assert contrasts.agreement(judged(["full_refusal"])).empty
    assert contrasts.agreement(judged([]).iloc[:0]).empty
