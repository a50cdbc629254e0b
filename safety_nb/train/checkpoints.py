"""Checkpoints of a training: where it can go on from, and whether one is whole."""

import shutil
from pathlib import Path
from typing import Any

from safety_nb import __version__
from safety_nb.core import files, run_folder
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.params import TrainParams

_WHOLE = "whole.json"  # in a checkpoint: the hashes of its files, written last
CHOICE = "memory.json"  # in a checkpoint: the memory.Choice it was made with


def folder(run: run_folder.RunFolder) -> Path:
    """Where the checkpoints of a run lie while it trains."""
    return run.root / "train" / "checkpoints"


def mark_whole(checkpoint: Path) -> None:
    """Record the hashes of a checkpoint's files, when all of them are written."""
    names = sorted(path.name for path in checkpoint.iterdir() if path.name != _WHOLE)
    files.write_json(checkpoint / _WHOLE, files.hashes(checkpoint, names))


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint's files are those that were recorded."""
    try:
        recorded = files.read_json(checkpoint / _WHOLE)
    except (OSError, ValueError):
        return False
    return recorded == files.hashes(checkpoint, recorded)


def newest_whole(run: run_folder.RunFolder, params: TrainParams) -> Path | None:
    """Where to go on from, if anywhere."""
    owner = folder(run) / "identity.json"
    if not owner.is_file() or files.read_json(owner) != _identity(run, params):
        return None
    found = sorted(folder(run).glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    return next(filter(is_whole, found), None)


def clear_others(run: run_folder.RunFolder, params: TrainParams) -> None:
    """Remove checkpoints of another training and broken ones; those to come are this training's."""
    place, identity = folder(run), _identity(run, params)
    owner = place / "identity.json"
    if not owner.is_file() or files.read_json(owner) != identity:
        shutil.rmtree(place, ignore_errors=True)
        files.write_json(owner, identity)
    for checkpoint in place.glob("checkpoint-*"):
        if not is_whole(checkpoint):
            shutil.rmtree(checkpoint)


def _identity(run: run_folder.RunFolder, params: TrainParams) -> str:
    """What must be the same for checkpoints to be gone on from."""
    identity = {
        "params": params.model_dump(exclude={"run_dir", "report_to"}),
        "rows": [files.sha256(run.train_rows), files.sha256(run.validation_rows)],
        "version": __version__,
    }
    return digest(identity, sort_keys=True, ensure_ascii=True)


def check_disk(run: run_folder.RunFolder, loop: Any) -> None:
    """Raise InputError unless three checkpoints fit on the disk: a new one is written before an old one is removed."""
    trained = sum(p.numel() for p in loop.model.parameters() if p.requires_grad)
    needed = 3 * trained * 4 * 3  # weights and two moments of AdamW in 32 bits, three times
    run.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run.root).free
    if free < needed:
        raise InputError(
            f"{run.root}: {free / 1e9:.2f} GB are free, and checkpoints of this adapter take {needed / 1e9:.2f} GB; "
            "make room, name another --out, or take a smaller lora_r."
        )
