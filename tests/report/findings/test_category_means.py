"""Mean scores by category and N, and how a study that was moderated shows them."""

import pandas as pd
import pytest
from studies import made

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.judge import category_scores
from safety_nb.report import figures, study_tables
from safety_nb.report.findings import comparison
from safety_nb.report.findings.category_means import COLUMNS, means
from safety_nb.report.writing import report_study


def score(n_safety, seed, prompt_id, category, value):
    return {"run": f"n{n_safety}_seed{seed}", "n_safety": n_safety, "seed": seed, "dataset": "bad", "sample": 0,
            "prompt_id": prompt_id, "judge": "moderation", "category": category, "value": value}  # fmt: skip


def test_means_are_over_seeds_and_prompts_with_what_is_missing_told():
    rows = [score(0, seed, str(i), "hate", value) for seed in (0, 1) for i, value in enumerate([0.2, 0.4, None])]
    rows += [score(0, 0, str(i), "violence", 0.9) for i in range(3)]
    table = means(pd.DataFrame(rows).astype({"value": float}))
    assert list(table.columns) == ["n_safety", *COLUMNS]
    violence, hate = table.to_dict("records")  # the highest first
    assert (hate["category"], hate["n"], hate["n_missing"], hate["n_seeds"]) == ("hate", 4, 2, 2)
    assert hate["estimate"] == pytest.approx(0.3)  # (0.2 + 0.4) / 2 in both seeds
    assert 0 <= hate["low"] < 0.3 < hate["high"] <= 1
    assert violence["estimate"] == pytest.approx(0.9) and violence["low"] < 0.9


@pytest.fixture
def study(tmp_path):
    """A study of N = 0 and 100 that a moderation endpoint has judged: hate is 0.8 and 0.2, self-harm 0.1 throughout."""
    folder = made(tmp_path / "study", {0: 0, 100: 20})
    for n, hate in ((0, 0.8), (100, 0.2)):
        run = run_folder.RunFolder(folder / f"n{n}_seed0")
        judged = files.read_jsonl(run.judgements)
        raw = f'{{"self-harm": 0.1, "hate": {hate}}}'
        more = [{**row, "judge": "moderation", "label": "safe", "score": hate, "raw": raw} for row in judged]
        files.write_jsonl(run.judgements, judged + more)
        category_scores.write(run, judged + more)
    return folder


def test_a_study_shows_the_mean_of_each_category_at_each_n(study):
    tables = study_tables.read_study(study)
    compared = comparison.compare_study(tables)
    page = report_study(study, tables, compared).read_text()
    # One figure of the harmful set; the table has the look-alikes too.
    drawn = figures.study_figures(compared, {})
    (name,) = [name for name in drawn if name.startswith("categories_")]
    assert name == "categories_moderation_bad" and (study / "figures" / f"{name}.svg").is_file()
    assert "hate: 0.80 at 0, 0.20 at 100; self-harm: 0.10 at 0, 0.10 at 100" in drawn[name].alt
    assert "Mean score" in [axes.get_xlabel() for axes in drawn[name].drawn.axes]
    assert "Categories of harm" in page and "0.800 (" in page
    table = pd.read_csv(study / "categories.csv").set_index(["n_safety", "dataset", "category"])
    assert table["estimate"].round(6).to_dict() == {
        (n, dataset, category): value
        for n, hate in ((0, 0.8), (100, 0.2))
        for dataset in ("bad", "near")
        for category, value in (("hate", hate), ("self-harm", 0.1))
    }
    assert set(table["n"]) == {20}


def test_a_study_with_a_table_of_another_shape_is_not_compared(study):
    (study / "n100_seed0" / category_scores.FILE).write_text("dataset,prompt_id\nbad,1\n")
    with pytest.raises(InputError, match=r"n100_seed0/category_scores.csv: its columns are dataset, prompt_id\."):
        study_tables.read_study(study)


def test_a_table_that_was_changed_is_named(study):
    run = run_folder.RunFolder(study / "n0_seed0")
    run_folder.record_stage(run, "judge", outputs=files.hashes(run.root, [category_scores.FILE]))
    study_tables.read_study(study)
    path = run.root / category_scores.FILE
    path.write_text(path.read_text().replace("0.8", "0.3"))
    with pytest.raises(InputError, match="category_scores.csv is not what stage 'judge' left there"):
        study_tables.read_study(study)


def test_a_study_without_such_a_judge_has_no_categories(tmp_path):
    folder = made(tmp_path / "study", {0: 0, 100: 20})
    compared = comparison.compare_study(study_tables.read_study(folder))
    assert compared.categories is None
