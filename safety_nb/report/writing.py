"""The pages of a run and of a study: reads their folders, computes the tables, and writes what the reader gets.

What is found stands in ``findings/``, what a figure looks like in ``plots/``, what a page looks like in ``pages/``;
this module only brings them together.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_nb.core import files, run_folder
from safety_nb.core.columns import N_SAFETY
from safety_nb.core.params import ReportParams
from safety_nb.data.datasets import sources
from safety_nb.report import study_tables
from safety_nb.report.calibration import calibration
from safety_nb.report.figures import study_figures
from safety_nb.report.findings import arms, deciding
from safety_nb.report.findings.comparison import Comparison
from safety_nb.report.findings.published import CAVEAT
from safety_nb.report.findings.rates import ENDING_COLUMNS, endings, summarise_run
from safety_nb.report.pages import paper_tables
from safety_nb.report.pages.answers_page import answers_page
from safety_nb.report.pages.run_page import run_page
from safety_nb.report.pages.study_page import StudyReport, study_page
from safety_nb.report.study_tables import StudyTables

if TYPE_CHECKING:
    import pandas as pd

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

    run = run_folder.open_run(params.run_dir)
    run_folder.require(run, ["judgements.jsonl"], maker="judge")
    mixture = files.read_record(run.mixture, study_tables.MIXTURE)
    judgements = pd.DataFrame(files.read_jsonl(run.judgements, study_tables.JUDGEMENT))
    responses = pd.DataFrame(files.read_jsonl(run.responses, study_tables.ANSWER))
    roles = sources.recorded_roles(run) or sources.roles(list(dict.fromkeys(responses["dataset"])))
    decision = deciding.decide(judgements["judge"], params.decided_by)
    judgements = deciding.deliveries(judgements, roles, decision)
    judged = study_tables.with_own_capabilities(judgements, run)
    roles = {**roles, **dict.fromkeys(judged["dataset"][len(judgements) :], "facts")}
    table = summarise_run(judged, run.root.name, mixture[N_SAFETY], mixture["seed"])
    files.write_csv(run.summary, table)
    # The first judge that labelled a response gives the label shown beside it.
    keys = [name for name in ("dataset", "prompt_id", "sample") if name in judgements]
    labels = judgements.drop_duplicates(keys)[[*keys, "label"]]
    page = run_page(
        run=run.root.name,
        params=files.read_yaml(run.params) if run.params.is_file() else {},
        ledger=run_folder.read_ledger(run),
        mixture={**_without_lists(mixture), **_training_facts(run)},
        metrics=pd.read_csv(run.metrics),
        summary=table,
        decision=decision,
        answers=responses.merge(labels, how="left", on=keys),
        generation=files.read_json(run.generation) if run.generation.is_file() else {},
        roles=roles,
        samples=params.report_samples,
        stances=deciding.stance_by_delivery(judgements.assign(**{N_SAFETY: mixture[N_SAFETY]}), roles, decision),
        pairs=arms.pairs(judgements.assign(**{N_SAFETY: mixture[N_SAFETY], "seed": mixture["seed"]}), _pairs(run)),
    )
    files.write_text(run.report, page)
    return table


def _pairs(run: run_folder.RunFolder) -> dict[tuple[str, str], tuple[str, str]]:
    """(evaluation set, prompt_id) to pair and type, of the prompts that are of a pair."""
    asked = files.read_jsonl(run.prompts) if run.prompts.is_file() else []
    keys = {(row["dataset"], row["prompt_id"]): row for row in asked if row.get("pair")}
    return {key: (row["pair"], row.get("type", "")) for key, row in keys.items()}


def _without_lists(mixture: dict[str, Any]) -> dict[str, Any]:
    """The record of a mixture without the ids of single rows, which its file keeps; their counts stand beside them."""
    return {name: value for name, value in mixture.items() if not isinstance(value, list)}


def _training_facts(run: run_folder.RunFolder) -> dict[str, Any]:
    record = files.read_record(run.training, {"supervised_tokens": dict})
    tokens = {f"supervised tokens of {source}": count for source, count in record.pop("supervised_tokens").items()}
    shown = ["truncated_rows", "dropped_rows", "four_bit_layers", "trainable_parameters", "device", "compute_dtype"]
    shown += ["eight_bit_layers"] * bool(record.get("eight_bit_layers"))
    return {**tokens, **{name: record[name] for name in shown if name in record}}


# --- a study ------------------------------------------------------------------------------------------------------


def report_study(folder: Path, tables: StudyTables, comparison: Comparison) -> Path:
    """Write what a reader of a study gets; the path of its page.

    That is ``summary.csv``, ``tests.csv``, ``table.md``, ``table.tex``, ``headline.txt``, ``figures/``,
    ``answers.html`` and ``report.html``; ``categories.csv`` where a judge gave category scores.
    """
    _write_tables(folder, comparison)
    figures = study_figures(comparison, _losses(folder, tables))
    for name, figure in figures.items():
        for ending in ("svg", "png"):
            with files.replacing(folder / "figures" / f"{name}.{ending}") as temporary:
                figure.drawn.savefig(temporary, dpi=200, bbox_inches="tight")
    said, versions = study_tables.answers(folder, tables), _versions(folder, tables)
    page = answers_page(folder.name, said, comparison.roles, versions.get("safety-nb"))
    files.write_text(folder / "answers.html", page)
    report = StudyReport(
        name=folder.name,
        tables=tables,
        comparison=comparison,
        figures=list(figures.values()),
        answers=said,
        ended=_endings(said),
        people=calibration.of_run(folder).agreement if len(said) and calibration.is_labelled(folder) else None,
        versions=versions,
        note=MINIATURE_NOTE if tables.shared.get("base_model") == "tiny" else "",
    )
    files.write_text(folder / "report.html", study_page(report))
    return folder / "report.html"


def _write_tables(folder: Path, comparison: Comparison) -> None:
    """Write ``summary.csv``, ``tests.csv``, ``table.md``, ``table.tex`` and ``headline.txt``.

    Where they say anything, ``guards.csv``, ``pairs.csv`` and ``categories.csv`` too.
    """
    for name, table in (("guards", comparison.guards), ("pairs", comparison.pairs)):
        if len(table):
            files.write_csv(folder / f"{name}.csv", table)
    if comparison.categories is not None:
        files.write_csv(folder / "categories.csv", comparison.categories)
    files.write_csv(folder / "summary.csv", comparison.summary)
    files.write_csv(folder / "tests.csv", comparison.tests)
    paper = paper_tables.paper_table(comparison.rates, comparison.roles, comparison.decision)
    markdown, latex = paper_tables.as_markdown(paper), paper_tables.as_latex(paper)
    if marks := next((setting.published for setting in comparison.settings if setting.published), ()):
        theirs = paper_tables.published_table(marks)
        markdown += f"\n{CAVEAT}\n\n{paper_tables.as_markdown(theirs)}"
        latex += f"\n\\medskip\n{CAVEAT}\n\n{paper_tables.as_latex(theirs)}"
    files.write_text(folder / "table.md", markdown)
    files.write_text(folder / "table.tex", latex)
    files.write_text(folder / "headline.txt", f"{comparison.answer}\n\n{comparison.details}\n")


def _versions(folder: Path, tables: StudyTables) -> dict[str, str]:
    """Package to version, of the first run whose ledger has them."""
    ledgers = (run_folder.read_ledger(run_folder.RunFolder(folder / run)) for run in tables.runs["run"])
    return next((found for ledger in ledgers if (found := ledger.get("versions"))), {})


def _endings(said: "pd.DataFrame") -> "pd.DataFrame":
    """How the answers of each run ended: run, then the columns of ``rates.endings``."""
    import pandas as pd

    parts = [endings(rows).assign(run=run) for run, rows in said.groupby("run", sort=False)]
    columns = ["run", *ENDING_COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _losses(folder: Path, tables: StudyTables) -> dict[str, float]:
    """Run to its loss on general validation rows, in nats a token; runs without one are left out."""
    losses = {}
    for row, run in study_tables.finished(folder, tables):
        mixture = files.read_record(run.mixture, {})
        by_source = files.read_record(run.training, {}).get("validation_losses") or {}
        general = [loss for source, loss in by_source.items() if source != mixture.get("safety")]
        if len(general) == 1:
            losses[row["run"]] = general[0]
    return losses
