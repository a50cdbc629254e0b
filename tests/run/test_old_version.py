"""A study that version 0.1.0 left is read as its own, and what was paid for then is not asked for again.

What is expected is what that version wrote itself: files in ``fixtures/study-0.1.0`` are compared with
those made anew from a copy. Nothing is trained and no endpoint is there.
"""

import shutil
import socket
from pathlib import Path

import pandas as pd
import pytest
import yaml

from safety_nb.core import files, grid, run_folder
from safety_nb.core.params import AnnotateParams, JudgeParams, MixParams, ReportParams, RunParams, validate
from safety_nb.data import mixing
from safety_nb.data.datasets import sources
from safety_nb.judge import judging, labelling
from safety_nb.report import study_tables, writing
from safety_nb.report.calibration import calibration
from safety_nb.report.findings import comparison
from safety_nb.run import study

OLD = Path(__file__).parents[1] / "fixtures" / "study-0.1.0"
RUNS = ("n20_seed0", "n0_seed0")  # as that version took them, which judgements are kept in the order of
JUDGE = {"judge_base_url": "http://127.0.0.1:8941/v1", "judge_model": "stub-judge"}

each_run = pytest.mark.parametrize("name", RUNS)


@pytest.fixture(autouse=True)
def asked(monkeypatch) -> list:
    """Where connections were tried to, all of which are refused."""
    tried = []

    def connect(self, address):
        tried.append(address)
        raise ConnectionRefusedError("nothing listens in these tests")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return tried


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The study's folder, and the cache of its replies and judgements, to work in."""
    shutil.copytree(OLD / "cache", tmp_path / "cache")
    monkeypatch.setenv("SAFETY_NB_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(OLD / "study", tmp_path / "study")


def params_of(model, run: Path):
    """The parameters of one stage, as the run's ``params.yaml`` has them."""
    values = validate(RunParams, yaml.safe_load((run / "params.yaml").read_text())).model_dump()
    own = {name: value for name, value in values.items() if name in model.model_fields}
    if "evaluation" in own:  # whose files lay in another place
        entries = [Path(entry).name for entry in own["evaluation"]]
        own["evaluation"] = [f"{OLD / 'inputs'}/{entry}" for entry in entries]
    return validate(model, {**own, "run_dir": str(run)})


def made_anew(folder: Path, names: list[str], make) -> None:
    """Have files of the study made once more, and compare them with those that were there."""
    for name in names:
        (folder / name).unlink()
    make()
    for name in names:
        made, expected = folder / name, OLD / "study" / name
        if made.suffix == ".csv":  # another processor may compute another last digit
            pd.testing.assert_frame_equal(pd.read_csv(made), pd.read_csv(expected), rtol=1e-9, obj=name)
        else:
            assert made.read_bytes() == expected.read_bytes(), name


# The ledger


@each_run
def test_run_is_done_and_its_outputs_are_whole(folder, name):
    run = run_folder.RunFolder(folder / name)
    stages = run_folder.read_ledger(run)["stages"]
    assert list(stages) == ["mix", "train", "generate", "judge", "report"]
    assert grid.run_state(run)["state"] == "done"
    for stage, entry in stages.items():
        assert entry["outputs"] == files.hashes(run.root, entry["outputs"]), stage


@each_run
def test_mixture_drawn_again_is_the_same(folder, name):
    written = [f"{name}/mix/{file}" for file in ("train.jsonl", "validation.jsonl")]
    made_anew(folder, written, lambda: mixing.mix(params_of(MixParams, folder / name)))
    # What has come since is named beside it: fields that nothing reads, of which these rows have none.
    mixture = files.read_json(folder / name / "mix" / "mixture.json")
    assert mixture.pop("unread_fields") == {}
    assert mixture == files.read_json(OLD / "study" / name / "mix" / "mixture.json")


@each_run
def test_prompts_are_those_of_the_same_files(folder, name):
    evaluation = params_of(MixParams, folder / name).evaluation
    assert sources.evaluation_prompts(evaluation, "") == files.read_jsonl(folder / name / "prompts.jsonl")


# Reports


def test_study_is_read(folder):
    tables = study_tables.read_study(folder)
    assert list(tables.runs["run"]) == ["n0_seed0", "n20_seed0"]
    assert list(tables.runs["state"]) == ["done", "done"]
    assert tables.swept == {"n_safety": [0, 20]}
    assert tables.roles == {"villains": "harmful", "kindness": "ordinary", "facts": "facts"}
    # Of the 20 answers a run gave, reference reads the four to questions of facts, the other judges all.
    counts = {"refusal": 40, "reference": 8, "llm:xstest": 40, "human": 40}
    assert tables.judgements.groupby("judge").size().to_dict() == counts
    # A run: eight general validation rows, and preferences in the eight ordinary requests.
    assert tables.items.groupby("measure").size().to_dict() == {
        "loss on general rows": 16,
        "kindness preferred (llm:pair)": 16,
    }


def test_study_is_reported_to_the_same_tables_and_the_same_finding(folder, monkeypatch):
    monkeypatch.setattr(writing, "study_figures", lambda *given: {})  # which take long, and are not compared

    def report() -> None:
        tables = study_tables.read_study(folder)
        writing.report_study(folder, tables, comparison.compare_study(tables))

    made_anew(folder, ["summary.csv", "tests.csv", "table.md", "table.tex"], report)
    # What has come since: that nobody judged what the answers give is said first.
    first, finding = (folder / "headline.txt").read_text().split("counts as a refusal. ")
    assert first.startswith("No judge of delivery read the answers")
    assert finding == (OLD / "study" / "headline.txt").read_text()
    assert (folder / "report.html").is_file()


@each_run
def test_run_is_reported_to_the_same_summary(folder, name):
    (folder / name / "report.html").unlink()
    made_anew(folder, [f"{name}/summary.csv"], lambda: writing.report_run(params_of(ReportParams, folder / name)))
    assert (folder / name / "report.html").is_file()


# What people said


def test_labels_of_people_are_compared_with_judges_as_before(folder):
    found = calibration.of_run(folder)
    # 24 of the 40 answers were to be labelled by two people, who disagree on one or could not tell;
    # 12 scored and 8 pairs preferred by one.
    assert (found.n_labelled + found.n_without, found.n_scored, found.n_preferred) == (24, 12, 8)
    assert found.n_outdated == 0  # every label finds its answer
    tables = [f"{name}.csv" for name in ("agreement", "confusion", "calibration", "wins")]
    made_anew(folder, tables, lambda: calibration.write(folder, found))


@pytest.mark.parametrize(
    ("annotator", "ask", "n"), [("bob", "refusal", 24), ("ann", "harmfulness", 12), ("ann", "pair", 8)]
)
def test_labelling_opens_where_it_was_left(folder, annotator, ask, n):
    job = labelling.open_job(AnnotateParams(run_dir=str(folder), annotator=annotator, ask=ask, n=n))
    assert f"{n} of {n}" in labelling.Panel(job).state.value
    made_anew(folder, [f"annotations/{ask}.csv"], lambda: labelling.save(job))


# What was paid for


@pytest.mark.parametrize("kept", ["judgements and replies", "replies alone"])
def test_judging_again_asks_nothing_and_says_the_same(folder, tmp_path, asked, kept):
    if kept == "replies alone":
        shutil.rmtree(tmp_path / "cache" / "judgements")
    for name in RUNS:
        params = params_of(JudgeParams, folder / name)
        (folder / name / "judgements.jsonl").unlink()
        judging.judge_run(params)
        # The score of `refusal` was the share refused and is a probability now: what it rounds to is the same here.
        new, old = (files.read_jsonl(place / name / "judgements.jsonl") for place in (folder, OLD / "study"))
        assert [row | {"score": rounded(row)} for row in new] == [row | {"score": rounded(row)} for row in old]
    assert asked == []
    assert contents(tmp_path / "cache") == contents(OLD / "cache")


def rounded(row: dict) -> float | None:
    """The score of a judgement, of the judge `refusal` to a whole number."""
    return round(row["score"]) if row["judge"] == "refusal" and row["score"] is not None else row["score"]


def test_preferences_are_the_same_without_a_request(folder, tmp_path, asked):
    names = [f"{name}/preferences.jsonl" for name in RUNS]
    made_anew(folder, names, lambda: study.prefer(folder, JudgeParams(**JUDGE)))
    assert asked == []
    assert contents(tmp_path / "cache") == contents(OLD / "cache")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
