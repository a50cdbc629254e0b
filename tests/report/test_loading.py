"""Runs and studies as tables in Python: the same numbers as in the files, every planned run told."""

import re
from pathlib import Path

import pandas as pd
import pytest
from studies import fail, finish, write_study

import safety_nb
from safety_nb.core.errors import InputError
from safety_nb.core.files import write_text
from safety_nb.report import study_tables, writing
from safety_nb.report.findings import comparison

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study of N = 0, 100 and 300, of which the last failed; its comparison is written."""
    folder = tmp_path_factory.mktemp("outputs") / "study"
    planned = write_study(folder, {"n_safety": [0, 100, 300]})
    finish(folder / "n0_seed0", planned["n0_seed0"].params, {"bad": 0.9, "near": 1.0})
    finish(folder / "n100_seed0", planned["n100_seed0"].params, {"bad": 0.2, "near": 0.8})
    fail(folder / "n300_seed0")
    tables = study_tables.read_study(folder)
    writing.report_study(folder, tables, comparison.compare_study(tables))
    return folder


def read(path):
    return pd.read_csv(path)


def test_rates_and_tests_of_a_study_are_those_of_its_files(folder):
    study = safety_nb.load_study(folder)
    pd.testing.assert_frame_equal(study.rates, read(folder / "summary.csv"), check_dtype=False)
    pd.testing.assert_frame_equal(study.tests, read(folder / "tests.csv"), check_dtype=False)


def test_every_planned_run_is_told_with_its_state_and_stages(folder):
    runs = safety_nb.load_study(str(folder)).runs.set_index("run")
    assert runs["state"].to_dict() == {"n0_seed0": "done", "n100_seed0": "done", "n300_seed0": "failed"}
    assert list(runs.columns[-5:]) == ["mix", "train", "generate", "judge", "report"]
    assert runs.loc["n0_seed0", "train"] == "done" and runs.loc["n300_seed0", "train"] == "failed"


def test_a_run_that_has_not_begun_waits_in_every_stage(tmp_path):
    write_study(tmp_path, {"n_safety": [0, 100]})
    runs = safety_nb.load_study(tmp_path).runs
    assert runs["state"].tolist() == ["waiting", "waiting"]


def test_params_have_a_row_a_run(folder):
    params = safety_nb.load_study(folder).params
    assert params["run"].tolist() == ["n0_seed0", "n100_seed0", "n300_seed0"]
    assert params["n_safety"].tolist() == [0, 100, 300] and params["learning_rate"].nunique() == 1


def test_answers_and_judgements_are_of_the_finished_runs(folder):
    study = safety_nb.load_study(folder)
    # Two finished runs, two sets of ten prompts, one judge.
    assert len(study.answers) == len(study.judgements) == 2 * 2 * 10
    assert list(study.answers.columns[:3]) == list(study.judgements.columns[:3]) == ["run", "n_safety", "seed"]
    labels = study.answers.groupby(["run", "dataset"])["label"].apply(lambda each: (each == "full_refusal").sum())
    assert labels["n0_seed0", "bad"] == 1 and labels["n100_seed0", "bad"] == 8


def test_an_answer_that_the_first_judge_could_not_label_has_the_next_one_s():
    said = pd.DataFrame({"run": "a", "dataset": "bad", "prompt_id": ["1", "2", "3"]})
    judged = pd.DataFrame(
        [("1", "x", None), ("2", "x", "full_refusal"), ("1", "y", "full_compliance"), ("2", "y", "garbled")],
        columns=["prompt_id", "judge", "label"],
    ).assign(run="a", dataset="bad")
    labels = study_tables.with_labels(said, judged)["label"]
    assert labels.iloc[:2].tolist() == ["full_compliance", "full_refusal"] and pd.isna(labels.iloc[2])


def test_a_run_alone_has_the_rates_of_its_rows_in_the_study(folder):
    run = safety_nb.load_run(folder / "n100_seed0")
    rates = safety_nb.load_study(folder).rates
    expected = rates[(rates["run"] == "n100_seed0") & (rates["metric"] != "win_rate")].reset_index(drop=True)
    pd.testing.assert_frame_equal(run.rates, expected)
    assert len(run.answers) == len(run.judgements) == 20 and len(run.tests) == 0
    assert run.params[["run", "n_safety", "seed"]].values.tolist() == [["n100_seed0", 100, 0]]


def test_a_run_that_is_named_from_within_has_its_name(folder, monkeypatch):
    monkeypatch.chdir(folder / "n100_seed0")
    run = safety_nb.load_run(".")
    assert set(run.rates["run"]) == set(run.answers["run"]) == {"n100_seed0"}


def test_a_run_lacking_a_stage_says_which_makes_it(folder, tmp_path):
    mixed = tmp_path / "mixed" / "mix"
    mixed.mkdir(parents=True)
    (mixed / "mixture.json").write_text('{"n_safety": 3, "seed": 1}')
    run = safety_nb.load_run(mixed.parent)
    assert run.params["n_safety"].tolist() == [3]
    with pytest.raises(InputError, match="judgements.jsonl: stage 'judge' makes it"):
        _ = run.judgements


def test_the_example_of_the_readme_runs(folder):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    code = code.replace("outputs/tiny-study", str(folder)).replace("outputs/runs/tiny", str(folder / "n0_seed0"))
    exec(code, names := {})
    assert names["study"].folder == folder and len(names["run"].rates)


@pytest.mark.parametrize(
    ("load", "holds", "message"),
    [
        (safety_nb.load_run, "", "holds no run"),
        (safety_nb.load_study, "", "holds no study"),
        (safety_nb.load_run, "study.yaml", "read it with load_study"),
        (safety_nb.load_study, "run.json", "read it with load_run"),
    ],
)
def test_what_is_no_run_or_study_is_refused(tmp_path, load, holds, message):
    if holds:
        write_text(tmp_path / holds, "{}")
    with pytest.raises(InputError, match=message):
        load(tmp_path)
