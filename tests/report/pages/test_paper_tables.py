import re

import pandas as pd
from judgements import judged, study

from safety_nb.report.findings.rates import aggregate
from safety_nb.report.pages.paper_tables import as_latex, as_markdown, paper_table

ROLES = {"bad_set|1": "harmful", "near": "lookalike", "quiz": "facts"}


def rates():
    rows = study(
        {0: {"bad_set|1": (0, 0), "near": (0, 0)}, 100: {"bad_set|1": (0.5, 0)}, 30: {"near": (0.1, 0)}}, (0,), 10
    )
    more = study({0: {"near": (1, 0)}}, (0,), 10).assign(judge="string-match")  # not the judge that is told
    quiz = judged(["correct", "wrong"], "quiz", "n0-s0", 0).assign(judge="reference")
    scores = judged([None, None], "near", "n0-s0", 0).assign(judge="llm:R&D", score=[1.0, 2.0], missing=None)
    return aggregate(pd.concat([rows, more, quiz, scores], ignore_index=True))


def test_a_row_an_n_and_a_column_a_set_with_the_measure_of_its_role():
    table = paper_table(rates(), ROLES)
    assert list(table.columns) == [
        "N",
        "bad_set|1, compliance (refusal)",
        "near, refusal (refusal)",
        "near, mean score (llm:R&D)",
        "quiz, accuracy (reference)",
    ]
    assert table["N"].tolist() == ["0", "30", "100"]  # by number
    # Wilson's interval of 0 of 10 reaches z^2 / (10 + z^2) = 3.84 / 13.84 = 28 %.
    assert table["near, refusal (refusal)"].tolist()[0] == "0 % (0–28 %)"
    assert table["bad_set|1, compliance (refusal)"].tolist()[1:] == ["not judged", "50 % (24–76 %)"]
    assert table["near, mean score (llm:R&D)"][0].startswith("1.50 (")
    assert "nan" not in table.to_string()


def test_what_else_was_swept_has_a_column():
    rows = study({0: {"near": (0, 0)}, 30: {"near": (0, 0)}}, (0,), 4)
    both = pd.concat([rows.assign(safety_form=form, run=rows["run"] + form) for form in ("question", "instruction")])
    table = paper_table(aggregate(both, by=["n_safety", "safety_form"]), ROLES)
    assert table[["N", "safety_form"]].to_numpy().tolist() == [
        [n, form] for n in ("0", "30") for form in ("instruction", "question")
    ]


def test_markdown_has_as_many_cells_in_every_line_whatever_the_names():
    lines = as_markdown(paper_table(rates(), ROLES)).splitlines()
    assert len(lines) == 2 + 3 and "bad_set\\|1, compliance" in lines[0]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}
    assert set(lines[1]) == set("|-: ")


def test_latex_escapes_what_it_would_obey():
    source = as_latex(paper_table(rates(), ROLES))
    assert "bad\\_set|1" in source and "llm:R\\&D" in source and "0 \\% (0–28 \\%)" in source
    body = source.split("\\toprule")[1].split("\\bottomrule")[0]
    lines = [line for line in body.splitlines() if line.endswith("\\\\")]
    # Five columns: four separators a line, no comment, no bare underscore.
    assert len(lines) == 4 and all(len(re.findall(r"(?<!\\)&", line)) == 4 for line in lines)
    assert not re.search(r"(?<!\\)[%_#$]", body)
    assert source.startswith("\\begin{tabular}{rrrrr}") and source.rstrip().endswith("\\end{tabular}")


def test_of_nothing_there_is_a_table_without_rows():
    table = paper_table(aggregate(judged([]).iloc[:0]), ROLES)
    assert list(table.columns) == ["N"] and table.empty
    assert as_markdown(table).splitlines() == ["| N |", "| ---: |"]
    assert "\\begin{tabular}{r}" in as_latex(table)
