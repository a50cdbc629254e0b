"""Expected values are worked out by hand, or by an independent implementation."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.weightstats import ttost_paired

from safety_nb.stats.estimates import mean_over_seeds
from safety_nb.stats.paired import (
    contrast,
    detectable_paired,
    difference,
    equivalence,
    holm,
    paired_test,
)

NAN = np.nan


def flags(true_false: int, false_true: int, same: int) -> tuple[np.ndarray, np.ndarray]:
    """One seed's flags with so many prompts that were true and became false, became true, or stayed false."""
    first = [1.0] * true_false + [0.0] * (false_true + same)
    second = [0.0] * true_false + [1.0] * false_true + [0.0] * same
    return np.array([first]), np.array([second])


# Tests


def test_mcnemar_by_hand():
    # 1 prompt became true, 9 became false: twice the chance of at most 1 head in 10 tosses, 2 * (1 + 10) / 1024.
    assert paired_test(*flags(9, 1, 40)) == (pytest.approx(22 / 1024), "exact McNemar")


def test_mcnemar_counts_pairs_only():
    # The prompt that became true lacks its first side: 0 against 9, twice 1 / 512.
    first, second = flags(9, 1, 40)
    first[0, 9] = NAN
    assert paired_test(first, second)[0] == pytest.approx(2 / 512)


def test_permutation_by_hand():
    # Prompt sums over two seeds: 2, 2, 1, 1, 1 all one way. Of 2^5 sign flips only all or none reach a sum of 7.
    second = np.array([[1.0, 1, 1, 0, 0], [1, 1, 0, 1, 1]])
    assert paired_test(np.zeros((2, 5)), second) == (pytest.approx(2 / 32), "paired permutation")


def test_permutation_swaps_prompts_not_answers():
    # 3 seeds that agree on 4 prompts: 2 / 2^4. Were the 12 answers swapped one by one, it would be 2 / 2^12.
    assert paired_test(np.zeros((3, 4)), np.ones((3, 4)))[0] == pytest.approx(2 / 16)


def test_permutation_with_a_missing_pair():
    # The pair that is missing adds nothing: prompt sums 1, 1, 1 and 2 / 2^3.
    second = np.array([[1.0, 1.0, NAN], [0.0, 0.0, 1.0]])
    assert paired_test(np.zeros((2, 3)), second)[0] == pytest.approx(2 / 8)


def test_permutation_agrees_with_the_signed_sum_of_many_prompts():
    # With 200 prompts the sum of random signs is about normal: z = sum / root of the sum of squares.
    rng = np.random.default_rng(3)
    first = rng.random((3, 200))
    second = first + rng.normal(0.03, 0.3, (3, 200))
    sums = (second - first).sum(axis=0)
    expected = 2 * scipy_stats.norm.sf(abs(sums.sum()) / np.sqrt((sums**2).sum()))
    assert paired_test(first, second)[0] == pytest.approx(expected, abs=0.015)


def test_scores_of_one_seed_are_permuted():
    assert paired_test([[0.0, 0.0, 0.0]], [[0.5, 2.0, 1.0]]) == (pytest.approx(2 / 8), "paired permutation")


def test_a_single_prompt_that_changes_is_no_evidence():
    # Its two signs are as far from 0 as each other: 2 / 2.
    second = np.zeros((3, 5))
    second[:, 0] = 1
    assert paired_test(np.zeros((3, 5)), second) == (1.0, "paired permutation")


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_no_change_is_no_evidence(n_seeds):
    assert paired_test(np.zeros((n_seeds, 5)), np.zeros((n_seeds, 5)))[0] == 1
    assert math.isnan(paired_test(np.full((n_seeds, 5), NAN), np.zeros((n_seeds, 5)))[0])


def test_holm_by_hand():
    # Ascending 0.01, 0.03, 0.04 times 3, 2, 1 is 0.03, 0.06, 0.04, and none below the one before.
    assert holm([0.04, 0.01, NAN, 0.03]) == pytest.approx([0.06, 0.03, NAN, 0.06], nan_ok=True)
    assert holm([]) == []


# Differences and effects


def test_difference_of_one_seeds_scores_is_that_of_bonett_and_price():
    # 10 fell by the whole scale, 4 rose by it, of 100. Adjusted: 11 and 5 of 102; d = -6 / 102 = -0.05882, and its
    # variance (16 / 102 - d^2) / 102 = 0.0015039, root 0.03878; d -+ 1.96 roots: -0.1348 and 0.0172. Of a scale of 4.
    first, second = flags(10, 4, 86)
    got = difference(4 * first, 4 * second, bounds=(0, 4))
    assert (got.estimate, got.n, got.n_missing) == (pytest.approx(-0.24), 100, 0)
    assert (got.low, got.high) == pytest.approx((4 * -0.1348, 4 * 0.0172), abs=0.016)


@pytest.mark.parametrize(
    ("counts", "low", "high"), [((16, 6, 139), -0.1240, -0.0054), ((7, 1, 13), -0.517, -0.026)], ids=["161", "21"]
)
def test_difference_of_one_seeds_flags_is_that_of_tango(counts, low, high):
    # As the R packages contingencytables (on Cavo et al. 2012) and ratesci (on Bentur et al. 2009) give them.
    got = difference(*flags(*counts))
    assert (got.low, got.high) == pytest.approx((low, high), abs=5e-4 if counts[0] == 7 else 5e-5)


@pytest.mark.parametrize(("lost", "won", "n"), [(0, 0, 20), (3, 0, 20), (0, 5, 6), (9, 4, 30), (1, 2, 3), (1, 0, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_ends_are_as_many_standard_errors_away_by_maximum_likelihood(lost, won, n, confidence):
    # The score in full, its nuisance found by a numerical search: of a prompt falling (p), rising (p + d) or staying.
    reach = scipy_stats.norm.ppf((1 + confidence) / 2)
    got = difference(*flags(lost, won, n - lost - won), confidence=confidence)
    for end, sign in ((got.low, 1), (got.high, -1)):
        if abs(end) == 1:  # of all changing alike nothing further out is possible
            assert (won - lost) / n == end
            continue

        def surprise(p, end=end):
            return -xlogy([lost, won, n - lost - won], [p, p + end, 1 - 2 * p - end]).sum()

        within = max(0.0, -end), (1 - end) / 2
        p = minimize_scalar(surprise, bounds=within, method="bounded", options={"xatol": 1e-10}).x
        error = math.sqrt((2 * p + end - end**2) / n)
        assert ((won - lost) / n - end) / error == pytest.approx(sign * reach, abs=1e-3)


def test_no_change_and_all_changed_by_hand():
    # Nothing changed: d is supposed to come from changes one way alone, n d^2 = z^2 d (1 - d), so d = z^2 / (n + z^2).
    # All rose: n (1 - d)^2 = z^2 (1 - d) (1 + d), so d = (n - z^2) / (n + z^2); z^2 = 3.8415.
    same, risen = difference(*flags(0, 0, 20)), difference(*flags(0, 20, 0))
    assert (same.estimate, same.low, same.high) == pytest.approx((0, -3.8415 / 23.8415, 3.8415 / 23.8415), abs=1e-5)
    assert (risen.estimate, risen.low, risen.high) == pytest.approx((1, 16.1585 / 23.8415, 1), abs=1e-5)
    fallen = difference(*flags(20, 0, 0))
    assert (fallen.low, fallen.high) == pytest.approx((-risen.high, -risen.low))
    one = difference(*flags(0, 0, 1))
    assert (one.low, one.high) == pytest.approx((-3.8415 / 4.8415, 3.8415 / 4.8415), abs=1e-5)


@pytest.mark.parametrize(("lost", "won"), [(4, 0), (9, 4), (2, 12)])
def test_interval_of_one_seed_ends_at_zero_where_mcnemar_has_its_confidence(lost, won):
    # Against no difference at all Tango's score is that of McNemar's test (statsmodels).
    p_value = mcnemar([[0, lost], [won, 0]], exact=False, correction=False).pvalue
    got = difference(*flags(lost, won, 30), confidence=1 - p_value)
    assert min(abs(got.low), abs(got.high)) == pytest.approx(0, abs=1e-9)


def test_other_seeds_and_pairs_without_a_side_do_not_count():
    # A second seed of which nothing was judged, and pairs that lack a side, leave one seed's 16 and 6 of 161.
    first, second = flags(16, 6, 139)
    plain = difference(first, second)
    first, second = np.hstack([first, [[NAN, 1.0]]]), np.hstack([second, [[1.0, NAN]]])
    got = difference(np.vstack([first, np.full((1, 163), NAN)]), np.vstack([second, np.ones((1, 163))]))
    assert (got.low, got.high, got.n, got.n_missing) == (plain.low, plain.high, 161, 2 + 163)


def test_no_change_in_few_prompts_is_no_certainty():
    got = difference(np.zeros((3, 20)), np.zeros((3, 20)))
    # Two more prompts, 1 / root 3 and -1 / root 3, of 22: variance 2 / 3 / 21 / 22 of the mean; t with 21 degrees of
    # freedom reaches 2.080.
    assert (got.estimate, got.high) == (0, pytest.approx(2.080 * math.sqrt(2 / 3 / 21 / 22), rel=0.05))
    assert got.low == -got.high


def test_difference_stays_within_what_is_possible():
    got = difference(np.zeros((2, 4)), np.ones((2, 4)))
    assert (got.estimate, got.high) == (1, 1)
    assert -1 < got.low < 1


def test_difference_counts_pairs():
    got = difference([[1.0, NAN, 0.0]], [[0.0, 1.0, NAN]])
    assert (got.estimate, got.n, got.n_missing) == (-1, 1, 2)


def test_difference_without_bounds_is_the_mean_of_the_differences():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(3, 40)), rng.normal(size=(3, 40))
    assert difference(first, second, bounds=None) == mean_over_seeds(second - first, bounds=None)


@pytest.mark.parametrize("bounds", [None, (0, 4)])
def test_zeros_and_ones_of_a_longer_scale_are_no_flags(bounds):
    # 10 fell by 1 and 4 rose: the least difference possible is not -1, and such scores could have changed by more.
    first, second = flags(10, 4, 86)
    got, as_flags = difference(first, second, bounds=bounds), difference(first, second)
    assert got.estimate == as_flags.estimate
    assert abs(got.low - as_flags.low) > 1e-3


def test_prompts_that_share_their_difficulty_make_the_difference_sharper():
    # Half the prompts true under both: the difference is 0 for each prompt, however uncertain each rate.
    row = [1.0] * 50 + [0.0] * 50
    assert difference([row], [row]).high < 0.04 < mean_over_seeds([row]).high - 0.5


def test_comparison_by_hand():
    # 1 of 2 against 1 of 1 would be another question: over the 4 pairs, 3 / 4 against 1 / 4.
    got = contrast([[1.0, 1, 1, 0, NAN]], [[0.0, 0, 1, 0, 1]])
    assert (got.first, got.second, got.changed) == (0.75, 0.25, 0.5)
    assert got.odds_ratio == pytest.approx((1 / 3) / 3)
    assert got.cohens_h == pytest.approx(2 * math.asin(0.5) - 2 * math.asin(math.sqrt(0.75)))
    assert (got.test, got.difference.n, got.difference.n_missing) == ("exact McNemar", 4, 1)
    assert math.isnan(got.p_any_seed)  # one seed cannot tell


@pytest.mark.parametrize(
    ("first", "second", "ratio"), [(0, 1, math.inf), (1, 0, 0.0), (0, 0, math.nan), (1, 1, math.nan)]
)
def test_odds_ratio_at_the_ends(first, second, ratio):
    got = contrast(np.full((1, 5), float(first)), np.full((1, 5), float(second)))
    assert got.odds_ratio == pytest.approx(ratio, nan_ok=True)


def test_scores_have_no_odds():
    got = contrast([[0.0, 3.0]], [[1.0, 4.0]], bounds=(0, 4))
    assert math.isnan(got.odds_ratio) and math.isnan(got.cohens_h)


def test_a_comparison_without_pairs_is_nan():
    got = contrast([[NAN, 1.0]], [[1.0, NAN]])
    values = (got.first, got.second, got.difference.estimate, got.p_these_models, got.odds_ratio, got.changed)
    assert all(math.isnan(value) for value in values) and got.difference.n == 0


def test_one_odd_seed_shows_these_models_to_differ_but_not_others():
    # Two of three seeds do not change at all; the third does for 90 of 100 prompts.
    first, second = np.zeros((3, 100)), np.zeros((3, 100))
    second[0, :90] = 1
    got = contrast(first, second)
    assert got.p_these_models < 0.001
    # Seed differences 0.9, 0, 0: mean 0.3, standard error 0.3, t = 1 with 2 degrees of freedom: p = 0.42.
    assert got.p_any_seed == pytest.approx(0.42, abs=0.04)
    assert got.difference.low < 0


@pytest.mark.parametrize("rate", [0.2, 0.25, 0.3])
def test_p_any_seed_and_the_interval_agree(rate):
    rng = np.random.default_rng(8)
    first, second = (rng.random((3, 80)) < 0.3).astype(float), (rng.random((3, 80)) < rate).astype(float)
    got = contrast(first, second)
    assert (got.p_any_seed < 0.05) == (not got.difference.low <= 0 <= got.difference.high)
    # The end of an interval of confidence 1 - p lies at 0, as near as the few draws beyond it tell.
    edge = difference(first, second, confidence=1 - got.p_any_seed)
    assert min(abs(edge.low), abs(edge.high)) < (0.001 if got.p_any_seed > 0.01 else 0.02)


@pytest.mark.parametrize("call", [contrast, difference, paired_test])
def test_pairs_need_the_same_prompts(call):
    with pytest.raises(ValueError, match="differ in shape"):
        call([[1.0, 0.0]], [[1.0]])


def test_pairs_out_of_bounds_are_refused():
    with pytest.raises(ValueError, match="from 0 to 1"):
        contrast([[2.0]], [[1.0]])


# Equivalence


@pytest.mark.parametrize("margin", [0.15, 0.3, 0.6])
def test_equivalence_of_one_seed_is_that_of_statsmodels(margin):
    rng = np.random.default_rng(6)
    first = rng.normal(size=60)
    second = first + rng.normal(0.05, 0.6, size=60)
    got = equivalence([first], [second], margin, bounds=None)
    expected, *_ = ttost_paired(second, first, -margin, margin)
    assert got.p_value == pytest.approx(expected, abs=0.01)
    assert (got.verdict == "equivalent") == (expected < 0.05)


def test_equivalence_says_which_of_three():
    row = np.arange(100) % 2.0
    shifted = row.copy()
    shifted[:2] = 1 - row[:2]  # one prompt each way
    assert equivalence([row], [shifted], 0.1).verdict == "equivalent"
    assert equivalence([row], [shifted], 0.01).verdict == "open"
    assert equivalence(np.zeros((1, 100)), np.ones((1, 100)), 0.1).verdict == "different"
    assert equivalence(np.ones((1, 100)), np.zeros((1, 100)), 0.1).verdict == "different"


def test_equivalence_needs_both_sides():
    # Clearly above the lower margin, but not below the upper one: the larger of the two p values counts.
    first, second = np.zeros((1, 50)), np.zeros((1, 50))
    second[0, :5] = 1
    got = equivalence(first, second, 0.1)
    assert got.p_value > 0.3 and got.verdict == "open"


@pytest.mark.parametrize(("lost", "won", "n"), [(3, 5, 60), (0, 0, 40), (0, 1, 40), (1, 9, 50), (0, 10, 10)])
def test_equivalence_of_one_seed_claims_what_its_interval_holds(lost, won, n):
    rows = flags(lost, won, n - lost - won)
    interval = difference(*rows, confidence=0.9)
    got = equivalence(*rows, 0.1)
    assert (got.difference.low, got.difference.high) == (interval.low, interval.high)
    # At a margin of the farther end, the larger p value of the two tests is the 5 % that the interval leaves there.
    margin = max(-interval.low, interval.high)
    if margin < 1:
        assert equivalence(*rows, margin).p_value == pytest.approx(0.05, abs=1e-6)
    wider, narrower = equivalence(*rows, margin * 1.01), equivalence(*rows, margin * 0.99)
    assert wider.verdict == "equivalent" and wider.p_value < 0.05
    assert narrower.verdict != "equivalent" and narrower.p_value > 0.05


def test_equivalence_with_few_seeds_is_slow_to_conclude():
    # Seed differences 0.08, 0, -0.08 over 100 prompts that are otherwise alike: the 90 % interval of t with 2 degrees
    # of freedom is 2.92 * 0.08 / root 3 = 0.135 wide each way, beyond 0.1. By prompts alone it would be 0.03.
    first, second = np.zeros((3, 100)), np.zeros((3, 100))
    second[0, :8] = 1
    first[2, 8:16] = 1
    got = equivalence(first, second, 0.1)
    assert got.verdict == "open"
    assert got.difference.high == pytest.approx(0.135, abs=0.03)


def test_equivalence_without_pairs_or_variation_is_open():
    assert equivalence([[NAN]], [[1.0]], 0.1).verdict == "open"
    assert equivalence([[1.0, 2.0]], [[1.0, 2.0]], 0.1, bounds=None).verdict == "open"


@pytest.mark.parametrize("margin", [0, -0.1, NAN])
def test_a_margin_is_above_zero(margin):
    with pytest.raises(ValueError, match="margin"):
        equivalence([[1.0]], [[1.0]], margin)


# What could have been seen


def test_detectable_difference_has_the_power_it_names():
    # Exactly, over the number of changed prompts among 200 and how many of them rose, by McNemar's test without
    # the conservatism of its exact form (mid p), which the formula does not have.
    n, changed = 200, 0.2
    gap = detectable_paired(n, changed)
    up = (changed + gap) / 2 / changed
    power = 0.0
    for count in range(n + 1):
        rose = np.arange(count + 1)
        tail = scipy_stats.binom.cdf(np.minimum(rose, count - rose), count, 0.5)
        p = 2 * tail - scipy_stats.binom.pmf(rose, count, 0.5)
        power += scipy_stats.binom.pmf(count, n, changed) * (scipy_stats.binom.pmf(rose, count, up) * (p < 0.05)).sum()
    assert power == pytest.approx(0.8, abs=0.02)


def test_detectable_difference_solves_connors_formula():
    gap = detectable_paired(150, 0.3, power=0.9, alpha=0.01)
    needed = (2.575829 * math.sqrt(0.3) + 1.281552 * math.sqrt(0.3 - gap**2)) ** 2 / gap**2
    assert needed == pytest.approx(150, rel=1e-4)


def test_nothing_is_detectable_where_too_little_changed():
    assert math.isnan(detectable_paired(100, 0.01))
    assert math.isnan(detectable_paired(0, 0.5))


@pytest.mark.parametrize("share", [0, 1.1, NAN])
def test_share_of_changed_prompts_has_a_range(share):
    with pytest.raises(ValueError, match="changed"):
        detectable_paired(10, share)
