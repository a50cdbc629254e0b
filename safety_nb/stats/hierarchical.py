"""One model of a side of a study: rates by N over evaluation sets, seeds and prompts at once.

The log odds of an answer are a level of its N, a deviation of its evaluation set, one of its seed, one of its seed at
its N, and one of the prompts that its set happens to hold. Arrays in, draws of rates out; knows no files or tables.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, softmax

from safety_nb.stats.dose import isotonic
from safety_nb.stats.estimates import SHARE, checked

# Standard deviations in log odds that are taken as known: of the prompts of a set, of the level of all N about LEVEL,
# and of the steps between neighbouring N.
PROMPTS_SD, LEVEL, LEVEL_SD, STEP_SD = 2.0, -1.0, 3.0, 5.0
# The others have half-t priors (Gelman 2006, section 3.2: weak, but finite): of seeds and of seeds at an N, and a wider
# one of sets. How often they lead to a false claim, and how often to none, is in benchmarks/README.md.
FREEDOM, SEEDS_SCALE, SETS_SCALE = 3.0, 0.35, 0.7
# Where the standard deviations are tried: of a seed, of a seed at an N, of a set.
SEED_SDS = (0.1, 0.3, 0.7, 1.4, 2.6)
SEED_DOSE_SDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.2)
SET_SDS = (0.05, 0.5, 1.5)
SHARED_BY_DOSES = 0.8  # of the variance of sets: what tells a set apart, it mostly does at every N
_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_MOST_STEPS, _CLOSE, _LONGEST_STEP = 50, 1e-4, 3.0
# Each draw goes so many ways of Hamiltonian Monte Carlo (Neal 2011) of so many steps of this length, in standard
# deviations of the approximation: from where that begins, they end at the quadrature of the tests.
_WAYS, _STEPS, _LENGTH = 4, 5, 0.5


@dataclass(frozen=True)
class Rates:
    """What is known of the rates of models of any seed to any prompts of these kinds.

    Attributes:
        doses: the N, ascending.
        draws: of the posterior, draws x sets x N; 0 to 1.
        falling: whether the rate is taken never to rise with N; otherwise never to fall.
        n_seeds: seeds that were judged.
        seeds_sd: median of the standard deviation between seeds at an N, in log odds; with one seed that of the prior.
    """

    doses: tuple[int, ...]
    draws: np.ndarray
    falling: bool
    n_seeds: int
    seeds_sd: float

    @cached_property
    def pooled(self) -> np.ndarray:
        """The mean over sets, monotone in N: draws x N. Sets weigh equally, however many prompts they have."""
        return self._monotone(self.draws.mean(axis=1))

    @cached_property
    def of_sets(self) -> np.ndarray:
        """Each set's rates, monotone in N: draws x sets x N."""
        return self._monotone(self.draws)

    def _monotone(self, draws: np.ndarray) -> np.ndarray:
        return np.clip(isotonic(draws, np.ones(len(self.doses)), self.falling), 0, 1)


def fit(
    doses: Sequence[int], sets: Sequence[Sequence[np.ndarray]], falling: bool, seed: int = 0, draws: int = 2000
) -> Rates:
    """Fit the model, and draw the rates that it leaves possible.

    Normal deviations, whose standard deviations are averaged over a grid by their posterior, after the Laplace
    approximation at each point of it (as in Rue, Martino and Chopin 2009). Draws of that are moved to the posterior
    itself, which is skewed where rates are near 0 or 1. The rate of an N is the mean over seeds, of which those that
    were trained are a sample: with few it is known by little more than the prior.

    Args:
        doses: the N, each once, in any order.
        sets: for each evaluation set and N its matrix: seeds in rows (the same for all), prompts in columns (the same
            for every N); 0 to 1, nan where missing.
        falling: as for `dose.fit`.
        seed: of the draws.
        draws: how many.

    Raises:
        ValueError: no set, an N twice, matrices of another number or shape, values out of 0 to 1, or nothing judged.
    """
    yes, n = _counts(doses, sets)
    order = np.argsort(doses)
    layout = _Layout(yes[:, order], n[:, order])
    modes = layout.modes()
    generator = np.random.default_rng(seed)
    chance = softmax([mode.log_posterior for mode in modes])
    parts, spreads = [], []
    for mode, count in zip(modes, generator.multinomial(draws, chance), strict=True):
        if count:
            parts.append(layout.rates(mode, int(count), generator))
            spreads += [float(np.hypot(*mode.sds[:2]))] * int(count)
    n_seeds = int((n.sum(axis=(0, 1)) > 0).sum())
    found = np.concatenate(parts)
    return Rates(tuple(sorted(doses)), found, falling, n_seeds, float(np.median(spreads)))


def _counts(doses: Sequence[int], sets: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Answers that count, and all that were judged: sets x N x seeds. Raises ValueError, as `fit`."""
    if not len(sets) or len(set(doses)) != len(doses) or any(len(matrices) != len(doses) for matrices in sets):
        raise ValueError(f"expected sets with one matrix for each of different N = {list(doses)}")
    matrices = [[checked(matrix, SHARE) for matrix in of_set] for of_set in sets]
    if len({len(matrix) for of_set in matrices for matrix in of_set}) > 1:
        raise ValueError("the matrices differ in their seeds")
    if any(len({matrix.shape for matrix in of_set}) > 1 for of_set in matrices):
        raise ValueError("the matrices of a set differ in their prompts")
    yes = np.array([[np.nansum(matrix, axis=1) for matrix in of_set] for of_set in matrices])
    n = np.array([[(~np.isnan(matrix)).sum(axis=1) for matrix in of_set] for of_set in matrices], dtype=float)
    if not n.any():
        raise ValueError("nothing was judged")
    return yes, n


@dataclass(frozen=True)
class _Mode:
    """The mode for given standard deviations, and the precision there."""

    sds: tuple[float, float, float]
    at: np.ndarray
    precision: np.ndarray
    log_posterior: float


class _Layout:
    """Where each deviation stands among the unknowns: levels of N, then of sets, seeds, seeds at N, and prompts."""

    def __init__(self, yes: np.ndarray, n: np.ndarray) -> None:
        self.sets, self.doses, self.seeds = n.shape
        self.several_sets, self.several_seeds = self.sets > 1, self.seeds > 1
        sizes = [
            self.doses,
            self.sets * self.doses * self.several_sets,
            self.seeds * self.several_seeds,
            self.seeds * self.doses * self.several_seeds,
            self.sets,
        ]
        ends = np.cumsum([0, *sizes])
        self.level, self.of_set, self.of_seed, self.of_seed_dose, self.of_prompts = map(slice, ends[:-1], ends[1:])
        self.size = int(ends[-1])
        self.n_prompts = n.max(axis=(1, 2))
        self.yes, self.n = yes.ravel(), n.ravel()
        self.design = self._design()
        self.mean = np.zeros(self.size)
        self.mean[self.level] = LEVEL

    def _design(self) -> np.ndarray:
        """Cells (sets x N x seeds) by unknowns: 1 where one has a part in the other."""
        of_set, dose, seed = (index.ravel() for index in np.indices((self.sets, self.doses, self.seeds)))
        design = np.zeros((len(dose), self.size))
        rows = np.arange(len(dose))
        design[rows, self.level.start + dose] = 1
        design[rows, self.of_prompts.start + of_set] = 1
        if self.several_sets:
            design[rows, self.of_set.start + of_set * self.doses + dose] = 1
        if self.several_seeds:
            design[rows, self.of_seed.start + seed] = 1
            design[rows, self.of_seed_dose.start + seed * self.doses + dose] = 1
        return design

    def prior(self, sds: tuple[float, float, float]) -> np.ndarray:
        """The precision of the unknowns before any answer is seen."""
        of_seed, of_seed_dose, of_set = sds
        found = np.zeros((self.size, self.size))
        steps = np.diff(np.eye(self.doses), axis=0)
        found[self.level, self.level] = np.eye(self.doses) / (self.doses * LEVEL_SD**2) + steps.T @ steps / STEP_SD**2
        if self.several_sets:
            shared = SHARED_BY_DOSES + (1 - SHARED_BY_DOSES) * np.eye(self.doses)
            found[self.of_set, self.of_set] = np.kron(np.eye(self.sets), np.linalg.inv(of_set**2 * shared))
        diagonal = np.einsum("ii->i", found)
        diagonal[self.of_seed], diagonal[self.of_seed_dose] = 1 / of_seed**2, 1 / of_seed_dose**2
        diagonal[self.of_prompts] = np.maximum(self.n_prompts, 1) / PROMPTS_SD**2
        return found

    def modes(self) -> list[_Mode]:
        """The mode at each point of the grid; each search begins where the one before it ended."""
        seeds = (SEED_SDS, SEED_DOSE_SDS) if self.several_seeds else ((SEEDS_SCALE,), (SEEDS_SCALE,))
        found, at = [], self.mean
        for sds in itertools.product(*seeds, SET_SDS if self.several_sets else (SETS_SCALE,)):
            prior = self.prior(sds)
            at, precision = self._climb(at, prior)
            odds, away = self.design @ at, at - self.mean
            likelihood = self.yes @ odds - self.n @ np.logaddexp(0, odds)
            known = np.linalg.slogdet(prior)[1] - np.linalg.slogdet(precision)[1] - away @ prior @ away
            before = sum(map(_log_half_t, sds, (SEEDS_SCALE, SEEDS_SCALE, SETS_SCALE)))
            # Points of the grid stand for slices about as wide as themselves.
            found.append(_Mode(sds, at, precision, float(likelihood + known / 2 + before + np.log(sds).sum())))
        return found

    def _climb(self, at: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Newton's way to the mode, and the precision there."""
        for _ in range(_MOST_STEPS):
            chance = expit(self.design @ at)
            weight = self.n * chance * (1 - chance)
            precision = self.design.T @ (weight[:, None] * self.design) + prior
            slope = self.design.T @ (self.yes - self.n * chance) - prior @ (at - self.mean)
            step = np.linalg.solve(precision, slope)
            longest = np.abs(step).max()
            at = at + step * min(1.0, _LONGEST_STEP / max(longest, _CLOSE))
            if longest < _CLOSE:
                break
        return at, precision

    def _drawn(self, mode: _Mode, draws: int, generator: np.random.Generator) -> np.ndarray:
        """Draws of the unknowns for given standard deviations, draws x unknowns."""
        prior = self.prior(mode.sds)
        root = np.linalg.inv(np.linalg.cholesky(mode.precision)).T  # unknowns in standard deviations, from the mode
        cells, yes, n = self.design @ root, self.yes[:, None], self.n[:, None]
        known, pull = root.T @ prior @ root, root.T @ prior @ (mode.at - self.mean)
        at_mode = (self.design @ mode.at)[:, None]

        def look(away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Log density and slope."""
            odds = at_mode + cells @ away
            chance, back = expit(odds), known @ away
            density = (yes * odds - n * np.logaddexp(0, odds)).sum(axis=0) - (away * (back / 2 + pull[:, None])).sum(0)
            return density, cells.T @ (yes - n * chance) - back - pull[:, None]

        away = generator.standard_normal((self.size, draws))
        density, slope = look(away)
        for _ in range(_WAYS):
            speed = generator.standard_normal(away.shape)
            energy = density - (speed**2).sum(axis=0) / 2
            to, to_slope = away, slope
            for _ in range(_STEPS):
                speed = speed + _LENGTH / 2 * to_slope
                to = to + _LENGTH * speed
                to_density, to_slope = look(to)
                speed = speed + _LENGTH / 2 * to_slope
            taken = np.log(generator.random(draws)) < to_density - (speed**2).sum(axis=0) / 2 - energy
            away, slope = np.where(taken, to, away), np.where(taken, to_slope, slope)
            density = np.where(taken, to_density, density)
        return (mode.at[:, None] + root @ away).T

    def rates(self, mode: _Mode, draws: int, generator: np.random.Generator) -> np.ndarray:
        """Rates of models of any seed to any prompts, draws x sets x N."""
        drawn = self._drawn(mode, draws, generator)
        odds = np.repeat(drawn[:, None, self.level], self.sets, axis=1)
        if self.several_sets:
            odds = odds + drawn[:, self.of_set].reshape(draws, self.sets, self.doses)
        spread = np.full(draws, np.hypot(*mode.sds[:2]))
        if not self.several_seeds:  # how far this one lies from the mean of all is known by the prior alone
            spread = np.hypot(*(SEEDS_SCALE * np.abs(generator.standard_t(FREEDOM, (2, draws)))))
            odds = odds - (spread * generator.standard_normal(draws))[:, None, None]
        return expit(odds[..., None] + spread[:, None, None, None] * _POINTS) @ _WEIGHTS


def _log_half_t(sd: float, scale: float) -> float:
    return -(FREEDOM + 1) / 2 * float(np.log1p((sd / scale) ** 2 / FREEDOM))
