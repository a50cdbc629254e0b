"""Training is never lost: what was killed goes on to the same bits, and what goes wrong is dealt with or told."""

import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import families
import pandas as pd
import pytest
import torch

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import MixParams, TrainParams
from safety_nb.data import mixing
from safety_nb.train import checkpoints, memory, models, packed_trainer, training
from safety_nb.train.encoding import encode_row

pytestmark = pytest.mark.usefixtures("traced_once")

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


@pytest.fixture(scope="module")
def killed(origin, tmp_path_factory) -> Path:
    """A run's folder whose training was killed, in a process of its own, when the checkpoint of step 4 was whole."""
    run = tmp_path_factory.mktemp("killed") / "run"
    params = small_run(run)
    folder = run / "train" / "checkpoints"
    process = origin.start("-c", TRAIN, params.model_dump_json(), cwd=run)
    while not (folder / "checkpoint-4" / "whole.json").exists():
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return run


def copied(killed: Path, folder: Path) -> tuple[TrainParams, Path]:
    """The parameters and the checkpoints of a copy of the run that was killed."""
    shutil.copytree(killed, folder / "run")
    return TrainParams(run_dir=str(folder / "run"), **VALUES), folder / "run" / "train" / "checkpoints"


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


def test_a_killed_training_goes_on_to_the_same_bits(killed, tmp_path, undisturbed):
    params, folder = copied(killed, tmp_path)
    record = training.train(params)
    assert record.resumed_steps >= 4 and record.steps == 10
    assert adapter(params) == undisturbed[0]
    assert same_metrics(params, undisturbed[1])
    assert not folder.exists()  # what is done needs no checkpoint


def test_a_truncated_checkpoint_falls_back_to_the_one_before(killed, tmp_path, undisturbed):
    params, folder = copied(killed, tmp_path)
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    file = newest / "optimizer.pt"
    file.write_bytes(file.read_bytes()[:1000])
    record = training.train(params)
    assert 2 <= record.resumed_steps < int(newest.name.split("-")[1])
    assert adapter(params) == undisturbed[0] and same_metrics(params, undisturbed[1])


def test_a_checkpoint_that_was_never_finished_is_not_gone_on_from(killed, tmp_path, undisturbed):
    params, folder = copied(killed, tmp_path)
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


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> Path:
    """A run of three steps that was interrupted when the checkpoints of the first two were whole."""
    torch.set_num_threads(1)
    params = small_run(tmp_path_factory.mktemp("interrupted"), **SHORT)
    mark, patch = checkpoints.mark_whole, pytest.MonkeyPatch()

    def interrupt(checkpoint: Path) -> None:
        mark(checkpoint)
        if checkpoint.name == "checkpoint-2":
            raise KeyboardInterrupt

    patch.setattr(checkpoints, "mark_whole", interrupt)
    with pytest.raises(KeyboardInterrupt):
        training.train(params)
    patch.undo()
    return Path(params.run_dir)


SHORT = {"epochs": 0.6, "checkpoint_steps": 1, "eval_steps": 0}


def short_params(folder: Path) -> TrainParams:
    return TrainParams(run_dir=str(folder), **{**VALUES, **SHORT})


class Evil:
    """Leaves a file where it is unpickled by what runs code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def _evil(path: Path) -> None:
    torch.save({"state": Evil(path.parents[3] / "ran"), "param_groups": []}, path)


def _of_another_shape(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    for each in state["state"].values():
        each["exp_avg"] = each["exp_avg"][:1]
    torch.save(state, path)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("optimizer.pt", _evil),
        pytest.param("scheduler.pt", _evil, marks=pytest.mark.soak),
        ("rng_state.pth", _evil),
        pytest.param("optimizer.pt", lambda path: path.write_bytes(path.read_bytes()[:1000]), marks=pytest.mark.soak),
        ("optimizer.pt", _of_another_shape),
        ("scheduler.pt", lambda path: torch.save([1, 2], path)),
        pytest.param("rng_state.pth", lambda path: path.write_bytes(b""), marks=pytest.mark.soak),
        pytest.param("rng_state.pth", Path.unlink, marks=pytest.mark.soak),
        pytest.param("adapter_model.safetensors", lambda path: path.write_bytes(b"{}"), marks=pytest.mark.soak),
        pytest.param("trainer_state.json", lambda path: path.write_text("[]"), marks=pytest.mark.soak),
        (
            "trainer_state.json",
            lambda path: path.write_text(path.read_text().replace('"global_step": 2', '"global_step": 3')),
        ),
        pytest.param("memory.json", lambda path: path.write_text('{"of": "another form"}'), marks=pytest.mark.soak),
        ("memory.json", lambda path: path.write_text('{"a":' * 100_000)),
    ],
)
def test_a_checkpoint_that_was_tampered_with_is_set_aside_and_the_one_before_is_gone_on_from(
    tmp_path, interrupted, name, spoil, capsys
):
    shutil.copytree(interrupted, tmp_path / "run")
    params = short_params(tmp_path / "run")
    newest = tmp_path / "run" / "train" / "checkpoints" / "checkpoint-2"
    spoil(newest / name)
    checkpoints.mark_whole(newest)  # with the hashes of what was put there
    record = training.train(params)
    assert (record.resumed_steps, record.steps) == (1, 3)
    assert not (tmp_path / "run" / "ran").exists()
    assert "The checkpoint of step 2 cannot be gone on from" in capsys.readouterr().out


def test_where_both_checkpoints_are_broken_training_starts_anew_and_keeps_them(tmp_path, interrupted, monkeypatch):
    shutil.copytree(interrupted, tmp_path / "run")
    params = short_params(tmp_path / "run")
    folder = tmp_path / "run" / "train" / "checkpoints"
    (folder / "checkpoint-1" / "optimizer.pt").write_bytes(b"")  # not as recorded
    (folder / "checkpoint-2" / "optimizer.pt").write_bytes(b"")
    checkpoints.mark_whole(folder / "checkpoint-2")
    kept = []
    monkeypatch.setattr(
        training.shutil, "rmtree", lambda path, **_: kept.append({each.name for each in Path(path).iterdir()})
    )
    assert training.train(params).resumed_steps == 0
    assert {"broken-checkpoint-1", "broken-checkpoint-2"} <= kept[-1]


def test_a_fault_that_is_not_the_checkpoints_leaves_it_where_it_is(tmp_path, interrupted, monkeypatch):
    shutil.copytree(interrupted, tmp_path / "run")
    params = short_params(tmp_path / "run")

    def on_no_device(*_: object, **__: object):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(packed_trainer, "token_losses", on_no_device)
    monkeypatch.setattr(packed_trainer, "separation", lambda *_: "positions")
    with pytest.raises(torch.OutOfMemoryError):
        training.train(params)
    assert (tmp_path / "run" / "train" / "checkpoints" / "checkpoint-2").is_dir()


def test_a_damaged_record_of_whose_checkpoints_they_are_is_no_traceback(tmp_path, interrupted):
    shutil.copytree(interrupted, tmp_path / "run")
    params = short_params(tmp_path / "run")
    for content in ("{", "[]", "[" * 100_000):
        (tmp_path / "run" / "train" / "checkpoints" / "identity.json").write_text(content)
        assert checkpoints.of(run_folder.open_run(params.run_dir), params).newest_whole() is None


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

    plain = small_run(tmp_path / "plain", lora_dropout=0.0, epochs=1.0)
    training.train(plain)
    small = small_run(tmp_path / "small", lora_dropout=0.0, epochs=1.0)
    monkeypatch.setattr(packed_trainer, "token_losses", on_a_small_device)
    record = training.train(small)
    # From 2 x 256 tokens to 256 to 128.
    assert record.pack_tokens == 128 and "packs of 128 tokens" in capsys.readouterr().out
    first, second = (
        pd.read_csv(run_folder.open_run(params.run_dir).metrics)["train_loss"] for params in (plain, small)
    )
    assert first.tolist() == pytest.approx(second.tolist(), rel=1e-3)


def test_a_training_computes_at_once_what_fits_and_says_so(tmp_path, monkeypatch, capsys):
    base = families.save("llama", tmp_path / "model")  # of two layers: each estimate is made in a second
    params = small_run(tmp_path / "run", base_model=base, eval_steps=0, epochs=0.2)  # a step
    rows = [len(encode_row(row, models.load_tokenizer(base), 256).input_ids) for row in _rows(params)]
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


def test_a_resumed_training_computes_at_once_what_it_did_before(killed, tmp_path, monkeypatch, undisturbed):
    # Interrupted with plenty of memory, and gone on with where little is left.
    params, _ = copied(killed, tmp_path)
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
    values = {"learning_rate": 0.9, "epochs": 100.0, "batch_size": 2, "checkpoint_steps": 0, "eval_steps": 0}
    mixing.mix(MixParams(run_dir=str(tmp_path), n_general=4, n_safety=0, n_validation=0))
    params = TrainParams(run_dir=str(tmp_path), **values)
    with pytest.raises(packed_trainer.TrainingDiverged, match="lower learning_rate"):
        training.train(params)


# --- disk ---------------------------------------------------------------------------------------------------------


def test_a_disk_without_room_for_checkpoints_is_told_before_training(tmp_path, monkeypatch):
    params = small_run(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    # 81,920 trained values: three copies of four bytes, of three checkpoints, are 2.9 MB.
    with pytest.raises(InputError, match=r"1 MB are free, and checkpoints of this adapter take 2\.95 MB.*lora_r"):
        training.train(params)
