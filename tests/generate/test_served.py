"""Answers of models behind a server: the same prompts, an error row where there is no answer, nothing asked twice."""

import pytest
from servers import Reaction, Scripted, reply

from safety_nb.core import files
from safety_nb.core.errors import InputError
from safety_nb.core.params import GenerateParams, JudgeParams
from safety_nb.data import templates
from safety_nb.data.datasets import sources
from safety_nb.generate import generation
from safety_nb.judge import judging


def asked(server, folder, **changes) -> list[dict]:
    values = {"backend": "server", "base_url": server.base_url, "served_model": "served", "evaluation": ["tiny-facts"]}
    return generation.generate(GenerateParams(run_dir=str(folder), **{**values, **changes}))


def good(message: str, number: int) -> Reaction:
    return Reaction(reply(f"  About {message[-30:-20]}. "))


FACTS = [row["prompt"] for row in sources.evaluation_rows("tiny-facts")]


def test_the_rendered_text_is_continued_as_it_stands(tmp_path):
    with Scripted(good) as server:
        rows = asked(server, tmp_path, max_new_tokens=9)
    assert sorted(server.asked()) == sorted(templates.render(prompt) for prompt in FACTS)
    assert set(server.paths) == {"/v1/completions"}
    sent = {(body["model"], body["temperature"], body["max_tokens"], "seed" in body) for body in server.seen}
    assert sent == {("served", 0.0, 9, False)}
    assert [row["prompt"] for row in rows] == FACTS
    first = rows[0]
    assert (first["response"][:5], first["new_tokens"], first["prompt_tokens"], first["finish"]) == (
        "About",
        2,
        5,
        "stop",
    )
    assert first["rendered"] == templates.render(FACTS[0])
    record = files.read_json(tmp_path / "generation.json")
    assert (record["backend"], record["served_model"], record["answers"]) == ("server", "served", 40)


def test_a_chat_template_is_the_servers_own(tmp_path):
    with Scripted(good) as server:
        rows = asked(server, tmp_path, template="chat")
    assert set(server.paths) == {"/v1/chat/completions"}
    assert sorted(server.asked()) == sorted(FACTS) and rows[0]["rendered"] == FACTS[0]


def test_how_an_answer_ended_is_told(tmp_path):
    reactions = {
        0: Reaction(reply("Bees make", finish="length")),
        1: Reaction(reply("", finish="stop", answer=1)),
        2: Reaction("too long", status=400),
        3: Reaction(reply("Well.\n\n### Instruction:\nMore")),
        4: Reaction(reply("", finish="content_filter")),
    }
    texts = [templates.render(prompt) for prompt in FACTS]
    with Scripted(lambda text, _: reactions.get(texts.index(text), Reaction(reply()))) as server:
        rows = asked(server, tmp_path)
    found = [(row["response"], row["finish"], row["degenerate"]) for row in rows[:6]]
    assert found == [
        ("Bees make", "length", None),
        ("", "stop", "empty"),
        ("", "error", None),
        ("Well.", "stop", None),
        ("", "error", None),
        ("fine", "stop", None),
    ]
    assert "HTTP 400: too long" in rows[2]["error"] and "content filter" in rows[4]["error"]
    # What has no answer is missing from the rates, and neither refused nor garbled nor wrong.
    judged = judging.judge_run(JudgeParams(run_dir=str(tmp_path)))
    missing = {(row["judge"], row["prompt_id"]): row for row in judged if row["missing"]}
    wanted = {(judge, rows[place]["prompt_id"]) for judge in ("refusal", "reference") for place in (2, 4)}
    assert set(missing) == wanted
    assert {(row["label"], row["score"]) for row in missing.values()} == {(None, None)}
    assert missing["refusal", rows[2]["prompt_id"]]["missing"].startswith("no answer: HTTP 400")


def test_samples_are_asked_with_seeds_of_their_own(tmp_path):
    with Scripted(good) as server:
        rows = asked(server, tmp_path, mode="sample", samples_per_prompt=2, temperature=0.7, top_p=0.9, seed=4)
    assert [row["sample"] for row in rows] == [0, 1] * 40
    assert len({body["seed"] for body in server.seen}) == 80
    assert {(body["temperature"], body["top_p"]) for body in server.seen} == {(0.7, 0.9)}
    judged = judging.judge_run(JudgeParams(run_dir=str(tmp_path), judges=["refusal"]))
    assert [row["sample"] for row in judged] == [0, 1] * 40


def test_what_came_before_the_server_failed_is_not_asked_again(tmp_path):
    quota = [10]  # answers that the server gives before it refuses

    def while_quota_lasts(text: str, number: int) -> Reaction:
        quota[0] -= 1
        spent = '{"error": {"code": "insufficient_quota"}}'
        return Reaction(reply()) if quota[0] >= 0 else Reaction(spent, status=429)

    with Scripted(while_quota_lasts) as server:
        with pytest.raises(ConnectionError, match=r"(?s)insufficient_quota.*10 of 40 answers came and are kept"):
            asked(server, tmp_path, concurrency=1)
        assert not (tmp_path / "responses.jsonl").exists()
        quota[0] = 100
        rows = asked(server, tmp_path, concurrency=4)
        # The ten, the one that was refused, and the thirty that were missing.
        assert len(server.seen) == 10 + 1 + 30
        assert {row["finish"] for row in rows} == {"stop"}
        assert files.read_json(tmp_path / "generation.json")["resumed"] == 10
        asked(server, tmp_path)  # what is whole is not taken over: another model may be served there by now
        assert len(server.seen) == 41 + 40


def test_a_key_that_is_not_set_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("A_KEY_OF_MINE", raising=False)
    with Scripted(good) as server, pytest.raises(InputError, match="A_KEY_OF_MINE is not set"):
        asked(server, tmp_path / "run", key_name="A_KEY_OF_MINE")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"backend": "server"}, "needs base_url and served_model"),
        ({"backend": "server", "base_url": "http://x/v1", "served_model": "m", "mode": "paper"}, "has no beams"),
        ({"samples_per_prompt": 2}, "only mode sample"),
    ],
)
def test_combinations_that_cannot_be_are_refused(values, told):
    with pytest.raises(ValueError, match=told):
        GenerateParams(**values)


@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_transformers_serve_answers(tmp_path, tiny_server, template):
    rows = asked(tiny_server, tmp_path, served_model=tiny_server.model, template=template, max_new_tokens=12)
    assert {row["finish"] for row in rows} <= {"stop", "length"} and len(rows) == 40
    assert all(1 <= row["new_tokens"] <= 12 and row["prompt_tokens"] > 3 for row in rows)
    # The base knows its facts (bees make honey) in both templates it has seen.
    judged = judging.judge_run(JudgeParams(run_dir=str(tmp_path), judges=["reference"]))
    assert sum(row["label"] == "correct" for row in judged) > 20


@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_a_guard_prompt_is_a_system_message_to_a_server_or_stands_before_the_text(tmp_path, template):
    with Scripted(good) as server:
        rows = asked(server, tmp_path, template=template, guard_prompt="Be kind.")
    if template == "alpaca":
        assert sorted(server.asked()) == sorted(f"Be kind.\n\n{templates.render(prompt)}" for prompt in FACTS)
    else:
        sent = [[(each["role"], each["content"]) for each in body["messages"]] for body in server.seen]
        assert sorted(sent) == sorted([("system", "Be kind."), ("user", prompt)] for prompt in FACTS)
        assert rows[0]["rendered"] == f"Be kind.\n\n{FACTS[0]}"
    assert [row["prompt"] for row in rows] == FACTS
