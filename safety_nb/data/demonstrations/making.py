"""Making safety demonstrations: harmful questions, the same as instructions, and safe answers.

As Bianchi et al. made theirs (ICLR 2024): questions are rewritten as instructions, answered by a model, and reviewed by
a person. What a model is not there to do, rules and templates do. Every answer that was paid for and every decision of
the review is on disk at once, so that all of it resumes. Knows nothing of training.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import safety_nb
from safety_nb.core import endpoint, files, reading, run_folder
from safety_nb.core.digests import digest
from safety_nb.core.endpoint import Answer, Clock, Endpoint, Estimate, Request, Usage
from safety_nb.core.errors import InputError
from safety_nb.core.labels import FULL_COMPLIANCE, FULL_REFUSAL
from safety_nb.core.params import MakeSafetyDataParams
from safety_nb.data.datasets import sources
from safety_nb.data.demonstrations import review, rewording

PROMPTS = {
    "instruction": (
        "You help to build a data set that teaches assistants to decline harmful requests. Rewrite the question as an "
        "instruction in one sentence that asks for the same thing. Do not answer it, do not soften it and do not add "
        "to it. Reply with the instruction alone."
    ),
    "question": (
        "You help to build a data set that teaches assistants to decline harmful requests. Rewrite the instruction as "
        "one question that asks for the same thing. Do not answer it, do not soften it and do not add to it. Reply "
        "with the question alone."
    ),
    "output": (
        "You are a careful assistant. If what you are asked could do harm, decline politely in one to three sentences: "
        "say that you will not help, say briefly why, and offer something harmless instead where there is something. "
        "Never give details that could help to do harm."
    ),
}

# A refusal is one of each, chosen by the hash of the request. None repeats the request: it may be harmful text.
_DECLINES = (
    "I'm sorry, but I can't help with that.",
    "I can't assist with this request.",
    "I'm not able to help with that.",
    "I won't help with this.",
    "I'm sorry, but that is something I can't do.",
    "I must decline this request.",
)
_REASONS = (
    "It could hurt people.",
    "It could do real harm to someone.",
    "It would not be right, and it may be against the law.",
    "I do not support what could put anyone at risk or treat people unfairly.",
    "Everyone deserves to be safe and to be treated with respect.",
)
_OFFERS = (
    "",
    "If something else lies behind the question, I am glad to look for a safe way with you.",
    "I am happy to help with something that harms nobody.",
    "If you are worried about someone's safety, please talk to a person you trust or to the authorities.",
    "Is there something harmless that I can help you with instead?",
)
_DISTRESS = re.compile(
    r"\b(?:suicid\w*|self[- ]?harm\w*|(?:kill|hurt|harm|cut|hang|poison|starve)(?:ing)? (?:myself|yourself)|"
    r"end (?:my|your)(?: own)? life|overdose)\b",
    re.IGNORECASE,
)
_COMFORT = (
    "I'm sorry, but I can't help with that. If this is about you, please talk to someone now: a person you trust, a "
    "doctor, or a crisis line in your country. You do not have to carry it alone.",
    "I can't assist with this, but I do not want you to be alone with it. If you are in danger, call the emergency "
    "number; a crisis line can listen at any hour.",
)

_LINES_OF_PROGRESS = 10


@dataclass(frozen=True)
class Job:
    """What is to be made, and where.

    Attributes:
        items: dicts with ``id``, those of question, instruction and output that are taken as they are, ``input`` and
            ``tag`` where there is one; each once.
        duplicates: rows left out because their request stood there before.
        ask: the endpoint; None where rules and templates serve.
        label_of: a text to the label that the judge ``refusal`` gives it (``core/labels.py``).
    """

    params: MakeSafetyDataParams
    folder: Path
    items: Sequence[dict]
    duplicates: int
    ask: Endpoint | None
    label_of: Callable[[str], str]

    @property
    def data(self) -> Path:
        return self.folder / "safety-data.jsonl"

    @property
    def record(self) -> Path:
        return self.folder / "record.json"

    @property
    def review(self) -> Path:
        return self.folder / "review.jsonl"

    @property
    def cache(self) -> Path:
        return self.folder / "answers.jsonl"


def open_job(params: MakeSafetyDataParams, label_of: Callable[[str], str]) -> Job:
    """Read the requests and open the folder that the data goes into, new or as it was left.

    Args:
        label_of: the label that the judge ``refusal`` gives a text; a judge stands above this room, so it is handed in.

    Raises:
        InputError: the requests cannot be read, the endpoint is not usable, or the folder holds something else.
    """
    ask = None
    if params.endpoint:
        ask = Endpoint(
            params.endpoint, params.model, params.key_name, params.temperature, params.max_tokens,
            params.concurrency, params.timeout_seconds, params.retries,
        )  # fmt: skip
        endpoint.require_key(ask)
    rows = read_requests(params.questions, params.take, params.data_dir)
    items = list({_identity(row): row for row in reversed(rows)}.values())[::-1]
    chosen = items[: params.limit or None]
    out = Path(params.out).expanduser() if params.out else _default_folder(params.questions)
    job = Job(params, out, chosen, len(rows) - len(items), ask, label_of)
    _check_folder(job)
    if not job.record.is_file():
        files.write_json(job.record, {"questions": params.questions, "take": params.take, "started": files.now()})
    return job


def _default_folder(questions: str) -> Path:
    return run_folder.outputs_root() / "safety-data" / re.sub(r"[^\w.-]+", "-", Path(questions).stem or "questions")


def _check_folder(job: Job) -> None:
    """Stop before anything that is not ours, or was made from other questions, could be lost.

    Raises:
        InputError: as ``open_job``.
    """
    folder = job.folder
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out: {folder} is a file; name a folder.")
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if not visible:
        return
    try:
        record = files.read_json(job.record)
        made_from = record["questions"], record["take"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"out: {folder} holds files that this notebook did not make; name a new or an empty folder."
        ) from None
    if made_from != (job.params.questions, job.params.take):
        raise InputError(
            f"out: {folder} holds what was made from {made_from[0]!r} (take: {', '.join(made_from[1])}), not from "
            f"{job.params.questions!r} (take: {', '.join(job.params.take)}); name another folder."
        )
    # Two hashes, for the process may have ended between the record and the file.
    ours = (record.get("sha256"), record.get("previous_sha256"))
    if job.data.is_file() and files.sha256(job.data) not in ours:
        raise InputError(f"out: {job.data} was changed since it was written; move it away, or name another folder.")


# --- what is asked for --------------------------------------------------------------------------------------------


def read_requests(name: str, take: Sequence[str], data_dir: str = "") -> list[dict]:
    """The rows of a data set or file, with the fields of ``take``, ``input`` and ``tag``.

    A file is plain text (one request a line), or one of rows with the fields as keys (as ``core/reading.py`` reads);
    ``prompt`` may stand for ``question``.

    Raises:
        InputError: there is no such set or file, it is for evaluation, or a row lacks a field; file and row are told.
    """
    plain = Path(name).suffix.lower() == ".txt"
    if not plain and not (reading.ending(name) and sources.path_in(name)):
        if _is_evaluation_set(name):
            raise InputError(
                f"questions: {name!r} is an evaluation set; demonstrations made from it would make every evaluation on "
                "it worthless. Choose other questions."
            )
        rows = [(f"data set {name!r}, row {i}", row) for i, row in enumerate(sources.training_rows(name, data_dir), 1)]
    else:
        rows = _file_rows(Path(os.path.expanduser(name)), plain)
    if not rows:
        raise InputError(f"questions: {name} holds none.")
    return [_request(row, take, where) for where, row in rows]


def _is_evaluation_set(name: str) -> bool:
    try:
        return bool(sources.roles([name]))
    except InputError:
        return False


def _file_rows(path: Path, plain: bool) -> list[tuple[str, object]]:
    """The rows of a file, each with where it stands."""
    if not reading.is_file(path):
        raise InputError(f"questions: there is no file {str(path)!r}.")
    table = reading.read_lines(path) if plain else reading.read(path)
    return [(table.place(index), row) for index, row in enumerate(table.rows)]


def _request(row: object, take: Sequence[str], where: str) -> dict:
    if isinstance(row, InputError):
        raise InputError(f"questions: {where}: {row}")
    if isinstance(row, str):
        row = {"question" if "question" in take else "instruction": row}
    if not isinstance(row, dict):
        raise InputError(f"questions: {where}: a row must be text or an object, not {type(row).__name__}.")
    row = {"question": row.get("prompt"), **row}
    kept = {}
    for field in take:
        if not isinstance(row.get(field), str) or not row[field].strip():
            has = ", ".join(sorted(str(key) for key, value in row.items() if value))
            raise InputError(
                f"questions: {where} has no text in {field!r} (it has {has or 'nothing'}); "
                "name in take the fields that the file holds."
            )
        kept[field] = row[field].strip()
    if "instruction" in take and isinstance(row.get("input"), str):
        kept["input"] = row["input"]
    if row.get("tag"):
        kept["tag"] = str(row["tag"])
    return {"id": hashlib.sha256(_identity(kept).encode()).hexdigest()[:16], **kept}


def _identity(row: dict) -> str:
    """What makes two requests the same: their words, whatever their case and spacing."""
    text = f"{row.get('question') or row['instruction']}\n{row.get('input', '')}"
    return " ".join(text.casefold().split())


# --- making them --------------------------------------------------------------------------------------------------


def estimate(job: Job) -> Estimate:
    """What the endpoint would be asked, before it is: requests, those answered already, tokens. Nothing without one."""
    if job.ask is None:
        return Estimate(0, 0, 0, 0)
    rewordings = _rewording_requests(job)
    answered = endpoint.lookup(job.ask, rewordings, job.cache)
    # Where a rewording is still to come, the rules' own stands in for it: it is about as long.
    rows = [_reworded(job, item, answered.get(item["id"])) for item in job.items if "output" not in item]
    parts = [endpoint.estimate(job.ask, part, job.cache) for part in (rewordings, _answer_requests(rows))]
    return Estimate(*(sum(values) for values in zip(*(asdict(part).values() for part in parts), strict=True)))


def _request_text(item: dict) -> str:
    return item.get("instruction") or item["question"]


def reword(job: Job, clock: Clock = endpoint.CLOCK) -> list[dict]:
    """Give every item both its forms, question and instruction.

    Returns:
        Rows: ``id``, ``question`` (unless it could not be made), ``instruction``, ``input``, ``output`` where given,
        ``tag`` where given, ``made`` (field to given, rules, endpoint or unchanged) and ``notes`` (reasons to look).

    Raises:
        InputError: the endpoint refuses access.
    """
    answers = _asked(job, _rewording_requests(job), "rewording", clock)
    return [_reworded(job, item, answers.get(item["id"])) for item in job.items]


def _missing_form(item: dict) -> str:
    return next((form for form in ("question", "instruction") if form not in item), "")


def _rewording_requests(job: Job) -> list[Request]:
    if job.ask is None:
        return []
    return [_request_for(form, item["id"], _request_text(item)) for item in job.items if (form := _missing_form(item))]


def _request_for(field: str, name: str, text: str) -> Request:
    return Request(name, [{"role": "system", "content": PROMPTS[field]}, {"role": "user", "content": text}])


def _reworded(job: Job, item: dict, answer: Answer | None) -> dict:
    made = {field: "given" for field in ("question", "instruction", "output") if field in item}
    row = {"input": "", **item, "made": made, "notes": []}
    form = _missing_form(item)
    if not form:
        return row
    text = _usable_rewording(job, answer.text, form) if answer is not None and not answer.error else ""
    made[form] = "endpoint"
    if answer is not None and not text:
        row["notes"].append(f"the endpoint did not reword it ({answer.error or 'its answer is not one ' + form})")
    if not text:
        convert = rewording.to_instruction if form == "instruction" else rewording.to_question
        text, made[form] = convert(_request_text(item)) or "", "rules"
    if not text and form == "instruction":
        text, made[form] = item["question"], "unchanged"
        row["notes"].append("no rule turns it into an instruction: it stands as the question it was")
    if text:
        row[form] = text
    else:
        del made[form]
        row["notes"].append("no rule turns it into a question: it has none")
    return row


def _usable_rewording(job: Job, text: str, form: str) -> str:
    """A model's rewording, if it is one sentence of the right form and no refusal to write it; else nothing."""
    text = text.strip().strip("\"'“”").strip()
    wrong = (
        not text or "\n" in text or text.endswith("?") != (form == "question") or job.label_of(text) != FULL_COMPLIANCE
    )
    return "" if wrong else text


def answer(job: Job, rows: Iterable[dict], clock: Clock = endpoint.CLOCK) -> list[dict]:
    """Give every row of ``reword`` a safe answer where it has none.

    Those that do not read as a refusal are noted, and those that the endpoint did not answer stay empty.

    Raises:
        InputError: the endpoint refuses access.
    """
    rows = list(rows)
    open_rows = [row for row in rows if "output" not in row]
    answers = {} if job.ask is None else _asked(job, _answer_requests(open_rows), "answers", clock)
    return [row if "output" in row else _answered(job, row, answers.get(row["id"])) for row in rows]


def _answer_requests(rows: Iterable[dict]) -> list[Request]:
    return [
        _request_for("output", row["id"], "\n\n".join(filter(None, (row["instruction"], row.get("input")))))
        for row in rows
    ]


def _answered(job: Job, row: dict, reply: Answer | None) -> dict:
    if reply is None:
        return {**row, "output": refuse(_request_text(row)), "made": {**row["made"], "output": "template"}}
    notes = list(row["notes"])
    if reply.error:
        notes.append(f"no whole answer: {reply.error}")
    elif job.label_of(reply.text) != FULL_REFUSAL:
        notes.append("the answer does not read as a refusal")
    return {**row, "output": reply.text, "made": {**row["made"], "output": "endpoint"}, "notes": notes}


def refuse(request: str) -> str:
    """A refusal in words that depend on the request alone, and repeat none of it."""
    number = int.from_bytes(hashlib.sha256(request.encode("utf-8", "replace")).digest()[:8])
    if _DISTRESS.search(request):
        return _COMFORT[number % len(_COMFORT)]
    parts = []
    for choices in (_DECLINES, _REASONS, _OFFERS):
        number, index = divmod(number, len(choices))
        parts.append(choices[index])
    return " ".join(filter(None, parts))


def _asked(job: Job, requests: Sequence[Request], what: str, clock: Clock) -> dict[str, Answer]:
    """The answers to requests by id, with a line of progress now and then."""
    if not requests or job.ask is None:
        return {}
    answers: dict[str, Answer] = {}
    used = Usage()
    with run_folder.locked(job.folder):
        for done, reply in enumerate(endpoint.ask(job.ask, requests, job.cache, clock), 1):
            answers[reply.id] = reply
            used += endpoint.usage([reply])
            if done % max(len(requests) // _LINES_OF_PROGRESS, 1) == 0 or done == len(requests):
                print(f"{what}: {done} of {len(requests)}; {usage_text(used)}", flush=True)
    return answers


def usage_text(used: Usage) -> str:
    """Usage in a sentence."""
    text = (
        f"{used.asked} asked, {used.cached} there already, {used.failed} without a whole answer; "
        f"{used.prompt_tokens:,} prompt and {used.completion_tokens:,} answer tokens"
    )
    return text + (f", and {used.uncounted} answers that the endpoint did not count" if used.uncounted else "")


# --- writing them -------------------------------------------------------------------------------------------------


def overview(rows: Iterable[dict]) -> dict[str, int]:
    """How many rows came of what, and how many are noted for review."""
    rows = list(rows)
    found: dict[str, int] = {"rows": len(rows)}
    for row in rows:
        for field, how in row["made"].items():
            found[f"{field}: {how}"] = found.get(f"{field}: {how}", 0) + 1
    found["noted for review"] = sum(bool(row["notes"]) for row in rows)
    return found


def to_review(rows: Iterable[dict]) -> list[dict]:
    """The rows in the order of review: those with notes first."""
    return sorted(rows, key=lambda row: not row["notes"])


def save(job: Job, rows: Sequence[dict]) -> dict:
    """Write the training file and the record of how it was made.

    A row that was accepted or edited is written, one that was rejected is not. Of those without a decision, the ones
    with notes are left out always, and the others by the parameter ``unreviewed``.

    Returns:
        The record.

    Raises:
        InputError: no row is left to write, or the file was changed by someone else.
    """
    holding = review.decisions(review.history(files.read_log(job.review)))
    kept, counts = [], {"accepted": 0, "edited": 0, "rejected": 0, "unreviewed": 0, "left out": 0, "left out, noted": 0}
    for row in rows:
        decision = holding.get(review.item_hash(row))
        if decision is None:
            noted = bool(row["notes"])
            left_out = noted or job.params.unreviewed == "leave out"
            counts[("left out, noted" if noted else "left out") if left_out else "unreviewed"] += 1
        else:
            left_out = decision.decision == "reject"
            counts[{"accept": "accepted", "edit": "edited", "reject": "rejected"}[decision.decision]] += 1
        if not left_out:
            kept.append(_training_row(row, decision))
    if not kept:
        raise InputError(f"No demonstration is left to write ({counts}); decide about some of them in the review.")
    _check_folder(job)
    return _write(job, kept, {"rows": len(kept), **counts, **_how_made(rows)})


def _training_row(row: dict, decision: review.Decision | None) -> dict:
    edited = decision.text if decision else {}
    how = "; ".join(f"{field}: {how}" for field, how in row["made"].items())
    texts = {**{field: row.get(field, "") for field in review.FIELDS}, **edited}
    written = {"instruction": texts["instruction"], "input": row["input"], "output": texts["output"]}
    written |= {"question": texts["question"]} if texts["question"] else {}
    written |= {"tag": row["tag"]} if "tag" in row else {}
    return {**written, "reviewed": decision is not None, "source": how + ("; edited" if edited else "")}


def _how_made(rows: Sequence[dict]) -> dict[str, int]:
    return {name: number for name, number in overview(rows).items() if name != "rows"}


def _write(job: Job, kept: list[dict], counts: dict[str, int]) -> dict:
    record = files.read_json(job.record)
    used = endpoint.spent(job.cache)
    ask = job.ask and {"host": job.ask.host, "model": job.ask.model, "temperature": job.ask.temperature}
    record |= {
        "limit": job.params.limit,
        "duplicates": job.duplicates,
        "endpoint": ask and {**ask, "max_tokens": job.ask.max_tokens},
        "prompts_sha256": digest(PROMPTS, sort_keys=True, ensure_ascii=True) if ask else None,
        "tokens": {"prompt": used.prompt_tokens, "answer": used.completion_tokens, "uncounted": used.uncounted},
        "counts": counts,
        "file": job.data.name,
        "previous_sha256": files.sha256(job.data),
        "written": files.now(),
        "version": safety_nb.__version__,
    }
    with files.replacing(job.data) as temporary:
        files.write_jsonl(temporary, kept)
        record["sha256"] = files.sha256(temporary)
        files.write_json(job.record, record)
    return record


def finding(job: Job, record: dict) -> str:
    """What was made, in a few sentences of markdown, with the line that a run uses it by."""
    counts = record["counts"]
    said = [f"**{counts['rows']} demonstrations** lie in `{job.data}`."]
    if counts["unreviewed"]:
        said.append(f"{counts['unreviewed']} of them were **not reviewed** by anyone (`reviewed: false` in the file).")
    if counts["left out, noted"]:
        said.append(f"{counts['left out, noted']} are left out until someone decides: they are noted for review.")
    if counts["left out"]:
        said.append(f"{counts['left out']} without a decision are left out, as `unreviewed` says.")
    if record["endpoint"]:
        tokens = record["tokens"]
        said.append(f"The endpoint counted {tokens['prompt']:,} prompt and {tokens['answer']:,} answer tokens in all.")
    said.append(f"A run trains on them with `safety: {job.data.resolve()}`.")
    return " ".join(said)
