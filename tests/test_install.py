"""What is installed: a wheel holds all that the package needs at run time, and works away from the checkout."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ("notebooks", "params", "constraints.txt")  # carried inside the package, as safety_nb/shipped/…


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


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of commands of an environment with the wheel in it, and the suite's other packages beside it."""
    root = tmp_path_factory.mktemp("installed") / "env"
    venv.create(root, with_pip=False, symlinks=True)
    install = [sys.executable, "-m", "pip", "--python", str(root / "bin" / "python"), "install", "-q", "--no-deps"]
    subprocess.run([*install, "--no-index", str(wheel)], check=True)
    (packages,) = root.glob("lib/python*/site-packages")
    # Of the suite's packages all but this project's own editable one, whose .pth file is not read from here.
    beside = [path for path in map(Path, sys.path) if path.name in ("site-packages", "dist-packages")]
    (packages / "beside.pth").write_text("".join(f"{path}\n" for path in beside))
    return root / "bin"


def run(command: list[str | Path], folder: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_wheel_holds_the_tree(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = tracked("safety_nb") | {f"safety_nb/shipped/{name}" for name in tracked(*SHIPPED)}
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_installed_package_is_the_wheel_s(installed, tmp_path):
    answer = run([installed / "python", "-c", "import safety_nb; print(safety_nb.__file__)"], tmp_path)
    assert Path(answer.stdout.strip()).is_relative_to(installed.parent)


def test_installed_package_takes_the_miniature_through_all_stages(installed, tmp_path):
    # From an empty folder, away from the checkout; a small mixture, for the numbers do not matter.
    (tmp_path / "small.yaml").write_text("n_general: 64\nn_safety: 16\nevaluation: [tiny-facts]\n")
    answer = run([installed / "safety-nb", "run", "small.yaml"], tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "outputs" / "runs" / "small" / "report.html").is_file()
