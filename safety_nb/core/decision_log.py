"""A log of decisions about items: a line each, and a line for each that is undone. What holds is a function of it."""

from collections.abc import Callable, Iterable, Mapping


def standing(log: Iterable[Mapping], decides: Callable[[Mapping], bool]) -> list[Mapping]:
    """The decisions of a log that were not undone, oldest first. Senseless lines decide nothing.

    ``{"undo": ITEM}`` takes back the last decision about an item, ``{"decision": "undo"}`` the last of all.

    Args:
        decides: whether a line is a decision; if it is, it names its ``item``.
    """
    made: list[Mapping] = []
    for line in log:
        if "undo" in line or line.get("decision") == "undo":
            about = [place for place, each in enumerate(made) if line.get("undo", each["item"]) == each["item"]]
            made = [each for place, each in enumerate(made) if place not in about[-1:]]
        elif decides(line):
            made.append(line)
    return made
