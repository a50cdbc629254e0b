"""The run folder: where each file of a run lies, its ledger, its lock and its progress.

Knows nothing of what a row means. The layout is the one in ``outputs/README.md``.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_nb.core.errors import InputError
from safety_nb.core.files import read_json, write_json, write_text

DONE = "done"


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run; nothing is made on disk by naming them."""

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def ledger(self) -> Path:
        return self.root / "run.json"

    @property
    def log(self) -> Path:
        return self.root / "run.log"

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def train_rows(self) -> Path:
        return self.root / "mix" / "train.jsonl"

    @property
    def validation_rows(self) -> Path:
        return self.root / "mix" / "validation.jsonl"

    @property
    def mixture(self) -> Path:
        return self.root / "mix" / "mixture.json"

    @property
    def adapter(self) -> Path:
        return self.root / "train" / "adapter"

    @property
    def metrics(self) -> Path:
        return self.root / "train" / "metrics.csv"

    @property
    def validation_losses(self) -> Path:
        return self.root / "train" / "validation_losses.jsonl"

    @property
    def training(self) -> Path:
        return self.root / "train" / "training.json"

    @property
    def responses(self) -> Path:
        return self.root / "responses.jsonl"

    @property
    def partial_responses(self) -> Path:
        return self.root / "responses.partial.jsonl"

    @property
    def generation(self) -> Path:
        return self.root / "generation.json"

    @property
    def prompts(self) -> Path:
        return self.root / "prompts.jsonl"

    @property
    def judgements(self) -> Path:
        return self.root / "judgements.jsonl"

    @property
    def preferences(self) -> Path:
        return self.root / "preferences.jsonl"

    @property
    def capabilities(self) -> Path:
        return self.root / "capabilities"

    @property
    def summary(self) -> Path:
        return self.root / "summary.csv"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


def outputs_root(start: Path | None = None) -> Path:
    """``outputs/`` of the project the working folder lies in, else of the working folder itself."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        # Of a checkout, or of a folder that `safety-nb init` made.
        if (folder / "notebooks" / "1-mix.ipynb").is_file() and (folder / "params").is_dir():
            return folder / "outputs"
    return start / "outputs"


def open_run(run_dir: str) -> RunFolder:
    """The run a notebook works in: ``run_dir``, or ``outputs/runs/notebook`` when it is empty."""
    return RunFolder(Path(run_dir).expanduser() if run_dir else outputs_root() / "runs" / "notebook")


# --- the ledger ---------------------------------------------------------------------------------------------------


def read_ledger(run: RunFolder) -> dict:
    """The run's ``run.json``; a run never started, or whose ledger is damaged, has ``{"stages": {}}``."""
    try:
        return read_json(run.ledger)
    except (FileNotFoundError, ValueError):  # without its ledger nothing of a run counts as done
        return {"stages": {}}


def record_stage(run: RunFolder, stage: str, **facts: Any) -> None:
    """Set facts of one stage in the ledger, keeping its others."""
    ledger = read_ledger(run)
    ledger["stages"].setdefault(stage, {}).update(facts)
    write_json(run.ledger, ledger)


def require(run: RunFolder, names: Iterable[str], maker: str) -> None:
    """Stop unless every file ``names`` of the run is there.

    Raises:
        InputError: a file is missing; the message names the stage that makes it.
    """
    for name in names:
        if not (run.root / name).exists():
            raise InputError(
                f"{run.root} has no {name}: stage {maker!r} makes it. Run it first, in the same run_dir, "
                "or leave run_dir empty to work on the embedded miniature."
            )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's or a study's folder, so that two processes do not write into it at once.

    The operating system lets go of the lock when its holder dies, however that happens.

    Raises:
        InputError: another process holds it; the message names it.
    """
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    holder, lock = folder / ".holder", filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0.5)  # more than a moment, in which another process may only be asking whether it is held
    except filelock.Timeout:
        who = holder.read_text(encoding="utf-8") if holder.is_file() else "another process"
        raise InputError(f"{folder} is in use by {who}; wait for it, end it, or name another --out.") from None
    try:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        write_text(holder, f"process {os.getpid()} on {socket.gethostname()} since {now}")
        yield
    finally:
        lock.release()


def held(folder: Path) -> bool:
    """Whether a process holds a run's or a study's folder (``locked``). Leaves the folder as it is.

    Where that cannot be asked, for lack of the right to write there, a folder that was ever held counts as held.
    """
    import filelock

    if not (folder / _LOCK).is_file():
        return False
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(blocking=False)
    except (filelock.Timeout, OSError):
        return True
    lock.release()
    return False


_LOCK = ".lock"


# --- progress -----------------------------------------------------------------------------------------------------


class Progress:
    """How far a stage is, left in a small file for whoever watches from another process.

    Args:
        run: the run.
        stage: name of the stage.
        total: number of steps.
        every: seconds between two writes at the least.
    """

    def __init__(self, run: RunFolder, stage: str, total: int, every: float = 0.5) -> None:
        self._path, self._stage, self._total, self._every = progress_file(run), stage, total, every
        self._started = time.time()
        self._written = 0.0

    def update(self, done: int) -> None:
        now = time.monotonic()
        if done < self._total and now - self._written < self._every:
            return
        self._written = now
        state = {"stage": self._stage, "done": done, "total": self._total, "started": self._started}
        write_json(self._path, state)


def progress_file(run: RunFolder) -> Path:
    return run.root / ".progress.json"


def read_progress(run: RunFolder) -> dict | None:
    """The latest progress of the run's current stage, or None."""
    try:
        return read_json(progress_file(run))
    except (OSError, ValueError):
        return None
