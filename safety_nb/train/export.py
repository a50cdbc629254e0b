"""A trained run to one model in 16 bits: the base as trained, out of its 4 or 8 bits, with the adapter added.

The adapter was trained on the quantised weights. So it is these, written out, that it is added to (not the base's own
16-bit weights, which it has never seen), in 32 bits, rounded to 16 once; and never after a forward in evaluation mode,
nor into a quantised layer, which would quantise the sum anew. A base in 16 bits is taken as it was trained on, too.
"""

import gc
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safety_nb import __version__
from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import TrainParams
from safety_nb.data import templates
from safety_nb.train import cards, inputs, models, quantised, records
from safety_nb.train.encoding import IGNORED, EncodedRow, encode_row

DTYPES = ("bfloat16", "float16")
_DRIFT_ROWS = 64
# What is read of a run, below its folder.
_READ = ("train/adapter", "train/training.json", "mix/train.jsonl", "mix/validation.jsonl", "mix/mixture.json")


class PushFailed(RuntimeError):
    """The upload of an exported model failed; the message says where the model lies."""


@dataclass(frozen=True)
class Drift:
    """How far the merged model is from base and adapter as trained, over the answer tokens of some rows.

    Attributes:
        of: ``validation`` or ``training`` rows; rows, tokens: how many.
        mean_log_probability, max_log_probability: absolute difference of the log-probability (nats) of the token that
            does come next.
        same_greedy: share, 0 to 1, of the places where both hold the same token for the likeliest.
    """

    of: str
    rows: int
    tokens: int
    mean_log_probability: float
    max_log_probability: float
    same_greedy: float


@dataclass(frozen=True)
class Export:
    """What was exported: ``export.json``. base_model: id on the hub, or the name of its folder."""

    base_model: str
    base_commit: str
    dtype: str
    parameters: int
    mixture_sha256: str
    drift: Drift
    version: str


def export(run_dir: Path, out: Path, dtype: str = DTYPES[0], push: str = "") -> Export:
    """Merge the adapter of a run into its base and write the model, its tokenizer, card and ``export.json``.

    Args:
        out: a folder that is new or empty.
        push: id of the hub repository to upload it to; empty for none. A new one is private.

    Raises:
        InputError: the run has no adapter, its files are not those its ledger recorded, ``out`` holds something, the
            disk has no room, a weight is too large for float16, the bits of the base do not work here, or the hub
            cannot be pushed to.
        PushFailed: it is all there, but not on the hub.
    """
    import torch

    run, out = run_folder.RunFolder(run_dir.expanduser()), out.expanduser().resolve()
    record = _check(run, out, dtype)
    if push:
        _check_hub(push)
    params = TrainParams(**record["values"])
    where = params.base_model, record["base_commit"] or params.revision
    models.check(*where)
    models.check_bits(params.base_bits)
    _check_disk(out, models.count_parameters(*where))
    if params.cpu_threads:
        torch.set_num_threads(params.cpu_threads)
    tokenizer = models.load_tokenizer(*where)
    of, rows = _rows(run, tokenizer, params)

    tuned = models.load_answering(params.base_model, run.adapter, where[1], merge=False, bits=params.base_bits)
    plain = models.load_plain(*where, dtype)
    merge(tuned, plain)
    parameters = sum(parameter.numel() for parameter in plain.parameters())
    with files.replacing_folder(out) as folder:
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        del plain
        as_trained = list(_next_tokens(tuned, rows))
        del tuned
        gc.collect()  # room for the merged model
        merged = models.load_plain(str(folder), "", dtype).to(models.pick_device()).eval()
        done = Export(
            base_model=cards.base_name(record),
            base_commit=record["base_commit"],
            dtype=dtype,
            parameters=parameters,
            mixture_sha256=record["mixture_sha256"],
            drift=_drift(of, len(rows), as_trained, list(_next_tokens(merged, rows))),
            version=__version__,
        )
        card = cards.merged_card(record, inputs.recorded_mixture(run), asdict(done))
        files.write_text(folder / "README.md", card)
        files.write_json(folder / "export.json", asdict(done))
    if push:
        _push(out, push)
    return done


def _check(run: run_folder.RunFolder, out: Path, dtype: str) -> dict[str, Any]:
    """The record of a training that can be exported to a folder, with a value of every parameter."""
    if dtype not in DTYPES:
        raise InputError(f"--dtype: {dtype!r} is not one of {', '.join(DTYPES)}.")
    if not run.root.is_dir():
        raise InputError(f"There is no run folder {str(run.root)!r}; `safety-nb status` lists those there are.")
    run_folder.require(run, ["train/adapter", "train/training.json"], maker="train")
    run_folder.check(run, _READ)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"--out: {out} holds something already; name a new or an empty folder.")
    return records.read(run)


def _check_disk(out: Path, parameters: int) -> None:
    needed = 2 * parameters + 50_000_000  # two bytes each; the tokenizer
    there = next(folder for folder in (out, *out.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(f"--out: {there} has {free / 1e9:.2f} GB free, and the model takes {needed / 1e9:.2f} GB.")


def merge(tuned: Any, plain: Any) -> None:
    """Fill a base in 16 bits with the weights that were trained on, written out, and the adapter on them.

    Args:
        tuned: base in 4, 8 or 16 bits with its adapter, freshly loaded.
        plain: the same base in 16 bits; changed in place.

    Raises:
        InputError: a value does not fit into the dtype.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    adapted = tuned.get_base_model()
    packed = set(quantised.layers(tuned))
    left = packed | {module.get_base_layer() for module in tuned.modules() if isinstance(module, LoraLayer)}
    with torch.no_grad():
        for name, linear in plain.named_modules():
            if not isinstance(linear, torch.nn.Linear):
                continue
            layer = adapted.get_submodule(name)
            held = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
            if held not in left:
                continue
            weight = quantised.written_out(held) if held in packed else held.weight.float()
            if isinstance(layer, LoraLayer):
                weight = weight + layer.get_delta_weight("default").float()
            linear.weight.copy_(weight)
            left.remove(held)
        if left:
            raise RuntimeError(f"{len(left)} layers of the base as trained were not found in the base by itself.")
        for name, parameter in plain.named_parameters():
            if not parameter.isfinite().all():
                raise InputError(f"--dtype: a value of {name} does not fit into {parameter.dtype}; choose bfloat16.")


# --- drift --------------------------------------------------------------------------------------------------------


def _rows(run: run_folder.RunFolder, tokenizer: Any, params: TrainParams) -> tuple[str, list[EncodedRow]]:
    """The first rows with an answer, of the validation set or else of the training set."""
    for of, path in (("validation", run.validation_rows), ("training", run.train_rows)):
        rows = files.read_jsonl(path) if path.is_file() else []
        asked = templates.guarded(rows[: 2 * _DRIFT_ROWS], params.training_guard)
        encoded = [encode_row(row, tokenizer, params.cutoff, params.template) for row in asked]
        if answered := [row for row in encoded if row.supervised_tokens][:_DRIFT_ROWS]:
            return of, answered
    raise InputError(f"{run.root} has no rows to compare on: mix/validation.jsonl and mix/train.jsonl hold no answers.")


def _next_tokens(model: Any, rows: list[EncodedRow]) -> Iterator[tuple[float, int]]:
    """Of each answer token its log-probability (nats) and the token that is the likeliest in its place."""
    import torch

    for row in rows:
        places = [place for place, label in enumerate(row.labels[1:]) if label != IGNORED]
        kept = torch.tensor(places, device=model.device)
        with torch.no_grad():
            ids = torch.tensor([row.input_ids], device=model.device)
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[0]
        by_token = logits.float().log_softmax(-1)
        targets = ids[0, kept + 1]
        yield from zip(by_token[range(len(places)), targets].tolist(), by_token.argmax(-1).tolist(), strict=True)


def _drift(of: str, rows: int, before: list[tuple[float, int]], after: list[tuple[float, int]]) -> Drift:
    pairs = list(zip(before, after, strict=True))
    differences = [abs(one - other) for (one, _), (other, _) in pairs]
    return Drift(
        of=of,
        rows=rows,
        tokens=len(pairs),
        mean_log_probability=sum(differences) / len(pairs),
        max_log_probability=max(differences),
        same_greedy=sum(one == other for (_, one), (_, other) in pairs) / len(pairs),
    )


# --- the hub ------------------------------------------------------------------------------------------------------


def _check_hub(repository: str) -> None:
    """Raise InputError unless the hub can be reached with a token: before the work, not after it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        HfApi().whoami()
    except HFValidationError as error:
        raise InputError(f"--push: {repository!r} is no id of a repository, as in owner/name.") from error
    except Exception as error:  # of the hub's client, and of the clients below it
        raise InputError(
            f"--push: the hub does not let us in ({type(error).__name__}); set HF_TOKEN in the environment to a token "
            "that may write, or leave --push out."
        ) from error


def _push(folder: Path, repository: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Merged model, exported by safety-nb")
    except Exception as error:  # see above
        raise PushFailed(f"The model lies in {folder}, but uploading it to {repository!r} failed: {error}") from error
