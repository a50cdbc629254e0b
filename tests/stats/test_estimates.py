import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from safety_nb.stats.estimates import Variation, mean_over_seeds, missing_bounds, rate, win_rate

NAN = np.nan


def test_wilson_of_8_in_10():
    # z = 1.959964, z^2 = 3.841459, p = 0.8, n = 10.
    # centre = (p + z^2/2n) / (1 + z^2/n) = (0.8 + 0.192073) / 1.384146 = 0.716740
    # half   = z / (1 + z^2/n) * sqrt(p(1-p)/n + z^2/4n^2) = 1.416010 * sqrt(0.016 + 0.009604) = 0.226578
    got = rate([True] * 8 + [False] * 2)
    assert (got.estimate, got.n, got.n_missing) == (0.8, 10, 0)
    assert got.low == pytest.approx(0.716740 - 0.226578, abs=1e-5)
    assert got.high == pytest.approx(0.716740 + 0.226578, abs=1e-5)


def test_wilson_of_none_in_20_has_a_width():
    # p = 0: centre = half = (z^2/2n) / (1 + z^2/n), so high = (z^2/n) / (1 + z^2/n) = 0.192073 / 1.192073
    got = rate([False] * 20)
    assert got.low == pytest.approx(0, abs=1e-12)
    assert got.high == pytest.approx(0.161125, abs=1e-5)


def test_missing_counts_neither_way():
    # 1 of the 2 judged is true, and 2 are missing.
    got = rate([True, None, False, None])
    assert (got.estimate, got.n, got.n_missing) == (0.5, 2, 2)


@pytest.mark.parametrize("flags, n_missing", [([], 0), ([None, None], 2)])
def test_nothing_judged_is_nan_not_zero(flags, n_missing):
    got = rate(flags)
    assert all(math.isnan(value) for value in (got.estimate, got.low, got.high))
    assert (got.n, got.n_missing) == (0, n_missing)


def test_a_flag_must_be_a_flag():
    with pytest.raises(ValueError, match="0.5"):
        rate([True, 0.5])


def test_one_seed_is_wilson():
    # 3 of 4 judged, 1 missing: as rate() gives it.
    got = mean_over_seeds([[1, 1, 1, 0, NAN]])
    assert got == rate([True, True, True, False, None])


def test_a_seed_without_any_judgement_leaves_one_seed():
    # Seed 2 gave nothing: its 2 cells are missing, and a bootstrap over "two" seeds would be a fiction.
    got = mean_over_seeds([[1, 0], [NAN, NAN]])
    wilson = rate([True, False])
    assert (got.estimate, got.low, got.high) == (wilson.estimate, wilson.low, wilson.high)
    assert (got.n, got.n_missing) == (2, 2)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_identical_answers_do_not_claim_certainty(value):
    # 3 seeds x 20 prompts, all alike: Wilson over the 20 prompts, not over the 60 answers.
    got = mean_over_seeds(np.full((3, 20), value))
    over_prompts = rate([bool(value)] * 20)
    assert (got.estimate, got.n, got.n_missing) == (value, 60, 0)
    assert (got.low, got.high) == pytest.approx((over_prompts.low, over_prompts.high), abs=1e-9)


def test_mean_n_and_missing_count_cells():
    # 1 + 0 + 1 + 1 over 4 judged cells of 6.
    got = mean_over_seeds([[1, 0, NAN], [1, 1, NAN]])
    assert (got.estimate, got.n, got.n_missing) == (0.75, 4, 2)
    assert got.low <= 0.75 <= got.high


def test_seeds_that_disagree_wholly_span_everything():
    # Seed 1 always true, seed 2 never: standard error 0.5 of their mean, and t with 1 degree of freedom reaches 12.7.
    # k = (12.7 * 0.5)^2 / 0.25 = 161, so the ends are 0.5 -+ sqrt(161 * (0.25 + 161 / 4)) / 162 = 0.0015 and 0.9985,
    # however many prompts there are. Wilson over 200 answers would say 0.43 to 0.57. 5 %: a quantile of 4,000 draws.
    got = mean_over_seeds([[1.0] * 100, [0.0] * 100])
    assert (got.estimate, got.low, got.high) == (
        0.5,
        pytest.approx(0.0015, abs=0.0008),
        pytest.approx(0.9985, abs=0.0008),
    )


def test_the_interval_resamples_prompts_too():
    # Both seeds agree on every prompt, so only the prompts vary: the number of true prompts among 100 drawn is
    # binomial(100, 0.5), whose 2.5 and 97.5 percentiles are 40 and 60.
    row = [1.0] * 50 + [0.0] * 50
    got = mean_over_seeds([row, row])
    assert got.low == pytest.approx(0.40, abs=0.015)
    assert got.high == pytest.approx(0.60, abs=0.015)


def test_same_seed_same_interval():
    matrix = np.random.default_rng(3).integers(0, 2, size=(3, 30)).astype(float)
    assert mean_over_seeds(matrix, seed=1) == mean_over_seeds(matrix, seed=1)
    assert mean_over_seeds(matrix, seed=1) != mean_over_seeds(matrix, seed=2)


@pytest.mark.parametrize("shape", [(0, 0), (2, 0), (0, 3)])
def test_an_empty_matrix_is_nan(shape):
    got = mean_over_seeds(np.empty(shape))
    assert math.isnan(got.estimate)
    assert (got.n, got.n_missing) == (0, 0)


@pytest.mark.parametrize(
    "matrix, message",
    [
        ([1.0, 0.0], "1 dimension"),
        ([[1.5, 1.0]], "from 0 to 1"),
        ([[-0.1]], "from 0 to 1"),
        ([[np.inf]], "from 0 to 1"),
    ],
)
def test_a_wrong_matrix_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        mean_over_seeds(matrix)


def test_infinite_values_are_refused_where_there_are_no_bounds():
    with pytest.raises(ValueError, match="finite"):
        mean_over_seeds([[np.inf, 1.0]], bounds=None)


# What the error of a mean is made of

EXAMPLE = np.array([[1.0, 2.0, 6.0], [3.0, 2.0, 10.0]])  # 2 seeds x 3 prompts, mean 4


def test_variance_components_by_hand():
    # Prompt means 2, 2, 8, variance 12, over 3 prompts: 4. Seed means 3, 5, variance 2, over 2 seeds: 1.
    # Residuals (value - prompt - seed + 4): -0, 1, -1 and 0, -1, 1: squares 4 over (2-1)(3-1) = 2, over 6 cells: 1/3.
    got = Variation.of(EXAMPLE)
    assert (got.of_prompts, got.of_seeds, got.of_cells) == pytest.approx((4, 1, 1 / 3))
    # Noise of single answers is in both, and counts once: 4 + 1 - 1/3.
    assert got.variance == pytest.approx(4 + 2 / 3)
    assert (got.by_prompt.tolist(), got.by_seed.tolist()) == ([-2 / 3, -2 / 3, 4 / 3], [-0.5, 0.5])


def test_variance_components_are_those_of_statsmodels():
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    matrix = np.random.default_rng(5).normal(size=(3, 12)) + np.arange(12) + np.array([[0], [1], [3]])
    table = pd.DataFrame(matrix).melt(ignore_index=False, var_name="prompt").reset_index(names="seed")
    squares = anova_lm(ols("value ~ C(prompt) + C(seed)", table).fit())["mean_sq"] / 36  # mean squares over cells
    got = Variation.of(matrix)
    expected = (squares["C(prompt)"], squares["C(seed)"], squares["Residual"])
    assert (got.of_prompts, got.of_seeds, got.of_cells) == pytest.approx(expected)


def test_seeds_that_differ_less_than_noise_add_nothing():
    # Seed means 0.5 and 0.5: no variance of seeds, and the noise of answers must not make it negative.
    got = Variation.of(np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]]))
    assert (got.between_seeds, got.variance) == (0, got.of_prompts)


def test_one_seed_of_any_values_is_the_interval_of_student():
    values = np.random.default_rng(1).normal(3, 2, size=30)
    low, high = scipy_stats.t.interval(0.95, 29, values.mean(), scipy_stats.sem(values))
    got = mean_over_seeds([values], bounds=None)
    assert got.estimate == pytest.approx(values.mean())
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.05)  # 3 % of the width: 4,000 draws


def test_few_seeds_have_the_tails_of_student():
    # Prompts alike, so only the 3 seeds vary: t with 2 degrees of freedom, 4.303 standard errors. A bootstrap that drew
    # seeds with replacement could not leave the range from 1 to 3.
    matrix = np.tile([[1.0], [2.0], [3.0]], 50)
    got = mean_over_seeds(matrix, bounds=None)
    assert (got.low, got.high) == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)), rel=0.1)


def test_noise_of_answers_counts_once_in_the_interval():
    # Prompts bring a normal number and seeds one of t with 2 degrees of freedom, each by its own variance; the part of
    # the seeds' that is noise of answers, here half, is in the prompts' already. Quantile by a simulation of its own.
    rng = np.random.default_rng(12)
    noise = rng.normal(size=(3, 60))
    matrix = 0.18 * np.array([[-1.0], [0.0], [1.0]]) + noise - noise.mean(axis=1, keepdims=True)
    part = Variation.of(matrix)
    assert 0.3 < part.between_seeds / part.of_seeds < 0.8  # or the test would show nothing
    prompts, seeds = rng.standard_t(59, 200_000), rng.standard_t(2, 200_000)
    expected = np.quantile(np.abs(math.sqrt(part.of_prompts) * prompts + math.sqrt(part.between_seeds) * seeds), 0.95)
    assert mean_over_seeds(matrix, bounds=None).high - part.mean == pytest.approx(expected, rel=0.04)


def test_a_rate_of_several_seeds_is_placed_as_wilson_places_it():
    # 2 seeds that agree on all 100 prompts, 8 of them true: as good as one seed, so about Wilson for 8 of 100.
    row = [1.0] * 8 + [0.0] * 92
    got, wilson = mean_over_seeds([row, row]), rate([True] * 8 + [False] * 92)
    assert (got.low, got.high) == pytest.approx((wilson.low, wilson.high), abs=0.005)


def test_scores_stay_within_their_bounds():
    # The same answers on the scale of 0 to 4: four times the interval of the rate.
    flags = np.random.default_rng(2).integers(0, 2, size=(3, 25)).astype(float)
    score, share = mean_over_seeds(4 * flags, bounds=(0, 4)), mean_over_seeds(flags)
    assert (score.estimate, score.low, score.high) == pytest.approx((4 * share.estimate, 4 * share.low, 4 * share.high))


def test_scores_that_are_all_alike_are_not_certain():
    # All 2 of 0 to 4, 20 prompts: no less than what 10 true of 20 would leave open, Wilson on twice the scale.
    got, wilson = mean_over_seeds(np.full((3, 20), 2.0), bounds=(0, 4)), rate([True, False] * 10)
    assert (got.estimate, got.low, got.high) == pytest.approx((2, 4 * wilson.low, 4 * wilson.high))


def test_values_without_bounds_that_are_all_alike_have_no_interval():
    got = mean_over_seeds(np.full((2, 5), 3.0), bounds=None)
    assert (got.estimate, got.n) == (3, 10)
    assert math.isnan(got.low) and math.isnan(got.high)


def test_a_smaller_confidence_is_narrower_in_every_way():
    # Normal quantiles 1.645 and 1.960: widths in about that ratio, 0.84; Wilson's with nothing true: 2.71 to 3.84.
    varied = np.random.default_rng(4).random((1, 60))
    wide, narrow = (mean_over_seeds(varied, confidence=level) for level in (0.95, 0.9))
    assert (narrow.high - narrow.low) / (wide.high - wide.low) == pytest.approx(0.84, abs=0.04)
    assert mean_over_seeds(np.zeros((2, 10)), confidence=0.9).high == pytest.approx(
        0.2129, abs=1e-3
    )  # 2.7055 / 12.7055
    assert mean_over_seeds(np.zeros((1, 10)), confidence=0.9).high == pytest.approx(0.2129, abs=1e-3)


# Missing, and wins


def test_missing_judgements_are_bounded_both_ways():
    # 3 of 4 judged true, 2 missing: 3 of 6 at worst, 5 of 6 at best.
    worst, best = missing_bounds([[1, 1, 1, 0, NAN, NAN]])
    assert worst == rate([True] * 3 + [False] * 3)
    assert best == rate([True] * 5 + [False])


def test_missing_scores_are_bounded_by_their_scale():
    worst, best = missing_bounds([[2.0, NAN], [2.0, 3.0]], bounds=(1, 5))
    assert (worst.estimate, best.estimate) == ((2 + 1 + 2 + 3) / 4, (2 + 5 + 2 + 3) / 4)
    assert (worst.n, worst.n_missing) == (4, 0)


def test_ties_are_half_a_win():
    # Won, lost, tied, won, and one without the other side: (1 + 0 + 0.5 + 1) / 4.
    got = win_rate([[3.0, 1.0, 2.0, 5.0, 1.0]], [[2.0, 2.0, 2.0, 1.0, NAN]])
    assert (got.estimate, got.n, got.n_missing) == (0.625, 4, 1)
    assert 0 <= got.low < 0.625 < got.high <= 1


def test_wins_need_the_same_prompts():
    with pytest.raises(ValueError, match="differ in shape"):
        win_rate([[1.0, 2.0]], [[1.0]])


def test_an_estimate_cannot_be_changed():
    with pytest.raises(AttributeError):
        rate([True]).n = 5
