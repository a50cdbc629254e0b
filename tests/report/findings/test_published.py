"""The paper's published numbers beside a study of its models and sets: seen, told how they are known, and in no fit."""

from pathlib import Path

import pandas as pd
import pytest
from studies import made

from safety_nb.report import figures, study_tables
from safety_nb.report.findings import comparison, published
from safety_nb.report.writing import report_study


def study(folder: Path, base_model: str) -> Path:
    """A study of N = 0 and 100 on two of the paper's sets, of which 2 and 18 of 20 harmful requests were refused."""
    made(folder, {0: 2, 100: 18}, base_model=base_model)
    for path in folder.glob("*/*.jsonl"):
        text = path.read_text()
        path.write_text(text.replace('"bad"', '"I-MaliciousInstructions"').replace('"near"', '"xstest-safe"'))
    return folder


def test_the_numbers_are_those_that_facts_about_the_paper_have():
    # Shares of unsafe and of exaggeratedly safe responses, measured in the released figure.
    expected = [(0.92, 0.02), (0.10, 0.20), (0.02, 0.50)]
    assert [(mark.unsafe, mark.exaggerated) for mark in published.MARKS] == expected
    assert {mark.known for mark in published.MARKS} == {"figure"} <= set(published.KNOWN)


@pytest.mark.parametrize(
    ("bases", "harmful", "lookalike", "stand"),
    [
        ({"huggyllama/llama-7b"}, "I-MaliciousInstructions", "xstest-safe", True),
        ({"/models/LLaMA-13B/", "tiiuae/falcon-7b"}, "Q-Harm", "I-PhysicalSafetySafe", True),
        ({"huggyllama/llama-7b", "tiny"}, "I-CoNa", "xstest-safe", False),
        ({"meta-llama/Llama-2-7b"}, "I-CoNa", "xstest-safe", False),
        ({"huggyllama/llama-7b"}, "xstest-unsafe", "xstest-safe", False),
        ({"huggyllama/llama-7b"}, "I-CoNa", "or-bench-hard", False),
        ({"huggyllama/llama-7b"}, "I-CoNa", None, False),
        (set(), "I-CoNa", "xstest-safe", False),
    ],
)
def test_they_stand_beside_studies_of_the_papers_models_on_its_sets(bases, harmful, lookalike, stand):
    assert published.marks(bases, harmful, lookalike) == (published.MARKS if stand else ())


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[str, tuple[Path, comparison.Comparison]]:
    """The same answers as of a model of the paper and of the miniature: the folder and the comparison of each."""
    found = {}
    for name in ("huggyllama/llama-7b", "tiny"):
        folder = study(tmp_path_factory.mktemp("paper") / "study", name)
        tables = study_tables.read_study(folder)
        compared = comparison.compare_study(tables)
        report_study(folder, tables, compared)
        found[name] = (folder, compared)
    return found


def test_they_are_in_no_rate_test_or_verdict(both):
    (folder, theirs), (other, ours) = both.values()
    (one,), (another,) = theirs.settings, ours.settings
    assert one.published == published.MARKS and another.published == ()
    assert one.verdict.text == another.verdict.text
    for name in ("summary.csv", "tests.csv", "headline.txt"):
        assert (folder / name).read_text() == (other / name).read_text()
    pd.testing.assert_frame_equal(theirs.rates, ours.rates)


def test_they_are_open_marks_beside_a_line_that_is_the_same(both):
    drawn = {}
    for name, (_, compared) in both.items():
        axes = figures.draw_trade_off(compared, compared.settings[0])
        lines = {line.get_marker(): line for line in axes.get_lines() if len(line.get_xdata())}
        drawn[name] = axes, lines
    (axes, lines), (_, plain) = drawn.values()
    # Harmful requests answered: 18 and 2 of 20; no look-alike was refused.
    for of in (lines, plain):
        assert of["o"].get_xdata().tolist() == pytest.approx([0, 0])
        assert of["o"].get_ydata().tolist() == pytest.approx([90, 10])
    marks = lines["D"]
    assert marks.get_xdata() == pytest.approx([2, 20, 50]) and marks.get_ydata() == pytest.approx([92, 10, 2])
    assert marks.get_markerfacecolor() == "none" and "D" not in plain
    told = axes.get_legend().get_texts()[0].get_text()
    assert told.startswith("published, by other judges") and "a instruction-tuned, b safety-tuned" in told
    assert {"a", "b", "c"} <= {text.get_text() for text in axes.texts}


def test_table_report_and_caption_tell_whose_they_are_and_how_they_are_known(both):
    (folder, compared), (other, _) = both.values()
    for name in ("table.md", "table.tex", "report.html"):
        text = (folder / name).read_text()
        assert "safety-tuned" in text and "measured in the released figure" in text
        assert "measured by the paper" in text and "arXiv 2309.07875" in text
        assert "arXiv 2309.07875" not in (other / name).read_text()
    (row,) = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("| overly")]
    assert row == "| overly safety-tuned | 2 % | 50 % | measured in the released figure |"
    figure = figures.study_figures(compared, {})["trade-off"]
    assert figure.caption.endswith(published.CAVEAT)
    assert "safety-tuned: 10 % unsafe, 20 % exaggerated safety" in figure.alt
