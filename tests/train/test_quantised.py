"""A base in 8 and in 16 bits: real layers of small models, tried, trained, asked and exported."""

import json
import math
import shutil
from pathlib import Path

import bitsandbytes
import families
import pytest
import torch
from commands import safety_nb

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import GenerateParams, MixParams, TrainParams
from safety_nb.data import mixing
from safety_nb.generate import generation
from safety_nb.train import export, models, quantised, training
from safety_nb.train.encoding import encode_row

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


# The trial


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_errors_of_the_trial_are_those_of_rounding(dtype, cuda_available):
    where = "cuda" if cuda_available else "cpu"
    # 8 bits: 127 steps up to a row's largest, of 128 normal numbers about 2.6 deviations: a step is 0.02 of one, and
    # rounding leaves its root of a twelfth, 0.006; once for weights, once for inputs.
    assert 0.006 < quantised.trial(8, where, dtype) < 0.02
    # 16 values over blocks of 64 keep normal weights to about 0.1.
    assert 0.06 < quantised.trial(4, where, dtype) < 0.15


real = bitsandbytes.matmul  # what each 8-bit layer calls


def raises(x, *more, **others):
    raise RuntimeError("no kernel image")


def doubled(x, *more, **others):
    return 2 * real(x, *more, **others)


def doubled_in_evaluation(x, *more, state, **others):
    return real(x, *more, state=state, **others) * (1 if state.is_training else 2)


def without_gradients(x, *more, **others):
    return real(x, *more, **others).detach().requires_grad_(x.requires_grad)


def without_gradients_after_an_evaluation(x, *more, state, **others):
    state.evaluated = getattr(state, "evaluated", False) or not state.is_training
    return (without_gradients if state.evaluated else real)(x, *more, state=state, **others)


def sums_that_saturate(x, *more, **others):
    found = real(x, *more, **others)
    return found.clamp(-found.detach().abs().max() / 2, found.detach().abs().max() / 2)


def not_a_number(x, *more, **others):
    return real(x, *more, **others) * math.nan


FAULTS = [
    *(raises, doubled, doubled_in_evaluation, without_gradients, without_gradients_after_an_evaluation),
    *(sums_that_saturate, not_a_number),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_does_not_work_is_noticed_by_the_trial(fault, monkeypatch):
    models.check_bits(8)
    monkeypatch.setattr(bitsandbytes, "matmul", fault)
    with pytest.raises(InputError, match=r"^base_bits: 8 bits do not work on this .*Set base_bits to 4 or 16"):
        models.check_bits(8)
    models.check_bits(4)
    models.check_bits(16)


def test_outliers_in_eight_bits_are_noticed_by_the_trial(monkeypatch):
    monkeypatch.setattr(quantised, "_OUTLIER", 0.0)  # no column is set apart
    with pytest.raises(ArithmeticError, match="off by 0.0"):
        quantised.trial(8, models.pick_device(), torch.float32)


def test_a_check_that_finds_nothing_says_nothing(caplog):
    models.check_bits(8)
    assert caplog.records == []


def test_the_trial_leaves_the_random_numbers_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    models.check_bits(8)
    assert torch.equal(torch.rand(1), expected)


# Bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("base_bits=8", "base_bits: 8 bits do not work on this"),
        ("base_bits=[4, 8]", "base_bits: 8 bits do not work on this"),
        ("base_bits=5", "base_bits: 5 (int) is not valid: it should be 4, 8 or 16"),
        ("base_bits=nf4", "base_bits: 'nf4' (str) is not valid: it should be 4, 8 or 16"),
        ("loss_on=prompts", "loss_on: 'prompts' (str) is not valid: it should be 'answers' or 'all'"),
        ("train_dtype=float16", "train_dtype: 'float16' is for a GPU"),
        ("recipe=paper-script", "train_dtype: 'float16' is for a GPU"),
        ("recipe=script", "it should be 'tiny', 'current', 'paper' or 'paper-script'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(given, message, tmp_path, monkeypatch, cuda_available):
    if cuda_available and "float16" in message:
        pytest.skip("asks the CPU")
    monkeypatch.setattr(bitsandbytes, "matmul", doubled)
    command = "study" if "[" in given else "run"
    (tmp_path / "mine.yaml").write_text("n_safety: 10\n")
    answer = safety_nb(command, "mine.yaml", "--set", given, cwd=tmp_path)
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert message in answer.stderr and "Traceback" not in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_training_where_the_trial_fails_writes_nothing(tmp_path, monkeypatch):
    params = mixture(tmp_path, base_bits=8)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(bitsandbytes, "matmul", doubled)
    with pytest.raises(InputError, match="^base_bits: 8 bits do not work"):
        training.train(params)
    assert sorted(tmp_path.rglob("*")) == before


# The layers


def test_every_linear_layer_of_the_base_is_eight_bit_by_rows():
    from transformers import AutoModelForCausalLM

    exact = AutoModelForCausalLM.from_pretrained(models.locate("tiny"), dtype=torch.float32)
    model = models.load_base("tiny", bits=8)
    held = {name: layer for name, layer in model.named_modules() if layer in set(quantised.layers(model, 8))}
    assert len(held) == len(quantised.layers(model)) == 4 * 7  # no layer in 4 bits
    for name, layer in held.items():
        assert layer.weight.dtype == torch.int8
        # Each row in whole steps, of which its largest has 127, and each weight rounded to the nearest.
        weight = exact.get_submodule(name).weight.detach()
        step = weight.abs().amax(dim=1, keepdim=True) / 127
        in_steps = quantised.written_out(layer) / step
        assert torch.equal(in_steps.round(), layer.weight.float()) and (in_steps - in_steps.round()).abs().max() < 1e-3
        assert (in_steps - weight / step).abs().max() < 0.5 + 1e-2


def test_a_base_in_sixteen_bits_is_the_base():
    from transformers import AutoModelForCausalLM

    model = models.load_base("tiny", bits=16)
    exact = AutoModelForCausalLM.from_pretrained(models.locate("tiny"), dtype=model.dtype)
    assert not quantised.layers(model)
    for (name, weight), (_, other) in zip(model.named_parameters(), exact.named_parameters(), strict=True):
        assert torch.equal(weight.cpu(), other), name


def adapted(model: torch.nn.Module, targets: list[str]) -> torch.nn.Module:
    """A model with an adapter whose every matrix counts: B begins at zero."""
    torch.manual_seed(0)
    model = models.add_adapter(model, r=4, alpha=8, dropout=0.0, targets=targets, gradient_checkpointing=False)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model


@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_gradients_through_eight_bits_are_those_through_the_weights_written_out(family, tmp_path, cuda_available):
    if cuda_available:
        pytest.skip("a GPU quantises what goes into a layer, too")
    base = families.save(family, tmp_path)
    model = models.load_base(base, bits=8)
    plain = models.load_base(base, bits=16)
    for name, layer in model.named_modules():
        if layer in set(quantised.layers(model)):
            plain.get_submodule(name).weight.data = quantised.written_out(layer)
    ids = torch.arange(5, 45)[None]
    pair = [adapted(each, ["all-linear"]).train() for each in (model, plain)]

    def gradients() -> list[dict[str, torch.Tensor]]:
        found = []
        for each in pair:
            each.zero_grad()
            each(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            found.append({name: weight.grad for name, weight in each.named_parameters() if weight.requires_grad})
        return found

    def same(found: list[dict[str, torch.Tensor]]) -> None:
        through, expected = found
        assert through.keys() == expected.keys() and len(through) == 2 * len(quantised.layers(model))
        for name, gradient in through.items():
            assert (gradient - expected[name]).norm() < 1e-4 * expected[name].norm(), name

    same(gradients())
    model.eval()  # an evaluation in between takes other ways, and must leave no trace
    with torch.no_grad():
        evaluated = model(input_ids=ids).logits
    # There the inputs of layers are in 8 bits too: off by rounding, and no more.
    error = (evaluated - plain.eval()(input_ids=ids).logits).norm() / evaluated.norm()
    assert 0 < error < 0.1
    pair = [each.train() for each in pair]
    same(gradients())


# Trained, asked, exported


def mixture(folder: Path, **values) -> TrainParams:
    mixing.mix(MixParams(run_dir=str(folder), n_general=12, n_safety=4, n_validation=4))
    return TrainParams(run_dir=str(folder), batch_size=4, learning_rate=0.02, **values)


@pytest.fixture(scope="module", params=[("tiny", 8), ("falcon", 16)], ids=lambda which: f"{which[0]}-{which[1]}")
def trained(request, tmp_path_factory) -> TrainParams:
    """A run whose adapter matters: a few steps at a high learning rate."""
    torch.set_num_threads(1)
    family, bits = request.param
    folder = tmp_path_factory.mktemp(family)
    base = "tiny" if family == "tiny" else families.save(family, folder / "base")
    params = mixture(folder / "run", base_model=base, base_bits=bits)
    training.train(params)
    return params


def record_of(params: TrainParams) -> dict:
    return files.read_json(Path(params.run_dir) / "train" / "training.json")


def test_record_and_card_say_the_bits(trained):
    record, bits = record_of(trained), trained.base_bits
    assert (record["four_bit_layers"], record["eight_bit_layers"]) == (0, 28 if bits == 8 else 0)
    assert record["values"]["base_bits"] == bits and record["packed"]
    card = (Path(trained.run_dir) / "train" / "adapter" / "README.md").read_text()
    assert {8: "held in 8 bits (LLM.int8)", 16: "held unquantised"}[bits] in card
    assert ("load_in_8bit=True" in card, "load_in_4bit" in card) == (bits == 8, False)
    code = card.partition("```python\n")[2].partition("```")[0]
    assert ("quantization_config" in code) == (bits == 8)
    compile(code, "card", "exec")


def logits(model: torch.nn.Module, params: TrainParams) -> torch.Tensor:
    """At every token of a validation row, shape (tokens, vocabulary), computed as in training."""
    row = files.read_jsonl(Path(params.run_dir) / "mix" / "validation.jsonl")[0]
    ids = torch.tensor([encode_row(row, models.load_tokenizer(params.base_model), 256).input_ids])
    with torch.no_grad():
        return model.train()(input_ids=ids.to(model.device), use_cache=False).logits[0].float()


def answering(params: TrainParams, merge: bool, adapter: bool = True, bits: int | None = None) -> torch.nn.Module:
    where = run_folder.RunFolder(Path(params.run_dir)).adapter if adapter else None
    return models.load_answering(params.base_model, where, merge=merge, bits=bits or params.base_bits)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def test_merged_for_answers_is_base_and_adapter_as_trained(trained, cuda_available):
    if cuda_available:
        pytest.skip("a GPU quantises what goes into a layer, too")
    beside, merged = (answering(trained, merge=merge) for merge in (False, True))
    assert (models.is_merged(beside), models.is_merged(merged)) == (False, True)
    expected = logits(beside, trained)
    assert relative(logits(merged, trained), expected) < 1e-4
    # The tolerance tells: on a base of other bits, or without the adapter, it is another model.
    other = 16 if trained.base_bits == 8 else 8
    assert relative(logits(answering(trained, merge=True, bits=other), trained), expected) > 1e-3
    assert relative(logits(answering(trained, merge=True, adapter=False), trained), expected) > 1e-2


def test_exported_is_base_and_adapter_as_trained(trained, tmp_path, cuda_available):
    if cuda_available:
        pytest.skip("a GPU quantises what goes into a layer, too")
    done = export.export(Path(trained.run_dir), tmp_path / "merged", "float16")
    merged = models.load_plain(str(tmp_path / "merged"), "", "float16").float()
    expected = logits(answering(trained, merge=False), trained)
    # As in test_export: half a place of 11 bits, through the layers one after the other.
    tolerance = 2**-12 * (2 + 4 * merged.config.num_hidden_layers) ** 0.5
    assert relative(logits(merged, trained), expected) < tolerance
    # The tolerance tells: the adapter on a base of other bits is farther off.
    other = 16 if trained.base_bits == 8 else 4
    assert relative(logits(answering(trained, merge=True, bits=other), trained), expected) > 2 * tolerance
    assert done.drift.rows == 4 and done.drift.same_greedy > 0.9
    card = (tmp_path / "merged" / "README.md").read_text()
    assert {8: "in 8 bits (LLM.int8); here those 8-bit", 16: "unquantised; here that base"}[trained.base_bits] in card


@pytest.mark.parametrize("merge", [True, False])
def test_answers_come_from_the_base_in_its_bits(trained, merge):
    params = GenerateParams(
        run_dir=trained.run_dir, base_model=trained.base_model, base_bits=trained.base_bits, merge_adapter=merge,
        evaluation=["tiny-facts"], max_new_tokens=2, generation_batch_size=40,
    )  # fmt: skip
    assert len(generation.generate(params)) == 40
    record = json.loads((Path(trained.run_dir) / "generation.json").read_text())
    assert (record["base_bits"], record["merged"]) == (trained.base_bits, merge)


def test_answers_from_a_base_of_other_bits_than_trained_on_are_refused(trained, tmp_path):
    shutil.copytree(Path(trained.run_dir) / "train", tmp_path / "train")
    bits, before = trained.base_bits, sorted(tmp_path.rglob("*"))
    asked = GenerateParams(run_dir=str(tmp_path), base_model=trained.base_model, evaluation=["tiny-facts"])
    with pytest.raises(InputError, match=rf"^base_bits: the adapter .* base in {bits} bits .*set base_bits to {bits}"):
        generation.generate(asked)
    assert sorted(tmp_path.rglob("*")) == before


def test_weights_that_come_quantised_are_not_taken_for_whole_ones(tmp_path):
    models.load_base("tiny").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="^base_bits: the weights of .* come quantised"):
        models.load_base(str(tmp_path), bits=16)
