"""Processes of their own, forked from one that has the imports: real ones for signals to end, without the start.

Importing torch, transformers and peft takes seven to twelve seconds of CPU, which a command, and the process that its
kernels are forked from, would spend for every test that kills or interrupts one.
"""

import atexit
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import NoReturn

from commands import Answer

from safety_nb.run import fork_server


class Process(fork_server.ForkedProcess):
    """As much of ``subprocess.Popen`` as tests use, for a Python program that was forked."""

    def __init__(self, pid: int, status: int, out: Path, err: Path) -> None:
        super().__init__(pid, status)
        self._out, self._err = out, err

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.poll()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to its standard output and error, once it has ended."""
        self.wait(timeout)
        return self._out.read_text(), self._err.read_text()


class Origin(fork_server.Forker):
    """What kernels and Python programs are forked from; where nothing can be forked, programs start plainly."""

    def __init__(self) -> None:
        self._written = tempfile.TemporaryDirectory()
        self._started = 0
        self._is_open = fork_server.is_possible()
        if self._is_open:
            super().__init__(__file__)

    def start(self, *arguments: str, cwd: Path, **variables: str) -> Process | subprocess.Popen:
        """Start ``python ARGUMENTS`` in a folder: ``-m MODULE ...`` or ``-c CODE ...``.

        Args:
            variables: added to the environment. Modules that read it when they are imported have done so already.
        """
        environment = {**os.environ, **variables}
        if not self._is_open:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            command = [sys.executable, *arguments]
            return subprocess.Popen(command, cwd=cwd, env=environment, preexec_fn=_heed_interrupts, **pipes)
        self._started += 1
        out, err = (Path(self._written.name) / f"{self._started}.{name}" for name in ("out", "err"))
        with out.open("wb") as output, err.open("wb") as error:
            forked = self.fork(list(arguments), environment, str(cwd), (output.fileno(), error.fileno()))
        assert forked is not None, "the process that others are forked from has ended"
        return Process(forked.pid, forked._status, out, err)

    def run(self, *arguments: str, cwd: Path, **variables: str) -> Answer:
        """How ``python ARGUMENTS`` in a folder ended."""
        process = self.start(*arguments, cwd=cwd, **variables)
        out, err = process.communicate()
        return Answer(process.returncode, out, err)

    def close(self) -> None:
        if self._is_open:
            super().close()
            self._written.cleanup()
        self._is_open = False


# --- in the process that is forked --------------------------------------------------------------------------------


class _Within(fork_server.Forker):
    """What a forked command forks its kernels from: a fork of itself, in place of a new process with its imports."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pid = os.fork()
        if pid == 0:
            _become_forker(theirs)
        theirs.close()
        self._process = _Child(pid)
        self._answers = self._socket.makefile("r", encoding="utf-8")


class _Child:
    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self) -> int:
        return os.waitpid(self.pid, 0)[1]


def _become_forker(connection: socket.socket) -> NoReturn:
    """What a new process would be: without the files and the handlers of signals of the one it comes from."""
    os.setsid()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(null, number)
    own = connection.fileno()
    os.closerange(3, own)
    os.closerange(own + 1, os.sysconf("SC_OPEN_MAX"))
    os.environ.update(fork_server._FIGURES)
    fork_server.serve(connection)
    os._exit(0)


def _heed_interrupts() -> None:
    # Where the tests themselves go in the background, a shell has SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _become(request: dict) -> NoReturn:
    """A kernel, or the program that was asked for."""
    if "-f" in request["argv"]:
        _become_kernel(request)
    status = 1
    try:
        os.setsid()
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        _heed_interrupts()
        fork_server.Forker = _Within
        # A study's workers, too, would be new processes with imports of their own.
        fork = multiprocessing.get_context("fork")
        multiprocessing.get_context = lambda method=None: fork
        kind, what, *arguments = request["argv"]
        if kind == "-m":
            sys.argv = [what, *arguments]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", *arguments]
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # as an interpreter ends: processes of a pool are waited for
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))  # a kernel does not have it
    _become_kernel, fork_server._become_kernel = fork_server._become_kernel, _become
    fork_server.main()
