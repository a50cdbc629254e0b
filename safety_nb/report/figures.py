"""The figures of a study, each with its title, its words for those who cannot see it, and its caption."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safety_nb.core import grid
from safety_nb.report import plots
from safety_nb.report.findings.comparison import Comparison, Setting, where
from safety_nb.report.findings.published import CAVEAT

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


def draw_trade_off(comparison: Comparison, setting: Setting) -> "Axes | None":
    """Harm against errors on look-alikes, a point an N; None without both kinds of prompts."""
    if not (setting.harmful and setting.lookalike):
        return None
    sets = setting.harmful, setting.lookalike
    return plots.trade_off(setting.told, *sets, metrics=_metrics(comparison), published=setting.published)


def draw_dose_response(comparison: Comparison, setting: Setting) -> "Axes":
    """What is delivered against N (by stance: what is refused), a line an evaluation set."""
    return plots.dose_response(setting.told, comparison.roles, metric=_by_n_metric(comparison))


def _metrics(comparison: Comparison) -> tuple[str, str]:
    """What is counted on harmful requests, and on harmless ones."""
    return comparison.decision.harmful.metric, comparison.decision.harmless.metric


def _by_n_metric(comparison: Comparison) -> str:
    """What tells the same of harmful and of harmless requests."""
    both = {"compliance_rate": "refusal_rate", "delivery_rate": "delivery_rate"}
    return both[comparison.decision.harmful.metric]


@dataclass(frozen=True)
class Figure:
    title: str
    drawn: "Drawing"
    alt: str
    caption: str


def study_figures(comparison: Comparison, losses: dict[str, float]) -> dict[str, Figure]:
    """File name to figure, the trade-off first.

    Args:
        comparison: What the study says.
        losses: Run to its loss on general validation rows, in nats a token.
    """
    from matplotlib import pyplot

    parts = [_trade_offs(comparison), _by_setting(comparison)]
    for setting in comparison.settings:
        parts += [
            _by_n(comparison, setting),
            _by_type(comparison, setting),
            _by_form(setting),
            _by_loss(comparison, setting, losses),
        ]
        parts.append(_by_category(comparison, setting))
    parts.append(_agreement(comparison))
    found: dict[str, Figure] = {}
    for name, figure in itertools.chain.from_iterable(parts):
        found[name] = figure
        pyplot.close(figure.drawn)  # kept by us, not by pyplot: a notebook would show each a second time
    return found


_Named = Iterator[tuple[str, Figure]]  # file name and figure


def _ends(setting: Setting) -> tuple[str, str]:
    """What the file names and the titles of a setting's figures end with; empty where it is the only one."""
    in_file = "".join(f"_{grid.value_name(name, value)}" for name, value in setting.values.items())
    return in_file, f" ({setting.name})" if setting.values else ""


def _trade_offs(comparison: Comparison) -> _Named:
    for setting in comparison.settings:
        if axes := draw_trade_off(comparison, setting):
            suffix, of = _ends(setting)
            sets = setting.harmful, setting.lookalike
            alt = plots.trade_off_alt(setting.told, *sets, _metrics(comparison), setting.published)
            caption = (
                f"Judges: {' and '.join(dict.fromkeys(setting.told['judge']))}, on {setting.harmful} and "
                f"{setting.lookalike}. Bars are 95 % intervals."
            )
            caption += f" Open marks: {CAVEAT}" if setting.published else ""
            yield f"trade-off{suffix}", Figure(f"What each N buys and costs{of}", axes.figure, alt, caption)


def _by_setting(comparison: Comparison) -> _Named:
    """Each evaluation set that decides for a setting, over all settings; none where there is a single one."""
    if len(comparison.settings) < 2:
        return
    swept = comparison.swept
    for dataset in dict.fromkeys(name for each in comparison.settings for name in (each.harmful, each.lookalike)):
        if dataset:
            metric = comparison.decision.metric(comparison.roles[dataset])
            rows = comparison.rates[comparison.rates["dataset"] == dataset]
            axes, alt = plots.by_setting(rows, swept, metric=metric), plots.by_setting_alt(rows, swept, metric)
            caption = "One line a setting. Bars are 95 % intervals."
            yield f"settings_{dataset}", Figure(f"{dataset} by {' and '.join(swept)}", axes.figure, alt, caption)


def _by_n(comparison: Comparison, setting: Setting) -> _Named:
    suffix, of = _ends(setting)
    for name, title, metric, rows in _told_by_n(comparison, setting):
        axes = plots.dose_response(rows, comparison.roles, metric=metric)
        alt = plots.dose_response_alt(rows, comparison.roles, metric)
        caption = f"Judge: {rows['judge'].iloc[0]}. A line an evaluation set. Bars are 95 % intervals."
        yield f"{name}{suffix}", Figure(f"{title}{of}", axes.figure, alt, caption)


def _told_by_n(comparison: Comparison, setting: Setting) -> Iterator[tuple[str, str, str, "pd.DataFrame"]]:
    """What is drawn against N: file name, title, metric and rows, of each judge its own."""
    metric = _by_n_metric(comparison)
    if metric != "refusal_rate" and (setting.told["metric"] == metric).any():
        yield "delivered", "What is delivered against N", metric, setting.told
    if len(setting.refusals):
        yield "dose-response", "Refusals against N", "refusal_rate", setting.refusals
    rates = setting.rates
    for metric, title in (("unsafe_rate", "Answers judged unsafe"), ("mean_score", "Mean score")):
        for judge, rows in rates[rates["metric"] == metric].groupby("judge", sort=False):
            yield f"{metric.replace('_', '-')}_{_in_file(str(judge))}", f"{title} against N, by {judge}", metric, rows


def _by_type(comparison: Comparison, setting: Setting) -> _Named:
    suffix, of = _ends(setting)
    for dataset, rows in setting.types.groupby("dataset", sort=False):
        decision = comparison.decision
        metric = decision.metric(comparison.roles.get(dataset, "")) or decision.harmless.metric
        axes, alt = plots.by_type(rows, metric=metric), plots.by_type_alt(rows, metric)
        caption = "n counts answers over the seeds. Bars are 95 % intervals: single types have few prompts."
        yield f"types_{dataset}{suffix}", Figure(f"{dataset} by type of prompt{of}", axes.figure, alt, caption)


def _by_form(setting: Setting) -> _Named:
    """The two forms in which one topic is asked for, of each set with pairs, judge and metric that was compared."""
    suffix, of = _ends(setting)
    for (dataset, judge, metric), _ in setting.pairs.groupby(["dataset", "judge", "metric"], sort=False):
        rows = setting.forms[(setting.forms["dataset"] == dataset) & (setting.forms["judge"] == judge)]
        axes, alt = plots.by_setting(rows, ["type"], metric=metric), plots.by_setting_alt(rows, ["type"], metric)
        caption = f"Judge: {judge}. A line a form, over the same topics. Bars are 95 % intervals."
        name = _in_file(f"{dataset}_{metric}_{judge}")
        yield f"forms_{name}{suffix}", Figure(f"{dataset}, one topic in two forms{of}", axes.figure, alt, caption)


def _by_category(comparison: Comparison, setting: Setting) -> _Named:
    """Mean scores of each category of harm on every harmful set, a mark an N."""
    if comparison.categories is None:
        return
    suffix, of = _ends(setting)
    rows = where(comparison.categories, setting.values)
    rows = rows[rows["dataset"].map(comparison.roles) == "harmful"].rename(columns={"category": "type"})
    for (dataset, judge), told in rows.assign(metric="mean_score").groupby(["dataset", "judge"], sort=False):
        axes, alt = plots.by_type(told, metric="mean_score"), plots.by_type_alt(told, "mean_score")
        caption = f"Judge: {judge}, from 0 to 1. The mean over answers and seeds; bars are 95 % intervals."
        title = f"{dataset} by category of harm{of}"
        yield f"categories_{_in_file(judge)}_{dataset}{suffix}", Figure(title, axes.figure, alt, caption)


def _in_file(judge: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in judge)


def _by_loss(comparison: Comparison, setting: Setting, losses: dict[str, float]) -> _Named:
    suffix, of = _ends(setting)
    rows = _beside_losses(comparison, setting, losses)
    if len(rows):
        metric = comparison.decision.harmful.metric
        axes, alt = plots.safety_against_loss(rows, metric=metric), plots.safety_against_loss_alt(rows, metric)
        caption = f"One point a run: harm on {setting.harmful}, and the loss on held-out general rows."
        title = f"Safety against fit to the general data{of}"
        yield f"safety-against-loss{suffix}", Figure(title, axes.figure, alt, caption)


def _beside_losses(comparison: Comparison, setting: Setting, losses: dict[str, float]) -> "pd.DataFrame":
    """Harm of each run beside its loss: the columns `plots.safety_against_loss` takes."""
    rows, counted = comparison.summary, comparison.decision.harmful
    told = rows[(rows["dataset"] == setting.harmful) & (rows["metric"] == counted.metric)]
    told = told[told["judge"] == counted.judge]
    told = told[told["run"].isin(setting.runs)]
    told = told.assign(loss=told["run"].map(losses))
    return told[told["loss"].notna() & told["estimate"].notna()]


def _agreement(comparison: Comparison) -> _Named:
    table = comparison.agreement
    if len(table):
        axes, alt = plots.agreement(table), plots.agreement_alt(table)
        caption = "Cohen's kappa on refusal or not, over all answers that both judged."
        yield "agreement", Figure("How far the judges agree", axes.figure, alt, caption)
