"""Whether an evaluation prompt stands among training texts: the same, inside one, or nearly the same.

Texts are compared by their words alone: case, width (NFKC), spacing, punctuation, symbols and invisible characters do
not count (for ``same``, not even spaces within words). A prompt put in other words, or translated, is not found.
Knows no files, and not what a text is used for.
"""

import functools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["same", "inside", "near"]

# Per cent of likeness. Between the released demonstrations, two general sets and the paper's evaluation sets one pair
# lies above (85.7: one request in two forms); the next (82.9) are different tasks.
NEAR = 85.0
MIN_WORDS = 5  # fewer say too little to be told apart by likeness, or to matter inside another text
_TEXTS_AT_ONCE = 4096  # bounds the matrix of likenesses


@dataclass(frozen=True)
class Prompt:
    """An evaluation prompt: the name of its set, its ``prompt_id``, its text."""

    evaluation: str
    prompt_id: str
    text: str


@dataclass(frozen=True)
class Match:
    """A prompt found in a text.

    Attributes:
        kind: ``same`` words; the prompt stands ``inside`` the text, word for word; or ``near``.
        likeness: 0 to 100, rapidfuzz's ratio of the two texts' words; 100 for ``same`` and ``inside``.
    """

    prompt: Prompt
    kind: Kind
    likeness: float


class _Letters(dict):
    """What each character counts as: itself, a space, or nothing. Filled as characters are met."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        if category == "Cf" or chr(code) in "'’":  # invisible, or inside a word (don't)
            return self.setdefault(code, "")
        return self.setdefault(code, chr(code) if category[0] in "LMN" else " ")


_LETTERS = _Letters()


def words(text: str) -> str:
    """The words of a text, folded, with one space between them; empty where there are none."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_LETTERS).split())


def key(text: str) -> str:
    """What texts of the same words have in common. A text of symbols alone has them for its key."""
    return words(text) or "".join(text.split())


def _unspaced(text: str) -> str:
    """A key that spaces within words do not change either: a prompt that slips through costs more than a false find."""
    return key(text).replace(" ", "")


def duplicates(keys: Iterable[str]) -> list[tuple[int, int]]:
    """Places whose key stood before, each with the place where it stood first."""
    first: dict[str, int] = {}
    return [(place, first[it]) for place, it in enumerate(keys) if first.setdefault(it, place) != place]


class Finder:
    """Finds prompts in texts. What was found in a text is kept: the runs of a study share most of theirs."""

    def __init__(self, prompts: tuple[Prompt, ...]) -> None:
        self._known: dict[str, tuple[Match, ...]] = {}
        self._by_key: dict[str, list[Prompt]] = {}
        self._by_start: dict[tuple[str, ...], list[tuple[Prompt, list[str]]]] = {}
        self._long: list[tuple[Prompt, str]] = []
        for prompt in prompts:
            folded = words(prompt.text)
            self._by_key.setdefault(_unspaced(prompt.text), []).append(prompt)
            if len(split := folded.split()) >= MIN_WORDS:
                self._by_start.setdefault(tuple(split[:MIN_WORDS]), []).append((prompt, split))
                self._long.append((prompt, folded))

    def find(self, texts: Iterable[str]) -> dict[str, tuple[Match, ...]]:
        """The matches of each text, at most one a prompt: the strongest (same, inside, near)."""
        asked = list(dict.fromkeys(texts))
        fresh = [text for text in asked if text not in self._known]
        for start in range(0, len(fresh), _TEXTS_AT_ONCE):
            self._compare(fresh[start : start + _TEXTS_AT_ONCE])
        return {text: self._known[text] for text in asked}

    def _compare(self, texts: list[str]) -> None:
        found: list[dict[Prompt, Match]] = [{} for _ in texts]
        folded = [words(text) for text in texts]
        for place, text in enumerate(texts):
            for prompt in self._by_key.get(_unspaced(text), ()):
                found[place][prompt] = Match(prompt, "same", 100.0)
            for prompt in self._inside(folded[place].split()):
                found[place].setdefault(prompt, Match(prompt, "inside", 100.0))
        for place, prompt, likeness in self._near(folded):
            found[place].setdefault(prompt, Match(prompt, "near", likeness))
        self._known.update((text, tuple(match.values())) for text, match in zip(texts, found, strict=True))

    def _inside(self, text: list[str]) -> Iterable[Prompt]:
        # Every run of MIN_WORDS words is looked up among the beginnings of the prompts: one pass for all of them.
        runs = zip(*(text[shift:] for shift in range(MIN_WORDS)), strict=False)
        for place, start in enumerate(runs):
            for prompt, whole in self._by_start.get(start, ()):
                if text[place : place + len(whole)] == whole:
                    yield prompt

    def _near(self, folded: list[str]) -> Iterable[tuple[int, Prompt, float]]:
        from rapidfuzz import fuzz, process

        long = [place for place, text in enumerate(folded) if text.count(" ") >= MIN_WORDS - 1]
        if not long or not self._long:
            return
        queries, choices = [text for _, text in self._long], [folded[place] for place in long]
        likeness = process.cdist(queries, choices, scorer=fuzz.ratio, score_cutoff=NEAR, workers=1)
        for query, choice in zip(*likeness.nonzero(), strict=True):
            yield long[choice], self._long[query][0], round(float(likeness[query, choice]), 1)


@functools.lru_cache(maxsize=4)
def finder(prompts: tuple[Prompt, ...]) -> Finder:
    """The finder of these prompts; the same one for the same prompts."""
    return Finder(prompts)
