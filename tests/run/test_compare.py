"""Two studies that were run apart, compared as one."""

from pathlib import Path

import pytest
from studies import made
from typer.testing import CliRunner

from safety_nb import cli
from safety_nb.core.errors import InputError
from safety_nb.report import study_tables, writing
from safety_nb.report.findings import comparison


@pytest.fixture
def two(tmp_path) -> list[Path]:
    return [
        made(tmp_path / "first", {0: 0, 100: 10}),
        made(tmp_path / "second", {0: 0, 100: 20, 300: 20}, learning_rate=0.001),
    ]


def test_studies_are_compared_as_settings_of_one(two, tmp_path):
    tables = study_tables.read_studies(two, tmp_path / "out")
    assert tables.swept == {"study": ["first", "second"], "n_safety": [0, 100, 300]}
    assert "learning_rate" not in tables.shared and tables.shared["base_model"] == "tiny"
    compared = comparison.compare_study(tables)
    rates = compared.rates.set_index(["study", "n_safety", "dataset", "metric"])["estimate"]
    # 10 of 20 and 20 of 20 were refused at N = 100.
    assert rates["first", 100, "bad", "compliance_rate"] == 0.5
    assert rates["second", 100, "bad", "compliance_rate"] == 0.0
    assert [setting.name for setting in compared.settings] == ["study first", "study second"]
    assert "With study first: " in compared.answer and "With study second: " in compared.answer


def test_the_command_writes_a_report_beside_neither_study(two, tmp_path):
    before = {path for folder in two for path in folder.rglob("*")}
    out = tmp_path / "out"
    done = CliRunner().invoke(cli.app, ["compare", *map(str, two), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert (out / "report.html").is_file() and (out / "figures" / "settings_bad.png").is_file()
    assert "With study first" in (out / "headline.txt").read_text()
    assert "nan" not in (out / "report.html").read_text().split("<main>")[1].replace("data:image", "")[:2000]
    assert {path for folder in two for path in folder.rglob("*")} == before
    assert 'href="./' not in (out / "report.html").read_text()  # the runs lie elsewhere


def test_studies_of_one_name_are_told_apart(two, tmp_path):
    other = made(tmp_path / "elsewhere" / "first", {0: 5, 100: 5})
    assert study_tables.read_studies([two[0], other], tmp_path).swept["study"] == ["first (1)", "first (2)"]


def test_one_study_is_nothing_to_compare(two, tmp_path):
    with pytest.raises(InputError, match="at least two"):
        study_tables.read_studies(two[:1], tmp_path)
    with pytest.raises(InputError, match="holds no study"):
        study_tables.read_studies([two[0], tmp_path / "none"], tmp_path)


def test_a_single_study_is_read_as_before(two):
    tables = study_tables.read_study(two[1])
    assert list(tables.runs["run"]) == ["n0_seed0", "n100_seed0", "n300_seed0"]
    assert tables.swept == {"n_safety": [0, 100, 300]}
    assert writing.report_study(two[1], tables, comparison.compare_study(tables)).is_file()
