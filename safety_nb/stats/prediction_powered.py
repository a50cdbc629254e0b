"""A rate or mean score of a judge's, corrected by the answers that people labelled: prediction-powered inference.

Angelopoulos, Duchi and Zrnic 2023, "PPI++: Efficient Prediction-Powered Inference" (arXiv 2311.01453): the judge's
mean over all answers, less what the judge errs by on the labelled ones, each weighted so that a useless judge does no
harm. Arrays to estimates; knows no tables and no files. Written out here because the authors' package (ppi-python)
brings numba, statsmodels and a downloader for one mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from safety_nb.stats.estimates import CONFIDENCE, SHARE, Estimate

FEWEST_LABELLED = 20  # below, no interval is to be trusted
_WIDTHS = float(norm.ppf((1 + CONFIDENCE) / 2))  # of a standard error, on either side


@dataclass(frozen=True)
class Corrected:
    """A corrected rate or mean score.

    Attributes:
        estimate: the mean with its 95 % interval; nan where too few are labelled. Its n counts the labelled.
        weight: how much the judge counts, from 0 (not at all: the people's mean alone) to 1.
    """

    estimate: Estimate
    weight: float


def corrected_mean(
    human: Sequence[float],
    judge: Sequence[float],
    judge_alone: Sequence[float],
    bounds: tuple[float, float] = SHARE,
) -> Corrected:
    """The mean of what people would say over all answers: a rate, or a score that has bounds.

    The labelled ones must be a random part of all. The estimate is that of PPI++. Its interval from the normal
    distribution is too narrow where labels are few or errors rare (of nominal 95 %, 83 to 93 % were covered with 100
    labels), and has no width where people and judge never differ; so it is computed as if the labelled had two more,
    one that people alone called true and one that the judge alone did (as Bonett and Price 2012 for the difference of
    paired proportions); of a score, people and the judge at its opposite ends. It then covers 95 % or a little more; of
    scores, 96 % to nearly all, the more the smaller the part of their scale that they keep to.

    Args:
        human, judge: what people and the judge said of each labelled unit: 1, 0, a share of its answers, or a score.
        judge_alone: what the judge said of each unit that nobody labelled.
        bounds: the least and the greatest value there can be.

    Raises:
        ValueError: human and judge differ in length, or hold something other than values within the bounds.
    """
    least, most = bounds
    span = most - least
    y, f, rest = ((np.asarray(values, dtype=float) - least) / span for values in (human, judge, judge_alone))
    if len(y) != len(f):
        raise ValueError(f"{len(y)} human labels for {len(f)} of the judge's")
    if not all(((values >= 0) & (values <= 1)).all() for values in (y, f, rest)):
        raise ValueError(f"this is a mean of values from {least:g} to {most:g}")
    n = len(y)
    if n < FEWEST_LABELLED:
        return Corrected(Estimate(np.nan, np.nan, np.nan, n, 0), np.nan)
    weight = _weight(y, f, rest)
    shift, noise = (weight * rest.mean(), weight**2 * rest.var() / len(rest)) if len(rest) else (0.0, 0.0)
    errors = y - weight * f
    widened = np.append(errors, [1.0, -weight])
    centre = shift + widened.mean()
    half = _WIDTHS * np.sqrt(noise + widened.var(ddof=1) / len(widened))
    value = float(np.clip(shift + errors.mean(), 0, 1))
    # A judge that errs one way may put the estimate itself beyond the bounds; what it estimates is not.
    low, high = min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))
    told = [float(least + span * part) for part in (value, low, high)]
    return Corrected(Estimate(*told, n, 0), weight)


def _weight(y: np.ndarray, f: np.ndarray, rest: np.ndarray) -> float:
    """The weight of the judge that makes the interval shortest; within 0 and 1, as in the paper."""
    spread = np.append(f, rest).var(ddof=1)
    if not len(rest) or not spread:
        return 0.0
    together = ((y - y.mean()) * (f - f.mean())).mean()
    return float(np.clip(together / spread / (1 + len(y) / len(rest)), 0, 1))
