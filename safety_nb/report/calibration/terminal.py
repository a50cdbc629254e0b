"""What people's labels say of judges, as text for a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safety_nb.core.text import percent_interval, shortened
from safety_nb.report.calibration.calibration import Calibration
from safety_nb.report.calibration.measures import SCORES
from safety_nb.report.findings.rates import interval_text

if TYPE_CHECKING:
    import pandas as pd


def as_text(found: Calibration) -> str:
    """The tables for a terminal, with what they rest on."""
    counts = {
        "answers have a human label": found.n_labelled,
        "answers have a human score": found.n_scored,
        "pairs of answers have a human preference": found.n_preferred,
    }
    told = "; ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "0 answers have a human label"
    parts = [f"{told}; {found.n_without:,} have none that people agree on."]
    if found.n_outdated:
        parts.append(f"{found.n_outdated:,} labels are of answers that are not there any more, and were left out.")
    of_labels, of_scores = (found.agreement[(found.agreement["classes"] == SCORES) == side] for side in (False, True))
    if found.agreement.empty:
        parts.append("No judge gives labels or scores that can be compared with these.")
    if len(of_labels):
        metrics = ["accuracy", "kappa", "mcc", "auc"]
        parts += ["Agreement with people (95 % intervals)", _lines(_agreement_shown(of_labels, metrics))]
    if len(found.confusion):
        parts += ["What people said (rows) and the judge (columns)", _lines(_confusion_shown(found.confusion))]
    if len(of_scores):
        title = "Scores beside people's (95 % intervals; bias: the judge's mean less people's)"
        parts += [title, _lines(_agreement_shown(of_scores, ["mae", "bias", "spearman", "auc"]))]
    if len(found.corrected):
        title = "Rates, as judged and corrected by the human labels"
        if "mean_score" in set(found.corrected["metric"]):
            title += " (mean scores: as judged on the judge's scale, corrected on people's)"
        parts += [title, _lines(_corrected_shown(found.corrected))]
    if len(found.wins):
        title = "How often people preferred the first run's answer to the other's (ties count half)"
        parts += [title, _lines(_wins_shown(found.wins))]
    return "\n\n".join(parts)


def _agreement_shown(table: "pd.DataFrame", metrics: Sequence[str]) -> "pd.DataFrame":
    """A row a judge, model and classes; n and n_missing are those of the first metric, another n stands in the cell."""
    import pandas as pd

    keys = ["judge", "model", "classes"]
    rows = []
    for key, group in table.groupby(keys, sort=False):
        n, n_missing = group[["n", "n_missing"]].iloc[0]
        cells = {row.metric: _number(row, n) for row in group.itertuples()}
        rows.append({**dict(zip(keys, key, strict=True)), "n": n, "n_missing": n_missing, **cells})
    names = [name for name in metrics if name in set(table["metric"])]
    return pd.DataFrame(rows)[[*keys, "n", "n_missing", *names]].fillna("")


def _wins_shown(table: "pd.DataFrame") -> "pd.DataFrame":
    ends = zip(table["win_rate"], table["low"], table["high"], strict=True)
    shown = table.drop(columns=["low", "high"])
    return shown.assign(win_rate=[percent_interval(*row) for row in ends])


def _confusion_shown(table: "pd.DataFrame") -> "pd.DataFrame":
    wide = table.pivot_table(index=["judge", "model", "human"], columns="judged", values="count", sort=False)
    return wide.fillna(0).astype(int).reset_index()


def _corrected_shown(table: "pd.DataFrame") -> "pd.DataFrame":
    shown = table[["run", "dataset", "judge", "metric"]].copy()
    ends = zip(table["metric"], table["raw"], table["raw_low"], table["raw_high"], strict=True)
    shown["judged"] = [interval_text(*row) for row in ends]
    ends = zip(table["metric"], table["estimate"], table["low"], table["high"], strict=True)
    shown["corrected"] = [note or interval_text(*row) for row, note in zip(ends, table["note"], strict=True)]
    return shown.assign(n=table["n"], n_missing=table["n_missing"], n_labelled=table["n_labelled"])


def _number(row: Any, n: int) -> str:
    if row.estimate != row.estimate:
        return "not defined"
    sign = "+" if row.metric == "bias" else ""
    ends = "no interval" if row.low != row.low else f"{row.low:{sign}.3f} to {row.high:{sign}.3f}"
    return f"{row.estimate:{sign}.3f} ({ends})" + (f", n {row.n}" if row.n != n else "")


def _lines(table: "pd.DataFrame") -> str:
    shown = table.map(lambda value: shortened(value, 48))
    return shown.to_string(index=False)
