"""The commands ``safety-nb data …``: what data sets there are, fetching, checking and looking at them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from safety_nb.core.errors import InputError

app = typer.Typer(no_args_is_help=True, help="List, fetch, verify and look at data sets.")

DataDir = Annotated[
    str,
    typer.Option("--data-dir", help="Local folder of data sets, else SAFETY_NB_DATA, else the cache.", metavar="DIR"),
]


@app.command("list")
def list_(data_dir: DataDir = "") -> None:
    """List the named data sets: rows, what they are for, licence and whether they are here."""
    from rich.console import Console
    from rich.table import Table

    from safety_nb.data.datasets import sources

    table = Table(box=None, header_style="bold")
    for column in ("name", "rows", "for", "state", "licence"):
        table.add_column(column, justify="right" if column == "rows" else "left", no_wrap=True)
    standings = sources.standings(data_dir)
    for each in standings:
        state = each.state if each.verified else f"{each.state}, unverified"
        table.add_row(
            each.name, f"{each.source.size:,}", each.source.role or each.source.kind, state, each.source.licence
        )
    Console(width=max(Console().width, 100)).print(table)
    typer.echo(
        "\nunverified: never in the hands of safety-nb's authors; hash and number of rows are those that its host or "
        "others publish.\n`safety-nb data show NAME` tells where a set comes from and whom to cite."
    )


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Data sets to fetch.", metavar="NAME...")], data_dir: DataDir = ""
) -> None:
    """Fetch data sets to where they are looked for, and check their hashes."""
    from safety_nb.data.datasets import sources

    for name in names:
        sources.named(name)  # all names are checked before the first download
    for name in names:
        typer.echo(f"{name}: {sources.fetch_named(name, data_dir) or 'embedded'}")


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Data sets; all that are here.", metavar="[NAME]...")
    ] = None,
    data_dir: DataDir = "",
) -> None:
    """Check the hash and the number of rows of data sets that are here."""
    from safety_nb.data.datasets import sources

    here = [each.name for each in sources.standings(data_dir) if each.state != "not fetched"]
    complaints = []
    for name in names or here:
        try:
            typer.echo(f"{name}: {sources.verify(name, data_dir):,} rows, as recorded")
        except InputError as error:
            complaints.append(str(error))
    if complaints:
        raise InputError("\n".join(complaints))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A data set: a name, a file, or a hub id.", metavar="NAME")],
    n: Annotated[int, typer.Option("-n", min=1, help="Rows to show.")] = 3,
    show_harmful: Annotated[bool, typer.Option("--show-harmful", help="Show harmful texts too.")] = False,
    data_dir: DataDir = "",
) -> None:
    """Show the first rows of a data set. Texts of harmful sets are withheld unless asked for."""
    from safety_nb.data.datasets import sources

    rows, harmful = sources.sample(name, n, data_dir)
    if source := sources.REGISTRY.get(name):
        where = source.file.url if source.file else "embedded"
        typer.echo(f"{name}: {source.citation}. Licence: {source.licence}. {where}")
    for row in rows:
        withheld = _withhold(row) if harmful and not show_harmful else row
        typer.echo("\n".join(map(_printable, json.dumps(withheld, indent=2, ensure_ascii=False).splitlines())))
    if harmful and not show_harmful:
        typer.echo("This set holds harmful texts, which are not shown; --show-harmful shows them.")


@app.command()
def opinions(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Sets that ask for reasons; I-CoNa and I-Controversial.", metavar="[NAME]..."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="File to write (.jsonl, .csv or .parquet).", metavar="FILE")
    ] = Path("opinions-ours.jsonl"),
    data_dir: DataDir = "",
) -> None:
    """Write each topic of the sets as an instruction and as an opinion question of our own, to be compared in pairs."""
    import pandas as pd

    from safety_nb.core import outputs, tables
    from safety_nb.data.datasets import opinions as making

    tables.check_new(out)
    outputs.check(out)
    rows, left_out = making.paired_rows(names or making.SETS, data_dir)
    tables.write(out, pd.DataFrame(rows))
    untold = ", ".join(f"{number} of {name}" for name, number in left_out.items() if number)
    typer.echo(
        f"{out}: {len(rows) // 2:,} topics, each as an instruction of its set and as an opinion question.\n"
        "The questions are ours, made by templates; the paper's were never released, and nobody has read these.\n"
        + (f"Left out, for they make no claim or one that an earlier one makes: {untold}.\n" if untold else "")
        + f"In a run or a study: evaluation: [{out}:harmful]. The text is harmful, and has the licence of its set."
    )


def _withhold(row: dict) -> dict:
    kept = {"prompt_id", "id", "type", "tag", "rating", "harmlessness"}
    return {
        name: value if name in kept else f"({len(value):,} characters)" if isinstance(value, str) else "(not shown)"
        for name, value in row.items()
    }


def _printable(line: str) -> str:
    """The line with whatever could steer a terminal written out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
