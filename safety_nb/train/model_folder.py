"""What can be known of a saved model before it is loaded: whether the files of its weights are there, and whether its
tokenizer is of the same model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safety_nb.core.errors import InputError

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_GENERATION = "generation_config.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def check_files(folder: Path, asked: str) -> None:
    """Check that the files that hold the weights are there, and what generation reads beside them.

    Args:
        asked: the parameter that named the folder, for messages.

    Raises:
        InputError: the folder has no weights in safetensors, or lacks a part of them; a file of JSON is damaged.
    """
    if (folder / _GENERATION).is_file():
        _read(folder / _GENERATION, asked, lambda settings: settings.items())
    if (folder / _ONE).is_file():
        return
    if not (folder / _INDEX).is_file():
        pickles = sorted({path.name for kind in _PICKLES for path in folder.glob(kind)})
        there = f"only {', '.join(pickles)}, and such files can carry code" if pickles else "none at all"
        raise InputError(
            f"{asked}: the folder {str(folder)!r} holds no weights in safetensors, {there}; save the model with "
            "save_pretrained of transformers, or name another."
        )
    parts = _read(folder / _INDEX, asked, lambda index: sorted({str(name) for name in index["weight_map"].values()}))
    missing = [name for name in parts if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{asked}: the folder {str(folder)!r} lacks {', '.join(missing)} of the {len(parts)} files of its weights; "
            "copy the model anew."
        )


def _read(path: Path, asked: str, take: Callable[[Any], Any]) -> Any:
    """What is taken of a file of JSON. Raises InputError where it is none, or of another shape."""
    try:
        return take(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{asked}: {path} is damaged ({error!r:.100}); copy the model anew.") from error


def check_vocabulary(name: str, tokenizer: Any, model: Any, asked: str) -> None:
    """Check that the model has an embedding for every token that a text or the tokenizer itself can be made of.

    A special token that is none of start, end and padding may lack one (Gemma 3's for pictures does): no text has it.

    Raises:
        InputError: it lacks one.
    """
    room = model.get_input_embeddings().weight.shape[0]
    used = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    other = set(tokenizer.all_special_ids) | {i for i, each in tokenizer.added_tokens_decoder.items() if each.special}
    most = max(i for i in tokenizer.get_vocab().values() if i in used or i not in other)
    if most >= room:
        raise InputError(
            f"{asked}: the tokenizer of {name!r} has tokens up to number {most}, and the model embeds {room}: they are "
            "not of one model. Take the tokenizer that the model was trained with."
        )
