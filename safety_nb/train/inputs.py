"""What a training reads of its run, at once and before it begins: encoded rows, and the mixture that they are of."""

from dataclasses import dataclass
from typing import Any

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import TrainParams
from safety_nb.data import templates
from safety_nb.train.encoding import EncodedRow, encode_row

# Of ``mixture.json``, what a model card is made from, with its types.
_KINDS = {
    **dict.fromkeys(("general", "safety", "validation", "mixture_sha256"), str),
    **dict.fromkeys(("n_general", "n_safety", "n_validation"), int),
}


@dataclass(frozen=True)
class Rows:
    """Encoded rows that have something to learn, the source of each, and its id."""

    encoded: list[EncodedRow]
    sources: list[str]
    ids: list[str]

    def supervised_by_source(self) -> dict[str, int]:
        """Tokens that carry loss, by source."""
        counts: dict[str, int] = {}
        for source, row in zip(self.sources, self.encoded, strict=True):
            counts[source] = counts.get(source, 0) + row.supervised_tokens
        return counts


@dataclass(frozen=True)
class Inputs:
    """What a run is trained and validated on.

    Attributes:
        truncated_rows, dropped_rows: training rows whose end the cutoff took; those left out because no supervised
            token was within it.
        mixture: the record of the mixture; None where the rows are not those of one.
    """

    training: Rows
    validation: Rows
    truncated_rows: int
    dropped_rows: int
    mixture: dict[str, Any] | None


def read(run: run_folder.RunFolder, params: TrainParams, tokenizer: Any) -> Inputs:
    """Read and encode the rows of a run.

    Raises:
        InputError: the run has no mixture, the template has no place for a row, or no training row has an answer within
            the cutoff.
    """
    run_folder.require(run, ["mix/train.jsonl", "mix/validation.jsonl"], maker="mix")
    training, encoded = _learnable(files.read_jsonl(run.train_rows), params, tokenizer)
    if not training.encoded:
        raise InputError(
            f"cutoff: no training row has an answer token within {params.cutoff} tokens; raise the cutoff."
        )
    validation, _ = _learnable(files.read_jsonl(run.validation_rows), params, tokenizer)
    return Inputs(
        training,
        validation,
        truncated_rows=sum(row.truncated for row in encoded),
        dropped_rows=len(encoded) - len(training.encoded),
        mixture=recorded_mixture(run),
    )


def recorded_mixture(run: run_folder.RunFolder) -> dict[str, Any] | None:
    """The record of the run's mixture, or None where its training rows are not, or no longer, those of the record."""
    if not run.mixture.is_file():
        return None
    mixture = files.read_record(run.mixture, {})
    if mixture.get("train_sha256") != files.sha256(run.train_rows):
        return None
    return files.read_record(run.mixture, _KINDS)


def _learnable(rows: list[dict], params: TrainParams, tokenizer: Any) -> tuple[Rows, list[EncodedRow]]:
    """The rows that have something to learn, and all of them encoded."""
    asked = templates.guarded(rows, params.training_guard)
    encoded = [encode_row(row, tokenizer, params.cutoff, params.template, params.loss_on) for row in asked]
    pairs = [(row, one) for row, one in zip(rows, encoded, strict=True) if one.supervised_tokens]
    kept = Rows([one for _, one in pairs], [row["source"] for row, _ in pairs], [row["id"] for row, _ in pairs])
    return kept, encoded
