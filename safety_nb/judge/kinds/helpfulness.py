"""Judge ``helpfulness``: how good an answer is, as a number, by a reward model that reads it beside the request.

``helpfulness`` is the paper's (as a third party quotes it), ``helpfulness:MODEL[@REVISION]`` any other of the hub or in
a folder, with one output. The score has no scale of its own, and favours length: what counts is which of two answers to
the same request has the higher one (`costs.wins`). It says nothing of harm. The hub's model could not be run by the
authors: the judge is tested on random weights of its class.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams
from safety_nb.judge.judgement import Judge, Judgement
from safety_nb.judge.kinds import harmfulness
from safety_nb.train import models

DEFAULT = "OpenAssistant/reward-model-deberta-v3-large-v2"
_PAIR = harmfulness.Input(form="{prompt}{response}")  # as a pair: the tokenizer puts its separator between them


def build(variant: str, params: JudgeParams) -> Judge:
    """The judge of that name.

    Raises:
        InputError: there is no such model, or it cannot be had.
    """
    name, revision = models.with_revision(variant or DEFAULT)
    models.check(name, revision, "judges")
    folder = Path(models.locate(name, "judges"))
    local = folder.is_dir()
    at = {"sha256": models.folder_sha256(folder)} if local else {"model": name, "commit": models.commit(name, revision)}
    return Judge(
        name=f"helpfulness:{variant}" if variant else "helpfulness",
        judge=lambda rows: _judge(rows, name, revision, params),
        identity={"kind": "helpfulness", **at, "max_tokens": _PAIR.max_tokens},
        model=name,
    )


def _judge(rows: Sequence[dict], name: str, revision: str, params: JudgeParams) -> Iterator[Judgement]:
    import torch

    if not rows:
        return
    if params.cpu_threads:
        torch.set_num_threads(params.cpu_threads)
    model, tokenizer = models.load_classifier(name, revision)
    outputs, segments = model.config.num_labels, getattr(model.config, "type_vocab_size", 0)
    if outputs != 1 or segments > 1:
        raise InputError(
            "judges: helpfulness takes a reward model with one output that tells a pair by its separator alone, and "
            f"{name!r} has {outputs} outputs and {segments} kinds of segments; name another."
        )
    pairs = [(row["prompt"], row["response"]) for row in rows]
    for reading in harmfulness.read(model, tokenizer, pairs, _PAIR, params.judge_batch_size):
        cut = f"cut: {reading.read} of {reading.tokens} tokens were read" if reading.read < reading.tokens else None
        known = math.isfinite(reading.score)
        yield Judgement(
            score=reading.score if known else None,
            missing=None if known else f"the model gave {reading.score}, which is no score",
            raw=cut,
        )
