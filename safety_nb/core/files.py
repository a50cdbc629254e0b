"""Files written whole or not at all, and without secrets; what they hold, by SHA-256. Knows nothing of runs."""

import contextlib
import functools
import hashlib
import itertools
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
    """Read JSON. Raises InputError where a file holds none, or what is nested too deep or too long a number."""
    return _parsed(path.read_bytes(), str(path))


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON that can be read: {error}.") from error


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
        raise InputError(_MISSING.format(path)) from None
    except InputError as error:
        raise InputError(f"{path} is damaged or cut short ({error.__cause__}). {_ANEW}") from None
    _check_fields(str(path), value, fields)
    return value


def _check_fields(where: str, value: Any, fields: Mapping[str, type | tuple[type, ...]]) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{where} is damaged: it holds {type(value).__name__}, not names and values. {_ANEW}")
    for name, kind in fields.items():
        if name not in value or not isinstance(value[name], kind):
            told = f"{name} is {value[name]!r:.60}" if name in value else f"it has no {name}"
            raise InputError(f"{where} is damaged, or of another version of safety-nb: {told}. {_ANEW}")


_ANEW = "The command or notebook that made it makes it anew."
_MISSING = "{} is missing; the command that made this folder makes it anew."


def read_yaml(path: Path) -> Any:
    """Read YAML that a person may have written. Raises InputError where it is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no YAML: {error}") from error
    return parse_yaml(text, f"{path} is no YAML")


def parse_yaml(text: str, complaint: str) -> Any:
    """The value of a YAML text that a person may have written.

    Args:
        complaint: what to say first where it has none.

    Raises:
        InputError: it is no YAML, a value is not what its form promises (a day that no month has, say), is too long a
            number or a text that no file can hold, or the whole is nested too deep or without end.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            try:
                value = super().construct_object(node, deep)
                _check_scalar(value)
            except (yaml.YAMLError, RecursionError):
                raise
            except Exception as error:  # PyYAML's constructors raise whatever Python does
                told = f"{str(node.value)[:60]!r} is no value: {error}"
                raise yaml.constructor.ConstructorError(problem=told, problem_mark=node.start_mark) from error
            return value

    try:
        value = yaml.load(text, Loader)
        _check_depth(value)
    except RecursionError:
        raise InputError(f"{complaint}: it is nested too deep.") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # of the scanner too: an escape beyond Unicode
        raise InputError(f"{complaint}: {error}") from error
    return value


_MOST_BITS = 64
_DEEPEST, _MOST_VALUES = 16, 1_000_000


def _check_scalar(value: Any) -> None:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"a whole number may have {_MOST_BITS} bits")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a text may not hold the character NUL")
    if isinstance(value, str):
        value.encode()  # halves of surrogate pairs are a ValueError


def _check_depth(value: Any) -> None:
    """Check that a value ends, whatever its aliases refer to. Raises ValueError."""
    level = [value]
    for _ in range(_DEEPEST):
        below = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = list(itertools.islice(itertools.chain.from_iterable(below), _MOST_VALUES))
        if not level:
            return
        if len(level) == _MOST_VALUES:
            break
    raise ValueError("it is nested too deep, or its aliases refer to themselves")


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
    try:
        with path.open("rb") as file:
            rows = [_parsed(line, f"{path}, line {number}") for number, line in enumerate(file, start=1)]
    except FileNotFoundError:
        raise InputError(_MISSING.format(path)) from None
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
        with contextlib.suppress(ValueError, RecursionError):
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
