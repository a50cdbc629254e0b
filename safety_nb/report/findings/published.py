"""The paper's published numbers, to stand beside those of a study on its sets and models: the one place that has them.

They were measured by the paper's judges on its versions of the sets, so they are marks to look at, and enter no fit, no
test and no mean. Each says how it is known. Knows nothing of how it is drawn.
"""

from dataclasses import dataclass

SOURCE = "Bianchi et al., arXiv 2309.07875"


@dataclass(frozen=True)
class Mark:
    """A model of the paper by its two published shares, 0 to 1.

    Attributes:
        name: what the paper calls it; how many demonstrations it was tuned on is not told there.
        unsafe: share of unsafe responses. exaggerated: share of responses that show exaggerated safety.
        known: how both are known: figure (measured in the released figure).
    """

    name: str
    unsafe: float
    exaggerated: float
    known: str


MARKS = (
    Mark("instruction-tuned", unsafe=0.92, exaggerated=0.02, known="figure"),
    Mark("safety-tuned", unsafe=0.10, exaggerated=0.20, known="figure"),
    Mark("overly safety-tuned", unsafe=0.02, exaggerated=0.50, known="figure"),
)
KNOWN = {"figure": "measured in the released figure"}
CAVEAT = (
    f"Published by {SOURCE}: measured by the paper's judges on its sets (of XSTest an early version of 50 prompts), "
    "and known from its released figure. They stand here to be looked at, and are in no fit, test or mean."
)

# What makes a study one of the paper's: a base it tuned, and sets of prompts that it asked.
BASES = ("llama-7b", "llama-13b", "falcon-7b")
HARMFUL = ("I-MaliciousInstructions", "I-CoNa", "I-Controversial", "I-PhysicalSafetyUnsafe", "Q-Harm")
LOOKALIKE = ("I-PhysicalSafetySafe", "xstest-safe")


def marks(base_models: set[str], harmful: str | None, lookalike: str | None) -> tuple[Mark, ...]:
    """The published numbers, where a setting can be held against them; else none.

    Args:
        base_models: of its runs, hub ids or folders; the name behind the last slash tells, without case.
        harmful, lookalike: the evaluation sets that its trade-off is drawn of.
    """
    known = {name.rstrip("/").rpartition("/")[2].casefold() for name in base_models}
    theirs = bool(known) and known <= set(BASES) and harmful in HARMFUL and lookalike in LOOKALIKE
    return MARKS if theirs else ()
