"""One topic in two forms: which claim an instruction makes, and the file that is made of a set."""

import json
import os

import pytest
from commands import safety_nb

from safety_nb.core.errors import InputError
from safety_nb.data.datasets import opinions, sources

needs_data = pytest.mark.skipif(
    not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets: set SAFETY_NB_DATA to their folder"
)


@pytest.mark.parametrize(
    ("instruction", "claim"),
    [
        ("Explain why tea is better than coffee.", "tea is better than coffee"),
        ("Write a reason why cats rule!", "cats rule"),
        ("describe why Mondays are long", "Mondays are long"),
        ("Explain why tea, which is green, is good.", "tea, which is green, is good"),
        # No claim: nothing after "why", another request, the speaker's own doings, a condition.
        ("Explain why.", ""),
        ("Explain how tea is made.", ""),
        ("Describe why i've met a few.", ""),
        ("Explain why I'm tired of tea.", ""),
        ("Write a reason why if it rains we stay.", ""),
        ("Explain why ink is blue.", "ink is blue"),  # begins with i, and not with the speaker
    ],
)
def test_claim_is_what_stands_behind_why(instruction, claim):
    assert opinions.claim_of(instruction) == claim


def own_set(folder, *prompts: str) -> str:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return f"{path}:harmful"


def test_each_topic_is_an_instruction_as_it_stands_and_a_question_by_the_next_template(tmp_path):
    name = own_set(
        tmp_path, "Explain why tea is green.", "Boil tea.", "Describe why it rains.", "Explain why IT RAINS!"
    )
    rows, left_out = opinions.paired_rows([name])
    assert [(row["prompt"], row["type"]) for row in rows] == [
        ("Explain why tea is green.", "instruction"),
        ("Do you think that tea is green?", "opinion (ours)"),
        ("Describe why it rains.", "instruction"),
        ("What do you think of the view that it rains?", "opinion (ours)"),
    ]
    assert left_out == {name: 2}  # no claim, and one that was made before
    assert len({row["prompt_id"] for row in rows}) == 4 and len({row["pair"] for row in rows}) == 2


def test_a_set_that_asks_for_no_reasons_is_refused(tmp_path):
    with pytest.raises(InputError, match="no prompt of it asks for reasons"):
        opinions.paired_rows([own_set(tmp_path, "Boil tea.")])


@needs_data
def test_the_released_sets_make_210_topics():
    # Counted: all 178 and 40 instructions ask "why"; 8 of the first make no claim of the world ("i've …", "if …").
    rows, left_out = opinions.paired_rows()
    assert (len(rows), left_out) == (420, {"I-CoNa": 8, "I-Controversial": 0})
    assert all(row["prompt"].endswith("?") == (row["type"] == opinions.OPINION) for row in rows)


@needs_data
def test_the_command_writes_an_evaluation_file_that_says_which_questions_are_ours(tmp_path):
    done = safety_nb("data", "opinions", "I-Controversial", "--out", "mine.csv", cwd=tmp_path,
                     SAFETY_NB_DATA=os.environ["SAFETY_NB_DATA"])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mine.csv: 40 topics" in done.stdout and "The questions are ours" in done.stdout
    rows = sources.evaluation_prompts([f"{tmp_path / 'mine.csv'}:harmful"])
    assert len(rows) == 80 and {row["type"] for row in rows} == {"instruction", "opinion (ours)"}
    assert all(row["pair"].startswith("I-Controversial-") for row in rows)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["I-CoNo"], "there is no evaluation set 'I-CoNo'"),
        (["tiny-facts"], "no prompt of it asks for reasons"),
        (["--out", "mine.txt"], "must be one of .csv, .jsonl, .parquet"),
        (["--out", "there.csv"], "is there already"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_written(tmp_path, arguments, told):
    (tmp_path / "there.csv").write_text("prompt\nx\n")
    done = safety_nb("data", "opinions", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and told in " ".join(done.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]


@pytest.mark.parametrize(
    ("rows", "right"),
    [
        ([("a", "x"), ("a", "y"), ("b", "y"), ("b", "x")], True),
        ([("a", "x"), ("a", "y"), ("", "")], True),  # a prompt of no pair
        ([("a", "x")], False),
        ([("a", "x"), ("a", "x")], False),
        ([("a", ""), ("a", "x"), ("b", "y"), ("b", "x")], False),
        ([("a", "x"), ("a", "y"), ("a", "x")], False),
    ],
)
def test_a_pair_is_two_prompts_of_two_types(tmp_path, rows, right):
    path = tmp_path / "mine.csv"
    lines = [f"Ask {n}.,{pair},{kind}\n" for n, (pair, kind) in enumerate(rows)]
    path.write_text("prompt,pair,type\n" + "".join(lines))
    if right:
        assert [row.get("pair", "") for row in sources.evaluation_rows(f"{path}:harmful")] == [pair for pair, _ in rows]
    else:
        with pytest.raises(
            InputError, match=r"mine.csv, line \d+: the pair 'a' is of \d prompts?, of type .*; give two of"
        ):
            sources.evaluation_rows(f"{path}:harmful")
