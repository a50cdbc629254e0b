"""What every judge returns for one response."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Judgement:
    """A label, a score or both; or neither, with the reason it is missing."""

    label: str | None = None
    score: float | None = None
    missing: str | None = None
