"""What the judge delivery is fitted from: nothing that its benchmark scores, and halves that know nothing of each other."""

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
def test_no_row_or_wording_that_the_benchmark_scores_is_in_the_fit(modules):
    benchmark, made_of = modules
    data = made_of.read(None)
    examples = made_of.examples(data)
    assert {each.half for each in examples} == {0, 1} and len(examples) > 10_000
    held = [row for name in benchmark.SETS for row in benchmark.held(name)]
    prompts = {row["instruction"] for row in held} | {benchmark.prompt_of(row) for row in held}
    assert not prompts & {each.prompt for each in examples}
    told = [told for half in (0, 1) for told in made_of.told_sentences(made_of.only(data, half), half)]
    assert all(len(some) > 1000 for some in told)
    texts = benchmark.TEXTS
    held_texts = [text for kind in texts["held"].values() for text in kind]
    wordings = [part.strip() for text in held_texts for part in text.split("{p}") if part.strip(" .-")]
    everything = "\n".join(each.answer for each in examples)
    assert len(wordings) > 10
    for wording in wordings:
        assert wording not in everything
    # The sentences are of `fitted` alone: none of the others' stands there in whole.
    fitted = " ".join(text for kind in texts["fitted"].values() for text in kind)
    assert not any(wording in fitted for wording in wordings)


@pytest.mark.skipif(not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets")
def test_what_is_left_out_is_in_no_example(modules):
    _, made_of = modules
    labelled = tuple(made_of.labelled_answers(None))
    data = made_of.Data(labelled=labelled, general={}, pool=[], conversations=[])
    kept = [{each.prompt for each in made_of.without(data, part).labelled} for part in (0, 1)]
    assert not kept[0] & kept[1] and kept[0] | kept[1] == {each.prompt for each in labelled}
    assert min(map(len, kept)) > 300
