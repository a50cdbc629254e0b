"""Executing one notebook through papermill, so that it can be trusted with a night's work.

What papermill leaves to others: a limit of time, a limit on what a cell may print, saves that are whole or not at all,
no secret in what is saved or logged, and the kernel's own account of what it used. Knows neither runs nor stages.

Imports papermill: import this module inside functions.
"""

import ast
import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.iorw import LocalHandler, papermill_io
from traitlets.config import Config

from safety_nb.core import files, secrets

MOST_TEXT = 200_000  # characters that a cell may print; the rest is counted
MOST_DATA = 10_000_000  # characters of figures and tables, in the form they have in the file


@dataclass
class Execution:
    """One execution of a notebook.

    Attributes:
        seconds: it may take; 0 for no limit.
        on_kernel: called with the process number of its kernel.
        usage: device, peak_memory, peak_device_memory (bytes), as the kernel told them at its end; else empty.
    """

    seconds: float = 0
    on_kernel: Callable[[int], None] = lambda pid: None
    usage: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def seconds_left(self, cell: object = None) -> float | None:
        return max(1.0, self.started + self.seconds - time.monotonic()) if self.seconds else None


def execute(notebook: Path, output: Path, values: dict[str, Any], log: Path, execution: Execution) -> None:
    """Execute a notebook with parameters; the executed copy is kept whether it ends well or not.

    Args:
        log: file that papermill's messages and all that the cells print are added to.

    Raises:
        papermill.exceptions.PapermillExecutionError: a cell raised. nbclient.exceptions: DeadKernelError,
            CellTimeoutError.
    """
    output = output.resolve()  # papermill changes the working folder
    with _log(log) as sink:
        papermill.execute_notebook(
            str(notebook),
            _SCHEME + str(output),
            parameters=values,
            engine_name=_ENGINE,
            kernel_name="python3",  # jupyter_client starts this one with the running interpreter
            cwd=str(output.parent),
            progress_bar=False,
            execution=execution,
            sink=sink,
        )


# --- saving -------------------------------------------------------------------------------------------------------

_ENGINE = "safety-nb"
_SCHEME = "whole:"  # papermill chooses the handler of a path by how it begins


class _WholeFiles(LocalHandler):
    """Writes notebooks atomically and without secrets."""

    def write(self, buf: str, path: str) -> None:
        files.write_text(Path(path.removeprefix(_SCHEME)), buf)

    def pretty_path(self, path: str) -> str:
        return path.removeprefix(_SCHEME)


class _Engine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, execution: Execution, sink: "_Sink", **_: Any
    ) -> None:
        nb_man.nb.metadata.papermill["output_path"] = nb_man.output_path.removeprefix(_SCHEME)
        _Client(
            nb_man,
            execution=execution,
            kernel_name=kernel_name,
            startup_timeout=120,
            timeout_func=execution.seconds_left,
            stdout_file=sink,
            stderr_file=sink,
            # Sockets of the file system: nobody else on the machine can read along or send code.
            config=Config({"KernelManager": {"transport": "ipc"}}),
        ).execute()


papermill_io.register(_SCHEME, _WholeFiles())
papermill_engines.register(_ENGINE, _Engine)


# --- the client ---------------------------------------------------------------------------------------------------


class _Client(PapermillNotebookClient):
    """Caps what a cell shows, tells the kernel's process number, and asks the kernel at its end what it used."""

    def __init__(self, nb_man: Any, execution: Execution, **options: Any) -> None:
        super().__init__(nb_man, **options)
        self._execution = execution
        self._shown: dict[int, _Shown] = {}

    def papermill_execute_cells(self) -> None:
        self._execution.on_kernel(self.km.provisioner.pid)
        super().papermill_execute_cells()
        self._execution.usage = self._ask_usage()

    def _ask_usage(self) -> dict[str, Any]:
        question = "__import__('safety_nb.core.usage').core.usage.as_json()"
        asked = self.kc.execute("", silent=True, user_expressions={"usage": question})
        try:
            answer = self.wait_for_reply(asked)["content"]["user_expressions"]["usage"]
        except (DeadKernelError, TimeoutError):
            return {}
        return json.loads(ast.literal_eval(answer["data"]["text/plain"])) if answer["status"] == "ok" else {}

    def process_message(self, msg: dict, cell: Any, cell_index: int) -> Any:
        shown = self._shown.setdefault(cell_index, _Shown())
        if msg["msg_type"] == "clear_output":
            self._shown[cell_index] = _Shown()
        elif left_out := shown.cap(msg):
            shown.tell(cell.outputs, left_out)
        if msg["msg_type"] == "stream" and (not msg["content"]["text"] or self._goes_on(msg["content"], cell.outputs)):
            self.nb_man.autosave_cell()
            return None
        return super().process_message(msg, cell, cell_index)

    def _goes_on(self, content: dict, outputs: list) -> bool:
        """Add to the last output what a cell prints on. nbclient's own way takes minutes over a line of megabytes."""
        last = outputs[-1] if outputs else {}
        if self.clear_before_next_output or last.get("output_type") != "stream" or last["name"] != content["name"]:
            return False
        last["text"] += content["text"]
        self.stdout_file.write(content["text"])  # the log, for errors too
        return True


class _Shown:
    """How much a cell has shown so far, and the notice of what was left out of it."""

    def __init__(self) -> None:
        self.text = self.data = self.left_out = 0
        self.displays: dict[str, int] = {}  # the size of each display that may be updated
        self.notice: Any = None

    def cap(self, msg: dict) -> int:
        """Shorten a message of the kernel to what the cell may still show; how many characters that took away."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "stream":
            kept = content["text"][: max(0, MOST_TEXT - self.text)]
            left_out = len(content["text"]) - len(kept)
            content["text"] = kept
            self.text += len(kept)
            return left_out
        if kind == "error":  # always shown, at a bearable length: its end says the most
            before = len(content["evalue"]) + sum(map(len, content["traceback"]))
            content["evalue"] = content["evalue"][:MOST_TEXT]
            content["traceback"] = [line[-MOST_TEXT:] for line in content["traceback"][-100:]]
            return before - len(content["evalue"]) - sum(map(len, content["traceback"]))
        if kind in ("display_data", "execute_result", "update_display_data"):
            size = sum(
                len(value) if isinstance(value, str) else len(json.dumps(value)) for value in content["data"].values()
            )
            display = content.get("transient", {}).get("display_id", "")
            replaced = self.displays.get(display, 0) if kind == "update_display_data" else 0
            if self.data + size - replaced > MOST_DATA:
                content["data"] = {"text/plain": f"[{', '.join(content['data'])}: too large to be kept]"}
                return size
            self.data += size - replaced
            self.displays[display] = size
        return 0

    def tell(self, outputs: list, left_out: int) -> None:
        """Say among a cell's outputs, in one notice, how much was left out."""
        self.left_out += left_out
        if self.notice is None:
            self.notice = new_output("display_data")
            outputs.append(self.notice)
        self.notice["data"] = {"text/plain": f"[{self.left_out:,} characters more were left out of this cell's output]"}


# --- the log ------------------------------------------------------------------------------------------------------


class _Sink:
    """The writing end of the log: a file for Python, a descriptor for other processes."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def write(self, text: str) -> None:
        os.write(self.descriptor, text.encode("utf-8", errors="replace"))

    def flush(self) -> None:
        pass


@contextlib.contextmanager
def _log(path: Path) -> Iterator[_Sink]:
    """Send papermill's messages, and whatever a kernel writes to its standard error, to a file, without secrets."""
    logger = logging.getLogger("papermill")
    reading, writing = os.pipe()
    sink = _Sink(writing)
    handler = logging.StreamHandler(sink)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    level, logger.level = logger.level, logging.INFO
    sys.stderr.flush()
    kept = os.dup(2)  # kernels inherit the file descriptor, not Python's sys.stderr
    os.dup2(writing, 2)
    pump = threading.Thread(target=_pump, args=(reading, path), daemon=True)
    pump.start()
    try:
        yield sink
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(writing)
        logger.removeHandler(handler)
        logger.propagate, logger.level = propagate, level
        pump.join(timeout=5)  # a process that a cell started and left behind may hold the other end open


def _pump(reading: int, path: Path) -> None:
    """Add what comes through a pipe to a file, by whole lines, so that no secret is cut in two and missed."""
    longest_line, pending = 1 << 20, b""
    with path.open("a", encoding="utf-8") as file:
        while chunk := os.read(reading, 1 << 16):
            pending += chunk
            end = pending.rfind(b"\n") + 1 or (len(pending) if len(pending) > longest_line else 0)
            _add(file, pending[:end])
            pending = pending[end:]
        _add(file, pending)
    os.close(reading)


def _add(file: Any, text: bytes) -> None:
    with contextlib.suppress(OSError):  # a full disk: whoever writes must not be held up by it
        file.write(secrets.redact(text.decode("utf-8", errors="replace")))
        file.flush()
