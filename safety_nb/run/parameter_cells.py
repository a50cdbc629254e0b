"""Writes the parameters cell of every notebook from the schema: ``python -m safety_nb.run.parameter_cells``."""

from pathlib import Path
from typing import Any

from safety_nb.core import files
from safety_nb.core.params import Checked
from safety_nb.run import stages

_LINE_LENGTH = 120  # of the formatter, which breaks longer lists


def write_parameters_cells() -> list[Path]:
    """Bring the parameters cell of each notebook in step with the schema; the notebooks that changed."""
    changed = []
    for notebook, model in stages.NOTEBOOK_PARAMS.items():
        path = stages.notebook_path(notebook)
        book = files.read_json(path)
        (cell,) = [cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", [])]
        source = parameters_cell(model).splitlines(keepends=True)
        if cell["source"] != source:
            cell["source"] = source
            files.write_notebook(path, book)
            changed.append(path)
    return changed


def parameters_cell(model: type[Checked]) -> str:
    """The source of a notebook's ``parameters`` cell: plain annotated literals with their help.

    The comments hold no ``=``: papermill's reader drops a parameter whose comment has one.
    """
    lines = []
    for name, field in model.model_fields.items():
        default = field.get_default()
        head, help_ = f"{name}: {type(default).__name__} = ", f"  # {field.description}"
        line = head + _literal(default) + help_
        if len(line) > _LINE_LENGTH and isinstance(default, list):
            line = head + "[\n" + "".join(f"    {_literal(item)},\n" for item in default) + "]" + help_
        lines.append(line)
    return "\n".join(lines)


def _literal(value: Any) -> str:
    """A Python literal as the formatter writes it (double quotes)."""
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    for changed_path in write_parameters_cells():
        print(f"written: {changed_path}")
