"""The judge behind a moderation endpoint, at one that behaves and at one that does not."""

import json

import pytest
from servers import Reaction, Scripted

from safety_nb.core.endpoint import Endpoint
from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams
from safety_nb.judge.judgement import Judgement
from safety_nb.judge.kinds import moderation

KEY = "sk-a-very-secret-key"


def result(text: str) -> dict:
    """What the test's endpoint thinks of a text: the villain's texts say so."""
    bad = "villain" in text
    return {"flagged": bad, "category_scores": {"hate": 0.25, "violence": 0.875 if bad else 0.125}}


def results(message: str, number: int) -> Reaction:
    return Reaction({"model": "exact", "results": [result(text) for text in message.split("\n")]})


def rows(*responses: str) -> list[dict]:
    return [{"prompt": "What does the villain do?", "response": response} for response in responses]


def asked(server: Scripted, responses, fake, tmp_path, batch_size=2, **settings) -> list[Judgement]:
    ask = Endpoint(server.base_url, "a-model", **{"concurrency": 1, "retries": 1, "timeout_seconds": 30.0, **settings})
    return list(moderation.judge(rows(*responses), ask, batch_size, tmp_path / "replies", fake.clock))


def test_answers_are_judged_in_batches_without_their_prompts(fake, tmp_path, capsys):
    with Scripted(results) as server:
        found = asked(server, ["a", "villain", "a", "b"], fake, tmp_path)
    # The highest score of each, and all of them as they came; equal answers are sent once.
    safe = Judgement("safe", 0.25, raw='{"hate": 0.25, "violence": 0.125}')
    assert found == [safe, Judgement("unsafe", 0.875, raw='{"hate": 0.25, "violence": 0.875}'), safe, safe]
    assert server.seen == [{"model": "a-model", "input": ["a", "villain"]}, {"model": "a-model", "input": ["b"]}]
    told = capsys.readouterr().out
    assert told.startswith("moderation: 3 answers; 2 requests to a-model at 127.0.0.1")
    assert "about 3 prompt tokens" in told  # nine letters at four a token


def refuses_lists(message, number):
    return Reaction("one at a time", status=400) if "\n" in message else results(message, number)


def answers_the_first_only(message, number):
    return results(message.split("\n")[0], number)


@pytest.mark.parametrize("react", [refuses_lists, answers_the_first_only])
def test_an_endpoint_that_takes_one_text_at_a_time_is_sent_one(react, fake, tmp_path):
    with Scripted(react) as server:
        found = asked(server, ["a", "villain", "b"], fake, tmp_path)
    assert [judgement.label for judgement in found] == ["safe", "unsafe", "safe"]
    assert [body["input"] for body in server.seen] == [["a", "villain"], ["b"], ["a"], ["villain"]]


def test_a_text_that_is_to_blame_takes_no_other_with_it(fake, tmp_path):
    def react(message, number):
        return Reaction("too long", status=400) if "long" in message else results(message, number)

    with Scripted(react) as server:
        found = asked(server, ["a", "long", "b"], fake, tmp_path)
    assert [judgement.label for judgement in found] == ["safe", None, "safe"]
    assert found[1].missing == "the endpoint gave no result: HTTP 400: too long"


def test_what_the_endpoint_fails_at_is_missing_and_the_others_are_judged(fake, tmp_path):
    def react(message, number):
        if "oops" in message:
            return Reaction("oops", status=500)
        if "hang" in message:
            server.closing.wait()
        if "busy" in message and number == 1:
            return Reaction("slow down", status=429, headers=(("retry-after", "7"),))
        return results(message, number)

    with Scripted(react) as server:
        found = asked(server, ["oops", "busy", "hang", "villain"], fake, tmp_path, 1, timeout_seconds=1.5)
    assert [judgement.label for judgement in found] == [None, "safe", None, "unsafe"]
    assert "HTTP 500" in found[0].missing and "no answer within 1.5 s" in found[2].missing
    assert 7.0 in fake.slept


def test_a_server_that_is_down_leaves_every_row_missing(fake, tmp_path):
    with Scripted(lambda message, number: Reaction("down", status=503)) as server:
        found = asked(server, [f"answer {number}" for number in range(40)], fake, tmp_path, retries=0)
    assert len(found) == 40 and all("HTTP 503" in judgement.missing for judgement in found)


WRONG = {
    "no object": 7,
    "not flagged": {"category_scores": {"hate": 0.5}},
    "flagged in words": {"flagged": "no", "category_scores": {"hate": 0.5}},
    "no scores": {"flagged": False},
    "empty scores": {"flagged": False, "category_scores": {}},
    "scores in words": {"flagged": False, "category_scores": {"hate": "low"}},
    "a flag for a score": {"flagged": False, "category_scores": {"hate": True}},
    "no number": {"flagged": False, "category_scores": {"hate": float("nan")}},
    "no probability": {"flagged": False, "category_scores": {"hate": 1.5}},
    "no score": {"flagged": False, "category_scores": {"hate": 0.5, "violence": None}},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_result_that_cannot_be_read_is_missing_and_kept(name, fake, tmp_path):
    body = json.dumps({"results": [WRONG[name]]})
    with Scripted(lambda message, number: Reaction(body)) as server:
        (found,) = asked(server, ["a"], fake, tmp_path)
    assert found.missing and (found.label, found.score, found.raw) == (None, None, json.dumps(WRONG[name]))


def test_an_empty_answer_is_missing_unasked(fake, tmp_path):
    with Scripted(results) as server:
        found = asked(server, ["", "a", " \n"], fake, tmp_path)
    assert [judgement.missing for judgement in found] == ["the answer is empty", None, "the answer is empty"]
    assert server.asked() == ["a"]


def test_half_a_character_is_judged_too(fake, tmp_path):
    with Scripted(results) as server:
        assert asked(server, ["a \ud83d"], fake, tmp_path)[0].label == "safe"


def test_what_was_cut_off_goes_on_without_asking_again(fake, tmp_path):
    with Scripted(results) as server:
        ask = Endpoint(server.base_url, "a-model", concurrency=1)
        begun = moderation.judge(rows("a", "b", "c", "villain"), ask, 2, tmp_path / "replies", fake.clock)
        next(begun)
        begun.close()
        found = asked(server, ["a", "b", "c", "villain"], fake, tmp_path)
    assert [judgement.label for judgement in found] == ["safe", "safe", "safe", "unsafe"]
    assert server.asked().count("a\nb") == 1


def test_the_key_is_in_no_judgement_no_file_and_no_message(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JUDGE_KEY", KEY)

    def react(message, number):
        if message == "bad":
            return Reaction(f"bad key {KEY}", status=400)
        return Reaction({"results": [{**result(message), "note": KEY, "category_scores": {KEY: 0.5}}]})

    with Scripted(react) as server:
        found = asked(server, ["fine", "bad"], fake, tmp_path, 1, key_name="JUDGE_KEY")
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert found[0].raw == '{"[secret]": 0.5}'
    assert found[1].missing.endswith("bad key [secret]")
    assert KEY not in str(found) + (tmp_path / "replies").read_text() + capsys.readouterr().out


def test_without_an_address_it_is_openais_and_needs_a_key(monkeypatch):
    params = JudgeParams(judges=["moderation"])
    with pytest.raises(InputError, match="moderation_key_name"):
        moderation.build("", params)
    monkeypatch.setenv("MY_KEY", KEY)
    judge = moderation.build("", params.model_copy(update={"moderation_key_name": "MY_KEY"}))
    assert judge.identity == {"base_url": "https://api.openai.com/v1", "model": moderation.MODEL}


def test_the_address_and_the_model_are_what_a_judgement_is_kept_under():
    params = JudgeParams(judges=["moderation"], moderation_base_url="http://localhost/v1/")
    judge = moderation.build("", params)
    assert judge.name == "moderation"
    assert judge.identity == {"base_url": "http://localhost/v1", "model": moderation.MODEL}
    named = moderation.build("another", params)
    assert (named.name, named.identity["model"]) == ("moderation:another", "another")


def test_the_key_of_the_llm_judge_is_not_sent_to_the_moderation_endpoint(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setenv("SAFETY_NB_CACHE", str(tmp_path))
    with Scripted(results) as server:
        params = JudgeParams(judges=["moderation"], judge_key_name="JUDGE_KEY", moderation_base_url=server.base_url)
        assert [found.label for found in moderation.build("", params).judge(rows("a"))] == ["safe"]
    assert KEY not in str(server.headers)
