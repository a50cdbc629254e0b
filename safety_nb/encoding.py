"""Rows to token ids and labels: which tokens are read, and which carry loss.

Takes any Hugging Face tokenizer as an argument; loads nothing and knows no model.
"""

from dataclasses import dataclass
from typing import Any

from safety_nb import prompts

IGNORED = -100  # the label PyTorch's cross-entropy leaves out


@dataclass(frozen=True)
class EncodedRow:
    """One training row as token ids.

    Attributes:
        input_ids: prompt, answer and end token, at most the cutoff long.
        labels: ``IGNORED`` on the prompt, the token itself on the answer and the end token.
        truncated: whether the cutoff took the end of the answer, and with it the end token.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool

    @property
    def supervised_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def encode_prompt(text: str, tokenizer: Any) -> list[int]:
    """Token ids of a rendered prompt, with the start token (once) where the tokenizer has one."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids if tokenizer.bos_token_id is None else [tokenizer.bos_token_id, *ids]


def encode_row(row: dict, tokenizer: Any, cutoff: int) -> EncodedRow:
    """Encode one row of ``mix/train.jsonl`` with loss on the answer and its end token only.

    Prompt and answer are encoded apart, so that the prompt's ids in training are those of generation. The start and
    end tokens are added here, always, because tokenizers differ in what they add by themselves.
    """
    prompt = encode_prompt(prompts.render(row["instruction"], row["input"]), tokenizer)
    answer = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    input_ids = prompt + answer
    labels = [IGNORED] * len(prompt) + answer
    return EncodedRow(input_ids[:cutoff], labels[:cutoff], truncated=len(input_ids) > cutoff)
