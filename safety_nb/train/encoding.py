"""Rows to token ids and labels: which tokens are read, and which carry loss.

Takes any Hugging Face tokenizer as an argument; loads nothing and knows no model. Templates: ``alpaca``
(``templates.py``), or ``chat``, the tokenizer's own chat template. Training and generation encode prompts by the same
functions, so that they cannot drift apart. What a user wrote is text, whatever control words stand in it.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safety_nb.core.errors import InputError
from safety_nb.core.text import first_line, shortened
from safety_nb.data import templates
from safety_nb.train.plain_text import reader

IGNORED = -100  # the label PyTorch's cross-entropy leaves out

# Some templates (Llama 3's) write today's date into the prompt; training and generation have to see the same one.
_DATE = "26 Jul 2024"  # what those templates fall back to themselves


@dataclass(frozen=True)
class EncodedRow:
    """One training row as token ids.

    Attributes:
        input_ids: prompt, answer and end token (of a conversation: all its turns), at most the cutoff long.
        labels: the token itself where it carries loss, ``IGNORED`` elsewhere: on what is asked, or on the first token
            alone, which nothing predicts.
        whole_tokens: length before the cutoff.
    """

    input_ids: list[int]
    labels: list[int]
    whole_tokens: int

    @property
    def supervised_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)

    @property
    def truncated(self) -> bool:
        """Whether the cutoff took the end of the last answer, and with it the end token."""
        return self.whole_tokens > len(self.input_ids)


def encode_prompt(text: str, tokenizer: Any) -> list[int]:
    """Token ids of a rendered Alpaca prompt, with the start token (once) where the tokenizer has one."""
    ids = reader(tokenizer).ids(text)
    return ids if tokenizer.bos_token_id is None else [tokenizer.bos_token_id, *ids]


def render_question(prompt: str, tokenizer: Any, template: str = "alpaca", guard: str = "") -> str:
    """An evaluation prompt as the text a model reads, up to where the answer begins.

    Args:
        guard: a guard prompt: a system message where the chat template has one, else the beginning of the text.

    Raises:
        InputError: the template is ``chat``, and the tokenizer has none that can be used.
    """
    if template == "alpaca":
        return templates.render(prompt, guard=guard)
    return reader(tokenizer).shown(_chat_question(prompt, tokenizer, guard))


def encode_question(prompt: str, tokenizer: Any, template: str = "alpaca", guard: str = "") -> list[int]:
    """Token ids of an evaluation prompt, up to where the answer begins. As ``render_question``."""
    if template == "alpaca":
        return encode_prompt(templates.render(prompt, guard=guard), tokenizer)
    return reader(tokenizer).ids(_chat_question(prompt, tokenizer, guard))


def _chat_question(prompt: str, tokenizer: Any, guard: str) -> str:
    turns = _guarded([{"role": "user", "content": prompt}], guard, tokenizer)
    return _chat(turns, tokenizer, ask=True, name="an evaluation prompt")


def end_tokens(tokenizer: Any, template: str = "alpaca") -> list[int]:
    """Ids at which an answer ends: the tokenizer's end token, and that of a turn in its chat template.

    Raises:
        InputError: see ``encode_row``.
    """
    ends = [tokenizer.eos_token_id]
    if template == "chat":
        probe = {"id": "'Hello'", "instruction": "Hello", "input": "", "output": "Hello"}
        ends.append(_chat_row(probe, tokenizer)[0][-1])
    return list(dict.fromkeys(ends))


def encode_row(
    row: dict, tokenizer: Any, cutoff: int, template: str = "alpaca", loss_on: str = "answers"
) -> EncodedRow:
    """Encode one row of ``mix/train.jsonl``.

    Args:
        loss_on: ``answers``: loss on the answers and their end tokens only, of a conversation in the chat template on
            every answer. ``all``: on every token but the first, that is on what is asked and the template's text too.

    Raises:
        InputError: the Alpaca template has no place for a conversation; or the template is ``chat`` and the tokenizer
            has none, or one that refuses the row, rewrites earlier turns, or ends an answer by no special token.
    """
    input_ids, labels = _tokens(row, tokenizer, template, loss_on)
    return EncodedRow(input_ids[:cutoff], labels[:cutoff], whole_tokens=len(input_ids))


def check_row(row: dict, tokenizer: Any) -> None:
    """Raise InputError at a row that the tokenizer's chat template refuses, or whose earlier turns it rewrites."""
    for _ in _answers(row, tokenizer):
        pass


def _tokens(row: dict, tokenizer: Any, template: str, loss_on: str) -> tuple[list[int], list[int]]:
    """Token ids and labels of a row, nothing cut off."""
    ids, labels = _chat_row(row, tokenizer) if template == "chat" else _alpaca_row(row, tokenizer)
    return (ids, [IGNORED, *ids[1:]]) if loss_on == "all" else (ids, labels)


def _alpaca_row(row: dict, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Prompt and answer are encoded apart, so that the prompt's ids in training are those of generation. The start and
    end tokens are added here, always, because tokenizers differ in what they add by themselves."""
    text, output = templates.alpaca(row)
    prompt = encode_prompt(text, tokenizer)
    answer = reader(tokenizer).ids(output) + [tokenizer.eos_token_id]
    return prompt + answer, [IGNORED] * len(prompt) + answer


# --- the model's own chat template --------------------------------------------------------------------------------


def _answers(row: dict, tokenizer: Any) -> Iterator[tuple[str, str]]:
    """For each answer of a row, the rendered turns up to where it begins, and up to where it has ended."""
    name, turns, text = templates.name_of(row), _turns(row, tokenizer), ""
    for place, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        asked = _chat(turns[:place], tokenizer, ask=True, name=name)
        answered = _chat(turns[: place + 1], tokenizer, ask=False, name=name)
        if not (asked.startswith(text) and answered.startswith(asked)):
            mend = "leave such rows out (on_bad_rows: leave out)" if row.get("messages") else "use template: alpaca"
            raise InputError(
                f"template: the chat template of this tokenizer rewrites earlier turns (seen in {name}, turn "
                f"{place + 1}), so what is trained on would not be what the model is asked with; {mend}, or take a "
                "model with another template."
            )
        yield asked, answered
        text = answered


def _chat_row(row: dict, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Each answer is what the template adds to the rendered turns before it, up to its last special token."""
    name, special = templates.name_of(row), reader(tokenizer).special
    ids: list[int] = []
    labels: list[int] = []
    text, end = "", 0
    for asked, answered in _answers(row, tokenizer):
        ids = _longer(ids, text, asked, tokenizer)
        labels += [IGNORED] * (len(ids) - len(labels))
        ids = _longer(ids, asked, answered, tokenizer)
        ends = [position for position in range(len(labels), len(ids)) if ids[position] in special]
        if not ends:
            raise InputError(
                f"template: the chat template of this tokenizer ends the answer of {name} by no special token, so a "
                "model could not learn to stop; use template: alpaca, or a model with another template."
            )
        end = ends[-1] + 1
        labels += ids[len(labels) : end] + [IGNORED] * (len(ids) - end)
        text = answered
    if not end:  # no answer: nothing carries loss, which is counted where rows are
        ids = reader(tokenizer).ids(_chat(_turns(row, tokenizer), tokenizer, ask=False, name=name))
        return ids, [IGNORED] * len(ids)
    return ids[:end], labels[:end]


def _turns(row: dict, tokenizer: Any) -> list[dict]:
    return _guarded(templates.messages(row), row.get("guard", ""), tokenizer)


def _guarded(turns: list[dict], guard: str, tokenizer: Any) -> list[dict]:
    """The turns with a guard prompt: a system message, before what one says that is there; where the chat template has
    no place for one, before what the user says first."""
    if not guard:
        return turns
    role = "system" if _has_system(tokenizer, str(tokenizer.chat_template)) else "user"
    place = next((place for place, turn in enumerate(turns) if turn["role"] == role), None)
    if place is None:
        return [{"role": role, "content": guard}, *turns]
    first = {**turns[place], "content": f"{guard}\n\n{turns[place]['content']}"}
    return [*turns[:place], first, *turns[place + 1 :]]


@functools.lru_cache(maxsize=8)
def _has_system(tokenizer: Any, chat_template: str) -> bool:
    """Whether a system message comes out of a chat template: some refuse one, others leave it out without a word."""
    said = "Be kind."
    turns = [{"role": "system", "content": said}, {"role": "user", "content": "Hello"}]
    try:
        return said in _chat(turns, tokenizer, ask=True, name="a system message")
    except InputError:
        return False


def check_guard(guard: str, tokenizer: Any, template: str, room: int | None, why: str) -> None:
    """Check that a guard prompt stands whole in what a model is asked, and leaves room for more.

    Args:
        room: tokens that it and what is asked may have, None for any; why: what sets that limit, for the message.

    Raises:
        InputError: it does not.
    """
    if guard not in render_question("Hello", tokenizer, template, guard):
        raise InputError(
            "guard_prompt: the chat template of this tokenizer leaves it out or changes it; write it without what the "
            "template may take for markup, set template to alpaca, or leave guard_prompt empty."
        )
    tokens = len(encode_question("Hello", tokenizer, template, guard))
    if room is not None and tokens >= room:
        raise InputError(
            f"guard_prompt: with it a prompt of one word has {tokens} tokens, and there is room for {room} ({why}); "
            "shorten it, or make room."
        )


def _chat(turns: list[dict], tokenizer: Any, *, ask: bool, name: str) -> str:
    """The turns as the chat template writes them, its control words marked; with ``ask``, up to an answer's begin."""
    if not tokenizer.chat_template:
        raise InputError(
            "template: the tokenizer of base_model has no chat template (models that were never tuned to chat have "
            "none); use template: alpaca, or a model that has one."
        )
    words = reader(tokenizer)
    veiled = [{**words.veiled(turn), "role": turn["role"]} for turn in turns]
    try:
        text = tokenizer.apply_chat_template(veiled, tokenize=False, add_generation_prompt=ask, date_string=_DATE)
        return words.unveiled(words.marked(text))
    except Exception as error:  # what the code of a template raises has no common kind
        raise InputError(
            f"template: the chat template of this tokenizer refuses {name}: {shortened(first_line(error), 200)}."
        ) from error


def _longer(ids: list[int], text: str, longer: str, tokenizer: Any) -> list[int]:
    """The ids of ``longer``, which begins with ``text``, as a continuation of ``ids``.

    Where the two would merge into other tokens at the seam, what is added is encoded apart: at generation the
    tokens before the answer are given too.
    """
    words = reader(tokenizer)
    whole = words.ids(longer)
    return whole if whole[: len(ids)] == ids else ids + words.ids(longer[len(text) :])


# --- looking at what is trained on --------------------------------------------------------------------------------


def token_table(
    rows: list[dict], tokenizer: Any, cutoff: int, template: str = "alpaca", loss_on: str = "answers"
) -> Iterator[dict]:
    """What the cutoff, the template and ``loss_on`` make of each row.

    Yields:
        source, form; tokens (before the cutoff), supervised_tokens (within it), answers and all (what those would be
        with that ``loss_on``); end_cut_off: the answer goes on behind the cutoff, and its end token is not learned;
        nothing_to_learn: no supervised token is within it.

    Raises:
        InputError: see ``encode_row``.
    """
    for row in rows:
        encoded = encode_row(row, tokenizer, cutoff, template)
        by_choice = {"answers": encoded.supervised_tokens, "all": len(encoded.input_ids) - 1}
        yield {
            "source": row["source"],
            "form": row["form"],
            "tokens": encoded.whole_tokens,
            "supervised_tokens": by_choice[loss_on],
            **by_choice,
            "end_cut_off": encoded.truncated,
            "nothing_to_learn": not by_choice[loss_on],
        }


def loss_pieces(
    row: dict, tokenizer: Any, cutoff: int, template: str = "alpaca", loss_on: str = "answers"
) -> list[tuple[str, str]]:
    """A row as the texts of its runs of tokens, each with what becomes of it: ``read``, ``learned`` or ``cut off``."""
    pieces: list[tuple[list[int], str]] = []
    ids, labels = _tokens(row, tokenizer, template, loss_on)
    for place, (token, label) in enumerate(zip(ids, labels, strict=True)):
        fate = "cut off" if place >= cutoff else "read" if label == IGNORED else "learned"
        if not pieces or pieces[-1][1] != fate:
            pieces.append(([], fate))
        pieces[-1][0].append(token)
    return [(tokenizer.decode(tokens), fate) for tokens, fate in pieces]
