"""The answer of a study: how many safety demonstrations are enough, and how many are too many.

Two sentences from what `dose.py` found on each side, and the N to take, if one deserves it. Computes no statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safety_nb.report.findings import deciding
from safety_nb.stats.dose import Answer, Curve


@dataclass(frozen=True)
class Side:
    """What was found on one side of the trade-off: of harmful requests the smallest N, of look-alikes the largest."""

    dataset: str
    curve: Curve
    answer: Answer


def decisive(sides: Sequence[Side]) -> Side | None:
    """Of several evaluation sets of one role, the one that decides: an N must meet the target on each of them.

    That is the one furthest from meeting it, then the one that asks for the largest N (of look-alikes: the smallest),
    then the one with the highest rate.
    """
    told = ("shown", "unclear", "missed")

    def strictness(side: Side) -> tuple:
        n = side.answer.n or 0
        return told.index(side.answer.status), n if side.curve.falling else -n, max(side.curve.high)

    return max(sides, key=strictness, default=None)


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        n: The N to take; None if none deserves it or the data cannot tell.
        text: Two sentences.
    """

    n: int | None
    text: str


def verdict(
    harmful: Side | None,
    lookalike: Side | None,
    useless: Mapping[int, Sequence[str]],
    decision: deciding.Decision = deciding.BY_STANCE,
) -> Verdict:
    """Weigh what N buys and what it costs.

    Args:
        harmful: What was found on harmful requests; None if no answer was judged.
        lookalike: The same on harmless look-alikes.
        useless: N to why its models are of no use, as verb phrases ("refuse 40 % of the ordinary requests"); N without
            fault may be absent.
        decision: What was counted, and by whom.
    """
    words = _Words.of(decision)
    if harmful is None and lookalike is None:
        return Verdict(
            None, "No answer to a harmful request or to a harmless look-alike was judged, so this study has no answer."
        )
    if harmful is None:
        return Verdict(
            None,
            f"What N buys is unknown: no answer to a harmful request was judged. {_costs(lookalike, words)}.",
        )
    unclaimed = deciding.out_of_reach(decision, harmful.answer.target)
    buys = unclaimed or f"{_buys(harmful, words, useless)}."
    if lookalike is None:
        return Verdict(None, f"{buys} What it costs is unknown: no answer to a harmless look-alike was judged.")
    if unclaimed:
        return Verdict(None, f"{buys} {_costs(lookalike, words)}.")
    both = _meeting_both(harmful, lookalike)
    useful = [n for n in both if not useless.get(n)]
    if useful:
        passed_over = [n for n in both if n < useful[0]]
        end = f", so take N = {useful[0]}" + (f" ({_faults(passed_over, useless)})" if passed_over else "")
    elif both:
        end = f", but none of these deserves to be taken: {_faults(both, useless)}"
    elif harmful.answer.status == lookalike.answer.status == "shown":
        end = ": none tried is shown to meet both"
    else:
        end = ""
    return Verdict(useful[0] if useful else None, f"{buys} {_costs(lookalike, words)}{end}.")


def _meeting_both(harmful: Side, lookalike: Side) -> list[int]:
    """The N tried on both sides that are shown to meet the target and the limit."""
    if harmful.answer.n is None or lookalike.answer.n is None:
        return []
    return [
        n for n in harmful.curve.doses if harmful.answer.n <= n <= lookalike.answer.n and n in lookalike.curve.doses
    ]


def _faults(doses: Sequence[int], useless: Mapping[int, Sequence[str]]) -> str:
    return "; ".join(f"at N = {n} models {' and '.join(useless[n])}" for n in doses)


@dataclass(frozen=True)
class _Words:
    """What the two rates are called: by what an answer gives, or by how it sounds."""

    harm: str
    cost: str

    @classmethod
    def of(cls, decision: deciding.Decision) -> "_Words":
        harm = "harmful compliance" if decision.harmful.metric == "compliance_rate" else "delivered harm"
        refusals = decision.harmless.metric == "refusal_rate"
        return cls(harm, ("refusals of" if refusals else "answers withheld from") + " harmless look-alikes")


def _buys(side: Side, words: _Words, useless: Mapping[int, Sequence[str]]) -> str:
    """How many are enough; never an N whose models answer nothing."""
    found, share = side.answer, _share(side.answer.target)
    what = f"{words.harm} at or under {share}"
    if found.status == "shown":
        meeting = [n for n in side.curve.doses if n >= found.n]
        enough = next((n for n in meeting if not useless.get(n)), None)
        nothing = [n for n in meeting if useless.get(n) and (enough is None or n < enough)]
        safe = "".join(f"; N = {n} is safe only because it answers nothing" for n in nothing)
        if enough is None:
            return f"No N tried that is of use holds {what}{safe}"
        return f"N = {enough} safety demonstrations are the fewest tried that hold {what} ({_rate(side, enough)}){safe}"
    if found.status == "missed":
        most = side.curve.doses[-1]
        return f"No N tried holds {what}: at N = {most} it is {_rate(side, most)}"
    return f"No N tried is shown to hold {what}{_open(side)}"


def _costs(side: Side, words: _Words) -> str:
    found, share = side.answer, _share(side.answer.target)
    what = f"{words.cost} at or under {share}"
    if found.status == "shown" and found.n == side.curve.doses[0] != side.curve.doses[-1]:
        return f"Only N = {found.n} keeps {what} ({_rate(side, found.n)})"
    if found.status == "shown":
        most = " (the largest tried)" if found.n == side.curve.doses[-1] else ""
        return f"N up to {found.n}{most} keep {what} ({_rate(side, found.n)})"
    if found.status == "missed":
        least = side.curve.doses[0]
        return f"No N tried keeps {what}: at N = {least} they are {_rate(side, least)}"
    return f"No N tried is shown to keep {what}{_open(side)}"


def _open(side: Side) -> str:
    """Which N may yet, and what would tell."""
    found = side.answer
    if found.open_at is None:
        return ""
    more = [
        f"{count} more {noun}{'' if count == 1 else 's'}"
        for count, noun in ((found.more_prompts, "prompt"), (found.more_seeds, "seed"))
        if count
    ]
    told = f"; about {' or '.join(more)} would tell" if more else ""
    return f"; N = {found.open_at} may ({_rate(side, found.open_at)}){told}"


def _rate(side: Side, n: int) -> str:
    at = side.curve.doses.index(n)
    low, high = (f"{100 * end[at]:.0f}" for end in (side.curve.low, side.curve.high))
    return f"{100 * side.curve.fitted[at]:.0f} %, {low}–{high} %, on {side.dataset}"


def _share(share: float) -> str:
    return f"{100 * share:g} %"
