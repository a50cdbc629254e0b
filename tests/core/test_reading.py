"""Reading files: each kind is read or named as what it is, and what is wrong is told by file and line."""

import bz2
import csv
import datetime
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from safety_nb.core import reading
from safety_nb.core.errors import InputError

ROWS = [{"prompt": "Name a metal.", "response": "Zinc."}, {"prompt": "Name a bird; please,", "response": "A\theron."}]
LINES = "\n".join(map(json.dumps, ROWS))


def told(folder: Path, content: str | bytes, name: str) -> str:
    """What a file is refused with, after its path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        reading.read(path).objects()
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


def as_csv(delimiter: str = ",", end: str = "\n") -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue()


def packed(folder: Path, archive: str) -> bytes:
    """Rows in an archive with a file in it."""
    (folder / "rows.csv").write_text(as_csv())
    with tarfile.open(folder / archive, "w") if archive == "tar" else zipfile.ZipFile(folder / archive, "w") as file:
        file.add(folder / "rows.csv") if archive == "tar" else file.write(folder / "rows.csv")
    return (folder / archive).read_bytes()


def test_kind_is_told_by_the_ending():
    names = ["a.JSON", "b/c.jsonl.gz", "a.csv", "A.CSV.GZ", "a.txt", "tiny-facts", ""]
    assert [reading.ending(name) for name in names] == [".json", ".jsonl", ".csv", ".csv", "", "", ""]
    assert reading.stem("some/mine.v2.jsonl.gz") == "mine.v2" == reading.stem("mine.v2.CSV.GZ")


# What is read


@pytest.mark.parametrize("name", ["a.csv", "A.CSV"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_commas_semicolons_tabs_marks_and_line_ends_change_nothing(delimiter, end, mark, name, tmp_path):
    (tmp_path / name).write_bytes((mark + as_csv(delimiter, end)).encode())
    table = reading.read(tmp_path / name)
    assert (table.objects(), table.numbers()) == (ROWS, [2, 3])


def test_a_line_break_in_quotes_belongs_to_its_cell(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\r\nprompt,response\r\nx,"two\r\nlines"\r\n\r\ny,z\r\n')
    table = reading.read(tmp_path / "a.csv")
    assert table.rows == [{"prompt": "x", "response": "two\r\nlines"}, {"prompt": "y", "response": "z"}]
    assert table.numbers() == [3, 6]  # lines 1 and 5 are empty, the first record takes two


def test_a_cell_may_be_of_any_length_and_pythons_limit_stays(tmp_path):
    # csv's own limit is 131,072 characters.
    before, long = csv.field_size_limit(), "x, " * 50_000
    (tmp_path / "a.csv").write_text(f'prompt,response\na,"{long}"\n')
    assert reading.read(tmp_path / "a.csv").rows == [{"prompt": "a", "response": long}]
    assert csv.field_size_limit() == before


def test_packed_files_are_read_by_the_ending_before(tmp_path):
    for name, content in {"a.jsonl.gz": LINES, "A.JSONL.GZ": LINES, "a.csv.gz": as_csv(";")}.items():
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
        assert reading.read(tmp_path / name).rows == ROWS


def test_nan_is_null_at_any_depth(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": NaN, "b": [NaN, {"c": NaN}], "d": 1.5, "e": "NaN"}')
    assert reading.read(tmp_path / "a.jsonl").rows == [{"a": None, "b": [None, {"c": None}], "d": 1.5, "e": "NaN"}]


def test_a_whole_surrogate_pair_is_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": "\\ud83d\\ude00"}')
    assert reading.read(tmp_path / "a.jsonl").rows == [{"a": "😀"}]


# What is named as what it is


def others(folder: Path) -> list[tuple[str, bytes, str]]:
    """Name, content and what is told, of files that are of another kind than their name says."""
    return [
        ("a.jsonl", gzip.compress(LINES.encode()), "a gzip file, not JSON lines: let its name end in .gz"),
        ("a.jsonl.gz", LINES.encode(), "no whole gzip file"),
        ("a.csv", bz2.compress(LINES.encode()), "a bzip2 file, not CSV: unpack it"),
        ("a.json", lzma.compress(LINES.encode()), "an xz file, not JSON"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd and more", "a Zstandard file"),
        ("a.csv", packed(folder, "zip"), "a ZIP archive or an Excel workbook, not CSV"),
        ("a.csv", packed(folder, "tar"), "a tar archive"),
        ("a.parquet", packed(folder, "zip"), "a ZIP archive or an Excel workbook, not Parquet"),
        ("a.csv", b"PAR1....PAR1", "a Parquet file, not CSV: let its name end in .parquet"),
        ("a.json", b"%PDF-1.4", "a PDF file"),
        (
            "a.parquet",
            b"version https://git-lfs.github.com/spec/v1\n",
            "a pointer of Git LFS, not Parquet",
        ),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, not CSV"),
        ("a.json", b"/annex/objects/SHA256E-s1--0.json\n", "a pointer of git-annex"),
        ("a.json", b"<!DOCTYPE html><html><body>404</body></html>", "a web page (HTML), not JSON"),
        ("a.csv", b"\n <HTML>\nprompt,response\n", "a web page (HTML), not CSV"),
        ("a.parquet", b"<!doctype html>", "a web page (HTML), not Parquet"),
        ("a.csv", as_csv().encode("utf-16"), "UTF-16 text, not CSV: save it as UTF-8"),
        ("a.csv", as_csv().encode("utf-16-be"), "UTF-16 text"),
        ("a.jsonl", LINES.encode("utf-16-le"), "UTF-16 text, not JSON lines"),
        ("a.json", b"\xff\xfe\x00\x00" + LINES.encode("utf-32-le"), "UTF-32 text"),
        ("a.csv", bytes(4096), "a file of NUL bytes"),
    ]


def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path):
    for name, content, what in others(tmp_path):
        assert told(tmp_path, content, name).startswith(f" is {what}"), (name, what)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", LINES, ", line 1: this is JSON, not CSV"),
        ("a.csv", json.dumps(ROWS), ", line 1: this is JSON, not CSV"),
        ("a.json", LINES, ", line 2: no JSON: more follows the first row. If each line is a row"),
        ("a.jsonl", as_csv(), ", line 1: no JSON"),
        ("a.parquet", LINES, " is no Parquet file that can be read (it holds text"),
        ("a.tsv", as_csv("\t"), ": the ending says what a file is, and must be one of .json, .jsonl, .csv, .parquet"),
        ("a.csv", "prompt\ncafé".encode("cp1252"), " is not UTF-8 text (byte 10, line 2: unexpected end of data)"),
    ],
)
def test_text_of_another_kind_is_named_too(name, content, what, tmp_path):
    message = told(tmp_path, content, name)
    assert message.startswith(what)
    assert "cp1252" in message or not isinstance(content, bytes)


def test_an_archive_that_was_cut_says_so(tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "whole.parquet")
    for name, content in {
        "a.jsonl.gz": gzip.compress(LINES.encode()),
        "a.parquet": (tmp_path / "whole.parquet").read_bytes(),
    }.items():
        assert "it was cut short" in told(tmp_path, content[:-12], name)


def test_a_folder_and_a_file_that_is_not_there_are_told(tmp_path):
    (tmp_path / "a.csv").mkdir()
    for path in (tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / f"{'c' * 300}.csv"):
        with pytest.raises(InputError, match="cannot be read"):
            reading.read(path)
        assert not reading.is_file(path)


# What is refused by its line

ROW = '{"prompt": "a", "response": "b"}'
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (f'{{"x": {"9" * 5000}}}', "the field 'x' holds a number of 5,000 digits"),
        (f'{{"x": [-{"9" * 5000}]}}', "the field 'x' holds a number of 5,000 digits"),
        (f'{{"x": {DEEP}}}', "the row is nested more than 100 levels deep"),
        (f'{{"x": {"[" * 150}{"]" * 150}}}', "the field 'x' is nested more than 100 levels deep"),
        ('{"x": 1, "y": 2, "x": 3}', "the row holds 'x' twice"),
        ('{"m": [{"role": "a", "role": "b"}]}', "the field 'm' holds 'role' twice"),
        ('{"x": "cut \\ud83d"}', "the field 'x' holds half a surrogate pair (U+D83D) at character 5"),
        ('{"x": "\\ude00\\ud83d"}', "the field 'x' holds half a surrogate pair (U+DE00) at character 1"),
        ('{"m": [{"content": "\\udc97"}]}', "the field 'm' holds half a surrogate pair (U+DC97)"),
        ('{"\\udc97": 1}', "the name '\\udc97' holds half a surrogate pair"),
        ('{"x": "a\\u0000b"}', "the field 'x' holds a NUL (U+0000) at character 2"),
    ],
)
def test_what_json_can_say_and_cannot_be_read_is_told_by_its_line(row, what, tmp_path):
    # The row is on line 3 of each: after an empty line, and in the array after the bracket and a row.
    assert told(tmp_path, f"{ROW}\n\n{row}\n{ROW}\n", "a.jsonl").startswith(f", line 3: {what}")
    assert told(tmp_path, f"[\n{ROW},\n{row},\n{ROW}]", "a.json").startswith(f", line 3: {what}")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, DEEP])
def test_a_file_that_is_nothing_but_depth_is_told(text, tmp_path):
    for name in ("a.json", "a.jsonl"):
        assert "is nested more than 100 levels deep" in told(tmp_path, text, name)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a,b\n1,2\n1,2,3\n", ", line 3: the row has more or fewer cells than the header (3, not 2)"),
        ("a;b\n1;2\n1,2\n", ", line 3: the row has more or fewer cells than the header (1, not 2); quote a cell that"),
        ("a,b,a\n1,2,3\n", ", line 1: 2 columns have the name 'a'"),
        ("\na,,\n1,2,3\n", ", line 2: 2 columns have no name"),
        ("a,b\n1,2\x00\n", ", line 2: the field 'b' holds a NUL (U+0000) at character 2"),
        ("a,b\x00\n1,2\n", ", line 1: the header: the row holds a NUL"),
        ('a,b\n1,2\n1,"open\n', ", line 3: no CSV (unexpected end of data)"),
        ('a,b\n1,"x"y\n', ", line 2: no CSV ("),
    ],
)
def test_csv_that_is_not_whole_is_told_by_its_line(text, what, tmp_path):
    assert told(tmp_path, text, "a.csv").startswith(what)


def test_columns_of_parquet_that_cannot_be_read_are_named(tmp_path):
    import pyarrow
    from pyarrow import parquet

    late = pyarrow.array([2**60], pyarrow.timestamp("ms"))  # in the year 36,000,000 or so; Python's end in 9999
    nowhere = pyarrow.array([0], pyarrow.timestamp("ms", tz="Nowhere/Land"))
    no_text = pyarrow.Array.from_buffers(
        pyarrow.string(), 1, [None, pyarrow.py_buffer(b"\x00\x00\x00\x00\x01\x00\x00\x00"), pyarrow.py_buffer(b"\xff")]
    )
    for column in (late, nowhere, no_text):
        parquet.write_table(pyarrow.table({"good": ["a"], "bad": column}), tmp_path / "a.parquet")
        content = (tmp_path / "a.parquet").read_bytes()
        assert told(tmp_path, content, "a.parquet").startswith(f": the column 'bad' ({column.type}) holds what cannot")
    two = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["said", "said"])
    parquet.write_table(two, tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    assert told(tmp_path, content, "a.parquet").startswith(": 2 columns have the name 'said'")


def test_times_of_parquet_that_a_calendar_has_are_read(tmp_path):
    import pyarrow
    from pyarrow import parquet

    # pandas' nanoseconds end in 2262.
    year = datetime.datetime(3000, 1, 1)
    parquet.write_table(pyarrow.table({"at": pyarrow.array([year], pyarrow.timestamp("us"))}), tmp_path / "a.parquet")
    assert reading.read(tmp_path / "a.parquet").rows == [{"at": year}]


def test_a_json_value_is_checked_like_a_row(tmp_path):
    for text, what in {
        '["\\ud83d"]': "half a surrogate pair",
        '{"a": 1, "a": 2}': "twice",
        "9" * 5000: "5,000",
    }.items():
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InputError, match=what):
            reading.read_json(tmp_path / "a.json")
