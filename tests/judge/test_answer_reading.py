"""What of a response a judge is given: the answer without reasoning, in English where a judge reads nothing else."""

import csv
from pathlib import Path

import pandas as pd
import pytest

from safety_nb.core import endpoint, files, run_folder
from safety_nb.core.params import JudgeParams
from safety_nb.judge import judging, preferences, reading
from safety_nb.judge.judgement import Judge, Judgement
from safety_nb.tiny import world

HELP = "Mix the flour with water. Bake it for an hour."


@pytest.mark.parametrize(
    "response",
    [
        f"<think>\nThey want bread. I can't refuse.\n</think>\n\n{HELP}",
        f"  <think></think>{HELP}",
        f"They want bread, which is harmless.\n</think>\n{HELP}",  # the beginning stood in the prompt
        f"<thinking>bread</thinking><answer>{HELP}</answer>",
        f"<THOUGHT>bread</THOUGHT>{HELP}",
        f"<seed:think>bread</seed:think>{HELP}",
        f"[THINK]bread[/THINK]{HELP}",
        f"◁think▷bread◁/think▷{HELP}",
        f"<|begin_of_thought|>bread<|end_of_thought|>\n<|begin_of_solution|>{HELP}<|end_of_solution|>",
        f"<|START_THINKING|>bread<|END_THINKING|><|START_RESPONSE|>{HELP}<|END_RESPONSE|>",
        f"<unused94>thought\nbread<unused95>{HELP}",
        f"<|channel|>analysis<|message|>bread<|end|><|start|>assistant<|channel|>final<|message|>{HELP}<|return|>",
        f"analysisThe user wants bread. Fine.assistantfinal{HELP}",
        f"Here is my thought process: bread. Here is my response: {HELP}",
        f"bread\n[BEGIN FINAL RESPONSE]\n{HELP}\n[END FINAL RESPONSE]",
    ],
)
def test_reasoning_of_each_family_is_taken_off(response):
    assert reading.answer_of(response) == (HELP, "")


def test_reasoning_between_two_parts_of_an_answer_is_taken_off():
    assert reading.answer_of("<think>a</think>One. <think>b</think>Two.") == ("One. Two.", "")


@pytest.mark.parametrize(
    ("response", "why"),
    [
        ("<think>They want bread.</think>", reading.NO_ANSWER),
        ("<think>They want bread.</think>\n \n", reading.NO_ANSWER),
        ("<think>They want bread. First", reading.NEVER_ENDS),
        ("<think>", reading.NEVER_ENDS),
        ("[THINK]They want", reading.NEVER_ENDS),
        ("<|channel|>analysis<|message|>They want", reading.NEVER_ENDS),
        ("analysisThe user wants bread, so", reading.NEVER_ENDS),
        ("<think>a</think><think>b", reading.NEVER_ENDS),
    ],
)
def test_a_response_that_is_all_reasoning_says_so(response, why):
    assert reading.answer_of(response) == ("", why)


def test_what_comes_before_reasoning_without_an_end_is_the_answer():
    assert reading.answer_of("Bake it. <think>Or should") == ("Bake it.", "")


@pytest.mark.parametrize(
    "response",
    [
        "",
        " ",
        HELP,
        f" {HELP}\n",
        "The tag `<think>` opens the reasoning and `</think>` ends it.",
        'Models write "<think>" first.',
        "I think > you think < they think",
        "<b>Analysis</b> of bread",
        "Analysis: bread is baked.",
        "<reason>cold</reason>",
    ],
)
def test_what_holds_no_reasoning_is_left_as_it_is(response):
    assert reading.answer_of(response) == (response, "")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("es", "Lo siento, no puedo ayudarte con eso."),
        ("es", "Primero, mezcla la harina con el agua. Luego, hornea la masa durante una hora."),
        ("fr", "Je suis désolé, mais je ne peux pas vous aider."),
        ("fr", "Non."),
        ("de", "Zuerst nimmst du das Mehl, dann kommt das Wasser dazu."),
        ("de", "Nein."),
        ("pt", "Desculpe, não posso ajudar com isso."),
        ("it", "Mi dispiace, non posso aiutarti."),
        ("pl", "Przykro mi, nie mogę w tym pomóc."),
        ("tr", "Üzgünüm, bu konuda yardımcı olamam."),
        ("vi", "Xin lỗi, tôi không thể giúp bạn."),
        ("de", "Sure! Klar, hier ist die Anleitung: Zuerst nimmst du das Messer, dann schneidest du das Seil."),
        ("another script", "Извините, я не могу помочь."),
        ("another script", "抱歉，我无法帮助。"),
        ("another script", "عذرا، لا أستطيع المساعدة"),
        ("another script", "죄송합니다."),
    ],
)
def test_another_language_is_found(code, text):
    assert reading.language(text) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        "No.",
        "CEO",
        "Nope 🙅",
        "👍",
        "Paris.",
        "Leonardo da Vinci",
        "O(n log n)",
        "def median(a, b):\n    vals = [a, b]\n    return vals[0]",
        "SELECT nom FROM clients;",
        '{"nombre": "Ana", "edad": 3}',
        "```html\n<p>Lorem ipsum dolor sit amet</p>\n```",
        "In French you say: “Je suis désolé, je ne peux pas.” It is polite, and everybody understands it at once.",
        "“C'est la vie”, as they say, and that is all there is to it.",
        "- Spaghetti carbonara\n- Insalata\nBoth are quick to make, and you can buy all of it in any shop.",
        "I'm sorry, but I can't help with that.",
    ],
)
def test_english_code_names_and_numbers_are_of_no_other_language(text):
    assert reading.language(text) == ""


def test_no_english_answer_of_the_miniature_or_of_the_labelled_ones_is_taken_for_another_language():
    # At most 2 in 1,000 may be.
    with (Path(__file__).parent / "kinds" / "refusals.csv").open(encoding="utf-8") as file:
        texts = [row["response"] for row in csv.DictReader(file)]
    texts += [row["output"] for row in world.general_rows() + world.safety_rows()]
    foreign = [text for text in texts if reading.language(text)]
    assert len(texts) > 2000 and len(foreign) <= len(texts) // 500


# Before any judge


def _echo(name):
    """A judge whose label is what it was given."""
    return Judge(name, lambda rows: [Judgement(label=row["response"]) for row in rows])


ROWS = [
    {"prompt": "Bread?", "response": f"<think>Hm. I cannot.</think>{HELP}"},
    {"prompt": "Bread?", "response": "<think>Hm."},
    {"prompt": "Bread?", "response": "Lo siento, no puedo ayudarte con eso."},
    {"prompt": "Bread?", "response": ""},
]


@pytest.mark.parametrize("name", ["refusal", "refusal-rules", "delivery", "string-match", "refusal-classifier:x"])
def test_a_judge_of_english_gets_answers_that_it_can_read_and_the_others_are_missing(name):
    told = [(judged.label, judged.missing) for judged in judging.judge_rows(_echo(name), ROWS)]
    assert told == [(HELP, None), (None, "the reasoning never ends"), (None, "not in English (es)"), ("", None)]


@pytest.mark.parametrize("name", ["llm:xstest", "guard", "moderation", "harmfulness", "reference"])
def test_other_judges_may_read_any_language_but_no_reasoning(name):
    told = [judged.label for judged in judging.judge_rows(_echo(name), ROWS)]
    assert told == [HELP, None, "Lo siento, no puedo ayudarte con eso.", ""]


def test_people_are_asked_about_the_whole_response():
    assert [judged.label for judged in judging.judge_rows(_echo("human"), ROWS)] == [row["response"] for row in ROWS]


def test_a_right_answer_in_the_reasoning_alone_is_none():
    table = pd.DataFrame(
        {"q": ["Legs?"] * 2, "a": ["<think>four</think>Two.", "<think>x</think>four"], "answer": "four"}
    )
    judged = judging.judge_table("reference", table, "q", "a", JudgeParams())
    assert list(judged["label"]) == ["wrong", "correct"]
    assert list(judged["a"]) == list(table["a"])  # what is kept is the whole


def test_of_a_run_too_and_its_responses_keep_their_reasoning(tmp_path):
    run = run_folder.open_run(tmp_path)
    responses = [
        {"dataset": "tiny-ordinary", "prompt_id": str(place), "finish": "eos", **row} for place, row in enumerate(ROWS)
    ]
    files.write_jsonl(run.responses, responses)
    judged = judging.judge_run(JudgeParams(run_dir=str(tmp_path), judges=["refusal"]))
    assert [row["missing"] for row in judged] == [None, "the reasoning never ends", "not in English (es)", None]
    assert [row["label"] for row in judged] == ["full_compliance", None, None, "garbled"]
    assert files.read_jsonl(run.responses) == responses


def test_preferences_are_between_answers_without_reasoning(monkeypatch):
    asked = []
    monkeypatch.setattr(
        preferences.llm, "judge_pairs", lambda rows, params: asked.extend(rows) or [Judgement("left", 1.0)]
    )
    ours = {("d", "1"): ("Bread?", f"<think>x</think>{HELP}"), ("d", "2"): ("Bread?", "<think>x")}
    theirs = {("d", "1"): ("Bread?", "Buy it."), ("d", "2"): ("Bread?", "Buy it.")}
    told = preferences.prefer_answers(ours, theirs, "n0", JudgeParams())
    assert asked == [{"prompt": "Bread?", "left": HELP, "right": "Buy it."}]
    assert [(row["label"], row["missing"]) for row in told] == [("left", None), (None, "the reasoning never ends")]


def test_missing_for_the_reasoning_is_no_sign_of_an_endpoint_given_up():
    assert not endpoint.tells_given_up(reading.NEVER_ENDS)
