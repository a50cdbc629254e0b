"""Checkpoints of a training: where it can go on from, and whether one is whole."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_nb import __version__
from safety_nb.core import files, run_folder
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.params import TrainParams
from safety_nb.core.text import amount

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


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        identity: what must be the same for one to be gone on from.
    """

    folder: Path
    identity: str

    def newest_whole(self) -> Path | None:
        """Where to go on from, if anywhere."""
        if not self._are_ours():
            return None
        found = sorted(self.folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
        return next(filter(is_whole, found), None)

    def clear_others(self) -> None:
        """Remove checkpoints of another training and broken ones; those to come are this training's."""
        if not self._are_ours():
            shutil.rmtree(self.folder, ignore_errors=True)
            files.write_json(self._owner, self.identity)
        for checkpoint in self.folder.glob("checkpoint-*"):
            if not is_whole(checkpoint):
                shutil.rmtree(checkpoint)

    @property
    def _owner(self) -> Path:
        return self.folder / "identity.json"

    def _are_ours(self) -> bool:
        return self._owner.is_file() and files.read_json(self._owner) == self.identity


def of(run: run_folder.RunFolder, params: TrainParams) -> Checkpoints:
    """The checkpoints of a run's training with these parameters and the rows that are there now."""
    return Checkpoints(folder(run), _identity(run, params))


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
            f"{run.root}: {amount(free)} are free, and checkpoints of this adapter take {amount(needed)}; "
            "make room, name another --out, or take a smaller lora_r."
        )
