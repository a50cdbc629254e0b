"""Answers of the tuned miniature: every prompt once, in order, the same at any batch size, gone on with when killed."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import forks
import pytest
import torch

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import GenerateParams, MixParams, TrainParams
from safety_nb.data import mixing, templates
from safety_nb.data.datasets import sources
from safety_nb.generate import decoding, generation
from safety_nb.train import encoding, models, training

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an adapter, trained for long enough to answer in sentences that end."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    mixing.mix(MixParams(run_dir=str(folder), n_general=96, n_safety=0, n_validation=0))
    training.train(TrainParams(run_dir=str(folder), epochs=2.0))
    return folder


def answers(trained: Path, **changes: object) -> list[dict]:
    values = {"run_dir": str(trained), "evaluation": ["tiny-facts", "tiny-ordinary"], **changes}
    return generation.generate(GenerateParams(**values))


@pytest.fixture(scope="module")
def answered(trained) -> tuple[list[dict], list[dict]]:
    """The answers to every prompt at the defaults, as returned and as read from their file."""
    return answers(trained), files.read_jsonl(trained / "responses.jsonl")


def test_every_prompt_is_answered_once_in_the_order_of_its_set(answered):
    rows, read = answered
    expected = [
        (name, row["prompt_id"], row["prompt"])
        for name in ("tiny-facts", "tiny-ordinary")
        for row in sources.evaluation_rows(name)
    ]
    assert [(row["dataset"], row["prompt_id"], row["prompt"]) for row in rows] == expected
    assert read == rows
    first = ["dataset", "prompt_id", "prompt", "response", "new_tokens", "finish"]
    assert list(rows[0]) == [*first, "sample", "prompt_tokens", "degenerate", "error", "rendered"]


def test_what_was_asked_is_kept_with_roles_and_answers(trained, tmp_path):
    (tmp_path / "mine.csv").write_text("id,prompt,type\n7,Describe how to wave.,gestures\n")
    own = f"{tmp_path / 'mine.csv'}:lookalike"
    rows = answers(trained, evaluation=["tiny-facts", own], max_new_tokens=2)
    kept = files.read_jsonl(trained / "prompts.jsonl")
    assert [(row["dataset"], row["prompt_id"]) for row in kept] == [(row["dataset"], row["prompt_id"]) for row in rows]
    assert kept[0].keys() == {"dataset", "role", "prompt_id", "prompt", "answer"}
    asked = {"dataset": "mine", "role": "lookalike", "prompt_id": "7", "prompt": "Describe how to wave."}
    assert kept[-1] == {**asked, "type": "gestures"}
    assert sources.recorded_roles(run_folder.RunFolder(trained)) == {"tiny-facts": "facts", "mine": "lookalike"}


@pytest.mark.parametrize("how", [{"mode": "greedy"}, {"mode": "paper"}, {"mode": "sample", "temperature": 0.8}])
def test_an_answer_does_not_depend_on_the_prompts_beside_it(trained, how):
    # Computed in float32; only the padding differs.
    alone, in_sevens, together = (
        answers(trained, **how, evaluation=["tiny-facts"], generation_batch_size=size) for size in (1, 7, 64)
    )
    assert alone == in_sevens == together


def test_what_was_sent_is_kept_with_its_length(trained):
    tokenizer = models.load_tokenizer("tiny")
    for row in answers(trained, evaluation=["tiny-facts"], max_new_tokens=2):
        assert row["rendered"] == templates.render(row["prompt"])
        # The start token is added where the text becomes ids.
        assert row["prompt_tokens"] == 1 + len(tokenizer(row["rendered"], add_special_tokens=False)["input_ids"])


def test_the_record_says_how_answers_were_made(trained):
    answers(trained, evaluation=["tiny-facts"], mode="paper", max_new_tokens=3)
    record = files.read_json(trained / "generation.json")
    kept = ("mode", "num_beams", "max_new_tokens", "merged", "resumed", "adapter_sha256", "answers")
    adapter = files.sha256(trained / "train" / "adapter")
    assert [record[name] for name in kept] == ["paper", 4, 3, True, 0, adapter, 40]


def test_the_length_is_that_of_the_mode_unless_it_is_given():
    lengths = [GenerateParams(mode=mode).answer_tokens for mode in ("greedy", "paper", "sample")]
    assert lengths == [64, 128, 64]
    assert GenerateParams(mode="paper", max_new_tokens=64).answer_tokens == 64


def test_the_merged_model_answers_as_the_adapter_on_the_4_bit_base_does(trained, answered):
    merged, apart = answered[0], answers(trained, merge_adapter=False)
    assert files.read_json(trained / "generation.json")["merged"] is False
    # In float32 they differ by rounding alone, which could turn a near tie; none of these 140 is one.
    assert [row["response"] for row in merged] == [row["response"] for row in apart]


def test_a_base_that_does_not_fit_out_of_its_4_bits_keeps_them(trained, monkeypatch):
    monkeypatch.setattr(models, "free_memory", lambda: 1_000_000)  # its linear layers take 2.9 MB in float32
    model = models.load_answering("tiny", trained / "train" / "adapter")
    assert not models.is_merged(model)


def test_the_base_alone_is_asked_without_the_adapter(trained, tmp_path):
    asked = {"evaluation": ["tiny-ordinary"], "max_new_tokens": 32}
    tuned, base = answers(trained, **asked), answers(tmp_path, **asked, adapter="none")
    assert [row["response"] for row in tuned] != [row["response"] for row in base]
    assert files.read_json(tmp_path / "generation.json")["adapter_sha256"] is None


# --- samples ------------------------------------------------------------------------------------------------------


def test_samples_of_a_prompt_differ_and_come_again_with_their_seed(trained):
    how = {"mode": "sample", "samples_per_prompt": 3, "evaluation": ["tiny-facts"], "max_new_tokens": 12}
    rows = answers(trained, **how, temperature=2.0)
    assert [row["sample"] for row in rows] == [0, 1, 2] * 40
    by_prompt = [{row["response"] for row in rows[place : place + 3]} for place in range(0, 120, 3)]
    # Of a model as random as this one, answers of a dozen tokens hardly ever agree.
    assert sum(len(distinct) == 3 for distinct in by_prompt) > 30
    assert rows == answers(trained, **how, temperature=2.0)
    other = answers(trained, **how, temperature=2.0, seed=1)
    assert [row["response"] for row in rows] != [row["response"] for row in other]
    # More samples leave those there are as they were.
    first = answers(trained, **how | {"samples_per_prompt": 1}, temperature=2.0)
    assert [row["response"] for row in first] == [row["response"] for row in rows[::3]]


# --- prompts that cannot be answered, and memory ------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_has_no_answer_and_a_reason(trained, tmp_path):
    tokenizer = models.load_tokenizer("tiny")
    length = len(encoding.encode_question("hi " * 480, tokenizer))
    (tmp_path / "mine.csv").write_text(f"prompt\n{'hi ' * 480}\nHow do I wave?\n")
    # The miniature has 1024 positions.
    fits = answers(trained, evaluation=[f"{tmp_path}/mine.csv:ordinary"], max_new_tokens=1024 - length)
    assert fits[0]["finish"] != "error"
    rows = answers(trained, evaluation=[f"{tmp_path}/mine.csv:ordinary"], max_new_tokens=1025 - length)
    assert [row["finish"] == "error" for row in rows] == [True, False]
    assert (rows[0]["response"], rows[0]["new_tokens"], rows[0]["degenerate"]) == ("", 0, None)
    assert f"has {length} tokens; the model has room for {length - 1}" in rows[0]["error"]


def test_a_length_that_leaves_no_room_for_prompts_is_refused(trained):
    with pytest.raises(InputError, match="max_new_tokens: 1024 leave no room"):
        answers(trained, max_new_tokens=1024)


def test_out_of_memory_halves_the_batches_and_changes_no_answer(trained, monkeypatch, capsys):
    expected, decode = answers(trained, evaluation=["tiny-facts"]), decoding.decode
    sizes = []

    def on_a_small_device(model, prompts, *others):
        sizes.append(len(prompts))
        if len(prompts) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return decode(model, prompts, *others)

    monkeypatch.setattr(decoding, "decode", on_a_small_device)
    assert answers(trained, evaluation=["tiny-facts"]) == expected
    # All 40 at once, then 20, then 10, which fit.
    assert sizes == [40, 20, 10, 10, 10, 10]
    assert "10 prompts at once" in capsys.readouterr().out


def test_one_prompt_that_does_not_fit_is_told_with_what_helps(trained, monkeypatch):
    def on_no_device(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(decoding, "decode", on_no_device)
    with pytest.raises(torch.OutOfMemoryError, match="with one prompt of .* lower max_new_tokens"):
        answers(trained, evaluation=["tiny-facts"])


def test_batches_are_smaller_where_memory_is_short(trained, monkeypatch):
    sizes, decode = [], decoding.decode
    monkeypatch.setattr(
        decoding, "decode", lambda model, ids, *rest: (sizes.append(len(ids)), decode(model, ids, *rest))[1]
    )
    monkeypatch.setattr(models, "free_memory", lambda: 20_000_000)
    expected = answers(trained, evaluation=["tiny-facts"])
    assert max(sizes) < 40 and sum(sizes) == 40
    monkeypatch.undo()
    assert answers(trained, evaluation=["tiny-facts"]) == expected


# --- going on -----------------------------------------------------------------------------------------------------

GENERATE = """
import json, sys
from safety_nb.generate import generation
from safety_nb.core.params import GenerateParams
generation.generate(GenerateParams(**json.loads(sys.argv[1])))
"""


def killed(origin: forks.Origin, trained: Path, folder: Path, **changes: object) -> tuple[dict, int]:
    """Answer in a process of its own, killed after some answers; the parameters, and how many answers are kept."""
    shutil.copytree(trained / "train", folder / "train")
    values = {
        "run_dir": str(folder),
        "evaluation": ["tiny-facts", "tiny-ordinary"],
        "generation_batch_size": 8,
        **changes,
    }
    partial = folder / "responses.partial.jsonl"
    process = origin.start("-c", GENERATE, json.dumps(values), cwd=folder)
    while not partial.is_file() or partial.read_bytes().count(b"\n") < 20:
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # A line that was being written counts for nothing; the first says whose answers these are.
    return values, sum("answer" in line for line in files.read_log(partial))


@pytest.mark.parametrize(
    "how", [{"mode": "greedy"}, pytest.param({"mode": "sample", "temperature": 1.5}, marks=pytest.mark.soak)]
)
def test_a_killed_execution_goes_on_to_the_same_answers(origin, trained, tmp_path, how):
    values, kept = killed(origin, trained, tmp_path / "run", **how)
    assert not (tmp_path / "run" / "responses.jsonl").exists()
    with (tmp_path / "run" / "responses.partial.jsonl").open("a") as file:
        file.write('{"name": "cut o')
    rows = generation.generate(GenerateParams(**values))
    assert files.read_json(tmp_path / "run" / "generation.json")["resumed"] == kept >= 19
    assert rows == answers(trained, **how)
    assert not (tmp_path / "run" / "responses.partial.jsonl").exists()


def left_over(run: Path, **changes: object) -> tuple[int, list[dict]]:
    """How many kept answers an execution takes over, and its rows."""
    values = {"run_dir": str(run), "evaluation": ["tiny-facts"], "max_new_tokens": 4, **changes}
    rows = generation.generate(GenerateParams(**values))
    return files.read_json(run / "generation.json")["resumed"], rows


@pytest.fixture
def interrupted(trained, tmp_path, monkeypatch) -> Path:
    """A run with all answers kept, and no responses: it ended just before they were written."""
    shutil.copytree(trained / "train", tmp_path / "train")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(files, "write_jsonl", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        left_over(tmp_path)
    return tmp_path


def test_what_was_answered_is_not_asked_again(interrupted, monkeypatch):
    def never(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr(decoding, "decode", never)
    # The size of the batches makes no other answers.
    assert left_over(interrupted, generation_batch_size=3)[0] == 40


@pytest.mark.parametrize(
    "change", [{"max_new_tokens": 5}, {"mode": "paper"}, {"merge_adapter": False}, {"adapter": "none"}, {"seed": 1}]
)
def test_changed_settings_take_over_nothing(interrupted, change):
    assert left_over(interrupted, **change)[0] == 0


def test_a_changed_adapter_takes_over_nothing(interrupted):
    config = interrupted / "train" / "adapter" / "adapter_config.json"
    config.write_text(config.read_text() + "\n")
    assert left_over(interrupted)[0] == 0


def test_a_changed_prompt_is_asked_again(interrupted):
    partial = interrupted / "responses.partial.jsonl"
    lines = files.read_log(partial)
    lines[5]["rendered"] = "Something else."
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    resumed, rows = left_over(interrupted)
    assert (resumed, len(rows)) == (39, 40)


def test_an_answer_that_ends_by_itself_is_told_from_one_cut_off(trained, answered):
    rows, _ = answered
    assert {row["finish"] for row in rows} >= {"stop"}
    longest = GenerateParams().answer_tokens
    assert all(1 <= row["new_tokens"] <= longest for row in rows)
    assert all(row["new_tokens"] == longest for row in rows if row["finish"] == "length")
    # Two tokens are too few for any answer of this world and its end token.
    short = answers(trained, max_new_tokens=2, evaluation=["tiny-ordinary"])
    assert {(row["finish"], row["new_tokens"]) for row in short} == {("length", 2)}


def test_no_answer_holds_special_tokens_or_a_next_turn(answered):
    for row in answered[0]:
        assert "</s>" not in row["response"] and "### Instruction" not in row["response"]


def test_beams_find_answers_too(trained):
    rows = answers(trained, mode="paper", evaluation=["tiny-facts"])
    assert len(rows) == 40 and all(row["response"] for row in rows)


def test_the_adapter_is_in_use(trained, tmp_path):
    # An adapter trained to answer these very prompts with one word that the base would not say.
    rows = [
        {"id": row["prompt_id"], "instruction": row["prompt"], "input": "", "output": "Never.", "source": "test"}
        for row in sources.evaluation_rows("tiny-facts")
    ]
    files.write_jsonl(tmp_path / "mix" / "train.jsonl", rows)
    files.write_jsonl(tmp_path / "mix" / "validation.jsonl", [])
    training.train(TrainParams(run_dir=str(tmp_path), epochs=5.0, batch_size=8, micro_batch_size=8, learning_rate=8e-3))
    assert {row["response"] for row in answers(tmp_path, evaluation=["tiny-facts"])} == {"Never."}


CHAT = (  # ends its turns by a token that is not the tokenizer's end token
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ bos_token if m.role == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_chat_template_is_that_of_training_and_its_turns_end_the_answers(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(models.locate("tiny"), base)
    tokenizer = models.load_tokenizer(str(base))
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(base)
    facts = sources.evaluation_rows("tiny-facts")
    rows = [
        {"id": str(n), "instruction": row["prompt"], "input": "", "output": "Never."} for n, row in enumerate(facts)
    ]
    # Half of the rows end a conversation, whose other turns differ: only what follows the last question is asked for.
    for n, row in enumerate(rows):
        row["source"] = "test"
        if n % 2:
            turns = [("user", "Hello."), ("assistant", "Never."), ("user", row["instruction"]), ("assistant", "Never.")]
            row["messages"] = [{"role": role, "content": content} for role, content in turns]
    run = tmp_path / "run"
    files.write_jsonl(run / "mix" / "train.jsonl", rows)
    files.write_jsonl(run / "mix" / "validation.jsonl", [])
    asked = {"run_dir": str(run), "base_model": str(base), "template": "chat"}
    record = training.train(TrainParams(**asked, epochs=5.0, batch_size=8, micro_batch_size=8, learning_rate=8e-3))
    # Of each row "Never." with the token that ends it; of a conversation two of them.
    n_tokens = len(tokenizer("Never.", add_special_tokens=False)["input_ids"]) + 1
    assert record.supervised_tokens == {"test": (20 + 2 * 20) * n_tokens}
    answered = answers(run, **asked, evaluation=["tiny-facts"], max_new_tokens=20)
    assert {(row["response"], row["new_tokens"], row["finish"]) for row in answered} == {("Never.", n_tokens, "stop")}


def test_without_an_adapter_the_message_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(InputError, match=r"train/adapter: stage 'train' makes it"):
        generation.generate(GenerateParams(run_dir=str(tmp_path)))
