"""What of a log of decisions stands, by both ways in which a line takes back another."""

import pytest

from safety_nb.core import decision_log


def made(*items: str) -> list[dict]:
    return [{"item": item, "n": n} for n, item in enumerate(items)]


@pytest.mark.parametrize(
    ("undos", "left"),
    [
        ([], [0, 1, 2]),
        ([{"decision": "undo"}], [0, 1]),
        ([{"undo": "b"}], [0, 2]),
        ([{"undo": "a"}], [0, 1]),
        ([{"undo": "a"}, {"undo": "a"}, {"undo": "a"}], [1]),
        ([{"undo": "c"}, {"undo": None}, {"undo": ""}], [0, 1, 2]),
        ([{"decision": "undo"}] * 5, []),
    ],
)
def test_undo_takes_back_the_last_decision_of_all_or_of_an_item(undos, left):
    standing = decision_log.standing([*made("a", "b", "a"), *undos], lambda line: "item" in line)
    assert [line["n"] for line in standing] == left


def test_a_line_that_undoes_decides_nothing_and_others_go_on_after_it():
    log = [*made("a"), {"undo": "a", "item": "a"}, {"sense": "none"}, *made("b")]
    assert decision_log.standing(log, lambda line: "item" in line) == made("b")
