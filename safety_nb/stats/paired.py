"""Two values of N over the same prompts: the difference, tests, equivalence, effect sizes, what could have been seen.

Arrays in, numbers out; knows no files, no tables and no plots. Every matrix has seeds in rows and prompts in columns,
the same in both, with nan where missing; a pair that lacks a side counts as missing. Differences are second minus
first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, permutation_test

from safety_nb.stats.estimates import CONFIDENCE, SHARE, Estimate, Variation, checked, deviations, mean_over_seeds


@dataclass(frozen=True)
class Contrast:
    """What two values of N differ in, over the pairs judged on both sides.

    Attributes:
        first: Mean of the first; nan without pairs.
        second: Mean of the second.
        difference: Second minus first with its 95 % interval over prompts and seeds; n counts pairs.
        p_these_models: Two-sided p value of no difference between these very models over prompts like these (`test`).
        test: How that was tested: "exact McNemar" or "paired permutation".
        p_any_seed: The same for models of other seeds too, by the bootstrap of `difference`; nan with one seed, which
            cannot tell. A claim about N rather than about these models needs this one.
        odds_ratio: Odds of the second over odds of the first; inf or 0 at the ends; nan if undefined or not rates.
        cohens_h: Cohen's h, -pi to pi (0.2 is called small, 0.5 medium, 0.8 large); nan if not rates.
        changed: Share of pairs whose two values differ.
    """

    first: float
    second: float
    difference: Estimate
    p_these_models: float
    test: str
    p_any_seed: float
    odds_ratio: float
    cohens_h: float
    changed: float


def contrast(
    first: np.ndarray,
    second: np.ndarray,
    seed: int = 0,
    draws: int = 4000,
    bounds: tuple[float, float] | None = SHARE,
) -> Contrast:
    """All that is said about a pair of N.

    Args:
        first: Seeds x prompts under the one N.
        second: The same seeds and prompts under the other.
        seed: Seeds bootstrap and permutations.
        draws: Bootstrap samples.
        bounds: The least and greatest value possible (see `mean_over_seeds`), None for a quantity without bounds.

    Raises:
        ValueError: Matrices of different shapes, or values that are not finite or out of bounds.
    """
    first, second = _pairs(first, second, bounds)
    both = _both(first)
    one, other = (float(matrix[both].mean()) if both.any() else np.nan for matrix in (first, second))
    p_value, test = paired_test(first, second, seed)
    ratio, effect = _of_rates(one, other) if bounds == SHARE else (np.nan, np.nan)
    off = (second - first)[both]
    return Contrast(
        first=one,
        second=other,
        difference=difference(first, second, seed, draws, bounds),
        p_these_models=p_value,
        test=test,
        p_any_seed=_beyond(first, second, 0.0, seed, draws, bounds)[0] if _n_seeds(first) > 1 else np.nan,
        odds_ratio=ratio,
        cohens_h=effect,
        changed=float((off != 0).mean()) if off.size else np.nan,
    )


def difference(
    first: np.ndarray,
    second: np.ndarray,
    seed: int = 0,
    draws: int = 4000,
    bounds: tuple[float, float] | None = SHARE,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Second minus first, with an interval over prompts and seeds drawn together.

    One seed's flags: Tango's score interval (1998, Statistics in Medicine 17). Computed exactly, for rates from 0.02 to
    0.5 it covers 95.6 % on average with 40 prompts (93.2 to 99.5, the more where hardly a prompt changes) and 95.0 %
    with 100 (93.7 to 96.5). It excludes 0 where McNemar's test without the caution of its exact form does; with few
    changes the exact p value may still be above 0.05.

    Otherwise the interval is that of `mean_over_seeds` on the differences of pairs. Where the values have bounds, two
    prompts are added for it, one that changed wholly each way (Laplace's adjustment: Bonett & Price 2012, Journal of
    Educational and Behavioral Statistics 37(4)), so that no pair having changed is not certainty that none would.
    Simulated, it covers 92 to 98 %: the less where three seeds differ much (`benchmarks/README.md`).

    Args:
        first, second, seed, draws, bounds: As for `contrast`.
        confidence: Coverage of the interval.

    Returns:
        The difference in the unit of the values (rates: -1 to 1). Without a pair: nan and n = 0.

    Raises:
        ValueError: As for `contrast`.
    """
    first, second = _pairs(first, second, bounds)
    if changes := _changes(first, second, bounds):
        lost, won, n = changes
        return Estimate((won - lost) / n, *_score_interval(lost, won, n, confidence), n, first.size - n)
    plain = mean_over_seeds(second - first, seed, draws, None, confidence)
    if bounds is None or not plain.n:
        return plain
    most = bounds[1] - bounds[0]
    adjusted = mean_over_seeds(_adjusted(second - first, bounds), seed, draws, None, confidence)
    return replace(plain, low=max(adjusted.low, -most), high=min(adjusted.high, most))


def paired_test(first: np.ndarray, second: np.ndarray, seed: int = 0, resamples: int = 9999) -> tuple[float, str]:
    """Whether these models differ over prompts like these: two-sided p value, and the name of the test.

    One seed's flags: McNemar's exact test (1947; statsmodels). Otherwise a permutation test that swaps the two sides of
    a prompt, for all seeds at once (sign flips by prompt; scipy), because answers to one prompt are not independent.
    Both take the trained models as they are: other seeds might differ otherwise.

    Returns:
        p from 0 to 1, at least 1 / (resamples + 1) for the permutations; 1 where no pair differs; nan without a pair.

    Raises:
        ValueError: As for `contrast`.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    first, second = _pairs(first, second, None)
    both = _both(first)
    values = np.concatenate([first[both], second[both]])
    if _n_seeds(first) <= 1 and np.isin(values, (0.0, 1.0)).all():
        before, after = first[both].astype(bool), second[both].astype(bool)
        table = [[(before & after).sum(), (before & ~after).sum()], [(~before & after).sum(), (~before & ~after).sum()]]
        return float(mcnemar(table, exact=True).pvalue) if len(before) else np.nan, "exact McNemar"
    per_prompt = np.nansum(second - first, axis=0)  # a missing pair adds nothing, whichever its sign
    per_prompt = per_prompt[per_prompt != 0]
    if len(per_prompt) < 2:  # of a single prompt, both signs are as far from 0 (and scipy takes no such sample)
        return (1.0 if both.any() else np.nan), "paired permutation"
    found = permutation_test(
        (per_prompt,), np.sum, permutation_type="samples", n_resamples=resamples, batch=1000, vectorized=True, rng=seed
    )
    return float(found.pvalue), "paired permutation"


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of one family, corrected by Holm (1979; statsmodels): each holds for all of them together.

    A nan (no test) stays nan and does not count as a test.
    """
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p_values, dtype=float)
    tested = ~np.isnan(values)
    values[tested] = multipletests(values[tested], method="holm")[1]
    return values.tolist()


@dataclass(frozen=True)
class Equivalence:
    """Whether a difference is shown to be small.

    Attributes:
        difference: Second minus first; its low and high are the 90 % interval that belongs to two one-sided tests at 5
            %.
        margin: The difference that would matter, in the unit of the values.
        p_value: Of the two one-sided tests: small where the difference is shown to lie within the margin; nan if
            unknown.
        verdict: "equivalent": shown to be smaller than the margin. "different": shown to be larger. "open": neither; a
            difference that matters is not excluded.
    """

    difference: Estimate
    margin: float
    p_value: float
    verdict: str


def equivalence(
    first: np.ndarray,
    second: np.ndarray,
    margin: float,
    seed: int = 0,
    draws: int = 4000,
    bounds: tuple[float, float] | None = SHARE,
) -> Equivalence:
    """Two one-sided tests (Schuirmann 1987) of paired values, over prompts and seeds drawn together.

    One seed's flags are tested by Tango's score, to which the interval belongs; all else by the bootstrap of
    `difference`.

    Args:
        first, second, seed, draws, bounds: As for `contrast`.
        margin: The smallest difference that would matter, above 0; to be stated before the data are seen.

    Raises:
        ValueError: A margin that is not above 0; otherwise as for `contrast`.
    """
    if not margin > 0:
        raise ValueError(f"the margin must be above 0, not {margin}")
    found = difference(first, second, seed, draws, bounds, confidence=0.90)
    if np.isnan(found.low):
        return Equivalence(found, margin, np.nan, "open")
    p_value = max(_beyond(first, second, edge, seed, draws, bounds)[side] for edge, side in ((-margin, 1), (margin, 2)))
    verdict = "open"
    if -margin < found.low and found.high < margin:
        verdict = "equivalent"
    elif found.low > margin or found.high < -margin:
        verdict = "different"
    return Equivalence(found, margin, p_value, verdict)


def detectable_paired(n_prompts: int, changed: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest difference of two rates that McNemar's test finds, over the same prompts and with one seed.

    Connor (1987), Biometrics 43: n = (z_a sqrt(c) + z_b sqrt(c - d^2))^2 / d^2, solved for d.

    Args:
        n_prompts: Prompts judged under both N.
        changed: Share of prompts whose judgement differs between the two, above 0 to 1 (`Comparison.changed`).
        power: Chance of finding it.
        alpha: Level of the two-sided test.

    Returns:
        The difference, at most `changed`; nan where that many changes would not suffice even all in one direction.

    Raises:
        ValueError: A share out of range.
    """
    if not 0 < changed <= 1:
        raise ValueError(f"the share of changed prompts must be above 0 and at most 1, not {changed}")
    level, chance = norm.ppf(1 - alpha / 2), norm.ppf(power)

    def surplus(gap: float) -> float:
        return np.sqrt(n_prompts) * gap - level * np.sqrt(changed) - chance * np.sqrt(max(changed - gap**2, 0.0))

    return float(brentq(surplus, 0.0, changed)) if n_prompts and surplus(changed) >= 0 else np.nan


def _pairs(first: np.ndarray, second: np.ndarray, bounds: tuple[float, float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Both, with nan in either wherever the other lacks the value."""
    first, second = checked(first, bounds), checked(second, bounds)
    if first.shape != second.shape:
        raise ValueError(f"the two matrices differ in shape: {first.shape} and {second.shape}")
    absent = np.isnan(first) | np.isnan(second)
    return np.where(absent, np.nan, first), np.where(absent, np.nan, second)


def _both(matrix: np.ndarray) -> np.ndarray:
    return ~np.isnan(matrix)


def _n_seeds(matrix: np.ndarray) -> int:
    return int(_both(matrix).any(axis=1).sum())


def _changes(first: np.ndarray, second: np.ndarray, bounds: tuple[float, float] | None) -> tuple[int, int, int] | None:
    """Of one seed's flags: how many became false, how many true, of how many; None of anything else."""
    one, other = first[_both(first)], second[_both(first)]
    if bounds != SHARE or _n_seeds(first) != 1 or not np.isin([one, other], (0.0, 1.0)).all():
        return None
    return int((one > other).sum()), int((one < other).sum()), len(one)


def _score(supposed: float, lost: int, won: int, n: int) -> float:
    """How many standard errors the difference of one seed's flags lies above a supposed one, d (Tango 1998).

    The standard error is that which follows from d and from the share q of prompts becoming false that is likeliest
    under it, the larger root of 2 n q^2 - linear q - lost d (1 - d) = 0.
    """
    linear = lost + won - supposed * (2 * n + lost - won)
    falling = (linear + np.sqrt(max(linear**2 + 8 * n * lost * supposed * (1 - supposed), 0.0))) / (4 * n)
    variance = n * (2 * falling + supposed * (1 - supposed))
    return (won - lost - n * supposed) / np.sqrt(max(variance, 1e-12))  # 0 where d is -1, 1 or, without a change, 0


def _score_interval(lost: int, won: int, n: int, confidence: float) -> tuple[float, float]:
    """The differences that are no more standard errors away than that."""
    reach, middle = norm.ppf((1 + confidence) / 2), (won - lost) / n
    low = brentq(lambda at: _score(at, lost, won, n) - reach, -1.0, middle) if middle > -1 else -1.0
    high = brentq(lambda at: _score(at, lost, won, n) + reach, middle, 1.0) if middle < 1 else 1.0
    return float(low), float(high)


def _adjusted(off: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """The differences with two more prompts, one at either end.

    Over several seeds a prompt is neither one answer nor as many, so its end is divided by the root of their number:
    simulated, whole ends make the interval too wide.
    """
    judged = _both(off).any(axis=1)
    end = (bounds[1] - bounds[0]) / np.sqrt(max(judged.sum(), 1))
    return np.hstack([off, np.where(judged[:, None], [end, -end], np.nan)])


def _beyond(
    first: np.ndarray, second: np.ndarray, edge: float, seed: int, draws: int, bounds: tuple[float, float] | None
) -> tuple[float, float, float]:
    """p values against a true difference equal to `edge`: two-sided, for being above it, for being below it."""
    first, second = _pairs(first, second, bounds)
    if not _both(first).any():
        return np.nan, np.nan, np.nan
    if changes := _changes(first, second, bounds):
        score = _score(edge, *changes)
        return float(2 * norm.sf(abs(score))), float(norm.sf(score)), float(norm.cdf(score))
    variation = Variation.of(second - first if bounds is None else _adjusted(second - first, bounds))
    if not variation.variance > 0:
        return np.nan, np.nan, np.nan
    drawn = deviations([variation], seed, draws)[0]
    drawn = np.concatenate([drawn, -drawn])
    gap = variation.mean - edge

    def share(hits: np.ndarray) -> float:
        return float((hits.sum() + 1) / (len(hits) + 1))  # never 0: the data themselves are one of the draws

    return share(np.abs(drawn) >= abs(gap)), share(drawn >= gap), share(drawn <= gap)


def _of_rates(one: float, other: float) -> tuple[float, float]:
    """Odds ratio and Cohen's h of two rates."""
    from statsmodels.stats.proportion import proportion_effectsize

    if np.isnan(one):
        return np.nan, np.nan
    over, under = other * (1 - one), one * (1 - other)
    ratio = over / under if under else (np.inf if over else np.nan)
    return float(ratio), float(proportion_effectsize(other, one))
