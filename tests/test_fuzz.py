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
    monkeypatch.setattr(sources, "_read_named", functools.cache(sources._read_named))
    monkeypatch.setattr(models, "load_tokenizer", functools.partial(_tokenizer, models.load_tokenizer))
    # Examples would depend on which modules other tests have imported.
    monkeypatch.setattr(providers, "_get_local_constants", providers.Constants, raising=False)


def _tokenizer(load: Callable[..., Any], base_model: str, *more: str) -> Any:
    return _miniature(load) if base_model == models.TINY else load(base_model, *more)


@functools.cache
def _miniature(load: Callable[..., Any]) -> Any:
    """The miniature's tokenizer, with a chat template, which it lacks."""
    tokenizer = load(models.TINY)
    tokenizer.chat_template = _CHATML
    return tokenizer


# --- the test -----------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below: its size and when it was last written."""
    found = {}
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            found |= {entry.path: (0, 0), **contents(Path(entry.path))}
        else:
            facts = entry.stat(follow_symlinks=False)
            found[entry.path] = (facts.st_size, facts.st_mtime_ns)
    return found


def files_in(folder: Path) -> dict[str, bytes]:
    return {path: Path(path).read_bytes() for path in contents(folder) if os.path.isfile(path)}


def give(folder: Path, asked: fuzzed.Input, number: int) -> None:
    for name, content in asked.files.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(number, number))  # what was read is remembered by it, and may be rewritten at once


def call(folder: Path, asked: fuzzed.Input) -> Answer:
    mine = {"SAFETY_NB_DATA": str(folder / "none"), "HOME": str(folder), "MY_KEY": "mine-0123456789"}
    return safety_nb(*asked.arguments, cwd=folder, **mine)


def check(answer: Answer, asked: fuzzed.Input, before: dict, folder: Path) -> None:
    assert answer.returncode in (0, 2), answer
    told = answer.stdout + answer.stderr
    assert "Traceback" not in told
    assert all(character.isprintable() or character in "\n\t" for character in told)
    after = contents(folder)
    if answer.returncode == 2:
        assert len(answer.stderr) > 10 and after == before
    elif "is kept as" in answer.stderr:
        (aside,) = folder.glob("run/run.damaged-*.json")
        assert aside.read_bytes() == asked.files["run/run.json"]


def fuzz(kind: str, folder: Path, examples: int) -> None:
    kept, facts = files_in(folder), contents(folder)
    counts: Counter = Counter()

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy(kind, folder))
    def each(asked: fuzzed.Input) -> None:
        counts.update(["all", "one edit"] if asked.is_edit else ["all"])
        give(folder, asked, counts["all"])
        before = contents(folder)
        try:
            answer = call(folder, asked)
            check(answer, asked, before, folder)
        finally:
            restore(folder, kept, facts)
        counts.update([answer.returncode, f"{'edit' if asked.is_edit else 'free'} {answer.returncode}"])

    each()
    assert counts["all"] >= examples and counts["one edit"] >= counts["all"] / 3
    assert counts[0] >= examples / 50 and counts[2] >= examples / 50
    print(kind, dict(counts))


def restore(folder: Path, kept: dict[str, bytes], facts: dict[str, tuple[int, int]]) -> None:
    """Leave a folder as it was: the content of its files, and the facts of ``contents``."""
    now = contents(folder)
    for path in sorted(now.keys() - facts.keys(), reverse=True):
        os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
    for path in kept.keys() - {path for path, found in now.items() if found == facts.get(path)}:
        Path(path).write_bytes(kept[path])
        os.utime(path, ns=(facts[path][1],) * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_edits_are_made_to_is_accepted(kind, folder):
    kept, facts = files_in(folder), contents(folder)
    for number, asked in enumerate(fuzzed.valid(kind, ledgers(folder))):
        give(folder, asked, number)
        answer = call(folder, asked)
        restore(folder, kept, facts)
        assert answer.returncode == 0, (asked, answer)


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_ends_in_a_traceback_or_writes_anything_when_refused(kind, folder):
    fuzz(kind, folder, 500)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_no_input_of_many_does(kind, folder):
    fuzz(kind, folder, 10_000)
