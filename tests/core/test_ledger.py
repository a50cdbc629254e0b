"""A ledger's shape is looked at once: what is none is named, and nothing of it counts."""

import json

import ledgers
import pytest

from safety_nb.core import ledger

WHOLE = {
    "stages": {
        "mix": {
            "state": "done",
            "wall_seconds": 1,
            "cause": None,
            "outputs": {"mix/train.jsonl": "ab"},
            "device": "cpu",
        },
        "train": {"state": "running", "started": 1.5, "pid": 7, "kernel": {"pid": 8, "created": 1.5}},
        "generate": {"state": "waiting"},
        "of another version": {"state": "killed", "cause": "signal 9", "unknown": [1]},
    },
    "versions": {"torch": "2"},
    "unknown": None,
}


@pytest.mark.parametrize("form", ledgers.DAMAGED)
def test_what_is_no_ledger_counts_for_nothing_and_is_told(form, tmp_path):
    (tmp_path / "run.json").write_bytes(ledgers.DAMAGED[form])
    found, why = ledger.read(tmp_path / "run.json")
    assert found == {"stages": {}} and why and len(why) < 200 and why.isprintable()


def test_a_whole_ledger_is_given_as_it_is(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(WHOLE))
    assert ledger.read(tmp_path / "run.json") == (WHOLE, "")


def test_no_ledger_is_no_damage(tmp_path):
    assert ledger.read(tmp_path / "run.json") == ({"stages": {}}, "")
    (tmp_path / "file").touch()
    assert ledger.read(tmp_path / "file" / "run.json") == ({"stages": {}}, "")


def test_a_folder_of_that_name_is_a_damaged_ledger(tmp_path):
    (tmp_path / "run.json").mkdir()
    assert "cannot be read" in ledger.read(tmp_path / "run.json")[1]


def test_damaged_ledgers_are_kept_aside_one_beside_the_other(tmp_path):
    for text in ("first", "second"):
        (tmp_path / "run.json").write_text(text)
        ledger.keep_aside(tmp_path / "run.json")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "run.damaged-1.json": "first",
        "run.damaged-2.json": "second",
    }
