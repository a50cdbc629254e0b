"""How long a run takes, before it is run: what it computes in tokens, and the seconds of a token on this device.

Steps of the run itself are timed where they are cheap, else single layers of its shapes, scaled. Knows the rows and the
model's configuration; no files of a run, and not what is said about the estimate.
"""

import collections
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from safety_nb.core.params import RunParams
from safety_nb.data import templates
from safety_nb.train import models, packing, quantised
from safety_nb.train.encoding import EncodedRow, encode_question, encode_row
from safety_nb.train.memory import count_weights, pack_loss, with_adapter

# Seconds a notebook costs beyond its work and the imports, forked or plain: benchmarks/README.md, overhead over five.
FORKED_NOTEBOOK_SECONDS, PLAIN_NOTEBOOK_SECONDS = 1.2, 3.4
_SAMPLE = 1000  # rows encoded to know lengths; the longest are looked for among all
# Whole steps over their layers alone: 0.9 to 2.1 on LLaMAs of 1, 26 and 39 million weights on the CPU.
_BETWEEN_LAYERS = 1.4
# Tokens of two timed batches of answers: their difference is free of what reading the prompts takes.
_FEW, _MORE = 2, 12
_CPU_TOKENS = 256  # tokens a timed layer reads on the CPU, where the time of a token hardly depends on their number


@dataclass(frozen=True)
class Work:
    """What a run computes, in tokens.

    Attributes:
        train_tokens: over all epochs. evaluation_tokens: of all validations together.
        pack_tokens, pack_supervised: of the largest packs, all tokens and those that carry loss; widest_row: tokens of
            the longest row, which no pack can be smaller than.
        prompt_batches: batches of prompts; prompt_tokens: of a mean one, with padding; widest_prompt: the longest.
        answer_tokens: steps until a batch of answers has ended.
        capability_tokens: that capability tasks have it read.
    """

    train_tokens: float
    evaluation_tokens: float
    pack_tokens: int
    pack_supervised: int
    widest_row: int
    prompt_batches: int
    prompt_tokens: float
    widest_prompt: int
    answer_tokens: int
    capability_tokens: float = 0.0


def count_work(params: RunParams, tokenizer: Any, train: list[dict], validation: list[dict], asked: list[str]) -> Work:
    """Count what a run computes, from a sample of its rows.

    A tuned model answers about as long as it was taught to: a batch has ended when the longest of as many taught
    answers has, or at ``max_new_tokens``.

    Args:
        train, validation: rows of the mixture, not empty; asked: the prompts of all evaluation sets.
    """
    sample, checked, longest = (
        _encoded(rows, params, tokenizer) for rows in (_spread(train), _spread(validation), _longest(train))
    )
    taught = sample
    if params.loss_on == "all":
        taught = [encode_row(row, tokenizer, params.cutoff, params.template) for row in _spread(train)]
    packs = _packs(params, sample)
    steps = math.ceil(len(train) / params.batch_size) * params.epochs
    validations = 1 + (steps // params.eval_steps if params.eval_steps else 0)
    prompts = sorted(len(encode_question(prompt, tokenizer, params.template, params.guard_prompt)) for prompt in asked)
    size = params.generation_batch_size
    batches = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    return Work(
        train_tokens=_tokens(sample) * len(train) / len(sample) * params.epochs,
        evaluation_tokens=_tokens(checked) * len(validation) / max(1, len(checked)) * validations,
        pack_tokens=max(len(pack.input_ids) for pack in packs),
        pack_supervised=max(len(pack.places) for pack in packs),
        widest_row=max(len(row.input_ids) for row in longest + sample),
        prompt_batches=len(batches),
        prompt_tokens=sum(len(batch) * max(batch) for batch in batches) / len(batches),
        widest_prompt=prompts[-1],
        answer_tokens=min(params.answer_tokens, _longest_answer(taught, size)),
    )


def _encoded(rows: list[dict], params: RunParams, tokenizer: Any) -> list[EncodedRow]:
    rows = templates.guarded(rows, params.training_guard)
    return [encode_row(row, tokenizer, params.cutoff, params.template, params.loss_on) for row in rows]


def _packs(params: RunParams, rows: list[EncodedRow]) -> list[packing.Pack]:
    """The packs of an epoch over rows, as in training."""
    capacity = params.micro_batch_size * params.cutoff
    steps = packing.epoch_steps(len(rows), params.batch_size, 1, params.seed)
    return [pack for numbers in steps for pack in packing.pack(rows, numbers, capacity)]


def _tokens(rows: list[EncodedRow]) -> int:
    return sum(len(row.input_ids) for row in rows)


def _longest_answer(taught: list[EncodedRow], batch: int) -> int:
    """Tokens of the longest of ``batch`` answers, as a quantile of those taught; of rows with loss on these alone."""
    lengths = sorted(row.supervised_tokens for row in taught)
    return max(1, lengths[min(len(lengths) - 1, len(lengths) * batch // (batch + 1))])


def _spread(rows: list[dict]) -> list[dict]:
    """At most ``_SAMPLE`` of the rows, evenly spread."""
    return rows[:: max(1, math.ceil(len(rows) / _SAMPLE))]


def _longest(rows: list[dict], number: int = 20) -> list[dict]:
    return sorted(rows, key=lambda row: -len(str(row)))[:number]


@dataclass(frozen=True)
class Speed:
    """How fast this device computes a run's model.

    Attributes:
        load: seconds to load the base. train, read: seconds a token of training, and of a forward pass alone.
        step: seconds for one more token of every answer of a batch.
        how: where the figures are from.
    """

    load: float
    train: float
    read: float
    step: float
    how: str


def compute_seconds(speed: Speed, work: Work) -> float:
    """Seconds of a run's training and generation, without the notebooks around them."""
    training = work.train_tokens * speed.train + work.evaluation_tokens * speed.read
    answers = work.prompt_batches * (work.prompt_tokens * speed.read + work.answer_tokens * speed.step)
    capabilities = speed.load + work.capability_tokens * speed.read if work.capability_tokens else 0.0
    return 2 * speed.load + training + answers + capabilities


def step_seconds(speed: Speed, work: Work) -> float:
    """Seconds that ``step_speed`` takes about, on a device of this speed."""
    return speed.load + 3 * work.pack_tokens * (speed.train + speed.read) + (2 * _FEW + _MORE) * speed.step


def notebook_seconds(import_seconds: float, forked: bool, runs: int = 1, notebooks: int = 5) -> float:
    """Seconds of the notebooks of each run beyond their work; forked ones share one process with the imports."""
    if forked:
        return import_seconds + runs * notebooks * FORKED_NOTEBOOK_SECONDS
    return runs * (import_seconds + notebooks * PLAIN_NOTEBOOK_SECONDS)


def scaled(work: Work, factor: float) -> Work:
    """The work of a run that trains on ``factor`` times as many rows."""
    return replace(work, train_tokens=work.train_tokens * factor)


def layer_speed(params: RunParams, work: Work) -> Speed:
    """Speed by arithmetic: each kind of layer with its adapter is timed once, and counts as often as it occurs.

    Attention, norms and what else lies between the layers are not timed: a measured factor stands for them.
    """

    device = models.pick_device()
    base = models.outline(params.base_model, params.revision)
    kinds = collections.Counter(map(models.shape, models.linear_layers(base)))
    head = tuple(base.get_output_embeddings().weight.shape)
    tokens = min(work.pack_tokens, _CPU_TOKENS) if device == "cpu" else work.pack_tokens
    answers = params.generation_batch_size * params.num_beams
    train = read = step = 0.0
    with _threads(params.cpu_threads):
        for shape, number, r in [*((shape, number, params.lora_r) for shape, number in kinds.items()), (head, 1, 0)]:
            layer = _layer(*shape, r, params.base_bits)
            forward = _layer_seconds(layer, tokens, gradients=False)
            learn = _layer_seconds(layer, tokens, gradients=True) + forward * (params.gradient_checkpointing is True)
            train, read = train + number * learn / tokens, read + number * forward / tokens
            step += number * _layer_seconds(layer, answers, gradients=False)
    train, read, step = (seconds * _BETWEEN_LAYERS for seconds in (train, read, step))
    # A second for every 2 GB of the file, which is in 16 bits.
    return Speed(sum(count_weights(base)) * 2 / 2e9, train, read, step, "from single layers timed here")


def _layer(outside: int, inside: int, r: int, bits: int) -> Any:
    """A layer with random weights: a base's with an adapter of rank ``r``, or plain (the head) where that is 0."""
    import torch

    device = models.pick_device()
    dtype = models.compute_dtype(device)

    class Adapted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = quantised.layer(inside, outside, bits, dtype, device)
            self.down = torch.nn.Linear(inside, r, bias=False)
            self.up = torch.nn.Linear(r, outside, bias=False)

        def forward(self, x: Any) -> Any:
            return self.base(x) + self.up(self.down(x))

    if r:
        return Adapted().to(device)
    return torch.nn.Linear(inside, outside, bias=False, device=device, dtype=dtype).requires_grad_(False)


def _layer_seconds(layer: Any, tokens: int, gradients: bool) -> float:
    import torch

    device = models.pick_device()
    dtype = models.compute_dtype(device)
    inside = (layer.base if hasattr(layer, "base") else layer).in_features
    x = torch.randn(tokens, inside, device=device, dtype=dtype, requires_grad=gradients)

    def once() -> None:
        with torch.set_grad_enabled(gradients), torch.autocast(device, dtype, enabled=dtype != torch.float32):
            y = layer(x)
        if gradients:
            y.sum().backward()

    once()
    return min(_timed(once), _timed(once))


def step_speed(params: RunParams, tokenizer: Any, train: list[dict], asked: list[str]) -> Speed:
    """Speed measured on the run's own model: two training steps and a few tokens of a batch of answers."""
    import torch

    started = time.perf_counter()
    with _threads(params.cpu_threads):
        model = models.load_base(params.base_model, params.revision, bits=params.base_bits)
        load = time.perf_counter() - started
        model = with_adapter(params, model).train()
        rows = _encoded(_spread(train), params, tokenizer)
        packs = [pack for pack in _packs(params, rows) if pack.places][:3]
        optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])

        def learn(pack: packing.Pack) -> None:
            pack_loss(model, pack).backward()
            optimizer.step()
            optimizer.zero_grad()

        learn(packs[0])  # what only the first step does is not counted
        timed = packs[1:] or packs
        train_seconds = sum(_timed(lambda pack=pack: learn(pack)) for pack in timed)
        with torch.no_grad():
            read_seconds = sum(_timed(lambda pack=pack: pack_loss(model, pack)) for pack in timed)
        tokens = sum(len(pack.input_ids) for pack in timed)
        step = _answer_step(params, model.eval(), tokenizer, asked)
    return Speed(load, train_seconds / tokens, read_seconds / tokens, step, "measured on 2 steps and some answers")


def _answer_step(params: RunParams, model: Any, tokenizer: Any, asked: list[str]) -> float:
    """Seconds for one more token of every answer of a batch."""
    import torch

    encoded = [
        encode_question(prompt, tokenizer, params.template, params.guard_prompt)
        for prompt in asked[: params.generation_batch_size]
    ]
    width = max(map(len, encoded))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in encoded], device=model.device)

    def answer(tokens: int) -> None:
        model.generate(
            input_ids=ids,
            attention_mask=(torch.arange(width) >= torch.tensor([[width - len(row)] for row in encoded])).to(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            num_beams=params.num_beams,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )

    model.config.use_cache = True
    with torch.inference_mode():
        answer(_FEW)
        seconds = _timed(lambda: answer(_MORE)) - _timed(lambda: answer(_FEW))
    return max(0.0, seconds) / (_MORE - _FEW)


def _timed(function: Callable[[], None]) -> float:
    import torch

    wait = torch.cuda.synchronize if models.pick_device() == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - started


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with as many threads as the run will; 0 for all."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
