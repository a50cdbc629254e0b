"""Kernels forked from a process that has the heavy imports already.

Importing torch, transformers and peft takes a plain kernel longer than most stages work. Here one process imports them
and is forked for every notebook; each still gets a process of its own, with nothing in it but the imports.
jupyter_client's kernel provisioners are the supported way to decide how a kernel's process starts.

Knows nothing of stages. Where forking is not known to be safe, kernels start as they always do: on systems other than
Linux, and beside a GPU, because a fork does not survive an import that has talked to its driver.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

PROVISIONER = "safety-nb-fork"  # its entry point is in pyproject.toml

# What the notebooks import, the light first. None of it may start a thread of its own: a fork would have its locks and
# not its thread.
IMPORTS = (
    *("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.debugger", "tornado.platform.asyncio"),
    *("IPython.core.completerlib", "IPython.extensions.storemagic", "sqlite3", "pandas", "safety_nb.run.stages"),
    *("torch", "transformers.trainer", "peft", "bitsandbytes", "matplotlib.pyplot", "seaborn", "nbformat"),
)
# matplotlib reads this when it is imported; a plain kernel sets it for itself before that. Without it no figure shows.
_FIGURES = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
LIGHT = "SAFETY_NB_LIGHT_KERNEL"  # in the environment of a kernel that need not wait for all of them
# How the drivers of NVIDIA, of NVIDIA under WSL and of AMD show themselves, without asking any of them.
_GPU_DEVICES = ("nvidia[0-9]*", "dxg", "kfd")


# --- in the process that executes notebooks -----------------------------------------------------------------------


class Forker:
    """The process that is forked, as seen by the one that asks for kernels.

    It begins with its imports at once, and ends with the process that started it, at the latest.

    Args:
        program: what Python executes as this process, which has to call ``main``; by default this module.
    """

    def __init__(self, *program: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # What a plain kernel could not import either is told by that kernel, in its notebook.
        self._process = subprocess.Popen(
            [sys.executable, *(program or ("-m", __name__)), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**_FIGURES, **os.environ},
        )
        theirs.close()
        self._answers = self._socket.makefile("r", encoding="utf-8")

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(
        self, command: list[str], env: dict[str, str], cwd: str | None, outputs: tuple[int, int] = (1, 2)
    ) -> "ForkedProcess | None":
        """Start a kernel: ``command`` is what a plain one would be started with. None where it can't be forked.

        Its standard output and error are those of this process, as they are now, or the descriptors ``outputs``.
        """
        status, theirs = os.pipe()
        request = json.dumps({"argv": command, "env": env, "cwd": cwd or os.getcwd()}).encode() + b"\n"
        try:
            sent = socket.send_fds(self._socket, [request], [*outputs, theirs])
            self._socket.sendall(request[sent:])
            answer = self._answers.readline()
        except (BrokenPipeError, ConnectionResetError):
            answer = ""
        finally:
            os.close(theirs)
        if not answer:  # it has ended: an import failed, or somebody killed it
            os.close(status)
            return None
        return ForkedProcess(json.loads(answer)["pid"], status)

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait()


class ForkedProcess:
    """As much of ``subprocess.Popen`` as a provisioner uses, for a process that is not our child.

    Its exit status comes through a pipe from the process that was forked.
    """

    stdin = stdout = stderr = None

    def __init__(self, pid: int, status: int) -> None:
        self.pid, self.returncode, self._status = pid, None, status

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            # Nothing to read: the forked process itself has died, and its children with it.
            self.returncode = int(os.read(self._status, 16) or -signal.SIGKILL)
            os.close(self._status)
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            select.select([self._status], [], [])
        return self.poll()

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


_forker: Forker | None = None


def is_possible(devices: Path = Path("/dev")) -> bool:
    """Whether kernels can be forked on this machine."""
    return sys.platform == "linux" and not any(list(devices.glob(name)) for name in _GPU_DEVICES)


@contextlib.contextmanager
def kernels() -> Iterator[None]:
    """Have every kernel that this process starts in the body forked, where that is possible.

    Inside a body of the same kind it does nothing, so that several runs can share one forked process.
    """
    global _forker
    if _forker is not None or not is_possible():
        yield
        return
    factory = KernelProvisionerFactory.instance()
    before, factory.default_provisioner_name = factory.default_provisioner_name, PROVISIONER
    _forker = Forker()
    try:
        yield
    finally:
        factory.default_provisioner_name = before
        _forker.close()
        _forker = None


class ForkProvisioner(LocalProvisioner):
    """Starts a kernel by forking, or plainly where nothing can be forked."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        process = _forker and _forker.fork(cmd, kwargs.get("env") or dict(os.environ), kwargs.get("cwd"))
        if process is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process = process
        self.pid = self.pgid = self.process.pid  # it leads a session of its own
        return self.connection_info


# --- in the process that is forked --------------------------------------------------------------------------------


def serve(connection: socket.socket) -> None:
    """Import, and fork a kernel for every request, until the other side goes away."""
    # What is imported lives as long as the process: kernels need not search it for garbage, a third of a second each
    # time.
    gc.disable()
    imports = iter(IMPORTS)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}
    name = next(imports, None)
    while True:
        if name is not None:
            importlib.import_module(name)
            name = next(imports, None)
        ready, _, _ = select.select([connection, woken], [], [], 0 if name is not None else None)
        if woken in ready:
            os.read(woken, 4096)
            _reap(children)
        if connection in ready:
            received = _receive(connection)
            if received is None:
                break
            request, descriptors = received
            if LIGHT not in request["env"]:
                for rest in filter(None, (name, *imports)):
                    importlib.import_module(rest)
                name = None
            gc.freeze()
            pid, status = _fork(request, descriptors, inherited=[connection.fileno(), woken, wake])
            children[pid] = status
            _reply(connection, pid=pid)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    os._exit(0)  # taking down an interpreter that has imported this much takes seconds


def _reply(connection: socket.socket, **facts: Any) -> None:
    connection.sendall(json.dumps(facts).encode() + b"\n")


def _receive(connection: socket.socket) -> tuple[dict, list[int]] | None:
    """A request and the file descriptors that came with it; None at the end."""
    data, descriptors, _, _ = socket.recv_fds(connection, 65536, 3)
    while data and not data.endswith(b"\n"):
        data += connection.recv(65536)
    return (json.loads(data), descriptors) if data else None


def _reap(children: dict[int, int]) -> None:
    """Pass the exit status of kernels that ended on to whoever started them."""
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            pipe = children.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(pipe, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(pipe)


def _fork(request: dict, descriptors: list[int], inherited: list[int]) -> tuple[int, int]:
    """Fork; the child becomes the kernel and does not return."""
    output, error, status = descriptors
    pid = os.fork()
    if pid == 0:
        gc.enable()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor, number in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (error, 2)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        for descriptor in (status, *inherited):
            os.close(descriptor)
        _become_kernel(request)
    os.close(output)
    os.close(error)
    return pid, status


def _become_kernel(request: dict) -> NoReturn:
    """What ``python -m ipykernel_launcher`` does, in a process that has imported much of it already."""
    try:
        os.setsid()
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        from ipykernel.kernelapp import launch_new_instance

        arguments = request["argv"]
        # With a parent to watch, a kernel ends by itself when the forked process is gone.
        watched = f"--IPKernelApp.parent_handle={os.getppid()}"
        launch_new_instance(argv=[*arguments[arguments.index("-f") :], watched])
    except SystemExit as exit_:
        os._exit(exit_.code if isinstance(exit_.code, int) else 0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    sys.path[:] = [path for path in sys.path if path]  # a kernel does not have the folder this was started in either
    sys.modules.setdefault("rfc3987_syntax", None)  # as in cli.main
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
