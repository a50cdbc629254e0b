"""Amounts as people read them."""

import pytest

from safety_nb.core.text import amount


@pytest.mark.parametrize(
    ("n_bytes", "told"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1 kB"),
        (2_949_120, "2.95 MB"),
        (50_300_000, "50.3 MB"),
        (4_000_000_000, "4 GB"),
        (1_234_000_000_000, "1,230 GB"),
    ],
)
def test_amount_of_bytes_has_a_unit_in_which_it_is_not_zero(n_bytes, told):
    assert amount(n_bytes) == told
