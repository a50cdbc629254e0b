"""What the page of a run and the page of a study have in common: names, cells of rates, folds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safety_nb.core.columns import N_SAFETY
from safety_nb.core.text import percent, visible
from safety_nb.report.findings.deciding import Decision
from safety_nb.report.findings.rates import METRIC_NAMES, RATES, interval_text
from safety_nb.report.pages import page
from safety_nb.report.pages.page import Cell

if TYPE_CHECKING:
    import pandas as pd

# The metric that is an error on sets of a role, set in bold in the tables.
ERROR_METRICS = {
    "harmful": ("compliance_rate", "unsafe_rate", "delivery_rate"),
    "lookalike": ("refusal_rate", "undelivered_rate"),
    "ordinary": ("refusal_rate", "undelivered_rate"),
}
ROLE_NAMES = {
    "harmful": "harmful requests",
    "lookalike": "harmless look-alikes",
    "ordinary": "ordinary requests",
    "facts": "questions of fact",
}


def rate_heads(metrics: list[str]) -> list[Cell]:
    names = [METRIC_NAMES.get(metric, metric.replace("_", " ")).capitalize() for metric in metrics]
    return [Cell(name, number=True) for name in [*names, "n", "Missing"]]  # n, as N counts demonstrations


def rate_cells(group: "pd.DataFrame", metrics: list[str], role: str) -> list[Cell]:
    """The cells of one set: each metric with its interval, then n and missing."""
    rows = {row.metric: row for row in group.itertuples()}
    cells = []
    for metric in metrics:
        row = rows.get(metric)
        text = interval_text(metric, row.estimate, row.low, row.high) if row is not None else "—"
        cells.append(Cell(text, number=True, strong=metric in ERROR_METRICS.get(role, ())))
    # One judge's metrics share their n; should a table differ, every value is shown.
    for column in ("n", "n_missing"):
        cells.append(Cell(" / ".join(f"{value:,}" for value in dict.fromkeys(group[column])), number=True))
    return cells


def rate_caption(judge: str, metrics: list[str]) -> str:
    errors = {metric for of_role in ERROR_METRICS.values() for metric in of_role}
    bold = " The error of each set is in bold." if set(metrics) & errors else ""
    what = (
        "Share of judged answers"
        if set(metrics) & set(RATES)
        else "Mean over the judged answers, on the judge's scale,"
    )
    return f"Judge: {judge}. {what} with its 95 % interval.{bold}"


ENDING_NAMES = {"cut_off": "Cut off", "degenerate": "Degenerate", "no_answer": "No answer"}
ENDING_CAPTION = (
    "Cut off: the answer reached the longest length allowed. Degenerate: empty, the same over and over, or the prompt "
    "again; judges misread such text. No answer: missing from the rates."
)

PAIRS_NOTE = (
    "A judge of refusals counts an opinion that is given as an answer, whatever the opinion is: whether it is a "
    "harmful one, a judge of harmfulness tells, or the answers themselves."
)
SUSPECT_SHARE = 0.1  # of an evaluation set's answers; more that are cut off or degenerate are told


def of(count: int, of: int) -> str:
    return f"{count:,} ({percent(count / of)})" if count else "0"


def versions(ledger: Mapping) -> dict:
    """The ledger's versions, wherever it keeps them."""
    versions: dict = {}
    for holder in (ledger, *(ledger.get("stages") or {}).values()):
        versions |= holder.get("versions") or {}
    return versions


def definitions(decision: Decision) -> str:
    """What is counted, and by whom.

    In the terms of XSTest (Röttger et al. 2024) and StrongREJECT (Souly et al. 2024).
    """
    stance = (
        "Stance is how an answer sounds: a full refusal, a partial one, full compliance (XSTest's classes), or garbled."
    )
    if decision.by_stance:
        return (
            f"{stance} Harmful compliance is full compliance with a harmful request; a full or partial refusal of a "
            "harmless one is an error. Whether an answer gives what was asked does not count here."
        )
    if decision.harmless.metric == "undelivered_rate":
        error = "A harmless prompt of which nothing is delivered is an error, whatever the tone."
    elif decision.harmless.judge:
        error = f"On harmless prompts nobody judged delivery: a refusal is the error there ({decision.harmless.judge})."
    else:
        error = "Answers to harmless prompts were not judged."
    return (
        f"{stance} Delivery is whether it gives what was asked, whatever it says about it (StrongREJECT's question). "
        f"Delivered harm is the share of harmful requests that were delivered, by the judge {decision.named}. {error}"
    )


def stance_table(stances: "pd.DataFrame", caption: str) -> list[dict]:
    """How answers to harmful requests sound, by what they give (`deciding.stance_by_delivery`); none without any."""
    if not len(stances):
        return []
    several = stances[N_SAFETY].nunique() > 1
    names = list(stances.columns[2:])
    groups = []
    for n_safety, rows in stances.groupby(N_SAFETY):
        body = [
            [Cell(row["stance"].replace("_", " ")), *(Cell(f"{row[name]:,}", number=True) for name in names)]
            for row in rows.to_dict("records")
        ]
        groups.append((f"N = {n_safety}" if several else "", body))
    head = [Cell("Sounds like"), *(Cell(name.capitalize(), number=True) for name in names)]
    return [page.table(head, groups=groups, caption=caption)]


def params_fold(params: Mapping[str, Any], which: str = "") -> dict:
    return page.folded(counted(len(params), "parameter") + which, page.pairs_table(params, {}, code=True))


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def role(dataset: str, roles: Mapping[str, str]) -> str:
    return roles.get(dataset) or "no role"


def text_block(name: str, who: str, value: Any) -> dict:
    """A prompt or an answer, as the template takes it: shown as text, and cut where it is long."""
    text, left_out = visible(value)
    return {"name": name, "who": who, "text": text, "left_out": f"{left_out:,}" if left_out else ""}
