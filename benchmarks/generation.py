"""How fast prompts are answered, beside the paper's way: one at a time, by transformers' beam search with 4 beams.

Every way asks the same model (the miniature, tuned here for a moment) the same prompts and allows 64 new tokens, on
one core; process CPU seconds are counted, of answering alone. Rounds alternate between the ways; the table shows
medians. ``one at a time, 4 beams`` has the adapter merged, like ``safety-nb greedy`` and ``safety-nb paper``, which is
faster than the paper's own way of leaving it beside the quantised base. ``safety-nb paper`` must give the very answers
of the baseline, or the benchmark fails.

With the data sets (``SAFETY_NB_DATA``, or the network) it also times the 1,118 prompts of the paper's seven sets and
XSTest through the whole stage, loading included.

    python benchmarks/generation.py --rounds 3 [--json FILE]
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

EVALUATION = ["tiny-harmful", "tiny-harmful-new-verbs", "tiny-lookalike", "tiny-ordinary", "tiny-facts"]
PAPER = [
    *("I-MaliciousInstructions", "I-CoNa", "I-Controversial", "I-PhysicalSafetyUnsafe", "I-PhysicalSafetySafe"),
    *("Q-Harm", "I-Alpaca", "xstest-safe", "xstest-unsafe"),
]
EVERY = 6  # of the miniature's 420 prompts, every sixth: the baseline takes its time
NEW_TOKENS, BATCH = 64, 64
BASELINE = "one at a time, 4 beams"


def train(folder: str) -> None:
    from safety_nb.core.params import MixParams, TrainParams
    from safety_nb.data import mixing
    from safety_nb.train import training

    mixing.mix(MixParams(run_dir=folder, n_general=600, n_safety=100, n_validation=0))
    training.train(TrainParams(run_dir=folder, epochs=2.0))


def answer(way: str, folder: str) -> tuple[float, float, list[list[int]]]:
    """CPU seconds of answering, peak memory of the process in MB, and the answers."""
    import torch

    from safety_nb.data.datasets import sources
    from safety_nb.generate import decoding
    from safety_nb.train import models
    from safety_nb.train.encoding import encode_question, end_tokens

    torch.set_num_threads(1)
    tokenizer = models.load_tokenizer("tiny")
    ends = end_tokens(tokenizer)
    model = models.load_answering("tiny", Path(folder) / "train" / "adapter", merge="NF4" not in way)
    assert models.is_merged(model) == ("NF4" not in way)
    prompts = [encode_question(row["prompt"], tokenizer) for row in sources.evaluation_prompts(EVALUATION)[::EVERY]]
    decoding.decode(model, prompts[:2], ends, decoding.Decoding(2))  # the first call of all warms up
    started = time.process_time()
    if way == BASELINE:
        answers = [_by_transformers(model, prompt, tokenizer, ends) for prompt in prompts]
    else:
        how = decoding.Decoding(NEW_TOKENS, beams=4 if "paper" in way else 1)
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        answers = [[]] * len(prompts)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            found = decoding.decode(model, [prompts[place] for place in places], ends, how)
            for place, tokens in zip(places, found, strict=True):
                answers[place] = tokens
    seconds = time.process_time() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, answers


def _by_transformers(model, prompt: list[int], tokenizer, ends: list[int]) -> list[int]:
    import torch

    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            num_beams=4,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )[0, len(prompt) :].tolist()
    return next((output[: place + 1] for place, token in enumerate(output) if token in ends), output)


def whole_stage(folder: str) -> tuple[int, float, float]:
    """Prompts of the paper's sets and XSTest; CPU and wall seconds of the stage, with loading and imports."""
    wall, cpu = time.perf_counter(), time.process_time()
    from safety_nb.core.params import GenerateParams
    from safety_nb.generate import generation

    params = GenerateParams(run_dir=folder, evaluation=PAPER, adapter="none", max_new_tokens=NEW_TOKENS)
    rows = generation.generate(params)
    return len(rows), time.process_time() - cpu, time.perf_counter() - wall


def call(function, *arguments):
    """Call a function in a fresh process, whose memory and imports are its own."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


WAYS = [BASELINE, "safety-nb paper", "safety-nb greedy", "safety-nb greedy through NF4"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    peak: dict[str, float] = {}
    answers: dict[str, list[list[int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        call(train, folder)
        for _ in range(arguments.rounds):
            for way in WAYS:
                taken, peak[way], answers[way] = call(answer, way, folder)
                seconds[way].append(taken)
        try:
            whole = call(whole_stage, folder)
        except ValueError as error:  # the data sets cannot be had
            print(f"Not timed, the paper's sets: {error}")
            whole = None
    assert answers["safety-nb paper"] == answers[BASELINE], "the batched beam search found other answers"
    same = sum(
        a == b for a, b in zip(answers["safety-nb greedy"], answers["safety-nb greedy through NF4"], strict=True)
    )
    n = len(answers[BASELINE])
    print(f"{n} prompts, at most {NEW_TOKENS} new tokens; paper's answers equal; {same} of {n} equal through NF4")
    print(f"{'way':30} {'responses/s':>11} {'of the baseline':>24} {'peak MB':>8}")
    rows = [ratios(way, seconds) for way in WAYS[1:]]
    for way, row in zip(WAYS, [None, *rows], strict=True):
        told = f"{row['ratio']:.1f} ({row['ratio_low']:.1f}–{row['ratio_high']:.1f})" if row else "1"
        print(f"{way:30} {n / statistics.median(seconds[way]):11.1f} {told:>24} {peak[way]:8.0f}")
    if whole:
        print(f"{whole[0]:,} prompts of the paper's sets and XSTest: {whole[1]:.1f} s CPU, {whole[2]:.1f} s wall")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def ratios(way: str, seconds: dict[str, list[float]]) -> dict:
    each = [base / own for base, own in zip(seconds[BASELINE], seconds[way], strict=True)]
    return {
        "case": way,
        "baseline": BASELINE,
        "ratio": statistics.median(each),
        "ratio_low": min(each),
        "ratio_high": max(each),
        "unit": "responses per CPU second",
        "rounds": len(each),
    }


if __name__ == "__main__":
    main()
