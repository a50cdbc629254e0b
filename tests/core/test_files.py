"""Files of records: what cannot be read is told by its place."""

import json

import pytest

from safety_nb.core import files
from safety_nb.core.errors import InputError

BAD = {"deep": b"[" * 100_000, "digits": b"9" * 5000, "cut": b'{"a": 1', "no text": b'"\xff"', "empty": b""}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_record_that_cannot_be_read_is_told(content, tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="record.json is no JSON that can be read"):
        files.read_json(path)


@pytest.mark.parametrize("content", [content for content in BAD.values() if content], ids=[name for name in BAD][:-1])
def test_a_row_that_cannot_be_read_is_told_by_its_line(content, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + content)
    with pytest.raises(InputError, match="rows.jsonl, line 2 is no JSON that can be read"):
        files.read_jsonl(path)


def test_a_log_passes_over_what_cannot_be_read(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join([*BAD.values(), b'{"a": 1}']))
    assert files.read_log(path) == [{"a": 1}]


def test_what_is_written_is_read(tmp_path):
    rows = [{"a": "ü\u2028"}, {"b": [1.5, None]}]
    files.write_jsonl(tmp_path / "rows.jsonl", rows)
    files.write_json(tmp_path / "record.json", rows)
    assert files.read_jsonl(tmp_path / "rows.jsonl") == files.read_json(tmp_path / "record.json") == rows
    assert json.loads((tmp_path / "record.json").read_text()) == rows
