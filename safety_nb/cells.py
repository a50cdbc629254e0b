"""Writes the parameters cell of every notebook from its schema: ``python -m safety_nb.cells``."""

from pathlib import Path

from safety_nb import runs, schema, stages


def write_parameters_cells() -> list[Path]:
    """Bring the parameters cell of each notebook in step with the schema; the notebooks that changed."""
    changed = []
    for notebook, model in stages.NOTEBOOK_PARAMS.items():
        path = stages.notebook_path(notebook)
        book = runs.read_json(path)
        (cell,) = [cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", [])]
        source = schema.parameters_cell(model).splitlines(keepends=True)
        if cell["source"] != source:
            cell["source"] = source
            runs.write_notebook(path, book)
            changed.append(path)
    return changed


if __name__ == "__main__":
    for changed_path in write_parameters_cells():
        print(f"written: {changed_path}")
