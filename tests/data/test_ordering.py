"""The order of the demonstrations: farthest first, what breaks its ties, and what it shares with the seeded one."""

import hashlib
import json
import os

import pytest

from safety_nb.core.errors import InputError
from safety_nb.core.params import MixParams
from safety_nb.data import mixing, ordering
from safety_nb.data.datasets import sources
from safety_nb.tiny import world

needs_data = pytest.mark.skipif(
    not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets: set SAFETY_NB_DATA to their folder"
)


def rows(*instructions: str) -> list[dict]:
    return [{"instruction": instruction, "input": "", "output": "No."} for instruction in instructions]


def demonstrations(**values) -> list[dict]:
    mixture = mixing.draw(MixParams(safety_order="diverse", **values))
    return [row for row in mixture.train if row["source"] != "tiny-general"]


def test_each_is_the_row_least_like_the_likest_of_those_before_it():
    # Words that stand in one row alone count for nothing: rows 0 and 1 are alike, so are 2 and 3, and 4 has a word of
    # each pair. From 0 on: 2 and 3 share nothing with it, 4 and 1 do; of 2 and 3 (as typical) the first of the order.
    # Then 4, half like 0 and half like 2, is farther from what is drawn than the copies 1 and 3.
    pool = rows("steal crowns", "steal crowns", "sink boats", "sink boats", "steal boats")
    assert list(ordering.diverse([0, 1, 2, 3, 4], pool)) == [0, 2, 4, 1, 3]
    # The order it is given decides where it begins, and what is next of rows that are the same.
    assert list(ordering.diverse([3, 1, 0, 4, 2], pool)) == [3, 1, 4, 0, 2]


def test_of_rows_equally_far_the_most_typical_is_next():
    # Neither "melt" nor "bury" is in the first row; "bury" stands for three rows and "melt" for two.
    pool = rows("steal crowns", "steal crowns", "melt", "melt", "bury", "bury", "bury")
    assert list(ordering.diverse(range(7), pool))[:3] == [0, 4, 2]


def test_a_row_without_a_word_of_another_stands_for_nothing_and_comes_last():
    # Row 1 has stop words alone and row 3 a word of its own: both are as far from all rows as can be.
    pool = rows("steal crowns", "how do I do it", "steal boats", "juggle", "sink boats", "sink boats")
    assert list(ordering.diverse(range(6), pool))[-2:] == [1, 3]


@pytest.mark.parametrize("pool", [rows("steal"), rows("steal", "sink", "melt"), rows("how", "do", "how")])
def test_where_no_two_rows_share_a_word_the_order_stays(pool):
    order = list(range(len(pool)))[::-1]
    assert list(ordering.diverse(order, pool)) == order


def test_what_all_turns_of_a_conversation_ask_counts():
    turns = [{"role": role, "content": text} for role, text in (("user", "sink boats"), ("assistant", "steal crowns"))]
    talk = {"instruction": "go on", "input": "", "output": "No.", "messages": turns}
    # By its first turn it is like row 2, not by what the assistant said like row 0.
    pool = [*rows("steal crowns", "steal crowns", "sink boats"), talk]
    assert list(ordering.diverse([0, 1, 3, 2], pool)) == [0, 3, 1, 2]


@pytest.mark.parametrize(("fewer", "more"), [(1, 30), (30, 100), (100, 1200)])
def test_diverse_demonstrations_are_exact_and_nested(fewer, more):
    drawn = demonstrations(n_safety=more)
    assert len({row["id"] for row in drawn}) == more
    assert demonstrations(n_safety=fewer) == drawn[:fewer]


@pytest.mark.parametrize(("order", "told"), [("random", None), ("diverse", "diverse")])
def test_the_record_names_an_order_that_is_not_random(tmp_path, order, told):
    # Of a random one it says what it always said: its hash is among what decides whether a report is made anew.
    values = {"run_dir": str(tmp_path), "n_general": 8, "n_safety": 4, "n_validation": 0}
    assert mixing.mix(MixParams(**values, safety_order=order)).get("safety_order") == told


def test_diverse_demonstrations_of_another_seed_begin_elsewhere():
    first, second = (demonstrations(n_safety=30, seed=seed) for seed in (0, 1))
    assert first[0]["id"] != second[0]["id"]


def test_the_random_order_is_that_of_before_there_was_another():
    mixture = mixing.draw(MixParams(n_safety=200, balance="tag", safety_form="mixed", seed=4))
    drawn = json.dumps([mixture.train, mixture.validation]).encode()
    assert hashlib.sha256(drawn).hexdigest() == "e95063cb5383714b50fa96318093c954084bcfee31cf7f1df428e4f93eaa76e7"


def test_the_order_is_random_unless_asked_otherwise():
    drawn = {order: mixing.draw(MixParams(n_safety=30, safety_order=order)).train for order in ("random", "diverse")}
    assert drawn["random"] == mixing.draw(MixParams(n_safety=30)).train
    assert drawn["random"] != drawn["diverse"]
    assert drawn["random"][:1000] == drawn["diverse"][:1000]  # the general rows


def test_a_small_n_names_more_of_the_miniatures_verbs():
    # Of the 20 verbs of the demonstrations: random orders of 20 name 12 to 14 over five seeds.
    tags = {row["instruction"]: row["tag"] for row in world.safety_rows()}
    named = {
        order: [
            len({tags[row["instruction"]] for row in mixing.draw(values).train[-20:]})
            for values in (MixParams(n_safety=20, seed=seed, safety_order=order) for seed in range(3))
        ]
        for order in ("random", "diverse")
    }
    assert min(named["diverse"]) > max(named["random"])


def test_a_balanced_order_takes_the_diverse_rows_of_each_value_first():
    pool = sources.training_rows("tiny-safety")
    values = [row["tag"] for row in pool]
    order = list(ordering.diverse(ordering.seeded(1200, "safety", 0), pool))
    drawn = [int(row["id"].rpartition("-")[2]) for row in demonstrations(n_safety=40, balance="tag")]
    for tag in set(values):
        assert [place for place in drawn if values[place] == tag] == [p for p in order if values[p] == tag][:2]


def test_diverse_demonstrations_are_repeated_from_their_beginning(tmp_path):
    name = tmp_path / "mine.jsonl"
    name.write_text('{"instruction": "Steal crowns.", "output": "No."}\n{"instruction": "Sink.", "output": "No."}\n')
    drawn = demonstrations(safety=str(name), n_safety=5, oversample=True)
    ids = [row["id"].removeprefix(str(name)) for row in drawn]
    assert ids[2:] == [f"{ids[0]}#2", f"{ids[1]}#2", f"{ids[0]}#3"]


def test_diverse_demonstrations_are_the_same_in_whichever_form():
    ids = [
        [row["id"] for row in demonstrations(n_safety=50, safety_form=form)]
        for form in ("instruction", "question", "mixed")
    ]
    assert ids[0] == ids[1] == ids[2]


def test_removed_rows_make_room_for_the_next_of_a_diverse_order(tmp_path):
    prompts = tmp_path / "mine.csv"
    kept = demonstrations(n_safety=10)
    prompts.write_text(f'prompt\n"{kept[4]["instruction"]}"\n')
    values = {"evaluation": [f"{prompts}:harmful"], "on_overlap": "remove"}
    ids = [row["id"] for row in demonstrations(n_safety=9, **values)]
    assert ids == [row["id"] for row in kept if row is not kept[4]]


def test_an_order_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="safety_order"):
        MixParams(safety_order="best")


@needs_data
def test_the_order_of_the_released_demonstrations_covers_more_of_their_words():
    # benchmarks/ordering.py has the figures.
    pool = sources.training_rows("safety-tuned-llamas")
    seeded = ordering.seeded(len(pool), "safety", 0)
    order = list(ordering.diverse(seeded, pool))
    assert sorted(order) == list(range(2483))
    words = [len({word for place in each[:100] for word in pool[place]["instruction"].lower().split()})
             for each in (seeded, order)]  # fmt: skip
    assert words[1] > words[0]


def test_a_field_that_a_row_lacks_is_named():
    with pytest.raises(InputError, match="balance: row 2 of data set 'mine' has no field 'tag'"):
        ordering.values_of("tag", "mine", [{"instruction": "a", "tag": "x"}, {"instruction": "b"}])
