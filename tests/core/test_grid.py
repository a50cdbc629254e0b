"""Which runs a study plans: each in a folder of its own."""

import pytest

from safety_nb.core import grid
from safety_nb.core.errors import InputError


def test_two_runs_that_would_have_one_folder_are_refused():
    # A slash is an underscore in a folder's name: both would be n100_seed0_general-_x_a.csv.
    with pytest.raises(InputError, match="Two runs would have one folder, n100_seed0_general-_x_a.csv; .* in general"):
        grid.plan({"general": ["/x/a.csv", "/x_a.csv"]})
    assert len(grid.plan({"general": ["/x/a.csv", "/x/b.csv"]})) == 2


def test_a_run_is_named_by_the_hash_of_its_guard_prompt():
    # SHA-256 of "Be kind." as JSON, its first 8 digits: printf '"Be kind."' | sha256sum
    names = [run.name for run in grid.plan({"n_safety": [0], "guard_prompt": ["", "Be kind."]})]
    assert names == ["n0_seed0_guard_prompt-none", "n0_seed0_guard_prompt-8c294dd9"]
    assert len(grid.plan({"guard_prompt": ["Be kind." * 60, "Be kind." * 61]})) == 2  # longer than a folder's name
