"""Executing the notebooks of a run through papermill, one after the other, and keeping the ledger.

Knows nothing of machine learning: what a stage reads and leaves is told by ``stages.py``.
"""

import contextlib
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml

from safety_nb import __version__
from safety_nb.core import files, run_folder, secrets
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.params import RunParams
from safety_nb.data.datasets import sources
from safety_nb.run import fork_server
from safety_nb.run.stages import STAGE_NAMES, STAGES, Stage, notebook_path, stage_named

if TYPE_CHECKING:
    from safety_nb.run.notebook import Execution

_LIGHT_NOTEBOOKS = ("1-mix",)  # they need no model, and are done while a process imports what the others need
_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "papermill")


class NotebookFailed(RuntimeError):
    """A notebook did not run to its end; the message says why, and where its executed copy lies."""


class StageFailed(RuntimeError):
    """A stage of a run did not finish; the message says which, why, and where its notebook lies."""


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Have SIGTERM, as schedulers and shutdowns send it, end the body as Ctrl-C does: with its kernels, and told.

    Once is enough: whoever presses Ctrl-C again is heard no more until the process has ended, which it is about to.
    """
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    # A signal that is ignored already, as of a process that is told by its parent, stays so.
    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        if not interrupted:
            for number, handler in before.items():
                signal.signal(number, handler)


def execute_run(
    run: run_folder.RunFolder, params: RunParams, first: str = STAGE_NAMES[0], last: str = STAGE_NAMES[-1]
) -> None:
    """Take one set of parameters through the stages, in the run's folder.

    A stage whose fingerprint holds and whose outputs are whole is not executed again, except from ``first`` on when
    that is not the first stage: naming it asks for it.

    Args:
        first, last: the stages to begin and to end with.

    Raises:
        InputError: unknown stage, ``first`` after ``last``, a stage before ``first`` has not been done, or another
            process works in the folder.
        StageFailed: a stage did not finish.
    """
    check_stages(run, first, last)
    # Whatever variable a parameter names as that of a key.
    secrets.name_more([value for name, value in params if name.endswith("key_name") and value])
    run = run_folder.RunFolder(run.root.resolve())  # papermill changes the working folder
    with run_folder.locked(run.root):
        files.remove_partial(run.root)
        ledger = run_folder.open_ledger(run)
        ledger.update(versions=_versions(), platform=platform.platform(), python=platform.python_version())
        for stage in STAGES:
            entry = ledger["stages"].setdefault(stage.name, {"state": "waiting"})
            if entry["state"] == "running":  # but nobody else holds the folder
                _wait_for_orphan(entry)
                entry.update(state="killed", cause=f"process {entry.get('pid')}, which executed it, was killed")
        files.write_json(run.ledger, ledger)
        _write_params(run, params)
        begin, end = STAGE_NAMES.index(first), STAGE_NAMES.index(last)
        for stage in STAGES[begin : end + 1]:
            if begin > 0 or not is_fresh(run, stage, params):
                _execute_stage(run, stage, params)
            for line in run_folder.misfits(run, [executed_name(stage)]):
                print(f"{line} --from {stage.name} executes it anew.", file=sys.stderr, flush=True)


def check_stages(run: run_folder.RunFolder, first: str, last: str) -> None:
    """Raise InputError unless the stages from ``first`` to ``last`` can be executed in this run folder."""
    stage_named(first), stage_named(last)
    if run.published.exists():
        raise InputError(
            f"{run.root} is a published record ({run.published.name}), to be read only; name another --out."
        )
    begin, end = STAGE_NAMES.index(first), STAGE_NAMES.index(last)
    if begin > end:
        raise InputError(f"--from {first} comes after --until {last}; the order is {', '.join(STAGE_NAMES)}.")
    if begin and (damage := run_folder.ledger_damage(run)):
        raise InputError(f"--from {first}: {damage} Leave --from out: the damaged file is kept aside then.")
    for stage in STAGES[:begin]:
        for output in stage.outputs:
            if not (run.root / output).exists():
                raise InputError(f"--from {first}: {run.root} has no {output} yet; begin with --from {stage.name}.")
        if lines := run_folder.misfits(run, stage.outputs):
            raise InputError("\n".join([f"--from {first}: begin with --from {stage.name}.", *lines]))


def is_fresh(run: run_folder.RunFolder, stage: Stage, params: RunParams) -> bool:
    """Whether a stage is done with this very notebook, parameters, inputs and version, and its outputs are whole."""
    entry = run_folder.read_ledger(run)["stages"].get(stage.name, {})
    recorded = entry.get("outputs", {})
    return (
        entry.get("state") == run_folder.DONE
        and entry.get("fingerprint") == fingerprint(run, stage, params)
        and {name: recorded.get(name) for name in stage.outputs} == files.hashes(run.root, stage.outputs)
    )


def executed_name(stage: Stage) -> str:
    """Where the executed notebook of a stage lies, below the run's folder.

    Its hash is recorded with those of the stage's outputs, but it is none of them: a stage is not executed anew, for
    hours, because somebody wrote into the copy; that is told.
    """
    return f"notebooks/{stage.notebook}.ipynb"


def fingerprint(run: run_folder.RunFolder, stage: Stage, params: RunParams) -> str:
    """SHA-256 over all that decides a stage's outcome."""
    parts = {
        "notebook": files.sha256(notebook_path(stage.notebook)),
        "params": _stage_params(stage, params),
        "inputs": files.hashes(run.root, stage.inputs),
        "data": _own_data(stage, params) | _labels(run, stage, params),
        "version": __version__,
    }
    return digest(parts, sort_keys=True, ensure_ascii=True)


def _own_data(stage: Stage, params: RunParams) -> dict[str, str]:
    """SHA-256 of the user's data files that a stage reads; a named set stands for one content only."""
    values = _stage_params(stage, params)
    entries = [values.get(name, "") for name in ("general", "safety", "validation")] + values.get("evaluation", [])
    return {str(path): files.sha256(path) for path in sources.own_files(entries)}


def _labels(run: run_folder.RunFolder, stage: Stage, params: RunParams) -> dict[str, str]:
    """SHA-256 of the labels of people that a stage reads as a judge's: new ones are to be judged by."""
    named = [name.partition(":") for name in _stage_params(stage, params).get("judges", [])]
    variants = [variant for kind, _, variant in named if kind == "human"]
    if not variants:
        return {}
    from safety_nb.judge.kinds import human

    # By name, not by place: a run that was moved has the same labels.
    return {
        f"human:{variant}/{path.name}": files.sha256(path)
        for variant in variants
        for path in human.files(variant, run.root)
    }


def _stage_params(stage: Stage, params: RunParams) -> dict[str, Any]:
    return stage.params.decisive(params.model_dump(include=set(stage.params.model_fields) - {"run_dir"}))


def _execute_stage(run: run_folder.RunFolder, stage: Stage, params: RunParams) -> None:
    from safety_nb.run.notebook import Execution

    output = run.root / executed_name(stage)
    before = fingerprint(run, stage, params)
    facts = {"state": "running", "started": time.time(), "cause": None, "pid": os.getpid()}
    execution = Execution(
        seconds=60 * params.stage_timeout,
        on_kernel=lambda pid: run_folder.record_stage(run, stage.name, kernel=_process(pid)),
    )
    killed_before = _out_of_memory_kills()
    try:
        run_folder.record_stage(run, stage.name, **facts)  # here, for an interrupt may come as soon as it is written
        values = {**_stage_params(stage, params), "run_dir": str(run.root)}
        execute_notebook(stage.notebook, output, values, run.log, execution)
        missing = [name for name in stage.outputs if not (run.root / name).exists()]
        if missing:
            raise StageFailed(f"its notebook ended without making {', '.join(missing)}")
    except BaseException as error:
        state, cause = ending(error, _out_of_memory_kills() > killed_before)
        with contextlib.suppress(OSError):  # a full disk must not hide the cause
            wall_seconds = round(time.monotonic() - execution.started, 2)
            run_folder.record_stage(
                run, stage.name, state=state, cause=cause, wall_seconds=wall_seconds, **execution.usage
            )
            _mark_unexecuted_cells(output, state, cause)
        if isinstance(error, Exception):
            raise StageFailed(
                f"Stage {stage.name!r} of {run.root} {state}: {cause}. Its notebook: {output}. Log: {run.log}"
            ) from error
        raise
    run_folder.record_stage(
        run,
        stage.name,
        state=run_folder.DONE,
        fingerprint=before,
        outputs=files.hashes(run.root, (*stage.outputs, executed_name(stage))),
        wall_seconds=round(time.monotonic() - execution.started, 2),
        **execution.usage,
    )


def _process(pid: int) -> dict[str, float]:
    """A process by its number and the time it was started at: numbers are used again."""
    return {"pid": pid, "created": psutil.Process(pid).create_time()}


def _wait_for_orphan(entry: dict, seconds: float = 10) -> None:
    """Wait until the kernel of a killed process has ended, which it does by itself, lest it write beside a new one.

    Raises:
        InputError: it goes on.
    """
    kernel = entry.get("kernel")
    deadline = time.monotonic() + seconds
    while kernel and _is_working(kernel):
        if time.monotonic() > deadline:
            raise InputError(
                f"Kernel {kernel['pid']} of an earlier, killed execution still works in this folder; end it first."
            )
        time.sleep(0.1)


def _is_working(process: dict[str, float]) -> bool:
    """Whether a process recorded by ``_process`` is still there; one that nobody has reaped yet has ended."""
    try:
        found = psutil.Process(process["pid"])
        return found.create_time() == process["created"] and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _out_of_memory_kills() -> int:
    """How many processes the system has killed for want of memory since it started; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="utf-8").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def ending(error: BaseException, out_of_memory: bool = False) -> tuple[str, str]:
    """State and cause of a stage that ended with ``error``.

    Args:
        out_of_memory: whether the system killed a process for want of memory meanwhile.
    """
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, DeadKernelError):
        if out_of_memory:
            return "killed", "the kernel was killed, most likely because the machine is out of memory"
        return "killed", "the kernel was killed from outside"
    if isinstance(error, CellTimeoutError):
        return "killed", "time-out: it took longer than stage_timeout allows"
    if isinstance(error, KeyboardInterrupt):
        return "killed", "interrupted"
    if isinstance(error, PapermillExecutionError):
        name, message = error.ename, str(error.evalue)
    else:
        name, message = type(error).__name__, str(error)
    message = secrets.redact(message)
    for sign, meaning in _CAUSES.items():
        if sign in f"{name}: {message}":
            return "failed", f"{meaning} ({name}: {next(iter(message.splitlines()), '')})"
    return "failed", f"{name}: {message}"


# What an error's name or message says about the machine, in words that say what to look at.
_CAUSES = {
    "OutOfMemoryError": "CUDA out of memory",
    "CUDA out of memory": "CUDA out of memory",
    "MemoryError": "the machine is out of memory",
    "DefaultCPUAllocator: can't allocate memory": "the machine is out of memory",
    "No space left on device": "the disk is full",
    "Disk quota exceeded": "the disk is full",
}


def _mark_unexecuted_cells(output: Path, state: str, cause: str) -> None:
    """In the copy of a notebook that did not finish, have the cells that never ran say so.

    papermill calls all of them "completed" when the kernel dies.
    """
    try:
        book = files.read_json(output)
    except (OSError, ValueError):  # never written, or cut short by a full disk: the ledger has the cause already
        return
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    began = [cell for cell in cells if cell["metadata"].setdefault("papermill", {}).get("start_time")]
    told = {id(cell): f"not executed: the notebook {state} before this cell" for cell in cells if cell not in began}
    if state == "killed" and began:
        told[id(began[-1])] = f"killed: {cause}"
    for cell in cells:
        if message := told.get(id(cell)):
            cell["metadata"]["papermill"]["status"] = message.split(":")[0]
            cell["outputs"].append({"output_type": "stream", "name": "stderr", "text": message.splitlines(True)})
    files.write_notebook(output, book)


def execute_notebook(
    notebook: str, output: Path, values: dict[str, Any], log: Path, execution: "Execution | None" = None
) -> None:
    """Execute one notebook with checked parameters; the executed copy is kept whether it ends well or not.

    Args:
        values: parameters of the notebook, already checked.
        log: file that papermill's messages and all that the cells print are added to.
        execution: limit of time, and where the kernel's own account is left.
    """
    from safety_nb.run.notebook import Execution, execute

    output.parent.mkdir(parents=True, exist_ok=True)
    light = {fork_server.LIGHT: "1"} if notebook in _LIGHT_NOTEBOOKS else {}
    with _environment(TOKENIZERS_PARALLELISM="false", TORCHDYNAMO_DISABLE="1", **light):
        execute(notebook_path(notebook), output, values, log, execution or Execution())


def execute_beside(run: run_folder.RunFolder, notebook: str, values: dict[str, Any]) -> None:
    """Execute a notebook that is no stage over a run; the executed copy is kept among those of its stages.

    Args:
        values: parameters of the notebook but ``run_dir``, already checked.

    Raises:
        InputError: another process works in the folder.
        NotebookFailed: it did not run to its end.
    """
    root = run.root.resolve()
    output = root / "notebooks" / f"{notebook}.ipynb"
    with run_folder.locked(root):
        killed_before = _out_of_memory_kills()
        try:
            execute_notebook(notebook, output, {**values, "run_dir": str(root)}, root / "run.log")
        except Exception as error:
            state, cause = ending(error, _out_of_memory_kills() > killed_before)
            with contextlib.suppress(OSError):
                _mark_unexecuted_cells(output, state, cause)
            raise NotebookFailed(f"{notebook} of {run.root} {state}: {cause}. Its notebook: {output}") from error
        run_folder.record_beside(run, f"notebooks/{notebook}.ipynb")


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables for the kernels, except those the user has set."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _versions() -> dict[str, str]:
    return {"safety-nb": __version__, **{name: metadata.version(name) for name in _VERSIONS}}


def _write_params(run: run_folder.RunFolder, params: RunParams) -> None:
    values = params.model_dump(exclude={"run_dir"})
    head = "# All parameters of this run; `safety-nb run` on a copy of this file repeats it.\n"
    files.write_text(run.params, head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
