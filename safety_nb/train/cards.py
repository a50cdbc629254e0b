"""Model cards: what a trained adapter or a merged model was made of, in Markdown. Shows no text of any row.

Pure strings of the records that training, mixing and export leave; reads and writes no files.
"""

import json
import re
from pathlib import Path
from typing import Any

from safety_nb import __version__
from safety_nb.data.datasets.registry import REGISTRY

_DEVICES = {"cpu": "the CPU", "cuda": "a GPU"}
_TEMPLATES = {"alpaca": "the Alpaca format", "chat": "the model's own chat template"}
_BITS = {4: "in 4 bits (NF4, double quantisation)", 8: "in 8 bits (LLM.int8)", 16: "unquantised"}
_LOSS_ON = {"answers": "loss on the answers only", "all": "loss on every token of a row, its prompt too"}


def adapter_card(training: dict[str, Any], mixture: dict[str, Any] | None) -> str:
    """The card of an adapter.

    Args:
        training: ``train/training.json``.
        mixture: ``mix/mixture.json`` of the rows trained on; None if they are from elsewhere.
    """
    values = training["values"]
    bits = values["base_bits"]
    load = [
        "import torch",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer" + ", BitsAndBytesConfig" * (bits != 16),
        "",
        *_base_lines(training),
        'adapter = "THIS FOLDER"',
        *_loading_lines(bits, training["compute_dtype"]),
        "model = PeftModel.from_pretrained(model, adapter)",
        "tokenizer = AutoTokenizer.from_pretrained(base, revision=revision)",
    ]
    return _card(
        f"LoRA adapter for {_code(base_name(training))}",
        {**_base_field(training), "library_name": "peft", "pipeline_tag": "text-generation"},
        [
            f"Trained with safety-nb {__version__}, which asks how many safety demonstrations an instruction-tuning "
            f"mixture needs: {'LoRA' if bits == 16 else 'QLoRA'}, {_LOSS_ON[values['loss_on']]}. The base is held "
            f"{_BITS[bits]}, and the adapter belongs on it in that form; `safety-nb export` merges both into a 16-bit "
            "model.",
            *_origin(training, mixture),
            "## Loading it",
            _python(load),
            _prompts(training),
            *_licences(training, mixture),
        ],
    )


def merged_card(training: dict[str, Any], mixture: dict[str, Any] | None, export: dict[str, Any]) -> str:
    """The card of a merged model.

    Args:
        training, mixture: see ``adapter_card``.
        export: ``export.json``.
    """
    drift = export["drift"]
    load = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "THIS FOLDER"',
        'model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
    ]
    bits = training["values"]["base_bits"]
    written = "that base is taken" if bits == 16 else f"those {bits}-bit weights are written out"
    return _card(
        f"{_code(base_name(training))} with a LoRA adapter merged in",
        {**_base_field(training), "library_name": "transformers", "pipeline_tag": "text-generation"},
        [
            f"Trained and merged with safety-nb {__version__}. The adapter was trained on the base {_BITS[bits]}; "
            f"here {written} and the adapter is added, in {export['dtype']}.",
            *_origin(training, mixture),
            "## Drift",
            f"Against base and adapter as trained, over the {drift['tokens']:,} answer tokens of {drift['rows']:,} "
            f"{drift['of']} rows, each predicted from the tokens before it:",
            _table(
                ["", ""],
                [
                    ["mean absolute difference of the log-probability (nats)", _number(drift["mean_log_probability"])],
                    ["maximal", _number(drift["max_log_probability"])],
                    ["same likeliest token", f"{drift['same_greedy']:.2%}"],
                ],
            ),
            "## Loading it",
            _python(load),
            _prompts(training),
            *_licences(training, mixture),
        ],
    )


def reward_card(record: dict[str, Any]) -> str:
    """The card of a reward model, from its ``reward.json``."""
    values, found, how = record["values"], record["validation"], record["input"]
    pairs = record["trained_on"] == "pairs"
    measured = [["validated on", f"{found['n']:,} held-out {'pairs' if pairs else 'conversations'}"]]
    name, figure = ("in people's order", found["accuracy"]) if pairs else ("mean squared error", found["mse"])
    measured.append([name, f"{_number(figure)} (95 % interval {_number(found['low'])} to {_number(found['high'])})"])
    if not pairs:
        measured.append(["the same of always saying the mean", _number(found["mse_of_mean"])])
        measured += [[f"mean squared error, {_code(_shown(k))}", _number(v)] for k, v in found["mse_by_source"].items()]
    rows = [
        [_code(_shown(row["source"])), f"{row['training']:,}", f"{row['validation']:,}"]
        for row in record["rows_by_source"]
    ]
    own = ("base_model", "revision", "cpu_threads", "data", "data_dir", "ordinary")
    return _card(
        f"Harmfulness of answers, on {_code(base_name(record))}",
        {**_base_field(record), "library_name": "transformers", "pipeline_tag": "text-classification"},
        [
            f"Trained with safety-nb {__version__} on {'pairs of answers' if pairs else 'scored answers'}. "
            f"The higher its one output, the more harmful the answer{'; it has no scale' if pairs else ''}. It is a "
            "judge to be checked against people on the answers it is to judge, not a filter for use on its own.",
            "## Input",
            f"{_code(json.dumps(how['form']))}, at most {how['max_tokens']} tokens; longer texts lose their "
            f"{'beginning' if how['cut'] == 'left' else 'end'}, which {record['training_rows_cut']:,} of "
            f"{record['training_rows']:,} training rows did.",
            "## Data",
            _table(["data set", "training", "validation"], rows),
            "No first prompt is on both sides.",
            "## Training",
            f"{record['steps']:,} steps on {_DEVICES[record['device']]}.",
            _table(["parameter", "value"], [[_code(name), _code(v)] for name, v in values.items() if name not in own]),
            "## Validation",
            _table(["", ""], measured),
            *_reward_licences(values),
        ],
    )


def _reward_licences(values: dict[str, Any]) -> list[str]:
    tiny = values["base_model"] == "tiny"
    lines = [f"- The base model: {'Apache-2.0' if tiny else 'its licence holds for what is made of it; look it up'}."]
    used = dict.fromkeys([values["data"], *[values["ordinary"]] * bool(values["ordinary"])])
    return ["## Licences", "\n".join([*lines, *[f"- {_code(_shown(name))}: {_licence(name)}" for name in used]])]


def _card(title: str, fields: dict[str, str], parts: list[str]) -> str:
    head = "".join(f"{name}: {value}\n" for name, value in fields.items())
    return f"---\n{head}tags:\n- safety-nb\n---\n\n" + "\n\n".join([f"# {title}", *parts]) + "\n"


def _origin(training: dict[str, Any], mixture: dict[str, Any] | None) -> list[str]:
    """Base, data, training and losses."""
    values = training["values"]
    commit = training["base_commit"] or values["revision"]
    losses = [["training, last tenth of the steps", _number(training["train_loss"])]]
    if training["validation_loss"] is not None:
        losses.append(["validation", _number(training["validation_loss"])])
        losses += [[f"validation, {_code(_shown(k))}", _number(v)] for k, v in training["validation_losses"].items()]
    own = ("base_model", "revision", "cpu_threads", "report_to", "checkpoint_steps", "checkpoint_minutes")
    return [
        "## Base",
        _code(base_name(training)) + (f", revision {_code(commit)}" if commit else ""),
        "## Data",
        *_data(training, mixture),
        "## Training",
        f"{training['steps']:,} steps on {_DEVICES[training['device']]}, computed in {training['compute_dtype']}.",
        _table(["parameter", "value"], [[_code(name), _code(v)] for name, v in values.items() if name not in own]),
        "## Losses",
        "Per token that carries loss, in nats.",
        _table(["", "loss"], losses),
    ]


def _data(training: dict[str, Any], mixture: dict[str, Any] | None) -> list[str]:
    if mixture is None:
        return [f"{training['rows']:,} rows that are not those of a recorded mixture."]
    rows = [["general", mixture["general"], mixture["n_general"]]]
    rows += [["safety demonstrations", mixture["safety"], mixture["n_safety"]]] * bool(mixture["n_safety"])
    rows += [["validation", mixture["validation"], mixture["n_validation"]]] * bool(mixture["n_validation"])
    return [
        _table(["part", "data set", "rows"], [[part, _code(_shown(name)), f"{n:,}"] for part, name, n in rows]),
        f"Mixture (SHA-256): {_code(mixture['mixture_sha256'])}",
    ]


def _licences(training: dict[str, Any], mixture: dict[str, Any] | None) -> list[str]:
    """What whoever passes the weights on has to look at."""
    tiny = training["values"]["base_model"] == "tiny"
    lines = [f"- The base model: {'Apache-2.0' if tiny else 'its licence holds for what is made of it; look it up'}."]
    if mixture is not None:
        used = [mixture["general"], *[mixture["safety"]] * bool(mixture["n_safety"])]
        lines += [f"- {_code(_shown(name))}: {_licence(name)}" for name in dict.fromkeys(used)]
    else:
        lines.append("- The rows: unknown here.")
    return ["## Licences", "\n".join(lines)]


def _licence(name: str) -> str:
    if name not in REGISTRY:
        return "not known to safety-nb; look at where it comes from."
    source = REGISTRY[name]
    limits = " It forbids commercial use." if "NC" in re.split("[ -]", source.licence) else ""
    return f"{source.licence} ({source.citation}).{limits}"


def _prompts(training: dict[str, Any]) -> str:
    values = training["values"]
    guarded = values.get("guard_training") and values.get("guard_prompt")
    behind = ", each behind the guard prompt in `train/training.json`" if guarded else ""
    return f"It was trained on prompts in {_TEMPLATES[values['template']]}{behind}, and answers best to such."


def _base_lines(training: dict[str, Any]) -> list[str]:
    base, revision = training["values"]["base_model"], training["base_commit"] or training["values"]["revision"]
    last = f'revision = "{revision}"' if revision else "revision = None"
    if base == "tiny":
        return ["from safety_nb.train import models", "", 'base = models.locate("tiny")  # comes with safety-nb', last]
    where = "" if training["base_commit"] else "  # the folder of the base model"
    return [f'base = "{base_name(training)}"{where}', last]


def _loading_lines(bits: int, dtype: str) -> list[str]:
    """Python that loads ``base`` as it was trained on."""
    load = "model = AutoModelForCausalLM.from_pretrained(base, revision=revision, "
    if bits == 16:
        return [f"{load}dtype=torch.{dtype})"]
    if bits == 8:
        return [
            "quantization = BitsAndBytesConfig(load_in_8bit=True)",
            f"{load}quantization_config=quantization, dtype=torch.{dtype})",
        ]
    return [
        "quantization = BitsAndBytesConfig(",
        '    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,',
        f"    bnb_4bit_compute_dtype=torch.{dtype},",
        ")",
        f"{load}quantization_config=quantization)",
    ]


def _base_field(training: dict[str, Any]) -> dict[str, str]:
    return {"base_model": base_name(training)} if training["base_commit"] else {}


def base_name(training: dict[str, Any]) -> str:
    """The base's id on the hub; of one from a folder the folder's name."""
    name = training["values"]["base_model"]
    return name if training["base_commit"] else Path(name).name


def _shown(name: str) -> str:
    """A name without the folders above it, which concern nobody else."""
    held_out = "held out of "
    if name.startswith(held_out):
        return held_out + _shown(name.removeprefix(held_out))
    return Path(name).name if name.startswith(("/", "~", ".")) else name


def _code(value: Any) -> str:
    """A value as code, whatever is in it: nothing of it is read as Markdown."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = "".join(character if character.isprintable() else " " for character in text)
    return f"`{text.replace('`', chr(39)).replace('|', '/')}`" if text.strip() else "(empty)"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _python(lines: list[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
