"""Evaluation prompts among training texts: what is the same, inside, near, and what is not."""

import pytest

from safety_nb.data import overlap

PROMPT = "How do I polish the fiddler's golden plate?"  # eight words


def found(text: str, *prompts: str) -> list[tuple[str, str]]:
    """(prompt, kind) of what is found in a text."""
    finder = overlap.Finder(
        tuple(overlap.Prompt("set", str(n), prompt) for n, prompt in enumerate(prompts or [PROMPT]))
    )
    return [(match.prompt.text, match.kind) for match in finder.find([text])[text]]


@pytest.mark.parametrize(
    "text",
    [
        PROMPT,
        PROMPT.upper(),
        "how do i polish the fiddlers golden plate",
        "  How do I\tpolish\n\nthe fiddler's   golden plate ?!",
        "“How—do I polish the fiddler’s golden plate…”",
        "Ｈｏｗ ｄｏ Ｉ ｐｏｌｉｓｈ ｔｈｅ ｆｉｄｄｌｅｒ's ｇｏｌｄｅｎ ｐｌａｔｅ？",  # noqa: RUF001
        "How do I pol\u200bish the fiddler's gol\u00adden plate?",  # zero-width space, soft hyphen
        "H o w do I polish the fiddler's goldenplate?",
    ],
    ids=["itself", "case", "apostrophe", "spacing", "punctuation", "width", "invisible", "spaces within words"],
)
def test_prompt_reworded_by_case_spacing_punctuation_or_width_is_the_same(text):
    assert found(text) == [(PROMPT, "same")]


def test_ligatures_and_sharp_s_are_their_letters():
    assert found("DIE STRASSE IST ZU", "Die Straße ist zu") == [("Die Straße ist zu", "same")]
    assert found("The ﬁddle", "the fiddle") == [("the fiddle", "same")]


def test_letters_of_other_scripts_keep_their_marks():
    # The two differ in one vowel sign, a combining mark: they are other words.
    assert found("कि", "का") == []


def test_texts_of_symbols_alone_are_not_all_the_same():
    assert found("???", "!!!") == []
    assert found("? ? ?", "???") == [("???", "same")]


def test_invisible_characters_do_not_break_a_word():
    # Zero-width space and soft hyphen, which a text copied from a page brings along.
    assert overlap.words("Pol\u200bish the gol\u00adden plate") == "polish the golden plate"


def test_prompt_of_five_words_whole_within_a_text_is_inside():
    text = f"Answer in one word. {PROMPT} Thank you, and give my very best regards to all of the village."
    assert found(text) == [(PROMPT, "inside")]


def test_prompt_is_inside_only_word_for_word():
    # "plate" must not be found in "plates", nor the prompt where a word stands in its middle.
    many = " and many other words that make the text too long to be nearly the prompt"
    assert found("How do I polish the fiddler's golden plates" + many) == []
    assert found("How do I ever so gently polish the fiddler's old and golden plate" + many) == []


def test_prompt_of_four_words_inside_a_text_says_too_little():
    assert found("I wonder: where is the crown? It must be somewhere in the castle.", "Where is the crown?") == []


def test_near_is_a_likeness_of_85_per_cent():
    # rapidfuzz's ratio is 2 x (letters in common, in order) / all letters. Of 20 letters and spaces in each text, 17 in
    # common are 2 x 17 / 40 = 85 %, 16 are 80 %.
    base = "aa bb cc dd ee ff gg"  # 20 characters
    assert found("aa bb cc dd ee fz zz", base) == [(base, "near")]  # 17 in common
    assert found("aa bb cc dd ee zz zz", base) == []  # 15 and the two spaces, without the f: 16 in common


def test_near_says_how_near():
    finder = overlap.Finder((overlap.Prompt("set", "0", "aa bb cc dd ee ff gg"),))
    (match,) = finder.find(["aa bb cc dd ee fz zz"])["aa bb cc dd ee fz zz"]
    assert match.likeness == 85.0


def test_the_strongest_kind_of_a_prompt_is_told_once():
    assert found(PROMPT + " Please!") == [(PROMPT, "inside")]  # near as well: 2 x 42 / (42 + 49) = 92 %


def test_every_prompt_of_the_same_words_is_found():
    assert found(PROMPT, PROMPT, PROMPT.upper(), "Where is the crown?") == [(PROMPT, "same"), (PROMPT.upper(), "same")]


def test_texts_are_compared_in_batches_without_loss(monkeypatch):
    monkeypatch.setattr(overlap, "_TEXTS_AT_ONCE", 2)
    finder = overlap.Finder((overlap.Prompt("set", "0", PROMPT),))
    texts = ["one", PROMPT, "three", "four", PROMPT.upper()]
    assert [text for text, matches in finder.find(texts).items() if matches] == [PROMPT, PROMPT.upper()]
    assert finder.find(texts) == finder.find(reversed(texts))  # what is kept is what was found


def test_duplicates_name_the_place_of_the_first():
    assert overlap.duplicates(["a", "b", "a", "a", "c", "b"]) == [(2, 0), (3, 0), (5, 1)]
    assert overlap.duplicates([]) == []
