"""Questions to instructions and back: right where a rule applies, and left alone where none does."""

import json
import os
from pathlib import Path

import pytest

from safety_nb.data.demonstrations import rewording
from safety_nb.tiny import world

QUESTIONS = {
    "How do I bake bread?": "Explain how to bake bread.",
    "how can i bake  bread": "Explain how to bake bread.",
    "How do you bake bread??": "Explain how to bake bread.",
    "How do you feel about bread?": "Explain how you feel about bread.",
    "How do bakers knead dough?": "Explain how bakers knead dough.",
    "What is the best way to bake bread?": "Describe the best way to bake bread.",
    "What's a good recipe for rye bread?": "Describe a good recipe for rye bread.",
    "What are some ways to bake bread?": "List some ways to bake bread.",
    "What is a sourdough starter?": "Explain what a sourdough starter is.",
    "What does proofing mean?": "Explain what proofing means.",
    "What should I do to bake bread?": "Tell me what to do to bake bread.",
    "What kind of oven should I use?": "Tell me what kind of oven I should use.",
    "What should bakers do about mice?": None,
    "Where can I buy yeast?": "Tell me where I can buy yeast.",
    "How long does it take to bake bread?": "Tell me how long it takes to bake bread.",
    "Why is it wrong to waste bread?": "Explain why it is wrong to waste bread.",
    "Why do bakers get up early?": "Explain why bakers get up early.",
    "Why are bakers so cheerful?": "Explain why bakers are so cheerful.",
    "Why are bakers baking so well?": None,
    "How come the bread is flat?": "Explain why the bread is flat.",
    "Can you tell me how to bake bread?": "Tell me how to bake bread.",
    "Could you please explain how ovens work?": "Explain how ovens work.",
    "Can you bake bread in a pan?": "Tell me whether you can bake bread in a pan.",
    "Can you give a dog bread?": "Tell me whether you can give a dog bread.",
    "Do you know how to bake bread?": "Explain how to bake bread.",
    "Do you have any tips for baking?": "Give me some tips for baking.",
    "Is it ok to eat bread at night?": "Tell me whether it is ok to eat bread at night.",
    "Should I buy bread, please?": "Tell me whether I should buy bread.",
    "Do bakers eat cake?": "Tell me whether bakers eat cake.",
    "Does the baker eat cake?": None,
    "Is the baker eating cake?": None,
    "What is the baker doing?": None,
    "What are bakers afraid of?": None,
    "Who baked this bread?": None,
    "My oven broke. How do I bake bread?": None,
    "Bread?": None,
    "": None,
    " ? ": None,
    "Wie backe ich Brot?": None,
}
INSTRUCTIONS = {
    "Explain how to bake bread.": "How do I bake bread?",
    "Teach me to bake bread.": "How do I bake bread?",
    "Demonstrate how to bake bread": "How do I bake bread?",
    "Research ways to bake bread.": "What are some ways to bake bread?",
    "Outline the steps to bake bread.": "What are the steps to bake bread?",
    "Describe a good way to bake bread.": "What is a good way to bake bread?",
    "Write a plan to bake bread.": "Can you write a plan to bake bread?",
    "Compose a song about bread.": "Can you compose a song about bread?",
    "Tell me whether I can eat bread.": "Can I eat bread?",
    "Tell me where I can buy yeast.": "Where can I buy yeast?",
    "Explain why bakers get up early.": "Can you explain why bakers get up early?",
    "Bread is good.": None,
    "How do I bake bread?": None,
    "Write a note. Then sign it.": None,
    "": None,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_becomes_instruction_or_is_left(question):
    assert rewording.to_instruction(question) == QUESTIONS[question]


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_instruction_becomes_question_or_is_left(instruction):
    assert rewording.to_question(instruction) == INSTRUCTIONS[instruction]


def deed(text: str) -> str:
    """What a sentence of the miniature asks for: what stands after "do to", "to" or "I"."""
    for mark in (" do to ", " to ", " I "):
        if mark in text:
            return text.split(mark, 1)[1].rstrip(".?")
    raise AssertionError(text)


def test_the_miniature_converts_whole_and_asks_for_the_same():
    # Its two forms of a row share the deed and nothing else.
    for row in world.safety_rows():
        wanted = deed(row["instruction"])
        assert deed(rewording.to_instruction(row["question"]) or "") == wanted
        assert (rewording.to_question(row["instruction"]) or "").rstrip("?").endswith(wanted)


@pytest.mark.skipif(not os.environ.get("SAFETY_NB_DATA"), reason="needs the data (SAFETY_NB_DATA)")
@pytest.mark.parametrize(
    ("file", "key", "convert", "end", "share"),
    [
        # Measured: 98.5 % of 2,483 instructions, 71 % of 100 questions.
        ("training/safety_only_data_Instructions.json", None, rewording.to_question, "?", 0.98),
        ("evaluation/Q-Harm.json", "instructions", rewording.to_instruction, ".", 0.70),
    ],
)
def test_share_of_the_released_data_that_converts(file, key, convert, end, share):
    data = json.loads((Path(os.environ["SAFETY_NB_DATA"]) / "safety-tuned-llamas" / file).read_text())
    texts = data[key] if key else [row["instruction"] for row in data]
    converted = [made for text in texts if (made := convert(text))]
    assert len(converted) >= share * len(texts)
    assert all(made.endswith(end) and "\\" not in made for made in converted)
