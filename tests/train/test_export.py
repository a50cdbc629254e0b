"""Export: the merged model answers as base and adapter do, a wrong merge would not, and nothing of a user's is lost."""

import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import families
import pytest
import torch

from safety_nb.core import files, run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import MixParams, TrainParams
from safety_nb.data import mixing
from safety_nb.train import cards, export, inputs, models, training
from safety_nb.train.encoding import encode_row

pytestmark = pytest.mark.usefixtures("traced_once")

BASES = ["tiny", "falcon", "qwen2"]
# A number in a 16-bit format is off by at most half of its last place: relative 2^-9 in bfloat16 (8 bits of
# significand), 2^-12 in float16 (11 bits; random weights of these sizes are not subnormal there).
ROUNDING = {"bfloat16": 2**-9, "float16": 2**-12}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=BASES)
def trained(request, tmp_path_factory) -> Path:
    """The folder of a run whose adapter matters: a few steps at a high learning rate."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    base = "tiny" if request.param == "tiny" else families.save(request.param, folder / "base")
    return train(folder / "run", base)


def train(run: Path, base: str = "tiny") -> Path:
    mixing.mix(MixParams(run_dir=str(run), n_general=12, n_safety=4, n_validation=4))
    training.train(TrainParams(run_dir=str(run), base_model=base, batch_size=2, learning_rate=0.02))
    return run


def base_of(run: Path) -> str:
    return files.read_json(run / "train" / "training.json")["values"]["base_model"]


def logits(model: torch.nn.Module, run: Path) -> torch.Tensor:
    """The logits of a model at every token of a validation row, shape (tokens, vocabulary)."""
    row = files.read_jsonl(run / "mix" / "validation.jsonl")[0]
    ids = torch.tensor([encode_row(row, models.load_tokenizer(base_of(run)), 256).input_ids])
    with torch.no_grad():
        return model.eval()(input_ids=ids, use_cache=False).logits[0].float()


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("dtype", export.DTYPES)
def test_merged_model_is_base_and_adapter_to_within_sixteen_bit_rounding(trained, tmp_path, dtype):
    done = export.export(trained, tmp_path / "merged", dtype)
    merged = models.load_plain(str(tmp_path / "merged"), "", dtype)
    assert {parameter.dtype for parameter in merged.parameters()} == {getattr(torch, dtype)}
    as_trained = logits(models.load_answering(base_of(trained), trained / "train" / "adapter", merge=False), trained)
    # What a logit goes through one after the other: embedding, four linear layers (v, o, up, down) in each decoder
    # layer, output layer. Independent relative errors of at most e each add up to no more than e times their root.
    tolerance = ROUNDING[dtype] * (2 + 4 * merged.config.num_hidden_layers) ** 0.5
    assert relative(logits(merged.float(), trained), as_trained) < tolerance
    # The tolerance tells: without the adapter, or merged into 4-bit layers, the logits are farther off.
    assert relative(logits(models.load_base(base_of(trained)), trained), as_trained) > 2 * tolerance
    wrong = models.load_answering(base_of(trained), trained / "train" / "adapter", merge=False).merge_and_unload()
    assert relative(logits(wrong, trained), as_trained) > 2 * tolerance
    assert done.parameters == sum(parameter.numel() for parameter in merged.parameters())
    assert done.parameters == models.count_parameters(base_of(trained))


def test_drift_is_that_of_the_logits(trained, tmp_path):
    drift = export.export(trained, tmp_path / "merged").drift
    assert (drift.of, drift.rows) == ("validation", 4)
    # The same again, by padding-free forwards over whole rows and log-probabilities written out.
    tuned = models.load_answering(base_of(trained), trained / "train" / "adapter", merge=False)
    merged = models.load_plain(str(tmp_path / "merged"), "", "bfloat16").eval()
    tokenizer, differences, same = models.load_tokenizer(base_of(trained)), [], []
    for row in files.read_jsonl(trained / "mix" / "validation.jsonl"):
        encoded = encode_row(row, tokenizer, 256)
        ids = torch.tensor([encoded.input_ids])
        with torch.no_grad():
            a, b = (torch.log_softmax(model(input_ids=ids).logits[0].float(), -1) for model in (tuned, merged))
        for place in range(len(encoded.labels) - encoded.supervised_tokens, len(encoded.labels)):
            token = encoded.input_ids[place]
            differences.append(abs(a[place - 1, token] - b[place - 1, token]).item())
            same.append((a[place - 1].argmax() == b[place - 1].argmax()).item())
    assert drift.tokens == len(differences)
    assert drift.mean_log_probability == pytest.approx(sum(differences) / len(differences), rel=0.05)
    assert drift.max_log_probability == pytest.approx(max(differences), rel=0.05)
    assert drift.same_greedy == pytest.approx(sum(same) / len(same), abs=0.02)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("exported") / "run")


def test_export_leaves_a_whole_model_with_its_card_and_no_pickle(run, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = export.export(run, tmp_path / "merged")
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "export.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    assert json.loads((tmp_path / "merged" / "export.json").read_text())["drift"]["rows"] == done.drift.rows == 4
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert model.dtype == torch.bfloat16 and "quantization_config" not in model.config.to_dict()
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").eos_token == models.load_tokenizer("tiny").eos_token
    card = (tmp_path / "merged" / "README.md").read_text()
    assert f"{done.drift.mean_log_probability:.4g}" in card and "`tiny-safety`: Apache-2.0" in card
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]  # nothing half-written beside it


def test_training_rows_serve_where_there_is_no_validation(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    files.write_jsonl(tmp_path / "run" / "mix" / "validation.jsonl", [])
    assert export.export(tmp_path / "run", tmp_path / "merged").drift.of == "training"


@pytest.mark.parametrize("name", ["notes.txt", ".git"])
def test_folder_that_holds_something_is_refused_and_left_alone(run, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="--out: .* holds something already"):
        export.export(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(InputError, match="--out: .* holds something already"):
        export.export(run, tmp_path / name)


def test_empty_folder_will_do(run, tmp_path):
    export.export(run, tmp_path)
    assert (tmp_path / "model.safetensors").is_file()


def test_full_disk_is_told_before_anything_is_loaded(run, tmp_path, monkeypatch):
    # Two bytes for each of the miniature's parameters, and 50 MB for the tokenizer.
    needed = 2 * models.count_parameters("tiny") + 50_000_000
    monkeypatch.setattr(export.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    monkeypatch.setattr(models, "load_answering", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(InputError, match=r"0\.05 GB free, and the model takes 0\.05 GB"):
        export.export(run, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_weight_too_large_for_float16_is_told_and_nothing_is_left(run, tmp_path, monkeypatch):
    load = models.load_answering

    def large(*arguments: object, **more: object) -> torch.nn.Module:
        tuned = load(*arguments, **more)
        for name, parameter in tuned.named_parameters():
            if "down_proj.lora_B" in name:
                parameter.data.fill_(1e6)  # float16 ends at 65,504
        return tuned

    monkeypatch.setattr(models, "load_answering", large)
    with pytest.raises(InputError, match=r"--dtype: a value of .*down_proj.* does not fit into torch.float16"):
        export.export(run, tmp_path / "merged", "float16")
    assert list(tmp_path.iterdir()) == []


def test_run_without_an_adapter_dtype_and_folder_that_are_not_there_are_told(run, tmp_path):
    with pytest.raises(InputError, match="There is no run folder"):
        export.export(tmp_path / "gone", tmp_path / "merged")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="train/adapter: stage 'train' makes it"):
        export.export(tmp_path / "empty", tmp_path / "merged")
    with pytest.raises(InputError, match="--dtype: 'int4' is not one of bfloat16, float16"):
        export.export(run, tmp_path / "merged", "int4")


RECORDS = {
    "empty": "",
    "cut short": lambda record: json.dumps(record)[:-9],
    "a list": "[]",
    "values a list": lambda record: {**record, "values": []},
    "an unknown value": lambda record: {**record, "values": {**record["values"], "lora_rank": 8}},
    "a value of another type": lambda record: {**record, "values": {**record["values"], "template": 7}},
    "no commit": lambda record: {name: value for name, value in record.items() if name != "base_commit"},
    "loss a text": lambda record: {**record, "train_loss": "low"},
    "losses of texts": lambda record: {**record, "validation_losses": {"tiny-general": "low"}},
    "a device that is none": lambda record: {**record, "device": "abacus"},
    "nested without end": "[" * 100_000,
}


@pytest.mark.parametrize("damage", RECORDS)
def test_damaged_record_is_named_before_anything_is_loaded(damage, run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "train" / "training.json"
    made = RECORDS[damage]
    made = made if isinstance(made, str) else made(files.read_json(path))
    path.write_text(made if isinstance(made, str) else json.dumps(made))
    monkeypatch.setattr(models, "load_answering", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(InputError, match=r"training\.json is damaged"):
        export.export(tmp_path / "run", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"train_sha256": 1', "[" * 100_000], ids=["empty", "a list", "cut short", "nested deep"]
)
def test_damaged_record_of_the_mixture_is_named(text, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "mix" / "mixture.json").write_text(text)
    with pytest.raises(InputError, match=r"mixture\.json is damaged"):
        export.export(tmp_path / "run", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_value_that_an_earlier_version_did_not_have_is_the_default(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "train" / "training.json"
    record = files.read_json(path)
    del record["values"]["template"]
    files.write_json(path, record)
    export.export(tmp_path / "run", tmp_path / "merged")
    assert "Alpaca format" in (tmp_path / "merged" / "README.md").read_text()


# The hub


@pytest.fixture
def no_network(monkeypatch) -> list:
    """The addresses that anything tried to connect to; no connection comes about."""
    tried: list = []

    def connect(self: socket.socket, address: object) -> None:
        tried.append(address)
        raise ConnectionRefusedError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: tried.append(address) or connect(None, address))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tried


def test_without_push_nothing_is_sent_anywhere(run, tmp_path, no_network):
    export.export(run, tmp_path / "merged")
    assert no_network == []


def test_push_that_cannot_reach_the_hub_is_told_before_the_work(run, tmp_path, no_network, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_token_0123456789")
    with pytest.raises(InputError, match="--push: the hub does not let us in"):
        export.export(run, tmp_path / "merged", push="somebody/model")
    assert no_network != []  # so the test before this one would have seen a call
    assert list(tmp_path.iterdir()) == []


def test_push_to_no_repository_is_told(run, tmp_path, no_network):
    with pytest.raises(InputError, match="--push: 'a/b/c' is no id of a repository"):
        export.export(run, tmp_path / "merged", push="a/b/c")
    assert no_network == []


def test_failed_upload_says_where_the_model_lies(run, tmp_path, no_network, monkeypatch):
    monkeypatch.setattr(export, "_check_hub", lambda repository: None)
    with pytest.raises(export.PushFailed, match=f"The model lies in {tmp_path / 'merged'}, but"):
        export.export(run, tmp_path / "merged", push="somebody/model")
    assert (tmp_path / "merged" / "export.json").is_file()


# Cards


def test_adapter_has_a_card_of_our_own(run):
    folder = run / "train" / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    card = (folder / "README.md").read_text()
    record, mixture = files.read_json(run / "train" / "training.json"), files.read_json(run / "mix" / "mixture.json")
    assert "More Information Needed" not in card  # peft's template
    assert mixture["mixture_sha256"] == record["mixture_sha256"] and record["mixture_sha256"] in card
    for shown in ("| `learning_rate` | `0.02` |", "`tiny-safety`: Apache-2.0", f"{record['validation_loss']:.4g}"):
        assert shown in card


def test_card_says_how_to_load_the_adapter(run):
    card = (run / "train" / "adapter" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("THIS FOLDER", str(run / "train" / "adapter"))
    loaded: dict = {}
    exec(code, loaded)
    as_trained = models.load_answering("tiny", run / "train" / "adapter", merge=False)
    assert relative(logits(loaded["model"], run), logits(as_trained, run)) < 1e-2


def test_card_shows_no_text_of_any_row(run):
    card = (run / "train" / "adapter" / "README.md").read_text()
    rows = files.read_jsonl(run / "mix" / "train.jsonl") + files.read_jsonl(run / "mix" / "validation.jsonl")
    assert [row["id"] for row in rows if row["output"] in card or row["instruction"] in card] == []


def test_card_names_licences_and_hides_folders():
    training_record = {
        "values": {**TrainParams(base_model="/home/me/secret/base").model_dump(exclude={"run_dir"})},
        **{"base_commit": "", "train_loss": 1.0, "validation_loss": None, "validation_losses": {}, "rows": 8},
        **{"steps": 2, "device": "cpu", "compute_dtype": "float32"},
    }
    mixture = {"general": "/home/me/rows|`x`.json", "n_general": 5, "safety": "safety-tuned-llamas", "n_safety": 3}
    mixture |= {"validation": "held out of /home/me/rows|`x`.json", "n_validation": 2, "mixture_sha256": "abc"}
    card = cards.adapter_card(training_record, mixture)
    assert "/home/me" not in card
    assert "- `rows/'x'.json`: not known to safety-nb" in card
    assert "- `safety-tuned-llamas`: CC BY-NC 4.0 (Bianchi et al." in card and "It forbids commercial use." in card
    assert "base_model:" not in card  # the hub would look for it
    assert 'base = "base"  # the folder of the base model' in card
    from_hub = {**training_record, "base_commit": "0123abcd"}
    from_hub["values"] = {**from_hub["values"], "base_model": "owner/name"}
    card = cards.adapter_card(from_hub, None)
    assert "base_model: owner/name\n" in card and 'revision = "0123abcd"' in card
    assert "8 rows that are not those of a recorded mixture" in card


def test_rows_changed_after_mixing_are_no_recorded_mixture(run, tmp_path):
    shutil.copytree(run / "mix", tmp_path / "mix")
    assert inputs.recorded_mixture(run_folder.RunFolder(tmp_path))["n_safety"] == 4
    files.append_line(tmp_path / "mix" / "train.jsonl", {"id": "one more"})
    assert inputs.recorded_mixture(run_folder.RunFolder(tmp_path)) is None
