"""Files of rows, read strictly: JSON, JSON lines, CSV and Parquet, also gzipped.

The one reader of what users give: tables and data sets alike. A file is what its ending says, or it is refused as what
it is; what is wrong with a row is told by its line. Knows nothing of what a row is used for.
"""

import csv
import functools
import gzip
import io
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safety_nb.core.errors import InputError

ENDINGS = (".json", ".jsonl", ".csv", ".parquet")
MOST_LEVELS = 100  # of lists and objects in one another, in a row

_KINDS = {".json": "JSON", ".jsonl": "JSON lines", ".csv": "CSV", ".parquet": "Parquet", "": "plain text"}
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_JSON_START = re.compile(r'\s*(\[\s*)?\{\s*"')
_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}


@dataclass(frozen=True)
class Table:
    """The rows of a file as they are.

    Attributes:
        rows: the rows, mostly dicts; an InputError in the place of one that could not be read. A NaN, which says that
            there is no value, is None as null is.
        numbers: their lines in the file, counted from 1, or for Parquet their numbers; a function, since they cost.
    """

    path: Path
    rows: list[Any]
    numbers: Callable[[], list[int]]
    unit: Literal["line", "row"] = "line"

    def place(self, index: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.path}, {self.unit} {self.numbers()[index]}"

    def objects(self) -> list[dict]:
        """The rows, each a dict. Raises InputError for the first that is none; told by its line."""
        for index, row in enumerate(self.rows):
            if isinstance(row, InputError):
                raise InputError(f"{self.place(index)}: {row}")
            if not isinstance(row, dict):
                raise InputError(f"{self.place(index)}: a row must be an object, not {type(row).__name__}.")
        return self.rows


def ending(name: str) -> str:
    """The ending of a data file's name, without ``.gz``; empty when it is no data file that can be read."""
    suffix = Path(_unpacked(name)).suffix.lower()
    return suffix if suffix in ENDINGS else ""


def stem(name: str) -> str:
    """The name of a data file without folder and endings."""
    return Path(_unpacked(Path(name).name)).stem


def is_file(path: Path) -> bool:
    """Whether a path is a file; a name that no file can have is none."""
    return os.path.isfile(path)  # Path.is_file raises where a name is too long


def read(path: Path) -> Table:
    """The rows of a file; which kind it is, its ending tells.

    Raises:
        InputError: it cannot be read, is not what its ending says, names a column twice, or holds no rows.
    """
    kind = ending(path.name)
    if not kind:
        told = ": save it as .csv; cells parted by tabs are read" if path.suffix.lower() in (".tsv", ".tab") else ""
        raise InputError(f"{path}: the ending says what a file is, and must be one of {_or_packed()}{told}.")
    content = _content(path, kind)
    if kind == ".parquet":
        table = _parquet(path, content)
    else:
        table = {".json": _array, ".jsonl": _lines, ".csv": _csv}[kind](path, _decoded(path, content))
    if not table.rows:
        raise InputError(f"{path} holds no rows.")
    return table


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises InputError when it is none."""
    text = _decoded(path, _content(path, ".json"))
    value = _checked(_parsed(path, text))
    if isinstance(value, InputError):
        raise InputError(f"{path}: {value}")
    return value


def read_lines(path: Path) -> Table:
    """The lines of a file of plain text that are not blank. Raises InputError: as ``read``."""
    lines = _decoded(path, _content(path, "")).split("\n")
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    return Table(path, [_checked(lines[number - 1]) for number in numbers], lambda: numbers)


def _or_packed() -> str:
    return f"{', '.join(ENDINGS)} (also with .gz)"


def _unpacked(name: str) -> str:
    return name[: -len(".gz")] if name.lower().endswith(".gz") else name


# --- bytes --------------------------------------------------------------------------------------------------------

_UNPACK, _AS_UTF8, _AS_CSV = "unpack it", "save it as UTF-8", "save its table as CSV"
_GZIP = b"\x1f\x8b"
# What files begin with that are often met in the place of a data file, what they are, and the mend.
_SIGNATURES = (
    (_GZIP, "a gzip file", "let its name end in .gz"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", f"{_UNPACK}, or {_AS_CSV}"),
    (b"BZh", "a bzip2 file", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (b"\x04\x22\x4d\x18", "an LZ4 file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"PAR1", "a Parquet file", "let its name end in .parquet"),
    (b"ARROW1", "an Arrow file", "save its table as Parquet"),
    (b"Obj\x01", "an Avro file", _AS_CSV),
    (b"SQLite format 3\x00", "an SQLite database", _AS_CSV),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", _AS_CSV),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _AS_CSV),
    (b"%PDF-", "a PDF file", _AS_CSV),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
    (b"/annex/objects/", "a pointer of git-annex", "fetch the file itself with `git annex get`"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", _AS_UTF8),
    (b"\x00\x00\xfe\xff", "UTF-32 text", _AS_UTF8),
    (b"\xff\xfe", "UTF-16 text", _AS_UTF8),
    (b"\xfe\xff", "UTF-16 text", _AS_UTF8),
)
_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml")


def _content(path: Path, kind: str) -> bytes:
    """The bytes of a file, unpacked. Raises InputError where they are plainly of another kind."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    if path.suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except EOFError as error:
            raise InputError(f"{path} is no whole gzip file: it was cut short ({error}); fetch it again.") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            plain = not content.startswith(_GZIP)
            mend = "it is not packed; take .gz off its name" if plain else "it is damaged; fetch it again"
            raise InputError(f"{path} is no whole gzip file ({error}): {mend}.") from error
    if found := _other_kind(content, kind):
        raise InputError(f"{path} is {found[0]}, not {_KINDS[kind]}: {found[1]}.")
    return content


def _other_kind(content: bytes, kind: str) -> tuple[str, str] | None:
    """What a content is, and the mend, where it is plainly not of a kind."""
    for signature, told, mend in _SIGNATURES:
        if content.startswith(signature) and not (kind == ".parquet" and signature == b"PAR1"):
            return told, mend
    if content[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if content[:1000].removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE):
        return "a web page (HTML)", "fetch the file itself; its address may ask for a login, or have changed"
    head = content[:64]
    if head and not head.strip(b"\x00"):
        return "a file of NUL bytes", "fetch it again"
    if len(head) > 3 and b"\x00" in head and not (head[::2].strip(b"\x00") and head[1::2].strip(b"\x00")):
        return "UTF-16 text", _AS_UTF8
    return None


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")  # some editors and spreadsheets put a mark first
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}, line {line}: {error.reason}); save it as UTF-8. If it "
            "comes from Windows, it is probably cp1252."
        ) from error


# --- JSON ---------------------------------------------------------------------------------------------------------


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        return InputError(f"holds {twice!r} twice")
    return found


def _integer(digits: str) -> Any:
    try:
        return int(digits)
    except ValueError:  # beyond what Python reads (sys.get_int_max_str_digits)
        return InputError(f"holds a number of {len(digits.removeprefix('-')):,} digits")


# What JSON can say and we can't read becomes an InputError in its place: so it is told by the line of its row.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def _parsed(path: Path, text: str) -> Any:
    """The value of a JSON text, unchecked. Raises InputError."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            raise InputError(
                f"{path}, line {error.lineno}: no JSON: more follows the first row. If each line is a row, let the "
                "file's name end in .jsonl."
            ) from error
        raise InputError(f"{path}, line {error.lineno}: no JSON ({error.msg} at column {error.colno}).") from error
    except RecursionError as error:
        raise InputError(f"{path}, line {_last_start(text)}: the row {_TOO_DEEP}.") from error


def _array(path: Path, text: str) -> Table:
    rows = _parsed(path, text)
    if isinstance(rows, InputError):
        raise InputError(f"{path}: the file {rows}.")
    if not isinstance(rows, list):
        raise InputError(f"{path}: a data file must be a JSON array of rows, not {type(rows).__name__}.")
    return Table(path, list(map(_checked, rows)), functools.cache(lambda: list(_starts(text))))


def _starts(text: str) -> Iterator[int]:
    """The line each element of a JSON array starts on, which ``json.loads`` does not tell."""
    position, line, counted = text.index("[") + 1, 1, 0
    while True:
        while text[position] in " \t\r\n,":
            position += 1
        if text[position] == "]":
            return
        line += text.count("\n", counted, position)
        counted = position
        yield line
        position = _DECODER.raw_decode(text, position)[1]


def _last_start(text: str) -> int:
    """The line of the element of an array that is nested too deep to be read."""
    line = 1
    try:
        for line in _starts(text):  # noqa: B007
            pass
    except (RecursionError, ValueError, IndexError):
        pass
    return line


def _lines(path: Path, text: str) -> Table:
    if text.lstrip().startswith("["):  # an array under the name of lines, as some published files are
        return _array(path, text)
    rows, numbers = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            rows.append(_json_line(line))
            numbers.append(number)
    return Table(path, rows, lambda: numbers)


def _json_line(line: str) -> Any:
    try:
        return _checked(_DECODER.decode(line))
    except json.JSONDecodeError as error:
        return InputError(f"no JSON ({error.msg} at column {error.colno}).")
    except RecursionError:
        return InputError(f"the row {_TOO_DEEP}.")


# --- values -------------------------------------------------------------------------------------------------------

_TOO_DEEP = f"is nested more than {MOST_LEVELS} levels deep"


def _checked(row: Any) -> Any:
    """A row with NaN as None; an InputError where it holds what cannot be read or is no text."""
    where = "the row"
    try:
        if not isinstance(row, dict):
            return _usable(row)
        kept = {}
        for name, value in row.items():
            where = f"the name {name!r}"
            _usable(name)
            where = f"the field {name!r}"
            kept[name] = _usable(value)
        return kept
    except InputError as error:
        return InputError(f"{where} {error}.")


def _usable(value: Any, level: int = 1) -> Any:
    if isinstance(value, str):
        plain = value.isascii() and "\x00" not in value  # most text, and soon told
        if not plain and (found := _NO_TEXT.search(value)):
            raise InputError(_no_text(found))
        return value
    if isinstance(value, InputError):
        raise value
    if isinstance(value, float):
        return None if value != value else value
    if not isinstance(value, dict | list | tuple):
        return value
    if level == MOST_LEVELS:
        raise InputError(_TOO_DEEP)
    if isinstance(value, dict):
        return {_usable(name): _usable(each, level + 1) for name, each in value.items()}
    return [_usable(each, level + 1) for each in value]


def _no_text(found: re.Match) -> str:
    what = "a NUL (U+0000)" if found[0] == "\x00" else f"half a surrogate pair (U+{ord(found[0]):04X})"
    return f"holds {what} at character {found.start() + 1}, which is no text; remove it"


# --- CSV ----------------------------------------------------------------------------------------------------------


def _csv(path: Path, text: str) -> Table:
    if _JSON_START.match(text):
        raise InputError(f"{path}, line 1: this is JSON, not CSV; let the file's name end in .jsonl or .json.")
    delimiter = _delimiter(text)
    rows, numbers, header, line = [], [], None, 0
    limit = csv.field_size_limit(2**31 - 1)  # 131,072 characters otherwise, which an answer can exceed
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for cells in reader:
            if header is None and cells:
                header = _header(path, cells, line + 1)
            elif cells:
                rows.append(_csv_row(header, cells, delimiter))
                numbers.append(line + 1)
            line = reader.line_num
    except csv.Error as error:
        raise InputError(f"{path}, line {line + 1}: no CSV ({error}).") from error
    finally:
        csv.field_size_limit(limit)
    return Table(path, rows, lambda: numbers)


def _delimiter(text: str) -> str:
    """What parts the cells: a comma, but where that leaves the header whole, a semicolon or tab that doesn't."""
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    return next((each for each in _DELIMITERS if each in first), ",")


def _header(path: Path, names: list[str], line: int) -> list[str]:
    where = f"{path}, line {line}"
    if isinstance(checked := _checked(names), InputError):
        raise InputError(f"{where}: the header: {checked}")
    _refuse_twice(where, names)
    return names


def _refuse_twice(where: str, names: list[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            told = f"{times} columns have the name {name!r}" if name else f"{times} columns have no name"
            raise InputError(f"{where}: {told}; give each column a name of its own, or remove what is not needed.")


def _csv_row(header: list[str], cells: list[str], delimiter: str) -> Any:
    if len(cells) != len(header):
        return InputError(
            f"the row has more or fewer cells than the header ({len(cells)}, not {len(header)}); quote a cell that has "
            f"{_DELIMITERS[delimiter]} in it."
        )
    return _checked(dict(zip(header, cells, strict=True)))


# --- Parquet ------------------------------------------------------------------------------------------------------


def _parquet(path: Path, content: bytes) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(io.BytesIO(content)).read()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} is no Parquet file that can be read ({_why_not(content) or error}).") from error
    _refuse_twice(str(path), table.column_names)
    columns = [_column(path, name, table[name]) for name in table.column_names]
    rows = [_checked(dict(zip(table.column_names, cells, strict=True))) for cells in zip(*columns, strict=True)]
    numbers = list(range(1, len(rows) + 1))
    return Table(path, rows, lambda: numbers, "row")


def _why_not(content: bytes) -> str:
    """Why a content is no Parquet, where that is plain; Arrow's own words tell little."""
    if content.startswith(b"PAR1"):
        return "" if content.endswith(b"PAR1") else "it was cut short; fetch it again"
    return "" if b"\x00" in content[:1000] else "it holds text; let its ending say of which kind"


def _column(path: Path, name: str, column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except Exception as error:  # of many kinds: a time that no calendar has, a zone that is none, text that is no UTF-8
        raise InputError(
            f"{path}: the column {name!r} ({column.type}) holds what cannot be read ({error}); remove or mend it."
        ) from error
