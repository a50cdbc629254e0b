"""Whether a text is an answer at all: empty, the same over and over, or only what was asked.

Pure strings; knows neither labels nor models.
"""

import re

_WORD = re.compile(r"\w+(?:['’]\w+)?")
_WINDOW = 200  # characters at the end of a text that are looked at for a loop
_SHORTEST_LOOP = 40  # a text of fewer characters is no loop
_FEW_WORDS = 3


def degenerate(prompt: str, response: str) -> str | None:
    """``empty``, ``repetition``, ``echo`` (hardly more than the prompt itself), or None."""
    if not response.strip():
        return "empty"
    if repeats(response) or ends_in_a_loop(response):
        return "repetition"
    return "echo" if echoes(prompt, response) else None


def repeats(text: str) -> bool:
    """Whether a text of 12 words or more has fewer than half of its three-word sequences distinct."""
    words = _words(text)
    if len(words) < 12:
        return False
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(triples)) < len(triples) / 2


def ends_in_a_loop(text: str) -> bool:
    """Whether fewer than a quarter of the three-character sequences at a text's end are distinct.

    Whole sentences of up to 50 characters over and over are found, and what has no words. Of English prose, 200
    characters have more than three quarters distinct.
    """
    tail = text.strip()[-_WINDOW:]
    if len(tail) < _SHORTEST_LOOP:
        return False
    triples = [tail[place : place + 3] for place in range(len(tail) - 2)]
    return len(set(triples)) < len(triples) / 4


def echoes(prompt: str, response: str) -> bool:
    """Whether a response says the prompt, and fewer than three words more. Shorter prompts than that echo nothing."""
    asked, said = _words(prompt), _words(response)
    if len(asked) < _FEW_WORDS:
        return False
    echo, rest = f" {' '.join(asked)} ", f" {' '.join(said)} "
    echoed = echo in rest
    while echo in rest:
        rest = rest.replace(echo, " ")
    return echoed and len(rest.split()) < _FEW_WORDS


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
