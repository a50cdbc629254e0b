"""What the doctor finds: each problem is provoked, told with its mend, and ends with status 1."""

import http.server
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from commands import Answer, safety_nb

from safety_nb.core import shipped
from safety_nb.core.params import RunParams, validate
from safety_nb.data import templates
from safety_nb.run import doctor, machine
from safety_nb.tiny import world
from safety_nb.train import memory, models

ROOT = Path(__file__).parents[2]
MINIATURE = {"n_general": 40, "n_safety": 5, "evaluation": ["tiny-facts"], "max_new_tokens": 4}


def params(**values) -> RunParams:
    return validate(RunParams, values)


def by_name(findings) -> dict[str, machine.Finding]:
    return {finding.name: finding for finding in findings}


# The whole of it


def test_machine_alone(tmp_path):
    answer = safety_nb("doctor", cwd=tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    names = [line.split()[1] for line in answer.stdout.splitlines() if line.startswith(("ok", "warning"))]
    assert {"python", "host", "device", "kernels", "versions", "hub", "outputs"} <= set(names)
    assert not {"fit", "time"} & set(names)
    assert list(tmp_path.iterdir()) == []


def test_run_that_nothing_stands_in_the_way_of(tmp_path):
    found = by_name(doctor.examine(MINIATURE, tmp_path / "outputs"))
    assert [finding for finding in found.values() if finding.state == "problem"] == []
    assert found["fit"].found.startswith("fits: training about")
    assert "measured on 2 steps" in found["time"].found
    assert list(tmp_path.iterdir()) == []


def test_study_is_told_by_its_largest_run_and_as_a_whole(tmp_path):
    found = by_name(doctor.examine({**MINIATURE, "n_safety": [5, 0], "seed": [0, 1]}, tmp_path / "outputs"))
    assert found["parameters"].found.startswith("4 runs")
    assert "for the largest run" in found["time"].found
    assert "for all 4 one after the other" in found["time"].found


def test_questions_and_tokens_of_capability_tasks_are_counted():
    asked = params(capabilities=["tiny-facts-choice"], capability_limit=7)
    found, tokens = doctor._capabilities(asked)
    assert (found.state, found.found) == ("ok", "7 questions of 1 task, of each run")
    # By hand: each of the first seven questions is read with each of its choices.
    tokenizer = models.load_tokenizer("tiny")
    texts = [
        f"{templates.render(row['prompt'])}{row['lead']}".rstrip() + f" {choice}"
        for row in world.task_rows("tiny-facts-choice")[:7]
        for choice in row["choices"]
    ]
    by_hand = sum(len(tokenizer(text)["input_ids"]) for text in texts)
    assert tokens == pytest.approx(by_hand)


def test_capability_tasks_that_cannot_be_had_and_pairs_without_a_judge_are_problems(tmp_path):
    asked = {**MINIATURE, "n_safety": [5, 0], "capabilities": ["mine"], "tasks_dir": str(tmp_path / "none")}
    found = list(doctor.examine({**asked, "prefer": "helpfulness"}, tmp_path / "outputs"))
    told = [finding.found for finding in found if finding.state == "problem"]
    assert told[0].startswith("tasks_dir: there is no folder")
    assert told[1].startswith("prefer: helpfulness is compared on ordinary requests, and no evaluation set")


def test_the_largest_run_is_the_one_whose_base_takes_most_bytes():
    planned = [validate(RunParams, {"base_bits": bits, "n_safety": 100 - bits}) for bits in (4, 16, 8)]
    assert doctor.largest(planned).base_bits == 16


def test_all_complaints_about_a_file_are_told(tmp_path):
    found = doctor.examine({"n_saftey": 3, "lora_r": [0, 8]}, tmp_path / "outputs")
    first, second = sorted(finding.found for finding in found if finding.state == "problem")
    assert first.startswith("lora_r: 0 (int) is not valid")
    assert second == "n_saftey: no such parameter; did you mean 'n_safety'?"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yaml"], "There is no parameter file 'none.yaml'"),
        (["broken.yaml"], "broken.yaml is no YAML"),
        (["--set", "seed=1"], "--set changes a parameter file: name one"),
    ],
)
def test_bad_input_ends_with_status_2(tmp_path, arguments, message):
    (tmp_path / "broken.yaml").write_text("seed: [")
    answer = safety_nb("doctor", *arguments, cwd=tmp_path)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert answer.stdout == ""


def test_data_folder_model_and_targets_that_are_missing_are_problems(tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "mine.txt").write_text("")
    values = {**MINIATURE, "n_safety": 10**6, "general": "none.json", "base_model": "nonsense"}
    told = " ".join(f.found for f in doctor.examine(values, tmp_path / "outputs") if f.state == "problem")
    for part in ("no file 'none.json'", "'nonsense' is not known", "none of ours"):
        assert part in told
    values = {**MINIATURE, "lora_targets": ["w_q"]}
    (problem,) = [f for f in doctor.examine(values, tmp_path / "new") if f.state == "problem"]
    assert "no layer ['w_q']" in problem.found


def test_exit_status_and_mends_follow_the_findings(capsys):
    ok, warning = machine.Finding("a", "ok", "1"), machine.Finding("b", "warning", "2", "do this")
    assert doctor.print_findings(iter([ok, warning]))
    assert not doctor.print_findings(iter([ok, machine.Finding("c", "problem", "[red]3", "do [that]")]))
    shown = capsys.readouterr().out
    assert "ok       a           1" in shown
    assert "b: do this" in shown
    assert "[red]3" in shown and "c: do [that]" in shown  # no markup


# Memory and model


@pytest.fixture
def folder_without_weights(tmp_path) -> Path:
    """The miniature's tokenizer and the configuration of a model of 300 billion weights."""
    from transformers import LlamaConfig

    folder = tmp_path / "huge"
    folder.mkdir()
    for path in world.BASE_DIR.glob("tokenizer*"):
        shutil.copy(path, folder)
    LlamaConfig(
        hidden_size=16384, intermediate_size=53248, num_hidden_layers=80, num_attention_heads=128
    ).save_pretrained(folder)
    return folder


def test_model_too_large_does_not_fit(tmp_path, folder_without_weights):
    found = by_name(doctor.examine({**MINIATURE, "base_model": str(folder_without_weights)}, tmp_path / "outputs"))
    assert found["fit"].state == "problem"
    assert found["fit"].found.startswith("does not fit: the weights alone take")
    assert "choose a smaller base_model" in found["fit"].mend
    assert found["model"].state == "problem"  # no weights
    assert "time" not in found


@pytest.mark.usefixtures("traced_once")
def test_mends_of_memory_are_tried(two_layers):
    run = params(micro_batch_size=8, cutoff=256, base_model=two_layers)

    def need(tokens: int, **values) -> int:
        return memory.training_memory(run.model_copy(update=values), tokens, tokens // 2).total

    row, recomputed, half = need(256), need(256, gradient_checkpointing=True), need(128, gradient_checkpointing=True)
    assert doctor._smaller_training(run, 256, 0.5, (row + recomputed) // 2).startswith(
        "set gradient_checkpointing: true ("
    )
    shorter = doctor._smaller_training(run, 256, 0.5, (recomputed + half) // 2)
    assert shorter.startswith("set gradient_checkpointing: true, cutoff: 128 (")
    assert "would not do" in doctor._smaller_training(run, 256, 0.5, 10_000_000)
    answers = memory.generation_memory(run.model_copy(update={"generation_batch_size": 1}), 256, 64).total
    assert doctor._smaller_generation(run, 256, answers).startswith("set generation_batch_size: 1 (")


@pytest.mark.usefixtures("traced_once")
def test_what_training_would_choose_is_told_and_too_little_memory_is_a_problem(two_layers, monkeypatch):
    # What this process holds is as it was a moment ago: it grows by what is imported at first use.
    monkeypatch.setattr(psutil.Process, "memory_info", lambda process: SimpleNamespace(rss=400_000_000))
    run = params(micro_batch_size=8, generation_batch_size=1, max_new_tokens=1, base_model=two_layers)

    def fit(need: int, factor: float = 1.0) -> machine.Finding:
        process = 400_000_000 if models.pick_device() == "cpu" else 0
        return doctor.fit(run, None, int(process + need * factor / memory.TIGHT) + 2_000_000)[0]

    full = memory.training_memory(run, 8 * run.cutoff, 8 * run.cutoff).total
    assert fit(full).state == "ok" and "packs of 2,048 tokens," in fit(full).found
    assert fit(full, 0.9).state == "ok" and "packs of 1,024 tokens," in fit(full, 0.9).found
    least = run.model_copy(update={"gradient_checkpointing": True})
    assert fit(memory.training_memory(least, run.cutoff, run.cutoff).total, 0.9).state == "problem"


# The machine


def test_memory_is_what_the_control_groups_leave(tmp_path):
    mine = tmp_path / "cgroup"
    mine.write_text("0::/a/b\n")
    groups = tmp_path / "groups"
    for name, limit, used, files in (("a", "5000", "3000", "700"), ("a/b", "max", "2000", "0")):
        (groups / name).mkdir(parents=True)
        (groups / name / "memory.max").write_text(f"{limit}\n")
        (groups / name / "memory.current").write_text(f"{used}\n")
        (groups / name / "memory.stat").write_text(f"anon 5\ninactive_file {files}\n")
    # The group above holds the limit: 5,000 less 3,000, of which 700 are given up when needed.
    assert models.free_host_memory(groups, mine) == 2700
    (groups / "a" / "memory.max").write_text("max\n")
    assert models.free_host_memory(groups, mine) > 10**6


def test_memory_is_what_control_groups_of_the_first_kind_leave(tmp_path):
    mine = tmp_path / "cgroup"
    mine.write_text("5:devices:/x\n4:memory:/not/shown/here\n")
    group = tmp_path / "groups" / "memory"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("9000")
    (group / "memory.usage_in_bytes").write_text("4000")
    assert models.free_host_memory(tmp_path / "groups", mine) == 5000


def test_gpu_that_torch_cannot_use_is_a_problem(tmp_path, monkeypatch, cuda_available):
    if cuda_available:
        pytest.skip("torch can use it")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.device(tmp_path).state == "ok"
    (tmp_path / "nvidiactl").touch()
    assert machine.device(tmp_path).state == "ok"
    (tmp_path / "nvidia0").touch()
    found = machine.device(tmp_path)
    assert found.state == "problem"
    assert "nvidia0" in found.found
    assert "CUDA" in found.mend
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.device(tmp_path).state == "ok"


@pytest.mark.gpu
def test_gpu_is_described():
    found = machine.device()
    assert found.state == "ok"
    assert "compute capability" in found.found


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_bases_work_here(bits):
    assert machine.base_bits(bits).state == "ok"


@pytest.mark.parametrize("fault", ["raises", "wrong"])
@pytest.mark.parametrize(("bits", "name", "state"), [(4, "matmul_4bit", "problem"), (8, "matmul", "warning")])
def test_bits_that_do_not_work_are_told(monkeypatch, fault, bits, name, state):
    import bitsandbytes as bnb

    real = getattr(bnb, name)

    def broken(x, *others, **more):
        if fault == "raises":
            raise RuntimeError("no kernel image")
        return real(x * 2, *others, **more)

    monkeypatch.setattr(bnb, name, broken)
    found = machine.base_bits(bits)
    assert found.state == state
    assert found.mend.endswith(f"bitsandbytes=={machine.tested()['bitsandbytes']}")


def test_tested_set_is_the_project_s_and_in_the_package():
    assert shipped.place("constraints.txt") == ROOT / "constraints.txt"
    assert set(machine.WATCHED) <= set(machine.tested())


def test_versions_that_differ_are_warned_about(tmp_path, monkeypatch):
    others = tmp_path / "constraints.txt"
    others.write_text("# tested\n" + "".join(f"{name}=={machine._installed(name)}\n" for name in machine.WATCHED))
    others.write_text(others.read_text().replace("+cpu", ""))
    assert machine.versions(others).state == "ok"  # the local suffix of a build is none of ours
    others.write_text(others.read_text() + "peft==0.1.0\n")
    found = machine.versions(others)
    assert (found.state, found.mend) == ("warning", "pip install peft==0.1.0")
    monkeypatch.setattr(machine, "WATCHED", ("peft", "none-such"))
    others.write_text("peft==0.1.0\nnone-such==2.0\n")
    found = machine.versions(others)
    assert (found.state, found.mend) == ("problem", "pip install peft==0.1.0 none-such==2.0")


# Disk


def test_folder_need_not_exist_and_is_not_made(tmp_path):
    (found,) = machine.disk({"outputs": (tmp_path / "new" / "one", 0)})
    assert found.state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_file_in_the_way_is_a_problem(tmp_path):
    (tmp_path / "outputs").write_text("")
    (found,) = machine.disk({"outputs": (tmp_path / "outputs" / "runs", 0)})
    assert found.state == "problem"
    assert "cannot be written to" in found.found
    assert "--out" in found.mend


@pytest.mark.parametrize(
    ("free", "states"),
    [
        # Two places on one disk: 3 GB and 4 GB go there together.
        (6e9, ["problem", "problem", "ok"]),
        (7.5e9, ["warning", "warning", "ok"]),
        (8e9, ["ok", "ok", "ok"]),
    ],
)
def test_disk_has_to_hold_what_goes_there(tmp_path, monkeypatch, free, states):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10e9, 0, int(free)))
    places = {"outputs": (tmp_path, 3e9), "hub cache": (tmp_path / "hub", 4e9), "data cache": (tmp_path / "data", 0)}
    found = list(machine.disk(places))
    assert [finding.state for finding in found] == states
    assert all(finding.mend for finding in found if finding.state != "ok")


# The hub


@pytest.fixture
def hub():
    """A hub on this machine with an open model, one without safetensors, and a gated one."""
    sizes = {
        "owner/open": {"model-1.safetensors": 5, "model-2.safetensors": 7, "optimizer.bin": 9},
        "owner/pickled": {"pytorch_model.bin": 9},
    }
    config = json.dumps({"model_type": "llama"}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            owner_name = "/".join(self.path.removeprefix("/api/models").strip("/").split("/")[:2]).partition("?")[0]
            if self.path.startswith("/api/models/") and owner_name in sizes:
                files = [{"rfilename": name, "size": size} for name, size in sizes[owner_name].items()]
                self.answer(200, json.dumps({"id": owner_name, "siblings": files}).encode())
            elif owner_name == "owner/gated":
                self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
            elif owner_name in sizes:
                self.answer(200, config, {"ETag": '"1"', "X-Repo-Commit": "0" * 40})
            else:
                self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def with_hub(origin, tmp_path) -> Callable[[str, str], Answer]:
    """Run code against a hub, in a process of its own: the hub's client reads its settings once."""
    settings = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_not-to-be-shown"}
    anew = "import importlib, sys; from huggingface_hub import constants; importlib.reload(constants)\n"

    def run(hub: str, code: str) -> Answer:
        return origin.run("-c", anew + code, cwd=tmp_path, HF_ENDPOINT=hub, NO_COLOR="1", COLUMNS="300", **settings)

    return run


DOCTOR = "from safety_nb import cli; sys.argv = ['safety-nb', 'doctor', 'mine.yaml']; cli.main()"


def test_hub_that_answers_and_what_it_has(with_hub, hub):
    code = """
from safety_nb.run import doctor
from safety_nb.run import machine
from safety_nb.core.params import RunParams, validate
print(machine.hub().state)
for name in ("owner/open", "owner/pickled"):
    size, problem = doctor.weights_to_fetch(validate(RunParams, {"base_model": name}))
    print(size, problem and problem.found)
"""
    answer = with_hub(hub, code)
    # 5 + 7 bytes: of the open model's files only the safetensors are fetched.
    assert answer.stdout.splitlines() == ["ok", "12.0 None", "0 the hub has no safetensors of owner/pickled"]


def test_gated_model_is_a_problem_told_with_the_others_and_without_the_token(with_hub, tmp_path, hub):
    (tmp_path / "mine.yaml").write_text("base_model: owner/gated\nn_safety: 1000000\n")
    answer = with_hub(hub, DOCTOR)
    assert answer.returncode == 1
    assert f"{hub} answers; HF_TOKEN is set" in answer.stdout
    assert "'owner/gated' is gated: ask for access on its hub page and set HF_TOKEN" in answer.stdout
    assert "data set 'tiny-safety' holds" in answer.stdout
    assert answer.stdout.count("owner/gated") == 1  # once, though its configuration cannot be read either
    assert "not-to-be-shown" not in answer.stdout + answer.stderr


def test_hub_that_is_down_is_a_problem_only_for_a_model_of_its(with_hub, tmp_path):
    (tmp_path / "mine.yaml").write_text("base_model: owner/open\n")
    answer = with_hub("http://127.0.0.1:9", DOCTOR)  # nobody listens on this port
    assert answer.returncode == 1
    assert "warning  hub         http://127.0.0.1:9 does not answer" in answer.stdout
    assert "'owner/open' could not be fetched from the hub and no copy of it is cached here" in answer.stdout


def test_hub_is_not_asked_when_it_must_not_be(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    found = machine.hub()
    assert (found.state, found.found.startswith("not asked")) == ("ok", True)
    assert "HF_TOKEN is not set" in found.found
