"""The run folder: where each file of a run lies, atomic writes, the ledger, and what is fresh.

Knows nothing of what a row means. The layout is the one in ``outputs/README.md``.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_nb import redaction
from safety_nb.errors import InputError

DONE = "done"
_PARTIAL = ".partial-"  # how the names of files begin that are not whole yet


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
        if (folder / "notebooks").is_dir() and (folder / "safety_nb").is_dir():
            return folder / "outputs"
    return start / "outputs"


def open_run(run_dir: str) -> RunFolder:
    """The run a notebook works in: ``run_dir``, or ``outputs/runs/notebook`` when it is empty."""
    return RunFolder(Path(run_dir).expanduser() if run_dir else outputs_root() / "runs" / "notebook")


# --- reading and writing ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write to; it takes the place of ``path`` only when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_PARTIAL}{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it takes the place of ``path`` only when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{_PARTIAL}{path.name}-") as scratch:
        fresh, old = Path(scratch) / "fresh", Path(scratch) / "old"
        fresh.mkdir()
        yield fresh
        if path.exists():
            os.replace(path, old)
        os.replace(fresh, path)


def remove_partial(folder: Path) -> None:
    """Remove what a process that was killed left half written. Only for who holds the folder."""
    for path in folder.rglob(f"{_PARTIAL}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, without secrets."""
    with replacing(path) as temporary:
        temporary.write_text(redaction.redact(text), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_notebook(path: Path, book: dict) -> None:
    """Write a notebook atomically, in the form Jupyter itself writes."""
    write_text(path, json.dumps(book, indent=1, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, atomically, without secrets."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict]:
    """Read the rows of a file this package wrote."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def append_line(path: Path, row: dict, sync: bool = False) -> None:
    """Append a row to a log of JSON lines, in one write, without secrets; a half-written last line is closed off.

    Args:
        sync: return only when it would survive a power cut: for what a person did by hand.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = redaction.redact(json.dumps(row, ensure_ascii=False, allow_nan=False)).encode() + b"\n"
    with path.open("ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
        if sync:
            os.fsync(file.fileno())


def read_log(path: Path) -> list[dict]:
    """The rows of a log of JSON lines; a line that a crash left half-written is passed over. No file, no rows."""
    rows = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def write_csv(path: Path, table: Any) -> None:
    """Write a pandas table atomically, without its index and without secrets."""
    write_text(path, table.to_csv(index=False))


# --- hashes and freshness -----------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files with their names, as hex; empty when there is nothing at ``path``."""
    if path.is_dir():
        parts = sorted(f"{file.relative_to(path)}:{sha256(file)}" for file in path.rglob("*") if file.is_file())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(root: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 by name of the files or folders ``names`` below ``root``."""
    return {name: sha256(root / name) for name in names}


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
    except (OSError, json.JSONDecodeError):
        return None
