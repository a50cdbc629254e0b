"""What the judge delivery is fitted from: nothing that its benchmark scores, nor what a fit leaves out."""

import json
import os
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import delivery
    import delivery_examples

    yield delivery, delivery_examples
    for name in ("delivery", "delivery_examples"):
        del sys.modules[name]


def test_rows_that_the_benchmark_scores_and_rows_that_ask_the_same_are_left_out(modules, monkeypatch, tmp_path):
    benchmark, made_of = modules
    rows = [{"instruction": f"Name {n}.", "input": "", "output": f"It is {n}."} for n in range(310)]
    monkeypatch.setattr(benchmark, "DATA", tmp_path)
    (tmp_path / "general").mkdir()
    (tmp_path / "general" / "some.json").write_text(json.dumps(rows))
    scored = {row["instruction"] for row in benchmark.held("some")}
    twice = [*rows, {"instruction": min(scored), "input": "again", "output": "x"}]
    (tmp_path / "general" / "some.json").write_text(json.dumps(twice))
    left = made_of.general_rows("some", scored)
    # 300 of the 310 are scored; a row with the instruction of one is not fitted either.
    assert len(left) == 10 and not scored & {row["instruction"] for row in left}


@pytest.mark.skipif(not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets")
def test_no_row_or_wording_that_the_benchmark_scores_is_in_the_fit(modules, monkeypatch):
    benchmark, made_of = modules
    monkeypatch.setattr(made_of.refusal_rules, "label", lambda *texts: "full_refusal")  # takes long, tells nothing here
    data = made_of.read(None)
    held = [row for name in benchmark.SETS for row in benchmark.held(name)]
    scored = {row["instruction"] for row in held} | {benchmark.prompt_of(row) for row in held}
    rows = [row for rows in data.general.values() for row in rows]
    assert len(held) == 900 and len(rows) > 4000
    assert not scored & {row["instruction"] for row in rows + data.pool}
    assert not scored & ({each.prompt for each in data.labelled} | {prompt for prompt, _ in data.conversations})
    examples = made_of.examples(data)
    assert {each.half for each in examples} == {0, 1} and not scored & {each.prompt for each in examples}
    # The wordings that are scored; those that stand before the miniature's answers are stock phrases, which it has too.
    texts = [text for kind in ("disclaimed", "refusals") for text in benchmark.TEXTS["held"][kind]]
    wordings = [part.strip() for text in texts for part in text.split("{p}") if len(part.split()) > 3]
    everything = "\n".join(each.answer for each in examples)
    assert len(wordings) > 8 and not [wording for wording in wordings if wording in everything]


@pytest.mark.skipif(not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets")
def test_what_is_left_out_is_in_no_example(modules):
    _, made_of = modules
    labelled = tuple(made_of.labelled_answers(None))
    data = made_of.Data(labelled=labelled, general={}, pool=[], conversations=[])
    kept = [{each.prompt for each in made_of.without(data, part).labelled} for part in (0, 1)]
    assert not kept[0] & kept[1] and kept[0] | kept[1] == {each.prompt for each in labelled}
    assert min(map(len, kept)) > 300
