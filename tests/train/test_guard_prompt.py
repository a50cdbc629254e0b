"""A guard prompt: where it stands in what a model is asked and trained on, and where it can't."""

import shutil
from pathlib import Path

import pytest
import yaml
from commands import safety_nb

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import GenerateParams, MixParams, RunParams, TrainParams, validate
from safety_nb.data import decontamination, mixing, templates
from safety_nb.data.datasets import sources
from safety_nb.generate import generation
from safety_nb.run import checks, runner, stages
from safety_nb.train import inputs, models, template_fit
from safety_nb.train.encoding import IGNORED, encode_question, encode_row, render_question

GUARD = "Be kind, always."
ROW = {"instruction": "Name a bird.", "input": "", "output": "A heron."}
TURNS = [{"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "A heron."}]
_TURN = "{{ m.role }}: {{ m.content }}</s>"
_ASK = "{% if add_generation_prompt %}assistant: {% endif %}"
# Chat templates as there are: with a system message; one that refuses it (Gemma's); one that leaves it out without a
# word; one with a default that a system message takes the place of (Qwen's); one that changes what is said.
KINDS = {
    "system": "{% for m in messages %}" + _TURN + "{% endfor %}" + _ASK,
    "refusing": "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    + _TURN
    + "{% endfor %}"
    + _ASK,
    "dropping": "{% for m in messages %}{% if m.role != 'system' %}" + _TURN + "{% endif %}{% endfor %}" + _ASK,
    "default": "{% if messages[0].role != 'system' %}system: You are Quill.</s>{% endif %}"
    + "{% for m in messages %}"
    + _TURN
    + "{% endfor %}"
    + _ASK,
    "shouting": "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}</s>{% endfor %}" + _ASK,
}


def chatting(kind: str):
    tokenizer = models.load_tokenizer("tiny")
    tokenizer.chat_template = KINDS[kind]
    return tokenizer


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, str]:
    """The miniature's base with each of the chat templates, by its kind."""
    folder = tmp_path_factory.mktemp("bases")
    for kind, template in KINDS.items():
        shutil.copytree(models.locate("tiny"), folder / kind)
        (folder / kind / "chat_template.jinja").write_text(template)
    return {kind: str(folder / kind) for kind in KINDS}


def refused(folder: Path, **values: object) -> str:
    """What is said of a run that is refused: with status 2, and nothing written."""
    (folder / "mine.yaml").write_text(yaml.safe_dump({"evaluation": ["tiny-facts"], "n_general": 8, **values}))
    done = safety_nb("run", "mine.yaml", "--out", "run", cwd=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert [path.name for path in folder.iterdir()] == ["mine.yaml"]
    return " ".join(done.stderr.split())


# Where it stands


def test_in_the_alpaca_template_it_is_a_passage_of_its_own_before_all_else():
    tokenizer = models.load_tokenizer("tiny")
    asked = render_question("Name a bird.", tokenizer, guard=GUARD)
    assert asked == f"{GUARD}\n\n{templates.render('Name a bird.')}"
    assert render_question("Name a bird.", tokenizer) == templates.render("Name a bird.")


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("system", f"system: {GUARD}</s>user: Name a bird.</s>assistant: "),
        ("refusing", f"user: {GUARD}\n\nName a bird.</s>assistant: "),
        ("dropping", f"user: {GUARD}\n\nName a bird.</s>assistant: "),
        ("default", f"system: {GUARD}</s>user: Name a bird.</s>assistant: "),
    ],
)
def test_in_a_chat_template_it_is_a_system_message_or_else_a_prefix(kind, asked):
    assert render_question("Name a bird.", chatting(kind), "chat", GUARD) == asked


@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_what_is_asked_is_what_was_trained_on_and_none_of_it_carries_loss(template):
    tokenizer = chatting("system")
    (row,) = templates.guarded([ROW], GUARD)
    encoded = encode_row(row, tokenizer, 10_000, template)
    asked = encode_question("Name a bird.", tokenizer, template, GUARD)
    assert encoded.input_ids[: len(asked)] == asked
    assert encoded.labels[: len(asked)] == [IGNORED] * len(asked)
    assert encoded.labels[len(asked) :] == encoded.input_ids[len(asked) :]


def test_it_goes_before_the_system_message_that_a_conversation_has():
    turns = [{"role": "system", "content": "Be brief."}, *TURNS]
    (row,) = templates.guarded([{**ROW, "messages": turns}], GUARD)
    tokenizer = chatting("system")
    text = tokenizer.decode(encode_row(row, tokenizer, 10_000, "chat").input_ids)
    assert text.startswith(f"system: {GUARD}\n\nBe brief.</s>user: Name a bird.</s>")


def test_a_control_word_in_it_is_text():
    # The end token's word, spelt out: as an end token the model would read the prompt as over.
    tokenizer = chatting("system")
    ids = encode_question("Hello", tokenizer, "chat", "Say </s> and stop.")
    plain = encode_question("Hello", tokenizer, "chat", "Say it and stop.")
    assert ids.count(tokenizer.eos_token_id) == plain.count(tokenizer.eos_token_id) == 2


# Where it can't stand


def test_one_that_the_chat_template_changes_is_refused_before_anything_is_written(tmp_path, bases):
    said = refused(tmp_path, base_model=bases["shouting"], template="chat", guard_prompt=GUARD)
    assert said.startswith("Error: guard_prompt: the chat template of this tokenizer leaves it out or changes it;")
    checks.check_run(RunParams(base_model=bases["shouting"], template="chat", n_general=8, evaluation=["tiny-facts"]))


def test_one_that_leaves_the_model_no_room_is_refused_before_anything_is_written(tmp_path):
    said = refused(tmp_path, guard_prompt="Be kind." * 600)
    assert "guard_prompt: with it a prompt of one word has" in said
    # The miniature has 1,024 positions, 64 of them for the answer.
    assert "there is room for 960 (the model's 1024 positions, less 64 for the answer)" in said


def test_one_as_long_as_the_cutoff_is_refused_where_it_is_trained_with():
    values = {"n_general": 8, "evaluation": ["tiny-facts"], "guard_prompt": "Be kind." * 40, "cutoff": 64}
    with pytest.raises(InputError, match=r"guard_prompt: .* there is room for 64 \(the cutoff of a row\)"):
        checks.check_run(RunParams(**values, guard_training=True))
    checks.check_run(RunParams(**values))


@pytest.mark.parametrize("text", ["  ", f" {GUARD}", f"{GUARD}\n"])
def test_one_with_blanks_at_its_ends_is_refused(text):
    # A chat template may take them off: it would not stand there whole, and one text would have two fingerprints.
    with pytest.raises(InputError, match="guard_prompt: .* should be a text without blanks at its ends"):
        validate(RunParams, {"guard_prompt": text})
    assert RunParams(guard_prompt=GUARD).guard_prompt == GUARD


# What depends on it


def prints(folder: Path, **values: object) -> dict[str, str]:
    run = run_folder.RunFolder(folder)
    return {stage.name: runner.fingerprint(run, stage, RunParams(**values)) for stage in stages.STAGES}


def test_asking_depends_on_it_and_training_only_where_rows_have_it(tmp_path):
    plain, asked = prints(tmp_path), prints(tmp_path, guard_prompt=GUARD)
    assert {name for name in plain if plain[name] != asked[name]} == {"generate"}
    trained = prints(tmp_path, guard_prompt=GUARD, guard_training=True)
    other = prints(tmp_path, guard_prompt="Be brief.", guard_training=True)
    assert {name for name in plain if trained[name] != other[name]} == {"mix", "train", "generate"}


@pytest.mark.parametrize(("training", "n_guarded"), [(False, 0), (True, 6)])
def test_rows_are_trained_with_it_if_that_is_asked_for(tmp_path, training, n_guarded):
    values = {"run_dir": str(tmp_path), "guard_prompt": GUARD, "guard_training": training}
    record = mixing.mix(MixParams(**values, n_general=5, n_safety=1, n_validation=0))
    assert record.get("guard_prompt") == (GUARD if training else None)
    tokenizer = models.load_tokenizer("tiny")
    found = inputs.read(run_folder.RunFolder(tmp_path), TrainParams(**values), tokenizer)
    texts = [tokenizer.decode(row.input_ids, skip_special_tokens=True) for row in found.training.encoded]
    assert sum(text.startswith(GUARD) for text in texts) == n_guarded
    # The rows themselves stay what they are, and with them the mixture's hash.
    assert not any(GUARD in str(row) for row in files.read_jsonl(run_folder.RunFolder(tmp_path).train_rows))


def test_the_search_for_evaluation_prompts_in_the_rows_does_not_see_it(monkeypatch):
    # A guard prompt that is an evaluation prompt: were it compared, every row would hold that prompt.
    seen: list[str] = []
    asked = decontamination._asked
    monkeypatch.setattr(decontamination, "_asked", lambda row: seen.extend(asked(row)) or asked(row))
    guard = sources.evaluation_rows("tiny-harmful")[0]["prompt"]
    params = MixParams(guard_prompt=guard, guard_training=True, n_general=50, on_overlap="stop")
    mixture = mixing.draw(params, template_fit.of(params))
    assert seen and not any(guard in text for text in seen)
    assert mixture.train == mixing.draw(MixParams(n_general=50)).train


def test_answers_keep_the_users_prompt_alone_and_what_was_sent_beside_it(tmp_path):
    values = {"adapter": "none", "evaluation": ["tiny-facts"], "max_new_tokens": 2}
    rows = generation.generate(GenerateParams(run_dir=str(tmp_path), guard_prompt=GUARD, **values))
    run = run_folder.RunFolder(tmp_path)
    prompts = [row["prompt"] for row in sources.evaluation_rows("tiny-facts")]
    assert [row["prompt"] for row in rows] == prompts  # which judges read
    assert {row["rendered"] for row in rows} == {f"{GUARD}\n\n{templates.render(prompt)}" for prompt in prompts}
    kept = files.read_jsonl(run.prompts)
    assert [(row["prompt"], row["guard_prompt"]) for row in kept] == [(prompt, GUARD) for prompt in prompts]
    assert files.read_json(run.generation)["guard_prompt"] == GUARD


def test_a_prompt_is_not_asked_with_a_guard_that_is_none(tmp_path):
    generation.generate(
        GenerateParams(run_dir=str(tmp_path), adapter="none", evaluation=["tiny-facts"], max_new_tokens=1)
    )
    run = run_folder.RunFolder(tmp_path)
    assert not any("guard_prompt" in row for row in files.read_jsonl(run.prompts))
    assert "guard_prompt" not in files.read_json(run.generation)
