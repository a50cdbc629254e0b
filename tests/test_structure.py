"""What imports what, what importing costs, and what a notebook may hold."""

import ast
import graphlib
import importlib
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import safety_nb
from safety_nb.run import stages
from safety_nb.run.parameter_cells import parameters_cell

PACKAGE = Path(safety_nb.__file__).parent
ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# The rooms

# From the ground up: a room may import those below it, of the ground floor none. The command line stands on all.
FLOORS = [{"core", "stats", "tiny"}, {"data"}, {"train"}, {"generate"}, {"judge"}, {"report"}, {"run"}, {"cli"}]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
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


def room_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_is_in_a_room():
    at_the_door = {"__init__", "__main__", "_lazy"}
    assert {room_of(name) for name in MODULES} - at_the_door == set(FLOOR)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_imports_only_from_rooms_below_its_own(name):
    if name == "__main__":
        pytest.skip("`python -m safety_nb` is the command line")
    own = FLOOR.get(room_of(name), -1)  # what stands at the door is imported by all, and imports no room
    imported = {room_of(other) for other in siblings_imported(MODULES[name])} - {room_of(name), "_lazy", "__init__"}
    assert {room for room in imported if FLOOR[room] >= own} == set()


def test_functions_of_the_stages_are_in_rooms_below_the_one_that_executes_them():
    # They are called by name (importlib), where no import statement shows it.
    modules = [stage.function.split(":")[0].removeprefix("safety_nb.") for stage in stages.STAGES]
    assert {room_of(name) for name in modules} == {"data", "train", "generate", "judge", "report"}
    assert set(modules) <= set(MODULES)


def test_imports_have_no_cycle():
    graph = {name: siblings_imported(path) for name, path in MODULES.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


def test_contributing_lists_every_module_in_its_room():
    rows = re.findall(r"^\| (`.+?) \| .+? \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    listed = set()
    for rooms, modules in rows:
        # A row of several rooms has their modules in the same order, apart by a semicolon.
        names = [room.rstrip("/").replace("/", ".") for room in re.findall(r"`([\w/]+)/`", rooms)]
        for room, of_room in zip(names, modules.split(";"), strict=False):
            listed |= {f"{room}.{module}" for module in re.findall(r"`(\w+)`", of_room)}
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert listed == set(MODULES) - packages - {"__main__", "_lazy", "cli"}


# A model's own code


def auto_classes_named_in(source: str) -> set[str]:
    """transformers' classes that look into a model's files, and run code from there unless they are told not to."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = {"Name": ["id"], "Attribute": ["attr"], "alias": ["name"]}.get(type(node).__name__, [])
        found |= {
            name for each in names if re.match(r"Auto(Config|Tokenizer|Model|Processor)", name := getattr(node, each))
        }
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "pipeline":
            found.add("pipeline")
    return found


def code_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()]
    return "\n".join(line for line in lines if not line.lstrip().startswith("%"))


def test_only_one_module_lets_transformers_look_into_a_models_files():
    sources = {name: path.read_text() for name, path in MODULES.items()}
    assert "trust_remote_code=False" in sources["train.pretrained"]
    found = {name for name, source in sources.items() if auto_classes_named_in(source)}
    assert found == {"train.pretrained"}
    assert [path.name for path in NOTEBOOKS if auto_classes_named_in(textwrap.dedent(code_of(path)))] == []
    assert [name for name, source in sources.items() if "trust_remote_code=True" in source] == []


def modules_loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules after a statement, in a fresh interpreter."""
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    answer = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert answer.stderr == ""
    return set(answer.stdout.split())


# What computes with arrays needs numpy and scipy; these two are imported inside the functions that use them.
HEAVY_THEMSELVES = {"train.packed_trainer", "run.notebook"}


@pytest.mark.parametrize("name", sorted(set(MODULES) - HEAVY_THEMSELVES - {"__main__"}))
def test_module_imports_nothing_heavy_at_its_top(name):
    of_arrays = room_of(name) in ("stats", "report")
    allowed = {"scipy"} if of_arrays else set()
    imported = set()
    for node in ast.parse(MODULES[name].read_text()).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    assert imported & HEAVY <= allowed


def test_importing_all_but_them_imports_no_torch_no_pandas_and_no_plots():
    light = sorted(set(MODULES) - HEAVY_THEMSELVES - {"__init__", "__main__"})
    loaded = modules_loaded_by("import " + ", ".join(f"safety_nb.{name}" for name in light))
    assert loaded & HEAVY <= {"scipy"}


def test_help_imports_nothing_heavy():
    # What makes `safety-nb --help` answer at once, on every machine.
    shown = "import contextlib, io\nfrom safety_nb import cli\nsys.argv = ['safety-nb', '--help']\n"
    shown += "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n    cli.main()"
    assert modules_loaded_by(shown) & (HEAVY | {"numpy"}) == set()


PACKAGES = sorted(name for name, path in MODULES.items() if path.name == "__init__.py")


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_of_a_room_are_there(name):
    package = importlib.import_module("safety_nb" if name == "__init__" else f"safety_nb.{name}")
    assert [public for public in getattr(package, "__all__", []) if not hasattr(package, public)] == []


def test_public_names_are_imported_when_they_are_used():
    room = "import safety_nb.data\nassert 'safety_nb.data.mixing' not in sys.modules\n"
    modules_loaded_by(f"{room}assert 'mix' in dir(safety_nb.data)\nfrom safety_nb.data import mix")


def test_a_name_that_a_room_does_not_have_is_an_error():
    with pytest.raises(ImportError, match="cannot import name 'mixx' from 'safety_nb.data'"):
        from safety_nb.data import mixx  # noqa: F401


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
    assert source(cell) == parameters_cell(stages.NOTEBOOK_PARAMS[path.stem])


def test_the_command_that_writes_them_finds_them_in_step():
    # `make notebooks`; in step, it writes nothing and says so.
    command = [sys.executable, "-m", "safety_nb.run.parameter_cells"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == ""


@each_notebook
def test_logic_is_in_the_package(path):
    nodes = [node for cell in cells(path) for node in ast.walk(ast.parse(python(cell)))]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert [type(node).__name__ for node in nodes if isinstance(node, kinds)] == []


@each_notebook
def test_notebook_imports_what_rooms_hand_out(path):
    # A public name, or a module whose name tells where a call goes.
    for node in [node for cell in cells(path) for node in ast.walk(ast.parse(python(cell)))]:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("safety_nb"):
            room = importlib.import_module(node.module)
            for alias in node.names:
                module = f"{node.module}.{alias.name}".removeprefix("safety_nb.")
                assert module in MODULES or alias.name in room.__all__, f"{path.name}: {ast.unparse(node)}"


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
