"""What this machine can do, and whether a run will fit and how long it takes: findings, each problem with its mend.

Nothing is left behind, except that data sets and small files of a hub model are fetched as the run itself would.
"""

import contextlib
import importlib
import json
import logging
import math
import os
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from safety_nb.core import grid, secrets
from safety_nb.core.errors import InputError
from safety_nb.core.params import CapabilityParams, RunParams, validate
from safety_nb.core.text import amount, first_line
from safety_nb.data import mixing
from safety_nb.data.datasets import fetch, sources
from safety_nb.generate import capabilities
from safety_nb.run import checks, fork_server, machine, stages, study, timing
from safety_nb.train import memory, models, template_fit

_MEASURING_SECONDS = 15  # that steps of the run itself may take, by arithmetic
_REPORTS_BYTES = 20e6  # notebooks, tables and pages of a run


def examine(values: dict[str, Any] | None, outputs: Path) -> Iterator[machine.Finding]:
    """Look at this machine, and at what a parameter file asks of it.

    Args:
        values: of a run's or a study's parameter file; None to look at the machine alone.
        outputs: the folder of the results.
    """
    _hush()
    import_seconds = _import_all() if values is not None else 0.0
    yield machine.Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield machine.host()
    yield machine.device()
    yield machine.base_bits(4)
    yield machine.base_bits(8)
    yield machine.kernels()
    yield machine.versions()
    reachable = machine.hub()
    yield reachable
    needs: dict[str, float] = {}  # bytes, by the place they go to
    if values is not None:
        with machine.impatient(offline=reachable.state == "warning"):
            yield from _examine_runs(values, outputs, import_seconds, needs)
    places = {"outputs": outputs, "hub cache": machine.hub_cache(), "data cache": fetch.cache_dir()}
    yield from machine.disk({name: (folder, needs.get(name, 0.0)) for name, folder in places.items()})


def _examine_runs(
    values: dict[str, Any], outputs: Path, import_seconds: float, needs: dict[str, float]
) -> Iterator[machine.Finding]:
    """What a parameter file asks of this machine; sets ``needs``."""
    planned, complaints = plan(values)
    for params in planned:
        complaints += _complaints(lambda params=params: checks.check_run(params))
    with contextlib.suppress(InputError):  # told above
        if grid.study_settings(values)[0].prefer and planned:
            complaints += _complaints(lambda: study.check_prefer(planned))
    marker = "study.yaml" if grid.swept_names(values) else "run.json"
    complaints += _complaints(lambda: checks.check_folder(outputs, marker))
    for complaint in dict.fromkeys(complaints):
        yield machine.Finding("parameters", "problem", complaint, "change it as it says")
    if not complaints:
        yield machine.Finding(
            "parameters", "ok", f"{len(planned)} run{'s' * (len(planned) > 1)}; data and model can be had"
        )
    try:
        params = largest(planned)
        if params is None:
            return
        needs["hub cache"], missing = weights_to_fetch(params)
        if missing:
            yield missing
        work = None
        with contextlib.suppress(InputError, OSError, ValueError):  # told above
            rows, asked = mixing.draw(params, template_fit.of(params)), _asked(params)
            tokenizer = models.load_tokenizer(params.base_model, params.revision)
            work = timing.count_work(params, tokenizer, rows.train, rows.validation, asked)
        if params.capabilities and not complaints:
            found, read = _capabilities(params)
            yield found
            work = None if read is None or work is None else replace(work, capability_tokens=read)
        fits, adapter, recomputed = fit(params, work, models.free_memory())
        params = params.model_copy(update={"gradient_checkpointing": recomputed})
        yield fits
        # The adapter, and three checkpoints with AdamW's two states beside it: two are kept while another is written.
        needs["outputs"] = len(planned) * (adapter * 10 + _REPORTS_BYTES)
        if work is None or complaints or missing:
            return
        speed = timing.layer_speed(params, work)
        cheap = timing.step_seconds(speed, work) < _MEASURING_SECONDS
        if cheap and fits.state == "ok" and not needs["hub cache"]:
            speed = timing.step_speed(params, tokenizer, rows.train, asked)
        yield duration(speed, work, planned, params, import_seconds)
    except InputError as error:  # the base cannot be built: told above already, if that is why
        if not any(complaint.startswith("base_model:") for complaint in complaints):
            yield machine.Finding("parameters", "problem", str(error), "change it as it says")
    except Exception as error:  # an architecture that cannot be traced, or no memory to time it in: no reason to stop
        yield machine.Finding("fit", "warning", f"could not be estimated ({type(error).__name__}: {first_line(error)})")


def _capabilities(params: RunParams) -> tuple[machine.Finding, float | None]:
    """What a run's capability tasks ask, and about how many tokens the model reads of it; None where that is unknown.

    The data of tasks is fetched as the run itself would.
    """
    asked = validate(CapabilityParams, stages.CAPABILITIES.values(params))
    try:
        questions, read = capabilities.count(asked, models.load_tokenizer(params.base_model, params.revision))
    except InputError as error:
        mend = "bring the data of these tasks here, or leave them out"
        return machine.Finding("capabilities", "problem", str(error), mend), None
    told = f"{questions:,} questions of {len(asked.tasks)} task{'s' * (len(asked.tasks) > 1)}, of each run"
    return machine.Finding("capabilities", "ok", told), read


def _asked(params: RunParams) -> list[str]:
    """The prompts of all evaluation sets of a run."""
    return [row["prompt"] for row in sources.evaluation_prompts(params.evaluation, params.data_dir)]


# --- the runs -----------------------------------------------------------------------------------------------------


def plan(values: dict[str, Any]) -> tuple[list[RunParams], list[str]]:
    """The runs of a parameter file, one or those of a study, and all complaints about it."""
    complaints: list[str] = []
    planned = []
    try:
        for combination in grid.expand(values):
            try:
                planned.append(validate(RunParams, combination))
            except InputError as error:
                complaints += str(error).splitlines()
    except InputError as error:
        complaints.append(str(error))
    return planned, complaints


def _complaints(check: Any) -> list[str]:
    try:
        check()
    except InputError as error:
        return str(error).splitlines()
    return []


def largest(planned: list[RunParams]) -> RunParams | None:
    """The run that takes most: by the bytes of its base, then by the tokens it holds at once, then by its rows.

    Raises:
        InputError: a base cannot be built.
    """
    by_base = {_base(params): params for params in planned}
    sizes = {base: memory.weight_bytes(params) for base, params in by_base.items()}

    def size(params: RunParams) -> tuple:
        at_once = (params.micro_batch_size * params.cutoff, params.generation_batch_size * params.num_beams)
        return sizes[_base(params)], at_once, _rows(params)

    return max(planned, key=size, default=None)


def _base(params: RunParams) -> tuple[str, str, int]:
    return params.base_model, params.revision, params.base_bits


def _rows(params: RunParams) -> float:
    return (params.n_general + params.n_safety) * params.epochs


def weights_to_fetch(params: RunParams) -> tuple[float, machine.Finding | None]:
    """Bytes of weights to download, and a problem where there are no weights to be had."""
    where = models.locate(params.base_model)
    if Path(where).is_dir():
        if any(Path(where).glob("*.safetensors")):
            return 0, None
        return 0, machine.Finding(
            "model",
            "problem",
            f"{where} holds no weights (*.safetensors)",
            "save the model there with save_pretrained, or name another base_model",
        )
    from huggingface_hub import HfApi, constants

    revision = params.revision or None
    if _cached_weights(where, revision):
        return 0, None
    if constants.HF_HUB_OFFLINE:
        mend = "connect and run again, or name the folder of a saved model"
        return 0, machine.Finding("model", "problem", f"the weights of {where} are not cached here", mend)
    files = (
        HfApi().model_info(where, revision=revision, files_metadata=True, timeout=machine.ANSWER_SECONDS).siblings or []
    )
    sizes = [file.size or 0 for file in files if _is_weights(file.rfilename)]
    if not sizes:
        mend = "choose a copy of it that has safetensors (others can run code when they are loaded)"
        return 0, machine.Finding("model", "problem", f"the hub has no safetensors of {where}", mend)
    return float(sum(sizes)), None


def _is_weights(name: str) -> bool:
    return name.startswith("model") and name.endswith(".safetensors")


def _cached_weights(where: str, revision: str | None) -> bool:
    """Whether the hub's cache holds all weights of a model, in one file or in those that an index names."""
    from huggingface_hub import try_to_load_from_cache

    def cached(name: str) -> str | None:
        path = try_to_load_from_cache(where, name, revision=revision)
        return path if isinstance(path, str) else None

    index = cached("model.safetensors.index.json")
    if index is None:
        return cached("model.safetensors") is not None
    return all(map(cached, set(json.loads(Path(index).read_text())["weight_map"].values())))


def fit(params: RunParams, work: timing.Work | None, free: int) -> tuple[machine.Finding, int, bool]:
    """Whether training and generation fit into ``free`` bytes of the device; the bytes of the adapter; and whether
    training recomputes activations.

    Without ``work`` packs count as full and prompts as long as the cutoff.
    """
    import psutil

    full = params.micro_batch_size * params.cutoff
    tokens, supervised = (work.pack_tokens, work.pack_supervised) if work else (full, full)
    row, prompt = (work.widest_row, work.widest_prompt) if work else (params.cutoff, params.cutoff)
    # On the CPU the process itself takes its share: Python with all imports, as in this one.
    process = psutil.Process().memory_info().rss if models.pick_device() == "cpu" else 0
    weights = memory.weight_bytes(params)
    if weights + process > free:
        found = f"does not fit: the weights alone take {amount(weights)}, of {amount(free - process)} free"
        return (
            machine.Finding("fit", "problem", found, "choose a smaller base_model, or a device with more memory"),
            0,
            False,
        )
    choice = memory.choose(params, tokens, supervised, row, free - process)
    answers = memory.generation_memory(params, prompt, params.answer_tokens)
    found = (
        f"training about {amount(choice.needed + process)} in {choice.how}, "
        f"generation about {amount(answers.total + process)}, of {amount(free)} free"
    )
    mends = []
    if not choice.fits:
        mends.append(_smaller_training(params, row, supervised / tokens, free - process))
    if answers.total + process > free:
        mends.append(_smaller_generation(params, prompt, free - process))
    if mends:
        finding = machine.Finding("fit", "problem", f"does not fit: {found}", "; ".join(dict.fromkeys(mends)))
    elif answers.total + process > memory.TIGHT * free:
        mend = "close what else uses this memory, or lower generation_batch_size"
        finding = machine.Finding("fit", "warning", f"barely fits: {found}", mend)
    else:
        finding = machine.Finding("fit", "ok", f"fits: {found}")
    return finding, answers.adapter, choice.gradient_checkpointing


def _smaller_training(params: RunParams, widest: int, share: float, free: int) -> str:
    """What to change where a single row of ``widest`` tokens, a ``share`` of them with loss, does not fit."""
    changes = [{"gradient_checkpointing": True}, {"cutoff": max(8, min(widest, params.cutoff) // 2)}]

    def need_of(smaller: RunParams) -> memory.Memory:
        row = min(widest, smaller.cutoff)
        return memory.training_memory(smaller, row, math.ceil(row * share))

    return _first_that_fits(params, changes, free, need_of)


def _smaller_generation(params: RunParams, width: int, free: int) -> str:
    changes = [
        {"generation_batch_size": max(1, params.generation_batch_size // 2)},
        {"generation_batch_size": 1},
        {"mode": "greedy"},
    ]
    return _first_that_fits(
        params, changes, free, lambda smaller: memory.generation_memory(smaller, width, params.answer_tokens)
    )


def _first_that_fits(params: RunParams, changes: list[dict[str, Any]], free: int, need_of: Any) -> str:
    """The fewest of the changes, one upon the other, with which ``need_of`` is within ``free``."""
    made: dict[str, Any] = {}
    for change in changes:
        made |= {name: value for name, value in change.items() if value != getattr(params, name)}
        need = need_of(params.model_copy(update=made))
        if need.total <= free:
            told = ", ".join(f"{name}: {str(value).lower()}" for name, value in made.items())
            return f"set {told} (about {amount(need.total)})"
    tried = ", ".join(f"{name}: {str(value).lower()}" for name, value in made.items())
    return f"choose a smaller base_model, or a device with more memory: {tried} would not do"


def duration(
    speed: timing.Speed,
    work: timing.Work,
    planned: list[RunParams],
    params: RunParams,
    import_seconds: float,
) -> machine.Finding:
    """About how long the counted run takes, and all runs of a study one after the other."""
    forked = fork_server.is_possible()
    notebooks = len(stages.of_run(params))
    one = timing.compute_seconds(speed, work) + timing.notebook_seconds(import_seconds, forked, 1, notebooks)
    found = f"about {_clock(one)}"
    if len(planned) > 1:
        # A run with less of the largest's rows; what else is swept is taken to cost as much.
        works = [timing.scaled(work, _rows(other) / _rows(params)) for other in planned]
        total = sum(timing.compute_seconds(speed, each) for each in works)
        total += timing.notebook_seconds(import_seconds, forked, len(planned), notebooks)
        found += f" for the largest run, {_clock(total)} for all {len(planned)} one after the other"
    return machine.Finding("time", "ok", f"{found} ({speed.how})")


# --- saying it ----------------------------------------------------------------------------------------------------


def print_findings(findings: Iterator[machine.Finding]) -> bool:
    """Print findings as a table with the mends below it; return whether none of them is a problem."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        seen = []
        for finding in findings:
            seen.append(finding)
            print(f"{finding.state:<8} {finding.name:<11} {secrets.redact(finding.found)}", flush=True)
    else:
        with console.status("Looking at this machine"):
            seen = list(findings)
        table = Table(box=None, pad_edge=False, show_header=False)
        colours = {"ok": "green", "warning": "yellow", "problem": "red"}
        for finding in seen:
            table.add_row(
                Text(finding.state, colours[finding.state]), Text(finding.name), Text(secrets.redact(finding.found))
            )
        console.print(table)
    mends = [finding for finding in seen if finding.mend]
    if mends:
        console.print("\nWhat to do", highlight=False)
    for finding in mends:
        console.print(f"{finding.name}: {secrets.redact(finding.mend)}", highlight=False, markup=False, soft_wrap=True)
    return all(finding.state != "problem" for finding in seen)


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _import_all() -> float:
    """Import what the notebooks import; the seconds that took."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a remark of ipykernel's debugger
    started = time.perf_counter()
    for name in fork_server.IMPORTS:
        importlib.import_module(name)
    return time.perf_counter() - started


def _hush() -> None:
    """Keep what libraries say of themselves from between the findings."""
    warnings.simplefilter("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
