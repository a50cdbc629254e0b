"""Preferences between runs of a study, asked of a scripted server on loopback."""

import pytest
from servers import Reaction, Scripted, prefers
from studies import made

from safety_nb.core import files, grid, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams, RunParams
from safety_nb.report import study_tables
from safety_nb.report.findings import comparison
from safety_nb.run import study


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A study of N = 0 and 100 whose three ordinary answers are "plain" at N = 0 and "better" at 100, but for one."""
    monkeypatch.setenv("SAFETY_NB_CACHE", str(tmp_path / "cache"))
    folder = made(tmp_path / "study", {0: 0, 100: 20})
    for name, said in (("n0_seed0", ["plain"] * 3), ("n100_seed0", ["better", "better", "plain"])):
        run = run_folder.RunFolder(folder / name)
        asked = [{"dataset": "mine", "role": "ordinary", "prompt_id": f"{i}", "prompt": f"How {i}?"} for i in range(3)]
        files.write_jsonl(run.prompts, [*files.read_jsonl(run.prompts), *asked])
        answers = [{**row, "response": text, "finish": "stop"} for row, text in zip(asked, said, strict=True)]
        files.write_jsonl(run.responses, [*files.read_jsonl(run.responses), *answers])
    return folder


def params(server, **more) -> JudgeParams:
    return JudgeParams(judge_base_url=server.base_url, judge_model="judge", **more)


def test_each_n_is_set_against_the_smallest_and_reaches_the_costs(folder):
    with Scripted(prefers("better")) as server:
        told = study.prefer(folder, params(server)).set_index(["run", "prompt_id"])
        asked = len(server.seen)
    # Two pairs in both orders; the third answers are equal, a tie that is not asked.
    assert asked == 4
    assert told.loc["n100_seed0", "label"].tolist() == ["left", "left", "tie"]
    assert told.loc["n0_seed0", "score"].tolist() == [0.5, 0.5, 0.5]
    rows = files.read_jsonl(run_folder.RunFolder(folder / "n100_seed0").preferences)
    assert [row["score"] for row in rows] == [1.0, 1.0, 0.5] and rows[0]["against"] == "n0_seed0"
    (setting,) = comparison.compare_study(study_tables.read_study(folder)).settings
    (cost,) = setting.costs[setting.costs["measure"] == "mine preferred (llm:pair)"].itertuples()
    # Preferred in 2.5 of 3 against 1.5 of 3: 33 points better, and above 0 is worse.
    assert (cost.n_safety, cost.n) == (100, 3) and cost.estimate == pytest.approx(-100 / 3)


def test_asking_again_asks_nothing_anew(folder):
    with Scripted(prefers("better")) as server:
        first = study.prefer(folder, params(server))
        before = len(server.seen)
        assert study.prefer(folder, params(server)).equals(first)
        assert len(server.seen) == before


def test_the_model_under_test_is_no_judge_of_its_own_answers(folder):
    with Scripted(prefers("better")) as server, pytest.raises(InputError, match="is the model under test"):
        study.prefer(folder, JudgeParams(judge_base_url=server.base_url, judge_model="tiny"))


def test_a_model_that_only_some_runs_test_is_no_judge_of_theirs(tmp_path):
    folder = made(tmp_path / "study", {0: 0}, base_model=["tiny", "owner/other"])
    with Scripted(prefers("better")) as server, pytest.raises(InputError, match="'other', which is the model under"):
        study.prefer(folder, JudgeParams(judge_base_url=server.base_url, judge_model="other"))


def test_a_study_without_ordinary_requests_has_nothing_to_compare(tmp_path):
    with Scripted(prefers("better")) as server, pytest.raises(InputError, match="no evaluation set of ordinary"):
        study.prefer(made(tmp_path / "study", {0: 0, 100: 20}), params(server))


# --- as part of a study -------------------------------------------------------------------------------------------


def planned(**values) -> list[RunParams]:
    judge = {"judge_base_url": "http://localhost:1/v1", "judge_model": "judge"}
    return [run.params for run in grid.plan({"n_safety": [0, 100], **judge, **values})]


def test_a_study_that_can_be_compared_in_pairs_says_how_it_asks():
    asked = study.check_prefer(planned(judge_votes=3))
    assert (asked.judge_model, asked.judge_votes) == ("judge", 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_safety": [100], "seed": [0, 1]}, "set against the smallest, and there is only 100"),
        ({"evaluation": ["tiny-harmful"]}, "no evaluation set holds any; add one to evaluation"),
        ({"judge_model": ""}, "llm needs judge_base_url and judge_model"),
        ({"judge_model": ["one", "other"]}, "one judge compares all runs, so judge_model cannot be swept"),
        ({"judge_model": "owner/Tiny", "base_model": ["x", "tiny"]}, "which is the model under test"),
    ],
)
def test_what_keeps_a_study_from_being_compared_in_pairs_is_told_beforehand(values, message):
    with pytest.raises(InputError, match=message):
        study.check_prefer(planned(**values))


def test_a_study_whose_judge_refuses_is_compared_without_pairs(folder):
    with Scripted(lambda message, number: Reaction("no", status=401)) as server:
        (told,) = study.preferences_failure(folder, params(server))
    assert told.startswith("prefer: ") and "401" in told
    with Scripted(prefers("better")) as server:
        assert study.preferences_failure(folder, params(server)) == []
    assert run_folder.RunFolder(folder / "n100_seed0").preferences.exists()


def test_an_endpoint_that_is_down_leaves_no_preferences(folder):
    with Scripted(lambda message, number: Reaction("no", status=401)) as server, pytest.raises(InputError):
        study.prefer(folder, params(server))
    assert not run_folder.RunFolder(folder / "n100_seed0").preferences.exists()
