"""Tables in files: what is read is what was written, and nothing is overwritten."""

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
    for refusing in (tables.read, tables.check_new):
        with pytest.raises(InputError, match=r"must be one of \.csv, \.jsonl, \.parquet"):
            refusing(tmp_path / name)


def test_a_table_that_is_not_there_or_not_of_its_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="There is no table"):
        tables.read(tmp_path / "t.csv")
    for ending in (".jsonl", ".parquet"):
        path = tmp_path / f"t{ending}"
        path.write_text("no such thing")
        with pytest.raises(InputError, match=f"cannot be read as {ending[1:]}"):
            tables.read(path)
    (tmp_path / "bytes.csv").write_bytes(b"said\n\xff\xfe\n")
    with pytest.raises(InputError, match="cannot be read as csv"):
        tables.read(tmp_path / "bytes.csv")
