"""Rows of data files, and the checks that make a row a usable one.

Knows nothing of where a file comes from, how it is read (``core/reading.py``) or what a row is used for.

A training row is a dict with ``instruction``, ``input`` and ``output``, where there are ``question`` (the same asked as
a question) and ``tag`` (a topic), and ``messages`` for a conversation: of more than one exchange, with a system message
or other fields in its messages, or with ``system`` or ``history`` beside it (named in ``beside``). Its ``instruction``
and ``output`` are then those of the first exchange, but where the row is in Alpaca form. An evaluation row has
``prompt_id`` and ``prompt``, and where there are ``answer`` (the one right answer) and ``type``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safety_nb.core import reading
from safety_nb.core.errors import InputError
from safety_nb.core.text import shortened
from safety_nb.data import templates
from safety_nb.data.datasets import conversations

OnBadRows = Literal["stop", "leave out"]
Usable = Callable[[dict], Any]
FORMS = (
    "A training row has instruction, output and optionally input, question and tags; or messages, a list of "
    "{role, content}."
)

_CHAT = ("messages", "conversations")  # of two, the first is read
_SPEAKERS = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


@dataclass(frozen=True)
class TrainingSet:
    """The rows of a training set.

    Attributes:
        left_out: why each of the bad ones was left out: file, line and reason.
        unread: names of fields that nothing reads, each once; those of messages, which a chat template may read, as
            ``messages.NAME``.
    """

    rows: list[dict]
    left_out: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


# --- training rows ------------------------------------------------------------------------------------------------


def training_set(path: Path, on_bad_rows: OnBadRows = "stop", usable: Usable | None = None) -> TrainingSet:
    """The rows of a training file, each checked, in Alpaca or in chat form.

    Args:
        path: the file.
        on_bad_rows: ``stop`` refuses a file with a bad row; ``leave out`` keeps the others and tells which were bad.
        usable: called with each row; raises InputError at one that cannot be used.

    Raises:
        InputError: the file cannot be read or holds no rows, or a row is bad; the message names file and line.
    """
    table = reading.read(path)
    rows, left_out = [], []
    unread: dict[str, None] = {}
    for index, row in enumerate(table.rows):
        try:
            kept = _training_row(row)
            if usable:
                usable(kept)
            rows.append(kept)
            unread |= dict.fromkeys(_unread(row, kept))
        except InputError as error:
            message = f"{table.place(index)}: {error}"
            if on_bad_rows == "stop":
                raise InputError(f"{message} Mend the file, or set on_bad_rows: leave out.") from error
            left_out.append(message)
    if left_out and not rows:
        raise InputError(f"{path} holds no usable row of {len(left_out)}; the first: {left_out[0]}")
    return TrainingSet(rows, left_out, list(unread))


_READ = {
    "instruction",
    "input",
    "output",
    "question",
    "tags",
    "tag",
    "type",
    *conversations.SYSTEM,
    conversations.HISTORY,
}


def _unread(row: dict, kept: dict) -> list[str]:
    """The fields of a row, and of its messages, that nothing reads."""
    chat = next((name for name in _CHAT if name in row), None)
    read = _READ - {"instruction", "input", "output"} | {chat} if chat else _READ
    of_messages = {name for message in kept.get("messages", ()) for name in message} - {"role", "content"}
    beside = [name for name, value in row.items() if name not in read and not conversations.is_absent(value)]
    return beside + [f"messages.{name}" for name in sorted(of_messages)]


def _training_row(row: Any) -> dict:
    _refuse_unread(row)
    if any(name in row for name in _CHAT):
        kept = _of_chat(row)
    else:
        kept = {
            "instruction": _text(row, "instruction"),
            "input": _text(row, "input", needed=False) or "",
            "output": _text(row, "output"),
        }
        if conversations.beside(row):
            kept["messages"] = _with_what_is_beside(row, templates.messages(kept))
    if beside := conversations.beside(row):
        kept["beside"] = beside
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
    name = next(name for name in _CHAT if name in row)
    said = row[name]
    if not isinstance(said, list) or not all(isinstance(each, dict) for each in said):
        raise InputError(f"the field {name!r} must be a list of messages. {FORMS}")
    messages = [_message(each, f"message {number} of {name}") for number, each in enumerate(said, start=1)]
    exchanges = messages[1:] if messages and messages[0]["role"] == "system" else messages
    speakers = [message["role"] for message in exchanges]
    if not speakers or not _in_turn(speakers):
        raise InputError(
            f"{name} must be user and assistant in turn, after a system message or none, and end with the assistant; "
            f"here they are {', '.join(message['role'] for message in messages) or 'none'}."
        )
    kept: dict = {"instruction": exchanges[0]["content"], "input": "", "output": exchanges[1]["content"]}
    if conversations.beside(row):
        messages = _with_what_is_beside(row, messages)
    if len(messages) > 2 or any(len(message) > 2 for message in messages):
        kept["messages"] = messages
    return kept


def _in_turn(speakers: list[str]) -> bool:
    return speakers == ["user", "assistant"] * (len(speakers) // 2)


def _with_what_is_beside(row: dict, messages: list[dict]) -> list[dict]:
    """Messages with the system prompt and the history that stand beside them in the row."""
    system, before = conversations.system_message(row), conversations.history_pairs(row)
    history = [_message(each, f"message {number} of history") for number, each in enumerate(before, start=1)]
    for own in (history, messages):
        if own and own[0]["role"] == "system":
            if system and system[0]["content"] != own[0]["content"]:
                raise InputError("the row has two system messages of different texts; keep one of them.")
            system = [own.pop(0)] if own is history else [own[0]]
    if not _in_turn([message["role"] for message in history]):
        raise InputError("the field 'history' must be user and assistant in turn, and end with the assistant.")
    exchanges = messages[1:] if messages[0]["role"] == "system" else messages
    return [*system, *history, *exchanges]


def _message(message: dict, where: str) -> dict:
    role, content = ("role", "content") if "role" in message else ("from", "value")
    speaker = message.get(role)
    if not isinstance(speaker, str) or speaker not in _SPEAKERS:
        raise InputError(
            f"{where}: {role} is {shortened(repr(speaker), 40)}; it must be one of {', '.join(_SPEAKERS)}."
        )
    try:
        more = conversations.other_fields(message, _SPEAKERS[speaker], (role, content))
        return {"role": _SPEAKERS[speaker], "content": _text(message, content), **more}
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


# --- evaluation rows ----------------------------------------------------------------------------------------------


def evaluation_rows(path: Path, answers: bool = False) -> list[dict]:
    """The prompts of an evaluation file: ``prompt``, maybe ``prompt_id`` or ``id``, ``answer``, ``type``, ``pair``.

    Prompts without an id are numbered from 1. A pair is two prompts, each of a type of its own.

    Args:
        answers: whether each row must have an answer.

    Raises:
        InputError: the file cannot be read or holds no rows, a row is bad, an id stands twice, or a pair is none.
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
    _check_pairs(table, rows)
    return rows


def _check_pairs(table: reading.Table, rows: list[dict]) -> None:
    pairs: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if "pair" in row:
            pairs.setdefault(row["pair"], []).append(index)
    types = {row.get("type", "") for row in rows if "pair" in row}
    for pair, places in pairs.items():
        own = {rows[place].get("type", "") for place in places}
        if len(places) != 2 or own != types or len(types) != 2:
            raise InputError(
                f"{table.place(places[0])}: the pair {shortened(pair, 80)!r} is of {len(places)} prompts, of type "
                f"{shortened(', '.join(each or 'none' for each in sorted(own)), 80)}; give two of each pair, one "
                "of each of two types that are the same for all pairs, or leave the column pair out."
            )


def _evaluation_row(row: Any, number: int, answers: bool) -> dict:
    _refuse_unread(row)
    named = next((row[name] for name in ("prompt_id", "id") if row.get(name) not in (None, "")), number)
    kept = {"prompt_id": str(named), "prompt": _text(row, "prompt")}
    if answers or row.get("answer"):
        kept["answer"] = _text(row, "answer")
    if row.get("type"):
        kept["type"] = _text(row, "type")
    if row.get("pair"):
        kept["pair"] = _text(row, "pair")
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
