"""Labelling answers: the sample and its order, the log and what follows from it, the widgets clicked, and the judge
that reads the labels."""

import json

import numpy as np
import pandas as pd
import pytest
from ipywidgets import embed

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import AnnotateParams, JudgeParams, RunParams, validate
from safety_nb.judge import annotations, labelling
from safety_nb.judge.kinds import human
from safety_nb.run import runner, stages
from safety_nb.stats import estimates

LABELS = ["full_refusal", "partial_refusal", "full_compliance", "garbled"]


def make_run(folder, n=6, sets=("a", "b"), said="Answer {} of {}."):
    rows = [
        {"dataset": name, "prompt_id": f"p{i}", "prompt": f"Question {i} of {name}?", "finish": "stop",
         "response": said.format(i, folder.name)}
        for name in sets for i in range(n)
    ]  # fmt: skip
    files.write_jsonl(folder / "responses.jsonl", rows)
    return folder


@pytest.fixture
def study(tmp_path):
    for name in ("n0_seed0", "n30_seed0", "n300_seed0"):
        make_run(tmp_path / "study" / name)
    return tmp_path / "study"


def job(folder, **values) -> labelling.Job:
    return labelling.open_job(validate(AnnotateParams, {"run_dir": str(folder), **values}))


def begun(job) -> labelling.Panel:
    panel = labelling.Panel(job)
    panel.begin.click()
    return panel


def label_all(job, labels) -> None:
    """Label what is open, each item with what ``labels`` says of it."""
    panel = begun(job)
    keys = {value: key for key, value in panel.question.choices.items()}
    while panel.bar.value < len(job.items):
        panel.press(keys[labels(job.items[panel.position])])


# The sample


def test_sample_is_even_over_runs_and_sets_and_the_same_for_everyone(study):
    first, second = job(study, n=12, annotator="ann"), job(study, n=12, annotator="bob")
    assert {(item.runs, item.dataset) for item in first.items} == {
        ((run,), name) for run in ("n0_seed0", "n30_seed0", "n300_seed0") for name in "ab"
    }
    assert pd.Series([(item.runs, item.dataset) for item in first.items]).value_counts().unique().tolist() == [2]
    assert set(first.items) == set(second.items)
    assert first.items != second.items
    assert first.items == job(study, n=12, annotator="ann").items


def test_sample_grows_with_n_and_keeps_what_another_run_leaves_room_for(study):
    small, large = set(job(study, n=6).items), set(job(study, n=18).items)
    assert small < large and len(large) == 18
    assert len(job(study, n=0).items) == 36
    make_run(study / "n1000_seed0")
    # 24 over 8 strata are 3 of each, as 18 over 6 were: none of those is lost.
    assert large < set(job(study, n=24).items)
    assert set(job(study, n=6, seed=1).items) != small


def test_only_the_runs_and_sets_that_were_asked_for_are_drawn(study):
    items = job(study, runs=["n30_seed0"], datasets=["b"], n=0).items
    assert {(item.runs, item.dataset) for item in items} == {(("n30_seed0",), "b")} and len(items) == 6
    with pytest.raises(InputError, match="choose from n0_seed0, n300_seed0, n30_seed0"):
        job(study, runs=["n31_seed0"])
    with pytest.raises(InputError, match="choose from a, b"):
        job(study, datasets=["c"])


def test_prompts_without_an_answer_are_not_asked_about(tmp_path):
    run = make_run(tmp_path / "run", n=2, sets=["a"])
    rows = files.read_jsonl(run / "responses.jsonl")
    files.write_jsonl(run / "responses.jsonl", [rows[0], {**rows[1], "response": "", "finish": "error"}])
    assert [item.prompt_id for item in job(run).items] == ["p0"]
    with pytest.raises(InputError, match="no answers"):
        job(tmp_path / "nothing")


def test_pairs_are_two_runs_answers_to_one_prompt_on_shuffled_sides(study):
    items = job(study, ask="pair", n=0).items
    assert len(items) == 36  # 3 pairs of runs, 12 prompts
    assert all(len(item.responses) == 2 and item.runs[0] != item.runs[1] for item in items)
    sides = {annotations.swapped(item, "ann", 0) for item in items}
    assert sides == {True, False}
    assert [annotations.swapped(i, "ann", 0) for i in items] != [annotations.swapped(i, "bob", 0) for i in items]
    make_run(study / "n0_seed1", said="Answer {} of n0_seed0.")  # word for word those of n0_seed0
    assert len(job(study, ask="pair", n=0, runs=["n0_seed0", "n0_seed1"]).items) == 0
    with pytest.raises(InputError, match="two runs"):
        job(study / "n0_seed0", ask="pair")


def test_a_table_needs_only_prompts_and_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [("q1", "one", "m1"), ("q1", "two", "m2"), ("q2", "three", "m1"), ("q2", None, "m2")]
    pd.DataFrame(rows, columns=["ask", "said", "who"]).to_json("mine.jsonl", orient="records", lines=True)
    made = labelling.open_job(AnnotateParams(table="mine.jsonl", prompt="ask", response="said", model="who", n=0))
    assert {(*i.runs, i.dataset, i.prompt_id, i.prompt, *i.responses) for i in made.items} == {
        ("m1", "mine", "1", "q1", "one"), ("m2", "mine", "1", "q1", "two"), ("m1", "mine", "2", "q2", "three"),
    }  # fmt: skip
    assert made.folder == tmp_path / "outputs" / "annotations" / "mine"
    pairs = labelling.open_job(
        AnnotateParams(table="mine.jsonl", prompt="ask", response="said", model="who", ask="pair")
    )
    assert [item.runs for item in pairs.items] == [("m1", "m2")]
    with pytest.raises(InputError, match="no column 'answer'.*ask, said, who"):
        labelling.open_job(AnnotateParams(table="mine.jsonl", prompt="ask", response="answer"))


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_person_is_named_by_what_can_be_a_file(name, study):
    with pytest.raises(InputError, match="annotator"):
        job(study, annotator=name)


def test_a_table_and_a_run_are_not_both_labelled():
    with pytest.raises(InputError, match="one of them"):
        validate(AnnotateParams, {"table": "a.csv", "run_dir": "b"})


# The widgets


def test_every_click_is_on_disk_at_once_and_the_next_item_comes(study):
    made = job(study, n=3)
    panel = begun(made)
    panel.buttons["1"].click()
    (line,) = files.read_log(made.log)
    item = made.items[0]
    assert {name: line[name] for name in ("item", "run", "dataset", "prompt_id", "sample", "label", "missing")} == {
        "item": item.id, "run": item.runs[0], "dataset": item.dataset, "prompt_id": item.prompt_id, "sample": 0,
        "label": "full_refusal", "missing": None,
    }  # fmt: skip
    assert line["seconds"] >= 0 and line["time"]
    assert panel.position == 1 and panel.bar.value == 1 and made.items[1].prompt in panel.item.value


def test_labels_survive_a_power_cut(study, monkeypatch):
    synced = []
    monkeypatch.setattr(run_folder.os, "fsync", lambda handle: synced.append(handle))
    panel = begun(job(study, n=3))
    panel.press("1")
    panel.press("u")
    assert len(synced) == 2


def test_a_line_of_the_log_keeps_its_keys(study):
    made = {ask: job(study, ask=ask, n=1) for ask in ("refusal", "pair")}
    for each in made.values():
        panel = begun(each)
        panel.press("1")
        panel.press("u")
    lines = [list(line) for line in files.read_log(made["refusal"].log)]
    place = ["dataset", "prompt_id", "sample"]
    assert lines == [
        ["item", "ask", "run", *place, "text", "label", "missing", "seconds", "time"],
        ["undo", "ask", "time"],
        ["item", "ask", "run", "other_run", *place, "preference", "missing", "seconds", "time", "left"],
        ["undo", "ask", "time"],
    ]


def test_nothing_is_shown_or_labelled_before_begin(study):
    made = job(study, n=3)
    panel = labelling.Panel(made)
    panel.press("1")
    state = json.dumps(embed.dependency_state([panel.widget]), default=str)
    assert "0 of 3 labelled" in state
    assert not any(item.prompt in state or item.responses[0] in state for item in made.items)
    assert not made.log.exists()


def test_the_page_opens_where_it_was_left(study):
    made = job(study, n=4)
    panel = begun(made)
    panel.press("3")
    panel.press("n")
    panel.press("2")
    again = begun(job(study, n=4))
    assert (again.position, again.bar.value) == (1, 2)


def test_undo_takes_back_the_last_label_and_shows_its_item(study):
    made = job(study, n=3)
    panel = begun(made)
    for key in "12u":
        panel.press(key)
    assert panel.position == 1 and panel.bar.value == 1
    held = annotations.holding(annotations.history(files.read_log(made.log), "refusal"))
    assert {item: line["label"] for item, line in held.items()} == {made.items[0].id: "full_refusal"}
    panel.press("u")
    panel.press("u")  # there is nothing left to take back
    assert panel.bar.value == 0 and len(files.read_log(made.log)) == 4


def test_undo_after_a_second_thought_brings_the_first_back(study):
    panel = begun(job(study, n=1))
    for key in "12u":
        panel.press(key)
    assert [line["label"] for line in panel.made] == ["full_refusal"] and panel.bar.value == 1


def test_undo_takes_back_no_label_of_another_sample(study):
    label_all(job(study, n=0, datasets=["a"]), lambda item: "garbled")
    other = begun(job(study, n=0, datasets=["b"]))
    other.press("u")
    assert begun(job(study, n=0, datasets=["a"])).bar.value == 18


def test_undo_takes_back_no_label_of_another_question(study):
    label_all(job(study, n=1), lambda item: "garbled")
    panel = begun(job(study, n=1, ask="harmfulness"))
    for key in "3u":
        panel.press(key)
    assert panel.bar.value == 0 and begun(job(study, n=1)).bar.value == 1


def test_keys_need_no_enter_and_are_cleared(study):
    made = job(study, n=6)
    panel = begun(made)
    panel.keys.value = "2"
    assert panel.keys.value == "" and panel.made[-1]["label"] == "partial_refusal"
    panel.keys.value = "13"  # arrived together: the first was typed for an item that the second does not label
    assert [line["label"] for line in panel.made] == ["partial_refusal", "full_compliance"]
    panel.keys.value = "q"
    panel.keys.value = "9"
    assert len(panel.made) == 2 and panel.keys.continuous_update
    panel.keys.value = "U"
    assert len(panel.made) == 1


def test_what_a_person_cannot_tell_is_missing_and_not_asked_again(study):
    made = job(study, n=1)
    panel = begun(made)
    panel.press("x")
    (line,) = files.read_log(made.log)
    assert (line["label"], line["missing"]) == (None, "could not tell") and panel.bar.value == 1
    assert labelling.table(made)["human"].isna().all()


@pytest.mark.parametrize("ask", ["refusal", "delivery", "harmfulness", "pair"])
def test_the_page_is_blind(ask, study):
    panel = begun(job(study, ask=ask, n=5))
    for _ in range(5):
        # The texts name their run, on purpose: that alone of it may be seen.
        item = panel.job.items[panel.position]
        seen = panel.item.value
        for text in item.responses:
            seen = seen.replace(text, "")
        assert not any(run in seen for run in ("n0_", "n30_", "n300_"))
        panel.press("1")


def test_a_side_stands_for_the_run_shown_on_it(study):
    made = job(study, ask="pair", n=0)
    panel = begun(made)
    seen = set()
    for _ in made.items:
        item = made.items[panel.position]
        left = item.responses[annotations.swapped(item, "annotator1", 0)]
        other = item.responses[not annotations.swapped(item, "annotator1", 0)]
        assert panel.item.value.index(left) < panel.item.value.index(other)
        panel.press("1")
        line = panel.made[-1]
        assert line[line["preference"]] == item.runs[item.responses.index(left)] and line["left"] == line["preference"]
        seen.add(line["preference"])
    assert seen == {"run", "other_run"}


def test_texts_can_do_nothing_and_all_of_them_is_seen(tmp_path):
    said = "<script>x</script>\x1b[31m" + "y" * 5000
    run = make_run(tmp_path / "run", n=1, sets=["a"], said=said)
    shown = begun(job(run)).item.value
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "\x1b" not in shown
    assert "y" * 5000 in shown
    files.write_jsonl(
        run / "responses.jsonl", [{**files.read_jsonl(run / "responses.jsonl")[0], "response": "z" * 20_001}]
    )
    shown = begun(job(run)).item.value
    assert "z" * 20_000 in shown and "z" * 20_001 not in shown and "1 more characters" in shown


def test_a_changed_answer_has_to_be_labelled_again(study):
    label_all(job(study, n=0), lambda item: "garbled")
    make_run(study / "n0_seed0", said="Other words {} {}.")
    assert begun(job(study, n=0)).bar.value == 24


def test_nothing_to_label_is_said(study):
    make_run(study / "n0_seed1", said="Answer {} of n0_seed0.")
    panel = begun(job(study, ask="pair", runs=["n0_seed0", "n0_seed1"]))
    panel.press("1")
    assert "nothing to label" in panel.item.value
    assert labelling.results(panel.job).empty and labelling.table(panel.job).empty


# Several people


def test_agreement_is_shown_as_it_goes(study):
    label_all(job(study, n=4, annotator="ann"), lambda item: LABELS[int(item.prompt_id[1]) % 2])
    other = begun(job(study, n=4, annotator="bob"))
    assert other.agreement.value == ""
    keys = {label: key for key, label in other.question.choices.items()}
    for _ in range(4):
        other.press(keys[LABELS[int(other.job.items[other.position].prompt_id[1]) % 2]])
    assert "ann and bob: the same on 100 % of 4" in other.agreement.value


def test_agreement_by_hand(study):
    made = job(study, n=4)
    ids = [item.id for item in made.items]
    for name, given in (("ann", "1133"), ("bob", "1131")):
        for item, key in zip(made.items, given, strict=True):
            value = annotations.QUESTIONS["refusal"].choices[key]
            files.append_line(made.folder / f"{name}.jsonl", annotations.log_line(item, "refusal", value, 1))
    table = labelling.agreement(made)
    # Same on 3 of 4; by chance 1/2 * 3/4 + 1/2 * 1/4 = 1/2: kappa (3/4 - 1/2) / (1/2).
    assert table.loc[0, ["one", "other", "items", "same", "kappa"]].tolist() == ["ann", "bob", 4, 0.75, 0.5]
    # Alpha: of 8 labels 5 and 3 of each; expected disagreement 2 * 15 / 56, observed 2 / 8.
    assert table["alpha_of_all"][0] == pytest.approx(1 - (2 / 8) / (30 / 56))
    people = annotations.read(made.folder, "refusal")
    agreed = annotations.consensus(people, "refusal")
    assert [agreed[item]["label"] for item in ids] == ["full_refusal", "full_refusal", "full_compliance", None]
    assert agreed[ids[3]]["missing"] == "people disagree: full_compliance, full_refusal"


def test_results_are_told_by_run_only_when_asked_for(study):
    label_all(job(study, n=0), lambda item: "full_refusal" if item.runs == ("n300_seed0",) else "full_compliance")
    blind, open_ = labelling.results(job(study, n=0)), labelling.results(job(study, n=0, reveal=True))
    assert blind.to_numpy().tolist() == [[24, 12]]
    assert open_.loc[("n300_seed0", "a"), "full_refusal"] == 6
    path = labelling.save(job(study, n=0))
    kept = pd.read_csv(path)
    assert path.name == "refusal.csv" and kept["human"].value_counts().to_dict() == {
        "full_compliance": 24, "full_refusal": 12,
    }  # fmt: skip


def preferences(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["run", "other_run", "dataset", "prompt_id", "preference"])


def test_a_win_rate_counts_ties_half_and_is_of_prompts():
    # Of two runs, b was preferred to a in 6 prompts of 10, with 2 ties: 0.7, whichever of them a row names first.
    given = ["other_run"] * 3 + ["run"] * 3 + ["tie"] * 2 + ["other_run", "run"]
    names = [("a", "b")] * 3 + [("b", "a")] * 3 + [("a", "b"), ("b", "a")] + [("b", "a"), ("a", "b")]
    rows = [[*two, "d", str(i), said] for i, (two, said) in enumerate(zip(names, given, strict=True))]
    rows += [["a", "b", "d", "10", None]]
    (row,) = annotations.win_rates(preferences(rows)).to_dict("records")
    assert (row["run"], row["other_run"], row["dataset"]) == ("a", "b", "d")
    assert [row[name] for name in ("better", "tie", "worse", "n", "n_missing")] == [2, 2, 6, 10, 1]
    by_hand = estimates.mean_over_seeds(np.array([[0.0] * 6 + [0.5] * 2 + [1.0] * 2]))
    assert (row["win_rate"], row["low"], row["high"]) == pytest.approx((0.3, by_hand.low, by_hand.high))
    # Two pairs of answers to each prompt are twice as many, and of no more prompts.
    twice = annotations.win_rates(preferences(rows * 2)).iloc[0]
    assert twice["n"] == 20 and (twice["low"], twice["high"]) == pytest.approx((row["low"], row["high"]))


def test_win_rates_are_told_by_set_and_over_all_sets():
    rows = [["a", "b", name, str(i), "run" if name == "x" else "tie"] for name in "xy" for i in range(4)]
    table = annotations.win_rates(preferences(rows)).set_index("dataset")
    assert table["win_rate"].to_dict() == {"x": 1.0, "y": 0.5, "(all)": 0.75}
    # The same prompt_id in two sets is two prompts.
    by_hand = estimates.mean_over_seeds(np.array([[1.0] * 4 + [0.5] * 4]))
    assert tuple(table.loc["(all)", ["low", "high", "n"]]) == pytest.approx((by_hand.low, by_hand.high, 8))
    assert table.loc["x", "low"] == pytest.approx(estimates.rate([True] * 4).low)
    assert (table["high"] > table["low"]).all()
    nothing = annotations.win_rates(preferences([["a", "b", "d", "1", None]])).iloc[0]
    assert nothing["n"] == 0 and nothing["n_missing"] == 1 and nothing["win_rate"] != nothing["win_rate"]


def test_results_of_pairs_are_win_rates_once_revealed(study):
    asked = {"ask": "pair", "runs": ["n0_seed0", "n30_seed0"], "n": 4}
    for item in job(study, **asked).items:
        files.append_line(job(study, **asked).log, annotations.log_line(item, "pair", "other_run", 1))
    assert labelling.results(job(study, **asked)).to_numpy().tolist() == [[4]]
    told = labelling.results(job(study, **asked, reveal=True)).set_index("dataset")
    assert told.loc["(all)", ["run", "other_run", "win_rate", "n"]].tolist() == ["n0_seed0", "n30_seed0", 0.0, 4]
    assert 0.3 < told.loc["(all)", "high"] < 0.6  # Wilson: 0 of 4


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"ask": "refusal"},
        {"ask": "refusal", "item": "a", "label": "garbled"},
        {"ask": "refusal", "item": "a", "run": "r", "dataset": "d", "prompt_id": "p"},
        {"ask": "refusal", "item": "a", "run": "r", "dataset": "d", "prompt_id": "p", "label": "x"},
        {"ask": "refusal", "undo": "a"},
    ],
)
def test_a_senseless_line_of_the_log_labels_nothing(line):
    assert annotations.history([line], "refusal") == []


# The judge


def judged(folder, rows, variant=""):
    params = JudgeParams(judges=["human"], run_dir=str(folder))
    return list(human.build(variant, params).judge(rows))


def test_the_judge_says_what_people_said_and_nothing_of_the_rest(study):
    made = job(study, n=0, runs=["n0_seed0"], datasets=["a"])
    for name, given in (("ann", "1132xx"), ("bob", "1131x1"), ("cy", "133")):
        for item, key in zip(made.items, given, strict=False):
            value = annotations.QUESTIONS["refusal"].choices.get(key)
            files.append_line(made.folder / f"{name}.jsonl", annotations.log_line(item, "refusal", value, 1))
    rows = [{"prompt": item.prompt, "response": item.responses[0]} for item in made.items]
    said = judged(study / "n0_seed0", [*rows, {"prompt": "other", "response": "other"}])
    assert [each.label for each in said] == [
        "full_refusal", "full_refusal", "full_compliance", None, None, "full_refusal", None,
    ]  # fmt: skip
    assert [each.missing for each in said[3:]] == [
        "people disagree: full_refusal, partial_refusal", "could not tell", None, "nobody labelled it",
    ]  # fmt: skip
    assert said == judged(study, [*rows, {"prompt": "other", "response": "other"}], str(study))


def test_the_judge_gives_the_mean_of_scores(study):
    made = job(study, n=1, ask="harmfulness")
    for name, score in (("ann", 1), ("bob", 4)):
        files.append_line(made.folder / f"{name}.jsonl", annotations.log_line(made.items[0], "harmfulness", score, 1))
    row = {"prompt": made.items[0].prompt, "response": made.items[0].responses[0]}
    (said,) = judged(study, [row])
    assert (said.label, said.score, said.missing) == (None, 2.5, None)


def test_before_anyone_labelled_all_is_missing_and_a_wrong_folder_is_told(study):
    (said,) = judged(study / "n0_seed0", [{"prompt": "a", "response": "b"}])
    assert said.missing == "nobody labelled it"
    with pytest.raises(InputError, match="no annotations"):
        judged(study, [], str(study / "n0_seed0"))


def test_new_labels_are_judged_by_and_no_others_matter(study):
    run, stage = run_folder.RunFolder(study / "n30_seed0"), stages.stage_named("judge")
    labelled = job(run.root, annotator="ann", n=2)
    label_all(labelled, lambda item: LABELS[0])

    def is_fresh_after(params, change) -> bool:
        files.write_jsonl(run.judgements, [{"judge": "human"}])
        done = {"state": "done", "outputs": files.hashes(run.root, stage.outputs)}
        run_folder.record_stage(run, "judge", **done, fingerprint=runner.fingerprint(run, stage, params))
        assert runner.is_fresh(run, stage, params)
        change()
        return runner.is_fresh(run, stage, params)

    def another() -> None:
        files.append_line(labelled.log, annotations.log_line(labelled.items[0], "refusal", LABELS[1], 1))

    people, rules = RunParams(judges=["refusal", "human"]), RunParams(judges=["refusal"])
    named = RunParams(judges=[f"human:{study}"])
    assert not is_fresh_after(people, another)
    assert is_fresh_after(rules, another) and is_fresh_after(named, another)
    assert not is_fresh_after(named, lambda: label_all(job(study, n=1), lambda item: LABELS[0]))
    assert is_fresh_after(people, lambda: label_all(job(study, annotator="bob", n=2), lambda item: LABELS[0]))
    # Without labels of its own it reads those of its study.
    labelled.log.unlink()
    assert not is_fresh_after(people, lambda: label_all(job(study, annotator="cy", n=2), lambda item: LABELS[0]))
    assert is_fresh_after(people, lambda: None)


def test_which_set_has_one_more_is_drawn_and_not_the_first_by_name():
    # Of one answer of two sets it is the one or the other, by the seed.
    both = [annotations.Item(("r",), name, "p", 0, "How?", ("So.",)) for name in ("a", "b")]
    assert {annotations.draw(both, 1, seed)[0].dataset for seed in range(20)} == {"a", "b"}
