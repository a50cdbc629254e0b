"""Agreement: against published values, scikit-learn's, and by hand; intervals that claim no more than is known."""

import numpy as np
import pytest

from safety_nb import agreement

# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C: four observers, twelve units, with gaps.
OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
RATINGS = [{unit: int(v) for unit, v in enumerate(line.split()) if v != "."} for line in OBSERVERS]


@pytest.mark.parametrize(("ordinal", "published"), [(False, 0.743), (True, 0.815)])
def test_alpha_of_the_published_example(ordinal, published):
    assert agreement.krippendorffs_alpha(RATINGS, range(1, 6), ordinal) == pytest.approx(published, abs=5e-4)


def test_alpha_needs_two_labels_of_an_item_and_two_classes():
    assert np.isnan(agreement.krippendorffs_alpha([{"a": 1}, {"b": 2}], (1, 2)))
    assert np.isnan(agreement.krippendorffs_alpha([{"a": 1}, {"a": 1}], (1, 2)))
    assert np.isnan(agreement.krippendorffs_alpha([], (1, 2)))
    assert agreement.krippendorffs_alpha([{"a": 1, "b": 2}, {"a": 1, "b": 2}], (1, 2)) == 1


@pytest.mark.parametrize("k", [2, 3, 4])
def test_kappa_and_matthews_are_those_of_scikit_learn(k):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(k)
    truth = rng.integers(k, size=200)
    judged = np.where(rng.random(200) < 0.7, truth, rng.integers(k, size=200))
    matrix = agreement.confusion(truth, judged, k)
    assert (matrix == metrics.confusion_matrix(truth, judged)).all()
    assert agreement.accuracy(matrix) == pytest.approx(metrics.accuracy_score(truth, judged))
    assert agreement.kappa(matrix) == pytest.approx(metrics.cohen_kappa_score(truth, judged))
    weighted = metrics.cohen_kappa_score(truth, judged, weights="quadratic")
    assert agreement.kappa(matrix, quadratic=True) == pytest.approx(weighted)
    assert agreement.matthews(matrix) == pytest.approx(metrics.matthews_corrcoef(truth, judged))


def test_stacks_of_matrices_give_each_its_value():
    stack = np.array([[[5, 0], [0, 5]], [[4, 1], [2, 3]]])
    assert agreement.kappa(stack).tolist() == [agreement.kappa(each).tolist() for each in stack]
    assert agreement.matthews(stack)[0] == 1


def test_where_people_know_one_class_nothing_is_told_apart():
    one = np.array([[8, 2], [0, 0]])
    assert np.isnan(agreement.kappa(one)) and np.isnan(agreement.matthews(one))
    constant = np.array([[8, 0], [2, 0]])  # the judge says the same whatever people say
    assert agreement.kappa(constant) == 0 and agreement.matthews(constant) == 0


def test_accuracy_has_the_wilson_interval_of_its_counts():
    # 8 of 10: Wilson's interval is (0.4902, 0.9433) (Wilson 1927, z = 1.96).
    found = agreement.agreements([0, 1] * 5, [0, 1] * 4 + [1, 0], range(10), 2)["accuracy"]
    assert (found.estimate, found.n) == (0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_complete_agreement_of_few_is_no_certainty():
    found = agreement.agreements([0, 1] * 10, [0, 1] * 10, range(20), 2)
    # Wilson for 20 of 20 begins at 0.8389; with both classes half, kappa is then (0.8389 - 0.5) / 0.5.
    assert found["accuracy"].low == pytest.approx(0.8389, abs=1e-4)
    assert found["kappa"].low == found["mcc"].low == pytest.approx(0.6778, abs=1e-4)
    assert {each.high for each in found.values()} == {1.0}


def test_answers_to_one_prompt_are_drawn_together():
    # Ten prompts, each answered by five models the same way: fifty answers know no more than ten.
    truth, judged = np.array([0, 1] * 5), np.array([0, 1] * 4 + [1, 0])
    single = agreement.agreements(truth, judged, range(10), 2)
    several = agreement.agreements(np.tile(truth, 5), np.tile(judged, 5), list(range(10)) * 5, 2)
    assert several["accuracy"].estimate == 0.8
    assert several["kappa"].low == pytest.approx(single["kappa"].low)
    assert several["accuracy"].high - several["accuracy"].low > 0.4


def test_units_are_drawn_as_often_as_each_other():
    # Beside a bootstrap written out: 60 units of one answer, a tenth of them wrong, both classes unequally frequent.
    truth = np.array([0] * 45 + [1] * 15)
    judged = np.where(np.arange(60) % 10 == 0, 1 - truth, truth)
    found = agreement.agreements(truth, judged, range(60), 2)["kappa"]
    rng = np.random.default_rng(5)
    picks = (rng.integers(60, size=60) for _ in range(3000))
    drawn = [float(agreement.kappa(agreement.confusion(truth[pick], judged[pick], 2))) for pick in picks]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.03)


def test_the_same_labels_give_the_same_intervals():
    labels = ([0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 1, 1], list("abcdef"), 2)
    assert agreement.agreements(*labels) == agreement.agreements(*labels)


def test_no_labels_give_no_numbers():
    assert all(np.isnan(each.estimate) and each.n == 0 for each in agreement.agreements([], [], [], 2).values())
