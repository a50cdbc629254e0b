"""The rows of a mixture against the evaluation prompts of its run, and what is done about those that overlap.

A row that is a prompt (but for case, width, spacing and punctuation) falls under ``on_overlap``; one that holds a
prompt, or is nearly one, under ``on_near_overlap``: stop, remove (the next row of its set takes its place) or report.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from safety_nb.core.errors import InputError
from safety_nb.core.params import MixParams
from safety_nb.data import overlap
from safety_nb.data.datasets import sources

_NAMED = 5  # rows named in a message; mixture.json names all


@dataclass(frozen=True)
class Overlap:
    """A row of a mixture, by its id, in which an evaluation prompt was found; no text of either.

    Attributes:
        place: train, validation, or removed when the next row of its set has taken its place.
        kind, likeness: see ``overlap.Match``.
    """

    row: str
    place: str
    evaluation: str
    prompt_id: str
    kind: overlap.Kind
    likeness: float


class Decontamination:
    """Compares the rows drawn with the evaluation prompts of the run, and applies the policies."""

    def __init__(self, params: MixParams) -> None:
        self.params = params
        self._found: dict[str, list[overlap.Match]] = {}
        self._removed: set[str] = set()

    def first(self, name: str, pool: list[dict], order: Iterable[int], size: int) -> list[int]:
        """The first places of ``order`` whose rows may stay, at most ``size``; no more of it is read than is needed."""
        kept: list[int] = []
        places = iter(order)
        while batch := list(itertools.islice(places, size - len(kept))):
            kept += self._staying(name, pool, batch)
        return kept

    def _staying(self, name: str, pool: list[dict], batch: list[int]) -> list[int]:
        texts = {index: _asked(pool[index]) for index in batch}
        matches = self._finder().find(text for each in texts.values() for text in each)
        staying = []
        for index in batch:
            found = sorted((match for text in texts[index] for match in matches[text]), key=_strength)
            strongest = {match.prompt: match for match in found}  # the last of a prompt stays
            self._found[row_id(name, index)] = list(strongest.values())
            if any(self._policy(match.kind) == "remove" for match in strongest.values()):
                self._removed.add(row_id(name, index))
            else:
                staying.append(index)
        return staying

    def _finder(self) -> overlap.Finder:
        return overlap.finder(
            tuple(
                overlap.Prompt(row["dataset"], row["prompt_id"], row["prompt"])
                for row in sources.evaluation_prompts(self.params.evaluation, self.params.data_dir)
            )
        )

    def _policy(self, kind: overlap.Kind) -> str:
        return self.params.on_overlap if kind == "same" else self.params.on_near_overlap

    def overlaps(self, train: list[dict], validation: list[dict]) -> list[Overlap]:
        """What was found in the rows of the mixture, and in those removed from it.

        Raises:
            InputError: a policy is to stop.
        """
        places = {row["id"]: place for place, rows in (("train", train), ("validation", validation)) for row in rows}
        places |= dict.fromkeys(self._removed, "removed")
        found = [
            Overlap(row, places[row], match.prompt.evaluation, match.prompt.prompt_id, match.kind, match.likeness)
            for row, matches in self._found.items()
            if row in places  # others are drawn and not used: at a fixed total
            for match in matches
        ]
        self._stop([each for each in found if self._policy(each.kind) == "stop"])
        return found

    def _stop(self, overlaps: list[Overlap]) -> None:
        if not overlaps:
            return
        kinds = Counter((each.evaluation, each.kind) for each in overlaps)
        told = ", ".join(f"{name} ({number} {kind})" for (name, kind), number in kinds.items())
        ids = list(dict.fromkeys(each.row for each in overlaps))
        parameter = "on_overlap" if any(each.kind == "same" for each in overlaps) else "on_near_overlap"
        raise InputError(
            f"{parameter}: prompts of {told} stand among the rows of the mixture, in "
            f"{', '.join(ids[:_NAMED])}{', …' if len(ids) > _NAMED else ''}. What was trained on tests nothing: "
            f"set {parameter} to remove (the next rows take their place) or report, or mend the data."
        )


def _strength(match: overlap.Match | Overlap) -> tuple[int, float]:
    return ("near", "inside", "same").index(match.kind), match.likeness


def _asked(row: dict) -> list[str]:
    """The texts of a row in which an evaluation prompt could stand: all that is asked, in either form."""
    users = [message["content"] for message in row.get("messages") or () if message["role"] == "user"]
    texts = [row["instruction"], row["input"], request(row), row.get("question", ""), *users]
    return list(dict.fromkeys(filter(None, texts)))


def request(row: dict) -> str:
    """What a row asks: its instruction and input."""
    return "\n".join(filter(None, (row["instruction"], row["input"])))


def row_id(name: str, index: int, copy: int = 0) -> str:
    """The id of a row of a mixture: its set, its place there, and which copy of it this is (not told of the first)."""
    return f"{name}-{index}" + (f"#{copy + 1}" if copy else "")


def counts(overlaps: Sequence[Overlap]) -> dict[str, dict[str, int]]:
    """Prompts of each evaluation set found in the mixture, each under its strongest kind; not those of removed rows."""
    left = sorted((each for each in overlaps if each.place != "removed"), key=_strength)
    kinds = {(each.evaluation, each.prompt_id): each.kind for each in left}  # the last of a prompt stays
    by_set: dict[str, dict[str, int]] = {}
    for (name, _), kind in sorted(kinds.items()):
        of_set = by_set.setdefault(name, {})
        of_set[kind] = of_set.get(kind, 0) + 1
    return by_set
