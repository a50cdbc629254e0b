"""Small models with random weights, each of the real class of its family, saved as any model of a user's would be."""

from pathlib import Path

from safety_nb.train import models

LAYERS = 2
_LLAMA_LIKE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_FALCON_LIKE = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
# By hand: the linear layers of one decoder layer.
LINEAR = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "gemma": _LLAMA_LIKE,
    "gemma2": _LLAMA_LIKE,
    "gemma3_text": _LLAMA_LIKE,
    "falcon": _FALCON_LIKE,
    "gpt_neox": _FALCON_LIKE,
    "phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"],
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
}
_MORE = {name: {"head_dim": 16} for name in ("qwen3", "gemma", "gemma2", "gemma3_text")}  # theirs is no quotient


def save(family: str, folder: Path) -> str:
    """Save a model of a family, with the miniature's tokenizer, and return what names it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = models.load_tokenizer("tiny")
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **_MORE.get(family, {}),
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
