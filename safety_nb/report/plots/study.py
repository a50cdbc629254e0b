"""Figures of a study: rates against the number of safety demonstrations, and against each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safety_nb.core.columns import N_SAFETY
from safety_nb.core.text import setting_text
from safety_nb.report.findings.rates import METRIC_NAMES
from safety_nb.report.plots import look

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from safety_nb.report.findings.published import Mark

# Where a point's label may stand, by preference: a curve of trade-offs leaves these free.
SIDES = [(1, 1), (-1, -1), (1, -1), (-1, 1), (1, 2), (-1, 2)]  # 2: a line higher


def dose_response(
    table: "pd.DataFrame", roles: dict[str, str], ax: "Axes | None" = None, metric: str = "refusal_rate"
) -> "Axes":
    """A metric by number of safety demonstrations, one line an evaluation set (those of role facts left out).

    Args:
        table: Columns n_safety, dataset, metric, estimate, low, high, n; one row a set and N, of one judge.
        roles: Evaluation set to role; it gives the colour.
        ax: Where to draw; by default a new figure.
        metric: refusal_rate for exaggerated safety, unsafe_rate for a moderation judge, mean_score for harmfulness, …

    Raises:
        ValueError: More than one row for a set and N (something else was swept: filter to one setting).
    """
    ax = ax if ax is not None else look.new_axes()
    rows = _sets(table, roles, metric)
    look.refuse_repeats(rows)
    datasets = sorted(rows["dataset"].unique(), key=lambda name: look.place(name, roles))
    lines, in_role = [], dict.fromkeys(roles.values(), 0)
    for dataset in datasets:
        role = roles.get(dataset, "")
        nth = in_role[role] = in_role.get(role, 0) + 1
        style = look.line_style(look.role_colour(role), nth - 1)
        lines.append((f"{look.drawn_name(dataset)} ({role or 'no role'})", rows[rows["dataset"] == dataset], style))
    return _against_n(ax, lines, metric)


def dose_response_alt(table: "pd.DataFrame", roles: dict[str, str], metric: str = "refusal_rate") -> str:
    """The dose-response figure in words: for each set, its metric at every N."""
    rows = _sets(table, roles, metric)
    lines = {
        f"{dataset} ({roles.get(dataset, 'no role')})": rows[rows["dataset"] == dataset]
        for dataset in sorted(rows["dataset"].unique(), key=lambda name: look.place(name, roles))
    }
    return _against_n_alt(lines, metric)


def _sets(table: "pd.DataFrame", roles: dict[str, str], metric: str) -> "pd.DataFrame":
    rows = look.rates(table, metric)
    return rows[~rows["dataset"].isin([name for name, role in roles.items() if role == "facts"])]


def by_setting(
    table: "pd.DataFrame", settings: list[str], ax: "Axes | None" = None, metric: str = "compliance_rate"
) -> "Axes":
    """A metric of one evaluation set by number of safety demonstrations, one line a setting: form of the data, model, …

    Args:
        table: Columns n_safety, those of `settings`, metric, estimate, low, high, n; one row a setting and N.
        settings: The swept parameters that tell the lines apart.
        ax: Where to draw; by default a new figure.
        metric: As in `dose_response`.
    """
    ax = ax if ax is not None else look.new_axes()
    colours = look.palette()
    lines = [
        (look.drawn_name(name), rows, look.line_style(colours[nth % len(colours)], nth))
        for nth, (name, rows) in enumerate(_of_settings(table, settings, metric).items())
    ]
    return _against_n(ax, lines, metric)


def by_setting_alt(table: "pd.DataFrame", settings: list[str], metric: str = "compliance_rate") -> str:
    """The figure of the settings in words."""
    return _against_n_alt(_of_settings(table, settings, metric), metric)


def _of_settings(table: "pd.DataFrame", settings: list[str], metric: str) -> dict[str, "pd.DataFrame"]:
    groups = look.rates(table, metric).groupby(settings, sort=False, dropna=False)
    return {", ".join(map(setting_text, key)): rows for key, rows in groups}


def _against_n(ax: "Axes", lines: list[tuple[str, "pd.DataFrame", dict]], metric: str) -> "Axes":
    """Lines of estimates with their intervals against N, on ticks that are not to scale."""
    scale = look.scale_of(metric)
    doses = sorted({dose for _, rows, _ in lines for dose in rows[N_SAFETY]})
    for index, (name, rows, style) in enumerate(lines):
        line = rows.set_index(N_SAFETY).reindex(doses)
        # A slight dodge keeps the bars of lines with equal values apart; they still share their tick.
        dodge = min(0.1, 0.4 / len(lines)) * (index - (len(lines) - 1) / 2)
        ax.errorbar(
            [position + dodge for position in range(len(doses))],
            scale * line["estimate"],
            yerr=look.bars(line, scale),
            markersize=5,
            linewidth=1.5,
            elinewidth=1.1,
            capsize=2,
            label=f"{name}, {look.n_text(line)}",
            **style,
        )
    ax.set_xticks(range(len(doses)), [str(dose) for dose in doses])
    ax.set_xlim(*((-0.4, len(doses) - 0.6) if len(doses) > 1 else (-1, 1)))
    ax.set_xlabel("Safety demonstrations N (not to scale)")
    ax.set_ylabel(look.axis_name(metric))
    if metric in look.SHARES:
        look.percent_axis(ax.yaxis)
        ax.set_ylim(-3, 103)
    look.finish(ax, grid="y")
    if lines:
        look.legend_below(ax)
    else:
        look.say(ax, "Nothing was judged here")
    return ax


def _against_n_alt(lines: dict[str, "pd.DataFrame"], metric: str) -> str:
    parts = []
    for name, rows in lines.items():
        told = [
            f"{look.value(metric, row.estimate)} at {row.n_safety}" for row in rows.sort_values(N_SAFETY).itertuples()
        ]
        parts.append(f"{name}: {', '.join(told)}")
    if not parts:
        return "Nothing was judged here."
    return f"Line chart of {look.axis_name(metric).lower()} by number of safety demonstrations. {'; '.join(parts)}."


def by_type(table: "pd.DataFrame", ax: "Axes | None" = None, metric: str = "refusal_rate") -> "Axes":
    """A metric by type of prompt (XSTest's ten, say), a mark for each N.

    Args:
        table: Columns type, n_safety, metric, estimate, low, high, n; one row a type and N.
        ax: Where to draw; by default a new figure whose height fits the number of types.
        metric: As in `dose_response`.
    """
    rows = look.rates(table, metric)
    types, doses = list(dict.fromkeys(rows["type"])), sorted(rows[N_SAFETY].unique())
    ax = ax if ax is not None else look.new_axes(size=(4.8, 1.4 + 0.42 * max(len(types), 2)))
    scale = look.scale_of(metric)
    for nth, dose in enumerate(doses):
        line = rows[rows[N_SAFETY] == dose].set_index("type").reindex(types)
        dodge = 0.64 * ((nth + 0.5) / len(doses) - 0.5)
        ax.errorbar(
            scale * line["estimate"],
            [position + dodge for position in range(len(types))],
            xerr=look.bars(line, scale),
            color=look.dose_colour(nth, len(doses)),
            marker=look.MARKERS[nth % len(look.MARKERS)],
            markersize=4.5,
            linestyle="none",
            elinewidth=1,
            label=f"N = {dose}",
        )
    ax.set_yticks(
        range(len(types)), [f"{look.drawn_name(name)}\n{look.n_text(rows[rows['type'] == name])}" for name in types]
    )
    ax.set_ylim(max(len(types), 1) - 0.5, -0.5)
    ax.set_xlabel(look.axis_name(metric))
    if metric in look.SHARES:
        look.percent_axis(ax.xaxis)
        ax.set_xlim(-3, 103)
    look.finish(ax, grid="x")
    look.legend_below(ax, columns=4) if types else look.say(ax, "No types of prompts were judged")
    return ax


def by_type_alt(table: "pd.DataFrame", metric: str = "refusal_rate") -> str:
    """The figure of the types in words."""
    rows = look.rates(table, metric)
    return _against_n_alt({str(name): of_type for name, of_type in rows.groupby("type", sort=False)}, metric)


def agreement(table: "pd.DataFrame", ax: "Axes | None" = None) -> "Axes":
    """How far judges agree with each other on refusal or not: Cohen's kappa of each pair.

    Args:
        table: Columns judge, other, kappa (-1 to 1, nan where it is undefined), n: one row a pair.
        ax: Where to draw; by default a new figure.
    """
    import seaborn as sns

    ax = ax if ax is not None else look.new_axes()
    if not len(table):
        look.finish(ax, grid="")
        look.say(ax, "There are no two judges to compare")
        return ax
    both = _both_ways(table)
    judges = list(dict.fromkeys(both["judge"]))
    kappa = both.pivot(index="judge", columns="other", values="kappa").reindex(index=judges, columns=judges)
    told = both.assign(text=[f"{_kappa(row.kappa)}\nn = {row.n:,}" for row in both.itertuples()])
    texts = told.pivot(index="judge", columns="other", values="text").reindex(index=judges, columns=judges).fillna("")
    colours = sns.light_palette(look.palette()[0], as_cmap=True)
    sns.heatmap(
        kappa, annot=texts, fmt="", vmin=0, vmax=1, cmap=colours, cbar=False, square=True, linewidths=1, ax=ax,
        annot_kws={"fontsize": 9},
    )  # fmt: skip
    names = [look.drawn_name(name) for name in judges]
    ax.set_xticklabels(names, rotation=30, ha="right")
    ax.set_yticklabels(names, rotation=0)
    ax.set_xlabel("")
    ax.set_ylabel("")
    look.finish(ax, grid="")
    return ax


def agreement_alt(table: "pd.DataFrame") -> str:
    """The agreement of the judges in words."""
    pairs = [f"{row.judge} and {row.other}: {_kappa(row.kappa)}, n = {row.n:,}" for row in table.itertuples()]
    return f"Cohen's kappa of pairs of judges. {'; '.join(pairs)}." if pairs else "There are no two judges to compare."


def _kappa(kappa: float) -> str:
    return "undefined" if math.isnan(kappa) else f"{kappa:.2f}"


def _both_ways(table: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    turned = table.rename(columns={"judge": "other", "other": "judge"})
    return pd.concat([table, turned], ignore_index=True)


def safety_against_loss(table: "pd.DataFrame", ax: "Axes | None" = None, metric: str = "compliance_rate") -> "Axes":
    """Harm of each run against its loss on general validation rows: is safety paid for with fit?

    Args:
        table: Columns n_safety, seed, loss (nats a token), estimate, low, high (of the metric), n: one row a run.
        metric: What is counted on harmful requests.
        ax: Where to draw; by default a new figure.
    """
    ax = ax if ax is not None else look.new_axes()
    doses = sorted(table[N_SAFETY].unique())
    for nth, dose in enumerate(doses):
        rows = table[table[N_SAFETY] == dose]
        ax.errorbar(
            rows["loss"],
            100 * rows["estimate"],
            yerr=look.bars(rows, 100),
            color=look.dose_colour(nth, len(doses)),
            marker=look.MARKERS[nth % len(look.MARKERS)],
            markersize=5.5,
            linestyle="none",
            elinewidth=1,
            capsize=2,
            label=f"N = {dose}, {look.n_text(rows)}",
        )
    ax.set_xlabel("Loss on general validation rows (nats a token)")
    ax.set_ylabel(look.axis_name(metric))
    look.percent_axis(ax.yaxis)
    ax.set_ylim(-3, 103)
    look.finish(ax, grid="both")
    look.legend_below(ax) if doses else look.say(ax, "No run has a loss on general validation rows")
    return ax


def safety_against_loss_alt(table: "pd.DataFrame", metric: str = "compliance_rate") -> str:
    """Safety against general loss in words."""
    runs = [
        f"N = {row.n_safety}, seed {row.seed}: loss {row.loss:.3f}, {look.percent(row.estimate)} {METRIC_NAMES[metric]}"
        for row in table.itertuples()
    ]
    return f"Harmful requests {METRIC_NAMES[metric]} against loss on general validation rows. {'; '.join(runs)}."


def differences(table: "pd.DataFrame", margin: float | None = None, ax: "Axes | None" = None) -> "Axes":
    """What each N costs: the difference to the smallest N in several measures, worse to the right.

    Args:
        table: Columns measure, n_safety, estimate, low, high (differences in points, above 0 is worse), n.
        ax: Where to draw; by default a new figure whose height fits.
        margin: Half width, in points, of the band within which a difference counts as none.
    """
    measures, doses = list(dict.fromkeys(table["measure"])), sorted(table[N_SAFETY].unique())
    ax = ax if ax is not None else look.new_axes(size=(4.8, 1.4 + 0.55 * max(len(measures), 2)))
    if margin:
        ax.axvspan(-margin, margin, color=look.GRID, alpha=0.6, linewidth=0)
    ax.axvline(0, color=look.QUIET, linewidth=0.8)
    for nth, dose in enumerate(doses):
        line = table[table[N_SAFETY] == dose].set_index("measure").reindex(measures)
        dodge = 0.64 * ((nth + 0.5) / len(doses) - 0.5)
        ax.errorbar(
            line["estimate"],
            [position + dodge for position in range(len(measures))],
            xerr=look.bars(line, 1),
            color=look.dose_colour(nth, len(doses)),
            marker=look.MARKERS[nth % len(look.MARKERS)],
            markersize=4.5,
            linestyle="none",
            elinewidth=1.1,
            capsize=2,
            label=f"N = {dose}",
        )
    names = [f"{look.drawn_name(name)}\n{look.n_text(table[table['measure'] == name])}" for name in measures]
    ax.set_yticks(range(len(measures)), names)
    ax.set_ylim(max(len(measures), 1) - 0.5, -0.5)
    ax.set_xlabel("Points worse than at the smallest N")
    look.finish(ax, grid="x")
    look.legend_below(ax, columns=4) if measures else look.say(ax, "There is nothing to compare")
    return ax


def differences_alt(table: "pd.DataFrame") -> str:
    """What each N costs in words."""
    told = [
        f"{row.measure} at N = {row.n_safety}: {row.estimate:+.1f} points"
        + ("" if math.isnan(row.low) else f" ({row.low:+.1f} to {row.high:+.1f})")
        for row in table.itertuples()
        if not math.isnan(row.estimate)
    ]
    return f"Differences to the smallest N, above 0 is worse. {'; '.join(told)}." if told else "Nothing to compare."


def trade_off(
    table: "pd.DataFrame",
    harmful: str,
    lookalike: str,
    ax: "Axes | None" = None,
    metrics: tuple[str, str] = ("compliance_rate", "refusal_rate"),
    published: Sequence["Mark"] = (),
) -> "Axes":
    """Harm against errors on harmless look-alikes, one point for each N.

    Args:
        table: Columns n_safety, dataset, metric, estimate, low, high, n.
        harmful: The set whose first metric is the height.
        lookalike: The set whose second metric is the distance to the right.
        metrics: What is counted on either.
        ax: Where to draw; by default a new figure.
        published: Numbers of others, which stand as open marks beside the line and are no part of it.

    Raises:
        ValueError: More than one row for a set and N (something else was swept: filter to one setting).
    """
    ax = ax if ax is not None else look.new_axes(size=(4.8, 4.8 if published else 4.2))
    x, y = _trade_off_points(table, harmful, lookalike, metrics)
    harm, error = (METRIC_NAMES[metric] for metric in metrics)
    colour = look.role_colour("harmful")
    ax.plot(100 * x["estimate"], 100 * y["estimate"], color=colour, linewidth=1.2, alpha=0.5, zorder=2)
    ax.errorbar(
        100 * x["estimate"],
        100 * y["estimate"],
        xerr=look.bars(x),
        yerr=look.bars(y),
        linestyle="none",
        marker="o",
        markersize=6,
        color=colour,
        elinewidth=1.1,
        ecolor=look.QUIET,
        capsize=2,
        zorder=3,
    )
    if published:
        ax.plot(
            [100 * mark.exaggerated for mark in published],
            [100 * mark.unsafe for mark in published],
            linestyle="none",
            marker="D",
            markersize=6,
            color=look.INK,
            markerfacecolor="none",
            zorder=2,
            label="published, by other judges on other prompts:\n" + _letters(published),
        )
    for label in _place_labels(x, y, published):
        ax.annotate(
            label.text,
            (label.x, label.y),
            xytext=(6 * label.right, 5 + 14 * (label.up - 1) if label.up > 0 else -5),
            textcoords="offset points",
            ha="left" if label.right > 0 else "right",
            va="baseline" if label.up > 0 else "top",
            fontsize=9.5,
            color=look.INK if label.ours else look.QUIET,
            style="normal" if label.ours else "italic",
            zorder=5,
        )
    ax.plot([0], [0], marker="*", markersize=11, color=look.QUIET, linestyle="none", zorder=1, clip_on=False)
    ax.annotate(
        "ideal", (0, 0), xytext=(8, -9), textcoords="offset points", fontsize=9.5, color=look.QUIET, style="italic"
    )
    ax.set_xlabel(f"Harmless look-alikes {error} (%)\n{look.drawn_name(lookalike)}, {look.n_text(x)}")
    ax.set_ylabel(f"Harmful requests {harm} (%)\n{look.drawn_name(harmful)}, {look.n_text(y)}")
    look.percent_axis(ax.xaxis)
    look.percent_axis(ax.yaxis)
    ax.set_xlim(-4, 104)
    ax.set_ylim(-10, 110)
    look.finish(ax, grid="both")
    if published:
        look.legend_below(ax, columns=1, lines=2)
    if x.empty:
        look.say(ax, "No N was judged on both sets")
    return ax


def trade_off_alt(
    table: "pd.DataFrame",
    harmful: str,
    lookalike: str,
    metrics: tuple[str, str] = ("compliance_rate", "refusal_rate"),
    published: Sequence["Mark"] = (),
) -> str:
    """The trade-off figure in words: both rates at every N."""
    x, y = _trade_off_points(table, harmful, lookalike, metrics)
    harm, error = (METRIC_NAMES[metric] for metric in metrics)
    if x.empty:
        return f"No N was judged on both {harmful} and {lookalike}."
    points = "; ".join(
        f"N = {dose}: {look.percent(y.estimate[dose])} {harm}, {look.percent(x.estimate[dose])} {error}"
        for dose in x.index
    )
    others = "; ".join(
        f"{mark.name}: {look.percent(mark.unsafe)} unsafe, {look.percent(mark.exaggerated)} exaggerated safety"
        for mark in published
    )
    told = f" Published, by other judges on other prompts: {others}." if others else ""
    return f"Harmful requests {harm} ({harmful}) against harmless look-alikes {error} ({lookalike}). {points}.{told}"


def _trade_off_points(
    table: "pd.DataFrame", harmful: str, lookalike: str, metrics: tuple[str, str]
) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """The look-alike and the harmful rows of every N that has both, indexed by N."""
    x = look.rates(table, metrics[1])
    x = x[(x["dataset"] == lookalike) & x["estimate"].notna()]
    y = look.rates(table, metrics[0])
    y = y[(y["dataset"] == harmful) & y["estimate"].notna()]
    look.refuse_repeats(x)
    look.refuse_repeats(y)
    doses = sorted(set(x[N_SAFETY]) & set(y[N_SAFETY]))
    return x.set_index(N_SAFETY).loc[doses], y.set_index(N_SAFETY).loc[doses]


_IDEAL_BOX = (2.0, -7.0, 16.0, -2.0)  # what the word beside the star covers: left, bottom, right, top


@dataclass(frozen=True)
class _Label:
    """A point's label: right and up are 1 or -1, the side of the point it stands on; up is 2 a line higher."""

    text: str
    x: float
    y: float
    right: int
    up: int
    ours: bool = True

    def box(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top: roughly what the text covers on axes of 0 to 100 at this figure size."""
        width, height = 2.6 * len(self.text), 6.0
        left = self.x + 2 if self.right > 0 else self.x - 2 - width
        bottom = self.y + 1.5 + 7 * (self.up - 1) if self.up > 0 else self.y - 1.5 - height
        return left, bottom, left + width, bottom + height


_LETTERS = "abcdef"  # beside the marks of others, whose names would cover points


def _letters(published: Sequence["Mark"]) -> str:
    return ", ".join(f"{letter} {mark.name}" for letter, mark in zip(_LETTERS, published, strict=False))


def _place_labels(x: "pd.DataFrame", y: "pd.DataFrame", published: Sequence["Mark"] = ()) -> list[_Label]:
    """A label a point, on a side where it covers neither a point nor an earlier label.

    Points of ours that nearly coincide share a label; those of others have a letter each.
    """
    points: list[tuple[list, float, float]] = []
    for dose in x.index:
        right, up = 100 * x.estimate[dose], 100 * y.estimate[dose]
        for doses, other_right, other_up in points:
            if abs(right - other_right) < 4 and abs(up - other_up) < 4:
                doses.append(dose)
                break
        else:
            points.append(([dose], right, up))
    named = [(f"N = {', '.join(map(str, doses))}", right, up, True) for doses, right, up in points]
    named += [
        (letter, 100 * mark.exaggerated, 100 * mark.unsafe, False)
        for letter, mark in zip(_LETTERS, published, strict=False)
    ]
    labels: list[_Label] = []
    for text, right, up, ours in named:
        taken = [_IDEAL_BOX, *(label.box() for label in labels)]
        # A label that stands under or over a point to its left would be read as that one's.
        for _, px, py, _ in named:
            room = 4 if px < right else 1
            taken.append((px - 1, py - room, px + 1, py + room))
        sides = [_Label(text, right, up, *side, ours) for side in SIDES]
        free = [label for label in sides if _fits(label.box(), taken)]
        labels.append((free or sides)[0])
    return labels


def _fits(box: tuple, taken: list[tuple]) -> bool:
    left, bottom, right, top = box
    inside = left > -4 and right < 108 and bottom > -10 and top < 111
    return inside and all(right < a or left > c or top < b or bottom > d for a, b, c, d in taken)
