"""Secrets: where their values come from, and how they are kept out of everything that is written or shown.

A secret is the value of an environment variable: HF_TOKEN, OPENAI_API_KEY, or one the user names in
SAFETY_NB_SECRETS. The token that `hf auth login` keeps in a file counts too. Knows nothing of what is written.
"""

import html
import json
import os
from pathlib import Path

NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY")
MORE_NAMES = "SAFETY_NB_SECRETS"  # names of further variables, separated by commas
REDACTED = "[secret]"
SHORTEST = 8  # characters; anything shorter is no secret and would be found in innocent words


def forms() -> list[str]:
    """The values to keep out, in every form they take in text, JSON and HTML; longest first."""
    names = {*NAMES, *(name.strip() for name in os.environ.get(MORE_NAMES, "").split(","))}
    values = {os.environ.get(name, "").strip() for name in names if name} | {_hub_token()}
    values = {value for value in values if len(value) >= SHORTEST}
    for _ in range(2):  # a cell may print JSON, and a notebook is JSON itself
        values |= {
            form for value in values for form in (_in_json(value, True), _in_json(value, False), html.escape(value))
        }
    return sorted(values, key=len, reverse=True)


def _in_json(value: str, ascii_only: bool) -> str:
    return json.dumps(value, ensure_ascii=ascii_only)[1:-1]


def name_more(names: list[str]) -> None:
    """Count further environment variables as secrets, in this process and in those it starts."""
    known = [name for name in os.environ.get(MORE_NAMES, "").split(",") if name.strip()]
    os.environ[MORE_NAMES] = ",".join(dict.fromkeys([*known, *names]))


def redact(text: str) -> str:
    """The text with every secret's value replaced."""
    for secret in forms():
        text = text.replace(secret, REDACTED)
    return text


def _hub_token() -> str:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    file = Path(os.environ.get("HF_TOKEN_PATH") or Path(home, "token")).expanduser()
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
