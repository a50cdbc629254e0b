"""A row that a template has no place for is a bad row of its file, told before anything is written."""

import json
import shutil
from pathlib import Path

import pytest

from safety_nb.core.errors import InputError
from safety_nb.core.params import MixParams, RunParams
from safety_nb.data import mixing
from safety_nb.run import checks
from safety_nb.train import models, template_fit
from safety_nb.train.encoding import IGNORED, encode_row

# Chat templates as families write them, in words of our own, over the miniature's tokenizer.
_TURN = "{{ m.role }}:\n{{ m.content }}</s>\n"
_ASK = "{% if add_generation_prompt %}assistant:\n{% endif %}"
_ALL = "{% for m in messages %}" + _TURN + "{% endfor %}"
KINDS = {
    "plain": "{{ bos_token }}" + _ALL + _ASK,
    # No system message, and turns that alternate (Mistral, Gemma).
    "strict": "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must take turns') }}{% endif %}" + _TURN + "{% endfor %}" + _ASK,
    # A system prompt where there is none (Qwen2.5).
    "default": "{{ bos_token }}{% if messages[0].role != 'system' %}system:\nYou are Quill.</s>\n{% endif %}"
    + _ALL
    + _ASK,
    # Takes the thoughts out of earlier turns, and writes empty ones into the last (Qwen3).
    "thinking": "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}assistant:\n{% if loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content.split('</think>')[-1].lstrip('\n') }}</s>\n{% else %}"
    + _TURN
    + "{% endif %}{% endfor %}"
    + _ASK,
    # No special token ends an answer.
    "endless": "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    # Fails in its own code at a system message.
    "broken": "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content + 1 }}{% endif %}"
    + _TURN
    + "{% endfor %}"
    + _ASK,
}


def say(role: str, content: str) -> dict:
    return {"role": role, "content": content}


SINGLE = [{"messages": [say("user", f"Say {n}."), say("assistant", f"{n}.")]} for n in range(8)]
SYSTEM = {"messages": [say("system", "Be brief."), say("user", "Name a bird."), say("assistant", "A heron.")]}
MULTI = {
    "messages": [
        *(say("user", "Name a bird."), say("assistant", "A heron.")),
        *(say("user", "Another."), say("assistant", "A crane.")),
    ]
}
PIRATE = {
    "instruction": "Name a river.",
    "output": "The Oder.",
    "system": "Answer as a pirate.",
    "history": [["Hello.", "Ahoy."]],
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, str]:
    """The miniature's base with each of the chat templates, by its kind."""
    folder = tmp_path_factory.mktemp("bases")
    for kind, template in KINDS.items():
        shutil.copytree(models.locate("tiny"), folder / kind)
        (folder / kind / "chat_template.jinja").write_text(template)
    return {kind: str(folder / kind) for kind in KINDS}


def params(folder: Path, rows: list[dict], base: str, **values: object) -> RunParams:
    """Of a run whose general rows are in a file: six of them, and one of the rest to validate on."""
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {"n_general": 6, "n_safety": 0, "validation": "", "n_validation": 1, "evaluation": ["tiny-facts"]}
    return RunParams(general=str(path), base_model=base, **{"template": "chat", **common, **values})


@pytest.mark.parametrize(
    ("kind", "rows", "told"),
    [
        (
            "strict",
            [*SINGLE, SYSTEM],
            "line 9: template: the chat template of this tokenizer refuses the row: Roles must",
        ),
        ("thinking", [*SINGLE, MULTI], "line 9: template: the chat template of this tokenizer rewrites earlier turns"),
        ("broken", [*SINGLE, SYSTEM], "line 9: template: the chat template of this tokenizer refuses the row: "),
        ("endless", SINGLE, "ends the answer of row 'Hello' by no special token"),
    ],
)
def test_a_row_that_the_chat_template_has_no_place_for_is_told_by_its_line(tmp_path, bases, kind, rows, told):
    asked = params(tmp_path, rows, bases[kind])
    with pytest.raises(InputError) as error:
        checks.check_run(asked)
    (message,) = str(error.value).splitlines()  # once, although model and rows are both looked at
    assert told in message
    if "line" in told:
        assert "on_bad_rows: leave out" in message
        # What it advises works.
        kept = asked.model_copy(update={"on_bad_rows": "leave out"})
        checks.check_run(kept)
        mixture = mixing.draw(kept, template_fit.of(kept))
        assert [len(pool.left_out) for pool in mixture.pools.values()] == [1, 0]
        assert not any("heron" in row["output"] for row in mixture.train + mixture.validation)


@pytest.mark.parametrize(("kind", "row"), [("plain", MULTI), ("default", SYSTEM), ("strict", MULTI), ("plain", PIRATE)])
def test_a_row_that_the_chat_template_has_a_place_for_is_taken(tmp_path, bases, kind, row):
    checks.check_run(params(tmp_path, [*SINGLE, row], bases[kind]))


@pytest.mark.parametrize("row", [SYSTEM, MULTI, PIRATE])
def test_a_conversation_is_a_bad_row_in_the_alpaca_template(tmp_path, row):
    asked = params(tmp_path, [*SINGLE, row], "tiny", template="alpaca")
    with pytest.raises(InputError, match="mine.jsonl, line 9: template: the row is a conversation"):
        checks.check_run(asked)
    checks.check_run(asked.model_copy(update={"on_bad_rows": "leave out"}))


def test_without_a_chat_template_all_that_is_told_is_that(tmp_path):
    with pytest.raises(InputError) as error:
        checks.check_run(params(tmp_path, SINGLE, "tiny"))
    assert "has no chat template" in str(error.value) and len(str(error.value).splitlines()) == 1


def test_system_prompt_and_history_are_trained_with_loss_on_every_answer_and_on_no_prompt(tmp_path, bases):
    asked = params(tmp_path, [{**PIRATE, "instruction": f"Name river {n}."} for n in range(7)], bases["plain"])
    mixture = mixing.draw(asked, template_fit.of(asked))
    tokenizer = models.load_tokenizer(bases["plain"])
    for row in mixture.train:
        encoded = encode_row(row, tokenizer, 10_000, "chat")
        assert tokenizer.decode(encoded.input_ids) == (
            "<s>system:\nAnswer as a pirate.</s>\nuser:\nHello.</s>\nassistant:\nAhoy.</s>\n"
            f"user:\n{row['instruction']}</s>\nassistant:\nThe Oder.</s>"
        )
        learned = [label for label in encoded.labels if label != IGNORED]
        assert tokenizer.decode(learned) == "Ahoy.</s>The Oder.</s>"


@pytest.mark.parametrize("extra", [{}, {"safety_form": "question"}])
def test_a_question_keeps_the_system_prompt_of_its_row(tmp_path, bases, extra):
    rows = [{**PIRATE, "question": f"Which river is number {n}?"} for n in range(7)]
    values = {"n_safety": 3, "safety": str(tmp_path / "mine.jsonl"), "general": "tiny-general", **extra}
    asked = params(tmp_path, rows, bases["plain"]).model_copy(update=values)
    mixture = mixing.draw(asked, template_fit.of(asked))
    for row in mixture.train[-3:]:
        messages = row["messages"]
        assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"]
        assert messages[3]["content"] == row["instruction"]
        assert (row["instruction"] == "Name a river.") is not bool(extra)


def test_fields_that_nothing_reads_are_in_the_record_of_the_mixture_once(tmp_path):
    rows = [{"instruction": f"Say {n}.", "output": f"{n}.", "difficulty": n, "author": "me"} for n in range(8)]
    asked = params(tmp_path, rows, "tiny", template="alpaca").model_copy(update={"run_dir": str(tmp_path / "run")})
    record = mixing.mix(MixParams.model_validate({name: getattr(asked, name) for name in MixParams.model_fields}))
    assert record["unread_fields"] == {asked.general: ["difficulty", "author"]}
    assert f"Fields of {asked.general} that nothing reads: difficulty, author." in list(mixing.remarks(record))
