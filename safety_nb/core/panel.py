"""A page of widgets on which a person decides about items, one at a time, by buttons or by typing their keys.

Each decision is on disk before the next item is shown, and the page opens where it was left. What is shown of an item,
and what is decided about it, is told by the pages made of this one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_nb.core import files

MOVES = {"u": "undo", "n": "next", "b": "back"}  # key to what can be done on every page


class Panel:
    """What the pages share: progress, buttons, the box for their keys, the place, and a log that can be undone.

    A page lays out the widgets, and defines ``history``, the decisions of a log that stand; ``holding``, of these the
    one that holds for each item; ``press``, what the button of a name does; and ``taken_back``: whose decision undo
    takes back and the line of the log that does so, or None.

    Args:
        items: what is decided about, in the order in which it is shown: ids, which the log has too.
        log: where the decisions are kept; read first.
        buttons: key, caption and tooltip, by name.
        hint: what stands in the box for the keys while it is empty.
        at_once: whether keys need no Enter.
    """

    def __init__(
        self, items: Sequence[str], log: Path, buttons: Mapping[str, tuple[str, str, str]], hint: str, at_once: bool
    ) -> None:
        import ipywidgets

        self.items, self.log, self.position = items, log, 0
        self.bar, self.state = ipywidgets.IntProgress(max=max(len(items), 1)), ipywidgets.HTML()
        self.buttons, self._names = {}, {}
        for name, (key, caption, tooltip) in buttons.items():
            self._names[key] = name
            self.buttons[name] = ipywidgets.Button(description=caption, tooltip=tooltip)
            self.buttons[name].on_click(lambda _, name=name: self.press(name))
        self.keys = ipywidgets.Text(placeholder=hint, continuous_update=at_once)
        self.keys.observe(self._typed, names="value")
        self._read()
        self.go_to_open()

    def go_to_open(self) -> None:
        """To the next item that is not decided, from this one on and round again; stay where all are."""
        order = [*range(self.position, len(self.items)), *range(self.position)]
        self.position = next((place for place in order if self.items[place] not in self.held), self.position)

    def keep(self, line: dict) -> None:
        """Append a line to the log, for good, and take it into account."""
        files.append_line(self.log, line, sync=True)
        self._read()

    def move(self, name: str) -> None:
        """One of MOVES: to the next item or back, all round, or to the one whose decision is undone."""
        if name != "undo":
            self.position = (self.position + (1 if name == "next" else -1)) % len(self.items)
        elif found := self.taken_back():
            item, line = found
            self.keep(line)
            self.position = self.items.index(item) if item in self.items else self.position

    def tell_progress(self, told: str) -> None:
        """Say how many items are decided; ``told`` is what they are then."""
        self.bar.value = sum(item in self.held for item in self.items)
        self.state.value = f"{self.bar.value} of {len(self.items)} {told}"

    def _read(self) -> None:
        self.made = self.history(files.read_log(self.log))
        self.held = self.holding(self.made)

    def _typed(self, change: dict) -> None:
        """What is entered counts by its first key; of keys that arrive together, the last: no other item was seen."""
        typed, self.keys.value = change["new"].strip().lower(), ""
        name = self._names.get(typed[-1:] if self.keys.continuous_update else typed[:1])
        if name:
            self.press(name)
