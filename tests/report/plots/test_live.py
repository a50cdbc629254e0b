"""The live loss curve: one display, redrawn in place, in a kernel; nothing outside one."""

import base64

import pandas as pd
import pytest

from safety_nb.report.plots import live


def table(n: int) -> pd.DataFrame:
    """Metrics of n steps, the losses of which say how many there are."""
    return pd.DataFrame({"step": range(1, n + 1), "train_loss": [float(n)] * n, "validation_loss": [None] * n})


class Kernel:
    """What a cell's displays receive, by the public names that IPython itself calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import IPython
        from IPython.core.interactiveshell import InteractiveShell

        shell = InteractiveShell()
        shell.kernel = self
        self.published: list[dict] = []
        shell.display_pub.publish = lambda data, **more: self.published.append({"data": data, **more})
        monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
        monkeypatch.setattr(InteractiveShell, "instance", lambda: shell)
        monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)


@pytest.fixture
def kernel(monkeypatch) -> Kernel:
    return Kernel(monkeypatch)


def test_curve_is_drawn_in_one_display_with_its_words(kernel):
    with live.loss_curve(seconds=0) as show:
        show(lambda: table(1))
    first, *later = kernel.published
    assert not first.get("update") and all(each["update"] for each in later) and later
    assert len({each["transient"]["display_id"] for each in kernel.published}) == 1
    assert base64.b64decode(later[-1]["data"]["image/png"]).startswith(b"\x89PNG")
    assert "training loss goes from 1.00 to 1.00" in later[-1]["data"]["text/plain"]


def test_between_two_drawings_nothing_is_made_and_the_last_table_is_drawn_at_the_end(kernel):
    made = []
    with live.loss_curve(seconds=1e9) as show:
        for n in range(1, 50):
            show(lambda n=n: made.append(n) or table(n))
        assert (made, len(kernel.published)) == ([], 1)
    assert made == [49]
    assert "from 49.00 to 49.00" in kernel.published[-1]["data"]["text/plain"]


def test_training_that_stops_with_an_error_shows_its_losses_so_far(kernel):
    with pytest.raises(ZeroDivisionError), live.loss_curve(seconds=1e9) as show:
        show(lambda: table(7))
        raise ZeroDivisionError
    assert "from 7.00 to 7.00" in kernel.published[-1]["data"]["text/plain"]


def test_error_before_the_first_step_is_told_as_itself(kernel):
    with pytest.raises(ZeroDivisionError), live.loss_curve():
        raise ZeroDivisionError


def test_outside_a_kernel_no_table_is_ever_made():
    with live.loss_curve(seconds=0) as show:
        show(lambda: pytest.fail("made"))


def test_no_figure_is_left_to_be_shown_a_second_time(kernel):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    with live.loss_curve(seconds=0) as show:
        show(lambda: table(3))
    assert plt.get_fignums() == before
