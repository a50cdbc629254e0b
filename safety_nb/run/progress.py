"""What a person sees of runs: progress with time left while they go, and their state at any time.

Reads ledgers and progress files only, so it watches runs of this or any other process.
"""

import contextlib
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_nb.core import run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.text import visible
from safety_nb.run.stages import ALL_NAMES, CAPABILITIES, STAGE_NAMES

_SECONDS_BETWEEN_LOOKS = 0.5


def names_of(stages: Iterable[str]) -> tuple[str, ...]:
    """The stages of a run whose ledger has ``stages``: those of every run, and the one that it may have."""
    return ALL_NAMES if CAPABILITIES.name in stages else STAGE_NAMES


@contextlib.contextmanager
def watching_stages(run: run_folder.RunFolder, names: tuple[str, ...] = STAGE_NAMES) -> Iterator[None]:
    """Show the progress of one run while the body executes it: a line a stage.

    On a terminal with a bar and the time left; elsewhere the line comes as the stage ends.

    Args:
        names: its stages.
    """
    from rich.console import Console

    console = Console()
    began = time.time()
    if console.is_terminal:
        with _bars(console, {name: lambda name=name: _stage(run, name) for name in names}):
            yield
        return
    told: set[str] = set()

    def tell() -> None:
        for name, entry in run_folder.read_ledger(run)["stages"].items():
            ended = entry.get("state") not in ("waiting", "running") and entry.get("started", 0) >= began
            if ended and name not in told:
                told.add(name)
                print(f"{name} {entry['state']} in {_clock(entry.get('wall_seconds', 0))}", flush=True)

    with _again_and_again(tell):
        yield


@contextlib.contextmanager
def watching(folders: dict[str, run_folder.RunFolder]) -> Iterator[Callable[[str, str | None], None]]:
    """Show the progress of runs while the body executes them: a line a run.

    On a terminal with the stage it is in, a bar and the time left of that stage; elsewhere the line comes as the run
    ends. Yields the function to call as a run ends, with its name and the message of its failure or None.
    """
    from rich.console import Console

    console = Console()
    started = time.monotonic()
    ended: list[str] = []

    def each(name: str, failure: str | None) -> None:
        ended.append(name)
        if not console.is_terminal:
            spent = time.monotonic() - started
            left = spent / len(ended) * (len(folders) - len(ended))
            state = "failed" if failure else "done"
            print(f"{name} {state} ({len(ended)} of {len(folders)} runs, about {_clock(left)} left)", flush=True)

    def share(folder: run_folder.RunFolder) -> tuple[float, str]:
        done, note = stage_progress(folder)
        return done / len(names_of(run_folder.read_ledger(folder)["stages"])), note

    if not console.is_terminal:
        yield each
        return
    with _bars(console, {name: lambda folder=folder: share(folder) for name, folder in folders.items()}):
        yield each


@contextlib.contextmanager
def _bars(console: Any, rows: dict[str, Callable[[], tuple[float, str]]]) -> Iterator[None]:
    """A line a row with a bar: each row is asked again and again for its share done (0 to 1) and a note."""
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as bars:
        tasks = {name: bars.add_task(name, total=1.0, note="waiting") for name in rows}

        def draw() -> None:
            for name, seen in rows.items():
                share, note = seen()
                bars.update(tasks[name], completed=share, note=note)

        with _again_and_again(draw):
            yield


@contextlib.contextmanager
def _again_and_again(do: Callable[[], None]) -> Iterator[None]:
    """Do something every so often beside the body, and once more at its end."""
    over = threading.Event()

    def loop() -> None:
        while not over.is_set():
            do()
            over.wait(_SECONDS_BETWEEN_LOOKS)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        do()


def _stage(run: run_folder.RunFolder, name: str) -> tuple[float, str]:
    """The share done of a stage, and a note to show beside it."""
    entry = run_folder.read_ledger(run)["stages"].get(name, {})
    state = entry.get("state", "waiting")
    if state != "running":
        told = f"{state} in {_clock(entry['wall_seconds'])}" if "wall_seconds" in entry else state
        return float(state == run_folder.DONE), told
    share, left = _under_way(run, name, entry)
    told = f"running for {_clock(_seconds_since(entry))}"
    return share, told if left is None else f"{told}, {_clock(left)} left"


def stage_progress(run: run_folder.RunFolder) -> tuple[float, str]:
    """How many stages of a run are done (with the fraction of the one under way), and a note to show beside it."""
    stages = run_folder.read_ledger(run)["stages"]
    done = sum(entry["state"] == run_folder.DONE for entry in stages.values())
    names = names_of(stages)
    for name in names:
        entry = stages.get(name, {})
        if entry.get("state") == "running":
            share, left = _under_way(run, name, entry)
            return (done, name) if left is None else (done + share, f"{name}, {_clock(left)} left")
        if entry.get("state") in ("failed", "killed"):
            return done, f"{entry['state']} in {name}"
    if done < len(names):
        return done, "waiting"
    return done, f"done in {_clock(sum(entry.get('wall_seconds', 0) for entry in stages.values()))}"


def _under_way(run: run_folder.RunFolder, stage: str, entry: dict) -> tuple[float, float | None]:
    """The share done of a stage that runs, and the seconds left; 0 and None while the stage has told nothing.

    The time left is by the steps of this execution: those of an earlier one, that it goes on from, took none of it.
    """
    inside = run_folder.read_progress(run)
    if not inside or inside.get("stage") != stage or inside["started"] < entry.get("started", 0):
        return 0.0, None
    made = inside["done"] - inside.get("before", 0)
    if made <= 0:
        return 0.0, None
    spent = time.time() - inside["started"]
    return inside["done"] / inside["total"], spent / made * (inside["total"] - inside["done"])


def _seconds_since(entry: dict) -> float:
    """How long a stage has been running."""
    return time.time() - entry.get("started", time.time())


# --- at any time --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sight:
    """A run as it is seen at one moment.

    Attributes:
        state: waiting, running, stopped (its ledger says running, but nobody holds its folder), failed, killed, done,
            or unreadable (its ledger is damaged).
        stages: the ledger's entries by stage.
        damage: what is to be said of a damaged ledger.
    """

    run: run_folder.RunFolder
    state: str
    stages: dict[str, dict]
    damage: str = ""

    @property
    def name(self) -> str:
        return self.run.root.name


def look(run: run_folder.RunFolder) -> Sight:
    """See a run; one that has not begun is waiting."""
    held = run_folder.held(run.root)  # asked first: a run that ends meanwhile has written its ledger by then
    if damage := run_folder.ledger_damage(run):
        return Sight(run, "unreadable", {}, damage)
    stages = run_folder.read_ledger(run)["stages"]
    states = [entry["state"] for entry in stages.values()]
    if states and set(states) == {run_folder.DONE}:
        state = run_folder.DONE
    elif held:
        state = "running"
    elif "running" in states:
        state = "stopped"
    else:
        state = next((state for state in states if state in ("failed", "killed")), "waiting")
    return Sight(run, state, stages)


def print_status(root: Path, planned: Callable[[Path], list[str]]) -> None:
    """Print the runs of a folder: a table a study, and one for the runs beside each other without a study.

    Args:
        root: the folder of a run or of a study, or one that holds such folders, as outputs/ does.
        planned: names of the runs that the study in a folder asks for; raises InputError when that cannot be known.
    """
    levels = ("", "*/", "*/*/")
    ledgers = [path.parent for level in levels for path in sorted(root.glob(f"{level}run.json"))]
    studies = [path.parent for level in levels[:2] for path in sorted(root.glob(f"{level}study.yaml"))]
    folders = sorted({*studies, *(folder.parent for folder in ledgers)})
    if not folders:
        print(f"No runs below {root} yet; `safety-nb run params/tiny.yaml` makes one.")
        return
    print(f"Runs below {root} (a time is what a finished stage took)")
    for folder in folders:
        names, trouble = [], ""
        if folder in studies:
            try:
                names = planned(folder)
            except InputError as error:
                trouble = f"study.yaml cannot be read: {error}"
        # After those of the plan, what else lies there: runs of a study that was larger once, or never was one.
        names += [run.name for run in ledgers if run.parent == folder and run.name not in names]
        print()
        for line in _group(folder, names, is_study=folder in studies):
            print(line)
        if trouble:
            print(visible(trouble)[0])


def _group(folder: Path, names: list[str], is_study: bool) -> Iterator[str]:
    """The lines about the runs of one folder: totals, a table, what is to be said of single runs, how to go on."""
    sights = [look(run_folder.RunFolder(folder / name)) for name in names]
    counts = {state: sum(sight.state == state for sight in sights) for state in _STATES}
    told = [
        f"{counts.pop(run_folder.DONE)} of {len(sights)} done",
        *(f"{n} {state}" for state, n in counts.items() if n),
    ]
    goes_on = run_folder.held(folder) if is_study else False
    left = _seconds_left(sights) if goes_on else None
    if left is not None:
        told.append(f"about {_clock(left)} left")
    yield visible(f"{folder}: {', '.join(told)}", limit=None)[0]
    names = names_of({stage for sight in sights for stage in sight.stages})
    yield from _table(("run", *names, "changed"), [(sight.name, *_cells(sight, names)) for sight in sights])
    for sight in sights:
        if sight.damage:
            yield visible(f"{sight.damage} The next `safety-nb run` or `study` keeps the file aside.", limit=None)[0]
        for stage, entry in sight.stages.items():
            if note := _note(sight, stage, entry):
                yield visible(f"{sight.name}, {stage}: {note}")[0]
    if is_study and not goes_on and counts["running"] == 0 and any(sight.state != run_folder.DONE for sight in sights):
        yield _how_to_go_on("study", folder / "study.yaml", folder)
    elif not is_study:
        for sight in sights:
            if sight.state in ("stopped", "killed"):
                yield _how_to_go_on("run", sight.run.params, sight.run.root)


_STATES = (run_folder.DONE, "running", "waiting", "stopped", "failed", "killed", "unreadable")


def _seconds_left(sights: list[Sight]) -> float | None:
    """About how long a study goes on: each stage takes what it took in other runs, at as many runs at once as now.

    None until every stage has been done once.
    """
    names = names_of({stage for sight in sights for stage in sight.stages})
    took: dict[str, list[float]] = {name: [] for name in names}
    for sight in sights:
        for name, entry in sight.stages.items():
            if entry["state"] == run_folder.DONE and name in took:
                took[name].append(entry.get("wall_seconds", 0))
    if not all(took.values()):
        return None
    left = 0.0
    for sight in sights:
        if sight.state not in ("failed", "killed"):
            for name, seconds in took.items():
                left += _stage_left(sight, name, sum(seconds) / len(seconds))
    return left / max(sum(sight.state == "running" for sight in sights), 1)


def _stage_left(sight: Sight, name: str, usual: float) -> float:
    entry = sight.stages.get(name, {})
    if entry.get("state") == run_folder.DONE:
        return 0.0
    if entry.get("state") == "running" and sight.state == "running":
        _, left = _under_way(sight.run, name, entry)
        return max(usual - _seconds_since(entry), 0.0) if left is None else left
    return usual


def _cells(sight: Sight, names: tuple[str, ...]) -> list[str]:
    """A cell a stage, and how long ago something changed."""
    cells = []
    for name in names:
        entry = sight.stages.get(name, {})
        state = entry.get("state", "waiting")
        if state == "running" and sight.state == "stopped":
            state = "stopped"
        elif state == "running":
            share, left = _under_way(sight.run, name, entry)
            state = "running" if left is None else f"{share:.0%}"
        cells.append({"waiting": "-", run_folder.DONE: _clock(entry.get("wall_seconds", 0))}.get(state, state))
    written = [
        path.stat().st_mtime for path in (sight.run.ledger, run_folder.progress_file(sight.run)) if path.exists()
    ]
    return [*cells, f"{_age(time.time() - max(written))} ago" if written else "waiting"]


def _note(sight: Sight, stage: str, entry: dict) -> str:
    """What is to be said of a stage besides its cell."""
    if entry["state"] != "running":
        return entry.get("cause") or ""
    if sight.state == "stopped":
        return "stopped: the process that ran it is gone"
    spent = _clock(_seconds_since(entry))
    share, left = _under_way(sight.run, stage, entry)
    return f"running for {spent}" + (f", {share:.0%} done, about {_clock(left)} left" if left is not None else "")


def _how_to_go_on(command: str, params: Path, out: Path) -> str:
    return f"To go on from there: safety-nb {command} {shlex.quote(str(params))} --out {shlex.quote(str(out))}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a table of runs. Where names leave too little room for it, each stands on a line of its own."""
    rows = [head, *rows]
    rows = [tuple(visible(cell, limit=None)[0] for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    alone = sum(widths) + 2 * (len(widths) - 1) > shutil.get_terminal_size().columns
    for name, *cells in rows:
        if alone:
            yield name
        first = " " * 4 if alone else name.ljust(widths[0])
        yield "  ".join([first, *(cell.ljust(width) for cell, width in zip(cells, widths[1:], strict=True))]).rstrip()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
