"""A study: executing its grid of runs, the comparison over them, and an llm judge's preferences between them."""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from safety_nb.core import files, run_folder
from safety_nb.core.columns import N_SAFETY
from safety_nb.core.errors import InputError
from safety_nb.core.grid import PlannedRun, plan
from safety_nb.core.params import JudgeParams, RunParams
from safety_nb.data.datasets import sources
from safety_nb.judge import building, preferences
from safety_nb.judge.kinds import llm
from safety_nb.report import study_tables
from safety_nb.run import fork_server, runner

if TYPE_CHECKING:
    import pandas as pd

# The study a notebook opened alone makes: params/tiny-study.yaml.
MINIATURE = {
    "n_safety": [0, 30, 100, 300, 1000],
    "judges": ["refusal", "reference", "harmfulness:tiny"],
    "decided_by": "refusal",
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
        try:
            # The longest runs go first, so that none is left running alone at the end.
            ordered = sorted(planned, key=lambda run: -run.params.n_safety)
            with _deaf_to_ctrl_c():
                futures = {pool.submit(_execute, folder / run.name, run.params): run for run in ordered}
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


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that start in the body ignore Ctrl-C from their first moment: their parent hears it, and ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_for_life = contextlib.ExitStack()  # what stays open until a process of the pool ends


def _begin_worker() -> None:
    """In a process that will execute several runs: import what their notebooks need once, for all of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as it is already, but where a thread began the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _for_life.enter_context(runner.ending_in_order())
    _for_life.enter_context(fork_server.kernels())


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


def execute_comparison(folder: Path) -> None:
    """Execute the comparison notebook over the runs of a study. Raises NotebookFailed."""
    output = folder / "study.ipynb"
    try:
        runner.execute_notebook("study", output, {"study_dir": str(folder.resolve())}, folder / "study.log")
    except Exception as error:
        _, cause = runner.ending(error)
        raise runner.NotebookFailed(f"The comparison failed: {cause}. Its notebook: {output}") from error


# --- preferences --------------------------------------------------------------------------------------------------


_ASKED_WITH = ("judge_base_url", "judge_model", "judge_key_name", "judge_votes", "judge_own_model")


def check_prefer(planned: list[RunParams]) -> JudgeParams:
    """What an llm judge is asked with about the answers of a study's runs, by their parameters.

    Raises:
        InputError: there is a single N, no ordinary requests, no endpoint or key, an endpoint that is swept, or a judge
            that is the model under test in any of the runs.
    """
    if len({params.n_safety for params in planned}) < 2:
        raise InputError(
            f"prefer: each N is set against the smallest, and there is only {planned[0].n_safety}; add one."
        )
    if "ordinary" not in sources.roles(planned[0].evaluation).values():
        raise InputError(
            "prefer: helpfulness is compared on ordinary requests, and no evaluation set holds any; add one to "
            "evaluation, such as tiny-ordinary or I-Alpaca."
        )
    asked = [params.model_dump(include=set(_ASKED_WITH)) for params in planned]
    if different := [name for name in _ASKED_WITH if any(each[name] != asked[0][name] for each in asked)]:
        raise InputError(f"prefer: one judge compares all runs, so {', '.join(different)} cannot be swept.")
    judge = JudgeParams(**asked[0])
    llm.endpoint_of(judge)
    for params in planned:
        tested = building.model_under_test(params.model_dump())
        building.check_not_own(preferences.JUDGE, judge.judge_model, tested, judge)
    return judge


def preferences_failure(folder: Path, params: JudgeParams) -> list[str]:
    """Ask as ``prefer``; what kept it from ending, a message, for the study is compared without then."""
    try:
        prefer(folder, params)
    except (InputError, ConnectionError) as error:  # a key that is not accepted, say, which is only told when asked
        return [f"prefer: {error}"]
    return []


def prefer(folder: Path, params: JudgeParams) -> "pd.DataFrame":
    """Ask an llm judge about the answers of a study's finished runs to ordinary requests, in both orders.

    Each run is set against the one of the smallest N with the same seed and setting; that one ties with itself. What
    the judge says is left in each run's ``preferences.jsonl``, from where the comparison takes it.

    Args:
        folder: of the study.
        params: judge_base_url, judge_model, judge_key_name, judge_votes, judge_own_model.

    Returns:
        Columns run, n_safety, then those of ``preferences.prefer_answers``.

    Raises:
        InputError: no study, answers that are not those the ledgers recorded, no ordinary requests, no endpoint, or a
            judge that is the model under test.
        ConnectionError: the endpoint was given up on.
    """
    import pandas as pd

    tables = study_tables.read_study(folder)
    done = tables.runs[tables.runs["state"] == run_folder.DONE]
    for values in done.to_dict("records"):
        tested = building.model_under_test({**tables.shared, **values})
        building.check_not_own(preferences.JUDGE, params.judge_model, tested, params)
    settings = [name for name in tables.swept if name != N_SAFETY]
    found = []
    for _, members in done.groupby(settings, dropna=False) if settings else [((), done)]:
        first = str(members.loc[members[N_SAFETY].idxmin(), "run"])
        theirs = _ordinary_answers(folder / first, tables.roles)
        if not theirs:
            raise InputError(f"{folder} has no evaluation set of ordinary requests; helpfulness is compared on those.")
        for row in members.itertuples():
            ours = _ordinary_answers(folder / row.run, tables.roles)
            if row.run == first:
                rows = preferences.ties(theirs, first)
            else:
                rows = preferences.prefer_answers(ours, theirs, first, params)
            run = run_folder.RunFolder(folder / row.run)
            files.write_jsonl(run.preferences, rows)
            run_folder.record_beside(run, run.preferences.name)
            found += [{"run": row.run, N_SAFETY: row.n_safety, **each} for each in rows]
    return pd.DataFrame(found)


def _ordinary_answers(folder: Path, roles: dict[str, str]) -> dict[tuple[str, str], tuple[str, str]]:
    """(evaluation set, prompt_id) to request and answer, of ordinary requests; of several answers the first."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    run = run_folder.RunFolder(folder)
    run_folder.check(run, [run.responses.name])
    for row in files.read_jsonl(run.responses, study_tables.ANSWER):
        if roles.get(row["dataset"]) == "ordinary" and row.get("finish") != "error":
            found.setdefault((row["dataset"], row["prompt_id"]), (row["prompt"], row["response"]))
    return found
