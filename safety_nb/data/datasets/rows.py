"""Rows of data files, and the checks that make a row a usable one.

Knows nothing of where a file comes from, how it is read (``core/reading.py``) or what a row is used for.

A training row is a dict with ``instruction``, ``input`` and ``output``, where there are ``question`` (the same asked as
a question) and ``tag`` (a topic), and ``messages`` for a conversation of more than one exchange or with a system
message; its ``instruction`` and ``output`` are then those of the first exchange. An evaluation row has ``prompt_id``
and ``prompt``, and where there are ``answer`` (the one right answer) and ``type``.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safety_nb.core import reading
from safety_nb.core.errors import InputError
from safety_nb.core.text import shortened

OnBadRows = Literal["stop", "leave out"]
FORMS = (
    "A training row has instruction, output and optionally input, question and tags; or messages, a list of "
    "{role, content}."
)

_SPEAKERS = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


@dataclass(frozen=True)
class TrainingSet:
    """The rows of a training set, and why each of the bad ones was left out (file, line and reason)."""

    rows: list[dict]
    left_out: list[str] = field(default_factory=list)


# --- training rows ------------------------------------------------------------------------------------------------


def training_set(path: Path, on_bad_rows: OnBadRows = "stop") -> TrainingSet:
    """The rows of a training file, each checked, in Alpaca or in chat form.

    Args:
        path: the file.
        on_bad_rows: ``stop`` refuses a file with a bad row; ``leave out`` keeps the others and tells which were bad.

    Raises:
        InputError: the file cannot be read or holds no rows, or a row is bad; the message names file and line.
    """
    table = reading.read(path)
    rows, left_out = [], []
    for index, row in enumerate(table.rows):
        try:
            rows.append(_training_row(row))
        except InputError as error:
            message = f"{table.place(index)}: {error}"
            if on_bad_rows == "stop":
                raise InputError(f"{message} Mend the file, or set on_bad_rows: leave out.") from error
            left_out.append(message)
    if left_out and not rows:
        raise InputError(f"{path} holds no usable row of {len(left_out)}; the first: {left_out[0]}")
    return TrainingSet(rows, left_out)


def _training_row(row: Any) -> dict:
    _refuse_unread(row)
    if "messages" in row or "conversations" in row:
        kept = _of_chat(row)
    else:
        kept = {
            "instruction": _text(row, "instruction"),
            "input": _text(row, "input", needed=False) or "",
            "output": _text(row, "output"),
        }
    if question := _text(row, "question", needed=False):
        kept["question"] = question
    if tag := _tag(row):
        kept["tag"] = tag
    return kept


def _refuse_unread(row: Any) -> None:
    if isinstance(row, InputError):
        raise row
    if not isinstance(row, dict):
        raise InputError(f"a row must be an object, not {type(row).__name__}. {FORMS}")


def _text(row: dict, name: str, needed: bool = True) -> str | None:
    """A field that must be text: not empty where it is needed, None where it may be left out and is."""
    value = row.get(name)
    if value is None and not needed:
        return None
    if name not in row:
        raise InputError(f"the row lacks the field {name!r}; it has {', '.join(sorted(map(str, row)))}. {FORMS}")
    if not isinstance(value, str):
        raise InputError(f"the field {name!r} must be text, not {type(value).__name__}.")
    if needed and not value.strip():
        raise InputError(f"the field {name!r} is empty.")
    return value


def _tag(row: dict) -> str | None:
    name = next((name for name in ("tags", "tag", "type") if row.get(name)), None)
    if name is None:
        return None
    value = row[name]
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return _text(row, name)


def _of_chat(row: dict) -> dict:
    """A conversation: an optional system message, then user and assistant in turn, the assistant last."""
    name = "messages" if "messages" in row else "conversations"
    said = row[name]
    if not isinstance(said, list) or not all(isinstance(each, dict) for each in said):
        raise InputError(f"the field {name!r} must be a list of messages. {FORMS}")
    messages = [_message(each, f"message {number} of {name}") for number, each in enumerate(said, start=1)]
    exchanges = messages[1:] if messages and messages[0]["role"] == "system" else messages
    speakers = [message["role"] for message in exchanges]
    if not speakers or speakers != ["user", "assistant"] * (len(speakers) // 2):
        raise InputError(
            f"{name} must be user and assistant in turn, after a system message or none, and end with the assistant; "
            f"here they are {', '.join(message['role'] for message in messages) or 'none'}."
        )
    kept: dict = {"instruction": exchanges[0]["content"], "input": "", "output": exchanges[1]["content"]}
    if len(messages) > 2:
        kept["messages"] = messages
    return kept


def _message(message: dict, where: str) -> dict:
    role, content = ("role", "content") if "role" in message else ("from", "value")
    speaker = message.get(role)
    if not isinstance(speaker, str) or speaker not in _SPEAKERS:
        raise InputError(
            f"{where}: {role} is {shortened(repr(speaker), 40)}; it must be one of {', '.join(_SPEAKERS)}."
        )
    try:
        return {"role": _SPEAKERS[speaker], "content": _text(message, content)}
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


# --- evaluation rows ----------------------------------------------------------------------------------------------


def evaluation_rows(path: Path, answers: bool = False) -> list[dict]:
    """The prompts of an evaluation file: ``prompt``, and optionally ``prompt_id`` or ``id``, ``answer`` and ``type``.

    Prompts without an id are numbered from 1.

    Args:
        answers: whether each row must have an answer.

    Raises:
        InputError: the file cannot be read or holds no rows, a row is bad, or an id stands twice.
    """
    table = reading.read(path)
    rows: list[dict] = []
    seen: dict[str, int] = {}
    for index, row in enumerate(table.rows):
        try:
            rows.append(_evaluation_row(row, index + 1, answers))
        except InputError as error:
            raise InputError(f"{table.place(index)}: {error}") from error
        first = seen.setdefault(rows[-1]["prompt_id"], index)
        if first != index:
            raise InputError(
                f"{table.place(index)}: the id {rows[-1]['prompt_id']!r} is that of {table.place(first)} already; "
                "answers are paired by it."
            )
    return rows


def _evaluation_row(row: Any, number: int, answers: bool) -> dict:
    _refuse_unread(row)
    named = next((row[name] for name in ("prompt_id", "id") if row.get(name) not in (None, "")), number)
    kept = {"prompt_id": str(named), "prompt": _text(row, "prompt")}
    if answers or row.get("answer"):
        kept["answer"] = _text(row, "answer")
    if row.get("type"):
        kept["type"] = _text(row, "type")
    return kept


# --- labelled rows ------------------------------------------------------------------------------------------------

LABELLED_FORMS = (
    "A labelled row has prompt, response and score; or transcript and rating; or chosen and rejected (the less and the "
    "more harmful of two), with or without their prompt."
)


def labelled_set(path: Path) -> list[dict]:
    """The rows of a file with people's labels, each checked.

    Returns:
        Rows with prompt, response, score; or transcript, score; or chosen, rejected and, where there is one, prompt.

    Raises:
        InputError: the file cannot be read or holds no rows, or a row is bad; the message names file and line.
    """
    table = reading.read(path)
    kept = []
    for index, row in enumerate(table.rows):
        try:
            kept.append(_labelled_row(row))
        except InputError as error:
            raise InputError(f"{table.place(index)}: {error}") from error
    return kept


def _labelled_row(row: Any) -> dict:
    if isinstance(row, InputError):
        raise row
    names = set(row) if isinstance(row, dict) else set()
    if {"chosen", "rejected"} <= names:
        texts = {name: _text(row, name) for name in ("chosen", "rejected")}
        return {**texts, **({"prompt": _text(row, "prompt")} if row.get("prompt") else {})}
    score = "score" if "score" in names else "rating"
    texts = ("transcript",) if "transcript" in names else ("prompt", "response")
    if not {*texts, score} <= names:
        raise InputError(
            f"no labelled row: it has {', '.join(sorted(map(str, names))) or 'no fields'}. {LABELLED_FORMS}"
        )
    try:
        number = float(row[score])
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"the field {score!r} must be a number, not {shortened(repr(row[score]), 40)}.")
    # A response may be empty, which says something too.
    return {**{name: _text(row, name, needed=name != "response") or "" for name in texts}, "score": number}
