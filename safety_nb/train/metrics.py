"""The table of losses of a training: a row a step, from the Trainer's log."""

from typing import Any

METRICS = [
    *("step", "epoch", "supervised_tokens", "train_loss", "validation_loss", "learning_rate", "grad_norm"),
    *("tokens_per_second", "peak_memory"),
]
_LOGGED = {
    "loss": "train_loss",
    "eval_loss": "validation_loss",
    **{name: name for name in ("supervised_tokens", "learning_rate", "grad_norm", "tokens_per_second", "peak_memory")},
}


def metrics_table(log_history: list[dict], steps_per_epoch: float | None = None) -> Any:
    """One row a step, from the Trainer's log: METRICS, then losses by source; empty where a step was not measured."""
    import pandas as pd

    by_step: dict[int, dict] = {}
    for entry in log_history:
        row = by_step.setdefault(entry["step"], {"step": entry["step"]})
        if steps_per_epoch:
            row["epoch"] = entry["step"] / steps_per_epoch
        for key, value in entry.items():
            if name := _column(key):
                row[name] = float(value)
    rows = [by_step[step] for step in sorted(by_step)]
    more = sorted({name for row in rows for name in row} - set(METRICS))
    return pd.DataFrame(rows, columns=[*METRICS, *more])


def _column(key: str) -> str | None:
    """The column of a key of the Trainer's log, or None."""
    for logged, column in (("eval_loss_", "validation_loss_"), ("loss_", "train_loss_")):
        if key.startswith(logged):
            return column + key.removeprefix(logged)
    return _LOGGED.get(key)
