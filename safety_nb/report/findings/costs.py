"""What safety demonstrations cost: capability, helpfulness, fit and willingness at each N, against the smallest N.

Matrices in, a tidy table and sentences out. Each cost is a difference over the same items and seeds, in points, above 0
where it is worse. Computes no statistics of its own; reads and draws nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from safety_nb.core.columns import N_SAFETY, RUN_KEYS
from safety_nb.report.findings import contrasts, deciding
from safety_nb.report.findings.rates import (
    SUMMARY_COLUMNS,
    difference_text,
    matrix,
    metric_values,
)
from safety_nb.stats import paired
from safety_nb.stats.estimates import SHARE, win_rate

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["measure", N_SAFETY, "against", "estimate", "low", "high", "verdict", "p_equivalence", "n", "n_missing"]
HELPFULNESS = ("helpfulness", "llm:helpfulness")  # judges of which a higher score is a better answer


@dataclass(frozen=True)
class Measure:
    """One measure of what a model is good for.

    Attributes:
        name: as figures and sentences have it.
        matrices: N to its values, seeds in rows and items (prompts, questions, rows) in columns, the same for every N;
            nan where missing.
        worse: 1 where a higher value is worse, -1 where a lower one is.
        bounds: least and greatest value, None for a quantity without bounds.
    """

    name: str
    matrices: Mapping[int, np.ndarray]
    worse: int
    bounds: tuple[float, float] | None = SHARE


def of_judgements(
    judgements: "pd.DataFrame", roles: Mapping[str, str], decision: deciding.Decision = deciding.BY_STANCE
) -> list[Measure]:
    """The measures that judgements hold: errors on harmless requests, facts, and wins against the smallest N.

    Args:
        judgements: Of one setting: n_safety, seed, dataset, prompt_id, judge, label, score, missing (and sample).
        roles: Evaluation set to role.
        decision: What counts as an error on harmless requests.
    """
    found = []
    values = metric_values(judgements)
    error = decision.harmless
    verb = "refused" if error.metric == "refusal_rate" else "withheld"
    for (dataset, judge, metric), rows in values.groupby(["dataset", "judge", "metric"], sort=False):
        role = roles.get(dataset, "")
        if role in ("lookalike", "ordinary") and (judge, metric) == (error.judge, error.metric):
            found.append(Measure(f"{dataset} {verb}", contrasts.by_dose(rows), worse=1))
        elif role == "facts" and metric == "accuracy":
            found.append(Measure(f"{dataset} correct", contrasts.by_dose(rows), worse=-1))
        elif role == "ordinary" and judge.startswith(HELPFULNESS) and metric == "mean_score":
            found.append(Measure(f"{dataset} preferred ({judge})", wins(contrasts.by_dose(rows)), worse=-1))
    return found


def of_items(items: "pd.DataFrame", name: str, worse: int, bounds: tuple[float, float] | None) -> Measure:
    """A measure of items that every model answered.

    Args:
        items: Columns n_safety, seed, prompt_id (the item), value.
    """
    return Measure(name, contrasts.by_dose(items), worse, bounds)


def wins(scores: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Scores to wins against the smallest N on the same prompt and seed: 1, 0, or a half for a tie."""
    first = scores[min(scores)]
    return {n: (np.sign(matrix - first) + 1) / 2 for n, matrix in scores.items()}


def win_rates(judgements: "pd.DataFrame", roles: Mapping[str, str]) -> "pd.DataFrame":
    """How often a run's answers to ordinary requests beat those of the smallest N and the same seed; ties count half.

    Args:
        judgements: As for `of_judgements`, and run.

    Returns:
        The columns of ``summary.csv``, metric ``win_rate``; a run of the smallest N has no rows, nor has one whose seed
        the smallest N lacks.
    """
    import pandas as pd

    values = metric_values(judgements)
    values = values[(values["metric"] == "mean_score") & (values["dataset"].map(roles) == "ordinary")]
    values = values[values["judge"].astype("str").str.startswith(HELPFULNESS)]
    rows = []
    for (dataset, judge), of_set in values.groupby(["dataset", "judge"], sort=False):
        first = of_set[N_SAFETY].min()
        for (run, n_safety, seed), ours in of_set[of_set[N_SAFETY] > first].groupby(RUN_KEYS):
            theirs = of_set[(of_set[N_SAFETY] == first) & (of_set["seed"] == seed)]
            if not len(theirs):
                continue
            one, other = matrix(ours), matrix(theirs)
            prompts = one.columns.union(other.columns, sort=False)
            won = win_rate(*(scores.reindex(columns=prompts).to_numpy(dtype=float) for scores in (one, other)))
            found = [won.estimate, won.low, won.high, won.n, won.n_missing]
            rows.append([run, n_safety, seed, dataset, judge, "win_rate", *found])
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def table(measures: Sequence[Measure], margin: float) -> "pd.DataFrame":
    """Each measure at each N against the smallest, in points.

    Args:
        margin: The difference that would matter, as a share: 0.05 for 5 points. A measure without bounds (a loss, in
            nats a token) is counted in hundredths, so that the same margin means 0.05 nats.

    Returns:
        The columns of COLUMNS. estimate, low, high: the difference in points, hundredths of the measure's unit, with
        its 95 % interval; above 0 where it is worse; nan where an N was not measured (n is 0), and low and high where
        all pairs differ alike. verdict: "equivalent" (shown to be within the margin: two
        one-sided tests at 5 %), "different" (shown to be outside it), or "open" (neither); p_equivalence: of those
        tests; n: pairs.
    """
    import pandas as pd

    rows = []
    for measure in measures:
        first, *others = sorted(measure.matrices)
        for n_safety in others:
            one, other = measure.matrices[first], measure.matrices[n_safety]
            found = paired.difference(one, other, bounds=measure.bounds)
            ends = sorted(100 * measure.worse * end for end in (found.low, found.high))
            within = paired.equivalence(one, other, margin, bounds=measure.bounds)
            rows.append(
                [
                    measure.name, n_safety, first, 100 * measure.worse * found.estimate, *ends, within.verdict,
                    within.p_value, found.n, found.n_missing,
                ]
            )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def sentences(costs: "pd.DataFrame", margin: float) -> list[str]:
    """What is shown and what is merely not excluded, a sentence a measure.

    Args:
        costs: What `table` returns.
        margin: As for `table`.
    """
    told = []
    points = f"{100 * margin:g} point{'' if margin == 0.01 else 's'}"
    for measure, rows in costs.groupby("measure", sort=False):
        within, open_, beyond = (
            [row for row in rows.itertuples() if row.verdict == verdict and row.n]
            for verdict in ("equivalent", "open", "different")
        )
        parts = []
        if within:
            parts.append(f"shown to stay within {points} at N = {_listed(within)}")
        if open_:
            parts.append(f"neither shown to stay within {points} nor to leave them at N = {_listed(open_)}")
        worse, better = ([row for row in beyond if (row.estimate > 0) == side] for side in (True, False))
        if worse:
            parts.append(f"shown to be worse by more than {points} at N = {_listed(worse)}")
        if better:
            parts.append(f"shown to be better by more than {points} at N = {_listed(better)}")
        if unknown := [f"{row.n_safety}" for row in rows.itertuples() if not row.n]:
            parts.append(f"nothing to compare at N = {', '.join(unknown)}")
        told.append(f"{measure}: {'; '.join(parts)}.")
    return told


def _listed(rows: Sequence) -> str:
    return ", ".join(f"{row.n_safety}: {difference_text(row.estimate, row.low, row.high)}" for row in rows)
