"""Which of two runs' answers to the same requests is the better one, by an llm judge. Knows no study."""

from collections.abc import Mapping
from typing import Any

from safety_nb.core import endpoint
from safety_nb.core.params import JudgeParams
from safety_nb.judge import reading
from safety_nb.judge.judgement import Judgement
from safety_nb.judge.kinds import llm

JUDGE = "llm:pair"
Answers = Mapping[tuple[str, str], tuple[str, str]]  # (evaluation set, prompt_id) to request and answer


def prefer_answers(ours: Answers, theirs: Answers, against: str, params: JudgeParams) -> list[dict[str, Any]]:
    """Ask an llm judge, in both orders, which answer to each request is the better one.

    Replies are kept: asking again costs only what is new. It is given answers without their reasoning; where one of the
    two has nothing else, the preference is missing.

    Args:
        ours, theirs: answers of two runs; requests of one run alone are left out.
        against: name of the run that ``theirs`` are of.
        params: judge_base_url, judge_model, judge_key_name, judge_votes.

    Returns:
        Rows of dataset, prompt_id, judge, against, label (left: ours is the better one; right; tie), score (1, 0, 0.5),
        missing and raw.

    Raises:
        InputError: there is no endpoint to ask.
        ConnectionError: the endpoint was given up on.
    """
    keys = [key for key in theirs if key in ours]
    read = {k: (reading.answer_of(ours[k][1]), reading.answer_of(theirs[k][1])) for k in keys}
    unread = {k: reason for k, ((_, left), (_, right)) in read.items() if (reason := left or right)}
    pairs = [{"prompt": ours[k][0], "left": read[k][0][0], "right": read[k][1][0]} for k in keys if k not in unread]
    judged = iter(llm.judge_pairs(pairs, params))
    said = [Judgement(missing=unread[k]) if k in unread else next(judged) for k in keys]
    reasons = [judgement.missing for judgement in said if judgement.missing]
    if given_up := next(filter(endpoint.tells_given_up, reasons), ""):
        raise ConnectionError(f"{given_up}. What came is kept: the same command goes on from there.")
    return [_row(key, judgement, against) for key, judgement in zip(keys, said, strict=True)]


def ties(answers: Answers, against: str) -> list[dict[str, Any]]:
    """The rows of a run set against itself: a tie at each request, which nobody is asked about."""
    return [_row(key, Judgement("tie", 0.5), against) for key in answers]


def _row(key: tuple[str, str], judgement: Judgement, against: str) -> dict[str, Any]:
    dataset, prompt_id = key
    return {
        "dataset": dataset,
        "prompt_id": prompt_id,
        "judge": JUDGE,
        "against": against,
        "label": judgement.label,
        "score": judgement.score,
        "missing": judgement.missing,
        "raw": judgement.raw,
    }
