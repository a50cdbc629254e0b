"""`safety-nb data …` as a user calls it."""

import json
import os
from pathlib import Path

import pytest
from commands import Answer, safety_nb

needs_data = pytest.mark.skipif(
    not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets: set SAFETY_NB_DATA to their folder"
)


def data(*arguments: str, folder: Path, **settings: str) -> Answer:
    """Run the command with an empty cache and no connection."""
    given = {"SAFETY_NB_DATA": os.environ.get("SAFETY_NB_DATA"), **settings}
    cut_off = {"SAFETY_NB_CACHE": str(folder / "cache"), "https_proxy": "http://127.0.0.1:9"}
    return safety_nb("data", *arguments, cwd=folder, **cut_off, **given)


def test_list_shows_rows_role_state_and_licence_of_every_set_in_full(tmp_path):
    lines = data("list", folder=tmp_path, SAFETY_NB_DATA="").stdout.splitlines()
    fields = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line.strip()}
    assert fields["tiny-lookalike"] == "100 lookalike embedded Apache-2.0"
    assert fields["xstest-unsafe"] == "200 harmful not fetched CC BY 4.0"
    assert fields["red-team-attempts"] == "38,961 labelled not fetched, unverified MIT"
    assert not any("…" in line for line in lines)


@needs_data
def test_verify_checks_what_is_here(tmp_path):
    answer = data("verify", folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "safety-tuned-llamas: 2,483 rows, as recorded" in answer.stdout
    assert "strongreject" not in answer.stdout


def test_verify_tells_of_every_file_that_is_another(tmp_path):
    for name in ("or-bench/or-bench-hard-1k.csv", "strongreject/strongreject_dataset.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("prompt\n")
    answer = data("verify", "--data-dir", str(tmp_path), folder=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.count("not the recorded") == 2
    assert "tiny-facts: 40 rows, as recorded" in answer.stdout


def test_verify_of_a_set_that_is_not_here_says_how_to_fetch_it(tmp_path):
    answer = data("verify", "strongreject", folder=tmp_path, SAFETY_NB_DATA="")
    assert answer.returncode == 2
    assert "`safety-nb data fetch strongreject` fetches https://" in answer.stderr


def test_fetch_without_a_connection_says_what_to_fetch_from_where_to_which_path(tmp_path):
    answer = data("fetch", "xstest-safe", folder=tmp_path, SAFETY_NB_DATA="")
    assert answer.returncode == 2
    assert "/xstest_prompts.csv to " + str(tmp_path / "cache" / "xstest" / "xstest_prompts.csv") in answer.stderr
    assert "Traceback" not in answer.stderr


def test_fetch_checks_all_names_first(tmp_path):
    answer = data("fetch", "tiny-facts", "xstest", folder=tmp_path)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert "There is no data set 'xstest'; choose from tiny-general" in answer.stderr


@needs_data
def test_show_withholds_harmful_texts_unless_asked(tmp_path):
    text = json.loads((Path(os.environ["SAFETY_NB_DATA"]) / "safety-tuned-llamas/evaluation/I-CoNa.json").read_text())
    hidden = data("show", "I-CoNa", "-n", "2", folder=tmp_path).stdout
    assert not any(prompt in hidden for prompt in text["instructions"])
    assert f"({len(text['instructions'][0])} characters)" in hidden
    assert "--show-harmful shows them" in hidden
    shown = data("show", "I-CoNa", "-n", "2", "--show-harmful", folder=tmp_path).stdout
    assert json.dumps(text["instructions"][1], ensure_ascii=False) in shown
    assert json.dumps(text["instructions"][2], ensure_ascii=False) not in shown


@needs_data
def test_show_withholds_the_safety_demonstrations_too(tmp_path):
    # Their instructions are harmful, though the answers are safe.
    assert '"instruction": "(' in data("show", "safety-tuned-llamas", folder=tmp_path).stdout


def test_show_tells_whom_to_cite(tmp_path):
    first = data("show", "tiny-ordinary", "-n", "1", folder=tmp_path).stdout.splitlines()[0]
    assert first == "tiny-ordinary: made by safety_nb/tiny/world.py. Licence: Apache-2.0. embedded"


def test_show_of_ones_own_file_cannot_steer_the_terminal(tmp_path):
    (tmp_path / "mine.csv").write_text("prompt\na\x1b[2Jb\x9bc\u202ed\n")
    shown = data("show", "mine.csv:ordinary", folder=tmp_path).stdout
    assert '"prompt": "a\\u001b[2Jb\\x9bc\\u202ed"' in shown
