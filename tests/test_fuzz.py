"""Inputs that nobody thought of (``fuzzed.py``), through the command line: accepted, or refused in words.

Never a traceback, and where an input is refused nothing is written. What would be slow behind the checks has a
stand-in: an input that comes so far was accepted.
"""

import contextlib
import functools
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzzed
import pytest
import typer
from commands import Answer, safety_nb
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.internal.conjecture import providers
from studies import finish

from safety_nb import cli
from safety_nb.core import files, run_folder
from safety_nb.core.params import RunParams
from safety_nb.data import mixing
from safety_nb.data.datasets import sources
from safety_nb.run import fork_server, runner, stages, study
from safety_nb.train import models, template_fit

KINDS = {
    "parameter files": fuzzed.parameter_files,
    "assignments": fuzzed.assignments,
    "rows": fuzzed.data_rows,
    "tables": fuzzed.tables,
    "ledgers": fuzzed.run_ledgers,
}
_CHATML = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the files that inputs name, and a finished run."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "small.yaml").write_text(fuzzed.SMALL)
    (folder / "small-study.yaml").write_text(fuzzed.VALID_STUDIES[0])
    (folder / "rows.jsonl").write_bytes(fuzzed.written(fuzzed.TAGGED, "jsonl"))
    (folder / "prompts.jsonl").write_bytes(fuzzed.written(fuzzed.PROMPTS, "jsonl"))
    (folder / "answers.csv").write_bytes(fuzzed.written(fuzzed.ANSWERS, "csv"))
    (folder / "labelled.csv").write_bytes(fuzzed.written(fuzzed.LABELLED, "csv"))
    (folder / "none").mkdir()
    _finished_run(folder / "run")
    return folder


def _finished_run(root: Path) -> None:
    """A run as its stages leave it, with hashes in its ledger."""
    finish(root, RunParams(), {"bad": 0.5})
    run = run_folder.RunFolder(root)
    record = {"rows": 1, "steps": 1, "train_loss": 1.0, "validation_loss": None, "validation_losses": {}}
    record |= {"device": "cpu", "compute_dtype": "float32", "base_commit": "", "mixture_sha256": "", "values": {}}
    files.write_json(run.training, record)
    for name in ("mix/train.jsonl", "mix/validation.jsonl", "train/adapter/adapter_config.json", "generation.json"):
        files.write_text(root / name, "{}")
    files.write_text(run.summary, "run\n")
    files.write_text(run.report, "<html>")
    for stage in stages.STAGES:
        files.write_text(root / runner.executed_name(stage), "{}")
        made = files.hashes(root, (*stage.outputs, runner.executed_name(stage)))
        run_folder.record_stage(run, stage.name, outputs=made, fingerprint="f" * 64, started=1.0, peak_memory=7)


def ledgers(folder: Path) -> list[bytes]:
    """Ledgers that the run in the folder could have: done, at work, failed."""
    done = json.loads((folder / "run" / "run.json").read_text())
    at_work, failed = ({**done, "stages": dict(done["stages"])} for _ in range(2))
    running = {"state": "running", "started": 1.0, "pid": 7, "kernel": {"pid": 8, "created": 1.0}, "cause": None}
    at_work["stages"] |= {"judge": running, "report": {"state": "waiting"}}
    failed["stages"]["report"] = {"state": "failed", "wall_seconds": 2.5, "cause": "ValueError: no"}
    return [json.dumps(each, indent=1).encode() for each in (done, at_work, failed)]


def strategy(kind: str, folder: Path) -> Any:
    return KINDS[kind](ledgers(folder)) if kind == "ledgers" else KINDS[kind]()


# --- what is slow -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch, kind) -> None:
    def accept(*args: Any, **kwargs: Any) -> None:
        raise typer.Exit

    def mix(run: run_folder.RunFolder, stage: stages.Stage, params: RunParams) -> None:
        mixing.mix(params.model_copy(update={"run_dir": str(run.root)}), template_fit.of(params))
        raise typer.Exit

    monkeypatch.setattr(fork_server, "kernels", contextlib.nullcontext)
    # What was accepted of rows can be mixed; no other notebook reads them.
    monkeypatch.setattr(runner, "_execute_stage", mix if kind == "rows" else accept)
    monkeypatch.setattr(study, "_execute_all", accept)
    monkeypatch.setattr(models, "count_parameters", accept)  # which an export asks for, its run being whole
    # What is the same each time is made once.
    monkeypatch.setattr(cli, "app", typer.main.get_command(cli.app))
    monkeypatch.setattr(runner, "_versions", dict)
    if kind in ("rows", "ledgers"):
        monkeypatch.setattr(runner, "_write_params", lambda run, params: None)
    monkeypatch.setattr(files, "read_yaml", functools.partial(_read, files.read_yaml, {}))
    monkeypatch.setattr(sources, "_read_named", functools.cache(sources._read_named))
    monkeypatch.setattr(models, "load_tokenizer", functools.partial(_tokenizer, models.load_tokenizer))
    # Examples would depend on which modules other tests have imported.
    monkeypatch.setattr(providers, "_get_local_constants", providers.Constants, raising=False)


def _read(read: Callable[[Path], Any], known: dict[Path, Any], path: Path) -> Any:
    if path.name not in ("small.yaml", "small-study.yaml"):
        return read(path)
    return known.get(path) or known.setdefault(path, read(path))


def _tokenizer(load: Callable[..., Any], base_model: str, *more: str) -> Any:
    return _miniature(load) if base_model == models.TINY else load(base_model, *more)


@functools.cache
def _miniature(load: Callable[..., Any]) -> Any:
    """The miniature's tokenizer, with a chat template, which it lacks."""
    tokenizer = load(models.TINY)
    tokenizer.chat_template = _CHATML
    return tokenizer


# --- the test -----------------------------------------------------------------------------------------------------


Facts = tuple[int, int]  # of a file its size, and when it was last written, in nanoseconds
FOLDER: Facts = (0, 0)


def contents(folder: Path | str) -> dict[str, Facts]:
    """Every file and folder below."""
    found = {}
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            found |= {entry.path: FOLDER, **contents(entry.path)}
        else:
            facts = entry.stat(follow_symlinks=False)
            found[entry.path] = (facts.st_size, facts.st_mtime_ns)
    return found


@dataclass(frozen=True)
class Kept:
    """What is in a folder before an input is given, and after it is taken away again."""

    facts: dict[str, Facts]
    content: dict[str, bytes]

    @classmethod
    def of(cls, folder: Path) -> "Kept":
        facts = contents(folder)
        return cls(facts, {path: Path(path).read_bytes() for path in facts if facts[path] != FOLDER})


def give(folder: Path, asked: fuzzed.Input, number: int) -> dict[str, Facts]:
    """Write the files of an input, each with a time of its own: by it what was read of a file is remembered."""
    given = {}
    for name, content in asked.files.items():
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(content)
        os.utime(path, ns=(number, number))
        given[path] = (len(content), number)
    return given


def call(folder: Path, asked: fuzzed.Input) -> Answer:
    mine = {"SAFETY_NB_DATA": str(folder / "none"), "HOME": str(folder), "MY_KEY": "mine-0123456789"}
    return safety_nb(*asked.arguments, cwd=folder, **mine)


def check(answer: Answer, asked: fuzzed.Input, untouched: bool, aside: list[bytes]) -> None:
    assert answer.returncode in (0, 2), answer
    told = answer.stdout + answer.stderr
    assert "Traceback" not in told
    assert told.isprintable() or all(character.isprintable() or character in "\n\t" for character in told)
    if answer.returncode == 2:
        assert len(answer.stderr) > 10 and untouched
    elif "is kept as" in answer.stderr:
        assert aside == [asked.files["run/run.json"]]


def restore(kept: Kept, now: dict[str, Facts]) -> None:
    """Leave a folder as it was."""
    for path in sorted(now.keys() - kept.facts.keys(), reverse=True):
        os.rmdir(path) if now[path] == FOLDER else os.unlink(path)
    for path, facts in kept.facts.items():
        if now.get(path) != facts:
            Path(path).write_bytes(kept.content[path])
            os.utime(path, ns=(facts[1], facts[1]))


def examine(asked: fuzzed.Input, number: int, kept: Kept, folder: Path) -> Answer:
    """Give the command an input, check how it ends, and leave the folder as it was."""
    given = give(folder, asked, number)
    try:
        answer = call(folder, asked)
    finally:
        now = contents(folder)
        damaged = [Path(path).read_bytes() for path in now if "run.damaged-" in path]
        restore(kept, now)
    check(answer, asked, now == kept.facts | given, damaged)
    return answer


def fuzz(kind: str, folder: Path, examples: int) -> None:
    kept, counts = Kept.of(folder), Counter()

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy(kind, folder))
    def each(asked: fuzzed.Input) -> None:
        counts["inputs"] += 1
        counts["one edit"] += asked.is_edit
        counts[examine(asked, counts["inputs"], kept, folder).returncode] += 1

    each()
    print(f"{kind}: {dict(counts)}")
    assert counts["inputs"] >= examples and counts["one edit"] >= counts["inputs"] / 3
    assert min(counts[0], counts[2]) >= examples / 50  # accepted, refused


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_edits_are_made_to_is_accepted(kind, folder):
    kept = Kept.of(folder)
    for number, asked in enumerate(fuzzed.valid(kind, ledgers(folder))):
        answer = examine(asked, number, kept, folder)
        assert answer.returncode == 0, (asked, answer)


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_ends_in_a_traceback_or_writes_anything_when_refused(kind, folder):
    fuzz(kind, folder, 500)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_no_input_of_many_does(kind, folder):
    fuzz(kind, folder, 10_000)
