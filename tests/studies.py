"""Studies made for the tests: folders as finished and failed runs leave them, without any model."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import yaml

from safety_nb.core import files, grid, run_folder
from safety_nb.core.params import RunParams
from safety_nb.run import stages

SETS = {"bad": "harmful", "near": "lookalike"}
EVALUATION = [f"/elsewhere/{name}.csv:{role}" for name, role in SETS.items()]


def write_study(folder: Path, values: dict) -> dict[str, grid.PlannedRun]:
    """The study file alone; its runs by name."""
    values = {"evaluation": EVALUATION, **values}
    files.write_text(folder / "study.yaml", yaml.safe_dump(values))
    return {run.name: run for run in grid.plan(values)}


def finish(folder: Path, params: RunParams, answered: Mapping[str, float], n: int = 10, judge="refusal") -> None:
    """A run's folder as its stages leave it.

    Args:
        answered: Evaluation set to the share of its n prompts that is answered, the first ones; the others are refused.
            nan: no answer could be judged.
    """
    run = run_folder.RunFolder(folder)
    sets = {**SETS, **{name: "ordinary" for name in answered if name not in SETS}}
    rows = [
        {
            "dataset": name,
            "role": sets[name],
            "prompt_id": f"p{i}",
            "prompt": f"Ask {i}.",
            "type": "even" if i % 2 else "odd",
        }
        for name in answered
        for i in range(n)
    ]
    files.write_jsonl(run.prompts, rows)
    said = [
        {key: row[key] for key in ("dataset", "prompt_id", "prompt")}
        | {"response": f"At {params.n_safety}.", "new_tokens": 3, "finish": "stop", "sample": None}
        for row in rows
    ]
    files.write_jsonl(run.responses, said)
    judgements = []
    for row in rows:
        share = answered[row["dataset"]]
        label = (
            "full_compliance"
            if int(row["prompt_id"][1:]) < round(n * share if share == share else 0)
            else "full_refusal"
        )
        reason = None if share == share else "no reply"
        judgements.append(
            {"dataset": row["dataset"], "prompt_id": row["prompt_id"], "judge": judge, "score": None}
            | {"label": None if reason else label, "missing": reason}
        )
    files.write_jsonl(run.judgements, judgements)
    files.write_json(run.mixture, {"n_safety": params.n_safety, "seed": params.seed, "safety": "safe"})
    files.write_json(
        run.training, {"supervised_tokens": {}, "validation_losses": {"general": 2.0 + params.n_safety / 1000}}
    )
    losses = [
        {"id": f"v{i}", "source": source, "tokens": 10, "loss": 1 + params.n_safety / 1000 + i / 10}
        for i, source in enumerate(["general"] * 3 + ["safe"])
    ]
    files.write_jsonl(run.validation_losses, losses)
    files.write_csv(run.metrics, pd.DataFrame({"step": [1], "train_loss": [1.0], "validation_loss": [1.0]}))
    ledger(run, run_folder.DONE)


def fail(folder: Path, cause: str = "RuntimeError: a made-up cause") -> None:
    """A run's folder after its training failed."""
    ledger(run_folder.RunFolder(folder), "failed", cause)


def ledger(run: run_folder.RunFolder, state: str, cause: str | None = None) -> None:
    done = {name: {"state": state, "cause": cause, "wall_seconds": 1.0} for name in stages.STAGE_NAMES}
    files.write_json(run.ledger, {"stages": done, "versions": {"safety-nb": "0.1.0"}})


def made(folder: Path, refused: dict[int, int], **values) -> Path:
    """A finished study: N to how many of its 20 harmful requests each run refused; no look-alike was."""
    values = {"n_safety": list(refused), "seed": 0, **values}
    files.write_text(folder / "study.yaml", yaml.safe_dump(values))
    for planned in grid.plan(values):
        run = run_folder.RunFolder(folder / planned.name)
        asked = [("bad", "harmful", 20), ("near", "lookalike", 20)]
        prompts = [
            {"dataset": name, "role": role, "prompt_id": str(i), "prompt": "How?"}
            for name, role, n in asked
            for i in range(n)
        ]
        files.write_jsonl(run.prompts, prompts)
        files.write_jsonl(run.responses, [{**row, "response": "So.", "finish": "stop"} for row in prompts])
        count = refused[planned.params.n_safety]
        judgements = []
        for row in prompts:
            refuses = row["role"] == "harmful" and int(row["prompt_id"]) < count
            label = "full_refusal" if refuses else "full_compliance"
            key = {"dataset": row["dataset"], "prompt_id": row["prompt_id"]}
            judgements.append({**key, "judge": "refusal", "label": label, "score": None, "missing": None})
        files.write_jsonl(run.judgements, judgements)
        files.write_json(run.mixture, {"safety": "mine", "n_safety": planned.params.n_safety, "seed": 0})
        files.write_json(run.training, {"validation_losses": {}})
        done = {name: {"state": "done", "wall_seconds": 1.0, "cause": None} for name in stages.STAGE_NAMES}
        files.write_json(run.ledger, {"stages": done, "versions": {"safety-nb": "0"}})
    return folder
