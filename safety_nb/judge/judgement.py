"""What every judge is, and what it returns for one response."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_ENGLISH_ALONE = ("delivery", "refusal", "refusal-rules", "refusal-classifier", "string-match")


@dataclass(frozen=True)
class Judgement:
    """A label, a score or both; or neither, with the reason it is missing.

    Attributes:
        raw: what a judge that is a model said, where that is more than the label or the score.
    """

    label: str | None = None
    score: float | None = None
    missing: str | None = None
    raw: str | None = None


@dataclass(frozen=True)
class Judge:
    """One judge, ready to read.

    Attributes:
        name: as in the parameters, ``KIND`` or ``KIND:VARIANT``.
        judge: rows (``prompt``, ``response`` and what else a response has) to judgements, in their order, as they come.
        reads: whether it can read a row at all; the others it leaves out.
        identity: all that a judgement depends on besides the row (model, revision, rubric): what it is kept under, so
            that nothing is judged twice. Empty where judging again is cheaper than looking up.
        model: the language or reward model that judges, by hub id, folder, or the name an endpoint has for it; empty
            for rules and people. What it answers itself it does not judge unless told to.
        uses: numbers of a row that it takes into account where they are there.
    """

    name: str
    judge: Callable[[Sequence[dict]], Iterable[Judgement]]
    reads: Callable[[dict], bool] = lambda row: True
    identity: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    uses: tuple[str, ...] = ()

    @property
    def reads_english_alone(self) -> bool:
        """Whether answers in other languages are missing: of judges that go by English words."""
        return self.name.partition(":")[0] in _ENGLISH_ALONE

    @property
    def reads_the_answer_alone(self) -> bool:
        """Whether it is given answers without their reasoning: all judges but people, who were shown the whole."""
        return self.name.partition(":")[0] != "human"
