"""What a training was, and what it leaves in its run: the adapter with its card, the losses, and the record."""

from dataclasses import asdict, dataclass
from types import NoneType
from typing import Any

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import TrainParams, validate
from safety_nb.train import cards, models, quantised
from safety_nb.train.inputs import Inputs, Rows
from safety_nb.train.memory import Choice


@dataclass(frozen=True)
class TrainingRecord:
    """What a training run was, besides its losses.

    Attributes:
        rows, truncated_rows, dropped_rows: training rows; those whose end the cutoff took; those left out because no
            supervised token was within the cutoff.
        supervised_tokens: tokens that carried loss in one epoch, by source of the row.
        trainable_parameters, four_bit_layers, eight_bit_layers: size of the adapter; layers of the base held in 4 and
            in 8 bits.
        steps: optimizer steps. packed: whether rows shared sequences; pack_tokens: tokens a sequence could have, at
            the end. memory_choice: what was computed at once, and why.
        train_loss: mean over the last tenth of the steps. validation_loss: of the adapter that is kept, or None. Both
            per supervised token; validation_losses: by source.
        resumed_steps: steps that an earlier execution had done.
        values: the parameters, those that the recipe filled among them; optimizer and gradient_checkpointing are what
            was used.
        base_commit: commit of the hub the base came from; empty for one from a folder.
        mixture_sha256: of the recorded mixture; empty if the rows are not those of one.
    """

    rows: int
    truncated_rows: int
    dropped_rows: int
    supervised_tokens: dict[str, int]
    trainable_parameters: int
    four_bit_layers: int
    eight_bit_layers: int
    steps: int
    packed: bool
    pack_tokens: int
    memory_choice: str
    train_loss: float
    validation_loss: float | None
    validation_losses: dict[str, float]
    device: str
    compute_dtype: str
    train_seconds: float
    resumed_steps: int
    values: dict[str, Any]
    base_commit: str
    mixture_sha256: str


_NUMBER, _TEXT = (int, float), str
# Of ``training.json``, what a card is made from, with its types.
_KINDS = {
    **{"rows": int, "steps": int, "train_loss": _NUMBER, "validation_loss": (*_NUMBER, NoneType)},
    **{"validation_losses": dict, "device": _TEXT, "compute_dtype": _TEXT, "values": dict},
    **{"base_commit": _TEXT, "mixture_sha256": _TEXT},
}


@dataclass(frozen=True)
class Trained:
    """What a training loop said at its end.

    Attributes:
        metrics: the table of ``metrics.metrics_table``.
        validation: eval_loss, and eval_loss_SOURCE of each source; empty without validation rows.
        packed, resumed_steps: as in ``TrainingRecord``. seconds: of the loop.
    """

    metrics: Any
    validation: dict[str, float]
    packed: bool
    resumed_steps: int
    seconds: float


def of_training(params: TrainParams, inputs: Inputs, choice: Choice, loop: Any, trained: Trained) -> TrainingRecord:
    """The record of a training.

    Args:
        loop: the ``PackedTrainer`` at its end. trained: what it said.
    """
    losses = trained.metrics["train_loss"].dropna()
    return TrainingRecord(
        rows=len(inputs.training.encoded),
        truncated_rows=inputs.truncated_rows,
        dropped_rows=inputs.dropped_rows,
        supervised_tokens=inputs.training.supervised_by_source(),
        trainable_parameters=sum(p.numel() for p in loop.model.parameters() if p.requires_grad),
        four_bit_layers=len(quantised.layers(loop.model, 4)),
        eight_bit_layers=len(quantised.layers(loop.model, 8)),
        steps=loop.state.global_step,
        packed=trained.packed,
        pack_tokens=loop.capacity,
        memory_choice=choice.reason,
        train_loss=float(losses.tail(max(1, len(losses) // 10)).mean()),
        validation_loss=trained.validation.get("eval_loss"),
        validation_losses={
            name.removeprefix("eval_loss_"): loss
            for name, loss in trained.validation.items()
            if name.startswith("eval_loss_")
        },
        device=models.pick_device(),
        compute_dtype=str(models.compute_dtype(models.pick_device(), params.train_dtype)).removeprefix("torch."),
        train_seconds=round(trained.seconds, 2),
        resumed_steps=trained.resumed_steps,
        values={
            **params.model_dump(exclude={"run_dir"}),
            "optimizer": models.optimizer(params.optimizer),
            "gradient_checkpointing": choice.gradient_checkpointing,
        },
        base_commit=models.commit(params.base_model, params.revision),
        mixture_sha256=inputs.mixture["mixture_sha256"] if inputs.mixture else "",
    )


def write(run: run_folder.RunFolder, done: TrainingRecord, inputs: Inputs, metrics: Any, loop: Any) -> None:
    """Write ``train/``: the adapter with its card, ``metrics.csv``, ``validation_losses.jsonl``, ``training.json``."""
    with files.replacing_folder(run.adapter) as folder:
        loop.model.save_pretrained(folder, save_embedding_layers=False)  # they are frozen
        files.write_text(folder / "README.md", cards.adapter_card(asdict(done), inputs.mixture))
    files.write_csv(run.metrics, metrics)
    by_row = _by_row(inputs.validation, loop.validated.rows) if inputs.validation.encoded else []
    files.write_jsonl(run.validation_losses, by_row)
    files.write_json(run.training, asdict(done))


def read(run: run_folder.RunFolder) -> dict[str, Any]:
    """``training.json`` of a run, with a value of every parameter: of those it lacks, the default.

    Raises:
        InputError: it is missing, damaged, or of an earlier version.
    """
    record = files.read_record(run.training, {})
    if "values" not in record:
        raise InputError(f"{run.training} is of an earlier version of safety-nb; train the run again.")
    record = files.read_record(run.training, _KINDS)
    losses = record["validation_losses"].values()
    if record["device"] not in ("cpu", "cuda") or not all(isinstance(loss, _NUMBER) for loss in losses):
        raise InputError(f"{run.training} is damaged: a device or a loss is none; train the run again.")
    try:
        params = validate(TrainParams, record["values"])
    except InputError as error:
        raise InputError(f"{run.training} is damaged, or of another version of safety-nb: {error}") from None
    return {**record, "values": {**params.model_dump(exclude={"run_dir"}), **record["values"]}}


def _by_row(rows: Rows, losses: dict[int, tuple[float, int]]) -> list[dict]:
    """The validation loss of each row: id, source, tokens (supervised ones) and loss (their mean, in nats)."""
    return [
        {"id": rows.ids[number], "source": rows.sources[number], "tokens": tokens, "loss": total / tokens}
        for number, (total, tokens) in sorted(losses.items())
    ]
