"""A model's files are read by one module: its own code never runs, and what is wrong with them is told by name."""

import json
import shutil
from pathlib import Path

import pytest

from safety_nb.core.errors import InputError
from safety_nb.train import models, pretrained

# Code that comes with a model: it leaves a file where it runs.
OWN_CODE = "from pathlib import Path\nPath({marker!r}).touch()\nfrom transformers import {of} as Own\n"


def copied(folder: Path, config: dict | None = None, tokenizer: dict | None = None) -> str:
    """The miniature's base in a folder, with other values in its configuration and its tokenizer's."""
    shutil.copytree(models.locate("tiny"), folder)
    for name, changes in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **(changes or {})}))
    return str(folder)


@pytest.mark.parametrize(
    ("config", "tokenizer", "of", "told"),
    [
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}},
            {},
            "LlamaConfig",
            r"own.py .auto_map in its config.json.",
        ),
        (
            {},
            {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
            "PreTrainedTokenizerFast",
            r"own.py .auto_map in its tokenizer_config.json.",
        ),
        (
            {},
            {"tokenizer_class": "Own", "auto_map": [None, "own.Own"]},  # the form of old
            "PreTrainedTokenizerFast",
            r"own.py .auto_map in its tokenizer_config.json.",
        ),
    ],
    ids=["configuration", "tokenizer", "tokenizer of old"],
)
@pytest.mark.parametrize("load", [models.check_decoder, models.load_tokenizer])
def test_a_models_own_code_is_never_asked_for_and_never_run(tmp_path, monkeypatch, config, tokenizer, of, told, load):
    name, marker = copied(tmp_path / "model", config, tokenizer), tmp_path / "ran"
    (tmp_path / "model" / "own.py").write_text(OWN_CODE.format(marker=str(marker), of=of))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the terminal"))
    with pytest.raises(InputError, match=told):
        load(name)
    assert not marker.exists()


def test_code_beside_a_model_that_transformers_knows_is_passed_over(tmp_path):
    # As of Phi-3 and Falcon on the hub: their folders still name the code of the time before transformers had them.
    name, marker = copied(tmp_path / "model", {"auto_map": {"AutoConfig": "own.Own"}}), tmp_path / "ran"
    (tmp_path / "model" / "own.py").write_text(OWN_CODE.format(marker=str(marker), of="LlamaConfig"))
    models.check_decoder(name)
    assert not marker.exists()


# Model folders that cannot work


def without_shard(folder: Path) -> None:
    pretrained.weights("CausalLM", str(folder)).save_pretrained(folder / "parts", max_shard_size="300KB")
    (folder / "model.safetensors").unlink()
    for path in (folder / "parts").glob("model*"):
        path.rename(folder / path.name)
    sorted(folder.glob("model-*.safetensors"))[-1].unlink()


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_off(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1000])


def without_a_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    held = load_file(folder / "model.safetensors")
    held.pop("model.layers.1.mlp.down_proj.weight")
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})


def values(name: str, **changes: object):
    def change(folder: Path) -> None:
        there = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps({key: value for key, value in there.items() if value is not None}))

    return change


def larger_vocabulary(folder: Path) -> None:
    """The tokenizer of another model: 1,025 tokens, where 1,024 are embedded."""
    tokenizer = pretrained.tokenizer(str(folder))
    tokenizer.add_tokens(["grandfather"])
    tokenizer.save_pretrained(folder)


def without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def text(name: str, content: str):
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (without_shard, "lacks model-.*of-.*.safetensors of the . files of its weights"),
        (only_pickle, "no weights in safetensors, only pytorch_model.bin, and such files can carry code"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights in safetensors, none at all"),
        (cut_off, "cannot be loaded as a language model .*not fully covered"),
        (without_a_layer, "lacks weights of a language model .model.layers.1.mlp.down_proj.weight."),
        (values("config.json", vocab_size=1000), "tokens up to number 1023, and the model embeds 1000"),
        (values("config.json", hidden_size=64), r"embed_tokens.weight has the shape \[1024, 128\], and \[1024, 64\]"),
        (larger_vocabulary, "tokens up to number 1024, and the model embeds 1024"),
        (without_tokenizer, "cannot be loaded as a tokenizer"),
        (values("tokenizer_config.json", eos_token=None), "has no end token"),
        (values("config.json", model_type="own"), "cannot be loaded as a model .*`own`"),
        (values("config.json", model_type=None), "cannot be loaded as a model"),
        (values("config.json", model_type=["llama"]), "cannot be loaded as a model"),
        (values("config.json", model_type="bert"), "lacks weights of a language model"),
        (values("config.json", num_attention_heads=0), "cannot be loaded as"),
        (values("config.json", vocab_size="many"), "cannot be loaded as"),
        (text("config.json", "[]"), "cannot be loaded as a model"),
        (text("config.json", "{"), "cannot be loaded as a model"),
        (text("config.json", '{"a":' * 100_000), "cannot be loaded as a model"),
        (text("tokenizer.json", "{}"), "cannot be loaded as a tokenizer"),
        (text("tokenizer.json", "["), "cannot be loaded as a tokenizer"),
        (text("generation_config.json", "["), "generation_config.json is damaged"),
        (text("generation_config.json", "[]"), "generation_config.json is damaged"),
        (text("model.safetensors", ""), "cannot be loaded as a language model"),
        (text("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), "cannot be loaded as a language"),
    ],
)
def test_a_model_folder_that_cannot_work_is_told_from_its_files(tmp_path, spoil, told):
    name = copied(tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(InputError, match=rf"(?s)^base_model: .*{told}"):
        models.check_decoder(name)


def test_a_damaged_index_of_weights_is_told(tmp_path):
    for content in ("{", "[]", '{"weight_map": 3}', '{"weight_map":' * 100_000):
        name = copied(tmp_path / "model")
        (tmp_path / "model" / "model.safetensors").unlink()
        (tmp_path / "model" / "model.safetensors.index.json").write_text(content)
        with pytest.raises(InputError, match="model.safetensors.index.json is damaged"):
            models.check_decoder(name)
        shutil.rmtree(tmp_path / "model")


def test_a_whole_model_in_parts_in_a_folder_of_an_odd_name_is_taken(tmp_path):
    # Tied embeddings, several files, no padding token: all that is common and right.
    folder = tmp_path / "Modell é #1 (v2) 100%"
    copied(folder, {"pad_token_id": None})
    pretrained.weights("CausalLM", str(folder)).save_pretrained(tmp_path / "parts", max_shard_size="300KB")
    (folder / "model.safetensors").unlink()
    for path in (tmp_path / "parts").glob("model*"):
        path.rename(folder / path.name)
    values("tokenizer_config.json", pad_token=None)(folder)
    models.check_decoder(str(folder))
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def test_a_special_token_without_an_embedding_is_no_fault(tmp_path):
    # Gemma 3's small models have one for pictures: number 262,144 of 262,144 embeddings.
    name = copied(tmp_path / "model")
    tokenizer = pretrained.tokenizer(name)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<picture>"]})
    tokenizer.save_pretrained(name)
    models.check_decoder(name)


@pytest.mark.parametrize(
    "name",
    [
        "models/Modell e",
        "models/Modell-é",
        "models/a b",
        "models/ ",
        "a/b\n",
        "a/-b",
        "a/b--c",
        "a/b..c",
        "~nobody-of-that-name/model",
        "a/" + "b" * 5000,
        "b" * 5000,
        "a/\0",
        "https://huggingface.co/a/b",
    ],
)
def test_a_misspelt_model_is_told_whatever_is_in_its_name(name):
    with pytest.raises(InputError, match="is not known.*'tiny'"):
        models.check(name)
