"""What a run's model still knows and can do: questions that are right or wrong, through lm-evaluation-harness.

Every answer is kept, so that two N are compared over the same questions and not by two means. A task that was measured
of this very adapter is not measured again. The miniature has two tasks of its own, made here; tasks of files need no
network. Knows neither training nor plots, and imports the harness (the extra ``capabilities``) inside functions.
"""

import contextlib
import difflib
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import random
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import CapabilityParams
from safety_nb.core.text import percent
from safety_nb.data import templates
from safety_nb.tiny import world
from safety_nb.train import models, records

if TYPE_CHECKING:
    import pandas as pd

JUDGE = "lm-eval"  # whose judgements the answers count as
COLUMNS = ["task", "item", "question", "correct", "correct_norm", "chosen", "gold", "limit"]
_METRICS = ("acc", "exact_match")  # what makes an answer right; the first that a task has
SETTINGS = ("harness", "version", "num_fewshot", "n", "metric", "questions_sha256")  # two runs must have them alike


def measure(params: CapabilityParams) -> None:
    """Measure the tasks that were not measured of the run's adapter yet, a line as each ends.

    Writes ``capabilities/<task>.jsonl`` as each task ends (of a group, as each of its parts does) and
    ``capabilities/capabilities.json`` (``outputs/README.md`` says what is in them).

    Raises:
        InputError: no adapter, base_bits that do not work here, an unknown task, one without data, without questions,
            or without right and wrong answers: nothing is measured then.
        RuntimeError: the harness failed in the middle of a task; those before it are kept.
    """
    run = run_folder.open_run(params.run_dir)
    record = check(run)
    values = record["values"]
    where = values["base_model"], record["base_commit"] or values["revision"]
    model = {"base_model": where[0], "revision": where[1], "adapter_sha256": files.sha256(run.adapter)}
    bits = values["base_bits"]
    models.check_bits(bits)
    done = _Record(run, {**model, "harness": _harness()})
    with tempfile.TemporaryDirectory() as scratch:
        make_tiny_tasks(Path(scratch), models.load_tokenizer(*where).bos_token or "")
        tasks = _load_all(params, Path(scratch))
        waiting = {
            part: asked
            for parts in tasks.values()
            for part, asked in parts.items()
            if not done.is_fresh(part, asked["fingerprint"])
        }
        sizes = {part: asked["facts"]["n"] for parts in tasks.values() for part, asked in parts.items()}
        answered = sum(n for part, n in sizes.items() if part not in waiting)
        progress = run_folder.Progress(run, "capabilities", sum(sizes.values()), before=answered)
        lm = _load_model(where, run.adapter, params, bits) if waiting else None
        for name, parts in tasks.items():
            for part in [part for part in parts if part in waiting]:
                done.keep(part, *_measured(lm, part, waiting.pop(part), params, bits))
                answered += sizes[part]
                progress.update(answered)
            print(_told(done.complete(name, list(parts))))


def check_installed() -> None:
    """Raise InputError where the harness is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError("lm-evaluation-harness is not installed: `pip install 'safety-nb[capabilities]'`.")


def check(run: run_folder.RunFolder) -> dict[str, Any]:
    """The training record of a run that can be measured.

    Raises:
        InputError: the harness is not installed, or the run has no adapter, or one of an earlier version.
    """
    check_installed()
    if not run.root.is_dir():
        raise InputError(f"There is no run folder {str(run.root)!r}; `safety-nb status` lists those there are.")
    run_folder.require(run, ["train/adapter", "train/training.json"], maker="train")
    run_folder.check(run, ["train/adapter", "train/training.json"])
    return records.read(run)


def _harness() -> str:
    return f"lm_eval {importlib.metadata.version('lm_eval')}"


# --- the miniature's tasks ----------------------------------------------------------------------------------------


def make_tiny_tasks(folder: Path, start: str = "") -> None:
    """Write the miniature's tasks, with their questions in the Alpaca template, as the harness reads them.

    Args:
        start: what every text begins with: the start token, where the tokenizer does not add it by itself.
    """
    for name in world.TASKS:
        questions = [
            {"prompt": f"{start}{templates.render(row['prompt'])}{row['lead']}".rstrip()}
            | {"choices": row["choices"], "answer": row["answer"]}
            for row in world.task_rows(name)
        ]
        files.write_jsonl(folder / f"{name}.jsonl", questions)
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(folder / f"{name}.jsonl")},
                "cache_dir": str(folder / "cache"),
            },
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            # After the template's last line the answer begins; within an answer a word follows a word.
            "target_delimiter": " " if name == "tiny-completion" else "\n",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1.0},
        }
        files.write_json(folder / f"{name}.yaml", task)  # JSON is YAML


# --- finding the tasks --------------------------------------------------------------------------------------------


def check_tasks(params: CapabilityParams) -> None:
    """Raise InputError for names of tasks that neither the harness nor ``tasks_dir`` has; looks at no data."""
    _own_tasks(params)  # before the harness is imported, which takes seconds
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        make_tiny_tasks(Path(scratch))
        _manager(params, Path(scratch))


def _own_tasks(params: CapabilityParams) -> list[Path]:
    """The user's folder of tasks, if one is named. Raises InputError where it is none."""
    folders = [Path(params.tasks_dir).expanduser().absolute()] if params.tasks_dir else []
    if not all(folder.is_dir() for folder in folders):
        raise InputError(f"tasks_dir: there is no folder {params.tasks_dir!r}.")
    return folders


_COUNTED = 50  # questions of a task of which the tokens are counted


def count(params: CapabilityParams, tokenizer: Any) -> tuple[int, float]:
    """How many questions the tasks have, and about how many tokens a model reads to answer them.

    An answer is read beside its question as often as there are answers to choose from; the length of examples shown is
    taken to be that of questions. Answers that a task has the model write are not counted.

    Raises:
        InputError: as ``measure``, for tasks and their data.
    """
    questions, tokens = 0, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        make_tiny_tasks(Path(scratch))
        for parts in _load_all(params, Path(scratch)).values():
            for asked in parts.values():
                n, task = asked["facts"]["n"], asked["task"]
                docs = list(task.eval_docs)[: asked["facts"]["n"] : max(1, n // _COUNTED)]
                lengths = [len(tokenizer(text)["input_ids"]) for doc in docs for text in _read_of(task, doc)]
                questions += n
                tokens += sum(lengths) * n / len(docs) * (1 + asked["facts"]["num_fewshot"])
    return questions, tokens


def _read_of(task: Any, doc: dict) -> list[str]:
    """The texts that a model reads to answer a question, as far as the task tells them apart."""
    question = str(task.doc_to_text(doc))
    several = task.OUTPUT_TYPE == "multiple_choice"
    return [f"{question} {choice}" for choice in task.doc_to_choice(doc)] if several else [question]


def _manager(params: CapabilityParams, scratch: Path) -> Any:
    """What knows all tasks that are asked for."""
    from lm_eval.tasks import TaskManager

    folders = [scratch, *_own_tasks(params)]
    manager = TaskManager(include_path=folders, include_defaults=False)
    if not all(_is_whole(name, manager) for name in params.tasks):
        manager = TaskManager(include_path=folders)  # reads some 14,000 files
    if unknown := [name for name in params.tasks if name not in manager.all_tasks]:
        raise InputError("\n".join(_unknown(name, manager.all_tasks, params.tasks_dir) for name in unknown))
    return manager


def _is_whole(name: str, manager: Any) -> bool:
    """Whether a manager knows a task and, of a group, all its parts."""
    if name not in manager.all_groups:
        return name in manager.all_tasks
    parts = manager.task_index[name].cfg["task"]
    return all(isinstance(part, str) and _is_whole(part, manager) for part in parts)


def _unknown(name: str, known: list[str], tasks_dir: str) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    told = f"did you mean {' or '.join(map(repr, near))}?" if near else "`lm_eval ls tasks` lists them."
    places = f"{_harness()} nor {tasks_dir!r}" if tasks_dir else f"{_harness()} nor the miniature"
    return f"tasks: neither {places} has a task {name!r}; {told}"


def _load_all(params: CapabilityParams, scratch: Path) -> dict[str, dict[str, dict]]:
    """Task asked for -> its parts by name -> ``_asked`` of each; a task that is no group is its own only part."""
    tasks, complaints = {}, []
    with _quiet():
        manager = _manager(params, scratch)
        # Relative data files of the user's tasks are relative to their folder.
        with contextlib.chdir(Path(params.tasks_dir).expanduser() if params.tasks_dir else Path.cwd()):
            for name in params.tasks:
                try:
                    loaded = manager.load([name])["tasks"]
                    tasks[name] = {part: _asked(part, task, params) for part, task in loaded.items()}
                except InputError as error:
                    complaints.append(str(error))
                except Exception as error:  # whatever a task's file or a data set's host may do
                    complaints.append(_cannot_load(name, error))
    if complaints:
        raise InputError("\n".join(complaints))
    return tasks


def _cannot_load(name: str, error: Exception) -> str:
    what = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")
    if isinstance(error, StopIteration):  # what `datasets` makes of an empty file
        return f"tasks: {name!r} has no questions: its data is empty."
    if isinstance(error, ConnectionError):
        return (
            f"tasks: the data of {name!r} is not on this machine and its host cannot be reached ({what}). Connect "
            "(and unset HF_HUB_OFFLINE and HF_DATASETS_OFFLINE), copy the hub's cache from a machine that has it, or "
            "write a task over files of your own (tasks_dir)."
        )
    return f"tasks: {name!r} cannot be loaded ({what}); look at its file and the data it names."


def _asked(part: str, task: Any, params: CapabilityParams) -> dict:
    """A task of the harness, and what identifies its measurement: task, num_fewshot, n, of, metric, fingerprint, ..."""
    metrics = list(task.aggregation())
    metric = next((name for name in _METRICS if name in metrics), None)
    if metric is None:
        raise InputError(
            f"tasks: {part!r} has no answers that are right or wrong ({' or '.join(_METRICS)}); it measures "
            f"{', '.join(metrics)}."
        )
    own = task.get_config("num_fewshot") or 0
    # As the harness has it: a task that says 0 itself stays at 0.
    fixed = task.get_config("num_fewshot") == 0
    num_fewshot = own if params.num_fewshot < 0 or fixed else params.num_fewshot
    docs = list(task.eval_docs)
    if not docs:
        raise InputError(f"tasks: {part!r} has no questions: its data is empty.")
    n = min(params.limit or len(docs), len(docs))
    shown = list(task.fewshot_docs() or []) if num_fewshot else []
    # Where its files lie decides nothing.
    config = {name: value for name, value in task.dump_config().items() if name not in ("dataset_kwargs", "metadata")}
    facts = {
        "version": str(task.VERSION),
        "num_fewshot": num_fewshot,
        "n": n,
        "of": len(docs),
        "metric": metric,
        "questions_sha256": _sha256(docs[:n]),
    }
    decisive = {**config, **facts, "shown": _sha256(shown), "seed": params.seed}
    return {"task": task, "facts": facts, "fingerprint": _sha256(decisive)}


def _sha256(value: Any) -> str:
    """Of anything a task may be made of; where in memory a function of it lies is left out."""
    text = re.sub(r" at 0x[0-9a-f]+", "", json.dumps(value, sort_keys=True, default=str))
    return hashlib.sha256(text.encode()).hexdigest()


# --- measuring ----------------------------------------------------------------------------------------------------


def _load_model(where: tuple[str, str], adapter: Path, params: CapabilityParams, bits: int) -> Any:
    """Base and adapter as they were trained, as the harness takes a model."""
    import torch

    if params.cpu_threads:
        torch.set_num_threads(params.cpu_threads)
    models.check(*where)
    with _quiet():
        from lm_eval.models.huggingface import HFLM

        model = models.load_answering(where[0], adapter, where[1], params.merge_adapter, bits)
        tokenizer = models.load_tokenizer(*where)
        return HFLM(model, backend="causal", tokenizer=tokenizer, batch_size=params.capability_batch_size)


def _measured(lm: Any, part: str, asked: dict, params: CapabilityParams, bits: int) -> tuple[dict, list[dict]]:
    """Facts and rows of one task. Raises RuntimeError where the harness fails."""
    started = time.monotonic()
    try:
        with _quiet() as said:
            samples = _samples(lm, asked["task"], asked["facts"], params.seed)
        rows = [_row(part, asked, sample) for sample in samples]
    except Exception as error:
        raise RuntimeError(
            f"Task {part!r}: the harness failed ({type(error).__name__}: {error}). What was measured before it is "
            "kept; the same command goes on from there."
        ) from error
    norms = [row["correct_norm"] for row in rows if row["correct_norm"] is not None]
    facts = {
        **asked["facts"],
        "limit": params.limit if asked["facts"]["n"] < asked["facts"]["of"] else 0,
        "accuracy": sum(row["correct"] for row in rows) / len(rows),
        "accuracy_norm": sum(norms) / len(norms) if norms else None,
        "truncated": sum("runcat" in message for message in said),  # by the context's length
        "seed": params.seed,
        "base_bits": bits,
        "merged": models.is_merged(lm.model),
        "device": models.pick_device(),
        "compute_dtype": str(lm.model.dtype).removeprefix("torch."),
        "batch_size": lm.batch_size,
        "seconds": round(time.monotonic() - started, 2),
        "fingerprint": asked["fingerprint"],
    }
    return facts, rows


def _samples(lm: Any, task: Any, facts: dict, seed: int) -> list[dict]:
    """The harness's own record of every question and answer of a task; fewer at once where memory runs out."""
    import lm_eval
    import numpy
    import torch

    task.set_config("num_fewshot", facts["num_fewshot"])
    while True:
        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        task.set_fewshot_seed(seed)
        try:
            done = lm_eval.evaluate(lm, {"tasks": {task.task_name: task}}, limit=facts["n"], bootstrap_iters=0)
            break
        except torch.OutOfMemoryError:
            if lm.batch_size == 1:
                raise
            lm.batch_size_per_gpu = lm.batch_size // 2
    samples = done["samples"][task.task_name]
    # A task may read its answers in several ways: the first is the one its authors name first.
    return [sample for sample in samples if sample["filter"] == samples[0]["filter"]]


def _row(part: str, asked: dict, sample: dict) -> dict:
    correct, norm = sample[asked["facts"]["metric"]], sample.get("acc_norm")
    if correct not in (0, 1):
        raise ValueError(f"question {sample['doc_id']} is {correct}, neither right nor wrong")
    chosen, gold = sample["filtered_resps"][0], sample["target"]
    if asked["task"].OUTPUT_TYPE == "multiple_choice":
        choices = asked["task"].doc_to_choice(sample["doc"])
        likelihoods = [answer[0] for answer in sample["filtered_resps"]][: len(choices)]
        chosen = choices[likelihoods.index(max(likelihoods))]
        gold = choices[gold] if isinstance(gold, int) and 0 <= gold < len(choices) else gold
    return {
        "task": part,
        "item": str(sample["doc_id"]),
        "question": sample["doc_hash"],
        "correct": int(correct),
        "correct_norm": None if norm is None else int(norm),
        "chosen": chosen if isinstance(chosen, str) else str(chosen),
        "gold": gold if isinstance(gold, str) else str(gold),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep what the harness and its libraries print and log out of the notebook; the harness's warnings, as a list."""
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()  # widgets in a notebook, which a stream does not catch
    huggingface_hub.utils.disable_progress_bars()
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda entry: said.append(entry.getMessage())
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "transformers", "huggingface_hub")]
    before = [(logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(contextlib.redirect_stderr(sink))
        for logger in loggers:
            logger.propagate, logger.handlers = False, [handler] if logger.name == "lm_eval" else []
        try:
            yield said
        finally:
            for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
                logger.level, logger.propagate, logger.handlers = level, propagate, handlers


# --- what is kept -------------------------------------------------------------------------------------------------


class _Record:
    """``capabilities.json`` and the rows beside it; what another model or harness left is removed."""

    def __init__(self, run: run_folder.RunFolder, model: dict) -> None:
        self._folder, self._path = run.capabilities, run.capabilities / "capabilities.json"
        self._kept = read_record(run)
        if self._kept.get("model") != model:
            for part in self._kept.get("parts", {}):
                (self._folder / f"{part}.jsonl").unlink(missing_ok=True)
            self._kept = {"model": model, "tasks": {}, "parts": {}}

    def is_fresh(self, part: str, fingerprint: str) -> bool:
        facts = self._kept["parts"].get(part, {})
        whole = facts.get("rows_sha256") == files.sha256(self._folder / f"{part}.jsonl")
        return whole and facts["fingerprint"] == fingerprint

    def keep(self, part: str, facts: dict, rows: list[dict]) -> None:
        """Write what was measured of a part. Tasks that hold it are not whole until they are completed anew."""
        path = self._folder / f"{part}.jsonl"
        tasks = {name: task for name, task in self._kept["tasks"].items() if part not in task["parts"]}
        others = {name: kept for name, kept in self._kept["parts"].items() if name != part}
        self._write({**self._kept, "tasks": tasks, "parts": others})
        files.write_jsonl(path, rows)
        self._write({**self._kept, "parts": {**others, part: {**facts, "rows_sha256": files.sha256(path)}}})

    def complete(self, name: str, parts: list[str]) -> dict:
        """Write that a task has been measured in all its parts; its entry."""
        facts = [self._kept["parts"][part] for part in parts]
        entry = {
            "task": name,
            "accuracy": sum(part["accuracy"] * part["n"] for part in facts) / sum(part["n"] for part in facts),
            "n": sum(part["n"] for part in facts),
            "of": sum(part["of"] for part in facts),
            "parts": parts,
        }
        self._write({**self._kept, "tasks": {**self._kept["tasks"], name: entry}})
        return entry

    def _write(self, kept: dict) -> None:
        self._kept = kept
        files.write_json(self._path, kept)


def read_record(run: run_folder.RunFolder) -> dict:
    """``capabilities.json``; empty where there is none, or a damaged one: nothing counts as measured then."""
    try:
        return files.read_json(run.capabilities / "capabilities.json")
    except (FileNotFoundError, ValueError):
        return {}


def _told(entry: dict) -> str:
    return f"{entry['task']}: {percent(entry['accuracy'])} right of {questions_text(entry)}"


def questions_text(entry: dict) -> str:
    """How many questions were asked, by an entry of ``capabilities.json``; a limit is told with them."""
    cut = f" (limited; it has {entry['of']:,})" if entry["n"] < entry["of"] else ""
    return f"{entry['n']:,} questions{cut}"


# --- reading it back ----------------------------------------------------------------------------------------------


def read(run: run_folder.RunFolder) -> "pd.DataFrame":
    """Every answer of the tasks that were measured of the run's adapter as it is now; else no rows.

    Returns:
        Columns task (as it was asked for), item (unique in the task), question (its hash), correct (0 or 1),
        correct_norm (the same by likelihood per character, nan where the task has none), chosen, gold, and limit (0
        where all questions of the task were asked).
    """
    import pandas as pd

    kept = read_record(run)
    rows = []
    if kept and kept.get("model", {}).get("adapter_sha256") == files.sha256_once(run.adapter):
        for name, task in kept["tasks"].items():
            for part in task["parts"]:
                limit = kept["parts"][part]["limit"]
                for row in files.read_jsonl(run.capabilities / f"{part}.jsonl"):
                    item = row["item"] if part == name else f"{part}/{row['item']}"
                    rows.append({**row, "task": name, "item": item, "limit": limit})
    return pd.DataFrame(rows, columns=COLUMNS).astype({"correct_norm": float})


def judgements(table: "pd.DataFrame") -> "pd.DataFrame":
    """The answers of ``read`` as judgements, of one run or of several: what the report's findings take.

    Returns:
        The columns but task, item and correct; dataset (the task), prompt_id (the item), judge, label (correct or
        wrong), score (1 or 0), missing (None).
    """
    labels = table["correct"].map({1: "correct", 0: "wrong"})
    renamed = table.rename(columns={"task": "dataset", "item": "prompt_id"})
    return renamed.assign(judge=JUDGE, label=labels, score=table["correct"], missing=None).drop(columns="correct")
