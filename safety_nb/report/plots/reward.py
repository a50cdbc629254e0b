"""Figure of a reward model: what people said by what it predicted."""

from typing import TYPE_CHECKING

from safety_nb.report.plots.look import DASHES, QUIET, finish, legend_below, new_axes, palette, percent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def calibration(table: "pd.DataFrame", pairs: bool = False, ax: "Axes | None" = None) -> "Axes":
    """What people said against what a reward model predicted, in bins of like predictions.

    Args:
        table: Columns predicted, observed, low, high, n; one row a bin.
        pairs: Whether the numbers are shares (of pairs in people's order), and not scores.
        ax: Where to draw; by default a new figure.
    """
    ax = ax if ax is not None else new_axes()
    scale = 100 if pairs else 1
    drawn = scale * table[["predicted", "observed", "low", "high"]]
    ends = (50, 100) if pairs else (min(0.0, drawn.min(axis=None)), drawn.max(axis=None))
    ax.plot(ends, ends, color=QUIET, linewidth=1, linestyle=DASHES[1], label="predictions that people agree with")
    ax.errorbar(
        drawn["predicted"],
        drawn["observed"],
        yerr=[drawn["observed"] - drawn["low"], drawn["high"] - drawn["observed"]],
        linestyle="none",
        marker="o",
        markersize=6,
        color=palette()[0],
        elinewidth=1.1,
        ecolor=QUIET,
        capsize=2,
        label=f"held-out {'pairs' if pairs else 'conversations'}, n = {table['n'].sum():,} in {len(table)} bins",
    )
    ax.set_xlabel("How sure the model is of its order (%)" if pairs else "Predicted harmfulness")
    ax.set_ylabel("Pairs in people's order (%)" if pairs else "Harmfulness by people")
    finish(ax, grid="both")
    legend_below(ax, columns=1)
    return ax


def calibration_alt(table: "pd.DataFrame", pairs: bool = False) -> str:
    """The calibration figure in words: prediction and what people said, bin by bin."""
    show = percent if pairs else "{:.2f}".format
    points = ", ".join(f"{show(row.predicted)}: {show(row.observed)}" for row in table.itertuples())
    return f"What people said by what the model predicted, n = {table['n'].sum():,} in {len(table)} bins. {points}."
