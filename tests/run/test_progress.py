"""`safety-nb status`: what it shows of runs and studies that wait, run, were stopped, failed or are done."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safety_nb.core import files, grid, run_folder
from safety_nb.run import progress, stages

DONE = {"state": "done", "wall_seconds": 10.0}
WAITING = {"state": "waiting"}


def ledger(folder: Path, **entries: dict) -> Path:
    """A run's folder with such a ledger; a stage that is not named has not begun."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"stages": {name: WAITING for name in stages.STAGE_NAMES} | entries}))
    return folder


def done(folder: Path, **seconds: float) -> Path:
    return ledger(folder, **{name: DONE | {"wall_seconds": seconds.get(name, 10.0)} for name in stages.STAGE_NAMES})


def running(since: float = 30.0) -> dict:
    """The entry of a stage that began so many seconds ago."""
    return {"state": "running", "started": time.time() - since, "cause": None}


def progressed(folder: Path, stage: str, share: float, since: float) -> None:
    """What a stage leaves for whoever watches: a share done of 100 steps, since it began with them."""
    left = {"stage": stage, "done": round(100 * share), "total": 100, "started": time.time() - since}
    files.write_json(run_folder.progress_file(run_folder.RunFolder(folder)), left)


def study(folder: Path, **values) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(json.dumps(values))  # JSON is YAML
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture(autouse=True)
def now(monkeypatch) -> float:
    """The moment at which a test looks: no time passes in it."""
    moment = time.time()
    monkeypatch.setattr(time, "time", lambda: moment)
    return moment


@pytest.fixture
def status(monkeypatch, capsys):
    """The lines that are printed of a folder, which must stay as it is."""

    def look(folder: Path, columns: int = 300) -> list[str]:
        before = contents(folder)
        monkeypatch.setenv("COLUMNS", str(columns))
        progress.print_status(folder, grid.planned_names)
        assert contents(folder) == before
        return capsys.readouterr().out.splitlines()

    return look


def row(lines: list[str], name: str) -> list[str]:
    """The cells of a run's row."""
    (found,) = [line.split() for line in lines if line.startswith(f"{name} ")]
    return found[1:]


def totals(lines: list[str], folder: Path) -> str:
    (found,) = [line for line in lines if line.startswith(f"{folder}: ")]
    return found.removeprefix(f"{folder}: ")


HOLD = """
import contextlib, sys
from pathlib import Path
from safety_nb.core import run_folder
with contextlib.ExitStack() as stack:
    for folder in sys.argv[1:]:
        stack.enter_context(run_folder.locked(Path(folder)))
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held(*folders: Path):
    """A process that works in these folders."""
    command = [sys.executable, "-c", HOLD, *map(str, folders)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


# Runs


def test_empty_folder_is_told_how_to_make_a_run(tmp_path, status):
    assert status(tmp_path) == [f"No runs below {tmp_path} yet; `safety-nb run params/tiny.yaml` makes one."]


@pytest.mark.parametrize("depth", ["outputs", "study", "run"])
def test_runs_are_found_from_each_folder_above_them(depth, tmp_path, status):
    run = done(tmp_path / "study" / "n30_seed0")
    assert row(status({"outputs": tmp_path, "study": run.parent, "run": run}[depth]), "n30_seed0")


def test_finished_stage_shows_what_it_took(tmp_path, status):
    # 61.5 s is 1:01, 3,725 s are 1:02:05.
    done(tmp_path / "a", mix=61.5, train=3725.0)
    assert row(status(tmp_path), "a")[:5] == ["1:01", "1:02:05", "0:10", "0:10", "0:10"]


def test_age_is_that_of_the_last_change(tmp_path, status):
    run = done(tmp_path / "a")
    two_hours_ago = time.time() - 2 * 3600 - 60
    os.utime(run / "run.json", (two_hours_ago, two_hours_ago))
    assert row(status(tmp_path), "a")[-3:] == ["2", "h", "ago"]


def test_failed_stage_shows_its_cause(tmp_path, status):
    ledger(tmp_path / "a", mix=DONE, train={"state": "failed", "wall_seconds": 3.2, "cause": "RuntimeError: no space"})
    lines = status(tmp_path)
    assert row(lines, "a")[:5] == ["0:10", "failed", "-", "-", "-"]
    assert "a, train: RuntimeError: no space" in lines
    assert totals(lines, tmp_path) == "0 of 1 done, 1 failed"


def test_running_stage_shows_its_share_its_time_and_what_is_left(tmp_path, status):
    run = ledger(tmp_path / "a", mix=DONE, train=running(since=95))
    progressed(run, "train", 0.25, since=90)
    with held(run):
        lines = status(tmp_path)
    assert row(lines, "a")[:3] == ["0:10", "25%", "-"]
    # A quarter in 90 s, so three quarters in 270 s.
    assert "a, train: running for 1:35, 25% done, about 4:30 left" in lines


def test_time_left_is_by_the_steps_of_this_execution(tmp_path, status):
    # 60 steps were there when it went on; it made 20 in 100 s, so the 20 that are left take as long: 1:40. Told by all
    # 80 steps it would be 25 s.
    run = ledger(tmp_path / "a", mix=DONE, train=running(since=130))
    left = {"stage": "train", "done": 80, "total": 100, "before": 60, "started": time.time() - 100}
    files.write_json(run_folder.progress_file(run_folder.RunFolder(run)), left)
    with held(run):
        assert "a, train: running for 2:10, 80% done, about 1:40 left" in status(tmp_path)


def test_no_time_left_is_told_before_the_first_step_after_a_resume(tmp_path, status):
    run = ledger(tmp_path / "a", mix=DONE, train=running(since=130))
    left = {"stage": "train", "done": 60, "total": 100, "before": 60, "started": time.time() - 100}
    files.write_json(run_folder.progress_file(run_folder.RunFolder(run)), left)
    with held(run):
        assert "a, train: running for 2:10" in status(tmp_path)


@pytest.mark.parametrize(
    "left",
    ["[]", "null", "{}", '{"stage": "train"}', '{"stage": "train", "done": "1", "total": 2, "started": 9e12}']
    + ['{"stage": "train", "done": 3, "total": 0, "started": 9e12}', "[" * 100_000],
)
def test_progress_that_cannot_be_read_is_none(left, tmp_path, status):
    run = ledger(tmp_path / "a", mix=DONE, train=running(since=95))
    run_folder.progress_file(run_folder.RunFolder(run)).write_text(left)
    with held(run):
        assert "a, train: running for 1:35" in status(tmp_path)


def test_entries_that_lack_what_is_not_needed_are_shown(tmp_path, status):
    run = ledger(tmp_path / "a", mix={"state": "done"}, train={"state": "failed"}, judge={"state": "running"})
    assert row(status(tmp_path), "a")[:2] == ["0:00", "failed"]
    assert progress.stage_progress(run_folder.RunFolder(run)) == (1, "failed in train")


def test_running_stage_that_has_told_nothing_yet_shows_its_time_alone(tmp_path, status):
    run = ledger(tmp_path / "a", mix=DONE, train=running(since=3600))
    progressed(run, "train", 0.5, since=7200)  # of an earlier execution
    with held(run):
        lines = status(tmp_path)
    assert row(lines, "a")[1] == "running"
    assert "a, train: running for 1:00:00" in lines


def test_run_whose_process_was_killed_is_stopped_and_says_how_to_go_on(tmp_path, status):
    run = ledger(tmp_path / "my runs" / "a", mix=DONE, train=running())
    progressed(run, "train", 0.25, since=20)
    with held(run) as process:
        assert row(status(tmp_path), "a")[1] == "25%"
        process.kill()
        process.wait()
        lines = status(tmp_path)
    assert row(lines, "a")[:3] == ["0:10", "stopped", "-"]
    assert "a, train: stopped: the process that ran it is gone" in lines
    assert totals(lines, run.parent) == "0 of 1 done, 1 stopped"
    words = shlex.split(lines[-1].partition(": ")[2])  # a folder's name may hold a space
    assert words == ["safety-nb", "run", str(run / "params.yaml"), "--out", str(run)]


def test_run_between_two_stages_is_running_while_it_is_held(tmp_path, status):
    run = ledger(tmp_path / "a", mix=DONE)
    with held(run):
        assert totals(status(tmp_path), tmp_path) == "0 of 1 done, 1 running"
    assert totals(status(tmp_path), tmp_path) == "0 of 1 done, 1 waiting"


@pytest.mark.parametrize("text", ["[]", "{}", '"words"'])
def test_ledger_that_is_none_does_not_hide_the_others(text, tmp_path, status):
    done(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text(text)
    lines = status(tmp_path)
    assert totals(lines, tmp_path) == "1 of 2 done, 1 unreadable"
    assert row(lines, "a")


# Studies


def test_study_in_progress_shows_every_planned_run_in_the_order_of_the_plan(tmp_path, status):
    folder = study(tmp_path / "dose", n_safety=[0, 30, 1000], seed=[0, 1])
    done(folder / "n1000_seed0")
    current = ledger(folder / "n30_seed1", mix=running(since=4))
    with held(folder, current):
        lines = status(tmp_path)
    rows = [line.split()[0] for line in lines[lines.index("") + 3 :] if "_seed" in line and ", " not in line]
    assert rows == [f"n{n}_seed{seed}" for n in (0, 30, 1000) for seed in (0, 1)]
    assert row(lines, "n0_seed0") == ["-"] * 5 + ["waiting"]
    # Each stage took 10 s in the run that is done; of the one that runs 4 s of 50 are over, and four wait: 246 s.
    assert totals(lines, folder) == "1 of 6 done, 1 running, 4 waiting, about 4:06 left"
    assert not any(line.startswith("To go on") for line in lines)


def test_time_left_of_a_study_is_what_its_stages_took_elsewhere(tmp_path):
    # A stage took 10 and 30 s, mix also 10 s in c and f: 15 s for mix, 20 s for each other one. Left are
    # of c: half the training took 20 s, so 20 s, and three stages: 80 s; of d: 15 - 5 s of mix and four stages: 90 s;
    # of e, which waits: 95 s; of f, which was stopped after mix: 80 s. g failed and is not taken up again.
    # 345 s, two runs at once: 172.5 s.
    done(tmp_path / "a")
    done(tmp_path / "b", **dict.fromkeys(stages.STAGE_NAMES, 30.0))
    ledger(tmp_path / "c", mix=DONE, train=running(since=25))
    progressed(tmp_path / "c", "train", 0.5, since=20)
    ledger(tmp_path / "d", mix=running(since=5))
    ledger(tmp_path / "f", mix=DONE, train=running(since=1000))
    ledger(tmp_path / "g", mix={"state": "failed", "cause": "x", "wall_seconds": 1})
    with held(tmp_path / "c", tmp_path / "d"):
        sights = [progress.look(run_folder.RunFolder(tmp_path / name)) for name in "abcdefg"]
        assert [sight.state for sight in sights] == [
            "done", "done", "running", "running", "waiting", "stopped", "failed",
        ]  # fmt: skip
        assert progress._seconds_left(sights) == pytest.approx(172.5)


def test_a_study_that_measures_capabilities_has_a_column_for_them(tmp_path, status):
    # a took 10 s a stage, six stages; b has done two of them and c none, so that four and six stages are left, 100 s.
    folder = study(tmp_path / "dose", n_safety=[0, 30, 100])
    done(folder / "n0_seed0")
    ledger(folder / "n0_seed0", **dict.fromkeys(stages.ALL_NAMES, DONE))
    current = ledger(folder / "n30_seed0", mix=DONE, train=DONE, generate=running(since=0), capabilities=WAITING)
    with held(folder, current):
        lines = status(folder)
    (head,) = [line for line in lines if line.startswith("run ")]
    assert head.split() == ["run", *stages.ALL_NAMES, "changed"]
    assert stages.ALL_NAMES[2:4] == ("generate", "capabilities")
    assert row(lines, "n0_seed0")[:6] == ["0:10"] * 6
    assert row(lines, "n30_seed0")[:6] == ["0:10", "0:10", "running", "-", "-", "-"]
    assert totals(lines, folder) == "1 of 3 done, 1 running, 1 waiting, about 1:40 left"


def test_time_left_is_not_guessed_before_every_stage_was_done_once(tmp_path, status):
    folder = study(tmp_path / "dose", n_safety=[0, 30])
    current = ledger(folder / "n0_seed0", mix=DONE, train=running())
    with held(folder, current):
        assert totals(status(folder), folder) == "0 of 2 done, 1 running, 1 waiting"


def test_study_nobody_works_on_says_how_to_go_on(tmp_path, status):
    folder = study(tmp_path / "dose", n_safety=[0, 30])
    done(folder / "n0_seed0")
    lines = status(tmp_path)
    assert lines[-1] == f"To go on from there: safety-nb study {folder / 'study.yaml'} --out {folder}"
    done(folder / "n30_seed0")
    assert not any(line.startswith("To go on") for line in status(tmp_path))


def test_run_that_the_study_no_longer_asks_for_comes_last(tmp_path, status):
    folder = study(tmp_path / "dose", n_safety=[30])
    done(folder / "n0_seed0")
    lines = status(tmp_path)
    assert lines.index(next(line for line in lines if line.startswith("n30_seed0"))) < lines.index(
        next(line for line in lines if line.startswith("n0_seed0"))
    )


@pytest.mark.parametrize("text", ["n_safety: [", "- 1", "n_saftey: [1]", "n_safety: 1"])
def test_study_file_that_cannot_be_read_does_not_hide_the_runs(text, tmp_path, status):
    folder = tmp_path / "dose"
    done(folder / "n0_seed0")
    (folder / "study.yaml").write_text(text)
    lines = status(tmp_path)
    assert row(lines, "n0_seed0")
    assert any(line.startswith("study.yaml cannot be read: ") for line in lines)


# On a screen


def test_brackets_are_shown_as_they_are(tmp_path, status):
    cause = "InputError: use [all-linear], not [/tmp/x]"
    folder = tmp_path / "[old] study"
    ledger(folder / "n0_[red]", train={"state": "failed", "cause": cause, "wall_seconds": 1})
    lines = status(folder)
    assert totals(lines, folder) and row(lines, "n0_[red]")
    assert f"n0_[red], train: {cause}" in lines


def test_name_and_cause_are_whole_in_80_columns(tmp_path, status):
    # What a pipe gets, too.
    cause = "OutOfMemoryError: CUDA out of memory, tried to allocate 80 GiB more than there are on this device"
    ledger(tmp_path / "n1000_seed0_lora_r-8", train={"state": "failed", "cause": cause, "wall_seconds": 1})
    lines = status(tmp_path, columns=80)
    assert row(lines, "n1000_seed0_lora_r-8")[:2] == ["-", "failed"]
    assert f"n1000_seed0_lora_r-8, train: {cause}" in lines


def test_names_too_long_for_the_screen_stand_on_lines_of_their_own(tmp_path, status):
    names = ["n100_seed0_general-" + "x" * 60, "n1000_seed0_general-short"]
    for name in names:
        done(tmp_path / name)
    lines = status(tmp_path, columns=80)
    for name in names:
        after = lines[lines.index(name) + 1]
        assert after.startswith("    ") and after.split()[:5] == ["0:10"] * 5 and len(after) <= 80
    assert lines[lines.index("run") + 1].split() == [*stages.STAGE_NAMES, "changed"]


def test_causes_and_names_command_no_terminal(tmp_path, status):
    ledger(tmp_path / "a\x1b[2J", train={"state": "failed", "cause": "\x1b]0;title\x07\u202e", "wall_seconds": 1})
    shown = "\n".join(status(tmp_path))
    assert not set("\x1b\x07\u202e") & set(shown)
    assert "a‹U+001B›[2J, train: ‹U+001B›]0;title‹U+0007›‹U+202E›" in shown


# While a run goes


def test_a_run_tells_each_stage_as_it_ends(tmp_path, capsys):
    run = run_folder.RunFolder(tmp_path / "run")
    earlier = {"state": "done", "started": time.time() - 60, "wall_seconds": 3}
    files.write_json(run.ledger, {"stages": {"mix": earlier, "train": {"state": "waiting"}}})
    with progress.watching_stages(run):
        run_folder.record_stage(run, "train", state="running", started=time.time() + 1)
        run_folder.record_stage(run, "train", state="failed", cause="why", wall_seconds=65)
    # Nothing is told of the stage that was done before.
    assert capsys.readouterr().out == "train failed in 1:05\n"


def test_a_run_on_a_terminal_has_a_line_a_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any output for a terminal
    monkeypatch.setenv("COLUMNS", "100")
    run = run_folder.RunFolder(tmp_path / "run")
    now = time.time()
    done = {"state": "done", "started": now - 70, "wall_seconds": 5.0}
    files.write_json(run.ledger, {"stages": {"mix": done, "train": {"state": "running", "started": now - 60}}})
    # A quarter in 15 seconds: 45 are left.
    told = {"stage": "train", "done": 10, "total": 40, "started": now - 15}
    files.write_json(run_folder.progress_file(run), told)
    with progress.watching_stages(run):
        pass
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out).splitlines()[-5:]
    assert [line.split()[0] for line in lines] == ["mix", "train", "generate", "judge", "report"]
    assert lines[0].rstrip().endswith("done in 0:05") and lines[2].rstrip().endswith("waiting")
    assert re.search(r"running for 1:0\d, 0:4[4-6] left *$", lines[1])
