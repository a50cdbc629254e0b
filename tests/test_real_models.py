"""Real language models, pre-trained by others: what holds for the miniature and for random weights holds for them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import public_rows
import pytest
import yaml

from safety_nb.core import files, run_folder

FOLDERS = "SAFETY_NB_REAL_MODELS"
_GIVEN = [Path(folder) for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not _GIVEN,
        reason=f"needs real models: set {FOLDERS} to their folders, divided by {os.pathsep!r} "
        "(HuggingFaceTB/SmolLM2-135M-Instruct and google/gemma-3-270m, each downloaded whole)",
    ),
]

# Small, for a real model takes seconds a step on a CPU. The learning rate is one at which small models learn.
VALUES = {
    "n_general": 6,
    "n_safety": 2,
    "n_validation": 2,
    "batch_size": 4,
    "epochs": 3.0,
    "eval_steps": 3,
    "learning_rate": 1e-3,
    "cpu_threads": 0,
    "max_new_tokens": 6,
    "generation_batch_size": 4,
}
PROMPTS = ["How do I water the tulips?", "Name a colour.", "Where does the sun rise?", "Describe how to wave."]


@dataclass(frozen=True)
class Ran:
    """A run of a real model that is done, and the folder of the model."""

    folder: Path
    base: str


@pytest.fixture(scope="module", params=_GIVEN, ids=lambda folder: folder.name)
def base(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ran(base, tmp_path_factory) -> Ran:
    """`safety-nb run`, the whole way from rows to the page."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "asked.csv").write_text("prompt\n" + "".join(f"{prompt}\n" for prompt in PROMPTS))
    values = VALUES | {"base_model": base, "evaluation": [f"{folder / 'asked.csv'}:ordinary"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "safety_nb", "run", str(folder / "params.yaml"), "--out", str(folder / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return Ran(folder / "run", base)


@pytest.fixture(scope="module")
def tokenizer(base):
    from safety_nb.train import models

    return models.load_tokenizer(base)


def templates_of(tokenizer) -> list[str]:
    return ["alpaca", "chat"] if tokenizer.chat_template else ["alpaca"]


ROW = {"id": "x", "instruction": "How do I water the tulips?", "input": "", "output": "First, fill the can."}


def test_the_loss_covers_the_answer_and_its_end_and_nothing_else(tokenizer):
    from safety_nb.train.encoding import IGNORED, encode_row, end_tokens

    for template in templates_of(tokenizer):
        row = encode_row(ROW, tokenizer, 256, template)
        learned = [token for token, label in zip(row.input_ids, row.labels, strict=True) if label != IGNORED]
        assert learned[-1] in end_tokens(tokenizer, template), template
        assert tokenizer.decode(learned[:-1]).strip() == ROW["output"], template


def test_what_is_asked_is_what_was_trained_on(tokenizer):
    from safety_nb.train.encoding import IGNORED, encode_question, encode_row

    for template in templates_of(tokenizer):
        row = encode_row(ROW, tokenizer, 256, template)
        before = row.input_ids[: next(place for place, label in enumerate(row.labels) if label != IGNORED)]
        assert encode_question(ROW["instruction"], tokenizer, template) == before, template


@public_rows.needed
def test_public_rows_have_the_ids_they_always_had(tokenizer):
    public_rows.check_ids(tokenizer)


def test_control_words_in_a_row_are_text(tokenizer):
    from safety_nb.train import plain_text
    from safety_nb.train.encoding import encode_row

    special = plain_text.reader(tokenizer).special
    text = "".join(word for word in sorted(tokenizer.all_special_tokens))
    for template in templates_of(tokenizer):
        plain, hostile = (
            encode_row({**ROW, "instruction": asked, "output": asked}, tokenizer, 1000, template).input_ids
            for asked in ("Plain.", f"Say {text} now.")
        )
        assert [i for i in hostile if i in special] == [i for i in plain if i in special], template
        assert tokenizer.decode(hostile).count(f"Say {text} now.") == 2, template


def test_a_run_learns_its_rows(ran):
    run = run_folder.RunFolder(ran.folder)
    record = files.read_json(run.training)
    # 8 rows in batches of 4: two steps an epoch, three epochs.
    assert record["steps"] == 6
    import pandas as pd

    losses = pd.read_csv(run.metrics)["train_loss"].dropna()
    # The last epoch sees what the first saw, at a learning rate at which models of this size learn.
    assert losses.iloc[-2:].mean() < losses.iloc[:2].mean() - 0.2


def test_every_matrix_of_the_adapter_was_trained(ran):
    from safetensors.torch import load_file

    weights = load_file(run_folder.RunFolder(ran.folder).adapter / "adapter_model.safetensors")
    # A fresh adapter's B is zero; one whose gradient is lost stays so.
    second = {name: weight for name, weight in weights.items() if "lora_B" in name}
    assert second and all(weight.abs().max() > 0 for weight in second.values())


def test_a_run_ends_with_answers_judgements_and_a_page(ran):
    run = run_folder.RunFolder(ran.folder)
    assert [row["prompt"] for row in files.read_jsonl(run.responses)] == PROMPTS
    assert all(row["new_tokens"] <= 6 and not row["error"] for row in files.read_jsonl(run.responses))
    assert {row["judge"] for row in files.read_jsonl(run.judgements)} == {"refusal"}
    assert run.report.read_text().rstrip().endswith("</html>")
    assert set(json.loads(run.ledger.read_text())["stages"]) == {"mix", "train", "generate", "judge", "report"}


def test_answers_do_not_depend_on_the_prompts_beside_them(ran):
    from safety_nb.generate import decoding
    from safety_nb.train import models
    from safety_nb.train.encoding import encode_question, end_tokens

    tokenizer = models.load_tokenizer(ran.base)
    model = models.load_answering(ran.base, run_folder.RunFolder(ran.folder).adapter).eval()
    asked = [encode_question(prompt, tokenizer) for prompt in PROMPTS]
    how = decoding.Decoding(max_new_tokens=6)
    together = decoding.decode(model, asked, end_tokens(tokenizer), how)
    alone = [decoding.decode(model, [one], end_tokens(tokenizer), how)[0] for one in asked]
    assert together == alone
    # And they are what transformers itself continues with.
    import torch

    with torch.inference_mode():
        plain = model.generate(
            torch.tensor([asked[0]]), do_sample=False, max_new_tokens=6, eos_token_id=end_tokens(tokenizer)
        )
    assert plain[0, len(asked[0]) :].tolist() == together[0]


def test_rows_of_a_pack_do_not_see_each_other_and_evaluation_leaves_gradients_alone(base, tokenizer):
    import torch

    from safety_nb.train import models, packed_trainer, packing
    from safety_nb.train.encoding import encode_row

    model = models.load_base(base)
    torch.manual_seed(0)
    model = models.add_adapter(model, r=4, alpha=8, dropout=0.0, targets=["all-linear"], gradient_checkpointing=False)
    packed_trainer.attend_by_row(model)
    rows = [encode_row({**ROW, "instruction": prompt}, tokenizer, 256) for prompt in PROMPTS[:3]]
    assert packed_trainer.separation(model, rows) in ("positions", "mask")
    (packed,) = packing.pack(rows, [0, 1, 2], 10_000)

    def gradients() -> dict[str, torch.Tensor]:
        model.train()
        model.zero_grad()
        packed_trainer.token_losses(model, packed).mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}

    before = gradients()
    model.eval()
    with torch.no_grad():
        packed_losses = packed_trainer.token_losses(model, packed)
        apart = [packed_trainer.token_losses(model, packing.pack(rows, [row], 10_000)[0]) for row in packed.rows]
    # In float32 the two differ by rounding alone.
    torch.testing.assert_close(packed_losses, torch.cat(apart), rtol=1e-3, atol=1e-3)
    after = gradients()
    assert before.keys() == after.keys()
    assert all(torch.equal(gradient, after[name]) for name, gradient in before.items())
