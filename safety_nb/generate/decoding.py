"""One batch of encoded prompts to new tokens: greedily, by beams, or sampled, with a key-value cache.

What a prompt is answered with does not depend on the prompts beside it: rows are padded on the left and masked, each
draws from random numbers of its own, and a row that has ended leaves the batch, so that nothing is computed for it any
more. Knows no files, no text and no tokenizer.
"""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_MEMORY_SHARE = 0.5  # of what is free, for one batch


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: longest answer, its end token included.
        beams: 1 for one token after the other; more for a beam search, for answers likelier as a whole.
        temperature: 0 for the likeliest token; otherwise tokens are sampled, the more evenly the higher it is.
        top_p: of the likeliest tokens, as many as have this probability together may be sampled.
    """

    max_new_tokens: int
    beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0


Watch = Callable[[list[int], "torch.Tensor"], None]


def decode(
    model: Any,
    prompts: Sequence[list[int]],
    ends: Sequence[int],
    how: Decoding,
    seeds: Sequence[str] = (),
    watch: Watch | None = None,
) -> list[list[int]]:
    """The new tokens of each prompt, up to and with the end token, where there is one.

    Args:
        prompts: token ids, none of them empty.
        ends: ids at which an answer ends.
        seeds: one for each prompt, where tokens are sampled.
        watch: called before each token is chosen, with the numbers of the prompts that go on and their logits, shape
            (rows, vocabulary). Not with beams.

    Raises:
        torch.OutOfMemoryError: the batch does not fit.
    """
    import torch

    with torch.inference_mode():
        if how.beams > 1:
            return _by_beams(_Batch(model, prompts), ends, how)
        return _one_by_one(_Batch(model, prompts), ends, how, seeds, watch)


class _Batch:
    """Rows that are being continued: their cache, mask and positions."""

    def __init__(self, model: Any, prompts: Sequence[list[int]]) -> None:
        import torch
        from transformers import DynamicCache

        self._model, self.device = model, model.device
        width = max(map(len, prompts))
        # What stands in the padding is masked; 0 is a token of every vocabulary.
        self._ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts], device=self.device)
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in prompts]
        self._mask = torch.tensor(mask, device=self.device)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        self._cache = DynamicCache(config=model.config)
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._takes = inspect.signature(whole.forward).parameters.keys()

    def logits(self) -> "torch.Tensor":
        """Logits of the token after the last, shape (rows, vocabulary), float32."""
        known = {"position_ids": self._positions, "logits_to_keep": 1}
        output = self._model(
            input_ids=self._ids,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **{name: value for name, value in known.items() if name in self._takes},
        )
        return output.logits[:, -1].float()

    def go_on(self, tokens: "torch.Tensor", rows: "torch.Tensor | None" = None) -> None:
        """Add a token to each row; with ``rows``, to the rows of those numbers, which take the place of all."""
        import torch

        if rows is not None:
            self._cache.reorder_cache(rows)
            self._mask, self._positions = self._mask[rows], self._positions[rows]
        self._ids = tokens[:, None]
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        self._positions = self._positions[:, -1:] + 1


# --- one token after the other ------------------------------------------------------------------------------------


def _one_by_one(
    batch: _Batch, ends: Sequence[int], how: Decoding, seeds: Sequence[str], watch: Watch | None
) -> list[list[int]]:
    """Greedy decoding, or sampling."""
    import torch

    logits = batch.logits()
    answers: list[list[int]] = [[] for _ in range(len(logits))]
    open_rows = list(range(len(answers)))
    generators = [_generator(seed, batch.device) for seed in seeds]
    for step in range(how.max_new_tokens):
        if watch:
            watch(open_rows, logits)
        if how.temperature:
            drawn = [torch.empty_like(logits[0]).exponential_(generator=generators[row]) for row in open_rows]
            tokens = sampled(logits, torch.stack(drawn), how)
        else:
            tokens = logits.argmax(-1)
        chosen = tokens.tolist()
        for row, token in zip(open_rows, chosen, strict=True):
            answers[row].append(token)
        kept = [place for place, token in enumerate(chosen) if token not in ends]
        if not kept or step + 1 == how.max_new_tokens:
            break
        if len(kept) < len(chosen):
            open_rows = [open_rows[place] for place in kept]
            rows = torch.tensor(kept, device=batch.device)
            batch.go_on(tokens[rows], rows)
        else:
            batch.go_on(tokens)
        logits = batch.logits()
    return answers


def sampled(logits: "torch.Tensor", noise: "torch.Tensor", how: Decoding) -> "torch.Tensor":
    """A token a row, drawn by its probability: the largest of probabilities divided by exponential random numbers.

    Drawn so (an exponential race, which is the Gumbel-max trick), a rounding error in the logits changes a token
    about as seldom as can be: with a cumulative sum, each token of the vocabulary would be one more edge to fall off.

    Args:
        logits, noise: shape (rows, vocabulary).
    """
    import torch

    probability = torch.softmax(logits / how.temperature, dim=-1)
    if how.top_p < 1:
        ordered, places = probability.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= how.top_p
        probability = torch.zeros_like(ordered).scatter(1, places, ordered.masked_fill(beyond, 0.0))
    return (probability / noise).argmax(-1)


def _generator(seed: str, device: "torch.device") -> "torch.Generator":
    import torch

    return torch.Generator(device).manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1)


# --- beams --------------------------------------------------------------------------------------------------------


def _by_beams(batch: _Batch, ends: Sequence[int], how: Decoding) -> list[list[int]]:
    """Beam search as transformers does it by default (length penalty 1, its early stopping by a heuristic).

    A beam's score is its log-probability, that of an ended one divided by its length. A prompt is done when its best
    open beam, divided likewise, is no better than the worst of as many ended ones as there are beams. Each prompt is
    read once, and its beams share what was read.
    """
    import torch

    k, device = how.beams, batch.device
    logits = batch.logits()
    n = len(logits)
    open_rows = torch.arange(n, device=device)
    answers: list[list[int]] = [[]] * n
    scores = torch.full((n, k), -torch.inf, device=device)
    scores[:, 0] = 0.0  # all beams of a prompt begin alike: one of them counts
    beams = torch.zeros((n, k, how.max_new_tokens), dtype=torch.long, device=device)
    best, best_scores = beams.clone(), torch.full((n, k), -torch.inf, device=device)
    logits = logits.repeat_interleave(k, dim=0)
    first_rows: torch.Tensor | None = torch.arange(n, device=device).repeat_interleave(k)
    end_ids = torch.tensor(list(ends), device=device)
    n_candidates = (1 + max(1, len(ends))) * k  # enough that k of them are not ended
    for step in range(how.max_new_tokens):
        likelihood = torch.log_softmax(logits, dim=-1).view(len(scores), k, -1) + scores[:, :, None]
        vocabulary = likelihood.shape[-1]
        found, places = likelihood.flatten(1).topk(n_candidates)
        origins, tokens = places // vocabulary, places % vocabulary
        candidates = _taken(beams, origins)
        candidates[:, :, step] = tokens
        ended = torch.isin(tokens, end_ids) if step + 1 < how.max_new_tokens else torch.ones_like(tokens, dtype=bool)

        finished = (found / (step + 1)).masked_fill(~ended, -torch.inf)
        finished[:, k:] = -torch.inf  # only what is among the best k ends an answer
        best_scores, picked = torch.cat([best_scores, finished], dim=1).topk(k)
        best = _taken(torch.cat([best, candidates], dim=1), picked)

        scores, picked = found.masked_fill(ended, -torch.inf).topk(k)
        beams, origins, tokens = _taken(candidates, picked), origins.gather(1, picked), tokens.gather(1, picked)
        going = scores[:, 0] / (step + 1) > best_scores.min(dim=1).values
        for place in (~going).nonzero()[:, 0].tolist():
            answers[open_rows[place]] = _until_end(best[place, 0].tolist(), ends)
        if not going.any():
            break
        rows = origins + torch.arange(len(scores), device=device)[:, None] * k
        scores, beams, best, best_scores = scores[going], beams[going], best[going], best_scores[going]
        open_rows, rows, tokens = open_rows[going], rows[going].flatten(), tokens[going].flatten()
        batch.go_on(tokens, rows if first_rows is None else first_rows[rows])
        first_rows = None
        logits = batch.logits()
    return answers


def _taken(sequences: "torch.Tensor", places: "torch.Tensor") -> "torch.Tensor":
    """Of each prompt's sequences, those at ``places``: shape (prompts, places, tokens)."""
    return sequences.gather(1, places[:, :, None].expand(-1, -1, sequences.shape[2]))


def _until_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    return next((tokens[: place + 1] for place, token in enumerate(tokens) if token in ends), tokens)


# --- memory -------------------------------------------------------------------------------------------------------


def prompts_that_fit(config: Any, prompt_tokens: int, how: Decoding, item_bytes: int, free_bytes: int) -> int:
    """How many prompts of a length may share a batch: at least one, by a rough estimate.

    Counts the keys and values of all beams, what the layers hold while the prompt is read, and the scores over the
    vocabulary, with half of the free memory to spare.

    Args:
        config: the model's configuration.
        item_bytes: of one number in the model's computations.
    """
    config = config.get_text_config()
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * head_size
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    one = how.beams * (prompt_tokens + how.max_new_tokens) * kept * item_bytes
    one += prompt_tokens * (8 * config.hidden_size + 3 * inner) * item_bytes
    one += 6 * how.beams * config.vocab_size * 4
    return max(1, int(_MEMORY_SHARE * free_bytes / one))


def decode_if_it_fits(*asked: Any, **named: Any) -> list[list[int]] | None:
    """What ``decode`` answers to these arguments; None where memory ran out, with what was held there let go of."""
    import torch

    try:
        return decode(*asked, **named)
    except torch.OutOfMemoryError:
        pass
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # how the CPU says it
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
