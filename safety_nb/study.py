"""A study: a grid of runs, and the tables the comparison over them is made from.

Knows nothing of machine learning.
"""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from safety_nb import runner, warm
from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.grid import PlannedRun, plan
from safety_nb.core.params import RunParams

# The study a notebook opened alone makes: params/tiny-study.yaml.
MINIATURE = {
    "n_safety": [0, 30, 100, 300, 1000],
    "judges": ["refusal", "reference", "harmfulness:tiny"],
    "seed": [0],
}


def open_study(study_dir: str) -> Path:
    """The folder a study notebook works on; with no name the miniature's, whose runs are made if they are missing.

    Raises:
        NotebookFailed: a run of the miniature failed.
    """
    if study_dir:
        return Path(study_dir).expanduser()
    folder = run_folder.outputs_root() / "tiny-study"
    if not (folder / "study.yaml").is_file():
        print(f"{folder} is not there yet: making the runs of the miniature's study, a line as each ends.")
        failures = execute_runs(
            folder, MINIATURE, jobs=min(2, os.cpu_count() or 1), each=lambda name, failure: print(name, failure or "")
        )
        if failures:
            raise runner.NotebookFailed("\n".join(failures))
    return folder


def execute_runs(
    folder: Path,
    values: dict[str, Any],
    jobs: int = 1,
    each: Callable[[str, str | None], None] | None = None,
    only: list[PlannedRun] | None = None,
) -> list[str]:
    """Execute the runs of a study that are not done.

    A run that fails does not stop the others: it is a visible gap in the comparison.

    Args:
        jobs: how many runs go at once, each in a process of its own.
        each: called with a run's name and the message of its failure (None: done) as each ends.
        only: some of the runs; by default all.

    Returns:
        Messages of the runs that failed.

    Raises:
        InputError: as ``plan``, or another process works in the folder.
    """
    planned = plan(values)
    with run_folder.locked(folder):
        head = "# The study as it was asked for; `safety-nb study` on a copy of this file repeats it.\n"
        files.write_text(folder / "study.yaml", head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        return _execute_all(folder, planned if only is None else only, jobs, each or (lambda name, failure: None))


def _execute_all(
    folder: Path, planned: list[PlannedRun], jobs: int, each: Callable[[str, str | None], None]
) -> list[str]:
    failures = []
    # Fresh interpreters: a forked one would inherit threads and, on a GPU, a CUDA context.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker) as pool:
        # The longest runs go first, so that none is left running alone at the end.
        ordered = sorted(planned, key=lambda run: -run.params.n_safety)
        futures = {pool.submit(_execute, folder / run.name, run.params): run for run in ordered}
        try:
            for future in concurrent.futures.as_completed(futures):
                message = _outcome(future)
                if message:
                    failures.append(message)
                each(futures[future].name, message)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()  # which ends it in order
            raise
    return failures


def _outcome(future: concurrent.futures.Future) -> str | None:
    """The message of a run's failure, or None."""
    try:
        return future.result()
    except concurrent.futures.process.BrokenProcessPool:
        return "A process that executed runs was killed; the same command goes on with the runs that are not done."


_for_life = contextlib.ExitStack()  # what stays open until a process of the pool ends


def _begin_worker() -> None:
    """In a process that will execute several runs: import what their notebooks need once, for all of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which passes it on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _for_life.enter_context(runner.ending_in_order())
    _for_life.enter_context(warm.kernels())


def _end_with_parent() -> None:
    """A parent that was killed can end nobody: without this its runs would go on unseen, and their folders be held."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _execute(folder: Path, params: RunParams) -> str | None:
    """Execute one run in this process; the message of its failure, or None."""
    try:
        runner.execute_run(run_folder.RunFolder(folder), params)
    except (runner.StageFailed, InputError, OSError) as error:
        return str(error)
    except KeyboardInterrupt:  # told in the ledger
        _for_life.close()  # the process that is forked would outlive this one
        os._exit(1)
    return None


def compare(folder: Path) -> None:
    """Execute the comparison notebook over the runs of a study. Raises NotebookFailed."""
    output = folder / "study.ipynb"
    try:
        runner.execute_notebook("study", output, {"study_dir": str(folder.resolve())}, folder / "study.log")
    except Exception as error:
        _, cause = runner.ending(error)
        raise runner.NotebookFailed(f"The comparison failed: {cause}. Its notebook: {output}") from error
