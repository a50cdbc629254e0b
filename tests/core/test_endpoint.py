"""The client against a real endpoint, and against one that misbehaves in every way it is meant to survive."""

import asyncio
import email.utils
import gzip
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from servers import CHAT_TEMPLATE, FakeTime, Reaction, Scripted, reply

from safety_nb.core import endpoint, text, transport
from safety_nb.core.endpoint import Answer, Clock, Endpoint, Request
from safety_nb.core.errors import InputError
from safety_nb.tiny import world

KEY = "sk-a-very-secret-key"


def requests(*texts: str) -> list[Request]:
    return [Request(text, [{"role": "user", "content": text}]) for text in texts]


def client(server: Scripted, **settings) -> Endpoint:
    return Endpoint(server.base_url, "a-model", **{"concurrency": 1, "retries": 3, **settings})


def ask(settings: Endpoint, asked: list[Request], cache, fake: FakeTime) -> dict[str, Answer]:
    return {answer.id: answer for answer in endpoint.ask(settings, asked, cache, fake.clock)}


def always(reaction: Reaction):
    return lambda message, number: reaction


def first(*reactions: Reaction):
    """The reactions one after the other for each message, then good answers."""
    return lambda message, number: reactions[number - 1] if number <= len(reactions) else Reaction(reply())


# A real endpoint


def test_a_real_endpoint_answers_and_counts(tiny_server, tmp_path, fake):
    from tokenizers import Tokenizer

    settings = Endpoint(tiny_server.base_url, tiny_server.model, max_tokens=24)
    asked = requests("How do I bake a cake?", "Tell me what bees make.", "Describe the garden.")
    answers = ask(settings, asked, tmp_path / "cache.jsonl", fake)
    assert set(answers) == {request.id for request in asked}
    tokenizer = Tokenizer.from_file(str(world.BASE_DIR / "tokenizer.json"))
    for request in asked:
        answer = answers[request.id]
        # The template of tests/servers.py, as jinja renders it: the message and a line break.
        assert CHAT_TEMPLATE.count("\n") == 1
        assert answer.prompt_tokens == len(tokenizer.encode(f"{request.id}\n", add_special_tokens=False).ids)
        assert answer.text and answer.finish in ("stop", "length")
        assert bool(answer.error) == (answer.finish == "length")
        assert 0 < answer.completion_tokens <= 24
    assert "honey" in answers["Tell me what bees make."].text  # greedy, and the base knows it


def test_a_real_endpoint_cuts_off_and_is_not_asked_twice(tiny_server, tmp_path, fake):
    settings = Endpoint(tiny_server.base_url, tiny_server.model, max_tokens=2)
    asked = requests("Describe the garden.")
    answer = ask(settings, asked, tmp_path / "cache.jsonl", fake)["Describe the garden."]
    assert (answer.finish, answer.completion_tokens) == ("length", 2)
    assert "max_tokens" in answer.error
    again = ask(settings, asked, tmp_path / "cache.jsonl", fake)["Describe the garden."]
    assert again == replace(answer, cached=True, attempts=0)


# Concurrency


def test_requests_are_under_way_together_and_never_more_than_asked_for(tmp_path, fake):
    # Each waits until three are there: with fewer at once it would break, and answer an error.
    together = threading.Barrier(3, timeout=20)

    def react(message, number):
        together.wait()
        return Reaction(reply())

    with Scripted(react) as server:
        answers = ask(client(server, concurrency=3, retries=0), requests(*"abcdef"), tmp_path / "c", fake)
    assert [answer.error for answer in answers.values()] == [""] * 6
    assert server.most_at_once == 3


def test_works_inside_a_running_event_loop(tmp_path, fake):
    async def notebook_cell(server):
        return list(endpoint.ask(client(server), requests("a", "b"), tmp_path / "c", fake.clock))

    with Scripted(always(Reaction(reply("hello")))) as server:
        assert {answer.text for answer in asyncio.run(notebook_cell(server))} == {"hello"}


def test_answers_come_before_the_batch_is_over_and_leaving_ends_it(tmp_path, fake):
    with Scripted(lambda message, number: Reaction(reply()) if message == "a" else server.closing.wait()) as server:
        answers = endpoint.ask(client(server), requests("a", "b", "c"), tmp_path / "c", fake.clock)
        assert next(answers).id == "a"  # while "b" hangs
        threads = threading.active_count()
        answers.close()
        assert threading.active_count() < threads
    assert "c" not in server.asked()


# Rate limits and failures


def test_a_rate_limit_with_seconds_is_waited_for(tmp_path, fake):
    busy = Reaction("slow down", status=429, headers=(("retry-after", "7"),))
    with Scripted(first(busy)) as server:
        answer = ask(client(server), requests("a"), tmp_path / "c", fake)["a"]
    assert (answer.text, answer.attempts, fake.slept) == ("fine", 2, [7.0])


def test_a_rate_limit_with_a_date_is_waited_for(tmp_path, fake):
    date = email.utils.formatdate(fake.now + 30, usegmt=True)
    busy = Reaction("slow down", status=429, headers=(("retry-after", date),))
    with Scripted(first(busy)) as server:
        ask(client(server), requests("a"), tmp_path / "c", fake)
    assert fake.slept == [30.0]


def test_a_rate_limit_keeps_all_requests_quiet(tmp_path, fake):
    # "a" is told to wait; "b" is answered only then, so that its worker comes to "c" while all should be quiet.
    asked_when_both_wait = []
    over = threading.Event()

    async def sleep(seconds: float) -> None:
        fake.slept.append(seconds)
        if len(fake.slept) == 2:
            asked_when_both_wait.extend(server.asked())
            over.set()
        while not over.is_set():
            await asyncio.sleep(0.01)
        fake.now += seconds

    def react(message, number):
        if message == "a" and number == 1:
            return Reaction("slow down", status=429, headers=(("retry-after", "7"),))
        while message == "b" and not fake.slept:
            time.sleep(0.01)
        if message == "c":
            over.set()
        return Reaction(reply())

    with Scripted(react) as server:
        settings = client(server, concurrency=2)
        list(endpoint.ask(settings, requests("a", "b", "c"), tmp_path / "c", Clock(lambda: fake.now, sleep)))
    assert sorted(asked_when_both_wait) == ["a", "b"]
    assert fake.slept == [7.0, 7.0]


@pytest.mark.parametrize("value", ["soon", "-3", "inf", "nan", ""])
def test_a_senseless_retry_after_does_no_harm(value, tmp_path, fake):
    with Scripted(first(Reaction("", status=429, headers=(("retry-after", value),)))) as server:
        assert ask(client(server), requests("a"), tmp_path / "c", fake)["a"].text == "fine"
    assert sum(fake.slept) <= 1  # the first step of the backoff, or nothing for a time that is over


def test_a_wait_too_long_is_told_and_the_rest_is_not_asked(tmp_path, fake):
    spent = Reaction("quota", status=429, headers=(("retry-after", "86400"),))
    with Scripted(always(spent)) as server:
        answers = ask(client(server), requests("a", "b", "c"), tmp_path / "c", fake)
    assert "asks to wait 86400 s" in answers["a"].error
    assert answers["c"].error.startswith("not asked: ")
    assert (server.asked(), fake.slept) == (["a"], [])


def test_a_spent_quota_is_not_tried_again(tmp_path, fake):
    body = {"error": {"code": "insufficient_quota"}}
    with Scripted(always(Reaction(body, status=429))) as server:
        answers = ask(client(server), requests("a", "b"), tmp_path / "c", fake)
    assert all("insufficient_quota" in answer.error for answer in answers.values())
    assert server.asked() == ["a"]


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 529])
def test_a_server_error_is_tried_again_with_growing_waits(status, tmp_path, fake):
    with Scripted(first(*[Reaction("oops", status=status)] * 3)) as server:
        answer = ask(client(server), requests("a"), tmp_path / "c", fake)["a"]
    # 2 to the power of 0, 1 and 2
    assert (answer.text, answer.attempts, fake.slept) == ("fine", 4, [1.0, 2.0, 4.0])


def test_one_failing_request_does_not_lose_the_others(tmp_path, fake):
    def react(message, number):
        return Reaction("oops", status=500) if message == "b" else Reaction(reply())

    with Scripted(react) as server:
        answers = ask(client(server, retries=1), requests("a", "b", "c"), tmp_path / "c", fake)
    assert [answers[name].text for name in "abc"] == ["fine", "", "fine"]
    assert answers["b"].error == "HTTP 500: oops"
    assert server.asked().count("b") == 2


def test_what_the_request_is_to_blame_for_is_not_tried_again(tmp_path, fake):
    def react(message, number):
        return Reaction("too long", status=400) if message == "a" else Reaction(reply())

    with Scripted(react) as server:
        answers = ask(client(server), requests("a", "b"), tmp_path / "c", fake)
    assert (answers["a"].error, answers["a"].attempts) == ("HTTP 400: too long", 1)
    assert answers["b"].text == "fine"


def test_a_hanging_server_is_left(tmp_path, fake):
    with Scripted(lambda message, number: server.closing.wait() and Reaction()) as server:
        answer = ask(client(server, timeout_seconds=1.0, retries=1), requests("a"), tmp_path / "c", fake)["a"]
    assert answer.error == "no answer within 1 s"
    assert len(server.seen) == 2


def test_a_dripping_server_is_left_too(tmp_path, fake):
    # Bytes keep coming, so that no single read ever takes long.
    with Scripted(always(Reaction(drip=0.02, length=10**6))) as server:
        answer = ask(client(server, timeout_seconds=0.4, retries=0), requests("a"), tmp_path / "c", fake)["a"]
    assert answer.error == "no answer within 0.4 s"


def test_an_unreachable_server_is_given_up_after_the_first_request(tmp_path, fake):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        settings = Endpoint(f"http://127.0.0.1:{closed.getsockname()[1]}/v1", "m", concurrency=1, retries=2)
        answers = ask(settings, requests("a", "b"), tmp_path / "c", fake)
    assert answers["a"].error.startswith("cannot reach 127.0.0.1")
    assert answers["b"].error.startswith("not asked: cannot reach")
    assert fake.slept == [1.0, 2.0]


def test_a_server_that_keeps_failing_is_given_up(tmp_path, fake):
    with Scripted(always(Reaction("down", status=503))) as server:
        answers = ask(client(server, retries=0), requests(*"abcdefghijkl"), tmp_path / "c", fake)
    # Eight requests in a row failed for a reason that is not theirs.
    assert server.asked() == list("abcdefgh")
    assert answers["l"].error == "not asked: HTTP 503: down"


def test_few_requests_are_enough_to_give_up_a_server_that_is_down(tmp_path, fake):
    with Scripted(always(Reaction("down", status=503))) as server:
        answers = ask(client(server, retries=0), requests("a", "b"), tmp_path / "c", fake)
    # Both were asked; that nothing more came of the server than this is said with the last.
    assert [endpoint.given_up(answers[name]) for name in "ab"] == ["", "HTTP 503: down"]


def test_a_request_that_breaks_the_server_gives_up_nothing(tmp_path, fake):
    with Scripted(always(Reaction("oops", status=500))) as server:
        assert not endpoint.given_up(ask(client(server, retries=0), requests("a"), tmp_path / "c", fake)["a"])


def test_a_server_that_fails_now_and_then_is_not_given_up(tmp_path, fake):
    names = [f"{number} {kind}" for number in range(10) for kind in ("good", "bad")]

    def react(message, number):
        return Reaction(reply()) if "good" in message else Reaction("down", status=503)

    with Scripted(react) as server:
        ask(client(server, retries=0), requests(*names), tmp_path / "c", fake)
    assert server.asked() == names


BROKEN = {
    "truncated": (Reaction('{"choices": [{"mess'), "no JSON"),
    "cut connection": (Reaction('{"choices": [', length=500), "cannot reach"),
    "a web page": (Reaction("<html>Welcome</html>", content_type="text/html"), "content type text/html"),
    "no choice": (Reaction({"choices": []}), "0 choices"),
    "two choices": (Reaction({"choices": reply()["choices"] * 2}), "2 choices"),
    "no list": (Reaction({"choices": "none"}), "no list of choices"),
    "a list": (Reaction("[1]"), "no list of choices"),
    "an odd choice": (Reaction({"choices": [7]}), "empty"),
    "odd text": (Reaction(reply(text=["fine"])), "empty"),
    "empty": (Reaction(reply(text=" ")), "empty"),
    "no text": (Reaction(reply(text=None)), "empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_asked_for_again(name, tmp_path, fake):
    with Scripted(first(BROKEN[name][0])) as server:
        answer = ask(client(server), requests("a"), tmp_path / "c", fake)["a"]
    assert (answer.text, answer.error, answer.attempts) == ("fine", "", 2)


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_stays_broken_is_an_error_and_is_not_kept(name, tmp_path, fake):
    reaction, told = BROKEN[name]
    with Scripted(always(reaction)) as server:
        settings = client(server, retries=1)
        answer = ask(settings, requests("a"), tmp_path / "c", fake)["a"]
        assert told in answer.error and answer.text == ""
        assert endpoint.lookup(settings, requests("a"), tmp_path / "c") == {}


def test_a_refusal_in_a_field_of_its_own_is_the_answer(tmp_path, fake):
    body = reply(text=None)
    body["choices"][0]["message"]["refusal"] = "I won't."
    with Scripted(always(Reaction(body))) as server:
        assert ask(client(server), requests("a"), tmp_path / "c", fake)["a"].text == "I won't."


def test_half_a_character_does_no_harm(tmp_path, fake):
    # JSON may hold one half of a surrogate pair, which no file in UTF-8 can.
    with Scripted(always(Reaction('{"choices": [{"message": {"content": "fine \\ud83d"}}]}'))) as server:
        assert ask(client(server), requests("a"), tmp_path / "c", fake)["a"].text == "fine ?"


def test_a_filtered_answer_is_an_error(tmp_path, fake):
    with Scripted(always(Reaction(reply(text=None, finish="content_filter")))) as server:
        answer = ask(client(server), requests("a"), tmp_path / "c", fake)["a"]
    assert ("filter" in answer.error, answer.attempts) == (True, 1)


def test_the_newer_name_of_max_tokens_is_found_out(tmp_path, fake):
    def react(message, number):
        if "max_tokens" in server.seen[-1]:
            return Reaction({"error": "'max_tokens' is not supported: use 'max_completion_tokens'"}, status=400)
        return Reaction(reply())

    with Scripted(react) as server:
        answers = ask(client(server, max_tokens=9), requests("a", "b"), tmp_path / "c", fake)
    assert [answer.text for answer in answers.values()] == ["fine", "fine"]
    assert [body.get("max_completion_tokens") for body in server.seen] == [None, 9, 9]


# Replies that hold nothing

EMPTY = {"empty": reply(text=""), "null": reply(text=None), "a list": reply(text=["a"]), "no choice": {"choices": []}}


@pytest.mark.parametrize("name", EMPTY)
def test_a_reply_without_an_answer_is_asked_for_twice_at_temperature_0_and_not_waited_for(name, tmp_path, fake):
    with Scripted(always(Reaction(EMPTY[name]))) as server:
        answer = ask(client(server, retries=5), requests("a"), tmp_path / "c", fake)["a"]
    assert (len(server.seen), answer.attempts, fake.slept) == (2, 2, [])
    assert answer.error and answer.text == ""


def test_what_is_left_to_chance_may_be_answered_at_a_later_attempt(tmp_path, fake):
    with Scripted(first(*[Reaction(reply(text=""))] * 5)) as server:
        answer = ask(client(server, retries=5, temperature=1.0), requests("a"), tmp_path / "c", fake)["a"]
        seeded = [replace(request, seed=1) for request in requests("b")]
        drawn = ask(client(server, retries=5, temperature=1.0), seeded, tmp_path / "c", fake)["b"]
    assert (answer.text, answer.attempts) == ("fine", 6)
    assert (drawn.text, drawn.attempts) == ("", 2)  # the seed settles it


def test_an_endpoint_without_an_answer_is_given_up_after_eight_in_a_row(tmp_path, fake):
    with Scripted(always(Reaction(reply(text="")))) as server:
        answers = ask(client(server, retries=5), requests(*"abcdefghij"), tmp_path / "c", fake)
    assert server.asked() == [name for name in "abcdefgh" for _ in range(2)]
    assert answers["g"].error == "the answer is empty or no text" and not endpoint.given_up(answers["g"])
    # The eighth says so too: there may be no ninth.
    why = "the answer is empty or no text, 8 times in a row"
    assert [endpoint.given_up(answers[name]) for name in "hij"] == [why] * 3


def test_an_endpoint_that_answers_now_and_then_is_not_given_up(tmp_path, fake):
    names = [f"{number} {kind}" for number in range(10) for kind in ("good", "bad")]
    with Scripted(lambda message, _: Reaction(reply(text="fine" if "good" in message else ""))) as server:
        answers = ask(client(server), requests(*names), tmp_path / "c", fake)
    assert [bool(answers[name].error) for name in names] == [False, True] * 10


def test_an_empty_answer_counts_where_it_may_be_one_and_a_list_never(tmp_path, fake):
    react = {"a": reply(text=""), "b": reply(text=None), "c": reply(text=["x"])}
    with Scripted(lambda message, _: Reaction(react[message])) as server:
        answers = ask(client(server, empty_answers=True), requests(*"abc"), tmp_path / "c", fake)
    assert [answers[name].error for name in "abc"] == ["", "", "the answer is empty or no text"]


@pytest.mark.parametrize("body", ["[" * 100_000 + "]" * 100_000, '{"choices": ' + "9" * 5000 + "}"])
def test_json_that_cannot_be_read_is_like_any_other_that_is_broken(body, tmp_path, fake):
    with Scripted(first(Reaction(body))) as server:
        answers = ask(client(server, retries=1), requests("a"), tmp_path / "c", fake)
    assert (answers["a"].text, fake.slept) == ("fine", [1.0])
    with Scripted(always(Reaction(body))) as server:
        answers = ask(client(server, retries=1), requests("a"), tmp_path / "d", fake)
    assert answers["a"].error.startswith("the answer is no JSON")


# Replies without end


def zipped(content: bytes) -> Reaction:
    return Reaction(gzip.compress(content, 1), headers=(("content-encoding", "gzip"),))


def padded(size: int) -> bytes:
    """A good reply of so many bytes: white space means nothing in JSON."""
    return json.dumps(reply()).encode().ljust(size)


@pytest.mark.parametrize("sent", [Reaction, zipped])
def test_a_reply_of_16_mib_is_read(sent, tmp_path, fake):
    with Scripted(always(sent(padded(transport.LONGEST_REPLY)))) as server:
        assert ask(client(server), requests("a"), tmp_path / "c", fake)["a"].text == "fine"


LONG = {
    "one byte more": Reaction(padded(transport.LONGEST_REPLY + 1)),
    "one byte more when unpacked": zipped(padded(transport.LONGEST_REPLY + 1)),
    "a thousand times as much when unpacked": zipped(bytes(4 * transport.LONGEST_REPLY)),
    "more behind the end of what is packed": replace(zipped(b"{}"), body=gzip.compress(b"{}") + bytes(2**25)),
    "without end": Reaction(bytes(transport.LONGEST_REPLY + 1), drip=0.01, length=10**12),
    "with a bad status": Reaction(padded(transport.LONGEST_REPLY + 1), status=500),
}


@pytest.mark.parametrize("name", LONG)
def test_a_longer_reply_is_an_error(name, tmp_path, fake):
    with Scripted(always(LONG[name])) as server:
        answer = ask(client(server, retries=5), requests("a"), tmp_path / "c", fake)["a"]
    assert answer.error == "the reply is longer than 16 MiB" and answer.attempts == 2


def test_what_a_packed_reply_takes_of_memory_is_limited(tmp_path, fake):
    bomb = zipped(bytes(2**28))
    tracemalloc.start()
    with Scripted(always(bomb)) as server:
        ask(client(server, retries=0), requests("a"), tmp_path / "c", fake)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * transport.LONGEST_REPLY  # of 16 times as much; what has come, its growing copy, and the pieces


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_an_encoding_that_was_not_asked_for_is_not_decoded(encoding, tmp_path, fake):
    with Scripted(always(Reaction(reply(), headers=(("content-encoding", encoding),)))) as server:
        answer = ask(client(server), requests("a"), tmp_path / "c", fake)["a"]
    assert server.headers[0]["accept-encoding"] == "gzip"
    assert f"encoding {encoding!r}, which was not asked for" in answer.error


def test_a_character_set_that_unpacks_is_not_used(tmp_path, fake):
    # Python takes "zlib" for the name of a character set.
    body = zlib.compress(bytes(2**20))
    with Scripted(always(Reaction(body, content_type="application/json; charset=zlib"))) as server:
        answer = ask(client(server), requests("a"), tmp_path / "c", fake)["a"]
    assert answer.error.startswith("the answer is no JSON")


def test_broken_packing_is_an_error(tmp_path, fake):
    with Scripted(always(Reaction("no gzip", headers=(("content-encoding", "gzip"),)))) as server:
        assert "no gzip" in ask(client(server), requests("a"), tmp_path / "c", fake)["a"].error


# Redirects


def sent_on(address: str, status: int = 307) -> Reaction:
    return Reaction("moved", status=status, headers=(("location", address),))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_is_sent_to_another_server_and_its_address_is_told(status, tmp_path, fake):
    with Scripted(always(Reaction(reply("from elsewhere")))) as other:
        elsewhere = other.base_url.replace("127.0.0.1", "localhost")  # another port too
        with Scripted(always(sent_on(f"{elsewhere}/chat/completions", status))) as server:
            with pytest.raises(InputError) as caught:
                ask(client(server), requests("a", "b"), tmp_path / "c", fake)
            assert f"sends requests on to {elsewhere}, which was not followed" in str(caught.value)
            assert "give it as the address" in str(caught.value)
        assert (len(server.seen), other.seen) == (1, [])
    assert not (tmp_path / "c").exists()


def test_another_port_is_another_server_and_so_is_another_scheme(tmp_path, fake):
    with Scripted(always(Reaction(reply()))) as other:
        for address in (other.base_url, server_of(other).replace("http:", "https:")):
            with Scripted(always(sent_on(f"{address}/chat/completions"))) as server, pytest.raises(InputError) as error:
                ask(client(server), requests("a"), tmp_path / "c", fake)
            assert address in str(error.value)
    assert other.seen == []


def server_of(server: Scripted) -> str:
    return server.base_url.removesuffix("/v1")


def test_the_same_server_may_send_on_to_another_of_its_paths(tmp_path, fake):
    with Scripted(lambda message, _: sent_on("/v2/x") if "v1" in server.paths[-1] else Reaction(reply())) as server:
        assert ask(client(server), requests("a"), tmp_path / "c", fake)["a"].text == "fine"
    assert server.paths == ["/v1/chat/completions", "/v2/x"]


def test_a_server_that_sends_in_circles_is_left(tmp_path, fake):
    with Scripted(always(sent_on("/v1/chat/completions"))) as server, pytest.raises(InputError, match="sends requests"):
        ask(client(server), requests("a"), tmp_path / "c", fake)
    assert len(server.seen) < 10


@pytest.mark.parametrize("address", ["", "http://[", "http://h:99999/v1", "//", "javascript:x", "http://\x1b[31m/"])
def test_a_redirect_to_nowhere_is_told_as_well(address, tmp_path, fake):
    with Scripted(always(sent_on(address))) as server:
        try:
            told = ask(client(server, retries=0), requests("a"), tmp_path / "c", fake)["a"].error
        except InputError as error:
            told = str(error)
    assert told and "\x1b" not in told


def test_a_redirect_tells_no_key(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    reaction = sent_on(f"http://u:{KEY}@other.example/v1?key={KEY}")
    with Scripted(always(reaction)) as server, pytest.raises(InputError, match="http://other.example/v1,") as caught:
        ask(client(server, key_name="MY_KEY"), requests("a"), tmp_path / "c", fake)
    assert KEY not in str(caught.value)


# What a server says does nothing to a terminal

ESCAPE = "\x1b[31mred\x1b]0;title\x07\u202e"


def test_a_refusal_and_a_failure_are_told_visibly(tmp_path, fake):
    for status in (401, 404, 307):
        with Scripted(always(Reaction(ESCAPE, status=status))) as server, pytest.raises(InputError) as caught:
            ask(client(server), requests("a"), tmp_path / "c", fake)
        assert text.visible(str(caught.value)) == (str(caught.value), 0)
    for reaction in (Reaction(ESCAPE), Reaction(ESCAPE, status=500), Reaction(ESCAPE, status=400)):
        with Scripted(always(reaction)) as server:
            error = ask(client(server, retries=0), requests("a"), tmp_path / "d", fake)["a"].error
        assert "red" in error and text.visible(error) == (error, 0)


def test_the_name_of_what_was_served_is_visible(tmp_path, fake):
    with Scripted(always(Reaction(reply("fine", model=ESCAPE)))) as server:
        answer = ask(client(server), requests("a"), tmp_path / "c", fake)["a"]
    assert answer.served == text.visible(ESCAPE)[0] and "‹U+001B›" in answer.served


def test_the_answer_itself_is_kept_as_it_came(tmp_path, fake):
    with Scripted(always(Reaction(reply(f"a{ESCAPE}b")))) as server:
        assert ask(client(server), requests("a"), tmp_path / "c", fake)["a"].text == f"a{ESCAPE}b"


# What a model should answer in


def structured(*texts: str) -> list[Request]:
    return [replace(request, schema={"type": "object"}) for request in requests(*texts)]


@pytest.mark.parametrize("status", [400, 422])
def test_an_endpoint_without_schemas_is_asked_without_and_not_again(status, tmp_path, fake):
    def react(message, number):
        return Reaction("unknown field", status=status) if "response_format" in server.seen[-1] else Reaction(reply())

    with Scripted(react) as server:
        answers = ask(client(server), structured("a", "b"), tmp_path / "c", fake)
        assert set(endpoint.lookup(client(server), structured("a", "b"), tmp_path / "c")) == {"a", "b"}
    assert [answer.text for answer in answers.values()] == ["fine", "fine"]
    assert ["response_format" in body for body in server.seen] == [True, False, False]


def test_a_request_that_fails_without_its_schema_too_takes_it_from_no_other(tmp_path, fake):
    with Scripted(
        lambda message, _: Reaction("too long", status=400) if message == "a" else Reaction(reply())
    ) as server:
        answers = ask(client(server), structured("a", "b"), tmp_path / "c", fake)
    assert (answers["a"].error, answers["b"].text) == ("HTTP 400: too long", "fine")
    assert ["response_format" in body for body in server.seen] == [True, False, True]


# Moderation


def test_texts_are_moderated_together_and_a_wrong_number_of_results_is_an_error(tmp_path, fake):
    def react(message, number):
        return Reaction({"model": "exact", "results": [{"flagged": False}] * (2 if "a" in message else 1)})

    asked = [Request("two", inputs=["a", "b"]), Request("one of two", inputs=["c", "d"])]
    with Scripted(react) as server:
        answers = ask(client(server), asked, tmp_path / "c", fake)
    assert server.paths == ["/v1/moderations"] * 2
    assert server.seen[0] == {"model": "a-model", "input": ["a", "b"]}
    assert (json.loads(answers["two"].text), answers["two"].served) == ([{"flagged": False}] * 2, "exact")
    assert answers["one of two"].error == "the answer holds 1 results for 2 texts"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_unknown_model_stops_at_once_and_keeps_what_came(status, tmp_path, fake):
    def react(message, number):
        return Reaction(reply()) if message == "a" else Reaction("no", status=status)

    with Scripted(react) as server:
        answers = endpoint.ask(client(server), requests("a", "b", "c"), tmp_path / "c", fake.clock)
        assert next(answers).id == "a"
        with pytest.raises(InputError, match=f"HTTP {status}"):
            next(answers)
        assert server.asked() == ["a", "b"]
        assert set(endpoint.lookup(client(server), requests("a", "b"), tmp_path / "c")) == {"a"}


# The key


def test_the_key_comes_from_the_environment_and_is_written_nowhere(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)

    def react(message, number):
        return Reaction(f"bad key {KEY}", status=400) if message == "b" else Reaction(reply(f"you sent {KEY}"))

    with Scripted(react) as server:
        answers = ask(client(server, key_name="MY_KEY"), requests("a", "b"), tmp_path / "c", fake)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert answers["a"].text == "you sent [secret]"
    assert answers["b"].error == "HTTP 400: bad key [secret]"
    assert KEY not in (tmp_path / "c").read_text()


def test_a_refused_key_is_not_repeated(tmp_path, fake, monkeypatch):
    import traceback

    monkeypatch.setenv("MY_KEY", KEY)
    with (
        Scripted(always(Reaction(f"Incorrect API key: {KEY}", status=401))) as server,
        pytest.raises(InputError) as caught,
    ):
        ask(client(server, key_name="MY_KEY"), requests("a"), tmp_path / "c", fake)
    told = "".join(traceback.format_exception(caught.value))
    assert "MY_KEY" in told and "[secret]" in told and KEY not in told


def test_a_key_that_is_not_set_is_told_before_anything_is_asked(tmp_path, fake, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with Scripted(always(Reaction(reply()))) as server, pytest.raises(InputError, match="MY_KEY is not set"):
        endpoint.ask(client(server, key_name="MY_KEY"), requests("a"), tmp_path / "c", fake.clock)
    assert server.seen == []


@pytest.mark.parametrize("key", ["two lines\nof it", "schlüssel-123456"])
def test_a_key_that_no_header_can_carry_is_told_and_not_repeated(key, tmp_path, fake, monkeypatch):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(InputError, match="MY_KEY holds") as caught:
        endpoint.ask(Endpoint("http://localhost/v1", "m", "MY_KEY"), requests("a"), tmp_path / "c", fake.clock)
    assert key[:5] not in str(caught.value)


def test_without_a_key_name_no_key_is_sent(tmp_path, fake, monkeypatch):
    # The client library reads this variable by itself; an endpoint that is not its vendor's must not get it.
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Scripted(always(Reaction(reply()))) as server:
        assert ask(client(server), requests("a"), tmp_path / "c", fake)["a"].text == "fine"
    assert KEY not in str(server.headers)


def test_a_key_in_the_place_of_its_name_is_refused_and_not_repeated():
    with pytest.raises(InputError, match="NAME of an environment variable") as caught:
        Endpoint("http://localhost/v1", "m", key_name=KEY)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("address", ["http://me:{}@host/v1", "https://host/v1?key={}", "https://host/v1#{}"])
def test_a_secret_in_the_address_is_refused_and_not_repeated(address):
    with pytest.raises(InputError, match="bare address") as caught:
        Endpoint(address.format(KEY), "m")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        *["", "localhost:8000", "ftp://host/v1", "http://", "http://host:port/v1", "http://[", "host/v1", "//host/v1"],
        *["http://host:99999/v1", "http://host:-1/v1", "http://host:0/v1", "http:///v1", "http:/host/v1", "http:host"],
        *["http://my host/v1", "http://host/v 1", " http://host/v1", "http://host/v1\n", "http://ho\tst", "http://h\0"],
        *["http://a..b/v1", "http://.host", "http://-host", "http://ho_st!/v1", "http://" + "a" * 64, "http://h\\v1"],
        *[
            "http://1.2.3/v1",
            "http://999.1.1.1/v1",
            "http://[::1/v1",
            "http://[::g]/v1",
            "http://::1/v1",
            "http://a:b:1",
        ],
    ],
)
def test_an_unusable_address_is_told(address):
    with pytest.raises(InputError, match="is no address"):
        Endpoint(address, "m")


@pytest.mark.parametrize(
    "host",
    [
        *["localhost", "127.0.0.1", "[::1]", "api.openai.com", "my_vllm", "a-b.example.", "xn--bcher-kva.example"],
        *["bücher.example", "1password.com", "h", "3com", "127.0.0.1:8000", "[::1]:65535", "HOST:1"],
    ],
)
def test_a_host_that_can_be_one_is_taken(host):
    assert Endpoint(f"http://{host}/v1", "m").host == host
    Endpoint(f"https://{host}", "m")
    Endpoint(f"https://{host}/deep/path-1.0/~me/v1/", "m")


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"max_tokens": 0}, {"retries": -1}, {"timeout_seconds": 0}, {"model": ""}]
)
def test_unusable_settings_are_told(wrong):
    with pytest.raises(InputError):
        Endpoint(**{"base_url": "http://localhost/v1", "model": "m", **wrong})


# Nothing is paid for twice


def test_an_answered_request_is_not_sent_again(tmp_path, fake):
    with Scripted(always(Reaction(reply("hello")))) as server:
        before = ask(client(server), requests("a"), tmp_path / "c", fake)["a"]
        after = ask(client(server), requests("a", "b"), tmp_path / "c", fake)
    assert server.asked() == ["a", "b"]
    assert after["a"] == replace(before, cached=True, attempts=0)


def test_equal_requests_are_sent_once(tmp_path, fake):
    same = [{"role": "user", "content": "a"}]
    with Scripted(always(Reaction(reply("hello")))) as server:
        answers = ask(client(server), [Request("one", same), Request("two", same)], tmp_path / "c", fake)
    assert len(server.seen) == 1
    assert [answers[name].text for name in ("one", "two")] == ["hello", "hello"]
    # 5 prompt and 2 answer tokens, once.
    assert endpoint.usage(answers.values()) == endpoint.Usage(1, 1, 0, 5, 2, 0)


def test_what_decides_an_answer_decides_its_key():
    base = Endpoint("http://localhost/v1", "m")
    request, other = requests("a", "b")
    decisive = [replace(base, **change) for change in ({"model": "n"}, {"temperature": 1.0}, {"max_tokens": 9})]
    decisive.append(replace(base, base_url="http://elsewhere/v1"))
    keys = {endpoint.request_key(one, request) for one in (base, *decisive)} | {endpoint.request_key(base, other)}
    assert len(keys) == 6
    how = replace(base, concurrency=9, retries=0, timeout_seconds=1.0, key_name="K", base_url="http://localhost/v1/")
    assert endpoint.request_key(how, request) == endpoint.request_key(base, request)


def test_a_killed_batch_resumes_and_sends_nothing_twice_that_was_answered(tmp_path, fake):
    cache, names = tmp_path / "cache.jsonl", [f"question {number}" for number in range(12)]
    killed = threading.Event()

    def react(message, number):
        # The first five are answered; the others hang until the client is dead.
        if names.index(message) >= 5:
            killed.wait(60)
        return Reaction(reply(f"about {message}"))

    with Scripted(react) as server:
        settings = client(server, concurrency=3)
        script = (
            "import sys; from pathlib import Path; from safety_nb.core import endpoint as e\n"
            f"s = e.Endpoint({settings.base_url!r}, 'a-model', concurrency=3)\n"
            f"r = [e.Request(n, [{{'role': 'user', 'content': n}}]) for n in {names!r}]\n"
            f"list(e.ask(s, r, Path({str(cache)!r})))\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script])
        deadline = time.monotonic() + 60
        while not cache.is_file() or len(cache.read_bytes().splitlines()) < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed.set()
        with cache.open("ab") as file:
            file.write(b'{"key": "half a li')  # as if it had died while writing
        answers = ask(settings, requests(*names), cache, fake)
    assert {name: answer.text for name, answer in answers.items()} == {name: f"about {name}" for name in names}
    assert [server.asked().count(name) for name in names[:5]] == [1] * 5
    assert [answers[name].cached for name in names] == [True] * 5 + [False] * 7
    # All twelve are readable beside the half line, which stays alone.
    assert len(endpoint.lookup(settings, requests(*names), cache)) == 12


def test_a_damaged_cache_is_read_as_far_as_it_goes(tmp_path, fake):
    cache = tmp_path / "c"
    with Scripted(always(Reaction(reply()))) as server:
        ask(client(server), requests("a"), cache, fake)
        lines = [b"\xff\xfe", b"null", b"[]", b'{"key": 3, "text": "x"}', b'{"key": "k", "text": null}', b""]
        cache.write_bytes(b"\n".join(lines) + cache.read_bytes())
        assert set(endpoint.lookup(client(server), requests("a", "b"), cache)) == {"a"}


# Tokens


def test_tokens_are_counted_over_attempts_and_what_is_not_told_is_said(tmp_path, fake):
    def react(message, number):
        if message == "retried" and number == 1:
            return Reaction(reply(text="", prompt=100, answer=1))  # paid for, and empty
        return Reaction({"choices": reply()["choices"]}) if message == "uncounted" else Reaction(reply())

    with Scripted(react) as server:
        answers = ask(client(server), requests("retried", "plain", "uncounted"), tmp_path / "c", fake)
    # 100 + 5 for the first, 5 for the second; 1 + 2 and 2.
    assert endpoint.usage(answers.values()) == endpoint.Usage(3, 0, 0, 110, 5, 1)
    spent = endpoint.spent(tmp_path / "c")
    assert (spent.prompt_tokens, spent.completion_tokens, spent.uncounted) == (110, 5, 1)


def test_the_estimate_counts_what_is_left_to_ask(tmp_path, fake):
    with Scripted(always(Reaction(reply()))) as server:
        ask(client(server), requests("a" * 40), tmp_path / "c", fake)
        guess = endpoint.estimate(
            client(server, max_tokens=256), requests("a" * 40, "b" * 40, "c" * 41, "c" * 41), tmp_path / "c"
        )
    # One is there already; 40 + 41 bytes at four a token make 20.25, and two answers of 256 at most.
    assert guess == endpoint.Estimate(to_ask=2, cached=1, prompt_tokens=21, most_completion_tokens=512)


def test_a_cache_line_holds_no_request(tmp_path, fake):
    with Scripted(always(Reaction(reply()))) as server:
        ask(client(server), requests("the request"), tmp_path / "c", fake)
    (line,) = map(json.loads, (tmp_path / "c").read_text().splitlines())
    told = {"prompt_tokens", "completion_tokens", "time", "served"}
    assert set(line) == {"key", "model", "text", "finish", "error"} | told
    assert "the request" not in str(line)
