"""Rows to tokens: the template, what carries loss, and that training and generation see the same prompt."""

import pytest

from safety_nb import models, prompts
from safety_nb.encoding import IGNORED, encode_prompt, encode_row

ROW = {"instruction": "How can I greet the baker?", "input": "", "output": "Smile at the baker and say good morning."}
WITH_INPUT = {"instruction": "Shorten the text.", "input": "The miller has a red hat.", "output": "A red hat."}
LONG = 10_000  # a cutoff that cuts nothing


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("tiny")


def supervised(encoded) -> list[int]:
    return [label for label in encoded.labels if label != IGNORED]


# The template, written out: it is Stanford Alpaca's


def test_template_without_input():
    assert prompts.render("Name a colour.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Name a colour.\n"
        "\n"
        "### Response:\n"
    )


def test_template_with_input():
    assert prompts.render("Shorten the text.", "A red hat.") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Shorten the text.\n"
        "\n"
        "### Input:\n"
        "A red hat.\n"
        "\n"
        "### Response:\n"
    )


@pytest.mark.parametrize("text", ["{}", "{input}", "{instruction} {0} {{x}}", "def f(): return {'a': 1}"])
def test_braces_are_text_like_any_other(text):
    assert f"### Instruction:\n{text}\n" in prompts.render(text)
    assert f"### Input:\n{text}\n" in prompts.render("Explain.", text)


def test_response_is_cut_where_the_model_goes_on_with_a_next_instruction():
    assert prompts.cut_next_turn(" Blue.\n\n### Instruction:\nName another.") == "Blue."
    assert prompts.cut_next_turn(" Blue. ") == "Blue."


# Labels


@pytest.mark.parametrize("row", [ROW, WITH_INPUT], ids=["without input", "with input"])
def test_loss_is_on_the_answer_and_the_end_token_exactly(row, tokenizer):
    tokens = supervised(encode_row(row, tokenizer, LONG))
    assert tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens[:-1]) == row["output"]


def test_labels_are_the_tokens_themselves_where_they_are_not_ignored(tokenizer):
    encoded = encode_row(ROW, tokenizer, LONG)
    assert len(encoded.labels) == len(encoded.input_ids)
    pairs = zip(encoded.labels, encoded.input_ids, strict=True)
    assert [label for label, token in pairs if label not in (IGNORED, token)] == []


def test_ignored_labels_are_one_block_before_the_answer(tokenizer):
    encoded = encode_row(ROW, tokenizer, LONG)
    n_prompt = len(encoded.labels) - encoded.supervised_tokens
    assert encoded.labels[:n_prompt] == [IGNORED] * n_prompt


def test_ignored_label_is_the_one_of_the_loss():
    # torch.nn.CrossEntropyLoss's ignore_index, documented as -100.
    assert IGNORED == -100


def test_whole_row_reads_as_prompt_then_answer(tokenizer):
    encoded = encode_row(WITH_INPUT, tokenizer, LONG)
    text = prompts.render(WITH_INPUT["instruction"], WITH_INPUT["input"]) + WITH_INPUT["output"]
    assert tokenizer.decode(encoded.input_ids) == f"{tokenizer.bos_token}{text}{tokenizer.eos_token}"


def test_empty_answer_teaches_to_stop(tokenizer):
    assert supervised(encode_row({**ROW, "output": ""}, tokenizer, LONG)) == [tokenizer.eos_token_id]


# Start token


def test_start_token_stands_first_and_once(tokenizer):
    ids = encode_row(ROW, tokenizer, LONG).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_start_token_is_not_doubled_by_a_tokenizer_that_adds_its_own():
    from tokenizers.processors import TemplateProcessing

    adding = models.load_tokenizer("tiny")
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", adding.bos_token_id)]
    )
    assert adding("x")["input_ids"][0] == adding.bos_token_id  # it does add one
    assert encode_row(ROW, adding, LONG).input_ids.count(adding.bos_token_id) == 1


def test_tokenizer_without_a_start_token_gets_none():
    without = models.load_tokenizer("tiny")
    plain = without(prompts.render("Hello"), add_special_tokens=False)["input_ids"]
    without.bos_token = None
    assert encode_prompt(prompts.render("Hello"), without) == plain


# Cutoff


def test_row_as_long_as_the_cutoff_is_whole(tokenizer):
    whole = encode_row(ROW, tokenizer, LONG)
    exact = encode_row(ROW, tokenizer, len(whole.input_ids))
    assert exact == whole
    assert not exact.truncated


def test_cutoff_takes_the_end_of_the_answer_and_the_end_token(tokenizer):
    whole = encode_row(ROW, tokenizer, LONG)
    cut = encode_row(ROW, tokenizer, len(whole.input_ids) - 2)
    assert (cut.input_ids, cut.labels) == (whole.input_ids[:-2], whole.labels[:-2])
    assert cut.truncated
    # An end token put after half an answer would teach to stop there.
    assert tokenizer.eos_token_id not in cut.input_ids


def test_cutoff_within_the_prompt_leaves_nothing_to_learn(tokenizer):
    assert encode_row(ROW, tokenizer, 3).supervised_tokens == 0


# Training and generation


@pytest.mark.parametrize("output", ["Blue.", " Blue.", "\nBlue.", "\n\n### Response:\n", "ing"])
def test_prompt_in_training_is_the_prompt_in_generation_whatever_the_answer(output, tokenizer):
    # Encoded in one piece, the end of the prompt and the start of the answer could merge into other tokens.
    encoded = encode_row({**ROW, "output": output}, tokenizer, LONG)
    prompt = encode_prompt(prompts.render(ROW["instruction"]), tokenizer)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.supervised_tokens == len(encoded.input_ids) - len(prompt)
