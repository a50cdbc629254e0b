"""How fast a QLoRA adapter is trained, and in how much memory, beside two recipes in wide use.

Every way trains the same adapter on the same rows, encoded once (Alpaca template, cutoff 512), with loss on the answers
only, for one epoch in optimizer steps of 32 rows:

- ``safety-nb``: ``training.train``, from the files of a run to an adapter; with packs of 512 tokens;
- ``alpaca-lora recipe``: transformers' Trainer over random batches of 4 rows, padded to the longest and to a multiple
  of 8, gradients accumulated (that project's own loss is on prompts too; here it is on the answers, as in the others);
- ``TRL SFTTrainer``: rows packed best-fit into 512 tokens, one pack at a time, gradients accumulated over as many packs
  as hold 32 rows. Skipped where TRL is not installed (``pip install -e ".[benchmarks]"``).

All load the same base through ``models.load_base`` (NF4, double quantisation, and its guard against the silent loss of
gradients on CPUs with AVX512-BF16), compute in the same dtype, and have the same LoRA: rank 8, alpha 16, dropout 0.05
(alpaca-lora's), all linear layers; TRL casts it to bfloat16, as it always does. None recomputes activations, as
alpaca-lora and TRL do by default: they would be slower, and smaller. The base is a LLaMA of 26 million random
parameters with a vocabulary of 32,000; the rows are the released safety demonstrations, or the miniature's where
``SAFETY_NB_DATA`` is not set.

Each measurement is a process of its own with one thread, and the ways alternate. Measured is the call of the trainer's
``train``: its CPU seconds, and the highest resident memory above that at its start (the kernel's high-water mark, reset
then, after freed memory was given back; Linux only). Tokens are those of the rows, prompts included, padding not.

    python benchmarks/training.py --rounds 5 [--json FILE]
    python benchmarks/training.py --gpu --rounds 5 [--json FILE]      see gpu.md
"""

import argparse
import ctypes
import gc
import importlib.util
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OURS, ALPACA, TRL = "safety-nb training", "alpaca-lora recipe", "TRL SFTTrainer"
LORA = {"r": 8, "alpha": 16, "dropout": 0.05, "targets": ["all-linear"]}
LEARNING_RATE = 3e-4  # alpaca-lora's
MICRO_BATCH_ROWS = 4  # alpaca-lora's


@dataclass(frozen=True)
class Case:
    """What is trained: the shape of the base, and how many rows of which length in which steps."""

    name: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    tied: bool
    n_rows: int
    cutoff: int
    batch_rows: int
    row_tokens: int = 0  # every row random tokens, so many; 0 for rows of text


CPU = Case("safety data", 32_000, 384, 1024, 8, 6, True, n_rows=128, cutoff=512, batch_rows=32)
QUICK = Case("quick", 32_000, 64, 128, 2, 2, True, n_rows=16, cutoff=512, batch_rows=8)  # whether it runs
GPU = [
    Case(f"7B, rows of {length}", 32_000, 4096, 11_008, 32, 32, False, rows, length, batch_rows=32, row_tokens=length)
    for length, rows in ((512, 512), (2048, 128))
]


# --- what is trained on -------------------------------------------------------------------------------------------


def prepare(case: Case, folder: Path) -> str:
    """Write base, tokenizer, rows and their encodings to a folder; the name of the rows is returned."""
    from safety_nb.core import files
    from safety_nb.data.datasets import sources
    from safety_nb.train import encoding

    source = "safety-tuned-llamas" if os.environ.get("SAFETY_NB_DATA") else "tiny-safety"
    texts = sources.training_rows(source)
    rows = [
        {"id": str(number), "source": source, "form": "instruction", **{key: row[key] for key in FIELDS}}
        for number, row in enumerate(random.Random(0).sample(texts, case.n_rows))
    ]
    tokenizer = _tokenizer(texts, case.vocabulary)
    _save_base(case, tokenizer, folder / "base")
    files.write_jsonl(folder / "run" / "mix" / "train.jsonl", rows)
    files.write_jsonl(folder / "run" / "mix" / "validation.jsonl", [])
    if case.row_tokens:
        encoded = list(_random_rows(case))
    else:
        encoded = [encoding.encode_row(row, tokenizer, case.cutoff) for row in rows]
    (folder / "encoded.json").write_text(json.dumps([asdict(row) for row in encoded]))
    return "random tokens" if case.row_tokens else source


FIELDS = ("instruction", "input", "output")


def _random_rows(case: Case) -> Any:
    """Rows of one length, the second half of each supervised."""
    from safety_nb.train.encoding import IGNORED, EncodedRow

    rng, half = random.Random(0), case.row_tokens // 2
    for _ in range(case.n_rows):
        ids = [rng.randrange(3, case.vocabulary) for _ in range(case.row_tokens)]
        yield EncodedRow(ids, [IGNORED] * half + ids[half:], case.row_tokens)


def _tokenizer(rows: list[dict], vocabulary: int) -> Any:
    """Byte-level BPE of the rows' own text; as many merges as it has, up to the vocabulary."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    from safety_nb.data import templates

    bpe = ByteLevelBPETokenizer()
    texts = ["\n".join(templates.alpaca(row)) for row in rows]
    bpe.train_from_iterator(texts, vocabulary, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def _save_base(case: Case, tokenizer: Any, folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from safety_nb.train import models

    config = LlamaConfig(
        vocab_size=case.vocabulary, hidden_size=case.hidden, intermediate_size=case.intermediate,
        num_hidden_layers=case.layers, num_attention_heads=case.heads, num_key_value_heads=case.heads,
        tie_word_embeddings=case.tied, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(models.pick_device()):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# --- the three ways -----------------------------------------------------------------------------------------------


def safety_nb(case: Case, folder: Path, meter: "Meter") -> None:
    from safety_nb.core.params import TrainParams
    from safety_nb.train import packed_trainer, training

    if case.row_tokens:
        encoded = iter(_encoded(folder))
        training.encode_row = lambda *_: next(encoded)
    packed_trainer.PackedTrainer.train = meter.around(packed_trainer.PackedTrainer.train)
    params = TrainParams(
        run_dir=str(folder / "run"), base_model=str(folder / "base"), cutoff=case.cutoff, batch_size=case.batch_rows,
        micro_batch_size=MICRO_BATCH_ROWS if case.row_tokens else 1, learning_rate=LEARNING_RATE,
        lora_r=LORA["r"], lora_alpha=LORA["alpha"], lora_dropout=LORA["dropout"], lora_targets=LORA["targets"],
        cpu_threads=0 if case.row_tokens else 1,
    )  # fmt: skip
    training.train(params)


def alpaca_lora(case: Case, folder: Path, meter: "Meter") -> None:
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model, tokenizer, rows = _adapted(folder)
    loop = Trainer(
        model=model,
        args=TrainingArguments(
            per_device_train_batch_size=MICRO_BATCH_ROWS,
            gradient_accumulation_steps=case.batch_rows // MICRO_BATCH_ROWS,
            **_arguments(folder),
        ),
        train_dataset=[{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows],
        data_collator=DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8, padding=True),
    )
    meter.around(Trainer.train)(loop)


def trl(case: Case, folder: Path, meter: "Meter") -> None:
    import datasets
    from trl import SFTConfig, SFTTrainer

    model, tokenizer, rows = _adapted(folder)
    tokens = sum(len(row["input_ids"]) for row in rows)
    loop = SFTTrainer(
        model=model,
        args=SFTConfig(
            max_length=case.cutoff,
            packing=True,
            packing_strategy="bfd",
            per_device_train_batch_size=1,
            gradient_accumulation_steps=max(1, round(tokens / case.cutoff * case.batch_rows / len(rows))),
            gradient_checkpointing=False,  # its default is to recompute activations: slower
            **_arguments(folder),
        ),
        train_dataset=datasets.Dataset.from_list(rows),  # encoded: input_ids and labels
        processing_class=tokenizer,
    )
    meter.around(SFTTrainer.train)(loop)


WAYS = {OURS: safety_nb, ALPACA: alpaca_lora, TRL: trl}


def _encoded(folder: Path) -> list[Any]:
    from safety_nb.train.encoding import EncodedRow

    return [EncodedRow(**row) for row in json.loads((folder / "encoded.json").read_text())]


def _adapted(folder: Path) -> tuple[Any, Any, list[dict]]:
    """The 4-bit base with a fresh adapter, its tokenizer, and the rows as token ids and labels."""
    from transformers import set_seed

    from safety_nb.train import models

    set_seed(0)
    tokenizer = models.load_tokenizer(str(folder / "base"))
    model = models.add_adapter(models.load_base(str(folder / "base")), **LORA, gradient_checkpointing=False)
    return model, tokenizer, [{"input_ids": row.input_ids, "labels": row.labels} for row in _encoded(folder)]


def _arguments(folder: Path) -> dict:
    """What transformers' and TRL's trainers are told alike."""
    from safety_nb.train import models

    device = models.pick_device()
    return {
        "output_dir": str(folder / "peer"),
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "optim": "adamw_torch",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device == "cpu",
        "bf16": str(models.compute_dtype(device)) == "torch.bfloat16",
        "dataloader_pin_memory": False,
    }


# --- measuring ----------------------------------------------------------------------------------------------------


class Meter:
    """Seconds, memory and tokens of the calls it is laid around."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.memory: int | None = None  # bytes above what was held at the start
        self.computed = 0  # tokens that went through the model, padding included
        self.losses: list[float] = []

    def around(self, train: Any) -> Any:
        import torch

        def measured(loop: Any, *args: Any, **kwargs: Any) -> Any:
            loop.model.get_base_model().model.register_forward_pre_hook(self._count, with_kwargs=True)
            held = self._held()
            clock = time.perf_counter if torch.cuda.is_available() else time.process_time
            started = clock()
            outcome = train(loop, *args, **kwargs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds = clock() - started
            self.memory = _peak() - held if held is not None else None
            self.losses = [entry["loss"] for entry in loop.state.log_history if "loss" in entry]
            return outcome

        return measured

    def _count(self, module: Any, args: tuple, kwargs: dict) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        self.computed += ids.numel()

    def _held(self) -> int | None:
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        if not Path("/proc/self/clear_refs").exists():
            return None
        ctypes.CDLL(None).malloc_trim(0)  # what loading left behind would hide a part of what training takes
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        return _proc("VmRSS")


def _peak() -> int:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _proc("VmHWM")


def _proc(field: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure(way: str, case: Case, folder: Path) -> dict:
    """One way, in this process."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    meter = Meter()
    WAYS[way](case, folder, meter)
    encoded = _encoded(folder)
    tokens = sum(len(row.input_ids) for row in encoded)
    return {
        "tokens_per_second": tokens / meter.seconds,
        "memory": meter.memory,
        "padding": 1 - tokens / meter.computed,
        "first_loss": meter.losses[0],
        "steps": len(meter.losses),
    }


# --- the comparison -----------------------------------------------------------------------------------------------


def matrix_rate() -> float:
    """Floating-point operations per second of a large bfloat16 product, the best of ten."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = math.inf
    for _ in range(10):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / 10)
    return 2 * 8192**3 / best


def operations_per_token(case: Case) -> float:
    """What a token costs at least: forward and backward (to the inputs) of all frozen matrices, and causal attention.

    Not counted are the adapter and what is computed again. The output layer counts for all tokens, though a way may
    compute it for the supervised ones alone.
    """
    layer = 4 * case.hidden**2 + 3 * case.hidden * case.intermediate
    matrices = 4 * (case.layers * layer + case.hidden * case.vocabulary)
    attention = 6 * case.layers * case.hidden * case.cutoff  # scores and sums over half the row, once and twice back
    return matrices + attention


def compare(case: Case, ways: list[str], rounds: int) -> dict[str, list[dict | None]]:
    """Measurements by way, one a round; None where a way ran out of memory."""
    results: dict[str, list[dict | None]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = prepare(case, folder)
        print(f"{case.name}: {case.n_rows} rows ({source})", flush=True)
        for number in range(rounds):
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                results[way].append(_in_a_process(way, case, folder))
    return results


def _in_a_process(way: str, case: Case, folder: Path) -> dict | None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if not case.row_tokens:
        environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, __file__, "--one", json.dumps([way, asdict(case), str(folder)])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode and "OutOfMemoryError" in done.stderr:
        return None
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def show(case: Case, results: dict[str, list[dict | None]], rate: float | None) -> list[dict]:
    """Print a table of medians and ranges; the rows for ``--json`` are returned."""
    unit = "tokens per second" if case.row_tokens else "tokens per CPU second"
    told = ["way", unit, "memory above the model, MB", "padding", "first loss", "steps"]
    print(" | ".join(told + ["share of the matrix rate"] * bool(rate)))
    rows = []
    for way, taken in results.items():
        whole = [one for one in taken if one]
        if len(whole) < len(taken):
            print(f"{way} | out of memory")
            continue
        speeds = [one["tokens_per_second"] for one in whole]
        memory = [one["memory"] / 1e6 for one in whole if one["memory"] is not None]
        cells = [way, _spread(speeds, "{:.0f}"), _spread(memory, "{:.0f}") if memory else "not measured"]
        cells += [f"{whole[0]['padding']:.0%}", f"{whole[0]['first_loss']:.2f}", str(whole[0]["steps"])]
        if rate:
            cells.append(f"{statistics.median(speeds) * operations_per_token(case) / rate:.2f}")
        print(" | ".join(cells))
        if way != OURS:
            suffix = "" if case is CPU or case is QUICK else f", {case.name}"
            rows += _ratios(results[OURS], whole, way, "tokens_per_second", unit, suffix)
            if memory:
                rows += _ratios(results[OURS], whole, way, "memory", "bytes above the loaded model", suffix)
    for row in rows:
        spread = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})"
        print(f"{row['case']} of {row['baseline']}, {row['unit']}: {spread}")
    return rows


def _spread(values: list[float], form: str) -> str:
    low, middle, high = (form.format(value) for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}–{high})"


def _ratios(ours: list[dict | None], theirs: list[dict], way: str, field: str, unit: str, suffix: str) -> list[dict]:
    """Our figure in parts of a peer's of the same round; nothing where ours ran out of memory."""
    if not all(ours):
        return []
    each = [own[field] / other[field] for own, other in zip(ours, theirs, strict=True)]
    return [
        {
            "case": f"{OURS}{suffix}",
            "baseline": way,
            "ratio": statistics.median(each),
            "ratio_low": min(each),
            "ratio_high": max(each),
            "unit": unit,
            "rounds": len(each),
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--gpu", action="store_true", help="a 7B shape with random weights, rows of 512 and 2,048")
    parser.add_argument("--quick", action="store_true", help="a tiny shape and few rows: whether it runs, no figures")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # one measurement, in the process that is asked for it
    arguments = parser.parse_args()
    if arguments.one:
        way, case, folder = json.loads(arguments.one)
        print(json.dumps(measure(way, Case(**case), Path(folder))))
        return
    if arguments.gpu:
        import torch

        if not torch.cuda.is_available():
            sys.exit("--gpu: PyTorch sees no GPU here.")
    if not arguments.gpu and not os.environ.get("SAFETY_NB_DATA"):
        print("SAFETY_NB_DATA is not set: the rows are the miniature's.")
    ways = [OURS, ALPACA, TRL]
    if importlib.util.find_spec("trl") is None:
        print('TRL is not installed: its side is left out (pip install -e ".[benchmarks]").')
        ways.remove(TRL)
    rate = matrix_rate() if arguments.gpu else None
    if rate:
        print(f"matrix rate: {rate / 1e12:.0f} Tflop/s in bfloat16")
    rows = []
    for case in GPU if arguments.gpu else [QUICK] if arguments.quick else [CPU]:
        rows += show(case, compare(case, ways, arguments.rounds), rate)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
