"""What ``loss_on`` changes, against a computation made by hand: plain transformers, masks of its own, float32."""

import pytest
import torch

from safety_nb.core import files, run_folder
from safety_nb.core.params import MixParams, TrainParams
from safety_nb.data import mixing
from safety_nb.train import models, training

pytestmark = pytest.mark.usefixtures("traced_once")

CUTOFF = 64  # which cuts the end of some rows
# Stanford Alpaca's template, written out.
HEAD = "Below is an instruction that describes a task{}. Write a response that appropriately completes the request.\n\n"
PAIRED = ", paired with an input that provides further context"


def by_hand(rows: list[dict], loss_on: str) -> tuple[int, float]:
    """Supervised tokens of rows and their mean loss, in one padded batch with an attention mask."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = models.locate("tiny")
    tokenizer, model = AutoTokenizer.from_pretrained(where), AutoModelForCausalLM.from_pretrained(where)
    model = model.float().eval()
    ids = torch.full((len(rows), CUTOFF), tokenizer.eos_token_id)
    attended, asked = torch.zeros(len(rows), CUTOFF, dtype=torch.bool), []
    for place, row in enumerate(rows):
        given = f"### Input:\n{row['input']}\n\n" if row["input"] else ""
        prompt = HEAD.format(PAIRED if given else "") + f"### Instruction:\n{row['instruction']}\n\n{given}"
        texts = (prompt + "### Response:\n", row["output"])
        before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        whole = [tokenizer.bos_token_id, *before, *after, tokenizer.eos_token_id][:CUTOFF]
        ids[place, : len(whole)] = torch.tensor(whole)
        attended[place, : len(whole)] = True
        asked.append(1 + len(before))
    with torch.no_grad():
        by_token = model(ids, attention_mask=attended.long()).logits.log_softmax(-1)
    total, n = 0.0, 0
    for place in range(len(rows)):
        for at in range(1, int(attended[place].sum())):  # nothing predicts the first; no padding is among these
            if loss_on == "all" or at >= asked[place]:
                total, n = total - by_token[place, at - 1, ids[place, at]].item(), n + 1
    return n, total / n


@pytest.mark.parametrize("loss_on", ["answers", "all"])
def test_tokens_and_loss_of_ten_rows_are_those_of_a_computation_by_hand(tmp_path, loss_on):
    mixing.mix(MixParams(run_dir=str(tmp_path), n_general=7, n_safety=3, n_validation=10))
    run = run_folder.open_run(str(tmp_path))
    rows, held_out = files.read_jsonl(run.train_rows), files.read_jsonl(run.validation_rows)
    with_input = [{**row, "input": "The miller has a red hat."} if place < 2 else row for place, row in enumerate(rows)]
    files.write_jsonl(run.train_rows, with_input)
    # One step over all ten rows, packed: a fresh adapter adds nothing yet, so its loss is that of the base. Its rate is
    # so small that nothing is learned before the validation.
    params = TrainParams(
        run_dir=str(tmp_path), cutoff=CUTOFF, loss_on=loss_on, base_bits=16, batch_size=10, micro_batch_size=4,
        learning_rate=1e-12,
    )  # fmt: skip
    record = training.train(params)
    assert record.packed and record.truncated_rows > 0
    n, loss = by_hand(with_input, loss_on)
    assert sum(record.supervised_tokens.values()) == n
    assert record.train_loss == pytest.approx(loss, rel=1e-5)
    assert record.validation_loss == pytest.approx(by_hand(held_out, loss_on)[1], rel=1e-5)
