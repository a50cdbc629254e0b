"""Text as people see it: what a model or a user wrote, made visible and safe to show; shares, and amounts of bytes."""

import hashlib
import html
import math
import unicodedata
from typing import Any

MOST_CHARACTERS = 2000  # of an untrusted text; the rest is counted, not shown


def visible(text: Any, limit: int | None = MOST_CHARACTERS) -> tuple[str, int]:
    """Untrusted text made safe to look at: what it holds can be seen and does nothing.

    Control characters (escape codes among them), format characters that reorder or hide text, and lone surrogates
    become their code point: ‹U+001B›. Line breaks and tabs stay. This is not HTML escaping, which the template does.

    Args:
        text: Anything; None is the empty string.
        limit: Characters to keep; None keeps all.

    Returns:
        The text, and how many characters were left out.
    """
    text = "" if text is None or text != text else str(text)
    kept = text[:limit]
    # Most text, a figure's data among it, holds nothing of the kind.
    shown = kept if kept.isprintable() else "".join(map(_shown, kept.replace("\r\n", "\n")))
    return shown, len(text) - len(kept)


def as_html(text: Any, limit: int | None = MOST_CHARACTERS) -> str:
    """`visible` text, escaped for HTML that no template makes."""
    return html.escape(visible(text, limit)[0])


def shortened(text: Any, limit: int) -> str:
    """`visible` text of at most `limit` characters, with an ellipsis where some were left out."""
    shown, left_out = visible(text, limit)
    return shown + "…" if left_out else shown


def setting_text(value: Any) -> str:
    """The value of a swept parameter in titles, legends and sentences: "none" for empty text; of long text the
    beginning, and of its hash so much that two that begin alike are told apart."""
    text = str(value)
    if len(text) <= 60:
        return text or "none"
    return f"{shortened(text, 40)} ({hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:4]})"


def _shown(character: str) -> str:
    if character in "\n\t":
        return character
    joiners = "\u200c\u200d"  # needed to spell some languages and emoji, and harmless
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in joiners:
        return f"‹U+{ord(character):04X}›"
    return character


def amount(n_bytes: float) -> str:
    """An amount of memory or disk, to three digits, in a unit in which it is not 0: '50.3 MB', '12 bytes'."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{float(f'{n_bytes / size:.3g}'):,g} {unit}"
    return f"{n_bytes:.0f} bytes"


def percent(share: float) -> str:
    """A share as whole per cent: '41 %'; '<1 %' rather than a false 0 %, and 'not judged' for nan."""
    if math.isnan(share):
        return "not judged"
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 < share < 1:
        return ">99 %"
    return f"{100 * share:.0f} %"


def percent_interval(estimate: float, low: float, high: float) -> str:
    """A share with its interval: '41 % (33–50 %)'; 'not judged' for nan."""
    if math.isnan(estimate):
        return percent(estimate)
    return f"{percent(estimate)} ({100 * low:.0f}–{100 * high:.0f} %)"


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or what kind it is."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
