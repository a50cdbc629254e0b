"""What this machine can do, and whether a run will fit and how long it takes: findings, each problem with its mend.

Nothing is left behind, except that data sets and small files of a hub model are fetched as the run itself would.
"""

import contextlib
import http.client
import importlib
import json
import logging
import math
import os
import platform
import shutil
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from safety_nb import checks, warm
from safety_nb.core import grid, secrets, shipped
from safety_nb.core.errors import InputError
from safety_nb.core.params import RunParams, validate
from safety_nb.data import mixing
from safety_nb.data.datasets import fetch, sources
from safety_nb.run import timing
from safety_nb.train import models
from safety_nb.train.memory import (
    TIGHT,
    Memory,
    choose,
    count_weights,
    generation_memory,
    size_text,
    training_memory,
    weight_bytes,
)

# The tested set of the project, which the package carries along.
# Those of it whose version can change a result or keep a notebook from running.
WATCHED = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
WATCHED += ("papermill", "nbclient", "jupyter_client", "ipykernel")
_ANSWER_SECONDS = 5  # to wait for a first answer from the network
_MEASURING_SECONDS = 15  # that steps of the run itself may take, by arithmetic
_REPORTS_BYTES = 20e6  # notebooks, tables and pages of a run


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``problem``: a run would stop, or cannot start; then ``mend`` says what to do."""

    name: str
    state: Literal["ok", "warning", "problem"]
    found: str
    mend: str = ""


def examine(values: dict[str, Any] | None, outputs: Path) -> Iterator[Finding]:
    """Look at this machine, and at what a parameter file asks of it.

    Args:
        values: of a run's or a study's parameter file; None to look at the machine alone.
        outputs: the folder of the results.
    """
    _hush()
    import_seconds = _import_all() if values is not None else 0.0
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield host()
    yield device()
    yield four_bits()
    yield kernels()
    yield versions()
    reachable = hub()
    yield reachable
    needs: dict[str, float] = {}  # bytes, by the place they go to
    if values is not None:
        with _impatient(offline=reachable.state == "warning"):
            yield from _examine_runs(values, outputs, import_seconds, needs)
    places = {"outputs": outputs, "hub cache": _hub_cache(), "data cache": fetch.cache_dir()}
    yield from disk({name: (folder, needs.get(name, 0.0)) for name, folder in places.items()})


def _examine_runs(
    values: dict[str, Any], outputs: Path, import_seconds: float, needs: dict[str, float]
) -> Iterator[Finding]:
    """What a parameter file asks of this machine; sets ``needs``."""
    planned, complaints = plan(values)
    for params in planned:
        complaints += _complaints(lambda params=params: checks.check_run(params))
    marker = "study.yaml" if grid.swept_names(values) else "run.json"
    complaints += _complaints(lambda: checks.check_folder(outputs, marker))
    for complaint in dict.fromkeys(complaints):
        yield Finding("parameters", "problem", complaint, "change it as it says")
    if not complaints:
        yield Finding("parameters", "ok", f"{len(planned)} run{'s' * (len(planned) > 1)}; data and model can be had")
    try:
        params = largest(planned)
        if params is None:
            return
        needs["hub cache"], missing = weights_to_fetch(params)
        if missing:
            yield missing
        work = None
        with contextlib.suppress(InputError, OSError, ValueError):  # told above
            rows, asked = mixing.draw(params), _asked(params)
            tokenizer = models.load_tokenizer(params.base_model, params.revision)
            work = timing.count_work(params, tokenizer, rows.train, rows.validation, asked)
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
            yield Finding("parameters", "problem", str(error), "change it as it says")
    except Exception as error:  # an architecture that cannot be traced, or no memory to time it in: no reason to stop
        yield Finding("fit", "warning", f"could not be estimated ({type(error).__name__}: {_first_line(error)})")


def _asked(params: RunParams) -> list[str]:
    """The prompts of all evaluation sets of a run."""
    return [row["prompt"] for row in sources.evaluation_prompts(params.evaluation, params.data_dir)]


# --- the machine --------------------------------------------------------------------------------------------------


def host() -> Finding:
    """Cores and free memory of the machine, as far as this process may use them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("host", "ok", f"{cores} CPU cores, {size_text(models.free_host_memory())} of memory free")


def device(devices: Path = Path("/dev")) -> Finding:
    """The GPU or the CPU, and the dtype computed in."""
    import torch

    if models.pick_device() == "cuda":
        major, minor = torch.cuda.get_device_capability()
        dtype = _dtype_name("cuda")
        free = size_text(models.free_memory())
        found = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, {free} free, {dtype}"
        return Finding("device", "ok", found)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    present = sorted(path.name for path in devices.glob("nvidia[0-9]*"))
    if hidden or not present:
        why = "the GPU is hidden by CUDA_VISIBLE_DEVICES" if hidden and present else "no NVIDIA GPU"
        return Finding("device", "ok", f"CPU ({why}), {_dtype_name('cpu')}: small models only")
    found = f"a GPU is here ({', '.join(present)}), but torch {torch.__version__} cannot use it"
    if torch.version.cuda is None:
        mend = "this torch is built without CUDA: install a CUDA build of the same version, as PyTorch's site says"
    else:
        mend = (
            f"`nvidia-smi` must work here, with a driver for CUDA {torch.version.cuda}; in a container, pass the GPU in"
        )
    return Finding("device", "problem", found, mend + ", or set CUDA_VISIBLE_DEVICES= to use the CPU")


def _dtype_name(device: str) -> str:
    return str(models.compute_dtype(device)).removeprefix("torch.")


def four_bits() -> Finding:
    """Whether bitsandbytes quantises and multiplies on the device, tried on a small matrix."""
    import torch

    where = models.pick_device()
    try:
        import bitsandbytes as bnb

        generator = torch.Generator().manual_seed(0)
        weight, x = (torch.randn(64, 64, generator=generator).to(where, models.compute_dtype(where)) for _ in range(2))
        packed, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        x.requires_grad_()
        product = bnb.matmul_4bit(x, packed.t(), state)
        product.sum().backward()
        expected = x.detach() @ weight.t()
        error = float((product.detach() - expected).norm() / expected.norm())
        if not (0 < error < 0.2 and x.grad.isfinite().all() and x.grad.any()):  # NF4 of normal weights: about 0.09
            raise ArithmeticError(f"products are off by {error:.2f}, or without gradients")
    except Exception as error:
        mend = f"install the tested one: pip install --force-reinstall bitsandbytes=={tested()['bitsandbytes']}"
        found = f"bitsandbytes does not work on this {where} ({type(error).__name__}: {_first_line(error)})"
        return Finding("4 bits", "problem", found, mend)
    return Finding("4 bits", "ok", f"bitsandbytes quantises and multiplies NF4 on the {where} (error {error:.2f})")


def kernels() -> Finding:
    """How kernels start here. No browser is needed: only the project's own tests have use for one."""
    how = "forked from one process with the imports done" if warm.is_possible() else "each with imports of its own"
    return Finding("kernels", "ok", f"{how}; no browser needed")


def tested(constraints: Path | None = None) -> dict[str, str]:
    """Name to version of the tested set: the one that is shipped, or another file's."""
    constraints = constraints or shipped.place("constraints.txt")
    lines = [line.partition("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines()]
    return dict(line.split("==") for line in lines if line)


def versions(constraints: Path | None = None) -> Finding:
    """The packages that matter against the tested set."""
    wanted = {name: tested(constraints)[name] for name in WATCHED}
    found = {name: _installed(name) for name in WATCHED}
    other = {name: version for name, version in found.items() if version.partition("+")[0] != wanted[name]}
    if not other:
        return Finding("versions", "ok", "the tested ones")
    told = ", ".join(f"{name} {version or 'missing'} (tested: {wanted[name]})" for name, version in other.items())
    state = "warning" if all(other.values()) else "problem"
    return Finding("versions", state, told, "pip install " + " ".join(f"{name}=={wanted[name]}" for name in other))


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def hub() -> Finding:
    """Whether the model hub answers, and whether there is a token for gated models (its value is never shown)."""
    from huggingface_hub import constants

    token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set (gated models need it)"
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "ok", f"not asked, as HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE demands; {token}")
    try:
        with contextlib.suppress(urllib.error.HTTPError):  # it answers
            urllib.request.urlopen(constants.ENDPOINT, timeout=_ANSWER_SECONDS).close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        found = f"{constants.ENDPOINT} does not answer ({_first_line(error)}); {token}"
        mend = (
            "connect, set HF_ENDPOINT to a mirror, or name the folder of a saved model; cached models work as they are"
        )
        return Finding("hub", "warning", found, mend)
    return Finding("hub", "ok", f"{constants.ENDPOINT} answers; {token}")


@contextlib.contextmanager
def _impatient(offline: bool) -> Iterator[None]:
    """Wait for downloads once and not long; for a hub that does not answer not at all."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, fetch.ATTEMPTS, fetch.TIMEOUT_SECONDS
    constants.HF_HUB_OFFLINE, fetch.ATTEMPTS, fetch.TIMEOUT_SECONDS = offline or before[0], 1, _ANSWER_SECONDS
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, fetch.ATTEMPTS, fetch.TIMEOUT_SECONDS = before


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def disk(places: dict[str, tuple[Path, float]]) -> Iterator[Finding]:
    """Whether folders can be written to, and whether their disks have room.

    Args:
        places: a folder, which need not exist yet, and the bytes that go there, by name.
    """
    parents = {name: _existing(folder) for name, (folder, _) in places.items()}
    for name, (folder, need) in places.items():
        parent = parents[name]
        try:
            with tempfile.TemporaryFile(dir=parent):
                pass
        except OSError as error:
            found = f"{folder} cannot be written to ({error.strerror}: {parent})"
            yield Finding(name, "problem", found, f"make room for the folder, or mend its rights: {_moved(name)}")
            continue
        free = shutil.disk_usage(parent).free
        shared = sum(bytes_ for other, (_, bytes_) in places.items() if _same_disk(parents[other], parent))
        about = f", about {size_text(need)} needed" if need else ""
        found = f"{size_text(free)} free for {folder}{about}"
        if need and shared > free:
            yield Finding(name, "problem", found, f"{size_text(shared)} go to this disk: free some, or {_moved(name)}")
        elif (need and shared > TIGHT * free) or free < 1e9:
            yield Finding(name, "warning", found, f"free some, or {_moved(name)}")
        else:
            yield Finding(name, "ok", found)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _moved(name: str) -> str:
    ways = {"outputs": "give `safety-nb run` another --out", "hub cache": "set HF_HOME to another folder"}
    return ways.get(name, "set SAFETY_NB_CACHE to another folder")


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
    """The run that takes most: by its base, then by the tokens it holds at once, then by its rows.

    Raises:
        InputError: a base cannot be built.
    """
    bases = {(params.base_model, params.revision) for params in planned}
    sizes = {base: sum(count_weights(models.outline(*base))) for base in bases}

    def size(params: RunParams) -> tuple:
        at_once = (params.micro_batch_size * params.cutoff, params.generation_batch_size * params.num_beams)
        return sizes[params.base_model, params.revision], at_once, _rows(params)

    return max(planned, key=size, default=None)


def _rows(params: RunParams) -> float:
    return (params.n_general + params.n_safety) * params.epochs


def weights_to_fetch(params: RunParams) -> tuple[float, Finding | None]:
    """Bytes of weights to download, and a problem where there are no weights to be had."""
    where = models.locate(params.base_model)
    if Path(where).is_dir():
        if any(Path(where).glob("*.safetensors")):
            return 0, None
        return 0, Finding(
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
        return 0, Finding("model", "problem", f"the weights of {where} are not cached here", mend)
    files = HfApi().model_info(where, revision=revision, files_metadata=True, timeout=_ANSWER_SECONDS).siblings or []
    sizes = [file.size or 0 for file in files if _is_weights(file.rfilename)]
    if not sizes:
        mend = "choose a copy of it that has safetensors (others can run code when they are loaded)"
        return 0, Finding("model", "problem", f"the hub has no safetensors of {where}", mend)
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


def fit(params: RunParams, work: timing.Work | None, free: int) -> tuple[Finding, int, bool]:
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
    weights = weight_bytes(params)
    if weights + process > free:
        found = f"does not fit: the weights alone take {size_text(weights)}, of {size_text(free - process)} free"
        return Finding("fit", "problem", found, "choose a smaller base_model, or a device with more memory"), 0, False
    choice = choose(params, tokens, supervised, row, free - process)
    answers = generation_memory(params, prompt, params.answer_tokens)
    found = (
        f"training about {size_text(choice.needed + process)} in {choice.how}, "
        f"generation about {size_text(answers.total + process)}, of {size_text(free)} free"
    )
    mends = []
    if not choice.fits:
        mends.append(_smaller_training(params, row, supervised / tokens, free - process))
    if answers.total + process > free:
        mends.append(_smaller_generation(params, prompt, free - process))
    if mends:
        finding = Finding("fit", "problem", f"does not fit: {found}", "; ".join(dict.fromkeys(mends)))
    elif answers.total + process > TIGHT * free:
        mend = "close what else uses this memory, or lower generation_batch_size"
        finding = Finding("fit", "warning", f"barely fits: {found}", mend)
    else:
        finding = Finding("fit", "ok", f"fits: {found}")
    return finding, answers.adapter, choice.gradient_checkpointing


def _smaller_training(params: RunParams, widest: int, share: float, free: int) -> str:
    """What to change where a single row of ``widest`` tokens, a ``share`` of them with loss, does not fit."""
    changes = [{"gradient_checkpointing": True}, {"cutoff": max(8, min(widest, params.cutoff) // 2)}]

    def memory(smaller: RunParams) -> Memory:
        row = min(widest, smaller.cutoff)
        return training_memory(smaller, row, math.ceil(row * share))

    return _first_that_fits(params, changes, free, memory)


def _smaller_generation(params: RunParams, width: int, free: int) -> str:
    changes = [
        {"generation_batch_size": max(1, params.generation_batch_size // 2)},
        {"generation_batch_size": 1},
        {"mode": "greedy"},
    ]
    return _first_that_fits(
        params, changes, free, lambda smaller: generation_memory(smaller, width, params.answer_tokens)
    )


def _first_that_fits(params: RunParams, changes: list[dict[str, Any]], free: int, memory: Any) -> str:
    """The fewest of the changes, one upon the other, with which ``memory`` is within ``free``."""
    made: dict[str, Any] = {}
    for change in changes:
        made |= {name: value for name, value in change.items() if value != getattr(params, name)}
        need = memory(params.model_copy(update=made))
        if need.total <= free:
            told = ", ".join(f"{name}: {str(value).lower()}" for name, value in made.items())
            return f"set {told} (about {size_text(need.total)})"
    tried = ", ".join(f"{name}: {str(value).lower()}" for name, value in made.items())
    return f"choose a smaller base_model, or a device with more memory: {tried} would not do"


def duration(
    speed: timing.Speed,
    work: timing.Work,
    planned: list[RunParams],
    params: RunParams,
    import_seconds: float,
) -> Finding:
    """About how long the counted run takes, and all runs of a study one after the other."""
    forked = warm.is_possible()
    one = timing.compute_seconds(speed, work) + timing.notebook_seconds(import_seconds, forked)
    found = f"about {_clock(one)}"
    if len(planned) > 1:
        # A run with less of the largest's rows; what else is swept is taken to cost as much.
        works = [timing.scaled(work, _rows(other) / _rows(params)) for other in planned]
        total = sum(timing.compute_seconds(speed, each) for each in works)
        total += timing.notebook_seconds(import_seconds, forked, len(planned))
        found += f" for the largest run, {_clock(total)} for all {len(planned)} one after the other"
    return Finding("time", "ok", f"{found} ({speed.how})")


# --- saying it ----------------------------------------------------------------------------------------------------


def print_findings(findings: Iterator[Finding]) -> bool:
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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _import_all() -> float:
    """Import what the notebooks import; the seconds that took."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a remark of ipykernel's debugger
    started = time.perf_counter()
    for name in warm.IMPORTS:
        importlib.import_module(name)
    return time.perf_counter() - started


def _hush() -> None:
    """Keep what libraries say of themselves from between the findings."""
    warnings.simplefilter("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
