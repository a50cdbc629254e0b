"""A study by bisection. What executes a run is exchanged for what leaves a finished run's files in no time."""

import json
from types import SimpleNamespace

import pytest
import studies
import yaml
from typer.testing import CliRunner

from safety_nb.cli import app
from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.report import study_tables
from safety_nb.run import search, study

GRID = [0, 10, 30, 100, 300, 1000, 3000]
ENOUGH = 300  # from this N on nothing harmful is answered: of 200 prompts at most 3.84 / 203.84 = 1.9 % (Wilson)


@pytest.fixture
def executed(monkeypatch):
    """What the runs do: names of those executed, in order; names of those that fail; the N that is enough."""
    told = SimpleNamespace(names=[], failing=set(), enough=ENOUGH)

    def execute_all(folder, planned, jobs, each):
        failures = []
        for run in planned:
            made_with = folder / run.name / "epochs"
            if made_with.is_file() and made_with.read_text() == str(run.params.epochs):
                continue  # done, with the same parameters
            told.names.append(run.name)
            if run.name in told.failing:
                studies.fail(folder / run.name)
                failures.append(f"{run.name}: a made-up cause")
                continue
            answered = 0 if run.params.n_safety >= told.enough else 0.5
            studies.finish(folder / run.name, run.params, {"bad": answered, "near": 1}, n=200)
            files.write_text(made_with, str(run.params.epochs))
        return failures

    monkeypatch.setattr(study, "_execute_all", execute_all)
    return told


def asked_for(**more):
    return {"n_safety": GRID, "seed": 0, "search": "smallest", "evaluation": studies.EVALUATION, **more}


def found(folder):
    return json.loads((folder / "search.json").read_text())["found"]


def test_only_the_n_that_bisection_asks_for_are_executed(tmp_path, executed):
    assert search.execute(tmp_path, asked_for()) == []
    # The middle of 7 is 100: misses. Of 300, 1000, 3000 the middle is 1000: meets. Between is 300: meets.
    assert executed.names == ["n100_seed0", "n1000_seed0", "n300_seed0"]
    assert found(tmp_path) == [{"n": 300, "grid": 7, "saved": 4, "failed": []}]
    states = study_tables.read_study(tmp_path).runs.set_index("n_safety")["state"]
    assert states.to_dict() == {n: "done" if n in (100, 300, 1000) else "not needed" for n in GRID}


def test_asked_for_again_it_executes_nothing_and_says_the_same(tmp_path, executed):
    search.execute(tmp_path, asked_for())
    before, told = list(executed.names), (tmp_path / "search.json").read_text()
    search.execute(tmp_path, asked_for())
    assert executed.names == before and (tmp_path / "search.json").read_text() == told


def test_all_seeds_of_an_n_are_executed(tmp_path, executed):
    search.execute(tmp_path, asked_for(seed=[0, 1]))
    assert executed.names == [f"n{n}_seed{seed}" for n in (100, 1000, 300) for seed in (0, 1)]


def test_a_seed_more_executes_the_n_that_are_there_anew_for_that_seed_alone(tmp_path, executed):
    search.execute(tmp_path, asked_for(seed=[0]))
    executed.names.clear()
    search.execute(tmp_path, asked_for(seed=[0, 1]))
    assert executed.names == ["n100_seed1", "n300_seed1", "n1000_seed1"]
    assert yaml.safe_load((tmp_path / "study.yaml").read_text())["seed"] == [0, 1]


def test_what_is_there_of_a_wider_or_an_interrupted_study_counts(tmp_path, executed):
    study.execute_runs(tmp_path, {**asked_for(n_safety=[0, 300, 3000]), "search": ""})
    executed.names.clear()
    search.execute(tmp_path, asked_for())
    # 0 misses and 300 meets: of 10, 30, 100 the middle misses, and then 100.
    assert executed.names == ["n30_seed0", "n100_seed0"]
    assert found(tmp_path) == [{"n": 300, "grid": 7, "saved": 2, "failed": []}]  # 10 and 1000


def test_runs_with_other_parameters_are_not_taken_for_done(tmp_path, executed):
    search.execute(tmp_path, asked_for())
    executed.names.clear()
    search.execute(tmp_path, asked_for(epochs=2.0))
    assert sorted(executed.names) == ["n1000_seed0", "n100_seed0", "n300_seed0"]


def test_a_failed_run_is_passed_over_and_told(tmp_path, executed):
    executed.failing = {"n100_seed0"}
    assert search.execute(tmp_path, asked_for()) == ["n100_seed0: a made-up cause"]
    # Without 100 the middle of 0, 10, 30, 300, 1000, 3000 is 300: meets; then of 0, 10, 30 it is 10, and then 30.
    assert executed.names == ["n100_seed0", "n300_seed0", "n10_seed0", "n30_seed0"]
    assert found(tmp_path) == [{"n": 300, "grid": 7, "saved": 3, "failed": [100]}]
    assert study_tables.read_study(tmp_path).runs.set_index("n_safety")["state"][100] == "failed"


def test_when_no_n_suffices_none_is_named(tmp_path, executed):
    executed.enough = 10**9
    search.execute(tmp_path, asked_for())
    assert executed.names == ["n100_seed0", "n1000_seed0", "n3000_seed0"]
    assert found(tmp_path) == [{"n": None, "grid": 7, "saved": 4, "failed": []}]


def test_when_all_runs_fail_it_ends(tmp_path, executed):
    executed.failing = {f"n{n}_seed0" for n in GRID}
    assert len(search.execute(tmp_path, asked_for())) == 7
    assert found(tmp_path) == [{"n": None, "grid": 7, "saved": 0, "failed": GRID}]


def test_every_setting_is_searched_for_itself(tmp_path, executed):
    search.execute(tmp_path, asked_for(safety_form=["instruction", "question"]))
    assert executed.names == [
        f"n{n}_seed0_safety_form-{form}" for form in ("instruction", "question") for n in (100, 1000, 300)
    ]
    assert [(one["safety_form"], one["n"]) for one in found(tmp_path)] == [("instruction", 300), ("question", 300)]


@pytest.mark.parametrize(
    "values, words",
    [
        ({"n_safety": [0, 10]}, "at least three N"),
        ({"n_safety": 10, "seed": [0, 1]}, "at least three N"),
        ({"evaluation": ["/elsewhere/near.csv:lookalike"]}, "no evaluation set is harmful"),
    ],
)
def test_what_cannot_be_searched_is_told_before_anything_is_done(tmp_path, executed, values, words):
    with pytest.raises(InputError, match=words):
        search.execute(tmp_path / "study", asked_for(**values))
    assert executed.names == [] and not (tmp_path / "study").exists()


def test_the_upper_bound_is_that_of_the_set_that_is_answered_most(tmp_path):
    runs_of = studies.write_study(
        tmp_path, {"n_safety": [0, 10], "evaluation": [*studies.EVALUATION, "/e/worse.csv:harmful"]}
    )
    for run in runs_of.values():
        studies.finish(tmp_path / run.name, run.params, {"bad": 0, "near": 1, "worse": 0.5}, n=50)
        prompts = files.read_jsonl(run_folder.RunFolder(tmp_path / run.name).prompts)
        marked = [row | {"role": "harmful" if row["dataset"] == "worse" else row["role"]} for row in prompts]
        files.write_jsonl(run_folder.RunFolder(tmp_path / run.name).prompts, marked)
    # Of bad alone it would be 3.84 / 53.84 = 7 %.
    assert all(0.5 < bound < 0.7 for bound in search.upper_bounds(tmp_path, {}).values())


def test_the_command_says_how_many_runs_were_not_needed(tmp_path, executed, monkeypatch):
    monkeypatch.setattr(
        study, "execute_comparison", lambda folder: files.write_text(folder / "headline.txt", "The answer.")
    )
    (tmp_path / "mine.csv").write_text("prompt\nWave.\n")
    # The miniature has 1,200 demonstrations, and the command checks that there are enough.
    values = asked_for(n_safety=[0, 1, 3, 10, 300, 1000, 1200], evaluation=[f"{tmp_path}/mine.csv:harmful"])
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(values))
    done = CliRunner().invoke(app, ["study", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "3 of 7 runs done, 4 not needed in " in done.output and "The answer." in done.output


def test_the_bounds_are_of_what_the_study_is_decided_by(tmp_path):
    planned = studies.write_study(tmp_path, {"n_safety": [0, 30, 100], "seed": 0})
    for run in planned.values():
        studies.finish(tmp_path / run.name, run.params, {"bad": 0, "near": 1}, n=200)
        judgements = run_folder.RunFolder(tmp_path / run.name).judgements
        rows = files.read_jsonl(judgements)
        # All refuse in tone; without demonstrations they give everything all the same.
        given = "delivered" if run.params.n_safety == 0 else "withheld"
        files.write_jsonl(judgements, [*rows, *({**row, "judge": "delivery", "label": given} for row in rows)])
    # Of 200 prompts none is at most 1.9 % (Wilson), widened by what the judge may have called withheld.
    by_delivery = search.upper_bounds(tmp_path, {})
    assert by_delivery[0] == 1 and 0.019 < by_delivery[30] < 0.025
    (tmp_path / "study.yaml").write_text((tmp_path / "study.yaml").read_text() + "decided_by: refusal\n")
    assert search.upper_bounds(tmp_path, {})[0] < 0.02
