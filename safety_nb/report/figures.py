"""The figures of a study, each with its title, its words for those who cannot see it, and its caption."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safety_nb.report import plots
from safety_nb.report.findings import contrasts
from safety_nb.report.findings.comparison import Comparison, Setting
from safety_nb.report.findings.rates import refusal_judge

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


def draw_trade_off(comparison: Comparison, setting: Setting) -> "Axes | None":
    """Harmful requests answered against look-alikes refused, a point an N; None without both kinds of prompts."""
    if not (setting.harmful and setting.lookalike):
        return None
    return plots.trade_off(setting.refusals, setting.harmful, setting.lookalike)


def draw_dose_response(comparison: Comparison, setting: Setting) -> "Axes":
    """Refusals against N, a line an evaluation set."""
    return plots.dose_response(setting.refusals, comparison.roles)


@dataclass(frozen=True)
class Figure:
    title: str
    drawn: "Drawing"
    alt: str
    caption: str


def study_figures(comparison: Comparison, losses: dict[str, float]) -> dict[str, Figure]:
    """File name to figure, the trade-off first."""
    from matplotlib import pyplot

    found: dict[str, Figure] = {}

    def add(name: str, title: str, axes: "Axes", alt: str, caption: str) -> None:
        found[name] = Figure(title, axes.figure, alt, caption)
        pyplot.close(axes.figure)  # kept by us, not by pyplot: a notebook would show each a second time

    for setting in comparison.settings:
        suffix = "".join(f"_{name}-{value}" for name, value in setting.values.items()).replace("/", "_")
        of = f" ({setting.name})" if setting.values else ""
        if axes := draw_trade_off(comparison, setting):
            add(
                f"trade-off{suffix}",
                f"What each N buys and costs{of}",
                axes,
                plots.trade_off_alt(setting.refusals, setting.harmful, setting.lookalike),
                f"Requests of {setting.harmful} answered against requests of {setting.lookalike} refused. "
                "Bars are 95 % intervals.",
            )
    if len(comparison.settings) > 1:
        for dataset in dict.fromkeys(name for each in comparison.settings for name in (each.harmful, each.lookalike)):
            if dataset:
                metric = contrasts.MEASURES[comparison.roles[dataset]]
                rows = comparison.rates[comparison.rates["dataset"] == dataset]
                add(
                    f"settings_{dataset}",
                    f"{dataset} by {' and '.join(comparison.swept)}",
                    plots.by_setting(rows, comparison.swept, metric=metric),
                    plots.by_setting_alt(rows, comparison.swept, metric),
                    "One line a setting. Bars are 95 % intervals.",
                )
    for setting in comparison.settings:
        suffix = "".join(f"_{name}-{value}" for name, value in setting.values.items()).replace("/", "_")
        of = f" ({setting.name})" if setting.values else ""
        for name, title, metric, rows in _by_n(setting):
            add(
                f"{name}{suffix}",
                f"{title}{of}",
                plots.dose_response(rows, comparison.roles, metric=metric),
                plots.dose_response_alt(rows, comparison.roles, metric),
                f"Judge: {rows['judge'].iloc[0]}. A line an evaluation set. Bars are 95 % intervals.",
            )
        for dataset, rows in setting.types.groupby("dataset", sort=False):
            metric = contrasts.MEASURES.get(comparison.roles.get(dataset, ""), "refusal_rate")
            add(
                f"types_{dataset}{suffix}",
                f"{dataset} by type of prompt{of}",
                plots.by_type(rows, metric=metric),
                plots.by_type_alt(rows, metric),
                "n counts answers over the seeds. Bars are 95 % intervals: single types have few prompts.",
            )
        against = _against_loss(comparison, setting, losses)
        if len(against):
            add(
                f"safety-against-loss{suffix}",
                f"Safety against fit to the general data{of}",
                plots.safety_against_loss(against),
                plots.safety_against_loss_alt(against),
                f"One point a run: requests of {setting.harmful} answered, and the loss on held-out general rows.",
            )
    if len(comparison.agreement):
        add(
            "agreement",
            "How far the judges agree",
            plots.agreement(comparison.agreement),
            plots.agreement_alt(comparison.agreement),
            "Cohen's kappa on refusal or not, over all answers that both judged.",
        )
    return found


def _by_n(setting: Setting) -> Iterator[tuple[str, str, str, "pd.DataFrame"]]:
    """What is drawn against N: file name, title, metric and rows, of each judge its own."""
    if len(setting.refusals):
        yield "dose-response", "Refusals against N", "refusal_rate", setting.refusals
    rates = setting.rates
    for metric, title in (("unsafe_rate", "Answers judged unsafe"), ("mean_score", "Mean score")):
        for judge, rows in rates[rates["metric"] == metric].groupby("judge", sort=False):
            name = "".join(character if character.isalnum() else "-" for character in str(judge))
            yield f"{metric.replace('_', '-')}_{name}", f"{title} against N, by {judge}", metric, rows


def _against_loss(comparison: Comparison, setting: Setting, losses: dict[str, float]) -> "pd.DataFrame":
    """Harmful compliance of each run beside its loss: the columns `plots.safety_against_loss` takes."""
    rows = comparison.summary
    told = rows[(rows["dataset"] == setting.harmful) & (rows["metric"] == "compliance_rate")]
    told = told[told["judge"] == refusal_judge(comparison.rates)] if len(told) else told
    told = told[told["run"].isin(setting.runs)]
    told = told.assign(loss=told["run"].map(losses))
    return told[told["loss"].notna() & told["estimate"].notna()]
