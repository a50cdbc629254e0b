"""Tables in files, of the format their ending names: CSV, JSON lines or Parquet; read by the reader of all rows."""

import datetime
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_nb.core import files, reading
from safety_nb.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".csv", ".jsonl", ".parquet")  # that are written


def read(path: Path) -> "pd.DataFrame":
    """A table of a file, all columns of Python's objects, so that each value comes back as it was.

    What a CSV holds is text, an empty cell is empty text, and none is read as missing. What is null, NaN or left out
    in another format is None.

    Raises:
        InputError: no such file, an unknown ending, a content that is not of its format, or a bad row (told by its
            line); as ``reading.read``.
    """
    import pandas as pd

    if reading.ending(path.name) and not reading.is_file(path):
        raise InputError(f"There is no table {str(path)!r}.")
    rows = reading.read(path).objects()
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


def write(path: Path, table: "pd.DataFrame") -> None:
    """Write a table, atomically and, in a text format, without secrets."""
    if path.suffix == ".csv":
        files.write_csv(path, table.transform(_as_cells))
    elif path.suffix == ".jsonl":
        rows = ({name: _as_json(value) for name, value in row.items()} for row in table.to_dict("records"))
        files.write_text(
            path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False, default=str) + "\n" for row in rows)
        )
    else:
        with files.replacing(path) as temporary:
            table.to_parquet(temporary, index=False)


def check_new(path: Path) -> None:
    """Check that a table can be written to a file without overwriting anything. Raises InputError."""
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: the ending says what a table is, and must be one of {', '.join(ENDINGS)}.")
    if path.exists():
        raise InputError(f"--out: {path} is there already; name a new file, so that nothing of yours is overwritten.")


def check_fits(path: Path, table: "pd.DataFrame") -> None:
    """Check that a file's format can hold a table, before work is done on it. Raises InputError."""
    import pyarrow

    if path.suffix == ".jsonl":
        for name in table:
            if any(_is_infinite(value) for value in table[name]):
                raise InputError(f"--out: JSON has no infinity, which column {name!r} holds; write .csv or .parquet.")
    if path.suffix != ".parquet":
        return
    try:
        table.to_parquet(io.BytesIO(), index=False)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"--out: Parquet cannot hold the table ({error}); write .csv or .jsonl.") from error


def _as_cells(column: "pd.Series") -> "pd.Series":
    """A column as CSV has it: lists and objects as JSON."""
    import pandas as pd

    cells = [
        json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value
        for value in column
    ]
    return pd.Series(cells, column.index, object)


def _is_infinite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_is_infinite, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and math.isinf(value)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_json(each) for each in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value
