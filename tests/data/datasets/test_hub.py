"""Data sets of the model hub: what an entry names, and reading one from a hub on this machine."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from safety_nb.core.errors import InputError
from safety_nb.data.datasets import hub

ROOT = Path(__file__).parents[3]
ROW = {"instruction": "Name a colour.", "input": "", "output": "Blue."}


def refused(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    return str(caught.value)


# Names


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("yahma/alpaca-cleaned", ("yahma/alpaca-cleaned", "", "")),
        ("a/b:train", ("a/b", "train", "")),
        ("a/b@0123abc", ("a/b", "", "0123abc")),
        ("a/b:data/x.json@refs/convert/parquet", ("a/b", "data/x.json", "refs/convert/parquet")),
    ],
)
def test_entry_names_repository_part_and_revision(entry, named):
    found = hub.parse(entry)
    assert (found.repository, found.part, found.revision) == named


@pytest.mark.parametrize("entry", ["tiny-facts", "mine/rows.csv", "./a/b", "a/b/c", "/a/b.json", "a/b:", "a b/c", ""])
def test_other_entries_are_none_of_the_hub(entry):
    assert hub.parse(entry) is None


# Parts

SHARDS = ["data/train-00000-of-00002-ab.parquet", "data/train-00001-of-00002-cd.parquet"]


def chosen(part: str, *names: str) -> list[str]:
    return hub.choose(hub.HubData("a/b", part, ""), ["README.md", ".gitattributes", *names])


@pytest.mark.parametrize(
    ("part", "names", "files"),
    [
        ("", ["x.json"], ["x.json"]),  # the only one
        ("", ["test.csv", "train.csv"], ["train.csv"]),
        ("test", ["test.csv", "train.csv"], ["test.csv"]),
        ("", [*reversed(SHARDS), "data/test-00000-of-00001.parquet"], SHARDS),  # in order
        ("train", ["a/train.jsonl.gz", "a/test.jsonl.gz"], ["a/train.jsonl.gz"]),
        ("b/train.jsonl", ["a/train.jsonl", "b/train.jsonl"], ["b/train.jsonl"]),
    ],
)
def test_part_names_files(part, names, files):
    assert chosen(part, *names) == files


@pytest.mark.parametrize(
    ("part", "names", "told"),
    [
        ("", [], "holds no file that can be read"),
        ("", ["a.csv", "b.csv"], "'train' names none of its parts; name one as in a/b:a.csv. It has a.csv, b.csv."),
        ("dev", ["train.csv"], "'dev' names none of its parts"),
        ("", ["a/train.csv", "b/train.csv"], "'train' names more than one of its parts"),
        ("", ["train.csv", "train.json"], "'train' names more than one of its parts"),  # not twice the same rows
    ],
)
def test_part_that_names_none_or_several_is_refused(part, names, told):
    assert told in refused(chosen, part, *names)


# From a hub


class _Hub(http.server.BaseHTTPRequestHandler):
    """What the hub's client asks of a hub, for one repository."""

    commit = "0" * 40
    files = {
        "train.jsonl": (json.dumps(ROW) + "\n").encode() * 3,
        "test.csv": b"prompt,type\nIs it blue?,colours\n",
        "dev-00000-of-00002.csv": b"prompt\na\nb\n",
        "dev-00001-of-00002.csv": b"prompt\nc\n",
        "README.md": b"# no data",
    }

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/api/datasets/owner/name/revision/") or path == "/api/datasets/owner/name":
            siblings = [{"rfilename": name} for name in self.files]
            return self._send(json.dumps({"id": "owner/name", "sha": self.commit, "siblings": siblings}).encode())
        name = path.rpartition("/")[2]
        if path.startswith("/datasets/owner/name/resolve/") and name in self.files:
            return self._send(self.files[name], {"ETag": f'"{name}"', "X-Repo-Commit": self.commit})
        return self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

    def _send(self, content: bytes, headers: dict | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def endpoint():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def asked(endpoint: str, home: Path, code: str, offline: bool = False) -> str:
    """What code prints in a process of its own: the hub's client reads its settings once."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    settings |= {"SAFETY_NB_CACHE": str(home / "cache"), "no_proxy": "*"}
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from safety_nb.data.datasets import sources\nfrom safety_nb.core.errors import InputError\n{code}",
        ],
        cwd=ROOT,
        env={**os.environ, **settings, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


REFUSED = """
try:
    sources.training_rows({entry!r})
except InputError as error:
    print(error)
"""


def test_data_set_is_read_from_the_hub_and_later_without_it(endpoint, tmp_path):
    read = "print(len(sources.training_rows('owner/name')), sources.evaluation_prompts(['owner/name:test:lookalike']))"
    row = {"dataset": "name-test", "role": "lookalike", "prompt_id": "1", "prompt": "Is it blue?", "type": "colours"}
    assert asked(endpoint, tmp_path, read) == f"3 {[row]}"
    assert asked(endpoint, tmp_path, read, offline=True) == f"3 {[row]}"
    assert asked("http://127.0.0.1:9", tmp_path, read) == f"3 {[row]}"


def test_rows_of_several_files_keep_ids_of_their_own(endpoint, tmp_path):
    read = "print([row['prompt_id'] for row in sources.evaluation_rows('owner/name:dev:harmful')])"
    assert asked(endpoint, tmp_path, read) == "['1-1', '1-2', '2-1']"


def test_without_a_connection_no_other_part_takes_the_place_of_the_one_meant(endpoint, tmp_path):
    assert asked(endpoint, tmp_path, "print(sources.evaluation_rows('owner/name:test:harmful')[0]['prompt'])")
    told = asked(endpoint, tmp_path, REFUSED.format(entry="owner/name"), offline=True)  # train, never fetched
    assert told.startswith("Hub data set 'owner/name' cannot be had (")


def test_unknown_data_set_and_missing_connection_are_told(endpoint, tmp_path):
    told = asked(endpoint, tmp_path, REFUSED.format(entry="owner/other"))
    assert told.startswith("Hub data set 'owner/other' cannot be had (")
    told = asked(endpoint, tmp_path, REFUSED.format(entry="owner/name"), offline=True)
    assert told.startswith("Hub data set 'owner/name' cannot be had (")
    told = asked("http://127.0.0.1:9", tmp_path, REFUSED.format(entry="owner/name"))
    assert told.startswith("Hub data set 'owner/name' cannot be had (")
