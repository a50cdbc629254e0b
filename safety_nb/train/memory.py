"""How much memory a run takes, before it is run, and how much training computes at once by that.

A training step and an answer are traced on tensors without storage, so every architecture counts itself. Knows the
model's configuration; no files of a run, and not what is said about the estimate.
"""

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from safety_nb.core.params import RunParams, TrainParams
from safety_nb.core.text import amount
from safety_nb.train import models, packing, quantised

TIGHT = 0.9  # of what is free: more than this may not be there when it is needed
# On the CPU a process holds more than it uses. Blocks below 32 MiB lie in glibc's heap, where PyTorch asks for aligned
# ones: a hole that such a block leaves is some bytes too small for the next of its size, and small blocks settle in
# between. So a share of what is in use at once, and of all that is allocated in a step, stays resident as holes. Both
# were fitted to real trainings, as were the bytes of libraries that are first touched while computing. Told over real
# with glibc 2.36, seven trainings of LLaMAs of 26 to 96 million weights in 8 to 24 layers: 0.98 to 1.10.
HEAP_BLOCK = 32 << 20
HELD_OF_USED, HELD_OF_ALLOCATED, LIBRARY_BYTES = 0.6, 0.09, 30_000_000
# Answers: fitted alike, as a factor. Told over real in six batches of the same models: 0.82 to 1.04; the least where
# loading the weights takes more than answering.
HEAP_FACTOR, ANSWERING_EXTRA_BYTES = 1.25, 25_000_000


# --- memory -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a stage, on the device it computes on.

    Attributes:
        weights: the base, its linear layers in their bits and the rest in the compute dtype.
        adapter: the adapter, and in training the states of its optimizer.
        working: activations, logits and gradients, or the cache of keys and values.
    """

    weights: int
    adapter: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.working


def count_weights(model: Any) -> tuple[int, int]:
    """Weights of a base's outline: those of the layers that can be quantised, and all others (tied ones once)."""
    linear = sum(layer.weight.numel() for layer in models.linear_layers(model))
    return linear, sum(weight.numel() for weight in model.parameters()) - linear


def weight_bytes(params: TrainParams, asked_dtype: str = "auto") -> int:
    """Bytes of the base: its linear layers in ``base_bits``, the rest in the compute dtype."""
    base = models.outline(params.base_model, params.revision)
    itemsize = models.compute_dtype(models.pick_device(), asked_dtype).itemsize
    shapes = map(models.shape, models.linear_layers(base))
    linear = sum(quantised.weight_bytes(shape, params.base_bits, itemsize) for shape in shapes)
    return int(linear + count_weights(base)[1] * itemsize)


def training_memory(params: TrainParams, tokens: int, supervised: int) -> Memory:
    """Memory of training on packs of ``tokens``, of which ``supervised`` carry loss.

    Args:
        params: its ``gradient_checkpointing`` counts as off where it is ``auto``: ``choose`` decides that.

    Raises:
        InputError: the base cannot be built, or has no layer of a LoRA target.
    """
    from safety_nb.train import packed_trainer

    def step(model: Any, watch: Any) -> None:
        packed_trainer.attend_by_row(model)
        places = list(range(supervised))
        pack = packing.Pack([0] * tokens, list(range(tokens)), places, [0] * supervised, [0] * supervised, [0])
        pack_loss(model, pack).backward()

    adapter, working = _traced(params, step, training=True)
    # AdamW keeps two states a weight, of 4 bytes each or of 1 (bitsandbytes leaves small tensors at 4; they are few).
    state = 2 if "8bit" in models.optimizer(params.optimizer) else 8
    return Memory(weight_bytes(params, params.train_dtype), adapter * (4 + state), working)


@dataclass(frozen=True)
class Choice:
    """How much training computes at once.

    Attributes:
        pack_tokens: tokens a pack may have; 0 for each row by itself.
        gradient_checkpointing: whether activations are computed anew in the backward pass.
        needed, free: bytes that training takes so by the estimate, and that were free. fits: whether that will do.
        reason: all this in words.
    """

    pack_tokens: int
    gradient_checkpointing: bool
    needed: int
    free: int
    fits: bool
    reason: str

    @property
    def how(self) -> str:
        packs = f"packs of {self.pack_tokens:,} tokens" if self.pack_tokens else "rows one by one"
        return packs + ", activations recomputed" * self.gradient_checkpointing


def choose(params: TrainParams, tokens: int, supervised: int, widest: int, free: int) -> Choice:
    """The largest packs up to those asked for that fit into memory; with recomputed activations only if none else do.

    Smaller packs cost little, and change neither the rows of an optimizer step nor its gradient; recomputing costs a
    third of the speed. Where nothing fits, the least is chosen: the estimate may err.

    Args:
        tokens, supervised: of the largest pack of the size asked for, all tokens and those that carry loss.
        widest: tokens of the longest row, which no pack can be smaller than.
        free: bytes of memory; ``TIGHT`` of them are taken.

    Raises:
        InputError: as ``training_memory``.
    """
    asked = max(widest, params.micro_batch_size * params.cutoff)
    sizes = [asked]
    while sizes[-1] > widest:
        sizes.append(max(widest, sizes[-1] // 2))
    ways = (False, True) if params.gradient_checkpointing == "auto" else (params.gradient_checkpointing,)
    tried: list[int] = []
    for recomputed in ways:
        way = params.model_copy(update={"gradient_checkpointing": recomputed})
        for size in sizes:
            most = min(tokens, size)
            needed = training_memory(way, most, math.ceil(supervised * most / tokens)).total
            tried.append(needed)
            if needed <= TIGHT * free:
                return _choice(asked, size, recomputed, tried, free, fits=True)
    return _choice(asked, sizes[-1], ways[-1], tried, free, fits=False)


def _choice(asked: int, size: int, recomputed: bool, tried: list[int], free: int, fits: bool) -> Choice:
    choice = Choice(size, recomputed, tried[-1], free, fits, reason="")
    reason = f"{choice.how}: about {amount(tried[-1])}, of {amount(free)} free"
    if len(tried) > 1:
        reason += f"; {asked:,} tokens would take about {amount(tried[0])}"
    if not fits:
        reason += "; there is nothing less to choose, so memory may run out"
    return replace(choice, reason=reason)


def generation_memory(params: RunParams, width: int, new_tokens: int) -> Memory:
    """Memory of answering prompts of ``width`` tokens with ``new_tokens``, as ``training_memory``."""

    def answer(model: Any, watch: Any) -> None:
        import torch

        rows = params.generation_batch_size * params.num_beams
        with torch.no_grad():
            read = model(**_example(rows, width), use_cache=True, logits_to_keep=1)
            prompt_peak = watch.peak
            del read
            # The last step reads the cache of everything before it.
            ids = _example(rows, width + new_tokens - 1)
            cache = model(**ids, use_cache=True, logits_to_keep=1).past_key_values
            watch.peak = watch.live
            ids = _example(rows, 1)["input_ids"]
            last = model(input_ids=ids, past_key_values=cache, use_cache=True)
            logits = last.logits[:, -1].to(torch.float32, copy=True)
            logits.log_softmax(-1)
            if params.num_beams > 1:
                cache.reorder_cache(torch.zeros(rows, dtype=torch.long))
        watch.peak = max(watch.peak, prompt_peak)

    adapter, working = _traced(params, answer, training=False)
    return Memory(weight_bytes(params), adapter * 4, working)


def _traced(params: TrainParams, step: Callable[[Any, Any], None], training: bool) -> tuple[int, int]:
    """Weights of the adapter, and the bytes that ``step`` takes at its peak beside all weights."""
    watch, adapter, largest = _trace(params, step, training)
    device = models.pick_device()
    working = watch.peak
    if params.base_bits != quantised.UNQUANTISED:  # one layer at a time is unpacked, which the outline does not do
        working += largest * models.compute_dtype(device, _asked_dtype(params, training)).itemsize
    if device == "cpu" and training:
        working += int(HELD_OF_USED * watch.heap_peak + HELD_OF_ALLOCATED * watch.heap_allocated) + LIBRARY_BYTES
    elif device == "cpu":
        working = int(working * HEAP_FACTOR) + ANSWERING_EXTRA_BYTES
    return adapter, working


def _asked_dtype(params: TrainParams, training: bool) -> str:
    return params.train_dtype if training else "auto"


def _trace(params: TrainParams, step: Callable[[Any, Any], None], training: bool) -> tuple[Any, int, int]:
    """The watch over a step on tensors without storage; weights of the adapter, and of the largest linear layer."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    base = models.outline(params.base_model, params.revision, _asked_dtype(params, training))
    largest = max(layer.weight.numel() for layer in models.linear_layers(base))
    with torch.device("meta"):
        model = with_adapter(params, base).train(training)
    if params.base_bits == 8 and training:
        quantised.keep_inputs(models.linear_layers(base))
    model.config.use_cache = not training
    adapter = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    with FakeTensorMode():
        watch = _watch(_without_storage(model))
        with watch:
            step(model, watch)
    return watch, adapter, largest


def with_adapter(params: TrainParams, base: Any) -> Any:
    """A base with the adapter of the parameters on it."""
    return models.add_adapter(
        base,
        r=params.lora_r,
        alpha=params.lora_alpha,
        dropout=params.lora_dropout,
        targets=params.lora_targets,
        gradient_checkpointing=params.gradient_checkpointing is True,
    )


def _without_storage(model: Any) -> list[Any]:
    """Replace the tensors of an outline by fakes, which, unlike those on ``meta``, take the ways of a real device.

    That device is always the CPU: its attention keeps what a GPU's keeps, and it is there.
    """
    import torch

    fakes: dict[int, Any] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    if id(tensor) not in fakes:
                        fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                        if isinstance(tensor, torch.nn.Parameter):
                            fake = torch.nn.Parameter(fake, requires_grad=tensor.requires_grad)
                        fakes[id(tensor)] = (fake, tensor)  # held with its original, so that no id is used twice
                    tensors[name] = fakes[id(tensor)][0]
    return [fake for fake, _ in fakes.values()]


def _watch(known: list[Any]) -> Any:
    """A mode that counts the bytes of every tensor made while it is on, but for those of ``known`` tensors.

    ``live`` and ``peak`` are of all; of blocks that lie in the heap there are the peak and all that was ever allocated.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.live = self.peak = 0
            self.heap_live = self.heap_peak = self.heap_allocated = 0
            self._counted = {tensor.untyped_storage()._cdata for tensor in known}

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor):
                    self._count(tensor.untyped_storage())
            return made

        def _count(self, storage: Any) -> None:
            key, size = storage._cdata, storage.nbytes()
            if key not in self._counted:
                self._counted.add(key)
                self.live += size
                self.peak = max(self.peak, self.live)
                if size < HEAP_BLOCK:
                    self.heap_allocated += size
                    self.heap_live += size
                    self.heap_peak = max(self.heap_peak, self.heap_live)
                weakref.finalize(storage, self._forget, key, size)

        def _forget(self, key: int, size: int) -> None:
            self._counted.discard(key)
            self.live -= size
            self.heap_live -= size * (size < HEAP_BLOCK)

    return Watch()


def _example(rows: int, width: int) -> dict[str, Any]:
    import torch

    ids = torch.ones(rows, width, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def pack_loss(model: Any, pack: packing.Pack) -> Any:
    """The mean loss of a pack, computed as in training."""
    import torch

    from safety_nb.train import packed_trainer

    with torch.autocast(model.device.type, model.dtype, enabled=model.dtype != torch.float32):
        return packed_trainer.token_losses(model, pack).mean()
