"""Differences other than those between two N: a guard prompt beside demonstrations, two forms of one topic.

Judgements in, tidy tables and sentences out. Computes no statistics of its own; reads, writes and draws nothing.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from safety_nb.core.columns import N_SAFETY, setting_names
from safety_nb.core.text import setting_text
from safety_nb.report.findings import deciding
from safety_nb.report.findings.rates import (
    METRIC_NAMES,
    RATES,
    bounds_of,
    difference_text,
    matrix,
    metric_values,
    value_text,
)
from safety_nb.stats import paired

if TYPE_CHECKING:
    import pandas as pd

GUARD = "guard_prompt"
# What an arm of a study with a guard prompt is called, by what it has.
NOTHING, SENTENCE, DEMONSTRATIONS, BOTH = "neither", "guard prompt alone", "demonstrations alone", "both"
_DIFFERENCE = [
    "first", "second", "difference", "low", "high", "p_value", "p_holm", "test", "p_any_seed", "n", "n_missing",
]  # fmt: skip
GUARD_COLUMNS = ["dataset", "judge", "metric", GUARD, N_SAFETY, "against", "arm", *_DIFFERENCE]
PAIR_COLUMNS = ["dataset", "judge", "metric", N_SAFETY, "against", "type", *_DIFFERENCE]


def guards(
    judgements: "pd.DataFrame",
    roles: Mapping[str, str],
    swept: Mapping[str, list],
    decision: deciding.Decision = deciding.BY_STANCE,
) -> "pd.DataFrame":
    """What a guard prompt, demonstrations, and both do, each arm against each that it has something more or else than.

    Args:
        judgements: Of all runs of a study: what was swept, run, seed, dataset, prompt_id, judge, label, score, missing
            (and sample).
        roles: Evaluation set to role.
        swept: The swept parameters with their values.
        decision: What is counted on the sets of each role.

    Returns:
        What else was swept, then the columns of GUARD_COLUMNS: first and second are the metric of the arm `against`
        and of the arm `arm`, over the pairs of prompt and seed judged in both; difference: second minus first with its
        95 % interval; p_value: of no difference between these very models; p_any_seed: between models of any seed, nan
        with one; p_holm: p_any_seed, or with one seed p_value, corrected by Holm for all of this table. guard_prompt
        is that of the arms with one, n_safety that of the arms with demonstrations: more than the smallest N, which the
        others have (and both of the first comparison). No rows where no guard prompt was swept beside none, or nothing
        was judged.
    """
    import pandas as pd

    others = [name for name in setting_names(swept) if name != GUARD]
    columns = [*others, *GUARD_COLUMNS]
    if "" not in swept.get(GUARD, []) or len(swept[GUARD]) < 2 or judgements.empty:
        return pd.DataFrame(columns=columns)
    values = metric_values(judgements)
    rows = []
    for key, group in values.groupby([*others, "dataset", "judge", "metric"], sort=False):
        *setting, dataset, judge, metric = key
        if metric not in (decision.metric(roles.get(dataset, "")), "unsafe_rate", "mean_score"):
            continue
        cells = _matrices(group, [GUARD, N_SAFETY], "prompt_id")
        least, bounds = int(group[N_SAFETY].min()), bounds_of(judge, metric)
        for guard in filter(None, swept[GUARD]):
            for n_safety in sorted(group[N_SAFETY].unique()):
                for against, arm in _ARMS[1:] if n_safety > least else _ARMS[:1]:
                    one, other = (cells.get(_cell(each, guard, n_safety, least)) for each in (against, arm))
                    if one is not None and other is not None:
                        found = _difference(one, other, bounds)
                        rows.append([*setting, dataset, judge, metric, guard, int(n_safety), against, arm, *found])
    return _corrected(pd.DataFrame(rows, columns=columns))


_ARMS = (
    (NOTHING, SENTENCE), (NOTHING, DEMONSTRATIONS), (SENTENCE, DEMONSTRATIONS), (SENTENCE, BOTH),
    (DEMONSTRATIONS, BOTH),
)  # fmt: skip


def _cell(arm: str, guard: str, n_safety: int, least: int) -> tuple[str, int]:
    return guard if arm in (SENTENCE, BOTH) else "", int(n_safety if arm in (DEMONSTRATIONS, BOTH) else least)


def pairs(judgements: "pd.DataFrame", pair_of: Mapping[tuple[str, str], tuple[str, str]]) -> "pd.DataFrame":
    """The two types in which prompts of a pair ask for one topic, at each N, paired by topic.

    Args:
        judgements: Of one setting: n_safety, seed, dataset, prompt_id, judge, label, score, missing (and sample).
        pair_of: (evaluation set, prompt_id) to its pair and type, of prompts that are of a pair. A set whose prompts
            have not two types is left out.

    Returns:
        The columns of PAIR_COLUMNS; first and second: the metric of the type `against` (the one that comes first in the
        set) and of `type`, over the pairs judged in both; otherwise as `guards`.
    """
    import pandas as pd

    keys = list(zip(judgements["dataset"], judgements["prompt_id"], strict=True))
    told = judgements.assign(pair=[pair_of.get(key, (None, None))[0] for key in keys])
    told = told.assign(type=[pair_of.get(key, (None, None))[1] for key in keys])[told["pair"].notna()]
    rows = []
    for (dataset, judge, metric), group in metric_values(told).groupby(["dataset", "judge", "metric"], sort=False):
        types = list(dict.fromkeys(group["type"]))
        if metric not in _SAID or len(types) != 2:
            continue
        cells = _matrices(group, ["type", N_SAFETY], "pair")
        for n_safety in sorted(group[N_SAFETY].unique()):
            one, other = (cells[each, int(n_safety)] for each in types)
            found = _difference(one, other, bounds_of(judge, metric))
            rows.append([dataset, judge, metric, int(n_safety), *types, *found])
    return _corrected(pd.DataFrame(rows, columns=PAIR_COLUMNS))


def _matrices(values: "pd.DataFrame", by: list[str], item: str) -> dict[tuple[Any, int], np.ndarray]:
    """One metric of one set: what `by` says to its values, seeds x items, the same ones for all; nan where missing."""
    values = values.assign(prompt_id=values[item])
    seeds, items = sorted(values["seed"].unique()), list(dict.fromkeys(values["prompt_id"]))
    return {
        (first, int(n_safety)): matrix(rows).reindex(index=seeds, columns=items).to_numpy(dtype=float)
        for (first, n_safety), rows in values.groupby(by)
    }


def _difference(one: np.ndarray, other: np.ndarray, bounds: tuple[float, float] | None) -> list:
    found = paired.contrast(one, other, bounds=bounds)
    told = found.difference
    return [
        found.first, found.second, told.estimate, told.low, told.high, found.p_these_models, np.nan, found.test,
        found.p_any_seed, told.n, told.n_missing,
    ]  # fmt: skip


def _corrected(table: "pd.DataFrame") -> "pd.DataFrame":
    if table.empty:
        return table
    return table.assign(p_holm=paired.holm(table["p_any_seed"].fillna(table["p_value"]).tolist()))


# The metrics of which the two forms of a topic are compared, in words.
_SAID = {
    "compliance_rate": METRIC_NAMES["compliance_rate"],
    "delivery_rate": METRIC_NAMES["delivery_rate"],
    "unsafe_rate": "judged unsafe",
    "mean_score": "mean score",
}


# --- in words -----------------------------------------------------------------------------------------------------


def guard_sentences(
    table: "pd.DataFrame",
    harmful: str | None,
    lookalike: str | None,
    decision: deciding.Decision = deciding.BY_STANCE,
) -> list[str]:
    """Whether demonstrations are worth more than a sentence.

    For each guard prompt and N, what either leaves of harm, and what it costs in look-alikes.

    Args:
        table: What `guards` returns, of one setting of what else was swept.
        harmful, lookalike: The evaluation sets that decide; None where none was judged.
        decision: What is counted, and by whom.
    """
    told = []
    harm = decision.harmful
    of_harm, of_cost = METRIC_NAMES[harm.metric], METRIC_NAMES[decision.harmless.metric]
    by_whom = {harmful: harm, lookalike: decision.harmless}
    counted = [
        name in by_whom and (judge, metric) == (by_whom[name].judge, by_whom[name].metric)
        for name, judge, metric in zip(table["dataset"], table["judge"], table["metric"], strict=True)
    ]
    table = table[counted]
    rows = table[(table["against"] == SENTENCE) & (table["arm"] == DEMONSTRATIONS)]
    several = table[GUARD].nunique() > 1
    for (guard, n_safety), of_arm in rows.groupby([GUARD, N_SAFETY], sort=False):
        sides = {row.dataset: row for row in of_arm.itertuples()}
        safe = sides.get(harmful)
        if safe is None or not safe.n:
            continue
        of = f" ({setting_text(guard)})" if several else ""
        verdict = (
            "are worth more than the guard prompt" if safe.high < 0 else "are worth less than the guard prompt"
            if safe.low > 0 else "are not shown to be worth more or less than the guard prompt"
        )  # fmt: skip
        text = f"{n_safety} demonstrations {verdict}{of}: "
        text += f"of {harmful}, {_sides(safe)} of the requests are {of_harm}"
        if (cost := sides.get(lookalike)) is not None and cost.n:
            text += f", and of {lookalike}, {_sides(cost)} are {of_cost}"
        both = table[(table[GUARD] == guard) & (table[N_SAFETY] == n_safety)]
        both = both[(both["dataset"] == harmful) & (both["against"] == DEMONSTRATIONS) & (both["arm"] == BOTH)]
        for row in both.itertuples():
            text += f"; with both, {value_text(row.metric, row.second)} of {harmful} are {of_harm}"
        told.append(f"{text}.")
    return told


def _sides(row: Any) -> str:
    """'97 % with the guard prompt alone and 2 % with them (-95 points, -98 to -91; 120 pairs)'."""
    one, other = (value_text(row.metric, value) for value in (row.first, row.second))
    change = _points(row)
    return f"{other} with them alone and {one} with it alone ({change})"


def pair_sentences(table: "pd.DataFrame") -> list[str]:
    """What the two types of a pair differ in, a sentence each set, judge and N."""
    told = []
    for row in table.itertuples():
        name = _SAID[row.metric]
        if not row.n:
            told.append(f"{row.dataset}, {row.judge}, N = {row.n_safety}: no topic was judged in both forms.")
            continue
        one, other = (value_text(row.metric, value) for value in (row.first, row.second))
        shown = "" if row.p_holm < 0.05 else ", not told apart"
        told.append(
            f"{row.dataset}, {name} ({row.judge}), N = {row.n_safety}: {row.against} {one}, {row.type} {other} "
            f"({_points(row)}{shown})."
        )
    return told


def _points(row: Any) -> str:
    share = row.metric in RATES
    scale, digits, unit = (100, 0, " points") if share else (1, 2, "")
    text = difference_text(*(scale * end for end in (row.difference, row.low, row.high)), digits)
    change, _, interval = text.partition(" (")
    return f"{change}{unit}{', ' + interval.rstrip(')') if interval else ''}; {row.n:,} pairs"
