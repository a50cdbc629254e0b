"""What is installed: a wheel holds all that the package needs at run time, and works away from the checkout."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ("notebooks", "params", "constraints.txt")  # carried inside the package: hatch_build.py


def tracked(*places: str) -> set[str]:
    """The files of the repository below ``places``, those not yet committed included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *places]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy of what git has: a build writes beside what it builds."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked("."):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(copy)]
    subprocess.run(build, check=True)
    (built,) = out.glob("*.whl")
    return built


def beside(wheel: Path, root: Path) -> None:
    """An environment with the wheel in it, and the suite's other packages beside it."""
    venv.create(root, with_pip=False, symlinks=True)
    install = [sys.executable, "-m", "pip", "--python", str(root / "bin" / "python"), "install", "-q", "--no-deps"]
    subprocess.run([*install, "--no-index", str(wheel)], check=True)
    (packages,) = root.glob("lib/python*/site-packages")
    # All but this project's own editable one, whose .pth file is not read from here.
    suite = [path for path in map(Path, sys.path) if path.name in ("site-packages", "dist-packages")]
    (packages / "beside.pth").write_text("".join(f"{path}\n" for path in suite))


def complete(wheel: Path, root: Path) -> None:
    """A bare environment into which pip installs the wheel and all that it asks for."""
    venv.create(root, with_pip=True, symlinks=True)
    install = [root / "bin" / "python", "-m", "pip", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, wheel], check=True)


@pytest.fixture(scope="module", params=[beside, pytest.param(complete, marks=pytest.mark.install)])
def installed(request, wheel, tmp_path_factory) -> Path:
    """The folder of commands of an environment that has the wheel."""
    root = tmp_path_factory.mktemp("installed") / "env"
    request.param(wheel, root)
    return root / "bin"


# What takes longest is asked of the complete environment alone.
in_full = pytest.mark.parametrize(
    "installed", [pytest.param(complete, marks=pytest.mark.install)], indirect=True, scope="module"
)


def run(command: list[str | Path], folder: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"NO_COLOR": "1", "COLUMNS": "300"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_wheel_holds_the_tree(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = tracked("safety_nb") | {f"safety_nb/shipped/{name}" for name in tracked(*SHIPPED)}
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_source_distribution_holds_what_the_wheel_is_built_from(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert tracked("safety_nb", *SHIPPED, "pyproject.toml", "hatch_build.py", "README.md", "LICENSE") <= names


def test_an_editable_installation_holds_no_copies(tmp_path):
    # They would lag behind the checkout, which is where an editable package finds its notebooks.
    build = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(built).namelist()
    assert [name for name in names if not name.endswith(".pth") and ".dist-info/" not in name] == []


def test_installed_package_is_the_wheel_s(installed, tmp_path):
    answer = run([installed / "python", "-c", "import safety_nb; print(safety_nb.__file__)"], tmp_path)
    assert Path(answer.stdout.strip()).is_relative_to(installed.parent)


SMALL = ["--set", "n_general=64", "--set", "n_safety=16", "--set", "evaluation=[tiny-facts]"]  # numbers do not matter


@in_full
def test_a_parameter_file_that_comes_along_runs_from_an_empty_folder(installed, tmp_path):
    # One stage: the study below takes runs through all of them.
    answer = run([installed / "safety-nb", "run", "tiny.yaml", *SMALL, "--until", "mix"], tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "outputs" / "runs" / "tiny" / "mix" / "train.jsonl").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    answer = run([installed / "safety-nb", "run", "tinny.yaml"], tmp_path)
    assert answer.returncode == 2 and "did you mean 'tiny.yaml'" in answer.stderr


@in_full
def test_a_study_and_its_comparison_run_from_an_empty_folder(installed, tmp_path):
    # The report of a study draws every kind of figure: what was missing from the first wheels.
    small = [*SMALL[:2], "--set", "n_safety=[0, 16]", "--set", "evaluation=[tiny-harmful, tiny-lookalike]"]
    answer = run([installed / "safety-nb", "study", "tiny-study.yaml", "--jobs", "2", *small], tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "outputs" / "tiny-study" / "report.html").is_file()


@in_full
def test_a_notebook_that_was_copied_runs_where_it_lies(installed, tmp_path):
    assert run([installed / "safety-nb", "init", "mine"], tmp_path).returncode == 0
    execute = [
        installed / "python",
        "-m",
        "papermill",
        "2-train.ipynb",
        "out.ipynb",
        "-k",
        "python3",
        "-p",
        "epochs",
        "0.1",
    ]
    answer = run(execute, tmp_path / "mine" / "notebooks")
    assert answer.returncode == 0, answer.stderr
    # It made the mixture first, and results lie beside the notebooks, not among them.
    assert (tmp_path / "mine" / "outputs" / "runs" / "notebook" / "train" / "adapter").is_dir()


def test_init_overwrites_nothing(installed, tmp_path):
    first = run([installed / "safety-nb", "init", "."], tmp_path)
    shipped = sorted(tracked("notebooks", "params"))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == shipped
    assert f"{len(shipped)} files written to ., 0 were there already" in first.stdout
    (tmp_path / "params" / "tiny.yaml").write_text("n_safety: 7\n")
    (tmp_path / "params" / "llama-7b.yaml").unlink()
    again = run([installed / "safety-nb", "init", "."], tmp_path)
    assert f"1 files written to ., {len(shipped) - 1} were there already" in again.stdout
    assert "Left as it is: params/tiny.yaml" in again.stdout
    assert (tmp_path / "params" / "tiny.yaml").read_text() == "n_safety: 7\n"
    (tmp_path / "file").touch()
    refused = run([installed / "safety-nb", "init", "file"], tmp_path)
    assert refused.returncode == 2 and "name a folder that can be written to" in refused.stderr
