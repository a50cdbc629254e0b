"""Answers: a model answers every prompt of the chosen evaluation sets, one response row an answer.

The model is the base with the run's adapter, the base alone, or one behind a server. Answers are kept as they come, so
that what was cut short goes on with the prompts that lack one. Knows nothing of labels.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safety_nb import __version__
from safety_nb.core import endpoint, files, run_folder
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.params import GenerateParams
from safety_nb.data import templates
from safety_nb.data.datasets import sources
from safety_nb.generate import coherence, decoding
from safety_nb.train import models
from safety_nb.train.encoding import encode_question, end_tokens, render_question


@dataclass(frozen=True)
class Question:
    """One answer that is asked for.

    Attributes:
        sample: which of the answers to its prompt, from 0.
        rendered: the text as it is sent to the model.
    """

    dataset: str
    prompt_id: str
    prompt: str
    sample: int
    rendered: str

    @property
    def name(self) -> str:
        return json.dumps([self.dataset, self.prompt_id, self.sample])


def generate(params: GenerateParams) -> list[dict]:
    """Answer the evaluation prompts of a run; write ``prompts.jsonl``, ``responses.jsonl`` and ``generation.json``.

    Raises:
        InputError: the run has no adapter or one that belongs on a base of other bits, which do not work here or were
            not asked for; the tokenizer has no chat template where that is asked for; the model has no room for an
            answer; or the server refuses.
        ConnectionError: the server was given up on; what it answered is kept.
        torch.OutOfMemoryError: a single prompt does not fit.

    Returns:
        Rows in the order of the prompts: dataset, prompt_id, prompt, response, new_tokens (without padding, with the
        end token; None where a server does not tell), finish (``stop``: the model ended by itself; ``length``:
        ``max_new_tokens`` did; ``error``: there is no answer), sample, prompt_tokens, degenerate (``empty``,
        ``repetition``, ``echo`` or None), error (why there is no answer, or None) and rendered (the text sent).
    """
    run = run_folder.open_run(params.run_dir)
    served = params.backend == "server"
    if not served and params.adapter == "run":
        run_folder.require(run, ["train/adapter"], maker="train")
        _check_bits_of_training(run, params.base_bits)
    if not served:
        models.check_bits(params.base_bits)
    asked = sources.evaluation_prompts(params.evaluation, params.data_dir)
    beside = {"guard_prompt": params.guard_prompt} if params.guard_prompt else {}
    started = time.monotonic()
    questions, answers, facts = (_by_server if served else _by_model)(asked, params, run)
    rows = [{**_head(question), **answers[question.name], "rendered": question.rendered} for question in questions]

    files.write_jsonl(run.prompts, [{**row, **beside} for row in asked])
    files.write_jsonl(run.responses, rows)
    settings = ["backend", "template", "mode", "num_beams", "samples_per_prompt"]
    if params.mode == "sample":
        settings += ["temperature", "top_p", "seed"]
    record = {name: getattr(params, name) for name in settings}
    record |= {"max_new_tokens": params.answer_tokens, "answers": len(rows), **beside, **facts}
    files.write_json(run.generation, {**record, "seconds": round(time.monotonic() - started, 2)})
    run.partial_responses.unlink(missing_ok=True)
    return rows


def _check_bits_of_training(run: run_folder.RunFolder, asked: int) -> None:
    """Raise InputError where the adapter of a run was trained on a base of other bits than those asked for."""
    values = files.read_record(run.training, {}).get("values") if run.training.is_file() else None
    trained = values.get("base_bits", 4) if isinstance(values, dict) else asked  # 4 before there was a choice
    if trained != asked:
        raise InputError(
            f"base_bits: the adapter of {run.root} was trained on a base in {trained} bits and belongs on it; "
            f"set base_bits to {trained} (here: {asked})."
        )


def _head(question: Question) -> dict:
    return {"dataset": question.dataset, "prompt_id": question.prompt_id, "prompt": question.prompt}


def _questions(asked: list[dict], params: GenerateParams, render: Callable[[str], str]) -> list[Question]:
    return [
        Question(row["dataset"], row["prompt_id"], row["prompt"], sample, render(row["prompt"]))
        for row in asked
        for sample in range(params.samples_per_prompt)
    ]


def _answer(question: Question, response: str, new_tokens: int | None, finish: str, prompt_tokens: int | None) -> dict:
    return {
        "response": response,
        "new_tokens": new_tokens,
        "finish": finish,
        "sample": question.sample,
        "prompt_tokens": prompt_tokens,
        "degenerate": coherence.degenerate(question.prompt, response),
        "error": None,
    }


def _no_answer(question: Question, reason: str, prompt_tokens: int | None) -> dict:
    return _answer(question, "", 0, "error", prompt_tokens) | {"degenerate": None, "error": reason}


# --- going on -----------------------------------------------------------------------------------------------------


# Parameters on which no answer depends; which prompts are asked is looked at one by one.
_INDIFFERENT = {"run_dir", "evaluation", "data_dir", "cpu_threads", "generation_batch_size", "samples_per_prompt"}
_INDIFFERENT |= {"key_name", "concurrency"}


def _kept_answers(run: run_folder.RunFolder, params: GenerateParams) -> list[dict]:
    """What an earlier execution has left that was cut short; what another model or other settings left is removed."""
    decisive = params.model_dump(exclude=_INDIFFERENT)
    decisive |= {"adapter_sha256": files.sha256(run.adapter) if params.adapter == "run" else "", "version": __version__}
    identity = digest(decisive, sort_keys=True, ensure_ascii=True)
    lines = files.read_log(run.partial_responses)
    if not lines or lines[0].get("identity") != identity:
        run.partial_responses.unlink(missing_ok=True)
        files.append_line(run.partial_responses, {"identity": identity})
        return []
    return lines[1:]


# --- by a model here ----------------------------------------------------------------------------------------------


def _by_model(
    asked: list[dict], params: GenerateParams, run: run_folder.RunFolder
) -> tuple[list[Question], dict[str, dict], dict]:
    """The questions, the answer of each by its name, and facts for the record."""
    import torch

    if params.cpu_threads:
        torch.set_num_threads(params.cpu_threads)
    tokenizer = models.load_tokenizer(params.base_model, params.revision)
    how = (tokenizer, params.template, params.guard_prompt)
    questions = _questions(asked, params, lambda prompt: render_question(prompt, *how))
    same = {question.name: question.rendered for question in questions}
    answers = {
        line["name"]: line["answer"]
        for line in _kept_answers(run, params)
        if "name" in line and same.get(line["name"]) == line["rendered"]
    }
    resumed = len(answers)
    adapter = run.adapter if params.adapter == "run" else None
    model = models.load_answering(params.base_model, adapter, params.revision, params.merge_adapter, params.base_bits)
    encoded = {question.name: encode_question(question.prompt, *how) for question in questions}
    room = _room(model, params.answer_tokens)
    waiting = []
    for question in questions:
        length = len(encoded[question.name])
        if room is not None and length > room:
            reason = f"the prompt has {length} tokens; the model has room for {room} and the answer"
            answers[question.name] = _no_answer(question, reason, length)
        elif question.name not in answers:
            waiting.append(question)
    waiting.sort(key=lambda question: -len(encoded[question.name]))

    ends = end_tokens(tokenizer, params.template)
    progress = run_folder.Progress(run, "generate", len(questions), before=len(answers))

    def keep(question: Question, tokens: list[int]) -> None:
        stopped = tokens[-1] in ends
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        text = templates.cut_next_turn(text) if params.template == "alpaca" else text.strip()
        finish, length = "stop" if stopped else "length", len(encoded[question.name])
        answer = answers[question.name] = _answer(question, text, len(tokens), finish, length)
        line = {"name": question.name, "rendered": question.rendered, "answer": answer}
        files.append_line(run.partial_responses, line)
        progress.update(len(answers))

    batch_size = _decode_all(waiting, encoded, model, ends, params, keep)
    facts = {
        "base_model": params.base_model,
        "adapter_sha256": files.sha256(run.adapter) if adapter else None,
        "base_bits": params.base_bits,
        "merged": models.is_merged(model),
        "device": models.pick_device(),
        "compute_dtype": str(model.dtype).removeprefix("torch."),
        "batch_size": batch_size,
        "resumed": resumed,
    }
    return questions, answers, facts


def _room(model: Any, answer_tokens: int) -> int | None:
    """The longest prompt, in tokens, that leaves room for an answer; None where the model has no such limit."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return None
    if positions <= answer_tokens:
        raise InputError(
            f"max_new_tokens: {answer_tokens} leave no room for a prompt: the model has {positions} positions in all."
        )
    return positions - answer_tokens


def _decode_all(
    waiting: list[Question],
    encoded: dict[str, list[int]],
    model: Any,
    ends: list[int],
    params: GenerateParams,
    keep: Callable[[Question, list[int]], None],
) -> int:
    """Answer the questions, the longest first, in batches that fit; the largest size a batch may have in the end.

    Raises:
        torch.OutOfMemoryError: a single prompt does not fit.
    """
    import torch

    sampled = params.mode == "sample"
    how = decoding.Decoding(
        params.answer_tokens, params.num_beams, params.temperature if sampled else 0.0, params.top_p if sampled else 1.0
    )
    free, most = models.free_memory(), params.generation_batch_size
    while waiting:
        longest = len(encoded[waiting[0].name])
        fitting = decoding.prompts_that_fit(model.config, longest, how, model.dtype.itemsize, free)
        batch = waiting[: min(most, fitting)]
        seeds = [f"{params.seed}/{question.name}" for question in batch] if sampled else []
        ids = [encoded[question.name] for question in batch]
        answers = decoding.decode_if_it_fits(model, ids, ends, how, seeds)
        if answers is None:
            most = len(batch) // 2
            if not most:
                raise torch.OutOfMemoryError(
                    f"out of memory with one prompt of {longest} tokens: lower max_new_tokens, set merge_adapter to "
                    "false, or take a smaller base_model."
                )
            print(f"Out of memory: going on with {most} prompts at once.")
            continue
        for question, tokens in zip(batch, answers, strict=True):
            keep(question, tokens)
        waiting = waiting[len(batch) :]
    return most


# --- by a model behind a server -----------------------------------------------------------------------------------


def _by_server(
    asked: list[dict], params: GenerateParams, run: run_folder.RunFolder
) -> tuple[list[Question], dict[str, dict], dict]:
    """As ``_by_model``. In the Alpaca template the text is continued as it stands; chat templates are the server's, and
    a guard prompt is a system message to them."""
    alpaca, sampled = params.template == "alpaca", params.mode == "sample"
    guard = params.guard_prompt

    def render(prompt: str) -> str:
        return templates.render(prompt, guard=guard) if alpaca else "\n\n".join(filter(None, (guard, prompt)))

    questions = _questions(asked, params, render)
    server = server_of(params)
    _kept_answers(run, params)
    requests = []
    for question in questions:
        seed = _seed(f"{params.seed}/{question.name}") if sampled else None
        content = {"text": question.rendered} if alpaca else {"messages": _messages(question.prompt, guard)}
        requests.append(endpoint.Request(question.name, seed=seed, **content))
    by_name = {question.name: question for question in questions}
    progress = run_folder.Progress(run, "generate", len(questions))
    answers: dict[str, dict] = {}
    resumed, given_up = 0, ""
    for said in endpoint.ask(server, requests, run.partial_responses):
        given_up = given_up or endpoint.given_up(said)
        resumed += said.cached and not said.attempts
        answers[said.id] = _said(by_name[said.id], said, alpaca)
        progress.update(len(answers))
    if given_up:
        n = sum(answer["finish"] != "error" for answer in answers.values())
        raise ConnectionError(
            f"{given_up}. {n} of {len(questions)} answers came and are kept: the same command goes on from there."
        )
    return questions, answers, {"base_url": server.host, "served_model": params.served_model, "resumed": resumed}


def server_of(params: GenerateParams) -> endpoint.Endpoint:
    """Where and how a server is asked. Raises InputError where that cannot be, or its key is not set."""
    sampled = params.mode == "sample"
    server = endpoint.Endpoint(
        params.base_url,
        params.served_model,
        params.key_name,
        temperature=params.temperature if sampled else 0.0,
        top_p=params.top_p if sampled else 1.0,
        max_tokens=params.answer_tokens,
        concurrency=params.concurrency,
        empty_answers=True,  # which is for the reader to know, and not for the judges to guess
    )
    endpoint.require_key(server)
    return server


def _messages(prompt: str, guard: str) -> list[dict[str, str]]:
    head = [{"role": "system", "content": guard}] if guard else []
    return [*head, {"role": "user", "content": prompt}]


def _seed(name: str) -> int:
    """A seed that any server takes: 31 bits."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


def _said(question: Question, said: endpoint.Answer, alpaca: bool) -> dict:
    if said.error and said.finish != "length":
        return _no_answer(question, said.error, said.prompt_tokens)
    text = templates.cut_next_turn(said.text) if alpaca else said.text
    finish = "length" if said.finish == "length" else "stop"
    return _answer(question, text, said.completion_tokens, finish, said.prompt_tokens)
