import math

import pytest
from matplotlib.figure import Figure

from safety_nb.core.text import visible
from safety_nb.report.pages import page
from safety_nb.report.pages.page import Cell


def rendered(*blocks):
    section = page.section("Two words", *blocks)
    return page.render(kicker="k", title="t", lead=["l"], opening=[], sections=[section], version=None)


def test_line_breaks_tabs_and_joined_emoji_stay():
    text = "a\n\tb 👩\u200d🔬 ü"
    assert visible(text) == (text, 0)
    assert visible("a\r\nb\rc") == ("a\nb‹U+000D›c", 0)


@pytest.mark.parametrize(
    "make",
    [
        page.paragraph,
        lambda text: page.bullets([text]),
        lambda text: page.folded(text, page.paragraph(text), warning=text),
        lambda text: page.pairs_table({text: text}, {}),
        lambda text: page.table([Cell(text)], [[Cell(text, state=text, href="./x.html")]], caption=text),
        lambda text: page.picture(Figure(), text, text, text),
    ],
)
def test_every_block_shows_markup_as_text(make):
    source = rendered(make('<b>"x"</b>'))
    assert "<b>" not in source and "&lt;" in source


def test_a_section_is_linked_from_the_contents():
    source = rendered(page.paragraph("p"))
    assert '<a href="#two-words">Two words</a>' in source and '<section id="two-words">' in source


@pytest.mark.parametrize(
    "value, text, plain",
    [
        (None, "—", "—"),
        (math.nan, "—", "—"),
        (True, "yes", "true"),
        (12000, "12,000", "12000"),
        (2.0, "2", "2"),
        (1e-4, "0.0001", "0.0001"),
        ([0, 1000], "0, 1000", "0, 1000"),  # in a list, 1,000 would read as two values
        ({"a": 1000}, "a: 1,000", "a: 1000"),
        ({}, "—", "—"),
        ("\x07", "‹U+0007›", "‹U+0007›"),
    ],
)
def test_values_for_people_and_as_they_are_written(value, text, plain):
    assert (page.value_text(value), page.value_text(value, plain=True)) == (text, plain)


@pytest.mark.parametrize(
    "seconds, text",
    # 59.96 is below a minute and rounds to 60.0; 3,725 = 3,600 + 2 x 60 + 5
    [(1.54, "1.5 s"), (59.96, "60.0 s"), (125, "2 min 05 s"), (3725, "1 h 02 min"), (None, "—"), (math.nan, "—")],
)
def test_durations_for_people(seconds, text):
    assert page.seconds_text(seconds) == text


def test_pairs_come_in_the_order_of_their_names_with_the_unnamed_last():
    rows = page.pairs_table({"other_key": 1, "b": 2, "a": 3}, {"a": "First", "b": "Second", "c": "Third"})["rows"]
    assert [name.text for name, _ in rows] == ["First", "Second", "Other key"]


def test_name_or_value_of_any_length_is_cut_with_a_sign():
    ((name, value),) = page.pairs_table({"k" * 10_000: "v" * 10_000}, {}, code=True)["rows"]
    assert (name.text, value.text) == ("k" * 200 + "…", "v" * 2000 + "…")


def test_every_text_of_a_page_is_made_visible():
    source = rendered(page.paragraph("a\u202eb"), page.table([Cell("\x1bx")], [[Cell("y\x00")]]))
    assert "a‹U+202E›b" in source and "‹U+001B›x" in source and "y‹U+0000›" in source


@pytest.mark.parametrize(
    "text, shown",
    [
        ("95 % of 3 (4–5 %)", "95_% of 3 (4–5_%)"),
        ("N = 30 or N = all", "N_=_30 or N = all"),
        ("IN = 3 %s", "IN = 3_%s"),
    ],
)
def test_a_figure_and_its_sign_stay_on_one_line(text, shown):
    assert f"<p>{shown.replace('_', chr(0xA0))}</p>" in rendered(page.paragraph(text))


def test_loss_preview_shows_text_and_runs_none_of_it():
    html = page.loss_preview([("<b>asked</b>\x1b", "read"), ("answer", "learned"), ("rest", "cut off")])
    assert "<b>" not in html and "&lt;b&gt;asked&lt;/b&gt;‹U+001B›" in html
    styles = {text: html.split(f">{text}<")[0].rpartition("style=")[2] for text in ("answer", "rest")}
    assert styles["answer"] != styles["rest"]
    assert "line-through" in styles["rest"]  # not by colour alone
