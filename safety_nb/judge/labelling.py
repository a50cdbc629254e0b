"""Labelling answers in a notebook: blind, shuffled, one at a time, each label on disk the moment it is given.

The widgets are a thin layer over ``annotations.py``. Whose answer it is, from how many demonstrations, and what judges
said of it, the person does not see.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_nb.core import files, panel, run_folder
from safety_nb.core.params import AnnotateParams
from safety_nb.core.text import as_html
from safety_nb.judge import annotations
from safety_nb.judge.annotations import QUESTIONS, Item

if TYPE_CHECKING:
    import pandas as pd

MOST_CHARACTERS = 20_000  # of a text that is shown; who labels has to see all of it, but not megabytes
_UNTOLD_KEY = "x"


@dataclass(frozen=True)
class Job:
    """What one person has to label.

    Attributes:
        items: in the order in which this person meets them.
        folder: the annotations of everyone who labels these answers; log: this person's.
        available: how many items the sample was drawn from.
    """

    params: AnnotateParams
    items: Sequence[Item]
    folder: Path
    log: Path
    available: int


def open_job(params: AnnotateParams) -> Job:
    """Draw the sample and find out what is labelled already; nothing is written.

    Raises:
        InputError: there are no such answers, or a name is wrong.
    """
    if params.table:
        path = Path(params.table).expanduser()
        answers = annotations.answers_of_table(path, params.prompt, params.response, params.model)
        folder = run_folder.outputs_root() / "annotations" / path.stem
    else:
        root = run_folder.open_run(params.run_dir).root
        answers, folder = annotations.answers_of_folder(root), root / "annotations"
    items = annotations.items(answers, params.ask, params.runs, params.datasets)
    drawn = annotations.draw(items, params.n, params.seed)
    ordered = annotations.shuffled(drawn, params.annotator, params.seed)
    return Job(params, ordered, folder, annotations.log_of(folder, params.annotator), len(items))


def table(job: Job) -> "pd.DataFrame":
    """What people said of the drawn items, one row each; of pairs with both runs and answers.

    Columns run (and other_run), dataset, prompt_id, sample, prompt, response (and other_response), one of each
    person's name, and ``human``: what most said, the mean of scores, empty where nobody or no majority said anything.
    """
    import pandas as pd

    ask, field = job.params.ask, QUESTIONS[job.params.ask].field
    people = annotations.read(job.folder, ask)
    agreed = annotations.consensus(people, ask)
    found = []
    for item in job.items:
        row = dict(zip(("run", "other_run"), item.runs, strict=False))
        row |= {"dataset": item.dataset, "prompt_id": item.prompt_id, "sample": item.sample, "prompt": item.prompt}
        row |= dict(zip(("response", "other_response"), item.responses, strict=False))
        row |= {person: lines[item.id][field] if item.id in lines else None for person, lines in people.items()}
        found.append({**row, "human": agreed[item.id][field] if item.id in agreed else None})
    return pd.DataFrame(found)


def save(job: Job) -> Path:
    """Write the table as ``ASK.csv`` beside the logs, for `safety-nb calibrate` and for spreadsheets; its path."""
    path = job.folder / f"{job.params.ask}.csv"
    files.write_csv(path, table(job))
    return path


def results(job: Job) -> "pd.DataFrame":
    """How many items got which label, in all; with ``reveal`` by run and evaluation set, of pairs with win rates.

    Those are of ``annotations.win_rates``.
    """
    import pandas as pd

    found = table(job)
    if found.empty:
        return found
    if job.params.ask == "pair" and job.params.reveal:
        return annotations.win_rates(found.rename(columns={"human": "preference"}))
    keys = [name for name in ("run", "other_run", "dataset") if name in found] if job.params.reveal else []
    labels = found["human"].astype(object).where(found["human"].notna(), "no label")
    index = [found[name] for name in keys] or pd.Series("items", found.index, name="")
    return pd.crosstab(index, labels)


def agreement(job: Job) -> "pd.DataFrame":
    """For each two people: one, other, items, same, kappa, and the alpha of all."""
    import pandas as pd

    alpha, pairs = annotations.agreement_of(annotations.read(job.folder, job.params.ask), job.params.ask)
    columns = ["one", "other", "items", "same", "kappa"]
    return pd.DataFrame(pairs, columns=columns).assign(alpha_of_all=alpha)


class Panel(panel.Panel):
    """The page: one item at a time, a button for each choice, and a box that takes their keys without Enter.

    No text is shown before Begin is pressed: an executed notebook keeps what its widgets show.
    """

    holding = staticmethod(annotations.holding)

    def __init__(self, job: Job) -> None:
        import ipywidgets

        self.job, self.ask, self.question = job, job.params.ask, QUESTIONS[job.params.ask]
        self.begun, self.shown_at = False, 0.0
        choices = {"1": "left", "2": "right", "3": "tie"} if self.ask == "pair" else self.question.choices
        names = {**choices, _UNTOLD_KEY: annotations.UNTOLD, **panel.MOVES}
        buttons = {key: (key, f"{key}: {_said(name)}", str(name)) for key, name in names.items()}
        ids = [item.id for item in job.items]
        super().__init__(ids, job.log, buttons, "or click here and type the keys", at_once=True)
        self.begin = ipywidgets.Button(description="Begin", button_style="primary")
        self.begin.on_click(lambda _: self.start())
        self.item, self.agreement = ipywidgets.HTML(), ipywidgets.HTML()
        self.controls = ipywidgets.VBox([ipywidgets.HBox(list(self.buttons.values())), self.keys])
        self.controls.children[0].layout.flex_flow = "row wrap"
        self.widget = ipywidgets.VBox([
            ipywidgets.HBox([self.bar, self.state]), self.begin, self.item, self.controls, self.agreement,
        ])  # fmt: skip
        self._show()

    def history(self, log: Iterable[Mapping]) -> list[Mapping]:
        return annotations.history(log, self.ask)

    def start(self) -> None:
        """Show the first item that has no label."""
        self.begun = bool(self.items)
        self._show()

    def press(self, name: str) -> None:
        """What a key or its button does. Before Begin, and for a key that means nothing, nothing."""
        if not self.begun or name not in self.buttons:
            return
        if name in panel.MOVES:
            self.move(panel.MOVES[name])
        else:
            self._label(None if name == _UNTOLD_KEY else self.question.choices[name])
        self._show()

    def taken_back(self) -> tuple[str, dict] | None:
        """The last label of an item that is on this page; those of another sample stay."""
        last = next((line["item"] for line in reversed(self.made) if line["item"] in self.items), None)
        return None if last is None else (last, annotations.undo_line(self.ask, last))

    def _label(self, value: Any) -> None:
        item = self.job.items[self.position]
        if self._swapped(item):
            value = {"run": "other_run", "other_run": "run"}.get(value, value)
        line = annotations.log_line(item, self.ask, value, time.monotonic() - self.shown_at)
        if self.ask == "pair":
            line["left"] = "other_run" if self._swapped(item) else "run"
        self.keep(line)
        self.go_to_open()

    def _swapped(self, item: Item) -> bool:
        return len(item.runs) > 1 and annotations.swapped(item, self.job.params.annotator, self.job.params.seed)

    def _show(self) -> None:
        self.tell_progress("labelled")
        self.begin.layout.display = "none" if self.begun else ""
        self.controls.layout.display = "" if self.begun else "none"
        self.agreement.value = _told(annotations.read(self.job.folder, self.ask), self.ask)
        self.item.value = "The texts that are shown may be harmful." if self.items else "There is nothing to label."
        self.shown_at = time.monotonic()
        if self.begun:
            item = self.job.items[self.position]
            self.item.value = self._html(item, self.held.get(item.id))

    def _html(self, item: Item, line: Any) -> str:
        sides = [*reversed(item.responses)] if self._swapped(item) else list(item.responses)
        names = ["Left answer", "Right answer"] if len(sides) > 1 else ["Answer"]
        told = "no label yet"
        if line is not None:
            value = line[self.question.field]
            told = f"labelled: {_said(annotations.UNTOLD if value is None else self._as_shown(item, value))}"
        blocks = "".join(map(_block, names, sides))
        return (
            f"<b>{self.position + 1} of {len(self.job.items)}</b> ({told}){_block('Prompt', item.prompt)}"
            f"<div style='display:flex;gap:1em'>{blocks}</div><b>{self.question.text}</b>"
        )

    def _as_shown(self, item: Item, value: Any) -> Any:
        if value not in ("run", "other_run"):
            return value
        return "left" if (value == "run") != self._swapped(item) else "right"


def _said(value: Any) -> str:
    return str(value).replace("_", " ")


def _block(name: str, text: str) -> str:
    """A text as HTML that does nothing, in a box that scrolls."""
    left_out = max(len(text) - MOST_CHARACTERS, 0)
    more = f"<i>… {left_out:,} more characters are not shown</i>" if left_out else ""
    box = "white-space:pre-wrap;overflow-wrap:anywhere;max-height:24em;overflow-y:auto;line-height:1.4"
    style = f"{box};border:1px solid #8888;padding:.5em;margin:0"
    shown = as_html(text, MOST_CHARACTERS)
    return f"<div style='flex:1'><i>{name}</i><pre class='answer' style='{style}'>{shown}</pre>{more}</div>"


def _told(people: dict, ask: str) -> str:
    """How far the people agree, so far, in a sentence; empty for one person."""
    alpha, pairs = annotations.agreement_of(people, ask)
    if not pairs:
        return ""
    each = "; ".join(
        f"{as_html(pair['one'])} and {as_html(pair['other'])}: the same on "
        f"{100 * pair['same']:.0f} % of {pair['items']}, kappa {_number(pair['kappa'])}"
        for pair in pairs
    )
    return f"Agreement so far: Krippendorff's alpha {_number(alpha)}; {each}."


def _number(value: float) -> str:
    return "not defined yet" if value != value else f"{value:.2f}"
