"""Builds the miniature's base model: tokenizer, pre-training and the record of how it was made.

    python -m safety_nb.tiny.base_model --out DIR

This module owns the architecture and the pre-training recipe; the texts are ``tiny``'s. It doesn't tune, quantise
or judge. The committed folder ``world.BASE_DIR`` came from this command; training on another machine gives a model
as good, not the same bytes.
"""

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

from safety_nb.tiny import world

VOCABULARY = 1024
HIDDEN, LAYERS, HEADS, INTERMEDIATE, POSITIONS = 128, 4, 4, 384, 1024
STEPS, BATCH, LENGTH, LEARNING_RATE, WARMUP = 1000, 32, 128, 3e-3, 40
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
# Alpaca's boilerplate as single tokens: without them it is most of every prompt's tokens, and tuning and generation
# take several times as long. They are ordinary text (not special): decoding gives the text back.
BOILERPLATE = (
    f"{world.PREAMBLE}\n\n### Instruction:",
    f"{world.INPUT_PREAMBLE}\n\n### Instruction:",
    "\n\n### Input:",
    "\n\n### Response:",
)


def build_tokenizer(documents: list[str]):
    """A byte-level BPE tokenizer of 1,024 tokens: any UTF-8 text goes in and comes back."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(BOILERPLATE),
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in BOILERPLATE])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer, seed: int):
    """A LLaMA of about a million parameters with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.05,  # 0.02 suits wide models; at this width it costs the first hundred steps
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pretrain(model, tokenizer, documents: list[str], *, steps: int, seed: int) -> float:
    """Train on the documents, end to end in blocks of ``LENGTH`` tokens.

    Returns:
        The mean loss of the last 20 steps, in nats a token.
    """
    import torch

    ids = [
        token
        for row in tokenizer(documents, add_special_tokens=False)["input_ids"]
        for token in [tokenizer.bos_token_id, *row, tokenizer.eos_token_id]
    ]
    blocks = torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)
    print(f"{len(ids):,} tokens, {len(blocks):,} blocks of {LENGTH}", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(seed)
    n_epochs = steps * BATCH // len(blocks) + 1
    order = torch.cat([torch.randperm(len(blocks), generator=generator) for _ in range(n_epochs)])
    losses, start = [], time.monotonic()
    model.train()
    for step in range(steps):
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP) * max(0.02, cosine)
        batch = blocks[order[step * BATCH : (step + 1) * BATCH]]
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            mean = sum(losses[-20:]) / len(losses[-20:])
            print(f"step {step + 1:4d} of {steps}: loss {mean:.3f}, {time.monotonic() - start:.0f} s", flush=True)
    model.eval()
    return sum(losses[-20:]) / len(losses[-20:])


def corpus_sha256(documents: list[str]) -> str:
    """The SHA-256 of the documents, each ended by a zero byte."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.encode() + b"\0")
    return digest.hexdigest()


def build(out: Path, *, seed: int = 0, steps: int = STEPS) -> dict:
    """Make the base in ``out`` (created if missing) and return its record, also written to ``record.json``."""
    import torch
    import transformers

    documents = list(world.corpus(seed))
    tokenizer = build_tokenizer(documents)
    model = build_model(tokenizer, seed)
    n_parameters = model.num_parameters()
    print(f"{n_parameters:,} parameters, {len(tokenizer):,} tokens in the vocabulary", flush=True)
    loss = pretrain(model, tokenizer, documents, steps=steps, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {
        "command": f"python -m safety_nb.tiny.base_model --out DIR --seed {seed} --steps {steps}",
        "seed": seed,
        "steps": steps,
        "batch": [BATCH, LENGTH],
        "learning_rate": LEARNING_RATE,
        "final_loss": round(loss, 4),
        "parameters": n_parameters,
        "corpus_documents": len(documents),
        "corpus_bytes": sum(len(document.encode()) for document in documents),
        "corpus_sha256": corpus_sha256(documents),
        "safetensors_sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    (out / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m safety_nb.tiny.base_model", description="Build the miniature's base."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the model, made if missing")
    parser.add_argument("--seed", type=int, default=0, help="seed of corpus, weights and batches")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimiser steps of {BATCH} x {LENGTH} tokens")
    arguments = parser.parse_args()
    print(json.dumps(build(arguments.out, seed=arguments.seed, steps=arguments.steps), indent=2))


if __name__ == "__main__":
    main()
