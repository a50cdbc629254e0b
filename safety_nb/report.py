"""The report of a run and the comparison of a study, each composed as one HTML page.

Prompts and model output are untrusted: they are shown as text, never as markup, and harmful sets are folded.
Writes no files and knows no models; a page is returned as a string. What a page is made of stands in `page.py`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from safety_nb import page, plots
from safety_nb.page import Cell
from safety_nb.summary import RATES, endings, interval_text, percent, percent_interval, refusal_judge

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FEW_PROMPTS = 50  # below this, an interval is too wide to tell most N apart

METRIC_NAMES = {
    "refusal_rate": "refused",
    "partial_refusal_rate": "partly",  # of the refused
    "compliance_rate": "answered",
    "garbled_rate": "garbled",
    "accuracy": "correct",
    "unsafe_rate": "unsafe",
}
# The metric that is an error on sets of a role, set in bold in the tables.
ERROR_METRICS = {
    "harmful": ("compliance_rate", "unsafe_rate"),
    "lookalike": ("refusal_rate",),
    "ordinary": ("refusal_rate",),
}
ROLE_NAMES = {
    "harmful": "harmful requests",
    "lookalike": "harmless look-alikes",
    "ordinary": "ordinary requests",
    "facts": "questions of fact",
}
MIXTURE_NAMES = {
    "general": "General set",
    "n_general": "General examples",
    "safety": "Safety set",
    "n_safety": "Safety demonstrations",
    "safety_form": "Form of the safety demonstrations",
    "n_questions": "Demonstrations written as questions",
    "repeated": "Demonstrations that repeat another",
    "validation": "Validation set",
    "n_validation": "Validation examples",
    "seed": "Seed",
    "truncated_rows": "Examples cut at the length limit",
    "dropped_rows": "Examples left out",
    "trainable_parameters": "Weights trained",
    "four_bit_layers": "Layers in 4 bits",
    "compute_dtype": "Computed in",
    "supervised_tokens_general": "Supervised tokens, general",
    "supervised_tokens_safety": "Supervised tokens, safety",
    "truncated": "Examples cut at the length limit",
    "left_out": "Bad rows left out",
    "duplicates": "Training rows that ask what an earlier one asks",
    "duplicates_in_validation": "Validation rows that ask what a training row asks",
    "evaluation": "Evaluation prompts looked for in the mixture",
    "overlap": "Found there",
    "removed": "Rows removed for it",
    "evaluation_duplicates": "Evaluation prompts that repeat one of their set",
    "train_sha256": "SHA-256 of train.jsonl",
    "validation_sha256": "SHA-256 of validation.jsonl",
}


def run_page(
    *,
    run: str,
    params: Mapping[str, Any],
    ledger: Mapping[str, Any],
    mixture: Mapping[str, Any],
    metrics: "pd.DataFrame",
    summary: "pd.DataFrame",
    answers: "pd.DataFrame",
    roles: Mapping[str, str],
    samples: int,
    generation: Mapping[str, Any] | None = None,
) -> str:
    """The report of one run.

    Args:
        run: The run's name.
        params: Its parameters, flat.
        ledger: `run.json`: stages (state, wall_seconds, cause, ... by stage), versions, device; any may be
            absent.
        mixture: What went into training (n_general, n_safety, train_sha256, ...); every key there is shown.
        metrics: `train/metrics.csv`.
        summary: The run's rows of `summary.csv`.
        answers: Columns dataset, prompt_id, prompt, response, finish, label, and degenerate where it is known.
        roles: Evaluation set to role. A set without one is treated as harmful: its answers are folded.
        samples: Answers to show of each set, evenly spaced through it rather than picked.
        generation: How the answers were made (`generation.json`).

    Returns:
        A complete HTML document.
    """
    sections = [
        page.section("What the model did", *_run_rates(summary, roles)),
        page.section("How the answers ended", *_ending_blocks(answers, generation or {})),
        page.section("Sample answers", *_sample_blocks(answers, roles, samples)),
        page.section("What went in", page.pairs_table(mixture, MIXTURE_NAMES)),
        page.section(
            "Training",
            page.drawn(
                plots.loss_curve,
                (metrics,),
                size=(4.8, 3.1),
                alt=plots.loss_curve_alt(metrics),
                caption="Loss on the answer tokens. One run: the curve carries no interval.",
            ),
        ),
        page.section("Parameters", _params_fold(params)),
        page.section("Stages and versions", *_ledger_blocks(ledger)),
    ]
    return page.render(
        kicker="safety-nb · run report",
        title=run,
        lead=[_run_lead(params, mixture, summary, roles)],
        opening=[],
        sections=sections,
        version=_versions(ledger).get("safety-nb"),
    )


def study_page(
    *,
    study: str,
    headline: str,
    params: Mapping[str, Any],
    swept: Mapping[str, Sequence],
    table: "pd.DataFrame",
    summary: "pd.DataFrame",
    figures: Sequence[tuple[str, "Figure", str, str]],
    runs: "pd.DataFrame",
    roles: Mapping[str, str],
    note: str = "",
    versions: Mapping[str, str] | None = None,
    ended: "pd.DataFrame | None" = None,
) -> str:
    """The comparison over the runs of a study.

    Args:
        study: The study's name.
        headline: Its finding (`headline.headline`).
        params: The parameters all runs share.
        swept: Swept parameter to the values tried.
        table: What `summary.aggregate` returns.
        summary: `summary.csv` of all runs; says how many seeds and prompts there were.
        figures: (title, figure, alternative text, caption); the first opens the page, so put the trade-off
            there.
        runs: Columns run, state, n_safety, seed, wall_seconds, cause; one row a run, failed ones included.
        roles: Evaluation set to role.
        note: What else a reader must know, such as that the models are a miniature; "" for nothing.
        versions: Package to version, as the runs' ledgers have them.
        ended: How the answers of each run ended: run, then the columns of `summary.endings`.

    Returns:
        A complete HTML document; runs that are done link to `<run>/report.html`.
    """
    drawn = [page.picture(figure, title, alt, caption) for title, figure, alt, caption in figures]
    compared = (
        [
            Cell("Parameter"),
            Cell("Values tried"),
        ],
        [[Cell(str(name)), Cell(page.value_text(list(values)))] for name, values in swept.items()],
    )
    sets = [name for name in dict.fromkeys(table["dataset"])] if len(table) else []
    method = [
        page.table(
            [Cell("Evaluation set"), Cell("What it holds")],
            [[Cell(name), Cell(ROLE_NAMES.get(roles.get(name, ""), "no role given"))] for name in sets],
        ),
        page.paragraph(
            "Every model of a study answers the same prompts. A rate is the share of judged answers; the "
            "interval is the 95 % range of a bootstrap over seeds and prompts together, or Wilson's with one seed "
            "or where all answers were alike. Missing judgements count neither way."
        ),
        _params_fold(params, " shared by all runs"),
    ]
    if versions:
        method.append(page.folded("Versions", page.pairs_table(versions, {}, code=True)))
    sections = [
        page.section("What was compared", page.table(*compared), *_run_count(runs)),
        *([page.section("Figures", *drawn[1:])] if drawn[1:] else []),
        page.section("Rates", *_study_rates(table, roles)),
        *([] if ended is None or ended.empty else [page.section("How the answers ended", _study_endings(ended))]),
        page.section("Runs", _runs_table(runs)),
        page.section("What to be careful about", page.bullets(_threats(summary, runs, note, ended))),
        page.section("Method", *method),
    ]
    return page.render(
        kicker="safety-nb · study",
        title=study,
        lead=[headline, note] if note else [headline],
        opening=drawn[:1],
        sections=sections,
        version=(versions or {}).get("safety-nb"),
    )


def _run_lead(params: Mapping, mixture: Mapping, summary: "pd.DataFrame", roles: Mapping[str, str]) -> str:
    """What was trained on what, and the key rates."""

    def known(name: str):
        value = mixture.get(name)
        return params.get(name) if value is None else value

    n_general, n_safety = known("n_general"), known("n_safety")
    base = f"The base model {page.value_text(known('base_model'))}" if known("base_model") else "The base model"
    parts = []
    if n_general is not None:
        parts.append(f"{page.value_text(n_general)} general examples")
    if n_safety is not None:
        named = known("safety_form") if n_safety else None
        form = (
            " written as instructions and questions" if named == "mixed" else f" written as {named}s" if named else ""
        )
        parts.append(f"{page.value_text(n_safety) if n_safety else 'no'} safety demonstrations{form}")
    trained = f" was tuned on {' and '.join(parts)}" if parts else " was tuned"
    seed = f" (seed {params['seed']})" if params.get("seed") is not None else ""
    rates = [
        text
        for role, metric, words in (
            ("harmful", "compliance_rate", "answers {} of the harmful requests"),
            ("lookalike", "refusal_rate", "refuses {} of the harmless look-alikes"),
        )
        if (text := _role_rates(summary, roles, role, metric, words))
    ]
    finding = (
        f" It {'; it '.join(rates)}." if rates else " None of its answers to harmful or look-alike requests was judged."
    )
    return f"{base}{trained}{seed}.{finding}"


def _role_rates(summary: "pd.DataFrame", roles: Mapping, role: str, metric: str, words: str) -> str:
    rows = [
        row for row in summary[summary["metric"] == metric].itertuples() if roles.get(row.dataset) == role and row.n
    ]
    shown = [f"{percent_interval(row.estimate, row.low, row.high)} in {row.dataset}" for row in rows]
    if not shown:
        return ""
    first, *rest = shown
    rate, name = first.rsplit(" in ", 1)
    return words.format(rate) + f" in {name}" + "".join(f" and {other}" for other in rest)


def _run_rates(summary: "pd.DataFrame", roles: Mapping[str, str]) -> list[dict]:
    """The label shares as a figure, then a table for each judge."""
    if not len(summary):
        return [page.paragraph("No answer was judged.")]
    blocks = []
    refusals = summary[summary["judge"] == refusal_judge(summary)]
    if len(refusals):
        n_sets = refusals["dataset"].nunique()
        blocks.append(
            page.drawn(
                plots.label_shares,
                (refusals,),
                size=(4.8, 1.25 + 0.42 * max(n_sets, 2)),
                alt=plots.label_shares_alt(refusals),
                caption="What became of each prompt. The whisker is the 95 % interval of the refused share.",
            )
        )
    for judge, rows in summary.groupby("judge", sort=False):
        metrics = list(dict.fromkeys(rows["metric"]))
        body = [
            [
                Cell(dataset),
                Cell(_role(dataset, roles)),
                *_rate_cells(group, metrics, roles.get(dataset, "")),
            ]
            for dataset, group in rows.groupby("dataset", sort=False)
        ]
        head = [Cell("Evaluation set"), Cell("Role"), *_rate_heads(metrics)]
        blocks.append(page.table(head, body, caption=_rate_caption(judge, metrics), pinned=True))
    return blocks


def _study_rates(table: "pd.DataFrame", roles: Mapping[str, str]) -> list[dict]:
    """For each judge, the rates by evaluation set and by what was swept."""
    if not len(table):
        return [page.paragraph("No answer was judged.")]
    by = list(table.columns[: list(table.columns).index("dataset")])
    blocks = []
    for judge, rows in table.groupby("judge", sort=False):
        metrics = list(dict.fromkeys(rows["metric"]))
        groups = []
        for dataset, group in rows.groupby("dataset", sort=False):
            body = [
                [
                    *(Cell(page.value_text(value), number=page.is_number(value)) for value in key),
                    *_rate_cells(cells, metrics, roles.get(dataset, "")),
                ]
                for key, cells in group.groupby(by, sort=False, dropna=False)
            ]
            groups.append((f"{dataset} · {_role(dataset, roles)}", body))
        head = [Cell("N" if name == "n_safety" else name, number=page.is_number(table[name].iloc[0])) for name in by]
        head += _rate_heads(metrics)
        blocks.append(page.table(head, groups=groups, caption=_rate_caption(judge, metrics), pinned=True))
    return blocks


def _rate_heads(metrics: list[str]) -> list[Cell]:
    names = [METRIC_NAMES.get(metric, metric.replace("_", " ")).capitalize() for metric in metrics]
    return [Cell(name, number=True) for name in [*names, "n", "Missing"]]  # n, as N counts demonstrations


def _rate_cells(group: "pd.DataFrame", metrics: list[str], role: str) -> list[Cell]:
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


def _rate_caption(judge: str, metrics: list[str]) -> str:
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
SUSPECT_SHARE = 0.1  # of an evaluation set's answers; more that are cut off or degenerate are told


def _ending_blocks(answers: "pd.DataFrame", generation: Mapping[str, Any]) -> list[dict]:
    """How the answers of a run ended, by evaluation set, and how they were made."""
    blocks = []
    if len(answers):
        body = [
            [Cell(row["dataset"]), Cell(f"{row['answers']:,}", number=True)]
            + [Cell(_of(row[name], row["answers"]), number=True) for name in ENDING_NAMES]
            for row in endings(answers).to_dict("records")
        ]
        head = [Cell("Evaluation set"), Cell("Answers", number=True)]
        head += [Cell(name, number=True) for name in ENDING_NAMES.values()]
        blocks.append(page.table(head, body, caption=ENDING_CAPTION, pinned=True))
    if generation:
        blocks.append(page.folded("How they were made", page.pairs_table(generation, {}, code=True)))
    return blocks or [page.paragraph("There are no answers.")]


def _study_endings(ended: "pd.DataFrame") -> dict:
    """How the answers of all runs ended, by evaluation set, with the run that has the most of each."""
    body = []
    for dataset, rows in ended.groupby("dataset", sort=False):
        cells = [Cell(dataset), Cell(f"{rows['answers'].sum():,}", number=True)]
        for name in ENDING_NAMES:
            worst = rows.loc[(rows[name] / rows["answers"]).idxmax()]
            most = f", most in {worst['run']}: {percent(worst[name] / worst['answers'])}" if worst[name] else ""
            cells.append(Cell(_of(rows[name].sum(), rows["answers"].sum()) + most, number=True))
        body.append(cells)
    head = [Cell("Evaluation set"), Cell("Answers", number=True)]
    head += [Cell(name, number=True) for name in ENDING_NAMES.values()]
    return page.table(head, body, caption=ENDING_CAPTION, pinned=True)


def _of(count: int, of: int) -> str:
    return f"{count:,} ({percent(count / of)})" if count else "0"


def _incoherent(ended: "pd.DataFrame") -> str:
    """The runs' evaluation sets of which many answers are cut off or degenerate; the first few by name."""
    worst = ended[["cut_off", "degenerate"]].max(axis=1) / ended["answers"] > SUSPECT_SHARE
    names = [f"{row.dataset} of {row.run}" for row in ended[worst].itertuples()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _sample_blocks(answers: "pd.DataFrame", roles: Mapping[str, str], samples: int) -> list[dict]:
    """Evenly spaced answers of each set; folded unless the set is known to be harmless."""
    if not len(answers) or samples < 1:
        return [page.paragraph("No answers are shown.")]
    blocks = [page.paragraph("Evenly spaced through each set, not picked. Sets of harmful requests are folded.")]
    for dataset, rows in answers.groupby("dataset", sort=False):
        count = min(samples, len(rows))
        # Evenly spaced, so that a set ordered by type is seen across its types.
        chosen = rows.iloc[[place * len(rows) // count for place in range(count)]]
        shown = [_sample(row) for row in chosen.to_dict("records")]
        heading = f"{dataset} · {_role(dataset, roles)} · {count} of {len(rows):,}"
        folded = roles.get(dataset) not in ("lookalike", "ordinary", "facts")
        if folded:
            blocks.append(page.folded(heading, *shown, warning="may be offensive: open to read"))
        else:
            blocks.append({"kind": "group", "heading": heading, "blocks": shown})
    return blocks


def _sample(row: Mapping) -> dict:
    label = row.get("label")
    label = "missing" if label is None or label != label else str(label)
    finish = row.get("finish")
    texts = []
    for name in ("prompt", "response"):
        text, left_out = page.visible(row.get(name))
        texts.append({"name": name, "text": text, "left_out": f"{left_out:,}" if left_out else ""})
    return {
        "kind": "sample",
        "prompt_id": page.shortened(row.get("prompt_id"), 80),
        "label": page.shortened(label, 40),
        "cut": finish == "length",
        "texts": texts,
    }


def _ledger_blocks(ledger: Mapping) -> list[dict]:
    stages = ledger.get("stages") or {}
    blocks = []
    if stages:
        causes = any(stage.get("cause") for stage in stages.values())
        body = []
        for name, stage in stages.items():
            state = str(stage.get("state", "unknown"))
            # The page is written by the report stage itself, which cannot be done yet.
            shown = "writing this page" if name == "report" and state == "running" else state
            row = [
                Cell(str(name)),
                Cell(shown, state=state),
                Cell(page.seconds_text(stage.get("wall_seconds")), number=True),
            ]
            body.append(row + ([Cell(page.shortened(stage.get("cause"), 300), long=True)] if causes else []))
        head = [Cell("Stage"), Cell("State"), Cell("Wall time", number=True)]
        blocks.append(page.table(head + ([Cell("Cause")] if causes else []), body))
    devices = [ledger.get("device"), *(stage.get("device") for stage in stages.values())]
    devices = list(dict.fromkeys(page.value_text(device) for device in devices if device))
    if devices:
        blocks.append(page.paragraph(f"Device: {', '.join(devices)}."))
    versions = _versions(ledger)
    if versions:
        blocks.append(page.folded("Versions", page.pairs_table(versions, {}, code=True)))
    return blocks or [page.paragraph("The ledger is empty.")]


def _versions(ledger: Mapping) -> dict:
    """The ledger's versions, wherever it keeps them."""
    versions: dict = {}
    for holder in (ledger, *(ledger.get("stages") or {}).values()):
        versions |= holder.get("versions") or {}
    return versions


def _runs_table(runs: "pd.DataFrame") -> dict:
    """Every run with its state; the ones that are done link to their report."""
    if not len(runs):
        return page.paragraph("There are no runs.")
    head = [
        Cell("Run"),
        Cell("State"),
        Cell("N", number=True),
        Cell("Seed", number=True),
        Cell("Wall time", number=True),
        Cell("Cause"),
    ]
    body = []
    for row in runs.to_dict("records"):
        done = row["state"] == "done"
        # Quoted whole: a run's name can lead nowhere but into its own folder.
        href = f"./{quote(str(row['run']), safe='')}/report.html" if done else ""
        body.append(
            [
                Cell(str(row["run"]), href=href),
                Cell(str(row["state"]), state=str(row["state"])),
                Cell(page.value_text(row.get("n_safety")), number=True),
                Cell(page.value_text(row.get("seed"), plain=True), number=True),
                Cell(page.seconds_text(row.get("wall_seconds")), number=True),
                Cell(page.shortened(row.get("cause"), 300), long=True),
            ]
        )
    if not any(row[-1].text for row in body):
        head, body = head[:-1], [row[:-1] for row in body]
    return page.table(head, body, pinned=True)


def _params_fold(params: Mapping[str, Any], which: str = "") -> dict:
    return page.folded(_counted(len(params), "parameter") + which, page.pairs_table(params, {}, code=True))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _run_count(runs: "pd.DataFrame") -> list[dict]:
    if not len(runs):
        return []
    done = int((runs["state"] == "done").sum())
    if done == len(runs):
        return [page.paragraph(f"{_counted(len(runs), 'run')}, all done.")]
    return [
        page.paragraph(f"{done} of {len(runs)} runs are done; the others, listed under Runs, are not in the rates.")
    ]


def _threats(
    summary: "pd.DataFrame", runs: "pd.DataFrame", note: str, ended: "pd.DataFrame | None" = None
) -> list[str]:
    """What plainly applies to this study, from its own tables."""
    threats = []
    n_seeds = summary["seed"].nunique() if len(summary) else 0
    if n_seeds == 1:
        threats.append("One seed only: how much a second training run would differ is unknown and in no interval.")
    elif 1 < n_seeds < 5:
        threats.append(f"{n_seeds} seeds: the intervals know little of how much training runs differ.")
    if len(summary) and (summary["judge"] == "refusal").any():
        threats.append(
            "Refusals are judged by rules that were not calibrated against people's labels of this model's "
            "answers: read samples in the runs' reports before relying on a difference of a few per cent."
        )
    if len(summary):
        judged = summary.groupby("dataset", sort=False)[["n", "n_missing"]].first().sum(axis=1)
        small = [f"{name} ({count})" for name, count in judged.items() if count < FEW_PROMPTS]
        if small:
            threats.append(f"Few prompts in {', '.join(small)}: only large differences can show.")
        missing = summary[summary["n_missing"] > 0]
        if len(missing):
            names = ", ".join(dict.fromkeys(missing["dataset"]))
            threats.append(
                f"Some judgements are missing ({names}); if they are missing for a reason, the rates are off."
            )
    if ended is not None and (suspect := _incoherent(ended)):
        threats.append(
            f"Many answers are cut off or degenerate ({suspect}): judges misread such text, so look at samples first."
        )
    failed = int((runs["state"] != "done").sum()) if len(runs) else 0
    if failed:
        threats.append(f"{failed} of {len(runs)} runs are not done, so some N rest on fewer seeds than others.")
    threats.append("The best N is chosen on the same prompts it is reported on, which flatters it a little.")
    if note:
        threats.append(note)
    return threats


def _role(dataset: str, roles: Mapping[str, str]) -> str:
    return roles.get(dataset) or "no role"
