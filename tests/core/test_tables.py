"""Tables in files: what is read is what was written, and nothing is overwritten."""

import datetime
import json
import math

import pandas as pd
import pytest

from safety_nb.core import tables
from safety_nb.core.errors import InputError


@pytest.mark.parametrize("ending", tables.ENDINGS)
def test_what_is_written_is_read_back(ending, tmp_path):
    # What CSV readers like to take for missing, for a number or for the end of a row.
    table = pd.DataFrame({"said": ["NA", "", "007", 'a "b", c\nd', "ü"]})
    path = tmp_path / f"t{ending}"
    tables.write(path, table)
    pd.testing.assert_frame_equal(tables.read(path).astype(object), table.astype(object))
    with pytest.raises(InputError, match="is there already; name a new file"):
        tables.check_new(path)


def test_missing_text_stays_missing_where_the_format_can_say_so(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"said": null}\n{"said": "NA"}\n')
    assert [isinstance(said, str) for said in tables.read(path)["said"]] == [False, True]


@pytest.mark.parametrize("name", ["t.xlsx", "t"])
def test_an_unknown_format_is_refused_with_those_there_are(name, tmp_path):
    with pytest.raises(InputError, match=r"must be one of \.json, \.jsonl, \.csv, \.parquet \(also with \.gz\)"):
        tables.read(tmp_path / name)
    with pytest.raises(InputError, match=r"must be one of \.csv, \.jsonl, \.parquet"):
        tables.check_new(tmp_path / name)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    for name in ("t.csv", f"{'t' * 300}.csv"):  # the second is no name that a file system takes
        with pytest.raises(InputError, match="There is no table"):
            tables.read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        # One surplus cell made pandas take the first column for an index and shift the others.
        ("t.csv", b"prompt,response\nAsk.,No.,extra\n", r"line 2: the row has more or fewer cells .*\(3, not 2\)"),
        ("t.csv", b"prompt,response\nAsk.,No.\nAsk.\n", r"line 3: the row has more or fewer cells .*\(1, not 2\)"),
        ("t.csv", b"prompt,response,response\na,b,c\n", "line 1: 2 columns have the name 'response'"),
        ("t.jsonl", b'{"prompt": "a", "prompt": "b"}', "line 1: the row holds 'prompt' twice"),
        ("t.csv", b"prompt,response\na,b\nc,d\x00\n", "line 3: the field 'response' holds a NUL"),
        ("t.jsonl", b'{"said": "a"}\n{"said": "b \\ud83d"}', "line 2: the field 'said' holds half a surrogate pair"),
        ("t.jsonl", b'{"said": "a"}\n[1]', "line 2: a row must be an object, not list"),
        ("t.jsonl", b"no such thing", "line 1: no JSON"),
        ("t.parquet", b"no such thing", "is no Parquet file that can be read .it holds text"),
        ("t.csv", b"said\nca\xff\n", "is not UTF-8 text .byte 7, line 2"),
        ("t.csv", b"said\n", "holds no rows"),
    ],
)
def test_a_bad_table_is_told_by_file_and_line(name, content, told, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        tables.read(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_values_of_json_come_back_as_they_were(tmp_path):
    # pandas' own reader makes 1 and null 1.0 and nan, takes "date" for a date and wraps the great number round.
    lines = [
        '{"id": 12345678901234567890, "n": 1, "date": "2024-03-01", "created_at": 1700000000, "ok": true, "in": [1]}',
        '{"id": 7, "n": null, "date": "2024-03-02", "created_at": 1700000001, "ok": null, "in": null}',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    table = tables.read(tmp_path / "t.jsonl")
    tables.write(tmp_path / "again.jsonl", table)
    assert (tmp_path / "again.jsonl").read_text().splitlines() == lines
    tables.write(tmp_path / "again.csv", table)
    assert tables.read(tmp_path / "again.csv").to_dict("records") == [
        {"id": "12345678901234567890", "n": "1", "date": "2024-03-01", "created_at": "1700000000", "ok": "True",
         "in": "[1]"},
        {"id": "7", "n": "", "date": "2024-03-02", "created_at": "1700000001", "ok": "", "in": ""},
    ]  # fmt: skip


def test_nothing_is_none_in_every_format_that_can_say_so(tmp_path):
    listed = [{"said": "x", "more": 1.5}, {"said": float("nan"), "more": float("nan")}, {"said": None}]
    pd.DataFrame(listed).to_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, listed)))
    (tmp_path / "t.json").write_text(json.dumps(listed))
    for name in ("t.parquet", "t.jsonl", "t.json"):
        table = tables.read(tmp_path / name)
        assert table.to_numpy().tolist() == [["x", 1.5], [None, None], [None, None]], name
    tables.write(tmp_path / "out.jsonl", table.assign(score=[0.5, float("nan"), 1.0]))
    assert [json.loads(line)["score"] for line in (tmp_path / "out.jsonl").open()] == [0.5, None, 1.0]


def test_dates_of_parquet_are_dates_of_json(tmp_path):
    day = datetime.datetime(2024, 3, 1, 12)
    pd.DataFrame({"at": [day], "on": [day.date()]}).to_parquet(tmp_path / "t.parquet")
    tables.write(tmp_path / "out.jsonl", tables.read(tmp_path / "t.parquet"))
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {"at": "2024-03-01T12:00:00", "on": "2024-03-01"}


@pytest.mark.parametrize("value", [math.inf, -math.inf, [1.0, {"deep": math.inf}]])
def test_infinity_is_told_before_json_lines_are_written(value, tmp_path):
    table = pd.DataFrame({"id": [1], "weight": [value]})
    with pytest.raises(InputError, match="JSON has no infinity, which column 'weight' holds; write .csv or .parquet"):
        tables.check_fits(tmp_path / "a.jsonl", table)
    tables.check_fits(tmp_path / "a.csv", table)


def test_a_nan_inside_a_list_is_null(tmp_path):
    tables.write(tmp_path / "a.jsonl", pd.DataFrame({"x": [[1.0, math.nan]]}))
    assert (tmp_path / "a.jsonl").read_text() == '{"x": [1.0, null]}\n'


@pytest.mark.parametrize("values", [["a", 1], [10**30], [{}]])
def test_what_parquet_cannot_hold_is_told_before_it_is_written(values, tmp_path):
    table = pd.DataFrame({"mixed": pd.Series(values, dtype=object)})
    with pytest.raises(InputError, match=r"--out: Parquet cannot hold the table .* write \.csv or \.jsonl"):
        tables.check_fits(tmp_path / "out.parquet", table)
    for name in ("out.csv", "out.jsonl"):
        tables.check_fits(tmp_path / name, table)
        tables.write(tmp_path / name, table)
