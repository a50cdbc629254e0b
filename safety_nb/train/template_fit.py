"""Which rows the template that is asked for has a place for, told while data is read: so a row that it refuses is a bad
row of its file, before anything is written."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from safety_nb.core.params import MixParams
from safety_nb.data import templates
from safety_nb.train import encoding, models


@dataclass(frozen=True)
class _ChatFit:
    """Raises InputError at a row that the chat template of a model refuses; equal to another one of the same model."""

    base_model: str
    revision: str
    guard: str
    tokenizer: Any = field(compare=False, repr=False)

    def __call__(self, row: dict) -> None:
        (guarded,) = templates.guarded([row], self.guard)
        encoding.check_row(guarded, self.tokenizer)


def of(params: MixParams) -> Callable[[dict], Any]:
    """What raises InputError at a row that the template has no place for; for ``mixing.mix`` and ``mixing.draw``.

    Raises:
        InputError: the template is ``chat``, and the model cannot be had, or has no chat template that can be used.
    """
    if params.template == "alpaca":
        return templates.alpaca
    tokenizer = models.load_tokenizer(params.base_model, params.revision)
    encoding.end_tokens(tokenizer, "chat")
    return _ChatFit(params.base_model, params.revision, params.training_guard, tokenizer)
