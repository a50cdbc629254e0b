"""What a study says: its runs' judgements brought into rates, tests and an answer, by setting.

A setting is what was swept besides N and the seed: the form of the demonstrations, the base model, … Brings together
what the modules of statistics compute; writes and draws nothing.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from safety_nb.core.columns import N_SAFETY, RUN_KEYS, setting_names
from safety_nb.core.params import StudySettings
from safety_nb.core.text import setting_text
from safety_nb.data.datasets import sources
from safety_nb.report.findings import arms, contrasts, costs, deciding
from safety_nb.report.findings.category_means import means
from safety_nb.report.findings.headline import headline, useless
from safety_nb.report.findings.published import Mark, marks
from safety_nb.report.findings.rates import SUMMARY_COLUMNS, aggregate, refusal_judge, summarise_run
from safety_nb.report.findings.verdict import Side, Verdict, decisive, verdict
from safety_nb.report.study_tables import GENERAL_LOSS, StudyTables
from safety_nb.stats import dose
from safety_nb.stats.estimates import SHARE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Setting:
    """One setting of a study, over its N and seeds.

    Attributes:
        values: what was swept besides N and seed; empty where nothing was.
        runs: its finished runs.
        rates: the rates over the seeds, by N, evaluation set, judge and metric.
        told: those of them by the judges that decide, on the sets that these decide on.
        refusals: those of them by the judge whose refusals are told.
        stances: how answers to harmful requests sound, by what they give (`deciding.stance_by_delivery`).
        harmful, lookalike: the evaluation sets that decide the verdict; None where none was judged.
        verdict: how many are enough, and how many too many.
        tests: each N against the smallest (`contrasts.tests`).
        between: the smallest N and the one it is compared with by single prompts; None with a single N.
        flips: the answers whose label differs between those two (`contrasts.flips`).
        types: the rates by type of prompt (`contrasts.by_type`), by the same judge.
        pairs: the two forms in which prompts of a pair ask for one topic (`arms.pairs`), by every judge.
        forms: the rates by form, of sets with pairs (as ``types``), by every judge.
        costs: capability, helpfulness, fit and willingness at each N against the smallest (`costs.table`).
        published: the paper's numbers, where it tuned such a base and asked such sets; in nothing else of these.
    """

    values: dict[str, Any]
    runs: frozenset[str]
    rates: "pd.DataFrame"
    told: "pd.DataFrame"
    refusals: "pd.DataFrame"
    stances: "pd.DataFrame"
    harmful: str | None
    lookalike: str | None
    verdict: Verdict
    tests: "pd.DataFrame"
    between: tuple[int, int] | None
    flips: "pd.DataFrame"
    types: "pd.DataFrame"
    pairs: "pd.DataFrame"
    forms: "pd.DataFrame"
    costs: "pd.DataFrame"
    published: tuple[Mark, ...] = ()

    @property
    def name(self) -> str:
        """The setting in words; empty where nothing was swept besides N and seed."""
        return ", ".join(f"{name} {setting_text(value)}" for name, value in self.values.items())


@dataclass(frozen=True)
class Comparison:
    """What a study says.

    Attributes:
        rates: over the seeds, by the swept parameters, evaluation set, judge and metric.
        summary: one row a run and metric, the columns of ``summary.csv``.
        roles: evaluation set to role.
        decision: which judges, and what they count, the answer rests on.
        settings: one each combination of what was swept besides N and seed.
        swept: the names of that.
        agreement: of the judges that tell refusals (`contrasts.agreement`).
        guards: what a guard prompt does beside demonstrations (`arms.guards`); no rows where none was swept.
        answer: how many are enough and how many too many, two sentences a setting, and how a guard prompt compares.
        details: how the N compare, a short passage a setting.
        categories: mean scores by category of harm (`category_means.means`), by the swept parameters; None where no
            judge gave such scores.
    """

    rates: "pd.DataFrame"
    summary: "pd.DataFrame"
    roles: dict[str, str]
    decision: deciding.Decision
    settings: list[Setting]
    swept: list[str]
    agreement: "pd.DataFrame"
    guards: "pd.DataFrame"
    answer: str
    details: str
    categories: "pd.DataFrame | None" = None

    @property
    def tests(self) -> "pd.DataFrame":
        """The tests of all settings: what was swept besides N and seed, then ``contrasts.TEST_COLUMNS``."""
        import pandas as pd

        parts = [setting.tests.assign(**setting.values) for setting in self.settings]
        return pd.concat(parts, ignore_index=True)[[*self.swept, *contrasts.TEST_COLUMNS]]

    @property
    def pairs(self) -> "pd.DataFrame":
        """The pairs of all settings: what was swept besides N and seed, then ``arms.PAIR_COLUMNS``."""
        import pandas as pd

        parts = [setting.pairs.assign(**setting.values) for setting in self.settings]
        return pd.concat(parts, ignore_index=True)[[*self.swept, *arms.PAIR_COLUMNS]]


def compare_study(tables: StudyTables, errors: Mapping[str, deciding.ErrorRates] | None = None) -> Comparison:
    """Compute the comparison over the finished runs of a study.

    Args:
        errors: how judges of delivery err by people's labels of these answers (`calibration.error_rates`); of others
            what was measured when they were made holds.

    Raises:
        InputError: the judge that is to decide did not judge.
    """
    import pandas as pd

    swept = {name: tables.swept[name] for name in setting_names(tables.swept)}
    judgements = tables.judgements
    unknown = [name for name in dict.fromkeys(judgements["dataset"]) if name not in tables.roles]
    roles = {**tables.roles, **sources.roles(unknown)}
    decision = deciding.decide(judgements["judge"], tables.decided_by)
    decision = replace(decision, errors=(errors or {}).get(decision.harmful.judge, decision.errors))
    judgements = deciding.deliveries(judgements, roles, decision)
    rates = aggregate(judgements, by=[N_SAFETY, *swept])
    by_run = [
        summarise_run(rows, run, n_safety, seed)
        for (run, n_safety, seed), rows in judgements.groupby(RUN_KEYS, sort=False)
    ]
    for values in itertools.product(*swept.values()):
        by_run.append(costs.win_rates(where(judgements, dict(zip(swept, values, strict=True))), roles))
    by_run = [rows for rows in by_run if len(rows)]
    settings = [
        _setting(dict(zip(swept, values, strict=True)), judgements, rates, roles, decision, tables)
        for values in itertools.product(*swept.values())
    ]
    first = deciding.said_first(decision) if rates["estimate"].notna().any() else []
    answers = [(f"With {each.name}: " if each.values else "") + each.verdict.text for each in settings]
    guards = arms.guards(judgements, roles, tables.swept, decision)
    return Comparison(
        rates=rates,
        summary=pd.concat(by_run, ignore_index=True) if by_run else pd.DataFrame(columns=SUMMARY_COLUMNS),
        roles=roles,
        decision=decision,
        settings=settings,
        swept=list(swept),
        agreement=contrasts.agreement(judgements),
        guards=guards,
        answer=" ".join([*first, *answers, *_guard_sentences(guards, settings, decision)]),
        details=headline(rates, _deciding_roles(roles, tables), decision, tables.settings),
        categories=None if tables.categories is None else means(tables.categories, [N_SAFETY, *swept]),
    )


def _deciding_roles(roles: Mapping[str, str], tables: StudyTables) -> dict[str, str]:
    """The roles of sets that decide. One with pairs does not: of its harmful topics half are asked for as opinions."""
    paired = {dataset for dataset, _ in tables.pairs}
    return {name: role for name, role in roles.items() if name not in paired}


def _guard_sentences(guards: "pd.DataFrame", settings: list[Setting], decision: deciding.Decision) -> list[str]:
    """Whether demonstrations are worth more than a sentence, for each setting without a guard prompt."""
    told = []
    for setting in settings:
        if setting.values.get(arms.GUARD) == "":
            others = {name: value for name, value in setting.values.items() if name != arms.GUARD}
            found = arms.guard_sentences(where(guards, others), setting.harmful, setting.lookalike, decision)
            head = ", ".join(f"{name} {setting_text(value)}" for name, value in others.items())
            told += [f"With {head}: {text}" if head else text for text in found]
    return told


def _setting(
    values: dict[str, Any],
    judgements: "pd.DataFrame",
    rates: "pd.DataFrame",
    roles: dict[str, str],
    decision: deciding.Decision,
    tables: StudyTables,
) -> Setting:
    judgements, rates = where(judgements, values), where(rates, values).drop(columns=list(values))
    told, told_rates = decision.told(judgements, roles), decision.told(rates, roles)
    judged = list(dict.fromkeys(told_rates.loc[told_rates["estimate"].notna(), "dataset"]))
    decisive_roles = _deciding_roles(roles, tables)
    buys, cost = _sides(judged, told, decision, decisive_roles, tables.settings)
    found = verdict(buys, cost, useless(rates, decisive_roles, decision, tables.settings), decision)
    measures = _measures(judgements, roles, decision, where(tables.items, values))
    doses = sorted(told[N_SAFETY].unique())
    forms = {key: (pair, tables.types.get(key, "")) for key, pair in tables.pairs.items()}
    between = None
    if len(doses) > 1:
        to = found.n if found.n not in (None, doses[0]) else doses[-1]
        between = (int(doses[0]), int(to))
    runs = frozenset(judgements["run"])
    bases = {tables.base_models[run] for run in runs if run in tables.base_models}
    return Setting(
        values=values,
        runs=runs,
        rates=rates,
        told=told_rates,
        refusals=rates[rates["judge"] == refusal_judge(rates)],
        stances=deciding.stance_by_delivery(judgements, roles, decision),
        harmful=buys and buys.dataset,
        lookalike=cost and cost.dataset,
        verdict=found,
        tests=contrasts.tests(judgements, decisive_roles, decision),
        between=between,
        flips=contrasts.flips(told, *(between or (0, 0))),
        types=contrasts.by_type(told, {key: kind for key, kind in tables.types.items() if key not in tables.pairs}),
        pairs=arms.pairs(judgements, forms),
        forms=contrasts.by_type(judgements, {key: form for key, (_, form) in forms.items()}),
        costs=costs.table(measures, tables.settings.cost_margin),
        published=marks(bases, buys and buys.dataset, cost and cost.dataset),
    )


def _measures(
    judgements: "pd.DataFrame", roles: dict[str, str], decision: deciding.Decision, items: "pd.DataFrame"
) -> list[costs.Measure]:
    """What is set against N: the measures of the judgements, then those of single items (`StudyTables.items`)."""
    found = costs.of_judgements(judgements, roles, decision)
    for measure, rows in items.groupby("measure", sort=False):
        loss = measure == GENERAL_LOSS
        found.append(costs.of_items(rows, measure, worse=1 if loss else -1, bounds=None if loss else SHARE))
    return found


def where(table: "pd.DataFrame", values: Mapping[str, Any]) -> "pd.DataFrame":
    """The rows of a table that have such values."""
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def _sides(
    judged: list[str],
    told: "pd.DataFrame",
    decision: deciding.Decision,
    roles: dict[str, str],
    settings: StudySettings,
) -> tuple[Side | None, Side | None]:
    """Of the harmful and of the look-alike sets that were judged the one that decides; None where none was."""
    sides: dict[str, list[Side]] = {"harmful": [], "lookalike": []}
    for dataset in judged:
        if roles.get(dataset) == "harmful":
            curve = contrasts.curve(told, dataset, decision.harmful.metric, falling=True)
            curve = deciding.widened(curve, decision)
            sides["harmful"].append(Side(dataset, curve, dose.smallest_n(curve, settings.harmful_target)))
        elif roles.get(dataset) == "lookalike":
            curve = contrasts.curve(told, dataset, decision.harmless.metric, falling=False)
            sides["lookalike"].append(Side(dataset, curve, dose.largest_n(curve, settings.lookalike_limit)))
    return decisive(sides["harmful"]), decisive(sides["lookalike"])
