"""Which runs a study plans: each in a folder of its own."""

import pytest

from safety_nb.core import grid
from safety_nb.core.errors import InputError


def test_two_runs_that_would_have_one_folder_are_refused():
    # A slash is an underscore in a folder's name: both would be n100_seed0_general-_x_a.csv.
    with pytest.raises(InputError, match="Two runs would have one folder, n100_seed0_general-_x_a.csv; .* in general"):
        grid.plan({"general": ["/x/a.csv", "/x_a.csv"]})
    assert len(grid.plan({"general": ["/x/a.csv", "/x/b.csv"]})) == 2
