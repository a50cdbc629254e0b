"""Arrays to estimates: a rate or a mean with its 95 % interval, its n and its count of missing.

Knows no files, no tables, no models and no plots. Whoever calls it decides what a value means. Two values of N over
the same prompts are compared in `paired.py`, several in `dose.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import binomtest, chi2, norm, qmc

CONFIDENCE = 0.95
SHARE = (0.0, 1.0)  # the bounds of a rate


@dataclass(frozen=True)
class Estimate:
    """A proportion, a mean or a difference, with what is needed to judge it.

    Attributes:
        estimate: The value, in the unit of what was averaged (a rate: 0 to 1); nan where nothing was judged.
        low: Lower end of the 95 % interval; nan where nothing was judged, or nothing is known of how values vary.
        high: Upper end of the 95 % interval; nan likewise.
        n: How many values the estimate rests on.
        n_missing: How many values should have been there and were not; they count neither way.
    """

    estimate: float
    low: float
    high: float
    n: int
    n_missing: int


def rate(flags: Sequence[bool | None]) -> Estimate:
    """The share of true flags, with a Wilson interval.

    The Wilson score interval (Wilson 1927) keeps close to its nominal coverage for small n and never has zero
    width, so 0 of 20 does not read as certainty.

    Args:
        flags: True, False, or None for a missing judgement.

    Returns:
        The estimate over the judged flags. Without any: nan, nan, nan, n = 0.

    Raises:
        ValueError: A flag is something other than True, False or None.
    """
    judged = [flag for flag in flags if flag is not None]
    for flag in judged:
        if flag not in (True, False):
            raise ValueError(f"a flag must be True, False or None (missing), not {flag!r}")
    n_missing = len(flags) - len(judged)
    if not judged:
        return Estimate(np.nan, np.nan, np.nan, 0, n_missing)
    count = sum(map(bool, judged))
    return Estimate(count / len(judged), *wilson(count, len(judged)), len(judged), n_missing)


def wilson(count: int, n: int) -> tuple[float, float]:
    """The ends of the Wilson score interval (Wilson 1927) of ``count`` in ``n``, at least 1."""
    interval = binomtest(count, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mean_over_seeds(
    matrix: np.ndarray,
    seed: int = 0,
    draws: int = 4000,
    bounds: tuple[float, float] | None = SHARE,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The mean over seeds and prompts, with an interval that allows for both being samples.

    The answers of one model to many prompts, and of many models to one prompt, are not independent. The interval is
    that of a bootstrap which resamples prompts and seeds together (`Variation`); where the values have bounds, it is
    put into them as Wilson's interval is, so that it never leaves them and never has zero width.

    Simulated (`benchmarks/coverage.py`), it covers 93 to 97 % of the time with 40 to 450 prompts and 3 seeds whose
    rates differ by what is usual; `benchmarks/README.md` has the figures. With two seeds it is wide, for two seeds say
    little of how much seeds differ; with one seed it is the interval of that one model over prompts and knows nothing
    of others.

    Args:
        matrix: Seeds in rows, prompts in columns; any finite numbers within the bounds, nan where missing. Several
            answers of one model to a prompt go in as their mean.
        seed: Seeds the bootstrap, so that the same matrix always gives the same interval.
        draws: Bootstrap samples.
        bounds: The least and the greatest value possible: (0, 1) for flags and shares, (0, 4) for such a score; None
            for a quantity without bounds.
        confidence: Coverage of the interval.

    Returns:
        The mean of all judged cells; n counts cells (judged answers), not prompts. Of one seed's flags it is exactly
        `rate`. Where all values are alike, as many independent answers are assumed as there are judged prompts (seeds
        answer the same ones); without bounds the ends are then nan. Without any judgement: nan, nan, nan, n = 0.

    Raises:
        ValueError: The matrix is not two-dimensional or holds something other than finite values within the bounds
            and nan.
    """
    matrix = checked(matrix, bounds)
    present = ~np.isnan(matrix)
    n, n_missing = int(present.sum()), int((~present).sum())
    if not n:
        return Estimate(np.nan, np.nan, np.nan, 0, n_missing)
    values = matrix[present]
    if present.any(axis=1).sum() == 1 and bounds == SHARE and confidence == CONFIDENCE and set(values) <= {0.0, 1.0}:
        single = rate(values.tolist())
        return Estimate(single.estimate, single.low, single.high, n, n_missing)
    variation = Variation.of(matrix)
    reach = np.quantile(np.abs(deviations([variation], seed, draws)[0]), confidence)
    ends = np.array([-1.0, 1.0])
    low, high = placed(variation, reach * ends, norm.ppf((1 + confidence) / 2) * ends, bounds)
    return Estimate(variation.mean, float(low), float(high), n, n_missing)


def missing_bounds(
    matrix: np.ndarray, bounds: tuple[float, float] = SHARE, seed: int = 0, draws: int = 4000
) -> tuple[Estimate, Estimate]:
    """What `mean_over_seeds` would be, had every missing value been the lowest, and had it been the highest.

    No assumption about why judgements are missing can lead outside from the first one's `low` to the second one's
    `high` (worst-case bounds, Manski 1989). Both have n_missing = 0.
    """
    matrix = checked(matrix, bounds)
    lowest, highest = (np.where(np.isnan(matrix), bound, matrix) for bound in bounds)
    return mean_over_seeds(lowest, seed, draws, bounds), mean_over_seeds(highest, seed, draws, bounds)


def win_rate(ours: np.ndarray, theirs: np.ndarray, seed: int = 0, draws: int = 4000) -> Estimate:
    """How often the first of two values is the larger, a tie counting half.

    Args:
        ours: Seeds in rows, prompts in columns: any score, higher is better; nan where missing.
        theirs: The same prompts and seeds under what it is compared with.

    Returns:
        The share of wins, 0 to 1, with the interval of `mean_over_seeds`; a pair that lacks a side is missing.

    Raises:
        ValueError: Matrices of different shapes, or with infinite values.
    """
    ours, theirs = checked(ours), checked(theirs)
    if ours.shape != theirs.shape:
        raise ValueError(f"the two matrices differ in shape: {ours.shape} and {theirs.shape}")
    return mean_over_seeds((np.sign(ours - theirs) + 1) / 2, seed, draws)


# The parts, which `paired` and `dose` use too


@dataclass(frozen=True)
class Variation:
    """The mean of seeds x prompts, and what its error is made of.

    Two-way random effects without replication, variance components by analysis of variance (Searle, Casella &
    McCulloch 1992, chapter 4). With missing cells the sums are those of each prompt's and seed's influence on the
    mean, an approximation.

    Attributes:
        mean: Mean of all judged cells.
        by_prompt: Each prompt's influence on the mean, shape (prompts,); they sum to 0.
        by_seed: Each seed's, shape (seeds,); 0 for one without judgements.
        of_prompts: Variance of the mean from the choice of prompts, the noise of single answers included.
        of_seeds: The same from the choice of seeds; 0 for one seed.
        of_cells: The part of each of the two that is noise of single answers; 0 for one seed.
        n_prompts: Prompts with any judgement.
        n_seeds: Seeds with any judgement.
    """

    mean: float
    by_prompt: np.ndarray
    by_seed: np.ndarray
    of_prompts: float
    of_seeds: float
    of_cells: float
    n_prompts: int
    n_seeds: int

    @classmethod
    def of(cls, matrix: np.ndarray) -> "Variation":
        """The variation of a matrix (seeds x prompts, nan where missing) that has any judgement."""
        present = ~np.isnan(matrix)
        n = present.sum()
        per_prompt, per_seed = present.sum(axis=0), present.sum(axis=1)
        n_prompts, n_seeds = int((per_prompt > 0).sum()), int((per_seed > 0).sum())
        mean = float(matrix[present].mean())
        off = np.where(present, matrix - mean, 0.0)
        by_prompt, by_seed = off.sum(axis=0) / n, off.sum(axis=1) / n
        of_prompts = n_prompts / (n_prompts - 1) * (by_prompt**2).sum() if n_prompts > 1 else 0.0
        of_seeds = n_seeds / (n_seeds - 1) * (by_seed**2).sum() if n_seeds > 1 else 0.0
        of_cells, freedom = 0.0, n - n_prompts - n_seeds + 1
        if n_seeds > 1 and freedom > 0:
            effects = by_prompt * n / np.maximum(per_prompt, 1) + (by_seed * n / np.maximum(per_seed, 1))[:, None]
            of_cells = (np.where(present, off - effects, 0.0) ** 2).sum() / freedom / n
        return cls(mean, by_prompt, by_seed, of_prompts, of_seeds, of_cells, n_prompts, n_seeds)

    @property
    def between_seeds(self) -> float:
        """The variance of the mean from seeds alone, never negative."""
        return max(self.of_seeds - self.of_cells, 0.0)

    @property
    def variance(self) -> float:
        """The variance of the mean."""
        return self.of_prompts + self.between_seeds


def deviations(variations: Sequence[Variation], seed: int, draws: int) -> np.ndarray:
    """Bootstrap deviations of several means of the same seeds and prompts, shape (means, draws).

    A draw takes the prompts with replacement. Three seeds drawn with replacement would vary too little and never beyond
    themselves, so a draw weighs them with normal numbers instead (a multiplier bootstrap: van der Vaart & Wellner 1996,
    section 2.9), by the variance left when the noise of single answers, which the prompts bring in already, is taken
    out. Each of the two is divided by the root of a mean square, as in Student's t: few seeds give long tails. All
    means share what was drawn.
    """
    n_seeds, n_prompts = len(variations[0].by_seed), len(variations[0].by_prompt)
    prompt_counts, seed_weights = _prompt_counts(seed, draws, n_prompts), _seed_weights(seed, draws, n_seeds)
    found = np.zeros((len(variations), draws))
    for row, part in zip(found, variations, strict=True):
        if part.of_prompts > 0:
            freedom = part.n_prompts - 1
            scale = np.sqrt(part.n_prompts / freedom) / _root_mean_square(seed, draws, n_seeds, freedom, 0)
            row += scale * (prompt_counts @ part.by_prompt)
        if part.between_seeds > 0:
            freedom = part.n_seeds - 1
            kept = part.between_seeds / part.of_seeds
            scale = np.sqrt(kept * part.n_seeds / freedom) / _root_mean_square(seed, draws, n_seeds, freedom, 1)
            row += scale * (seed_weights @ part.by_seed)
    return found


def placed(
    variation: Variation, deviation: np.ndarray, quantile: np.ndarray, bounds: tuple[float, float] | None
) -> np.ndarray:
    """The mean with deviations, within the bounds.

    An end of Wilson's interval is the value t whose distance from the estimate p is z standard errors *at t*, whose
    square is t (1 - t) / n. Here the deviation takes the place of z standard errors at p, with the same dependence on
    t.

    Args:
        deviation: In the unit of the values.
        quantile: The normal quantiles that stand in for the deviations where the values do not vary: then
            Wilson's interval for as many answers as there are prompts.
        bounds: As for `mean_over_seeds`.
    """
    degenerate = not variation.variance > 1e-12 * max(1.0, variation.mean**2)
    if bounds is None:
        return variation.mean + (np.full(np.shape(quantile), np.nan) if degenerate else deviation)
    low, high = bounds
    p = min(max((variation.mean - low) / (high - low), 0.0), 1.0)
    if degenerate:
        sign, k = np.sign(quantile), quantile**2 / variation.n_prompts
    else:
        sign, k = np.sign(deviation), (deviation / (high - low)) ** 2 / (p * (1 - p))
    share = (p + k / 2 + sign * np.sqrt(k) * np.sqrt(p * (1 - p) + k / 4)) / (1 + k)
    return low + (high - low) * np.clip(share, 0.0, 1.0)


def checked(matrix: np.ndarray, bounds: tuple[float, float] | None = None) -> np.ndarray:
    """The matrix as floats; ValueError unless it is seeds x prompts of finite values within the bounds, or nan."""
    matrix = np.asarray(matrix, dtype=float)
    if matrix.ndim != 2:
        raise ValueError(f"expected seeds x prompts, not an array of {matrix.ndim} dimension(s)")
    values = matrix[~np.isnan(matrix)]
    low, high = bounds or (-np.inf, np.inf)
    if not (np.isfinite(values) & (values >= low) & (values <= high)).all():
        within = f"values from {low:g} to {high:g}" if bounds else "finite values"
        raise ValueError(f"the matrix may hold only {within} and nan (missing)")
    return matrix


@lru_cache(maxsize=4)
def _prompt_counts(seed: int, draws: int, n_prompts: int) -> np.ndarray:
    """How often each prompt is drawn, shape (draws, prompts)."""
    found = np.random.default_rng(seed).multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=draws)
    return _shared(found.astype(float))


@lru_cache(maxsize=4)
def _seed_weights(seed: int, draws: int, n_seeds: int) -> np.ndarray:
    """Normal weights of the seeds, shape (draws, seeds)."""
    return _shared(norm.ppf(_spread(seed, draws, n_seeds)[:, :n_seeds]))


@lru_cache(maxsize=32)
def _root_mean_square(seed: int, draws: int, n_seeds: int, freedom: int, which: int) -> np.ndarray:
    """Of so many normal numbers, shape (draws,); `which` tells prompts (0) from seeds (1)."""
    return _shared(np.sqrt(chi2.ppf(_spread(seed, draws, n_seeds)[:, n_seeds + which], freedom) / freedom))


def _spread(seed: int, draws: int, n_seeds: int) -> np.ndarray:
    """Uniform numbers that fill the cube more evenly than independent ones (Halton): long tails need it."""
    return qmc.Halton(n_seeds + 2, rng=np.random.default_rng([seed, 1])).random(draws)


def _shared(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False  # the cache gives it to all who ask again
    return array
