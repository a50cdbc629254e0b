"""A process killed with SIGKILL loses nothing: started again, the run ends with the numbers of an undisturbed one."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import forks
import pytest
import yaml
from commands import safety_nb

from safety_nb.core import files, run_folder

pytestmark = pytest.mark.usefixtures("kernels")

PROJECT = Path(__file__).resolve().parents[2]
# A fraction of the miniature.
SMALL = {"n_general": 64, "n_safety": 8, "n_validation": 8, "evaluation": ["tiny-facts"], "max_new_tokens": 16}
MEASURED = ("tokens_per_second", "peak_memory")  # columns of metrics.csv that no two executions share
RESULTS = ("mix/train.jsonl", "train/metrics.csv", "responses.jsonl", "judgements.jsonl", "summary.csv")


@pytest.fixture
def start(origin) -> Callable[[Path, Path], forks.Process]:
    """Start a run in a process of its own."""

    def start(params: Path, folder: Path) -> forks.Process:
        return origin.start("-m", "safety_nb", "run", str(params), "--out", str(folder), cwd=params.parent)

    return start


def finish(params: Path, folder: Path) -> dict[str, str]:
    """Execute the run to its end, in process; its results."""
    done = safety_nb("run", params, "--out", folder, cwd=params.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(
        entry["state"] == "done" for entry in run_folder.read_ledger(run_folder.RunFolder(folder))["stages"].values()
    )
    assert not list(folder.rglob(".partial-*"))
    return {name: untimed(folder / name) for name in RESULTS}


def untimed(path: Path) -> str:
    """A result as text, without what was measured of its execution."""
    if path.name != "metrics.csv":
        return path.read_text()
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return json.dumps([{name: row[name] for name in row if name not in MEASURED} for row in rows])


def kill(process: forks.Process, moment: Callable[[], bool]) -> bool:
    """Kill a run's process, and nothing else, at a moment; whether it had not ended by itself before."""
    while not moment() and process.poll() is None:
        time.sleep(0.01)
    if process.poll() is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    return True


def check_whole(folder: Path) -> None:
    """Every file that has its name is whole."""
    for path in folder.rglob("*"):
        if any(part.startswith(".partial-") for part in path.parts) or not path.is_file():
            continue
        if path.suffix in (".json", ".ipynb"):
            json.loads(path.read_text())
        if path.suffix == ".jsonl":
            assert path.read_text().endswith("\n")
            files.read_jsonl(path)
        if path.suffix == ".yaml":
            assert isinstance(yaml.safe_load(path.read_text()), dict)
        if path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "np") as tensors:
                assert list(tensors.keys())


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A parameter file, and the results of an undisturbed run of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    params = folder / "small.yaml"
    params.write_text(yaml.safe_dump(SMALL))
    return params, finish(params, folder / "run")


def test_a_run_killed_again_and_again_goes_on_to_the_same_numbers(start, small, tmp_path):
    params, undisturbed = small
    run = run_folder.RunFolder(tmp_path / "run")
    done: dict[str, float] = {}
    for stage in ("train", "report"):
        process = start(params, run.root)
        begun = time.time()

        def moment(stage: str = stage, begun: float = begun) -> bool:
            entry = run_folder.read_ledger(run)["stages"].get(stage, {})
            return "kernel" in entry and entry["started"] > begun

        assert kill(process, moment)
        check_whole(run.root)
        entries = run_folder.read_ledger(run)["stages"]
        assert entries[stage]["state"] == "running"  # nobody was left to say otherwise
        # What was done before is not done again.
        assert {name: entries[name]["started"] for name in done} == done
        done = {name: entry["started"] for name, entry in entries.items() if entry["state"] == "done"}
    assert list(done) == ["mix", "train", "generate", "judge"]
    assert finish(params, run.root) == undisturbed


def test_what_a_killed_process_was_doing_is_told_at_the_next_start(tmp_path):
    run = run_folder.RunFolder(tmp_path / "run")
    files.write_json(run.ledger, {"stages": {"train": {"state": "running", "pid": 12345}}})
    (run.root / ".partial-train-abc.jsonl").write_text("half")
    from safety_nb.core.params import RunParams
    from safety_nb.run import runner

    def look(*_: object) -> bool:
        entry = run_folder.read_ledger(run)["stages"]["train"]
        assert entry["state"] == "killed" and "12345" in entry["cause"]
        raise RuntimeError("seen")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="seen"):
        patch.setattr(runner, "is_fresh", look)
        runner.execute_run(run, RunParams())
    assert not list(run.root.glob(".partial-*"))


def test_a_kernel_that_outlives_its_process_is_waited_for(tmp_path):
    # A run whose ledger names a process that is alive, as the kernel of a process that was killed.
    from safety_nb.run import runner

    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        entry = {"state": "running", "kernel": runner._process(other.pid)}
        with pytest.raises(runner.InputError, match=str(other.pid)):
            runner._wait_for_orphan(entry, seconds=0.2)
        # A process of the same number that began at another time is somebody else's.
        runner._wait_for_orphan({**entry, "kernel": {"pid": other.pid, "created": 1.0}}, seconds=0.2)
    finally:
        other.kill()
        other.wait()
    runner._wait_for_orphan(entry, seconds=0.2)


@pytest.mark.soak
def test_a_run_killed_at_twenty_moments_goes_on_to_the_same_numbers(start, tmp_path):
    params = PROJECT / "params" / "tiny.yaml"
    began = time.monotonic()
    # All folders have one name: it stands in the tables that are compared.
    undisturbed = finish(params, tmp_path / "undisturbed" / "run")
    whole = time.monotonic() - began
    for number in range(20):
        killed = False
        while not killed:  # a run that was quicker than the one that was timed ends by itself: then another
            folder = tmp_path / f"killed-{number}-{uuid.uuid4().hex}" / "run"
            process, began = start(params, folder), time.monotonic()
            moment = began + whole * (number + 0.5) / 20
            killed = kill(process, lambda moment=moment: time.monotonic() > moment)
            whole = whole if killed else time.monotonic() - began
        check_whole(folder)
        assert finish(params, folder) == undisturbed, f"killed after {number + 0.5} twentieths of {whole:.0f} s"
