"""The review: its log and what follows from it, and the widgets over them, clicked."""

import json

import pytest

from safety_nb.core import files
from safety_nb.core.errors import InputError
from safety_nb.data.demonstrations import review

ROWS = [
    {"question": f"How do I bake {what}?", "instruction": f"Explain how to bake {what}.", "output": f"No {what}.",
     "notes": []}
    for what in ("bread", "cake", "pie")
]  # fmt: skip


@pytest.fixture
def log(tmp_path):
    return tmp_path / "deep" / "review.jsonl"


def panel(log) -> review.Panel:
    return review.Panel(ROWS, log)


def kept(log) -> list[str]:
    """The decisions that hold for the three rows, as a fresh process would read them."""
    holding = review.decisions(review.history(files.read_log(log)))
    return [holding[item].decision if (item := review.item_hash(row)) in holding else "open" for row in ROWS]


# Pure functions


def test_the_last_decision_holds_and_undo_brings_back_the_one_before():
    one, two = review.decided(ROWS[0], "accept"), review.decided(ROWS[0], "reject")
    log = [review.log_line(one), review.log_line(two)]
    item = review.item_hash(ROWS[0])
    assert review.decisions(review.history(log))[item].decision == "reject"
    assert review.decisions(review.history([*log, review.log_line(None)]))[item].decision == "accept"
    assert review.history([*log, *[review.log_line(None)] * 5]) == []


def test_a_log_line_survives_json():
    decision = review.decided(ROWS[0], "edit", {"output": "Never."})
    (read,) = review.history([json.loads(json.dumps(review.log_line(decision)))])
    assert read == decision


@pytest.mark.parametrize("line", [{}, {"decision": "accept"}, {"item": 3, "decision": "accept"}, {"decision": "x"}])
def test_a_senseless_line_of_the_log_decides_nothing(line):
    assert review.history([line]) == []


def test_a_decision_holds_for_these_words_alone():
    assert review.item_hash(ROWS[0]) != review.item_hash({**ROWS[0], "output": "Other words."})
    assert review.item_hash(ROWS[0]) == review.item_hash({**ROWS[0], "notes": ["seen"]})


def test_an_edit_keeps_what_changed_and_an_unchanged_one_is_an_acceptance():
    edited = review.decided(ROWS[0], "edit", {"output": "  Never. ", "question": ROWS[0]["question"], "notes": "x"})
    assert (edited.decision, edited.text) == ("edit", {"output": "Never."})
    assert review.decided(ROWS[0], "edit", {"output": ROWS[0]["output"]}).decision == "accept"


@pytest.mark.parametrize(
    ("row", "decision", "text"),
    [
        (ROWS[0], "edit", {"output": " "}),
        (ROWS[0], "edit", {"instruction": ""}),
        ({**ROWS[0], "output": ""}, "accept", {}),
        (ROWS[0], "maybe", {}),
    ],
)
def test_what_cannot_be_trained_on_is_not_accepted(row, decision, text):
    with pytest.raises(InputError):
        review.decided(row, decision, text)


def test_a_row_without_an_answer_can_be_rejected():
    assert review.decided({**ROWS[0], "output": ""}, "reject").decision == "reject"


def test_texts_are_folded_and_can_do_nothing():
    shown = review.folded({"instruction": "<script>x</script>", "output": "\x1b[31m", "notes": ["<b>"]}, "1 of 1")
    assert shown.count("<details>") == 2 and "<details open" not in shown
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "&lt;b&gt;" in shown
    assert "\x1b" not in shown


# The log on disk


def test_a_line_that_a_crash_left_half_written_is_passed_over_and_closed_off(tmp_path):
    path = tmp_path / "log"
    files.append_line(path, {"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": 2, "te')
    assert files.read_log(path) == [{"n": 1}]
    files.append_line(path, {"n": 3})
    assert files.read_log(path) == [{"n": 1}, {"n": 3}]
    assert files.read_log(tmp_path / "none") == []


def test_a_line_of_the_log_keeps_its_keys(log):
    shown = panel(log)
    for name in ("accept", "undo"):
        shown.buttons[name].click()
    assert [list(line) for line in files.read_log(log)] == [["item", "decision", "text", "time"], ["decision", "time"]]


# The widgets


def test_every_click_is_on_disk_at_once_and_the_next_row_comes(log):
    shown = panel(log)
    for name, expected in (
        ("accept", ["accept", "open", "open"]),
        ("reject", ["accept", "reject", "open"]),
        ("undo", ["accept", "open", "open"]),
    ):
        shown.buttons[name].click()
        assert kept(log) == expected
    assert shown.position == 1  # back at what was undone
    assert "1 of 3 decided: 1 accepted, 0 edited, 0 rejected" in shown.state.value
    assert (shown.bar.value, shown.bar.max) == (1, 3)


def test_the_review_opens_where_it_was_left(log):
    panel(log).buttons["accept"].click()
    opened = panel(log)
    assert (opened.position, opened.bar.value) == (1, 1)
    opened.buttons["undo"].click()
    assert kept(log) == ["open"] * 3


def test_edit_opens_the_editor_and_saving_keeps_the_words(log):
    shown = panel(log)
    assert shown.editor.layout.display == "none"
    assert [area.value for area in shown.editors.values()] == ["", "", ""]  # no text in the widgets' state
    shown.buttons["edit"].click()
    assert shown.editor.layout.display == "" and kept(log) == ["open"] * 3
    assert shown.editors["output"].value == "No bread."
    shown.editors["output"].value = "I never bake bread."
    shown.save.click()
    assert kept(log) == ["edit", "open", "open"]
    (decision,) = review.history(files.read_log(log))
    assert decision.text == {"output": "I never bake bread."}
    assert (shown.position, shown.editor.layout.display) == (1, "none")
    shown.buttons["back"].click()
    assert "I never bake bread." in shown.row.value and "edited" in shown.row.value


def test_an_edit_of_an_edited_row_starts_from_its_words_and_keeps_them(log):
    shown = panel(log)
    for field, words in (("output", "Never."), ("instruction", "Explain baking.")):
        shown.position = 0
        shown.buttons["edit"].click()
        shown.editors[field].value = words
        shown.save.click()
    assert shown.made[-1].text == {"output": "Never.", "instruction": "Explain baking."}


def test_an_empty_edit_is_told_and_not_kept(log):
    shown = panel(log)
    shown.buttons["edit"].click()
    shown.editors["output"].value = ""
    shown.save.click()
    assert "would be empty" in shown.message.value
    assert not log.exists()


def test_the_keyboard_does_what_the_buttons_do(log):
    shown = panel(log)
    for typed, expected in (
        ("a", ["accept", "open", "open"]),
        ("N", ["accept", "open", "open"]),
        (" r ", ["accept", "open", "reject"]),
        ("u", ["accept", "open", "open"]),
        ("?", ["accept", "open", "open"]),
    ):
        shown.keys.value = typed
        assert kept(log) == expected
        assert shown.keys.value == ""
    shown.keys.value = "e"
    assert shown.editor.layout.display == ""


def test_the_same_key_twice_decides_twice(log):
    shown = panel(log)
    shown.keys.value = "a"
    shown.keys.value = "a"
    assert kept(log) == ["accept", "accept", "open"]


def test_the_next_open_row_is_looked_for_all_round(log):
    shown, positions = panel(log), []
    for position in (2, 0, 1):
        shown.position = position
        shown.buttons["accept"].click()
        positions.append(shown.position)
    assert positions == [0, 1, 1]  # in the end all have a decision
    assert (panel(log).position, review.Panel([], log).position) == (0, 0)


def test_next_and_back_go_round_and_decide_nothing(log):
    shown = panel(log)
    positions = []
    for name in ("next", "next", "next", "back"):
        shown.buttons[name].click()
        positions.append(shown.position)
    assert positions == [1, 2, 0, 2]
    assert not log.exists()


def test_nothing_to_review_and_nothing_to_undo(log):
    empty = review.Panel([], log)
    for button in empty.buttons.values():
        button.click()
    empty.save.click()
    panel(log).buttons["undo"].click()
    assert not log.exists()


def test_accepting_an_edited_row_again_keeps_its_words(log):
    shown = panel(log)
    shown.buttons["edit"].click()
    shown.editors["output"].value = "Never."
    shown.save.click()
    shown.buttons["back"].click()
    shown.buttons["accept"].click()
    assert review.decisions(shown.made)[review.item_hash(ROWS[0])].text == {"output": "Never."}


def test_accepting_with_the_editor_open_takes_its_words(log):
    shown = panel(log)
    shown.buttons["edit"].click()
    shown.editors["output"].value = "Never."
    shown.buttons["accept"].click()
    assert shown.made[-1].text == {"output": "Never."}


@pytest.mark.parametrize("name", ["next", "back", "undo"])
def test_words_that_were_not_saved_are_not_left_behind(name, log):
    shown = panel(log)
    shown.buttons["accept"].click()
    shown.buttons["edit"].click()
    shown.editors["output"].value = "Never."
    shown.buttons[name].click()
    assert (shown.position, shown.editors["output"].value) == (1, "Never.")
    assert "Save the edit first" in shown.message.value
    shown.buttons["edit"].click()  # closes the editor and drops them
    shown.buttons[name].click()
    assert shown.position != 1


def test_rejecting_an_edited_row_rejects_it(log):
    shown = panel(log)
    shown.buttons["edit"].click()
    shown.editors["output"].value = "Never."
    shown.save.click()
    shown.buttons["back"].click()
    shown.buttons["reject"].click()
    assert kept(log) == ["reject", "open", "open"]
