"""The page of a study's answers: what every run answered to each prompt, side by side and to be searched.

Prompts and answers are untrusted: shown as text, never as markup; of harmful sets, both are folded.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safety_nb.core.columns import N_SAFETY
from safety_nb.core.text import shortened, visible
from safety_nb.report.pages import page

if TYPE_CHECKING:
    import pandas as pd

MOST_ANSWERS = 20_000  # a page of more takes a browser seconds to open: then the first seed stands for all
MOST_CHARACTERS = 1_500  # of one answer
_HARMLESS = ("lookalike", "ordinary", "facts")


def answers_page(study: str, answers: "pd.DataFrame", roles: Mapping[str, str], version: str | None = None) -> str:
    """All answers of a study on one page.

    Args:
        study: Its name.
        answers: One row an answer: columns run, n_safety, seed, dataset, prompt_id, prompt, response, finish, label
            (None where it was not judged), and sample where prompts have several answers.
        roles: Evaluation set to role. A set without one is treated as harmful: folded.
        version: Of the package.

    Returns:
        A complete HTML document with a search box; without scripts it lists everything.
    """
    total, left_out = len(answers), ""
    if total > MOST_ANSWERS:
        answers = answers[answers["seed"] == answers["seed"].min()]
        left_out = f" Only seed {answers['seed'].iloc[0]} is shown: {total:,} answers are too many for a page."
    answers = answers.sort_values([N_SAFETY, "seed", "run"], kind="stable")
    rows: dict[tuple[str, str], list[dict]] = {}  # of each prompt
    for row in answers.to_dict("records"):
        rows.setdefault((row["dataset"], row["prompt_id"]), []).append(row)
    prompts = [_asked(str(dataset), asked, roles.get(dataset, "")) for (dataset, _), asked in rows.items()]
    sets = list(dict.fromkeys(prompt["set"] for prompt in prompts))
    block = {"kind": "answers", "sets": sets, "prompts": prompts}
    return page.render(
        kicker="safety-nb · answers",
        title=study,
        lead=[
            f"{len(prompts):,} prompts and what each run answered, {len(answers):,} answers in all.{left_out} "
            "Open a line to read; harmful requests and their answers are folded, and may be offensive."
        ],
        opening=[],
        sections=[page.section("Answers", block)],
        version=version,
        script="answers.js",
    )


def _asked(dataset: str, rows: list[dict[str, Any]], role: str) -> dict[str, Any]:
    """One prompt and its answers, as the template takes them."""
    first = rows[0]
    labels = [_label(row["label"]) for row in rows]
    prompt, _ = visible(first["prompt"], MOST_CHARACTERS)
    answers = []
    for row, label in zip(rows, labels, strict=True):
        text, left_out = visible(row["response"], MOST_CHARACTERS)
        sample = row.get("sample")
        drawn = f", answer {int(sample) + 1}" if sample is not None and sample == sample else ""
        answers.append(
            {
                "name": f"N = {row['n_safety']}, seed {row['seed']}{drawn}",
                "run": shortened(row["run"], 80),
                "label": label,
                "text": text,
                "left_out": f"{left_out:,}" if left_out else "",
                "cut": row.get("finish") == "length",
            }
        )
    return {
        "set": dataset,
        "role": role or "no role",
        "prompt_id": shortened(first["prompt_id"], 80),
        "teaser": shortened(first["prompt"], 90) if role in _HARMLESS else "",
        "prompt": prompt,
        "labels": _strip(rows, labels),
        "changed": len(set(labels)) > 1,
        "answers": answers,
    }


def _label(label: Any) -> str:
    return "missing" if label is None or label != label else shortened(label, 40)


def _strip(rows: list[dict[str, Any]], labels: list[str]) -> str:
    """The labels in few words: what each N got, the commonest first where its runs differ."""
    by_dose: dict[int, dict[str, int]] = {}
    for row, label in zip(rows, labels, strict=True):
        counts = by_dose.setdefault(row[N_SAFETY], {})
        counts[label] = counts.get(label, 0) + 1
    parts = []
    for dose, counts in by_dose.items():
        several = sum(counts.values()) > 1
        told = sorted(counts.items(), key=lambda item: -item[1])
        parts.append(f"{dose}: " + " + ".join(f"{count} {label}" if several else label for label, count in told))
    return " · ".join(part.replace("_", " ") for part in parts)
