"""Labelling answers in a notebook: blind, shuffled, one at a time, each label on disk the moment it is given.

The widgets are a thin layer over ``annotations.py``. Whose answer it is, from how many demonstrations, and what judges
said of it, the person does not see.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_nb.core import files, run_folder
from safety_nb.core.params import AnnotateParams
from safety_nb.core.text import as_html
from safety_nb.judge import annotations
from safety_nb.judge.annotations import QUESTIONS, Item

if TYPE_CHECKING:
    import pandas as pd

MOST_CHARACTERS = 20_000  # of a text that is shown; who labels has to see all of it, but not megabytes
_UNTOLD_KEY, _KEYS = "x", {"u": "undo", "n": "next", "b": "back"}


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


class Panel:
    """The page: one item at a time, a button for each choice, and a box that takes their keys without Enter.

    No text is shown before Begin is pressed: an executed notebook keeps what its widgets show.
    """

    def __init__(self, job: Job) -> None:
        import ipywidgets

        self.job, self.question = job, QUESTIONS[job.params.ask]
        self.made = annotations.history(files.read_log(job.log), job.params.ask)
        self.position, self.begun, self.shown_at = 0, False, 0.0
        self.buttons = {
            key: ipywidgets.Button(description=f"{key}: {_said(value)}", tooltip=str(value))
            for key, value in self.choices().items()
        }
        for key, button in self.buttons.items():
            button.on_click(lambda _, key=key: self.press(key))
        self.begin = ipywidgets.Button(description="Begin", button_style="primary")
        self.begin.on_click(lambda _: self.start())
        self.keys = ipywidgets.Text(placeholder="or click here and type the keys", continuous_update=True)
        self.keys.observe(self._on_typed, names="value")
        self.bar = ipywidgets.IntProgress(max=max(len(job.items), 1))
        self.state, self.item, self.agreement = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        self.controls = ipywidgets.VBox([ipywidgets.HBox(list(self.buttons.values())), self.keys])
        self.controls.children[0].layout.flex_flow = "row wrap"
        self.widget = ipywidgets.VBox([
            ipywidgets.HBox([self.bar, self.state]), self.begin, self.item, self.controls, self.agreement,
        ])  # fmt: skip
        self._show()

    def choices(self) -> dict[str, Any]:
        """Key to what it does: a choice of the question, ``could not tell``, undo, next or back."""
        chosen = {"1": "left", "2": "right", "3": "tie"} if self.job.params.ask == "pair" else self.question.choices
        return {**chosen, _UNTOLD_KEY: annotations.UNTOLD, **_KEYS}

    def start(self) -> None:
        """Show the first item that has no label."""
        self.begun = bool(self.job.items)
        self._go_to_open()
        self._show()

    def press(self, key: str) -> None:
        """What a key or its button does. Before Begin, and for a key that means nothing, nothing."""
        if not self.begun or key not in self.choices():
            return
        name = _KEYS.get(key)
        if name == "undo":
            self._undo()
        elif name:
            self.position = (self.position + (1 if name == "next" else -1)) % len(self.job.items)
        else:
            self._label(None if key == _UNTOLD_KEY else self.question.choices[key])
        self._show()

    def _on_typed(self, change: dict) -> None:
        """One key at a time: of several that arrive together the last counts, the item of the others was not seen."""
        typed, self.keys.value = change["new"].strip().lower()[-1:], ""
        self.press(typed)

    def _label(self, value: Any) -> None:
        item, ask = self._shown_item(), self.job.params.ask
        if self._swapped(item) and value in ("run", "other_run"):
            value = {"run": "other_run", "other_run": "run"}[value]
        line = annotations.log_line(item, ask, value, time.monotonic() - self.shown_at)
        if ask == "pair":
            line["left"] = "other_run" if self._swapped(item) else "run"
        files.append_line(self.job.log, line, sync=True)
        self.made.append(line)
        self._go_to_open()

    def _undo(self) -> None:
        """Take back the last label of an item that is on this page; those of another sample stay."""
        places = {item.id: place for place, item in enumerate(self.job.items)}
        last = next((line["item"] for line in reversed(self.made) if line["item"] in places), None)
        if last is not None:
            files.append_line(self.job.log, annotations.undo_line(self.job.params.ask, last), sync=True)
            self.made = annotations.history(files.read_log(self.job.log), self.job.params.ask)
            self.position = places[last]

    def _go_to_open(self) -> None:
        """To the next item, and round again, that has no label; stay where all have one."""
        labelled = annotations.holding(self.made)
        order = [*range(self.position, len(self.job.items)), *range(self.position)]
        self.position = next((n for n in order if self.job.items[n].id not in labelled), self.position)

    def _shown_item(self) -> Item:
        return self.job.items[self.position]

    def _swapped(self, item: Item) -> bool:
        return len(item.runs) > 1 and annotations.swapped(item, self.job.params.annotator, self.job.params.seed)

    def _show(self) -> None:
        labelled = annotations.holding(self.made)
        done = sum(item.id in labelled for item in self.job.items)
        self.bar.value = done
        self.state.value = f"{done} of {len(self.job.items)} labelled"
        self.begin.layout.display = "none" if self.begun else ""
        self.controls.layout.display = "" if self.begun else "none"
        self.agreement.value = _told(annotations.read(self.job.folder, self.job.params.ask), self.job.params.ask)
        self.item.value = "The texts that are shown may be harmful." if self.job.items else "There is nothing to label."
        self.shown_at = time.monotonic()
        if self.begun:
            item = self._shown_item()
            self.item.value = self._html(item, labelled.get(item.id))

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
