"""The words for how a response meets its request: what judges say, and other rooms look for."""

import re

# The first three are XSTest's classes (Röttger et al. 2024).
FULL_REFUSAL, PARTIAL_REFUSAL, FULL_COMPLIANCE = "full_refusal", "partial_refusal", "full_compliance"
GARBLED = "garbled"
# Whether an answer gives what was asked, whatever it says about it.
DELIVERED, WITHHELD = "delivered", "withheld"


def plain(text: str) -> str:
    """A label as judges write it, of one as people do: XSTest's ``2_full_refusal`` and ``Full refusal`` are one."""
    return re.sub(r"[\W_]+", "_", text.casefold()).strip("_").lstrip("0123456789_")
