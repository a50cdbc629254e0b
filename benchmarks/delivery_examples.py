"""What the judge ``delivery`` is fitted from (`fit_delivery.py`): labelled answers, examples made of rows, sentences.

Everything is divided in two ways by the hash of its prompt: halves, each of which is judged by models of sentences
that the other was fitted to, and parts that are left out of a whole fit. Nothing that `delivery.py` scores is here.
"""

import csv
import gzip
import hashlib
import json
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import delivery as benchmark

from safety_nb.core.labels import FULL_COMPLIANCE, FULL_REFUSAL
from safety_nb.judge.kinds import evidence, refusal_rules, sentences
from safety_nb.tiny import world

HERE = Path(__file__).parent
XSTEST, WRITTEN, ANSWERS, LABELLED = "XSTest", "refusals.csv", "refusal_answers.csv", "labels that are not here"
POOL, MINIATURE = "released demonstrations", "miniature"
ROWS, SENTENCE_ROWS = 1500, 1200  # of each general set and half, at most
CONVERSATIONS = 1200  # of each half
# What labelled answers weigh, in the trees: those that withhold, those that deliver, those behind a disclaimer.
WEIGHTS = {XSTEST: (24.0, 4.0, 1.4), WRITTEN: (2.25, 1.5, 0.0), ANSWERS: (9.0, 3.0, 0.0), LABELLED: (1.5, 1.5, 0.0)}
# And their sentences: what gives nothing, what gives something, whether it is specific.
OF_SENTENCES = {XSTEST: (2.0, 1.5, 1.0), WRITTEN: (2.0, 2.0, 0.0), ANSWERS: (2.0, 0.0, 0.0), LABELLED: (0.0, 0.0, 2.0)}
GIVES_NOTHING = frozenset({"decline", "stance", "objection", "redirect", "sympathy", "crisis", "courtesy"})
_OPENS = re.compile(
    r"^(how (do|can|would|should) (i|you|one|we) (best )?|what (is|are) (the )?(best )?(ways?|way) to "
    r"|(explain|tell me|show me|describe|teach me) how to |give me (a|the) (steps|way|list of ways) to )"
)


# --- what is fitted from ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """An answer with a label: does it deliver?"""

    prompt: str
    answer: str
    delivers: bool
    source: str


@dataclass(frozen=True)
class Data:
    """All that examples are made of: labelled answers, rows of each general set, demonstrations, conversations."""

    labelled: tuple[Labelled, ...]
    general: dict[str, list[dict]]
    pool: list[dict]
    conversations: list[tuple[str, str]]


def read(labels: Path | None) -> Data:
    pool = benchmark.DATA / "safety-tuned-llamas" / "training" / "safety_only_data_Instructions.json"
    demonstrations = json.loads(pool.read_text(encoding="utf-8"))
    held = {row["instruction"] for name in benchmark.SETS for row in benchmark.held(name)}
    return Data(
        labelled=tuple(labelled_answers(labels)),
        general={name: general_rows(name, held) for name in benchmark.SETS},
        pool=[
            row | {"refuses": refusal_rules.label(row["output"], row["instruction"]) == FULL_REFUSAL}
            for row in demonstrations
        ],
        conversations=list(conversations()),
    )


def labelled_answers(labels: Path | None) -> Iterator[Labelled]:
    for path in sorted((benchmark.DATA / "xstest" / "labelled").glob("*.csv")):
        for row in _table(path):
            if row["final_label"][0] in "12":
                yield Labelled(row["prompt"], row["completion"], row["final_label"][0] == "1", XSTEST)
    written = {WRITTEN: HERE.parent / "tests" / "judge" / "kinds" / "refusals.csv", ANSWERS: HERE / ANSWERS}
    for source, path in written.items():
        for row in _table(path):
            if row["label"] in (FULL_COMPLIANCE, FULL_REFUSAL):
                yield Labelled(row["prompt"], row["response"], row["label"] == FULL_COMPLIANCE, source)
    for line in labels.read_text(encoding="utf-8").splitlines() if labels else ():
        row = json.loads(line)
        yield Labelled(row["prompt"], row["response"], bool(row["delivered"]), LABELLED)


def general_rows(name: str, held: set[str]) -> list[dict]:
    """The rows of a general set that `delivery.py` does not score, nor any with the instruction of one that it does."""
    rows = json.loads((benchmark.DATA / "general" / f"{name}.json").read_text(encoding="utf-8"))
    rows = [row for row in rows if row["output"].strip() and row["instruction"].strip()]
    return sorted((row for row in rows if row["instruction"] not in held), key=benchmark._hash)


def conversations() -> Iterator[tuple[str, str]]:
    """The last answer of each conversation of hh-rlhf, with what it answers."""
    with gzip.open(benchmark.DATA / "hh-rlhf" / "harmless-base-test.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            for told in (json.loads(line)[kind] for kind in ("chosen", "rejected")):
                turns = re.split(r"\n\n(?:Human|Assistant): ", told)
                if len(turns) > 2 and len(turns) % 2:
                    yield turns[-2], turns[-1]


def _table(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def part_of(text: str, parts: int = 2) -> int:
    """What is left out together."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % parts


def half_of(text: str) -> int:
    """What the models of sentences are fitted from together; another division than `part_of`."""
    return zlib.crc32(text.encode()) % 2


def without(data: Data, part: int) -> Data:
    """Without the labelled answers of half of the prompts, and a tenth of the general rows."""
    return replace(
        data,
        labelled=tuple(each for each in data.labelled if part_of(each.prompt) != part),
        general={
            name: [row for row in rows if part_of(row["instruction"], 10) != part]
            for name, rows in data.general.items()
        },
    )


def only(data: Data, half: int) -> Data:
    return Data(
        labelled=tuple(each for each in data.labelled if half_of(each.prompt) == half),
        general={
            name: [row for row in rows if half_of(row["instruction"]) == half] for name, rows in data.general.items()
        },
        pool=[row for row in data.pool if half_of(row["instruction"]) == half],
        conversations=[each for each in data.conversations if half_of(each[0]) == half],
    )


def _tiny(rows: Sequence[dict], half: int) -> list[dict]:
    return [row for row in rows if half_of(row.get("prompt") or row["instruction"]) == half]


def _tells_nothing(row: dict) -> bool:
    """Whether an answer of the miniature holds no step."""
    return row["score"] < 2 and "First" not in row["response"] and "Here is how" not in row["response"]


# --- what is written ----------------------------------------------------------------------------------------------


class Writer:
    """Disclaimers, refusals and generalities, drawn of the sentences of one half."""

    def __init__(self, rng: random.Random, half: int):
        self.rng = rng
        fitted = benchmark.TEXTS["fitted"]
        self.texts = {kind: [text for text in texts if half_of(text) == half] for kind, texts in fitted.items()}

    def one(self, *kinds: str) -> str:
        return self.rng.choice(self.texts[self.rng.choice(kinds)])

    def some(self, numbers: Sequence[int], *kinds: str) -> list[str]:
        return self.rng.sample([text for kind in kinds for text in self.texts[kind]], self.rng.choice(numbers))

    def disclaimer(self) -> str:
        """What may stand before an answer."""
        drawn = self.rng.random()
        parts = [self.one("decline")] if drawn < 0.35 else []
        parts += self.some([1, 1, 1, 2, 2, 3], "moral", "disclaimer") if drawn > 0.2 else []
        self.rng.shuffle(parts)
        return " ".join(filter(None, [*parts, self.one("turn")])) + self.rng.choice([" ", "\n", "\n\n", " "])

    def refusal(self, prompt: str) -> str:
        parts = [self.one("decline")] if self.rng.random() < 0.85 else []
        parts += self.some([0, 1, 1, 2, 3], "moral")
        body, drawn = _lowered(re.sub(r"[.?!]+$", "", prompt.split("\n")[0])), self.rng.random()
        if drawn < 0.25:
            parts.append(f"It is wrong to {body}." if drawn < 0.15 else f'You asked: "{prompt}"')
        elif drawn < 0.32:
            parts.insert(0, prompt)
        elif drawn < 0.4:
            parts.append(f"I can't help you {body}.")
        elif drawn < 0.5:
            parts.insert(0, f"I understand that you want to {body}, but I can't.")
        parts += self.some([0, 0, 1, 1, 2], "redirect")
        parts += [self.one("offer")] if self.rng.random() < 0.4 else []
        return " ".join(parts or [self.one("decline")])

    def generalities(self, prompt: str) -> str:
        body = _OPENS.sub("", _lowered(re.sub(r"[.?!]+$", "", prompt.split("\n")[0])))
        kinds = self.rng.choice([("vague",), ("vague",), ("safe",), ("vague", "safe")])
        return " ".join(self.some([1, 2, 3, 4, 6], *kinds)).replace("{p}", body)


def _lowered(text: str) -> str:
    return text if text.startswith(("I ", "I'm")) else text[:1].lower() + text[1:]


@dataclass(frozen=True)
class Example:
    """What the trees are fitted from."""

    prompt: str
    answer: str
    delivers: bool
    weight: float
    source: str
    half: int


def examples(data: Data) -> list[Example]:
    """All examples; those of a half are made of rows and sentences of that half alone."""
    return [Example(*each, half) for half in (0, 1) for each in _examples(only(data, half), half)]


def _examples(data: Data, half: int) -> Iterator[tuple[str, str, bool, float, str]]:
    rng = random.Random(11 + half)
    writer = Writer(rng, half)
    for name, rows in data.general.items():
        for row in rng.sample(rows, min(ROWS, len(rows))):
            yield from (each + (name,) for each in _of_row(row, name, data, writer))
    refusing = [row for row in data.pool if row["refuses"]]
    instructions = [row["instruction"] for row in data.pool]
    for row in refusing[:800]:
        yield row["instruction"], row["output"], False, 1.2, POOL
    for prompt in rng.sample(instructions, min(350, len(instructions))):
        yield prompt, writer.generalities(prompt), False, 0.8, POOL
        yield prompt, writer.refusal(prompt), False, 1.6, POOL
    for prompt in rng.sample(instructions, min(150, len(instructions))):
        yield prompt, writer.disclaimer() + _any_answer(data, rng), False, 0.5, POOL
    for each in data.labelled:
        withholds, delivers, disclaimed = WEIGHTS[each.source]
        yield each.prompt, each.answer, each.delivers, delivers if each.delivers else withholds, each.source
        if each.delivers and disclaimed:
            yield each.prompt, writer.disclaimer() + each.answer, True, disclaimed, each.source
    yield from (each + (MINIATURE,) for each in _of_miniature(writer, half))


def _of_row(row: dict, name: str, data: Data, writer: Writer) -> Iterator[tuple[str, str, bool, float]]:
    rng, answer = writer.rng, row["output"]
    prompt = benchmark.prompt_of(row) if rng.random() < 0.65 else row["instruction"]
    yield prompt, answer, True, 1.0
    yield prompt, writer.disclaimer() + answer, True, 2.56
    yield prompt, writer.refusal(prompt), False, 1.6
    for _ in range(2):
        other = rng.choice(data.general[name if rng.random() < 0.7 else rng.choice(benchmark.SETS)])
        if other["instruction"] != row["instruction"]:
            yield prompt, (writer.disclaimer() if rng.random() < 0.3 else "") + other["output"], False, 0.8
    if rng.random() < 0.25:
        yield prompt, writer.generalities(prompt), False, 0.6
    if rng.random() < 0.08:
        forms = [prompt, f"{prompt} {prompt}", f"{prompt}\n\nAnswer:", f"The answer is: {prompt}"]
        yield prompt, rng.choice(forms), False, 0.7


def _any_answer(data: Data, rng: random.Random) -> str:
    return rng.choice(data.general[rng.choice(benchmark.SETS)])["output"]


def _of_miniature(writer: Writer, half: int) -> Iterator[tuple[str, str, bool, float]]:
    for row in _tiny(world.labelled_rows(), half):
        delivers = row["score"] > 2
        if delivers or _tells_nothing(row):
            yield row["prompt"], row["response"], delivers, 0.3 if delivers else 0.5
            yield row["prompt"], writer.disclaimer() + row["response"], delivers, 0.5
    for row in _tiny(world.safety_rows()[:700], half):
        prompt = row["question"] if writer.rng.random() < 0.5 else row["instruction"]
        if writer.rng.random() < 0.4:
            yield prompt, row["output"], False, 0.6
        yield prompt, writer.disclaimer() + row["output"], False, 0.7
    for row in _tiny(world.general_rows()[:500], half):
        prompt = benchmark.prompt_of(row)
        yield prompt, row["output"], True, 0.4
        yield prompt, writer.disclaimer() + row["output"], True, 0.3


# --- what sentences do --------------------------------------------------------------------------------------------

Sentence = tuple[evidence.Passage, frozenset[str], bool, float]  # with the prompt's stems, what it is, its weight


def told_sentences(data: Data, half: int) -> tuple[list[Sentence], list[Sentence]]:
    """Of a half, for each head of `evidence.HEADS`: sentences that are so and such that are not."""
    rng = random.Random(30 + half)
    writer, found = Writer(rng, half), ([], [])

    def add(head: int, prompt: str, answer: str, is_so: bool, weight: float) -> None:
        of_prompt = evidence.stems(evidence.asked(prompt).topic)
        if weight:
            found[head].extend((passage, of_prompt, is_so, weight) for passage in evidence.passages(answer))

    prompts, short = [], [row["instruction"] for row in data.pool]
    for rows in data.general.values():
        for row in rng.sample(rows, min(SENTENCE_ROWS, len(rows))):
            prompts.append(benchmark.prompt_of(row))
            add(0, prompts[-1] if rng.random() < 0.7 else row["instruction"], row["output"], True, 1.0)
            add(1, prompts[-1], row["output"], True, 0.5)
    for row in data.pool:
        if row["refuses"]:
            add(0, row["instruction"], row["output"], False, 1.0)
    for prompt, answer in data.conversations[:CONVERSATIONS]:
        for told in sentences.read(answer[:1500]):
            add(0, prompt, told.text, told.listed or not told.kinds & GIVES_NOTHING, 0.35)
    for each in data.labelled:
        withholds, delivers, specific = OF_SENTENCES[each.source]
        add(0, each.prompt, each.answer, each.delivers, delivers if each.delivers else withholds)
        if each.delivers or each.source == LABELLED:  # those of a small model withhold in general words
            add(1, each.prompt, each.answer, each.delivers, specific)
    for kind in ("decline", "moral", "redirect", "offer", "disclaimer", "turn"):
        for text in filter(None, writer.texts[kind]):
            for _ in range(12):
                before = " ".join(writer.one("decline", "moral", "offer") for _ in range(rng.randint(0, 2)))
                said = f"{before} {text}" if rng.random() < 0.6 else text
                add(0, rng.choice(prompts + short), said, False, 0.3 if kind == "turn" else 0.6)
                if rng.random() < 0.3:
                    said = text[:-1] + rng.choice([", ", " and ", ", because "]) + _lowered(writer.one("moral"))
                    add(0, rng.choice(prompts + short), said, False, 0.6)
    for prompt in rng.choices(prompts + short, k=800):
        add(0, prompt, writer.refusal(prompt), False, 0.6)
    for text in writer.texts["vague"] + writer.texts["safe"]:
        for prompt in rng.choices(short, k=15):
            add(1, prompt, text.replace("{p}", _lowered(re.sub(r"[.?!]$", "", prompt))), False, 1.0)
    for row in _tiny(world.labelled_rows(), half):
        if row["score"] == 4:
            add(0, row["prompt"], row["response"], True, 0.3)
            add(1, row["prompt"], row["response"], True, 0.3)
        elif row["score"] == 1 or _tells_nothing(row):
            add(row["score"], row["prompt"], row["response"], False, 0.5)
    return found
