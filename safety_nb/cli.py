"""The command ``safety-nb``: a thin layer over the package.

Exit status 0 done, 1 a stage failed, 2 bad input, 130 interrupted (Ctrl-C or SIGTERM).
"""

import contextlib
import errno
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from safety_nb import __version__
from safety_nb.core.columns import N_SAFETY
from safety_nb.core.errors import InputError
from safety_nb.run import data_commands

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(data_commands.app, name="data")

ParamsFile = Annotated[Path, typer.Argument(help="Parameter file, as in params/.", metavar="PARAMS.yaml")]
StudyFile = Annotated[Path, typer.Argument(help="Parameter file with lists to sweep over.", metavar="STUDY.yaml")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Change a parameter: name=value, as in YAML.", metavar="NAME=VALUE")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the results.", metavar="DIR")]


def main() -> None:
    """Entry point: what is the user's or the machine's becomes one message; what is ours stays a traceback.

    Status 2 is for what the user can mend in the command or the files that it names, 1 for what failed on its way.
    """
    # jsonschema, which reading notebooks imports, has this if it is there: a grammar that takes a second to compile,
    # for a format that no notebook's schema names. The process is ours alone: nobody else misses it.
    sys.modules.setdefault("rfc3987_syntax", None)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_once)
    try:
        _check_arguments(sys.argv)
        app()
    except InputError as error:
        _say_error(str(error))
        raise SystemExit(2) from None
    except OSError as error:
        _say_error(str(error))
        raise SystemExit(2 if error.filename and error.errno in _OF_A_PATH else 1) from None
    except Exception as error:
        error.add_note(_OURS)
        raise


_OURS = "This is a fault of safety-nb and not of your input: please report it, with the lines above and the command."
# What the system says of a path that a user has named; of a disk or a network it says other things.
_OF_A_PATH = {
    *(errno.EACCES, errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT),
    *(errno.ENOTDIR, errno.ENOTEMPTY, errno.EPERM, errno.EROFS),
}


def _check_arguments(arguments: list[str]) -> None:
    """Check that what was typed is text: what is not UTF-8 can stand in no file, report or message."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(f"The argument {argument!r} is not UTF-8; write it, or rename the file, so.") from None


def _interrupt_once(*_: object) -> None:
    """Ctrl-C ends the command; a second one, while it is ending, would only break that off with tracebacks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say_error(message: str) -> None:
    from safety_nb.core import secrets, text

    message, _ = text.visible(secrets.redact(message), None)
    typer.secho("Error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(message, err=True)


@contextlib.contextmanager
def _executing() -> Iterator[None]:
    """Around what executes notebooks: every way in which it may not finish ends with its message and status."""
    from safety_nb.run import runner

    try:
        with runner.ending_in_order():
            yield
    except (runner.StageFailed, runner.NotebookFailed, OSError) as error:
        _say_error(str(error))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _say_error("Interrupted. The same command goes on with what is not done yet.")
        raise typer.Exit(130) from None


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"safety-nb {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """How many safety demonstrations does your instruction-tuning mixture need, and how many are too many?"""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to copy into, new or not.", metavar="DIR")],
) -> None:
    """Copy the notebooks and parameter files into a folder to work in; overwrites nothing."""
    from safety_nb.core import outputs, shipped

    outputs.check(folder, "DIR")
    copied = shipped.copy_to(folder)
    for path in copied.kept:
        typer.echo(f"Left as it is: {folder / path} (yours differs from the one that comes along)")
    there = len(copied.same) + len(copied.kept)
    typer.echo(f"{len(copied.written)} files written to {folder}, {there} were there already.")
    typer.echo(f"Next, in {folder}: `safety-nb run tiny.yaml`, or `jupyter lab notebooks/1-mix.ipynb`")


@app.command()
def run(
    params: ParamsFile,
    set_: Assignments = None,
    first: Annotated[
        str, typer.Option("--from", help="Execute this stage and those after it anew.", metavar="STAGE")
    ] = "mix",
    last: Annotated[str, typer.Option("--until", help="Stop after this stage.", metavar="STAGE")] = "report",
    out: Out = None,
) -> None:
    """Take one set of parameters through its stages: mix, train, generate, capabilities if asked for, judge, report."""
    from safety_nb.core import grid, outputs, run_folder
    from safety_nb.core.files import read_json
    from safety_nb.core.params import RunParams, validate
    from safety_nb.data import mixing
    from safety_nb.run import checks, fork_server, progress, runner, stages

    values = read_params(params, set_ or [])
    swept = grid.swept_names(values)
    if swept:
        raise InputError(f"{', '.join(swept)}: a list of values is a study; run it with `safety-nb study {params}`.")
    checked = validate(RunParams, values)
    folder = run_folder.RunFolder(out or run_folder.outputs_root() / "runs" / params.stem)
    outputs.check(folder.root)
    checks.check_folder(folder.root, "run.json")
    runner.check_stages(folder, checked, first, last)
    # While this process checks, another imports what the notebooks need. A single notebook would only wait for it.
    with fork_server.kernels() if first != last else contextlib.nullcontext():
        checks.check_run(checked)
        with _executing(), progress.watching_stages(folder, tuple(stage.name for stage in stages.of_run(checked))):
            runner.execute_run(folder, checked, first, last)
    for remark in mixing.remarks(read_json(folder.mixture)) if first == "mix" else ():
        typer.echo(remark)
    where = folder.report if last == "report" else folder.root
    typer.echo(f"Done: {where}")


@app.command()
def study(
    study: StudyFile,
    set_: Assignments = None,
    jobs: Annotated[int, typer.Option(min=1, max=1024, help="Runs at once; more than one only without a GPU.")] = 1,
    out: Out = None,
) -> None:
    """Execute a grid of runs and compare them."""
    from safety_nb.core import grid, outputs, run_folder
    from safety_nb.report import study_tables
    from safety_nb.run import checks, progress, search
    from safety_nb.run import study as studies

    values = read_params(study, set_ or [])
    settings, _ = grid.study_settings(values)
    planned = grid.plan(values)
    folder = out or run_folder.outputs_root() / study.stem
    outputs.check(folder)
    checks.check_folder(folder, "study.yaml")
    checks.check_swept(planned[0].swept)
    complaints: dict[str, None] = {}
    for planned_run in planned:
        try:
            checks.check_run(planned_run.params)
        except InputError as error:
            complaints.update(dict.fromkeys(str(error).splitlines()))
    asked = None
    if settings.prefer:
        try:
            asked = studies.check_prefer([each.params for each in planned])
        except InputError as error:
            complaints.update(dict.fromkeys(str(error).splitlines()))
    if complaints:
        raise InputError("\n".join(complaints))
    folders = {planned_run.name: run_folder.RunFolder(folder / planned_run.name) for planned_run in planned}
    started = time.monotonic()
    with _executing():
        with progress.watching(folders) as each:
            execute = search.execute if settings.search else studies.execute_runs
            failures = execute(folder, values, jobs, each)
        if asked:
            failures += studies.preferences_failure(folder, asked)
        studies.execute_comparison(folder)
    for failure in failures:
        _say_error(failure)
    states = list(study_tables.read_study(folder).runs["state"])
    skipped = f", {states.count('not needed')} not needed" if settings.search else ""
    seconds = time.monotonic() - started
    typer.echo(f"{states.count(run_folder.DONE)} of {len(planned)} runs done{skipped} in {seconds:.0f} s.\n")
    typer.echo((folder / "headline.txt").read_text(encoding="utf-8").strip())
    typer.echo(f"\nReport: {folder / 'report.html'}")
    if failures:
        raise typer.Exit(1)


@app.command()
def compare(
    studies: Annotated[list[Path], typer.Argument(help="Folders of two or more studies.", metavar="STUDY...")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the comparison.", metavar="DIR")],
) -> None:
    """Compare studies that were run apart: one report over all of their finished runs."""
    from safety_nb.core import outputs
    from safety_nb.report import study_tables, writing
    from safety_nb.report.findings import comparison
    from safety_nb.run import checks

    outputs.check(out)
    checks.check_folder(out, "headline.txt")
    tables = study_tables.read_studies(studies, out)
    compared = comparison.compare_study(tables)
    report = writing.report_study(out, tables, compared)
    for remark in study_tables.remarks(out, tables):
        typer.echo(remark)
    typer.echo(f"{compared.answer}\n\nReport: {report}")


@app.command()
def prefer(
    study: Annotated[Path, typer.Argument(help="Folder of a study.", metavar="STUDY_DIR")], set_: Assignments = None
) -> None:
    """Ask an llm judge which answers to ordinary requests are better, each N against the smallest; compares anew."""
    from safety_nb.core import grid
    from safety_nb.core.params import JudgeParams, validate
    from safety_nb.run import study as studies

    params = validate(JudgeParams, assigned({}, set_ or []))
    grid.study_file(study)
    with _executing():
        told = studies.prefer(study, params)
        studies.execute_comparison(study)
    for n_safety, rows in told.groupby(N_SAFETY):
        typer.echo(f"N = {n_safety}: {dict(rows['label'].fillna('missing').value_counts())}")
    typer.echo(f"Report: {study / 'report.html'}")


@app.command()
def status(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of a run or a study, or outputs/.", metavar="DIR")
    ] = None,
) -> None:
    """Show runs, their stages, states, ages and causes of failure."""
    from safety_nb.core import grid, run_folder
    from safety_nb.run import progress

    root = folder or run_folder.outputs_root()
    if folder and not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r}; name the folder of a run or a study, or outputs/.")
    progress.print_status(root, grid.planned_names)


@app.command()
def doctor(
    params: Annotated[
        Path | None, typer.Argument(help="Parameter file of a run or a study.", metavar="[PARAMS.yaml]")
    ] = None,
    set_: Assignments = None,
) -> None:
    """Say what this machine can do, and whether a run or a study fits and how long it takes; each problem's mend."""
    from safety_nb.core import grid, run_folder
    from safety_nb.run import doctor as doctors

    if params is None and set_:
        raise InputError("--set changes a parameter file: name one, as in `safety-nb doctor params/tiny.yaml`.")
    values = None if params is None else read_params(params, set_ or [])
    outputs = run_folder.outputs_root()
    if params is not None:
        outputs = outputs / params.stem if grid.swept_names(values) else outputs / "runs" / params.stem
    if not doctors.print_findings(doctors.examine(values, outputs)):
        raise typer.Exit(1)


@app.command()
def judge(
    name: Annotated[str, typer.Argument(help="Judge, as in the parameter `judges`.", metavar="NAME")],
    table: Annotated[Path, typer.Argument(help="CSV, JSON lines or Parquet, one answer a row.", metavar="TABLE")],
    prompt: Annotated[str, typer.Option(help="Column with what was asked.", metavar="COLUMN")],
    response: Annotated[str, typer.Option(help="Column with what was answered.", metavar="COLUMN")],
    out: Annotated[Path, typer.Option("--out", help="New file; its ending says the format.", metavar="FILE")],
    set_: Assignments = None,
) -> None:
    """Let a judge read any table of answers; adds the columns label, score and missing."""
    from safety_nb.core import outputs, tables
    from safety_nb.core.params import JudgeParams, validate
    from safety_nb.judge import judging

    values = assigned({}, set_ or [])
    params = validate(JudgeParams, {**values, "judges": [name]})
    outputs.check(out)
    tables.check_new(out)
    read = tables.read(table)
    tables.check_fits(out, read)
    judged = judging.judge_table(name, read, prompt, response, params)
    tables.write(out, judged)
    counts = judged["label"].where(judged["missing"].isna(), "missing").fillna("scored").value_counts()
    typer.echo("\n".join(f"{count:>7,} {label}" for label, count in counts.items()))
    if name == "delivery":
        typer.echo(
            f"It judged the text{' and ' + ', '.join(judged.attrs['read']) if judged.attrs['read'] else ' alone'}."
        )
    typer.echo(f"Done: {out}")


@app.command("fit-refusal")
def fit_refusal(
    tables: Annotated[
        list[Path], typer.Argument(help="CSV, JSON lines or Parquet, one labelled answer a row.", metavar="TABLE...")
    ],
    prompt: Annotated[str, typer.Option(help="Column with what was asked.", metavar="COLUMN")],
    response: Annotated[str, typer.Option(help="Column with what was answered.", metavar="COLUMN")],
    label: Annotated[
        str, typer.Option(help="Column with full_compliance, full_refusal or partial_refusal.", metavar="COLUMN")
    ],
    out: Annotated[Path, typer.Option("--out", help="New or empty folder for the judge.", metavar="DIR")],
    group: Annotated[
        str, typer.Option(help="Column with the model that answered; by default a table is a model.", metavar="COLUMN")
    ] = "",
) -> None:
    """Fit the judge refusal-classifier:DIR from answers that people have labelled."""
    from safety_nb.core import outputs
    from safety_nb.core import tables as files
    from safety_nb.judge.kinds import refusal_classifier

    outputs.check(out)
    names = [path.name for path in tables]
    if len(set(names)) < len(names):
        raise InputError(f"TABLE...: two files have the same name among {', '.join(names)}; rename one.")
    read = {path.name: files.read(path) for path in tables}
    record = refusal_classifier.fit(read, prompt, response, label, out, group, watch=typer.echo)
    typer.echo("Agreement with people, each model's answers and their prompts left out of fitting:")
    for model, told in record["cross_validation"].items():
        if isinstance(told, dict):
            figures = told["classifier"]
            mcc = "none" if figures["refusal_mcc"] is None else f"{figures['refusal_mcc']:.3f}"
            typer.echo(
                f"{model}: refusal or not {figures['refusal_accuracy']:.3f} (MCC {mcc}), "
                f"three classes {figures['three_class_accuracy']:.3f}; {told['rows']:,} answers"
            )
        elif model == "note":
            typer.echo(told)
    typer.echo(f"Done: {out}; use it as refusal-classifier:{out}")


@app.command()
def calibrate(
    source: Annotated[
        Path, typer.Argument(help="Folder of a run or a study, or a table with human labels.", metavar="DIR|TABLE")
    ],
    prompt: Annotated[str, typer.Option(help="Column with what was asked.", metavar="COLUMN")] = "prompt",
    response: Annotated[str, typer.Option(help="Column with what was answered.", metavar="COLUMN")] = "response",
    human: Annotated[str, typer.Option(help="Column with people's labels or scores.", metavar="COLUMN")] = "human",
    model: Annotated[str, typer.Option(help="Column that says whose answer it is.", metavar="COLUMN")] = "",
    judge: Annotated[
        list[str] | None, typer.Option(help="Judge of a table (repeatable); refusal by default.", metavar="NAME")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the tables; of a run or study, its own.", metavar="DIR")
    ] = None,
    set_: Assignments = None,
) -> None:
    """Compare judges with people's labels and scores, and correct a study's rates and mean scores by them."""
    from safety_nb.core import outputs, tables
    from safety_nb.core.params import JudgeParams, validate
    from safety_nb.report.calibration import calibration, terminal

    if out:
        outputs.check(out)
        calibration.check_new(out)
    if source.is_dir():
        if judge or set_:
            raise InputError("--judge and --set are for a table; of a folder, the judges that judged it are compared.")
        found, out = calibration.of_run(source), out or source
    else:
        names = judge or ["refusal"]
        params = validate(JudgeParams, {**assigned({}, set_ or []), "judges": names})
        found = calibration.of_table(tables.read(source), prompt, response, human, model, names, params, str(source))
    typer.echo(terminal.as_text(found))
    for path in calibration.write(out, found) if out else []:
        typer.echo(f"Written: {path}")


@app.command()
def capabilities(
    folder: Annotated[Path, typer.Argument(help="Folder of a run or of a study.", metavar="DIR")],
    set_: Assignments = None,
) -> None:
    """Measure what a run's model, or that of every finished run of a study, still knows; compares a study anew."""
    from safety_nb.core import grid, run_folder
    from safety_nb.core.params import CapabilityParams, validate
    from safety_nb.generate import capabilities as measuring
    from safety_nb.report.findings import capability_rates
    from safety_nb.run import fork_server, runner
    from safety_nb.run import study as studies

    values = assigned({}, set_ or [])
    if "run_dir" in values:
        raise InputError("run_dir: the run is named by DIR; leave run_dir out.")
    params = validate(CapabilityParams, with_absolute_paths(values))
    is_study = (folder / "study.yaml").is_file()
    folders = grid.finished_runs(folder) if is_study else [run_folder.RunFolder(folder)]
    if not folders:
        raise InputError(f"No run of {folder} is done; `safety-nb status {folder}` says why.")
    for run in folders:
        measuring.check(run)
    measuring.check_tasks(params)
    failures = 0
    with _executing(), fork_server.kernels() if len(folders) > 1 else contextlib.nullcontext():
        for run in folders:
            try:
                runner.execute_beside(run, "capabilities", params.model_dump(exclude={"run_dir"}))
            except runner.NotebookFailed as error:
                failures += 1
                _say_error(str(error))
            else:
                typer.echo(f"{run.root}\n{capability_rates.finding(capability_rates.results(run))}")
        if is_study and failures < len(folders):
            studies.execute_comparison(folder)
            typer.echo(f"Report: {folder / 'report.html'}")
    if failures:
        raise typer.Exit(1)


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")],
    out: Annotated[Path, typer.Option("--out", help="New or empty folder for the model.", metavar="DIR")],
    dtype: Annotated[str, typer.Option(help="bfloat16 or float16.")] = "bfloat16",
    push: Annotated[str, typer.Option(help="Upload it to this hub repository too.", metavar="REPO_ID")] = "",
) -> None:
    """Merge a run's adapter into its base: one 16-bit model, and how far it drifts from the two as trained."""
    from safety_nb.core import outputs
    from safety_nb.train import export as exporting

    outputs.check(out)
    run_dir.exists()  # a name that the system refuses is the user's to mend, and what fails below is not
    try:
        done = exporting.export(run_dir, out, dtype, push)
    except (exporting.PushFailed, OSError) as error:
        _say_error(str(error))
        raise typer.Exit(1) from None
    drift = done.drift
    typer.echo(f"Done: {out} ({done.parameters:,} parameters in {done.dtype})")
    typer.echo(
        f"Drift from base and adapter as trained, over {drift.tokens:,} answer tokens of {drift.rows} {drift.of} rows: "
        f"log-probability {drift.mean_log_probability:.2g} nats on average, {drift.max_log_probability:.2g} at most; "
        f"likeliest token the same in {drift.same_greedy:.2%}."
    )


def read_params(path: Path, assignments: list[str]) -> dict[str, Any]:
    """The values of a parameter file, with ``name=value`` assignments over them; paths are made absolute.

    Raises:
        InputError: no such file, no YAML, not a flat mapping of names, or an assignment without ``=``.
    """
    from safety_nb.core import files, shipped

    path = shipped.params_file(path)
    values = files.read_yaml(path)
    if values is None:  # an empty file: the defaults
        values = {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise InputError(f"{path}: a parameter file is lines of `name: value`, not {type(values).__name__}.")
    values = assigned(values, assignments)
    if "run_dir" in values:
        raise InputError("run_dir: the folder of the results is named by --out; leave run_dir out.")
    return with_absolute_paths(values)


def with_absolute_paths(values: dict[str, Any]) -> dict[str, Any]:
    """Parameters in which paths are absolute: they are meant from here, and notebooks run in a folder of their own.

    Values may be lists, as in a study; what holds no path stays as it is.
    """
    from safety_nb.data.datasets import sources
    from safety_nb.judge import building
    from safety_nb.train import models

    # What of a value is a path: its end, or nothing.
    path_in = dict.fromkeys(("general", "safety", "validation", "evaluation"), sources.path_in)
    path_in |= {"base_model": models.path_in, "judges": building.path_in, "data_dir": str, "tasks_dir": str}

    def absolute(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [absolute(name, each) for each in value]
        path = path_in[name](value) if isinstance(value, str) else ""
        return value.removesuffix(path) + str(Path(os.path.expanduser(path)).absolute()) if path else value

    return {name: absolute(name, value) if name in path_in else value for name, value in values.items()}


def assigned(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """The values with ``name=value`` assignments, read as YAML, over them; nothing behind the ``=`` is empty text.

    In text without quotes a ``#`` begins no comment, as it would in a file: names of folders hold it.

    Raises:
        InputError: one without ``=``, or whose value is no YAML.
    """
    from safety_nb.core import files, text

    values = dict(values)
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: write name=value.")
        told = f"--set {text.shortened(assignment, 80)}: the value is no YAML"
        value = value.strip()
        read = files.parse_yaml(value, told) if value else ""
        commented = re.search("(^| )#", value) and not value.startswith(("'", '"'))
        values[name.strip()] = value if commented and isinstance(read, str | None) else read
    return values
