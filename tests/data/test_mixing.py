"""The mixture: exact, nested, the same general rows for every N of a seed, and nothing of it in the validation set."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from commands import Answer, safety_nb

from safety_nb.core.errors import InputError
from safety_nb.core.params import MixParams, validate
from safety_nb.data import decontamination, mixing, ordering
from safety_nb.data.datasets import sources
from safety_nb.tiny import world

ROOT = Path(__file__).parents[2]

needs_data = pytest.mark.skipif(
    not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets: set SAFETY_NB_DATA to their folder"
)


def draw(**values) -> mixing.Mixture:
    return mixing.draw(MixParams(**values))


def of(source: str, mixture: mixing.Mixture) -> list[dict]:
    """The training rows of one source, in their order."""
    return [row for row in mixture.train if row["source"] == source]


def text_of(row: dict) -> tuple[str, str, str]:
    return row["instruction"], row["input"], row["output"]


def file_of(folder: Path, rows: list[dict], name: str) -> str:
    """The path of a user's file with these rows."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# How many


@pytest.mark.parametrize("n", [0, 1, 30, 100, 300, 1000])
def test_n_means_n_rows_added_to_the_general_ones(n):
    mixture = draw(n_safety=n)
    assert len(of("tiny-safety", mixture)) == n
    assert len(mixture.train) == 1000 + n  # n_general is 1000 by default


def test_general_and_validation_rows_are_as_many_as_asked():
    mixture = draw(n_general=123, n_validation=7)
    assert (len(of("tiny-general", mixture)), len(mixture.validation)) == (123, 7)


def test_no_row_of_a_set_is_drawn_twice():
    mixture = draw(n_safety=1000, n_general=1000)
    assert len({row["id"] for row in mixture.train}) == 2000


def test_whole_pool_can_be_asked_for():
    assert len(of("tiny-safety", draw(n_safety=1200))) == 1200


# Nested and comparable


@pytest.mark.parametrize(("fewer", "more"), [(1, 30), (30, 100), (100, 300), (300, 1000)])
def test_fewer_demonstrations_are_the_first_of_more(fewer, more):
    assert of("tiny-safety", draw(n_safety=fewer)) == of("tiny-safety", draw(n_safety=more))[:fewer]


@pytest.mark.parametrize("n", [30, 1000])
def test_general_rows_of_a_seed_are_the_same_for_every_n(n):
    assert of("tiny-general", draw(n_safety=n, n_general=500)) == of("tiny-general", draw(n_safety=0, n_general=500))


def test_validation_rows_of_a_seed_are_the_same_for_every_n():
    assert draw(n_safety=0, validation="", n_general=500).validation == draw(n_general=500, validation="").validation


@pytest.mark.parametrize("source", ["tiny-general", "tiny-safety"])
def test_another_seed_draws_other_rows(source):
    first, second = ({row["id"] for row in of(source, draw(n_general=500, seed=seed))} for seed in (0, 1))
    assert first != second


def test_rows_are_those_of_the_data_set():
    # The id names the row of the set by its place.
    row = of("tiny-general", draw())[0]
    original = world.general_rows()[int(row["id"].removeprefix("tiny-general-"))]
    assert text_of(row) == text_of(original)


def test_rows_have_the_documented_fields():
    mixture = draw()
    wanted = ("id", "instruction", "input", "output", "source", "form")
    assert {tuple(row) for row in mixture.train + mixture.validation} == {wanted}


SCRIPT = """
import hashlib, json
from safety_nb.data import mixing
from safety_nb.core.params import MixParams
mixture = mixing.draw(MixParams(n_safety=200, n_general=500, validation="", seed=3))
print(hashlib.sha256(json.dumps([mixture.train, mixture.validation]).encode()).hexdigest())
"""


def test_draws_of_different_processes_are_identical():
    # Python's hash of a text differs between processes; what is drawn must not depend on it.
    drawn = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    here = draw(n_safety=200, n_general=500, validation="", seed=3)
    expected = hashlib.sha256(json.dumps([here.train, here.validation]).encode()).hexdigest()
    assert drawn == [expected + "\n"] * 2


# Validation


def test_rows_held_out_are_not_trained_on():
    mixture = draw(validation="", n_general=900, n_validation=100)  # all 1000 rows of the set
    trained, held_out = ({text_of(row) for row in rows} for rows in (mixture.train, mixture.validation))
    assert len(held_out) == 100
    assert trained.isdisjoint(held_out)


def test_holding_rows_out_leaves_the_training_rows_as_they_are():
    assert draw(validation="", n_general=500, n_validation=0).train == draw(validation="", n_general=500).train


# BUG (mixing.py): a named validation set is drawn by a shuffle of its own, so naming the general set again (or a
# file that shares rows with it) validates on trained rows, without a word. It should hold rows out, or refuse.
def test_validation_set_that_is_the_general_set_shares_no_row_with_training():
    try:
        mixture = draw(validation="tiny-general", n_general=500, n_validation=100)
    except InputError:
        return
    assert {text_of(row) for row in mixture.train}.isdisjoint(text_of(row) for row in mixture.validation)


# The form of the demonstrations


def test_question_form_asks_the_question_and_keeps_the_answer():
    by_instruction = {row["instruction"]: row for row in world.safety_rows()}
    instructions, questions = (
        of("tiny-safety", draw(n_safety=20, safety_form=form)) for form in ("instruction", "question")
    )
    for instruction, question in zip(instructions, questions, strict=True):
        original = by_instruction[instruction["instruction"]]
        assert question["instruction"] == original["question"] != original["instruction"]
        assert question["output"] == original["output"]
        assert (instruction["form"], question["form"]) == ("instruction", "question")


def test_question_form_changes_no_general_row():
    assert of("tiny-general", draw(safety_form="question")) == of("tiny-general", draw())


def test_set_without_questions_is_refused_in_that_form(tmp_path):
    rows = [{"instruction": f"Say {number}.", "output": "No."} for number in range(5)]
    name = file_of(tmp_path, rows, "mine.jsonl")
    with pytest.raises(InputError, match="safety_form: .*mine.jsonl' has no questions .*'question'"):
        draw(safety=name, n_safety=2, safety_form="question")


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.5, 1 / 3, 0.9, 1])
def test_mixed_form_has_its_share_of_questions_in_every_beginning(share):
    rows = of("tiny-safety", draw(n_safety=40, safety_form="mixed", question_share=share))
    forms = [row["form"] == "question" for row in rows]
    # The nearest whole number to share x n, for each n; within a half of it.
    assert all(abs(sum(forms[:n]) - share * n) <= 0.5 for n in range(41))


def test_mixed_form_is_exact_and_nested():
    rows = of("tiny-safety", draw(n_safety=1000, safety_form="mixed", question_share=0.1))
    assert sum(row["form"] == "question" for row in rows) == 100
    assert of("tiny-safety", draw(n_safety=300, safety_form="mixed", question_share=0.1)) == rows[:300]


def test_demonstrations_are_the_same_in_whichever_form():
    drawn = [draw(n_safety=50, safety_form=form) for form in ("instruction", "question", "mixed")]
    ids = [[row["id"] for row in of("tiny-safety", mixture)] for mixture in drawn]
    assert ids[0] == ids[1] == ids[2]


# In place of general rows


@pytest.mark.parametrize("n", [0, 1, 100, 500])
def test_fixed_total_stays_what_it_is(n):
    mixture = draw(n_general=500, n_safety=n, total="fixed")
    assert (len(of("tiny-general", mixture)), len(of("tiny-safety", mixture))) == (500 - n, n)


def test_fixed_total_gives_up_general_rows_from_the_end():
    most = of("tiny-general", draw(n_general=500, n_safety=0, total="fixed"))
    for n in (100, 300):
        assert of("tiny-general", draw(n_general=500, n_safety=n, total="fixed")) == most[: 500 - n]


def test_fixed_total_keeps_demonstrations_and_validation_of_the_added_one():
    added, fixed = (draw(n_general=500, n_safety=100, validation="", total=total) for total in ("added", "fixed"))
    assert of("tiny-safety", fixed) == of("tiny-safety", added)
    assert fixed.validation == added.validation


def test_more_demonstrations_than_a_fixed_total_are_refused():
    with pytest.raises(InputError, match="^n_safety: 501 do not fit in a fixed total of n_general 500"):
        validate(MixParams, {"n_general": 500, "n_safety": 501, "total": "fixed"})


# Balance


def tags(n: int, **values) -> Counter:
    by_instruction = {row["instruction"]: row["tag"] for row in world.safety_rows()}
    return Counter(by_instruction[row["instruction"]] for row in of("tiny-safety", draw(n_safety=n, **values)))


@pytest.mark.parametrize("n", [20, 50, 1000])
def test_balanced_demonstrations_have_every_tag_equally_often(n):
    # 20 verbs with 60 demonstrations each: no two differ by more than one.
    counts = tags(n, balance="tag")
    assert len(counts) == 20
    assert max(counts.values()) - min(counts.values()) <= 1
    assert tags(20) != tags(20, balance="tag")  # which is not so by itself


def test_balanced_demonstrations_are_nested():
    many = of("tiny-safety", draw(n_safety=300, balance="tag"))
    assert of("tiny-safety", draw(n_safety=70, balance="tag")) == many[:70]


def test_balance_goes_as_far_as_the_rows_do(tmp_path):
    # Seven of one tag and two of another: 2 + 2, then what is left.
    rows = [{"text": f"{tag} {n}", "tag": tag} for tag, size in (("much", 7), ("little", 2)) for n in range(size)]
    order = ordering.in_rounds(list(range(9)), [row["tag"] for row in rows], seed=0)
    assert sorted(order) == list(range(9))
    assert Counter(rows[place]["tag"] for place in order[:4]) == {"much": 2, "little": 2}
    assert {rows[place]["tag"] for place in order[4:]} == {"much"}


def test_balance_and_form_do_not_go_together():
    # Half questions over an even number of tags: in a fixed order of tags each would have one form only.
    mixture = draw(n_safety=200, balance="tag", safety_form="mixed")
    by_output = {
        (row["output"], text): row["tag"]
        for row in world.safety_rows()
        for text in (row["instruction"], row["question"])
    }
    forms: dict[str, set] = {}
    for row in of("tiny-safety", mixture):
        forms.setdefault(by_output[row["output"], row["instruction"]], set()).add(row["form"])
    assert sum(len(each) == 2 for each in forms.values()) >= 18


def test_balance_over_a_field_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="^balance: row 1 of data set 'tiny-safety' has no field 'topic'; it has tag"):
        draw(balance="topic")


# Repeated demonstrations


def test_repeated_demonstrations_are_the_pool_once_more_from_its_beginning(tmp_path):
    mixture = draw(n_safety=1250, oversample=True)  # of 1200
    rows = of("tiny-safety", mixture)
    assert [text_of(row) for row in rows[1200:]] == [text_of(row) for row in rows[:50]]
    assert rows[:1200] == of("tiny-safety", draw(n_safety=1200))
    assert len({row["id"] for row in rows}) == 1250
    assert mixture.repeated == 50


def test_repeated_demonstrations_are_said_aloud_and_are_no_duplicates(tmp_path):
    record = mixing.mix(MixParams(run_dir=str(tmp_path), n_safety=1250, oversample=True))
    assert (record["repeated"], record["duplicates"]) == (50, 0)
    assert "Demonstrations repeated: 50 of 1,250, for there are 1,200." in mixing.remarks(record)


def test_general_rows_are_never_repeated():
    with pytest.raises(InputError, match="n_general 1001: data set 'tiny-general' holds 1000 rows, not 1001"):
        draw(n_general=1001, oversample=True)


# Too few rows


def test_more_demonstrations_than_there_are_names_both_numbers():
    with pytest.raises(InputError, match="^n_safety 1201: data set 'tiny-safety' holds 1200 rows, not 1201"):
        draw(n_safety=1201)


def test_general_and_held_out_rows_together_must_be_there():
    # 990 + 11 of the 1000 rows of the set.
    with pytest.raises(InputError, match="^n_general 990 .* n_validation held out of it 11: .* 1000 rows, not 1001"):
        draw(validation="", n_general=990, n_validation=11)


def test_more_validation_rows_than_there_are_names_both_numbers():
    with pytest.raises(InputError, match="^n_validation 61: data set 'tiny-validation' holds 60 rows, not 61"):
        draw(n_validation=61)


# What is written


def test_record_holds_the_hashes_of_both_files(tmp_path):
    record = mixing.mix(MixParams(run_dir=str(tmp_path), n_general=20, n_safety=5, n_validation=3))
    for name in ("train", "validation"):
        content = (tmp_path / "mix" / f"{name}.jsonl").read_bytes()
        assert record[f"{name}_sha256"] == hashlib.sha256(content).hexdigest()
    assert json.loads((tmp_path / "mix" / "mixture.json").read_text()) == record


def test_record_counts_the_bad_rows_left_out(tmp_path):
    row = {"instruction": "Name a colour.", "output": "Blue."}
    path = file_of(tmp_path, [row, {"instruction": "x"}, row, {"output": "y"}], "mine.jsonl")
    values = {"run_dir": str(tmp_path / "run"), "general": path, "n_general": 2}
    with pytest.raises(InputError, match="line 2: the row lacks the field 'output'"):
        mixing.mix(MixParams(**values))
    record = mixing.mix(MixParams(**values, on_bad_rows="leave out"))
    assert record["left_out"] == {path: 2, "tiny-safety": 0, "tiny-validation": 0}


def test_files_hold_the_rows_drawn(tmp_path):
    values = {"n_general": 20, "n_safety": 5, "n_validation": 3}
    mixing.mix(MixParams(run_dir=str(tmp_path), **values))
    lines = {
        name: [json.loads(line) for line in (tmp_path / "mix" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "validation")
    }
    drawn = draw(**values)
    assert lines == {"train": drawn.train, "validation": drawn.validation}


def test_refused_mixture_writes_nothing(tmp_path):
    with pytest.raises(InputError):
        mixing.mix(MixParams(run_dir=str(tmp_path / "run"), n_safety=1201))
    assert list(tmp_path.iterdir()) == []


# Duplicates and overlap


def rows_of(n: int, **first: str) -> list[dict]:
    """Rows that resemble no evaluation prompt, the first with other fields."""
    words = ["apple", "barrel", "candle", "donkey", "engine", "feather", "garden"]
    rows = [{"instruction": f"Say {words[i % 7]} {words[i // 7 % 7]} {i}.", "output": f"Said {i}."} for i in range(n)]
    rows[0] |= first
    return rows


PROMPT = "Tell me what a baby goat is called."  # of tiny-facts
REWORDED = "  tell ME, what a “baby goat” is  called "


def training_on(folder: Path, rows: list[dict], **values) -> mixing.Mixture:
    return draw(**{"general": file_of(folder, rows, "mine.jsonl"), "n_general": len(rows), **values})


@pytest.mark.parametrize("text", [PROMPT, REWORDED], ids=["itself", "reworded"])
@pytest.mark.parametrize(
    "slip",
    [
        lambda text: {"instruction": text},
        lambda text: {"instruction": "Answer.", "input": text},
        lambda text: {"instruction": "Tell me what a baby", "input": "goat is called."},
    ],
    ids=["instruction", "input", "both"],
)
def test_evaluation_prompt_slipped_into_the_training_file_stops_the_mixture(slip, text, tmp_path):
    message = "^on_overlap: prompts of tiny-facts .1 same. .*mine.jsonl-0. .* remove .* or report"
    with pytest.raises(InputError, match=message):
        training_on(tmp_path, rows_of(20, **slip(text)))


def test_evaluation_prompt_among_the_questions_of_the_demonstrations_stops_the_mixture(tmp_path):
    # In the form of instructions too: the row asks the same.
    rows = rows_of(20, question=PROMPT)
    with pytest.raises(InputError, match="tiny-facts .1 same."):
        draw(safety=file_of(tmp_path, rows, "mine.jsonl"), n_safety=20)


def test_evaluation_prompt_in_the_validation_file_stops_the_mixture(tmp_path):
    rows = rows_of(20, instruction=PROMPT)
    with pytest.raises(InputError, match="tiny-facts .1 same."):
        draw(validation=file_of(tmp_path, rows, "mine.jsonl"), n_validation=20)


def test_only_the_evaluation_sets_of_the_run_are_compared(tmp_path):
    rows = rows_of(20, instruction=PROMPT)
    assert training_on(tmp_path, rows, evaluation=["tiny-harmful"], n_safety=0, n_validation=0).overlaps == []


def test_row_that_is_not_drawn_stops_nothing(tmp_path):
    rows = rows_of(20, instruction=PROMPT)
    whole = training_on(tmp_path, rows, on_overlap="report", seed=1).train
    place = [row["id"].endswith("mine.jsonl-0") for row in whole].index(True)
    assert place > 0
    assert training_on(tmp_path, rows, n_general=place, seed=1).train[:place] == whole[:place]


def test_row_that_gives_way_to_a_demonstration_stops_nothing(tmp_path):
    rows = rows_of(20, instruction=PROMPT)
    whole = training_on(tmp_path, rows, on_overlap="report", seed=1).train
    behind = 20 - [row["id"].endswith("mine.jsonl-0") for row in whole].index(True)
    values = {"total": "fixed", "seed": 1}
    assert training_on(tmp_path, rows, n_safety=behind, **values).train[: 20 - behind] == whole[: 20 - behind]
    with pytest.raises(InputError, match="^on_overlap"):
        training_on(tmp_path, rows, n_safety=behind - 1, **values)


def test_removed_rows_make_room_for_the_next(tmp_path):
    rows = rows_of(40)
    for place in (3, 11, 25):
        rows[place]["instruction"] = PROMPT
    values = {"on_overlap": "remove", "n_safety": 0, "n_validation": 0}
    most = training_on(tmp_path, rows, n_general=37, **values)
    assert len(most.train) == 37
    assert PROMPT not in {row["instruction"] for row in most.train}
    assert {each.row.rpartition("-")[2] for each in most.overlaps if each.place == "removed"} == {"3", "11", "25"}
    # Exact and nested still, and the rest in the order that it had.
    assert training_on(tmp_path, rows, n_general=20, **values).train == most.train[:20]
    reported = training_on(tmp_path, rows, n_general=40, **{**values, "on_overlap": "report"}).train
    assert [row for row in reported if row["instruction"] != PROMPT] == most.train


def test_removed_rows_can_be_too_many(tmp_path):
    rows = rows_of(20, instruction=PROMPT)
    with pytest.raises(InputError, match="n_general 20: .* holds 19 rows besides the 1 that overlap .* not 20"):
        training_on(tmp_path, rows, on_overlap="remove")


def test_near_and_inside_are_reported_unless_asked_otherwise(tmp_path):
    near = "Tell me what a baby cow is called."
    rows = rows_of(20, instruction=near)
    values = {"n_safety": 0, "n_validation": 0, "evaluation": ["tiny-facts"]}
    kinds = {(each.kind, each.place) for each in training_on(tmp_path, rows, **values).overlaps}
    assert kinds == {("near", "train")}
    with pytest.raises(InputError, match="^on_near_overlap: prompts of tiny-facts"):
        training_on(tmp_path, rows, on_near_overlap="stop", **values)
    with pytest.raises(InputError, match="holds 19 rows besides the 1"):
        training_on(tmp_path, rows, on_near_overlap="remove", **values)


def test_record_counts_overlap_by_set_and_kind_and_names_rows_without_their_text(tmp_path):
    rows = rows_of(20, instruction=PROMPT)
    rows[1]["instruction"] = "Please be kind to me and to all others and now " + PROMPT
    name = file_of(tmp_path, rows, "mine.jsonl")
    record = mixing.mix(
        MixParams(
            run_dir=str(tmp_path / "run"), general=name, n_general=20, n_safety=0, n_validation=0,
            on_overlap="report", evaluation=["tiny-facts"],
        )
    )  # fmt: skip
    counts = record["overlap"]["tiny-facts"]
    assert counts["same"] == 1 and "inside" not in counts  # one prompt, under its strongest kind
    kinds = {each["row"]: each["kind"] for each in record["overlapping_rows"] if each["likeness"] == 100}
    assert kinds == {f"{name}-0": "same", f"{name}-1": "inside"}
    assert PROMPT not in json.dumps(record)


@pytest.mark.parametrize(("role", "stays"), [("user", False), ("assistant", True)])
def test_what_earlier_turns_ask_is_compared_and_not_what_they_answer(role, stays):
    turns = [{"role": role, "content": PROMPT}, {"role": "user", "content": "Wave."}]
    row = {"instruction": "Wave.", "input": "", "output": "Hello.", "messages": turns}
    params = MixParams(run_dir="any", on_overlap="remove", evaluation=["tiny-facts"])
    assert decontamination.Decontamination(params).first("mine", [row], [0], 1) == ([0] if stays else [])


@pytest.mark.parametrize("order", [1, -1])
def test_prompt_is_counted_once_under_its_strongest_kind_and_not_where_it_was_removed(order):
    found = [
        decontamination.Overlap("a", "train", "set", "1", "near", 99.0),
        decontamination.Overlap("b", "train", "set", "1", "inside", 100.0),
        decontamination.Overlap("c", "validation", "set", "2", "near", 88.0),
        decontamination.Overlap("d", "removed", "set", "3", "same", 100.0),
    ]
    assert decontamination.counts(found[::order]) == {"set": {"inside": 1, "near": 1}}


def test_duplicates_are_counted_over_the_whole_mixture(tmp_path):
    rows = rows_of(20)
    rows[7]["instruction"] = rows[2]["instruction"].upper().replace(" ", "  ")
    rows[8] = {**rows[2], "input": "But with an input."}  # asks something else
    demonstrations = rows_of(1, instruction=rows[3]["instruction"], output="No.")
    record = mixing.mix(
        MixParams(
            run_dir=str(tmp_path / "run"), general=file_of(tmp_path, rows, "general.jsonl"), n_general=20,
            safety=file_of(tmp_path, demonstrations, "safety.jsonl"), n_safety=1,
            validation=file_of(tmp_path, rows[:3], "validation.jsonl"), n_validation=3,
        )
    )  # fmt: skip
    pairs = {frozenset(name.rpartition("/")[2] for name in pair) for pair in record["duplicate_rows"]}
    assert pairs == {
        frozenset({"general.jsonl-7", "general.jsonl-2"}),
        frozenset({"safety.jsonl-0", "general.jsonl-3"}),
    }
    assert (record["duplicates"], record["duplicates_in_validation"]) == (2, 3)


def test_the_miniature_holds_none_of_its_evaluation_prompts():
    # By its make it holds near ones: whose things, and which things, are what its sentences differ in.
    mixture = draw(n_general=1000, n_safety=1200, n_validation=60)
    assert {each.kind for each in mixture.overlaps} == {"near", "inside"}
    assert {each.evaluation for each in mixture.overlaps if each.kind == "inside"} == {"tiny-facts"}


# What identifies a mixture


def record_of(folder: Path, **values) -> dict:
    return mixing.mix(
        MixParams(**{"run_dir": str(folder), "n_general": 50, "n_safety": 10, "n_validation": 5, **values})
    )


def test_hash_of_the_mixture_is_that_of_its_rows_and_sources(tmp_path):
    first = record_of(tmp_path)
    assert record_of(tmp_path)["mixture_sha256"] == first["mixture_sha256"]
    # The evaluation sets were only looked at.
    assert record_of(tmp_path, evaluation=["tiny-facts"])["mixture_sha256"] == first["mixture_sha256"]
    for change in ({"seed": 1}, {"n_safety": 11}, {"n_validation": 6}, {"safety_form": "question"}):
        assert record_of(tmp_path, **change)["mixture_sha256"] != first["mixture_sha256"]


def test_hash_of_the_mixture_tells_files_of_another_content_apart(tmp_path):
    hashes = []
    for output in ("No.", "Never."):  # of the row that is not drawn
        rows = rows_of(11)
        order = draw(safety=file_of(tmp_path, rows, "mine.jsonl"), n_safety=11).train[-11:]
        rows[int(order[-1]["id"].rpartition("-")[2])]["output"] = output
        hashes.append(record_of(tmp_path / "run", safety=file_of(tmp_path, rows, "mine.jsonl")))
    first, second = hashes
    assert first["train_sha256"] == second["train_sha256"]
    assert first["mixture_sha256"] != second["mixture_sha256"]


# The released pool among real general rows


def draw_real(n: int) -> mixing.Mixture:
    return draw(
        general="gpteacher-roleplay", n_general=3000, safety="safety-tuned-llamas", n_safety=n, validation="",
        n_validation=100,
    )  # fmt: skip


@needs_data
@pytest.mark.parametrize("n", [0, 100, 300, 500, 1000, 1500, 2000])
def test_released_demonstrations_among_real_general_rows_are_exact_and_nested(n):
    mixture = draw_real(n)
    assert len(mixture.train) == 3000 + n
    assert of("safety-tuned-llamas", mixture) == of("safety-tuned-llamas", draw_real(2000))[:n]
    assert {row["id"] for row in mixture.train}.isdisjoint(row["id"] for row in mixture.validation)


@needs_data
def test_one_more_than_the_released_demonstrations_is_refused():
    with pytest.raises(InputError, match="n_safety 2484: data set 'safety-tuned-llamas' holds 2483 rows"):
        draw_real(2484)


@needs_data
def test_released_demonstrations_come_as_instructions_only():
    with pytest.raises(InputError, match="'safety-tuned-llamas' has no questions"):
        draw(safety="safety-tuned-llamas", safety_form="question")


PAPER = [
    "I-MaliciousInstructions", "I-CoNa", "I-Controversial", "I-PhysicalSafetyUnsafe", "I-PhysicalSafetySafe", "Q-Harm",
    "I-Alpaca", "xstest-safe", "xstest-unsafe",
]  # fmt: skip


@needs_data
def test_duplicates_and_overlap_of_the_released_data(tmp_path):
    # As counted in the released files: 2,483 demonstrations of 2,479 instructions, 100 prompts of which 98 differ, and
    # no demonstration that is an evaluation prompt. One asks, as an instruction, what a prompt of Q-Harm asks.
    record = mixing.mix(
        MixParams(
            run_dir=str(tmp_path), general="gpteacher-roleplay", n_general=3000, safety="safety-tuned-llamas",
            n_safety=2483, validation="", n_validation=100, evaluation=PAPER,
        )
    )  # fmt: skip
    assert record["duplicates"] == 4
    assert all(row.startswith("safety-tuned-llamas-") for pair in record["duplicate_rows"] for row in pair)
    assert record["evaluation_duplicates"] == {"I-MaliciousInstructions": 2}
    assert sum(record["evaluation"].values()) == 1118  # 668 of the paper, 450 of XSTest
    assert record["overlap"] == {"Q-Harm": {"near": 1}}


@needs_data
@pytest.mark.parametrize("reword", [str, str.upper, lambda text: "  ".join(text.split()).replace(" the ", ", the, ")])
def test_released_evaluation_prompt_slipped_among_released_demonstrations_is_caught(reword, tmp_path):
    rows = sources.training_rows("safety-tuned-llamas")[:200]
    prompt = sources.evaluation_rows("Q-Harm")[17]["prompt"]
    slipped = [*rows, {**rows[0], "instruction": reword(prompt)}]
    name = file_of(tmp_path, slipped, "mine.jsonl")
    with pytest.raises(InputError, match="^on_overlap: prompts of Q-Harm .1 same. .*mine.jsonl-200"):
        draw(safety=name, n_safety=201, evaluation=PAPER)
    kept = draw(safety=name, n_safety=200, evaluation=PAPER, on_overlap="remove").train[-200:]
    assert {row["instruction"] for row in kept} == {row["instruction"] for row in rows}


def command(change: str, out: Path) -> Answer:
    """The first stage of params/real-data-tiny.yaml with one change."""
    arguments = ["run", ROOT / "params" / "real-data-tiny.yaml", "--until", "mix", "--set", change, "--out", out]
    return safety_nb(*arguments, cwd=out.parent, SAFETY_NB_DATA=os.environ["SAFETY_NB_DATA"])


@needs_data
@pytest.mark.study
@pytest.mark.usefixtures("kernels")
def test_command_line_mixes_exactly_n_nested_rows_of_the_released_data(tmp_path):
    # Both ends; those between are drawn above without the command line.
    drawn = {}
    for n in (0, 300):
        assert command(f"n_safety={n}", tmp_path / str(n)).returncode == 0
        lines = (tmp_path / str(n) / "mix" / "train.jsonl").read_text().splitlines()
        drawn[n] = [row["id"] for row in map(json.loads, lines) if row["source"] == "safety-tuned-llamas"]
    assert (len(drawn[0]), len(drawn[300])) == (0, 300)


@needs_data
def test_command_line_refuses_one_more_than_the_released_data_and_writes_nothing(tmp_path):
    answer = command("n_safety=2484", tmp_path / "run")
    assert answer.returncode == 2
    assert "holds 2483 rows, not 2484" in " ".join(answer.stderr.split())
    assert list(tmp_path.iterdir()) == []
