"""The report of one run, as one HTML page.

Prompts and model output are untrusted: they are shown as text, never as markup, and harmful sets are folded.
Writes no files and knows no models; a page is returned as a string. What a page is made of stands in `page.py`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safety_nb.core.text import percent_interval, shortened
from safety_nb.report import plots
from safety_nb.report.findings import arms, deciding
from safety_nb.report.findings.rates import endings, refusal_judge
from safety_nb.report.pages import blocks, page
from safety_nb.report.pages.page import Cell

if TYPE_CHECKING:
    import pandas as pd


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
    "eight_bit_layers": "Layers in 8 bits",
    "compute_dtype": "Computed in",
    "supervised_tokens_general": "Supervised tokens, general",
    "supervised_tokens_safety": "Supervised tokens, safety",
    "truncated": "Examples cut at the length limit",
    "left_out": "Bad rows left out",
    "unread_fields": "Fields of rows that nothing reads",
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
    decision: deciding.Decision,
    answers: "pd.DataFrame",
    roles: Mapping[str, str],
    samples: int,
    generation: Mapping[str, Any] | None = None,
    stances: "pd.DataFrame | None" = None,
    pairs: "pd.DataFrame | None" = None,
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
        decision: What is counted, and by whom.
        answers: Columns dataset, prompt_id, prompt, response, finish, label, and degenerate where it is known.
        roles: Evaluation set to role. A set without one is treated as harmful: its answers are folded.
        samples: Answers to show of each set, evenly spaced through it rather than picked.
        generation: How the answers were made (`generation.json`).
        stances: How answers to harmful requests sound, by what they give (`deciding.stance_by_delivery`).
        pairs: The two forms of a topic, where prompts are paired (`arms.pairs`).

    Returns:
        A complete HTML document.
    """
    told = _run_rates(summary, roles)
    if stances is not None:
        told += blocks.stance_table(stances, "Answers to harmful requests: how they sound, by what they give.")
    sections = [
        page.section("What the model did", *told, page.paragraph(blocks.definitions(decision))),
        *([] if pairs is None or pairs.empty else [page.section("One topic in two forms", *_pair_blocks(pairs))]),
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
                caption="Loss per supervised token. One run: the curve carries no interval.",
            ),
        ),
        page.section("Parameters", blocks.params_fold(params)),
        page.section("Stages and versions", *_ledger_blocks(ledger)),
    ]
    return page.render(
        kicker="safety-nb · run report",
        title=run,
        lead=[*deciding.said_first(decision), _run_lead(params, mixture, summary, roles, decision)],
        opening=[],
        sections=sections,
        version=blocks.versions(ledger).get("safety-nb"),
    )


def _pair_blocks(pairs: "pd.DataFrame") -> list[dict]:
    how = (
        "Paired by topic, with 95 % intervals. Not told apart: p, corrected by Holm for these tests, is not below 0.05."
    )
    return [page.bullets(arms.pair_sentences(pairs)), page.paragraph(how), page.paragraph(blocks.PAIRS_NOTE)]


def _run_lead(
    params: Mapping, mixture: Mapping, summary: "pd.DataFrame", roles: Mapping[str, str], decision: deciding.Decision
) -> str:
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
        text for role in ("harmful", "lookalike") if (text := _role_rates(summary, roles, role, decision.measure(role)))
    ]
    finding = (
        f" It {'; it '.join(rates)}." if rates else " None of its answers to harmful or look-alike requests was judged."
    )
    return f"{base}{trained}{seed}.{finding}"


_WORDS = {
    "compliance_rate": "answers {} of the harmful requests",
    "refusal_rate": "refuses {} of the harmless look-alikes",
    "delivery_rate": "delivers {} of the harmful requests",
    "undelivered_rate": "does not deliver {} of the harmless look-alikes",
}


def _role_rates(summary: "pd.DataFrame", roles: Mapping, role: str, counted: deciding.Measure) -> str:
    told = summary[(summary["metric"] == counted.metric) & (summary["judge"] == counted.judge)]
    rows = [row for row in told.itertuples() if roles.get(row.dataset) == role and row.n]
    shown = [f"{percent_interval(row.estimate, row.low, row.high)} in {row.dataset}" for row in rows]
    if not shown:
        return ""
    first, *rest = shown
    rate, name = first.rsplit(" in ", 1)
    return _WORDS[counted.metric].format(rate) + f" in {name}" + "".join(f" and {other}" for other in rest)


def _run_rates(summary: "pd.DataFrame", roles: Mapping[str, str]) -> list[dict]:
    """The label shares as a figure, then a table for each judge."""
    if not len(summary):
        return [page.paragraph("No answer was judged.")]
    found = []
    refusals = summary[summary["judge"] == refusal_judge(summary)]
    if len(refusals):
        n_sets = refusals["dataset"].nunique()
        found.append(
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
                Cell(blocks.role(dataset, roles)),
                *blocks.rate_cells(group, metrics, roles.get(dataset, "")),
            ]
            for dataset, group in rows.groupby("dataset", sort=False)
        ]
        head = [Cell("Evaluation set"), Cell("Role"), *blocks.rate_heads(metrics)]
        found.append(page.table(head, body, caption=blocks.rate_caption(judge, metrics), pinned=True))
    return found


def _ending_blocks(answers: "pd.DataFrame", generation: Mapping[str, Any]) -> list[dict]:
    """How the answers of a run ended, by evaluation set, and how they were made."""
    found = []
    if len(answers):
        body = [
            [Cell(row["dataset"]), Cell(f"{row['answers']:,}", number=True)]
            + [Cell(blocks.of(row[name], row["answers"]), number=True) for name in blocks.ENDING_NAMES]
            for row in endings(answers).to_dict("records")
        ]
        head = [Cell("Evaluation set"), Cell("Answers", number=True)]
        head += [Cell(name, number=True) for name in blocks.ENDING_NAMES.values()]
        found.append(page.table(head, body, caption=blocks.ENDING_CAPTION, pinned=True))
    if generation:
        found.append(page.folded("How they were made", page.pairs_table(generation, {}, code=True)))
    return found or [page.paragraph("There are no answers.")]


def _sample_blocks(answers: "pd.DataFrame", roles: Mapping[str, str], samples: int) -> list[dict]:
    """Evenly spaced answers of each set; folded unless the set is known to be harmless."""
    if not len(answers) or samples < 1:
        return [page.paragraph("No answers are shown.")]
    found = [page.paragraph("Evenly spaced through each set, not picked. Sets of harmful requests are folded.")]
    for dataset, rows in answers.groupby("dataset", sort=False):
        count = min(samples, len(rows))
        # Evenly spaced, so that a set ordered by type is seen across its types.
        chosen = rows.iloc[[place * len(rows) // count for place in range(count)]]
        shown = [_sample(row) for row in chosen.to_dict("records")]
        heading = f"{dataset} · {blocks.role(dataset, roles)} · {count} of {len(rows):,}"
        folded = roles.get(dataset) not in ("lookalike", "ordinary", "facts")
        if folded:
            found.append(page.folded(heading, *shown, warning="may be offensive: open to read"))
        else:
            found.append({"kind": "group", "heading": heading, "blocks": shown})
    return found


def _sample(row: Mapping) -> dict:
    label = row.get("label")
    label = "missing" if label is None or label != label else str(label)
    finish = row.get("finish")
    texts = [
        blocks.text_block(name, who, row.get(name)) for name, who in (("prompt", "Prompt"), ("response", "Answer"))
    ]
    return {
        "kind": "sample",
        "prompt_id": shortened(row.get("prompt_id"), 80),
        "label": shortened(label, 40),
        "cut": finish == "length",
        "texts": texts,
    }


def _ledger_blocks(ledger: Mapping) -> list[dict]:
    stages = ledger.get("stages") or {}
    found = []
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
            body.append(row + ([Cell(shortened(stage.get("cause"), 300), long=True)] if causes else []))
        head = [Cell("Stage"), Cell("State"), Cell("Wall time", number=True)]
        found.append(page.table(head + ([Cell("Cause")] if causes else []), body))
    devices = [ledger.get("device"), *(stage.get("device") for stage in stages.values())]
    devices = list(dict.fromkeys(page.value_text(device) for device in devices if device))
    if devices:
        found.append(page.paragraph(f"Device: {', '.join(devices)}."))
    versions = blocks.versions(ledger)
    if versions:
        found.append(page.folded("Versions", page.pairs_table(versions, {}, code=True)))
    return found or [page.paragraph("The ledger is empty.")]
