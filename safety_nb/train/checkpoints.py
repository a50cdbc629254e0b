"""Checkpoints of a training: where it can go on from, and whether one is whole."""

import itertools
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safety_nb import __version__
from safety_nb.core import files, run_folder
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.params import TrainParams
from safety_nb.core.text import amount
from safety_nb.train import memory

_WHOLE = "whole.json"  # in a checkpoint: the hashes of its files, written last
CHOICE = "memory.json"  # in a checkpoint: the memory.Choice it was made with
_NEEDED = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", CHOICE)


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
        return isinstance(recorded, dict) and recorded == files.hashes(checkpoint, recorded)
    except (OSError, ValueError, RecursionError):
        return False


def step_of(checkpoint: Path) -> int:
    """The steps that were done when a checkpoint was made."""
    return int(checkpoint.name.rpartition("-")[2])


def choice_of(checkpoint: Path) -> memory.Choice:
    """The choice a whole checkpoint was made with.

    Raises:
        ValueError, TypeError, OSError: it cannot be gone on from: a file is missing or is of another form or step.
    """
    missing = [name for name in _NEEDED if not (checkpoint / name).is_file()]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    step = files.read_json(checkpoint / "trainer_state.json")["global_step"]
    if step != step_of(checkpoint):
        raise ValueError(f"its trainer_state.json is of step {step}")
    choice = memory.Choice(**files.read_json(checkpoint / CHOICE))
    return replace(choice, reason=f"{choice.how}, as before the interruption")


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
        return next(filter(is_whole, sorted(self._all(), key=step_of, reverse=True)), None)

    def set_aside(self, checkpoint: Path, why: str) -> None:
        """Give a checkpoint that cannot be gone on from another name, and say so."""
        names = (f"broken-{checkpoint.name}" + (f"-{n}" if n else "") for n in itertools.count())
        aside = next(self.folder / name for name in names if not (self.folder / name).exists())
        checkpoint.rename(aside)
        print(
            f"The checkpoint of step {step_of(checkpoint)} cannot be gone on from ({why}): it is set aside as {aside}."
        )

    def clear_others(self) -> None:
        """Remove checkpoints of another training and unfinished ones, and set broken ones aside; those to come are this
        training's."""
        if not self._are_ours():
            shutil.rmtree(self.folder, ignore_errors=True)
            files.write_json(self._owner, self.identity)
        for checkpoint in self._all():
            if not (checkpoint / _WHOLE).exists():  # killed while it was written
                shutil.rmtree(checkpoint)
            elif not is_whole(checkpoint):
                self.set_aside(checkpoint, "its files are not those that were recorded")

    def _all(self) -> list[Path]:
        return [path for path in self.folder.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdecimal()]

    @property
    def _owner(self) -> Path:
        return self.folder / "identity.json"

    def _are_ours(self) -> bool:
        try:
            return files.read_json(self._owner) == self.identity
        except (OSError, ValueError, RecursionError):
            return False


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
