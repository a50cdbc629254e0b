"""What a study says beyond its rates: tests between N, which prompts flip, types of prompts, agreement of judges.

Judgements in, tidy tables out. Computes no statistics of its own, reads and writes no files, draws nothing.
"""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from safety_nb.core.columns import N_SAFETY
from safety_nb.report.findings import deciding
from safety_nb.report.findings.rates import aggregate, bounds_of, matrix, metric_values
from safety_nb.stats import dose, paired
from safety_nb.stats.estimates import SHARE

if TYPE_CHECKING:
    import pandas as pd

TEST_COLUMNS = [
    "dataset", "judge", "metric", N_SAFETY, "against", "first", "second", "difference", "low", "high", "p_value",
    "p_holm", "test", "p_any_seed", "cohens_h", "changed", "detectable", "n", "n_missing",
]  # fmt: skip


def tests(
    judgements: "pd.DataFrame", roles: Mapping[str, str], decision: deciding.Decision = deciding.BY_STANCE
) -> "pd.DataFrame":
    """Each N against the smallest, over the same prompts and seeds: every set by its measure, and every mean score.

    Args:
        judgements: Of one setting: n_safety, seed, dataset, prompt_id, judge, label, score, missing (and sample).
        roles: Evaluation set to role.
        decision: What is counted on the sets of each role.

    Returns:
        The columns of TEST_COLUMNS. first and second: the metric at `against` (the smallest N) and at n_safety, over
        the pairs judged at both; difference: second minus first with its 95 % interval. p_value: of no difference
        between these very models (test says how); p_any_seed: between models of any seed, nan with one. p_holm: what a
        claim about N needs, p_any_seed or with one seed p_value, corrected by Holm for all tests of this table.
        detectable: the smallest difference that this many pairs show four times in five, at this share of changed
        ones (rates of one seed only, else nan). Where an N was not judged, all of these are nan and n is 0.
    """
    import pandas as pd

    values = metric_values(judgements)
    rows = []
    for (dataset, judge, metric), group in values.groupby(["dataset", "judge", "metric"], sort=False):
        if metric not in (decision.metric(roles.get(dataset, "")), "unsafe_rate", "mean_score"):
            continue
        matrices = by_dose(group)
        first, *others = sorted(matrices)
        bounds = bounds_of(judge, metric)
        for n_safety in others:
            found = paired.contrast(matrices[first], matrices[n_safety], bounds=bounds)
            one_seed = len(matrices[first]) == 1 and bounds == SHARE and found.changed > 0
            rows.append(
                [
                    dataset, judge, metric, n_safety, first, found.first, found.second, found.difference.estimate,
                    found.difference.low, found.difference.high, found.p_these_models, np.nan, found.test,
                    found.p_any_seed, found.cohens_h, found.changed,
                    paired.detectable_paired(found.difference.n, found.changed) if one_seed else np.nan,
                    found.difference.n, found.difference.n_missing,
                ]
            )  # fmt: skip
    table = pd.DataFrame(rows, columns=TEST_COLUMNS)
    about_n = table["p_any_seed"].fillna(table["p_value"]).tolist()
    return table.assign(p_holm=paired.holm(about_n)) if len(table) else table


def by_dose(values: "pd.DataFrame") -> dict[int, np.ndarray]:
    """One metric of one set: N to its values, seeds x prompts, the same ones for every N; nan where missing.

    Args:
        values: Columns n_safety, seed, prompt_id, value, and sample where prompts have several answers.
    """
    seeds, prompts = sorted(values["seed"].unique()), list(dict.fromkeys(values["prompt_id"]))
    return {
        int(n_safety): matrix(rows).reindex(index=seeds, columns=prompts).to_numpy(dtype=float)
        for n_safety, rows in values.groupby(N_SAFETY)
    }


def curve(judgements: "pd.DataFrame", dataset: str, metric: str, falling: bool) -> dose.Curve:
    """The monotone fit of a metric of one set against N, by the judge that decides on it.

    Args:
        judgements: Of one setting, and of one judge on this set, as for `tests`.
    """
    values = metric_values(judgements[judgements["dataset"] == dataset])
    matrices = by_dose(values[values["metric"] == metric])
    return dose.fit(list(matrices), list(matrices.values()), falling)


def flips(judgements: "pd.DataFrame", first: int, second: int) -> "pd.DataFrame":
    """Answers whose label differs between two N, of the same seed and prompt.

    Args:
        judgements: Of one setting, and of one judge on each set, as for `tests`.

    Returns:
        Columns dataset, prompt_id, seed, sample, before, after (labels at the first and the second N); those that
        either N lacks are left out.
    """
    rows = judgements.assign(sample=judgements["sample"].fillna(0) if "sample" in judgements else 0)
    keys = ["dataset", "prompt_id", "seed", "sample"]
    before, after = (
        rows.loc[(rows[N_SAFETY] == n_safety) & rows["label"].notna(), [*keys, "label"]] for n_safety in (first, second)
    )
    both = before.merge(after, on=keys, suffixes=("_before", "_after"), sort=False)
    both = both.rename(columns={"label_before": "before", "label_after": "after"})
    return both[both["before"] != both["after"]].reset_index(drop=True)


def by_type(judgements: "pd.DataFrame", types: Mapping[tuple[str, str], str]) -> "pd.DataFrame":
    """Rates by type of prompt, as `rates.aggregate` computes those of a set.

    Args:
        judgements: Of one setting, as for `tests`; with a column run.
        types: (dataset, prompt_id) to its type, of prompts that have one.

    Returns:
        Columns n_safety, dataset, type, judge, metric, estimate, low, high, n, n_missing, n_seeds.
    """
    import pandas as pd

    keys = list(zip(judgements["dataset"], judgements["prompt_id"], strict=True))
    rows = judgements.assign(type=[types.get(key) for key in keys])
    rows = rows[rows["type"].notna()]
    parts = []
    for dataset, of_set in rows.groupby("dataset", sort=False):
        table = aggregate(of_set.assign(dataset=of_set["type"]).drop(columns="type"))
        parts.append(table.rename(columns={"dataset": "type"}).assign(dataset=dataset))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[N_SAFETY, "dataset", "type"])


def agreement(judgements: "pd.DataFrame") -> "pd.DataFrame":
    """How far the judges that tell refusals agree, on refusal (full or partial) or not, over all answers both judged.

    Returns:
        Columns judge, other, kappa (Cohen's, -1 to 1; nan where both say the same of everything), same (share of equal
        readings), n: one row a pair.
    """
    import pandas as pd
    from statsmodels.stats.inter_rater import cohens_kappa

    values = metric_values(judgements)
    values = values[(values["metric"] == "refusal_rate") & values["value"].notna()]
    keys = [name for name in ("run", "dataset", "prompt_id", "sample") if name in values]
    wide = values.assign(**{name: values[name].fillna(0) for name in keys if name == "sample"}).pivot(
        index=keys, columns="judge", values="value"
    )
    rows = []
    for judge, other in itertools.combinations(dict.fromkeys(values["judge"]), 2):
        both = wide[[judge, other]].dropna()
        counts = pd.crosstab(both[judge], both[other]).reindex(index=[0.0, 1.0], columns=[0.0, 1.0], fill_value=0)
        table = counts.to_numpy()
        alike = float(np.trace(table) / table.sum()) if len(both) else np.nan
        # Where a judge says one thing of everything, chance explains all agreement, and kappa says nothing.
        told = len(both) and (table.sum(axis=0) > 0).all() and (table.sum(axis=1) > 0).all()
        kappa = float(cohens_kappa(table).kappa) if told else np.nan
        rows.append([judge, other, kappa, alike, len(both)])
    return pd.DataFrame(rows, columns=["judge", "other", "kappa", "same", "n"])
