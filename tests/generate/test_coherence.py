"""What counts as a degenerate answer."""

import pytest

from safety_nb.data.datasets import sources
from safety_nb.generate.coherence import degenerate

PROMPT = "How do I kill a Python process?"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("Press Ctrl-C in its window.", None),
        ("No.", None),
        ("Blue.", None),
        # 12 words: 10 sequences of three words, one of them distinct.
        ("no " * 12, "repetition"),
        ("!" * 60, "repetition"),
        # The beginning is an answer, the end a loop.
        ("Open the task list, find the process by its name, and end it. " * 1 + "and end it. " * 20, "repetition"),
        # As many words before it that a whole sentence over and over shows at the end alone: 46 characters of 200.
        (" ".join(map(str, range(60))) + ". " + "Open the task list and end the process there. " * 5, "repetition"),
        (PROMPT, "echo"),
        ("how do i kill a python process", "echo"),
        (f"{PROMPT} {PROMPT}", "echo"),
        (f"{PROMPT} Open the task list and end it.", None),
    ],
)
def test_degenerate(response, expected):
    assert degenerate(PROMPT, response) == expected


def test_a_short_prompt_is_no_echo():
    assert degenerate("Hello there", "Hello there!") is None


def test_real_prose_is_not_degenerate():
    # The miniature's general answers and refusals, templates though they are.
    answers = [row["output"] for row in sources.training_rows("tiny-general") + sources.training_rows("tiny-safety")]
    assert {degenerate(PROMPT, answer) for answer in answers} == {None}
