"""Servers for tests, on loopback: the miniature behind ``transformers serve``, and one that does as it is told."""

import asyncio
import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import forks

from safety_nb.core.endpoint import Clock
from safety_nb.tiny import world

# The base of the miniature has no chat template; this one is among the forms it was trained on.
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
_STARTS_WITHIN = 120  # seconds


@dataclass(frozen=True)
class Served:
    """A model that is being served: its address, and its name there."""

    base_url: str
    model: str


@contextlib.contextmanager
def serve_tiny(origin: forks.Origin, folder: Path) -> Iterator[Served]:
    """Serve the miniature's base with ``transformers serve`` while the body runs."""
    model = folder / "served-base"
    shutil.copytree(world.BASE_DIR, model)
    (model / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-c", "from transformers.cli.transformers import main; main()", "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    process = origin.start(*command, cwd=folder)
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process)
        yield Served(f"http://127.0.0.1:{port}/v1", str(model))
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(address: str, process: forks.Process) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=1):
            return
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"transformers serve did not start:\n{process.communicate()[1][-2000:]}")


class FakeTime:
    """A clock that moves only when someone waits for it."""

    def __init__(self) -> None:
        self.now, self.slept = 1_800_000_000.0, []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.sleep)


def reply(text: str = "fine", finish: str = "stop", prompt: int = 5, answer: int = 2, model: str = "a-model-1") -> dict:
    """The body of a chat completion, and of one without chat template, as it should be."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "text": text, "finish_reason": finish}
    return {"model": model, "choices": [choice], "usage": {"prompt_tokens": prompt, "completion_tokens": answer}}


@dataclass(frozen=True)
class Reaction:
    """What the scripted server answers: a body (a dict is sent as JSON) and how.

    Attributes:
        length: the content length claimed; None for the true one. More than there is looks like a broken connection.
        drip: seconds between two bytes, for ever.
    """

    body: dict | str | bytes = ""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    length: int | None = None
    drip: float = 0.0


class Scripted:
    """A server whose answer to each request is decided by a function of its user message and how often it came.

    Attributes:
        seen: the bodies of the requests in the order in which they came.
        headers: their headers. paths: where they were sent.
        most_at_once: the most requests that were under way at one time.
        closing: set when the server ends; a reaction that blocks has to wait for it.
    """

    def __init__(self, react: Callable[[str, int], Reaction]) -> None:
        self._react, self._lock, self._under_way = react, threading.Lock(), 0
        self.seen: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.most_at_once = 0
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server._handle(self)

            def log_message(self, *_) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def asked(self) -> list[str]:
        """The user messages, texts to be continued, or texts to be moderated (a line each), as they came."""
        return [
            body.get("prompt") or "\n".join(body.get("input", ())) or body["messages"][-1]["content"]
            for body in self.seen
        ]

    def __enter__(self) -> "Scripted":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            self.seen.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.paths.append(handler.path)
            message = self.asked()[-1]
            number = self.asked().count(message)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            reaction = self._react(message, number)
        finally:
            with self._lock:
                self._under_way -= 1
        with contextlib.suppress(OSError):  # the client has left
            self._send(handler, reaction)

    def _send(self, handler: BaseHTTPRequestHandler, reaction: Reaction) -> None:
        content = reaction.body
        if isinstance(content, dict):
            content = json.dumps(content)
        content = content.encode() if isinstance(content, str) else content
        handler.send_response(reaction.status)
        for name, value in reaction.headers:
            handler.send_header(name, value)
        handler.send_header("content-type", reaction.content_type)
        handler.send_header("content-length", str(len(content) if reaction.length is None else reaction.length))
        if reaction.length is not None:
            handler.close_connection = True
        handler.end_headers()
        handler.wfile.write(content)
        handler.wfile.flush()
        while reaction.drip and not self.closing.wait(reaction.drip):
            handler.wfile.write(b" ")
            handler.wfile.flush()


# --- a judge of pairs ---------------------------------------------------------------------------------------------

FIRST, SECOND, TIE = ('{"better": "first"}', '{"better": "second"}', '{"better": "tie"}')


def inside(message: str, name: str) -> str:
    """What stands between the only tags of a name; the closing one may stand there once."""
    (code,) = set(re.findall(rf"^<{name}-([0-9a-f]{{12}})>$", message, re.M))
    before, text = message.split(f"<{name}-{code}>\n")
    text, after = text.split(f"\n</{name}-{code}>")
    return text


def prefers(text: str):
    """A judge that finds the answer with that text, wherever it stands."""
    return lambda message, number: Reaction(reply(FIRST if text in inside(message, "first-answer") else SECOND))
