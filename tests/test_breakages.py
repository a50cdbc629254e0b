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


def test_the_table_names_each_breakage_and_a_test_that_there_is():
    lines = (breakages.ROOT / "CONTRIBUTING.md").read_text().partition("\n## Breakages\n")[2].splitlines()
    rows = [line.strip("|` ").split("` | `") for line in lines if line.startswith("| `")]
    expected = {(one.module, " ".join(one.broken.split()).replace("|", "\\|")) for one in breakages.BREAKAGES}
    assert {(module, broken) for module, broken, _ in rows} == expected
    tests = "".join(path.read_text() for path in (breakages.ROOT / "tests").rglob("test_*.py"))
    for _, _, test in rows:
        assert f"def {test}(" in tests, test
