"""What the capability tasks of a run say: accuracy by task with its interval, and a sentence each."""

from typing import TYPE_CHECKING

from safety_nb.core import run_folder
from safety_nb.core.text import percent_interval
from safety_nb.generate.capabilities import judgements, questions_text, read, read_record
from safety_nb.report.findings.rates import summarise_run

if TYPE_CHECKING:
    import pandas as pd


def results(run: run_folder.RunFolder, tasks: list[str] | None = None) -> "pd.DataFrame":
    """The tasks measured of the run's adapter, one row each; of those named, or of all.

    Returns:
        Columns task, accuracy, low, high (95 %), n (questions asked), of (questions the task has), num_fewshot, and
        truncated: answers that did not fit into the model's context whole.
    """
    import pandas as pd

    kept = read_record(run)
    rates = {row["dataset"]: row for row in summary_rows(run).to_dict("records")}
    rows = []
    for name, row in rates.items():
        if tasks is not None and name not in tasks:
            continue
        task = kept["tasks"][name]
        parts = [kept["parts"][part] for part in task["parts"]]
        shown = sorted({part["num_fewshot"] for part in parts})
        facts = {"n": task["n"], "of": task["of"], "num_fewshot": ", ".join(map(str, shown))}
        truncated = sum(part["truncated"] for part in parts)
        rates_of = {"accuracy": row["estimate"], "low": row["low"], "high": row["high"]}
        rows.append({"task": name, **rates_of, **facts, "truncated": truncated})
    columns = ["task", "accuracy", "low", "high", "n", "of", "num_fewshot", "truncated"]
    return pd.DataFrame(rows, columns=columns)


def finding(table: "pd.DataFrame") -> str:
    """The results in a sentence each, as Markdown; a limit is told with every figure it touches."""
    lines = []
    for row in table.to_dict("records"):
        rate = percent_interval(row["accuracy"], row["low"], row["high"])
        cut = f" {row['truncated']:,} answers did not fit into the context whole." if row["truncated"] else ""
        lines.append(f"- **{row['task']}**: {rate} right of {questions_text(row)}.{cut}")
    return "\n".join(lines) or "Nothing was measured."


def summary_rows(run: run_folder.RunFolder, name: str = "", n_safety: int = 0, seed: int = 0) -> "pd.DataFrame":
    """The rows a run adds to ``summary.csv``: accuracy by task, with a Wilson interval."""
    return summarise_run(judgements(read(run)), name, n_safety, seed)
