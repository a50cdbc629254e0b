"""The texts of the public data sets that lie in the folder of SAFETY_NB_DATA, and what they are to a tokenizer."""

import os

import pytest

from safety_nb.core.errors import InputError
from safety_nb.data import templates
from safety_nb.data.datasets import sources
from safety_nb.train import plain_text

needed = pytest.mark.skipif(not os.environ.get("SAFETY_NB_DATA"), reason="needs SAFETY_NB_DATA: the public data sets")


def texts() -> list[str]:
    """Every text of the public data sets that lie there, of rows and of prompts."""
    from safety_nb.data.datasets.registry import REGISTRY

    found: list[str] = []
    for name, source in REGISTRY.items():
        if source.file is None:
            continue
        try:
            if source.kind == "training":
                rows = sources.training_rows(name)
                found += [templates.render(one["instruction"], one["input"]) for one in rows]
                found += [one["output"] for one in rows]
            elif source.role:
                found += [one["prompt"] for one in sources.evaluation_rows(name)]
        except InputError:  # not among those that lie there
            continue
    return found


def check_ids(tokenizer) -> None:
    """Check that every twentieth text without control words has the ids that the tokenizer itself gives it."""
    reading = plain_text.reader(tokenizer)
    plain = [text for text in texts()[::20] if not any(word in text for word in reading.marks)]
    assert len(plain) > 500
    expected = tokenizer(plain, add_special_tokens=False, verbose=False)["input_ids"]
    found = reading.tokenizer(plain, add_special_tokens=False, verbose=False)["input_ids"]
    assert found == expected
