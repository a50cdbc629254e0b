"""Public files: where they lie, downloading them whole, and checking that they are the ones they should be.

Knows nothing of what is in a file.
"""

import contextlib
import functools
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safety_nb.core import files
from safety_nb.core.errors import InputError

TIMEOUT_SECONDS = 30.0  # without a byte
ATTEMPTS = 4
PAUSE_SECONDS = 1.0  # before the second attempt; doubled before each further one
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class File:
    """A public file.

    Attributes:
        path: its place below ``data_dir`` or the cache.
        url: its address.
        sha256: of its bytes, as hex; empty when none is known: then that of the first download is recorded.
        computed: whether the hash was computed from the file by the authors; else it is the one that the file's host
            or others publish, and the file has never been seen by the authors.
    """

    path: str
    url: str
    sha256: str = ""
    computed: bool = True


State = Literal["local", "cached", "not fetched"]


def cache_dir() -> Path:
    """Where downloads are kept: ``SAFETY_NB_CACHE``, else ``~/.cache/safety-nb``."""
    return Path(os.environ.get("SAFETY_NB_CACHE") or Path.home() / ".cache" / "safety-nb").expanduser()


def place(file: File, data_dir: str = "") -> tuple[Path, str]:
    """Where a file is looked for, and the name of what says so (empty for the cache).

    Raises:
        InputError: the folder named by ``data_dir`` or ``SAFETY_NB_DATA`` does not exist.
    """
    folder = data_dir or os.environ.get("SAFETY_NB_DATA", "")
    if not folder:
        return cache_dir() / file.path, ""
    asked = "data_dir" if data_dir else "SAFETY_NB_DATA"
    found = os.path.expanduser(folder)
    if not os.path.isdir(found):  # Path's own raises for a user or a name that cannot be
        raise InputError(f"{asked}: there is no folder {folder!r}; name the folder the data sets lie in.")
    return Path(found) / file.path, asked


def state(file: File, data_dir: str = "") -> State:
    """Whether a file is there; nothing is read or fetched."""
    path, asked = place(file, data_dir)
    return ("local" if asked else "cached") if path.is_file() else "not fetched"


def locate(name: str, file: File, data_dir: str = "") -> Path:
    """The local copy of a file, checked; fetched into the cache when it is missing and no local folder is named.

    Raises:
        InputError: the local folder or the file in it is missing, the download failed, or its hash is another.
    """
    path, asked = place(file, data_dir)
    if asked and not path.is_file():
        raise InputError(
            f"Data set {name!r} is not in {asked}: fetch {file.url} to {path} (`safety-nb data fetch {name}` does)."
        )
    return path if _is_right(name, file, path) else fetch(name, file, data_dir)


def fetch(name: str, file: File, data_dir: str = "") -> Path:
    """The local copy of a file, checked; downloaded to where it is looked for when it is not there.

    Raises:
        InputError: as ``locate``.
    """
    import filelock

    path, _ = place(file, data_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):  # two processes would write into one another's part
        if not _is_right(name, file, path):
            _download(name, file, path)
    return path


def _is_right(name: str, file: File, path: Path) -> bool:
    """Whether the file is there and has its hash. Raises InputError when it has another."""
    if not path.is_file():
        return False
    expected = file.sha256 or _recorded(path)
    found = _sha256(path, path.stat().st_mtime_ns, path.stat().st_size) if expected else ""
    if found != expected:
        raise InputError(
            f"Data set {name!r}: {path} has SHA-256 {found}, not the recorded {expected}{_told(file)}. The name "
            f"stands for that very file: delete this one and have it fetched anew from {file.url}, or, if it is a "
            "version of your own, name its path instead."
        )
    return True


def _told(file: File) -> str:
    return "" if file.computed else " (as others publish it; the authors have not seen the file)"


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, mtime: int, size: int) -> str:
    return files.sha256(path)


def _record(path: Path) -> Path:
    """Where the hash of a file without a known one is kept at its first download."""
    return path.with_name(f"{path.name}.sha256")


def _recorded(path: Path) -> str:
    return _record(path).read_text(encoding="utf-8").strip() if _record(path).is_file() else ""


# --- downloading --------------------------------------------------------------------------------------------------


class _Again(Exception):
    """An attempt failed in a way that another one may mend."""


def _download(name: str, file: File, path: Path) -> None:
    """Download a file to ``path``: what has come of it stays in a part beside it until it is whole."""
    part = path.with_name(f".{path.name}.part")
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
        try:
            resumed = _continue(name, file.url, part)
            break
        except _Again as error:
            cause: Exception = error
        except OSError as error:  # nothing that waiting mends: 404, no such host, no connection, a full disk
            raise InputError(_could_not(name, file, path, error)) from error
    else:
        told = _could_not(name, file, path, cause)
        if not _validator_file(part).is_file():  # without one the rest could be that of another version
            part.unlink(missing_ok=True)
            raise InputError(told) from cause
        raise InputError(f"{told} What has come is kept: the next attempt goes on from there.") from cause
    found = files.sha256(part)
    _forget(part, keep_content=True)
    if file.sha256 and found != file.sha256:
        part.unlink()
        if resumed:  # the server may have put together parts of two versions
            return _download(name, file, path)
        raise InputError(
            f"Data set {name!r}: {file.url} has SHA-256 {found}, not the recorded {file.sha256}{_told(file)}; it was "
            "not kept."
        )
    if not file.sha256:
        files.write_text(_record(path), f"{found}\n")
    os.replace(part, path)


def _could_not(name: str, file: File, path: Path, cause: Exception) -> str:
    return (
        f"Data set {name!r} could not be downloaded ({cause}). Fetch {file.url} to {path}, or set data_dir or "
        f"SAFETY_NB_DATA to a folder that has {file.path}."
    )


def _continue(name: str, url: str, part: Path) -> bool:
    """Download what is missing of a part, all of it when the server has another version by now.

    Returns:
        Whether some of it had come before.

    Raises:
        _Again: the connection broke off, or the server is busy.
        OSError: the server refuses or is not reached, or the disk is full.
    """
    validator = _validator_file(part).read_text(encoding="utf-8") if _validator_file(part).is_file() else ""
    have = part.stat().st_size if part.is_file() and validator else 0
    # If-Range: the rest of the version we have a part of, else the whole of the new one (RFC 9110, 13.1.5).
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as answer:
            resumed = answer.status == 206 and _is_rest(answer, have, validator)
            if answer.status == 206 and not resumed:
                _forget(part)
                raise _Again("the server sent another part than the one asked for")
            if not resumed:
                _forget(part)
                if validator := _validator(answer):
                    part.parent.mkdir(parents=True, exist_ok=True)
                    files.write_text(_validator_file(part), validator)
            _receive(answer, part, have if resumed else 0, name)
            return resumed
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what we have: it is of another version, or was whole
            _forget(part)
        if error.code in (408, 416, 429) or error.code >= 500:
            raise _Again(f"HTTP {error.code}: {error.reason}") from error
        raise
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _Again(str(error) or type(error).__name__) from error


def _receive(answer: Any, part: Path, have: int, name: str) -> None:
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    with part.open("ab" if have else "wb") as out, _bar(name, have, total) as advance:
        while chunk := answer.read1(_CHUNK_BYTES):
            out.write(chunk)
            advance(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise _Again(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")


def _validator(answer: Any) -> str:
    """What tells this version of the file from another: a strong ETag, or the date; empty when there is none."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _is_rest(answer: Any, have: int, validator: str) -> bool:
    starts = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    return starts and _validator(answer) in ("", validator)


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _forget(part: Path, keep_content: bool = False) -> None:
    _validator_file(part).unlink(missing_ok=True)
    if not keep_content:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _bar(name: str, have: int, total: int | None) -> Iterator[Any]:
    """A progress bar on the terminal; nothing where there is none."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total, completed=have)
        yield lambda size: progress.advance(task, size)
