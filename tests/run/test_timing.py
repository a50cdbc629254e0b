"""How long a run is estimated to take: what it computes is counted in tokens, and seconds add up."""

import dataclasses
import math
from types import SimpleNamespace

import pytest

from safety_nb.core.params import RunParams, validate
from safety_nb.run import timing
from safety_nb.train import models
from safety_nb.train.encoding import encode_question, encode_row

ROW = {"instruction": "Name a colour.", "input": "", "output": "Blue."}
LONG_ROW = {**ROW, "output": "Blue, and green, and red, and yellow, and white, and black."}


def params(**values) -> RunParams:
    return validate(RunParams, values)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("tiny")


def test_work_is_counted_in_packs(tokenizer):
    short, long = (encode_row(row, tokenizer, 256) for row in (ROW, LONG_ROW))
    one, other = len(short.input_ids), len(long.input_ids)
    # Packs of 2 times 40 tokens hold two long rows; steps have three rows, the last has one.
    assert 2 * other <= 2 * 40 < 3 * other
    run = params(
        **{"cutoff": 40, "micro_batch_size": 2, "batch_size": 3, "epochs": 3.0, "eval_steps": 2},
        **{"generation_batch_size": 2, "max_new_tokens": 1000},
    )
    work = timing.count_work(run, tokenizer, [LONG_ROW] * 4, [ROW, ROW, LONG_ROW], ["Why?", "Why?", "Name a colour."])
    assert (work.train_tokens, work.widest_row) == (3 * 4 * other, other)
    assert (work.pack_tokens, work.pack_supervised) == (2 * other, 2 * long.supervised_tokens)
    # 6 steps: validations after 2, 4 and 6, and one at the end.
    assert work.evaluation_tokens == 4 * (2 * one + other)
    # The shorter two prompts share a batch.
    asked = one - short.supervised_tokens
    why = len(encode_question("Why?", tokenizer))
    assert (work.prompt_batches, work.prompt_tokens, work.widest_prompt) == (2, (2 * why + asked) / 2, asked)
    assert work.answer_tokens == long.supervised_tokens
    cut = timing.count_work(run.model_copy(update={"max_new_tokens": 5}), tokenizer, [LONG_ROW], [], ["Why?"])
    assert (cut.answer_tokens, cut.evaluation_tokens) == (5, 0)


def test_answers_are_as_long_as_those_taught_whatever_carries_loss(tokenizer):
    long = encode_row(LONG_ROW, tokenizer, 256)
    run = params(loss_on="all", max_new_tokens=1000)
    work = timing.count_work(run, tokenizer, [LONG_ROW] * 4, [], ["Why?"])
    assert work.answer_tokens == long.supervised_tokens
    # All tokens of each but its first.
    assert work.pack_supervised == work.pack_tokens - work.pack_tokens // len(long.input_ids)


def test_many_rows_are_counted_from_a_sample(tokenizer):
    rows = [ROW] * 4999 + [LONG_ROW]
    work = timing.count_work(params(), tokenizer, rows, [], ["Why?"])
    short, long = (len(encode_row(row, tokenizer, 256).input_ids) for row in (ROW, LONG_ROW))
    assert work.widest_row == long  # the last, which is in no sample of every fifth
    assert work.train_tokens == 5000 * short


def test_seconds_add_up():
    speed = timing.Speed(load=2.0, train=0.01, read=0.005, step=0.1, how="")
    work = timing.Work(
        train_tokens=1000,
        evaluation_tokens=200,
        pack_tokens=100,
        pack_supervised=50,
        prompt_batches=3,
        prompt_tokens=40,
        answer_tokens=10,
        widest_row=25,
        widest_prompt=10,
    )
    # Loaded twice 4; trained 10; validated 1; three batches of 40 tokens read (0.2) and 10 written (1).
    assert timing.compute_seconds(speed, work) == pytest.approx(4 + 10 + 1 + 3 * 1.2)
    assert timing.compute_seconds(speed, timing.scaled(work, 0.5)) == pytest.approx(4 + 5 + 1 + 3 * 1.2)
    # Capability tasks: loaded a third time, and 400 tokens read.
    asked = dataclasses.replace(work, capability_tokens=400)
    assert timing.compute_seconds(speed, asked) == pytest.approx(4 + 10 + 1 + 3 * 1.2 + 2 + 2)


def test_forked_notebooks_share_their_imports():
    # 10 s of imports and 5 notebooks a run, of 1.2 s forked and of 3.4 s plain.
    assert timing.notebook_seconds(10, forked=True, runs=2) == pytest.approx(10 + 2 * 5 * 1.2)
    assert timing.notebook_seconds(10, forked=True, notebooks=6) == pytest.approx(10 + 6 * 1.2)
    assert timing.notebook_seconds(10, forked=False, runs=2) == pytest.approx(2 * (10 + 5 * 3.4))


def test_time_of_a_token_is_free_of_what_reading_the_prompts_takes(tokenizer, monkeypatch):
    written = []
    model = SimpleNamespace(device="cpu", config=SimpleNamespace(), generate=lambda **asked: written.append(asked))

    def timed(function) -> float:
        function()
        return 5.0 + 0.25 * written[-1]["max_new_tokens"]  # seconds: to read, and for each token

    monkeypatch.setattr(timing, "_timed", timed)
    assert timing._answer_step(params(), model, tokenizer, ["Why?"]) == pytest.approx(0.25)


@pytest.mark.parametrize("r", [2, 4])
def test_speed_by_layers_and_by_steps_leave_the_threads_as_they_were(tokenizer, r):
    import torch

    threads = torch.get_num_threads()
    run = params(lora_r=r, generation_batch_size=2, mode="paper" if r == 4 else "greedy")
    work = timing.count_work(run, tokenizer, [ROW] * 4, [], ["Why?"] * 2)
    for speed in (
        timing.layer_speed(run, work),
        timing.step_speed(run, tokenizer, [ROW] * 4, ["Why?"] * 2),
        timing.step_speed(run, tokenizer, [ROW], ["Why?"]),  # less than a batch
    ):
        assert all(math.isfinite(figure) for figure in (speed.load, speed.train, speed.read, speed.step))
        assert min(speed.load, speed.train, speed.read) > 0
    assert torch.get_num_threads() == threads
