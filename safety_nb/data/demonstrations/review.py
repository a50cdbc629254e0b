"""Reviewing rows in a notebook: accept, edit or reject each, with every decision on disk as it is made.

The decisions are a log of JSON lines; what holds now is a pure function of it, so the review opens where it was left.
The widgets are a thin layer over these functions. Knows nothing of how the rows were made.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safety_nb.core import files
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.text import as_html

FIELDS = ("question", "instruction", "output")  # what is looked at, and may be edited
_KEYS = {"a": "accept", "e": "edit", "r": "reject", "u": "undo", "n": "next", "b": "back"}


@dataclass(frozen=True)
class Decision:
    """What was decided about one row: ``accept``, ``edit`` (with the texts as edited) or ``reject``."""

    item: str
    decision: str
    text: Mapping[str, str]


def item_hash(row: Mapping) -> str:
    """SHA-256 of a row's texts: a decision holds for these words, and not for others made in their place."""
    return digest([row.get(field, "") for field in FIELDS], sort_keys=False, ensure_ascii=True)


# --- the log ------------------------------------------------------------------------------------------------------


def history(log: Iterable[Mapping]) -> list[Decision]:
    """The decisions of a log that were not undone, oldest first."""
    made: list[Decision] = []
    for line in log:
        if line.get("decision") == "undo":
            del made[-1:]
        elif line.get("decision") in ("accept", "edit", "reject") and isinstance(line.get("item"), str):
            text = line.get("text")
            made.append(Decision(line["item"], line["decision"], text if isinstance(text, dict) else {}))
    return made


def decisions(made: Iterable[Decision]) -> dict[str, Decision]:
    """The decision that holds for each row, by ``item_hash``: the last one made."""
    return {decision.item: decision for decision in made}


def decided(row: Mapping, decision: str, text: Mapping[str, str] | None = None) -> Decision:
    """A decision about a row. An edit that changes nothing is an acceptance.

    Raises:
        InputError: the decision is none, or instruction or output are left empty.
    """
    if decision not in ("accept", "edit", "reject"):
        raise InputError(f"There is no decision {decision!r}; choose accept, edit or reject.")
    changed = {}
    if decision == "edit":
        edited = {field: value.strip() for field, value in (text or {}).items() if field in FIELDS}
        changed = {field: value for field, value in edited.items() if value != row.get(field, "")}
        decision = "edit" if changed else "accept"
    whole = {**row, **changed}
    empty = [field for field in ("instruction", "output") if not whole.get(field)]
    if decision != "reject" and empty:
        raise InputError(f"The {' and the '.join(empty)} would be empty; write one, or reject the row.")
    return Decision(item_hash(row), decision, changed)


def log_line(decision: Decision | None) -> dict:
    """The line that a decision, or None for undoing the last one, leaves in the log."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    if decision is None:
        return {"decision": "undo", "time": now}
    return {"item": decision.item, "decision": decision.decision, "text": dict(decision.text), "time": now}


def counts(rows: Sequence[Mapping], made: Iterable[Decision]) -> dict[str, int]:
    """How many rows were accepted, edited and rejected, and how many are open."""
    holding = decisions(made)
    found = [holding[item].decision if (item := item_hash(row)) in holding else "open" for row in rows]
    return {name: found.count(name) for name in ("accept", "edit", "reject", "open")}


def next_open(rows: Sequence[Mapping], made: Iterable[Decision], start: int = 0) -> int:
    """The first row from ``start`` on, and round again, without a decision; ``start`` when all have one."""
    holding = decisions(made)
    order = [*range(start, len(rows)), *range(start)]
    return next((index for index in order if item_hash(rows[index]) not in holding), start)


# --- what a person sees -------------------------------------------------------------------------------------------


def folded(row: Mapping, number: str = "") -> str:
    """A row as HTML: its request and its answer each folded away until asked for, and its notes."""
    notes = "".join(f"<li>{as_html(note)}</li>" for note in row.get("notes", ()))
    parts = [
        f"<details><summary>{summary}</summary><pre style='white-space:pre-wrap'>{as_html(text)}</pre></details>"
        for summary, text in (
            ("Show the request", "\n".join(filter(None, (row.get("question"), row.get("instruction"))))),
            ("Show the answer", row.get("output", "")),
        )
    ]
    return f"<div><b>{as_html(number)}</b>{'<ul>' + notes + '</ul>' if notes else ''}{''.join(parts)}</div>"


class Panel:
    """The review as widgets: one row at a time, buttons, a box that takes their letters, and an editor.

    Args:
        rows: with ``question`` (optional), ``instruction``, ``output``, and ``notes`` to show beside them.
        log: where the decisions are kept; read first.
    """

    def __init__(self, rows: Sequence[Mapping], log: Path) -> None:
        import ipywidgets

        self.rows, self.log = list(rows), log
        self.made = history(files.read_log(log))
        self.position = next_open(self.rows, self.made)
        self.buttons = {
            name: ipywidgets.Button(description=f"{name.capitalize()} ({key})", tooltip=name)
            for key, name in _KEYS.items()
        }
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self.act(name))
        self.keys = ipywidgets.Text(placeholder=f"{' '.join(_KEYS)}, then Enter", continuous_update=False)
        self.keys.observe(self._typed, names="value")
        self.editors = {field: ipywidgets.Textarea(description=field, rows=3) for field in FIELDS}
        self.save = ipywidgets.Button(description="Save the edit", button_style="primary")
        self.save.on_click(lambda _: self._decide("edit"))
        self.editor = ipywidgets.VBox([*self.editors.values(), self.save])
        self.bar = ipywidgets.IntProgress(max=max(len(self.rows), 1))
        self.state, self.row, self.message = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        for area in self.editors.values():
            area.layout.width = "95%"
        self.widget = ipywidgets.VBox([
            ipywidgets.HBox([self.bar, self.state]), self.row, self.editor,
            ipywidgets.HBox(list(self.buttons.values())), self.keys, self.message,
        ])  # fmt: skip
        self._show()

    def act(self, name: str) -> None:
        """What a button does: ``accept``, ``edit`` (opens and closes the editor), ``reject``, ``undo``, ``next`` or
        ``back``.

        Accepting with the editor open takes its words; no other button leaves words behind that were not saved.
        """
        if not self.rows:
            return
        if name in ("accept", "reject"):
            self._decide("edit" if name == "accept" and self._editing else name)
        elif name == "edit":
            self._show(editing=not self._editing)
        elif self._unsaved():
            self.message.value = "Save the edit first, or close the editor with Edit to drop it."
        elif name == "undo":
            self._undo()
        else:
            self.position = (self.position + (1 if name == "next" else -1)) % len(self.rows)
            self._show()

    def _typed(self, change: dict) -> None:
        name = _KEYS.get(change["new"].strip().lower()[:1])
        if name:
            self.act(name)
        self.keys.value = ""

    def _decide(self, name: str) -> None:
        if not self.rows:
            return
        row = self.rows[self.position]
        text = {field: area.value for field, area in self.editors.items()} if self._editing else self._edited()
        try:
            # To accept a row that was edited is to accept its edited words.
            decision = decided(row, "edit" if name == "accept" and text else name, text)
        except InputError as error:
            self.message.value = as_html(error)
            return
        files.append_line(self.log, log_line(decision), sync=True)
        self.made.append(decision)
        self.position = next_open(self.rows, self.made, self.position)
        self._show()

    def _undo(self) -> None:
        if not self.made:
            return
        files.append_line(self.log, log_line(None), sync=True)
        undone = self.made.pop()
        hashes = [item_hash(row) for row in self.rows]
        self.position = hashes.index(undone.item) if undone.item in hashes else self.position
        self._show()

    def _edited(self) -> Mapping[str, str]:
        """The texts in which the row shown was edited earlier."""
        holding = decisions(self.made).get(item_hash(self.rows[self.position]))
        return holding.text if holding else {}

    def _unsaved(self) -> bool:
        shown = {**self.rows[self.position], **self._edited()}
        return self._editing and any(area.value.strip() != shown.get(f, "") for f, area in self.editors.items())

    def _show(self, editing: bool = False) -> None:
        self._editing = editing
        number = counts(self.rows, self.made)
        done = len(self.rows) - number["open"]
        self.bar.value = done
        self.state.value = (
            f"{done} of {len(self.rows)} decided: {number['accept']} accepted, {number['edit']} edited, "
            f"{number['reject']} rejected"
        )
        self.message.value = ""
        self.editor.layout.display = "" if editing else "none"
        if not self.rows:
            self.row.value = "There is nothing to review."
            return
        row = self.rows[self.position]
        holding = decisions(self.made).get(item_hash(row))
        told = {None: "open", "accept": "accepted", "edit": "edited", "reject": "rejected"}
        shown = {**row, **self._edited()}
        status = told[holding.decision if holding else None]
        self.row.value = folded(shown, f"{self.position + 1} of {len(self.rows)}, {status}")
        for field, area in self.editors.items():
            # Only the open editor holds the text: a widget's state is saved with the notebook.
            area.value = shown.get(field, "") if editing else ""
