"""Tables in files, of the format their ending names: CSV, JSON lines or Parquet."""

from pathlib import Path
from typing import TYPE_CHECKING

from safety_nb.core import files
from safety_nb.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".csv", ".jsonl", ".parquet")


def read(path: Path) -> "pd.DataFrame":
    """A table of a file. What a CSV holds is text, an empty cell is empty text, and none is read as missing.

    Raises:
        InputError: no such file, an unknown ending, or a content that is not of its format.
    """
    import pandas as pd

    _check_ending(path)
    if not path.is_file():
        raise InputError(f"There is no table {str(path)!r}.")
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False)
        return pd.read_json(path, lines=True, dtype=False) if path.suffix == ".jsonl" else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error


def write(path: Path, table: "pd.DataFrame") -> None:
    """Write a table, atomically and, in a text format, without secrets."""
    if path.suffix == ".csv":
        files.write_csv(path, table)
    elif path.suffix == ".jsonl":
        files.write_text(path, table.to_json(orient="records", lines=True, force_ascii=False))
    else:
        with files.replacing(path) as temporary:
            table.to_parquet(temporary, index=False)


def check_new(path: Path) -> None:
    """Check that a table can be written to a file without overwriting anything. Raises InputError."""
    _check_ending(path)
    if path.exists():
        raise InputError(f"--out: {path} is there already; name a new file, so that nothing of yours is overwritten.")


def _check_ending(path: Path) -> None:
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: the ending says what a table is, and must be one of {', '.join(ENDINGS)}.")
