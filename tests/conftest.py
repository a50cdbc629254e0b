"""What all tests share: when tests that need a GPU or a browser run, and that no test downloads anything."""

import contextlib
import gc
import os
import shutil
from collections.abc import Iterator
from unittest import mock

import forks
import pytest
import servers

from safety_nb.run import fork_server

# What is imported stays: searching it for garbage over and over takes a sixth of the time of trainings. Enabled again,
# without what is there by then, when all tests are collected.
gc.disable()
# Set before any test imports the hub's client, which reads it once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# As in the kernels of a run: without it bitsandbytes imports a compiler, for two seconds.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
# Several processes of tests have a core each. Before torch and numpy are imported, for it is read then.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# Rooms whose tests take longest, first: at the end no process is left alone with one of them.
_LONGEST = ("run", "train", "generate", "judge")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, which makes what they share once, unless they name a group of their own."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            shared = "tiny_server" in item.fixturenames  # across files
            item.add_marker(pytest.mark.xdist_group("tiny_server" if shared else item.nodeid.split("::")[0]))
    places = {f"tests/{room}/": place for place, room in enumerate(_LONGEST)}
    items.sort(key=lambda item: next((at for room, at in places.items() if room in item.nodeid), len(places)))


def pytest_make_parametrize_id(val: object) -> str | None:
    """The name of a case whose value is long: its beginning, not a hundred thousand brackets."""
    return ascii(val[:60])[1:-1] + "..." if isinstance(val, str | bytes) and len(val) > 60 else None


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        pytest.exit("pytest-xdist heeds no groups with this pytest: every process would make what tests share", 3)


@pytest.fixture(scope="session")
def cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser; skips the test without one, but fails it where CI=true, which has to have it."""
    path = shutil.which("chromium")
    if path is None:
        reason = "needs Debian's chromium (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def tiny_server(origin: forks.Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Served]:
    """The miniature's base behind ``transformers serve`` on loopback: a real OpenAI-compatible endpoint."""
    with servers.serve_tiny(origin, tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(scope="session")
def origin() -> Iterator[forks.Origin]:
    """The process that has the imports, from which kernels and commands with a process of their own are forked."""
    with contextlib.closing(forks.Origin()) as origin:
        yield origin


@pytest.fixture(scope="session")
def kernels(origin: forks.Origin) -> Iterator[None]:
    """Notebooks that a test executes in process have their kernels forked from one process, as those of a study do."""
    with contextlib.ExitStack() as stack:
        with mock.patch.object(fork_server, "Forker", lambda: origin):
            stack.enter_context(fork_server.kernels())
        yield


@pytest.fixture(scope="module")
def traced_once() -> Iterator[None]:
    """What estimates the memory of many packs or trainings traces each kind of them once."""
    import traces

    with mock.patch("safety_nb.train.memory.training_memory", traces.training_memory):
        yield


@pytest.fixture(scope="session")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A LLaMA with random weights of which tracing the memory takes half a second."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    folder = tmp_path_factory.mktemp("models") / "two-layers"
    config = LlamaConfig(
        vocab_size=1024, hidden_size=128, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and described, but drawn only where a test says so: that takes most of a report's time."""
    if "drawn" in request.keywords:
        return
    from matplotlib.figure import Figure

    def savefig(figure: Figure, target: object, **_: object) -> None:
        target.write(b"<svg/>") if hasattr(target, "write") else target.write_bytes(b"")

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def fake() -> servers.FakeTime:
    """The time, for what waits between requests."""
    return servers.FakeTime()


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    """Give what is marked ``gpu`` or ``browser`` its GPU or browser, or skip it."""
    # Fixtures are asked for by name here, so that torch is imported only where a test needs a GPU.
    if request.node.get_closest_marker("gpu") and not request.getfixturevalue("cuda_available"):
        pytest.skip("needs a CUDA GPU")
    if request.node.get_closest_marker("browser"):
        request.getfixturevalue("chromium")
