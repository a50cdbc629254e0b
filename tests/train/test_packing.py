"""Packing changes how fast a step is, and nothing else: its rows, its loss and its gradient stay what they are."""

import math

import pytest
import torch

from safety_nb.train import models, packing
from safety_nb.train.encoding import IGNORED, EncodedRow, encode_row

TEXTS = [
    ("How do I water the tulips?", "First, fill the can. Then pour slowly."),
    ("Name a colour.", "Blue."),
    ("Where is the mayor's hat?", "On the mayor, as always, unless it is windy. Then it is in the pond."),
    ("How do I bake bread?", "Mix flour and water, wait, and bake it."),
]


def row(length: int, supervised: int = 1) -> EncodedRow:
    """A row of so many tokens, the last of which are supervised."""
    ids = list(range(1, length + 1))
    return EncodedRow(ids, [IGNORED] * (length - supervised) + ids[length - supervised :], whole_tokens=length)


def encoded(tokenizer=None) -> list[EncodedRow]:
    tokenizer = tokenizer or models.load_tokenizer("tiny")
    rows = [{"id": "x", "instruction": asked, "input": "", "output": answer} for asked, answer in TEXTS]
    return [encode_row(one, tokenizer, cutoff=256) for one in rows]


# --- steps --------------------------------------------------------------------------------------------------------


def test_every_row_is_in_each_epoch_once():
    steps = packing.epoch_steps(n_rows=10, batch_size=4, epochs=2, seed=0)
    # Batches of 4, 4 and 2, twice.
    assert list(map(len, steps)) == [4, 4, 2, 4, 4, 2]
    assert sorted(sum(steps[:3], [])) == sorted(sum(steps[3:], [])) == list(range(10))
    assert steps[:3] != steps[3:]


@pytest.mark.parametrize("epochs, steps", [(1, 3), (0.5, 2), (1.5, 5), (0.01, 1), (3, 9), (0.1 * 3 / 0.3, 3)])
def test_a_fraction_of_an_epoch_is_rounded_up_to_whole_steps(epochs, steps):
    # 3 steps an epoch: 1.5 epochs are 4.5 of them.
    assert len(packing.epoch_steps(10, 4, epochs, seed=0)) == steps


def test_a_longer_training_begins_with_a_shorter_one():
    assert packing.epoch_steps(10, 4, 3, seed=5)[:3] == packing.epoch_steps(10, 4, 1, seed=5)
    assert packing.epoch_steps(10, 4, 1, seed=6) != packing.epoch_steps(10, 4, 1, seed=5)


# --- packs --------------------------------------------------------------------------------------------------------


def test_the_longest_goes_first_into_the_fullest_pack_with_room():
    rows = [row(length) for length in (3, 6, 5, 4, 2)]
    packs = packing.pack(rows, [0, 1, 2, 3, 4], capacity=10)
    # 6; 5 has no room with it; 4 beside 6 (4 left) rather than 5 (5 left); 3 beside 5; 2 beside 5 and 3.
    assert [one.rows for one in packs] == [[1, 3], [2, 0, 4]]


def test_no_pack_is_longer_than_asked_and_a_longer_row_is_alone():
    rows = [row(length) for length in (12, 9, 2, 1)]
    assert [one.rows for one in packing.pack(rows, [0, 1, 2, 3], capacity=10)] == [[0], [1, 3], [2]]


def test_only_the_rows_of_the_step_are_packed():
    rows = [row(3) for _ in range(5)]
    assert sorted(sum((one.rows for one in packing.pack(rows, [4, 2], capacity=100)), [])) == [2, 4]


def test_places_are_those_before_each_supervised_token():
    (one,) = packing.pack([row(4, supervised=2), row(3, supervised=3)], [0, 1], capacity=10)
    # Row 0 is 1 2 3 4 with 3 and 4 supervised: predicted at places 1 and 2. Row 1 is 1 2 3, all supervised, but nothing
    # predicts its first token: 2 and 3 at places 4 and 5.
    assert one.input_ids == [1, 2, 3, 4, 1, 2, 3]
    assert one.position_ids == [0, 1, 2, 3, 0, 1, 2]
    assert (one.places, one.targets, one.owners) == ([1, 2, 4, 5], [3, 4, 2, 3], [0, 0, 1, 1])


# --- the same loss and gradient -----------------------------------------------------------------------------------

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
# Each family of models with the layers that carry its adapter in the paper's way or ours.
FAMILIES = ["llama", "falcon", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "phi3", "gpt_neox"]


def random_model(family: str, attention: str = "sdpa", **config: object) -> torch.nn.Module:
    """A small model of the real class with random weights, in 32 bits; ``by row``: with our attention over packs."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from safety_nb.train import packed_trainer

    more = {} if family in ("falcon", "gpt_neox") else {"num_key_value_heads": 2}
    more |= config
    if family in ("gemma", "gemma2", "qwen3"):
        more["head_dim"] = 16
    if family == "phi3":
        more |= {"pad_token_id": 0}
    configuration = AutoConfig.for_model(family, vocab_size=1024, bos_token_id=1, eos_token_id=2, **SIZES, **more)
    torch.manual_seed(0)
    if family == "gemma2":
        attention = "eager"  # it has no other
    by_row = attention == "by row"
    model = AutoModelForCausalLM.from_config(configuration, attn_implementation="sdpa" if by_row else attention)
    if by_row:
        packed_trainer.attend_by_row(model)
        assert (model.config._attn_implementation == packed_trainer.BY_ROW) == (family != "falcon")
    return model


def loss_and_gradients(model: torch.nn.Module, packs: list[packing.Pack]) -> tuple[float, dict[str, torch.Tensor]]:
    """As a training step computes them: over packs, per supervised token of the step."""
    from safety_nb.train import packed_trainer

    model.zero_grad()
    model.train()
    supervised = sum(len(one.places) for one in packs)
    total = 0.0
    masked = model.config.model_type == "falcon"
    for one in packs:
        loss = packed_trainer.token_losses(model, one, masked).sum() / supervised
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def reference(model: torch.nn.Module, rows: list[EncodedRow]) -> tuple[float, dict[str, torch.Tensor]]:
    """transformers' own loss over padded rows with an attention mask, as a plain Trainer has it."""
    width = max(len(one.input_ids) for one in rows)
    pad = lambda ids, fill: ids + [fill] * (width - len(ids))  # noqa: E731
    model.zero_grad()
    model.train()
    output = model(
        input_ids=torch.tensor([pad(one.input_ids, 0) for one in rows]),
        attention_mask=torch.tensor([pad([1] * len(one.input_ids), 0) for one in rows]),
        labels=torch.tensor([pad(one.labels, IGNORED) for one in rows]),
        use_cache=False,
    )
    output.loss.backward()
    return output.loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager", "by row"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_loss_and_gradients_are_those_of_padded_rows(family, attention):
    model, rows = random_model(family, attention), encoded()
    for name in ("attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop", "attn_pdrop"):
        assert not getattr(model.config, name, 0.0)
    packs = packing.pack(rows, list(range(len(rows))), capacity=1000)
    assert len(packs) == 1
    loss, gradients = loss_and_gradients(model, packs)
    expected_loss, expected = reference(model, rows)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(gradients[name], gradient, atol=1e-5, rtol=1e-4), name


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_attention_by_row_keeps_to_a_sliding_window(family):
    # The rows are longer than the window, which Mistral has in both layers and Qwen in the second.
    window = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}
    model, rows = random_model(family, "by row", **window), encoded()
    assert min(len(one.input_ids) for one in rows) > 8
    loss, gradients = loss_and_gradients(model, packing.pack(rows, list(range(len(rows))), 1000))
    expected_loss, expected = reference(random_model(family, "sdpa", **window), rows)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert all(torch.allclose(gradients[name], expected[name], atol=1e-5, rtol=1e-4) for name in expected)
    without, _ = reference(random_model(family), rows)
    assert loss != pytest.approx(without, abs=1e-4)  # the window matters to these rows


def test_attention_by_row_is_the_models_own_outside_of_packs():
    # Padded rows with a mask: what a model is asked beside training.
    rows = encoded()
    loss, gradients = reference(random_model("llama", "by row"), rows)
    expected_loss, expected = reference(random_model("llama"), rows)
    assert loss == expected_loss
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)


def test_attention_by_row_holds_when_activations_are_recomputed():
    model, rows = random_model("llama", "by row"), encoded()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    loss, gradients = loss_and_gradients(model, packing.pack(rows, list(range(len(rows))), 1000))
    expected_loss, expected = reference(random_model("llama"), rows)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert all(torch.allclose(gradients[name], expected[name], atol=1e-5, rtol=1e-4) for name in expected)


@pytest.mark.parametrize("capacity", [0, 60, 100, 1000])
def test_it_does_not_matter_how_large_packs_are(capacity):
    model, rows = random_model("llama", "by row"), encoded()
    packs = packing.pack(rows, list(range(len(rows))), capacity)
    loss, gradients = loss_and_gradients(model, packs)
    expected_loss, expected = reference(model, rows)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert all(torch.allclose(gradients[name], expected[name], atol=1e-5, rtol=1e-4) for name in expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_keeps_rows_apart_is_found(family):
    from safety_nb.train import packed_trainer

    assert packed_trainer.separation(random_model(family), encoded()) == ("mask" if family == "falcon" else "positions")


def test_a_model_whose_rows_see_each_other_is_found_out():
    from safety_nb.train import packed_trainer

    model = random_model("llama")
    forward = model.forward

    def with_a_mask(**inputs):  # which a user's model might make for itself: a pack is then taken for one text
        return forward(**{**inputs, "attention_mask": torch.ones_like(inputs["input_ids"])})

    model.forward = with_a_mask
    assert packed_trainer.separation(model, encoded()) is None


def test_a_learned_loss_is_computed_per_supervised_token():
    # By hand for an untrained guess: with all logits equal, every token costs ln(vocabulary).
    model, rows = random_model("llama"), encoded()
    torch.nn.init.zeros_(model.lm_head.weight)
    loss, _ = loss_and_gradients(model, packing.pack(rows, [0, 1], 1000))
    assert loss == pytest.approx(math.log(1024), rel=1e-6)
