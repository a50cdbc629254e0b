"""One client for any OpenAI-compatible endpoint: many requests in, an answer or a reason for each, as they come.

Every answer is appended to a file the moment it arrives, so that a batch that is cut off resumes and nothing is paid
for twice. Knows nothing of what is asked; `wire.py` knows how.
"""

import asyncio
import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from safety_nb.core import files
from safety_nb.core.digests import digest
from safety_nb.core.wire import (
    UNREACHABLE,
    Answer,
    Connection,
    Endpoint,
    Failure,
    Request,
    finished,
    require_key,
    tokens_of,
)

_LONGEST_BACKOFF = 60.0  # seconds
_GIVE_UP_AFTER = 8  # requests in a row that failed with all their retries, for a reason that is the endpoint's
_SAME_REPLIES = 2  # that hold no answer, after which an endpoint that leaves nothing to chance is not asked again
_BYTES_PER_TOKEN = 4  # of English in the vocabularies of today's models; for the estimate only
_Tokens = tuple[int | None, int | None]  # of the prompt and of the answer


@dataclass(frozen=True)
class Usage:
    """Counts over answers: how many were asked for now, came from the cache or failed, and the tokens now paid for.

    ``uncounted`` are answers whose tokens the endpoint did not tell.
    """

    asked: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Estimate:
    """What a batch may cost: requests to send, those answered already, about how many tokens, and at most how many."""

    to_ask: int
    cached: int
    prompt_tokens: int
    most_completion_tokens: int


@dataclass(frozen=True)
class Clock:
    """The time in seconds since 1970, and how to wait; tests bring their own."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


CLOCK = Clock()


def ask(endpoint: Endpoint, requests: Iterable[Request], cache: Path, clock: Clock = CLOCK) -> Iterator[Answer]:
    """Answers to many requests, those of the cache first and the others as they come.

    Rate limits, server errors, time-outs, broken connections and unreadable or empty answers are retried (the last at
    temperature 0 once only); what still fails is an ``Answer`` with an ``error``. Where the endpoint itself has failed,
    the rest is not asked. Equal requests are asked once. Works inside a running event loop, as in a notebook.

    Args:
        cache: JSON lines to which every answer is appended as it arrives; may not exist yet.

    Raises:
        InputError: the environment has no key of that name (at once), or the endpoint refuses the key or knows no
            such model or path, or sends on to another server (as it happens; answers that came before are kept).
    """
    key = require_key(endpoint)
    requests = list(requests)
    known = lookup(endpoint, requests, cache)
    waiting: dict[str, list[Request]] = {}
    for request in requests:
        if request.id not in known:
            waiting.setdefault(request_key(endpoint, request), []).append(request)
    return _stream(known, _Batch(endpoint, key, waiting, cache, clock))


def lookup(endpoint: Endpoint, requests: Iterable[Request], cache: Path) -> dict[str, Answer]:
    """The answers that a cache has already, by the id of the request; nothing is asked."""
    answered = _answered(cache)
    keyed = ((request.id, request_key(endpoint, request)) for request in requests)
    return {name: replace(answered[digest], id=name) for name, digest in keyed if digest in answered}


def request_key(endpoint: Endpoint, request: Request) -> str:
    """SHA-256 of what decides an answer: address, model, messages or text, temperature, length and the like."""
    decisive = {
        "base_url": endpoint.base_url.rstrip("/"),
        "model": endpoint.model,
        "messages": list(request.messages),
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
    }
    others = {"text": (request.text, ""), "seed": (request.seed, None), "top_p": (endpoint.top_p, 1.0)}
    others |= {"schema": (request.schema, None), "inputs": (list(request.inputs), [])}
    decisive |= {name: value for name, (value, unset) in others.items() if value != unset}
    return digest(decisive, sort_keys=True, ensure_ascii=True)


def estimate(endpoint: Endpoint, requests: Iterable[Request], cache: Path) -> Estimate:
    """What asking would cost, without asking. Prompt tokens are guessed from the length of the text."""
    answered = _answered(cache)
    keyed = {request_key(endpoint, request): request for request in requests}
    new = [request for digest, request in keyed.items() if digest not in answered]
    parts = [(each.text, *each.inputs, *(message["content"] for message in each.messages)) for each in new]
    length = sum(len(text.encode("utf-8", "replace")) for texts in parts for text in texts)
    return Estimate(
        to_ask=len(new),
        cached=len(keyed) - len(new),
        prompt_tokens=math.ceil(length / _BYTES_PER_TOKEN),
        most_completion_tokens=sum(not each.inputs for each in new) * endpoint.max_tokens,
    )


def cost_text(endpoint: Endpoint, cost: Estimate) -> str:
    """An estimate in a sentence."""
    text = (
        f"{cost.to_ask} requests to {endpoint.model} at {endpoint.host}, {cost.cached} answered already; about "
        f"{cost.prompt_tokens:,} prompt tokens"
    )
    return text + (f", and {cost.most_completion_tokens:,} of answers at most" if cost.most_completion_tokens else "")


def usage(answers: Iterable[Answer]) -> Usage:
    """Counts and tokens over answers; what came from the cache costs nothing now."""
    total = Usage()
    for answer in answers:
        asked = answer.attempts > 0
        total += Usage(
            asked=int(asked),
            cached=int(answer.cached),
            failed=int(bool(answer.error)),
            prompt_tokens=(answer.prompt_tokens or 0) if asked else 0,
            completion_tokens=(answer.completion_tokens or 0) if asked else 0,
            uncounted=int(asked and bool(answer.text) and answer.completion_tokens is None),
        )
    return total


def spent(cache: Path) -> Usage:
    """What everything in a cache has cost so far, in all sessions, failed attempts with a count of tokens included."""
    return usage(
        Answer("", line.get("text") or "", line.get("error", ""), "", *tokens_of(line), attempts=1)
        for line in files.read_log(cache)
    )


# --- the cache ----------------------------------------------------------------------------------------------------


def _answered(cache: Path) -> dict[str, Answer]:
    """The answers of a cache by the SHA-256 of their request."""
    return {
        line["key"]: replace(
            finished(line["text"], line.get("finish", ""), *tokens_of(line), cached=True),
            served=str(line.get("served", "")),
        )
        for line in files.read_log(cache)
        if isinstance(line.get("key"), str) and isinstance(line.get("text"), str) and not line.get("error")
    }


# --- one batch ----------------------------------------------------------------------------------------------------


def _stream(known: dict[str, Answer], batch: "_Batch") -> Iterator[Answer]:
    """Cached answers, then what the batch's thread brings; leaving the loop early ends the thread."""
    yield from known.values()
    if not batch.waiting:
        return
    thread = threading.Thread(target=batch.run, daemon=True)
    thread.start()
    try:
        while (item := batch.ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        batch.stop()
        thread.join()


class _Batch:
    """The requests of one call under way, in an event loop of their own in a thread of their own."""

    def __init__(
        self, endpoint: Endpoint, key: str, waiting: dict[str, list[Request]], cache: Path, clock: Clock
    ) -> None:
        self.waiting = deque(waiting.items())
        self.ready: queue.SimpleQueue[Answer | BaseException | None] = queue.SimpleQueue()
        self._endpoint, self._key, self._cache, self._clock = endpoint, key, cache, clock
        self._quiet_until = 0.0  # no request before this time: the endpoint asked for it
        self._number = len(waiting)
        self._answered = self._failed_in_a_row = 0
        self._given_up = ""
        self._schemas = True  # until the endpoint turns out to take none
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task | None = None
        self._stopped = threading.Event()

    def run(self) -> None:
        """Body of the thread: answers go to ``ready``, then None, or the error that ended it."""
        end: BaseException | None = None
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            end = error
        self.ready.put(end)

    def stop(self) -> None:
        self._stopped.set()
        if self._loop and self._task:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._task.cancel)

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._stopped.is_set():
            return
        number = min(self._endpoint.concurrency, len(self.waiting))
        try:
            async with (
                Connection(self._endpoint, self._key, self._clock.now) as connection,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(number):
                    group.create_task(self._work(connection))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _work(self, connection: Connection) -> None:
        while self.waiting:
            digest, requests = self.waiting.popleft()
            answer = await self._answer(connection, digest, requests[0])
            for position, request in enumerate(requests):
                # Of equal requests one was sent.
                again = {"attempts": 0, "cached": not answer.error} if position else {}
                self.ready.put(replace(answer, id=request.id, **again))

    async def _answer(self, connection: Connection, digest: str, request: Request) -> Answer:
        """The answer to one request after as many attempts as it takes or may take."""
        tokens: _Tokens = (None, None)
        failure, with_schema = Failure(""), True
        useless, by_chance = 0, self._endpoint.temperature > 0 and request.seed is None
        for attempt in range(self._endpoint.retries + 1):
            if self._given_up:
                return Answer("", error=f"{_NOT_ASKED}{self._given_up}", attempts=attempt)
            await self._until_allowed()
            sent = request if with_schema and self._schemas else replace(request, schema=None)
            try:
                answer = await connection.send(sent)
            except Failure as failed:
                failure, with_schema = failed, with_schema and not failed.schema
                tokens = _added(tokens, failure.tokens)
                if failure.tokens != (None, None):
                    self._keep(digest, failure.tokens, error=failure.reason)
                useless += failure.repeats
                settled = useless >= _SAME_REPLIES and not by_chance
                if failure.hopeless or settled or not failure.again or attempt == self._endpoint.retries:
                    break
                await self._pause(failure, attempt)
                continue
            # What was refused with the schema and taken without it shows that the endpoint knows no schemas.
            self._schemas = self._schemas and with_schema
            self._keep(digest, _tokens(answer), answer.text, finish=answer.finish, served=answer.served)
            self._answered, self._failed_in_a_row = self._answered + 1, 0
            prompt, completion = _added(tokens, _tokens(answer))
            return replace(answer, prompt_tokens=prompt, completion_tokens=completion, attempts=attempt + 1)
        reason = failure.reason
        if why := self._why_given_up(request, failure):
            self._given_up = why
            # Where nothing was reached, that says it already.
            reason = why if why.startswith(UNREACHABLE) else f"{_GIVEN_UP}{why}"
        return Answer("", "", reason, "", *tokens, attempts=attempt + 1)

    def _why_given_up(self, request: Request, failure: Failure) -> str:
        """Why no further request makes sense after one has failed for good; nothing where it may."""
        if failure.hopeless:
            return failure.reason
        if not (failure.again and failure.shared):
            return ""
        self._failed_in_a_row += 1
        never_reached = not self._answered and failure.reason.startswith(UNREACHABLE)
        # Texts that were moderated together may fare better one by one.
        all_failed = failure.down and self._failed_in_a_row == self._number and len(request.inputs) < 2
        many = self._failed_in_a_row >= _GIVE_UP_AFTER
        told = f"{failure.reason}, {self._failed_in_a_row} times in a row" if failure.repeats else failure.reason
        return told if never_reached or all_failed or many else ""

    async def _until_allowed(self) -> None:
        while (left := self._quiet_until - self._clock.now()) > 0:
            await self._clock.sleep(left)

    async def _pause(self, failure: Failure, attempt: int) -> None:
        if failure.wait is None:
            await self._clock.sleep(min(2.0**attempt, _LONGEST_BACKOFF))
        else:  # all workers keep quiet
            self._quiet_until = max(self._quiet_until, self._clock.now() + failure.wait)

    def _keep(self, digest: str, tokens: _Tokens, text: str | None = None, error: str = "", **told: str) -> None:
        line = {"key": digest, "model": self._endpoint.model, "text": text, "finish": "", "error": error, **told}
        line |= {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "time": round(self._clock.now(), 3)}
        files.append_line(self._cache, line)


_NOT_ASKED, _GIVEN_UP = "not asked: ", "given up on the endpoint: "


def given_up(answer: Answer) -> str:
    """Why the endpoint as a whole was given up on, where that is why there is no answer; otherwise nothing."""
    for beginning in (_NOT_ASKED, _GIVEN_UP):
        if answer.error.startswith(beginning):
            return answer.error.removeprefix(beginning)
    return answer.error if answer.error.startswith(UNREACHABLE) else ""


def tells_given_up(text: str) -> bool:
    """Whether a reason for a missing answer, perhaps with words before it, says that the endpoint was given up on."""
    return any(words in text for words in (_NOT_ASKED, _GIVEN_UP, UNREACHABLE))


def _tokens(answer: Answer) -> _Tokens:
    return answer.prompt_tokens, answer.completion_tokens


def _added(one: _Tokens, other: _Tokens) -> _Tokens:
    """Sums in which None is unknown only where both are."""
    sums = [None if a is None and b is None else (a or 0) + (b or 0) for a, b in zip(one, other, strict=True)]
    return sums[0], sums[1]
