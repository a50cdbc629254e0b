"""Rows to tokens: the template, what carries loss, and that training and generation see the same prompt."""

import pytest

from safety_nb.core.errors import InputError
from safety_nb.data import templates
from safety_nb.train import models
from safety_nb.train.encoding import (
    IGNORED,
    encode_prompt,
    encode_question,
    encode_row,
    end_tokens,
    loss_pieces,
    token_table,
)

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
    assert templates.render("Name a colour.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Name a colour.\n"
        "\n"
        "### Response:\n"
    )


def test_template_with_input():
    assert templates.render("Shorten the text.", "A red hat.") == (
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
    assert f"### Instruction:\n{text}\n" in templates.render(text)
    assert f"### Input:\n{text}\n" in templates.render("Explain.", text)


def test_response_is_cut_where_the_model_goes_on_with_a_next_instruction():
    assert templates.cut_next_turn(" Blue.\n\n### Instruction:\nName another.") == "Blue."
    assert templates.cut_next_turn(" Blue. ") == "Blue."


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
    text = templates.render(WITH_INPUT["instruction"], WITH_INPUT["input"]) + WITH_INPUT["output"]
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
    plain = without(templates.render("Hello"), add_special_tokens=False)["input_ids"]
    without.bos_token = None
    assert encode_prompt(templates.render("Hello"), without) == plain


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
    prompt = encode_prompt(templates.render(ROW["instruction"]), tokenizer)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.supervised_tokens == len(encoded.input_ids) - len(prompt)


# The model's own chat template: three ways that templates are made, in words of our own

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (  # as of Llama 3: trims, and writes the date
    "{{ bos_token }}<|head|>system<|/head|>\n\nToday: {{ date_string or strftime_now('%d %b %Y') }}<|eot|>"
    "{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
INST = (  # as of Mistral: the end token ends a turn, and there is no system message
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "<|eot|>"]
TALK = {
    "id": "mine-7",
    "instruction": "Hello.",
    "input": "",
    "output": "Good day.",
    "messages": [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "Where is the crown?"},
        {"role": "assistant", "content": "In the castle."},
    ],
}
SINGLE = {"id": "mine-8", **ROW}


def chatting(template: str):
    tokenizer = models.load_tokenizer("tiny")
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = template
    return tokenizer


def chat(row: dict, template: str, cutoff: int = LONG):
    tokenizer = chatting(template)
    return tokenizer, encode_row(row, tokenizer, cutoff, "chat")


each_template = pytest.mark.parametrize("template", [CHATML, HEADERS, INST], ids=["chatml", "headers", "inst"])


@pytest.mark.parametrize(
    ("template", "whole", "learned"),
    [
        (
            CHATML,
            "<|im_start|>user\nHow can I greet the baker?<|im_end|>\n<|im_start|>assistant\n"
            "Smile at the baker and say good morning.<|im_end|>",
            "Smile at the baker and say good morning.<|im_end|>",
        ),
        (
            HEADERS,
            "<s><|head|>system<|/head|>\n\nToday: 26 Jul 2024<|eot|>"
            "<|head|>user<|/head|>\n\nHow can I greet the baker?<|eot|><|head|>assistant<|/head|>\n\n"
            "Smile at the baker and say good morning.<|eot|>",
            "Smile at the baker and say good morning.<|eot|>",
        ),
        (
            INST,
            "<s>[INST] How can I greet the baker? [/INST] Smile at the baker and say good morning.</s>",
            " Smile at the baker and say good morning.</s>",
        ),
    ],
    ids=["chatml", "headers", "inst"],
)
def test_chat_row_is_the_template_with_loss_on_the_answer_and_its_end_token(template, whole, learned):
    tokenizer, encoded = chat(SINGLE, template)
    assert tokenizer.decode(encoded.input_ids) == whole
    assert tokenizer.decode(supervised(encoded)) == learned


@pytest.mark.parametrize(
    ("template", "learned"),
    [
        (CHATML, "Good day.<|im_end|>In the castle.<|im_end|>"),
        (HEADERS, "Good day.<|eot|>In the castle.<|eot|>"),
        (INST, " Good day.</s> In the castle.</s>"),
    ],
    ids=["chatml", "headers", "inst"],
)
def test_every_answer_of_a_conversation_carries_loss_and_nothing_else(template, learned):
    tokenizer, encoded = chat(TALK, template)
    assert tokenizer.decode(supervised(encoded)) == learned
    pairs = zip(encoded.labels, encoded.input_ids, strict=True)
    assert [label for label, token in pairs if label not in (IGNORED, token)] == []


@each_template
def test_chat_prompt_in_training_is_the_prompt_in_generation(template):
    tokenizer, encoded = chat(SINGLE, template)
    asked = encode_question(SINGLE["instruction"], tokenizer, "chat")
    assert encoded.input_ids == asked + supervised(encoded)


def test_answer_that_would_merge_with_the_prompt_leaves_it_as_it_is_in_generation():
    # A prompt that ends in " th" and an answer that begins with "e": " the" is one token of this tokenizer.
    merging = CHATML.replace("\n{{ m.content }}", ": th{{ m.content }}").replace("assistant\n", "assistant: th")
    tokenizer = chatting(merging)
    assert len(tokenizer(" the", add_special_tokens=False)["input_ids"]) == 1
    encoded = encode_row({**SINGLE, "output": "e king."}, tokenizer, LONG, "chat")
    asked = encode_question(SINGLE["instruction"], tokenizer, "chat")
    assert tokenizer.decode(asked).endswith("assistant: th")
    assert encoded.input_ids[: len(asked)] == asked
    assert tokenizer.decode(supervised(encoded)) == "e king.<|im_end|>"


@pytest.mark.parametrize(
    ("template", "ends"), [(CHATML, ["</s>", "<|im_end|>"]), (HEADERS, ["</s>", "<|eot|>"]), (INST, ["</s>"])]
)
def test_answers_end_at_the_end_token_and_at_that_of_a_turn(template, ends):
    tokenizer = chatting(template)
    assert tokenizer.convert_ids_to_tokens(end_tokens(tokenizer, "chat")) == ends
    assert tokenizer.convert_ids_to_tokens(end_tokens(tokenizer)) == ["</s>"]


def test_input_follows_its_instruction_in_chat():
    tokenizer, encoded = chat({"id": "mine-9", **WITH_INPUT}, CHATML)
    assert "user\nShorten the text.\n\nThe miller has a red hat.<|im_end|>" in tokenizer.decode(encoded.input_ids)


def test_cutoff_within_a_conversation_keeps_the_answers_before_it():
    tokenizer, whole = chat(TALK, CHATML)
    first = whole.labels.index(tokenizer.convert_tokens_to_ids("<|im_end|>")) + 1  # behind the first answer
    _, cut = chat(TALK, CHATML, cutoff=first + 3)
    assert cut.truncated
    assert tokenizer.decode(supervised(cut)) == "Good day.<|im_end|>"


def test_conversation_is_refused_by_the_alpaca_template(tokenizer):
    with pytest.raises(InputError, match="template: row mine-7 is a conversation .* set template to chat"):
        encode_row(TALK, tokenizer, LONG)


def test_tokenizer_without_a_chat_template_is_told():
    tokenizer = chatting(CHATML)
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="has no chat template .* use template: alpaca"):
        end_tokens(tokenizer, "chat")


def test_template_that_rewrites_earlier_turns_is_refused():
    # As some do with the thoughts of earlier answers: the first answer is there only while it is the last.
    rewriting = CHATML.replace("{{ m.content }}", "{{ m.content if m.role == 'user' or loop.last else '' }}")
    _, single = chat(SINGLE, rewriting)
    assert single.supervised_tokens
    with pytest.raises(InputError, match="rewrites earlier turns .seen in row mine-7, turn 4."):
        chat(TALK, rewriting)


def test_template_without_a_token_that_ends_a_turn_is_refused():
    with pytest.raises(InputError, match="ends the answer of row mine-8 by no special token"):
        chat(SINGLE, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}")


def test_row_that_the_template_refuses_is_named():
    with_system = {**TALK, "messages": [{"role": "system", "content": "Be kind."}, *TALK["messages"]]}
    with pytest.raises(InputError, match="refuses row mine-7: only user and assistant"):
        chat(with_system, INST)


# Looking at what is trained on


def test_token_table_tells_what_is_cut_off_and_what_teaches_nothing(tokenizer):
    whole = encode_row(ROW, tokenizer, LONG)
    n, n_prompt = len(whole.input_ids), len(whole.input_ids) - whole.supervised_tokens
    row = {**ROW, "source": "mine", "form": "instruction"}
    expected = {"source": "mine", "form": "instruction", "tokens": n}
    for cutoff, learned in ((n, n - n_prompt), (n - 1, n - n_prompt - 1), (n_prompt, 0)):
        # Of all tokens within the cutoff the first has none to be predicted from.
        expected |= {"end_cut_off": cutoff < n, "answers": learned, "all": cutoff - 1}
        for loss_on in ("answers", "all"):
            supervised = expected[loss_on]
            assert list(token_table([row], tokenizer, cutoff, loss_on=loss_on)) == [
                {**expected, "supervised_tokens": supervised, "nothing_to_learn": supervised == 0}
            ]


def test_pieces_of_a_row_are_its_text_by_what_becomes_of_it(tokenizer):
    whole = encode_row(ROW, tokenizer, LONG)
    prompt = tokenizer.bos_token + templates.render(ROW["instruction"])
    assert loss_pieces(ROW, tokenizer, LONG) == [(prompt, "read"), (ROW["output"] + tokenizer.eos_token, "learned")]
    kept, cut_off = loss_pieces(ROW, tokenizer, len(whole.input_ids) - 1)[1:]
    assert (kept, cut_off) == ((ROW["output"], "learned"), (tokenizer.eos_token, "cut off"))
    first, *others = loss_pieces(ROW, tokenizer, LONG, loss_on="all")
    assert first == (tokenizer.bos_token, "read")
    assert others == [(templates.render(ROW["instruction"]) + ROW["output"] + tokenizer.eos_token, "learned")]


# Loss on all tokens


def test_loss_on_all_is_on_every_token_but_the_first(tokenizer):
    answers, everything = (encode_row(WITH_INPUT, tokenizer, LONG, loss_on=each) for each in ("answers", "all"))
    assert everything.input_ids == answers.input_ids
    assert everything.labels == [IGNORED, *answers.input_ids[1:]]
    assert everything.supervised_tokens == len(answers.input_ids) - 1


def test_loss_on_all_is_on_every_turn_of_a_conversation(tokenizer):
    (answers, everything) = (encode_row(TALK, chatting(INST), LONG, "chat", each) for each in ("answers", "all"))
    assert everything.input_ids == answers.input_ids and everything.labels == [IGNORED, *answers.input_ids[1:]]
    assert answers.supervised_tokens < everything.supervised_tokens


def test_loss_on_all_teaches_what_is_asked_where_the_cutoff_takes_the_answer(tokenizer):
    # As the released script of the paper does.
    assert encode_row(ROW, tokenizer, 10, loss_on="all").supervised_tokens == 9
