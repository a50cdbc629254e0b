"""How far judges agree with people, for each judge and model, and rates and scores corrected for what a judge errs by.

Tables in, tables out; knows no files. Never guesses: what a judge or people could not tell is counted, not compared.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from safety_nb.core.columns import N_SAFETY, RUN_KEYS
from safety_nb.core.errors import InputError
from safety_nb.core.labels import DELIVERED, plain
from safety_nb.core.text import shortened
from safety_nb.judge import annotations
from safety_nb.report.findings.rates import DELIVERY, LABEL_METRICS, SCALES, bounds_of, matrix, metric_values
from safety_nb.stats.agreement import agreements, auc, score_agreements
from safety_nb.stats.estimates import SHARE, Estimate, mean_over_seeds
from safety_nb.stats.prediction_powered import FEWEST_LABELLED, corrected_mean

if TYPE_CHECKING:
    import pandas as pd

ALL_MODELS, MISSING, SCORES = "(all)", "(missing)", "scores"
KEYS = ["run", "dataset", "prompt_id", "sample"]  # what names an answer of a run or a study
AGREEMENT_COLUMNS = ["judge", "model", "classes", "metric", "estimate", "low", "high", "n", "n_missing"]
CONFUSION_COLUMNS = ["judge", "model", "human", "judged", "count"]
CORRECTED_COLUMNS = [
    *RUN_KEYS,
    *("dataset", "judge", "metric", "raw", "raw_low", "raw_high"),
    *("estimate", "low", "high", "weight"),
    *("n", "n_missing", "n_labelled", "note"),
]
# How harmful an answer is: what people may give, and the judges whose score says that too.
_CHOICES = [float(choice) for choice in annotations.QUESTIONS["harmfulness"].choices.values()]
HARM_SCALE = (min(_CHOICES), max(_CHOICES))
_HARM_JUDGES = ("harmfulness", "guard", "moderation", "llm:strongreject")
# Judges whose score lies between 0 and 1, besides those of summary.SCALES.
_SHARES = (
    *("refusal", "refusal-rules", "refusal-classifier", "string-match", "reference", "guard", "moderation"),
    "llm:xstest",
)
_PREFERENCES = tuple(annotations.WINS)  # which of two runs' answers is the better one


# --- labels -------------------------------------------------------------------------------------------------------


def label_of(text: object) -> str | None:
    """A human label as judges write it: XSTest's ``1_full_compliance`` is ``full_compliance``; None for an empty one.

    Raises:
        InputError: it is no label that a judge gives.
    """
    if text is None or text != text or not str(text).strip():
        return None
    name = plain(str(text))
    known = list(dict.fromkeys(label for labels, _ in LABEL_METRICS.values() for label in labels))
    if name not in known:
        raise InputError(
            f"{shortened(text, 40)!r} is no label; people's labels are {', '.join(known)} (also as in XSTest: "
            "1_full_compliance), or empty."
        )
    return name


def family(labels: set[str]) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """The labels that belong together with these, and what two classes they make: its name, and what counts as true.

    Raises:
        InputError: some tell something else than others.
    """
    if labels <= set(_PREFERENCES):
        return _PREFERENCES, "first run better or not", _PREFERENCES[:1]
    for all_labels, metrics in LABEL_METRICS.values():
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
            the last two None where missing; and ``score``, the judge's, if it gives any. Judges that give other labels
            than people are left out.

    Returns:
        The tables ``agreement`` and ``confusion`` of ``Calibration``.
    """
    import pandas as pd

    labels = labels[labels["human"].notna()]
    found, cells = [], []
    if labels.empty:
        return pd.DataFrame(columns=AGREEMENT_COLUMNS), pd.DataFrame(columns=CONFUSION_COLUMNS)
    known, two, true = family(set(labels["human"]))
    views: dict[str, Callable[[str], int]] = {two: lambda label: int(label in true)}
    if len(known) > 2:
        views["labels"] = known.index
    for judge, of_judge in labels.groupby("judge", sort=False):
        if not set(of_judge["judged"].dropna()) <= set(known):
            continue  # it answers another question
        scored = "score" in of_judge and of_judge["score"].notna().any()
        labelled = of_judge["judged"].notna().any() or not scored
        for model, rows in _models(of_judge):
            if labelled:
                for view, place in views.items():
                    k = len(known) if view == "labels" else 2
                    found += [[judge, model, view, *row] for row in _label_agreement(rows, place, k, seed)]
                filled = rows.assign(judged=rows["judged"].fillna(MISSING))
                counts = filled.value_counts(["human", "judged"], sort=False)
                cells += [[judge, model, *cell, count] for cell, count in counts.items()]
            if scored:
                found.append([judge, model, two, *_auc(rows, rows["human"].isin(true), seed)])
    return pd.DataFrame(found, columns=AGREEMENT_COLUMNS), pd.DataFrame(cells, columns=CONFUSION_COLUMNS)


def score_table(scores: "pd.DataFrame", scale: tuple[float, float], seed: int = 0) -> "pd.DataFrame":
    """Agreement of every judge's scores with people's, for each model and for all of them.

    Args:
        scores: one row an answer and judge: judge, model, unit, human (the people's score) and score (the judge's); the
            last two nan where missing.
        scale: the least and the greatest score people could give. Where it is none of the judge's, errors mean nothing,
            and are nan. Where people gave two values only, there is also the AUC.
    """
    import pandas as pd

    scores, found = scores[scores["human"].notna()], []
    two = scores["human"].nunique() == 2
    for judge, of_judge in scores.groupby("judge", sort=False):
        own = _scale_of(judge)
        comparable = own is None or (own[0] <= scale[0] and scale[1] <= own[1])
        for model, rows in _models(of_judge):
            both = rows[rows["score"].notna()]
            for metric, each in score_agreements(both["human"], both["score"], both["unit"].tolist(), seed).items():
                ends = [each.estimate, each.low, each.high] if comparable or metric == "spearman" else [np.nan] * 3
                found.append([judge, model, SCORES, metric, *ends, each.n, len(rows) - len(both)])
            if two:
                found.append([judge, model, SCORES, *_auc(rows, rows["human"] == scores["human"].max(), seed)])
    return pd.DataFrame(found, columns=AGREEMENT_COLUMNS)


def _models(rows: "pd.DataFrame") -> list[tuple[str, "pd.DataFrame"]]:
    """Each model's rows and, of several models, all of them."""
    groups = list(rows.groupby("model", sort=False))
    return [*groups, *([(ALL_MODELS, rows)] if len(groups) > 1 else [])]


def _label_agreement(rows: "pd.DataFrame", place: Callable[[str], int], k: int, seed: int) -> list[list]:
    both = rows[rows["judged"].notna()]
    human, judged = ([place(label) for label in both[side]] for side in ("human", "judged"))
    found = agreements(human, judged, both["unit"].tolist(), k, seed)
    return [_row(metric, each, len(rows) - len(both)) for metric, each in found.items()]


def _auc(rows: "pd.DataFrame", truth: "pd.Series", seed: int) -> list:
    told = rows["score"].notna()
    found = auc(truth[told].tolist(), rows.loc[told, "score"].astype(float), rows.loc[told, "unit"].tolist(), seed)
    return _row("auc", found, int((~told).sum()))


def _row(metric: str, found: Estimate, n_missing: int) -> list:
    return [metric, found.estimate, found.low, found.high, found.n, n_missing]


def _scale_of(judge: str) -> tuple[float, float] | None:
    """The least and the greatest score of a judge; None where it has no bounds, or they are not known.

    What has a class in its name, as in ``harmfulness:MODEL#CLASS``, gives a probability.
    """
    share = {judge, judge.partition(":")[0]} & set(_SHARES)
    return SHARE if share or "#" in judge else SCALES.get(judge)


# --- correction ---------------------------------------------------------------------------------------------------


def corrected_table(
    judgements: "pd.DataFrame", human: "pd.DataFrame", by: Sequence[str] = (N_SAFETY,)
) -> "pd.DataFrame":
    """Every judge's rates and scores as they are and corrected, by run, and by ``by`` where several seeds share it.

    The unit is the prompt: it is labelled if any answer to it is, and counts with the mean of its answers. Over
    seeds, the interval is of these models over prompts, and says nothing of what other seeds would have given.

    Args:
        judgements: run, n_safety, seed, whatever else is in ``by``, dataset, prompt_id, sample, judge, label, score,
            missing.
        human: run, dataset, prompt_id, sample, and label or (of HARM_SCALE) score: a random part of the answers.

    Returns:
        The columns of CORRECTED_COLUMNS: raw is the judge's rate, or mean score on its own scale, with an interval as
        in ``summary.csv``; estimate, low and high the corrected one, on people's scale (nan, with a note, where fewer
        than FEWEST_LABELLED prompts are labelled); weight what the judge counts in it; n the prompts judged; n_missing
        the answers that lack a judgement; n_labelled the prompts that both know.
    """
    import pandas as pd

    if "score" in human:
        said = human.assign(metric="mean_score", human=human["score"])
        judgements = judgements[judgements["judge"].map(tells_harm)]
    else:
        judge = DELIVERY if family(set(human["label"])) == family({DELIVERED}) else "human"
        labelled = metric_values(human.assign(judge=judge, score=None, missing=None))
        said = labelled.rename(columns={"value": "human"})
    values = metric_values(judgements)
    values, said = values[values["metric"].isin(said["metric"])], said[[*KEYS, "metric", "human"]]
    merged = values.merge(said, how="left", on=[*KEYS, "metric"])
    rows = []
    for (run, dataset, judge, metric), group in merged.groupby(["run", "dataset", "judge", "metric"], sort=False):
        rows.append([run, *group[[N_SAFETY, "seed"]].iloc[0], dataset, judge, metric, *_corrected(group)])
    for _, of_n in merged.groupby(list(by), sort=False):
        if of_n["seed"].nunique() < 2:
            continue
        for (dataset, judge, metric), group in of_n.groupby(["dataset", "judge", "metric"], sort=False):
            name = ", ".join(f"{name} {of_n[name].iloc[0]}" for name in by)
            found = _corrected(group)
            rows.append([f"{name}, all seeds", of_n[N_SAFETY].iloc[0], None, dataset, judge, metric, *found])
    return pd.DataFrame(rows, columns=CORRECTED_COLUMNS)


def _corrected(group: "pd.DataFrame") -> list:
    judge, metric = group["judge"].iloc[0], group["metric"].iloc[0]
    bounds = HARM_SCALE if metric == "mean_score" else SHARE
    judged = group[group["value"].notna()]
    raw = mean_over_seeds(matrix(group).to_numpy(), bounds=bounds_of(judge, metric))
    if metric == "mean_score":
        judged = judged.assign(value=_on_scale(judged["value"], _scale_of(judge), bounds))
    labelled = judged[judged["human"].notna()].groupby("prompt_id")[["human", "value"]].mean()
    alone = judged[~judged["prompt_id"].isin(labelled.index)].groupby("prompt_id")["value"].mean()
    found = corrected_mean(labelled["human"], labelled["value"], alone, bounds)
    note = ""
    if len(labelled) < FEWEST_LABELLED:
        note = f"{len(labelled)} of at least {FEWEST_LABELLED} human labels"
    estimate, n_prompts = found.estimate, judged["prompt_id"].nunique()
    missing = len(group) - len(judged)
    ends = [estimate.estimate, estimate.low, estimate.high, found.weight]
    return [raw.estimate, raw.low, raw.high, *ends, n_prompts, missing, len(labelled), note]


def _on_scale(values: "pd.Series", own: tuple[float, float] | None, scale: tuple[float, float]) -> "pd.Series":
    """A judge's scores on people's scale. What goes beyond it is cut: any function of the judge's score is a judge."""
    if own:
        values = scale[0] + (values - own[0]) / (own[1] - own[0]) * (scale[1] - scale[0])
    return values.clip(*scale)


def tells_harm(judge: str) -> bool:
    return bool({judge, judge.partition(":")[0]} & set(_HARM_JUDGES))
