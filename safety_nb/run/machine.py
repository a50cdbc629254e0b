"""What this machine can do: processor, GPU, 4 and 8 bits, versions, hub and disks, each a finding with its mend."""

import contextlib
import http.client
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from safety_nb.core import shipped
from safety_nb.core.text import amount, first_line
from safety_nb.data.datasets import fetch
from safety_nb.run import fork_server
from safety_nb.train import models, quantised
from safety_nb.train.memory import TIGHT

# Those of the tested set whose version can change a result or keep a notebook from running.
WATCHED = (
    *("torch", "transformers", "peft", "bitsandbytes", "accelerate"),
    *("papermill", "nbclient", "jupyter_client", "ipykernel"),
)
ANSWER_SECONDS = 5  # to wait for a first answer from the network


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``problem``: a run would stop, or cannot start; then ``mend`` says what to do."""

    name: str
    state: Literal["ok", "warning", "problem"]
    found: str
    mend: str = ""


def host() -> Finding:
    """Cores and free memory of the machine, as far as this process may use them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("host", "ok", f"{cores} CPU cores, {amount(models.free_host_memory())} of memory free")


def device(devices: Path = Path("/dev")) -> Finding:
    """The GPU or the CPU, and the dtype computed in."""
    import torch

    if models.pick_device() == "cuda":
        major, minor = torch.cuda.get_device_capability()
        dtype = _dtype_name("cuda")
        free = amount(models.free_memory())
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


def base_bits(bits: int) -> Finding:
    """Whether a base can be held in 4 or 8 bits on the device, tried on a small layer; without 8 most runs do."""
    where = models.pick_device()
    name = quantised.NAMES[bits]
    try:
        error = quantised.trial(bits, where, models.compute_dtype(where))
    except Exception as error:
        mend = f"install the tested one: pip install --force-reinstall bitsandbytes=={tested()['bitsandbytes']}"
        found = f"bitsandbytes' {name} does not work on this {where} ({type(error).__name__}: {first_line(error)})"
        return Finding(f"{bits} bits", "problem" if bits == 4 else "warning", found, mend)
    found = f"bitsandbytes quantises, multiplies and differentiates {name} on the {where} (error {error:.3f} at most)"
    return Finding(f"{bits} bits", "ok", found)


def kernels() -> Finding:
    """How kernels start here. No browser is needed: only the project's own tests have use for one."""
    how = (
        "forked from one process with the imports done" if fork_server.is_possible() else "each with imports of its own"
    )
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
            urllib.request.urlopen(constants.ENDPOINT, timeout=ANSWER_SECONDS).close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        found = f"{constants.ENDPOINT} does not answer ({first_line(error)}); {token}"
        mend = (
            "connect, set HF_ENDPOINT to a mirror, or name the folder of a saved model; cached models work as they are"
        )
        return Finding("hub", "warning", found, mend)
    return Finding("hub", "ok", f"{constants.ENDPOINT} answers; {token}")


@contextlib.contextmanager
def impatient(offline: bool) -> Iterator[None]:
    """Wait for downloads once and not long; for a hub that does not answer not at all."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, fetch.ATTEMPTS, fetch.TIMEOUT_SECONDS
    constants.HF_HUB_OFFLINE, fetch.ATTEMPTS, fetch.TIMEOUT_SECONDS = offline or before[0], 1, ANSWER_SECONDS
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, fetch.ATTEMPTS, fetch.TIMEOUT_SECONDS = before


def hub_cache() -> Path:
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
        about = f", about {amount(need)} needed" if need else ""
        found = f"{amount(free)} free for {folder}{about}"
        if need and shared > free:
            yield Finding(name, "problem", found, f"{amount(shared)} go to this disk: free some, or {_moved(name)}")
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
