"""The files around the package agree with each other: dependencies, commands, parameter files, repository."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from safety_nb.core import grid
from safety_nb.core.params import RunParams, validate
from safety_nb.report.findings import published

ROOT = Path(__file__).parents[1]
PARAMS = sorted((ROOT / "params").glob("*.yaml"))
LARGEST_FILE_BYTES = 3_500_000  # what a clone should have to carry for one file
CONDA_NAMES = {"torch": "pytorch"}  # where conda-forge calls a distribution otherwise


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(*extras: str) -> dict[str, SpecifierSet]:
    """Name to range of pyproject's dependencies, and of the extras named."""
    listed = list(project()["dependencies"])
    for extra in extras:
        listed += project()["optional-dependencies"][extra]
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, listed)}


def pins() -> dict[str, Requirement]:
    """Name to requirement of every line of constraints.txt."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return {canonicalize_name(r.name): r for r in map(Requirement, filter(None, lines))}


def tracked() -> list[Path]:
    """The files of the repository, those not yet committed included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


# Dependencies


def test_conda_environment_lists_the_same_ranges():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {r.name: r.specifier for r in (Requirement(e) for e in entries if isinstance(e, str))}
    conda.pop("pip")  # installs the project itself, below
    expected = {CONDA_NAMES.get(name, name): specifier for name, specifier in requirements().items()}
    assert conda == expected | {"python": SpecifierSet(project()["requires-python"])}


def test_conda_environment_installs_the_project_in_place():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert [e for e in entries if isinstance(e, dict)] == [{"pip": ["-e ."]}]


def test_constraints_are_exact_public_versions():
    # A local suffix such as +cpu would bind everyone to the index that one machine happened to use.
    wrong = [
        str(pin)
        for pin in pins().values()
        if not re.fullmatch(r"==[^*+]+", str(pin.specifier)) or pin.marker or pin.url
    ]
    assert wrong == []


@pytest.mark.parametrize(("name", "allowed"), sorted(requirements("dev", "benchmarks").items()))
def test_every_dependency_is_pinned_within_its_range(name, allowed):
    assert name in pins(), f"constraints.txt does not pin {name}"
    (pin,) = pins()[name].specifier
    assert Version(pin.version) in allowed


def test_every_dependency_says_why_it_is_there():
    block = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    lines = block.group(1).splitlines()
    assert len(lines) == len(project()["dependencies"])
    assert [line for line in lines if not re.search(r'",\s+# \w', line)] == []


# Commands


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("page", ["README.md", ".ci/run"])
def test_make_targets_that_are_named_exist(page):
    # In prose only what stands as code counts: "make X", "make X Y" and "make X NAME=value".
    text = (ROOT / page).read_text()
    named = re.findall(r"(?:^|`)\s*make((?: [a-z][a-z-]*)+)(?= *[A-Z]+=| *`| *#| *$)", text, re.M)
    targets = {word for words in named for word in words.split()}
    assert targets, f"{page} names no make command"
    assert targets - make_targets() == set()


def test_every_target_is_in_the_help():
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"^  make (\S+)", shown, re.M)) == make_targets()


# Parameter files


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.name)
def test_parameter_file_opens_with_the_command_that_runs_it(path):
    comment = re.match(r"(?:#.*\n)+", path.read_text())
    assert comment, f"{path.name} does not open with a comment"
    assert re.search(rf"^#   safety-nb (run|study) params/{re.escape(path.name)}\b", comment.group(), re.M)
    assert re.search(r"^# Needs: ", comment.group(), re.M)


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.name)
def test_parameter_file_is_valid_and_a_study_only_if_it_sweeps(path):
    # The schema is strict, so this also finds 2e-4, which YAML reads as text.
    values = yaml.safe_load(path.read_text())
    for run in grid.expand(values):
        validate(RunParams, run)
    assert f"safety-nb {'study' if grid.swept_names(values) else 'run'} params/{path.name}" in path.read_text()


CAPABILITIES = {"capabilities", "num_fewshot"}  # of the dose studies, each of which takes hours anyway


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("paper-llama-7b-study.yaml", CAPABILITIES | {"n_safety", "seed"}),
        ("paper-llama-13b-study.yaml", CAPABILITIES | {"n_safety", "seed", "base_model"}),
        ("paper-falcon-7b-study.yaml", CAPABILITIES | {"n_safety", "seed", "base_model", "lora_targets"}),
        ("paper-form-study.yaml", {"n_safety", "seed", "safety", "safety_form"}),
        ("paper-order-study.yaml", {"n_safety", "seed", "safety_order"}),
        ("paper-guard-study.yaml", {"n_safety", "seed", "guard_prompt"}),
        ("paper-opinion-study.yaml", {"n_safety", "seed", "evaluation", "judges"}),
        ("falcon-7b.yaml", {"base_model", "lora_targets"}),
        ("paper-script.yaml", {"recipe"}),
    ],
)
def test_paper_files_share_one_recipe(name, differs):
    recipe = yaml.safe_load((ROOT / "params" / "llama-7b.yaml").read_text())
    other = yaml.safe_load((ROOT / "params" / name).read_text())
    assert {key for key in recipe | other if recipe.get(key) != other.get(key)} == differs


# The paper


def test_every_file_that_the_papers_analyses_name_is_there():
    text = (ROOT / "docs" / "paper.md").read_text()
    named = set(re.findall(r"`((?:params|notebooks|safety_nb)/[^`]+\.\w+)`", text))
    assert len(named) > 8
    assert {name for name in named if not (ROOT / name).is_file()} == set()
    # The last column names twins without folder and ending.
    twins = set(re.findall(r"`((?:tiny|real-data-tiny)[a-z-]*)`", text))
    assert "tiny-capability-study" in twins
    assert {name for name in twins if not (ROOT / "params" / f"{name}.yaml").is_file()} == set()


def test_every_file_of_the_papers_analyses_is_named():
    text = (ROOT / "docs" / "paper.md").read_text()
    assert {
        path.name for path in PARAMS if path.name.startswith("paper-") and f"params/{path.name}" not in text
    } == set()


def test_the_published_numbers_are_documented_as_they_are_shown():
    lines = (ROOT / "docs" / "paper.md").read_text().splitlines()
    for mark in published.MARKS:
        row = f"| {mark.name} | {mark.unsafe:.0%} | {mark.exaggerated:.0%} | {mark.known} |".replace("%", " %")
        assert row in lines


# Repository


def test_no_large_file_is_tracked():
    large = {str(p.relative_to(ROOT)): size for p in tracked() if (size := p.stat().st_size) > LARGEST_FILE_BYTES}
    assert large == {}


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("outputs/README.md", False),
        ("outputs/study/summary.csv", True),
        ("outputs/runs/one/train/adapter/adapter_model.safetensors", True),
        (".venv/pyvenv.cfg", True),
        ("notebooks/.ipynb_checkpoints/2-train-checkpoint.ipynb", True),
        ("safety_nb/data/any.jsonl", False),
    ],
)
def test_git_ignores_what_runs_leave_and_nothing_of_the_project(path, ignored):
    answer = subprocess.run(["git", "check-ignore", "-q", "--no-index", path], cwd=ROOT).returncode
    assert answer == (0 if ignored else 1)  # 128 would be an error of git
