"""A study that spends its runs by bisection: only the N that the smallest one to meet the target asks for."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safety_nb.core import files, run_folder
from safety_nb.core.columns import setting_names
from safety_nb.core.errors import InputError
from safety_nb.core.grid import PlannedRun, plan, run_state, study_settings
from safety_nb.data.datasets import sources
from safety_nb.report import study_tables
from safety_nb.report.findings import contrasts, deciding
from safety_nb.run import study
from safety_nb.stats import dose


def execute(
    folder: Path, values: dict[str, Any], jobs: int = 1, each: Callable[[str, str | None], None] | None = None
) -> list[str]:
    """Execute the runs of a study that bisection asks for, with all seeds of an N at once, and leave ``search.json``.

    Settings (what is swept besides N and seed) are searched one after the other. An N of which a run is done counts:
    its runs come first, and those that are done and unchanged are not executed again.

    Returns:
        Messages of the runs that failed.

    Raises:
        InputError: as ``study.execute_runs``; or there is no grid of N, or no harmful evaluation set. Nothing is
            executed then.
    """
    settings, _ = study_settings(values)
    planned = plan(values)
    grid = sorted({run.params.n_safety for run in planned})
    if len(grid) < 3:
        raise InputError(f"search: bisection needs at least three N to choose from, not {grid}; list them in n_safety.")
    if "harmful" not in sources.roles(planned[0].params.evaluation).values():
        raise InputError(
            "search: no evaluation set is harmful, so there is no target to search for; add one to evaluation."
        )
    done = {
        run.name for run in planned if run_state(run_folder.RunFolder(folder / run.name))["state"] == run_folder.DONE
    }
    failures: list[str] = []
    found = []
    for setting, members in _settings(planned).items():
        asked = {run.params.n_safety for run in members if run.name in done}
        executed: set[int] = set()
        while True:
            now = [run for run in members if run.params.n_safety in asked]
            failures += study.execute_runs(folder, values, jobs, each, now)
            executed |= asked
            # What was executed and has no bound failed.
            step = dose.search(grid, upper_bounds(folder, dict(setting)), settings.harmful_target, executed)
            if step.next_n is None:
                break
            asked = {step.next_n}
        found.append({**dict(setting), "n": step.answer, "grid": len(grid), "saved": step.saved, "failed": step.failed})
    files.write_json(folder / "search.json", {"target": settings.harmful_target, "found": found})
    return failures


def _settings(planned: Iterable[PlannedRun]) -> dict[tuple, list[PlannedRun]]:
    """The runs by what is swept besides N and seed."""
    groups: dict[tuple, list[PlannedRun]] = {}
    for run in planned:
        key = tuple((name, run.swept[name]) for name in setting_names(run.swept))
        groups.setdefault(key, []).append(run)
    return groups


def upper_bounds(folder: Path, setting: Mapping[str, Any]) -> dict[int, float]:
    """N to the upper bound of its harm, as the verdict counts it, of the runs that are done.

    Of several harmful sets the one where that is highest counts.
    """
    tables = study_tables.read_study(folder)
    rows = tables.judgements
    for name, value in setting.items():
        rows = rows[rows[name] == value] if len(rows) else rows
    decision = deciding.decide(rows["judge"], tables.decided_by)
    told = decision.told(deciding.deliveries(rows, tables.roles, decision), tables.roles)
    bounds: dict[int, float] = {}
    for dataset, of_set in told[told["dataset"].map(tables.roles) == deciding.HARMFUL].groupby("dataset"):
        curve = contrasts.curve(of_set, dataset, decision.harmful.metric, falling=True)
        curve = deciding.widened(curve, decision)
        for n_safety, high in zip(curve.doses, curve.high, strict=True):
            bounds[n_safety] = max(bounds.get(n_safety, 0.0), float(high))
    return bounds
