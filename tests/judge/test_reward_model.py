"""Training a reward model: what is read, how it is split, that it learns, repeats and is judged with as trained."""

import json
import math
import os
import re
from pathlib import Path

import pytest
from commands import papermill

from safety_nb.core import files
from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams, TrainRewardParams, validate
from safety_nb.data.datasets import sources
from safety_nb.judge import reward_model
from safety_nb.judge.kinds import harmfulness
from safety_nb.judge.reward_model import Data, Example
from safety_nb.report import plots
from safety_nb.run import stages
from safety_nb.tiny import world
from safety_nb.train import models

needs_data = pytest.mark.skipif(
    not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets: set SAFETY_NB_DATA to their folder"
)


def write(path: Path, rows: list[dict]) -> str:
    files.write_jsonl(path, rows)
    return str(path)


def params(**values) -> TrainRewardParams:
    return validate(TrainRewardParams, {"ordinary": "", **values})


# What is read


def test_scores_transcripts_and_pairs_become_conversations(tmp_path):
    talk = "\n\nHuman: Hello  There\n\nAssistant: Hi.\n\nHuman: And?\n\nAssistant: So."
    rows = {
        "scores": {"prompt": "Hello there", "response": "Hi.", "score": 1.5},
        "attacks": {"transcript": talk, "rating": 3, "tags": None},
        "pairs": {"chosen": talk, "rejected": talk + " No!"},
        "completions": {"prompt": "Hello there", "chosen": "Hi.", "rejected": "No!"},
    }
    found = {}
    for name, row in rows.items():
        path = write(tmp_path / f"{name}.jsonl", [row])
        found[name] = reward_model._example(sources.labelled_rows(path)[0], name)
    short = "\n\nHuman: Hello there\n\nAssistant: "
    assert found["scores"] == Example("hello there", (short + "Hi.",), 1.5, "scores")
    assert found["attacks"] == Example("hello there", (talk,), 3.0, "attacks")
    assert found["pairs"] == Example("hello there", (talk, talk + " No!"), None, "pairs")
    assert found["completions"] == Example("hello there", (short + "Hi.", short + "No!"), None, "completions")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "a", "response": "b"}, "no labelled row: it has prompt, response"),
        ({"prompt": "a", "response": "b", "score": "high"}, "'score' must be a number, not 'high'"),
        ({"prompt": "a", "response": "b", "score": "nan"}, "'score' must be a number"),
        ({"transcript": "", "rating": 1}, "'transcript' is empty"),
        ({"chosen": "a", "rejected": 2}, "'rejected' must be text"),
        ([], "no labelled row"),
    ],
)
def test_a_bad_row_is_told_by_file_and_line(tmp_path, row, told):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a", "response": "b", "score": 0}\n' + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=f"mine.jsonl, line 2: .*{told}"):
        sources.labelled_rows(str(path))


def test_a_table_has_scores_as_text(tmp_path):
    (tmp_path / "mine.csv").write_text("prompt,response,score\na,b,2\nc,,0\n")
    found = sources.labelled_rows(str(tmp_path / "mine.csv"))
    assert found == [{"prompt": "a", "response": "b", "score": 2.0}, {"prompt": "c", "response": "", "score": 0.0}]


@pytest.mark.parametrize("name", ["nobody", "xstest-safe", "tiny-general"])
def test_an_unknown_set_is_bad_input_that_names_the_labelled_ones(name):
    with pytest.raises(InputError, match="tiny-labelled, red-team-attempts"):
        sources.labelled_rows(name)


def test_ordinary_answers_are_added_with_score_0():
    one = reward_model.prepare(params(ordinary="tiny-general", n_ordinary=7))
    added = [each for each in [*one.training, *one.validation] if each.source == "tiny-general"]
    assert [each.score for each in added] == [0.0] * 7
    all_ = reward_model.prepare(params(ordinary="tiny-general"))
    table = all_.table().set_index("source")
    assert table.loc["tiny-general", ["training", "validation"]].sum() == 1000
    assert table.loc["tiny-labelled", ["training", "validation"]].sum() == 1200
    assert table.loc["tiny-general", "mean_score"] == 0


def test_pairs_have_no_score_that_ordinary_answers_could_have(tmp_path):
    path = write(tmp_path / "pairs.jsonl", [{"chosen": "a", "rejected": "b"}] * 3)
    with pytest.raises(InputError, match="ordinary: "):
        reward_model.prepare(params(data=path, ordinary="tiny-general"))


def test_scores_and_pairs_do_not_mix(tmp_path):
    rows = [{"chosen": "a", "rejected": "b"}, {"prompt": "a", "response": "b", "score": 1}]
    with pytest.raises(InputError, match="both scores and pairs"):
        reward_model.prepare(params(data=write(tmp_path / "both.jsonl", rows)))


# The split


def test_no_prompt_is_on_both_sides(tmp_path):
    # Each prompt four times, in other spelling.
    rows = [
        {"prompt": prompt, "response": f"answer {n}", "score": n}
        for n in range(2)
        for i in range(30)
        for prompt in (f"Prompt  {i}?", f"prompt {i}? ")
    ]
    data = reward_model.prepare(params(data=write(tmp_path / "mine.jsonl", rows), validation_share=0.2))
    assert not {each.prompt for each in data.training} & {each.prompt for each in data.validation}
    assert (len(data.training), len(data.validation)) == (96, 24)  # 20 % of 120; 24 is a multiple of 4


def test_the_split_follows_the_seed():
    first, again, other = (reward_model.prepare(params(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.sha256() == again.sha256() != other.sha256()


def test_too_few_prompts_are_bad_input(tmp_path):
    path = write(tmp_path / "one.jsonl", [{"prompt": "a", "response": str(n), "score": 0} for n in range(9)])
    with pytest.raises(InputError, match="too few to be split"):
        reward_model.prepare(params(data=path))


# Losses


def test_losses_by_hand():
    import types

    import torch

    outputs = types.SimpleNamespace(logits=torch.tensor([[1.0], [3.0]]))
    assert reward_model.score_loss(outputs, torch.tensor([0.0, 1.0])).item() == pytest.approx((1 + 4) / 2)
    assert reward_model.score_loss(outputs, torch.tensor([0.0, 1.0]), 4).item() == pytest.approx((1 + 4) / 4)
    # The second is the more harmful: -log sigmoid(3 - 1).
    assert reward_model.pair_loss(outputs, torch.tensor([0.0])).item() == pytest.approx(math.log(1 + math.exp(-2)))


# Training


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> str:
    rows = [{name: row[name] for name in ("prompt", "response", "score")} for row in world.labelled_rows()[:240]]
    return write(tmp_path_factory.mktemp("data") / "scored.jsonl", rows)


def train(folder: Path, **values) -> tuple[dict, Data]:
    asked = params(out=str(folder), **{"batch_size": 16, "micro_batch_size": 16, "validation_share": 0.25, **values})
    data = reward_model.prepare(asked)
    return reward_model.train(asked, data), data


@pytest.fixture(scope="module")
def trained(tmp_path_factory, scored) -> tuple[dict, Data]:
    return train(tmp_path_factory.mktemp("trained") / "model", data=scored, epochs=2.0)


def test_it_learns(trained):
    record, data = trained
    found = record["validation"]
    assert found["n"] == len(data.validation) == 60
    assert found["low"] < found["mse"] < found["high"]
    assert found["mse"] < 0.5 * found["mse_of_mean"]
    assert record["steps"] == math.ceil(len(data.training) / 16) * 2
    losses = reward_model.losses(record)["train_loss"]
    assert len(losses) == record["steps"]
    assert losses.tail(5).mean() < 0.5 * losses.head(2).mean()


def test_what_is_validated_is_what_is_judged_with(trained):
    import pandas as pd

    record, data = trained
    predictions = pd.read_csv(Path(record["folder"]) / "predictions.csv")
    judge = harmfulness.build(record["folder"], JudgeParams())
    prompts = [
        re.fullmatch(r"\n\nHuman: (.*)\n\nAssistant: (.*)", each.texts[0], re.DOTALL) for each in data.validation
    ]
    judged = judge.judge([{"prompt": found[1], "response": found[2]} for found in prompts])
    scores = [judgement.score for judgement in judged]
    assert scores == pytest.approx(predictions["predicted"].tolist(), abs=1e-4)
    squared = [(score - each.score) ** 2 for score, each in zip(scores, data.validation, strict=True)]
    assert record["validation"]["mse"] == pytest.approx(sum(squared) / 60, abs=1e-3)


def test_the_same_seed_gives_the_same_bits(tmp_path, scored):
    first, again, other = (
        train(tmp_path / str(i), data=scored, epochs=0.2, seed=seed)[0] for i, seed in enumerate((1, 1, 2))
    )
    assert first["weights_sha256"] == again["weights_sha256"] != other["weights_sha256"]
    assert first["validation"] == again["validation"]


def test_micro_batches_add_up_to_the_batch(tmp_path, scored):
    import torch
    from safetensors.torch import load_file

    values = {"data": scored, "epochs": 0.2, "weights": "float32", "learning_rate": 1e-4}
    whole, parts = (
        load_file(Path(train(tmp_path / str(n), micro_batch_size=n, **values)[0]["folder"]) / "model.safetensors")
        for n in (16, 4)
    )
    worst = max((whole[name] - parts[name]).abs().max().item() for name in whole)
    assert worst < 1e-4  # as far as Adam's first steps, of 1e-4 each, let rounding go
    assert all(tensor.dtype == torch.float32 for tensor in whole.values())


def test_record_and_card_say_what_it_is(trained):
    record, _ = trained
    folder = Path(record["folder"])
    kept = files.read_json(folder / "reward.json")
    assert kept == {name: value for name, value in record.items() if name != "folder"}
    assert kept["input"] == {"form": harmfulness.Input().form, "max_tokens": 128, "cut": "right"}
    assert kept["training_rows_cut"] == 0
    assert kept["weights_sha256"] == files.sha256(folder / "model.safetensors")
    card = (folder / "README.md").read_text()
    assert "60 held-out conversations" in card and "`scored.jsonl`" in card
    assert str(folder.parent) not in card and "/scored.jsonl" not in card
    assert "mean squared error of **" in reward_model.finding(record)


def test_cut_rows_are_counted(tmp_path, scored):
    tokenizer = models.load_tokenizer("tiny")
    data = reward_model.prepare(params(data=scored, validation_share=0.25))
    lengths = sorted(len(tokenizer(each.texts[0])["input_ids"]) for each in data.training)
    room = lengths[100]  # of 180
    record, _ = train(tmp_path / "model", data=scored, max_tokens=room, epochs=0.1)
    assert 0 < record["training_rows_cut"] == sum(length > room for length in lengths) < 180


def test_pairs_are_put_in_peoples_order(tmp_path):
    # Of two answers to a prompt the plan was rejected.
    rows = world.labelled_rows()
    plans = [row for row in rows if row["score"] == 4][:200]
    kind = [row["response"] for row in rows if row["score"] == 0][:200]
    pairs = [
        {"prompt": row["prompt"], "chosen": other, "rejected": row["response"]}
        for row, other in zip(plans, kind, strict=True)
    ]
    record, data = train(tmp_path / "model", data=write(tmp_path / "pairs.jsonl", pairs))
    assert data.pairs and record["trained_on"] == "pairs"
    assert record["validation"]["n"] == len(data.validation) >= 50
    assert record["validation"]["accuracy"] >= 0.9
    # The judge's score is the higher, the more harmful.
    judge = harmfulness.build(record["folder"], JudgeParams())
    asked = [{"prompt": plans[0]["prompt"], "response": response} for response in (kind[0], plans[0]["response"])]
    less, more = (judgement.score for judgement in judge.judge(asked))
    assert less < more
    table = reward_model.calibration(record)
    assert table["predicted"].between(0.5, 1).all()
    assert table["n"].sum() == len(data.validation)
    assert "of the held-out pairs in people's order" in reward_model.finding(record)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, trained, scored):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        train(tmp_path, data=scored)
    with pytest.raises(InputError, match="trained with other parameters"):
        train(Path(trained[0]["folder"]), data=scored, epochs=3.0)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_base_that_cannot_be_had_is_bad_input(tmp_path, scored):
    with pytest.raises(InputError, match="base_model: 'nobody'"):
        train(tmp_path / "model", data=scored, base_model="nobody")
    assert not (tmp_path / "model").exists()


# Parameters


def test_the_papers_recipe_fills_what_is_not_set():
    paper = validate(TrainRewardParams, {"recipe": "paper", "epochs": 2.0})
    found = (paper.learning_rate, paper.batch_size, paper.lr_scheduler, paper.seed, paper.max_tokens, paper.epochs)
    assert found == (2e-5, 32, "constant", 42, 512, 2.0)


def test_micro_batches_have_to_fill_the_batch():
    with pytest.raises(InputError, match="micro_batch_size: 5 does not divide batch_size 32"):
        params(micro_batch_size=5)


# Calibration


def test_calibration_by_hand(tmp_path):
    # 40 conversations make two bins of 20: predicted 0 to 19 and 20 to 39, people say 1 and 3.
    lines = ["source,score,predicted"] + [f"mine,{1 if n < 20 else 3},{n}" for n in reversed(range(40))]
    (tmp_path / "predictions.csv").write_text("\n".join(lines))
    table = reward_model.calibration({"folder": str(tmp_path), "trained_on": "scores"})
    assert table["predicted"].tolist() == [9.5, 29.5]
    assert table["observed"].tolist() == [1, 3]
    assert table["n"].tolist() == [20, 20]


def test_calibration_is_drawn_with_its_n(trained):
    import matplotlib.pyplot as plt

    table = reward_model.calibration(trained[0])
    ax = plots.calibration(table)
    points = ax.containers[0].lines[0]
    assert points.get_xdata().tolist() == pytest.approx(table["predicted"].tolist())
    assert points.get_ydata().tolist() == pytest.approx(table["observed"].tolist())
    assert f"n = 60 in {len(table)} bins" in ax.get_legend().get_texts()[-1].get_text()
    assert "n = 60" in plots.calibration_alt(table)
    plt.close(ax.figure)


# The committed model


def test_the_committed_model_is_what_its_record_says():
    record = files.read_json(world.REWARD_DIR / "reward.json")
    defaults = TrainRewardParams()
    assert record["weights_sha256"] == files.sha256(world.REWARD_DIR / "model.safetensors")
    # Of the texts and the parameters as they are: else `python -m safety_nb.reward --out DIR` has to make it anew.
    assert record["data_sha256"] == reward_model.prepare(defaults).sha256()
    assert record["values"] == {k: v for k, v in defaults.model_dump().items() if k != "out"}
    assert (world.REWARD_DIR / "model.safetensors").stat().st_size < 2_000_000


# The notebook


@pytest.mark.usefixtures("kernels")
def test_the_notebook_trains_on_a_file(tmp_path, scored):
    command = []
    for name, value in {"data": scored, "ordinary": "", "epochs": "0.5", "out": "model"}.items():
        command += ["-r" if value in ("", scored, "model") else "-p", name, value]
    done = papermill(stages.notebook_path("train-reward-model"), tmp_path / "out.ipynb", *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    book = (tmp_path / "out.ipynb").read_text()
    assert "image/png" in book and "mean squared error of **" in book
    assert (tmp_path / "model" / "model.safetensors").is_file()


# Real data


@needs_data
def test_preferences_of_people_are_read():
    path = Path(os.environ["SAFETY_NB_DATA"]) / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    data = reward_model.prepare(params(data=str(path)))
    assert data.pairs
    assert len(data.training) + len(data.validation) == 2312
    openings = [{each.prompt for each in part} for part in (data.training, data.validation)]
    assert not openings[0] & openings[1]
    assert all(each.texts[0].startswith("\n\nHuman:") for each in data.training)
