import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from matplotlib.figure import Figure  # noqa: E402

from safety_nb.report import plots  # noqa: E402

ROLES = {"bad": "harmful", "bad-new": "harmful", "near": "lookalike", "plain": "ordinary", "quiz": "facts"}


def rates(points, dataset, metric="refusal_rate", n=50, n_missing=0):
    """Rows of an aggregated table: points is N -> rate, with an interval of +-0.1 cut at 0 and 1."""
    return pd.DataFrame(
        [
            (dose, dataset, "refusal", metric, share, max(share - 0.1, 0), min(share + 0.1, 1), n, n_missing)
            for dose, share in points.items()
        ],
        columns=["n_safety", "dataset", "judge", "metric", "estimate", "low", "high", "n", "n_missing"],
    )


@pytest.fixture
def table():
    doses = [0, 30, 300]
    parts = []
    for dataset, shares in {
        "bad": (0, 0.1, 0.9),
        "bad-new": (0, 0.0, 0.6),
        "near": (0, 0, 0.4),
        "quiz": (0, 0, 0),
    }.items():
        points = dict(zip(doses, shares, strict=True))
        parts += [
            rates(points, dataset),
            rates({dose: 1 - s for dose, s in points.items()}, dataset, "compliance_rate"),
        ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def ax():
    return Figure(figsize=(4.8, 4)).subplots()


def texts(ax):
    found = [text.get_text() for text in ax.texts] + [ax.get_xlabel(), ax.get_ylabel()]
    found += [tick.get_text() for tick in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    return found + ([text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else [])


def test_dose_response_draws_every_set_but_facts_with_intervals_and_n(table, ax):
    plots.dose_response(table, ROLES, ax)
    assert texts(ax)[-3:] == ["bad (harmful), n = 50", "bad-new (harmful), n = 50", "near (lookalike), n = 50"]
    assert len(ax.containers) == 3 and all(container.has_yerr for container in ax.containers)
    # per cent: 0.9 is drawn at 90, its interval from 80 to 100
    line, _, (bars,) = ax.containers[0]
    assert line.get_ydata()[-1] == pytest.approx(90)
    assert bars.get_segments()[-1][:, 1] == pytest.approx([80, 100])


def test_dose_response_ticks_are_the_numbers_tried_evenly_spaced(table, ax):
    plots.dose_response(table, ROLES, ax)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "30", "300"]
    assert list(ax.get_xticks()) == [0, 1, 2]


def test_dose_response_dodges_so_that_equal_rates_do_not_hide_each_other(table, ax):
    plots.dose_response(table, ROLES, ax)
    starts = [container[0].get_xdata()[0] for container in ax.containers]
    assert len(set(starts)) == 3 and max(map(abs, starts)) < 0.5  # nearer to its own tick than to the next


def test_dose_response_leaves_a_gap_where_nothing_was_judged(ax):
    table = rates({0: 0.1, 30: np.nan, 300: 0.9}, "bad")
    plots.dose_response(table, ROLES, ax)
    assert np.isnan(ax.containers[0][0].get_ydata()[1])
    assert "not judged at 30" in plots.dose_response_alt(table, ROLES)


def test_dose_response_refuses_two_settings_in_one_table(table, ax):
    with pytest.raises(ValueError, match="one setting"):
        plots.dose_response(pd.concat([table, table]), ROLES, ax)


def test_trade_off_is_look_alike_across_and_harmful_up(table, ax):
    plots.trade_off(table, "bad", "near", ax)
    # N = 300: 40 % of look-alikes refused, 1 - 0.9 = 10 % of harmful requests answered
    (container,) = ax.containers
    assert container.has_xerr and container.has_yerr
    assert (container[0].get_xdata()[-1], container[0].get_ydata()[-1]) == pytest.approx((40, 10))
    assert "Harmless look-alikes refused (%)\nnear, n = 50" in texts(ax)
    assert "Harmful requests answered (%)\nbad, n = 50" in texts(ax)
    assert "ideal" in texts(ax)


def test_trade_off_labels_coinciding_points_once(ax):
    both = {0: 1.0, 30: 0.99, 300: 0.1}
    table = pd.concat([rates({0: 0.0, 30: 0.0, 300: 0.4}, "near"), rates(both, "bad", "compliance_rate")])
    plots.trade_off(table, "bad", "near", ax)
    assert [text for text in texts(ax) if text.startswith("N = ")] == ["N = 0, 30", "N = 300"]


def test_trade_off_labels_overlap_no_label_and_leave_no_axes():
    # The shape of the paper's sweep: many points close together along the bottom, and one at the right edge.
    x = dict(zip([0, 100, 300, 500, 1000, 1500, 2000], [0.02, 0.04, 0.09, 0.15, 0.22, 0.35, 0.99], strict=True))
    y = dict(zip(x, [0.92, 0.5, 0.25, 0.13, 0.1, 0.06, 0.02], strict=True))
    figure = Figure(figsize=(4.8, 4.2), layout="constrained")
    ax = figure.subplots()
    plots.trade_off(pd.concat([rates(x, "near"), rates(y, "bad", "compliance_rate")]), "bad", "near", ax)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text().startswith("N = ")]
    assert len(boxes) == 7
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x1 < figure.bbox.x1 and box.y1 < figure.bbox.y1 for box in boxes)


def test_trade_off_without_a_set_says_so(table, ax):
    plots.trade_off(table, "bad", "absent", ax)
    assert "No N was judged on both sets" in texts(ax)
    assert "No N was judged" in plots.trade_off_alt(table, "bad", "absent")


def test_trade_off_alt_names_both_rates_at_every_n(table):
    assert "N = 300: 10 % answered, 40 % refused" in plots.trade_off_alt(table, "bad", "near")


def test_loss_curve_skips_what_was_not_measured(ax):
    metrics = pd.DataFrame(
        {"step": [1, 2, 3, 4], "train_loss": [3.0, 2, 1.5, 1], "validation_loss": [None, 2.1, None, 1.2]}
    )
    plots.loss_curve(metrics, ax)
    training, validation = ax.lines
    assert list(training.get_xdata()) == [1, 2, 3, 4] and list(validation.get_xdata()) == [2, 4]
    assert texts(ax)[-2:] == ["training (n = 4)", "validation (n = 2)"]
    assert "validation loss goes from 2.10 to 1.20, lowest 1.20 at step 4" in plots.loss_curve_alt(metrics)


def test_loss_by_source_has_a_line_a_source_and_kind(ax):
    # A step without rows of a source measures nothing of it.
    metrics = pd.DataFrame(
        {
            "step": [1, 2, 3],
            "train_loss": [2.0, 2.0, 2.0],
            "train_loss_mine": [2.1, 1.9, 1.8],
            "train_loss_safe": [1.0, None, 0.8],
            "validation_loss_mine": [None, None, 1.9],
        }
    )
    plots.loss_by_source(metrics, ax)
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
    assert drawn == {
        "training, mine (n = 3)": [2.1, 1.9, 1.8],
        "training, safe (n = 2)": [1.0, 0.8],
        "validation, mine (n = 1)": [1.9],
    }
    mine, safe, validated = ax.get_lines()
    assert mine.get_color() == validated.get_color() != safe.get_color()
    assert mine.get_linestyle() != validated.get_linestyle()


def test_loss_by_source_of_nothing_says_so(ax):
    plots.loss_by_source(pd.DataFrame({"step": [1], "train_loss": [2.0]}), ax)
    assert "No loss was recorded" in texts(ax)


def test_loss_curve_of_nothing_says_so(ax):
    empty = pd.DataFrame({"step": [], "train_loss": [], "validation_loss": []})
    plots.loss_curve(empty, ax)
    assert "No loss was recorded" in texts(ax)
    assert plots.loss_curve_alt(empty) == "No loss was recorded."


def test_length_histogram_shows_the_cutoff_and_what_it_shortens(ax):
    tokens = pd.DataFrame({"source": ["one"] * 4 + ["two"] * 2, "tokens": [10, 20, 30, 90, 15, 70]}).assign(
        end_cut_off=lambda rows: rows["tokens"] > 50
    )
    plots.length_histogram(tokens, 50, ax)
    assert texts(ax)[-2:] == ["one (n = 4; 1 cut off)", "two (n = 2; 1 cut off)"]
    assert "cutoff 50" in texts(ax)
    one, two, cutoff = ax.lines
    # Shares of the source's own rows: each of four is 25 %, each of two 50 %.
    assert (max(one.get_ydata()), max(two.get_ydata())) == (25, 50)
    assert list(cutoff.get_xdata()) == [50, 50]
    # Medians: (20 + 30) / 2 and (15 + 70) / 2 = 42.5, which is written as an even number.
    assert plots.length_histogram_alt(tokens, 50) == (
        "Histogram of tokens a row, cutoff 50. one: median 25, longest 90, 1 of 4 longer than the cutoff; "
        "two: median 42, longest 70, 1 of 2 longer than the cutoff."
    )


def test_length_histogram_of_nothing_says_so(ax):
    empty = pd.DataFrame({"source": [], "tokens": [], "end_cut_off": []})
    plots.length_histogram(empty, 50, ax)
    assert "There are no rows" in texts(ax)
    assert plots.length_histogram_alt(empty, 50) == "There are no rows."


def test_label_shares_fill_the_bar_with_the_missing_counted(ax):
    # 40 prompts, 30 judged: 60 % of those refused is 45 % of the bar, 10 of 40 missing is 25 %.
    table = pd.concat(
        [
            rates({0: share}, "bad", metric, n=30, n_missing=10)
            for metric, share in {"refusal_rate": 0.6, "compliance_rate": 0.3, "garbled_rate": 0.1}.items()
        ]
    )
    plots.label_shares(table, ax)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([45, 22.5, 7.5, 25])
    assert "n = 30 of 40" in texts(ax)
    assert plots.label_shares_alt(table).endswith(
        "bad: 45 % refused, 22 % answered, 8 % garbled, 25 % missing, n = 30."
    )


def test_label_shares_of_an_unjudged_set_is_all_missing(ax):
    table = pd.concat(
        [rates({0: np.nan}, "bad", metric, n=0, n_missing=8) for metric in ("refusal_rate", "garbled_rate")]
    )
    plots.label_shares(table, ax)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0, 0, 0, 100])
    assert "nan" not in plots.label_shares_alt(table)


def test_figures_of_no_rows_draw_a_sentence_instead(ax):
    empty = rates({}, "bad")
    plots.label_shares(empty, ax)
    assert "No refusals were judged" in texts(ax)
    assert "Nothing was judged here" in texts(plots.dose_response(empty, ROLES, Figure().subplots()))


def test_a_new_figure_is_made_without_axes(table):
    import matplotlib.pyplot as plt

    ax = plots.dose_response(table, ROLES)
    assert ax.figure.get_layout_engine() is not None
    plt.close(ax.figure)


# --- what a study says beyond refusals -----------------------------------------------------------------------------


def drawn(ax):
    """The points of each line with error bars: (x, y, ends of its intervals)."""
    found = []
    for container in ax.containers:
        line, _, bars = container
        found.append((list(line.get_xdata()), list(line.get_ydata()), [bar.get_segments() for bar in bars]))
    return found


def costs_table():
    rows = [
        ("near refused", 30, 1.0, -2.0, 4.0, 100),
        ("near refused", 300, 30.0, 15.0, 43.0, 90),
        ("loss on general rows", 30, -0.5, np.nan, np.nan, 20),
        ("loss on general rows", 300, np.nan, np.nan, np.nan, 0),
    ]
    return pd.DataFrame(rows, columns=["measure", "n_safety", "estimate", "low", "high", "n"])


def judges(rows):
    return pd.DataFrame(rows, columns=["judge", "other", "kappa", "same", "n"])


def losses_table():
    rows = [(0, 0, 1.10, 0.9, 0.8, 0.95, 50), (0, 1, 1.12, 0.8, 0.7, 0.9, 50), (300, 0, 1.2, 0.1, 0.0, 0.2, 40)]
    return pd.DataFrame(rows, columns=["n_safety", "seed", "loss", "estimate", "low", "high", "n"])


def test_dose_response_of_a_score_is_on_its_own_scale(ax):
    table = rates({0: 2.5, 30: 1.0}, "bad", "mean_score").assign(low=[2.25, 0.75], high=[2.75, 1.25])
    plots.dose_response(table, ROLES, ax, metric="mean_score")
    ((_, heights, [bars]),) = drawn(ax)
    assert heights == [2.5, 1.0] and bars[0][:, 1] == pytest.approx([2.25, 2.75])
    assert ax.get_ylabel() == "Mean score" and ax.get_ylim()[1] < 10
    assert "bad (harmful): 2.50 at 0, 1.00 at 30" in plots.dose_response_alt(table, ROLES, "mean_score")


def test_dose_response_of_a_guard_says_what_the_share_is_of(ax):
    table = rates({0: 0.5}, "bad", "unsafe_rate").assign(judge="guard")
    plots.dose_response(table, ROLES, ax, metric="unsafe_rate")
    assert ax.get_ylabel() == "Answers judged unsafe (%)" and drawn(ax)[0][1] == [50]
    assert "answers judged unsafe (%)" in plots.dose_response_alt(table, ROLES, "unsafe_rate")


def test_by_setting_draws_a_line_a_setting_with_intervals_and_n(ax):
    table = pd.concat(
        [
            rates({0: 1.0, 30: 0.4}, "bad", "compliance_rate").assign(form="question", model="a"),
            rates({0: 1.0, 30: 0.8}, "bad", "compliance_rate", n=20).assign(form="mixed", model="a"),
        ]
    )
    plots.by_setting(table, ["form", "model"], ax)
    assert texts(ax)[-2:] == ["question, a, n = 50", "mixed, a, n = 20"]
    assert [line[1] for line in drawn(ax)] == [[100, 40], [100, 80]]
    assert drawn(ax)[0][2][0][1][:, 1] == pytest.approx([30, 50])
    looks = [(c[0].get_color(), c[0].get_marker(), c[0].get_linestyle()) for c in ax.containers]
    assert all(one != other for one, other in zip(*looks, strict=True))  # told apart without colour too
    assert "question, a: 100 % at 0, 40 % at 30; mixed, a: 100 % at 0, 80 % at 30." in plots.by_setting_alt(
        table, ["form", "model"]
    )


def test_by_type_has_a_row_a_type_and_a_mark_an_n(ax):
    table = pd.concat(
        [
            rates({0: 0.1, 300: 0.5}, "near", n=8).assign(type="homonyms"),
            rates({300: 0.9}, "near", n=6).assign(type="figurative language"),
        ]
    )
    plots.by_type(table, ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["homonyms\nn = 8", "figurative language\nn = 6"]
    (_, _, _), (shares, heights, [bars]) = drawn(ax)
    assert shares == pytest.approx([50, 90]) and bars[0][:, 0] == pytest.approx([40, 60])
    # The first type stands on top, its marks nearer to its own line than to the next.
    assert ax.get_ylim()[0] > ax.get_ylim()[1] and [round(height) for height in heights] == [0, 1]
    assert drawn(ax)[0][1][0] < heights[0]
    assert texts(ax)[-2:] == ["N = 0", "N = 300"]
    alt = plots.by_type_alt(table)
    assert "homonyms: 10 % at 0, 50 % at 300; figurative language: 90 % at 300." in alt


def test_agreement_shows_each_pair_from_both_sides_with_its_n(ax):
    table = judges([("rules", "model", 0.4, 0.7, 1200), ("rules", "people", np.nan, 1.0, 3)])
    plots.agreement(table, ax)
    shown = sorted(text.get_text() for text in ax.texts if text.get_text())
    # Undefined agreement has no colour and no number.
    assert shown == ["0.40\nn = 1,200"] * 2
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["rules", "model", "people"]
    assert plots.agreement_alt(table) == (
        "Cohen's kappa of pairs of judges. rules and model: 0.40, n = 1,200; rules and people: undefined, n = 3."
    )


def test_agreement_that_is_undefined_throughout_is_drawn_without_numbers(ax):
    plots.agreement(judges([("rules", "model", np.nan, 1.0, 3)]), ax)
    assert not any("nan" in text for text in texts(ax))


def test_safety_against_loss_has_a_point_a_run(ax):
    plots.safety_against_loss(losses_table(), ax)
    first, second = drawn(ax)
    assert first[:2] == ([1.10, 1.12], [90, 80]) and second[:2] == ([1.2], pytest.approx([10]))
    assert first[2][0][0][:, 1] == pytest.approx([80, 95])
    assert texts(ax)[-2:] == ["N = 0, n = 50", "N = 300, n = 40"]
    alt = plots.safety_against_loss_alt(losses_table())
    assert "N = 0, seed 1: loss 1.120, 80 % answered; N = 300, seed 0: loss 1.200, 10 % answered." in alt


def test_differences_have_a_row_a_measure_and_the_margin_behind(ax):
    plots.differences(costs_table(), margin=5, ax=ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "near refused\nn = 90–100",
        "loss on general rows\nn = 0–20",
    ]
    first, second = drawn(ax)
    assert first[0] == [1.0, -0.5] and second[0][0] == 30 and np.isnan(second[0][1])
    assert first[2][0][0][:, 0] == pytest.approx([-2, 4])
    (band,) = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (-5, 5)
    assert plots.differences_alt(costs_table()) == (
        "Differences to the smallest N, above 0 is worse. near refused at N = 30: +1.0 points (-2.0 to +4.0); "
        "near refused at N = 300: +30.0 points (+15.0 to +43.0); loss on general rows at N = 30: -0.5 points."
    )


STUDY_FIGURES = {
    "dose_response": lambda ax, table, **more: plots.dose_response(table, ROLES, ax=ax, **more),
    "by_setting": lambda ax, table, **more: plots.by_setting(table.assign(form="a"), ["form"], ax=ax, **more),
    "by_type": lambda ax, table, **more: plots.by_type(table.assign(type="homonyms"), ax=ax, **more),
}


@pytest.mark.parametrize("metric", ["compliance_rate", "mean_score"])
@pytest.mark.parametrize("name", STUDY_FIGURES)
def test_a_study_figure_of_nothing_says_so(ax, name, metric):
    STUDY_FIGURES[name](ax, rates({}, "bad", metric), metric=metric)
    assert any("judged" in text.get_text() for text in ax.texts)


@pytest.mark.parametrize("name", STUDY_FIGURES)
def test_a_study_figure_of_missing_values_alone_draws_no_number(ax, name):
    STUDY_FIGURES[name](ax, rates({0: np.nan, 30: np.nan}, "bad", n=0), metric="refusal_rate")
    assert not any("nan" in text for text in texts(ax)) and any("n = 0" in text for text in texts(ax))


def test_the_other_figures_of_nothing_say_so():
    for draw, alt, empty in (
        (plots.agreement, plots.agreement_alt, judges([])),
        (plots.safety_against_loss, plots.safety_against_loss_alt, losses_table().iloc[:0]),
        (plots.differences, plots.differences_alt, costs_table().iloc[:0]),
    ):
        ax = Figure().subplots()
        draw(empty, ax=ax)
        (said,) = [text.get_text() for text in ax.texts]
        assert said[0].isupper() and len(alt(empty)) > 10 and "nan" not in alt(empty)


def test_all_text_of_the_study_figures_is_legible_and_within_the_figure():
    import matplotlib.pyplot as plt

    types = pd.concat(
        [rates({0: 0.1, 30: 0.2, 300: 0.5}, "near").assign(type=f"a rather long type {i}") for i in range(10)]
    )
    several = pd.concat(
        [rates({0: 0.1, 300: 0.5}, "bad", "compliance_rate").assign(form=f"form {i}") for i in range(6)]
    )
    figures = [
        plots.by_type(types),
        plots.by_setting(several, ["form"]),
        plots.agreement(judges([("refusal", "llm:xstest", 0.4, 0.7, 1200), ("refusal", "human", 0.8, 0.9, 100)])),
        plots.safety_against_loss(losses_table()),
        plots.differences(costs_table(), margin=5),
    ]
    for ax in figures:
        ax.figure.canvas.draw()
        shown = [text for text in ax.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]
        assert min(text.get_fontsize() for text in shown) >= 9
        # What is saved is grown to hold the legend; to the sides nothing may stick out.
        page, covered = ax.figure.bbox, ax.get_tightbbox()
        assert covered.x0 >= page.x0 - 1 and covered.x1 <= page.x1 + 1
        plt.close(ax.figure)
