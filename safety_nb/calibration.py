"""How far judges agree with people, for each judge and model, and rates corrected for what a judge errs by.

Tables in, tables out; at the end, what reads them from a run, a study or any table. Never guesses: what a judge or
people could not tell is counted, not compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safety_nb import annotations, judges, page, runs, study, summary, tables
from safety_nb.agreement import agreements
from safety_nb.correction import FEWEST_LABELLED, corrected_rate
from safety_nb.errors import InputError
from safety_nb.schema import JudgeParams
from safety_nb.stats import mean_over_seeds

if TYPE_CHECKING:
    import pandas as pd

ALL_MODELS, MISSING = "(all)", "(missing)"
KEYS = ["run", "dataset", "prompt_id", "sample"]  # what names an answer of a run or a study
AGREEMENT_COLUMNS = ["judge", "model", "classes", "metric", "estimate", "low", "high", "n", "n_missing"]
CORRECTED_COLUMNS = [
    *("run", "n_safety", "seed", "dataset", "judge", "metric", "raw", "raw_low", "raw_high"),
    *("estimate", "low", "high", "weight"),
    *("n", "n_missing", "n_labelled", "note"),
]


@dataclass(frozen=True)
class Calibration:
    """What people's labels say of judges.

    Attributes:
        agreement: the columns of AGREEMENT_COLUMNS; classes is ``labels`` (all of them) or, as in ``refusal or not``,
            two; metric is accuracy, kappa or mcc; n counts answers that both labelled, n_missing those that people
            labelled and the judge did not.
        confusion: judge, model, human, judged, count.
        corrected: the columns of CORRECTED_COLUMNS; of a table, without rows.
        n_labelled: answers with a human label; n_without: those where people disagree or could not tell.
        n_outdated: labels of answers that are not there any more, or in other words.
    """

    agreement: "pd.DataFrame"
    confusion: "pd.DataFrame"
    corrected: "pd.DataFrame"
    n_labelled: int
    n_without: int
    n_outdated: int = 0


# --- labels -------------------------------------------------------------------------------------------------------


def label_of(text: object) -> str | None:
    """A human label as judges write it: XSTest's ``1_full_compliance`` is ``full_compliance``; None for an empty one.

    Raises:
        InputError: it is no label that a judge gives.
    """
    if text is None or text != text or not str(text).strip():
        return None
    name = str(text).strip().lower().replace(" ", "_").replace("-", "_").lstrip("0123456789_")
    known = list(dict.fromkeys(label for labels, _ in summary.LABEL_METRICS.values() for label in labels))
    if name not in known:
        raise InputError(
            f"{page.shortened(text, 40)!r} is no label; people's labels are {', '.join(known)} (also as in XSTest: "
            "1_full_compliance), or empty."
        )
    return name


def _family(labels: set[str]) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """The labels that belong together with these, and what two classes they make: its name, and what counts as true.

    Raises:
        InputError: some tell something else than others.
    """
    for all_labels, metrics in summary.LABEL_METRICS.values():
        if labels <= set(all_labels):
            metric, true = next(iter(metrics.items()))
            name = "correct" if metric == "accuracy" else metric.removesuffix("_rate")
            return all_labels, f"{name} or not", true
    raise InputError(f"The human labels {', '.join(sorted(labels))} do not belong to one question; take them apart.")


# --- agreement ----------------------------------------------------------------------------------------------------


def agreement_tables(labels: "pd.DataFrame", seed: int = 0) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Agreement and confusion of every judge, for each model and for all of them.

    Args:
        labels: one row an answer and judge: judge, model, unit (the prompt: what the bootstrap draws), human, judged;
            the last two None where missing. Judges that never give one of the people's labels are left out.

    Returns:
        The tables ``agreement`` and ``confusion`` of ``Calibration``.
    """
    import pandas as pd

    labels = labels[labels["human"].notna()]
    found, cells = [], []
    if labels.empty:
        return pd.DataFrame(columns=AGREEMENT_COLUMNS), pd.DataFrame(
            columns=["judge", "model", "human", "judged", "count"]
        )
    known, two, true = _family(set(labels["human"]))
    views: dict[str, Callable[[str], int]] = {two: lambda label: int(label in true)}
    if len(known) > 2:
        views["labels"] = known.index
    for judge, of_judge in labels.groupby("judge", sort=False):
        if not set(of_judge["judged"].dropna()) <= set(known):
            continue  # it answers another question
        groups = list(of_judge.groupby("model", sort=False))
        for model, rows in [*groups, *([(ALL_MODELS, of_judge)] if len(groups) > 1 else [])]:
            both = rows[rows["judged"].notna()]
            for view, place in views.items():
                human, judged = ([place(label) for label in both[side]] for side in ("human", "judged"))
                k = len(known) if view == "labels" else 2
                for metric, each in agreements(human, judged, both["unit"].tolist(), k, seed).items():
                    ends = [each.estimate, each.low, each.high, each.n, len(rows) - len(both)]
                    found.append([judge, model, view, metric, *ends])
            counts = rows.assign(judged=rows["judged"].fillna(MISSING)).value_counts(["human", "judged"], sort=False)
            cells += [[judge, model, *cell, count] for cell, count in counts.items()]
    return (
        pd.DataFrame(found, columns=AGREEMENT_COLUMNS),
        pd.DataFrame(cells, columns=["judge", "model", "human", "judged", "count"]),
    )


# --- correction ---------------------------------------------------------------------------------------------------


def corrected_table(
    judgements: "pd.DataFrame", human: "pd.DataFrame", by: Sequence[str] = ("n_safety",)
) -> "pd.DataFrame":
    """Every judge's rates as they are and corrected, by run, and by ``by`` where several seeds share all of it.

    The unit is the prompt: it is labelled if any answer to it is, and counts with the mean of its answers. Over
    seeds, the interval is of these models over prompts, and says nothing of what other seeds would have given.

    Args:
        judgements: run, n_safety, seed, whatever else is in ``by``, dataset, prompt_id, sample, judge, label, score,
            missing.
        human: run, dataset, prompt_id, sample, label: a random part of the answers.

    Returns:
        The columns of CORRECTED_COLUMNS: raw is the judge's rate, with an interval as in ``summary.csv``; estimate, low
        and high the corrected one (nan, with a note, where fewer than FEWEST_LABELLED prompts are labelled); weight
        what the judge counts in it; n the prompts judged; n_missing the answers that lack a judgement; n_labelled the
        prompts that both know.
    """
    import pandas as pd

    said = summary.metric_values(human.assign(judge="human", score=None, missing=None))
    values = summary.metric_values(judgements)
    values = values[values["metric"].isin(said["metric"])]
    said = said.rename(columns={"value": "human"})[[*KEYS, "metric", "human"]]
    merged = values.merge(said, how="left", on=[*KEYS, "metric"])
    rows = []
    for (run, dataset, judge, metric), group in merged.groupby(["run", "dataset", "judge", "metric"], sort=False):
        rows.append([run, *group[["n_safety", "seed"]].iloc[0], dataset, judge, metric, *_corrected(group)])
    for _, of_n in merged.groupby(list(by), sort=False):
        if of_n["seed"].nunique() < 2:
            continue
        for (dataset, judge, metric), group in of_n.groupby(["dataset", "judge", "metric"], sort=False):
            name = ", ".join(f"{name} {of_n[name].iloc[0]}" for name in by)
            found = _corrected(group)
            rows.append([f"{name}, all seeds", of_n["n_safety"].iloc[0], None, dataset, judge, metric, *found])
    return pd.DataFrame(rows, columns=CORRECTED_COLUMNS)


def _corrected(group: "pd.DataFrame") -> list:
    judged = group[group["value"].notna()]
    labelled = judged[judged["human"].notna()].groupby("prompt_id")[["human", "value"]].mean()
    alone = judged[~judged["prompt_id"].isin(labelled.index)].groupby("prompt_id")["value"].mean()
    found = corrected_rate(labelled["human"], labelled["value"], alone)
    note = ""
    if len(labelled) < FEWEST_LABELLED:
        note = f"{len(labelled)} of at least {FEWEST_LABELLED} human labels"
    estimate, n_prompts = found.estimate, judged["prompt_id"].nunique()
    raw = mean_over_seeds(summary.matrix(group).to_numpy())
    missing = len(group) - len(judged)
    ends = [estimate.estimate, estimate.low, estimate.high, found.weight]
    return [raw.estimate, raw.low, raw.high, *ends, n_prompts, missing, len(labelled), note]


# --- a table, a run, a study --------------------------------------------------------------------------------------


def of_table(
    table: "pd.DataFrame",
    prompt: str,
    response: str,
    human: str,
    model: str = "",
    names: Sequence[str] = ("refusal",),
    params: JudgeParams | None = None,
) -> Calibration:
    """Let judges read a table that has people's labels, and compare.

    Args:
        human: the column of labels; model: that which says whose answer it is, if there is one.
        names: the judges.

    Raises:
        InputError: a column is not there, a label is none, or a judge answers another question than people did.
    """
    import pandas as pd

    for column in filter(None, (prompt, response, human, model)):
        if column not in table.columns:
            raise InputError(f"There is no column {column!r}; the table has {', '.join(map(str, table.columns))}.")
    said = [label_of(text) for text in table[human]]
    if not any(said):
        raise InputError(f"The column {human!r} holds no label at all.")
    known, _, _ = _family({label for label in said if label})
    parts = []
    bare = table[
        list(dict.fromkeys([prompt, response, *(["answer"] if "answer" in table and human != "answer" else [])]))
    ]
    for name in names:
        judged = judges.judge_table(name, bare, prompt, response, params)
        if odd := sorted(set(judged["label"].dropna()) - set(known)) or judged["label"].isna().all():
            gives = ", ".join(odd) if isinstance(odd, list) else "no label"
            raise InputError(f"Judge {name} gives {gives}, and people {', '.join(known)}: they cannot be compared.")
        facts = {"judge": name, "model": table[model] if model else "", "unit": table[prompt], "human": said}
        parts.append(pd.DataFrame({**facts, "judged": judged["label"].where(judged["missing"].isna(), None)}))
    labels = pd.concat(parts, ignore_index=True)
    agreement, confusion = agreement_tables(labels)
    n_labelled = sum(label is not None for label in said)
    return Calibration(
        agreement, confusion, pd.DataFrame(columns=CORRECTED_COLUMNS), n_labelled, len(said) - n_labelled
    )


def is_labelled(folder: Path) -> bool:
    """Whether people labelled answers of a run or of a study, so that ``of_run`` has something to say."""
    return any(lines for place in _places(folder) for lines in annotations.read(place, "refusal").values())


def _places(folder: Path) -> list[Path]:
    """Where labels of a run's or a study's answers lie: its own, its study's, those of its runs."""
    return [folder / "annotations", folder.resolve().parent / "annotations", *sorted(folder.glob("*/annotations"))]


def of_run(run_dir: Path) -> Calibration:
    """The same of a run or a study that was judged, by the labels people gave in the notebook ``annotate``.

    Raises:
        InputError: it has no judgements, or nobody labelled any of its answers.
    """
    import pandas as pd

    judgements, by = _judgements(run_dir)
    people: dict[str, dict] = {}
    for folder in _places(run_dir):
        for person, lines in annotations.read(folder, "refusal").items():
            people.setdefault(person, {}).update(lines)
    there = {
        tuple(row[key] for key in KEYS): annotations.text_hash(row["prompt"], row["response"])
        for row in annotations.answers_of_folder(run_dir)
    }
    agreed = [
        line for line in annotations.consensus(people, "refusal").values() if line["run"] in set(judgements["run"])
    ]
    valid = [line for line in agreed if there.get(tuple(line[key] for key in KEYS)) == line["text"]]
    human = pd.DataFrame([{**{key: line[key] for key in KEYS}, "label": line["label"]} for line in valid])
    if human.empty or human["label"].isna().all():
        raise InputError(
            f"Nobody has labelled answers of {run_dir} yet: open notebooks/annotate.ipynb with run_dir set to it."
        )
    labelled = human[human["label"].notna()]
    labels = judgements.merge(labelled.rename(columns={"label": "human"}), on=KEYS)
    labels = labels.assign(
        model=labels["run"],
        unit=labels["dataset"] + "/" + labels["prompt_id"].astype(str),
        judged=labels["label"].where(labels["missing"].isna(), None),
    )
    agreement, confusion = agreement_tables(labels)
    corrected = corrected_table(judgements, labelled, by)
    return Calibration(
        agreement, confusion, corrected, len(labelled), len(human) - len(labelled), len(agreed) - len(valid)
    )


def _judgements(folder: Path) -> tuple["pd.DataFrame", list[str]]:
    """The judgements of a run or of a study's finished runs, and what the study swept besides the seed."""
    import pandas as pd

    run = runs.RunFolder(folder)
    by = ["n_safety"]
    if run.judgements.is_file():
        mixture = runs.read_json(run.mixture) if run.mixture.is_file() else {}
        facts = {"run": folder.resolve().name, "n_safety": mixture.get("n_safety"), "seed": mixture.get("seed")}
        table = pd.DataFrame([{**facts, **row} for row in runs.read_jsonl(run.judgements)])
    else:
        found = study.read_study(folder)
        table, by = found.judgements, list(dict.fromkeys(["n_safety", *found.swept]))
    # People compared with themselves would look like the best judge of all.
    table = table[table["judge"].str.partition(":")[0] != "human"] if len(table) else table
    if table.empty:
        raise InputError(f"{folder} has no judgements of other judges than people yet; run its stages up to judge.")
    sample = table["sample"].fillna(0).astype(int) if "sample" in table else 0
    return table.assign(sample=sample), [name for name in by if name != "seed"]


_FILES = ("agreement", "confusion", "calibration")


def check_new(folder: Path) -> None:
    """Check that writing into a folder of the user's overwrites nothing. Raises InputError."""
    for name in _FILES:
        tables.check_new(folder / f"{name}.csv")


def write(folder: Path, found: Calibration) -> list[Path]:
    """Write ``agreement.csv``, ``confusion.csv`` and, where rates were corrected, ``calibration.csv``; their paths."""
    parts = dict(zip(_FILES, (found.agreement, found.confusion, found.corrected), strict=True))
    paths = []
    for name, table in parts.items():
        if len(table):
            paths.append(folder / f"{name}.csv")
            runs.write_csv(paths[-1], table)
    return paths


# --- as text ------------------------------------------------------------------------------------------------------


def as_text(found: Calibration) -> str:
    """The tables for a terminal, with what they rest on."""
    parts = [f"{found.n_labelled:,} answers have a human label; {found.n_without:,} have none that people agree on."]
    if found.n_outdated:
        parts.append(f"{found.n_outdated:,} labels are of answers that are not there any more, and were left out.")
    if found.agreement.empty:
        parts.append("No judge gives labels that can be compared with these.")
    else:
        parts += ["Agreement with people (95 % intervals)", _lines(_agreement_shown(found.agreement))]
        parts += ["What people said (rows) and the judge (columns)", _lines(_confusion_shown(found.confusion))]
    if len(found.corrected):
        parts += ["Rates, as judged and corrected by the human labels", _lines(_corrected_shown(found.corrected))]
    return "\n\n".join(parts)


def _agreement_shown(table: "pd.DataFrame") -> "pd.DataFrame":
    keys = ["judge", "model", "classes", "n", "n_missing"]
    told = table.assign(
        told=[_number(*row) for row in zip(table["estimate"], table["low"], table["high"], strict=True)]
    )
    order = told[keys].drop_duplicates()
    wide = told.pivot(index=keys, columns="metric", values="told").reset_index()
    return order.merge(wide, on=keys)[[*keys, "accuracy", "kappa", "mcc"]]


def _confusion_shown(table: "pd.DataFrame") -> "pd.DataFrame":
    wide = table.pivot_table(index=["judge", "model", "human"], columns="judged", values="count", sort=False)
    return wide.fillna(0).astype(int).reset_index()


def _corrected_shown(table: "pd.DataFrame") -> "pd.DataFrame":
    shown = table[["run", "dataset", "judge", "metric"]].copy()
    ends = zip(table["raw"], table["raw_low"], table["raw_high"], strict=True)
    shown["judged"] = [summary.percent_interval(*row) for row in ends]
    ends = zip(table["estimate"], table["low"], table["high"], strict=True)
    shown["corrected"] = [note or summary.percent_interval(*row) for row, note in zip(ends, table["note"], strict=True)]
    return shown.assign(n=table["n"], n_missing=table["n_missing"], n_labelled=table["n_labelled"])


def _number(estimate: float, low: float, high: float) -> str:
    return "not defined" if estimate != estimate else f"{estimate:.3f} ({low:.3f}–{high:.3f})"


def _lines(table: "pd.DataFrame") -> str:
    shown = table.map(lambda value: page.shortened(value, 48))
    return shown.to_string(index=False)
