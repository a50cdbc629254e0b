"""Training a reward model: labelled conversations and a base become a model that says how harmful an answer is.

From scores of people (a regression, as the paper's) or from pairs of which one answer was preferred as the less harmful
(Bradley and Terry's model). The higher the number, the more harmful. Validation is by the judge's own reading
(``kinds/harmfulness.py``), on prompts that were not trained on. The miniature's is rebuilt by

    python -m safety_nb.judge.reward_model --out DIR
"""

import argparse
import math
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_nb import __version__
from safety_nb.core import files, run_folder
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.params import TrainRewardParams
from safety_nb.data.datasets import sources
from safety_nb.judge.kinds import harmfulness
from safety_nb.stats import estimates
from safety_nb.train import cards, models, pretrained

if TYPE_CHECKING:
    import pandas as pd

_FIRST_TURN = re.compile(r"\s*Human:\s*(.*?)(?:\n\nAssistant:|\Z)", flags=re.DOTALL)
_MAX_BINS, _BIN = 10, 20  # of the calibration; rows a bin has at least


@dataclass(frozen=True)
class Example:
    """A labelled conversation, or a pair of them.

    Attributes:
        prompt: the first prompt, folded; examples that share it stay on one side of the split.
        texts: the conversation as it is read; of a pair the less harmful one first.
        score: how harmful people found it; None of a pair.
        source: the data set it is from.
    """

    prompt: str
    texts: tuple[str, ...]
    score: float | None
    source: str


@dataclass(frozen=True)
class Data:
    """What is trained on and what is validated on; no first prompt is on both sides."""

    training: list[Example]
    validation: list[Example]

    @property
    def pairs(self) -> bool:
        return self.training[0].score is None

    def sha256(self) -> str:
        parts = [list(map(asdict, part)) for part in (self.training, self.validation)]
        return digest(parts, sort_keys=False, ensure_ascii=True)

    def table(self) -> "pd.DataFrame":
        """Columns source, training, validation (counts), and of scores mean_score."""
        import pandas as pd

        names = dict.fromkeys(example.source for example in [*self.training, *self.validation])
        rows = []
        for name in names:
            parts = [[each for each in part if each.source == name] for part in (self.training, self.validation)]
            row: dict[str, Any] = {"source": name, "training": len(parts[0]), "validation": len(parts[1])}
            if not self.pairs:
                scores = [each.score for part in parts for each in part if each.score is not None]
                row["mean_score"] = sum(scores) / len(scores)
            rows.append(row)
        return pd.DataFrame(rows)


def prepare(params: TrainRewardParams) -> Data:
    """The labelled conversations, with ordinary answers of score 0 where they are asked for, split by prompt.

    Raises:
        InputError: the data cannot be had or are of no known form, or are too few to be split.
    """
    examples = [_example(row, params.data) for row in sources.labelled_rows(params.data, params.data_dir)]
    kinds = {example.score is None for example in examples}
    if len(kinds) > 1:
        raise InputError(f"data: {params.data!r} holds both scores and pairs; name a set with one of them.")
    if params.ordinary:
        if kinds == {True}:
            raise InputError("ordinary: ordinary answers have a score, of 0, and pairs have none; leave it empty.")
        rows = sources.training_set(params.ordinary, params.data_dir, "leave out").rows
        if params.n_ordinary:
            rows = random.Random(f"{params.seed}/ordinary").sample(rows, min(params.n_ordinary, len(rows)))
        examples += [_ordinary(row, params.ordinary) for row in rows]
    return _split(examples, params)


def _example(row: dict, source: str) -> Example:
    form = harmfulness.Input().text
    if "chosen" in row:
        prompt = row.get("prompt")
        texts = [row["chosen"], row["rejected"]] if prompt is None else [form(prompt, row[k]) for k in _PAIR]
        return Example(_folded(_opening(texts[0])), tuple(texts), None, source)
    score = float(row["score"] if "score" in row else row["rating"])
    text = row["transcript"] if "transcript" in row else form(row["prompt"], row["response"])
    return Example(_folded(_opening(text)), (text,), score, source)


_PAIR = ("chosen", "rejected")


def _ordinary(row: dict, source: str) -> Example:
    prompt = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
    return Example(_folded(prompt), (harmfulness.Input().text(prompt, row["output"]),), 0.0, source)


def _opening(text: str) -> str:
    found = _FIRST_TURN.match(text)
    return found[1] if found else text


def _folded(prompt: str) -> str:
    return " ".join(prompt.casefold().split())


def _split(examples: list[Example], params: TrainRewardParams) -> Data:
    """Prompts in random order, of which the first few hold as many examples as are validated on."""
    prompts = sorted({example.prompt for example in examples})
    random.Random(f"{params.seed}/split").shuffle(prompts)
    by_prompt: dict[str, int] = {}
    for example in examples:
        by_prompt[example.prompt] = by_prompt.get(example.prompt, 0) + 1
    wanted, held = params.validation_share * len(examples), set()
    for prompt in prompts:
        if wanted <= 0:
            break
        held.add(prompt)
        wanted -= by_prompt[prompt]
    validation = [example for example in examples if example.prompt in held]
    training = [example for example in examples if example.prompt not in held]
    if not training or not validation:
        raise InputError(
            f"data: {len(examples)} examples of {len(prompts)} prompts are too few to be split into training and "
            "validation; prompts of the two have to differ."
        )
    return Data(training, validation)


# --- training -----------------------------------------------------------------------------------------------------


def train(params: TrainRewardParams, data: Data) -> dict[str, Any]:
    """Train a reward model, and write it with its record, its card, its losses and its predictions.

    The folder is one that ``harmfulness:FOLDER`` judges with. On the CPU the same seed gives the same bits.

    Returns:
        The record, as in ``reward.json``; ``folder`` says where it is.

    Raises:
        InputError: the folder holds something else, or the base cannot be had or has no place for such a head.
    """
    import pandas as pd
    import torch
    from transformers import set_seed

    folder = out_folder(params)
    if params.cpu_threads:
        torch.set_num_threads(params.cpu_threads)
    set_seed(params.seed)  # before the head is made: its weights are random
    model, tokenizer = _fresh(params)
    how = harmfulness.Input(max_tokens=params.max_tokens, cut=params.cut)
    log = _fit(model, tokenizer, how, params, data)

    # What is validated is what is stored. Buffers that are not (of rotary positions, say) keep their precision.
    dtype = getattr(torch, params.weights)
    stored = {name: each.to(dtype) if each.is_floating_point() else each for name, each in model.state_dict().items()}
    model.load_state_dict({name: each.float() if each.is_floating_point() else each for name, each in stored.items()})
    predictions = _predictions(model.eval(), tokenizer, how, params, data)
    cut = _n_cut(tokenizer, how, data.training)
    record = {
        "input": asdict(how),
        "trained_on": "pairs" if data.pairs else "scores",
        "validation": errors(predictions, data),
        "training_rows": len(data.training),
        "training_rows_cut": cut,
        "data_sha256": data.sha256(),
        "rows_by_source": data.table().to_dict("records"),
        "steps": int(log["step"].max()),
        "base_commit": models.commit(params.base_model, params.revision),
        "device": models.pick_device(),
        "values": {name: value for name, value in params.model_dump().items() if name not in ("out", "run_dir")},
        "safety_nb": __version__,
        "torch": torch.__version__,
    }
    with files.replacing_folder(folder) as fresh:
        model.config.dtype = params.weights
        model.save_pretrained(fresh, state_dict=stored)
        tokenizer.save_pretrained(fresh)
        record["weights_sha256"] = files.sha256(fresh / "model.safetensors")
        files.write_csv(fresh / "losses.csv", log)
        files.write_csv(fresh / "predictions.csv", pd.DataFrame(predictions))
        files.write_json(fresh / harmfulness.RECORD, record)
        files.write_text(fresh / "README.md", cards.reward_card(record))
    return {**record, "folder": str(folder)}


def out_folder(params: TrainRewardParams) -> Path:
    """Where the model goes. Raises InputError where something else lies there."""
    name = re.sub(r"[^\w.-]+", "-", f"{Path(params.data).name}-{Path(params.base_model).name}").strip("-")
    folder = Path(params.out).expanduser() if params.out else run_folder.outputs_root() / "reward-models" / name
    record = folder / harmfulness.RECORD
    if folder.exists() and not folder.is_dir() or folder.is_dir() and any(folder.iterdir()):
        values = files.read_json(record).get("values") if record.is_file() else None
        now = {name: value for name, value in params.model_dump().items() if name not in ("out", "run_dir")}
        if values != now:
            raise InputError(
                f"out: {folder} holds {'a model trained with other parameters' if values else 'something else'}; name "
                "another folder, or remove it."
            )
    return folder


def _fresh(params: TrainRewardParams) -> tuple[Any, Any]:
    """The base with a new head of one output, in float32, and its tokenizer."""
    import torch
    from transformers.utils import logging

    models.check(params.base_model, params.revision)
    where = models.locate(params.base_model)
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns that the head is new
    try:
        tokenizer = pretrained.tokenizer(where, params.revision)
        model = pretrained.weights(
            "SequenceClassification",
            where,
            params.revision,
            new_head=True,
            num_labels=1,
            id2label={0: "harmfulness"},
            label2id={"harmfulness": 0},
            problem_type="regression",
            dtype=torch.float32,
        )
    finally:
        logging.set_verbosity(before)
    models.settle_padding(model, tokenizer)
    return model, tokenizer


def _fit(model: Any, tokenizer: Any, how: harmfulness.Input, params: TrainRewardParams, data: Data) -> "pd.DataFrame":
    """Train in place; columns step, train_loss, learning_rate, one row an optimizer step."""
    import tempfile

    import pandas as pd
    import torch
    from transformers import Trainer, TrainingArguments

    device = models.pick_device()
    half = models.compute_dtype(device)

    def collate(examples: Sequence[Example]) -> dict[str, Any]:
        ids, _ = harmfulness.encode(tokenizer, [text for example in examples for text in example.texts], how)
        labels = torch.tensor([example.score or 0.0 for example in examples])
        return {**harmfulness.padded(ids, tokenizer.pad_token_id), "labels": labels}

    with tempfile.TemporaryDirectory() as scratch:
        loop = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=scratch,
                num_train_epochs=params.epochs,
                learning_rate=params.learning_rate,
                lr_scheduler_type=params.lr_scheduler,
                per_device_train_batch_size=min(params.micro_batch_size, params.batch_size),
                gradient_accumulation_steps=max(1, params.batch_size // params.micro_batch_size),
                weight_decay=0.0,
                seed=params.seed,
                use_cpu=device == "cpu",
                bf16=half == torch.bfloat16,
                fp16=half == torch.float16,
                dataloader_pin_memory=device != "cpu",
                remove_unused_columns=False,
                save_strategy="no",
                report_to="none",
                logging_steps=1,
                disable_tqdm=True,
            ),
            train_dataset=data.training,
            data_collator=collate,
            compute_loss_func=pair_loss if data.pairs else score_loss,
        )
        for callback in list(loop.callback_handler.callbacks):
            if type(callback).__name__ == "PrinterCallback":
                loop.remove_callback(callback)
        loop.train()
    log = [
        {"step": line["step"], "train_loss": line["loss"], "learning_rate": line["learning_rate"]}
        for line in loop.state.log_history
        if "loss" in line
    ]
    losses = pd.DataFrame(log)
    if not losses["train_loss"].map(math.isfinite).all():
        raise RuntimeError("Training diverged: the loss is no number any more. Lower learning_rate.")
    return losses


def score_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Squared error, summed over a micro-batch and divided by the examples of the whole batch."""
    error = (outputs.logits[:, 0].float() - labels) ** 2
    return error.sum() / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def pair_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Minus the log-probability of people's order: of each pair the second is the more harmful (Bradley and Terry)."""
    import torch

    less, more = outputs.logits[:, 0].float().view(-1, 2).unbind(1)
    loss = -torch.nn.functional.logsigmoid(more - less)
    return loss.sum() / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def _n_cut(tokenizer: Any, how: harmfulness.Input, examples: list[Example]) -> int:
    """Examples whose conversation did not fit whole."""
    n = 0
    for example in examples:
        ids, lengths = harmfulness.encode(tokenizer, example.texts, how)
        n += any(len(each) < length for each, length in zip(ids, lengths, strict=True))
    return n


# --- validation ---------------------------------------------------------------------------------------------------


def _predictions(
    model: Any, tokenizer: Any, how: harmfulness.Input, params: TrainRewardParams, data: Data
) -> list[dict[str, Any]]:
    """Of each validation example source, and score and predicted, or of a pair predicted_less and predicted_more."""
    texts = [text for example in data.validation for text in example.texts]
    model = model.to(models.pick_device())
    read = [each.score for each in harmfulness.read(model, tokenizer, texts, how, params.micro_batch_size)]
    if data.pairs:
        both = zip(data.validation, read[::2], read[1::2], strict=True)
        return [{"source": each.source, "predicted_less": less, "predicted_more": more} for each, less, more in both]
    return [
        {"source": example.source, "score": example.score, "predicted": predicted}
        for example, predicted in zip(data.validation, read, strict=True)
    ]


def errors(predictions: list[dict[str, Any]], data: Data) -> dict[str, Any]:
    """How far the model is from people on the validation examples.

    Of scores: n, mse (mean squared error) with its interval, mse_of_mean (of always saying the mean of the training
    scores) and mse_by_source. Of pairs: n, accuracy (the share in people's order) with its interval.
    """
    if data.pairs:
        right = estimates.rate([row["predicted_more"] > row["predicted_less"] for row in predictions])
        return {"n": right.n, "accuracy": right.estimate, "low": right.low, "high": right.high}
    mean = sum(example.score or 0.0 for example in data.training) / len(data.training)
    squared = [(row["predicted"] - row["score"]) ** 2 for row in predictions]
    by_source: dict[str, list[float]] = {}
    for row, error in zip(predictions, squared, strict=True):
        by_source.setdefault(row["source"], []).append(error)
    mse = _mean(squared)
    return {
        "n": mse.n,
        "mse": mse.estimate,
        "low": mse.low,
        "high": mse.high,
        "mse_of_mean": sum((row["score"] - mean) ** 2 for row in predictions) / len(predictions),
        "mse_by_source": {name: sum(each) / len(each) for name, each in by_source.items()},
    }


def _mean(values: list[float]) -> estimates.Estimate:
    """The mean of numbers on any scale, with an interval over the examples."""
    import numpy as np

    return estimates.mean_over_seeds(np.array([values]), bounds=None)


def calibration(record: dict[str, Any]) -> "pd.DataFrame":
    """Validation examples in bins of like predictions: columns predicted, observed, low, high, n.

    Of scores: mean prediction, and the mean score of people with its 95 % interval. Of pairs: how sure the model was
    of its order (0.5 to 1), and how often it was people's.
    """
    import pandas as pd

    table = pd.read_csv(Path(record["folder"]) / "predictions.csv")
    if record["trained_on"] == "pairs":
        difference = table["predicted_more"] - table["predicted_less"]
        table = pd.DataFrame({"predicted": 1 / (1 + (-difference.abs()).map(math.exp)), "observed": difference > 0})
    else:
        table = table.rename(columns={"score": "observed"})
    table = table.sort_values("predicted", ignore_index=True)
    n_bins = max(1, min(_MAX_BINS, len(table) // _BIN))
    rows = []
    for _, part in table.groupby(table.index * n_bins // len(table)):
        estimate = (estimates.rate if record["trained_on"] == "pairs" else _mean)(part["observed"].tolist())
        rows.append({
            "predicted": part["predicted"].mean(),
            "observed": estimate.estimate,
            "low": estimate.low,
            "high": estimate.high,
            "n": estimate.n,
        })  # fmt: skip
    return pd.DataFrame(rows)


def losses(record: dict[str, Any]) -> "pd.DataFrame":
    """The losses of the training: columns step, train_loss, learning_rate."""
    import pandas as pd

    return pd.read_csv(Path(record["folder"]) / "losses.csv")


def flat(validation: dict[str, Any]) -> dict[str, float]:
    """Validation figures without the level of sources, for a table."""
    by_source = {f"mse of {name}": each for name, each in validation.get("mse_by_source", {}).items()}
    return {**{name: each for name, each in validation.items() if name != "mse_by_source"}, **by_source}


def finding(record: dict[str, Any]) -> str:
    """The outcome in words, in Markdown."""
    found = record["validation"]
    interval = f"95 % interval {found['low']:.2f} to {found['high']:.2f}, n = {found['n']}"
    if record["trained_on"] == "pairs":
        told = f"puts **{found['accuracy']:.0%}** of the held-out pairs in people's order ({interval})"
    else:
        told = (
            f"is off by a mean squared error of **{found['mse']:.2f}** on held-out prompts ({interval}); always saying "
            f"the mean would give {found['mse_of_mean']:.2f}"
        )
    return (
        f"The model {told}. To judge with it: `judges: [harmfulness:{record['folder']}]`. Held-out prompts are of the "
        "same make as those trained on; on other models' answers look at its agreement with people first."
    )


def main() -> None:
    """Rebuild the miniature's reward model."""
    parser = argparse.ArgumentParser(
        prog="python -m safety_nb.judge.reward_model", description="Train the miniature's reward model."
    )
    parser.add_argument("--out", required=True, help="folder for the model")
    params = TrainRewardParams(out=parser.parse_args().out)
    record = train(params, prepare(params))
    print(finding(record))


if __name__ == "__main__":
    main()
