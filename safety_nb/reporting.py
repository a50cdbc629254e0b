"""The pages of a run and of a study: reads their folders, computes the tables, and writes what the reader gets.

What a rate is stands in ``summary.py``, what a study finds in ``headline.py``, what a figure looks like in
``plots.py``, what a page looks like in ``report.py``; this module only brings them together.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from safety_nb import plots, report, runs, sources, summary
from safety_nb.headline import headline, headline_sets
from safety_nb.schema import ReportParams
from safety_nb.study import StudyTables, plan

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MINIATURE_NOTE = (
    "The base model is the embedded miniature, a language model of about a million weights in a world of cartoon "
    "villains. It really is trained and sampled, but it is no claim about large models."
)


def report_run(params: ReportParams) -> "pd.DataFrame":
    """Write ``summary.csv`` and ``report.html`` of a run.

    Returns:
        The summary: run, n_safety, seed, dataset, judge, metric, estimate, low, high, n, n_missing.
    """
    import pandas as pd

    run = runs.open_run(params.run_dir)
    runs.require(run, ["judgements.jsonl"], maker="judge")
    mixture = runs.read_json(run.mixture)
    judgements = pd.DataFrame(runs.read_jsonl(run.judgements))
    table = summary.summarise_run(judgements, run.root.name, mixture["n_safety"], mixture["seed"])
    runs.write_csv(run.summary, table)
    responses = pd.DataFrame(runs.read_jsonl(run.responses))
    # The first judge that labelled a response gives the label shown beside it.
    keys = [name for name in ("dataset", "prompt_id", "sample") if name in judgements]
    labels = judgements.drop_duplicates(keys)[[*keys, "label"]]
    page = report.run_page(
        run=run.root.name,
        params=yaml.safe_load(run.params.read_text(encoding="utf-8")) if run.params.is_file() else {},
        ledger=runs.read_ledger(run),
        mixture={**_without_lists(mixture), **_training_facts(run)},
        metrics=pd.read_csv(run.metrics),
        summary=table,
        answers=responses.merge(labels, how="left", on=keys),
        generation=runs.read_json(run.generation) if run.generation.is_file() else {},
        roles=sources.recorded_roles(run) or sources.roles(list(dict.fromkeys(responses["dataset"]))),
        samples=params.report_samples,
    )
    runs.write_text(run.report, page)
    return table


def _without_lists(mixture: dict[str, Any]) -> dict[str, Any]:
    """The record of a mixture without the ids of single rows, which its file keeps; their counts stand beside them."""
    return {name: value for name, value in mixture.items() if not isinstance(value, list)}


def _training_facts(run: runs.RunFolder) -> dict[str, Any]:
    record = runs.read_json(run.training)
    tokens = {f"supervised tokens of {source}": count for source, count in record.pop("supervised_tokens").items()}
    shown = ("truncated_rows", "dropped_rows", "four_bit_layers", "trainable_parameters", "device", "compute_dtype")
    return {**tokens, **{name: record[name] for name in shown}}


# --- a study ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """What a study says.

    Attributes:
        table: rates over the seeds, by the swept parameters, evaluation set, judge and metric.
        summary: one row a run and metric, the columns of ``summary.csv``.
        roles: evaluation set to role.
        groups: the combinations of what was swept besides N and seed; one empty dict when nothing was.
        headline: the finding, a short passage a group.
    """

    table: "pd.DataFrame"
    summary: "pd.DataFrame"
    roles: dict[str, str]
    groups: list[dict[str, Any]]
    headline: str


def compare(tables: StudyTables) -> Comparison:
    """Compute the comparison over the finished runs of a study."""
    import pandas as pd

    judgements = tables.judgements
    others = {name: values for name, values in tables.swept.items() if name not in ("n_safety", "seed")}
    groups = [dict(zip(others, combination, strict=True)) for combination in itertools.product(*others.values())]
    unknown = [name for name in dict.fromkeys(judgements["dataset"]) if name not in tables.roles]
    roles = {**tables.roles, **sources.roles(unknown)}
    table = summary.aggregate(judgements, by=["n_safety", *others])
    by_run = [
        summary.summarise_run(rows, run, n_safety, seed)
        for (run, n_safety, seed), rows in judgements.groupby(["run", "n_safety", "seed"], sort=False)
    ]
    return Comparison(
        table=table,
        summary=pd.concat(by_run, ignore_index=True) if by_run else pd.DataFrame(columns=summary.SUMMARY_COLUMNS),
        roles=roles,
        groups=groups,
        headline=headline(table, roles),
    )


def _described(group: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in group.items())


def _of_group(table: "pd.DataFrame", group: dict[str, Any]) -> "pd.DataFrame":
    for name, value in group.items():
        table = table[table[name] == value]
    return table.drop(columns=list(group))


def _refusals(comparison: Comparison, group: dict[str, Any]) -> "pd.DataFrame":
    """The rates of a group by the one judge whose refusals are drawn."""
    table = _of_group(comparison.table, group)
    return table[table["judge"] == summary.refusal_judge(table)]


def draw_trade_off(comparison: Comparison, group: dict[str, Any]) -> "Axes | None":
    """Harmful requests answered against look-alikes refused, a point an N; None without both kinds of prompts."""
    table = _refusals(comparison, group)
    harmful, lookalike = headline_sets(table, comparison.roles)
    return plots.trade_off(table, harmful, lookalike) if harmful and lookalike else None


def draw_dose_response(comparison: Comparison, group: dict[str, Any]) -> "Axes":
    """Refusals against N, a line an evaluation set."""
    return plots.dose_response(_refusals(comparison, group), comparison.roles)


def report_study(folder: Path, tables: StudyTables, comparison: Comparison) -> Path:
    """Write ``summary.csv``, ``headline.txt``, ``figures/`` and ``report.html`` of a study; the page's path."""
    runs.write_csv(folder / "summary.csv", comparison.summary)
    runs.write_text(folder / "headline.txt", comparison.headline + "\n")
    figures = _figures(comparison)
    for name, (_, figure, _, _) in figures.items():
        for ending in ("svg", "png"):
            with runs.replacing(folder / "figures" / f"{name}.{ending}") as temporary:
                figure.savefig(temporary, dpi=200, bbox_inches="tight")
    versions = [runs.read_ledger(runs.RunFolder(folder / run)).get("versions") for run in tables.runs["run"]]
    params = plan(tables.values)[0].params.model_dump(exclude={"run_dir"})
    page = report.study_page(
        study=folder.name,
        headline=comparison.headline,
        params={name: value for name, value in params.items() if name not in tables.swept},
        swept=tables.swept,
        table=comparison.table,
        summary=comparison.summary,
        figures=list(figures.values()),
        runs=tables.runs,
        roles=comparison.roles,
        note=MINIATURE_NOTE if params["base_model"] == "tiny" else "",
        versions=next(filter(None, versions), None),
        ended=_endings(folder, tables),
    )
    runs.write_text(folder / "report.html", page)
    return folder / "report.html"


def _endings(folder: Path, tables: StudyTables) -> "pd.DataFrame":
    """How the answers of the finished runs ended: run, then the columns of ``summary.endings``."""
    import pandas as pd

    done = [run for run, state in zip(tables.runs["run"], tables.runs["state"], strict=True) if state == runs.DONE]
    files = {run: runs.RunFolder(folder / run).responses for run in done}
    parts = [
        summary.endings(pd.DataFrame(runs.read_jsonl(file))).assign(run=run)
        for run, file in files.items()
        if file.is_file()
    ]
    columns = ["run", *summary.ENDING_COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _figures(comparison: Comparison) -> dict[str, tuple]:
    """File name to (title, figure, alternative text, caption), the trade-off first."""
    from matplotlib import pyplot

    figures = {}
    for group in comparison.groups:
        table, of_group = _refusals(comparison, group), f" ({_described(group)})" if group else ""
        suffix = "".join(f"_{name}-{value}" for name, value in group.items()).replace("/", "_")
        harmful, lookalike = headline_sets(table, comparison.roles)
        if axes := draw_trade_off(comparison, group):
            figures[f"trade-off{suffix}"] = (
                f"What each N buys and costs{of_group}",
                axes.figure,
                plots.trade_off_alt(table, harmful, lookalike),
                f"Requests of {harmful} answered against requests of {lookalike} refused. Bars are 95 % intervals.",
            )
        figures[f"dose-response{suffix}"] = (
            f"Refusals against N{of_group}",
            draw_dose_response(comparison, group).figure,
            plots.dose_response_alt(table, comparison.roles),
            "Share of prompts refused, by evaluation set. Bars are 95 % intervals.",
        )
    for _, figure, _, _ in figures.values():
        pyplot.close(figure)  # kept by us, not by pyplot: a notebook would show each a second time
    return figures
