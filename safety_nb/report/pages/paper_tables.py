"""The rates of a study as a table for a paper: Markdown and LaTeX."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from safety_nb.core.columns import N_SAFETY
from safety_nb.core.text import percent
from safety_nb.report.findings.deciding import BY_STANCE, Decision
from safety_nb.report.findings.published import KNOWN, Mark
from safety_nb.report.findings.rates import interval_text

if TYPE_CHECKING:
    import pandas as pd


def paper_table(rates: "pd.DataFrame", roles: Mapping[str, str], decision: Decision = BY_STANCE) -> "pd.DataFrame":
    """One row an N (and setting), one column an evaluation set and judge: the measure of its role, with its interval.

    Args:
        rates: What `rates.aggregate` returns.
        roles: Evaluation set to role.
        decision: What is counted on the sets of each role, and by whom.

    Returns:
        Text throughout. Columns: N and what else was swept, then "SET, WHAT (JUDGE)"; what was not judged says so.
    """
    import pandas as pd

    by = [name for name in rates.columns[: list(rates.columns).index("dataset")]]
    told = []
    for row in rates.to_dict("records"):
        role = roles.get(row["dataset"], "")
        measure = decision.measure(role)
        own = row["metric"] == decision.metric(role) and (measure is None or row["judge"] == measure.judge)
        if own or row["metric"] in ("unsafe_rate", "mean_score"):
            what = row["metric"].removesuffix("_rate").replace("_", " ")
            text = interval_text(row["metric"], row["estimate"], row["low"], row["high"])
            told.append(
                {
                    **{name: row[name] for name in by},
                    "column": f"{row['dataset']}, {what} ({row['judge']})",
                    "text": text,
                }
            )
    if not told:
        return pd.DataFrame(columns=["N" if name == N_SAFETY else name for name in by])
    wide = pd.DataFrame(told).pivot(index=by, columns="column", values="text")
    wide = wide[list(dict.fromkeys(row["column"] for row in told))].fillna("not judged").reset_index()
    wide.columns.name = None
    return wide.rename(columns={N_SAFETY: "N"}).astype(str)


def published_table(marks: Sequence[Mark]) -> "pd.DataFrame":
    """The paper's published numbers as a table of text: one row a model, with how each is known."""
    import pandas as pd

    rows = [[mark.name, percent(mark.unsafe), percent(mark.exaggerated), KNOWN[mark.known]] for mark in marks]
    return pd.DataFrame(rows, columns=["Published model", "Unsafe responses", "Exaggerated safety", "Known"])


def as_markdown(table: "pd.DataFrame") -> str:
    """A table of text as Markdown, numbers to the right."""

    def line(cells: list) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return (
        "\n".join([line(list(table.columns)), line(["---:"] * len(table.columns)), *map(line, table.values.tolist())])
        + "\n"
    )


def as_latex(table: "pd.DataFrame") -> str:
    """A table of text as LaTeX (packages booktabs and inputenc with UTF-8)."""
    return (
        table.style.hide(axis="index")
        .format(escape="latex")
        .format_index(escape="latex", axis=1)
        .to_latex(hrules=True, column_format="r" * len(table.columns))
    )
