"""The one place where transformers reads a saved model: its configuration, tokenizer and weights.

Code that comes with a model is never run and never asked for; weights are safetensors. What a model's files make
transformers raise is an ``InputError`` here. Knows neither quantisation nor adapters.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from safety_nb.core.errors import InputError
from safety_nb.core.text import first_line

Kind = Literal["CausalLM", "SequenceClassification"]


def config(where: str, revision: str = "", asked: str = "base_model") -> Any:
    """A model's configuration.

    Args:
        where: a folder, or a hub id; see ``models.locate``.
        asked: the parameter that named it, for messages.

    Raises:
        InputError: it cannot be read, transformers does not know the kind of model, or it needs code of its own.
    """
    from transformers import AutoConfig

    return _read(AutoConfig.from_pretrained, "a model", where, revision, asked)


def tokenizer(where: str, revision: str = "", asked: str = "base_model") -> Any:
    """A model's tokenizer. Raises InputError as ``config``, and where there is none."""
    from transformers import AutoTokenizer

    config(where, revision, asked)  # of a kind that it does not know, transformers would make some tokenizer
    found = _read(AutoTokenizer.from_pretrained, "a tokenizer", where, revision, asked)
    if len(found) <= len(found.all_special_tokens):  # what transformers makes of a model that has none
        raise InputError(f"{asked}: {where!r} has no tokenizer (no tokenizer.json, say); add the files of its own.")
    return found


def weights(
    kind: Kind, where: str, revision: str = "", asked: str = "base_model", new_head: bool = False, **how: Any
) -> Any:
    """A model with its weights.

    Args:
        new_head: whether what is missing is to be made anew, at random.
        how: what ``from_pretrained`` takes further.

    Raises:
        InputError: as ``config``; or there are no weights in safetensors, or others than the configuration asks for.
    """
    load, told = _auto(kind).from_pretrained, {"use_safetensors": True, "output_loading_info": True}
    model, loading = _read(load, _NAMES[kind], where, revision, asked, **told, **how)
    if not new_head:
        _refuse_missing(kind, where, asked, sorted(loading["missing_keys"]))
    return model


def check_weights(kind: Kind, where: str, asked: str) -> None:
    """Check that the weights in a folder are all those that its configuration asks for; none of them is read.

    Raises:
        InputError: as ``weights``.
    """
    from transformers.utils import logging

    if getattr(config(where, "", asked), "quantization_config", None) is not None:
        return  # such weights are packed
    load, how = _auto(kind).from_pretrained, {"use_safetensors": True, "output_loading_info": True}
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # it reports what is told below
    logging.disable_progress_bar()
    try:
        how |= {"device_map": "meta", "ignore_mismatched_sizes": True}
        _, loading = _read(load, _NAMES[kind], where, "", asked, **how)
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
    if loading["mismatched_keys"]:
        name, held, wanted = min(loading["mismatched_keys"], key=lambda each: ("embed" not in each[0], each[0]))
        raise InputError(
            f"{asked}: the weights of {where!r} are not those of its config.json: {name} has the shape {list(held)}, "
            f"and {list(wanted)} is asked for. Copy the model anew, with the config.json of its own."
        )
    _refuse_missing(kind, where, asked, sorted(loading["missing_keys"]))


def _refuse_missing(kind: Kind, where: str, asked: str, missing: list[str]) -> None:
    if not missing:
        return
    told = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    raise InputError(
        f"{asked}: {where!r} lacks weights of {_NAMES[kind]} ({told}): it was never trained as one, or a part of its "
        "files is missing. Choose another, or copy it anew."
    )


def outline(kind: Kind, where: str, revision: str = "", asked: str = "base_model", **how: Any) -> Any:
    """A model as tensors without storage (PyTorch's ``meta`` device): its configuration is read, and no weights.

    Raises:
        InputError: as ``config``; or the configuration is of no such model, or has impossible values.
    """
    import torch

    found = config(where, revision, asked)

    def build(*_: Any, **__: Any) -> Any:
        with torch.device("meta"):
            return _auto(kind).from_config(found, trust_remote_code=False, **how)

    return _read(build, _NAMES[kind], where, revision, asked)


_NAMES = {"CausalLM": "a language model", "SequenceClassification": "a classification model"}


def _auto(kind: Kind) -> Any:
    import transformers

    return getattr(transformers, f"AutoModelFor{kind}")


def _read(load: Callable, what: str, where: str, revision: str, asked: str, **how: Any) -> Any:
    import torch

    try:
        return load(where, revision=revision or "main", trust_remote_code=False, **how)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # what transformers, tokenizers and safetensors raise at bad files has no common kind
        if code := _own_code(where, revision):
            raise InputError(
                f"{asked}: {where!r} needs code of its own: {code}, which is never run here. Choose a model that "
                "transformers knows by itself."
            ) from error
        raise InputError(
            f"{asked}: {where!r} cannot be loaded as {what} ({first_line(error)}). Choose one that transformers "
            "knows by itself and whose files are whole: configuration, tokenizer, and weights in safetensors."
        ) from error


def _own_code(where: str, revision: str) -> str:
    """Which code a model's files ask to be run, and in which of them; empty for none."""
    found = []
    for name in ("config.json", "tokenizer_config.json"):
        try:
            named = json.loads(_file(where, revision, name).read_text(encoding="utf-8"))["auto_map"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        values = named.values() if isinstance(named, dict) else [named]
        places = [each for value in values for each in (value if isinstance(value, list | tuple) else [value]) if each]
        modules = dict.fromkeys(f"{str(place).rpartition('.')[0]}.py" for place in places)
        found.append(f"{', '.join(modules)} (auto_map in its {name})")
    return "; ".join(found)


def _file(where: str, revision: str, name: str) -> Path:
    if Path(where).is_dir():
        return Path(where) / name
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(where, name, revision=revision or None)
    return Path(cached) if isinstance(cached, str) else Path(where) / name
