"""The comparison over the runs of a study, as one HTML page.

Prompts and model output are untrusted: they are shown as text, never as markup, and harmful sets are folded.
Writes no files and knows no models; a page is returned as a string. What a page is made of stands in `page.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from safety_nb.core.columns import N_SAFETY
from safety_nb.core.text import percent, setting_text, shortened
from safety_nb.report import plots
from safety_nb.report.calibration.measures import ALL_MODELS
from safety_nb.report.findings import arms, costs
from safety_nb.report.findings.comparison import where
from safety_nb.report.findings.published import CAVEAT
from safety_nb.report.findings.rates import METRIC_NAMES, RATES, difference_text, refusal_judge, value_text
from safety_nb.report.pages import blocks, page
from safety_nb.report.pages.page import Cell
from safety_nb.report.pages.paper_tables import published_table

if TYPE_CHECKING:
    import pandas as pd

    from safety_nb.report.figures import Figure
    from safety_nb.report.findings.comparison import Comparison
    from safety_nb.report.study_tables import StudyTables

FEW_PROMPTS = 50  # below this, an interval is too wide to tell most N apart


@dataclass(frozen=True)
class StudyReport:
    """What the page of a study tells.

    Attributes:
        name: The study's name.
        tables: The study as read: what was asked for and swept, the parameters all runs share, and every run, failed
            ones included.
        comparison: What it says (`comparison.compare_study`).
        figures: The first opens the page, so put the trade-off there.
        answers: All answers, as `answers_page` takes them: samples of what flips are shown.
        ended: How the answers of each run ended: run, then the columns of `rates.endings`; None where not known.
        people: How far judges agree with people who labelled answers of this study (`Calibration.agreement`); None
            where nobody did.
        versions: Package to version, as the runs' ledgers have them.
        note: What else a reader must know, such as that the models are a miniature; "" for nothing.
    """

    name: str
    tables: "StudyTables"
    comparison: "Comparison"
    figures: Sequence["Figure"]
    answers: "pd.DataFrame"
    ended: "pd.DataFrame | None" = None
    people: "pd.DataFrame | None" = None
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def study_page(report: StudyReport) -> str:
    """The comparison over the runs of a study.

    Returns:
        A complete HTML document; runs that are done link to `<run>/report.html`, and `answers.html` is linked to.
    """
    comparison, margin = report.comparison, report.tables.settings.cost_margin
    drawn = [page.picture(figure.drawn, figure.title, figure.alt, figure.caption) for figure in report.figures]
    sections = {
        "What was compared": _compared_blocks(report.tables),
        "How it was judged": _judge_blocks(comparison, report.people),
        "Figures": drawn[1:],
        "Rates": _study_rates(comparison.rates, comparison.roles),
        "Stance and delivery": _stance_blocks(comparison),
        "Published numbers": _published_blocks(comparison),
        "Categories of harm": _category_blocks(comparison),
        "What it costs": _cost_blocks(comparison, margin, report.answers) if len(comparison.rates) else [],
        "Differences": _test_blocks(comparison) if comparison.settings else [],
        "Demonstrations or a sentence": _guard_blocks(comparison),
        "One topic in two forms": _pair_blocks(comparison),
        "Answers": _flip_blocks(comparison, report.answers),
        "How the answers ended": [] if report.ended is None or report.ended.empty else [_study_endings(report.ended)],
        "Runs": [_runs_table(report.tables.runs)],
        "What to be careful about": [page.bullets(_threats(report))],
        "Method": _method_blocks(report),
    }
    return page.render(
        kicker="safety-nb · study",
        title=report.name,
        lead=[text for text in (comparison.answer, comparison.details, report.note) if text],
        opening=drawn[:1],
        sections=[page.section(title, *shown) for title, shown in sections.items() if shown],
        version=report.versions.get("safety-nb"),
    )


def _compared_blocks(tables: "StudyTables") -> list[dict]:
    """What was swept, how many runs of it are done, and what the comparison was asked to find out."""
    swept = page.table(
        [Cell("Parameter"), Cell("Values tried")],
        [[Cell(str(name)), Cell(page.value_text(list(values)))] for name, values in tables.swept.items()],
    )
    asked_for = (
        f"Low enough is harm in at most {percent(tables.settings.harmful_target)} of the answers to harmful requests; "
        f"too many are errors on more than {percent(tables.settings.lookalike_limit)} of the harmless look-alikes "
        "(harmful_target and lookalike_limit in the study file)."
    )
    return [swept, *_run_count(tables.runs), page.paragraph(asked_for)]


def _method_blocks(report: StudyReport) -> list[dict]:
    """What the evaluation sets hold, how rates and intervals are computed, and with which parameters and versions."""
    roles, rates = report.comparison.roles, report.comparison.rates
    sets = list(dict.fromkeys(rates["dataset"])) if len(rates) else []
    found = [
        page.table(
            [Cell("Evaluation set"), Cell("What it holds")],
            [[Cell(name), Cell(blocks.ROLE_NAMES.get(roles.get(name, ""), "no role given"))] for name in sets],
        ),
        page.paragraph(blocks.definitions(report.comparison.decision)),
        page.paragraph(
            "Every model of a study answers the same prompts. A rate is the share of judged answers; its 95 % interval "
            "is that of a bootstrap over seeds and prompts together, or with one seed Wilson's (of a difference, "
            "Tango's). Missing judgements count neither way. The answer rests on a monotone fit: harm is taken "
            "never to rise with N, and errors on look-alikes never to fall."
        ),
        blocks.params_fold(report.tables.shared, " shared by all runs"),
    ]
    if report.versions:
        found.append(page.folded("Versions", page.pairs_table(report.versions, {}, code=True)))
    return found


def _judge_blocks(comparison: "Comparison", people: "pd.DataFrame | None") -> list[dict]:
    """Which judge judged what, how far they agree with people, and with each other."""
    rates = comparison.rates
    if not len(rates):
        return [page.paragraph("No answer was judged.")]
    body = []
    for judge, rows in rates.groupby("judge", sort=False):
        metrics = ", ".join(METRIC_NAMES.get(name, name.replace("_", " ")) for name in dict.fromkeys(rows["metric"]))
        n, missing = (int(rows.groupby(list(rates.columns[: list(rates.columns).index("metric")]))[name].first().sum())
                      for name in ("n", "n_missing"))  # fmt: skip
        body.append(
            [Cell(str(judge)), Cell(metrics, long=True), Cell(f"{n:,}", number=True), Cell(f"{missing:,}", number=True)]
        )
    found = [
        page.table([Cell("Judge"), Cell("Tells"), Cell("Judged", number=True), Cell("Missing", number=True)], body)
    ]
    decision, told = comparison.decision, refusal_judge(rates)
    if decision.named:
        others = decision.harmless.judge
        on = "" if others == decision.named else f" on harmful requests, and on {others or 'none'} on harmless ones"
        found.append(page.paragraph(f"The answer rests on the judge {decision.named}{on} (decided_by)."))
    if told and not decision.by_stance:
        found.append(page.paragraph(f"The figure of refusals rests on the judge {told}."))
    if people is None or people.empty:
        found.append(
            page.paragraph(
                "Nobody has labelled answers of this study: how far its judges can be trusted on these models is not "
                "known. The notebook annotate collects labels, and safety-nb calibrate corrects the rates by them."
            )
        )
    else:
        found += [page.paragraph("Agreement with people on answers of this study:"), page.bullets(_with_people(people))]
    if len(comparison.agreement):
        pairs = [
            f"{row.judge} and {row.other}: the same of {percent(row.same)} of {row.n:,} answers"
            + (f", Cohen's kappa {row.kappa:.2f}." if row.kappa == row.kappa else "; kappa is undefined here.")
            for row in comparison.agreement.itertuples()
        ]
        found += [page.paragraph("How far the judges agree on refusal or not:"), page.bullets(pairs)]
    return found


_TOLD = {"accuracy": "accuracy", "kappa": "kappa", "auc": "AUC", "mae": "mean absolute error", "bias": "bias"}
_TOLD |= {"spearman": "Spearman's correlation"}


def _with_people(people: "pd.DataFrame") -> list[str]:
    """Each judge's agreement with people over all models (of one alone, with that), a line each."""
    told = []
    for (judge, classes), rows in people.groupby(["judge", "classes"], sort=False):
        rows = rows[rows["model"] == ALL_MODELS] if rows["model"].nunique() > 1 else rows
        figures = {row.metric: row for row in rows.itertuples()}
        parts = [
            f"{name} {row.estimate:.2f} ({row.low:.2f} to {row.high:.2f})"
            for name, row in ((name, figures.get(metric)) for metric, name in _TOLD.items())
            if row is not None and row.low == row.low
        ]
        told.append(f"{judge}, {classes}: {', '.join(parts) or 'too few to tell'}; n = {int(rows['n'].iloc[0]):,}.")
    return told


def _published_blocks(comparison: "Comparison") -> list[dict]:
    """The paper's numbers, where settings can be held against them."""
    marks = next((setting.published for setting in comparison.settings if setting.published), ())
    if not marks:
        return []
    table = published_table(marks)
    head = [Cell(name, number=place in (1, 2)) for place, name in enumerate(table.columns)]
    body = [[Cell(text, number=place in (1, 2)) for place, text in enumerate(row)] for row in table.to_numpy().tolist()]
    return [page.table(head, body, caption=CAVEAT)]


def _category_blocks(comparison: "Comparison") -> list[dict]:
    """The mean score of each category of harm at each N, by evaluation set."""
    if comparison.categories is None:
        return []
    found = []
    for setting in comparison.settings:
        for judge, rows in where(comparison.categories, setting.values).groupby("judge", sort=False):
            doses = sorted(rows[N_SAFETY].unique())
            groups = []
            for dataset, of_set in rows.groupby("dataset", sort=False):
                body = []
                for category, told in of_set.groupby("category", sort=False):
                    by_dose = {row.n_safety: row for row in told.itertuples()}
                    cells = [Cell(_score_text(by_dose.get(dose)), number=True) for dose in doses]
                    counts = told[["n", "n_missing"]].sum()
                    cells += [Cell(f"{int(count):,}", number=True) for count in counts]
                    body.append([Cell(str(category)), *cells])
                groups.append((f"{dataset} · {blocks.role(dataset, comparison.roles)}", body))
            head = [Cell("Category"), *(Cell(f"N = {dose}", number=True) for dose in doses)]
            head += [Cell("n", number=True), Cell("Missing", number=True)]
            of = f" {setting.name}." if setting.values else ""
            caption = (
                f"Judge: {judge}.{of} Mean score of each category, from 0 to 1, with its 95 % interval; n counts "
                "answers over all N and seeds. categories.csv has every figure."
            )
            found.append(page.table(head, groups=groups, caption=caption, pinned=True))
    return found


def _score_text(row: Any) -> str:
    return "—" if row is None or not row.n else f"{row.estimate:.3f} ({row.low:.3f} to {row.high:.3f})"


def _test_blocks(comparison: "Comparison") -> list[dict]:
    """Each N against the smallest, prompt by prompt."""
    found = []
    for setting in comparison.settings:
        if not len(setting.tests):
            continue
        groups = []
        for (dataset, judge, metric), rows in setting.tests.groupby(["dataset", "judge", "metric"], sort=False):
            share = metric in RATES
            scale, digits = (100, 0) if share else (1, 2)
            body = [
                [
                    Cell(f"{row.n_safety}", number=True),
                    Cell(" to ".join(value_text(metric, value) for value in (row.first, row.second)), number=True),
                    Cell(
                        difference_text(*(scale * end for end in (row.difference, row.low, row.high)), digits),
                        number=True,
                        strong=row.p_holm < 0.05,
                    ),
                    Cell(p_text(row.p_holm), number=True),
                    Cell(f"{row.n:,}", number=True),
                ]
                for row in rows.itertuples()
            ]
            name = METRIC_NAMES.get(metric, metric.replace("_", " "))
            groups.append((f"{dataset} · {name} · {judge}", body))
        against = setting.tests["against"].iloc[0]
        head = ["N", f"From N = {against}", "Difference (points)", "p (Holm)", "Pairs"]
        title = f"{setting.name}. " if setting.values else ""
        caption = (
            f"{title}Each N against N = {against} over the same prompts and seeds, with 95 % intervals. p: of no "
            "difference between models of any seed, or with one seed between these very models, corrected by Holm for "
            "all tests of this table; in bold where it is below 0.05. tests.csv has both kinds, effect sizes and power."
        )
        found.append(page.table([Cell(text, number=True) for text in head], groups=groups, caption=caption))
    return found or [page.paragraph("No two N were judged alike, so there is nothing to compare.")]


_CORRECTED = (
    "over the same {items} and seeds, with 95 % intervals. p: of no difference between models of any seed, or with one "
    "seed between these very models, corrected by Holm for all tests of {file}; in bold where it is below 0.05."
)


def _guard_blocks(comparison: "Comparison") -> list[dict]:
    """What a guard prompt and demonstrations do, each alone and both, prompt by prompt."""
    others = [name for name in comparison.swept if name != arms.GUARD]
    groups = []
    for key, rows in comparison.guards.groupby([*others, arms.GUARD, "dataset", "judge", "metric"], sort=False):
        *values, dataset, judge, metric = key
        head = " · ".join([*map(setting_text, values), dataset, METRIC_NAMES.get(metric, "mean score"), judge])
        groups.append((head, [[Cell(f"{row.arm} against {row.against}"), *_changed(row)] for row in rows.itertuples()]))
    if not groups:
        return []
    caption = "Each arm against another " + _CORRECTED.format(items="prompts", file="guards.csv")
    caption += f" {arms.NOTHING.capitalize()} and the {arms.SENTENCE} are at the smallest N."
    return [page.table([Cell("Arms"), *_CHANGE_HEADS], groups=groups, caption=caption)]


def _pair_blocks(comparison: "Comparison") -> list[dict]:
    """The two forms of a topic within a model, topic by topic."""
    found = []
    for setting in comparison.settings:
        if not len(setting.pairs):
            continue
        groups = []
        for (dataset, judge, metric), rows in setting.pairs.groupby(["dataset", "judge", "metric"], sort=False):
            head = f"{dataset} · {METRIC_NAMES.get(metric, 'mean score')} · {judge}"
            body = [[Cell(f"{row.type} against {row.against}"), *_changed(row)] for row in rows.itertuples()]
            groups.append((head, body))
        caption = f"{setting.name}. " if setting.values else ""
        caption += "One form against the other within a model, " + _CORRECTED.format(items="topics", file="this table")
        found.append(page.table([Cell("Forms"), *_CHANGE_HEADS], groups=groups, caption=caption))
        found.append(page.bullets(arms.pair_sentences(setting.pairs)))
    if found:
        found.append(page.paragraph(blocks.PAIRS_NOTE))
    return found


_CHANGE_HEADS = [Cell(text, number=True) for text in ("N", "From – to", "Difference (points)", "p (Holm)", "Pairs")]


def _changed(row: Any) -> list[Cell]:
    """N, both sides, their difference, p and the number of pairs, of a row of `arms`."""
    scale, digits = (100, 0) if row.metric in RATES else (1, 2)
    change = difference_text(*(scale * end for end in (row.difference, row.low, row.high)), digits)
    both = " to ".join(value_text(row.metric, value) for value in (row.first, row.second))
    cells = [f"{row.n_safety}", both, change, p_text(row.p_holm), f"{row.n:,}"]
    return [Cell(text, number=True, strong=text is change and row.p_holm < 0.05) for text in cells]


COST_CAPTION = (
    "Each N against the smallest, over the same items and seeds, with 95 % intervals; right is worse. A point is a "
    "hundredth: of the items, or of a nat a token. Grey: the margin within which a difference counts as none "
    "(cost_margin in the study file)."
)


def _cost_blocks(comparison: "Comparison", margin: float, answers: "pd.DataFrame") -> list[dict]:
    """Capability, helpfulness, fit and willingness against the smallest N: what is shown and what is not excluded."""
    found = []
    for setting in comparison.settings:
        if not len(setting.costs):
            continue
        height = 1.4 + 0.55 * max(setting.costs["measure"].nunique(), 2)
        if setting.costs["n"].any():
            found.append(
                page.drawn(
                    plots.differences,
                    (setting.costs, 100 * margin),
                    size=(4.8, height),
                    alt=plots.differences_alt(setting.costs),
                    caption=(f"{setting.name}. " if setting.values else "") + COST_CAPTION,
                )
            )
        lengths = _lengths(answers[answers["run"].isin(setting.runs)], comparison.roles)
        found.append(page.bullets([*costs.sentences(setting.costs, margin), *lengths]))
    return found or [page.paragraph("No two N were judged on harmless prompts, so what N costs cannot be seen.")]


def _lengths(answers: "pd.DataFrame", roles: Mapping[str, str]) -> list[str]:
    """How long the answers to ordinary requests are at each N, since judges of helpfulness favour length."""
    told = []
    ordinary = answers[answers["dataset"].map(roles) == "ordinary"]
    for dataset, rows in ordinary.groupby("dataset", sort=False):
        words = rows["response"].map(lambda text: len(str(text).split()) if isinstance(text, str) else None)
        means = words.groupby(rows[N_SAFETY]).mean().dropna()
        each = ", ".join(f"{mean:.1f} at N = {n_safety}" for n_safety, mean in means.items())
        told += [f"{dataset}, mean words in an answer: {each}."] if each else []
    return told


def p_text(p: float) -> str:
    """A p value for people: '0.03', '<0.001', a dash for none."""
    return "—" if p != p else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _flip_blocks(comparison: "Comparison", answers: "pd.DataFrame") -> list[dict]:
    """Which prompts flip between two N, with two answers of each set side by side, and where all answers stand."""
    found = (
        [page.link("answers.html", "All answers of all runs, side by side and to be searched")] if len(answers) else []
    )
    for setting in comparison.settings:
        if setting.between is None or not len(setting.flips):
            continue
        first, second = setting.between
        counts = setting.flips.groupby(["dataset", "before", "after"], sort=False).size()
        body = [
            [
                Cell(dataset),
                Cell(before.replace("_", " ")),
                Cell(after.replace("_", " ")),
                Cell(f"{count:,}", number=True),
            ]
            for (dataset, before, after), count in counts.items()
        ]
        of = f" ({setting.name})" if setting.values else ""
        head = [Cell("Evaluation set"), Cell(f"At N = {first}"), Cell(f"At N = {second}"), Cell("Answers", number=True)]
        found.append(page.table(head, body, caption=f"Answers whose label flips from N = {first} to N = {second}{of}."))
        said = answers[answers["run"].isin(setting.runs)]
        for dataset, rows in setting.flips.groupby("dataset", sort=False):
            shown = [_flip(row, said, setting.between) for row in rows.iloc[[0, -1][: len(rows)]].to_dict("records")]
            heading = (
                f"{dataset} · {blocks.role(dataset, comparison.roles)} · {len(shown)} of {len(rows):,} that flip{of}"
            )
            found.append(page.folded(heading, *shown, warning="may be offensive: open to read"))
    return found or [page.paragraph("There are no answers.")]


def _flip(row: Mapping, said: "pd.DataFrame", between: tuple[int, int]) -> dict:
    """One prompt with its answers at two N, the one under the other."""
    own = said[
        (said["dataset"] == row["dataset"]) & (said["prompt_id"] == row["prompt_id"]) & (said["seed"] == row["seed"])
    ]
    if "sample" in own:
        own = own[own["sample"].fillna(0) == row["sample"]]
    texts = []
    for n_safety, label in zip(between, (row["before"], row["after"]), strict=True):
        answer = own[own[N_SAFETY] == n_safety].iloc[0]
        texts += [] if texts else [blocks.text_block("prompt", "Prompt", answer["prompt"])]
        who = f"N = {n_safety}, {label.replace('_', ' ')}"
        texts.append(blocks.text_block("response", who, answer["response"]))
    flipped = f"{row['before']} to {row['after']}".replace("_", " ")
    return {
        "kind": "sample",
        "prompt_id": shortened(row["prompt_id"], 80),
        "label": flipped,
        "cut": False,
        "texts": texts,
    }


def _study_rates(table: "pd.DataFrame", roles: Mapping[str, str]) -> list[dict]:
    """For each judge, the rates by evaluation set and by what was swept."""
    if not len(table):
        return [page.paragraph("No answer was judged.")]
    by = list(table.columns[: list(table.columns).index("dataset")])
    found = []
    for judge, rows in table.groupby("judge", sort=False):
        metrics = list(dict.fromkeys(rows["metric"]))
        groups = []
        for dataset, group in rows.groupby("dataset", sort=False):
            body = [
                [
                    *(Cell(_swept_text(value), number=page.is_number(value)) for value in key),
                    *blocks.rate_cells(cells, metrics, roles.get(dataset, "")),
                ]
                for key, cells in group.groupby(by, sort=False, dropna=False)
            ]
            groups.append((f"{dataset} · {blocks.role(dataset, roles)}", body))
        head = [Cell("N" if name == N_SAFETY else name, number=page.is_number(table[name].iloc[0])) for name in by]
        head += blocks.rate_heads(metrics)
        found.append(page.table(head, groups=groups, caption=blocks.rate_caption(judge, metrics), pinned=True))
    return found


def _stance_blocks(comparison: "Comparison") -> list[dict]:
    """How answers to harmful requests sound, by what they give, a table a setting; none where stance decides."""
    found = []
    for setting in comparison.settings:
        of = f" ({setting.name})" if setting.values else ""
        caption = f"Answers to harmful requests: how they sound, by what they give{of}. Counts over all sets and seeds."
        found += blocks.stance_table(setting.stances, caption)
    return found


def _swept_text(value: Any) -> str:
    return setting_text(value) if isinstance(value, str) else page.value_text(value)


def _study_endings(ended: "pd.DataFrame") -> dict:
    """How the answers of all runs ended, by evaluation set, with the run that has the most of each."""
    body = []
    for dataset, rows in ended.groupby("dataset", sort=False):
        cells = [Cell(dataset), Cell(f"{rows['answers'].sum():,}", number=True)]
        for name in blocks.ENDING_NAMES:
            worst = rows.loc[(rows[name] / rows["answers"]).idxmax()]
            most = f", most in {worst['run']}: {percent(worst[name] / worst['answers'])}" if worst[name] else ""
            cells.append(Cell(blocks.of(rows[name].sum(), rows["answers"].sum()) + most, number=True))
        body.append(cells)
    head = [Cell("Evaluation set"), Cell("Answers", number=True)]
    head += [Cell(name, number=True) for name in blocks.ENDING_NAMES.values()]
    return page.table(head, body, caption=blocks.ENDING_CAPTION, pinned=True)


def _incoherent(ended: "pd.DataFrame") -> str:
    """The runs' evaluation sets of which many answers are cut off or degenerate; the first few by name."""
    worst = ended[["cut_off", "degenerate"]].max(axis=1) / ended["answers"] > blocks.SUSPECT_SHARE
    names = [f"{row.dataset} of {row.run}" for row in ended[worst].itertuples()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
        done = row["state"] == "done" and not str(row["run"]).startswith("..")  # those of other folders have no link
        # Quoted whole: a run's name can lead nowhere but into its own folder.
        href = f"./{quote(str(row['run']), safe='')}/report.html" if done else ""
        body.append(
            [
                Cell(str(row["run"]), href=href),
                Cell(str(row["state"]), state=str(row["state"])),
                Cell(page.value_text(row.get(N_SAFETY)), number=True),
                Cell(page.value_text(row.get("seed"), plain=True), number=True),
                Cell(page.seconds_text(row.get("wall_seconds")), number=True),
                Cell(shortened(row.get("cause"), 300), long=True),
            ]
        )
    if not any(row[-1].text for row in body):
        head, body = head[:-1], [row[:-1] for row in body]
    return page.table(head, body, pinned=True)


def _run_count(runs: "pd.DataFrame") -> list[dict]:
    if not len(runs):
        return []
    done, spared = (int((runs["state"] == state).sum()) for state in ("done", "not needed"))
    if done == len(runs):
        return [page.paragraph(f"{blocks.counted(len(runs), 'run')}, all done.")]
    told = f"{done} of {blocks.counted(len(runs), 'run')} are done"
    told += f", and the search for the smallest N needed no other {spared}" if spared else ""
    if done + spared < len(runs):
        told += "; the others, listed under Runs, are not in the rates"
    return [page.paragraph(f"{told}.")]


def _threats(report: StudyReport) -> list[str]:
    """What plainly applies to this study, from its own tables."""
    summary, runs = report.comparison.summary, report.tables.runs
    ended, people = report.ended, report.people
    threats = []
    n_seeds = summary["seed"].nunique() if len(summary) else 0
    if n_seeds == 1:
        threats.append("One seed only: how much a second training run would differ is unknown and in no interval.")
    elif 1 < n_seeds < 5:
        threats.append(f"{n_seeds} seeds: the intervals know little of how much training runs differ.")
    if len(summary) and (summary["judge"] == "refusal").any() and (people is None or people.empty):
        threats.append(
            "Refusals are judged by a model that was not calibrated against people's labels of this model's "
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
    failed = int((~runs["state"].isin(["done", "not needed"])).sum()) if len(runs) else 0
    if failed:
        threats.append(
            f"{failed} of {len(runs)} runs are not done, so some N are missing or rest on fewer seeds than others."
        )
    if len(summary):
        threats.append("The best N is chosen on the same prompts it is reported on, which flatters it a little.")
    if report.note:
        threats.append(report.note)
    return threats
