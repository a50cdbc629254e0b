"""Correction by prediction-powered inference: values, what it refuses to claim, and how often its interval is right."""

import numpy as np
import pytest

from safety_nb.stats.prediction_powered import FEWEST_LABELLED, corrected_mean


def answers(rng, n, rate, finds, false_alarms):
    """What people say of n answers, and a judge that finds ``finds`` of the true ones and invents some."""
    human = rng.random(n) < rate
    judge = np.where(human, rng.random(n) < finds, rng.random(n) < false_alarms)
    return human.astype(float), judge.astype(float)


def test_value_by_hand():
    # 24 labelled: people and judge both true 8, only people 4, both false 12; 72 without, of which 24 judged true.
    # Weight: covariance 8/24 - 12/24 * 8/24 = 1/6; variance of all 96 judgements (32 true) 96/95 * 2/9;
    # weight = 1/6 / (96/95 * 2/9) / (1 + 24/72) = 95/128 * 3/4. Estimate: 1/2 + weight * (24/72 - 8/24) = 1/2.
    human, judge = [1.0] * 12 + [0.0] * 12, [1.0] * 8 + [0.0] * 16
    found = corrected_mean(human, judge, [1.0] * 24 + [0.0] * 48)
    assert found.weight == pytest.approx(95 / 128 * 3 / 4)
    assert found.estimate.estimate == pytest.approx(0.5)
    # With 36 of the 72 judged true: the variance is that of 44 of 96, and the estimate goes up by weight * (1/2 - 1/3).
    found = corrected_mean(human, judge, [1.0] * 36 + [0.0] * 36)
    weight = 1 / 6 / (96 / 95 * (44 / 96) * (52 / 96)) / (4 / 3)
    assert found.weight == pytest.approx(weight)
    assert found.estimate.estimate == pytest.approx(0.5 + weight / 6)


def test_interval_by_hand():
    # Every label is the judge's, which gives weight w; the errors are then 1 - w (10 times), 0 (10 times), and the two
    # that are added, 1 and -w. Beside their variance stands that of the judge's rate over 40 more, w² (1/2 · 1/2) / 40.
    human = judge = [1.0] * 10 + [0.0] * 10
    found = corrected_mean(human, judge, [1.0, 0.0] * 20)
    w = found.weight
    errors = [1 - w] * 10 + [0.0] * 10 + [1.0, -w]
    half = 1.959964 * (w**2 / 160 + np.var(errors, ddof=1) / 22) ** 0.5
    centre = w / 2 + np.mean(errors)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_value_of_the_authors_package():
    # ppi_mean_pointestimate of ppi-python 0.2.3, on the answers drawn here.
    human, judge = answers(np.random.default_rng(7), 400, 0.4, 0.8, 0.1)
    found = corrected_mean(human[:100], judge[:100], judge[100:])
    assert found.estimate.estimate == pytest.approx(0.3891800673331449, abs=1e-12)


def test_a_biased_judge_is_corrected():
    # It misses 40 % of the refusals: of 30 % it sees 18 %.
    human, judge = answers(np.random.default_rng(0), 20_000, 0.3, 0.6, 0.0)
    assert judge.mean() == pytest.approx(0.18, abs=0.01)
    found = corrected_mean(human[:2000], judge[:2000], judge[2000:]).estimate
    assert found.low < 0.3 < found.high and found.low > 0.25


def test_a_good_judge_shortens_the_interval_and_a_useless_one_does_no_harm():
    rng = np.random.default_rng(1)
    human, good = answers(rng, 2000, 0.4, 0.97, 0.02)
    useless = (rng.random(2000) < 0.5).astype(float)
    widths = []
    for judge in (good, useless, np.zeros(2000)):
        found = corrected_mean(human[:100], judge[:100], judge[100:])
        widths.append(found.estimate.high - found.estimate.low)
    assert widths[0] < 0.5 * widths[2]
    assert widths[1] < 1.1 * widths[2]
    assert found.weight == 0 and found.estimate.estimate == pytest.approx(human[:100].mean())


@pytest.mark.parametrize(
    ("total", "labelled", "rate", "finds", "false_alarms"),
    [(450, 100, 0.3, 0.9, 0.1), (450, 100, 0.5, 0.6, 0.05), (250, 50, 0.4, 0.9, 0.15), (1000, 100, 0.1, 0.95, 0.05)],
)
def test_coverage(total, labelled, rate, finds, false_alarms):
    rng, draws = np.random.default_rng(2), 4000  # the standard error of the share is then 0.3 %
    covered = 0
    for _ in range(draws):
        human, judge = answers(rng, total, rate, finds, false_alarms)
        found = corrected_mean(human[:labelled], judge[:labelled], judge[labelled:]).estimate
        covered += found.low <= rate <= found.high
    assert 0.93 <= covered / draws <= 0.97


@pytest.mark.parametrize(("rate", "finds", "false_alarms"), [(0.02, 0.9, 0.02), (0.95, 1.0, 0.0), (0.0, 1.0, 0.02)])
def test_rare_errors_are_no_certainty(rate, finds, false_alarms):
    # Where labels show no or hardly an error, the normal interval of the paper covers 83 to 87 %.
    rng, draws, covered = np.random.default_rng(3), 1000, 0
    for _ in range(draws):
        human, judge = answers(rng, 450, rate, finds, false_alarms)
        found = corrected_mean(human[:100], judge[:100], judge[100:]).estimate
        covered += found.low <= rate <= found.high
    assert covered / draws >= 0.95


def test_people_and_judge_who_never_differ_leave_a_width():
    found = corrected_mean([1.0] * 15 + [0.0] * 15, [1.0] * 15 + [0.0] * 15, [1.0] * 50 + [0.0] * 50).estimate
    assert found.estimate == 0.5 and found.high - found.low > 0.1
    nothing = corrected_mean([0.0] * 30, [0.0] * 30, [0.0] * 100).estimate
    assert (nothing.estimate, nothing.low) == (0, 0) and 0.02 < nothing.high < 0.2


def test_where_all_are_labelled_the_rate_is_peoples():
    found = corrected_mean([1.0] * 20 + [0.0] * 20, [1.0] * 40, [])
    assert found.estimate.estimate == 0.5 and found.weight == 0


def test_too_few_labels_give_no_rate():
    few = corrected_mean([1.0] * (FEWEST_LABELLED - 1), [1.0] * (FEWEST_LABELLED - 1), [1.0] * 100)
    assert np.isnan([few.estimate.estimate, few.estimate.low, few.estimate.high]).all()
    assert few.estimate.n == FEWEST_LABELLED - 1
    enough = corrected_mean([1.0] * FEWEST_LABELLED, [1.0] * FEWEST_LABELLED, [1.0] * 100)
    assert enough.estimate.estimate == 1


@pytest.mark.parametrize(
    "values", [([1.0], [], []), ([2.0] * 30, [1.0] * 30, [1.0]), ([1.0] * 30, [1.0] * 30, [float("nan")])]
)
def test_what_is_no_rate_is_refused(values):
    with pytest.raises(ValueError):
        corrected_mean(*values)


# Scores


def test_a_score_is_corrected_as_a_rate_is_on_its_scale():
    human, judge = answers(np.random.default_rng(7), 400, 0.4, 0.8, 0.1)
    rate = corrected_mean(human[:100], judge[:100], judge[100:])
    score = corrected_mean(1 + 4 * human[:100], 1 + 4 * judge[:100], 1 + 4 * judge[100:], (1, 5))
    assert score.weight == pytest.approx(rate.weight)
    for name in ("estimate", "low", "high"):
        assert getattr(score.estimate, name) == pytest.approx(1 + 4 * getattr(rate.estimate, name))


def test_score_by_hand():
    # Scores 0 to 4; the judge is 1 too high throughout, so its covariance with people is the variance of theirs, 5/4;
    # the variance of its 60 scores, 15 each of 1 to 4, is 60/59 * 5/4: weight = 59/60 / (1 + 20/40).
    human = [0.0, 1.0, 2.0, 3.0] * 5
    found = corrected_mean(human, [score + 1 for score in human], [1.0, 2.0, 3.0, 4.0] * 10, (0, 4))
    w = 59 / 60 / 1.5
    assert found.weight == pytest.approx(w) and found.estimate.estimate == pytest.approx(1.5)
    # As if two more were labelled: 4 by people and 0 by the judge, and the other way round.
    errors = [score - w * (score + 1) for score in human] + [4.0, -4 * w]
    half = 1.959964 * (w**2 * 1.25 / 40 + np.var(errors, ddof=1) / 22) ** 0.5
    centre = w * 2.5 + np.mean(errors)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize("shares", [[0.3, 0.2, 0.2, 0.2, 0.1], [0.85, 0.08, 0.04, 0.02, 0.01], [0.97, 0, 0, 0, 0.03]])
def test_coverage_of_scores(shares):
    # The mean of people's hundred scores alone, with a normal interval, covers 94, 93 and 81 %.
    rng, draws, truth, covered = np.random.default_rng(4), 1000, np.dot(shares, range(5)), 0
    for _ in range(draws):
        human = rng.choice(5, size=450, p=shares).astype(float)
        judge = np.clip(human + rng.normal(0.4, 0.6, 450), 0, 4)
        found = corrected_mean(human[:100], judge[:100], judge[100:], (0, 4)).estimate
        covered += found.low <= truth <= found.high
    assert covered / draws >= 0.945


@pytest.mark.parametrize("wrong", [4.1, -0.1, float("nan")])
def test_scores_beyond_their_bounds_are_refused(wrong):
    for place in range(3):
        values = [[2.0] * 30, [2.0] * 30, [2.0] * 30]
        values[place][0] = wrong
        with pytest.raises(ValueError, match="from 0 to 4"):
            corrected_mean(*values, (0, 4))
