"""A secret is kept out in whatever form a cell, a library or a server writes it."""

import base64
import html
import json
import urllib.parse

import markupsafe
import pytest

from safety_nb.core import secrets

KEYS = [
    "sk-a-very-secret-key",
    "hf_Ab9/+zAb9/+z==",
    'it\'s "quo\\ted" & <signed>',
    'schlüssel"12345678',
    "p'ss'wörd \u20ac 100%",
]


@pytest.fixture(params=KEYS)
def key(request, monkeypatch) -> str:
    monkeypatch.setenv("HF_TOKEN", request.param)
    return request.param


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "user_1:", "__token__:"])
@pytest.mark.parametrize("after", ["", "\n", "@h", " x "])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_a_key_amid_other_text(before, after, encode, key):
    said = f"Basic {encode(f'{before}{key}{after}'.encode()).decode()}."
    kept = secrets.redact(said).removeprefix("Basic ").removesuffix(".")
    assert secrets.REDACTED in kept
    # Left are the characters of what stands around it, one at each end that shares bits with the key, and fillers.
    left = kept.replace(secrets.REDACTED, "").rstrip("=")
    assert len(left) <= -(-8 * len(before.encode()) // 6) + -(-8 * len(after) // 6) + 2


WRITTEN = {
    "percent": lambda key: urllib.parse.quote(key, safe=""),
    "percent but slashes": urllib.parse.quote,
    "form": urllib.parse.quote_plus,
    "query": lambda key: urllib.parse.urlencode({"token": key}),
    "small letters": lambda key: "".join(
        part if len(part) != 3 else part.lower() for part in _percents(urllib.parse.quote(key, safe=""))
    ),
    "repr": repr,
    "ascii": ascii,
    "bytes": lambda key: repr(key.encode()),
    "repr amid a quote": lambda key: repr(f"it's {key}"),
    "repr amid both quotes": lambda key: repr(f"'\"{key}"),
    "repr of a list": lambda key: repr([key, {"key": key}]),
    "JSON": json.dumps,
    "JSON in JSON": lambda key: json.dumps(json.dumps(key)),
    "JSON of a repr": lambda key: json.dumps(repr(key)),
    "repr of JSON": lambda key: repr(json.dumps(key)),
    "repr of a repr": lambda key: repr(repr(key)),
    "HTML": html.escape,
    "HTML of a repr": lambda key: html.escape(repr(key)),
    "HTML of nbconvert": lambda key: str(markupsafe.escape(key)),
    "as it is": str,
    "in an address": lambda key: f"https://user:{key}@host/path?token={key}#x",
}


def _percents(text: str) -> list[str]:
    first, *rest = text.split("%")
    return [first, *(part for each in rest for part in (f"%{each[:2]}", each[2:]))]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_key_is_found_in_every_form(name, key):
    written = WRITTEN[name](key)
    kept = secrets.redact(f"<<{written}>>")
    assert secrets.REDACTED in kept
    # What is left are words of the form, never four letters of the key.
    kept = kept.replace(secrets.REDACTED, "")
    assert not any(key[start : start + 4] in kept for start in range(len(key) - 3))


def test_innocent_text_stays(monkeypatch):
    for key in KEYS:
        monkeypatch.setenv("HF_TOKEN", key)
        innocent = "".join(map(chr, range(32, 127))) + base64.b64encode(bytes(range(256))).decode()
        assert secrets.redact(innocent) == innocent


def test_a_short_value_is_no_secret_in_any_form(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "mixture")
    assert secrets.forms() == []
    assert secrets.redact("a mixture", ["mix"]) == "a mixture"


def test_further_values_are_kept_out_too(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert secrets.redact(f"<{repr(KEYS[2])}>", [KEYS[2]]) == "<'[secret]'>"


def test_a_secret_of_eight_characters_is_the_shortest(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "abcd1234")
    assert "abcd1234" not in secrets.redact("says abcd1234")
    monkeypatch.setenv("HF_TOKEN", "abc1234")
    assert secrets.redact("says abc1234") == "says abc1234"
