"""What a user wrote is text: control words in rows and prompts are spelt out, whatever kind the tokenizer is of."""

import families
import public_rows
import pytest

from safety_nb.data import templates
from safety_nb.data.datasets import sources
from safety_nb.judge.kinds import harmfulness
from safety_nb.train import models, plain_text
from safety_nb.train.encoding import IGNORED, encode_question, encode_row, end_tokens, render_question

LONG = 10_000
each_family = pytest.mark.parametrize("family", families.READING)
_WORDS = sorted({w for r in families.READING.values() for w in (*r.named.values(), *r.turns)} | {"<|im_end|>"})


def sentences(family: str) -> list[str]:
    """Texts with control words: each alone, in a sentence, at both ends, doubled, run together, one within another."""
    words = _WORDS if family != "unigram" else [word for word in _WORDS if not set(word) - set("<>/|_[]spadnkutefim")]
    every = "".join(words)
    return [
        *words,
        *(f"The king says {word} to the baker." for word in words),
        f"{words[0]} at the start and at the end {words[-1]}",
        every,
        f"{words[0]}{words[0]} and <{words[1]}> and {words[0][:-1]}{words[1]}{words[0][-1]}",
    ]


def row(instruction: str = "Say it.", output: str = "It.", **more: object) -> dict:
    return {"id": "mine-1", "instruction": instruction, "input": "", "output": output, **more}


@each_family
def test_a_text_with_control_words_has_no_control_token_and_reads_as_it_was(family):
    tokenizer = families.tokenizer(family)
    reading = plain_text.reader(tokenizer)
    assert reading.copied
    for text in sentences(family):
        ids = reading.ids(text)
        assert not reading.special & set(ids), text
        assert tokenizer.decode(ids) == text


@each_family
@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_control_words_in_a_row_leave_the_row_the_shape_of_any_other(family, template):
    # The special tokens of a row are those of the template: as many, and in the same order, whatever the texts are.
    tokenizer = families.tokenizer(family)
    special = plain_text.reader(tokenizer).special

    def shape(one: dict) -> tuple[list[int], list[int]]:
        encoded = encode_row(one, tokenizer, LONG, template)
        learned = [label for label in encoded.labels if label != IGNORED]
        return [i for i in encoded.input_ids if i in special], [i for i in learned if i in special]

    expected = shape(row())
    assert len(expected[1]) == 1  # the end of the answer
    for text in sentences(family):
        assert shape(row(text, text)) == expected, text
        encoded = encode_row(row(text, text), tokenizer, LONG, template)
        learned = [label for label in encoded.labels if label != IGNORED]
        assert tokenizer.decode(learned[:-1]).strip() == text.strip()


@each_family
@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_a_prompt_with_control_words_is_asked_as_it_is_trained_on(family, template):
    tokenizer = families.tokenizer(family)
    for text in sentences(family):
        asked = encode_question(text, tokenizer, template)
        assert encode_row(row(text), tokenizer, LONG, template).input_ids[: len(asked)] == asked
        rendered = render_question(text, tokenizer, template)
        assert text.strip() in rendered and plain_text._SECRET not in rendered


@each_family
def test_marks_of_the_template_stay_control_tokens(family):
    tokenizer = families.tokenizer(family)
    reading = plain_text.reader(tokenizer)
    end = end_tokens(tokenizer, "chat")[-1]
    encoded = encode_row(row("</s><|im_end|>", "</s>"), tokenizer, LONG, "chat")
    assert encoded.input_ids[-1] == encoded.labels[-1] == end and end in reading.special


@each_family
def test_text_without_control_words_has_the_ids_it_always_had(family):
    tokenizer = families.tokenizer(family)
    reading = plain_text.reader(tokenizer)
    texts = [templates.render(one["instruction"], one["input"]) for one in sources.training_rows("tiny-general")[:200]]
    texts += [
        *texts[0],
        "",
        " ",
        "\n",
        "  two  blanks ",
        "é 漢 \u200d 🙂",
        "a\n\nb",
        "<",
        "</",
        "s>",
        "< /s>",
        "x" * 500,
    ]
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert [reading.ids(text) for text in texts] == expected
    chat = [{"role": "user", "content": texts[0]}]
    whole = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert encode_question(texts[0], tokenizer, "chat") == tokenizer(whole, add_special_tokens=False)["input_ids"]


@public_rows.needed
@pytest.mark.parametrize("name", ["tiny", "qwen2", "llama", "unigram"])
def test_public_rows_have_the_ids_they_always_had(name):
    """tests/test_real_models.py asks it of real models."""
    public_rows.check_ids(models.load_tokenizer("tiny") if name == "tiny" else families.tokenizer(name))


# Odd tokenizers


def test_turn_marks_that_are_no_special_tokens_are_control_words_and_thoughts_are_not():
    # As of DeepSeek's distilled models: <｜User｜> is an added token that is not special; so is <think>, which an
    # answer may have.
    tokenizer = models.load_tokenizer("tiny")
    tokenizer.add_tokens(["<｜User｜>", "<｜Assistant｜>", "<think>", "king"])
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
        "{% else %}<｜Assistant｜>{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜><think>{% endif %}"
    )
    user, assistant, think, king = tokenizer.convert_tokens_to_ids(["<｜User｜>", "<｜Assistant｜>", "<think>", "king"])
    ids = encode_question("No.<｜Assistant｜>Yes.<think> king", tokenizer, "chat")
    assert (ids.count(user), ids.count(assistant), ids.count(think), ids.count(king)) == (1, 1, 2, 1)


def test_a_padding_token_that_is_an_ordinary_piece_stays_one():
    # As in GPT-2's and LLaMA's descendants whose padding token is "!": it is a piece of text, and merged with others.
    tokenizer = families.tokenizer("qwen2")
    tokenizer.add_special_tokens({"pad_token": "e"})
    reading = plain_text.reader(tokenizer)
    assert reading.copied
    assert tokenizer.decode(reading.ids("the e-mail!")) == "the e-mail!"


def test_special_tokens_that_are_added_later_count():
    tokenizer = models.load_tokenizer("tiny")
    assert tokenizer.convert_tokens_to_ids("<s>") not in plain_text.reader(tokenizer).ids("<s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    assert tokenizer.convert_tokens_to_ids("<|new|>") not in plain_text.reader(tokenizer).ids("a<|new|>b")


def test_a_tokenizer_that_cannot_be_copied_splits_control_words_too(monkeypatch):
    def fail(*_):
        raise RuntimeError("a part of it is in Python")

    monkeypatch.setattr(plain_text, "_renamed", fail)
    tokenizer = families.tokenizer("qwen2")
    reading = plain_text.reader(tokenizer)
    assert not reading.copied
    asked = encode_question("a<|im_end|>b", tokenizer, "chat")
    text = "<|im_start|>user\na<|im_end|>b<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(asked) == text
    # Of the two ends the template's alone is one.
    assert asked.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1


# Classifiers


def test_a_classifier_reads_control_words_of_a_text_as_text_and_those_of_its_form_as_control_words():
    tokenizer = families.tokenizer("unigram")
    reading = plain_text.reader(tokenizer)
    form = reading.marked("<s>{prompt}</s>{response}")
    how = harmfulness.Input(form=form)
    ids, lengths = harmfulness.encode(tokenizer, [how.text("a </s> b", "<pad>")], how)
    assert [i for i in ids[0] if i in reading.special] == [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert lengths == [len(ids[0])]
    (pair,), _ = harmfulness.encode(tokenizer, [("a </s> b", "<pad>")], how)
    assert not reading.special & set(pair)
