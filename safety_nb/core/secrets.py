"""Secrets: where their values come from, and how they are kept out of everything that is written or shown.

A secret is the value of an environment variable: HF_TOKEN, OPENAI_API_KEY, or one the user names in
SAFETY_NB_SECRETS. The token that `hf auth login` keeps in a file counts too. Knows nothing of what is written.
"""

import base64
import functools
import html
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY")
MORE_NAMES = "SAFETY_NB_SECRETS"  # names of further variables, separated by commas
REDACTED = "[secret]"
SHORTEST = 8  # characters; anything shorter is no secret and would be found in innocent words


def forms(more: Iterable[str] = ()) -> list[str]:
    """The values to keep out, and ``more``, in every form they take in text and in what is made of it; longest first.

    As they stand, in JSON and HTML, in URLs, in Python's words for a text or bytes, and in Base64, alone or amid other
    text, such as that of a user's name with a password.
    """
    names = {*NAMES, *(name.strip() for name in os.environ.get(MORE_NAMES, "").split(","))}
    values = {os.environ.get(name, "").strip() for name in names if name} | {_hub_token(), *more}
    found = {form for value in values if len(value) >= SHORTEST for form in _forms(value)}
    return sorted(found, key=len, reverse=True)


@functools.lru_cache(maxsize=64)
def _forms(value: str) -> frozenset[str]:
    found = {value}
    for _ in range(2):  # a cell may print JSON, and a notebook is JSON itself
        found |= {form for each in found for form in _written(each)}
    return frozenset(found | _in_url(value) | _in_base64(value))


def _written(value: str) -> set[str]:
    """The value within texts that JSON, Python or HTML is made of."""
    plain = {html.escape(value), _in_template(value)}
    return plain | _in_python(value) | {_in_json(value, True), _in_json(value, False)}


def _in_json(value: str, ascii_only: bool) -> str:
    return json.dumps(value, ensure_ascii=ascii_only)[1:-1]


def _in_template(value: str) -> str:
    """The value as nbconvert's templates escape it."""
    return html.escape(value, quote=False).replace("'", "&#39;").replace('"', "&#34;")


def _in_python(value: str) -> set[str]:
    """What ``repr`` and ``ascii`` make of a text, or of its bytes, that holds the value.

    Which quotes stand around it, and so are escaped in it, depends on the rest of the text.
    """
    encoded = value.encode("utf-8", "surrogateescape")
    plain = {repr(f"'\"{value}")[4:-1], ascii(f"'\"{value}")[4:-1], repr(b"'\"" + encoded)[5:-1]}
    return plain | {form.replace("\\'", "'") for form in plain}


def _in_url(value: str) -> set[str]:
    """The value percent-encoded, with more or fewer characters left as they are."""
    found = {quote(value, safe, errors="surrogateescape") for safe in ("", "/", _LEFT_BY_BROWSERS, _LEFT_IN_QUERIES)}
    found |= {form.replace("%20", "+") for form in found}
    return found | {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), form) for form in found}


_LEFT_BY_BROWSERS = "!'()*"  # JavaScript's encodeURIComponent
_LEFT_IN_QUERIES = ";/?:@&=+$,!'()*#"  # and its encodeURI


def _in_base64(value: str) -> set[str]:
    """The characters of a Base64 text that the value alone decides, after 0, 1 or 2 bytes of a group of three."""
    encoded, found = value.encode("utf-8", "surrogateescape"), set()
    for before in range(3):
        text = base64.b64encode(bytes(before) + encoded).decode()
        # A character holds six bits: the first that is the value's alone, and the last.
        alone = text[-(-8 * before // 6) : 8 * (before + len(encoded)) // 6]
        found |= {alone, alone.translate(str.maketrans("+/", "-_"))}
    return found


def name_more(names: list[str]) -> None:
    """Count further environment variables as secrets, in this process and in those it starts."""
    known = [name for name in os.environ.get(MORE_NAMES, "").split(",") if name.strip()]
    os.environ[MORE_NAMES] = ",".join(dict.fromkeys([*known, *names]))


def redact(text: str, more: Iterable[str] = ()) -> str:
    """The text with every secret's value replaced, and those of ``more``."""
    for secret in forms(more):
        text = text.replace(secret, REDACTED)
    return text


def _hub_token() -> str:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    file = Path(os.environ.get("HF_TOKEN_PATH") or Path(home, "token")).expanduser()
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
