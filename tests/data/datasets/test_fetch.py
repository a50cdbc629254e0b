"""Downloads, from a real server on this machine that misbehaves: resuming, checking, keeping."""

import contextlib
import hashlib
import http.server
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from safety_nb.core.errors import InputError
from safety_nb.data.datasets import fetch

# Longer than one read of the downloader and than the buffers between, so that a cut comes midway.
CONTENT = bytes(range(256)) * 8192
OTHER = CONTENT[::-1]
HALF = len(CONTENT) // 2


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refused(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    return str(caught.value)


@dataclass
class Answer:
    """How one request is answered.

    Attributes:
        cut_after: bytes after which the connection ends, of those announced.
        hang: whether the connection is left open there instead.
        ranges: whether a Range is heeded; ``blindly`` without looking at If-Range.
    """

    content: bytes = CONTENT
    tag: str = '"one"'
    status: int = 200
    cut_after: int | None = None
    hang: bool = False
    ranges: bool = True
    blindly: bool = False


@dataclass
class Server:
    """Answers in turn, the last one for ever; keeps the Range of each request."""

    answers: list[Answer]
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""
    waited_out: bool = False  # whether a hanging answer was waited for to its end


@contextlib.contextmanager
def serving(*answers: Answer):
    server = Server(list(answers))
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
            asked, condition = self.headers["Range"], self.headers["If-Range"]
            server.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and answer.ranges else 0
            if start and not answer.blindly and condition != answer.tag:
                start = 0
            if start and start >= len(answer.content):
                self.send_error(416)
                return
            self.send_response(206 if start and answer.status == 200 else answer.status)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(answer.content) - 1}/{len(answer.content)}")
            if answer.tag:
                self.send_header("ETag", answer.tag)
            self.send_header("Content-Length", str(len(answer.content) - start))
            self.end_headers()
            self.wfile.write(answer.content[start : answer.cut_after])
            self.wfile.flush()
            if answer.hang:
                server.waited_out = not over.wait(10)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url = f"http://127.0.0.1:{listening.server_port}/rows.json"
        try:
            yield server
        finally:
            over.set()
            listening.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, no local folder, no proxy between us and the loopback, and no pauses."""
    monkeypatch.delenv("SAFETY_NB_DATA", raising=False)
    monkeypatch.setenv("SAFETY_NB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSE_SECONDS", 0.0)
    return tmp_path / "cache"


def served(server: Server, hash_of: str | None = None) -> fetch.File:
    return fetch.File("somewhere/rows.json", server.url, sha256(CONTENT) if hash_of is None else hash_of)


def kept(folder: Path) -> list[str]:
    """What a download left, but for its lock."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def test_download_is_kept_and_not_fetched_again(cache):
    with serving(Answer()) as server:
        path = fetch.locate("rows", served(server))
        assert fetch.locate("rows", served(server)) == path == cache / "somewhere" / "rows.json"
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None]
    assert kept(cache) == ["rows.json"]


def test_download_that_is_cut_goes_on_from_there(cache):
    with serving(Answer(cut_after=HALF), Answer()) as server:
        path = fetch.locate("rows", served(server))
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert path.read_bytes() == CONTENT
    assert kept(cache) == ["rows.json"]


def test_download_goes_on_after_the_program_ended(cache):
    with serving(Answer(cut_after=HALF), Answer(status=404)) as server:
        refused(fetch.locate, "rows", served(server))
        server.answers = [Answer()]
        assert fetch.locate("rows", served(server)).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF}-"]


def test_server_that_ignores_ranges_is_read_from_the_start():
    with serving(Answer(cut_after=HALF), Answer(ranges=False)) as server:
        assert fetch.locate("rows", served(server)).read_bytes() == CONTENT


def test_file_that_changed_meanwhile_is_read_from_the_start():
    with serving(Answer(content=OTHER, cut_after=HALF), Answer(tag='"two"')) as server:
        assert fetch.locate("rows", served(server, "")).read_bytes() == CONTENT


def test_rest_of_another_version_is_not_put_behind_the_part():
    # This server heeds Range and not If-Range; the ETag of its answer gives it away.
    changed = Answer(tag='"two"', blindly=True)
    with serving(Answer(content=OTHER, cut_after=HALF), changed, changed) as server:
        assert fetch.locate("rows", served(server, "")).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_parts_that_do_not_fit_are_fetched_anew():
    # Without giving itself away by its ETag: only the hash tells.
    with serving(Answer(content=OTHER, cut_after=HALF), Answer(), Answer()) as server:
        assert fetch.locate("rows", served(server)).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("tag", ["", 'W/"one"'])  # a weak tag does not promise the same bytes
def test_part_without_a_version_is_not_continued(tag):
    with serving(Answer(tag=tag, cut_after=HALF), Answer(tag=tag)) as server:
        assert fetch.locate("rows", served(server)).read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_part_that_the_server_has_nothing_after_is_fetched_anew():
    with serving(Answer(content=CONTENT + b"more", cut_after=len(CONTENT) + 2), Answer()) as server:
        assert fetch.locate("rows", served(server)).read_bytes() == CONTENT


def test_hanging_server_is_given_up_and_asked_again(monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 0.2)
    with serving(Answer(cut_after=HALF, hang=True), Answer()) as server:
        assert fetch.locate("rows", served(server)).read_bytes() == CONTENT
        assert not server.waited_out
    assert server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_server_is_asked_again(status):
    with serving(Answer(status=status, content=b"busy"), Answer()) as server:
        assert fetch.locate("rows", served(server)).read_bytes() == CONTENT


def test_download_that_stays_cut_tells_what_to_fetch_and_that_it_goes_on(cache):
    with serving(Answer(cut_after=10)) as server:
        message = refused(fetch.locate, "rows", served(server))
    assert f"Fetch {server.url} to {cache / 'somewhere' / 'rows.json'}" in message
    assert "data_dir or SAFETY_NB_DATA" in message
    assert message.endswith("the next attempt goes on from there.")
    assert len(server.ranges) == fetch.ATTEMPTS
    assert "rows.json" not in kept(cache)


def test_download_that_stays_cut_and_cannot_go_on_keeps_nothing(cache):
    with serving(Answer(cut_after=10, tag="")) as server:
        assert "goes on" not in refused(fetch.locate, "rows", served(server))
    assert kept(cache) == []


def test_missing_page_is_asked_for_once_and_keeps_nothing(cache):
    with serving(Answer(status=404)) as server:
        assert f"Fetch {server.url}" in refused(fetch.locate, "rows", served(server))
    assert server.ranges == [None]
    assert kept(cache) == []


def test_refused_connection_tells_what_to_fetch(cache):
    with serving(Answer()) as server:
        pass  # over: nobody listens there any more
    assert f"Fetch {server.url}" in refused(fetch.locate, "rows", served(server))
    assert kept(cache) == []


def test_download_of_another_hash_stops_with_both_and_keeps_nothing(cache):
    with serving(Answer(content=OTHER)) as server:
        message = refused(fetch.locate, "rows", served(server))
    assert sha256(OTHER) in message
    assert sha256(CONTENT) in message
    assert server.ranges == [None]
    assert kept(cache) == []


def test_hash_that_was_not_known_is_recorded_at_first_use_and_checked_afterwards(cache):
    with serving(Answer()) as server:
        path = fetch.locate("rows", served(server, ""))
        assert (cache / "somewhere" / "rows.json.sha256").read_text() == f"{sha256(CONTENT)}\n"
        path.write_bytes(OTHER)
        message = refused(fetch.locate, "rows", served(server, ""))
    assert sha256(OTHER) in message
    assert sha256(CONTENT) in message


def test_kept_file_that_changed_is_not_used(cache):
    with serving(Answer()) as server:
        fetch.locate("rows", served(server)).write_bytes(OTHER)
        message = refused(fetch.locate, "rows", served(server))
    assert f"has SHA-256 {sha256(OTHER)}, not the recorded {sha256(CONTENT)}" in message
    assert f"have it fetched anew from {server.url}" in message


def test_missing_file_of_a_local_folder_is_fetched_when_asked_for_and_only_then(tmp_path):
    with serving(Answer()) as server:
        message = refused(fetch.locate, "rows", served(server), str(tmp_path))
        place = tmp_path / "somewhere" / "rows.json"
        assert f"is not in data_dir: fetch {server.url} to {place}" in message
        assert server.ranges == []
        assert fetch.fetch("rows", served(server), str(tmp_path)) == place
    assert place.read_bytes() == CONTENT


def test_two_at_once_fetch_once():
    with serving(Answer()) as server:
        both = [threading.Thread(target=fetch.locate, args=("rows", served(server))) for _ in range(2)]
        for each in both:
            each.start()
        for each in both:
            each.join()
    assert server.ranges == [None]


def test_nothing_is_said_where_there_is_no_terminal(capfd):
    with serving(Answer()) as server:
        fetch.locate("rows", served(server))
    assert capfd.readouterr() == ("", "")
