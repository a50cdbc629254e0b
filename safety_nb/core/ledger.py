"""What a ledger (``run.json``) may hold: read and checked in one place, so that nobody else has to doubt its shape.

Knows the file, not the run around it. What stages mean, and what their files hold, stands elsewhere.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATES = ("waiting", "running", "done", "failed", "killed")
_ASIDE = "run.damaged-{}.json"  # what a damaged ledger is called, beside the new one


def read(path: Path) -> tuple[dict[str, Any], str]:
    """A ledger, and what is wrong with the file.

    Returns:
        ``stages`` (name to entry: state, and of the names of _ENTRY those that are known), and what else is recorded;
        without a file, or of a damaged one, only ``stages``, which is empty: nothing counts as done. Then why it is
        damaged; empty where it is whole, or where there is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {"stages": {}}, ""
    except (OSError, UnicodeDecodeError) as error:
        return {"stages": {}}, f"it cannot be read: {getattr(error, 'strerror', None) or 'it is no text in UTF-8'}"
    try:
        value = json.loads(text)
        if _nests(value, levels=20):
            raise RecursionError
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # what couldn't be written anew, as NaN
    except json.JSONDecodeError as error:
        return {"stages": {}}, f"it is no JSON (line {error.lineno}: {error.msg})"
    except (ValueError, RecursionError):
        return {"stages": {}}, "it holds a number or a text that JSON has no place for, or is nested without end"
    why = _why_not(value)
    return ({"stages": {}}, why) if why else (value, "")


def keep_aside(path: Path) -> Path:
    """Give a damaged ledger a name of its own beside the one to come, for whoever wants to mend it; that name."""
    number = 1
    while os.path.lexists(aside := path.with_name(_ASIDE.format(number))):
        number += 1
    os.rename(path, aside)
    return aside


# --- the shape ----------------------------------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    """Whether a value read from JSON is a number that sums and times can be made of."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and is_number(value) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_hashes(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_process(value: Any) -> bool:
    return isinstance(value, dict) and _is_count(value.get("pid")) and is_number(value.get("created"))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


# What an entry of a stage may have, each with its check; others are left to whoever wrote them.
_ENTRY: dict[str, Callable[[Any], bool]] = {
    "state": STATES.__contains__,
    "started": is_number,
    "wall_seconds": is_number,
    "cause": _or_none(_is_text),
    "pid": _is_count,
    "kernel": _is_process,
    "fingerprint": _is_text,
    "outputs": _are_hashes,
    "device": _or_none(_is_text),
    "peak_memory": _or_none(is_number),
    "peak_device_memory": _or_none(is_number),
}
_REST: dict[str, Callable[[Any], bool]] = {
    "versions": _are_hashes,  # texts by name, as they are
    "platform": _is_text,
    "python": _is_text,
    "beside": _are_hashes,
}


def _nests(value: Any, levels: int) -> bool:
    """Whether a value of JSON is nested deeper than so many levels."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_nests(each, levels - 1) for each in inner)


def _why_not(value: Any) -> str:
    """Why a value is no ledger; empty if it is one."""
    if not isinstance(value, dict):
        return f"it holds no names and values but a {type(value).__name__}"
    stages = value.get("stages")
    if not isinstance(stages, dict):
        return "it has no stages by name"
    for name, check in _REST.items():
        if name in value and not check(value[name]):
            return f"{name} is {_told(value[name])}"
    for stage, entry in stages.items():
        if not isinstance(entry, dict) or "state" not in entry:
            return f"stage {stage!r} has no state"
        for name, check in _ENTRY.items():
            if name in entry and not check(entry[name]):
                return f"{name} of stage {stage!r} is {_told(entry[name])}"
    return ""


def _told(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
