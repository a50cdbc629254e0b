"""The benchmarks run: what they time is not asked here."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.soak
def test_training_is_measured_beside_its_peers(tmp_path):
    report = tmp_path / "training.json"
    environment = {name: value for name, value in os.environ.items() if name != "SAFETY_NB_DATA"}
    command = [sys.executable, "benchmarks/training.py", "--quick", "--rounds", "1", "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "SAFETY_NB_DATA is not set: the rows are the miniature's." in done.stdout
    installed = importlib.util.find_spec("trl") is not None
    assert ("TRL is not installed" in done.stdout) != installed
    rows = json.loads(report.read_text())
    assert {row["baseline"] for row in rows} == {"alpaca-lora recipe"} | ({"TRL SFTTrainer"} if installed else set())
    assert {row["case"] for row in rows} == {"safety-nb training"}
    assert all(0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"] and row["rounds"] == 1 for row in rows)
    # One optimizer step is 8 rows: 16 rows make 2. The untrained model's loss on its 32,000 tokens is about their ln.
    table = {line.split(" | ")[0]: line.split(" | ")[3:] for line in done.stdout.splitlines() if " | " in line}
    for way in ("safety-nb training", "alpaca-lora recipe"):
        padding, loss, steps = table[way]
        assert (padding == "0%") == (way == "safety-nb training")
        assert 10.3 < float(loss) < 10.5
        assert steps == "2"


@pytest.mark.soak
@pytest.mark.skipif(not os.environ.get("SAFETY_NB_DATA"), reason="needs the public data sets")
def test_the_shipped_judge_of_refusals_is_the_one_that_its_command_fits(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("benchmark_of_refusal", ROOT / "benchmarks" / "refusal.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    shipped = benchmark.refusal.FILE.read_bytes()
    monkeypatch.setattr(benchmark.refusal, "FILE", tmp_path / "again.json")
    benchmark.write(list(benchmark.answers()))
    assert (tmp_path / "again.json").read_bytes() == shipped
