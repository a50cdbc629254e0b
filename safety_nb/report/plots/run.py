"""Figures of one run: its losses, the lengths of its rows, and what became of its prompts."""

from typing import TYPE_CHECKING

from safety_nb.report.plots import look

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_TRAINED, _VALIDATED = ("-", ""), ((0, (5, 2)), "o")  # dash, marker


def loss_curve(metrics: "pd.DataFrame", ax: "Axes | None" = None) -> "Axes":
    """Training and validation loss of one run by optimiser step.

    Args:
        metrics: `train/metrics.csv`: columns step, train_loss, validation_loss, empty where not measured.
        ax: Where to draw; by default a new figure.
    """
    ax = ax if ax is not None else look.new_axes(size=(4.8, 3.1))
    _loss_line(ax, metrics, "train_loss", "training", _TRAINED, 0)
    _loss_line(ax, metrics, "validation_loss", "validation", _VALIDATED, 1)
    return _finish_losses(ax)


def loss_by_source(metrics: "pd.DataFrame", ax: "Axes | None" = None) -> "Axes":
    """The losses of one run by source of the rows: solid for training, dashed for validation.

    Args:
        metrics: `train/metrics.csv`: columns step, train_loss_SOURCE and validation_loss_SOURCE, empty where not
            measured. A step without rows of a source measures nothing of it.
        ax: Where to draw; by default a new figure.
    """
    ax = ax if ax is not None else look.new_axes(size=(4.8, 3.1))
    parts = {"train_loss_": ("training", _TRAINED), "validation_loss_": ("validation", _VALIDATED)}
    columns = [(column, prefix) for prefix in parts for column in metrics.columns if column.startswith(prefix)]
    sources = list(dict.fromkeys(column.removeprefix(prefix) for column, prefix in columns))
    for column, prefix in columns:
        source = column.removeprefix(prefix)
        name, style = parts[prefix]
        _loss_line(ax, metrics, column, f"{name}, {look.drawn_name(source)}", style, sources.index(source))
    return _finish_losses(ax)


def _loss_line(ax: "Axes", metrics: "pd.DataFrame", column: str, name: str, style: tuple, colour: int) -> None:
    line = _measured(metrics, column)
    dash, marker = style
    if len(line):
        ax.plot(
            line["step"],
            line[column],
            linestyle=dash,
            marker=marker or None,
            markersize=4.5,
            linewidth=1.5,
            color=look.palette()[colour % len(look.palette())],
            label=f"{name} (n = {len(line):,})",
        )


def _finish_losses(ax: "Axes") -> "Axes":
    ax.set_xlabel("Optimiser step (n counts measurements)")
    ax.set_ylabel("Loss (nats a token)")
    look.finish(ax, grid="y")
    if ax.lines:
        ax.set_ylim(bottom=0)
        look.legend_below(ax)
    else:
        look.say(ax, "No loss was recorded")
    return ax


def loss_curve_alt(metrics: "pd.DataFrame") -> str:
    """The loss curve in words: where each line begins, ends and is lowest."""
    parts = []
    for column, name in (("train_loss", "training"), ("validation_loss", "validation")):
        line = _measured(metrics, column)
        if len(line):
            low = line.loc[line[column].idxmin()]
            parts.append(
                f"{name} loss goes from {line[column].iloc[0]:.2f} to {line[column].iloc[-1]:.2f}, "
                f"lowest {low[column]:.2f} at step {int(low['step']):,}"
            )
    return f"Line chart by optimiser step: {'; '.join(parts)}." if parts else "No loss was recorded."


def length_histogram(tokens: "pd.DataFrame", cutoff: int, ax: "Axes | None" = None) -> "Axes":
    """Lengths of training rows by source, and the cutoff behind which they lose their end.

    Args:
        tokens: One row a training row: columns source, tokens (before the cutoff), end_cut_off.
        cutoff: Tokens a row may have.
        ax: Where to draw; by default a new figure.
    """
    import seaborn as sns

    ax = ax if ax is not None else look.new_axes(size=(4.8, 3.1))
    longest = max([cutoff, *tokens["tokens"]])
    for nth, (source, rows) in enumerate(tokens.groupby("source", sort=False)):
        sns.histplot(
            x=rows["tokens"],
            bins=40,
            binrange=(0, longest),
            stat="percent",
            element="step",
            fill=False,
            color=look.palette()[nth],
            linestyle=look.DASHES[nth % len(look.DASHES)],
            label=f"{source} (n = {len(rows):,}; {rows['end_cut_off'].sum():,} cut off)",
            ax=ax,
        )
    ax.axvline(cutoff, color=look.INK, linewidth=1)
    ax.annotate(
        f"cutoff {cutoff:,}",
        (cutoff, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        rotation=90,
        fontsize=9,
        color=look.INK,
    )
    ax.set_xlim(0, longest * 1.03)
    ax.set_xlabel("Tokens of a row, its prompt included")
    ax.set_ylabel("Rows of the source (%)")
    look.finish(ax, grid="y")
    if len(tokens):
        look.legend_below(ax, columns=1)
    else:
        look.say(ax, "There are no rows")
    return ax


def length_histogram_alt(tokens: "pd.DataFrame", cutoff: int) -> str:
    """The length histogram in words: for each source its median and longest row, and how many the cutoff shortens."""
    parts = [
        f"{source}: median {rows['tokens'].median():.0f}, longest {rows['tokens'].max():,}, "
        f"{rows['end_cut_off'].sum():,} of {len(rows):,} longer than the cutoff"
        for source, rows in tokens.groupby("source", sort=False)
    ]
    return f"Histogram of tokens a row, cutoff {cutoff:,}. {'; '.join(parts)}." if parts else "There are no rows."


def label_shares(table: "pd.DataFrame", ax: "Axes | None" = None) -> "Axes":
    """What one run did with each evaluation set: refused, answered, garbled, and missing where any is.

    The bar is the whole set, judged or not. The whisker at the end of 'refused' is its 95 % interval.

    Args:
        table: One run's rows of `summary.csv`: dataset, metric, estimate, low, high, n, n_missing.
        ax: Where to draw; by default a new figure whose height fits the number of sets.
    """
    shares = _label_table(table)
    if ax is None:
        ax = look.new_axes(size=(4.8, 1.25 + 0.42 * max(len(shares), 2)))
    _label_bars(ax, shares)
    for place, share in enumerate(shares.values()):
        if share["n"]:
            _refused_whisker(ax, place, share)
        _n_beside(ax, place, share)
    ax.set_yticks(range(len(shares)), map(look.drawn_name, shares))
    ax.set_ylim(max(len(shares), 1) - 0.5, -0.5)  # first set on top
    ax.set_xlim(0, 100)
    ax.set_xlabel("Share of answers (%)")
    look.percent_axis(ax.xaxis)
    look.finish(ax, grid="")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if shares:
        look.legend_below(ax, columns=4)
    else:
        look.say(ax, "No refusals were judged")
    return ax


def _label_bars(ax: "Axes", shares: dict[str, dict]) -> None:
    """A bar a set, made of its labels one after the other, with a figure on each part that has room for it."""
    palette = look.palette()
    looks = {
        "refused": {"color": palette[0]},
        "answered": {"color": palette[1]},
        "garbled": {"color": palette[7]},
        "missing": {"color": "white", "edgecolor": look.QUIET, "hatch": "////", "linewidth": 0.6},
    }
    for name, shape in looks.items():
        widths = [100 * share[name] for share in shares.values()]
        if name == "missing" and not any(widths):
            continue
        lefts = [100 * sum(share[other] for other in _before(name, looks)) for share in shares.values()]
        ax.barh(range(len(shares)), widths, left=lefts, height=0.62, label=name, **shape)
        if name != "missing":
            for place, (left, width, share) in enumerate(zip(lefts, widths, shares.values(), strict=True)):
                _figure_on_bar(ax, place, name, left, width, share)


def _figure_on_bar(ax: "Axes", place: int, name: str, left: float, width: float, share: dict) -> None:
    """The per cent of one part of a bar; none where it is too narrow, for the table beside gives it."""
    inner, outer = 100 * (share["refused"] - share["below"]), 100 * (share["refused"] + share["above"])
    refused = name == "refused"
    room = inner - left if refused else left + width - max(left, outer)
    if room < 12:
        return
    # Refused is labelled at its start and the rest at their end: clear of the whisker between them.
    spot, side = (left + 1.5, "left") if refused else (left + width - 1.5, "right")
    colour = "white" if refused else "black"
    ax.text(spot, place, f"{width:.0f}", ha=side, va="center", fontsize=9.5, color=colour)


def _refused_whisker(ax: "Axes", place: int, share: dict) -> None:
    """The 95 % interval of the refused share."""
    import matplotlib.patheffects as effects

    _, _, bars = ax.errorbar(
        [100 * share["refused"]],
        [place],
        xerr=[[100 * share["below"]], [100 * share["above"]]],
        fmt="none",
        ecolor=look.INK,
        elinewidth=1.3,
        capsize=3,
    )
    for bar in bars:  # a light outline, so that the whisker shows on the dark bar too
        bar.set_path_effects([effects.withStroke(linewidth=3, foreground="white", alpha=0.8)])


def _n_beside(ax: "Axes", place: int, share: dict) -> None:
    """How many answers a bar counts, to the right of it."""
    total = share["n"] + share["n_missing"]
    ax.annotate(
        f"n = {share['n']:,}" + (f" of {total:,}" if share["n_missing"] else ""),
        (100, place),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=look.QUIET,
        annotation_clip=False,
    )


def label_shares_alt(table: "pd.DataFrame") -> str:
    """The label shares in words, set by set."""
    parts = []
    for dataset, share in _label_table(table).items():
        names = [name for name in ("refused", "answered", "garbled", "missing") if share[name] or name != "missing"]
        parts.append(
            f"{dataset}: " + ", ".join(f"{look.percent(share[name])} {name}" for name in names) + f", n = {share['n']}"
        )
    return (
        f"Stacked bars of what became of each set's prompts. {'; '.join(parts)}."
        if parts
        else "No refusals were judged."
    )


def _measured(metrics: "pd.DataFrame", column: str) -> "pd.DataFrame":
    if column not in metrics.columns:
        return metrics.iloc[:0].reindex(columns=["step", column])
    return metrics.loc[metrics[column].notna(), ["step", column]].sort_values("step")


def _label_table(table: "pd.DataFrame") -> dict[str, dict]:
    """Dataset to the share of each label among all prompts, the whisker's arms, n and n_missing."""
    metrics = {"refusal_rate": "refused", "compliance_rate": "answered", "garbled_rate": "garbled"}
    shares: dict[str, dict] = {}
    for metric, name in metrics.items():
        for row in look.rates(table, metric).itertuples():
            total = row.n + row.n_missing
            judged = row.n / total if total else 0.0
            share = shares.setdefault(row.dataset, dict.fromkeys(metrics.values(), 0.0) | {"below": 0.0, "above": 0.0})
            share |= {"n": row.n, "n_missing": row.n_missing, "missing": 1 - judged if total else 0.0}
            if row.n:
                share[name] = row.estimate * judged
                if name == "refused":
                    share["below"] = max(row.estimate - row.low, 0.0) * judged
                    share["above"] = max(row.high - row.estimate, 0.0) * judged
    return shares


def _before(name: str, names: dict) -> list[str]:
    listed = list(names)
    return listed[: listed.index(name)]
