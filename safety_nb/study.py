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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from safety_nb import runner, warm
from safety_nb.core import files, grid, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.grid import PlannedRun, _study_file, plan, run_state
from safety_nb.core.params import RunParams, StudySettings
from safety_nb.generate import capabilities

if TYPE_CHECKING:
    import pandas as pd


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


# --- what the comparison reads ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StudyTables:
    """A study as read from disk.

    Attributes:
        shared: the parameters all runs share; swept: those that vary, with their values.
        settings: what the comparison is to find out.
        runs: run, state, n_safety, seed, wall_seconds, cause: every planned run, finished or not.
        judgements: run, the swept parameters, n_safety, seed, dataset, prompt_id, judge, label, score, missing.
        roles: evaluation set to role, as the runs kept what they were asked.
        types: (evaluation set, prompt_id) to the prompt's type, of those that have one.
        items: what else every run answered one by one: run, the swept parameters, n_safety, seed, measure, prompt_id
            (of the item), value. Measures are GENERAL_LOSS (nats a token of each general validation row), capability
            tasks (1 or 0), and preferences against the smallest N (1, 0.5 or 0).
    """

    shared: dict[str, Any]
    settings: StudySettings
    swept: dict[str, list]
    runs: "pd.DataFrame"
    judgements: "pd.DataFrame"
    roles: dict[str, str]
    types: dict[tuple[str, str], str]
    items: "pd.DataFrame"


GENERAL_LOSS = "loss on general rows"


def read_study(folder: Path) -> StudyTables:
    """Read the runs of a study, finished or not.

    Raises:
        InputError: the folder holds no study.
    """
    settings, values = grid.study_settings(_study_file(folder))
    planned = [(run, folder / run.name, {}) for run in plan(values)]
    return _read(settings, {name: values[name] for name in grid.swept_names(values)}, planned, folder)


def read_studies(folders: list[Path], out: Path) -> StudyTables:
    """Read several studies as one, in which ``study`` is swept too; targets and limits are those of the first.

    Args:
        folders: of the studies; two of one name are told apart by their place in the list.
        out: the folder that the comparison goes into; the runs are named by their way from there.

    Raises:
        InputError: fewer than two, or one that holds no study.
    """
    if len(folders) < 2:
        raise InputError("Name at least two studies to compare.")
    files = [grid.study_settings(_study_file(folder)) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{name} ({place})" for place, name in enumerate(names, start=1)]
    swept: dict[str, list] = {"study": names}
    planned = []
    for name, folder, (_, values) in zip(names, folders, files, strict=True):
        planned += [(run, folder / run.name, {"study": name}) for run in plan(values)]
        for parameter in grid.swept_names(values):
            swept.setdefault(parameter, [])
    for parameter in swept:
        if parameter != "study":
            swept[parameter] = list(dict.fromkeys(getattr(run.params, parameter) for run, _, _ in planned))
    return _read(files[0][0], swept, planned, out)


def _read(
    settings: StudySettings,
    swept: dict[str, list],
    planned: list[tuple[PlannedRun, Path, dict[str, Any]]],
    root: Path,
) -> StudyTables:
    """Read planned runs, each with its folder and what else tells it apart; their names are their way from ``root``."""
    import pandas as pd

    rows, judgements, roles, types, items = [], [], {}, {}, []
    parameters = [name for name in swept if name != "study"]
    for one, folder, more in planned:
        run = run_folder.RunFolder(folder)
        keys = {
            "run": os.path.relpath(folder, root),
            "n_safety": one.params.n_safety,
            "seed": one.params.seed,
            **more,
            **{name: getattr(one.params, name) for name in parameters},
        }
        state = run_state(run)
        if settings.search and state["state"] == "waiting" and not run.ledger.is_file():
            state["state"] = "not needed"
        rows.append({**keys, **state})
        if state["state"] == run_folder.DONE:
            judgements.extend({**keys, **row} for row in files.read_jsonl(run.judgements))
            items.extend({**keys, **row} for row in _items(run))
            asked = files.read_jsonl(run.prompts) if run.prompts.is_file() else []
            roles.update({row["dataset"]: row["role"] for row in asked})
            types.update({(row["dataset"], row["prompt_id"]): row["type"] for row in asked if row.get("type")})
    keys = list(dict.fromkeys(["run", "n_safety", "seed", *swept]))
    single = pd.DataFrame(items) if items else pd.DataFrame(columns=[*keys, "measure", "prompt_id", "value"])
    columns = [*keys, "dataset", "prompt_id", "judge", "label", "score", "missing"]
    table = pd.DataFrame(judgements) if judgements else pd.DataFrame(columns=columns)
    every = [one.params.model_dump(exclude={"run_dir", *parameters}) for one, _, _ in planned]
    shared = {name: value for name, value in every[0].items() if all(each[name] == value for each in every)}
    tables = StudyTables(shared, settings, swept, pd.DataFrame(rows), table, roles, types, single)
    return _with_capabilities(tables, root)


def _with_capabilities(tables: StudyTables, root: Path) -> StudyTables:
    """Tables in which the capability tasks that were measured are evaluation sets of facts, by their own judge.

    A task of which only the first questions were asked says so in its name, and so on every figure.
    """
    import pandas as pd

    answers = capabilities.of_study(root, tables)
    if answers.empty:
        return tables
    limited = answers["limit"].astype(int)
    names = answers["task"].where(limited == 0, answers["task"] + " (first " + limited.astype(str) + ")")
    judged = capabilities.judgements(answers.assign(task=names))
    columns = [name for name in tables.judgements.columns if name in judged]
    return replace(
        tables,
        judgements=pd.concat([tables.judgements, judged[columns]], ignore_index=True),
        roles={**tables.roles, **dict.fromkeys(names, "facts")},
    )


def _items(run: run_folder.RunFolder) -> Iterator[dict[str, Any]]:
    """What a run answered one by one besides prompts: measure, prompt_id and value."""
    safety = files.read_json(run.mixture).get("safety") if run.mixture.is_file() else None
    for row in files.read_jsonl(run.validation_losses) if run.validation_losses.is_file() else ():
        if row["source"] != safety:
            yield {"measure": GENERAL_LOSS, "prompt_id": row["id"], "value": row["loss"]}
    for row in files.read_jsonl(run.preferences) if run.preferences.is_file() else ():
        measure = f"{row['dataset']} preferred ({row['judge']})"
        yield {"measure": measure, "prompt_id": row["prompt_id"], "value": row["score"]}
