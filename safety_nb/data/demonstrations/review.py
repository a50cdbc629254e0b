"""Reviewing rows in a notebook: accept, edit or reject each, with every decision on disk as it is made.

The decisions are a log of JSON lines; what holds now is a pure function of it, so the review opens where it was left.
The widgets are a thin layer over these functions. Knows nothing of how the rows were made.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safety_nb.core import decision_log, files, panel
from safety_nb.core.digests import digest
from safety_nb.core.errors import InputError
from safety_nb.core.text import as_html

FIELDS = ("question", "instruction", "output")  # what is looked at, and may be edited
_TOLD = {"accept": "accepted", "edit": "edited", "reject": "rejected"}  # each decision, once it is made
_KEYS = {"a": "accept", "e": "edit", "r": "reject", **panel.MOVES}


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
    known = [*_TOLD]  # a list: a senseless line may hold what no dictionary can look up
    made = decision_log.standing(log, lambda line: isinstance(line.get("item"), str) and line.get("decision") in known)
    texts = [line["text"] if isinstance(line.get("text"), dict) else {} for line in made]
    return [Decision(line["item"], line["decision"], text) for line, text in zip(made, texts, strict=True)]


def decisions(made: Iterable[Decision]) -> dict[str, Decision]:
    """The decision that holds for each row, by ``item_hash``: the last one made."""
    return {decision.item: decision for decision in made}


def decided(row: Mapping, decision: str, text: Mapping[str, str] | None = None) -> Decision:
    """A decision about a row. An edit that changes nothing is an acceptance.

    Raises:
        InputError: the decision is none, or instruction or output are left empty.
    """
    if decision not in _TOLD:
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
    return {**(asdict(decision) if decision else {"decision": "undo"}), "time": files.now()}


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


class Panel(panel.Panel):
    """The review as widgets: one row at a time, its buttons and their keys, and an editor.

    Args:
        rows: with ``question`` (optional), ``instruction``, ``output``, and ``notes`` to show beside them.
        log: where the decisions are kept; read first.
    """

    history, holding = staticmethod(history), staticmethod(decisions)

    def __init__(self, rows: Sequence[Mapping], log: Path) -> None:
        import ipywidgets

        self.rows = list(rows)
        buttons = {name: (key, f"{name.capitalize()} ({key})", name) for key, name in _KEYS.items()}
        items = [item_hash(row) for row in self.rows]
        super().__init__(items, log, buttons, f"{' '.join(_KEYS)}, then Enter", at_once=False)
        self.editors = {
            field: ipywidgets.Textarea(description=field, rows=3, layout={"width": "95%"}) for field in FIELDS
        }
        self.save = ipywidgets.Button(description="Save the edit", button_style="primary")
        self.save.on_click(lambda _: self.press("accept"))
        self.editor = ipywidgets.VBox([*self.editors.values(), self.save])
        self.row, self.message = ipywidgets.HTML(), ipywidgets.HTML()
        self.widget = ipywidgets.VBox([
            ipywidgets.HBox([self.bar, self.state]), self.row, self.editor,
            ipywidgets.HBox(list(self.buttons.values())), self.keys, self.message,
        ])  # fmt: skip
        self._show()

    def press(self, name: str) -> None:
        """Accept or reject the row, open or close the editor (``edit``), or one of ``panel.MOVES``.

        Accepting with the editor open takes its words; no other button leaves words behind that were not saved.
        """
        if not self.rows:
            return
        if name in ("accept", "reject"):
            self._decide(name)
        elif name == "edit":
            self._show(editing=not self._editing)
        elif self._unsaved():
            self.message.value = "Save the edit first, or close the editor with Edit to drop it."
        elif name != "undo" or self.made:
            self.move(name)
            self._show()

    def taken_back(self) -> tuple[str, dict] | None:
        return (self.made[-1].item, log_line(None)) if self.made else None

    def _decide(self, name: str) -> None:
        text = {field: area.value for field, area in self.editors.items()} if self._editing else self._edited()
        try:
            # To accept a row that is or was edited is to accept its edited words.
            decision = decided(self.rows[self.position], "edit" if name == "accept" and text else name, text)
        except InputError as error:
            self.message.value = as_html(error)
            return
        self.keep(log_line(decision))
        self.go_to_open()
        self._show()

    def _edited(self) -> Mapping[str, str]:
        """The texts in which the row shown was edited earlier."""
        holding = self.held.get(self.items[self.position])
        return holding.text if holding else {}

    def _unsaved(self) -> bool:
        shown = {**self.rows[self.position], **self._edited()}
        return self._editing and any(area.value.strip() != shown.get(f, "") for f, area in self.editors.items())

    def _show(self, editing: bool = False) -> None:
        self._editing = editing
        made = Counter(self.held[item].decision for item in self.items if item in self.held)
        self.tell_progress("decided: " + ", ".join(f"{made[name]} {told}" for name, told in _TOLD.items()))
        self.message.value = ""
        self.editor.layout.display = "" if editing else "none"
        if not self.rows:
            self.row.value = "There is nothing to review."
            return
        holding = self.held.get(self.items[self.position])
        shown = {**self.rows[self.position], **self._edited()}
        status = _TOLD[holding.decision] if holding else "open"
        self.row.value = folded(shown, f"{self.position + 1} of {len(self.rows)}, {status}")
        for field, area in self.editors.items():
            # Only the open editor holds the text: a widget's state is saved with the notebook.
            area.value = shown.get(field, "") if editing else ""
