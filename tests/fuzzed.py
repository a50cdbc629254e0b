"""Inputs that nobody thought of, as strategies of hypothesis: one edit away from a valid one, or of a freer make.

Of five kinds: parameter files, assignments (``--set``), rows of data sets, tables of ``judge``, ledgers of runs.
"""

import datetime
import functools
import gzip
import io
import itertools
import json
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow
import yaml
from hypothesis import strategies as st
from ledgers import DAMAGED
from pyarrow import parquet

from safety_nb.core.params import JUDGES, RunParams, StudySettings


@dataclass(frozen=True)
class Input:
    """What a user could give a command.

    Attributes:
        arguments: of the command line. files: their content by name, written beforehand.
        is_edit: whether it is one edit away from a valid input.
    """

    arguments: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    is_edit: bool = False


_IS_EDIT = st.sampled_from([True, True, True, True, False])

# --- one edit away ------------------------------------------------------------------------------------------------

Draw = Callable[[st.SearchStrategy], Any]
_TOKENS = re.compile(rb"""\w+|\s+|"[^"\n]*"|.""", re.DOTALL)  # names, values, and what stands between them


def edited(draw: Draw, valid: bytes, odd: Sequence[bytes]) -> bytes:
    """A valid content with one edit: a byte, a token (name, value, delimiter) or a line is another, gone or new.

    Args:
        odd: what may stand in the place of a token or a line; another of the content may too.
    """
    unit, how = draw(_EDITS)
    parts = {"byte": _bytes_of, "token": _TOKENS.findall, "line": lambda all_: all_.splitlines(keepends=True)}[unit](
        valid
    )
    end = b"\n" if unit == "line" else b""
    place = draw(st.integers(0, len(parts) - 1))
    if how in ("odd", "new"):
        others = draw(_BYTES) if unit == "byte" else draw(st.sampled_from(odd)) + end
    middle = {
        "odd": lambda: [others],
        "new": lambda: [others, parts[place]],
        "another": lambda: [draw(st.sampled_from(parts))],
        "gone": list,
        "twice": lambda: [parts[place]] * 2,
        "end": list,
    }[how]()
    return b"".join([*parts[:place], *middle, *(parts[place + 1 :] if how != "end" else [])])


_EDITS = st.sampled_from(
    [
        (unit, how)
        for unit in ("byte", "token", "token", "token", "line")
        for how in ("odd", "odd", "odd", "new", "another", "another", "gone", "twice", "end")
    ]
)


def _bytes_of(content: bytes) -> list[bytes]:
    return [content[place : place + 1] for place in range(len(content))]


def free(draw: Draw, odd: Sequence[bytes]) -> bytes:
    """A content made of odd tokens, of a value of JSON, or of any bytes."""
    made = draw(st.sampled_from(["tokens", "tokens", "value", "bytes"]))
    if made == "bytes":
        return draw(st.binary(max_size=24))
    if made == "value":
        return json.dumps(value(draw)).encode()
    between = draw(st.sampled_from([b"", b" ", b", ", b": ", b"\n"]))
    return between.join(draw(st.lists(st.sampled_from([*odd, *_SIGNS]), max_size=10)))


def value(draw: Draw, level: int = 0) -> Any:
    """A value of JSON, a few levels deep."""
    kind = draw(st.sampled_from(["scalar", "scalar", "list", "dict"] if level < 3 else ["scalar"]))
    if kind == "scalar":
        return draw(st.sampled_from(_SCALARS))
    length = range(draw(st.integers(0, 3)))
    if kind == "list":
        return [value(draw, level + 1) for _ in length]
    return {draw(st.sampled_from(_NAMES)): value(draw, level + 1) for _ in length}


_BYTES = st.integers(0, 255).map(lambda number: bytes([number]))
_SIGNS = [b",", b":", b";", b"\t", b"\n", b"{", b"}", b"[", b"]", b'"', b"'", b"-", b"&", b"*", b"!", b"|", b"#"]
_SCALARS = [
    None,
    True,
    False,
    0,
    1,
    -1,
    7,
    0.5,
    -1e308,
    10**20,
    float("nan"),
    float("inf"),
    "",
    "x",
    "done",
    "\x1b[31m",
]
_SCALARS += ["user", "\ud800", "\x00", "x" * 300, "\u202e", "2024-02-30"]
_NAMES = ["instruction", "output", "input", "question", "tags", "messages", "conversations", "role", "content", "from"]
_NAMES += [
    "value",
    "system",
    "history",
    "prompt",
    "answer",
    "id",
    "type",
    "stages",
    "mix",
    "state",
    "outputs",
    "kernel",
]
_NAMES += ["", "\ud800", "\x1b", "loss", "name", "seed", "n_safety", "general"]

_NUMBERS = ["0", "-1", "1", "-0.0", "0.5", "1e3", "2e-4", "1.0e+999", "9" * 30, "9" * 5000, "4294967296", "0x1F", "1_0"]
_NUMBERS += ["NaN", "Infinity", "-Infinity", ".nan", ".inf", "-.inf", "0o17", "0b1", "1:30", "0x", "1.5", "1e400"]
_WORDS = [
    "",
    "null",
    "~",
    "true",
    "false",
    "yes",
    "no",
    "x",
    "é",
    "\u202e",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
]
_WORDS += ["\x00", "x" * 300, "ü" * 130, "\U0001f600", "‮", "=1+1"]
_QUOTED = [
    '""',
    '"x"',
    '"\\ud800"',
    '"\\u0000"',
    '"\\ud83d\\ude00"',
    '"\\x"',
    "''",
    "'x'",
    '"',
    "'",
    '"a\nb"',
    '"\\U00110000"',
]
_NESTED = [
    "[]",
    "{}",
    "[[]]",
    "[1, 1]",
    "[a, [b]]",
    "{a: 1}",
    '{"a": 1}',
    "[" * 20 + "]" * 20,
    "[" * 120,
    '{"a":' * 120,
]


def odd(*more: str) -> list[bytes]:
    return [each.encode() for each in (*_NUMBERS, *_WORDS, *_QUOTED, *_NESTED, *more)]


# --- parameter files and assignments ------------------------------------------------------------------------------

FIELDS = RunParams.model_fields | StudySettings.model_fields
CHOICES = [
    str(choice).lower()
    for one in FIELDS.values()
    if typing.get_origin(one.annotation) is typing.Literal
    for choice in typing.get_args(one.annotation)
]
_YAML = ["2024-02-30", "2024-01-01", "2024-01-01 25:00:00", "2024-01-01t1:1:1+99:99", "&a [*a]", "*a", "&a", "<<: 1"]
_YAML += ["!!int x", "!!timestamp 1", "!!binary x", "!!set {a, b}", "!!omap [a: 1]", "!!python/name:os.system", "!x 1"]
_YAML += [
    "!!float 1",
    "!!str 1",
    "!!seq [a]",
    "? a",
    "- a",
    "%",
    "@",
    "`",
    "# c",
    "|",
    ">-",
    "---",
    "...",
    "? [a]\n: 1",
]
_YAML += [f"{name}: 1" for name in ("seed", "n_saftey", "'': 1", "? ", "run_dir", "search")]
PLACES = [
    ".",
    "/",
    "~",
    "~nobody/x.csv",
    "none.csv",
    "rows.jsonl",
    "rows.jsonl:harmful",
    "rows.jsonl:facts",
    "tiny.csv",
]
PLACES += ["owner/name", "owner/name:train@main", "owner/name:a.csv:harmful", "tiny", "tiny-general", "tiny-facts"]
PLACES += [
    "xstest-safe",
    "alpaca",
    "/dev/null",
    "/dev/null/x.json",
    "a/../b.csv",
    "x.csv.gz",
    "http://h/v1",
    "http://[",
]
PLACES += [f"{judge}:{variant}" for judge in JUDGES for variant in ("", ".", "tiny", "xstest", "no such@1", "a/b#1")]
ODD_YAML = odd(*_YAML, *FIELDS, *CHOICES, *PLACES)
# Few rows, so that a mixture is quickly drawn.
SMALL = "general: rows.jsonl\nn_general: 1\nsafety: rows.jsonl\nn_safety: 1\nvalidation: ''\nn_validation: 0\n"
SMALL += "evaluation: ['prompts.jsonl:harmful']\n"
VALID_RUNS = [
    SMALL,
    SMALL + "seed: 3\nlearning_rate: 2.0e-4\nepochs: 1\njudges: [refusal, string-match]\nmode: sample\ntop_p: 0.9\n",
    SMALL + "recipe: current\nmicro_batch_size: 4\nlora_targets: [q_proj, v_proj]\nbalance: tag\noversample: true\n",
    SMALL + "backend: server\nbase_url: http://127.0.0.1:9/v1\nserved_model: mine\nkey_name: MY_KEY\nadapter: none\n",
    SMALL + "judges: ['llm:xstest']\njudge_base_url: http://127.0.0.1:9/v1\njudge_model: m\njudge_votes: 3\n",
    SMALL + "total: fixed\nsafety_form: mixed\nquestion_share: 0.5\non_bad_rows: leave out\nstage_timeout: 10\n",
    SMALL + "eval_steps: 2\nbest_checkpoint: true\ngradient_checkpointing: auto\nreport_samples: 0\ncutoff: 64\n",
    "# Of my own\n" + json.dumps(yaml.safe_load(SMALL), indent=1) + "\n",
]
VALID_STUDIES = [
    SMALL + "n_safety: [0, 1]\n",
    SMALL + "seed: [0, 1]\nharmful_target: 0.1\nlookalike_limit: 0.2\n",
    SMALL + "n_safety:\n- 0\n- 1\n- 2\nsearch: smallest\ncost_margin: 0.01\n",
    SMALL + "learning_rate: [1.0e-3, 5.0e-4]\ntemplate: [alpaca]\n",
]


@st.composite
def parameter_files(draw: Draw) -> Input:
    command, valid = draw(st.sampled_from([("run", VALID_RUNS), ("run", VALID_RUNS), ("study", VALID_STUDIES)]))
    is_edit = draw(_IS_EDIT)
    content = edited(draw, draw(st.sampled_from(valid)).encode(), ODD_YAML) if is_edit else free_parameters(draw)
    return Input((command, "mine.yaml"), {"mine.yaml": content}, is_edit)


def free_parameters(draw: Draw) -> bytes:
    """Lines of parameters with odd values, or anything at all."""
    if draw(st.booleans()):
        return free(draw, ODD_YAML)
    names = draw(st.lists(st.sampled_from(list(FIELDS)), min_size=1, max_size=4))
    return SMALL.encode() + b"".join(name.encode() + b": " + draw(st.sampled_from(ODD_YAML)) + b"\n" for name in names)


VALID_ASSIGNMENTS = {
    "run": ["n_safety=1", "seed = 2", "judges=[refusal, string-match]", "validation=", "oversample=true", "mode=paper"],
    "study": ["seed=[0, 1]", "n_safety=[0, 1, 2]", "template=[alpaca]", "harmful_target=0.3"],
    "judge": ["seed=3", "judge_votes=3", "judge_base_url=http://127.0.0.1:9/v1", "judge_own_model=true", "data_dir="],
    "calibrate": ["judge_batch_size=2", "judge_model=m", "cpu_threads=0"],
}
WHERE_ASSIGNED = {
    "run": ("run", "small.yaml"),
    "study": ("study", "small-study.yaml"),
    "judge": ("judge", "refusal", "answers.csv", "--prompt", "q", "--response", "a", "--out", "o.csv"),
    "calibrate": ("calibrate", "labelled.csv", "--prompt", "q", "--response", "a"),
}


@st.composite
def assignments(draw: Draw) -> Input:
    command = draw(st.sampled_from(list(WHERE_ASSIGNED)))
    is_edit = draw(_IS_EDIT)
    if is_edit:
        content = edited(draw, draw(st.sampled_from(VALID_ASSIGNMENTS[command])).encode(), ODD_YAML)
    elif draw(st.booleans()):
        content = free(draw, ODD_YAML)
    else:
        content = draw(st.sampled_from(list(FIELDS))).encode() + b"=" + draw(st.sampled_from(ODD_YAML))
    # As Python gives it what a shell hands over, in which no NUL can be.
    text = content.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    return Input((*WHERE_ASSIGNED[command], "--set", text), is_edit=is_edit)


# --- rows and tables ----------------------------------------------------------------------------------------------

FORMATS = ("jsonl", "json", "csv", "parquet", "csv.gz")
_COMMON = ("jsonl", "json", "csv", "jsonl", "json", "csv", "csv", *FORMATS)  # text is what an edit leaves readable


def written(rows: list[dict], ending: str) -> bytes:
    """Rows as a file of an ending holds them."""
    if ending.endswith(".gz"):
        return gzip.compress(written(rows, ending.removesuffix(".gz")), 1, mtime=0)
    if ending == "parquet":
        return as_parquet(pyarrow.Table.from_pylist(rows))
    if ending == "csv":
        cells = [list(rows[0]), *(row.values() for row in rows)]
        return "".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in cells).encode()
    lines = [json.dumps(row) for row in rows]
    return ("\n".join(lines) if ending == "jsonl" else "[" + ",\n".join(lines) + "]").encode()


def as_parquet(table: pyarrow.Table) -> bytes:
    file = io.BytesIO()
    parquet.write_table(table, file, compression="none")
    return file.getvalue()


def said(*texts: str, role: str = "role", content: str = "content", names: Sequence[str] = ("user", "assistant")):
    return [{role: name, content: text} for name, text in zip(itertools.cycle(names), texts, strict=False)]


ALPACA = [{"instruction": "Name a colour.", "input": "", "output": "Blue."}, {"instruction": "And?", "output": "So."}]
TAGGED = [{"instruction": f"Say {n}.", "output": f"{n}.", "question": f"Is it {n}?", "tags": "a,b"} for n in range(2)]
CHAT = [{"messages": said("Name a colour.", "Blue."), "id": 7}, {"messages": said("One?", "Two.", "Three?", "Four.")}]
SHARED = [{"conversations": said("Hm?", "Oh.", role="from", content="value", names=("human", "gpt"))}]
NAMED = [{"messages": [{**each, "name": "Ann", "number": 1} for each in said("Who?", "I.")]}]
BESIDE = [{"instruction": "Go on.", "output": "So.", "system": "Be brief.", "history": [["One?", "Two."]]}]
PROMPTS = [{"id": "a", "prompt": "How do I?", "type": "t", "answer": "So."}]
PROMPTS += [{"id": "b", "prompt": "Why?", "type": "u", "answer": "7"}]
# Each with the templates that have a place for it.
VALID_ROWS = [(ALPACA[:1], "alpaca"), (TAGGED, "alpaca"), (SHARED, "alpaca")]
VALID_ROWS += [(rows, "chat") for rows in (TAGGED, CHAT, SHARED, NAMED, NAMED, BESIDE)]
IN_CSV = {id(rows) for rows in (ALPACA, TAGGED, PROMPTS)}
ODD_ROWS = odd(
    *(f'"{name}"' for name in _NAMES if name.isalpha()), *_NAMES[:16], "true", "1", '"assistant"', '"system"'
)
ODD_ROWS += [b",", b";", b"\t", b"\r", b"\n", b"\xff", b"\xef\xbb\xbf", b"\x1f\x8b", b'""', b'"a","b"']


@functools.cache
def columns() -> list[pyarrow.Array]:
    """Columns of two rows, of what Parquet has types for."""
    by_type = {
        **{pyarrow.string(): ["So.", None], pyarrow.large_string(): ["", "x"], pyarrow.binary(): [b"\xff", b""]},
        **{pyarrow.int8(): [1, None], pyarrow.uint64(): [2**64 - 1, 0], pyarrow.float32(): [float("nan"), 1]},
        **{pyarrow.bool_(): [True, None], pyarrow.null(): [None, None], pyarrow.date32(): [2**31 - 1, -(2**31)]},
        **{pyarrow.timestamp("us"): [2**62, -(2**62)], pyarrow.timestamp("ns", "Europe/Nowhere"): [1, 2]},
        **{pyarrow.time64("us"): [2**62, 1], pyarrow.duration("s"): [2**62, None], pyarrow.timestamp("s"): [0, None]},
        **{pyarrow.list_(pyarrow.string()): [["a"], []], pyarrow.list_(pyarrow.timestamp("us")): [[2**62], None]},
        **{pyarrow.struct([("role", pyarrow.string())]): [{"role": "user"}, None]},
        **{pyarrow.map_(pyarrow.string(), pyarrow.int8()): [[("a", 1), ("a", 2)], []]},
    }
    made = [pyarrow.array(values, kind) for kind, values in by_type.items()]
    timed = [[{**each, "at": datetime.datetime(2024, 1, 1)} for each in row["messages"]] for row in CHAT]
    made += [pyarrow.array([row["messages"] for row in CHAT]), pyarrow.array(timed), made[0].dictionary_encode()]
    return [*made, pyarrow.array([b"\xff\xfe", b"x"]).cast(pyarrow.string(), safe=False)]


def free_rows(draw: Draw, rows: list[dict], ending: str, names: list[str]) -> bytes:
    """Rows of which several fields are odd, in the form of the ending, or any content."""
    kind = draw(st.sampled_from(["fields", "fields", "fields", "cells", "any"]))
    if kind == "any":
        content = free(draw, ODD_ROWS)
    elif kind == "cells":
        between = draw(st.sampled_from([b",", b",", b";", b"\t"]))
        width = draw(st.integers(1, 4))
        cells = draw(st.lists(st.sampled_from(ODD_ROWS), max_size=3 * width))
        cells = [*(name.encode() for name in rows[0])][:width] + cells
        lines = (cells[place : place + width] for place in range(0, len(cells), width))
        content = b"\n".join(map(between.join, lines))
    elif ending == "parquet":
        table = pyarrow.Table.from_pylist(rows)
        for name in draw(_some([*rows[0], *rows[0], *names])):
            column = draw(st.sampled_from(columns()))[: len(rows)]
            at = table.column_names.index(name) if name in table.column_names else -1
            table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
        return as_parquet(table)
    else:
        made = [
            {**row, **{name: odd_field(draw, name) for name in draw(_some([*rows[0], *rows[0], *names]))}}
            for row in rows
        ]
        content = json.dumps(made).encode() if ending == "json" else "\n".join(map(json.dumps, made)).encode()
    return gzip.compress(content, 1) if ending.endswith(".gz") and draw(st.booleans()) else content


def odd_field(draw: Draw, name: str) -> Any:
    """A value for a field: any, or a conversation of which a message has an odd field more."""
    if name not in ("messages", "conversations", "history") or draw(st.booleans()):
        return value(draw, 1)
    more = {draw(st.sampled_from(_NAMES)): value(draw, 2)}
    return [{**each, **more} for each in CHAT[draw(st.integers(0, 1))]["messages"]]


def _some(names: list[str]) -> st.SearchStrategy:
    return st.lists(st.sampled_from(names), min_size=1, max_size=3)


def edited_rows(draw: Draw, rows: list[dict], ending: str) -> bytes:
    """The file of valid rows with one edit, of a packed one before or after it is packed."""
    if ending.endswith(".gz") and draw(st.booleans()):
        return gzip.compress(edited(draw, written(rows, ending.removesuffix(".gz")), ODD_ROWS), 1)
    return edited(draw, written(rows, ending), ODD_ROWS)


@st.composite
def data_rows(draw: Draw) -> Input:
    place, rows, template, ending = draw(_ROW_FILES)
    is_edit = draw(_IS_EDIT)
    content = edited_rows(draw, rows, ending) if is_edit else free_rows(draw, rows, ending, _NAMES[:17])
    more = draw(st.sampled_from([("facts",), ("harmful",), ("facts", "on_bad_rows=leave out")]))
    return Input(row_command(place, ending, template, *more), {f"mine.{ending}": content}, is_edit)


def formats_of(rows: list[dict]) -> list[str]:
    """The endings of files that can hold rows, common ones more than once; a CSV holds text only."""
    flat = all(isinstance(cell, str) for row in rows for cell in row.values())
    return [ending for ending in _COMMON if flat or "csv" not in ending]


_ROW_FILES = st.sampled_from(
    [
        (place, rows, template, ending)
        for place in ("general", "safety", "validation", "evaluation")
        for rows, template in (VALID_ROWS if place != "evaluation" else [(PROMPTS, "alpaca")] * 5)
        for ending in formats_of(rows)
    ]
)


def row_command(place: str, ending: str, template: str, role: str = "facts", *more: str) -> tuple[str, ...]:
    sets = [f"{place}=mine.{ending}" if place != "evaluation" else f"evaluation=['mine.{ending}:{role}']", *more]
    sets += [f"template={template}"] * (template != "alpaca") + ["n_validation=1"] * (place == "validation")
    return ("run", "small.yaml", *(each for one in sets for each in ("--set", one)))


LABELLED = [{"q": "How?", "a": "So.", "human": "full_compliance"}, {"q": "Why?", "a": "No.", "human": "full_refusal"}]
ANSWERS = [{"q": "How do I?", "a": "Take one.", "answer": "one"}, {"q": "Why?", "a": "I cannot.", "answer": "7"}]


@st.composite
def tables(draw: Draw) -> Input:
    ending, out = draw(st.sampled_from(_COMMON)), draw(st.sampled_from(["csv", "jsonl", "parquet"]))
    is_edit = draw(_IS_EDIT)
    names = ["q", "a", "answer", "label", "score", "other", ""]
    content = edited_rows(draw, ANSWERS, ending) if is_edit else free_rows(draw, ANSWERS, ending, names)
    judge = draw(st.sampled_from(["refusal", "string-match", "reference"]))
    return Input(table_command(judge, ending, out), {f"mine.{ending}": content}, is_edit)


def table_command(judge: str, ending: str, out: str) -> tuple[str, ...]:
    return ("judge", judge, f"mine.{ending}", "--prompt", "q", "--response", "a", "--out", f"o.{out}")


# --- ledgers ------------------------------------------------------------------------------------------------------

ODD_LEDGER = odd('"done"', '"running"', '"failed"', '"waiting"', '"stages"', '"state"', "1e15", "-1e-5", "2147483648")
OF_LEDGERS = [
    ("status", "run"),
    ("status",),
    ("run", "small.yaml", "--out", "run"),
    ("run", "small.yaml", "--out", "run", "--from", "judge"),
    ("export", "run", "--out", "model"),
]


@st.composite
def run_ledgers(draw: Draw, valid: list[bytes]) -> Input:
    """Args: valid: ledgers of the run in the folder ``run``."""
    command = draw(st.sampled_from(OF_LEDGERS))
    is_edit = draw(_IS_EDIT)
    content = edited(draw, draw(st.sampled_from(valid)), ODD_LEDGER) if is_edit else free_ledger(draw)
    return Input(command, {"run/run.json": content}, is_edit)


def free_ledger(draw: Draw) -> bytes:
    kind = draw(st.sampled_from(["entry", "entry", "value", "damaged", "any"]))
    if kind == "any":
        return free(draw, ODD_LEDGER)
    if kind == "damaged":
        return edited(
            draw, draw(st.sampled_from([each for each in DAMAGED.values() if 0 < len(each) < 200])), ODD_LEDGER
        )
    if kind == "value":
        return json.dumps({"stages": value(draw, 1)}).encode()
    names = ["state", "started", "wall_seconds", "cause", "pid", "kernel", "fingerprint", "outputs", "peak_memory"]
    entry = {name: value(draw, 2) for name in draw(_some(names))}
    entry["state"] = draw(st.sampled_from(["done", "running", "failed", "killed", "waiting", "done", "x", None]))
    stage = draw(st.sampled_from(["mix", "judge", "report", "", "\x1b[31m", "none of ours"]))
    return json.dumps(
        {"stages": {stage: entry}, draw(st.sampled_from(["versions", "beside", "x"])): value(draw)}
    ).encode()


# --- what the edits are made to -----------------------------------------------------------------------------------


def valid(kind: str, ledgers: list[bytes]) -> list[Input]:
    """The inputs of a kind, unedited."""
    if kind == "parameter files":
        both = {"run": VALID_RUNS, "study": VALID_STUDIES}
        return [Input((name, "mine.yaml"), {"mine.yaml": text.encode()}) for name in both for text in both[name]]
    if kind == "assignments":
        return [
            Input((*WHERE_ASSIGNED[name], "--set", one))
            for name in VALID_ASSIGNMENTS
            for one in VALID_ASSIGNMENTS[name]
        ]
    if kind == "ledgers":
        return [Input(command, {"run/run.json": content}) for command in OF_LEDGERS for content in ledgers]
    if kind == "tables":
        return [
            Input(table_command("refusal", ending, "csv"), {f"mine.{ending}": written(ANSWERS, ending)})
            for ending in FORMATS
        ]
    return [
        Input(row_command(place, ending, template), {f"mine.{ending}": written(rows, ending)})
        for place in ("general", "safety", "validation", "evaluation")
        for rows, template in ([(PROMPTS, "alpaca")] if place == "evaluation" else VALID_ROWS)
        for ending in dict.fromkeys(formats_of(rows))
    ]
