"""What stands beside a row's instruction or in its messages and changes what is trained: system prompt, history, fields
of messages.

Knows dicts; no files. A message is a dict of ``role`` and ``content``, and what other fields it had.
"""

import json
from typing import Any

from safety_nb.core.errors import InputError
from safety_nb.core.text import shortened

SYSTEM = ("system", "system_prompt", "system_message")  # names of one field
HISTORY = "history"
_HISTORY_FORM = "it must be a list of [question, answer], both text, or of messages"
_LEARNED = ("weight", "train", "loss")  # whether a message is learned, where people say so


def is_absent(value: Any) -> bool:
    """Whether a field says nothing: null, empty, or (of a table) not a number."""
    return value is None or value in ("", [], {}) or value != value


def beside(row: dict) -> list[str]:
    """The fields beside a row's instruction or messages that make it a conversation."""
    return [name for name in (*SYSTEM, HISTORY) if not is_absent(row.get(name))]


def system_message(row: dict) -> list[dict]:
    """The message of a row's system field; empty where it has none.

    Raises:
        InputError: it is no text, or there are two.
    """
    said = {name: row[name] for name in SYSTEM if not is_absent(row.get(name))}
    for name, value in said.items():
        if not isinstance(value, str):
            raise InputError(f"the field {name!r} must be text, not {type(value).__name__}.")
    if len(set(said.values())) > 1:
        raise InputError(f"the fields {', '.join(said)} are of different texts; keep one of them.")
    return [{"role": "system", "content": value} for value in list(said.values())[:1]]


def history_pairs(row: dict) -> list[Any]:
    """The messages of a row's history, as they stand there: of pairs, question and answer in turn.

    Raises:
        InputError: it is of another form.
    """
    said = row.get(HISTORY)
    if is_absent(said):
        return []
    if isinstance(said, list) and all(isinstance(each, dict) for each in said):
        return said
    if isinstance(said, list) and all(isinstance(each, list | tuple) and len(each) == 2 for each in said):
        roles = ("user", "assistant")
        return [{"role": role, "content": text} for pair in said for role, text in zip(roles, pair, strict=True)]
    raise InputError(f"the field {HISTORY!r} is of another form: {_HISTORY_FORM}.")


def other_fields(message: dict, role: str, known: tuple[str, str]) -> dict[str, Any]:
    """The fields of a message beside its role and content, which the model's chat template may read.

    Raises:
        InputError: one says that an answer is not to be learned, or a question is; or what is in one cannot be
            written as JSON.
    """
    kept = {name: value for name, value in message.items() if name not in known and not is_absent(value)}
    for name in _LEARNED:
        if name in kept and (value := kept.pop(name)) is not None:
            learned = role == "assistant"
            if value not in (0, 1) or bool(value) is not learned:
                raise InputError(
                    f"the field {name!r} is {shortened(repr(value), 40)}, but every answer is learned "
                    "and nothing else; remove the field, or the row."
                )
    for name, value in kept.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:  # of Parquet: times, bytes, decimals; of JSON: infinity
            raise InputError(
                f"the field {name!r} is {shortened(repr(value), 40)}, which cannot be written as JSON, as the mixture "
                "is; make it text or a number, or remove the field."
            ) from error
    return kept
