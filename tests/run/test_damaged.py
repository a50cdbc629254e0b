"""Damaged ledgers and files of a run, through every command that reads them: named, refused, and nothing is lost."""

import contextlib
import shutil
from pathlib import Path

import ledgers
import pytest
from studies import finish, ledger, made, write_study
from typer.testing import CliRunner

import safety_nb
from safety_nb import cli
from safety_nb.core import files, grid, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import RunParams
from safety_nb.judge import annotations
from safety_nb.report import study_tables, writing
from safety_nb.report.calibration import calibration
from safety_nb.report.findings import comparison
from safety_nb.run import checks, fork_server, runner, stages, study

each_form = pytest.mark.parametrize("form", ledgers.DAMAGED)


@pytest.fixture
def call(monkeypatch):
    """The command line in this process: exit status, and what it said. User errors are as `main` tells them.

    Figures, which take long, are left out.
    """
    monkeypatch.setattr(writing, "study_figures", lambda *given: {})

    def call(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
        if isinstance(done.exception, InputError):
            return 2, str(done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return call


@pytest.fixture
def executed(monkeypatch) -> list[str]:
    """Stages are not executed but listed; what is checked of data and model before them is known to be right."""
    told: list[str] = []
    monkeypatch.setattr(fork_server, "kernels", contextlib.nullcontext)
    monkeypatch.setattr(checks, "check_run", lambda params: None)
    monkeypatch.setattr(runner, "_execute_stage", lambda run, stage, params: told.append(stage.name))
    monkeypatch.setattr("safety_nb.data.mixing.remarks", lambda record: [])
    return told


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_of(folder: Path, n_safety: int = 0) -> run_folder.RunFolder:
    """A finished run, whose ledger has the hashes of its files as its stages record them."""
    finish(folder, RunParams(n_safety=n_safety), {"bad": 0.5, "near": 1.0})
    run = run_folder.RunFolder(folder)
    for name in ("mix/train.jsonl", "mix/validation.jsonl", "generation.json"):
        files.write_json(run.root / name, {})
    run.adapter.mkdir(parents=True, exist_ok=True)
    files.write_text(run.adapter / "adapter_config.json", "{}")
    files.write_text(run.summary, "run\n")
    files.write_text(run.report, "<html>")
    record(run)
    return run


def record(run: run_folder.RunFolder) -> None:
    for stage in stages.STAGES:
        files.write_text(run.root / runner.executed_name(stage), "{}")
        made = files.hashes(run.root, (*stage.outputs, runner.executed_name(stage)))
        run_folder.record_stage(run, stage.name, outputs=made)


def study_of(folder: Path, ns: tuple[int, ...] = (0, 100)) -> Path:
    """A study of finished runs whose ledgers have hashes."""
    write_study(folder, {"n_safety": list(ns), "evaluation": ["/elsewhere/bad.csv:harmful"]})
    for n in ns:
        run_of(folder / f"n{n}_seed0", n)
    return folder


# --- damaged ledgers ----------------------------------------------------------------------------------------------


@each_form
def test_run_executes_every_stage_and_keeps_the_file_aside(form, tmp_path, call, executed):
    run = run_of(tmp_path / "run")
    run.ledger.write_bytes(ledgers.DAMAGED[form])
    before = contents(run.root)
    (tmp_path / "a.yaml").write_text("n_safety: 0\n")
    status, said = call("run", tmp_path / "a.yaml", "--out", run.root)
    assert status == 0, said
    assert executed == list(stages.STAGE_NAMES)
    assert f"{run.ledger} is damaged (" in said and "kept as run.damaged-1.json" in said
    after = contents(run.root)
    assert after["run.damaged-1.json"] == before.pop("run.json")
    assert before.items() <= after.items()
    assert set(run_folder.read_ledger(run)["stages"]) == set(stages.STAGE_NAMES)


@each_form
def test_run_from_a_later_stage_is_refused(form, tmp_path, call, executed):
    run = run_of(tmp_path / "run")
    run.ledger.write_bytes(ledgers.DAMAGED[form])
    before = contents(run.root)
    (tmp_path / "a.yaml").write_text("n_safety: 0\n")
    status, said = call("run", tmp_path / "a.yaml", "--out", run.root, "--from", "judge")
    assert status == 2 and "run.json is damaged (" in said
    assert executed == [] and contents(run.root) == before


@each_form
def test_status_names_it_beside_the_other_runs(form, tmp_path, call):
    folder = study_of(tmp_path / "study")
    (folder / "n0_seed0" / "run.json").write_bytes(ledgers.DAMAGED[form])
    before = contents(folder)
    status, said = call("status", folder)
    assert status == 0 and "1 of 2 done, 1 unreadable" in said
    assert f"{folder / 'n0_seed0' / 'run.json'} is damaged (" in said.replace("\n", "")
    assert contents(folder) == before


@each_form
def test_export_names_it(form, tmp_path, call):
    run = run_of(tmp_path / "run")
    run.ledger.write_bytes(ledgers.DAMAGED[form])
    status, said = call("export", run.root, "--out", tmp_path / "out")
    assert status == 2 and "run.json is damaged (" in said and not (tmp_path / "out").exists()


@each_form
def test_study_and_comparison_leave_the_run_out_and_say_so(form, tmp_path):
    folder = study_of(tmp_path / "study")
    (folder / "n0_seed0" / "run.json").write_bytes(ledgers.DAMAGED[form])
    tables = study_tables.read_study(folder)
    assert list(tables.runs["state"]) == ["waiting", "done"]
    assert set(tables.judgements["run"]) == {"n100_seed0"}
    (told,) = study_tables.remarks(folder, tables)
    assert told.startswith("n0_seed0 is left out: waiting (") and "run.json is damaged (" in told
    assert list(safety_nb.load_study(folder).runs["state"]) == ["waiting", "done"]
    with pytest.raises(InputError, match="is damaged"):
        _ = safety_nb.load_run(folder / "n0_seed0").judgements


def test_compare_names_a_damaged_ledger(tmp_path, call, monkeypatch):
    monkeypatch.setattr(writing, "report_study", lambda *given: "report.html")
    one, other = study_of(tmp_path / "one"), study_of(tmp_path / "other", (0, 100, 300))
    (other / "n300_seed0" / "run.json").write_text("[]")
    status, said = call("compare", one, other, "--out", tmp_path / "out")
    assert status == 0, said
    assert "n300_seed0 is left out: waiting (" in said and "it holds no names and values but a list" in said


def test_a_study_keeps_it_aside_as_a_run_does(tmp_path, executed, capfd):
    folder = study_of(tmp_path / "study")
    (folder / "n0_seed0" / "run.json").write_text("[]")
    assert study._execute(folder / "n0_seed0", RunParams(n_safety=0)) is None
    assert executed == list(stages.STAGE_NAMES)
    assert (folder / "n0_seed0" / "run.damaged-1.json").read_text() == "[]"
    assert "kept as run.damaged-1.json" in capfd.readouterr().err


# --- files that are not what was recorded -------------------------------------------------------------------------


def alter(path: Path) -> None:
    """What one `sed` does: all refusals become compliance, and every line stays a row."""
    text = path.read_text()
    path.write_text(text.replace("full_refusal", "full_compliance") if "full_refusal" in text else text + " ")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


READ = ["judgements.jsonl", "responses.jsonl", "prompts.jsonl", "mix/mixture.json", "train/training.json"]


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("spoil", [alter, cut, Path.unlink])
def test_compare_names_every_file_that_does_not_fit(spoil, name, tmp_path, call):
    folders = [study_of(tmp_path / "one"), study_of(tmp_path / "other")]
    for folder in folders:
        spoil(folder / "n100_seed0" / name)
    status, said = call("compare", *folders, "--out", tmp_path / "out")
    assert status == 2 and not (tmp_path / "out").exists()
    for folder in folders:
        assert str(folder / "n100_seed0" / name) in said
    assert ("is missing" if spoil is Path.unlink else "is not what stage") in said and "n0_seed0" not in said


@pytest.mark.parametrize("spoil", [cut, Path.unlink])
@pytest.mark.parametrize("name", ["judgements.jsonl", "responses.jsonl", "prompts.jsonl", "mix/mixture.json"])
def test_a_file_cut_short_is_named_where_no_hash_was_recorded(name, spoil, tmp_path):
    folder = study_of(tmp_path / "study")
    run = run_folder.RunFolder(folder / "n0_seed0")
    ledger(run, run_folder.DONE)  # as it was before there were hashes
    spoil(run.root / name)
    if spoil is Path.unlink and name in ("prompts.jsonl", "mix/mixture.json"):
        return  # a run of its own need not have these
    with pytest.raises(InputError, match=name):
        tables = study_tables.read_study(folder)
        study_tables.answers(folder, tables)


def test_a_study_without_hashes_is_read_as_before(tmp_path):
    folder = made(tmp_path / "study", {0: 0, 100: 20})
    assert set(study_tables.read_study(folder).judgements["run"]) == {"n0_seed0", "n100_seed0"}


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("judgements.jsonl", "judgements"),
        ("judgements.jsonl", "rates"),
        ("responses.jsonl", "answers"),
        ("mix/mixture.json", "rates"),
    ],
)
@pytest.mark.parametrize("spoil", [alter, cut, Path.unlink])
def test_a_run_in_python_names_what_does_not_fit(name, table, spoil, tmp_path):
    run = run_of(tmp_path / "run")
    assert len(getattr(safety_nb.load_run(run.root), table))
    spoil(run.root / name)
    with pytest.raises(InputError, match=Path(name).name):
        getattr(safety_nb.load_run(run.root), table)


@pytest.mark.parametrize("spoil", [alter, cut, Path.unlink])
def test_a_study_in_python_names_what_does_not_fit(spoil, tmp_path):
    folder = study_of(tmp_path / "study")
    spoil(folder / "n0_seed0" / "judgements.jsonl")
    with pytest.raises(InputError, match=r"n0_seed0/judgements\.jsonl"):
        _ = safety_nb.load_study(folder).rates


@pytest.mark.parametrize("name", ["judgements.jsonl", "responses.jsonl"])
@pytest.mark.parametrize("of", ["run", "study"])
def test_calibrate_names_what_does_not_fit(of, name, tmp_path, call):
    folder = study_of(tmp_path / "study")
    lines = [
        {"item": item.id, "ask": "refusal", "run": item.runs[0], "label": "full_refusal"}
        | {"dataset": item.dataset, "prompt_id": item.prompt_id, "sample": 0, "missing": None}
        for item in annotations.items(annotations.answers_of_folder(folder), "refusal")
    ]
    files.write_jsonl(folder / "annotations" / "ann.jsonl", lines)
    source = folder / "n0_seed0" if of == "run" else folder
    assert calibration.of_run(source).n_labelled == (20 if of == "run" else 40)
    alter(folder / "n0_seed0" / name)
    status, said = call("calibrate", source)
    assert status == 2 and f"{folder / 'n0_seed0' / name} is not what stage" in said


def test_prefer_names_answers_that_do_not_fit(tmp_path, call):
    folder = study_of(tmp_path / "study")
    alter(folder / "n0_seed0" / "responses.jsonl")
    where = ("--set", "judge_base_url=http://127.0.0.1:9/v1", "--set", "judge_model=x")
    status, said = call("prefer", folder, *where)
    assert status == 2 and "responses.jsonl is not what stage 'generate' left" in said


@pytest.mark.parametrize(
    ("name", "first", "begin"),
    [
        ("judgements.jsonl", "report", "judge"),
        ("responses.jsonl", "judge", "generate"),
        ("train/adapter/adapter_config.json", "generate", "train"),
        ("mix/train.jsonl", "report", "mix"),
    ],
)
def test_run_from_a_stage_names_what_is_not_whole_before_it(name, first, begin, tmp_path, call, executed):
    run = run_of(tmp_path / "run")
    (tmp_path / "a.yaml").write_text("n_safety: 0\n")
    command = ("run", tmp_path / "a.yaml", "--out", run.root, "--from", first)
    assert call(*command)[0] == 0 and executed[0] == first
    executed.clear()
    alter(run.root / name)
    before = contents(run.root)
    status, said = call(*command)
    assert status == 2 and f"begin with --from {begin}" in said and "is not what stage" in said
    assert executed == [] and contents(run.root) == before


@pytest.mark.parametrize("name", ["train/adapter/adapter_config.json", "train/training.json", "mix/mixture.json"])
def test_export_names_what_does_not_fit(name, tmp_path, call):
    run = run_of(tmp_path / "run")
    alter(run.root / name)
    status, said = call("export", run.root, "--out", tmp_path / "out")
    assert status == 2 and "is not what stage" in said and not (tmp_path / "out").exists()


def test_another_runs_adapter_is_not_exported_with_this_runs_card(tmp_path, call):
    run, other = run_of(tmp_path / "run"), run_of(tmp_path / "other")
    files.write_text(other.adapter / "adapter_config.json", '{"r": 8}')
    shutil.rmtree(run.adapter)
    shutil.copytree(other.adapter, run.adapter)
    status, said = call("export", run.root, "--out", tmp_path / "out")
    assert status == 2 and f"{run.adapter} is not what stage 'train' left there" in said


def test_preferences_are_held_to_what_was_asked_for(tmp_path):
    folder = study_of(tmp_path / "study")
    run = run_folder.RunFolder(folder / "n0_seed0")
    files.write_jsonl(run.preferences, [{"dataset": "bad", "prompt_id": "p0", "judge": "llm:pair", "score": 1.0}])
    run_folder.record_beside(run, "preferences.jsonl")
    assert len(study_tables.read_study(folder).items)
    alter(run.preferences)
    with pytest.raises(InputError, match=r"preferences\.jsonl is not what the command that made it left"):
        study_tables.read_study(folder)


def test_each_file_is_hashed_once_by_a_comparison(tmp_path, monkeypatch):
    folder = study_of(tmp_path / "study")
    hashed: list[Path] = []
    whole = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path) or whole(path))
    monkeypatch.setattr(writing, "study_figures", lambda *given: {})
    tables = study_tables.read_study(folder)
    writing.report_study(folder, tables, comparison.compare_study(tables))
    study_tables.remarks(folder, tables)
    assert len(hashed) == len(set(hashed)) > 10
    assert not [path for path in hashed if "adapter" in path.parts]  # which it does not read


def test_a_file_that_changed_is_hashed_anew(tmp_path):
    run = run_of(tmp_path / "run")
    run_folder.check(run, ["judgements.jsonl"])
    text = run.judgements.read_text()
    alter(run.judgements)
    assert run_folder.misfits(run, ["judgements.jsonl"])
    run.judgements.write_text(text)
    run_folder.check(run, ["judgements.jsonl"])


def test_status_hashes_nothing(tmp_path, monkeypatch, call):
    folder = study_of(tmp_path / "study")
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail(f"{path} was hashed"))
    assert "2 of 2 done" in call("status", folder)[1]


# --- executed notebooks, work by hand, and published records ------------------------------------------------------


def test_an_executed_notebook_that_was_changed_is_named_and_nothing_is_executed_for_it(
    tmp_path, executed, capfd, monkeypatch
):
    run = run_of(tmp_path / "run")
    monkeypatch.setattr(runner, "is_fresh", lambda *given: True)
    runner.execute_run(run, RunParams(n_safety=0))
    assert capfd.readouterr().err == ""
    alter(run.notebooks / "2-train.ipynb")
    (run.notebooks / "4-judge.ipynb").unlink()
    runner.execute_run(run, RunParams(n_safety=0))
    told = capfd.readouterr().err.splitlines()
    assert executed == [] and len(told) == 2
    assert "2-train.ipynb is not what stage 'train' left there" in told[0] and "--from train executes" in told[0]
    assert "4-judge.ipynb is missing" in told[1]


def test_compare_names_an_executed_notebook_that_was_changed(tmp_path, call, monkeypatch):
    monkeypatch.setattr(writing, "report_study", lambda *given: "report.html")
    one, other = study_of(tmp_path / "one"), study_of(tmp_path / "other")
    alter(one / "n0_seed0" / "notebooks" / "1-mix.ipynb")
    status, said = call("compare", one, other, "--out", tmp_path / "out")
    assert status == 0 and said.count("is not what stage 'mix' left there") == 1


def test_a_stage_made_anew_in_its_notebook_is_taken_as_it_is(tmp_path):
    run = run_of(tmp_path / "run")
    params = stages.stage_named("judge").params(run_dir=str(run.root))
    stages.make_missing("judge", params)
    alter(run.judgements)
    run_folder.check(run, ["judgements.jsonl", "responses.jsonl"])
    assert grid.run_state(run)["state"] == "done"
    assert not runner.is_fresh(run, stages.stage_named("judge"), RunParams(n_safety=0))
    # A notebook beside the run makes none of its files.
    stages.make_missing("generate", safety_nb.core.params.AnnotateParams(run_dir=str(run.root)))
    alter(run.responses)
    assert run_folder.misfits(run, ["responses.jsonl"])


def test_a_published_record_is_held_to_hashes_of_its_own(tmp_path, call, executed):
    one, other = study_of(tmp_path / "one"), study_of(tmp_path / "other")
    run = run_folder.RunFolder(one / "n0_seed0")
    run.responses.unlink()  # whose text is not for everyone
    rows = [{**row, "prompt": ""} for row in files.read_jsonl(run.prompts)]
    files.write_jsonl(run.prompts, rows)
    run_folder.publish(run, "Texts of prompts and answers were taken out.")
    status, said = call("compare", one, other, "--out", tmp_path / "out")
    assert status == 0, said
    assert "n0_seed0 is a published record: Texts of prompts and answers were taken out." in said
    alter(run.judgements)
    status, said = call("compare", one, other, "--out", tmp_path / "again")
    assert status == 2 and "judgements.jsonl is not what whoever published it left there" in said
    (tmp_path / "a.yaml").write_text("n_safety: 0\n")
    status, said = call("run", tmp_path / "a.yaml", "--out", run.root)
    assert status == 2 and "is a published record" in said and executed == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"note": "x", "files": []}', '{"note": "x", "files": {"a": 1}}'])
def test_a_damaged_mark_of_publication_is_named(text, tmp_path):
    run = run_of(tmp_path / "run")
    run.published.write_text(text)
    with pytest.raises(InputError, match=r"published\.json"):
        run_folder.check(run, ["judgements.jsonl"])


# --- what is known before -----------------------------------------------------------------------------------------


def test_a_run_whose_name_no_file_system_takes_is_refused(tmp_path, call, executed):
    models = [f"{tmp_path}/{name * 60}" for name in ("long", "wide")]
    (tmp_path / "a.yaml").write_text(f"n_safety: 0\nbase_model: {models}\n")
    status, said = call("study", tmp_path / "a.yaml", "--out", tmp_path / "out")
    assert status == 2 and "bytes, of at most 230: sweep" in said and "base_model" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("minutes", ["1.0e+7", "1.0e+300", "9223372036854775807", ".inf", "-1"])
def test_a_time_out_that_the_system_does_not_take_is_refused(minutes, tmp_path, call, executed):
    (tmp_path / "a.yaml").write_text(f"stage_timeout: {minutes}\n")
    status, said = call("run", tmp_path / "a.yaml", "--out", tmp_path / "out")
    assert status == 2 and "stage_timeout" in said and not (tmp_path / "out").exists()
