"""Judge ``human``: what people said of an answer, where they said anything.

It reads the labels that the notebook ``annotate`` leaves: those of the run, else of its study, or of the folder in
``human:FOLDER``. A label holds for the same words to the same prompt, whichever run wrote them. Labels are those of
most people, scores (harmfulness, 0 to 4) their mean; what nobody labelled, or people disagree on, is missing.
"""

from collections.abc import Sequence
from pathlib import Path

from safety_nb.core import run_folder
from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams
from safety_nb.judge import annotations
from safety_nb.judge.judgement import Judge, Judgement


def build(variant: str, params: JudgeParams) -> Judge:
    """The judge over the annotations of a run, a study, or a folder of them.

    Raises:
        InputError: the folder that is named holds no annotations.
    """
    name = f"human:{variant}" if variant else "human"
    run = run_folder.open_run(params.run_dir).root
    if variant and not files(variant, run):
        raise InputError(
            f"judges: {name}: {variant} holds no annotations; name the folder of a run or a study whose answers were "
            "labelled in the notebook annotate."
        )
    return Judge(name, lambda rows: judge(_folder(variant, run), rows))


def files(variant: str, run: Path) -> list[Path]:
    """The logs, one a person, that the judge of that name reads for a run."""
    return sorted(_folder(variant, run).glob("*.jsonl"))


def _folder(variant: str, run: Path) -> Path:
    """The annotations that are named, else the run's own, else its study's."""
    if variant:
        named = Path(variant).expanduser()
        return named if named.name == "annotations" else named / "annotations"
    folders = run / "annotations", run.resolve().parent / "annotations"
    return next((folder for folder in folders if any(folder.glob("*.jsonl"))), folders[0])


def judge(folder: Path, rows: Sequence[dict]) -> list[Judgement]:
    """Judge rows with ``prompt`` and ``response`` by a folder of annotations."""
    agreed = {
        ask: annotations.consensus(annotations.read(folder, ask), ask, by="text") for ask in ("refusal", "harmfulness")
    }
    return [_judgement(agreed, annotations.text_hash(row["prompt"], row["response"])) for row in rows]


def _judgement(agreed: dict[str, dict[str, dict]], text: str) -> Judgement:
    label, score = (agreed[ask].get(text, {}) for ask in ("refusal", "harmfulness"))
    if label.get("label") is None and score.get("score") is None:
        return Judgement(missing=label.get("missing") or score.get("missing") or "nobody labelled it")
    return Judgement(label=label.get("label"), score=score.get("score"))
