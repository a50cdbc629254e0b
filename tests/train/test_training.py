"""Training on the real thing: NF4, peft and the Trainer, on the embedded base."""

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import families
import pytest
import torch

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import MixParams, TrainParams
from safety_nb.data import mixing
from safety_nb.train import models, packed_trainer, quantised, records, training
from safety_nb.train.encoding import IGNORED, encode_row

pytestmark = pytest.mark.usefixtures("traced_once")

ROW = {
    "instruction": "How do I water the tulips?",
    "input": "",
    "output": "First, fill the can. Then pour slowly.",
    "source": "test",
}


@pytest.fixture(autouse=True)
def one_thread():
    """What the miniature's defaults use too; results are then the same on any number of cores."""
    torch.set_num_threads(1)


def batch_of_one() -> dict:
    encoded = encode_row(ROW, models.load_tokenizer("tiny"), cutoff=256)
    return {"input_ids": torch.tensor([encoded.input_ids]), "labels": torch.tensor([encoded.labels])}


def adapter_on_base() -> torch.nn.Module:
    torch.manual_seed(0)
    model = models.load_base("tiny")
    model = models.add_adapter(model, r=8, alpha=16, dropout=0.0, targets=["all-linear"], gradient_checkpointing=False)
    # A fresh adapter's B is zero, and with it the gradient of A: some value makes every gradient count.
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def gradients(model: torch.nn.Module, batch: dict) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    model(**batch, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def small_run(folder: Path, mixture: dict | None = None, **changes: object) -> TrainParams:
    """A run folder with a mixture of 40 rows, and the parameters of a short training on it."""
    mixing.mix(MixParams(run_dir=str(folder), **{"n_general": 32, "n_safety": 8, "n_validation": 8, **(mixture or {})}))
    values = {"run_dir": str(folder), "epochs": 1.0, "batch_size": 8, **changes}
    return TrainParams(**values)


def test_every_linear_layer_of_the_base_is_four_bit_nf4_twice_quantised():
    model = models.load_base("tiny")
    layers = quantised.layers(model, 4)
    # Four decoder layers with seven linear layers each: q, k, v, o, gate, up, down.
    assert len(layers) == 4 * 7
    for layer in layers:
        assert layer.weight.dtype == torch.uint8  # two 4-bit values a byte
        assert layer.weight.numel() == layer.in_features * layer.out_features // 2
        assert layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.quant_state.nested  # the scales are quantised too: double quantisation


def test_four_bit_weights_stay_close_to_the_weights_they_were_made_from():
    # An NF4 code book of 16 values over blocks of 64 keeps normal weights to about 0.1 relative error; a base that was
    # never quantised would have 0, one quantised twice or wrongly far more.
    from bitsandbytes.functional import dequantize_4bit
    from transformers import AutoModelForCausalLM

    exact = AutoModelForCausalLM.from_pretrained(models.locate("tiny"), dtype=torch.float32)
    quantised = models.load_base("tiny").model.layers[0].mlp.gate_proj.weight
    weight = exact.model.layers[0].mlp.gate_proj.weight
    error = (dequantize_4bit(quantised.data, quantised.quant_state) - weight).norm() / weight.norm()
    assert 0.02 < error.item() < 0.2


def test_only_the_adapter_is_trainable():
    model = adapter_on_base()
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    # Rank 8 on each layer: 8 x (in + out). Hidden 128, intermediate 384: four 128x128, two 128->384, one 384->128.
    a_layer = 8 * (4 * (128 + 128) + 3 * (128 + 384))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 4 * a_layer


def test_gradients_after_an_evaluation_forward_equal_those_before_it():
    # On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights in an evaluation forward, and gradients vanish.
    model, batch = adapter_on_base(), batch_of_one()
    before = gradients(model, batch)
    model.eval()
    with torch.no_grad():
        model(**batch)
    after = gradients(model, batch)
    assert all(gradient.abs().sum() > 0 for gradient in after.values())
    for name, gradient in before.items():
        assert torch.equal(gradient, after[name]), name


def test_prompt_tokens_carry_no_loss():
    # Changing the labels of the prompt to anything real would change the loss; changing a supervised one must.
    model, batch = adapter_on_base(), batch_of_one()
    model.eval()
    supervised = batch["labels"] != IGNORED
    # By hand: mean cross-entropy over the supervised positions, each predicted from the position before.
    with torch.no_grad():
        output = model(**batch)
    log_probabilities = torch.log_softmax(output.logits[0, :-1], dim=-1)
    targets = batch["input_ids"][0, 1:]
    by_position = -log_probabilities[torch.arange(len(targets)), targets]
    expected = by_position[supervised[0, 1:]].mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert by_position.mean().item() != pytest.approx(expected.item(), rel=1e-2)  # the prompt would have counted


@dataclass(frozen=True)
class Trained:
    """A short training: its run, what it recorded, and how many rows its metrics had each time they were shown."""

    params: TrainParams
    run: run_folder.RunFolder
    record: records.TrainingRecord
    lengths: list[int]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    torch.set_num_threads(1)
    params = small_run(tmp_path_factory.mktemp("trained"), optimizer="auto")
    run = run_folder.open_run(params.run_dir)
    # Two sources, as where demonstrations are held out too.
    held_out = [
        row | {"source": f"half {place % 2}"} for place, row in enumerate(files.read_jsonl(run.validation_rows))
    ]
    files.write_jsonl(run.validation_rows, held_out)
    lengths = []
    record = training.train(params, on_metrics=lambda table: lengths.append(len(table())))
    return Trained(params, run, record, lengths)


def test_the_trainer_is_given_labels_on_answers_only(trained):
    rows = files.read_jsonl(trained.run.train_rows)
    tokenizer = models.load_tokenizer("tiny")
    # Answer tokens and one end token a row, counted apart from the product's encoding.
    expected = sum(len(tokenizer(row["output"], add_special_tokens=False)["input_ids"]) + 1 for row in rows)
    assert sum(trained.record.supervised_tokens.values()) == expected
    assert set(trained.record.supervised_tokens) == {"tiny-general", "tiny-safety"}


def test_training_learns_and_leaves_what_it_says(tmp_path):
    params = small_run(tmp_path, epochs=6.0)
    # Something the base has never read.
    rows = [{**ROW, "id": str(number), "output": "Seven purple submarines.", "form": ""} for number in range(40)]
    files.write_jsonl(tmp_path / "mix" / "train.jsonl", rows)
    record = training.train(params)
    run = run_folder.open_run(params.run_dir)
    metrics = (tmp_path / "train" / "metrics.csv").read_text().splitlines()
    assert metrics[0] == (
        "step,epoch,supervised_tokens,train_loss,validation_loss,learning_rate,grad_norm,tokens_per_second,peak_memory,"
        "train_loss_test,validation_loss_tiny-validation"
    )
    # 40 rows in batches of 8: 5 steps an epoch, 6 epochs.
    assert record.steps == 30 and len(metrics) == 31
    peaks = [float(line.split(",")[8]) for line in metrics[1:]]  # a high-water mark; torch alone takes 100 MB
    assert peaks == sorted(peaks) and 1e8 < peaks[0] < 1e11
    first_loss = float(metrics[1].split(",")[3])
    assert record.train_loss < 0.7 * first_loss
    assert record.validation_loss is not None and record.validation_loss > 0
    assert json.loads(run.training.read_text())["four_bit_layers"] == 28
    assert (run.adapter / "adapter_model.safetensors").is_file()


def test_the_loss_of_each_validation_row_is_kept(trained):
    from peft import PeftModel

    params, run, record = trained.params, trained.run, trained.record
    held_out = files.read_jsonl(run.validation_rows)
    rows = files.read_jsonl(run.validation_losses)
    assert [(row["id"], row["source"]) for row in rows] == [(row["id"], row["source"]) for row in held_out]
    tokenizer = models.load_tokenizer("tiny")
    # The answer's tokens and the one that ends it.
    lengths = [len(tokenizer(row["output"], add_special_tokens=False)["input_ids"]) + 1 for row in held_out]
    assert [row["tokens"] for row in rows] == lengths
    means = {}
    for source in ("half 0", "half 1"):
        own = [row for row in rows if row["source"] == source]
        means[source] = sum(row["tokens"] * row["loss"] for row in own) / sum(row["tokens"] for row in own)
    assert record.validation_losses == pytest.approx(means)
    # By itself: the loss of one row, without the others beside it in a sequence.
    model = models.load_base("tiny")
    model = PeftModel.from_pretrained(model, run.adapter).eval()
    encoded = encode_row(held_out[1], tokenizer, cutoff=params.cutoff)
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([encoded.input_ids]), labels=torch.tensor([encoded.labels])).loss.item()
    assert rows[1]["loss"] == pytest.approx(alone, rel=1e-3)


def adapter_of(folder: Path, seed: int) -> str:
    """The hash of the adapter that a short training with this seed leaves."""
    params = small_run(folder, seed=seed)
    training.train(params)
    return files.sha256(run_folder.open_run(params.run_dir).adapter / "adapter_model.safetensors")


def test_the_same_seed_gives_the_same_adapter_bit_for_bit_and_another_seed_another(tmp_path):
    first, again, other = (adapter_of(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first == again != other


def test_in_float16_the_loss_is_scaled_and_a_step_that_overflows_is_left_out(tmp_path, monkeypatch):
    # As on a GPU without bfloat16.
    monkeypatch.setattr(models, "compute_dtype", lambda device, asked="auto": torch.float16)
    losses, step, seen = packed_trainer.token_losses, packed_trainer.PackedTrainer.training_step, []
    accelerator = packed_trainer.PackedTrainer.create_accelerator_and_postprocess

    def huge_at_first(model, one, masked=False):
        factor = 1e35 if model.training and len(seen) == 1 else 1.0  # times the scale: more than float32 holds
        return losses(model, one, masked) * factor

    def with_scaler(self):
        # What accelerate makes of fp16=True on a GPU, and not on the CPU.
        accelerator(self)
        assert self.args.fp16 and not self.args.bf16 and self.accelerator.mixed_precision == "fp16"
        if self.accelerator.scaler is None:
            self.accelerator.scaler, self.accelerator.native_amp = torch.amp.GradScaler("cpu"), True

    def watched(self, model, inputs, *more):
        adapter = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        assert {weight.dtype for weight in adapter.values()} == {torch.float32}
        assert model.get_input_embeddings().weight.dtype == torch.float16
        trained = any(weight.any() for name, weight in adapter.items() if "lora_B" in name)
        seen.append((self.accelerator.scaler.get_scale(), bool(trained)))
        return step(self, model, inputs, *more)

    monkeypatch.setattr(packed_trainer, "token_losses", huge_at_first)
    monkeypatch.setattr(packed_trainer.PackedTrainer, "training_step", watched)
    monkeypatch.setattr(packed_trainer.PackedTrainer, "create_accelerator_and_postprocess", with_scaler)
    record = training.train(small_run(tmp_path / "half", {"n_general": 16}))  # three steps
    # B begins at zero. The first step overflows: the scale is halved and nothing learned; the second is taken.
    assert seen[:3] == [(65536.0, False), (32768.0, False), (32768.0, True)]
    assert record.compute_dtype == "float16"


def test_a_cpu_computes_in_bfloat16_when_asked(tmp_path, monkeypatch):
    if torch.cuda.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("needs a CPU with bfloat16, and no GPU")
    exact = training.train(small_run(tmp_path / "exact"))
    step, seen = packed_trainer.PackedTrainer.training_step, set()

    def watched(self, model, inputs, *more):
        seen.add((model.get_input_embeddings().weight.dtype, quantised.layers(model, 4)[0].compute_dtype))
        seen.update(weight.dtype for weight in model.parameters() if weight.requires_grad)
        return step(self, model, inputs, *more)

    monkeypatch.setattr(packed_trainer.PackedTrainer, "training_step", watched)
    rounded = training.train(small_run(tmp_path / "rounded", train_dtype="bfloat16"))
    assert (exact.compute_dtype, rounded.compute_dtype) == ("float32", "bfloat16")
    assert seen == {(torch.bfloat16, torch.bfloat16), torch.float32}  # the adapter keeps 32 bits
    # 8 bits of a number: a loss that is another, and not far.
    assert rounded.train_loss == pytest.approx(exact.train_loss, rel=0.02) and rounded.train_loss != exact.train_loss


@pytest.mark.parametrize("asked", ["auto", "float32"])
def test_bfloat16_is_refused_where_it_would_be_emulated(tmp_path, monkeypatch, asked, cuda_available):
    if cuda_available:
        pytest.skip("asks the CPU")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    models.check_dtype(asked)
    params = small_run(tmp_path, train_dtype="bfloat16")
    with pytest.raises(InputError, match="only emulated on this CPU"):
        training.train(params)
    assert not (tmp_path / "train").exists()


def test_the_best_checkpoint_is_kept_when_asked(tmp_path):
    # A learning rate this high overfits 16 rows or diverges: the last loss is not the best one.
    few = {"n_general": 12, "n_safety": 4}
    params = small_run(tmp_path, few, epochs=8.0, learning_rate=0.03, eval_steps=2, best_checkpoint=True)
    training.train(params)
    import pandas as pd

    losses = pd.read_csv(tmp_path / "train" / "metrics.csv")["validation_loss"].dropna().tolist()
    # The validation after training is done with the checkpoint that was put back.
    assert losses[-1] == pytest.approx(min(losses), rel=1e-4)


def test_rows_the_cutoff_shortens_are_counted_and_empty_ones_left_out(tmp_path):
    params = small_run(tmp_path, cutoff=40)
    run = run_folder.open_run(params.run_dir)
    tokenizer = models.load_tokenizer("tiny")
    encoded = [encode_row(row, tokenizer, 10_000) for row in files.read_jsonl(run.train_rows)]
    longer = sum(len(row.input_ids) > 40 for row in encoded)
    without_answer = sum(len(row.input_ids) - row.supervised_tokens >= 40 for row in encoded)
    record = training.train(params)
    assert (record.truncated_rows, record.dropped_rows) == (longer, without_answer)


def test_a_cutoff_that_leaves_no_answer_at_all_stops(tmp_path):
    params = small_run(tmp_path, cutoff=8)
    with pytest.raises(InputError, match="no training row has an answer token within 8 tokens"):
        training.train(params)
    assert not (tmp_path / "train" / "adapter").exists()


def test_an_unknown_target_names_the_layers_there_are(tmp_path):
    params = small_run(tmp_path, lora_targets=["query_key_value"])
    with pytest.raises(InputError, match=r"query_key_value.*down_proj.*q_proj"):
        training.train(params)


def test_without_a_mixture_the_message_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(InputError, match=r"mix/train.jsonl: stage 'mix' makes it"):
        training.train(TrainParams(run_dir=str(tmp_path)))


@pytest.mark.parametrize("family", families.LINEAR)
def test_other_models_are_trained_and_answer(tmp_path, family):
    """By name of the first linear layer in one family, all of them in the next: both ways with classes of all kinds."""
    from safetensors.torch import load_file

    from safety_nb.core.params import GenerateParams
    from safety_nb.generate import generation

    base, linear = families.save(family, tmp_path / "model"), families.LINEAR[family]
    by_name = list(families.LINEAR).index(family) % 2 == 0
    models.check(base)
    changes = {"n_general": 8, "n_safety": 4, "n_validation": 2}
    params = small_run(
        tmp_path / "run", changes, base_model=base, batch_size=4, lora_targets=linear[:1] if by_name else ["all-linear"]
    )
    record = training.train(params)
    # Every linear layer of a decoder layer is in 4 bits, the output layer is not.
    assert record.four_bit_layers == families.LAYERS * len(linear)
    # Two matrices for each adapted layer.
    tensors = load_file(tmp_path / "run" / "train" / "adapter" / "adapter_model.safetensors")
    adapted = linear[:1] if by_name else linear
    assert len(tensors) == 2 * families.LAYERS * len(adapted)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in tensors} == set(adapted)
    # B begins at zero: every adapter has been trained.
    assert all(tensor.abs().sum() > 0 for tensor in tensors.values())
    asked = GenerateParams(
        run_dir=params.run_dir, base_model=base, evaluation=["tiny-facts"], max_new_tokens=2, generation_batch_size=40
    )
    assert len(generation.generate(asked)) == 40


@pytest.mark.parametrize("family", families.LINEAR)
def test_all_linear_is_every_linear_layer_by_its_name_but_the_output_layer(tmp_path, family):
    base = families.save(family, tmp_path)
    found = []
    for targets in (["all-linear"], families.LINEAR[family]):
        model = models.add_adapter(
            models.load_base(base), r=2, alpha=4, dropout=0.0, targets=targets, gradient_checkpointing=False
        )
        found.append({name for name, parameter in model.named_parameters() if parameter.requires_grad})
        assert type(model.get_output_embeddings()) is torch.nn.Linear  # neither in 4 bits nor adapted
    assert found[0] == found[1]


def test_what_is_not_installed_is_told_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for report_to in ("tensorboard", "trackio", "wandb"):
        with pytest.raises(InputError, match=f"report_to: '{report_to}' is not installed here; `pip install"):
            training.train(small_run(tmp_path / report_to, report_to=report_to))
        assert not (tmp_path / report_to / "train").exists()


def test_logging_to_what_is_installed_is_no_error(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "tensorboardX" else None)
    training.check_report_to("tensorboard")
    training.check_report_to("none")


def test_the_optimizer_is_chosen_by_the_device_and_recorded(trained):
    expected = "paged_adamw_8bit" if torch.cuda.is_available() else "adamw_torch"
    assert trained.record.values["optimizer"] == expected


def test_the_record_has_every_value_after_the_recipe(tmp_path):
    params = small_run(tmp_path, recipe="paper", epochs=1.0, micro_batch_size=1, cutoff=128)
    training.train(params)
    values = files.read_json(tmp_path / "train" / "training.json")["values"]
    assert set(values) == set(TrainParams.model_fields) - {"run_dir"}
    assert (values["lora_r"], values["lora_targets"], values["cutoff"]) == (4, ["q_proj", "v_proj"], 128)


def test_metrics_are_there_after_every_step(trained):
    # 40 rows in batches of 8: 5 steps, and a validation at the end.
    assert trained.lengths[:5] == [1, 2, 3, 4, 5] and set(trained.lengths[5:]) == {5}


def test_the_commit_of_a_model_from_the_hub_is_known(tmp_path, monkeypatch):
    # The hub's cache, laid out by hand as its client does it.
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--somebody--model"
    shutil.copytree(models.locate("tiny"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    models.check("somebody/model")
    assert models.commit("somebody/model") == models.commit("somebody/model", commit) == commit
    assert models.commit("tiny") == ""
    assert models.commit(models.locate("tiny")) == ""


@pytest.mark.parametrize(
    "name, message",
    [
        ("no-such-model", "is not known"),
        ("a/b/c", "is not known"),
        ("./missing/model", "is not known"),
    ],
)
def test_an_unknown_model_is_told_with_the_choices(name, message):
    with pytest.raises(InputError, match=message) as error:
        models.check(name)
    assert "'tiny'" in str(error.value)


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(InputError, match="holds no config.json"):
        models.check(str(tmp_path))


def test_a_hub_model_that_cannot_be_reached_is_told():
    # HF_HUB_OFFLINE is set for all tests.
    with pytest.raises(InputError, match="no copy of it is cached here"):
        models.check("nobody/no-such-model")


@pytest.mark.gpu
def test_on_a_gpu_the_dtype_follows_the_compute_capability():
    expected = torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
    assert models.compute_dtype("cuda") == expected


@pytest.mark.gpu
def test_training_runs_on_a_gpu(tmp_path):
    record = training.train(small_run(tmp_path))
    assert record.device == "cuda" and record.four_bit_layers == 28
