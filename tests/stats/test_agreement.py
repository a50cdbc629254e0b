"""Agreement: against published values, scikit-learn's, and by hand; intervals that claim no more than is known."""

import numpy as np
import pytest

from safety_nb.stats import agreement

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


# Scores


def test_errors_of_scores_by_hand():
    # Errors of the judge: +1, 0, +1, -1.
    found = agreement.score_agreements([0, 1, 2, 4], [1, 1, 3, 3], range(4))
    assert (found["mae"].estimate, found["bias"].estimate, found["mae"].n) == (0.75, 0.25, 4)
    # Ranks 1, 2, 3, 4 and 1.5, 1.5, 3.5, 3.5: products of what they are off 2.5 add up to 4, squares to 5 and 4.
    assert found["spearman"].estimate == pytest.approx(4 / (5 * 4) ** 0.5)


def scored(n, seed=0):
    """People's scores from 0 to 4, and those of a judge that errs; both with ties."""
    rng = np.random.default_rng(seed)
    people = rng.integers(5, size=n)
    return people, np.clip(np.round(2 * (people + rng.normal(0.4, 1, n))) / 2, 0, 4)


def test_rank_correlation_is_that_of_scipy():
    people, judge = scored(80)
    expected = pytest.importorskip("scipy.stats").spearmanr(people, judge).statistic
    assert agreement.score_agreements(people, judge, range(80))["spearman"].estimate == pytest.approx(expected)


def test_auc_is_that_of_scikit_learn():
    people, judge = scored(80)
    expected = pytest.importorskip("sklearn.metrics").roc_auc_score(people > 2, judge)
    assert agreement.auc(people > 2, judge, range(80)).estimate == pytest.approx(expected)


def test_auc_by_hand():
    # Of the four pairs the true one is above in three, and level in one.
    found = agreement.auc([True, True, False, False], [0.9, 0.5, 0.5, 0.1], range(4))
    assert (found.estimate, found.n) == (0.875, 4)
    assert agreement.auc([True, True, False, False], [1, 1, 2, 2], range(4)).estimate == 0


@pytest.mark.parametrize("metric", ["mae", "bias", "spearman"])
def test_scores_of_one_prompt_are_drawn_together(metric):
    # Beside a bootstrap written out: 40 prompts of two answers each, which err by nearly the same.
    stats = pytest.importorskip("scipy.stats")
    people, judge = (np.repeat(values, 2) for values in scored(40))
    judge = judge + np.tile([0, 0.25], 40)
    measures = {
        "mae": lambda y, f: np.abs(f - y).mean(),
        "bias": lambda y, f: (f - y).mean(),
        "spearman": lambda y, f: stats.spearmanr(y, f).statistic,
    }
    rng = np.random.default_rng(5)
    picks = [(2 * rng.integers(40, size=(40, 1)) + [0, 1]).ravel() for _ in range(2000)]
    drawn = np.array([measures[metric](people[pick], judge[pick]) for pick in picks])
    # 97.5 % of Student's t for 40 prompts lie below 2.0227; a correlation is drawn as Fisher's z.
    z, back, reach = (np.arctanh, np.tanh, 1.96) if metric == "spearman" else (np.array, np.array, 2.0227)
    low, high = back(z(measures[metric](people, judge)) + np.array([-1, 1]) * reach * z(drawn).std())
    found = agreement.score_agreements(people, judge, np.repeat(range(40), 2))[metric]
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.04 * (high - low))
    apart = agreement.score_agreements(people, judge, range(80))[metric]
    assert apart.high - apart.low < 0.85 * (found.high - found.low)


def test_auc_counts_prompts_and_not_answers():
    people, judge = scored(40)
    once = agreement.auc(people > 2, judge, range(40))
    thrice = agreement.auc(np.tile(people > 2, 3), np.tile(judge, 3), list(range(40)) * 3)
    assert (thrice.estimate, thrice.low, thrice.high) == pytest.approx((once.estimate, once.low, once.high))


def test_all_in_order_is_no_certainty():
    # Wilson for 20 of 20, the answers of the rarer class, begins at 0.8389.
    found = agreement.auc([True] * 20 + [False] * 60, range(80, 0, -1), range(80))
    assert (found.estimate, found.high) == (1, 1) and found.low == pytest.approx(0.8389, abs=1e-4)


def test_what_cannot_vary_has_no_interval():
    single = agreement.score_agreements([0, 1, 2, 4], [1, 1, 3, 3], "aaaa")
    assert all(np.isnan([each.low, each.high]).all() and each.estimate > 0 for each in single.values())
    alike = agreement.score_agreements([0.0, 1.3, 2.7], [0.1, 1.4, 2.8], range(3))
    assert alike["bias"].estimate == pytest.approx(0.1) and alike["spearman"].estimate == pytest.approx(1)
    assert all(np.isnan([each.low, each.high]).all() for each in alike.values())
    assert np.isnan(agreement.score_agreements([0, 1, 2], [1, 1, 1], range(3))["spearman"].estimate)
    constant = agreement.auc([True, True, False, False], [1, 1, 1, 1], range(4))
    assert constant.estimate == 0.5 and np.isnan([constant.low, constant.high]).all()
    one = agreement.auc([True, False, False], [3, 1, 2], range(3))  # a single true answer
    assert one.estimate == 1 and np.isnan([one.low, one.high]).all()


def test_no_scores_and_a_single_class_give_no_numbers():
    assert all(np.isnan(each.estimate) and each.n == 0 for each in agreement.score_agreements([], [], []).values())
    assert np.isnan(agreement.auc([], [], []).estimate)
    single = agreement.auc([True, True], [1, 2], "ab")
    assert np.isnan([single.estimate, single.low]).all() and single.n == 2


def test_intervals_of_auc_cover():
    # Normal scores that lie 1.8124 apart have an AUC of 0.9; of 2,000 draws 94 % are covered, by percentiles 90 %.
    rng, draws, covered = np.random.default_rng(0), 800, 0
    for _ in range(draws):
        truth = rng.random(100) < 0.2
        found = agreement.auc(truth, rng.normal(size=100) + 1.8124 * truth, range(100), draws=200)
        covered += found.low <= 0.9 <= found.high
    assert covered / draws >= 0.925


def test_intervals_of_scores_cover():
    # Normal scores that share half their variance, with a deviation of 1: their difference has it too, its absolute
    # value a mean of sqrt(2 / pi); Spearman's of normal numbers that correlate by r is 6 / pi * asin(r / 2).
    rng, draws, covered = np.random.default_rng(1), 600, dict.fromkeys(("mae", "bias", "spearman"), 0)
    true = {"mae": (2 / np.pi) ** 0.5, "bias": 0.0, "spearman": 6 / np.pi * np.arcsin(0.25)}
    for _ in range(draws):
        shared, one, other = rng.normal(size=(3, 50)) / 2**0.5
        found = agreement.score_agreements(shared + one, shared + other, range(50), draws=200)
        for name, each in found.items():
            covered[name] += each.low <= true[name] <= each.high
    assert all(0.925 <= count / draws <= 0.975 for count in covered.values()), covered


def test_a_correlation_near_one_is_covered_too():
    # Whole scores of people's and a judge that errs little: of these draws percentiles cover 90 %.
    stats = pytest.importorskip("scipy.stats")
    rng, draws, covered = np.random.default_rng(2), 600, 0

    def scores(n):
        people = np.clip(np.round(rng.normal(1, 1.5, size=n)), 0, 4)
        return people, people + rng.normal(0, 0.2, size=n)

    true = stats.spearmanr(*scores(200_000)).statistic
    for _ in range(draws):
        found = agreement.score_agreements(*scores(50), range(50), draws=200)["spearman"]
        covered += found.low <= true <= found.high
    assert covered / draws >= 0.93


def test_an_error_is_never_below_nothing():
    found = agreement.score_agreements([0, 1, 2, 4], [0, 1, 2, 3], range(4))["mae"]
    assert found.low == 0 < found.estimate
