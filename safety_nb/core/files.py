"""Files written whole or not at all, and without secrets; what they hold, by SHA-256. Knows nothing of runs."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safety_nb.core import secrets
from safety_nb.core.errors import InputError

_PARTIAL = ".partial-"  # how the names of files begin that are not whole yet


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
        temporary.write_text(secrets.redact(text), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_record(path: Path, fields: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """Read a record that this package wrote: a JSON object that has at least these fields.

    Args:
        fields: name to type.

    Raises:
        InputError: it is missing, cut short or another file; the message says which, and what is wrong.
    """
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; the command that made this folder makes it anew.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged or cut short ({_why_no_json(error)}). {_ANEW}") from None
    _check_fields(str(path), value, fields)
    return value


def _check_fields(where: str, value: Any, fields: Mapping[str, type | tuple[type, ...]]) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{where} is damaged: it holds {type(value).__name__}, not names and values. {_ANEW}")
    for name, kind in fields.items():
        if name not in value or not isinstance(value[name], kind):
            told = f"{name} is {value[name]!r:.60}" if name in value else f"it has no {name}"
            raise InputError(f"{where} is damaged, or of another version of safety-nb: {told}. {_ANEW}")


def _why_no_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    return "no text in UTF-8" if isinstance(error, UnicodeDecodeError) else "no JSON that can be read"


_ANEW = "The command or notebook that made it makes it anew."


def read_yaml(path: Path) -> Any:
    """Read YAML that a person may have written. Raises InputError where it is none."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {error}") from error


def write_notebook(path: Path, book: dict) -> None:
    """Write a notebook atomically, in the form Jupyter itself writes."""
    write_text(path, json.dumps(book, indent=1, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, atomically, without secrets."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path, fields: Mapping[str, type | tuple[type, ...]] | None = None) -> list[dict]:
    """Read the rows of a file this package wrote.

    Args:
        fields: name to type, of what each row must have.

    Raises:
        InputError: the file is missing, or a row is cut short or lacks a field; the message names file and line.
    """
    rows, number = [], 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007
                rows.append(json.loads(line))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; the command that made this folder makes it anew.") from None
    except UnicodeDecodeError:  # read ahead, by blocks
        raise InputError(f"{path}, after line {number}: no text in UTF-8. {_ANEW}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}, line {number}: cut short, or no JSON. {_ANEW}") from None
    for number, row in enumerate(rows, start=1):
        _check_fields(f"{path}, line {number}", row, fields or {})
    return rows


def append_line(path: Path, row: dict, sync: bool = False) -> None:
    """Append a row to a log of JSON lines, in one write, without secrets; a half-written last line is closed off.

    Args:
        sync: return only when it would survive a power cut: for what a person did by hand.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = secrets.redact(json.dumps(row, ensure_ascii=False, allow_nan=False)).encode() + b"\n"
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


def now() -> str:
    """The time, with its zone, as logs and records have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def write_csv(path: Path, table: Any) -> None:
    """Write a pandas table atomically, without its index and without secrets."""
    write_text(path, table.to_csv(index=False))


def sha256(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files with their names, as hex; empty when there is nothing at ``path``."""
    if path.is_dir():
        return _of_folder(path, sha256)
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_folder(path: Path, of_file: Callable[[Path], str]) -> str:
    parts = sorted(f"{file.relative_to(path)}:{of_file(file)}" for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def sha256_once(path: Path) -> str:
    """``sha256``, remembered of a file as long as it lies there untouched: of one that is read for several tables."""
    if path.is_dir():
        return _of_folder(path, sha256_once)
    if not path.is_file():
        return ""
    now = path.stat()
    return _sha256_of(path.resolve(), now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256_of(path: Path, *_: int) -> str:
    return sha256(path)


def hashes(root: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 by name of the files or folders ``names`` below ``root``."""
    return {name: sha256(root / name) for name in names}
