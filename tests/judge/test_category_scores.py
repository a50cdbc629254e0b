"""Category scores: the wide table beside a run's judgements, made by a scripted endpoint, and what is no such table."""

import math

import pytest
from servers import Reaction, Scripted

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams, RunParams
from safety_nb.judge import category_scores, judging
from safety_nb.run import stages


def react(message: str, number: int) -> Reaction:
    """Two categories, one of which knows a villain's text; a text that is broken has no scores."""

    def result(text: str) -> dict:
        if "broken" in text:
            return {"flagged": True, "category_scores": {}}
        return {
            "flagged": "villain" in text,
            "category_scores": {"violence/graphic": 0.5, "hate": 0.875 if "villain" in text else 0.1},
        }

    return Reaction({"results": [result(text) for text in message.split("\n")]})


SAID = ["A villain.", "No.", "broken"]


@pytest.fixture
def run(tmp_path, monkeypatch) -> run_folder.RunFolder:
    """A run of four answers, one of which is not there, judged by a moderation endpoint and by rules."""
    monkeypatch.setenv("SAFETY_NB_CACHE", str(tmp_path / "cache"))
    run = run_folder.RunFolder(tmp_path / "run")
    rows = [
        {"dataset": "mine", "prompt_id": f"0{i}", "prompt": "How?", "response": text, "finish": "stop"}
        for i, text in enumerate(SAID)
    ]
    rows.append({"dataset": "mine", "prompt_id": "03", "prompt": "How?", "response": None, "finish": "error"})
    files.write_jsonl(run.responses, rows)
    files.write_jsonl(run.prompts, [{**row, "role": "harmful"} for row in rows])
    judge(run, "moderation", "refusal")
    return run


def judge(run: run_folder.RunFolder, *names: str) -> None:
    with Scripted(react) as server:
        judging.judge_run(JudgeParams(run_dir=str(run.root), judges=list(names), moderation_base_url=server.base_url))


def judgements(run: run_folder.RunFolder) -> list[dict]:
    return files.read_jsonl(run.judgements)


def test_each_category_is_a_column_and_what_is_missing_is_empty(run):
    assert (run.root / category_scores.FILE).read_text().splitlines() == [
        "dataset,prompt_id,judge,violence/graphic,hate",
        "mine,00,moderation,0.5,0.875",
        "mine,01,moderation,0.5,0.1",
        "mine,02,moderation,,",
        "mine,03,moderation,,",
    ]
    # The judgements are as they were: the highest score and the flag.
    moderated = [row for row in judgements(run) if row["judge"] == "moderation"]
    assert [(row["label"], row["score"]) for row in moderated] == [
        ("unsafe", 0.875),
        ("safe", 0.5),
        (None, None),
        (None, None),
    ]


def test_scores_are_read_back_a_row_a_category(run):
    found = category_scores.read(run, judgements(run))
    assert list(found.columns) == category_scores.COLUMNS and set(found["sample"]) == {0}
    values = {(row.prompt_id, row.category): row.value for row in found.itertuples()}
    assert values["00", "hate"] == 0.875 and values["01", "violence/graphic"] == 0.5
    assert math.isnan(values["02", "hate"]) and math.isnan(values["03", "hate"]) and len(found) == 8


def test_without_such_a_judge_there_is_no_table(run):
    judge(run, "refusal")
    assert not (run.root / category_scores.FILE).exists()
    assert category_scores.read(run, judgements(run)).empty


def test_several_answers_to_a_prompt_are_told_apart(run):
    rows = files.read_jsonl(run.responses)[:1]
    files.write_jsonl(run.responses, [{**rows[0], "sample": 0}, {**rows[0], "sample": 1, "response": "No."}])
    judge(run, "moderation")
    found = category_scores.read(run, judgements(run))
    assert found[found["category"] == "hate"][["sample", "value"]].to_numpy().tolist() == [[0, 0.875], [1, 0.1]]


HEAD, ROW = "dataset,prompt_id,judge,violence/graphic,hate", "mine,00,moderation,0.5,0.875"
OTHERS = "mine,01,moderation,0.5,0.1\nmine,02,moderation,,\nmine,03,moderation,,"
SHAPES = {
    "another column in front": (f"x,{HEAD}\n1,{ROW}\n", "its columns are x, dataset"),
    "no category": ("dataset,prompt_id,judge\nmine,00,moderation\n", "its columns are dataset, prompt_id, judge."),
    "a row less": (f"{HEAD}\n{OTHERS}\n", "its 3 rows are not the 4 judgements"),
    "a row twice": (f"{HEAD}\n{ROW}\n{ROW}\n{OTHERS}\n", "its 5 rows are not the 4"),
    "another prompt": (f"{HEAD}\n{ROW.replace('00', '0')}\n{OTHERS}\n", "its 4 rows are not the 4"),
    "words": (f"{HEAD}\n{ROW.replace('0.5', 'low')}\n{OTHERS}\n", "violence/graphic of mine, 00 is 'low'"),
    "a percentage": (f"{HEAD}\n{ROW.replace('0.5', '50')}\n{OTHERS}\n", "violence/graphic of mine, 00 is '50'"),
    "below 0": (f"{HEAD}\n{ROW.replace('0.875', '-0.1')}\n{OTHERS}\n", "hate of mine, 00 is '-0.1'"),
    "no number": (f"{HEAD}\n{ROW.replace('0.875', 'nan')}\n{OTHERS}\n", "hate of mine, 00 is 'nan'"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_of_another_shape_is_told_by_what_is_wrong(run, shape):
    content, why = SHAPES[shape]
    (run.root / category_scores.FILE).write_text(content)
    with pytest.raises(InputError) as error:
        category_scores.read(run, judgements(run))
    assert why in str(error.value) and "--from judge makes it anew" in str(error.value)


def test_a_category_that_is_called_as_a_column_is_refused(run):
    row = {"dataset": "mine", "prompt_id": "1", "judge": "moderation", "label": "safe", "score": 0.5, "missing": None}
    with pytest.raises(InputError, match="has a category 'judge', which is a column"):
        category_scores.write(run, [{**row, "raw": '{"judge": 0.5}'}])


def test_the_table_is_an_output_of_the_stage_where_the_judge_is_asked():
    def outputs(*judges: str) -> tuple[str, ...]:
        return {stage.name: stage.outputs for stage in stages.of_run(RunParams(judges=list(judges)))}["judge"]

    assert outputs("refusal") == ("judgements.jsonl",)
    assert outputs("refusal", "moderation:another") == ("judgements.jsonl", category_scores.FILE)
