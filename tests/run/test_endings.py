"""Every way in which a stage can end, for real: what the ledger, the notebook, the message and the exit status say."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import forks
import nbformat
import psutil
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from safety_nb.core import run_folder
from safety_nb.core.params import RunParams
from safety_nb.run import runner, stages

# A fraction of the miniature: seconds a run.
SMALL = {"n_general": 64, "n_safety": 16, "n_validation": 8, "evaluation": ["tiny-facts"], "max_new_tokens": 16}
SECRET = "sk-not-a-real-key-0123456789"


pytestmark = pytest.mark.usefixtures("kernels")


@pytest.fixture
def execute(tmp_path, monkeypatch) -> Callable[..., run_folder.RunFolder]:
    """Execute the first stage of a run with these cells in place of its notebook."""

    def execute(*cells: str, **params: object) -> run_folder.RunFolder:
        parameters = new_code_cell("run_dir: str = ''", metadata={"tags": ["parameters"]})
        book = new_notebook(
            cells=[parameters, *map(new_code_cell, cells)],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(book, tmp_path / "1-mix.ipynb")
        monkeypatch.setattr(runner, "notebook_path", lambda name: tmp_path / f"{name}.ipynb")
        runner.execute_run(execute.run, RunParams(**params), last="mix")
        return execute.run

    execute.run = run_folder.RunFolder(tmp_path / "run")
    return execute


def failed(execute: Callable, *cells: str, **params: object) -> tuple[run_folder.RunFolder, str, str, str]:
    """The run of a stage that has to fail, its state and cause in the ledger, and the message."""
    with pytest.raises(runner.StageFailed) as caught:
        execute(*cells, **params)
    entry = run_folder.read_ledger(execute.run)["stages"]["mix"]
    return execute.run, entry["state"], entry["cause"], str(caught.value)


def executed(run: run_folder.RunFolder) -> list:
    """The code cells of the executed notebook, without the parameters."""
    book = nbformat.read(run.notebooks / "1-mix.ipynb", as_version=4)
    return [cell for cell in book.cells if cell.cell_type == "code" and not cell.metadata.get("tags")]


MAKE_OUTPUTS = """
from safety_nb.core import files, run_folder
run = run_folder.open_run(run_dir)
for path in (run.train_rows, run.validation_rows, run.mixture):
    files.write_text(path, "")
"""


# --- endings ------------------------------------------------------------------------------------------------------


def test_a_stage_that_ends_well_says_what_it_used(execute):
    run = execute(MAKE_OUTPUTS)
    entry = run_folder.read_ledger(run)["stages"]["mix"]
    assert entry["state"] == "done" and entry["cause"] is None
    # An interpreter with the imports of a kernel takes tens of megabytes, and far less than this machine's gigabytes.
    assert 30e6 < entry["peak_memory"] < 4e9
    assert entry["device"] == "cpu" and entry["peak_device_memory"] is None


def test_a_peak_of_memory_is_in_the_ledger(execute):
    run = execute(MAKE_OUTPUTS, "block = b'x' * 700_000_000; del block")
    assert run_folder.read_ledger(run)["stages"]["mix"]["peak_memory"] > 700_000_000


def test_an_error_in_a_cell(execute):
    run, state, cause, message = failed(
        execute, "print('before')", "raise ValueError('no such thing')", "print('after')"
    )
    assert (state, cause) == ("failed", "ValueError: no such thing")
    assert "Stage 'mix'" in message and "ValueError: no such thing" in message and "1-mix.ipynb" in message
    before, error, after = executed(run)
    assert before.outputs[0].text == "before\n" and error.outputs[0].ename == "ValueError"
    assert "not executed" in after.outputs[0].text and after.metadata.papermill.status == "not executed"


def test_a_notebook_that_makes_nothing_has_failed(execute):
    _, state, cause, _ = failed(execute, "pass")
    assert state == "failed" and "without making mix/train.jsonl" in cause


def test_a_gpu_out_of_memory(execute):
    raising = "import torch; raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')"
    _, state, cause, _ = failed(execute, raising)
    assert state == "failed" and cause.startswith("CUDA out of memory (")


@pytest.mark.parametrize("taking", ["bytearray(2**33)", "__import__('torch').empty(2**33)"])
def test_a_machine_out_of_memory(execute, taking):
    limited = (
        "import resource, torch\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n" + taking
    )
    _, state, cause, _ = failed(execute, limited)
    assert state == "failed" and cause.startswith("the machine is out of memory (")


def test_a_killed_kernel(execute):
    run, state, cause, _ = failed(execute, "print('before')", "import os; os.kill(os.getpid(), 9)", "print('after')")
    assert (state, cause) == ("killed", "the kernel was killed from outside")
    told = [cell.metadata.papermill.status for cell in executed(run)]
    assert told == ["completed", "killed", "not executed"]


def test_a_kernel_killed_for_want_of_memory(execute, monkeypatch):
    counted = iter([7, 8])  # the system's own count, before and after
    monkeypatch.setattr(runner, "_out_of_memory_kills", lambda: next(counted))
    _, state, cause, _ = failed(execute, "import os; os.kill(os.getpid(), 9)")
    assert state == "killed" and "out of memory" in cause


def test_a_time_out(execute):
    started = time.monotonic()
    run, state, cause, _ = failed(execute, "import time; time.sleep(600)", "print('after')", stage_timeout=1.5 / 60)
    assert state == "killed" and cause.startswith("time-out")
    assert time.monotonic() - started < 60
    kernel = run_folder.read_ledger(run)["stages"]["mix"]["kernel"]["pid"]
    assert ended([kernel])
    assert [cell.metadata.papermill.status for cell in executed(run)] == ["killed", "not executed"]


def test_a_time_out_counts_all_cells_together(execute):
    cells = ["import time; time.sleep(1)"] * 9  # each is well within the three seconds
    _, state, cause, _ = failed(execute, *cells, stage_timeout=3 / 60)
    assert state == "killed" and cause.startswith("time-out")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 400 kB, in place of the run's folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(execute, small_disk):
    fill = (
        "from safety_nb.core import files, run_folder; "
        "files.write_text(run_folder.open_run(run_dir).train_rows, 'x' * 1_000_000)"
    )
    run, state, cause, message = failed(execute, fill)
    assert run.root == small_disk
    assert state == "failed" and cause.startswith("the disk is full (OSError")
    assert not run.train_rows.exists() and "the disk is full" in message


def test_a_disk_too_full_for_the_ledger_itself(execute, small_disk):
    # The cell leaves not a byte: what follows can be written nowhere, and still the command says why.
    fill = (
        "import os\n"
        "file = open(os.path.join(run_dir, 'filler'), 'wb', buffering=0)\n"
        "while True:\n"
        "    file.write(b'x' * 512)"
    )
    with pytest.raises(runner.StageFailed, match="the disk is full"):
        execute(fill)


# --- interrupts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def start(origin, tmp_path) -> Callable[..., forks.Process]:
    """Start a command on a small run or study, in a process of its own."""

    def start(*arguments: str, **params: object) -> forks.Process:
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump({**SMALL, **params}))
        command = ["-m", "safety_nb", *(arguments or ("run",)), str(file), "--out", "out"]
        return origin.start(*command, cwd=tmp_path)

    return start


def wait_until(holds: Callable[[], bool], process: forks.Process) -> None:
    while not holds():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def state(run: Path, stage: str) -> str:
    return run_folder.read_ledger(run_folder.RunFolder(run))["stages"].get(stage, {}).get("state", "waiting")


def ended(pids: list[int], seconds: float = 20) -> bool:
    """Whether these processes are gone, or going."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            pids = [pid for pid in pids if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
            time.sleep(0.05)
            if pids:
                continue
            return True
        pids = [pid for pid in pids if psutil.pid_exists(pid)]
    return not pids


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_an_interrupted_run_says_so_and_goes_on(start, tmp_path, signum):
    process = start()
    wait_until(
        lambda: "kernel" in run_folder.read_ledger(run_folder.RunFolder(tmp_path / "out"))["stages"].get("train", {}),
        process,
    )
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signum)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "Interrupted" in told and "Traceback" not in told
    entry = run_folder.read_ledger(run_folder.RunFolder(tmp_path / "out"))["stages"]["train"]
    assert (entry["state"], entry["cause"]) == ("killed", "interrupted")
    assert ended(children)


@pytest.mark.parametrize("arguments", [("run",), ("study", "--jobs", "2")])
def test_a_second_ctrl_c_breaks_nothing_off(start, tmp_path, arguments):
    process = start(*arguments, **({"n_safety": [0, 16]} if arguments[0] == "study" else {}))
    run = tmp_path / "out" / "n16_seed0" if arguments[0] == "study" else tmp_path / "out"
    wait_until(lambda: state(run, "mix") == "running", process)
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    for _ in range(8):  # one comes while it ends its kernels, one while the interpreter goes down
        process.send_signal(signal.SIGINT)
        time.sleep(0.15)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in told and "Exception" not in told, told
    assert told.count("Interrupted") == 1 and ended(children)


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM])
def test_an_interrupted_study_ends_its_runs_in_order(start, tmp_path, signum):
    process = start("study", "--jobs", "2", n_safety=[0, 16, 32, 48])
    first, second, third = (tmp_path / "out" / f"n{n}_seed0" for n in (48, 32, 16))  # the longest go first
    wait_until(lambda: state(first, "mix") != "waiting" != state(second, "mix"), process)
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signum)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "Interrupted" in told and "Traceback" not in told, told
    for run in (first, second):
        assert "killed" in {state(run, stage) for stage in stages.STAGE_NAMES}
    assert not third.exists()
    assert ended(children)


def test_a_killed_study_leaves_no_process_behind(start, tmp_path):
    process = start("study", "--jobs", "2", n_safety=[0, 16])
    wait_until(lambda: state(tmp_path / "out" / "n16_seed0", "mix") != "waiting", process)
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.communicate(timeout=60)
    assert ended(children)


# --- secrets ------------------------------------------------------------------------------------------------------

LEAKS = [
    "print({v})",
    "import sys; print({v}, file=sys.stderr)",
    "{v}",
    "import os; os.write(2, {v}.encode() + b'\\n')",
    "import os; os.system('echo $' + {n})",
    "import os; os.system('echo $' + {n} + ' >&2')",
    "from IPython.display import HTML; HTML('<b>' + {v} + '</b>')",
    "import json; print(json.dumps(dict(key={v})))",
    "import logging; logging.getLogger().error({v})",
    "files.write_json(run_folder.open_run(run_dir).root / 'a.json', dict(key={v}))",
    "files.write_jsonl(run_folder.open_run(run_dir).root / 'a.jsonl', [dict(key={v})])",
    "files.append_line(run_folder.open_run(run_dir).root / 'b.jsonl', dict(key={v}))",
    "import pandas; files.write_csv(run_folder.open_run(run_dir).root / 'a.csv', pandas.DataFrame(dict(key=[{v}])))",
]


def leaking(text: str, name: str) -> str:
    return text.format(v=f"__import__('os').environ[{name!r}]", n=repr(name))


def holding(folder: Path, secret: str) -> list[Path]:
    """The files below a folder that hold a secret."""
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["HF_TOKEN", "OPENAI_API_KEY", "MY_JUDGES_KEY"])
def test_no_secret_is_written_whatever_a_cell_does_with_it(execute, monkeypatch, name):
    monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("SAFETY_NB_SECRETS", "MY_JUDGES_KEY, ANOTHER")
    cells = [leaking(cell, name) for cell in LEAKS]
    run = execute(MAKE_OUTPUTS, *cells)
    assert holding(run.root, SECRET) == []
    # The cells did say it: what is left out is told where it stood.
    assert all("[secret]" in json.dumps(cell.outputs) for cell in executed(run)[1:4])
    assert run.log.read_text().count("[secret]") >= 4


def test_a_key_named_by_a_parameter_is_a_secret(execute, monkeypatch):
    monkeypatch.setenv("SAFETY_NB_SECRETS", "")
    monkeypatch.setenv("MY_VENDORS_KEY", SECRET)
    run = execute(MAKE_OUTPUTS, leaking("print({v})", "MY_VENDORS_KEY"), key_name="MY_VENDORS_KEY")
    assert holding(run.root, SECRET) == [] and executed(run)[1].outputs[0].text == "[secret]\n"


def test_no_secret_is_in_the_message_of_an_error(execute, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    run, _, cause, message = failed(execute, leaking("raise ValueError('401 for ' + {v})", "HF_TOKEN"))
    assert cause == "ValueError: 401 for [secret]" and SECRET not in message
    assert holding(run.root, SECRET) == []


def test_the_token_that_the_hub_keeps_in_a_file_is_a_secret(execute, monkeypatch, tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "token").write_text(SECRET + "\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    run = execute(MAKE_OUTPUTS, "print(open(__import__('os').environ['HF_HOME'] + '/token').read())")
    assert holding(run.root, SECRET) == []


def test_a_secret_with_special_characters_is_found_in_json_and_html(execute, monkeypatch):
    secret = 'quote" and <sign> and \u00fc'
    monkeypatch.setenv("HF_TOKEN", secret)
    code = "import json; print(json.dumps({v})); print(__import__('html').escape({v})); print({v})"
    run = execute(MAKE_OUTPUTS, leaking(code, "HF_TOKEN"))
    assert executed(run)[1].outputs[0].text == '"[secret]"\n[secret]\n[secret]\n'


def test_a_word_is_no_secret(execute, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "mix")
    run = execute(MAKE_OUTPUTS, "print('mixture')")
    assert executed(run)[1].outputs[0].text == "mixture\n"


# --- what a cell shows --------------------------------------------------------------------------------------------


def test_a_cell_may_print_only_so_much(execute):
    run = execute(MAKE_OUTPUTS, "print('x' * 5_000_000)", "for _ in range(100_000): print('y' * 20)", "print('z')")
    long_line, many_lines, other = (cell.outputs for cell in executed(run)[1:])
    # 5,000,001 and 2,100,000 characters with their line breaks, of which 200,000 are kept.
    assert sum(len(output.get("text", "")) for output in long_line) == 200_000
    assert [o.data["text/plain"] for o in long_line if "data" in o] == [
        "[4,800,001 characters more were left out of this cell's output]"
    ]
    assert sum(len(output.get("text", "")) for output in many_lines) == 200_000
    assert [o.data["text/plain"] for o in many_lines if "data" in o] == [
        "[1,900,000 characters more were left out of this cell's output]"
    ]
    assert other[0].text == "z\n"
    assert (run.notebooks / "1-mix.ipynb").stat().st_size < 600_000
    assert run.log.stat().st_size < 600_000


def test_a_cell_may_show_only_so_large_a_table(execute):
    run = execute(MAKE_OUTPUTS, "from IPython.display import HTML; HTML('x' * 12_000_000)")
    told = [output.data["text/plain"] for output in executed(run)[1].outputs]
    assert told[-1].startswith("[text/plain, text/html: too large") or told[-1].startswith("[text/html, text/plain")
    assert (run.notebooks / "1-mix.ipynb").stat().st_size < 100_000


def test_a_display_that_is_redrawn_counts_once(execute):
    # 20 times 3,000,000 characters in one place; the last is kept, and another one of as much has room beside it.
    code = (
        "from IPython.display import display\n"
        "handle = display({'text/html': ''}, raw=True, display_id=True)\n"
        "for i in range(20):\n    handle.update({'text/html': str(i % 10) * 3_000_000}, raw=True)\n"
        "display({'text/html': 'z' * 6_000_000}, raw=True)\n"
        "handle.update({'text/html': 'x' * 5_000_000}, raw=True)"
    )
    shown = executed(execute(MAKE_OUTPUTS, code))[1].outputs
    # 3,000,000 and 6,000,000 of 10,000,000: 5,000,000 in the place of the first are too many.
    assert [output.data.get("text/html", "")[:1] for output in shown[:2]] == ["", "z"]
    assert shown[0].data["text/plain"] == "[text/html: too large to be kept]"


def test_what_a_cell_clears_does_not_count(execute):
    code = (
        "from IPython.display import clear_output\nfor i in range(5):\n    clear_output()\n    print(str(i) * 150_000)"
    )
    run = execute(MAKE_OUTPUTS, code)
    assert [output.text for output in executed(run)[1].outputs] == ["4" * 150_000 + "\n"]


def test_an_error_of_megabytes_is_shown_at_a_bearable_length(execute):
    run, _, _, _ = failed(execute, "raise ValueError('x' * 3_000_000)")
    assert (run.notebooks / "1-mix.ipynb").stat().st_size < 2_000_000
