"""What can be known to be wrong before anything is written: data, model and output folder of a run."""

import functools
from collections.abc import Iterable
from pathlib import Path

from safety_nb.core.errors import InputError
from safety_nb.core.params import CapabilityParams, RunParams
from safety_nb.data import mixing
from safety_nb.data.datasets import sources
from safety_nb.generate import capabilities, generation
from safety_nb.judge import building
from safety_nb.report.findings import deciding
from safety_nb.train import encoding, models, template_fit, training


def check_run(params: RunParams) -> None:
    """Check what a run needs: its data, its model, its judges, and what it logs to.

    Raises:
        InputError: every problem found, in one message.
    """
    complaints = []
    for check in (
        lambda: mixing.draw(params, template_fit.of(params)),
        lambda: sources.evaluation_prompts(params.evaluation, params.data_dir),
        lambda: _check_model(params.base_model, params.revision, params.template),
        lambda: _check_guard(params),
        lambda: training.check_report_to(params.report_to),
        lambda: models.check_dtype(params.train_dtype),
        lambda: models.check_bits(params.base_bits, params.train_dtype),
        lambda: generation.server_of(params) if params.backend == "server" else None,
        lambda: _check_tasks(tuple(params.capabilities), params.tasks_dir) if params.capabilities else None,
        lambda: building.build_all(params, building.model_under_test(params.model_dump())),
        lambda: deciding.decide(params.judges, params.decided_by) if params.decided_by else None,
    ):
        try:
            check()
        except InputError as error:
            complaints.append(str(error))
    if complaints:
        raise InputError("\n".join(dict.fromkeys(complaints)))


def check_swept(names: Iterable[str]) -> None:
    """Check that a study sweeps nothing that all of its runs have to share. Raises InputError."""
    if "decided_by" in names:
        raise InputError("decided_by: one judge decides for all runs of a study; name one, not a list.")


@functools.lru_cache(maxsize=8)
def _check_model(base_model: str, revision: str, template: str) -> None:
    """Check that a model can be had and is whole and, where its chat template is asked for, that it has one of use."""
    models.check_decoder(base_model, revision)
    if template == "chat":
        encoding.end_tokens(models.load_tokenizer(base_model, revision), template)


@functools.lru_cache(maxsize=8)
def _check_tasks(names: tuple[str, ...], tasks_dir: str) -> None:
    """Check that the harness is there and has the capability tasks; at their data it is looked when they are asked."""
    capabilities.check_installed()
    capabilities.check_tasks(CapabilityParams(tasks=list(names), tasks_dir=tasks_dir))


def _check_guard(params: RunParams) -> None:
    """Check that what a model is asked with, and trained on, can hold the guard prompt."""
    if not params.guard_prompt:
        return
    tokenizer = models.load_tokenizer(params.base_model, params.revision)
    if params.backend == "local":
        most = models.positions(params.base_model, params.revision)
        room = None if most is None else most - params.answer_tokens
        why = f"the model's {most} positions, less {params.answer_tokens} for the answer"
        encoding.check_guard(params.guard_prompt, tokenizer, params.template, room, why)
    if params.guard_training:
        encoding.check_guard(params.guard_prompt, tokenizer, params.template, params.cutoff, "the cutoff of a row")


def check_folder(folder: Path, marker: str) -> None:
    """Check that results can go into a folder: it is new, empty, or holds earlier results of the same kind.

    Args:
        marker: file that results of this kind have, such as ``run.json``.

    Raises:
        InputError: it is a file, or holds something else.
    """
    if folder.is_file():
        raise InputError(f"--out: {folder} is a file; name a folder.")
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if visible and not (folder / marker).exists():
        raise InputError(
            f"--out: {folder} holds files that are none of ours (no {marker} among them); "
            "name a new or an empty folder, so that nothing of yours is overwritten."
        )
