"""The model of sets, seeds and prompts at once: against its exact posterior, and in what it must never do."""

import numpy as np
import pytest
from scipy.special import expit, logsumexp
from scipy.stats import norm

from safety_nb.stats import hierarchical

PAPER_SETS = (100, 178, 40, 100, 100)  # the prompts of the paper's five harmful sets


def answers(counts, n=100) -> np.ndarray:
    """Seeds x prompts: of each seed the first so many count."""
    return np.array([[1.0] * count + [0.0] * (n - count) for count in counts])


def exact(counts, n) -> np.ndarray:
    """The 5, 50 and 95 % points of the rate of one N on one set, by quadrature over the same grid of sds.

    With one N a seed's two deviations are one normal number c, so that the likelihood of level plus prompts is a
    product over seeds of integrals over c; the level given that sum is normal.
    """
    h = hierarchical
    points, weights = np.polynomial.hermite_e.hermegauss(81)
    weights = weights / weights.sum()
    total = np.linspace(-12, 6, 901)  # level + prompts
    level_var, prompts_var = h.LEVEL_SD**2, h.PROMPTS_SD**2 / n
    before = norm.logpdf(total, h.LEVEL, np.sqrt(level_var + prompts_var))
    logs, sds = [], []
    for one in h.SEED_SDS:
        for other in h.SEED_DOSE_SDS:
            odds = total[:, None] + np.hypot(one, other) * points
            seeds = [logsumexp(count * odds - n * np.logaddexp(0, odds), axis=1, b=weights) for count in counts]
            prior = sum(-2 * np.log1p((sd / h.SEEDS_SCALE) ** 2 / 3) + np.log(sd) for sd in (one, other))
            logs.append(before + sum(seeds) + prior)
            sds.append(np.hypot(one, other))
    chance = np.exp(np.array(logs) - logsumexp(logs))  # of sds and totals
    rng = np.random.default_rng(1)
    drawn = rng.choice(chance.size, 50_000, p=chance.ravel() / chance.sum())
    of_sd, of_total = np.unravel_index(drawn, chance.shape)
    share = level_var / (level_var + prompts_var)
    level = h.LEVEL + share * (total[of_total] - h.LEVEL)
    level += np.sqrt(share * prompts_var) * rng.standard_normal(len(level))
    rates = expit(level[:, None] + np.array(sds)[of_sd][:, None] * points[::5]) @ (weights[::5] / weights[::5].sum())
    return np.quantile(rates, [0.05, 0.5, 0.95])


@pytest.mark.parametrize("counts", [(30, 45, 36), (1, 0, 3), (50, 10, 90), (0, 0, 0)])
def test_the_posterior_is_near_the_exact_one(counts):
    found = np.quantile(hierarchical.fit([0], [[answers(counts)]], True, draws=8_000).pooled[:, 0], [0.05, 0.5, 0.95])
    truth = exact(counts, 100)
    # What is approximated is how the standard deviations weigh: a tenth of a rate, or two in a thousand.
    assert found == pytest.approx(truth, rel=0.1, abs=0.002)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_perfect_models_are_shown_to_be_within_five_per_cent(n_seeds):
    sets = [[np.ones((n_seeds, n)), *[np.zeros((n_seeds, n))] * 6] for n in PAPER_SETS]
    found = hierarchical.fit([0, 100, 300, 500, 1000, 1500, 2000], sets, falling=True)
    high = np.quantile(found.pooled, 0.95, axis=0)
    assert high[0] > 0.9 and (high[1:] < 0.05).all()
    assert (np.quantile(found.of_sets[:, 2], 0.95, axis=0)[1:] < 0.05).all()  # the smallest set, of 40 prompts


def width(found, at=0) -> float:
    low, high = np.quantile(found.pooled[:, at], [0.05, 0.95])
    return high - low


def test_one_seed_says_less_of_other_seeds_and_seeds_that_differ_less_still():
    alike = hierarchical.fit([0], [[answers((20, 20, 20))]], True)
    one = hierarchical.fit([0], [[answers((20,))]], True)
    differing = hierarchical.fit([0], [[answers((2, 20, 60))]], True)
    assert width(alike) < width(one) < width(differing)
    assert (alike.n_seeds, one.n_seeds) == (3, 1) and differing.seeds_sd > 3 * alike.seeds_sd


def test_sets_weigh_equally_and_lend_each_other_strength():
    many, few = answers((200, 200, 200), 1000), answers((6, 6, 6), 10)
    found = hierarchical.fit([0], [[many], [few]], True)
    rates = np.median(found.of_sets[..., 0], axis=0)
    assert rates[0] == pytest.approx(0.2, abs=0.03) and 0.3 < rates[1] < 0.6  # of its own 0.6 it is pulled down
    assert np.median(found.pooled[:, 0]) == pytest.approx(rates.mean(), abs=0.02)


def test_rates_are_monotone_and_in_the_order_of_n():
    counts = {300: (5, 6, 4), 0: (60, 55, 70), 30: (20, 18, 25), 100: (24, 22, 30)}
    found = hierarchical.fit(list(counts), [[answers(each) for each in counts.values()]], True)
    assert found.doses == (0, 30, 100, 300)
    assert (np.diff(found.pooled, axis=1) <= 1e-9).all() and (np.diff(found.of_sets, axis=2) <= 1e-9).all()
    rising = hierarchical.fit([0, 30], [[answers((4, 4)), answers((2, 2))]], falling=False)
    assert (np.diff(rising.pooled, axis=1) >= -1e-9).all()


def test_what_is_missing_takes_no_part():
    whole, gaps = answers((20, 30), 50), np.full((2, 50), np.nan)
    gaps[:, :10] = whole[:, :10]  # ten prompts of which all counted
    found = hierarchical.fit([0, 10], [[whole, np.full((2, 50), np.nan)]], True)
    assert width(found, 1) > width(found, 0)  # nothing is known but that it is no higher
    assert np.median(hierarchical.fit([0], [[gaps]], True).pooled) > 0.6 > np.median(found.pooled[:, 0])


def test_the_same_seed_draws_the_same_and_bad_input_is_told():
    sets = [[answers((5, 9)), answers((2, 3))]]
    one, other = (hierarchical.fit([0, 30], sets, True, seed=4) for _ in range(2))
    assert (one.draws == other.draws).all() and one.draws.shape == (2000, 1, 2)
    assert ((one.draws >= 0) & (one.draws <= 1)).all()
    for doses, wrong, told in (
        ([0, 0], sets, "different N"),
        ([0], sets, "one matrix for each"),
        ([], [], "one matrix for each"),
        ([0, 30], [[answers((5, 9)), answers((2,))]], "in their seeds"),
        ([0, 30], [[answers((5, 9)), answers((2, 3), 50)]], "in their prompts"),
        ([0], [[np.full((1, 3), np.nan)]], "nothing was judged"),
        ([0], [[np.full((1, 3), 2.0)]], "0"),
    ):
        with pytest.raises(ValueError, match=told):
            hierarchical.fit(doses, wrong, True)
