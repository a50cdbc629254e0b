"""One request to an OpenAI-compatible endpoint, sent once: what is asked, over which interface, what came of it.

Says of a failure whether another attempt makes sense, and makes none. The key is read from the environment and stands
in no answer and no message. Knows neither files nor other requests.
"""

import asyncio
import ipaddress
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

from safety_nb.core import secrets
from safety_nb.core.errors import InputError
from safety_nb.core.text import visible

_LONGEST_WAIT = 600.0  # seconds; an endpoint that asks for more (a spent daily quota) is not waited for
_LONGEST_NAME = 200  # characters
UNREACHABLE = "cannot reach"


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and how.

    Attributes:
        base_url: address up to and with the version, as ``http://localhost:8000/v1``.
        model: the model's name at that address.
        key_name: NAME of the environment variable that holds the key; empty where none is needed.
        temperature: 0 for the likeliest answer.
        max_tokens: longest answer in tokens.
        concurrency: requests under way at once.
        timeout_seconds: longest wait for one answer.
        retries: further attempts after a failed one.
        top_p: share of the likeliest tokens to draw from, where temperature is above 0.
        empty_answers: take an empty answer for one, where the endpoint says that the model has ended it; otherwise it
            is a failure.

    Raises:
        InputError: the address or the model is not usable, or a number is out of range.
    """

    base_url: str
    model: str
    key_name: str = ""
    temperature: float = 0.0
    max_tokens: int = 256
    concurrency: int = 4
    timeout_seconds: float = 60.0
    retries: int = 5
    top_p: float = 1.0
    empty_answers: bool = False

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            usable = parts.port != 0 and _is_host(parts.hostname or "") and _is_plain(self.base_url)
        except ValueError:
            parts, usable = urlsplit(""), False
        if parts.username or parts.password or parts.query or parts.fragment:
            # Not quoted: what stands there is a secret as likely as not.
            raise InputError(
                "endpoint: the address holds a user name, a password or a query; give the bare address, and name the "
                "environment variable of the key in key_name."
            )
        if parts.scheme not in ("http", "https") or not usable:
            raise InputError(f"endpoint: {self.base_url!r} is no address; write one like http://localhost:8000/v1.")
        if not self.model:
            raise InputError(f"model: name the model to ask at {self.host}.")
        if self.key_name and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_name):
            # Not quoted: it may be the key itself.
            raise InputError(
                "key_name: give the NAME of an environment variable (capitals, digits, underscores), such as "
                "OPENAI_API_KEY; the key itself belongs into the environment alone. If what you wrote is your key, "
                "renew it."
            )
        if self.concurrency < 1 or self.max_tokens < 1 or self.retries < 0 or not self.timeout_seconds > 0:
            raise InputError(
                "endpoint: concurrency and max_tokens must be 1 or more, retries 0 or more and timeout_seconds above "
                f"0, not {self.concurrency}, {self.max_tokens}, {self.retries} and {self.timeout_seconds}."
            )

    @property
    def host(self) -> str:
        """Host and port, for messages and records."""
        return urlsplit(self.base_url).netloc


def _is_plain(address: str) -> bool:
    """Whether an address holds no space and no control character; ``urlsplit`` drops some of them without a word."""
    return address.isprintable() and not re.search(r"[\s\\<>\"^`{|}]", address)


def _is_host(name: str) -> bool:
    """Whether a name can be a host's: an IP address, or labels as the name system has them."""
    if ":" in name or re.search(r"(^|\.)(\d+|0[xX][0-9a-fA-F]*)\.?$", name):  # of these two only addresses end so
        ipaddress.ip_address(name.rstrip("."))  # a ValueError says what is none
        return True
    labels = name.removesuffix(".").encode("idna").decode().split(".")  # a ValueError for what is too long or empty
    return all(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", label) for label in labels)


@dataclass(frozen=True)
class Request:
    """One conversation or text to be continued, or texts to be moderated.

    Attributes:
        messages: dicts with ``role`` and ``content``, for the chat interface.
        text: what the model is to read as it stands, for the interface without chat template; in place of messages.
        seed: of a sampled answer; equal requests with other seeds are asked each.
        schema: JSON schema that the answer should follow. An endpoint that knows no such thing is asked without, so
            that the messages have to say it too.
        inputs: for the moderation interface, each judged for itself; in place of messages.
    """

    id: str
    messages: Sequence[dict[str, str]] = ()
    text: str = ""
    seed: int | None = None
    schema: Mapping[str, Any] | None = None
    inputs: Sequence[str] = ()


@dataclass(frozen=True)
class Answer:
    """What came of one request.

    Attributes:
        text: the answer; empty where there is none, and the beginning of one that was cut off. Of a moderation: JSON,
            an array with one result for each input.
        error: why there is no whole answer; empty where there is one.
        finish: the endpoint's finish reason.
        prompt_tokens, completion_tokens: as the endpoint counted them, over all attempts; None where it did not.
        cached: it was there already, and nothing was asked.
        attempts: requests sent for it now.
        served: the model's name as the endpoint tells it with the answer, which may be more exact than the one asked.
    """

    id: str
    text: str = ""
    error: str = ""
    finish: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached: bool = False
    attempts: int = 0
    served: str = ""


# --- the key ------------------------------------------------------------------------------------------------------


def require_key(endpoint: Endpoint) -> str:
    """The key from the environment, or nothing where none is needed. Raises InputError where it is not set."""
    if not endpoint.key_name:
        return ""
    key = os.environ.get(endpoint.key_name, "").strip()
    if not key:
        raise InputError(
            f"key_name: the environment variable {endpoint.key_name} is not set; set it to the key of "
            f"{endpoint.host} before Jupyter starts, or leave key_name empty if no key is needed."
        )
    if not re.fullmatch(r"[!-~]+", key):  # no header can carry it, and the error about that would quote it
        raise InputError(
            f"key_name: the environment variable {endpoint.key_name} holds spaces, line breaks or letters that are in "
            "no key; set it anew."
        )
    return key


def redacted(text: str, key: str) -> str:
    """The text without the key in any form, and without any other secret of the environment."""
    return secrets.redact(text, [key])


def _told(text: str, key: str) -> str:
    """What a server says, for messages: without secrets, and doing nothing to the terminal that shows it."""
    return visible(redacted(text, key), None)[0]


# --- failures and answers -------------------------------------------------------------------------------------------


@dataclass(eq=False)  # not frozen: the interpreter sets attributes of exceptions
class Failure(Exception):
    """One failed attempt.

    Attributes:
        again: whether another attempt makes sense.
        shared: whether the reason is the endpoint's and not this request's.
        wait: seconds the endpoint asks to wait; None where it does not say.
        hopeless: whether the other requests would fail alike, so that they need not be sent.
        tokens: what the attempt cost nevertheless.
        schema: whether the JSON schema may be to blame.
        repeats: whether the endpoint did answer, and would answer alike if nothing is left to chance.
        down: whether the endpoint answers nothing at present, whatever it is asked.
    """

    reason: str
    again: bool = True
    shared: bool = True
    wait: float | None = None
    hopeless: bool = False
    tokens: tuple[int | None, int | None] = (None, None)
    schema: bool = False
    repeats: bool = False
    down: bool = False


def tokens_of(line: dict) -> tuple[int | None, int | None]:
    """Tokens of the prompt and of the answer, as a reply or a cache tells them; None where it does not."""
    return _count(line.get("prompt_tokens")), _count(line.get("completion_tokens"))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def finished(text: str, finish: str, prompt: int | None, completion: int | None, cached: bool = False) -> Answer:
    """An answer that the endpoint gave, whole or not: asking again with the same settings would give the same."""
    errors = {
        "length": "cut off at max_tokens; allow more",
        "content_filter": "withheld by the endpoint's content filter",
    }
    return Answer("", text, errors.get(finish, ""), finish, prompt, completion, cached)


# --- one connection -----------------------------------------------------------------------------------------------


class Connection:
    """A client of an endpoint, and what was found out about the names it takes.

    Args:
        now: the time in seconds since 1970, for an endpoint that names the time to come back at.
    """

    def __init__(self, endpoint: Endpoint, key: str, now: Callable[[], float]) -> None:
        from openai import AsyncOpenAI

        from safety_nb.core import transport

        self._endpoint, self._key, self._now = endpoint, key, now
        self._length_name = "max_tokens"
        self._client = AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=key or "none",  # left out, the client would send whatever OPENAI_API_KEY holds
            max_retries=0,
            http_client=transport.Client(endpoint.timeout_seconds),
        )

    async def __aenter__(self) -> "Connection":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._client.__aexit__(*error)

    async def send(self, request: Request) -> Answer:
        """Send a request once.

        Raises:
            Failure: no answer came of it.
            InputError: the endpoint refuses the key, or knows no such model or path.
        """
        import openai

        from safety_nb.core.transport import ReplyError

        seconds, length_name = self._endpoint.timeout_seconds, self._length_name
        try:
            # The client's own limit is for each packet: a server that drips would never reach it.
            async with asyncio.timeout(seconds):
                raw = await self._send(request, length_name)
            body, read = _body(raw.http_response), self._moderated if request.inputs else self._chosen
            answer = read(body, request)
            return replace(answer, served=visible(self._text(body.get("model")), _LONGEST_NAME)[0])
        except Failure as failure:
            raise replace(failure, reason=_told(failure.reason, self._key)) from None
        except openai.APIStatusError as error:
            raise self._status_failure(error.response, length_name, request) from None
        except (TimeoutError, ReplyError) as error:
            raise self._connection_failure(error, seconds) from None
        except openai.APIConnectionError as error:
            raise self._connection_failure(error.__cause__ or error, seconds) from None
        except Exception as error:  # one request that cannot be sent or read must not lose the others
            reason = _told(f"{type(error).__name__}: {error}", self._key)
            raise Failure(reason, again=False, shared=False) from None

    async def _send(self, request: Request, length_name: str) -> Any:
        endpoint = self._endpoint
        if request.inputs:
            create = self._client.moderations.with_raw_response.create
            return await create(model=endpoint.model, input=list(request.inputs))
        how: dict[str, Any] = {"model": endpoint.model, "temperature": endpoint.temperature}
        how |= {"top_p": endpoint.top_p} if endpoint.top_p < 1 else {}
        how |= {"seed": request.seed} if request.seed is not None else {}
        how["extra_body"] = {length_name: endpoint.max_tokens}
        if request.text:
            return await self._client.completions.with_raw_response.create(prompt=request.text, **how)
        if request.schema is not None:
            schema = {"name": "reply", "strict": True, "schema": request.schema}
            how["response_format"] = {"type": "json_schema", "json_schema": schema}
        return await self._client.chat.completions.with_raw_response.create(messages=list(request.messages), **how)

    def _chosen(self, body: dict, request: Request) -> Answer:
        """The answer in the body of a completion, with or without chat template."""
        told = body.get("usage")
        tokens = tokens_of(told) if isinstance(told, dict) else (None, None)
        choices = body.get("choices")
        if not isinstance(choices, list) or len(choices) != 1:
            number = len(choices) if isinstance(choices, list) else "no list of"
            raise _useless(f"the answer holds {number} choices, not one", tokens)
        choice = choices[0] if isinstance(choices[0], dict) else {}
        message = choice.get("message") if isinstance(choice.get("message"), dict) else {}
        # OpenAI puts a refusal in a field of its own; what continues a text without chat template is no message.
        text = message.get("content") or message.get("refusal") or choice.get("text") or ""
        answer = finished(self._text(text), self._text(choice.get("finish_reason")), *tokens)
        may_be_empty = self._endpoint.empty_answers and answer.finish and isinstance(text, str)
        if not answer.text and not answer.error and not may_be_empty:
            raise _useless("the answer is empty or no text", tokens)
        return answer

    def _text(self, value: Any) -> str:
        """A text from a body, without secrets and halves of surrogate pairs; nothing where it is no text."""
        return redacted(value.encode("utf-8", "replace").decode().strip(), self._key) if isinstance(value, str) else ""

    def _moderated(self, body: dict, request: Request) -> Answer:
        """The results in the body of a moderation, as JSON."""
        results, asked = body.get("results"), len(request.inputs)
        if not isinstance(results, list) or len(results) != asked:
            number = len(results) if isinstance(results, list) else "no list of"
            # Not again: an endpoint that does not take lists will answer the next one alike.
            told = f"the answer holds {number} results for {asked} texts"
            raise _useless(told, (None, None)) if asked == 1 else Failure(told, again=False, shared=False)
        return finished(redacted(json.dumps(results), self._key), "stop", None, None)

    def _connection_failure(self, cause: BaseException, seconds: float) -> Failure:
        """What it means that no whole reply came."""
        import httpx

        from safety_nb.core.transport import ReplyError

        if isinstance(cause, ReplyError):
            return _useless(_told(str(cause), self._key), (None, None))
        if isinstance(cause, TimeoutError | httpx.TimeoutException) and not isinstance(cause, httpx.ConnectTimeout):
            return Failure(f"no answer within {seconds:g} s")
        why = _told(str(cause) or type(cause).__name__, self._key)
        return Failure(f"{UNREACHABLE} {self._endpoint.host}: {why}", down=True)

    def _status_failure(self, response: Any, length_name: str, request: Request) -> Failure:
        """What a status of 300 or more means.

        Raises:
            InputError: as ``send``.
        """
        status, body = response.status_code, _told(response.text, self._key)
        said = f"HTTP {status}: {body[:200].strip() or 'no reason given'}"
        host, name = self._endpoint.host, self._endpoint.key_name
        if status < 400:
            raise InputError(
                f"endpoint: {host} sends requests on to {_told(_moved_to(response), self._key)}, which was not "
                "followed; if that is where your prompts and answers may go, give it as the address."
            )
        if status in (401, 403):
            mend = f"look at the key in {name}" if name else "name the environment variable of your key in key_name"
            raise InputError(f"endpoint: {host} refuses access; {mend}. It says {said}")
        if status == 404:
            raise InputError(
                f"endpoint: {host} knows no model {self._endpoint.model!r} or no such path; the address mostly ends "
                f"in /v1. It says {said}"
            )
        if status == 400 and length_name == "max_tokens" and "max_completion_tokens" in body:
            self._length_name = "max_completion_tokens"  # newer models of some vendors take this name only
            return Failure(said, shared=False, wait=0.0)
        if status == 429 and "insufficient_quota" in body:
            return Failure(said, hopeless=True)
        if status in (408, 409, 429) or status >= 500:
            wait = _retry_after(response.headers.get("retry-after", ""), self._now())
            if wait is not None and wait > _LONGEST_WAIT:
                told = f"{host} asks to wait {wait:.0f} s; run again later, what was answered is kept ({said})"
                return Failure(told, hopeless=True)
            return Failure(said, wait=wait, down=status in (429, 502, 503, 504, 529))
        if status in (400, 422) and request.schema is not None:
            return Failure(said, shared=False, wait=0.0, schema=True)
        return Failure(said, again=False, shared=False)


def _body(response: Any) -> dict:
    """The JSON object in a response with a good status; anything else that is JSON is an empty one."""
    try:
        body = json.loads(response.text)
    except (ValueError, RecursionError):  # nested too deep to be read
        kind = response.headers.get("content-type", "none")
        raise Failure(f"the answer is no JSON (content type {kind}): {response.text[:80]!r}") from None
    return body if isinstance(body, dict) else {}


def _useless(reason: str, tokens: tuple[int | None, int | None]) -> Failure:
    """What a reply is that was paid for and holds no answer. The server is well: there is nothing to wait for."""
    return Failure(reason, wait=0.0, tokens=tokens, repeats=True)


def _moved_to(response: Any) -> str:
    """The address that a redirect names, as a user would write it: up to the version, without user, query and such."""
    location = response.headers.get("location", "")
    try:
        parts = urlsplit(urljoin(str(response.request.url), location))
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        place = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return f"{location[:200]!r}, which is no address"
    return place + re.sub(r"/(chat/completions|completions|moderations)/?$", "", parts.path)[:200]


def _retry_after(value: str, now: float) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3); None without one."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
