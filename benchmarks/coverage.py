"""How often the intervals of the statistics hold what they promise, by simulation.

Answers are drawn from a model with prompts that are easy or hard, seeds that are lax or strict, and noise: the log odds
of an answer are a constant, plus a normal number for the prompt, one for the seed and one for the answer. The true rate
is known by quadrature, so it can be counted how often a nominal 95 % interval holds it (it should in 93 to 97 %), and
how often a test finds a difference that is not there (it should in 5 % at most).

    python benchmarks/coverage.py [--rounds 2000] [--json FILE]
    python benchmarks/coverage.py --enough [--rounds 200] [--json FILE]     of the model of sets, seeds and prompts
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations_with_replacement

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binom, multinomial, norm

from safety_nb.stats import dose, estimates, hierarchical, paired

PROMPTS, CELLS = 2.0, 0.7  # standard deviations of prompts and of single answers, in log odds
POINTS, WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
PAIRS = list(combinations_with_replacement((0.5, 0.3, 0.2, 0.1, 0.05, 0.02), 2))  # of rates, the second not higher
FALLING = [pair for pair in PAIRS if pair[0] > pair[1]]


@dataclass(frozen=True)
class Row:
    """One line of the result: what was asked of the interval, in which setting, how often it held, its mean width.

    `usual` marks the settings in which the statistics promise 93 to 97 %.
    """

    what: str
    setting: str
    percent: float
    low_percent: float
    high_percent: float
    width: float
    usual: bool = False


@dataclass(frozen=True)
class Setting:
    """Seeds and prompts of a simulated study; `seeds_sd` in log odds, `missing` a share of the answers."""

    n_prompts: int
    n_seeds: int
    rate: float
    seeds_sd: float
    missing: float = 0.0

    def __str__(self) -> str:
        seeds = f"{self.n_seeds} seeds of sd {self.seeds_sd:g}" if self.n_seeds > 1 else "1 seed"
        gaps = f", {self.missing:.0%} missing" if self.missing else ""
        return f"{self.n_prompts} prompts, {seeds}, rate {self.rate:g}{gaps}"


def constant(rate: float, seeds_sd: float) -> float:
    """The constant of the log odds at which the mean rate is `rate`."""
    spread = math.sqrt(PROMPTS**2 + seeds_sd**2 + CELLS**2)
    return brentq(lambda at: float(expit(at + spread * POINTS) @ WEIGHTS) - rate, -40, 40)


def answers(setting: Setting, rates: list[float], rng: np.random.Generator) -> list[np.ndarray]:
    """For each rate the answers of models trained anew to the same prompts: 1.0, 0.0 or nan, seeds x prompts."""
    shape = setting.n_seeds, setting.n_prompts
    prompts = PROMPTS * rng.standard_normal((1, setting.n_prompts))
    found = []
    for rate in rates:
        seeds = setting.seeds_sd * rng.standard_normal((setting.n_seeds, 1))
        odds = constant(rate, setting.seeds_sd) + prompts + seeds + CELLS * rng.standard_normal(shape)
        values = (rng.random(shape) < expit(odds)).astype(float)
        found.append(np.where(rng.random(shape) < setting.missing, np.nan, values))
    return found


def counted(what: str, setting: object, rounds: int, once: Callable[[np.random.Generator], tuple[bool, float]]) -> Row:
    """How often something held in so many rounds, each with a generator of its own."""
    held, widths = zip(*(once(np.random.default_rng([round_, 7])) for round_ in range(rounds)), strict=True)
    low, high = (
        estimates.rate([bool(value) for value in held]).low,
        estimates.rate([bool(value) for value in held]).high,
    )
    return Row(what, str(setting), 100 * float(np.mean(held)), 100 * low, 100 * high, float(np.mean(widths)))


def holds(estimate: estimates.Estimate, truth: float) -> tuple[bool, float]:
    return estimate.low <= truth <= estimate.high, estimate.high - estimate.low


def of_wilson(n: int) -> Row:
    """Wilson's interval for n independent answers, exactly: the mean over rates from 0.05 to 0.95, least and most."""
    ends = [estimates.rate([True] * count + [False] * (n - count)) for count in range(n + 1)]
    low, high = np.array([end.low for end in ends]), np.array([end.high for end in ends])
    rates = np.linspace(0.05, 0.95, 181)
    held = [float(binom.pmf(np.arange(n + 1), n, rate)[(low <= rate) & (rate <= high)].sum()) for rate in rates]
    spread = 100 * min(held), 100 * max(held)
    return Row("Wilson, exact", f"{n} answers, rates 0.05 to 0.95", 100 * float(np.mean(held)), *spread, np.nan)


def shares_changed(first: float, second: float) -> tuple[float, float]:
    """The shares of prompts that become false, and true, between one model of each rate."""
    noise = PROMPTS * POINTS[:, None] + CELLS * POINTS
    one, other = (expit(constant(rate, 0) + noise) @ WEIGHTS for rate in (first, second))  # of each prompt
    return float((one * (1 - other)) @ WEIGHTS), float(((1 - one) * other) @ WEIGHTS)


def of_one_seed(n: int, pairs: Sequence[tuple[float, float]], one_way: bool = False) -> Row:
    """The interval of a difference with one seed, exactly: the mean over pairs of rates, least and most.

    Args:
        n: Prompts.
        pairs: The two rates.
        one_way: No prompt changes against the difference, as where an N ends what the other did.
    """
    counts = [(lost, won, n - lost - won) for lost in range(n + 1) for won in range(n + 1 - lost)]
    found = [paired.difference([np.repeat([1.0, 0, 0], c)], [np.repeat([0.0, 1, 0], c)]) for c in counts]
    low, high = np.array([(each.low, each.high) for each in found]).T
    held, widths = [], []
    for first, second in pairs:
        lost, won = (first - second, 0.0) if one_way else shares_changed(first, second)
        chance = multinomial.pmf(counts, n, (lost, won, 1 - lost - won))
        held.append(100 * float(chance[(low <= second - first) & (second - first <= high)].sum()))
        widths.append(float(chance @ (high - low)))
    shown = "rates 0.02 to 0.5" if len(pairs) > 1 else "rate {:g} and {:g}".format(*pairs[0])
    setting = f"{n} prompts, 1 seed, {shown}{', all changes one way' if one_way else ''}"
    return Row("difference, exact", setting, float(np.mean(held)), min(held), max(held), float(np.mean(widths)))


def of_rate(setting: Setting, rounds: int) -> Row:
    """The interval of a rate over prompts and seeds."""

    def once(rng: np.random.Generator) -> tuple[bool, float]:
        return holds(estimates.mean_over_seeds(answers(setting, [setting.rate], rng)[0]), setting.rate)

    return counted("rate", setting, rounds, once)


def of_score(setting: Setting, rounds: int) -> Row:
    """The interval of a mean score of 0 to 4: five classes of a normal number, cut at -0.5, 0.5, 1 and 1.5."""
    cuts, spread = (-0.5, 0.5, 1.0, 1.5), math.sqrt(1 + setting.seeds_sd**2 + 0.5**2)
    truth = float(sum(norm.sf(cut / spread) for cut in cuts))

    def once(rng: np.random.Generator) -> tuple[bool, float]:
        shape = setting.n_seeds, setting.n_prompts
        level = rng.standard_normal((1, setting.n_prompts)) + setting.seeds_sd * rng.standard_normal(
            (setting.n_seeds, 1)
        )
        score = np.searchsorted(cuts, level + 0.5 * rng.standard_normal(shape)).astype(float)
        return holds(estimates.mean_over_seeds(score, bounds=(0, 4)), truth)

    shown = f"{setting.n_prompts} prompts, {setting.n_seeds} seeds of sd {setting.seeds_sd:g}"
    return counted("score 0 to 4", shown, rounds, once)


def of_difference(setting: Setting, other: float, rounds: int) -> Row:
    """The interval of the difference between two N over the same prompts."""

    def once(rng: np.random.Generator) -> tuple[bool, float]:
        return holds(paired.difference(*answers(setting, [setting.rate, other], rng)), other - setting.rate)

    return counted("difference", f"{setting} and {other:g}", rounds, once)


def of_test(setting: Setting, name: str, rounds: int) -> Row:
    """How often two N of one rate are told apart at 5 %."""

    def once(rng: np.random.Generator) -> tuple[bool, float]:
        first, second = answers(setting, [setting.rate] * 2, rng)
        if name == "interval of the difference":
            return not holds(paired.difference(first, second), 0.0)[0], np.nan
        return paired.paired_test(first, second, resamples=999)[0] < 0.05, np.nan

    return counted(f"false alarms, {name}", setting, rounds, once)


def of_equivalence(setting: Setting, margin: float, rounds: int) -> Row:
    """How often a difference as large as the margin is called equivalent."""

    def once(rng: np.random.Generator) -> tuple[bool, float]:
        first, second = answers(setting, [setting.rate, setting.rate + margin], rng)
        return paired.equivalence(first, second, margin).verdict == "equivalent", np.nan

    return counted("false equivalence", f"{setting}, margin {margin:g}", rounds, once)


DOSES = [0, 10, 30, 100, 300, 1000, 2000]
STEEP = [0.6, 0.4, 0.2, 0.08, 0.03, 0.02, 0.02]
FLAT = [0.055] * 7  # every N just misses 5 %: the hardest case for naming one


def of_curve(setting: Setting, rates: list[float], name: str, rounds: int) -> list[Row]:
    """The band of the monotone fit at every N, and how often `smallest_n` names an N whose true rate is above 5 %."""
    rngs = [np.random.default_rng([round_, 7]) for round_ in range(rounds)]
    curves = [dose.fit(DOSES, answers(setting, rates, rng), falling=True, draws=1000) for rng in rngs]
    shown = f"{setting.n_prompts} prompts, {setting.n_seeds} seeds of sd {setting.seeds_sd:g}, {name}"
    found = []
    for index, n in enumerate(DOSES):
        held = [bool(curve.low[index] <= rates[index] <= curve.high[index]) for curve in curves]
        widths = [curve.high[index] - curve.low[index] for curve in curves]
        share = estimates.rate(held)
        values = (100 * share.estimate, 100 * share.low, 100 * share.high, float(np.mean(widths)))
        found.append(Row(f"band at N = {n}", f"{shown} (true {rates[index]:g})", *values))
    named = [dose.smallest_n(curve, 0.05).n for curve in curves]
    share = estimates.rate([n is not None and rates[DOSES.index(n)] > 0.05 for n in named])
    values = (100 * share.estimate, 100 * share.low, 100 * share.high, np.nan)
    return [*found, Row("smallest_n names an N that misses", shown, *values)]


PAPER_SETS = (100, 178, 40, 100, 100)  # prompts of the paper's harmful sets
FROM_300 = [0.6, 0.4, 0.2, 0.08, 0.02, 0.02, 0.02]  # N = 300 is the first that meets 5 %
TARGET, LIKELY = 0.05, 0.95


def study(
    rates: Sequence[float], n_seeds: int, seeds_sd: float, at_n: float, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """Answers to the paper's sets: for each set and N seeds x prompts.

    Args:
        seeds_sd: of a seed at an N, in log odds.
        at_n: the share of that variance that is of the seed at this N alone; the rest it has at every N.
    """
    spread, alone = seeds_sd * math.sqrt(1 - at_n), seeds_sd * math.sqrt(at_n)
    seeds = spread * rng.standard_normal((1, n_seeds, 1)) + alone * rng.standard_normal((len(rates), n_seeds, 1))
    levels = np.array([constant(rate, seeds_sd) for rate in rates])[:, None, None]
    found = []
    for n in PAPER_SETS:
        prompts = PROMPTS * rng.standard_normal((1, 1, n))
        odds = levels + prompts + seeds + CELLS * rng.standard_normal((len(rates), n_seeds, n))
        found.append(list((rng.random(odds.shape) < expit(odds)).astype(float)))
    return found


def of_enough(rates: list[float], name: str, n_seeds: int, seeds_sd: float, at_n: float, rounds: int) -> list[Row]:
    """How often an N is called enough by the pooled upper bound, and how often that is wrong.

    One-sided: an N is enough where 95 % of what its rate may be lie within the target.
    """
    named = []
    for round_ in range(rounds):
        sets = study(rates, n_seeds, seeds_sd, at_n, np.random.default_rng([round_, 7]))
        high = np.quantile(hierarchical.fit(DOSES, sets, falling=True, draws=1000).pooled, LIKELY, axis=0)
        named.append(next((index for index, end in enumerate(high) if end <= TARGET), None))
    first = next((index for index, rate in enumerate(rates) if rate <= TARGET), None)
    seeds = f"{n_seeds} seeds of sd {seeds_sd:g}" if n_seeds > 1 else f"1 seed of sd {seeds_sd:g}"
    setting = f"{len(PAPER_SETS)} sets, {seeds}, {at_n:.0%} of it by N, {name}"
    counts = {"a false N is enough": [at is not None and rates[at] > TARGET for at in named]}
    if first is not None:
        counts["some N is enough"] = [at is not None for at in named]
        counts["the first N that is, or its neighbour"] = [at is not None and abs(at - first) <= 1 for at in named]
    shares = {what: estimates.rate(held) for what, held in counts.items()}
    return [
        Row(what, setting, *(100 * end for end in (share.estimate, share.low, share.high)), np.nan)
        for what, share in shares.items()
    ]


def enough_rows(rounds: int) -> list[Row]:
    """Every setting of the model of sets, seeds and prompts that is reported."""
    found = []
    for n_seeds, seeds_sd, at_n in (
        *((3, 0.0, 0.5), (3, 0.5, 0.5), (3, 0.8, 0.5), (3, 0.8, 1.0), (3, 2.0, 0.5), (3, 2.0, 0.0)),
        *((5, 0.8, 0.5), (1, 0.5, 0.5), (1, 0.8, 0.5)),
    ):
        for rates, name in ((FLAT, "all just miss"), (FROM_300, "2 % from N = 300")):
            found += of_enough(rates, name, n_seeds, seeds_sd, at_n, rounds)
    return found


def rows(rounds: int) -> list[Row]:
    """Every setting of the estimates one by one that is reported."""
    found = []
    for n_prompts, rate in ((40, 0.1), (40, 0.3), (100, 0.05), (100, 0.3), (450, 0.05), (450, 0.3)):
        found += [of_rate(Setting(n_prompts, 3, rate, sd), rounds) for sd in (0, 0.2, 0.4)]
    found += [of_rate(Setting(100, 3, 0.2, 0.2, missing=0.1), rounds), of_rate(Setting(100, 5, 0.2, 0.2), rounds)]
    found += [of_score(Setting(n, 3, 0, sd), rounds) for n, sd in ((40, 0.1), (100, 0.1), (100, 0.3))]
    for n, one, other in ((100, 0.3, 0.3), (100, 0.3, 0.1), (450, 0.3, 0.1)):
        found += [of_difference(Setting(n, 3, one, sd), other, rounds) for sd in (0, 0.3)]
    found += [
        of_difference(Setting(n, 1, one, 0), other, rounds) for n, one, other in ((100, 0.3, 0.1), (40, 0.1, 0.05))
    ]
    found += [
        of_difference(Setting(n, 1, one, 0), other, rounds)
        for n, one, other in ((40, 0.3, 0.1), (100, 0.1, 0.05), (450, 0.05, 0.02))
    ]
    # Exactly, the same as one seed's above: there is no chance in these.
    found += [of_one_seed(n, [pair]) for n, pair in ((40, (0.1, 0.05)), (40, (0.3, 0.1)), (100, (0.3, 0.1)))]
    found = [replace(row, usual=True) for row in found]
    # Where it is hard: few events, seeds that differ much, two seeds.
    hard = [
        Setting(40, 3, 0.05, 0.2),
        Setting(100, 3, 0.01, 0.2),
        Setting(450, 3, 0.05, 0.8),
        Setting(450, 3, 0.3, 0.8),
    ]
    found += [of_rate(setting, rounds) for setting in [*hard, Setting(100, 2, 0.2, 0), Setting(100, 2, 0.2, 0.4)]]
    found += [of_difference(Setting(100, 3, 0.05, sd), 0.02, rounds) for sd in (0, 0.3)]
    for n in (100, 40):
        found = [of_one_seed(n, PAIRS), of_one_seed(n, FALLING, one_way=True), *found]
    found = [of_wilson(n) for n in (40, 100, 450)] + found
    few = max(rounds // 4, 1)  # these take longer
    found += [of_test(Setting(100, 1, 0.2, 0), "exact McNemar", few)]
    for sd in (0, 0.2, 0.4):
        found += [
            of_test(Setting(100, 3, 0.2, sd), name, few)
            for name in ("paired permutation", "interval of the difference")
        ]
    found += [of_equivalence(Setting(100, 3, 0.2, sd), 0.1, rounds) for sd in (0, 0.2)]
    found += [of_equivalence(Setting(100, 1, 0.2, 0), 0.1, rounds)]
    for setting, rates, name in ((Setting(100, 3, 0, 0.2), STEEP, "steep"), (Setting(100, 3, 0, 0.2), FLAT, "flat")):
        found += of_curve(setting, rates, name, few)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2000, help="simulated studies a setting")
    parser.add_argument("--enough", action="store_true", help="how often an N is rightly or wrongly called enough")
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    arguments = parser.parse_args()
    found = (enough_rows if arguments.enough else rows)(arguments.rounds)
    print("what | setting | held % (95 % interval of it; exact: least and most) | mean width")
    for row in found:
        width = "" if math.isnan(row.width) else f"{row.width:.3f}"
        print(
            f"{row.what} | {row.setting} | {row.percent:.1f} ({row.low_percent:.1f}–{row.high_percent:.1f}) | {width}"
        )
    if arguments.json:
        listed = [{key: None if value != value else value for key, value in asdict(row).items()} for row in found]
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(listed, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
