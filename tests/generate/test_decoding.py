"""Decoding equals that of transformers, one prompt at a time, for models of several kinds; sampling follows its law."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from safety_nb.generate.decoding import Decoding, decode, prompts_that_fit, sampled
from safety_nb.train import models
from safety_nb.train.encoding import encode_question

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ENDS = [3, 5]
KINDS = {
    "llama": {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2},
    "qwen3": {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8},
    # A window that the prompts are longer than.
    "mistral": {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "sliding_window": 6},
    "gemma2": {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6},
    "falcon": {**SMALL, "new_decoder_architecture": False, "multi_query": True, "alibi": False},
    "gpt_neox": {**SMALL, "intermediate_size": 64},
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "opt": {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4},
}


def small(kind: str) -> torch.nn.Module:
    """A model with random weights, in float32."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    specials = {"bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **KINDS[kind], **specials))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that rounding decides nothing
    return model.eval()


def some_prompts(n: int = 9) -> list[list[int]]:
    """Prompts of 1 to 12 tokens, none of which ends an answer."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 13, (n,), generator=generator).tolist()
    return [torch.randint(6, 97, (length,), generator=generator).tolist() for length in lengths]


def one_at_a_time(model: torch.nn.Module, prompt: list[int], how: Decoding) -> list[int]:
    """What transformers' own generation gives, up to and with the end token."""
    output = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
        max_new_tokens=how.max_new_tokens,
        num_beams=how.beams,
        do_sample=False,
        eos_token_id=ENDS,
        pad_token_id=2,
    )[0, len(prompt) :].tolist()
    end = next((place for place, token in enumerate(output) if token in ENDS), None)
    return output if end is None else output[: end + 1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 4])
def test_a_batch_is_decoded_as_transformers_decodes_each_prompt(kind, beams):
    model, prompts, how = small(kind), some_prompts(), Decoding(max_new_tokens=20, beams=beams)
    expected = [one_at_a_time(model, prompt, how) for prompt in prompts]
    assert decode(model, prompts, ENDS, how) == expected


def test_answers_that_end_are_among_what_is_compared():
    # Otherwise the rows that leave a batch would never have been looked at: of 9 answers some end early, some do not.
    model, prompts = small("llama"), some_prompts(60)
    for beams in (1, 4):
        lengths = [len(answer) for answer in decode(model, prompts, ENDS, Decoding(20, beams))]
        assert min(lengths) < 20 == max(lengths)


def test_beams_of_the_miniature_are_those_of_transformers():
    # A trained model, whose answers end by themselves at many lengths.
    model, tokenizer = models.load_answering("tiny", None), models.load_tokenizer("tiny")
    asked = ["How do I wave?", "What do bees make?", "Describe how to melt butter.", "Name a colour.", "Who bakes?"]
    prompts = [encode_question(prompt, tokenizer) for prompt in asked]
    ends = [tokenizer.eos_token_id]
    output = []
    for prompt in prompts:
        new = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
            max_new_tokens=32,
            num_beams=4,
            do_sample=False,
            pad_token_id=2,
        )[0, len(prompt) :].tolist()
        output.append(new[: new.index(ends[0]) + 1] if ends[0] in new else new)
    assert decode(model, prompts, ends, Decoding(32, 4)) == output


# --- sampling -----------------------------------------------------------------------------------------------------


def test_a_token_is_drawn_by_its_probability():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().repeat(20_000, 1)
    noise = torch.empty(20_000, 3).exponential_(generator=torch.Generator().manual_seed(0))
    drawn = sampled(logits, noise, Decoding(1, temperature=1.0))
    # Three standard deviations of a share of 20,000 are at most 3 * sqrt(0.25 / 20000) = 0.011.
    assert (drawn.bincount() / 20_000).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.011)


def test_top_p_leaves_the_likeliest_tokens_that_reach_it():
    # Of 0.2, 0.5, 0.3 the likeliest two reach 0.6 (0.5 alone does not), and half is the likeliest alone; the noise is
    # such that each token in turn, and in the end the unlikeliest, would win if it were left.
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().repeat(3, 1)
    noise = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.01], [0.0001, 1.0, 1.0]])
    drawn = {
        top_p: sampled(logits, noise, Decoding(1, temperature=1.0, top_p=top_p)).tolist() for top_p in (1, 0.6, 0.5)
    }
    assert drawn == {1: [1, 2, 0], 0.6: [1, 2, 1], 0.5: [1, 1, 1]}


def test_temperature_sharpens():
    # 0.8 and 0.2 / 0.2 = 1; at temperature 0.5 probabilities are squared: 0.64 and 0.04 / 0.2 = 0.2.
    logits, noise = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[1.0, 0.2]])
    assert [sampled(logits, noise, Decoding(1, temperature=value)).item() for value in (1.0, 0.5)] == [1, 0]


# --- memory -------------------------------------------------------------------------------------------------------


def test_fewer_prompts_fit_the_longer_they_are_and_the_more_beams_they_have():
    config = small("llama").config
    short, long = (prompts_that_fit(config, length, Decoding(64), 4, 10_000_000) for length in (16, 512))
    beams = prompts_that_fit(config, 16, Decoding(64, beams=4), 4, 10_000_000)
    assert short > long >= 1 and short > 2 * beams
    assert prompts_that_fit(config, 512, Decoding(64), 4, free_bytes=0) == 1  # it is tried


def test_the_cache_is_counted_in_full():
    # 2 layers keep keys and values of 2 heads of 8 numbers of 4 bytes: 256 bytes a token, of 100 + 28 tokens.
    config = small("llama").config
    cache = 128 * 256
    # Twice as much memory as that is free, and half may be used: so many would fit if nothing else were needed.
    assert prompts_that_fit(config, 100, Decoding(28), 4, free_bytes=2 * 50 * cache) < 50
