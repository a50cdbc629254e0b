"""Forked kernels, started and ended through jupyter_client as any other kernel."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from safety_nb.run import fork_server

pytestmark = pytest.mark.skipif(
    not fork_server.is_possible(), reason="kernels are forked on Linux, and not beside a GPU"
)


@pytest.fixture(scope="module")
def forker(kernels) -> fork_server.Forker:
    assert fork_server._forker is not None
    return fork_server._forker


def run(code: str, **resources: str) -> str:
    """The text that a notebook of one cell prints, in a kernel of its own."""
    book = new_notebook(cells=[new_code_cell(code)])
    NotebookClient(book, timeout=60, resources={"metadata": resources}).execute()
    return "".join(output.get("text", "") for output in book.cells[0].outputs).strip()


def is_running(pid: int) -> bool:
    # Not every machine's first process reaps what it inherits: a zombie has ended too.
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_kernel_has_the_imports_already_and_is_a_process_of_its_own(forker):
    told = run("import sys, os; print('transformers' in sys.modules, os.getppid())")
    assert told == f"True {forker.pid}"


def test_nothing_that_is_not_needed_is_compiled_at_the_imports(forker):
    told = run("import sys; print('nbformat' in sys.modules, 'rfc3987_syntax.syntax_helpers' in sys.modules)")
    assert told == "True False"


def test_a_kernel_shows_the_figures_that_a_cell_draws(forker, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    book = new_notebook(cells=[new_code_cell("import matplotlib.pyplot as plt; plt.plot([1, 2]);")])
    NotebookClient(book, timeout=60).execute()
    assert ["image/png" in output.get("data", {}) for output in book.cells[0].outputs] == [True]


def test_nothing_of_one_kernel_reaches_the_next(forker):
    run("import torch, os; torch.set_num_threads(1); torch.leftover = 1; os.environ['LEFTOVER'] = '1'")
    told = run("import torch, os; print(hasattr(torch, 'leftover'), 'LEFTOVER' in os.environ)")
    assert told == "False False"


def test_a_kernel_collects_garbage_but_does_not_search_the_imports_for_it(forker):
    told = run("import gc; print(gc.isenabled(), gc.get_freeze_count() > 100_000)")
    assert told == "True True"


def test_a_kernel_gets_the_environment_and_the_folder_of_the_moment(forker, tmp_path, monkeypatch):
    monkeypatch.setenv("SET_AFTER_THE_FORKER_STARTED", "yes")
    told = run("import os; print(os.environ['SET_AFTER_THE_FORKER_STARTED'], os.getcwd())", path=str(tmp_path))
    assert told == f"yes {tmp_path}"


def test_a_kernel_computes_as_a_plain_one_does(forker):
    code = "import torch; torch.manual_seed(0); print(torch.randn(3, 500).matmul(torch.randn(500, 2)).sum().item())"
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert run(code) == plain


def test_a_killed_kernel_is_noticed_with_its_signal(forker):
    manager, client = start_new_kernel()
    try:
        process = manager.provisioner.process
        assert isinstance(process, fork_server.ForkedProcess) and manager.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not manager.is_alive()
    finally:
        client.stop_channels()


def test_a_kernel_can_be_interrupted_and_goes_on(forker, tmp_path):
    def reply(message: str) -> dict:
        while True:  # others may come first
            answer = client.get_shell_msg(timeout=20)
            if answer["parent_header"].get("msg_id") == message:
                return answer["content"]

    manager, client = start_new_kernel()
    try:
        begun = tmp_path / "begun"
        code = f"import time, pathlib; pathlib.Path({str(begun)!r}).touch(); time.sleep(60)"
        asked = client.execute(code, stop_on_error=False)  # or it would abort what follows the error closely
        while not begun.exists():
            time.sleep(0.05)
        manager.interrupt_kernel()
        assert reply(asked)["ename"] == "KeyboardInterrupt"
        assert reply(client.execute("1 + 1"))["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_kernels_end_with_the_process_that_asked_for_them(tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(
        "import time\n"
        "from jupyter_client.manager import start_new_kernel\n"
        "from safety_nb.run import fork_server\n"
        "with fork_server.kernels():\n"
        "    manager, client = start_new_kernel()\n"
        "    print(manager.provisioner.process.pid, fork_server._forker.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, fork_server.LIGHT: "1"}  # before all imports are done
    owner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2 and all(is_running(pid) for pid in pids)
    finally:
        owner.kill()
        owner.wait()
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_afterwards_kernels_start_plainly_again():
    code = (
        "from jupyter_client.manager import start_new_kernel\n"
        "from safety_nb.run import fork_server\n"
        "with fork_server.kernels():\n"
        "    pass\n"
        "manager, client = start_new_kernel()\n"
        "print(type(manager.provisioner.process).__name__)\n"
        "manager.shutdown_kernel(now=True)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "Popen"


def test_a_light_kernel_does_not_wait_for_the_heavy_imports(monkeypatch):
    # In a process of its own, so that the imports begin with this very kernel.
    code = (
        "from nbclient import NotebookClient\n"
        "from nbformat.v4 import new_code_cell, new_notebook\n"
        "from safety_nb.run import fork_server\n"
        "book = new_notebook(cells=[new_code_cell('import sys, os; print(\"pandas\" in sys.modules, '\n"
        "                                         '\"seaborn\" in sys.modules, os.getppid())')])\n"
        "with fork_server.kernels():\n"
        "    NotebookClient(book).execute()\n"
        "    print(book.cells[0].outputs[0].text.split(), fork_server._forker.pid)\n"
    )
    monkeypatch.setenv(fork_server.LIGHT, "1")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    *words, pid = re.findall(r"\w+", told)
    # Forked, though seaborn, the last of the imports, was not there yet.
    assert words[1] == "False" and words[2] == pid


def test_where_nothing_can_be_forked_kernels_start_plainly(monkeypatch):
    dead = fork_server.Forker()
    os.killpg(dead.pid, signal.SIGKILL)
    monkeypatch.setattr(fork_server, "_forker", dead)
    monkeypatch.setattr(
        fork_server.KernelProvisionerFactory.instance(), "default_provisioner_name", fork_server.PROVISIONER
    )
    told = run("import os; print(os.getppid())")
    assert told == str(os.getpid())
    dead.close()


@pytest.mark.parametrize("device, possible", [("nvidia0", False), ("kfd", False), ("dxg", False), ("null", True)])
def test_beside_a_gpu_nothing_is_forked(tmp_path, device, possible):
    (tmp_path / device).touch()
    assert fork_server.is_possible(tmp_path) is possible
