"""The way to every data set: a registered name, a file of the user's, or a data set of the model hub.

Named sets are read from a local folder (``data_dir``, or the environment variable ``SAFETY_NB_DATA``), else from the
cache they were downloaded into. Knows nothing of what a row is used for; the forms of rows are those of ``rows.py``.

What a parameter may name, an entry below, is

- a registered name, such as ``xstest-safe``;
- the path of a ``.json``, ``.jsonl``, ``.csv`` or ``.parquet`` file, also with ``.gz``;
- ``owner/name``, ``owner/name:part`` or ``owner/name:part@revision`` on the hub, where a part is a file or a split.

For evaluation the last two end in ``:role``, as in ``mine.csv:harmful``.
"""

import functools
import os
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_nb.core import files, reading, run_folder
from safety_nb.core.errors import InputError
from safety_nb.data.datasets import fetch, hub, rows
from safety_nb.data.datasets.registry import REGISTRY, Role, Source
from safety_nb.data.datasets.rows import OnBadRows, TrainingSet, Usable

ROLES = typing.get_args(Role)
OWN = f"or name a file ({', '.join(reading.ENDINGS)}) or a hub data set owner/name"


# --- training -----------------------------------------------------------------------------------------------------


def training_set(
    name: str, data_dir: str = "", on_bad_rows: OnBadRows = "stop", usable: Usable | None = None
) -> TrainingSet:
    """The rows of a training set.

    Args:
        name: a registered name, a path or a hub data set.
        data_dir: local folder of the named data sets.
        on_bad_rows: ``stop`` refuses a file with a bad row; ``leave out`` keeps the others and tells which were bad.
            The bad rows of a named set are always left out: nobody can mend a pinned file.
        usable: called with each row; raises InputError at one that cannot be used, which is a bad row then.

    Raises:
        InputError: the name is not known, the file cannot be had, or a row is bad (told by file and line).
    """
    source = REGISTRY.get(name)
    if source and source.kind == "training":
        return _usable(_read_named(name, source, data_dir), name, usable)
    if source:
        raise InputError(
            f"{name!r} is no training data set but one for {source.kind}; choose from {_named('training')}."
        )
    sets = [_read_training(path, path.stat().st_mtime_ns, on_bad_rows, usable) for path in _files(name, "training")]
    return TrainingSet(
        [row for each in sets for row in each.rows],
        [bad for each in sets for bad in each.left_out],
        list(dict.fromkeys(name for each in sets for name in each.unread)),
    )


def _usable(found: TrainingSet, name: str, usable: Usable | None) -> TrainingSet:
    """The rows of a named set that can be used."""
    if usable is None:
        return found
    kept, left_out = [], list(found.left_out)
    for number, row in enumerate(found.rows, start=1):
        try:
            usable(row)
            kept.append(row)
        except InputError as error:
            left_out.append(f"data set {name!r}, row {number}: {error}")
    if not kept:
        raise InputError(f"data set {name!r} holds no usable row of {len(left_out)}; the first: {left_out[0]}")
    return TrainingSet(kept, left_out, found.unread)


def training_rows(name: str, data_dir: str = "") -> list[dict]:
    """The rows of a training set without a bad row; see ``training_set``."""
    return training_set(name, data_dir).rows


@functools.lru_cache(maxsize=32)
def _read_training(path: Path, mtime: int, on_bad_rows: OnBadRows, usable: Usable | None) -> TrainingSet:
    return rows.training_set(path, on_bad_rows, usable)


# --- evaluation ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Evaluation:
    """An entry of ``evaluation:`` taken apart: the data set's name, its role, and what names its file."""

    name: str
    role: str
    entry: str


def roles(entries: list[str]) -> dict[str, str]:
    """The role of each evaluation set, by entry. Raises InputError for one that is no evaluation set."""
    return {entry: _evaluation(entry).role for entry in entries}


def evaluation_rows(entry: str, data_dir: str = "") -> list[dict]:
    """The prompts of an evaluation set. Raises InputError for an unknown name or a file that cannot be had."""
    asked = _evaluation(entry)
    if asked.entry in REGISTRY:
        return _read_named(asked.entry, REGISTRY[asked.entry], data_dir)
    found = [rows.evaluation_rows(path, answers=asked.role == "facts") for path in _files(asked.entry, "evaluation")]
    if len(found) > 1:  # shards: an id is unique in its file only
        found = [[{**row, "prompt_id": f"{n}-{row['prompt_id']}"} for row in part] for n, part in enumerate(found, 1)]
    return [row for part in found for row in part]


def evaluation_prompts(entries: list[str], data_dir: str = "") -> list[dict]:
    """The prompts of several evaluation sets: dataset, role, prompt_id, prompt, and where there are type and answer.

    Raises:
        InputError: all that is wrong with any of them: as ``evaluation_rows``, or two sets have one name.
    """
    complaints, taken, prompts = [], {}, []
    for entry in entries:
        try:
            asked = _evaluation(entry)
            if taken.setdefault(asked.name, entry) != entry or (asked.name in REGISTRY and asked.name != entry):
                raise InputError(
                    f"evaluation: results of {entry!r} would go by the name {asked.name!r}, which another set has; "
                    "rename the file."
                )
            rows_of_set = evaluation_rows(entry, data_dir)
            prompts.extend({"dataset": asked.name, "role": asked.role, **row} for row in rows_of_set)
        except InputError as error:
            complaints.append(str(error))
    if complaints:
        raise InputError("\n".join(complaints))
    return prompts


def _evaluation(entry: str) -> _Evaluation:
    source = REGISTRY.get(entry)
    if source and source.role:
        return _Evaluation(entry, source.role, entry)
    place, colon, role = entry.rpartition(":")
    own = place if colon and role in ROLES else entry
    if source or own in REGISTRY or not (reading.ending(own) or hub.parse(own)):
        raise InputError(
            f"evaluation: there is no evaluation set {entry!r}; choose from {_named('evaluation')}, {OWN}, "
            f"followed by :role, as in mine.csv:harmful."
        )
    if own == entry:
        raise InputError(
            f"evaluation: what does {entry!r} test? Say so behind it, as in {entry}:harmful; choose from "
            f"{', '.join(ROLES)}."
        )
    on_hub = hub.parse(own)
    parts = [on_hub.repository.rpartition("/")[2], reading.stem(on_hub.part)] if on_hub else [reading.stem(own)]
    return _Evaluation(re.sub(r"[^\w.-]+", "_", "-".join(filter(None, parts))), role, own)


# --- labelled -----------------------------------------------------------------------------------------------------


def labelled_rows(entry: str, data_dir: str = "") -> list[dict]:
    """The rows of a set with labels: a registered name, a path or a hub data set.

    Returns:
        Rows as ``rows.labelled_set`` reads them; those of ``red-team-attempts`` have transcript and rating.

    Raises:
        InputError: the name is not known, the file cannot be had, or a row is bad.
    """
    source = REGISTRY.get(entry)
    if source is None:
        return [row for path in _files(entry, "labelled") for row in rows.labelled_set(path)]
    if source.kind != "labelled":
        raise InputError(
            f"{entry!r} is no labelled data set but one for {source.kind}; choose from {_named('labelled')}."
        )
    return _read_named(entry, source, data_dir)


# --- files --------------------------------------------------------------------------------------------------------


def _named(kind: str) -> str:
    return ", ".join(name for name, source in REGISTRY.items() if source.kind == kind)


def _files(entry: str, kind: str) -> list[Path]:
    """The files of the user's that an entry names; those of the hub are fetched."""
    if on_hub := hub.parse(entry):
        return hub.local_files(on_hub)
    if not reading.ending(entry):
        raise InputError(f"There is no {kind} data set {entry!r}; choose from {_named(kind)}, {OWN}.")
    path = Path(os.path.expanduser(entry))
    if not reading.is_file(path):
        raise InputError(f"There is no file {entry!r}; name a file, or one of the data sets {_named(kind)}.")
    return [path]


def own_files(entries: list[str]) -> list[Path]:
    """The local files of the user's among the entries, there or not; what is fresh depends on their content."""
    own = [each for each in map(_without_role, entries) if each not in REGISTRY and _is_path(each)]
    return [Path(os.path.expanduser(each)) for each in own]


def path_in(entry: str) -> str:
    """The path, with its role, of an entry that is a file of the user's, there or not; empty for any other."""
    return entry if entry not in REGISTRY and _is_path(_without_role(entry)) else ""


def _without_role(entry: str) -> str:
    place, _, role = entry.rpartition(":")
    return place if role in ROLES else entry


def _is_path(entry: str) -> bool:
    return bool(reading.ending(entry)) and hub.parse(entry) is None


# --- named sets ---------------------------------------------------------------------------------------------------


def _read_named(name: str, source: Source, data_dir: str) -> Any:
    """The rows of a named set; for a training set a TrainingSet."""
    if source.file is None:
        return (
            TrainingSet([{"input": "", **row} for row in source.read()]) if source.kind == "training" else source.read()
        )
    path = fetch.locate(name, source.file, data_dir)
    return _read_file(name, path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _read_file(name: str, path: Path, mtime: int) -> Any:
    source = REGISTRY[name]
    try:
        return source.read(path, "leave out") if source.kind == "training" else source.read(path)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not the file of data set {name!r}: {error!r}; fetch it anew.") from error


@dataclass(frozen=True)
class Standing:
    """How a named set stands: ``embedded``, ``local``, ``cached`` or ``not fetched``, and whether it was verified.

    Attributes:
        verified: its file was in the authors' hands: hash and number of rows are computed, not quoted.
    """

    name: str
    source: Source
    state: str
    verified: bool


def standings(data_dir: str = "") -> list[Standing]:
    """How every named set stands; nothing is fetched."""
    return [
        Standing(name, source, "embedded", True)
        if source.file is None
        else Standing(
            name, source, fetch.state(source.file, data_dir), bool(source.file.sha256) and source.file.computed
        )
        for name, source in REGISTRY.items()
    ]


def named(name: str) -> Source:
    """The named set. Raises InputError for an unknown name."""
    if name not in REGISTRY:
        raise InputError(f"There is no data set {name!r}; choose from {', '.join(REGISTRY)}.")
    return REGISTRY[name]


def fetch_named(name: str, data_dir: str = "") -> Path | None:
    """The file of a named set, fetched and checked; None for an embedded one. Raises InputError."""
    source = named(name)
    return fetch.fetch(name, source.file, data_dir) if source.file else None


def verify(name: str, data_dir: str = "") -> int:
    """Check the hash and the number of rows of a named set that is there; the number of rows, unusable ones included.

    Raises:
        InputError: it is missing, or its hash or its number of rows is another than the recorded.
    """
    source = named(name)
    if source.file and fetch.state(source.file, data_dir) == "not fetched":
        raise InputError(f"Data set {name!r} is not here; `safety-nb data fetch {name}` fetches {source.file.url}.")
    found = _read_named(name, source, data_dir)
    size = len(found.rows) + len(found.left_out) if isinstance(found, TrainingSet) else len(found)
    if size != source.size:
        raise InputError(f"Data set {name!r} has {size:,} rows, not the recorded {source.size:,}.")
    return size


def sample(entry: str, n: int, data_dir: str = "") -> tuple[list[dict], bool]:
    """The first rows of any data set, and whether its texts are to be withheld unless they are asked for.

    Raises:
        InputError: there is no such data set, or it cannot be had.
    """
    source = REGISTRY.get(entry)
    if source:
        found = _read_named(entry, source, data_dir)
        return (found.rows if isinstance(found, TrainingSet) else found)[:n], source.harmful
    if _without_role(entry) != entry:
        return evaluation_rows(entry, data_dir)[:n], roles([entry])[entry] == "harmful"
    return training_set(entry, data_dir, "leave out").rows[:n], False


def recorded_roles(run: run_folder.RunFolder) -> dict[str, str]:
    """The roles of the evaluation sets a run was asked, as it kept them; empty for a run that kept none."""
    return {row["dataset"]: row["role"] for row in files.read_jsonl(run.prompts)} if run.prompts.is_file() else {}
