"""Reading data files: what rows come out of each kind and form, and what is told of bad ones, by file and line."""

import csv
import datetime
import decimal
import gzip
import json
import os
from pathlib import Path

import pytest

from safety_nb.core import reading
from safety_nb.core.errors import InputError
from safety_nb.data import templates
from safety_nb.data.datasets import rows

needs_data = pytest.mark.skipif(
    not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets: set SAFETY_NB_DATA to their folder"
)

ROW = {"instruction": "Name a colour.", "input": "", "output": "Blue."}
SECOND = {"instruction": "Add, please.", "input": "1, 2\nand 3", "output": 'It is "six".'}
BAD = {"instruction": "x"}
LACKS = "the row lacks the field 'output'; it has instruction."

ASK = {"role": "user", "content": "Name a colour."}
ANSWER = {"role": "assistant", "content": "Blue."}
SYSTEM = {"role": "system", "content": "Be brief."}


def refused(call, *args) -> str:
    """The message that a call is refused with."""
    with pytest.raises(InputError) as caught:
        call(*args)
    return str(caught.value)


def written(folder: Path, text: str | bytes, name: str = "mine.json") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows_of(folder: Path, text: str | bytes, name: str = "mine.json") -> list[dict]:
    return rows.training_set(written(folder, text, name)).rows


def complaint(folder: Path, text: str | bytes, name: str = "mine.json") -> str:
    """What is told of a file, after its path."""
    message = refused(rows_of, folder, text, name)
    assert message.startswith(str(folder / name))
    return message.removeprefix(str(folder / name))


def as_csv(path: Path, listed: list[dict]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
    return path


def as_parquet(path: Path, listed: list[dict]) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(listed), path)
    return path


# Kinds of files


def test_the_same_rows_come_out_of_every_kind_of_file(tmp_path):
    listed = [ROW, SECOND]
    lines = "\n".join(map(json.dumps, listed)) + "\n\n"
    for name, content in {
        "a.json": json.dumps(listed),
        "a.jsonl": lines,
        "array.jsonl": json.dumps(listed),  # as one published file is
        "a.json.gz": gzip.compress(json.dumps(listed).encode()),
        "a.jsonl.gz": gzip.compress(lines.encode()),
        "marked.json": b"\xef\xbb\xbf" + json.dumps(listed).encode(),
    }.items():
        assert rows_of(tmp_path, content, name) == listed, name
    assert rows.training_set(as_csv(tmp_path / "a.csv", listed)).rows == listed
    assert rows.training_set(as_parquet(tmp_path / "a.parquet", listed)).rows == listed


@needs_data
def test_array_of_a_real_file_says_where_its_rows_start():
    # jq-like count by hand: the second row's "instruction" key is on the line after its brace.
    path = Path(os.environ["SAFETY_NB_DATA"]) / "general" / "code_alpaca_2k.json"
    table = reading.read(path)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len(table.rows) == 2017
    assert all(lines[number - 1].strip().startswith("{") for number in table.numbers())


@pytest.mark.parametrize(
    ("name", "text"), [("mine.json", "[]"), ("mine.jsonl", "\n"), ("mine.csv", ""), ("a.csv", "a,b\n")]
)
def test_file_without_rows_is_refused(name, text, tmp_path):
    assert complaint(tmp_path, text, name) == " holds no rows."


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("mine.jsonl", '{"instruction": "café", "output": "x"}'.encode("latin-1"), " is not UTF-8 text (byte 20"),
        ("mine.json.gz", b"[]", " is no whole gzip file"),
        ("mine.json.gz", gzip.compress(json.dumps([ROW] * 50).encode(), mtime=0)[:-20], " is no whole gzip file"),
        ("mine.parquet", b"PAR1 and no more", " is no Parquet file that can be read"),
        ("mine.json", json.dumps(ROW), ": a data file must be a JSON array of rows, not dict."),
    ],
)
def test_file_that_is_not_what_its_ending_says_is_refused_by_name(name, content, told, tmp_path):
    assert complaint(tmp_path, content, name).startswith(told)


@needs_data
def test_file_of_another_form_is_refused_with_the_forms_there_are():
    # 175 tasks with their examples in a list of "instances": no output of their own.
    path = Path(os.environ["SAFETY_NB_DATA"]) / "general" / "self_instruct_seed_tasks.jsonl"
    message = refused(rows.training_set, path)
    assert f"{path}, line 1: the row lacks the field 'output'; it has id, instances, instruction" in message
    assert "A training row has instruction, output and optionally input" in message


# Where a bad row stands


def test_bad_json_line_is_told_by_file_and_line(tmp_path):
    # Line 2 is empty, line 3 is broken.
    told = complaint(tmp_path, f"{json.dumps(ROW)}\n\n{{'instruction': 1}}\n", "mine.jsonl")
    assert told.startswith(", line 3: no JSON (")


def test_bad_json_array_is_told_by_file_and_line(tmp_path):
    assert complaint(tmp_path, f"[\n{json.dumps(ROW)},\n{{oops}}\n]").startswith(", line 3: no JSON (")


def test_bad_row_of_json_lines_is_told_by_its_line_with_the_mend(tmp_path):
    told = complaint(tmp_path, f"{json.dumps(ROW)}\n\n{json.dumps(BAD)}\n", "mine.jsonl")
    assert told.startswith(f", line 3: {LACKS}")
    assert told.endswith("Mend the file, or set on_bad_rows: leave out.")


def test_bad_row_of_a_csv_is_told_by_the_line_it_starts_on(tmp_path):
    # The header, a record over lines 2 and 3, then the bad one.
    assert complaint(tmp_path, 'instruction,output\nx,"two\nlines"\ny,\n', "mine.csv").startswith(
        ", line 4: the field 'output' is empty."
    )


@pytest.mark.parametrize("cells", ["only one", "one,two,three"])
def test_csv_row_of_another_length_than_the_header_is_bad(cells, tmp_path):
    told = complaint(tmp_path, f"instruction,output\na,b\n{cells}\n", "mine.csv")
    assert told.startswith(", line 3: the row has more or fewer cells than the header")


def test_bad_row_of_parquet_is_told_by_its_number(tmp_path):
    path = as_parquet(tmp_path / "mine.parquet", [ROW, {**ROW, "output": None}])
    assert refused(rows.training_set, path).startswith(f"{path}, row 2: the field 'output' must be text, not NoneType.")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        # all on one line
        ('[{"instruction": "a", "output": "b"}, {"instruction": "c"}]', 1),
        # a row a line
        ('[\n{"instruction": "a", "output": "b"},\n{"instruction": "c"}\n]', 3),
        # a row over several lines: 2 to 5, then the bad one from 6
        ('[\n {\n  "instruction": "a",\n  "output": "b"\n },\n {\n  "instruction": "c"\n }\n]', 6),
        # brackets, braces, commas and escaped quotes inside texts end nothing
        ('[\n{"instruction": "],[ }{ \\" ,", "output": "[[[,"},\n{"instruction": "]"}]', 3),
        # a line break written \n inside a text is no line of the file
        ('[\n{"instruction": "a\\n\\n\\nb", "output": "b"},\n{"instruction": "c"}]', 3),
        # empty lines between the rows, and the comma on the next one
        ('\n\n[\n{"instruction": "a", "output": "b"}\n\n,\n{"instruction": "c"}\n]', 7),
    ],
)
def test_bad_row_of_an_array_is_told_by_the_line_it_starts_on(text, line, tmp_path):
    assert complaint(tmp_path, text).startswith(f", line {line}: {LACKS}")


# JSON allows these inside a string, though Python's splitlines breaks lines there.
@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_unicode_line_separator_inside_a_text_ends_no_json_line(separator, tmp_path):
    row = {**ROW, "output": f"one{separator}two"}
    assert rows_of(tmp_path, json.dumps(row, ensure_ascii=False), "mine.jsonl") == [row]


# Bad rows left out


def test_bad_rows_are_left_out_and_told_when_that_is_asked_for(tmp_path):
    path = written(tmp_path, f"{json.dumps(ROW)}\n{json.dumps(BAD)}\nno json\n{json.dumps(SECOND)}\n", "mine.jsonl")
    found = rows.training_set(path, "leave out")
    assert found.rows == [ROW, SECOND]
    assert [message.partition(": ")[0] for message in found.left_out] == [f"{path}, line 2", f"{path}, line 3"]
    assert LACKS in found.left_out[0]


@pytest.mark.parametrize("name", ["mine.json", "mine.jsonl", "mine.csv"])
def test_rows_that_hold_what_is_no_text_are_left_out_too(name, tmp_path):
    # A NUL in CSV; in JSON half a surrogate pair, a number of 5,000 digits and a name that stands twice.
    if name == "mine.csv":
        text, bad = "instruction,output\nName a colour.,Blue.\na,b\x00\n", 1
    else:
        odd = ['{"instruction": "a", "output": "\\ud83d"}', f'{{"instruction": "a", "output": "b", "n": {"9" * 5000}}}']
        lines = [json.dumps(ROW), *odd, '{"instruction": "a", "output": "b", "output": "c"}']
        text, bad = ("\n".join(lines) if name.endswith("l") else f"[{','.join(lines)}]"), 3
    found = rows.training_set(written(tmp_path, text, name), "leave out")
    assert (found.rows, len(found.left_out)) == ([ROW], bad)


def test_file_of_bad_rows_only_is_refused_even_then(tmp_path):
    path = written(tmp_path, json.dumps([BAD, BAD]))
    assert refused(rows.training_set, path, "leave out").startswith(f"{path} holds no usable row of 2; the first: ")


# Alpaca form


def test_missing_input_is_empty_and_other_fields_are_dropped(tmp_path):
    assert rows_of(tmp_path, json.dumps([{"output": "Blue.", "instruction": "Name a colour.", "x": 1}])) == [ROW]


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({"question": "Which colour?"}, {"question": "Which colour?"}),
        ({"question": None, "input": None}, {}),  # how Parquet says that there is none
        ({"tags": "colours"}, {"tag": "colours"}),
        ({"tags": ["colours", "art"]}, {"tag": "colours, art"}),
        ({"type": "colours"}, {"tag": "colours"}),
    ],
)
def test_question_and_tag_are_kept_where_there_are(more, kept, tmp_path):
    assert rows_of(tmp_path, json.dumps([{**ROW, **more}])) == [{**ROW, **kept}]


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("output", 7, "the field 'output' must be text, not int."),
        ("output", None, "the field 'output' must be text, not NoneType."),
        ("output", " \n", "the field 'output' is empty."),
        ("instruction", "", "the field 'instruction' is empty."),
        ("input", ["a"], "the field 'input' must be text, not list."),
        ("question", False, "the field 'question' must be text, not bool."),
        ("tags", [1], "the field 'tags' must be text, not list."),
    ],
)
def test_field_that_is_no_text_or_empty_is_refused(field, value, told, tmp_path):
    assert complaint(tmp_path, json.dumps([ROW, {**ROW, field: value}])).startswith(f", line 1: {told}")


def test_row_that_is_no_object_is_refused(tmp_path):
    assert complaint(tmp_path, f'[{json.dumps(ROW)},\n"text"]').startswith(
        ", line 2: a row must be an object, not str."
    )


def test_nan_in_an_optional_field_is_an_absent_field_in_every_format(tmp_path):
    nan = float("nan")
    listed = [{**ROW, "input": nan, "question": nan, "tags": nan}, {**ROW, "input": None}]
    assert rows_of(tmp_path, json.dumps(listed)) == [ROW, ROW]
    assert rows_of(tmp_path, "\n".join(map(json.dumps, listed)), "mine.jsonl") == [ROW, ROW]
    import pandas as pd

    pd.DataFrame([{**row, "input": nan} for row in listed]).to_parquet(tmp_path / "mine.parquet")
    assert rows.training_set(tmp_path / "mine.parquet").rows == [ROW, ROW]
    assert "'output' must be text, not NoneType" in complaint(tmp_path, json.dumps([{**ROW, "output": nan}]))


# Chat form


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASK, ANSWER]},
        {"conversations": [{"from": "human", "value": "Name a colour."}, {"from": "gpt", "value": "Blue."}]},
    ],
)
def test_single_exchange_is_an_ordinary_row(row, tmp_path):
    assert rows_of(tmp_path, json.dumps([row])) == [ROW]


@pytest.mark.parametrize(
    "messages", [[SYSTEM, ASK, ANSWER], [ASK, ANSWER, {**ASK, "content": "Another."}, {**ANSWER, "content": "Red."}]]
)
def test_longer_conversation_keeps_its_messages(messages, tmp_path):
    assert rows_of(tmp_path, json.dumps([{"messages": messages}])) == [{**ROW, "messages": messages}]


def test_other_names_of_speakers_are_translated(tmp_path):
    said = [{"from": name, "value": "x"} for name in ("system", "human", "gpt", "user", "assistant")]
    (row,) = rows_of(tmp_path, json.dumps([{"conversations": said}]))
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert all(set(message) == {"role", "content"} for message in row["messages"])


def test_messages_are_read_of_parquet(tmp_path):
    path = as_parquet(tmp_path / "chat.parquet", [{"messages": [SYSTEM, ASK, ANSWER], "tags": "a"}])
    assert rows.training_set(path).rows == [{**ROW, "messages": [SYSTEM, ASK, ANSWER], "tag": "a"}]


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "here they are none."),
        ([ASK], "here they are user."),
        ([ASK, ANSWER, ASK], "here they are user, assistant, user."),
        ([ANSWER, ASK], "here they are assistant, user."),
        ([ASK, SYSTEM, ANSWER], "here they are user, system, assistant."),
        ([ASK, {**ANSWER, "role": "tool"}], "message 2 of messages: role is 'tool'; it must be one of system, user"),
        ([ASK, {**ANSWER, "role": ["assistant"]}], "message 2 of messages: role is ['assistant']; it must be one of"),
        ([ASK, {**ANSWER, "role": None}], "message 2 of messages: role is None; it must be one of"),
        ([ASK, {**ANSWER, "content": ""}], "message 2 of messages: the field 'content' is empty."),
        ([ASK, {**ANSWER, "content": [{"type": "text"}]}], "the field 'content' must be text, not list."),
        ("Hello", "the field 'messages' must be a list of messages."),
    ],
)
def test_conversation_that_cannot_be_trained_on_is_refused(messages, told, tmp_path):
    assert told in complaint(tmp_path, json.dumps([{"messages": messages}]))


# Evaluation rows


def prompts_of(folder: Path, listed: list, answers: bool = False) -> list[dict]:
    return rows.evaluation_rows(written(folder, json.dumps(listed)), answers)


def test_prompts_are_numbered_where_they_have_no_id(tmp_path):
    listed = [{"prompt": "a"}, {"prompt": "b", "id": 7, "type": "x"}, {"prompt": "c", "prompt_id": "q", "answer": "d"}]
    assert prompts_of(tmp_path, listed) == [
        {"prompt_id": "1", "prompt": "a"},
        {"prompt_id": "7", "prompt": "b", "type": "x"},
        {"prompt_id": "q", "prompt": "c", "answer": "d"},
    ]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"instruction": "b"}, "the row lacks the field 'prompt'; it has instruction."),
        ({"prompt": " "}, "the field 'prompt' is empty."),
        ({"prompt": "b", "id": 1}, "the id '1' is that of "),  # the number of the first one
    ],
)
def test_bad_prompt_is_told_by_its_line(row, told, tmp_path):
    message = refused(prompts_of, tmp_path, [{"prompt": "a"}, row])
    assert message.startswith(f"{tmp_path / 'mine.json'}, line 1: {told}")


def test_answers_are_asked_for_where_they_are_needed(tmp_path):
    assert "the row lacks the field 'answer'" in refused(prompts_of, tmp_path, [{"prompt": "a"}], True)


def test_nan_is_no_id_type_or_answer(tmp_path):
    nan = float("nan")
    row = {"prompt": "a", "id": nan, "prompt_id": nan, "type": nan, "answer": nan}
    assert prompts_of(tmp_path, [row]) == [{"prompt_id": "1", "prompt": "a"}]


# Labelled rows


@pytest.mark.parametrize(
    "score", ["10" + "0" * 400, "NaN", "Infinity", '"safe"', '"' + "9" * 5000 + '"', "null", "[1]"]
)
def test_score_that_is_no_number_is_told_by_its_line(score, tmp_path):
    path = written(tmp_path, f'{{"prompt": "a", "response": "b", "score": {score}}}', "mine.jsonl")
    message = refused(rows.labelled_set, path)
    assert message.startswith(f"{path}, line 1: the field 'score' must be a number, not ") and len(message) < 300


# What stands beside a row, and in its messages

PIRATE = "Answer as a pirate."
ALPACA = {"instruction": "Name a colour.", "input": "", "output": "Blue."}
BEFORE = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Ahoy."}]
SAID = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue."}]
AS_SYSTEM = {"role": "system", "content": PIRATE}
SHARED = [{"from": "human", "value": "Name a colour."}, {"from": "gpt", "value": "Blue."}]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({**ALPACA, "system": PIRATE}, [AS_SYSTEM, *SAID]),
        ({**ALPACA, "system_prompt": PIRATE}, [AS_SYSTEM, *SAID]),
        ({**ALPACA, "history": [["Hello.", "Ahoy."]]}, [*BEFORE, *SAID]),
        ({**ALPACA, "history": BEFORE}, [*BEFORE, *SAID]),
        ({**ALPACA, "history": [["Hello.", "Ahoy."]], "system": PIRATE}, [AS_SYSTEM, *BEFORE, *SAID]),
        ({**ALPACA, "history": [AS_SYSTEM, *BEFORE]}, [AS_SYSTEM, *BEFORE, *SAID]),
        (
            {**ALPACA, "input": "A bright one.", "system": PIRATE},
            [AS_SYSTEM, {"role": "user", "content": "Name a colour.\n\nA bright one."}, SAID[1]],
        ),
        ({"conversations": SHARED, "system": PIRATE}, [AS_SYSTEM, *SAID]),
        ({"messages": SAID, "system": PIRATE, "history": BEFORE}, [AS_SYSTEM, *BEFORE, *SAID]),
        ({"messages": [AS_SYSTEM, *SAID], "system": PIRATE}, [AS_SYSTEM, *SAID]),  # the same twice is once
        ({"messages": [AS_SYSTEM, *SAID], "history": BEFORE}, [AS_SYSTEM, *BEFORE, *SAID]),
        ({"messages": [{**SAID[0], "name": "Ann"}, SAID[1]]}, [{**SAID[0], "name": "Ann"}, SAID[1]]),
        (
            {"conversations": [SHARED[0], {**SHARED[1], "reasoning_content": "Hm."}]},
            [SAID[0], {**SAID[1], "reasoning_content": "Hm."}],
        ),
    ],
)
def test_what_stands_beside_a_row_becomes_messages_and_is_refused_by_the_alpaca_template(row, messages, tmp_path):
    (read,) = rows_of(tmp_path, json.dumps([row]))
    assert read["messages"] == messages
    named = [name for name in ("system", "system_prompt", "history") if name in row] or ["name", "reasoning_content"]
    with pytest.raises(InputError, match=f"template: .*({'|'.join(named)}).* set template to chat"):
        templates.alpaca(read)


@pytest.mark.parametrize("nothing", [None, "", [], {}])
def test_what_says_nothing_makes_no_conversation(nothing, tmp_path):
    row = {**ALPACA, "system": nothing, "history": nothing}
    assert rows_of(tmp_path, json.dumps([row])) == [ALPACA]
    said = [{**message, "name": nothing, "tool_calls": nothing} for message in SAID]
    assert rows_of(tmp_path, json.dumps([{"messages": said, "system": nothing}])) == [ALPACA]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**ALPACA, "system": 3}, "the field 'system' must be text, not int."),
        ({**ALPACA, "system": [PIRATE]}, "the field 'system' must be text, not list."),
        (
            {**ALPACA, "system": PIRATE, "system_prompt": "Be brief."},
            "the fields system, system_prompt are of different",
        ),
        ({**ALPACA, "history": "Hello."}, "the field 'history' is of another form"),
        ({**ALPACA, "history": [["Hello."]]}, "the field 'history' is of another form"),
        ({**ALPACA, "history": [["Hello.", None]]}, "message 2 of history: the field 'content' must be text"),
        ({**ALPACA, "history": [["Hello.", ""]]}, "message 2 of history: the field 'content' is empty."),
        ({**ALPACA, "history": BEFORE[:1]}, "the field 'history' must be user and assistant in turn"),
        ({"messages": [AS_SYSTEM, *SAID], "system": "Be brief."}, "two system messages of different texts"),
        (
            {"messages": [SAID[0], {**SAID[1], "weight": 0}]},
            "message 2 of messages: the field 'weight' is 0, but every",
        ),
        ({"messages": [SAID[0], {**SAID[1], "train": False}]}, "message 2 of messages: the field 'train' is False"),
        ({"messages": [SAID[0], {**SAID[1], "weight": 0.5}]}, "message 2 of messages: the field 'weight' is 0.5"),
        ({"messages": [{**SAID[0], "train": True}, SAID[1]]}, "message 1 of messages: the field 'train' is True"),
    ],
)
def test_what_stands_beside_a_row_in_another_form_is_told(row, told, tmp_path):
    assert told in complaint(tmp_path, json.dumps([row]))


def test_a_field_that_says_what_is_done_anyway_changes_nothing(tmp_path):
    said = [{**SAID[0], "weight": 0}, {**SAID[1], "weight": 1}]
    assert rows_of(tmp_path, json.dumps([{"messages": said}])) == [ALPACA]


@pytest.mark.parametrize(
    "value", [datetime.datetime(2024, 1, 1), b"x", decimal.Decimal("0.1"), [{"a": datetime.date(2024, 1, 1)}]]
)
def test_a_field_of_a_message_that_the_mixture_cannot_hold_is_refused(value, tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([{"messages": [{**ASK, "more": value}, ANSWER]}])
    parquet.write_table(table, tmp_path / "mine.parquet")
    message = refused(rows.training_set, tmp_path / "mine.parquet")
    assert "row 1: message 1 of messages: the field 'more' is" in message and "cannot be written as JSON" in message


def test_infinity_in_a_field_of_a_message_is_refused(tmp_path):
    path = written(tmp_path, '[{"messages": [{"role": "user", "content": "x", "more": 1e999}, {}]}]')
    assert "the field 'more' is inf, which cannot be written as JSON" in refused(rows.training_set, path)


def test_other_fields_are_named_once(tmp_path):
    listed = [
        {**ALPACA, "id": 3, "tags": "a", "difficulty": "easy"},
        {**ALPACA, "id": 4, "note": None},
        {"messages": [{**SAID[0], "name": "Ann"}, SAID[1]], "output": "Red.", "system": PIRATE},
    ]
    found = rows.training_set(written(tmp_path, json.dumps(listed)))
    assert found.unread == ["id", "difficulty", "output", "messages.name"]


def test_a_row_that_cannot_be_used_is_a_bad_row_of_its_file(tmp_path):
    def usable(row):
        if row["output"] == "Red.":
            raise InputError("no red.")

    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({**ALPACA, "output": each}) for each in ("Blue.", "Red.", "Green.")))
    with pytest.raises(InputError, match="mine.jsonl, line 2: no red. Mend the file, or set on_bad_rows: leave out."):
        rows.training_set(path, usable=usable)
    found = rows.training_set(path, "leave out", usable)
    assert [row["output"] for row in found.rows] == ["Blue.", "Green."]
    assert found.left_out == [f"{path}, line 2: no red."]
