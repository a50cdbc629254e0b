"""The run folder: writes are whole or not at all, hashes see every change, the ledger keeps what it has."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest

from safety_nb.core import run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.files import (
    hashes,
    read_jsonl,
    replacing,
    replacing_folder,
    sha256,
    write_json,
    write_jsonl,
    write_text,
)


def names(folder) -> list[str]:
    """Everything in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


# Atomic writes


def test_written_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old, and longer than the new one")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_old_file_stays_when_the_writer_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
    assert path.read_text() == "half"


def test_temporary_has_the_ending_of_the_file(tmp_path):
    # matplotlib and pandas choose the format by it.
    with replacing(tmp_path / "figure.svg") as temporary:
        assert temporary.suffix == ".svg"


def test_rows_that_fail_half_way_leave_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(TypeError):
        write_jsonl(path, [{"a": 2}, {"a": object()}])
    assert read_jsonl(path) == [{"a": 1}]
    assert names(tmp_path) == ["rows.jsonl"]


def test_number_that_json_lacks_is_not_written(tmp_path):
    # NaN is no JSON: other readers would stumble over the file.
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_written_file_can_be_read_by_others(tmp_path):
    # mkstemp makes files for their owner alone; a file of ours has the rights of any other.
    old = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_folders_above_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_rows_come_back_as_they_were(tmp_path):
    rows = [{"text": 'line\nbreak, "quotes", caf\u00e9 \u2028 \U0001f600', "n": 1, "none": None}, {"text": ""}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


# Folders


def test_folder_takes_the_place_of_the_old_one(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "old").touch()
    with replacing_folder(tmp_path / "adapter") as fresh:
        (fresh / "new").touch()
    assert names(tmp_path / "adapter") == ["new"]
    assert names(tmp_path) == ["adapter"]


def test_old_folder_stays_when_the_writer_fails(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "old").touch()
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "adapter") as fresh:
        (fresh / "new").touch()
        raise RuntimeError
    assert names(tmp_path / "adapter") == ["old"]
    assert names(tmp_path) == ["adapter"]


def test_first_folder_is_made_with_those_above_it(tmp_path):
    with replacing_folder(tmp_path / "train" / "adapter") as fresh:
        (fresh / "new").touch()
    assert names(tmp_path / "train" / "adapter") == ["new"]


# Hashes


def test_hash_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_text("abc")
    # The test vector of FIPS 180-4 for "abc".
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_hash_of_nothing_is_empty(tmp_path):
    assert sha256(tmp_path / "gone") == ""


def folder_of(path, files: dict[str, str]) -> str:
    """The hash of a folder made of these files."""
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return sha256(path)


def test_hash_of_a_folder_is_that_of_its_copy(tmp_path, monkeypatch):
    files = {"a": "1", "b/c": "2"}
    listed = Path.rglob
    original = folder_of(tmp_path / "x", files)
    # Another file system may list the same files in another order.
    monkeypatch.setattr(Path, "rglob", lambda folder, pattern: reversed(list(listed(folder, pattern))))
    assert folder_of(tmp_path / "y", files) == original


@pytest.mark.parametrize(
    "changed",
    [
        {"a": "9", "b/c": "2"},  # content
        {"z": "1", "b/c": "2"},  # a name
        {"a": "1", "c": "2"},  # a place
        {"a": "2", "b/c": "1"},  # contents changed about
        {"a": "1"},  # a file gone
        {"a": "1", "b/c": "2", "d": ""},  # an empty file more
    ],
)
def test_hash_of_a_folder_sees_a_change(changed, tmp_path):
    assert folder_of(tmp_path / "x", {"a": "1", "b/c": "2"}) != folder_of(tmp_path / "y", changed)


def test_hashes_are_by_name(tmp_path):
    (tmp_path / "a").write_text("abc")
    assert hashes(tmp_path, ["a", "b"]) == {"a": sha256(tmp_path / "a"), "b": ""}


# The ledger


@pytest.fixture
def run(tmp_path) -> run_folder.RunFolder:
    return run_folder.RunFolder(tmp_path / "run")


def test_run_never_started_has_an_empty_ledger_and_no_folder(run):
    assert run_folder.read_ledger(run) == {"stages": {}}
    assert not run.root.exists()


def test_nothing_counts_as_done_by_a_damaged_ledger(run):
    run.root.mkdir()
    run.ledger.write_text('{"stages": {"mix": {"state": "done"')
    assert run_folder.read_ledger(run) == {"stages": {}}


def test_facts_of_a_stage_are_added_to_those_it_has(run):
    run_folder.record_stage(run, "mix", state="running", pid=1)
    run_folder.record_stage(run, "mix", state="done")
    assert run_folder.read_ledger(run)["stages"] == {"mix": {"state": "done", "pid": 1}}


def test_facts_of_a_stage_leave_the_others_and_the_rest_alone(run):
    write_json(run.ledger, {"versions": {"torch": "2"}, "stages": {"mix": {"state": "done"}}})
    run_folder.record_stage(run, "train", state="failed", cause="why")
    assert run_folder.read_ledger(run) == {
        "versions": {"torch": "2"},
        "stages": {"mix": {"state": "done"}, "train": {"state": "failed", "cause": "why"}},
    }


# What is missing


def test_missing_file_is_told_with_the_stage_that_makes_it(run):
    with pytest.raises(InputError) as caught:
        run_folder.require(run, ["responses.jsonl"], maker="generate")
    assert str(caught.value).startswith(f"{run.root} has no responses.jsonl: stage 'generate' makes it.")


def test_every_file_named_is_required(run):
    write_text(run.train_rows, "")
    with pytest.raises(InputError, match="no mix/validation.jsonl"):
        run_folder.require(run, ["mix/train.jsonl", "mix/validation.jsonl"], maker="mix")


def test_nothing_is_told_when_all_is_there(run):
    run.adapter.mkdir(parents=True)
    write_text(run.train_rows, "")
    run_folder.require(run, ["train/adapter", "mix/train.jsonl"], maker="mix")


# Where results go


def test_outputs_of_a_project_are_found_from_a_folder_in_it(tmp_path):
    for name in ("notebooks", "params", "a/b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "notebooks" / "1-mix.ipynb").touch()
    assert run_folder.outputs_root(tmp_path / "a" / "b") == tmp_path / "outputs"
    assert run_folder.outputs_root(tmp_path / "notebooks") == tmp_path / "outputs"


def test_outputs_elsewhere_are_below_the_folder_itself(tmp_path):
    # notebooks/ alone is no sign of the project: anyone may have one.
    (tmp_path / "notebooks").mkdir()
    assert run_folder.outputs_root(tmp_path / "notebooks") == tmp_path / "notebooks" / "outputs"


def test_run_without_a_name_is_the_notebooks_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_folder.open_run("").root == tmp_path / "outputs" / "runs" / "notebook"
    assert names(tmp_path) == []


# Progress


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time that progress sees, in seconds; the test moves it."""
    now = [1000.0]
    monkeypatch.setattr(run_folder, "time", SimpleNamespace(time=lambda: now[0], monotonic=lambda: now[0]))
    return now


def test_steps_in_quick_succession_are_not_all_written(run, clock):
    progress = run_folder.Progress(run, "train", total=9, every=10)
    seen = []
    for done, seconds in enumerate([0, 9, 1, 9], start=1):
        clock[0] += seconds
        progress.update(done)
        seen.append(run_folder.read_progress(run)["done"])
    # Step 2 comes 9 s after the first writing, step 3 10 s after it, step 4 9 s after the second.
    assert seen == [1, 1, 3, 3]


def test_last_step_is_always_left_for_the_watcher(run, clock):
    progress = run_folder.Progress(run, "train", total=3, every=10)
    for done in (1, 2, 3):
        progress.update(done)
    assert run_folder.read_progress(run) == {"stage": "train", "done": 3, "total": 3, "started": 1000.0}


def test_steps_of_an_earlier_execution_are_told_apart(run, clock):
    run_folder.Progress(run, "train", total=9, before=4).update(5)
    assert run_folder.read_progress(run) == {"stage": "train", "done": 5, "total": 9, "started": 1000.0, "before": 4}


@pytest.mark.parametrize("text", [None, "", "{"])
def test_no_progress_to_be_read_is_none(text, run):
    if text is not None:
        write_text(run_folder.progress_file(run), text)
    assert run_folder.read_progress(run) is None


# --- the lock -----------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from safety_nb.core import run_folder
with run_folder.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_second_process_is_told_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(InputError, match=f"in use by process {holder.pid} on "), run_folder.locked(tmp_path):
        pytest.fail("the folder was given to two processes")


def test_lock_of_a_dead_process_is_taken_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    with run_folder.locked(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / ".holder").read_text()


def test_held_is_seen_without_a_trace_and_ends_with_the_holder(tmp_path, holder):
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert run_folder.held(tmp_path)
    holder.kill()
    holder.wait()
    assert not run_folder.held(tmp_path)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_folder_never_held_is_free_and_stays_empty(tmp_path):
    assert not run_folder.held(tmp_path) and not run_folder.held(tmp_path / "gone")
    assert names(tmp_path) == []


def test_lock_waits_while_somebody_only_asks(tmp_path):
    # As `held` of another process does, for a moment, at the very one in which this one begins.
    asking = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    asking.acquire()
    threading.Timer(0.1, asking.release).start()
    with run_folder.locked(tmp_path):
        assert run_folder.held(tmp_path)


def test_lock_is_let_go_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), run_folder.locked(tmp_path):
        raise RuntimeError
    with run_folder.locked(tmp_path):
        pass
