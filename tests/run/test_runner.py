"""How the end of a stage is told."""

import pytest
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import RunParams
from safety_nb.core.run_folder import RunFolder
from safety_nb.run import runner, stages


def cell_error(name: str, message: str) -> PapermillExecutionError:
    return PapermillExecutionError(
        cell_index=3, exec_count=3, source="x", ename=name, evalue=message, traceback=["Traceback"]
    )


@pytest.mark.parametrize(
    "error, state, cause",
    [
        (cell_error("ValueError", "no"), "failed", "ValueError: no"),
        (cell_error("OutOfMemoryError", "CUDA out of memory. Tried ..."), "failed", "CUDA out of memory ("),
        (cell_error("MemoryError", ""), "failed", "the machine is out of memory ("),
        (cell_error("RuntimeError", "DefaultCPUAllocator: can't allocate memory: ..."), "failed", "the machine is out"),
        (cell_error("OSError", "[Errno 28] No space left on device: 'x'"), "failed", "the disk is full ("),
        (OSError(28, "No space left on device"), "failed", "the disk is full (OSError: "),
        (DeadKernelError("Kernel died"), "killed", "the kernel was killed"),
        (KeyboardInterrupt(), "killed", "interrupted"),
    ],
)
def test_each_ending_is_told_apart(error, state, cause):
    told = runner.ending(error)
    assert told[0] == state and told[1].startswith(cause)


@pytest.mark.parametrize("content", [None, '{"cells": ['])
def test_a_copy_that_is_missing_or_cut_short_does_not_hide_the_cause(tmp_path, content):
    output = tmp_path / "2-train.ipynb"
    if content is not None:
        output.write_text(content)
    runner._mark_unexecuted_cells(output, "failed", "the disk is full")
    assert (output.read_text() if output.exists() else None) == content


@pytest.mark.parametrize(("first", "executed"), [("mix", []), ("judge", ["judge", "report"])])
def test_naming_a_stage_executes_it_and_the_later_ones_though_nothing_changed(tmp_path, monkeypatch, first, executed):
    seen = []
    monkeypatch.setattr(runner, "is_fresh", lambda *_: True)
    monkeypatch.setattr(runner, "check_stages", lambda *_: None)
    monkeypatch.setattr(runner, "_execute_stage", lambda run, stage, params: seen.append(stage.name))
    runner.execute_run(RunFolder(tmp_path / "run"), RunParams(), first=first)
    assert seen == executed


WITH_TASKS = RunParams(capabilities=["tiny-completion"])


def test_capabilities_are_a_stage_where_they_are_asked_for(tmp_path, monkeypatch):
    run, seen = RunFolder(tmp_path / "run"), []
    monkeypatch.setattr(runner, "is_fresh", lambda *_: False)
    monkeypatch.setattr(runner, "_execute_stage", lambda run, stage, params: seen.append(stage.name))
    runner.execute_run(run, RunParams())
    assert seen == list(stages.STAGE_NAMES) == list(run_folder.read_ledger(run)["stages"])
    seen.clear()
    runner.execute_run(run, WITH_TASKS)
    expected = ["mix", "train", "generate", "capabilities", "judge", "report"]
    assert seen == expected == list(run_folder.read_ledger(run)["stages"])
    run_folder.record_stage(run, "capabilities", state="failed")  # and asked for no more: no part of the run's state
    runner.execute_run(run, RunParams(), first="mix", last="mix")
    assert "capabilities" not in run_folder.read_ledger(run)["stages"]


def test_what_decides_a_capability_stage_is_in_its_fingerprint_alone(tmp_path):
    run, tasks = RunFolder(tmp_path / "run"), tmp_path / "tasks"
    tasks.mkdir()

    def fingerprints(params: RunParams) -> dict[str, str]:
        return {stage.name: runner.fingerprint(run, stage, params) for stage in stages.of_run(params)}

    def changed(params: RunParams) -> set[str]:
        after = fingerprints(params)
        return {name for name in after if after[name] != before[name]}

    asked = {"capabilities": ["mine"], "tasks_dir": str(tasks)}
    (tasks / "mine.yaml").write_text("task: mine\n")
    before = fingerprints(RunParams(**asked))
    assert changed(RunParams(**asked, capability_limit=5)) == {"capabilities"}
    assert changed(RunParams(**{**asked, "capabilities": ["other"]})) == {"capabilities"}
    assert changed(RunParams(**asked, epochs=2.0)) == {"train"}
    (tasks / "cache").mkdir()
    (tasks / "cache" / "made.json").write_text("{}")  # what the harness makes of the data
    assert changed(RunParams(**asked)) == set()
    (tasks / "mine.yaml").write_text("task: mine\nlimit: 3\n")
    assert changed(RunParams(**asked)) == {"capabilities"}
    # The report reads what was measured: there it is an input, and a run without tasks has none such.
    before = fingerprints(RunParams(**asked))
    files.write_json(run.capabilities / "capabilities.json", {"tasks": {}})
    assert changed(RunParams(**asked)) == {"report"}
    without = runner.fingerprint(run, stages.stage_named("report"), RunParams())
    (run.capabilities / "capabilities.json").write_text("{}")
    assert runner.fingerprint(run, stages.stage_named("report"), RunParams()) == without


@pytest.mark.parametrize("ends", [{"first": "capabilities"}, {"last": "capabilities"}])
def test_a_run_without_tasks_has_no_stage_of_that_name(tmp_path, ends):
    ends = {"first": "mix", "last": "report", **ends}
    with pytest.raises(InputError, match="this run has no stage 'capabilities'; name the tasks"):
        runner.check_stages(RunFolder(tmp_path), RunParams(), **ends)


def test_an_interrupt_in_the_moment_a_stage_begins_is_told(tmp_path, monkeypatch):
    run, record = RunFolder(tmp_path / "run"), run_folder.record_stage

    def interrupted(run: RunFolder, name: str, **facts: object) -> None:
        record(run, name, **facts)
        if facts["state"] == "running":
            raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "record_stage", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.execute_run(run, RunParams())
    entry = run_folder.read_ledger(run)["stages"]["mix"]
    assert (entry["state"], entry["cause"]) == ("killed", "interrupted")
