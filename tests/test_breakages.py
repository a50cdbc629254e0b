"""The breakages fit the package: each can still be made, and they are spread over all rooms."""

import breakages
import pytest


@pytest.mark.parametrize("one", breakages.BREAKAGES, ids=lambda one: one.module)
def test_each_breakage_can_be_made(one):
    module = (breakages.ROOT / "safety_nb" / one.module).read_text()
    assert module.count(one.right) == 1, f"{one.right!r} is to stand in {one.module} once: break another line"
    assert (breakages.ROOT / "tests" / one.tests).is_file()


def test_breakages_are_spread_over_all_rooms():
    rooms = {path.parent.name for path in (breakages.ROOT / "safety_nb").glob("*/__init__.py")}
    assert {one.module.split("/")[0] for one in breakages.BREAKAGES} - {"cli.py"} == rooms
    assert len(breakages.BREAKAGES) >= 40
