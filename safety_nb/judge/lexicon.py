"""English words and how common they are: in how many of 29,252 public texts each stands. Single words, no texts.

`words.json` beside the weights of the judges was counted over general rows, conversations of hh-rlhf, the released
demonstrations and texts of the miniature; not over what ``benchmarks/delivery.py`` scores. Words of fewer than three
texts are left out, and with them most misspellings, names and foreign words.
"""

import json
import math
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "weights"


@cache
def places() -> dict[str, int]:
    """Each word with its place, the commonest first."""
    return {word: place for place, word in enumerate(_counts()[1])}


@cache
def rarities() -> tuple[float, ...]:
    """Of each word, in the order of `places`, the inverse document frequency: log((1 + texts) / (1 + with it))."""
    n, counts = _counts()
    return tuple(math.log((1 + n) / (1 + count)) for count in counts.values())


@cache
def unknown_rarity() -> float:
    """That of a word that is not listed: as of one text."""
    return math.log((1 + _counts()[0]) / 2)


@cache
def _counts() -> tuple[int, dict[str, int]]:
    told = json.loads((FOLDER / "words.json").read_text(encoding="utf-8"))
    return told["texts"], told["words"]
