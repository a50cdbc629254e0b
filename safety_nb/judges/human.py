"""Judge ``human``: what people said of an answer, where they said anything.

It reads the labels that the notebook ``annotate`` leaves: those of the run, else of its study, or of the folder in
``human:FOLDER``. A label holds for the same words to the same prompt, whichever run wrote them. Labels are those of
most people, scores (harmfulness, 0 to 4) their mean; what nobody labelled, or people disagree on, is missing.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from safety_nb import annotations, runs
from safety_nb.errors import InputError
from safety_nb.judges.judgement import Judge, Judgement
from safety_nb.schema import JudgeParams


def build(variant: str, params: JudgeParams) -> Judge:
    """The judge over the annotations of a run, a study, or a folder of them.

    Raises:
        InputError: the folder that is named holds no annotations.
    """
    name = f"human:{variant}" if variant else "human"
    if not variant:
        root = runs.open_run(params.run_dir).root
        return Judge(name, partial(judge, [root / "annotations", root.resolve().parent / "annotations"]))
    named = Path(variant).expanduser()
    folder = named if named.name == "annotations" else named / "annotations"
    if not any(folder.glob("*.jsonl")):
        raise InputError(
            f"judges: {name}: {named} holds no annotations; name the folder of a run or a study whose answers were "
            "labelled in the notebook annotate."
        )
    return Judge(name, partial(judge, [folder]))


def judge(folders: Sequence[Path], rows: Sequence[dict]) -> list[Judgement]:
    """Judge rows with ``prompt`` and ``response`` by the annotations of the first folder that has any."""
    folder = next((folder for folder in folders if any(folder.glob("*.jsonl"))), folders[0])
    agreed = {
        ask: annotations.consensus(annotations.read(folder, ask), ask, by="text") for ask in ("refusal", "harmfulness")
    }
    return [_judgement(agreed, annotations.text_hash(row["prompt"], row["response"])) for row in rows]


def _judgement(agreed: dict[str, dict[str, dict]], text: str) -> Judgement:
    label, score = (agreed[ask].get(text, {}) for ask in ("refusal", "harmfulness"))
    if label.get("label") is None and score.get("score") is None:
        return Judgement(missing=label.get("missing") or score.get("missing") or "nobody labelled it")
    return Judgement(label=label.get("label"), score=score.get("score"))
