"""A study as read from disk: the tables that the comparison over its runs is made from."""

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from safety_nb.core import files, grid, run_folder
from safety_nb.core.columns import N_SAFETY, RUN_KEYS, run_keys
from safety_nb.core.errors import InputError
from safety_nb.core.params import StudySettings
from safety_nb.core.text import visible
from safety_nb.generate import capabilities
from safety_nb.judge import category_scores

if TYPE_CHECKING:
    import pandas as pd

GENERAL_LOSS = "loss on general rows"
# What rows and records that are read have to hold; a file that is cut short or another one is told by that.
JUDGEMENT = {"dataset": str, "prompt_id": str, "judge": str, "label": (str, NoneType), "missing": (str, NoneType)}
ANSWER = {"dataset": str, "prompt_id": str, "prompt": str, "response": (str, NoneType)}
MIXTURE = {N_SAFETY: int, "seed": int}
_PROMPT = {"dataset": str, "role": str, "prompt_id": str}
_LOSS = {"id": str, "source": str, "loss": (int, float)}
_PREFERENCE = {"dataset": str, "prompt_id": str, "judge": str, "score": (int, float, NoneType)}
# What the comparison reads of a run, below its folder.
_READ = (
    *("judgements.jsonl", "prompts.jsonl", "responses.jsonl", "mix/mixture.json", "train/training.json"),
    *("train/validation_losses.jsonl", "preferences.jsonl", "capabilities"),
    category_scores.FILE,
)


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
        pairs: (evaluation set, prompt_id) to the pair that the prompt is of, of those that are of one.
        items: what else every run answered one by one: run, the swept parameters, n_safety, seed, measure, prompt_id
            (of the item), value. Measures are GENERAL_LOSS (nats a token of each general validation row), capability
            tasks (1 or 0), and preferences against the smallest N (1, 0.5 or 0).
        categories: run, the swept parameters, n_safety, seed, and the columns of ``category_scores.COLUMNS``; None
            where no judge gave such scores.
        base_models: run to the model that it tuned.
    """

    shared: dict[str, Any]
    settings: StudySettings
    swept: dict[str, list]
    runs: "pd.DataFrame"
    judgements: "pd.DataFrame"
    roles: dict[str, str]
    types: dict[tuple[str, str], str]
    pairs: dict[tuple[str, str], str]
    items: "pd.DataFrame"
    categories: "pd.DataFrame | None" = None
    base_models: Mapping[str, str] = field(default_factory=dict)

    @property
    def decided_by(self) -> str:
        """The judge that the runs' parameters have decide; empty for the choice."""
        return self.shared.get("decided_by", "")


def read_study(folder: Path) -> StudyTables:
    """Read the runs of a study, finished or not.

    Raises:
        InputError: the folder holds no study, or what its finished runs left is not there as it was recorded.
    """
    settings, values = grid.study_settings(grid.study_file(folder))
    planned = [(run, folder / run.name, {}) for run in grid.plan(values)]
    return _read(settings, {name: values[name] for name in grid.swept_names(values)}, planned, folder)


def read_studies(folders: list[Path], out: Path) -> StudyTables:
    """Read several studies as one, in which ``study`` is swept too; targets and limits are those of the first.

    Args:
        folders: of the studies; two of one name are told apart by their place in the list.
        out: the folder that the comparison goes into; the runs are named by their way from there.

    Raises:
        InputError: fewer than two, one that holds no study, or whose finished runs' files are not as recorded.
    """
    if len(folders) < 2:
        raise InputError("Name at least two studies to compare.")
    asked = [grid.study_settings(grid.study_file(folder)) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{name} ({place})" for place, name in enumerate(names, start=1)]
    swept: dict[str, list] = {"study": names}
    planned = []
    for name, folder, (_, values) in zip(names, folders, asked, strict=True):
        planned += [(run, folder / run.name, {"study": name}) for run in grid.plan(values)]
        for parameter in grid.swept_names(values):
            swept.setdefault(parameter, [])
    for parameter in swept:
        if parameter != "study":
            swept[parameter] = list(dict.fromkeys(getattr(run.params, parameter) for run, _, _ in planned))
    return _read(asked[0][0], swept, planned, out)


def _read(
    settings: StudySettings,
    swept: dict[str, list],
    planned: list[tuple[grid.PlannedRun, Path, dict[str, Any]]],
    root: Path,
) -> StudyTables:
    """Read planned runs, each with its folder and what else tells it apart; their names are their way from ``root``."""
    import pandas as pd

    rows, judgements, roles, types, pairs, items, categories, wrong = [], [], {}, {}, {}, [], [], []
    parameters = [name for name in swept if name != "study"]
    for one, folder, more in planned:
        run = run_folder.RunFolder(folder)
        keys = {
            "run": os.path.relpath(folder, root),
            N_SAFETY: one.params.n_safety,
            "seed": one.params.seed,
            **more,
            **{name: getattr(one.params, name) for name in parameters},
        }
        state = grid.run_state(run)
        if settings.search and state["state"] == "waiting" and not run.ledger.is_file():
            state["state"] = "not needed"
        rows.append({**keys, **state})
        if state["state"] == run_folder.DONE and (misfits := run_folder.misfits(run, _READ)):
            wrong += misfits  # of all runs, to be told at once
        elif state["state"] == run_folder.DONE and not wrong:
            judged = files.read_jsonl(run.judgements, JUDGEMENT)
            judgements.extend({**keys, **row} for row in judged)
            if len(scores := category_scores.read(run, judged)):
                categories.append(scores.assign(**keys)[[*keys, *category_scores.COLUMNS]])
            items.extend({**keys, **row} for row in _items(run))
            asked = files.read_jsonl(run.prompts, _PROMPT) if run.prompts.is_file() else []
            roles.update({row["dataset"]: row["role"] for row in asked})
            types.update({(row["dataset"], row["prompt_id"]): row["type"] for row in asked if row.get("type")})
            pairs.update({(row["dataset"], row["prompt_id"]): row["pair"] for row in asked if row.get("pair")})
    run_folder.raise_misfits(wrong)
    keys = run_keys(swept)
    single = pd.DataFrame(items) if items else pd.DataFrame(columns=[*keys, "measure", "prompt_id", "value"])
    columns = [*keys, "dataset", "prompt_id", "judge", "label", "score", "missing"]
    table = pd.DataFrame(judgements) if judgements else pd.DataFrame(columns=columns)
    every = [one.params.model_dump(exclude={"run_dir", *parameters}) for one, _, _ in planned]
    shared = {name: value for name, value in every[0].items() if all(each[name] == value for each in every)}
    bases = {row["run"]: one.params.base_model for row, (one, _, _) in zip(rows, planned, strict=True)}
    every_run = pd.DataFrame(rows)
    tables = StudyTables(shared, settings, swept, every_run, table, roles, types, pairs, single, base_models=bases)
    if categories:
        tables = replace(tables, categories=pd.concat(categories, ignore_index=True))
    return _with_capabilities(tables, root)


def remarks(folder: Path, tables: StudyTables) -> list[str]:
    """What is to be known of the runs of a study beside their numbers: a line each.

    Those that are not compared and why, executed notebooks that are not what was executed, and published records.
    """
    lines = []
    for row in tables.runs.to_dict("records"):
        run = run_folder.RunFolder(Path(os.path.normpath(folder / row["run"])))  # `folder` may not be there yet
        name = visible(row["run"], limit=None)[0]
        if row["state"] not in (run_folder.DONE, "not needed"):
            why = f" ({visible(row['cause'])[0]})" if row["cause"] else ""
            lines.append(f"{name} is left out: {row['state']}{why}")
            continue
        if published := run_folder.read_published(run):
            lines.append(f"{name} is a published record: {visible(published['note'])[0]}")
        notebooks = sorted(str(path.relative_to(run.root)) for path in run.notebooks.glob("*.ipynb"))
        lines += [visible(line, limit=None)[0] for line in run_folder.misfits(run, notebooks)]
    return lines


def finished(folder: Path, tables: StudyTables) -> Iterator[tuple[dict[str, Any], run_folder.RunFolder]]:
    """The finished runs: their row of the table of runs, and their folder."""
    for row in tables.runs.to_dict("records"):
        if row["state"] == run_folder.DONE:
            yield row, run_folder.RunFolder(folder / row["run"])


def answers(folder: Path, tables: StudyTables) -> "pd.DataFrame":
    """All answers of the finished runs.

    Returns:
        run, n_safety, seed and what else was swept, then the columns of ``responses.jsonl``, and label: that of the
        first judge that labelled the answer.
    """
    import pandas as pd

    columns = [*RUN_KEYS, "dataset", "prompt_id", "prompt", "response", "finish", "label"]
    parts = []
    for row, run in finished(folder, tables):
        keys = {name: row[name] for name in run_keys(tables.swept)}
        if run.published.exists() and not run.responses.is_file():
            continue  # their text was not published
        said = files.read_jsonl(run.responses, ANSWER)
        parts.append(pd.DataFrame([{**keys, **response} for response in said]))
    return (
        with_labels(pd.concat(parts, ignore_index=True), tables.judgements) if parts else pd.DataFrame(columns=columns)
    )


def with_labels(responses: "pd.DataFrame", judgements: "pd.DataFrame") -> "pd.DataFrame":
    """Responses with ``label``: that of the first judge that labelled each; nan where none did."""
    names = ("run", "dataset", "prompt_id", "sample")
    on = [name for name in names if name in responses and name in judgements]
    labels = judgements[judgements["label"].notna()].drop_duplicates(on)[[*on, "label"]]
    return responses.merge(labels, how="left", on=on)


def _with_capabilities(tables: StudyTables, root: Path) -> StudyTables:
    """Tables in which the capability tasks that were measured are evaluation sets of facts, by their own judge.

    A task of which only the first questions were asked says so in its name, and so on every figure.
    """
    import pandas as pd

    answers = capability_answers(root, tables)
    if answers.empty:
        return tables
    judged = capabilities.judgements(with_limits(answers))
    names = judged["dataset"]
    columns = [name for name in tables.judgements.columns if name in judged]
    return replace(
        tables,
        judgements=pd.concat([tables.judgements, judged[columns]], ignore_index=True),
        roles={**tables.roles, **dict.fromkeys(names, "facts")},
    )


def with_own_capabilities(judgements: "pd.DataFrame", run: run_folder.RunFolder) -> "pd.DataFrame":
    """The judgements of a run, and after them its answers to capability tasks, where it was measured."""
    import pandas as pd

    known = capabilities.judgements(with_limits(capabilities.read(run)))
    columns = [name for name in judgements.columns if name in known]
    return pd.concat([judgements, known[columns]], ignore_index=True) if len(known) else judgements


def with_limits(answers: "pd.DataFrame") -> "pd.DataFrame":
    """Answers to capability tasks, with a limit told in the task's name."""
    limited = answers["limit"].astype(int)
    names = answers["task"].where(limited == 0, answers["task"] + " (first " + limited.astype(str) + ")")
    return answers.assign(task=names)


def _items(run: run_folder.RunFolder) -> Iterator[dict[str, Any]]:
    """What a run answered one by one besides prompts: measure, prompt_id and value."""
    safety = files.read_record(run.mixture, {}).get("safety") if run.mixture.is_file() else None
    for row in files.read_jsonl(run.validation_losses, _LOSS) if run.validation_losses.is_file() else ():
        if row["source"] != safety:
            yield {"measure": GENERAL_LOSS, "prompt_id": row["id"], "value": row["loss"]}
    for row in files.read_jsonl(run.preferences, _PREFERENCE) if run.preferences.is_file() else ():
        measure = f"{row['dataset']} preferred ({row['judge']})"
        yield {"measure": measure, "prompt_id": row["prompt_id"], "value": row["score"]}


def capability_answers(folder: Path, tables: StudyTables) -> "pd.DataFrame":
    """Every answer of the runs of a study that were measured.

    Args:
        tables: the study as read, without capabilities.

    Returns:
        run, n_safety, seed, what else was swept, and the columns of ``capabilities.read``. No rows where nothing was
            measured.

    Raises:
        InputError: a task was measured in two ways (limit, examples shown, version, questions): not to be compared.
    """
    import pandas as pd

    keys = run_keys(tables.swept)
    parts, settings = [], {}
    for row in tables.runs.to_dict("records"):
        run = run_folder.RunFolder(folder / row["run"])
        if row["state"] == run_folder.DONE and len(table := capabilities.read(run)):
            parts.append(table.assign(**{name: row[name] for name in keys})[[*keys, *capabilities.COLUMNS]])
            settings[row["run"]] = _settings(run)
    for (one, ours), (other, theirs) in itertools.combinations(settings.items(), 2):
        for task in ours.keys() & theirs.keys():
            if ours[task] != theirs[task]:
                raise InputError(
                    f"{task} was measured in two ways, of {one} and of {other} (limit, num_fewshot, version or "
                    f"questions differ): `safety-nb capabilities {folder}` with one set of values measures all alike."
                )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*keys, *capabilities.COLUMNS])


def _settings(run: run_folder.RunFolder) -> dict[str, list]:
    kept = capabilities.read_record(run)
    facts = {part: {**kept["model"], **facts} for part, facts in kept["parts"].items()}
    return {
        name: [[part, *(facts[part][each] for each in capabilities.SETTINGS)] for part in task["parts"]]
        for name, task in kept["tasks"].items()
    }
