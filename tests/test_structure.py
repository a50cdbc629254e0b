"""What imports what, what importing costs, and what a notebook may hold."""

import ast
import graphlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import safety_nb
from safety_nb import schema, stages

PACKAGE = Path(safety_nb.__file__).parent
ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# The import graph

# Module to the siblings it may import, inside functions or for type checkers too. Imports run one way: `schema`,
# `prompts`, `stats` and `plots` know no sibling, a data set does not know what it is used for, a judge not which run
# wrote a response, and nothing below the command line knows it. `errors` may be imported by all and imports nothing.
# A new edge is a decision: think about the way it runs, then add it here.
ALLOWED = {
    "__init__": set(),
    "__main__": {"cli"},
    "errors": set(),
    "schema": set(),
    "prompts": set(),
    "stats": set(),
    "plots": {"plots.reward", "plots.run", "plots.study"},
    "plots.look": set(),
    "plots.reward": {"plots.look"},
    "plots.run": {"plots.look"},
    "plots.study": {"plots.look"},
    "live": {"plots"},
    "tiny": set(),
    "tiny_base": {"tiny"},
    "redaction": set(),
    "shipped": set(),
    "usage": set(),
    "runs": {"redaction"},
    "warm": set(),
    "engine": {"redaction", "runs"},
    "rows": set(),
    "fetch": {"runs"},
    "hub": {"fetch", "rows", "runs"},
    "registry": {"fetch", "rows", "tiny"},
    "sources": {"fetch", "hub", "registry", "rows", "runs"},
    "overlap": set(),
    "screening": {"overlap", "schema", "sources"},
    "mixing": {"overlap", "prompts", "runs", "schema", "screening", "sources"},
    "encoding": {"prompts"},
    "models": {"runs", "tiny"},  # hashes
    "packing": {"encoding"},
    "trainer": {"encoding", "packing", "usage"},
    "cards": {"registry"},  # licences
    # estimate: how much is computed at once is chosen by what will fit.
    "training": {"cards", "encoding", "estimate", "models", "packing", "runs", "schema", "trainer"},
    "export": {"cards", "encoding", "models", "runs", "schema", "training"},
    "capabilities": {"models", "prompts", "runs", "schema", "summary", "tiny"},
    "coherence": set(),
    "decoding": set(),
    "generation": {"coherence", "decoding", "encoding", "endpoint", "models", "prompts", "runs", "schema", "sources"},
    # models, tiny: where a model lies, so that none judges its own answers.
    "judges": {"endpoint", "fetch", "judges.judgement", "models", "runs", "schema", "sources", "tiny"},
    "judges.guard": {"decoding", "judges.judgement", "models", "schema"},
    "judges.helpfulness": {"judges.harmfulness", "judges.judgement", "models", "schema"},
    "judges.harmfulness": {"judges.judgement", "models", "runs", "schema", "tiny"},
    "judges.judgement": set(),
    "judges.human": {"annotations", "judges.judgement", "runs", "schema"},
    "judges.llm": {"endpoint", "fetch", "judges.judgement", "judges.rubrics", "schema"},
    "judges.moderation": {"endpoint", "fetch", "judges.judgement", "schema"},
    "judges.reference": {"judges.judgement", "schema"},
    "judges.refusal": {"coherence", "judges.judgement", "judges.sentences", "schema"},
    "judges.refusal_classifier": {"judges.judgement", "judges.refusal", "runs", "schema"},
    "judges.rubrics": {"judges.judgement"},
    "judges.sentences": set(),
    "judges.string_match": {"judges.judgement", "schema"},
    "tables": {"runs"},
    "paired": {"stats"},
    "dose": {"stats"},
    "summary": {"stats"},
    "contrasts": {"dose", "paired", "stats", "summary"},
    "verdict": {"dose"},
    "headline": {"summary"},
    "page": set(),
    "report_blocks": {"page", "summary"},
    "report": {"page", "plots", "report_blocks", "summary"},
    "study_report": {"calibration_tables", "comparison", "costs", "page", "plots", "report_blocks", "summary"},
    "costs": {"contrasts", "paired", "stats", "summary"},
    "answers": {"page"},
    "paper_tables": {"contrasts", "summary"},
    "comparison": {"contrasts", "costs", "dose", "headline", "schema", "sources", "stats", "study", "summary"}
    | {"verdict"},
    "reporting": {
        "answers",
        "calibration",
        "comparison",
        "contrasts",
        "paper_tables",
        "plots",
        "report",
        "runs",
        "schema",
        "sources",
    }
    | {"study", "study_report", "summary"},
    "wire": {"redaction"},
    "endpoint": {"runs", "wire"},
    # It validates by the judge's own reading.
    "reward": {"cards", "judges.harmfulness", "models", "runs", "schema", "sources", "stats"},
    "rewording": set(),
    "review": {"page", "runs"},
    "agreement": {"stats"},
    "correction": {"stats"},
    "annotations": {"agreement", "judges.judgement", "runs", "stats", "tables"},
    "annotate": {"annotations", "page", "runs", "schema"},
    "calibration_tables": {"agreement", "annotations", "correction", "page", "stats", "summary"},
    # study: the judgements of its runs.
    "calibration": {
        "annotations",
        "calibration_tables",
        "judges",
        "runs",
        "schema",
        "study",
        "summary",
        "tables",
    },
    "calibration_text": {"calibration", "calibration_tables", "page", "summary"},
    "safety_data": {
        "endpoint",
        "judges.judgement",
        "judges.refusal",
        "review",
        "rewording",
        "runs",
        "schema",
        "sources",
    },
    "stages": {"generation", "judges", "mixing", "reporting", "runs", "schema", "shipped", "training"},
    # sources, judges.human: a stage is stale when the user's file changed, or people's labels.
    "runner": {"engine", "judges.human", "redaction", "runs", "schema", "sources", "stages", "warm"},
    "study": {"capabilities", "runner", "runs", "schema", "warm"},
    "preferences": {"endpoint", "judges", "judges.judgement", "judges.llm", "runs", "schema", "study"},
    "search": {"contrasts", "dose", "runs", "schema", "sources", "study", "summary"},
    "progress": {"page", "runs", "stages"},  # `visible`: a cause of failure may hold what a terminal obeys
    "estimate": {"encoding", "models", "packing", "schema", "trainer"},
    "doctor": {"checks", "estimate", "fetch", "mixing", "models", "redaction", "schema", "shipped", "sources", "warm"},
    "checks": {"encoding", "generation", "judges", "mixing", "models", "schema", "sources", "training"},
    "cells": {"runs", "schema", "stages"},
    "data_commands": {"sources"},
    "cli": {
        "calibration",
        "calibration_text",
        "capabilities",
        "checks",
        "comparison",
        "data_commands",
        "doctor",
        "export",
        "judges",
        "judges.refusal_classifier",
        "mixing",
        "models",
        "preferences",
        "progress",
        "redaction",
        "reporting",
        "runner",
        "runs",
        "schema",
        "search",
    }
    | {"sources", "study", "tables", "warm"},
}
# Imported by name at run time (importlib), where no import statement shows it; a key of ALLOWED each.
BY_NAME = {
    "judges": {"judges.reference", "judges.refusal"},
    "stages": {"generation", "judges", "mixing", "reporting", "training"},
}
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "pandas", "matplotlib", "seaborn", "papermill", "scipy"}
HEAVY |= {"openai", "statsmodels", "ipywidgets", "rapidfuzz", "sklearn", "lm_eval", "datasets"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def siblings_imported(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere in it; the package's own names count as no module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}, line {node.lineno}: a relative import; write safety_nb.…"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            # safety_nb.runs, safety_nb.errors.InputError, safety_nb.judges.judgement.Judgement, safety_nb.__version__
            parts = name.split(".")
            if parts[0] == "safety_nb":
                known = [".".join(parts[1:end]) for end in range(2, len(parts) + 1)]
                found |= set([module for module in known if module in MODULES][-1:])
    return found


def test_every_module_has_its_place_in_the_graph():
    assert set(MODULES) == set(ALLOWED)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_imports_what_the_graph_allows(name):
    statements = siblings_imported(MODULES[name]) - {"errors"}
    assert statements == ALLOWED.get(name, set()) - BY_NAME.get(name, set())


def test_modules_imported_by_name_are_those_of_the_table():
    functions = {stage.function.split(":")[0].removeprefix("safety_nb.") for stage in stages.STAGES}
    judges = {f"judges.{name}" for name in schema.JudgeParams().judges}
    assert {"judges": judges, "stages": functions} == BY_NAME


def test_errors_import_nothing():
    assert siblings_imported(MODULES["errors"]) == set()


def test_imports_have_no_cycle():
    # `stages` and `reporting` → `study` → `runner` → `stages` would be one, were the stages not called by name.
    graph = {name: siblings_imported(path) for name, path in MODULES.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


def test_contributing_lists_every_module():
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    listed = set(re.findall(r"`(\w+)(?:\.py|/)`", " ".join(rows)))
    assert {name for name in MODULES if "." not in name} - listed == {"__init__", "__main__"}


def modules_loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules after a statement, in a fresh interpreter."""
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    answer = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert answer.stderr == ""
    return set(answer.stdout.split())


LIGHT = ["cli", "schema", "stages", "runs", "errors", "prompts", "tiny", "sources", "mixing", "models", "encoding"]
LIGHT += ["endpoint", "review", "rewording", "safety_data"]
LIGHT += ["rows", "fetch", "hub", "registry", "data_commands", "overlap", "screening"]


def test_importing_the_package_imports_nothing_heavy():
    names = ", ".join(f"safety_nb.{name}" for name in LIGHT)
    assert modules_loaded_by(f"import safety_nb, {names}") & HEAVY == set()


@pytest.mark.parametrize(
    "name",
    [
        *("training", "export", "live", "generation", "judges", "runner", "study", "progress", "checks", "doctor"),
        *("estimate", "capabilities"),
    ],
)
def test_modules_of_the_stages_import_nothing_heavy_at_the_top(name):
    imported = set()
    for node in ast.parse(MODULES[name].read_text()).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    assert imported & HEAVY == set()


def test_importing_the_package_prints_nothing():
    answer = subprocess.run([sys.executable, "-c", "import safety_nb"], check=True, capture_output=True, text=True)
    assert answer.stdout + answer.stderr == ""


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_opens_with_what_it_is_for(name):
    assert ast.get_docstring(ast.parse(MODULES[name].read_text()))


# Notebooks

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def tagged(path: Path, tag: str) -> list[dict]:
    return [cell for cell in cells(path) if tag in cell["metadata"].get("tags", [])]


def python(cell: dict) -> str:
    """The source with its magics and shell lines made into `pass`."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source(cell), flags=re.M)


def test_notebooks_are_those_of_the_table():
    assert {path.stem for path in NOTEBOOKS} == set(stages.NOTEBOOK_PARAMS)


@each_notebook
def test_notebook_is_kept_without_outputs(path):
    kept = [(cell["outputs"], cell["execution_count"]) for cell in cells(path)]
    assert kept == [([], None)] * len(kept)


@each_notebook
def test_notebook_holds_no_traces_of_an_execution(path):
    # Saved widgets break its rendering on GitHub; papermill and editors leave keys of their own.
    book = json.loads(path.read_text())
    assert set(book["metadata"]) == {"kernelspec", "language_info"}
    assert [cell["metadata"] for cell in book["cells"] if set(cell["metadata"]) - {"tags"}] == []


@each_notebook
def test_notebook_is_of_the_format(path):
    import nbformat

    nbformat.validate(json.loads(path.read_text()))


@each_notebook
def test_cell_ids_are_unique(path):
    ids = [cell["id"] for cell in json.loads(path.read_text())["cells"]]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_notebook_opens_with_a_title_and_a_question(path):
    first = json.loads(path.read_text())["cells"][0]
    assert first["cell_type"] == "markdown"
    assert re.match(r"# .+\n\n\*\*.+\?\*\*", source(first))


@each_notebook
def test_first_code_cell_is_the_one_that_installs(path):
    assert cells(path)[0]["metadata"]["tags"] == ["install"]
    assert len(tagged(path, "install")) == 1


def test_cell_that_installs_is_the_same_everywhere():
    assert len({source(tagged(path, "install")[0]) for path in NOTEBOOKS}) == 1


@each_notebook
def test_parameters_cell_is_the_one_of_the_schema(path):
    (cell,) = tagged(path, "parameters")
    assert source(cell) == schema.parameters_cell(stages.NOTEBOOK_PARAMS[path.stem])


@each_notebook
def test_logic_is_in_the_package(path):
    nodes = [node for cell in cells(path) for node in ast.walk(ast.parse(python(cell)))]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert [type(node).__name__ for node in nodes if isinstance(node, kinds)] == []


@each_notebook
def test_cells_are_short(path):
    others = [cell for cell in cells(path) if cell not in tagged(path, "parameters")]
    assert [source(cell) for cell in others if len(source(cell).splitlines()) > 10] == []


@each_notebook
def test_notebook_checks_its_parameters_before_anything_else(path):
    model = stages.NOTEBOOK_PARAMS[path.stem].__name__
    after = cells(path)[cells(path).index(tagged(path, "parameters")[0]) + 1]
    assert f"params = {model}.from_namespace(globals())" in source(after)


@each_notebook
def test_notebook_names_no_host(path):
    assert re.findall(r"https?:|www\.", path.read_text()) == []


@each_notebook
def test_papermill_shows_every_parameter_with_its_type_default_and_help(path):
    # What `papermill --help-notebook` prints; papermill drops a parameter that it cannot read.
    import papermill

    model = stages.NOTEBOOK_PARAMS[path.stem]
    shown = papermill.inspect_notebook(str(path))
    assert list(shown) == list(model.model_fields)
    for name, field in model.model_fields.items():
        default = field.get_default()
        assert shown[name]["inferred_type_name"] == type(default).__name__
        assert ast.literal_eval(shown[name]["default"]) == default
        assert shown[name]["help"] == field.description
