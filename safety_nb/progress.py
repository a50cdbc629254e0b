"""What a person sees of runs: progress with time left while they go, and their state at any time.

Reads ledgers and progress files only, so it watches runs of this or any other process.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safety_nb import runs
from safety_nb.stages import STAGE_NAMES

_SECONDS_BETWEEN_LOOKS = 0.5


@contextlib.contextmanager
def watching(folders: dict[str, runs.RunFolder]) -> Iterator[Callable[[str, str | None], None]]:
    """Show the progress of runs while the body executes them.

    On a terminal one line a run, with the stage it is in, a bar and the time left of that stage; elsewhere one line as
    each run ends. Yields the function to call as a run ends, with its name and the message of its failure or None.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

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

    if not console.is_terminal:
        yield each
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks = {name: bars.add_task(name, total=len(STAGE_NAMES), note="waiting", start=False) for name in folders}
        over = threading.Event()

        def look() -> None:
            while not over.is_set():
                for name, folder in folders.items():
                    done, note = stage_progress(folder)
                    if note != "waiting":
                        bars.start_task(tasks[name])
                    if done == len(STAGE_NAMES) or note.startswith(("failed", "killed")):
                        bars.stop_task(tasks[name])
                    bars.update(tasks[name], completed=done, note=note)
                over.wait(_SECONDS_BETWEEN_LOOKS)

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield each
        finally:
            over.set()
            watcher.join()


def stage_progress(run: runs.RunFolder) -> tuple[float, str]:
    """How many stages of a run are done (with the fraction of the one under way), and a note to show beside it."""
    stages = runs.read_ledger(run)["stages"]
    done = sum(entry["state"] == runs.DONE for entry in stages.values())
    for name in STAGE_NAMES:
        entry = stages.get(name, {})
        if entry.get("state") == "running":
            inside = runs.read_progress(run)
            if inside and inside["stage"] == name and inside["started"] >= entry["started"] and inside["done"]:
                spent = time.time() - inside["started"]
                left = spent / inside["done"] * (inside["total"] - inside["done"])
                return done + inside["done"] / inside["total"], f"{name}, {_clock(left)} left"
            return done, name
        if entry.get("state") in ("failed", "killed"):
            return done, f"{entry['state']} in {name}"
    return done, "done" if done == len(STAGE_NAMES) else "waiting"


def print_status(root: Path) -> None:
    """Print a table of the runs below a folder: each stage's time or state, how long ago it changed, and causes."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    ledgers = sorted(path for path in root.rglob("run.json") if len(path.relative_to(root).parts) <= 3)
    if not ledgers:
        print(f"No runs below {root} yet; `safety-nb run params/tiny.yaml` makes one.")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", *STAGE_NAMES, "changed"):
        table.add_column(column, no_wrap=True)
    causes = []
    for path in ledgers:
        run = runs.RunFolder(path.parent)
        name = str(path.parent.relative_to(root)) if path.parent != root else root.name
        stages = runs.read_ledger(run)["stages"]
        cells = [_stage_cell(stages.get(stage, {}), stage, run) for stage in STAGE_NAMES]
        table.add_row(escape(name), *cells, f"{_age(time.time() - path.stat().st_mtime)} ago")
        causes += [f"{name}, {stage}: {entry['cause']}" for stage, entry in stages.items() if entry.get("cause")]
    Console().print(
        f"Runs below {root} (a time is what a finished stage took)", highlight=False, markup=False, soft_wrap=True
    )
    Console().print(table)
    for cause in causes:
        Console().print(cause, highlight=False, markup=False, soft_wrap=True)


def _stage_cell(entry: dict, name: str, run: runs.RunFolder) -> str:
    state = entry.get("state", "waiting")
    if state == "running":
        done, note = stage_progress(run)
        return f"{done % 1:.0%}" if "left" in note else "running"
    return {"waiting": "-", runs.DONE: _clock(entry.get("wall_seconds", 0))}.get(state, state)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
