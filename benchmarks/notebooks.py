"""What executing the five stage notebooks costs beyond the work in them.

Each way does the same small work (64 general rows, no demonstrations, the 40 questions of fact) in a folder of its own:

- ``script``: one plain script that calls the five functions, the work itself with one round of imports;
- ``papermill command``: the command, once a notebook;
- ``papermill API``: ``papermill.execute_notebook`` five times in one process;
- ``safety-nb runner``: ``safety-nb run``, whose kernels are forked from a process that has the imports.

Overhead is wall seconds beyond the script's of the same round. Rounds alternate between the ways; the table shows
medians.

    python benchmarks/notebooks.py --rounds 5 [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safety_nb.run import stages

WORK = {"n_general": 64, "n_safety": 0, "n_validation": 8, "evaluation": ["tiny-facts"], "max_new_tokens": 16}

SCRIPT = """
import importlib, json, sys
from safety_nb.run import stages
work, folder = json.loads(sys.argv[1]), sys.argv[2]
for stage in stages.STAGES:
    module, function = stage.function.split(":")
    values = {name: work[name] for name in work if name in stage.params.model_fields}
    getattr(importlib.import_module(module), function)(stage.params(run_dir=folder, **values))
"""

API = """
import json, sys
from pathlib import Path
import papermill
from safety_nb.run import stages
work, folder = json.loads(sys.argv[1]), sys.argv[2]
for stage in stages.STAGES:
    values = {name: work[name] for name in work if name in stage.params.model_fields}
    output = Path(folder) / f"{stage.notebook}.ipynb"
    parameters = {**values, "run_dir": folder}
    papermill.execute_notebook(str(stages.notebook_path(stage.notebook)), str(output), parameters, progress_bar=False)
"""


def script(folder: Path) -> None:
    call([sys.executable, "-c", SCRIPT, json.dumps(WORK), str(folder)])


def papermill_api(folder: Path) -> None:
    call([sys.executable, "-c", API, json.dumps(WORK), str(folder)])


def papermill_command(folder: Path) -> None:
    for stage in stages.STAGES:
        values = {name: WORK[name] for name in WORK if name in stage.params.model_fields}
        call(
            [
                *(sys.executable, "-m", "papermill", str(stages.notebook_path(stage.notebook))),
                *(str(folder / f"{stage.notebook}.ipynb"), "--no-progress-bar"),
                *("-y", json.dumps({**values, "run_dir": str(folder)})),
            ]
        )


def runner(folder: Path) -> None:
    params = folder.parent / f"{folder.name}.yaml"
    params.write_text(json.dumps(WORK))  # JSON is YAML
    call([sys.executable, "-m", "safety_nb", "run", str(params), "--out", str(folder)])


WAYS = {
    "script": script,
    "papermill command": papermill_command,
    "papermill API": papermill_api,
    "safety-nb runner": runner,
}


def call(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measure(rounds: int) -> dict[str, list[float]]:
    """Wall seconds by way, one a round; a round before the first is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way, run in WAYS.items():
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "run"
                folder.mkdir()
                started = time.perf_counter()
                run(folder)
                if number:
                    seconds[way].append(time.perf_counter() - started)
    return seconds


def overheads(seconds: dict[str, list[float]], way: str) -> list[float]:
    return [taken - alone for taken, alone in zip(seconds[way], seconds["script"], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    seconds = measure(arguments.rounds)
    base, rows = overheads(seconds, "papermill command"), []
    print(f"{'way':20} {'wall s':>8} {'overhead s':>11} {'of the papermill command':>25}")
    for way, taken in seconds.items():
        ratios = [own / other for own, other in zip(overheads(seconds, way), base, strict=True)]
        ratio = statistics.median(ratios)
        told = "" if way == "script" else f"{statistics.median(overheads(seconds, way)):11.1f} {ratio:25.2f}"
        print(f"{way:20} {statistics.median(taken):8.1f} {told}")
        if way not in ("script", "papermill command"):
            rows.append(
                {
                    "case": way,
                    "baseline": "papermill command",
                    "ratio": ratio,
                    "ratio_low": min(ratios),
                    "ratio_high": max(ratios),
                    "unit": "wall seconds beyond the script's",
                    "rounds": arguments.rounds,
                }
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
