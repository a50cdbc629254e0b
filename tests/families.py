"""Small models with random weights, each of the real class of its family, saved as any model of a user's would be.

Each has a tokenizer of its family's kind, trained here, with the family's special tokens, and a chat template that
marks turns as the family does (written here).
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_nb.tiny import world

LAYERS = 2
_LLAMA_LIKE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_FALCON_LIKE = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
# By hand: the linear layers of one decoder layer.
LINEAR = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "gemma": _LLAMA_LIKE,
    "gemma2": _LLAMA_LIKE,
    "gemma3_text": _LLAMA_LIKE,
    "falcon": _FALCON_LIKE,
    "gpt_neox": _FALCON_LIKE,
    "phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"],
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
}
_MORE = {name: {"head_dim": 16} for name in ("qwen3", "gemma", "gemma2", "gemma3_text")}  # theirs is no quotient


@dataclass(frozen=True)
class Reading:
    """How a family reads.

    Attributes:
        kind: bytes (byte-level BPE), fallback (BPE whose unknown characters are bytes) or unigram.
        named: its start, end, padding and unknown tokens, those it has; turns: its other special tokens.
        template: its chat template.
    """

    kind: str
    named: dict[str, str]
    turns: tuple[str, ...]
    template: str


def _by_turns(before: str, role: str, content: str, asking: str) -> str:
    """A chat template: each turn as its role and content are written, and how an answer begins."""
    return (
        f"{before}{{% for m in messages %}}{role}{content}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{asking}{{% endif %}}"
    )


_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_CHATML = _by_turns("", "<|im_start|>{{ m.role }}\n", "{{ m.content }}<|im_end|>\n", "<|im_start|>assistant\n")
_INST = (  # the end token ends an answer; no system message
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
_END_OF_TEXT = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
_OF_END = _by_turns(
    "", "{% if m.role == 'user' %}User: {% else %}Falcon: {% endif %}", "{{ m.content }}{{ eos_token }}\n", "Falcon: "
)
_QWEN = Reading(
    "bytes",
    {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    ("<|im_start|>",),
    _CHATML,
)
_GEMMA = Reading(
    "fallback",
    {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
    ("<start_of_turn>", "<end_of_turn>"),
    _by_turns(
        "{{ bos_token }}",
        "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n",
        "{{ m.content | trim }}<end_of_turn>\n",
        "<start_of_turn>model\n",
    ),
)
_FALCON = Reading("bytes", _END_OF_TEXT, (), _OF_END)
READING = {
    "llama": Reading("fallback", {**_LLAMA, "pad_token": "<pad>"}, (), _INST),
    "mistral": Reading("fallback", _LLAMA, ("[INST]", "[/INST]"), _INST),
    "qwen2": _QWEN,
    "qwen3": _QWEN,
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "falcon": _FALCON,
    "gpt_neox": _FALCON,
    "phi": _FALCON,
    "phi3": Reading(
        "fallback",
        {**_LLAMA, "eos_token": "<|endoftext|>"},
        ("<|user|>", "<|assistant|>", "<|end|>"),
        _by_turns("", "<|{{ m.role }}|>\n", "{{ m.content }}<|end|>\n", "<|assistant|>\n"),
    ),
    # Of no family above, but of many others (XGLM, and those of T5's making).
    "unigram": Reading(
        "unigram", {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}, (), _INST
    ),
}


@functools.cache
def _trained(kind: str, special: tuple[str, ...]) -> str:
    """A tokenizer of 1,024 tokens trained on the miniature's rows, as JSON."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    rows = world.general_rows()[:400]
    texts = [f"{row['instruction']} {row['input']}\n{row['output']}" for row in rows]
    texts += ["### Instruction: </s> <pad> <|im_end|> [INST] a/b | _ <br> 'x' \"y\" {z} 0123456789"] * 20
    common = {"vocab_size": 1024, "special_tokens": list(special), "show_progress": False}
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(**common, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    else:
        # As sentencepiece does it: blanks are pieces of words, and a text begins with one.
        blanks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        as_bytes = [f"<0x{number:02X}>" for number in range(256)]
        if kind == "fallback":
            tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
            common["special_tokens"] = [*special, *as_bytes]
            trainer = trainers.BpeTrainer(**common)
        else:
            tokenizer = Tokenizer(models.Unigram())
            trainer = trainers.UnigramTrainer(**common, unk_token="<unk>")
        tokenizer.normalizer = normalizers.Sequence(blanks)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?<=[^▁])(?=▁)"), "isolated")
        tokenizer.decoder = decoders.Sequence(back)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def tokenizer(family: str) -> Any:
    """The tokenizer of a family."""
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    reading = READING[family]
    special = tuple(dict.fromkeys([*reading.named.values(), *reading.turns]))
    state = json.loads(_trained(reading.kind, special))
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]  # not the bytes
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        **reading.named,
        additional_special_tokens=list(reading.turns),
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = reading.template
    return made


def save(family: str, folder: Path) -> str:
    """Save a model of a family with its tokenizer, and return what names it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    made = tokenizer(family)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(made),
        hidden_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        bos_token_id=made.bos_token_id,
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
        **_MORE.get(family, {}),
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return str(folder)
