"""How far two readings of the same answers agree: accuracy, Cohen's kappa, Matthews correlation, Krippendorff's alpha.

Arrays to numbers; knows no tables, no files and no labels' meaning. Kappa and correlation are computed of whole
stacks of confusion matrices at once, which a bootstrap of thousands of draws needs; a test holds them to
scikit-learn's. Krippendorff's alpha is here because its package has a licence (GPL) that this one cannot take on.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from safety_nb.stats import CONFIDENCE, Estimate, rate


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
