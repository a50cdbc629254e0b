"""Responses to judgements: of a run or of any table, each kept where asking again would cost.

A judge does not know which run wrote a response. What it cannot tell is missing, with the reason, and never a number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_nb.core import endpoint, files, run_folder
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams
from safety_nb.data.datasets import fetch, sources
from safety_nb.judge import category_scores, reading
from safety_nb.judge.building import build, build_all, model_under_test
from safety_nb.judge.judgement import Judge, Judgement

if TYPE_CHECKING:
    import pandas as pd

ADDED_COLUMNS = ("label", "score", "missing", "raw")


def judge_rows(judge: Judge, rows: Sequence[dict]) -> Iterator[Judgement]:
    """Judgements in the order of the rows; those of a judge with an identity are kept, and none is asked for twice.

    What was judged is kept the moment it comes, so that a batch that was cut off goes on where it ended. What is
    missing is not kept: a judge that could not tell is asked again. Rows of equal prompt, response and right answer
    get the same judgement. A judge is given the answer without its reasoning, and no answer that it cannot read:
    those are missing.
    """
    given, unread = _as_read(judge, rows)
    judged = _judgements(judge, given)
    for why in unread:
        yield Judgement(missing=why) if why else next(judged)


def _as_read(judge: Judge, rows: Sequence[dict]) -> tuple[list[dict], list[str]]:
    """The rows as a judge reads them, of those that it can read; and for each of all why it cannot, or nothing."""
    given, unread = [], []
    for row in rows:
        answer, why = reading.answer_of(row["response"]) if judge.reads_the_answer_alone else (row["response"], "")
        if not why and judge.reads_english_alone and (language := reading.language(answer)):
            why = f"{reading.NOT_ENGLISH} ({language})"
        unread.append(why)
        if not why:
            given.append(row if answer == row["response"] else {**row, "response": answer})
    return given, unread


def _judgements(judge: Judge, rows: Sequence[dict]) -> Iterator[Judgement]:
    """The judgements of rows that a judge can read, in their order, each kept where the judge has an identity."""
    path = _kept_in(judge)
    keys = [_key(row, judge.uses) for row in rows]
    known = {row["key"]: Judgement(**row["judgement"]) for row in files.read_log(path)} if path else {}
    new = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
    arriving = zip(new, judge.judge(list(new.values())), strict=True)
    waiting = len(new)
    for key in keys:
        while key not in known:
            arrived, judgement = next(arriving)  # too few judgements: zip says so
            known[arrived] = judgement
            waiting -= 1
            if not waiting:
                next(arriving, None)  # too many judgements: zip says so
            if path and judgement.missing is None:
                files.append_line(path, {"key": arrived, "judgement": asdict(judgement)})
        yield known[key]


def _unless_given_up(judge: Judge, judgements: Iterator[Judgement]) -> Iterator[Judgement]:
    """The judgements as they come. Raises ConnectionError at their end where the judge's endpoint was given up on."""
    reason = ""
    for judgement in judgements:
        if judgement.missing and endpoint.tells_given_up(judgement.missing):
            reason = reason or judgement.missing
        yield judgement
    if reason:
        raise ConnectionError(f"{judge.name}: {reason}. What came is kept: the same command goes on from there.")


def _key(row: dict, numbers: Sequence[str] = ()) -> str:
    read = [row["prompt"], row["response"], row.get("answer"), *(row.get(name) for name in numbers)]
    return digest(read, sort_keys=False, ensure_ascii=False)


def _kept_in(judge: Judge) -> Path | None:
    if not judge.identity:
        return None
    identity = digest(judge.identity, sort_keys=True, ensure_ascii=True)[:16]
    kind = judge.name.partition(":")[0]
    return fetch.cache_dir() / "judgements" / f"{kind}-{identity}.jsonl"


# --- a run --------------------------------------------------------------------------------------------------------


def judge_run(params: JudgeParams) -> list[dict]:
    """Let every judge of a run read its responses and write ``judgements.jsonl``; of some, category scores beside it.

    A judge that reads only some evaluation sets (one with right answers, say) leaves the others out. Where there is no
    answer, the judgement is missing.

    Raises:
        InputError: as ``build_all``.
        ConnectionError: the endpoint of a judge was given up on.

    Returns:
        Rows with dataset, prompt_id, judge, label, score, missing; sample, where prompts have several answers; and
        raw, where a judge said more.
    """
    run = run_folder.open_run(params.run_dir)
    run_folder.require(run, ["responses.jsonl"], maker="generate")
    responses = _with_answers(files.read_jsonl(run.responses), run, params.data_dir)
    several = any(row.get("sample") for row in responses)
    made = files.read_json(run.generation) if run.generation.is_file() else {}
    readers = build_all(params, model_under_test(made))
    work = [(judge, [row for row in responses if judge.reads(row)]) for judge in readers]
    progress = run_folder.Progress(run, "judge", sum(len(read) for _, read in work))
    rows: list[dict] = []
    for judge, read in work:
        judged = _unless_given_up(judge, _judge_answers(judge, read))
        for row, judgement in zip(read, judged, strict=True):
            rows.append(
                {
                    "dataset": row["dataset"],
                    "prompt_id": row["prompt_id"],
                    "judge": judge.name,
                    "label": judgement.label,
                    "score": judgement.score,
                    "missing": judgement.missing,
                    **({"sample": row["sample"]} if several else {}),
                    **({"raw": judgement.raw} if judgement.raw is not None else {}),
                }
            )
            progress.update(len(rows))
    files.write_jsonl(run.judgements, rows)
    category_scores.write(run, rows)
    return rows


def _judge_answers(judge: Judge, rows: Sequence[dict]) -> Iterator[Judgement]:
    """Judge rows of which some have no answer: those are missing, and the judge does not see them."""
    absent = [row.get("finish") == "error" for row in rows]
    judged = judge_rows(judge, [row for row, gone in zip(rows, absent, strict=True) if not gone])
    for row, gone in zip(rows, absent, strict=True):
        yield Judgement(missing=f"no answer: {row.get('error')}") if gone else next(judged)


def _with_answers(responses: list[dict], run: run_folder.RunFolder, data_dir: str) -> list[dict]:
    """Add the right answer to the responses whose evaluation set has one, as the run kept what it was asked.

    Responses made elsewhere come without that; then their sets must be named ones.
    """
    if run.prompts.is_file():
        asked = files.read_jsonl(run.prompts)
    else:
        asked = sources.evaluation_prompts(list(dict.fromkeys(row["dataset"] for row in responses)), data_dir)
    answers = {(row["dataset"], row["prompt_id"]): row["answer"] for row in asked if "answer" in row}
    keys = [(row["dataset"], row["prompt_id"]) for row in responses]
    return [
        {**row, "answer": answers[key]} if key in answers else row for row, key in zip(responses, keys, strict=True)
    ]


# --- any table ----------------------------------------------------------------------------------------------------


def judge_table(
    name: str,
    table: "pd.DataFrame",
    prompt: str,
    response: str,
    params: JudgeParams | None = None,
    watch: Callable[[int], None] = lambda done: None,
) -> "pd.DataFrame":
    """Let a judge read a table, one answer a row.

    Args:
        name: the judge.
        prompt, response: the columns with what was asked and what was answered; a column ``answer``, if there is one,
            holds right answers.
        params: what the judge needs to know; by default that of the notebook.
        watch: told how many rows are judged, as they are.

    Returns:
        The table with ``label``, ``score`` and ``missing`` added, and ``raw`` where the judge said more. A row without
        an answer (None or nan), or that the judge cannot read, is missing. Its ``attrs["read"]`` names the columns of
        numbers that the judge took into account.

    Raises:
        InputError: no such judge or column, or a column that would be overwritten.
        ConnectionError: the endpoint of the judge was given up on; what it judged before is kept.
    """
    import pandas as pd

    params = params or JudgeParams()
    for column in dict.fromkeys([prompt, response]):
        if column not in table.columns:
            raise InputError(f"There is no column {column!r}; the table has {', '.join(map(str, table.columns))}.")
    if taken := [column for column in ADDED_COLUMNS if column in table.columns]:
        raise InputError(
            f"The table has a column {taken[0]!r} already, which judging would overwrite; rename or remove it first."
        )
    judge = build(name, params)
    asked, said = (table[column].astype(object) for column in (prompt, response))
    rows = [
        {"prompt": question if isinstance(question, str) else "", "response": answer}
        | ({} if _is_absent(right) else {"answer": str(right)})
        | numbers
        for question, answer, right, numbers in zip(
            asked,
            said,
            table["answer"] if "answer" in table else [None] * len(table),
            _numbers(table, judge.uses),
            strict=True,
        )
    ]
    unread = [_unread(judge, row) for row in rows]
    judged = _unless_given_up(judge, judge_rows(judge, [row for row, why in zip(rows, unread, strict=True) if not why]))
    judgements = []
    for why in unread:
        judgements.append(Judgement(missing=why) if why else next(judged))
        watch(len(judgements))
    next(judged, None)  # the end, at which it says that the endpoint was given up on
    columns = {column: [getattr(judgement, column) for judgement in judgements] for column in ADDED_COLUMNS}
    if not any(columns["raw"]):
        del columns["raw"]
    kinds = {"score": float}
    added = {name: pd.Series(values, table.index, kinds.get(name, object)) for name, values in columns.items()}
    judged = table.assign(**added)
    judged.attrs["read"] = [name for name in judge.uses if name in table]
    return judged


def _numbers(table: "pd.DataFrame", names: Sequence[str]) -> list[dict[str, float]]:
    """Of each row those of the numbers that it has."""
    import pandas as pd

    columns = {name: pd.to_numeric(table[name], errors="coerce") for name in names if name in table}
    return [
        {name: float(values.iloc[row]) for name, values in columns.items() if pd.notna(values.iloc[row])}
        for row in range(len(table))
    ]


def _is_absent(value: Any) -> bool:
    import pandas as pd

    return pd.api.types.is_scalar(value) and pd.isna(value)


def _unread(judge: Judge, row: dict) -> str:
    """Why a row of a table is not given to the judge; empty if it is."""
    if not isinstance(row["response"], str):
        return "no answer"
    return "" if judge.reads(row) else f"{judge.name} cannot read it: there is no right answer to compare with"
