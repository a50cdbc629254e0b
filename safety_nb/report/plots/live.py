"""The loss curve of a training that goes on, redrawn in place in the notebook cell that is being executed."""

import base64
import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from safety_nb.report import plots

if TYPE_CHECKING:
    import pandas as pd

    Table = Callable[[], pd.DataFrame]


@contextlib.contextmanager
def loss_curve(seconds: float = 3.0) -> "Iterator[Callable[[Table], None]]":
    """Yield a function that takes another, which makes the table of metrics so far, and redraws the curve now and then.

    It is drawn a last time at the end, however that comes. Outside a notebook it is never drawn.

    Args:
        seconds: least time between two drawings; more where drawing is slow, to stay within a fiftieth of all time.
    """
    if not _in_notebook():
        yield lambda table: None
        return
    from IPython.display import display

    handle = display({"text/plain": "No loss yet."}, raw=True, display_id=True)
    latest: Table | None = None
    next_time = time.monotonic() + seconds

    def show(table: "Table") -> None:
        nonlocal latest, next_time
        latest = table
        started = time.monotonic()
        if started >= next_time:
            handle.update(_drawn(table()), raw=True)
            next_time = started + max(seconds, 50 * (time.monotonic() - started))

    try:
        yield show
    finally:
        if latest is not None:
            handle.update(_drawn(latest()), raw=True)


def _drawn(metrics: "pd.DataFrame") -> dict[str, Any]:
    """The curve in the forms a notebook shows: a picture, and the same in words."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.1), layout="constrained")  # unknown to pyplot, which would show it a second time
    plots.loss_curve(metrics, figure.subplots())
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    return {"image/png": base64.b64encode(image.getvalue()).decode(), "text/plain": plots.loss_curve_alt(metrics)}


def _in_notebook() -> bool:
    """Whether this runs in a kernel that can show figures."""
    if "IPython" not in sys.modules:
        return False
    return getattr(sys.modules["IPython"].get_ipython(), "kernel", None) is not None
