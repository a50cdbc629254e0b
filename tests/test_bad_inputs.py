"""Bad input of every kind, through the command line: status 2, words that help, no traceback, and nothing written."""

import contextlib
import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Answer, safety_nb
from servers import Reaction, Scripted, reply

from safety_nb import cli
from safety_nb.core import outputs


@pytest.fixture(autouse=True)
def _runner(monkeypatch) -> None:
    """A stand-in for what executes: no bad input comes so far, and no kernel has to be made ready."""

    def fail(*args, **kwargs):
        raise AssertionError("it would have been executed")

    monkeypatch.setattr("safety_nb.run.runner.execute_run", fail)
    monkeypatch.setattr("safety_nb.run.fork_server.kernels", contextlib.nullcontext)


# --- parameter files ----------------------------------------------------------------------------------------------

NUMBERS = "too large or too long a number"
YAML = {
    "a date or time that is none": [
        *["seed: 2024-02-30", "seed: 2023-02-29", "seed: 2024-13-01", "seed: 0000-00-00", "seed: 2024-00-10"],
        *["seed: 2024-01-01T25:00:00", "seed: 2024-01-01 10:61:00", "seed: 2024-01-01 00:00:00 +99:99"],
        *["general: 9999-99-99", "seed: [1, 2024-04-31]", "2024-02-30: 1", "seed: !!timestamp soon"],
    ],
    "a date or time where none belongs": ["seed: 2024-02-29", "general: 2001-12-14t21:59:43.10-05:00"],
    NUMBERS: [
        *[f"seed: {'9' * 5000}", f"seed: {'9' * 400}", f"seed: -{'9' * 5000}", f"seed: 0x{'f' * 9000}"],
        *["seed: 1.0e+999"],
        *[f"seed: 0b{'1' * 5000}", "seed: 1" + ":59" * 3000, "learning_rate: 1" + ":59" * 400 + ".5", "epochs: .inf"],
        *["learning_rate: .nan", "epochs: -.inf", "seed: 4294967296", f"learning_rate: {'9' * 400}"],
        *["epochs: 1.0e+300"],
        *["stage_timeout: 1.0e+300", "stage_timeout: 99999999", "checkpoint_minutes: 1.0e+18", f"seed: [0, {2**70}]"],
        *["n_general: 18446744073709551617", f"{'9' * 5000}: 1", "weight_decay: 1.0e+30", "epochs: 1e400"],
    ],
    "a value that is not what its tag says": [
        *["seed: !!int abc", "seed: !!float abc", "seed: !!bool maybe", "seed: !!binary x", "seed: 0x_", "seed: 0b_"],
        *["seed: !!python/object:os.system x", "seed: !mine 3", "seed: !!seq {a: 1}", "seed: !!map [1]"],
        *["seed: =", "<<: 1"],
        *["seed: !!str [1]", "!!omap [a]", "? [1, 2]\n: x", "? {a: 1}\n: x", "seed: !!set {a, b}", "seed: !!null x"],
    ],
    "aliases": [
        *["seed: &a [*a]", "judges: &a [*a]", "general: &a [*a]", "seed: &a {b: *a}", "&a [*a]", "&a {seed: *a}"],
        *["seed: *unknown", "a: &a {<<: *a}", "seed: &a [[*a]]", "evaluation: &a [x, *a]"],
        "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)
        )]),
    ],
    "deep nesting": [
        *["[" * 100_000, "seed: " + "[" * 5000 + "]" * 5000, "{a: " * 5000, "seed: " + "{a: " * 300 + "1" + "}" * 300],
        *["- " * 3000, "seed: " + "[" * 20 + "]" * 20, "judges: " + "[" * 500 + "]" * 500, "seed: " + "!!seq [" * 2000],
    ],
    "text that no file can hold": [
        *['general: "\\uD800"', 'general: "a\\0b"', 'general: "\\U00110000"', 'judges: ["\\uDFFF"]', '"\\uD800": 1'],
        *["general: \0", "seed: 1\x07", 'general: "\\x"', 'data_dir: "\\0"', 'base_model: "\\uD83D"', b"general: \xff"],
        *[b"\xff\xfes\0e\0", b"seed: 1\n\x80", b"\x89PNG\r\n\x1a\n\0\0", b"PK\x03\x04\xff"],
    ],
    "no mapping of names": [
        *["[1, 2]", "7", "text", "- seed: 1", "1: 2", "null: 1", "true: 1", "2024-01-01: 1", "--- a\n--- b", "seed"],
        *["seed: 1\n\tn_safety: 2", "a: b: c", "'", '"', "{", "%YAML 9.9\n---\na: 1", "@x: 1", "`", "seed: ["],
        *["seed: {"],
    ],
    "values of another shape": [
        *["seed: {a: 1}", "judges: refusal", "judges: {refusal: 1}", "judges: [[refusal]]", "judges: [1]"],
        *["seed: null"],
        *["evaluation: []", "evaluation: [tiny-facts, tiny-facts]", "general: [[a]]", "general: {a: [b]}"],
        *["general: 3"],
        *["oversample: 1", "oversample: yes please", "learning_rate: 2e-4", "n_safety: 1.5", "n_safety: '3'"],
        *["mode: 7"],
        *["lora_targets: ['q', 3]", "stage_timeout: soon", "run_dir: x", "judges: ['']"],
    ],
    "names that there are not": [
        "n_saftey: 1", "'': 1", f"{'n' * 10_000}: 1", '"\\e[31m": 1', "Seed: 1", "seed : 1\nsede: 2",
    ],
    "files that there are not": [
        *["general: none.csv", f"general: {'x' * 5000}.csv", f"general: {'x/' * 3000}a.csv"],
        *[f"safety: {'ü' * 200}.jsonl", f"evaluation: ['{'x' * 300}.csv:harmful']"],
    ],
}  # fmt: skip
CASES = [(kind, text) for kind, texts in YAML.items() for text in texts]


def contents(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def refused(answer: Answer) -> str:
    """The message of what has to be bad input: one that can be shown, and says something."""
    assert answer.returncode == 2, answer
    assert answer.stdout == "" and "Traceback" not in answer.stderr
    message = answer.stderr.removeprefix("Error: ").strip()
    assert message and all(character.isprintable() or character in "\n\t" for character in message)
    assert len(message) < 20_000
    return message


def named(cases: list[tuple]) -> list[str]:
    return [f"{number}-{case[0]}" for number, case in enumerate(cases)]


PAIRS = "n_safety: [0, 10]\nprefer: helpfulness\n"
ASKED = {
    f"{PAIRS}": "llm needs judge_base_url and judge_model",
    f"{PAIRS}evaluation: [tiny-harmful]\njudge_base_url: http://h/v1\njudge_model: j": "no evaluation set holds any",
    "n_safety: [0, 10]\nprefer: usefulness": "prefer: 'usefulness' (str) is not valid: it should be '' or",
    "n_safety: [0, 10]\ncapabilities: boolq": "capabilities: 'boolq' (str) is not valid: it should be a valid list",
    "n_safety: [0, 10]\ncapabilities: [mine]\ntasks_dir: none": "tasks_dir: there is no folder",
    "n_safety: [0, 10]\ncapabilities: [a, a]": "a list that names each entry once",
    "n_safety: [0, 10]\ncapabilities: [tiny-completion]\nadapter: none": "another model answers here",
}


@pytest.mark.parametrize("text", ASKED)
def test_a_study_that_cannot_ask_what_it_wants_to_is_refused(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    before = contents(tmp_path)
    assert ASKED[text] in refused(safety_nb("study", "mine.yaml", cwd=tmp_path))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("kind", "text"), CASES, ids=named(CASES))
def test_a_bad_parameter_file_is_refused(kind, text, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    before = contents(tmp_path)
    command = "study" if "[0," in str(text[:200]) else "run"
    refused(safety_nb(command, "mine.yaml", cwd=tmp_path))
    assert contents(tmp_path) == before


def test_the_line_of_a_bad_value_is_told(tmp_path):
    (tmp_path / "mine.yaml").write_text("n_safety: 3\nseed: 2024-02-30\n")
    message = refused(safety_nb("run", "mine.yaml", cwd=tmp_path))
    assert "'2024-02-30' is no value: day is out of range for month" in message and "line 2" in message


# --- assignments --------------------------------------------------------------------------------------------------

ASSIGNMENTS = [
    *["n_safety=[", "n_safety={", "n_safety='", 'n_safety="', "n_safety=*x", "n_safety=&a [*a]", "n_safety", "=3", ""],
    *[
        "seed=2024-02-30",
        "seed=!!timestamp x",
        "seed=" + "9" * 5000,
        "seed=" + "[" * 5000,
        "general=\x01",
        "x=1",
        "seed=",
    ],
    *[
        'general="\\uD800"',
        'general="\\0"',
        "seed=: :",
        "seed=!!bool x",
        "=",
        "==",
        "general=- -\t",
        "seed=%",
        "judges=",
    ],
    *["general=" + "x" * 5000 + ".csv", "stage_timeout=1.0e+30", "seed=.inf", "n_safety=--", "run_dir=x", "\x1b[31m=1"],
]


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=range(len(ASSIGNMENTS)))
@pytest.mark.parametrize("command", ["run", "judge"])
def test_a_bad_assignment_is_refused(command, assignment, tmp_path):
    given = ["tiny.yaml"]
    if command == "judge":
        (tmp_path / "t.csv").write_text("q,a\nHow?,So.\n")
        given = ["refusal", "t.csv", "--prompt", "q", "--response", "a", "--out", "o.csv"]
        if assignment in ("judges=", "run_dir=x"):  # which the notebook of judges takes
            assignment = "judge_votes="
    before = contents(tmp_path)
    refused(safety_nb(command, *given, "--set", assignment, cwd=tmp_path))
    assert contents(tmp_path) == before


def test_nothing_behind_the_sign_is_empty_text():
    assert cli.assigned({"validation": "x"}, ["validation=", "data_dir= "]) == {"validation": "", "data_dir": ""}
    assert cli.assigned({}, ["a=null", "b=''", "c=a=b"]) == {"a": None, "b": "", "c": "a=b"}


# --- where results go ---------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path) -> Path:
    (tmp_path / "t.csv").write_text("q,a,human\nHow?,So.,full_compliance\n")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    for link in ("dangling", "loop", "one"):  # for what needs an ending
        (tmp_path / f"{link}.csv").symlink_to(tmp_path / link)
    (tmp_path / "work").mkdir()
    return tmp_path


PLACES = {
    "below a file": "file/x",
    "deep below a file": "file/x/y/z",
    "dangling link": "dangling",
    "below a dangling link": "dangling/x",
    "loop": "loop",
    "below a loop": "loop/x",
    "loop of two": "one",
    "long name": "n" * 256,
    "very long name": "n" * 5000,
    "name too long for what is not whole yet": "n" * 240,
    "long name in bytes": "ü" * 128,
    "long name of a folder": "n" * 300 + "/x",
    "long path": "/".join(["n" * 200] * 30),
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "of the system": "/proc/x",
    "of the kernel": "/sys/x/y",
    "below a device": "/dev/null/x",
}
COMMANDS = {
    "run": ["run", "tiny.yaml"],
    "study": ["study", "tiny-study.yaml"],
    "judge": ["judge", "refusal", "t.csv", "--prompt", "q", "--response", "a"],
    "calibrate": ["calibrate", "t.csv", "--prompt", "q", "--response", "a"],
    "fit-refusal": ["fit-refusal", "t.csv", "--prompt", "q", "--response", "a", "--label", "human"],
    "compare": ["compare", "work", "work"],
    "export": ["export", "work"],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(command, place, places):
    before = contents(places)
    ending = ".csv" if command == "judge" else ""
    message = refused(safety_nb(*COMMANDS[command], "--out", PLACES[place] + ending, cwd=places))
    assert ("not UTF-8" if place == "not UTF-8" else "--out") in message
    assert contents(places) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_full_or_protected_disk_is_refused_before_any_work(command, fault, places, monkeypatch):
    # Root may write anywhere, and no test has a disk to fill: what the system would say is put in its place.
    def fail(*args, **kwargs):
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    message = refused(safety_nb(*COMMANDS[command], "--out", "new.csv", cwd=places))
    assert os.strerror(fault) in message and "new.csv" in message


def test_a_place_that_can_be_written_is_left_as_it_was(places):
    before = contents(places)
    (places / "link").symlink_to(places / "work")
    for place in ("new", "a/b/c.csv", "work", "work/x", "link", "link/x", "n" * 200, "ü" * 100, "t.csv"):
        outputs.check(places / place)
    (places / "link").unlink()
    assert contents(places) == before


def test_a_limit_on_the_size_of_files_is_a_full_disk(places):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        message = refused(safety_nb(*COMMANDS["judge"], "--out", "o.csv", cwd=places))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in message


def test_the_name_of_a_planned_run_that_is_too_long_is_refused(tmp_path):
    values = f"balance: [{'a' * 120}, {'b' * 300}]"
    (tmp_path / "mine.yaml").write_text(values)
    message = refused(safety_nb("study", "mine.yaml", cwd=tmp_path))
    assert "bytes, of at most 230: sweep over shorter values of balance" in message


# --- what is named on the command line ----------------------------------------------------------------------------

LONG = "x" * 5000
ARGUMENTS = [
    *(
        ["run", name]
        for name in ("none.yaml", LONG, "x" * 300 + ".yaml", ".", "/", "/dev/null/x", os.fsdecode(b"\xff"))
    ),
    *(["study", name] for name in ("none.yaml", LONG, "loop", "/proc/self/mem/x")),
    *(["status", name] for name in (LONG, "none", "loop", "file/x", os.fsdecode(b"\xff\xfe"))),
    *(["export", name, "--out", "new"] for name in (LONG, "none", "loop", "file")),
    *(["capabilities", name] for name in (LONG, "none", "loop")),
    *(["compare", name, name, "--out", "new"] for name in (LONG, "none", "loop", "file")),
    *(["prefer", name] for name in (LONG, "none", "file")),
    *(["calibrate", name] for name in (LONG, "none.csv", "loop")),
    *(["init", name] for name in (LONG, "file", "file/x", "dangling", "loop", "/proc/x")),
    *(
        ["judge", "refusal", name, "--prompt", "q", "--response", "a", "--out", "o.csv"]
        for name in (LONG, "none.csv", "x" * 300 + ".csv", "loop", os.fsdecode(b"\xff.csv"))
    ),
    ["run", "tiny.yaml", "--from", LONG],
    ["run", "tiny.yaml", "--from", "\x1b[31m"],
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=named(ARGUMENTS))
def test_what_is_not_there_is_refused(arguments, places):
    before = contents(places)
    refused(safety_nb(*arguments, cwd=places))
    assert contents(places) == before


# --- endpoints ----------------------------------------------------------------------------------------------------

ADDRESSES = [
    *["localhost:8000", "host/v1", "http://host:99999/v1", "http://my host/v1", "ftp://host", "http://", "http:///v1"],
    *[
        "http://ho\tst/v1",
        "http://a..b/v1",
        "http://[::1/v1",
        "http://1.2.3/v1",
        "http://me:pw@host/v1",
        "http://h/v1?k=1",
    ],
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("judge", ["llm:xstest", "moderation"])
def test_an_address_that_can_be_none_is_refused_at_once(judge, address, places, monkeypatch):
    monkeypatch.setattr("asyncio.run", None)  # with which all asking begins
    sets = [f"judge_base_url='{address}'", "judge_model=m", f"moderation_base_url='{address}'"]
    options = [option for each in sets for option in ("--set", each)]
    message = refused(
        safety_nb("judge", judge, "t.csv", "--prompt", "q", "--response", "a", "--out", "o.csv", *options, cwd=places)
    )
    assert "endpoint:" in message


def judging(server: str, places: Path, **environment: str) -> Answer:
    options = ["--set", f"judge_base_url={server}", "--set", "judge_model=m"]
    return safety_nb("judge", "llm:helpfulness", "t.csv", "--prompt", "q", "--response", "a",
                     "--out", "o.csv", *options,
                     cwd=places, SAFETY_NB_CACHE=str(places / "cache"), **environment)  # fmt: skip


@pytest.fixture
def impatient(monkeypatch) -> Iterator[None]:
    """No waiting between attempts."""
    monkeypatch.setattr("safety_nb.core.endpoint._LONGEST_BACKOFF", 0.0)
    yield


VERDICT = '{"reason": "so", "rating": 4}'


def test_a_judge_that_stops_answering_ends_the_command_and_the_same_one_goes_on(places, impatient):
    (places / "t.csv").write_text("q,a\n" + "".join(f"How {n}?,So {n}.\n" for n in range(20)))
    down = [False]

    def react(message: str, number: int) -> Reaction:
        down[0] = down[0] or len(set(server.asked())) > 5
        return Reaction("down", status=503) if down[0] else Reaction(reply(VERDICT))

    with Scripted(react) as server:
        stopped = judging(server.base_url, places)
        assert (stopped.returncode, (places / "o.csv").exists()) == (1, False)
        assert "HTTP 503: down" in stopped.stderr and "the same command goes on" in stopped.stderr
        assert "Traceback" not in stopped.stderr and "Done" not in stopped.stdout
        before, down[0] = set(server.asked()), True
        server.seen.clear()
        server._react = lambda message, number: Reaction(reply(VERDICT))
        again = judging(server.base_url, places)
        assert again.returncode == 0 and "Done: o.csv" in again.stdout
    assert len((places / "o.csv").read_text().splitlines()) == 21
    assert 15 <= len(server.asked()) < 20 and before  # at most five were answered, and none of them is asked again


def test_a_judge_that_is_not_there_ends_the_command_with_the_reason(places, impatient):
    answer = judging("http://127.0.0.1:9/v1", places)
    assert answer.returncode == 1
    assert answer.stderr.startswith("Error: llm:helpfulness: the judge gave no whole reply: cannot reach 127.0.0.1:9")
    assert not (places / "o.csv").exists()


def test_a_judge_that_only_says_nothing_stops_after_eight(places):
    (places / "t.csv").write_text("q,a\n" + "".join(f"How {n}?,So {n}.\n" for n in range(12)))
    with Scripted(lambda message, number: Reaction(reply(text=None))) as server:
        answer = judging(server.base_url, places)
    assert answer.returncode == 1 and "the answer is empty or no text, 8 times in a row" in answer.stderr
    # Twice each; three more may have been under way.
    assert 16 <= len(server.seen) <= 2 * (8 + 3)


@pytest.mark.parametrize("status", [200, 400, 401])
def test_what_a_server_says_does_nothing_to_the_terminal(status, places):
    escape = "\x1b]0;mine\x07\x1b[31m"
    reaction = Reaction(reply(VERDICT, model=escape)) if status == 200 else Reaction(escape, status=status)
    with Scripted(lambda message, number: reaction) as server:
        answer = judging(server.base_url, places)
    assert answer.returncode == (2 if status == 401 else 0)
    seen = answer.stdout + answer.stderr
    seen += (places / "o.csv").read_text() if status != 401 else ""
    assert "‹U+001B›" in seen and not {"\x1b", "\x07"} & set(seen)


# --- what is ours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [TypeError("planted"), KeyError("planted"), ValueError("planted"), AssertionError()])
def test_a_fault_of_ours_stays_a_traceback_and_asks_for_a_report(error, tmp_path, monkeypatch):
    def fault(*args):
        raise error

    monkeypatch.setattr("safety_nb.core.params.validate", fault)
    with pytest.raises(type(error)) as caught:
        safety_nb("run", "tiny.yaml", cwd=tmp_path)
    (note,) = caught.value.__notes__
    assert "please report it" in note


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 2),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1),
        (OSError(errno.EIO, "Input/output error"), 1),
        (ConnectionError("llm: cannot reach"), 1),
    ],
)
def test_what_the_system_says_is_told_in_a_line(error, status, tmp_path, monkeypatch):
    def fault(*args):
        raise error

    monkeypatch.setattr("safety_nb.core.params.validate", fault)
    answer = safety_nb("run", "tiny.yaml", cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (status, f"Error: {error}\n")
