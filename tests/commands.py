"""Commands called in process: what a user gets, without the seconds that starting Python and its imports take."""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from safety_nb import cli


@dataclass(frozen=True)
class Answer:
    """How a command ended: its exit status and all that it printed."""

    returncode: int
    stdout: str
    stderr: str


def safety_nb(*arguments: str | Path, cwd: Path, columns: int = 300, **environment: str | None) -> Answer:
    """Run the command in a folder, without colours, on a terminal of so many columns.

    Args:
        environment: variables to set, or (None) to do without; by default there is no folder of public data sets.
    """
    changed = {"COLUMNS": str(columns), "NO_COLOR": "1", "SAFETY_NB_DATA": None, **environment}
    return _called(cli.main, ["safety-nb", *map(str, arguments)], cwd, changed)


def papermill(notebook: Path, output: Path, *arguments: str, cwd: Path) -> Answer:
    """Execute a notebook in a folder as the papermill command does; with the fixture ``kernels`` in a forked kernel."""
    from papermill.cli import papermill as command

    def main() -> None:
        try:
            command()
        except Exception:  # as Python itself ends
            traceback.print_exc()
            raise SystemExit(1) from None

    return _called(main, ["papermill", str(notebook), str(output), "--no-progress-bar", *arguments], cwd, {})


@contextlib.contextmanager
def _environment(changed: dict[str, str | None]) -> Iterator[None]:
    """Variables set, or (None) not there, for the body; afterwards all are as they were, those it set too."""
    before = dict(os.environ)
    try:
        _set(changed)
        yield
    finally:
        _set({name: before.get(name) for name in {**before, **os.environ} if before.get(name) != os.environ.get(name)})


def _set(variables: dict[str, str | None]) -> None:
    for name, text in variables.items():
        if text is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = text


def _called(main: Callable[[], object], argv: list[str], cwd: Path, environment: dict[str, str | None]) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(cwd))
        stack.enter_context(_environment(environment))
        stack.enter_context(mock.patch.object(sys, "argv", argv))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    return Answer(status, out.getvalue(), err.getvalue())
