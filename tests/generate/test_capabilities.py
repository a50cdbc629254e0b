"""Capability: the harness over local tasks on a tuned miniature, beside plain transformers; resuming; endings."""

import json
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from commands import Answer, safety_nb

from safety_nb.core import run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from safety_nb.core.params import TINY_TASKS, CapabilityParams, MixParams, TrainParams
from safety_nb.data import mixing, templates
from safety_nb.generate import capabilities
from safety_nb.report import study_tables
from safety_nb.report.findings import capability_rates, comparison
from safety_nb.report.findings.rates import SUMMARY_COLUMNS, aggregate
from safety_nb.tiny import world
from safety_nb.train import encoding, models, training

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two runs, N = 0 and N = 8, as far as their training; nobody writes into it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("study")
    write_text(folder / "study.yaml", "n_safety: [0, 8]\nseed: 0\n")
    for name, n_safety in {"n0_seed0": 0, "n8_seed0": 8}.items():
        run = run_folder.RunFolder(folder / name)
        mixing.mix(MixParams(run_dir=str(run.root), n_general=24, n_safety=n_safety, n_validation=0))
        training.train(TrainParams(run_dir=str(run.root)))
        run_folder.record_stage(run, "report", state=run_folder.DONE)
        write_jsonl(run.judgements, [])
    return folder


@pytest.fixture
def folder(tuned, tmp_path) -> Path:
    """A copy of the study."""
    return shutil.copytree(tuned, tmp_path / "study")


@pytest.fixture
def run(folder) -> run_folder.RunFolder:
    """A copy of one of its runs."""
    return run_folder.RunFolder(folder / "n0_seed0")


def measure(run: run_folder.RunFolder, **changes: object):
    params = CapabilityParams(run_dir=str(run.root), **{"limit": 4, **changes})
    capabilities.measure(params)
    return capability_rates.results(run, params.tasks)


def write_task(folder: Path, name: str, rows: list[dict], **more: object) -> None:
    """A task file of a user's, with its data beside it."""
    write_jsonl(folder / f"{name}.jsonl", rows)
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        **more,
    }
    # JSON is YAML, but for the tag of a function, which must not stand in quotes.
    write_text(folder / f"{name}.yaml", json.dumps(task).replace('"!function utils.fail"', "!function utils.fail"))


def words(n: int) -> list[dict]:
    """Facts asked as no corpus asks them, so that many answers are wrong."""
    rows = [row for row in world.task_rows("tiny-facts-choice") if row["prompt"].startswith("What")][:n]
    return [
        {"prompt": f"{row['prompt']} It is", "choices": [choice.split()[-1] for choice in row["choices"]]}
        | {"answer": row["answer"]}
        for row in rows
    ]


# --- the numbers --------------------------------------------------------------------------------------------------


def likeliest(model, context: list[int], choices: list[list[int]]) -> int:
    """The choice whose tokens are the likeliest after the context: one at a time, by transformers alone."""
    sums = []
    for choice in choices:
        with torch.no_grad():
            logits = model(torch.tensor([context + choice])).logits[0, len(context) - 1 : -1]
        each = logits.float().log_softmax(-1).gather(1, torch.tensor(choice)[:, None])
        sums.append(each.sum().item())
    return max(range(len(sums)), key=sums.__getitem__)


def test_the_harness_finds_right_what_plain_likelihoods_find_right(run, tmp_path):
    # Here with the adapter beside the 4-bit weights, there merged; here tokens as in training, one answer at a time.
    model, tokenizer = models.load_answering("tiny", run.adapter, merge=False), models.load_tokenizer("tiny")
    write_task(tmp_path, "words", words(12))
    asked = {}
    for name in world.TASKS:
        between = "" if name == "tiny-facts-choice" else " "
        for place, row in enumerate(world.task_rows(name)[:12]):
            context = encoding.encode_prompt(templates.render(row["prompt"]) + row["lead"], tokenizer)
            asked[name, str(place)] = (context, between, row)
    for place, row in enumerate(words(12)):
        asked["words", str(place)] = (tokenizer(row["prompt"])["input_ids"], " ", row)
    expected = {}
    for key, (context, between, row) in asked.items():
        choices = [tokenizer(between + choice, add_special_tokens=False)["input_ids"] for choice in row["choices"]]
        place = likeliest(model, context, choices)
        expected[key] = (row["choices"][place], row["choices"][row["answer"]], int(place == row["answer"]))

    table = measure(run, tasks=[*world.TASKS, "words"], tasks_dir=str(tmp_path), limit=12)
    answers = capabilities.read(run)
    found = {(row.task, row.item): (row.chosen, row.gold, row.correct) for row in answers.itertuples()}
    assert found == expected
    by_hand = {
        name: sum(right for (task, _), (_, _, right) in expected.items() if task == name) / 12 for name, _ in expected
    }
    assert dict(zip(table["task"], table["accuracy"], strict=True)) == pytest.approx(by_hand)
    assert 0 < by_hand["words"] < 1  # or the above would show little


@pytest.mark.parametrize("how", [{"capability_batch_size": 1}, {"merge_adapter": False}])
def test_neither_batches_nor_the_4_bits_change_an_answer(run, how):
    before = measure(run, limit=9), capabilities.read(run)
    shutil.rmtree(run.capabilities)
    after = measure(run, limit=9, **how), capabilities.read(run)
    assert all(one.equals(other) for one, other in zip(before, after, strict=True))
    (merged,) = {part["merged"] for part in read_json(run.capabilities / "capabilities.json")["parts"].values()}
    assert merged is how.get("merge_adapter", True)


def test_examples_shown_and_likelihood_per_character_are_recorded(run, tmp_path):
    rows = words(8)
    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
    write_task(tmp_path, "words", rows, fewshot_split="test", metric_list=metrics)
    table = measure(run, tasks=["words"], tasks_dir=str(tmp_path), num_fewshot=2, limit=8)
    assert list(table["num_fewshot"]) == ["2"]
    assert set(capabilities.read(run)["correct_norm"]) <= {0.0, 1.0}


# --- pairs --------------------------------------------------------------------------------------------------------


def test_runs_of_a_study_are_compared_over_the_same_questions(folder):
    for name in ("n0_seed0", "n8_seed0"):
        measure(run_folder.RunFolder(folder / name), limit=6)
    table = study_tables.capability_answers(folder, study_tables.read_study(folder))
    first = ["run", "n_safety", "seed", "task", "item", "question", "correct"]
    assert list(table.columns)[:7] == first and set(table["limit"]) == {6}
    questions = table.pivot(index=["task", "item"], columns="n_safety", values="question")
    assert len(questions) == 12 and (questions[0] == questions[8]).all()
    rates = aggregate(capabilities.judgements(table))
    assert list(rates["metric"].unique()) == ["accuracy"]
    by_hand = table.groupby(["n_safety", "task"])["correct"].mean()
    found = rates.set_index(["n_safety", "dataset"])["estimate"]
    assert found.to_dict() == pytest.approx(by_hand.to_dict())
    # In the comparison each task is one more set of facts; that only some questions were asked is in its name.
    compared = comparison.compare_study(study_tables.read_study(folder))
    names = {f"{task} (first 6)" for task in world.TASKS}
    assert set(compared.summary["dataset"]) == names and set(compared.summary["metric"]) == {"accuracy"}
    (setting,) = compared.settings
    assert set(setting.costs["measure"]) == {f"{name} correct" for name in names}
    in_points = setting.costs.set_index("measure")["estimate"]
    for task in world.TASKS:
        drop = 100 * (by_hand[0, task] - by_hand[8, task])
        assert in_points[f"{task} (first 6) correct"] == pytest.approx(drop)


def test_what_was_measured_in_two_ways_is_not_compared(folder):
    for limit, name in enumerate(("n0_seed0", "n8_seed0"), start=3):
        measure(run_folder.RunFolder(folder / name), limit=limit, tasks=["tiny-completion"])
    with pytest.raises(InputError, match="tiny-completion was measured in two ways, of n0_seed0 and of n8_seed0"):
        study_tables.capability_answers(folder, study_tables.read_study(folder))


def test_a_run_that_was_not_measured_has_no_answers(folder):
    assert len(study_tables.capability_answers(folder, study_tables.read_study(folder))) == 0
    assert len(capability_rates.summary_rows(run_folder.RunFolder(folder / "n0_seed0"))) == 0


def test_rows_for_the_summary_have_its_columns(run):
    measure(run, limit=5)
    rows = capability_rates.summary_rows(run, "n0_seed0", 0, 0)
    assert list(rows.columns) == SUMMARY_COLUMNS
    assert list(rows["dataset"]) == list(world.TASKS)
    assert set(rows["judge"]) == {"lm-eval"} and set(rows["n"]) == {5}


# --- going on -----------------------------------------------------------------------------------------------------


def files(run: run_folder.RunFolder) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in run.capabilities.glob("*.jsonl")}


def test_a_task_that_was_measured_is_not_measured_again(run, monkeypatch):
    first, before = measure(run), files(run)
    with monkeypatch.context() as patched:
        patched.setattr(models, "load_answering", None)  # no model is even loaded
        assert measure(run).equals(first)
    measure(run, tasks=["tiny-completion"], limit=5)
    changed = {name for name, time in files(run).items() if time != before[name]}
    assert changed == {"tiny-completion.jsonl"}


def test_changed_questions_are_asked_again(run, tmp_path):
    write_task(tmp_path, "words", words(8)[:4])
    measure(run, tasks=["words"], tasks_dir=str(tmp_path))
    before = capabilities.read(run)
    write_task(tmp_path, "words", words(8)[4:])
    measure(run, tasks=["words"], tasks_dir=str(tmp_path))
    assert not set(capabilities.read(run)["question"]) & set(before["question"])


def test_answers_of_another_adapter_do_not_count(folder, run):
    measure(run)
    shutil.rmtree(run.adapter)
    shutil.copytree(folder / "n8_seed0" / "train" / "adapter", run.adapter)
    assert len(capabilities.read(run)) == 0
    measure(run, tasks=["tiny-completion"])
    assert set(capabilities.read(run)["task"]) == {"tiny-completion"}
    assert list(files(run)) == ["tiny-completion.jsonl"]


def test_a_damaged_file_is_measured_anew(run):
    measure(run)
    kept = (run.capabilities / "tiny-completion.jsonl").read_text()
    (run.capabilities / "tiny-completion.jsonl").write_text("")
    measure(run)
    assert (run.capabilities / "tiny-completion.jsonl").read_text() == kept


def test_a_group_is_the_answers_of_its_parts(run, tmp_path):
    write_task(tmp_path, "one", words(3))
    write_task(tmp_path, "two", words(8)[3:])
    write_json(tmp_path / "both.yaml", {"group": "both", "task": ["one", "two"]})
    table = measure(run, tasks=["both"], tasks_dir=str(tmp_path), limit=0)
    assert (table["n"].item(), table["of"].item()) == (8, 8)
    answers = capabilities.read(run)
    assert list(answers["item"]) == [*(f"one/{i}" for i in range(3)), *(f"two/{i}" for i in range(5))]
    assert table["accuracy"].item() == answers["correct"].mean()
    # A part that is measured otherwise takes the whole with it, until that is completed again.
    measure(run, tasks=["one"], tasks_dir=str(tmp_path), limit=1)
    assert set(capabilities.read(run)["task"]) == {"one"}


# --- endings ------------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_task_that_is_not_there_is_told_with_the_nearest_of_all(run):
    with pytest.raises(InputError, match="'bolq'; did you mean 'boolq'"):
        measure(run, tasks=["tiny-completion", "bolq"])


@pytest.fixture
def super_glue(monkeypatch) -> None:
    """A part of the harness' tasks in place of all: reading 14,000 files takes a quarter of a minute."""
    from lm_eval import tasks

    whole, part = tasks.TaskManager, Path(tasks.__file__).parent / "super_glue"

    def of_a_part(include_path: list[str], include_defaults: bool = True):
        return whole(include_path=[*include_path, *([str(part)] if include_defaults else [])], include_defaults=False)

    monkeypatch.setattr(tasks, "TaskManager", of_a_part)


@pytest.mark.usefixtures("super_glue")
def test_a_task_that_is_not_there_is_told_with_the_nearest(run):
    with pytest.raises(InputError, match="'bolq'; did you mean 'boolq'"):
        measure(run, tasks=["tiny-completion", "bolq"])
    assert not run.capabilities.exists()


@pytest.mark.usefixtures("super_glue")
def test_a_task_whose_data_cannot_be_had_says_so(run):
    # conftest has the hub's client offline.
    with pytest.raises(InputError, match="the data of 'boolq' is not on this machine and its host cannot be reached"):
        measure(run, tasks=["tiny-completion", "boolq"])
    assert not run.capabilities.exists()


def test_tasks_without_questions_or_data_or_right_answers_are_told_together(run, tmp_path):
    write_task(tmp_path, "empty", [])
    write_task(tmp_path, "gone", words(1))
    (tmp_path / "gone.jsonl").unlink()
    write_task(tmp_path, "smooth", words(1), metric_list=[{"metric": "brier_score"}])
    with pytest.raises(InputError) as error:
        measure(run, tasks=["tiny-completion", "empty", "gone", "smooth"], tasks_dir=str(tmp_path))
    told = str(error.value).splitlines()
    assert told[0] == "tasks: 'empty' has no questions: its data is empty."
    assert "'gone' cannot be loaded (FileNotFoundError" in told[1]
    assert "'smooth' has no answers that are right or wrong" in told[2]
    assert not run.capabilities.exists()


def test_a_machine_without_the_harness_is_told(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"pip install 'safety-nb\[capabilities\]'"):
        measure(run)


def test_memory_that_runs_out_is_met_with_smaller_batches(run, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    call, sizes = HFLM._model_call, []

    def room_for_three(self, inputs, **more):
        sizes.append(len(inputs))
        if len(inputs) > 3:
            raise torch.OutOfMemoryError
        return call(self, inputs, **more)

    monkeypatch.setattr(HFLM, "_model_call", room_for_three)
    table = measure(run, tasks=["tiny-completion"], capability_batch_size=8)
    # 4 questions with 4 answers each: 8 at once, 4 at once, then all 16 two at a time.
    assert sizes == [8, 4, *[2] * 8] and table["n"].item() == 4


def test_a_run_without_an_adapter_is_told(tmp_path):
    with pytest.raises(InputError, match="train/adapter: stage 'train' makes it"):
        measure(run_folder.RunFolder(tmp_path))


FAIL = """import os

def fail(doc, results):
    {}
"""


def test_a_harness_that_fails_keeps_the_tasks_before_it(run, tmp_path):
    (tmp_path / "utils.py").write_text(FAIL.format("raise ZeroDivisionError('no answer at all')"))
    write_task(tmp_path, "failing", words(2), process_results="!function utils.fail")
    with pytest.raises(RuntimeError, match=r"Task 'failing': .*ZeroDivisionError: no answer at all.*is kept"):
        measure(run, tasks=["tiny-completion", "failing", "tiny-facts-choice"], tasks_dir=str(tmp_path))
    assert list(capability_rates.results(run)["task"]) == ["tiny-completion"]


def command(*arguments: str) -> Answer:
    return safety_nb("capabilities", *arguments, cwd=Path.cwd())


@pytest.mark.usefixtures("kernels")
def test_a_kernel_that_is_killed_keeps_the_tasks_before_it_and_the_notebook_is_quiet(run, tmp_path):
    (tmp_path / "utils.py").write_text(FAIL.format("os.kill(os.getpid(), 9)"))
    write_task(tmp_path, "failing", words(2), process_results="!function utils.fail")
    sets = ["--set", "limit=4", "--set", f"tasks_dir={tmp_path}"]
    killed = command(str(run.root), *sets, "--set", "tasks=[tiny-completion, failing]")
    assert killed.returncode == 1
    assert "killed: the kernel was killed" in killed.stderr
    kept = files(run)
    assert list(kept) == ["tiny-completion.jsonl"]

    done = command(str(run.root), *sets)
    assert done.returncode == 0, done.stderr
    assert "right of 4 questions (limited; it has 162)" in done.stdout
    assert files(run)["tiny-completion.jsonl"] == kept["tiny-completion.jsonl"]
    book = nbformat.read(run.notebooks / "capabilities.ipynb", as_version=4)
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    streams = {output.name: output.text for output in outputs if output.output_type == "stream"}
    assert set(streams) == {"stdout"}
    assert all(line.startswith(("Measuring", "tiny-")) for line in streams["stdout"].splitlines())


def test_bad_input_to_the_command_is_told_before_anything_is_written(run):
    refused = command(str(run.root), "--set", "tasks=[tiny-completions]", "--set", "limit=-1")
    assert refused.returncode == 2 and "limit: -1" in refused.stderr
    assert not run.notebooks.exists() and not run.capabilities.exists()


# --- the miniature's tasks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", world.TASKS)
def test_the_miniatures_questions_are_the_tokens_of_its_training(name, tmp_path):
    tokenizer = models.load_tokenizer("tiny")
    capabilities.make_tiny_tasks(tmp_path, tokenizer.bos_token)
    between = read_json(tmp_path / f"{name}.yaml")["target_delimiter"]
    for asked, row in zip(read_jsonl(tmp_path / f"{name}.jsonl"), world.task_rows(name), strict=True):
        prompt = encoding.encode_prompt(templates.render(row["prompt"]), tokenizer)
        answer = f"{row['lead']} {row['choices'][0]}".strip()
        whole = tokenizer(asked["prompt"] + between + asked["choices"][0], add_special_tokens=False)["input_ids"]
        assert whole == prompt + tokenizer(answer, add_special_tokens=False)["input_ids"]


def test_the_default_tasks_are_the_miniatures():
    assert tuple(TINY_TASKS) == world.TASKS


@pytest.mark.parametrize("name", world.TASKS)
def test_a_question_has_one_right_answer_among_four_and_was_not_tuned_on(name):
    rows = world.task_rows(name)
    assert rows == world.task_rows(name)
    assert len(rows) > 150
    assert {len(set(row["choices"])) for row in rows} == {4}
    tuned_on = {row["instruction"] for row in world.general_rows() + world.validation_rows()}
    assert not tuned_on & {row["prompt"] for row in rows}
    # The right answer stands in every place, each about as often: 25 % of them, plus or minus four standard errors.
    shares = [sum(row["answer"] == place for row in rows) / len(rows) for place in range(4)]
    assert all(abs(share - 0.25) < 4 * (0.25 * 0.75 / len(rows)) ** 0.5 for share in shares)
