"""Judges: right answers, and the rows judges leave of a run and of any table."""

import os
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams, RunParams
from safety_nb.data.datasets import sources
from safety_nb.judge import building, judging
from safety_nb.judge.judgement import Judge, Judgement
from safety_nb.judge.kinds import reference
from safety_nb.run import checks
from safety_nb.tiny import world

needs_data = pytest.mark.skipif(
    not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets: set SAFETY_NB_DATA to their folder"
)

# Judge "reference"


@pytest.mark.parametrize(
    ("response", "answer", "label"),
    [
        ("A crow is black.", "black", "correct"),
        ("BLACK", "black", "correct"),
        ("A crow is black.", "Black", "correct"),
        ("It has four legs, I think.", "four", "correct"),
        ("blackbird", "black", "wrong"),  # whole words only
        ("It is pitchblack.", "black", "wrong"),
        ("It is jet-black.", "black", "correct"),
        ("It is fourteen.", "four", "wrong"),
        ("A crow is white.", "black", "wrong"),
        ("", "black", "wrong"),
        ("It costs 3.50 crowns.", "3.50", "correct"),
        ("It costs 3250 crowns.", "3.50", "wrong"),  # the point is a point
        ("Written in C++ long ago", "C++", "correct"),
    ],
)
def test_reference_looks_for_the_answer_as_whole_words(response, answer, label):
    (judged,) = reference.judge([{"response": response, "answer": answer}])
    assert (judged.label, judged.score, judged.missing) == (label, float(label == "correct"), None)


@pytest.mark.parametrize(("row", "read"), [({"response": "x"}, False), ({"response": "x", "answer": "y"}, True)])
def test_reference_reads_only_what_has_an_answer(row, read):
    assert building.build("reference", JudgeParams()).reads(row) is read


# No judge of its own answers


def in_folder(folder):
    """The folder of a saved model."""
    return shutil.copytree(world.BASE_DIR, folder)


@pytest.mark.parametrize(
    ("model", "tested", "same"),
    [
        ("owner/model-7b", "owner/model-7b", True),
        ("owner/Model-7B", "model-7b", True),
        ("/models/model-7b/", "owner/model-7b", True),
        ("owner/model-7b", "owner/model-13b", False),
        ("tiny", "tiny", True),
        ("one", "one/../one/", True),
        ("link", "one", True),
        ("other/one", "one", False),  # another folder of that name
        ("owner/one", "one", True),  # a copy of the hub's, as far as its name tells
    ],
)
def test_folders_are_one_model_by_their_place_and_names_by_their_end(model, tested, same, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    in_folder(tmp_path / "one"), in_folder(tmp_path / "other" / "one")
    (tmp_path / "link").symlink_to("one")
    assert building.same_model(model, tested) is building.same_model(tested, model) is same


@pytest.mark.parametrize(
    "name", ["llm:xstest", "harmfulness:{}", "harmfulness:{}#harm", "helpfulness:{}", "guard:wildguard={}"]
)
def test_no_judge_is_the_model_under_test_unless_told(name, tmp_path):
    folder = in_folder(tmp_path / "base")
    values = {"judges": [name.format(folder)], "base_model": f"{folder}/../base"}
    values |= {"judge_base_url": "http://localhost/v1", "judge_model": "base"}
    params = RunParams(**values)
    with pytest.raises(InputError, match="judge_own_model"):
        building.build_all(params, building.model_under_test(params.model_dump()))
    for other in ({"base_model": "tiny"}, {"judge_own_model": True}):
        params = RunParams(**values | other)
        (judge,) = building.build_all(params, building.model_under_test(params.model_dump()))
        assert judge.name == name.format(folder)
    served = {"backend": "server", "served_model": "BASE", "base_model": "tiny"}
    with pytest.raises(InputError, match="which is the model under test"):
        building.check_not_own("llm:xstest", "owner/base", building.model_under_test(served), JudgeParams())


def test_a_run_is_refused_before_anything_is_written(tmp_path):
    params = RunParams(judges=["llm:xstest"], judge_base_url="http://localhost/v1", judge_model="tiny")
    with pytest.raises(InputError, match="which is the model under test"):
        checks.check_run(params)
    checks.check_run(params.model_copy(update={"judge_own_model": True}))


def test_rules_and_people_may_read_any_answers():
    params = RunParams(judges=["refusal", "string-match", "reference", "human"], base_model="tiny")
    assert len(building.build_all(params, "tiny")) == 4


def test_a_run_knows_whose_answers_the_notebook_judges(tmp_path):
    run = run_folder.RunFolder(tmp_path)
    files.write_jsonl(run.responses, [{"dataset": "tiny-ordinary", "prompt_id": "1", "prompt": "a", "response": "b"}])
    files.write_json(run.generation, {"backend": "local", "base_model": str(in_folder(tmp_path / "base"))})
    params = JudgeParams(run_dir=str(tmp_path), judges=[f"harmfulness:{tmp_path}/base"])
    with pytest.raises(InputError, match="which is the model under test"):
        judging.judge_run(params)
    assert not run.judgements.exists()


# All judges of a run


@pytest.fixture
def judged(tmp_path) -> dict:
    """Responses to two facts and one ordinary prompt, and what both judges made of them."""
    facts = sources.evaluation_rows("tiny-facts")[:2]
    responses = [
        {"dataset": "tiny-facts", "prompt_id": facts[0]["prompt_id"], "response": f"It is {facts[0]['answer']}."},
        {"dataset": "tiny-facts", "prompt_id": facts[1]["prompt_id"], "response": "I can't help with that."},
        {"dataset": "tiny-ordinary", "prompt_id": "tiny-ordinary-000", "response": "Wave."},
    ]
    responses = [{**row, "prompt": "How?"} for row in responses]
    run = run_folder.RunFolder(tmp_path)
    files.write_jsonl(run.responses, responses)
    rows = judging.judge_run(JudgeParams(run_dir=str(tmp_path)))
    return {"rows": rows, "responses": responses, "file": files.read_jsonl(run.judgements)}


def test_each_judge_leaves_one_row_a_response_it_reads(judged):
    found = [(row["judge"], row["dataset"], row["prompt_id"]) for row in judged["rows"]]
    keys = [(row["dataset"], row["prompt_id"]) for row in judged["responses"]]
    # Both read the facts; the ordinary prompt has no right answer for "reference" to look for.
    assert found == [("refusal", *key) for key in keys] + [("reference", *key) for key in keys[:2]]


def test_judgements_are_those_of_the_judges(judged):
    labels = ["full_compliance", "full_refusal", "full_compliance", "correct", "wrong"]
    assert [row["label"] for row in judged["rows"]] == labels
    assert [round(row["score"]) for row in judged["rows"]] == [0, 1, 0, 1, 0]  # of refusals the probability


def test_judgements_on_disk_are_the_rows_with_missing_null(judged):
    assert judged["file"] == judged["rows"]
    wanted = ["dataset", "prompt_id", "judge", "label", "score", "missing"]
    assert [list(row) for row in judged["file"]] == [wanted] * 5
    assert {row["missing"] for row in judged["file"]} == {None}


def test_right_answers_are_those_the_run_kept(tmp_path):
    # Of a set that no registry knows.
    run = run_folder.RunFolder(tmp_path)
    key = {"dataset": "mine", "prompt_id": "1"}
    files.write_jsonl(run.prompts, [{**key, "role": "facts", "prompt": "Which colour?", "answer": "blue"}])
    files.write_jsonl(run.responses, [{**key, "prompt": "Which colour?", "response": "It is blue."}])
    rows = judging.judge_run(JudgeParams(run_dir=str(tmp_path), judges=["reference"]))
    assert [row["label"] for row in rows] == ["correct"]


def test_only_the_judges_asked_for_judge(tmp_path):
    prompt_id = sources.evaluation_rows("tiny-facts")[0]["prompt_id"]  # "reference" could read it
    response = {"dataset": "tiny-facts", "prompt_id": prompt_id, "prompt": "x", "response": "y"}
    files.write_jsonl(run_folder.RunFolder(tmp_path).responses, [response])
    rows = judging.judge_run(JudgeParams(run_dir=str(tmp_path), judges=["refusal"]))
    assert [row["judge"] for row in rows] == ["refusal"]


def test_judging_before_generating_names_the_stage_to_run(tmp_path):
    with pytest.raises(ValueError, match="no responses.jsonl: stage 'generate' makes it"):
        judging.judge_run(JudgeParams(run_dir=str(tmp_path)))


def test_a_run_whose_judge_cannot_be_reached_fails_instead_of_ending_with_holes(tmp_path, monkeypatch):
    row = {"dataset": "tiny-ordinary", "prompt_id": "1", "prompt": "How?", "response": "So."}
    files.write_jsonl(run_folder.RunFolder(tmp_path).responses, [row])
    missing = Judgement(missing="the judge gave no reply: not asked: HTTP 503")
    monkeypatch.setattr(building, "build", lambda name, params: Judge(name, lambda rows: [missing] * len(rows)))
    with pytest.raises(
        ConnectionError, match="refusal: the judge gave no reply: not asked: HTTP 503. What came is kept"
    ):
        judging.judge_run(JudgeParams(run_dir=str(tmp_path), judges=["refusal"]))
    assert not run_folder.RunFolder(tmp_path).judgements.exists()


# What is kept of a judge that is dear to ask


@pytest.fixture
def asked() -> list[str]:
    """The responses that a counting judge has been asked about."""
    return []


@pytest.fixture
def counting(asked, tmp_path, monkeypatch):
    """A judge that scores a response by its length, cannot tell of empty ones, and breaks off at "stop"."""
    monkeypatch.setenv("SAFETY_NB_CACHE", str(tmp_path / "cache"))

    def judge(rows):
        for row in rows:
            if row["response"] == "stop":
                raise KeyboardInterrupt
            asked.append(row["response"])
            yield Judgement(score=float(len(row["response"]))) if row["response"] else Judgement(missing="empty")

    return Judge("counting", judge, identity={"model": "a", "revision": "1"})


def rows_of(*responses: str, prompt: str = "How?") -> list[dict]:
    return [{"prompt": prompt, "response": response} for response in responses]


def test_what_was_judged_is_not_asked_again_and_keeps_its_place(counting, asked):
    assert [judged.score for judged in judging.judge_rows(counting, rows_of("a", "bb"))] == [1.0, 2.0]
    again = judging.judge_rows(counting, rows_of("ccc", "bb", "a", "ccc"))
    assert [judged.score for judged in again] == [3.0, 2.0, 1.0, 3.0]
    assert asked == ["a", "bb", "ccc"]  # equal rows once


def test_what_was_judged_before_a_break_is_kept(counting, asked):
    with pytest.raises(KeyboardInterrupt):
        list(judging.judge_rows(counting, rows_of("a", "bb", "stop")))
    assert [judged.score for judged in judging.judge_rows(counting, rows_of("a", "bb", "ccc"))] == [1.0, 2.0, 3.0]
    assert asked == ["a", "bb", "ccc"]


def test_what_is_missing_is_asked_again(counting, asked):
    for _ in range(2):
        (judged,) = judging.judge_rows(counting, rows_of(""))
        assert judged == Judgement(missing="empty")
    assert asked == ["", ""]


@pytest.mark.parametrize("other", [{"model": "b", "revision": "1"}, {"model": "a", "revision": "2"}])
def test_another_model_or_revision_judges_anew(counting, asked, other):
    list(judging.judge_rows(counting, rows_of("a")))
    list(judging.judge_rows(replace(counting, identity=other), rows_of("a")))
    assert asked == ["a", "a"]


def test_another_prompt_or_right_answer_is_judged_anew(counting, asked):
    list(judging.judge_rows(counting, rows_of("a")))
    list(judging.judge_rows(counting, rows_of("a", prompt="Why?")))
    list(judging.judge_rows(counting, [{"prompt": "How?", "response": "a", "answer": "b"}]))
    assert asked == ["a", "a", "a"]


def test_a_judge_without_identity_is_asked_every_time_and_leaves_no_file(counting, asked, tmp_path):
    cheap = replace(counting, identity={})
    for _ in range(2):
        list(judging.judge_rows(cheap, rows_of("a")))
    assert asked == ["a", "a"] and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("judged", [[], [Judgement(label="a")] * 3])
def test_a_judge_with_too_few_or_too_many_judgements_is_an_error(judged):
    # Too few would leave rows without a judgement, too many give rows another's.
    with pytest.raises(ValueError, match="zip"):
        list(judging.judge_rows(Judge("odd", lambda rows: judged), rows_of("a", "b")))


# Any table


TABLE = pd.DataFrame({"id": [7, 8, 9], "asked": ["How?"] * 3, "said": ["Wave.", "I can't help with that.", None]})


def test_a_table_gets_label_score_and_missing_and_keeps_its_own_columns():
    judged = judging.judge_table("refusal", TABLE, "asked", "said")
    assert list(judged.columns) == ["id", "asked", "said", "label", "score", "missing"]
    assert judged["label"].tolist() == ["full_compliance", "full_refusal", None]
    assert judged["score"].round().tolist()[:2] == [0.0, 1.0]
    assert judged["missing"].tolist() == [None, None, "no answer"]
    assert judged["id"].tolist() == [7, 8, 9] and list(TABLE.columns) == ["id", "asked", "said"]


def test_a_judge_that_cannot_read_a_table_says_so_row_by_row():
    judged = judging.judge_table("reference", TABLE, "asked", "said")
    assert judged["label"].isna().all()
    assert judged["missing"][0] == "reference cannot read it: there is no right answer to compare with"


def test_right_answers_of_a_table_stand_in_its_column_answer():
    table = TABLE.assign(answer=["wave", "wave", "wave"])
    assert judging.judge_table("reference", table, "asked", "said")["label"].tolist() == ["correct", "wrong", None]


def test_a_right_answer_that_is_missing_is_none():
    # str(nan) is a word that an answer may hold.
    table = pd.DataFrame({"asked": ["Who?"] * 3, "said": ["My nan."] * 3, "answer": ["nan", float("nan"), None]})
    assert judging.judge_table("reference", table, "asked", "said")["label"].tolist() == ["correct", None, None]


@pytest.mark.parametrize(
    ("table", "prompt", "words"),
    [
        (TABLE, "question", "no column 'question'; the table has id, asked, said"),
        (TABLE.assign(label="x"), "asked", "a column 'label' already"),
    ],
)
def test_a_table_that_cannot_be_judged_is_refused(table, prompt, words):
    with pytest.raises(InputError, match=words):
        judging.judge_table("refusal", table, prompt, "said")


def test_a_variant_of_a_judge_that_has_none_is_refused():
    with pytest.raises(InputError, match="'refusal:strict' is none; write refusal"):
        building.build("refusal:strict", JudgeParams())
