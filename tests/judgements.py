"""Judgements made for the tests: of one set, and of the runs of a study."""

import pandas as pd

from safety_nb.report.findings.rates import aggregate


def judged(labels, dataset="bad", run="r", n_safety=0, seed=0, **more):
    """Judgements of the refusal judge; a label of None is missing with a reason."""
    return pd.DataFrame(
        {
            "run": run, "n_safety": n_safety, "seed": seed, "dataset": dataset, "judge": "refusal",
            "prompt_id": [f"p{i}" for i in range(len(labels))], "label": labels, "score": None,
            "missing": [None if label else "no answer" for label in labels], **more,
        }
    )  # fmt: skip


def study(rates, seeds=(0, 1), n=50):
    """Judgements of a study: {N: {set: (share refused, share garbled)}}, the rest answered; exact in every seed."""
    parts = []
    for dose, sets in rates.items():
        for seed in seeds:
            for dataset, shares in sets.items():
                refused, garbled = (round(share * n) for share in shares)
                labels = (
                    ["full_refusal"] * refused + ["garbled"] * garbled + ["full_compliance"] * (n - refused - garbled)
                )
                parts.append(judged(labels, dataset, f"n{dose}-s{seed}", dose, seed))
    return pd.concat(parts, ignore_index=True)


def table_of(rates, **more):
    return aggregate(study(rates, **more))
