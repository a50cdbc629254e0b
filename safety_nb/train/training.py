"""Training: the rows of a mixture and a frozen base become an adapter and a table of losses.

Knows nothing of judging or plots.
"""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import TrainParams
from safety_nb.core.text import first_line, shortened
from safety_nb.train import checkpoints, inputs, memory, models, packing, records
from safety_nb.train.encoding import EncodedRow
from safety_nb.train.metrics import metrics_table
from safety_nb.train.records import TrainingRecord


def train(params: TrainParams, on_metrics: Callable[[Callable[[], Any]], None] | None = None) -> TrainingRecord:
    """Train the adapter of a run: read its rows, compute, and write what lies in ``train/``.

    Checkpoints lie in ``train/checkpoints/`` until it is done: an execution that was cut short goes on from the newest
    one that is whole, on the CPU to the very bits of an undisturbed one.

    Args:
        on_metrics: called after every step with a function that makes the table of metrics so far.

    Raises:
        InputError: no row has an answer within the cutoff, the template has no place for a row, a LoRA target is not a
            layer of the model, the disk has no room for checkpoints, the device lacks the dtype or the bits asked
            for, or what ``report_to`` names is not installed.
        packed_trainer.TrainingDiverged: the loss is not finite, or far above where it was.
    """
    import torch
    from transformers import set_seed

    run = run_folder.open_run(params.run_dir)
    check_report_to(params.report_to)
    models.check_dtype(params.train_dtype)
    models.check_bits(params.base_bits, params.train_dtype)
    if params.cpu_threads:
        torch.set_num_threads(params.cpu_threads)
    read = inputs.read(run, params, models.load_tokenizer(params.base_model, params.revision))
    kept = checkpoints.of(run, params)
    while True:
        checkpoint, before = _newest(kept)
        choice = before or _at_once(params, read.training.encoded)
        print(f"Memory: {choice.reason}.")
        set_seed(params.seed)  # before the adapter: its initial weights are random
        loop, packed = _loop(params, run, read, choice, on_metrics)
        checkpoints.check_disk(run, loop)
        kept.clear_others()
        try:
            outcome = loop.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            break
        except Exception as error:
            if checkpoint is None or not _is_of_its_checkpoint(error, loop, checkpoint):
                raise
            kept.set_aside(checkpoint, shortened(first_line(error), 200))
    trained = records.Trained(
        validation=loop.evaluate() if read.validation.encoded else {},
        metrics=metrics_table(loop.state.log_history, loop.steps_per_epoch),
        packed=packed,
        resumed_steps=checkpoints.step_of(checkpoint) if checkpoint else 0,
        seconds=outcome.metrics["train_runtime"],
    )

    record = records.of_training(params, read, choice, loop, trained)
    records.write(run, record, read, trained.metrics, loop)
    shutil.rmtree(kept.folder, ignore_errors=True)
    return record


def _newest(kept: checkpoints.Checkpoints) -> tuple[Path | None, memory.Choice | None]:
    """The checkpoint to go on from, and the choice it was made with; one that cannot be gone on from is set aside."""
    while checkpoint := kept.newest_whole():
        try:
            return checkpoint, checkpoints.choice_of(checkpoint)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            kept.set_aside(checkpoint, shortened(first_line(error), 200))
    return None, None


def _is_of_its_checkpoint(error: Exception, loop: Any, checkpoint: Path) -> bool:
    """Whether a training failed by what its checkpoint holds: before it made a step, and by no fault that it tells."""
    import torch

    from safety_nb.train import packed_trainer

    told = (InputError, packed_trainer.TrainingDiverged, torch.OutOfMemoryError, MemoryError)
    return loop.state.global_step <= checkpoints.step_of(checkpoint) and not isinstance(error, told)


def _loop(
    params: TrainParams,
    run: run_folder.RunFolder,
    read: inputs.Inputs,
    choice: memory.Choice,
    on_metrics: Callable | None,
) -> tuple[Any, bool]:
    """The ``PackedTrainer`` over a new adapter, and whether it packs rows."""
    from safety_nb.train import packed_trainer

    model = models.load_base(params.base_model, params.revision, params.train_dtype, params.base_bits)
    model = models.add_adapter(
        model,
        r=params.lora_r,
        alpha=params.lora_alpha,
        dropout=params.lora_dropout,
        targets=params.lora_targets,
        gradient_checkpointing=choice.gradient_checkpointing,
    )
    packed_trainer.attend_by_row(model)
    rows = read.training
    apart = packed_trainer.separation(model, rows.encoded) if len(rows.encoded) > 1 else None
    if apart is None:
        print("This model does not keep packed rows apart: each row is a sequence by itself.")
    loop = packed_trainer.PackedTrainer(
        model=model,
        args=_arguments(params, run, bool(read.validation.encoded)),
        rows=rows.encoded,
        parts=rows.sources,
        names=rows.ids,
        steps=packing.epoch_steps(len(rows.encoded), params.batch_size, params.epochs, params.seed),
        validation=read.validation.encoded,
        validation_parts=read.validation.sources,
        capacity=choice.pack_tokens if apart else 0,
        masked=apart == "mask",
        callbacks=[_callback(params, run, on_metrics, lambda: replace(choice, pack_tokens=loop.capacity))],
    )
    return loop, apart is not None


def check_report_to(report_to: str) -> None:
    """Raise InputError unless what is to be logged to is installed."""
    packages = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
    wanted = packages.get(report_to, ())
    if wanted and not any(importlib.util.find_spec(package) for package in wanted):
        raise InputError(
            f"report_to: {report_to!r} is not installed here; `pip install {wanted[0]}`, or leave report_to at none "
            "(the same numbers are in train/metrics.csv)."
        )


def _at_once(params: TrainParams, rows: list[EncodedRow]) -> memory.Choice:
    """How much is computed at once: what fits."""
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


def _arguments(params: TrainParams, run: run_folder.RunFolder, validated: bool) -> Any:
    from transformers import TrainingArguments

    dtype = str(models.compute_dtype(models.pick_device(), params.train_dtype))
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
            self.progress = run_folder.Progress(run, "train", state.max_steps, before=state.global_step)
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
