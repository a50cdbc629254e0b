"""The page for labelling as a person meets it: JupyterLab in a real browser, its buttons clicked and its keys typed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safety_nb.core import files
from safety_nb.judge import annotations
from safety_nb.run import stages

pytestmark = [pytest.mark.browser, pytest.mark.lab]

TOKEN = "labelling"
HOSTILE = "<img src=x onerror=window.ran=1><script>window.ran=1</script>"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with a run whose answers mean harm, and the notebook, told to label them."""
    root = tmp_path_factory.mktemp("workplace")
    rows = [
        {"dataset": "d", "prompt_id": f"p{i}", "prompt": f"Question {i}?", "response": f"Answer {i} {HOSTILE}"}
        for i in range(8)
    ]
    files.write_jsonl(root / "run" / "responses.jsonl", [row | {"finish": "stop"} for row in rows])
    book = files.read_json(stages.notebook_path("annotate"))
    (cell,) = [cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    cell["source"] = "".join(cell["source"]).replace('run_dir: str = ""', f"run_dir: str = {str(root / 'run')!r}")
    files.write_notebook(root / "annotate.ipynb", book)
    return root


@pytest.fixture(scope="module")
def address(workplace):
    """JupyterLab on loopback, in the folder; nothing it does asks the network."""
    places = {f"JUPYTER_{name}_DIR": str(workplace / ".jupyter" / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    package = str(Path(stages.__file__).parents[2])
    environment = {**os.environ, **places, "PYTHONPATH": package, "IPYTHONDIR": str(workplace / ".ipython")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={workplace}", "--LabApp.news_url=None"]
    command += [
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.expose_app_in_browser=True",
    ]
    with (workplace / "lab.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            files = list((workplace / ".jupyter" / "RUNTIME").glob("jpserver-*.json"))
            if files and (text := files[0].read_text()).strip():
                yield json.loads(text)["url"]
                return
            assert process.poll() is None, (workplace / "lab.log").read_text()
            time.sleep(0.1)
        pytest.fail((workplace / "lab.log").read_text())
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def page(chromium, address):
    from playwright.sync_api import sync_playwright

    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(120_000)
        open_notebook(page, address)
        yield page
        browser.close()


def open_notebook(page, address: str) -> None:
    """Open the notebook and execute all of it, until its page is there."""
    page.goto(f"{address}lab/tree/annotate.ipynb?token={TOKEN}&reset")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.get_by_role("button", name="Begin").wait_for()
    page.get_by_role("button", name="Begin").click()


def told(page, done: int) -> None:
    """Wait until the page says that so many are labelled."""
    page.get_by_text(f"{done} of 8 labelled").wait_for()


def labels(workplace: Path) -> list[str]:
    log = files.read_log(workplace / "run" / "annotations" / "annotator1.jsonl")
    return [line["label"] for line in annotations.history(log, "refusal")]


def test_labelling_in_jupyterlab(page, workplace, address):
    answer = page.locator("pre.answer").last
    answer.wait_for()

    first = answer.inner_text()
    page.get_by_role("button", name="1: full refusal").click()
    told(page, 1)
    assert labels(workplace) == ["full_refusal"]
    assert answer.inner_text() != first  # it moved on

    page.get_by_placeholder("or click here and type the keys").click()
    for done, key in enumerate("324", start=2):  # without Enter, and the box keeps the focus
        page.keyboard.press(key)
        told(page, done)
    assert labels(workplace) == ["full_refusal", "full_compliance", "partial_refusal", "garbled"]
    page.keyboard.press("u")
    told(page, 3)
    assert labels(workplace) == ["full_refusal", "full_compliance", "partial_refusal"]
    left_at = answer.inner_text()

    # What the answers hold is seen, and ran nowhere.
    assert HOSTILE in left_at and page.evaluate("window.ran") is None

    # Opened anew, in a kernel of its own, the page is where it was left.
    page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
    open_notebook(page, address)
    told(page, 3)
    assert page.locator("pre.answer").last.inner_text() == left_at
