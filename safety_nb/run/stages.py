"""The stages of a run: the notebook, parameters and function of each, and the files it reads and leaves.

Five that every run has, and ``capabilities``, which a run has where it asks for it. The one table of what depends on
what. Where a notebook is opened alone, it makes what is missing before it.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safety_nb.core import run_folder, shipped
from safety_nb.core.errors import InputError
from safety_nb.core.params import (
    AnnotateParams,
    CapabilityParams,
    GenerateParams,
    JudgeParams,
    MakeSafetyDataParams,
    MixParams,
    Parameters,
    ReportParams,
    RunParams,
    StudyParams,
    TrainParams,
    TrainRewardParams,
)
from safety_nb.judge import category_scores


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        notebook: file name of its notebook, without ending.
        params: the parameter model of the notebook.
        function: ``module:function`` that does its work, given the parameters.
        inputs, outputs: files or folders below the run's folder.
        asked_as: parameters of the notebook to those of a run, where the two are not called the same.
    """

    name: str
    notebook: str
    params: type[Parameters]
    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    asked_as: Mapping[str, str] = field(default_factory=dict)

    def values(self, params: RunParams) -> dict[str, Any]:
        """The parameters of the notebook but ``run_dir``, as a run asks for them."""
        names = [name for name in self.params.model_fields if name != "run_dir"]
        return self.params.decisive({name: getattr(params, self.asked_as.get(name, name)) for name in names})


_MIX = ("mix/train.jsonl", "mix/validation.jsonl", "mix/mixture.json")
_TRAIN = ("train/adapter", "train/metrics.csv", "train/training.json", "train/validation_losses.jsonl")

_GENERATE = ("prompts.jsonl", "responses.jsonl")  # what is read; the record of how they were made is for people

STAGES = (
    Stage("mix", "1-mix", MixParams, "safety_nb.data.mixing:mix", (), _MIX),
    Stage("train", "2-train", TrainParams, "safety_nb.train.training:train", _MIX[:2], _TRAIN),
    Stage(
        "generate",
        "3-generate",
        GenerateParams,
        "safety_nb.generate.generation:generate",
        ("train/adapter",),
        (*_GENERATE, "generation.json"),
    ),
    Stage(
        "judge",
        "4-judge",
        JudgeParams,
        "safety_nb.judge.judging:judge_run",
        _GENERATE,
        ("judgements.jsonl",),
    ),
    Stage(
        "report",
        "5-report",
        ReportParams,
        "safety_nb.report.writing:report_run",
        ("mix/mixture.json", *_TRAIN[1:], *_GENERATE, "judgements.jsonl"),
        ("summary.csv", "report.html"),
    ),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)
CAPABILITIES = Stage(
    "capabilities",
    "capabilities",
    CapabilityParams,
    "safety_nb.generate.capabilities:measure",
    ("train/adapter", "train/training.json"),
    ("capabilities",),
    {"tasks": "capabilities", "limit": "capability_limit", "seed": "capability_seed"},
)
ALL_NAMES = ("mix", "train", "generate", CAPABILITIES.name, "judge", "report")
NOTEBOOK_PARAMS = {
    **{stage.notebook: stage.params for stage in STAGES},
    "study": StudyParams,
    "make-safety-data": MakeSafetyDataParams,
    "annotate": AnnotateParams,
    "train-reward-model": TrainRewardParams,
    CAPABILITIES.notebook: CAPABILITIES.params,
}


def of_run(params: RunParams) -> tuple[Stage, ...]:
    """The stages of a run, in their order, with what its parameters make them leave.

    Where it asks for capabilities, its report reads and shows them.
    """
    *others, judge, report = STAGES
    if any(map(category_scores.gives, params.judges)):
        judge = replace(judge, outputs=(*judge.outputs, category_scores.FILE))
    if params.capabilities:
        others.append(CAPABILITIES)
        report = replace(report, inputs=(*report.inputs, *CAPABILITIES.outputs))
    return (*others, judge, report)


def notebook_path(notebook: str) -> Path:
    """The file of a notebook. Raises FileNotFoundError where the installation lacks it."""
    return shipped.place(f"notebooks/{notebook}.ipynb")


def make_missing(stage: str, params: Parameters) -> run_folder.RunFolder:
    """Make what a notebook opened alone lacks, with the miniature's defaults, and return its run folder.

    Only in the default run folder: in one the user named, a missing input is an error of the stage itself. Where a
    command made the run, what its ledger has of this stage's files is dropped: they are about to be others.
    """
    run = run_folder.open_run(params.run_dir)
    # A notebook beside the run makes none of its files.
    own = next((each.name for each in (*STAGES, CAPABILITIES) if type(params) is each.params), "")
    if own and run_folder.read_ledger(run)["stages"].get(own, {}).get("state") != "running":  # then by the runner
        run_folder.forget_outputs(run, own)
    for earlier in STAGES[: STAGE_NAMES.index(stage)]:
        if not params.run_dir and not all((run.root / name).exists() for name in earlier.outputs):
            print(f"{run.root} has no results of stage {earlier.name!r} yet: making those of the miniature.")
            module, function = earlier.function.split(":")
            getattr(importlib.import_module(module), function)(earlier.params())
        if _is_outdated(run, earlier):
            print(f"Careful: {', '.join(earlier.inputs)} changed after stage {earlier.name!r}; execute it again first.")
    return run


def _is_outdated(run: run_folder.RunFolder, stage: Stage) -> bool:
    """Whether an input of a stage is newer than its outputs, as when a mixture is drawn anew by hand."""
    inputs, outputs = (
        [path.stat().st_mtime_ns for path in (run.root / name for name in names) if path.exists()]
        for names in (stage.inputs, stage.outputs)
    )
    return bool(inputs and outputs) and max(inputs) > max(outputs)


def stage_named(name: str) -> Stage:
    """The stage of that name. Raises InputError for an unknown one."""
    for stage in (*STAGES, CAPABILITIES):
        if stage.name == name:
            return stage
    raise InputError(f"There is no stage {name!r}; choose from {', '.join(ALL_NAMES)}.")
