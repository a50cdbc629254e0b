"""Training is never lost: what was killed goes on to the same bits, and what goes wrong is dealt with or told."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import MixParams, TrainParams
from safety_nb.data import mixing
from safety_nb.train import checkpoints, memory, models, packed_trainer, training
from safety_nb.train.encoding import encode_row

# Dropout makes every step depend on the random state, so that a resumed one shows whether that came back too.
VALUES = {"epochs": 2.0, "batch_size": 8, "lora_dropout": 0.1, "eval_steps": 4, "checkpoint_steps": 2}

TRAIN = """
import json, sys
from safety_nb.train import training
from safety_nb.core.params import TrainParams
training.train(TrainParams(**json.loads(sys.argv[1])))
"""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def small_run(folder: Path, **changes: object) -> TrainParams:
    """A run folder with a mixture of 40 rows, five steps an epoch."""
    mixing.mix(MixParams(run_dir=str(folder), n_general=32, n_safety=8, n_validation=8))
    return TrainParams(run_dir=str(folder), **{**VALUES, **changes})


def adapter(params: TrainParams) -> str:
    return files.sha256(run_folder.open_run(params.run_dir).adapter / "adapter_model.safetensors")


def killed_after(params: TrainParams, step: int) -> Path:
    """Train in a process of its own and kill it when the checkpoint of a step is whole; the checkpoints."""
    folder = Path(params.run_dir) / "train" / "checkpoints"
    process = subprocess.Popen([sys.executable, "-c", TRAIN, params.model_dump_json()], stderr=subprocess.DEVNULL)
    while not (folder / f"checkpoint-{step}" / "whole.json").exists():
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[str, pd.DataFrame]:
    """The adapter's hash and the metrics of a training that nothing disturbed."""
    torch.set_num_threads(1)
    params = small_run(tmp_path_factory.mktemp("undisturbed"))
    training.train(params)
    return adapter(params), pd.read_csv(run_folder.open_run(params.run_dir).metrics)


def same_metrics(params: TrainParams, expected: pd.DataFrame) -> bool:
    metrics = pd.read_csv(run_folder.open_run(params.run_dir).metrics)
    timed = ["tokens_per_second", "peak_memory"]
    return metrics.drop(columns=timed).equals(expected.drop(columns=timed))


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, undisturbed):
    params = small_run(tmp_path)
    folder = killed_after(params, step=4)
    record = training.train(params)
    assert record.resumed_steps >= 4 and record.steps == 10
    assert adapter(params) == undisturbed[0]
    assert same_metrics(params, undisturbed[1])
    assert not folder.exists()  # what is done needs no checkpoint


def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path, undisturbed):
    params = small_run(tmp_path)
    folder = killed_after(params, step=4)
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    file = newest / "optimizer.pt"
    file.write_bytes(file.read_bytes()[:1000])
    record = training.train(params)
    assert 2 <= record.resumed_steps < int(newest.name.split("-")[1])
    assert adapter(params) == undisturbed[0] and same_metrics(params, undisturbed[1])


def test_a_checkpoint_that_was_never_finished_is_not_gone_on_from(tmp_path, undisturbed):
    params = small_run(tmp_path)
    folder = killed_after(params, step=2)
    for marker in folder.glob("checkpoint-*/whole.json"):
        marker.unlink()
    assert training.train(params).resumed_steps == 0
    assert adapter(params) == undisturbed[0]


def test_checkpoints_of_another_training_are_not_gone_on_from(tmp_path):
    params = small_run(tmp_path)
    run = run_folder.open_run(params.run_dir)
    folder = run.root / "train" / "checkpoints"

    def goes_on(params: TrainParams) -> bool:
        """Whether a training with these parameters would find a whole checkpoint of the one before it."""
        checkpoints.of(run, params).clear_others()
        checkpoints.mark_whole(_made(folder / "checkpoint-2"))
        return checkpoints.of(run, params).newest_whole() is not None

    assert goes_on(params)
    for change in ({"learning_rate": 1e-3}, {"seed": 1}, {"lora_dropout": 0.0}):
        assert checkpoints.of(run, params).newest_whole() is not None
        assert checkpoints.of(run, params.model_copy(update=change)).newest_whole() is None
        assert goes_on(params)
    files.write_jsonl(run.train_rows, files.read_jsonl(run.train_rows)[::-1])
    assert checkpoints.of(run, params).newest_whole() is None


def test_where_metrics_go_does_not_make_it_another_training(tmp_path):
    params = small_run(tmp_path)
    run = run_folder.open_run(params.run_dir)
    checkpoints.of(run, params).clear_others()
    checkpoints.mark_whole(_made(run.root / "train" / "checkpoints" / "checkpoint-2"))
    assert checkpoints.of(run, params.model_copy(update={"report_to": "tensorboard"})).newest_whole() is not None


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_checkpoints_come_by_minutes_too(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoints, "mark_whole", lambda path: saved.append(path.name))
    # A thousandth of a second: every step takes longer.
    training.train(small_run(tmp_path, epochs=1.0, checkpoint_steps=0, checkpoint_minutes=0.001 / 60))
    assert saved == [f"checkpoint-{step}" for step in range(1, 6)]


def test_only_the_two_newest_checkpoints_are_kept(tmp_path, monkeypatch):
    most = []
    mark = checkpoints.mark_whole
    monkeypatch.setattr(
        checkpoints, "mark_whole", lambda path: (mark(path), most.append(len(list(path.parent.glob("checkpoint-*")))))
    )
    training.train(small_run(tmp_path))
    assert len(most) == 5 and max(most) <= 2


# --- memory -------------------------------------------------------------------------------------------------------


def test_out_of_memory_halves_the_packs_and_changes_no_number(tmp_path, monkeypatch, capsys):
    losses = packed_trainer.token_losses

    def on_a_small_device(model, one, masked=False):
        if model.training and len(one.input_ids) > 150:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return losses(model, one, masked)

    plain = small_run(tmp_path / "plain", lora_dropout=0.0)
    training.train(plain)
    small = small_run(tmp_path / "small", lora_dropout=0.0)
    monkeypatch.setattr(packed_trainer, "token_losses", on_a_small_device)
    record = training.train(small)
    # From 2 x 256 tokens to 256 to 128.
    assert record.pack_tokens == 128 and "packs of 128 tokens" in capsys.readouterr().out
    first, second = (
        pd.read_csv(run_folder.open_run(params.run_dir).metrics)["train_loss"] for params in (plain, small)
    )
    assert first.tolist() == pytest.approx(second.tolist(), rel=1e-3)


def test_a_training_computes_at_once_what_fits_and_says_so(tmp_path, monkeypatch, capsys):
    params = small_run(tmp_path, eval_steps=0, epochs=0.2)  # a step
    rows = [len(encode_row(row, models.load_tokenizer("tiny"), 256).input_ids) for row in _rows(params)]
    need = memory.training_memory(params.model_copy(update={"gradient_checkpointing": True}), max(rows), max(rows))
    monkeypatch.setattr(models, "free_memory", lambda: int(need.total / memory.TIGHT))
    model = []
    monkeypatch.setattr(
        packed_trainer, "attend_by_row", model.append
    )  # handed the estimate's model, then the training's
    record = training.train(params)
    assert model[-1].is_gradient_checkpointing
    # Less than 2 times the cutoff of 256, the effective batch as it was: 8 of 40 rows a step.
    assert max(rows) <= record.pack_tokens < 512 and record.steps == 1
    assert record.values["gradient_checkpointing"] is True and "activations recomputed" in record.memory_choice
    assert f"Memory: {record.memory_choice}." in capsys.readouterr().out
    assert record.memory_choice == files.read_json(run_folder.open_run(params.run_dir).training)["memory_choice"]


def _rows(params: TrainParams) -> list[dict]:
    return files.read_jsonl(run_folder.open_run(params.run_dir).train_rows)


def test_a_model_that_cannot_be_traced_is_trained_as_asked(tmp_path, monkeypatch):
    def untraceable(*_: object) -> None:
        raise NotImplementedError("no fake")

    params = small_run(tmp_path, eval_steps=0, epochs=0.2)
    monkeypatch.setattr(memory, "training_memory", untraceable)
    record = training.train(params)
    assert record.pack_tokens == 512 and "could not be estimated (NotImplementedError)" in record.memory_choice


def test_a_resumed_training_computes_at_once_what_it_did_before(tmp_path, monkeypatch, undisturbed):
    # Interrupted with plenty of memory, and gone on with where little is left.
    params = small_run(tmp_path)
    killed_after(params, step=4)
    monkeypatch.setattr(models, "free_memory", lambda: 1)
    record = training.train(params)
    assert record.resumed_steps >= 4 and record.pack_tokens == 512
    assert record.memory_choice == "packs of 512 tokens, as before the interruption"
    assert adapter(params) == undisturbed[0]


def test_packs_halved_for_lack_of_memory_stay_so_after_an_interruption(tmp_path, monkeypatch):
    params = small_run(tmp_path, eval_steps=0, epochs=1.0)
    losses, steps = packed_trainer.token_losses, []

    def on_a_small_device(model, one, masked=False):
        if model.training and len(one.input_ids) > 300:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return losses(model, one, masked)

    def interrupted(path: Path) -> None:
        mark(path)
        steps.append(path)
        raise KeyboardInterrupt

    mark = checkpoints.mark_whole
    monkeypatch.setattr(packed_trainer, "token_losses", on_a_small_device)
    monkeypatch.setattr(checkpoints, "mark_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(params)
    monkeypatch.setattr(checkpoints, "mark_whole", mark)
    record = training.train(params)
    assert record.memory_choice == "packs of 256 tokens, as before the interruption"


def test_a_single_row_that_does_not_fit_is_told_with_what_helps(tmp_path, monkeypatch):
    def on_no_device(*_: object, **__: object):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    params = small_run(tmp_path)
    monkeypatch.setattr(packed_trainer, "token_losses", on_no_device)
    with pytest.raises(torch.OutOfMemoryError, match="alone does not fit: set gradient_checkpointing"):
        training.train(params)


# --- divergence ---------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_with_the_step_and_its_rows(tmp_path, monkeypatch):
    losses = packed_trainer.token_losses
    calls = []

    def nan_in_the_third_step(model, one, masked=False):
        calls.append(one)
        return losses(model, one, masked) * (float("nan") if len(calls) == 4 else 1.0)

    # Steps of 8 rows are one pack each; the first call is the estimate's.
    params = small_run(tmp_path, micro_batch_size=20, eval_steps=0)
    monkeypatch.setattr(packed_trainer, "token_losses", nan_in_the_third_step)
    with pytest.raises(
        packed_trainer.TrainingDiverged, match=r"loss of step 3 is nan; its rows: tiny-\S+.*learning_rate"
    ):
        training.train(params)
    assert not run_folder.open_run(params.run_dir).adapter.exists()


def test_a_learning_rate_that_is_too_high_stops_the_training(tmp_path):
    params = small_run(tmp_path, learning_rate=0.9, epochs=20.0, checkpoint_steps=0, eval_steps=0)
    with pytest.raises(packed_trainer.TrainingDiverged, match="lower learning_rate"):
        training.train(params)


# --- disk ---------------------------------------------------------------------------------------------------------


def test_a_disk_without_room_for_checkpoints_is_told_before_training(tmp_path, monkeypatch):
    params = small_run(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    # 81,920 trained values: three copies of four bytes, of three checkpoints, are 2.9 MB.
    with pytest.raises(InputError, match=r"1 MB are free, and checkpoints of this adapter take 2\.95 MB.*lora_r"):
        training.train(params)
