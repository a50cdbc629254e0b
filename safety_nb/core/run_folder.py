"""The run folder: where each file of a run lies, its ledger, its lock and its progress.

Knows nothing of what a row means. The layout is the one in ``outputs/README.md``.
"""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_nb.core import ledger
from safety_nb.core.errors import InputError
from safety_nb.core.files import hashes, read_json, read_record, sha256_once, write_json, write_text
from safety_nb.core.text import visible

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
    def published(self) -> Path:
        return self.root / "published.json"

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
    """The run's ``run.json``; of a run never started, or whose ledger is damaged, ``{"stages": {}}``."""
    return ledger.read(run.ledger)[0]


def ledger_damage(run: RunFolder) -> str:
    """What is to be said of a run whose ledger is damaged: the file and what is wrong with it; else empty."""
    why = ledger.read(run.ledger)[1]
    return f"{run.ledger} is damaged ({why}); none of its stages counts as done." if why else ""


def open_ledger(run: RunFolder) -> dict:
    """The run's ledger to be written anew. A damaged one is kept aside under another name, and that is printed."""
    if told := ledger_damage(run):
        aside = ledger.keep_aside(run.ledger)
        print(f"{visible(told, limit=None)[0]} It is kept as {aside.name}.", file=sys.stderr, flush=True)
    return read_ledger(run)


def record_stage(run: RunFolder, stage: str, **facts: Any) -> None:
    """Set facts of one stage in the ledger, keeping its others."""
    known = open_ledger(run)
    known["stages"].setdefault(stage, {}).update(facts)
    write_json(run.ledger, known)


def record_beside(run: RunFolder, *names: str) -> None:
    """Record the hashes of files that no stage makes; a run without a ledger gets none."""
    if run.ledger.is_file():
        known = open_ledger(run)
        write_json(run.ledger, {**known, "beside": known.get("beside", {}) | hashes(run.root, names)})


def forget_outputs(run: RunFolder, stage: str) -> None:
    """Drop the hashes of a stage's files, and what says that they are still fresh: somebody makes others by hand."""
    known = read_ledger(run)
    entry = known["stages"].get(stage, {})
    if entry.pop("outputs", None) is not None:
        entry.pop("fingerprint", None)
        write_json(run.ledger, known)


# --- what was recorded, and what is there -------------------------------------------------------------------------


def publish(run: RunFolder, note: str) -> Path:
    """Mark the files of a run's folder as a record that is published for re-analysis; the path of the mark.

    ``published.json`` has the hashes of the files as they are, which then take the place of the ledger's: texts may
    have been taken out of them.

    Args:
        note: what was done to them, for whoever reads them.
    """
    names = sorted(
        str(path.relative_to(run.root))
        for path in run.root.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path != run.published
    )
    write_json(run.published, {"note": note, "files": hashes(run.root, names)})
    return run.published


def read_published(run: RunFolder) -> dict[str, Any] | None:
    """``published.json`` of a run: note, and files (name to SHA-256); None where it is not published.

    Raises:
        InputError: it is damaged.
    """
    if not run.published.exists():
        return None
    record = read_record(run.published, {"note": str, "files": dict})
    if not all(isinstance(hashed, str) for hashed in record["files"].values()):
        raise InputError(f"{run.published} is damaged: files has names without a hash; fetch the records anew.")
    return record


def misfits(run: RunFolder, names: Iterable[str]) -> list[str]:
    """What does not fit of files that are about to be read: a line each.

    A file that nothing was recorded of, as of a run made in notebooks or by an earlier version, is taken as it is.

    Raises:
        InputError: as ``read_published``.
    """
    if published := read_published(run):
        recorded = {name: ("whoever published it", hashed) for name, hashed in published["files"].items()}
    elif damage := ledger_damage(run):
        return [damage]
    else:
        known = read_ledger(run)
        recorded = {name: (_BESIDE, hashed) for name, hashed in known.get("beside", {}).items()}
        for stage, entry in known["stages"].items():
            recorded |= {name: (f"stage {stage!r}", hashed) for name, hashed in entry.get("outputs", {}).items()}
    lines = []
    for name in dict.fromkeys(names):
        maker, hashed = recorded.get(name, ("", None))
        if hashed is None or sha256_once(run.root / name) == hashed:
            continue
        there = (run.root / name).exists()
        lines.append(
            f"{run.root / name} is not what {maker} left there: it was changed, cut short or copied in since."
            if there
            else f"{run.root / name} is missing, which {maker} left there."
        )
    return lines


def check(run: RunFolder, names: Iterable[str]) -> None:
    """Stop unless files that are about to be read are those that were recorded.

    Raises:
        InputError: they are not, or the ledger is damaged; every one is named.
    """
    raise_misfits(misfits(run, names))


def raise_misfits(lines: list[str]) -> None:
    """Raise InputError if there are ``misfits``."""
    if lines:
        raise InputError("\n".join([*lines, _MEND]))


_BESIDE = "the command that made it"
_MEND = (
    "`safety-nb run` or `safety-nb study` with the same parameters and --out makes anew what does not fit, and leaves "
    "the rest; or put the files back that belong there."
)


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
        before: steps among them that an earlier execution had done.
        every: seconds between two writes at the least.
    """

    def __init__(self, run: RunFolder, stage: str, total: int, before: int = 0, every: float = 0.5) -> None:
        self._path, self._stage, self._total, self._every = progress_file(run), stage, total, every
        self._before = {"before": before} if before else {}
        self._started = time.time()
        self._written = 0.0

    def update(self, done: int) -> None:
        now = time.monotonic()
        if done < self._total and now - self._written < self._every:
            return
        self._written = now
        state = {"stage": self._stage, "done": done, "total": self._total, "started": self._started, **self._before}
        write_json(self._path, state)


def progress_file(run: RunFolder) -> Path:
    return run.root / ".progress.json"


def read_progress(run: RunFolder) -> dict | None:
    """The latest progress of the run's current stage, or None where there is none that can be read."""
    try:
        found = read_json(progress_file(run))
    except (OSError, ValueError):
        return None
    numbers = [found.get(name) for name in ("done", "total", "started")] if isinstance(found, dict) else [None]
    if not all(ledger.is_number(number) for number in numbers) or not 0 <= found["done"] <= found["total"]:
        return None
    return found if ledger.is_number(found.get("before", 0)) else None
