"""A grid of runs: which parameters a study sweeps, the runs that it plans, and their state on disk."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_nb.core import files, run_folder
from safety_nb.core.columns import setting_names
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.outputs import LONGEST_NAME
from safety_nb.core.params import RunParams, StudySettings, validate


def swept_names(values: dict[str, Any]) -> list[str]:
    """Names of the scalar parameters that ``values`` gives a list, in the order of the file."""
    return [name for name, value in values.items() if isinstance(value, list) and not _takes_list(name)]


def _takes_list(name: str) -> bool:
    field = RunParams.model_fields.get(name)
    return field is not None and isinstance(field.get_default(), list)


def study_settings(values: dict[str, Any]) -> tuple[StudySettings, dict[str, Any]]:
    """The settings of a study file, and the parameters of its runs. Raises InputError for a bad setting."""
    own = {name: value for name, value in values.items() if name in StudySettings.model_fields}
    rest = {name: value for name, value in values.items() if name not in own}
    return validate(StudySettings, own), rest


def expand(values: dict[str, Any]) -> list[dict[str, Any]]:
    """All combinations of a parameter set in which scalar parameters may be lists; settings of the study are left out.

    The last named varies fastest. Raises InputError for an empty list or one with a value twice.
    """
    _, values = study_settings(values)
    names = swept_names(values)
    for name in names:
        if not values[name]:
            raise InputError(f"{name}: the list to sweep over is empty; give at least one value")
        if any(values[name].count(value) > 1 for value in values[name]):
            raise InputError(f"{name}: {values[name]} names a value twice; give each once")
    grids = itertools.product(*(values[name] for name in names))
    return [{**values, **dict(zip(names, grid, strict=True))} for grid in grids]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: its name below the study's folder, its parameters, and the swept ones among them."""

    name: str
    params: RunParams
    swept: dict[str, Any]


def plan(values: dict[str, Any]) -> list[PlannedRun]:
    """The runs of a parameter set in which scalar parameters may be lists.

    Raises:
        InputError: no parameter is swept, a value is bad in any of the runs, or a run's name is too long for a folder
            or that of another (a slash in a value is an underscore in it).
    """
    names = swept_names(values)
    if not names:
        raise InputError(
            "A study needs at least one parameter with a list of values, such as n_safety: [0, 100, 1000]; "
            "for a single run use `safety-nb run`."
        )
    combinations = expand(values)
    # Several runs share most values: each distinct complaint is told once.
    complaints: dict[str, None] = {}
    planned, taken = [], set()
    for combination in combinations:
        try:
            params = validate(RunParams, combination)
        except InputError as error:
            complaints.update(dict.fromkeys(str(error).splitlines()))
            continue
        name = run_name(params, names)
        if (length := len(name.encode("utf-8", "surrogatepass"))) > LONGEST_NAME:
            complaints[
                f"The folder of the run {name[:60]}… would have a name of {length} bytes, of at most "
                f"{LONGEST_NAME}: sweep over shorter values of {_told(names)}."
            ] = None
            continue
        if name in taken:
            complaints[f"Two runs would have one folder, {name}; rename what differs in {_told(names)}."] = None
        taken.add(name)
        planned.append(PlannedRun(name, params, {name: combination[name] for name in names}))
    if complaints:
        raise InputError("\n".join(complaints))
    return planned


def _told(swept: list[str]) -> str:
    return ", ".join(setting_names(swept))


def planned_names(folder: Path) -> list[str]:
    """The names of the runs that the study in a folder asks for. Raises InputError, as ``plan`` and ``study_file``."""
    return [run.name for run in plan(study_file(folder))]


def finished_runs(folder: Path) -> list[run_folder.RunFolder]:
    """The runs of a study that are done. Raises InputError, as ``planned_names``."""
    folders = [run_folder.RunFolder(folder / name) for name in planned_names(folder)]
    return [run for run in folders if run_state(run)["state"] == run_folder.DONE]


def study_file(folder: Path) -> dict[str, Any]:
    """The values of the ``study.yaml`` of a folder. Raises InputError where there is none, or it is not one."""
    file = folder / "study.yaml"
    if not file.is_file():
        raise InputError(f"{folder} holds no study (no study.yaml); make one with `safety-nb study`.")
    values = files.read_yaml(file)
    if not isinstance(values, dict):
        raise InputError(f"{file} holds no names and values; `safety-nb study` writes it anew.")
    return values


def run_name(params: RunParams, swept: list[str]) -> str:
    """Folder name of a run: N and seed always, so that a study can grow, then whatever else is swept."""
    parts = [f"n{params.n_safety}", f"seed{params.seed}"]
    parts += [value_name(name, getattr(params, name)) for name in setting_names(swept)]
    return "_".join(parts)


def value_name(name: str, value: Any) -> str:
    """A swept parameter and its value in the name of a folder or file; a guard prompt, which is long, by its hash."""
    if name == "guard_prompt":
        return f"{name}-{digest(value, sort_keys=False, ensure_ascii=True)[:8] if value else 'none'}"
    return f"{name}-{str(value).replace('/', '_')}"


def run_state(run: run_folder.RunFolder) -> dict[str, Any]:
    """state, wall_seconds and cause of a run as a whole, from its ledger; one that is damaged is a cause to wait."""
    stages = run_folder.read_ledger(run)["stages"]
    if not stages and (damage := run_folder.ledger_damage(run)):
        return {"state": "waiting", "wall_seconds": 0, "cause": damage}
    seconds = sum(entry.get("wall_seconds") or 0 for entry in stages.values())
    for name, entry in stages.items():
        if entry["state"] in ("failed", "killed"):
            return {"state": entry["state"], "wall_seconds": seconds, "cause": f"{name}: {entry.get('cause')}"}
    states = {entry["state"] for entry in stages.values()}
    if states == {run_folder.DONE}:
        return {"state": run_folder.DONE, "wall_seconds": seconds, "cause": ""}
    return {"state": "running" if "running" in states else "waiting", "wall_seconds": seconds, "cause": ""}
