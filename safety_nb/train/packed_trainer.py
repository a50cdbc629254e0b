"""The training loop: transformers' Trainer over optimizer steps whose rows are packed.

Knows neither files of a run nor data sets. Imports transformers: import this module inside functions.
"""

import itertools
import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from safety_nb.core import usage
from safety_nb.train.encoding import EncodedRow
from safety_nb.train.packing import Pack, pack

BY_ROW = "sdpa_by_row"  # the name of our attention among transformers'
_WATCHED = 20  # steps over which the watchdog averages
_RISE = 3.0  # how far that average may rise above its lowest value


class TrainingDiverged(RuntimeError):
    """The loss is not finite, or rose far above where it was; the message says at which step, on which rows."""


@dataclass
class Losses:
    """Sum of token losses and number of tokens, by part of the mixture; and the same of each row (its number)."""

    total: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    rows: dict[int, tuple[float, int]] = field(default_factory=dict)

    def add(self, number: int, part: str, total: float, tokens: int) -> None:
        self.rows[number] = (total, tokens)
        self.total[part] = self.total.get(part, 0.0) + total
        self.tokens[part] = self.tokens.get(part, 0) + tokens

    def mean(self, part: str | None = None) -> float:
        """Loss per supervised token, of one part or of all."""
        if part is not None:
            return self.total[part] / self.tokens[part]
        return sum(self.total.values()) / sum(self.tokens.values())


class PackedTrainer(Trainer):
    """A Trainer whose every batch is one optimizer step: the rows of a step, in packs, one pack at a time.

    Args:
        rows: all encoded training rows; ``parts``: the part of the mixture of each.
        steps: row numbers of each optimizer step, in order.
        validation: encoded validation rows; ``validation_parts``: likewise.
        capacity: tokens a pack may have. masked: see ``token_losses``.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        rows: list[EncodedRow],
        parts: list[str],
        steps: list[list[int]],
        validation: list[EncodedRow],
        validation_parts: list[str],
        capacity: int,
        masked: bool,
        names: list[str],
        callbacks: list[TrainerCallback],
    ) -> None:
        self.rows, self.parts, self.steps, self.names = rows, parts, steps, names
        self.validation, self.validation_parts = validation, validation_parts
        self.capacity, self.masked = capacity, masked
        self.steps_per_epoch = math.ceil(len(rows) / max(map(len, steps)))
        by_step = (sum(rows[number].supervised_tokens for number in numbers) for numbers in steps)
        self._supervised = list(itertools.accumulate(by_step))
        self._step_losses = Losses()
        self._step_seconds = 0.0
        self._step_tokens = 0
        self._smooth: list[float] = []
        self._lowest = math.inf
        super().__init__(
            model=model,
            args=args,
            train_dataset=[{"step": number} for number in range(len(steps))],
            eval_dataset=[{}] if validation else None,
            data_collator=lambda items: {"step": torch.tensor(items[0]["step"])},
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)  # a line a step; the same numbers go into metrics.csv

    # --- one optimizer step ---------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: dict, num_items_in_batch: Any = None) -> torch.Tensor:
        numbers = self.steps[int(inputs["step"])]
        model.train()
        while True:
            try:
                return self._train_on(model, numbers)
            except torch.OutOfMemoryError as error:
                self._make_room(model, numbers, error)

    def _train_on(self, model: Any, numbers: list[int]) -> torch.Tensor:
        """Forward and backward over the packs of a step: the mean loss of its supervised tokens."""
        started = time.monotonic()
        packs = pack(self.rows, numbers, self.capacity)
        supervised = sum(len(one.places) for one in packs)
        losses = Losses()
        mean = torch.zeros((), device=self.args.device)
        for one in packs:
            with self.compute_loss_context_manager():
                by_token = token_losses(model, one, self.masked)
                loss = by_token.sum() / supervised
            self.accelerator.backward(loss)
            mean += loss.detach()
            _add(losses, by_token.detach(), one, self.parts)
        self._check(losses, numbers)
        self._step_losses = losses
        self._step_tokens = sum(len(one.input_ids) for one in packs)
        self._step_seconds = time.monotonic() - started
        return mean

    def _make_room(self, model: Any, numbers: list[int], error: torch.OutOfMemoryError) -> None:
        """Halve the packs after the device ran out of memory; the step is begun again with the same rows."""
        longest = max(len(self.rows[number].input_ids) for number in numbers)
        if self.capacity <= longest:
            raise torch.OutOfMemoryError(
                f"{error}\nOne row of {longest} tokens alone does not fit: set gradient_checkpointing, or lower cutoff."
            ) from None
        self.capacity = max(longest, self.capacity // 2)
        model.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"Out of memory: going on with packs of {self.capacity} tokens.")

    def _check(self, losses: Losses, numbers: list[int]) -> None:
        """Stop a training that has lost its way."""
        loss = losses.mean()
        step = self.state.global_step + 1
        if not math.isfinite(loss):
            told = ", ".join(self.names[number] for number in numbers[:20])
            raise TrainingDiverged(
                f"The loss of step {step} is {loss}; its rows: {told}. Try a lower learning_rate or more warmup_steps."
            )
        self._smooth = [*self._smooth[1 - _WATCHED :], loss]
        if len(self._smooth) == _WATCHED:
            average = sum(self._smooth) / _WATCHED
            self._lowest = min(self._lowest, average)
            if average > _RISE * self._lowest + 0.5:  # near zero, a few tenths are noise
                raise TrainingDiverged(
                    f"The mean loss of the {_WATCHED} steps to {step} is {average:.2f}; it was {self._lowest:.2f}. "
                    "Try a lower learning_rate or more warmup_steps."
                )

    # --- what is logged -------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            losses = self._step_losses
            logs["loss"] = losses.mean()
            logs |= {f"loss_{part}": losses.mean(part) for part in sorted(losses.total)}
            logs["supervised_tokens"] = self._supervised[self.state.global_step - 1]
            logs["tokens_per_second"] = self._step_tokens / self._step_seconds
            on_gpu = self.args.device.type == "cuda"
            if peak := torch.cuda.max_memory_allocated() if on_gpu else usage.peak_memory():
                logs["peak_memory"] = peak
        super().log(logs, start_time)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Validation loss per supervised token, of all and by part; ``validated`` keeps that of each row."""
        losses = self.validated = self._validation_losses()
        metrics = {"eval_loss": losses.mean()} | {
            f"eval_loss_{part}": losses.mean(part) for part in sorted(losses.total)
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _validation_losses(self) -> Losses:
        training = self.model.training
        self.model.eval()
        losses = Losses()
        with torch.no_grad():
            for one in pack(self.validation, list(range(len(self.validation))), self.capacity):
                with self.compute_loss_context_manager():
                    by_token = token_losses(self.model, one, self.masked)
                _add(losses, by_token, one, self.validation_parts)
        self.model.train(training)
        return losses


def token_losses(model: Any, one: Pack, masked: bool = False) -> torch.Tensor:
    """Cross-entropy of each supervised token of a pack, shape (tokens,), float32.

    Logits are computed for the places that are supervised and for no others.

    Args:
        masked: keep the rows apart by a mask; otherwise positions alone do, see ``separation``.
    """
    targets = torch.tensor(one.targets, device=model.device)
    return _CrossEntropy.apply(logits(model, one, masked).float(), targets)


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy by token whose gradient is computed in the memory of the logits: with a vocabulary of 32,000
    they are the largest tensor of a step, and PyTorch's own holds three of them. Backward works once."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        for some in logits.split(8 if logits.device.type == "cpu" else 1024):  # a CPU's cache, a GPU's width
            some.copy_(some.log_softmax(1))
        ctx.save_for_backward(logits, targets)
        return -logits.gather(1, targets[:, None])[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets = ctx.saved_tensors
        ours = logits.exp_()  # probability, less one at the target
        ours[torch.arange(len(targets), device=targets.device), targets] -= 1
        return ours.mul_(gradient[:, None]), None


def logits(model: Any, one: Pack, masked: bool = False) -> torch.Tensor:
    """Logits at the supervised places of a pack, shape (places, vocabulary).

    Without an attention mask and without a cache, and only so, transformers reads from the positions which rows
    there are.
    """
    positions = torch.tensor([one.position_ids], device=model.device)
    more: dict[str, Any] = {}
    if masked:
        more["attention_mask"] = _mask(positions[0], model.dtype)
    elif model.config._attn_implementation == BY_ROW:
        more["row_starts"] = [place for place, position in enumerate(one.position_ids) if position == 0]
    output = model(
        input_ids=torch.tensor([one.input_ids], device=model.device),
        position_ids=positions,
        use_cache=False,
        logits_to_keep=torch.tensor(one.places, device=model.device),
        **more,
    ).logits
    return output.flatten(0, 1)  # a view: the gradient of logits[0] would be a second tensor of their size


def _mask(positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to the attention scores, shape (1, 1, tokens, tokens): a token sees those before it in its row."""
    row = (positions == 0).cumsum(0)
    sees = (row[:, None] == row[None, :]).tril()
    return torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)[None, None]


def _add(losses: Losses, by_token: torch.Tensor, one: Pack, parts: list[str]) -> None:
    owners = torch.tensor(one.owners, device=by_token.device)
    sums = torch.zeros(len(one.rows), device=by_token.device).index_add_(0, owners, by_token.float()).tolist()
    counts = torch.bincount(owners, minlength=len(one.rows)).tolist()
    for number, total, tokens in zip(one.rows, sums, counts, strict=True):
        if tokens:
            losses.add(number, parts[number], total, tokens)


def attend_by_row(model: Any) -> None:
    """Let a model with transformers' SDPA compute attention row by row within a pack.

    With a mask alone, the scores between rows would be computed too and thrown away: at packs of 1,024 tokens a
    quarter of a step. Without ``row_starts`` the model computes what it did before.
    """
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        AttentionInterface.register(BY_ROW, _attention_by_row)
        AttentionMaskInterface.register(BY_ROW, sdpa_mask)
        model.set_attn_implementation(BY_ROW)


def _attention_by_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    row_starts: list[int] | None = None,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA over tensors of shape (1, heads, tokens, size), row by row; a causal row needs no mask, but for a window."""
    if row_starts is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, sliding_window=sliding_window, **more)
    outputs = []
    for start, end in itertools.pairwise([*row_starts, query.shape[2]]):
        longer = sliding_window is not None and end - start > sliding_window
        mask = attention_mask[..., start:end, start:end] if longer else None
        row = (tensor[:, :, start:end] for tensor in (query, key, value))
        outputs.append(sdpa_attention_forward(module, *row, mask, **more)[0])
    return torch.cat(outputs, dim=1), None


def separation(model: Any, rows: list[EncodedRow]) -> str | None:
    """What keeps the rows of a pack apart in this model: its ``positions``, a ``mask``, or nothing (None).

    transformers reads rows from the positions in most models and, without a word, not in all (Falcon in 5.23): training
    would go on at a normal loss over rows that see each other. So it is measured: how far the logits of the second of
    two rows move when they are packed, against how far they move when both are laid together as one text. A fifth of
    that is allowed, for rounding in 16 bits.
    """
    first, second = sorted(range(len(rows)), key=lambda number: len(rows[number].input_ids))[:2]
    (packed,) = pack(rows, [first, second], 1 << 30)
    (alone,) = pack(rows, [packed.rows[1]], 1 << 30)
    as_one = replace(packed, position_ids=list(range(len(packed.input_ids))))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            reference, mixed, *ways = (
                logits(model, one, masked)[-len(alone.places) :].float()
                for one, masked in ((alone, False), (as_one, False), (packed, False), (packed, True))
            )
    finally:
        model.train(training)
    for name, moved in zip(("positions", "mask"), ways, strict=True):
        if (moved - reference).norm() < 0.2 * (mixed - reference).norm():
            return name
    return None
