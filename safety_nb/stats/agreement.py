"""How far two readings of the same answers agree: accuracy, Cohen's kappa, Matthews correlation, Krippendorff's alpha;
of scores the mean absolute error, bias and Spearman's correlation; of scores and two classes the AUC.

Arrays to numbers; knows no tables, no files and no labels' meaning. Kappa and correlation are computed of whole
stacks of confusion matrices at once, which a bootstrap of thousands of draws needs; a test holds them to
scikit-learn's. Krippendorff's alpha is here because its package has a licence (GPL) that this one cannot take on.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from scipy.stats import norm, t

from safety_nb.stats.estimates import CONFIDENCE, Estimate, rate


def confusion(truth: Sequence[int], judged: Sequence[int], k: int) -> np.ndarray:
    """How often class ``truth`` (row) was judged to be class ``judged`` (column), of classes 0 to k - 1."""
    return np.bincount(np.asarray(truth, int) * k + np.asarray(judged, int), minlength=k * k).reshape(k, k)


def accuracy(matrices: np.ndarray) -> np.ndarray:
    """The share on the diagonal of each matrix (shape ``... x k x k``); nan for an empty one."""
    return _share(np.trace(matrices, axis1=-2, axis2=-1), matrices.sum((-2, -1)))


def kappa(matrices: np.ndarray, quadratic: bool = False) -> np.ndarray:
    """Cohen's kappa of each matrix: agreement beyond chance, at most 1; 0 for none.

    nan where one class is all that the rows know: there is nothing to tell apart.

    Args:
        matrices: shape ``... x k x k``.
        quadratic: weigh a disagreement by the square of its distance (Cohen 1968), for classes that are scores.
    """
    k = matrices.shape[-1]
    distance = np.subtract.outer(np.arange(k), np.arange(k))
    weights = distance**2 if quadratic else distance != 0
    rows, columns = matrices.sum(-1), matrices.sum(-2)
    total = matrices.sum((-2, -1))
    expected = _share(np.einsum("...i,...j,ij->...", rows, columns, weights), total)
    return _defined(1 - _share((matrices * weights).sum((-2, -1)), expected), rows)


def matthews(matrices: np.ndarray) -> np.ndarray:
    """Matthews correlation of each matrix, of two or more classes (Gorodkin 2004), from -1 to 1.

    0 where the columns know one class only; nan where the rows do.
    """
    rows, columns = matrices.sum(-1).astype(float), matrices.sum(-2).astype(float)
    total = matrices.sum((-2, -1)).astype(float)
    together = np.trace(matrices, axis1=-2, axis2=-1) * total - (rows * columns).sum(-1)
    spread = (total**2 - (rows**2).sum(-1)) * (total**2 - (columns**2).sum(-1))
    correlation = np.where(spread > 0, together / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)
    return _defined(correlation, rows)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def _defined(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.where((rows > 0).sum(-1) > 1, values, np.nan)


def agreements(
    truth: Sequence[int], judged: Sequence[int], units: Sequence[Hashable], k: int, seed: int = 0, draws: int = 2000
) -> dict[str, Estimate]:
    """Accuracy, kappa and Matthews correlation (``mcc``) with 95 % intervals.

    Accuracy has a Wilson interval where every unit has one answer. All others are the 2.5 to 97.5 percentiles of a
    bootstrap over units. Where nothing disagrees a bootstrap would claim certainty: there the ends are those of
    accuracy, and for kappa and correlation what kappa is at that accuracy with the classes as frequent as they are.

    Args:
        truth, judged: classes 0 to k - 1 of the same answers.
        units: what is drawn of each answer: its prompt, which several models answer.
        k: number of classes.
        seed: of the bootstrap; the same input always gives the same interval.
    """
    n = len(truth)
    if not n:
        return dict.fromkeys(("accuracy", "kappa", "mcc"), Estimate(np.nan, np.nan, np.nan, 0, 0))
    names = {unit: place for place, unit in enumerate(dict.fromkeys(units))}
    # How many answers of each unit fall into each cell of the matrix; a draw of units is then a sum of rows.
    cells = np.zeros((len(names), k * k))
    np.add.at(cells, ([names[unit] for unit in units], np.asarray(truth, int) * k + np.asarray(judged, int)), 1)
    whole = cells.sum(0).reshape(k, k)
    # Units that fell into the same cells are the same to a draw: there are few kinds, however many units.
    kinds, counts = np.unique(cells, axis=0, return_counts=True)
    weights = np.random.default_rng(seed).multinomial(len(names), counts / len(names), size=draws)
    drawn = (weights @ kinds).reshape(draws, k, k)
    exact = np.trace(whole) == n
    low, high = _ends(rate([True] * len(names))) if exact else (np.nan, np.nan)
    chance = float(((whole.sum(-1) / n) * (whole.sum(-2) / n)).sum())
    found = {}
    for name, measure in (("accuracy", accuracy), ("kappa", kappa), ("mcc", matthews)):
        value = float(measure(whole))
        if np.isnan(value):
            ends = (np.nan, np.nan)
        elif exact:
            ends = (low, high) if name == "accuracy" else ((low - chance) / (1 - chance), 1.0)
        elif name == "accuracy" and len(names) == n:
            ends = _ends(rate((np.asarray(truth) == np.asarray(judged)).tolist()))
        else:
            tail = 100 * (1 - CONFIDENCE) / 2
            ends = tuple(np.nanpercentile(measure(drawn), [tail, 100 - tail]))
        found[name] = Estimate(value, float(ends[0]), float(ends[1]), n, 0)
    return found


def score_agreements(
    people: Sequence[float], judge: Sequence[float], units: Sequence[Hashable], seed: int = 0, draws: int = 2000
) -> dict[str, Estimate]:
    """How a judge's scores lie to people's of the same answers, with 95 % intervals by a bootstrap over units.

    Its standard errors are taken with the quantiles of Student's t, and for the correlation as those of Fisher's z: in
    simulations (50 and 100 answers) they cover 94 to 96 %, where percentiles cover 93 to 95 % and, of correlations of
    0.96, 90 %.

    Args:
        people, judge: finite scores on one scale; for ``spearman`` alone they need not be.
        units, seed: as for ``agreements``.

    Returns:
        ``mae``, the mean absolute error; ``bias``, the judge's mean less people's; and ``spearman``, nan where one side
        never varies. What is the same in every draw (of a single unit, where all errors are alike, a correlation of 1)
        has no interval (nan): a bootstrap would claim certainty.
    """
    y, f = np.asarray(people, float), np.asarray(judge, float)
    n, n_units = len(y), len(set(units))
    if not n:
        return dict.fromkeys(("mae", "bias", "spearman"), Estimate(np.nan, np.nan, np.nan, 0, 0))
    found = {}
    for name, errors in (("mae", np.abs(f - y)), ("bias", f - y)):
        drawn = _drawn(lambda weights, errors=errors: weights @ errors / weights.sum(1), units, seed, draws)
        reach = _quantile(n_units - 1) * drawn.std() if _varies(drawn) else np.nan
        mean, least = float(errors.mean()), 0.0 if name == "mae" else -np.inf
        found[name] = Estimate(mean, float(np.maximum(mean - reach, least)), float(mean + reach), n, 0)
    value, ends = float(_spearman(y, f, np.ones((1, n)))[0]), (np.nan, np.nan)
    if n_units > 1 and abs(value) < _MOST:
        drawn = np.clip(_drawn(lambda weights: _spearman(y, f, weights), units, seed, draws), -_MOST, _MOST)
        ends = np.tanh(np.arctanh(value) + np.array([-1, 1]) * _WIDTH * np.nanstd(np.arctanh(drawn)))
    found["spearman"] = Estimate(value, float(ends[0]), float(ends[1]), n, 0)
    return found


def auc(
    truth: Sequence[bool], scores: Sequence[float], units: Sequence[Hashable], seed: int = 0, draws: int = 2000
) -> Estimate:
    """How often the score of a true answer is above that of another, ties counting half, with a 95 % interval.

    It is placed within 0 and 1 as Wilson's is, with the standard error of a bootstrap over units and the quantile of
    Student's t for the rarer class: in simulations (30 to 300 answers, AUC 0.7 to 0.95) it covers 94 to 97 %, one of
    percentiles 90 to 93 %. Where all are in order, it is Wilson's for as many pairs, no two of which share a unit, as
    the rarer class has units.

    Args:
        truth: people's label of each answer, as one of two classes.
        scores: the judge's.
        units, seed: as for ``agreements``.

    Returns:
        The estimate; nan where there are not both classes; without an interval where one has a single unit.
    """
    flags, values = np.asarray(truth, bool), np.asarray(scores, float)
    n, value = len(flags), float("nan")
    rarer = min(len({unit for unit, flag in zip(units, flags, strict=True) if flag == side}) for side in (True, False))
    if rarer:
        value = float(_auc(flags, values, np.ones((1, n)))[0])
    if rarer < 2:
        return Estimate(value, np.nan, np.nan, n, 0)
    if value in (0.0, 1.0):
        single = rate([bool(value)] * rarer)
        return Estimate(value, single.low, single.high, n, 0)
    drawn = _drawn(lambda weights: _auc(flags, values, weights), units, seed, draws)
    if not _varies(drawn):
        return Estimate(value, np.nan, np.nan, n, 0)
    k = (_quantile(rarer - 1) * np.nanstd(drawn)) ** 2 / (value * (1 - value))
    half = np.sqrt(k * value * (1 - value) + k**2 / 4)
    return Estimate(value, float((value + k / 2 - half) / (1 + k)), float((value + k / 2 + half) / (1 + k)), n, 0)


_WIDTH = float(norm.ppf((1 + CONFIDENCE) / 2))  # of a standard error, on either side
_MOST = 1 - 1e-6  # of a correlation, so that its z is finite
_CELLS = 2_000_000  # of draws x answers that are held at once


def _drawn(measure: Callable[[np.ndarray], np.ndarray], units: Sequence[Hashable], seed: int, draws: int) -> np.ndarray:
    """A measure of bootstrap samples of units; it is given weights of answers, shape (some draws, answers)."""
    names = {unit: place for place, unit in enumerate(dict.fromkeys(units))}
    of_answer = np.array([names[unit] for unit in units])
    generator, found = np.random.default_rng(seed), []
    at_once = max(1, _CELLS // len(of_answer))
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        found.append(measure(counts[:, of_answer].astype(float)))
    return np.concatenate(found)


def _quantile(freedom: int) -> float:
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom))


def _varies(drawn: np.ndarray) -> bool:
    return not np.isnan(drawn).all() and bool(np.nanstd(drawn) > 1e-12)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each answer the weight of those below it, and half that of those equal to it; shape of ``weights``."""
    distinct, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(distinct)))
    of_value = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(of_value, axis=1) - of_value / 2)[:, place]


def _spearman(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The correlation of ranks (which average to half the total weight); nan where one side does not vary."""
    middle = weights.sum(1, keepdims=True) / 2
    a, b = _ranks(one, weights) - middle, _ranks(other, weights) - middle
    spread = np.sqrt((weights * a * a).sum(1) * (weights * b * b).sum(1))
    return np.where(spread > 0, (weights * a * b).sum(1) / np.where(spread > 0, spread, 1), np.nan)


def _auc(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """By the ranks of the true ones (Mann and Whitney); nan where a class is not there."""
    true = weights * truth
    n_true = true.sum(1)
    pairs = n_true * (weights.sum(1) - n_true)
    return _share((true * _ranks(scores, weights)).sum(1) - n_true**2 / 2, pairs)


def _ends(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


def cohens_kappa(
    one: Sequence[Hashable], other: Sequence[Hashable], classes: Sequence[Hashable], ordinal: bool = False
):
    """Kappa of two people's labels of the same items; quadratic weights where the classes are scores."""
    place = {name: number for number, name in enumerate(classes)}
    matrix = confusion([place[value] for value in one], [place[value] for value in other], len(classes))
    return float(kappa(matrix, quadratic=ordinal))


def krippendorffs_alpha(
    ratings: Sequence[Mapping[Hashable, Hashable]], classes: Sequence[Hashable], ordinal: bool = False
):
    """Krippendorff's alpha of several people's labels: 1 for perfect agreement, 0 for what chance gives.

    After Krippendorff 2011, "Computing Krippendorff's alpha-reliability". People need not have labelled the same
    items; an item with one label counts for nothing.

    Args:
        ratings: of each person, item to label.
        classes: the labels there are, in their order.
        ordinal: whether that order means something (scores).

    Returns:
        Alpha; nan where no item has two labels, or all labels are the same.
    """
    place = {name: number for number, name in enumerate(classes)}
    counts: dict[Hashable, np.ndarray] = {}
    for person in ratings:
        for item, value in person.items():
            counts.setdefault(item, np.zeros(len(classes)))[place[value]] += 1
    units = np.array([unit for unit in counts.values() if unit.sum() > 1]).reshape(-1, len(classes))
    pairs = units[:, :, None] * units[:, None, :] - units[:, :, None] * np.eye(len(classes))
    together = (pairs / (units.sum(1) - 1)[:, None, None]).sum(0)
    margin = together.sum(1)
    if (margin > 0).sum() < 2:
        return float("nan")
    distance = _ordinal(margin) if ordinal else 1 - np.eye(len(classes))
    expected = (np.outer(margin, margin) * distance).sum() / (margin.sum() - 1)
    return float(1 - (together * distance).sum() / expected)


def _ordinal(margin: np.ndarray) -> np.ndarray:
    """Krippendorff's squared distance: the labels that lie between two classes, with half of those at either end."""
    middle = np.cumsum(margin) - margin / 2
    return np.subtract.outer(middle, middle) ** 2
