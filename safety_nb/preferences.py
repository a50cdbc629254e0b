"""Which of two answers to an ordinary request is the better one, by an llm judge: each N against the smallest.

What it says lies in each run's ``preferences.jsonl``, from where the comparison takes it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from safety_nb.core import endpoint, files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams
from safety_nb.judge import building
from safety_nb.judge.judgement import Judgement
from safety_nb.judge.kinds import llm
from safety_nb.report import study_tables

if TYPE_CHECKING:
    import pandas as pd

JUDGE = "llm:pair"


def ask(folder: Path, params: JudgeParams) -> "pd.DataFrame":
    """Ask an llm judge about the answers of a study's finished runs to ordinary requests, in both orders.

    Each run is set against the one of the smallest N with the same seed and setting; that one has a row of score 0.5
    for each request, for it would tie with itself. Replies are kept: asking again costs only what is new.

    Args:
        folder: of the study.
        params: judge_base_url, judge_model, judge_key_name, judge_votes, judge_own_model.

    Returns:
        Columns run, n_safety, dataset, prompt_id, judge, against (the other run), label (left: this run's answer is the
        better one; right; tie), score (1, 0, 0.5), missing and raw.

    Raises:
        InputError: no study, no ordinary requests, no endpoint, or a judge that is the model under test.
        ConnectionError: the endpoint was given up on.
    """
    import pandas as pd

    tables = study_tables.read_study(folder)
    done = tables.runs[tables.runs["state"] == run_folder.DONE]
    for values in done.to_dict("records"):
        building.check_not_own(
            JUDGE, params.judge_model, building.model_under_test({**tables.shared, **values}), params
        )
    settings = [name for name in tables.swept if name != "n_safety"]
    found = []
    for _, members in done.groupby(settings, dropna=False) if settings else [((), done)]:
        first = members.loc[members["n_safety"].idxmin()]
        theirs = _ordinary(folder / first["run"], tables.roles)
        if not theirs:
            raise InputError(f"{folder} has no evaluation set of ordinary requests; helpfulness is compared on those.")
        for row in members.itertuples():
            ours = _ordinary(folder / row.run, tables.roles)
            keys = [key for key in theirs if key in ours]
            said = [Judgement("tie", 0.5)] * len(keys)
            if row.run != first["run"]:
                pairs = [{"prompt": ours[k][0], "left": ours[k][1], "right": theirs[k][1]} for k in keys]
                said = llm.compare(pairs, params)
            reasons = [judgement.missing for judgement in said if judgement.missing]
            if given_up := next(filter(endpoint.tells_given_up, reasons), ""):
                raise ConnectionError(f"{given_up}. What came is kept: the same command goes on from there.")
            rows = [
                {
                    "dataset": dataset,
                    "prompt_id": prompt_id,
                    "judge": JUDGE,
                    "against": str(first["run"]),
                    "label": judgement.label,
                    "score": judgement.score,
                    "missing": judgement.missing,
                    "raw": judgement.raw,
                }
                for (dataset, prompt_id), judgement in zip(keys, said, strict=True)
            ]
            files.write_jsonl(run_folder.RunFolder(folder / row.run).preferences, rows)
            found += [{"run": row.run, "n_safety": row.n_safety, **each} for each in rows]
    return pd.DataFrame(found)


def _ordinary(folder: Path, roles: dict[str, str]) -> dict[tuple[str, str], tuple[str, str]]:
    """(evaluation set, prompt_id) to request and answer, of ordinary requests; of several answers the first."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for row in files.read_jsonl(run_folder.RunFolder(folder).responses):
        if roles.get(row["dataset"]) == "ordinary" and row.get("finish") != "error":
            found.setdefault((row["dataset"], row["prompt_id"]), (row["prompt"], row["response"]))
    return found
