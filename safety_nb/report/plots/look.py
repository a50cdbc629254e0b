"""The look that all figures share, and what a tidy table becomes on Axes: colours, bars, legends, names as written."""

import math
from typing import TYPE_CHECKING

from safety_nb.core.columns import N_SAFETY

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

FIGURE_SIZE = (4.8, 4.1)  # inches: 10 pt text stays legible when the figure is scaled down to a phone's width
INK, QUIET, GRID = "#222222", "#666666", "#dddddd"
# Positions in seaborn's "colorblind" palette; shape and dash repeat what the colour says.
ROLE_COLOURS = {"harmful": 0, "lookalike": 3, "ordinary": 2}
MARKERS = "osD^vP"
DASHES = ["-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2))]
# Shares of 0 to 1, drawn as per cent, and what an axis calls each; any other metric is drawn on its own scale.
SHARES = {
    "refusal_rate": "Requests refused (%)",
    "partial_refusal_rate": "Requests refused in part (%)",
    "compliance_rate": "Requests answered (%)",
    "garbled_rate": "Answers garbled (%)",
    "delivery_rate": "Requests delivered (%)",
    "undelivered_rate": "Requests not delivered (%)",
    "unsafe_rate": "Answers judged unsafe (%)",
    "accuracy": "Answers correct (%)",
    "win_rate": "Answers preferred (%)",
}


def axis_name(metric: str) -> str:
    """What the axis of a metric is called."""
    return SHARES.get(metric) or ("Mean score" if metric == "mean_score" else metric.replace("_", " ").capitalize())


def scale_of(metric: str) -> int:
    """What a value is multiplied with to be drawn: 100 for a share."""
    return 100 if metric in SHARES else 1


def value(metric: str, estimate: float) -> str:
    """A value of a metric as text."""
    return percent(estimate) if metric in SHARES or math.isnan(estimate) else f"{estimate:.2f}"


def percent(share: float) -> str:
    return "not judged" if math.isnan(share) else f"{100 * share:.0f} %"


def drawn_name(name: str) -> str:
    """A set's name as a figure can hold it: of bounded length, and without characters that no SVG may contain."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
    return shown if len(shown) <= 40 else f"{shown[:24]}…{shown[-15:]}"


def palette() -> list:
    import seaborn as sns

    return sns.color_palette("colorblind")


def role_colour(role: str):
    return palette()[ROLE_COLOURS.get(role, 7)]


def line_style(colour, nth: int) -> dict:
    """The nth line of a colour: marker, dash and filling repeat what the colour says."""
    return {
        "color": colour,
        "marker": MARKERS[nth % len(MARKERS)],
        "markerfacecolor": colour if nth == 0 else "white",
        "linestyle": DASHES[nth % len(DASHES)],
    }


def dose_colour(nth: int, of: int):
    """The colour of the nth of several N: light to dark, as they grow."""
    import seaborn as sns

    return sns.color_palette("crest", max(of, 1))[nth]


def new_axes(size: tuple[float, float] = FIGURE_SIZE) -> "Axes":
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=size, layout="constrained")
    return ax


def percent_axis(axis) -> None:
    axis.set_ticks(range(0, 101, 20))


def finish(ax: "Axes", grid: str) -> None:
    """The look all figures share: two quiet spines, 10 pt text, a faint grid behind the data, names as written."""
    import seaborn as sns

    sns.despine(ax=ax)
    for spine in ax.spines.values():
        spine.set_color(QUIET)
        spine.set_linewidth(0.8)
    ax.tick_params(labelsize=9.5, color=QUIET, labelcolor=INK, width=0.8, length=3)
    ax.xaxis.label.set(fontsize=10, color=INK)
    ax.yaxis.label.set(fontsize=10, color=INK)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=GRID, linewidth=0.7)
    no_formulas(ax)


def legend_below(ax: "Axes", columns: int | None = None, lines: int = 1) -> None:
    """A legend under the axes, where it can cover no data, below an axis label of so many lines."""
    from matplotlib.transforms import ScaledTranslation

    # A fixed distance below the axes, in inches: clear of tick labels and axis label whatever the height.
    below = ax.transAxes + ScaledTranslation(0, -0.42 - 0.16 * lines, ax.figure.dpi_scale_trans)
    handles, labels = ax.get_legend_handles_labels()
    if columns is None:
        columns = 1 if max(map(len, labels)) > 26 else 2
    legend = ax.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=below,
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=2.6,
        columnspacing=1.4,
        borderaxespad=0,
    )
    no_formulas(legend)


def no_formulas(artist: "Artist") -> None:
    """Keep matplotlib from reading what stands between dollar signs in a name as a formula."""
    from matplotlib.text import Text

    for text in artist.findobj(Text):
        text.set_parse_math(False)


def say(ax: "Axes", text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=QUIET, fontsize=10)


def n_text(rows: "pd.DataFrame") -> str:
    counts = rows["n"].dropna()
    if not len(counts):
        return "n = 0"
    low, high = int(counts.min()), int(counts.max())
    return f"n = {low:,}" if low == high else f"n = {low:,}–{high:,}"


def bars(rows: "pd.DataFrame", scale: int = 100) -> list:
    """Lengths of the error bars below and above, in per cent by default; nan where nothing was judged."""
    below, above = rows["estimate"] - rows["low"], rows["high"] - rows["estimate"]
    return [scale * below.clip(lower=0), scale * above.clip(lower=0)]


def rates(table: "pd.DataFrame", metric: str) -> "pd.DataFrame":
    """The rows of a metric by one judge: the first that tells it."""
    rows = table[table["metric"] == metric]
    return rows[rows["judge"] == rows["judge"].iloc[0]] if "judge" in rows.columns and len(rows) else rows


def refuse_repeats(rows: "pd.DataFrame") -> None:
    repeated = rows[rows.duplicated(["dataset", N_SAFETY])]
    if len(repeated):
        row = repeated.iloc[0]
        raise ValueError(
            f"{row['dataset']} has several rows for N = {row['n_safety']}: filter the table to one setting"
        )


def place(dataset: str, roles: dict[str, str]) -> tuple:
    """Where a set stands in a legend: by role, then in the order of `roles`."""
    order = [*ROLE_COLOURS, "facts"]
    role = roles.get(dataset)
    names = list(roles)
    return (
        order.index(role) if role in order else len(order),
        names.index(dataset) if dataset in names else 0,
        dataset,
    )
