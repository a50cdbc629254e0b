"""What a user wrote is text to a tokenizer, whatever stands in it: ``</s>`` in a row is four characters, no end.

A tokenizer takes its control words (its special tokens, and what else marks turns in its chat template) for what they
name wherever they stand; the Unigram kind does so even where it is told not to. Here a copy of the tokenizer is made in
which control words have names that nobody can know, **marks**. What a template writes is marked; what a user wrote is
not, and is spelt out in the tokens of any text. Text without a control word has the ids it always had.
"""

import copy
import json
import re
import secrets
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_SECRET = secrets.token_hex(8)  # of this process; no id depends on it
_MARKUP = re.compile(r"[<\[{|｜].+[>\]}|｜]", re.DOTALL)
_MADE: weakref.WeakKeyDictionary[Any, tuple[tuple, "Reader"]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Reader:
    """A tokenizer that takes nothing a user wrote for a control word.

    Attributes:
        tokenizer: takes marks for control words, and no other text. Where such a copy of the user's could not be made
            (one that is written in Python), the user's itself.
        marks: the mark of each control word, by the word.
        special: ids of the special tokens, but for that of what is unknown.
        copied: whether ``tokenizer`` is a copy.
    """

    tokenizer: Any
    marks: dict[str, str]
    special: frozenset[int]
    copied: bool
    _ids: dict[str, int] = field(repr=False)

    def ids(self, text: str) -> list[int]:
        """The token ids of a text in which control words are marked; no start or end token is added."""
        if self.copied:
            return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        found: list[int] = []
        for part in re.split(f"({'|'.join(self._ids)})", text) if self._ids else [text]:
            if part in self._ids:
                found.append(self._ids[part])
            elif part:
                apart = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
                found += self.tokenizer(part, **apart)["input_ids"]
        return found

    def framed_ids(self, texts: Sequence[str] | Sequence[tuple[str, str]], **how: Any) -> list[list[int]]:
        """The token ids of texts, or of pairs, each in the start, end and separating tokens of the tokenizer's own.

        Args:
            how: what a tokenizer takes further, such as truncation.
        """
        pairs = bool(texts) and not isinstance(texts[0], str)
        sides = [list(side) for side in (zip(*texts, strict=True) if pairs else [texts])]
        if not self.copied:
            how["split_special_tokens"] = not any(mark in text for side in sides for text in side for mark in self._ids)
            sides = [[self.shown(text) for text in side] for side in sides]
        return self.tokenizer(*sides, verbose=False, **how)["input_ids"]

    def marked(self, text: str) -> str:
        """A text of ours, such as a template, with its control words marked."""
        return _exchanged(text, self.marks)

    def veiled(self, value: Any) -> Any:
        """What a user wrote (text, or lists and fields of it) without a control word: what a template is filled with,
        before it is marked and unveiled."""
        if isinstance(value, dict):
            return {name: self.veiled(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.veiled(each) for each in value]
        if isinstance(value, str):
            return _exchanged(value, {word: _veil(mark) for word, mark in self.marks.items()})
        return value

    def unveiled(self, text: str) -> str:
        """A text with what the user wrote in it as it was."""
        return _exchanged(text, {_veil(mark): word for word, mark in self.marks.items()})

    def shown(self, text: str) -> str:
        """A marked text as people read it."""
        return _exchanged(text, {mark: word for word, mark in self.marks.items()})


def _veil(mark: str) -> str:
    return f"v{mark}"


def _exchanged(text: str, words: dict[str, str]) -> str:
    """A text with each of the words replaced by its other; of two that begin at one place, the longer."""
    if not words or not any(word in text for word in words):
        return text
    longest_first = sorted(words, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda found: words[found[0]], text)


def reader(tokenizer: Any) -> Reader:
    """The reader of a tokenizer, made once for as long as its special tokens stay the same."""
    state = (len(tokenizer), tuple(tokenizer.all_special_tokens), str(tokenizer.chat_template))
    made = _MADE.get(tokenizer)
    if made is None or made[0] != state:
        made = _MADE[tokenizer] = state, _make(tokenizer)
    return made[1]


def _make(tokenizer: Any) -> Reader:
    numbers = {str(each): number for number, each in tokenizer.added_tokens_decoder.items() if each.special}
    numbers |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    unknown = {tokenizer.unk_token_id} - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    special = frozenset(numbers.values()) - unknown
    numbers |= _turn_marks(tokenizer)
    marks = {word: f"{_SECRET}x{place}x" for place, word in enumerate(numbers)}
    ids = {marks[word]: number for word, number in numbers.items()}
    try:
        backend = _renamed(tokenizer.backend_tokenizer, marks)
    except Exception:  # it has no backend, or one with parts in Python, which cannot be copied
        return Reader(tokenizer, marks, special, False, ids)
    # A word that is a piece of ordinary text too (a padding token "!") keeps its name, and has the same id either way.
    kept = {word: mark for word, mark in marks.items() if backend.token_to_id(mark) == numbers[word]}
    reading = copy.copy(tokenizer)
    reading._tokenizer = backend
    return Reader(reading, kept, special, True, ids)


def _turn_marks(tokenizer: Any) -> dict[str, int]:
    """Tokens that mark turns in the chat template and yet are no special ones, as of DeepSeek; not those of thoughts
    and tools, which an answer may have."""
    probe = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    try:
        text = tokenizer.apply_chat_template(probe, tokenize=False)
    except Exception:  # it has none, or one that refuses; that is told where it is used
        return {}
    added = {str(each): number for number, each in tokenizer.added_tokens_decoder.items()}
    return {word: number for word, number in added.items() if word in text and _MARKUP.fullmatch(word)}


def _renamed(backend: Any, names: dict[str, str]) -> Any:
    """A copy of a tokenizer's backend in which control words have other names, in its model too."""
    from tokenizers import Tokenizer

    state = json.loads(backend.to_str())
    model = state["model"]
    ordinary = _pieces_of_merges(model) & names.keys()
    names = {word: name for word, name in names.items() if word not in ordinary}
    state["truncation"] = state["padding"] = None
    state["added_tokens"] = [
        {**token, "content": names.get(token["content"], token["content"])}
        for token in state["added_tokens"]
        if token["content"] not in ordinary
    ]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(word, word): number for word, number in model["vocab"].items()}
    else:  # Unigram, which would take a control word for its likeliest piece
        model["vocab"] = [[names.get(word, word), score] for word, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    return Tokenizer.from_str(json.dumps(state))


def _pieces_of_merges(model: dict) -> set[str]:
    """The pieces that a BPE model merges, and makes by merging."""
    pairs = [each.split(" ", 1) if isinstance(each, str) else each for each in model.get("merges") or ()]
    return {piece for pair in pairs for piece in (*pair, "".join(pair))}
