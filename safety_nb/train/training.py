"""QLoRA training: the rows of a mixture and a 4-bit base become an adapter and a table of losses.

Knows nothing of judging or plots.
"""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import TrainParams
from safety_nb.train import cards, checkpoints, memory, models, packing
from safety_nb.train.encoding import EncodedRow, encode_row
from safety_nb.train.metrics import metrics_table


@dataclass(frozen=True)
class TrainingRecord:
    """What a training run was, besides its losses.

    Attributes:
        rows, truncated_rows, dropped_rows: training rows; those whose end the cutoff took; those left out because no
            answer token was within the cutoff.
        supervised_tokens: tokens that carried loss in one epoch, by source of the row.
        trainable_parameters, four_bit_layers: size of the adapter; layers of the base held in 4 bits.
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


@dataclass(frozen=True)
class _Rows:
    """Encoded rows that have something to learn, the source of each, and its id."""

    encoded: list[EncodedRow]
    sources: list[str]
    ids: list[str]


def train(params: TrainParams, on_metrics: Callable[[Callable[[], Any]], None] | None = None) -> TrainingRecord:
    """Train the adapter of a run and write ``train/adapter/``, ``train/metrics.csv`` and ``train/training.json``.

    Checkpoints lie in ``train/checkpoints/`` until it is done: an execution that was cut short goes on from the newest
    one that is whole, on the CPU to the very bits of an undisturbed one.

    Args:
        on_metrics: called after every step with a function that makes the table of metrics so far.

    Raises:
        InputError: no row has an answer within the cutoff, the template has no place for a row, a LoRA target is not a
            layer of the model, the disk has no room for checkpoints, the device lacks the dtype asked for, or what
            ``report_to`` names is not installed.
        trainer.TrainingDiverged: the loss is not finite, or far above where it was.
    """
    import torch
    from transformers import set_seed

    from safety_nb.train import packed_trainer

    run = run_folder.open_run(params.run_dir)
    run_folder.require(run, ["mix/train.jsonl", "mix/validation.jsonl"], maker="mix")
    check_report_to(params.report_to)
    models.check_dtype(params.train_dtype)
    if params.cpu_threads:
        torch.set_num_threads(params.cpu_threads)
    tokenizer = models.load_tokenizer(params.base_model, params.revision)
    rows = files.read_jsonl(run.train_rows)
    encoded = [encode_row(row, tokenizer, params.cutoff, params.template) for row in rows]
    kept = _learnable(rows, encoded)
    if not kept.encoded:
        raise InputError(
            f"cutoff: no training row has an answer token within {params.cutoff} tokens; raise the cutoff."
        )
    held_out = files.read_jsonl(run.validation_rows)
    validation = _learnable(held_out, [encode_row(row, tokenizer, params.cutoff, params.template) for row in held_out])

    checkpoint = checkpoints.newest_whole(run, params)
    choice = _at_once(params, kept.encoded, checkpoint)
    print(f"Memory: {choice.reason}.")

    set_seed(params.seed)  # before the adapter: its initial weights are random
    model = models.load_base(params.base_model, params.revision, params.train_dtype)
    model = models.add_adapter(
        model,
        r=params.lora_r,
        alpha=params.lora_alpha,
        dropout=params.lora_dropout,
        targets=params.lora_targets,
        gradient_checkpointing=choice.gradient_checkpointing,
    )
    packed_trainer.attend_by_row(model)
    apart = packed_trainer.separation(model, kept.encoded) if len(kept.encoded) > 1 else None
    if apart is None:
        print("This model does not keep packed rows apart: each row is a sequence by itself.")
    loop = packed_trainer.PackedTrainer(
        model=model,
        args=_arguments(params, run, bool(validation.encoded)),
        rows=kept.encoded,
        parts=kept.sources,
        names=kept.ids,
        steps=packing.epoch_steps(len(kept.encoded), params.batch_size, params.epochs, params.seed),
        validation=validation.encoded,
        validation_parts=validation.sources,
        capacity=choice.pack_tokens if apart else 0,
        masked=apart == "mask",
        callbacks=[_callback(params, run, on_metrics, lambda: replace(choice, pack_tokens=loop.capacity))],
    )
    checkpoints.check_disk(run, loop)
    checkpoints.clear_others(run, params)
    resumed_steps = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    outcome = loop.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    validation_losses = loop.evaluate() if validation.encoded else {}
    metrics = metrics_table(loop.state.log_history, loop.steps_per_epoch)

    mixture = recorded_mixture(run)
    losses = metrics["train_loss"].dropna()
    record = TrainingRecord(
        rows=len(kept.encoded),
        truncated_rows=sum(row.truncated for row in encoded),
        dropped_rows=len(encoded) - len(kept.encoded),
        supervised_tokens=_supervised_by_source(kept),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        four_bit_layers=len(models.four_bit_layers(model)),
        steps=loop.state.global_step,
        packed=apart is not None,
        pack_tokens=loop.capacity,
        memory_choice=choice.reason,
        train_loss=float(losses.tail(max(1, len(losses) // 10)).mean()),
        validation_loss=validation_losses.get("eval_loss"),
        validation_losses={
            name.removeprefix("eval_loss_"): loss
            for name, loss in validation_losses.items()
            if name.startswith("eval_loss_")
        },
        device=models.pick_device(),
        compute_dtype=str(_dtype(params)).removeprefix("torch."),
        train_seconds=round(outcome.metrics["train_runtime"], 2),
        resumed_steps=resumed_steps,
        values={
            **params.model_dump(exclude={"run_dir"}),
            "optimizer": models.optimizer(params.optimizer),
            "gradient_checkpointing": choice.gradient_checkpointing,
        },
        base_commit=models.commit(params.base_model, params.revision),
        mixture_sha256=mixture["mixture_sha256"] if mixture else "",
    )
    with files.replacing_folder(run.adapter) as folder:
        model.save_pretrained(folder, save_embedding_layers=False)  # they are frozen
        files.write_text(folder / "README.md", cards.adapter_card(asdict(record), mixture))
    files.write_csv(run.metrics, metrics)
    files.write_jsonl(run.validation_losses, _by_row(validation, loop.validated.rows) if validation.encoded else [])
    files.write_json(run.training, asdict(record))
    shutil.rmtree(checkpoints.folder(run), ignore_errors=True)
    return record


def check_report_to(report_to: str) -> None:
    """Raise InputError unless what is to be logged to is installed."""
    packages = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
    wanted = packages.get(report_to, ())
    if wanted and not any(importlib.util.find_spec(package) for package in wanted):
        raise InputError(
            f"report_to: {report_to!r} is not installed here; `pip install {wanted[0]}`, or leave report_to at none "
            "(the same numbers are in train/metrics.csv)."
        )


def recorded_mixture(run: run_folder.RunFolder) -> dict[str, Any] | None:
    """The record of the run's mixture, or None where its training rows are not, or no longer, those of the record."""
    if not run.mixture.is_file():
        return None
    mixture = files.read_json(run.mixture)
    return mixture if mixture.get("train_sha256") == files.sha256(run.train_rows) else None


def _learnable(rows: list[dict], encoded: list[EncodedRow]) -> _Rows:
    pairs = [(row, one) for row, one in zip(rows, encoded, strict=True) if one.supervised_tokens]
    return _Rows([one for _, one in pairs], [row["source"] for row, _ in pairs], [row["id"] for row, _ in pairs])


def _by_row(rows: _Rows, losses: dict[int, tuple[float, int]]) -> list[dict]:
    """The validation loss of each row: id, source, tokens (supervised ones) and loss (their mean, in nats)."""
    return [
        {"id": rows.ids[number], "source": rows.sources[number], "tokens": tokens, "loss": total / tokens}
        for number, (total, tokens) in sorted(losses.items())
    ]


def _supervised_by_source(rows: _Rows) -> dict[str, int]:
    counts: dict[str, int] = {}
    for source, row in zip(rows.sources, rows.encoded, strict=True):
        counts[source] = counts.get(source, 0) + row.supervised_tokens
    return counts


def _at_once(params: TrainParams, rows: list[EncodedRow], checkpoint: Path | None) -> memory.Choice:
    """How much is computed at once: as it was up to the checkpoint that is gone on from, else what fits."""
    if checkpoint is not None:
        before = memory.Choice(**files.read_json(checkpoint / checkpoints.CHOICE))
        return replace(before, reason=f"{before.how}, as before the interruption")
    steps = packing.epoch_steps(len(rows), params.batch_size, params.epochs, params.seed)
    asked, free = params.micro_batch_size * params.cutoff, models.free_memory()
    packs = [one for numbers in steps for one in packing.pack(rows, numbers, asked)]
    try:
        return memory.choose(
            params,
            tokens=max(len(one.input_ids) for one in packs),
            supervised=max(len(one.places) for one in packs),
            widest=max(len(row.input_ids) for row in rows),
            free=free,
        )
    except InputError:
        raise
    except Exception as error:  # a kind of model that cannot be traced: no reason not to train it
        choice = memory.Choice(asked, params.gradient_checkpointing is True, 0, free, True, reason="")
        return replace(choice, reason=f"{choice.how}; the need could not be estimated ({type(error).__name__})")


def _dtype(params: TrainParams) -> Any:
    return models.compute_dtype(models.pick_device(), params.train_dtype)


def _arguments(params: TrainParams, run: run_folder.RunFolder, validated: bool) -> Any:
    from transformers import TrainingArguments

    dtype = str(_dtype(params))
    evaluate = validated and params.eval_steps > 0
    best = evaluate and params.best_checkpoint
    return TrainingArguments(
        output_dir=str(checkpoints.folder(run)),
        num_train_epochs=1,  # the steps of all epochs are laid out beforehand
        per_device_train_batch_size=1,  # one optimizer step
        train_sampling_strategy="sequential",
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.lr_scheduler,
        warmup_steps=params.warmup_steps,
        weight_decay=params.weight_decay,
        optim=models.optimizer(params.optimizer),
        eval_strategy="steps" if evaluate else "no",
        eval_steps=params.eval_steps or None,
        save_strategy="steps" if best or params.checkpoint_steps else "no",
        save_steps=params.eval_steps if best else params.checkpoint_steps or 500,
        save_total_limit=2,
        load_best_model_at_end=best,
        logging_steps=1,
        bf16=dtype == "torch.bfloat16",
        fp16=dtype == "torch.float16",
        use_cpu=models.pick_device() == "cpu",
        seed=params.seed,
        data_seed=params.seed,
        report_to=params.report_to,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _callback(params: TrainParams, run: run_folder.RunFolder, on_metrics: Callable | None, choice: Callable) -> Any:
    import time

    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        """Progress for whoever watches, a checkpoint every so many minutes, and a mark on those that are whole."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress = run_folder.Progress(run, "train", state.max_steps)
            self.saved = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress.update(state.global_step)
            if params.checkpoint_minutes and time.monotonic() - self.saved > 60 * params.checkpoint_minutes:
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.saved = time.monotonic()
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            files.write_json(checkpoint / checkpoints.CHOICE, asdict(choice()))
            checkpoints.mark_whole(checkpoint)

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if on_metrics is not None:
                on_metrics(lambda: metrics_table(state.log_history))

    return Watch()
