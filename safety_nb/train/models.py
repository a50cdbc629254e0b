"""Loading the base model in 4, 8 or 16 bits, its tokenizer, and its LoRA adapter.

Knows neither data nor judging. torch, transformers and peft are imported inside the functions.
"""

import contextlib
import ctypes
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safety_nb.core import files
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.tiny import world
from safety_nb.train import model_folder, pretrained, quantised

TINY = "tiny"
_HUB_ID = re.compile(r"(?=.{3,96}\Z)[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*(?<![.-])", re.ASCII)  # as the hub has them


def locate(base_model: str, asked: str = "base_model") -> str:
    """Return what transformers loads for a base model's name: a local folder, or the hub id itself.

    Args:
        asked: the parameter that named it, for messages.

    Raises:
        InputError: the name is neither ``tiny``, nor a folder with a ``config.json``, nor of the form ``owner/name``.
    """
    if base_model == TINY:
        return str(world.BASE_DIR)
    if is_folder(base_model):
        folder = Path(base_model).expanduser()
        if (folder / "config.json").is_file():
            return str(folder)
        raise InputError(f"{asked}: the folder {base_model!r} holds no config.json; name the folder of a saved model.")
    if not _HUB_ID.fullmatch(base_model) or "--" in base_model or ".." in base_model:
        raise InputError(
            f"{asked}: {base_model!r} is not known: there is no such folder. Choose {TINY!r} (the embedded miniature), "
            "the folder of a saved model, or a hub id such as 'owner/name'."
        )
    return base_model


def is_folder(name: str) -> bool:
    try:
        return Path(name).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):  # too long for the file system, a NUL, ~ of nobody
        return False


def with_revision(name: str) -> tuple[str, str]:
    """A model's name and revision, of ``owner/name@revision``; a folder's name is no other, whatever is in it."""
    if is_folder(name):
        return name, ""
    model, _, revision = name.partition("@")
    return model, revision


def path_in(base_model: str) -> str:
    """The path of a base model that is a folder; empty for any other."""
    return base_model if base_model != TINY and is_folder(base_model) else ""


def check(base_model: str, revision: str = "", asked: str = "base_model") -> None:
    """Fail early when a model cannot be had, is of a kind that is not known, or lacks weights: loads none of them.

    Raises:
        InputError: the name is not known; the hub does not have it, or cannot be reached and no copy is cached;
            transformers does not know the kind of model without code of the model's own; a folder's weights are
            missing or no safetensors.
    """
    where = locate(base_model, asked)
    if Path(where) in (world.BASE_DIR, world.REWARD_DIR):
        return
    if Path(where).is_dir():
        model_folder.check_files(Path(where), asked)
    else:
        _fetch_config(base_model, revision, asked)
    pretrained.config(where, revision, asked)


def check_decoder(name: str, revision: str = "", asked: str = "base_model") -> None:
    """``check``, and that a model is a decoder that can be tuned and asked, with a tokenizer of its own.

    Raises:
        InputError: as ``check``, ``outline`` and ``load_tokenizer``; configuration, weights and tokenizer are not of
            one model.
    """
    check(name, revision, asked)
    where = locate(name, asked)
    if Path(where) == world.BASE_DIR:
        return
    tokenizer, model = load_tokenizer(name, revision, asked), outline(name, revision, asked=asked)
    model_folder.check_vocabulary(name, tokenizer, model, asked)
    if Path(where).is_dir():
        pretrained.check_weights("CausalLM", where, asked)


def _fetch_config(base_model: str, revision: str, asked: str) -> None:
    """The ``config.json`` of a model on the hub, into the cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        hf_hub_download(base_model, "config.json", revision=revision or None)
    except GatedRepoError as error:
        raise InputError(
            f"{asked}: {base_model!r} is gated: ask for access on its hub page and set HF_TOKEN in the environment."
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{asked}: the hub has no model {base_model!r} (or it is private and HF_TOKEN is not set). "
            f"Choose {TINY!r}, the folder of a saved model, or another hub id."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:  # the last: no revision's name
        raise InputError(
            f"{asked}: {base_model!r} could not be fetched from the hub and no copy of it is cached here "
            f"({type(error).__name__}). Connect, or name the folder of a saved model, or {TINY!r}."
        ) from error


def compute_dtype(device: str, asked: str = "auto") -> Any:
    """The torch dtype to compute in: by measured support, since ``is_bf16_supported`` counts slow emulation in.

    bfloat16 from compute capability 8.0, float16 on older GPUs, float32 on the CPU: there bfloat16 was measured to be
    1.1 to 1.3 times as fast (``benchmarks/README.md``), and batched decoding no longer to equal decoding one at a time.

    Args:
        asked: name of a dtype, which is then taken, or ``auto``.
    """
    import torch

    if asked != "auto":
        return getattr(torch, asked)
    if device == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16


def check_dtype(asked: str) -> None:
    """Check that the device itself computes in what ``train_dtype`` asks for, and does not emulate it.

    Raises:
        InputError: it is bfloat16, which this device lacks, or float16 on the CPU.
    """
    import torch

    device = pick_device()
    if asked == "float16" and device == "cpu":
        raise InputError(
            "train_dtype: 'float16' is for a GPU, where the loss is scaled so that small gradients do not vanish; on "
            "this CPU set train_dtype to auto or float32."
        )
    if asked != "bfloat16":
        return
    if device == "cuda":
        found = torch.cuda.get_device_capability() >= (8, 0)
        device = "this GPU (compute capability below 8.0)"
    else:
        found, device = torch.ops.mkldnn._is_mkldnn_bf16_supported(), "this CPU"
    if not found:
        raise InputError(
            f"train_dtype: 'bfloat16' is only emulated on {device}, slowly; leave train_dtype at auto, or set float32."
        )


def pick_device() -> str:
    """``cuda`` where PyTorch sees a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def optimizer(asked: str) -> str:
    """The optimizer that is used: ``auto`` is AdamW with states in 8 bits on a GPU, in 32 on the CPU."""
    if asked != "auto":
        return asked
    return "paged_adamw_8bit" if pick_device() == "cuda" else "adamw_torch"


def load_tokenizer(base_model: str, revision: str = "", asked: str = "base_model") -> Any:
    """The base model's tokenizer, with an end token and a padding token.

    Raises:
        InputError: there is none that can be loaded, or it has no end token, so a model could not learn to stop.
    """
    tokenizer = pretrained.tokenizer(locate(base_model, asked), revision, asked)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{asked}: the tokenizer of {base_model!r} has no end token; choose a model that has one.")
    if tokenizer.pad_token_id is None:
        # Padding is masked wherever it is used, so any existing token serves and no embedding is added.
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def commit(base_model: str, revision: str = "") -> str:
    """The commit of the hub that a base model is of, once it was loaded; empty for one from a folder."""
    from huggingface_hub import try_to_load_from_cache

    where = locate(base_model)
    if Path(where).is_dir():
        return ""
    cached = try_to_load_from_cache(where, "config.json", revision=revision or None)
    return Path(cached).parent.name if isinstance(cached, str) else ""


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the files of a saved model that decide what it computes: weights, configuration, tokenizer."""
    kinds = (".safetensors", ".json", ".jinja", ".model", ".txt")
    names = [path.name for path in folder.iterdir() if path.suffix in kinds]
    return digest(files.hashes(folder, names), sort_keys=True, ensure_ascii=True)


def check_bits(bits: int, asked_dtype: str = "auto") -> None:
    """Check that a base can be held in so many bits on this device, by a trial of 8 bits; see ``quantised.check``.

    Raises:
        InputError: it can't.
    """
    device = pick_device()
    quantised.check(bits, device, compute_dtype(device, asked_dtype))


def load_base(base_model: str, revision: str = "", asked_dtype: str = "auto", bits: int = 4) -> Any:
    """Load a decoder, on the GPU or the CPU, with its linear layers held in so many bits.

    Args:
        asked_dtype: what it computes in, see ``compute_dtype``.
        bits: 4, 8 or 16, see ``quantised.loading``; 16 are the numbers that it computes in, on a CPU 32 bits each.

    Raises:
        InputError: it comes in fewer bits than those.
    """
    device = pick_device()
    dtype = compute_dtype(device, asked_dtype)
    _let_falcon_be_quantised()
    model = pretrained.weights(
        "CausalLM",
        locate(base_model),
        revision,
        dtype=dtype,
        device_map={"": 0 if device == "cuda" else "cpu"},
        **quantised.loading(bits, dtype),
    )
    quantised.keep_autograd(model)
    if device == "cpu":
        _let_go_of_the_file(model)
        _give_back_freed_memory()
    held = quantised.layers(model)
    if bits == quantised.UNQUANTISED and held:
        raise InputError(
            f"base_bits: the weights of {base_model!r} come quantised; choose base_bits 4, or a base_model in 16 bits."
        )
    if bits != quantised.UNQUANTISED and not quantised.layers(model, bits):
        raise RuntimeError(
            f"No layer of {base_model!r} was quantised to {bits} bits; its linear layers are of no known kind."
        )
    return model


def outline(base_model: str, revision: str = "", asked_dtype: str = "auto", asked: str = "base_model") -> Any:
    """The base as tensors without storage (PyTorch's ``meta`` device): reads its ``config.json`` and no weights.

    Its linear layers are those that ``load_base`` quantises. Takes an adapter as the real one does.

    Raises:
        InputError: transformers does not know this kind of model, or its configuration is bad.
    """
    _let_falcon_be_quantised()
    dtype = compute_dtype(pick_device(), asked_dtype)
    model = pretrained.outline("CausalLM", locate(base_model, asked), revision, asked, dtype=dtype)
    if not linear_layers(model):
        raise InputError(f"{asked}: {base_model!r} has no linear layer that could be quantised; choose another.")
    return model


def positions(base_model: str, revision: str = "") -> int | None:
    """Tokens that a prompt and its answer may have together; None where the model has no such limit. Raises InputError,
    as ``pretrained.config``."""
    found = pretrained.config(locate(base_model), revision).get_text_config()
    return getattr(found, "max_position_embeddings", None)


def linear_layers(model: Any) -> list[Any]:
    """The linear layers of a model that ``load_base`` quantises: all but the one that makes the logits."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [module for module in model.modules() if type(module) in (torch.nn.Linear, Conv1D) and module is not head]


def shape(layer: Any) -> tuple[int, int]:
    """Outputs and inputs of one of ``linear_layers``."""
    import torch

    outside, inside = layer.weight.shape
    return (outside, inside) if isinstance(layer, torch.nn.Linear) else (inside, outside)  # Conv1D is transposed


_IN_FLOAT32 = 1_000_000_000  # parameters


def load_classifier(name: str, revision: str = "") -> tuple[Any, Any]:
    """Load a sequence classification (or regression) model and its tokenizer, ready to read.

    In float32 whatever the device, since the decimals of a score are what is measured; a model of a billion parameters
    or more in the numbers of ``compute_dtype``.

    Raises:
        InputError: it is no such model, its weights are not safetensors, or it has no tokenizer.
    """
    import torch

    where, device = locate(name, "judges"), pick_device()
    size = pretrained.outline("SequenceClassification", where, revision, "judges").num_parameters()
    dtype = torch.float32 if size < _IN_FLOAT32 else compute_dtype(device)
    model = pretrained.weights("SequenceClassification", where, revision, "judges", dtype=dtype)
    tokenizer = pretrained.tokenizer(where, revision, "judges")
    settle_padding(model, tokenizer)
    return model.to(device).eval(), tokenizer


def settle_padding(model: Any, tokenizer: Any) -> None:
    """Have model and tokenizer agree on the padding token, by which some classifiers find the end of a text."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False


def load_plain(base_model: str, revision: str, dtype: str) -> Any:
    """Load a decoder unquantised, into the memory of the CPU.

    Args:
        dtype: name of a torch dtype.
    """
    import torch

    return pretrained.weights("CausalLM", locate(base_model), revision, dtype=getattr(torch, dtype))


def count_parameters(base_model: str, revision: str = "") -> int:
    """Parameters of a base model, tied ones once, from its configuration alone."""
    return sum(parameter.numel() for parameter in outline(base_model, revision).parameters())


def _let_falcon_be_quantised() -> None:
    """Give Falcon plain linear layers, which compute the same.

    transformers 5 quantises layers whose class is exactly ``torch.nn.Linear``. Falcon's own subclass would be passed
    over without a word, and the base stay in 16 bits.
    """
    import torch
    from transformers.models.falcon import modeling_falcon

    modeling_falcon.FalconLinear = torch.nn.Linear


def _let_go_of_the_file(model: Any) -> None:
    """Copy what still lies in the mapped file of the weights, which would stay resident as a whole.

    A weight whose dtype is that of the file is such a view; after training a third of the file is in nobody's use.
    """
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.clone()


def _give_back_freed_memory() -> None:
    """Return to the system what loading freed and glibc keeps, which then stands beside what a step takes.

    It kept 8 to 38 MB of a file of 105 MB, by how the loading threads took turns.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library: nothing is kept in this way
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def add_adapter(
    model: Any, *, r: int, alpha: int, dropout: float, targets: list[str], gradient_checkpointing: bool
) -> Any:
    """Put a fresh LoRA adapter on a base. Seed before calling: the initial weights are random.

    Args:
        targets: names of linear layers, or ``["all-linear"]``.

    Raises:
        InputError: the model has no layer of a named target.
    """
    from peft import LoraConfig, get_peft_model

    model.config.use_cache = False
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    layers = set(quantised.layers(model)) or set(linear_layers(model))  # none: an outline, or a base in 16 bits
    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if module in layers}
    missing = [target for target in targets if target != "all-linear" and target not in names]
    if missing:
        raise InputError(
            f"lora_targets: the model has no layer {missing}; it has {sorted(names)}, or use ['all-linear']."
        )
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        task_type="CAUSAL_LM",
    )
    with _without_peft_warning():
        return get_peft_model(model, config)


def load_answering(base_model: str, adapter: Path | None, revision: str = "", merge: bool = True, bits: int = 4) -> Any:
    """Load the base, with a trained adapter or as it is, ready to generate.

    Args:
        adapter: folder of the adapter; None for the base alone.
        merge: where memory allows, take the weights out of their 4 or 8 bits and add the adapter to them, which is
            faster. The weights stay those that were trained on: nothing is quantised anew.
        bits: those that the base is held in, as in training.
    """
    from peft import PeftModel

    model = load_base(base_model, revision, bits=bits)
    merge = merge and _fits_dequantised(model)
    if merge and quantised.layers(model):  # before any forward: afterwards bitsandbytes may have repacked the weights
        model = _dequantised(model)
    if adapter is not None:
        with _without_peft_warning():
            model = PeftModel.from_pretrained(model, str(adapter))
            model = model.merge_and_unload() if merge else model
    return model.eval()


def is_merged(model: Any) -> bool:
    """Whether a model is one in 16 bits or more: out of its 4 or 8 bits, and with no adapter beside the weights."""
    from peft import PeftModel

    return not quantised.layers(model) and not isinstance(model, PeftModel)


def free_memory() -> int:
    """Bytes that are free on the device models are loaded to."""
    import torch

    return torch.cuda.mem_get_info()[0] if pick_device() == "cuda" else free_host_memory()


def free_host_memory(groups: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes of host memory that this process can still take: what is free, or what its control groups leave."""
    import psutil

    free = psutil.virtual_memory().available
    for line in mine.read_text().splitlines() if mine.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage = groups, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(root):
                # No file: not shown in this container. No number: "max".
                with contextlib.suppress(OSError, ValueError):
                    left = int((group / limit).read_text()) - int((group / usage).read_text())
                    free = min(free, left + _reclaimable(group))
    return max(0, free)


def _reclaimable(group: Path) -> int:
    """Bytes of a control group that hold copies of files and are given up when they are needed."""
    with contextlib.suppress(OSError):
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(facts.get("total_inactive_file", facts.get("inactive_file", 0)))
    return 0


_MEMORY_SHARE = 0.6  # of what is free, for the weights of a model out of its 4 or 8 bits; the rest is for its work


def _fits_dequantised(model: Any) -> bool:
    needed = sum(layer.in_features * layer.out_features for layer in quantised.layers(model)) * model.dtype.itemsize
    return needed < _MEMORY_SHARE * free_memory()


def _dequantised(model: Any) -> Any:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it only tells the dtype
    try:
        return model.dequantize(dtype=model.dtype)
    finally:
        logging.set_verbosity(before)


@contextlib.contextmanager
def _without_peft_warning() -> Iterator[None]:
    """Keep a deprecation that concerns peft alone out of the notebooks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
