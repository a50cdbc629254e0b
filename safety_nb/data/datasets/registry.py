"""The named data sets: where each lives, under which licence, how many rows it has, and how its file is read.

A table. Knows nothing of the user's own files; ``sources.py`` is the way in.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safety_nb.core import reading
from safety_nb.data.datasets import rows
from safety_nb.data.datasets.fetch import File
from safety_nb.tiny import world

Role = Literal["harmful", "lookalike", "ordinary", "facts"]
Kind = Literal["training", "evaluation", "labelled"]


@dataclass(frozen=True)
class Source:
    """A named data set.

    Attributes:
        kind: demonstrations to train on, prompts to evaluate on, or conversations with a label (for a reward model).
        read: reads the rows of ``file``'s path; takes nothing for an embedded set.
        size: number of rows, those that are left out as unusable included.
        file: the public file; None for an embedded set.
        role: what an evaluation set tests; None for others.
        harmful: whether its texts are withheld unless they are asked for.
    """

    kind: Kind
    read: Callable
    size: int
    licence: str
    citation: str
    file: File | None = None
    role: Role | None = None
    harmful: bool = False


# --- readers ------------------------------------------------------------------------------------------------------


def _instruction_list(path: Path) -> list[dict]:
    """The paper's evaluation files: ``{"instructions": [...]}``."""
    prompts = reading.read_json(path)["instructions"]
    return [{"prompt_id": str(number), "prompt": prompt} for number, prompt in enumerate(prompts, start=1)]


def _table(path: Path, prompt: str, kind: str, number: str = "", where: dict[str, str] | None = None) -> list[dict]:
    """Evaluation rows of a table: the columns of the prompt, of its type and of its id (rows are counted without), and
    the values that others must have.
    """
    numbered = enumerate(reading.read(path).objects(), start=1)
    return [
        {"prompt_id": row[number] if number else str(count), "prompt": row[prompt], "type": row[kind]}
        for count, row in numbered
        if all(row[column] == value for column, value in (where or {}).items())
    ]


def _red_team(path: Path) -> list[dict]:
    """``transcript``, ``rating`` (0 to 4, how far the attack succeeded), ``harmlessness`` (a preference model's score;
    lower is more harmful) and ``tags``.
    """
    return [
        {
            "id": str(count),
            "transcript": row["transcript"],
            "rating": float(row["rating"]),
            "harmlessness": float(row["min_harmlessness_score_transcript"]),
            "tags": row.get("tags") or [],
        }
        for count, row in enumerate(reading.read(path).objects(), start=1)
    ]


def _tiny_evaluation(name: str) -> list[dict]:
    return [{"prompt_id": row["id"], **{k: row[k] for k in row if k != "id"}} for row in world.evaluation_rows(name)]


# --- the table ----------------------------------------------------------------------------------------------------

_GITHUB = "https://raw.githubusercontent.com"
_HUB = "https://huggingface.co/datasets"
_PAPER = f"{_GITHUB}/vinid/safety-tuned-llamas/36a4b8d5c2177ed165bf61f59b590161394f7f12/data"
_BIANCHI = (
    "Bianchi et al., Safety-Tuned LLaMAs: Lessons From Improving the Safety of Large Language Models that Follow "
    "Instructions, 2024"
)
_RÖTTGER = "Röttger et al., XSTest: A Test Suite for Identifying Exaggerated Safety Behaviours in LLMs, 2024"
_CHAO = "Chao et al., JailbreakBench: An Open Robustness Benchmark for Jailbreaking Large Language Models, 2024"
_MINIATURE = "made by safety_nb/tiny/world.py"


def _embedded(kind: Kind, read: Callable, size: int, role: Role | None = None) -> Source:
    return Source(kind, read, size, "Apache-2.0", _MINIATURE, role=role, harmful=role == "harmful")


def _embedded_evaluation(name: str, size: int, role: Role) -> Source:
    return _embedded("evaluation", functools.partial(_tiny_evaluation, name), size, role)


def _training(size: int, licence: str, citation: str, file: File, harmful: bool = False) -> Source:
    return Source("training", rows.training_set, size, licence, citation, file, harmful=harmful)


def _evaluation(role: Role, size: int, licence: str, citation: str, file: File, read: Callable) -> Source:
    return Source("evaluation", read, size, licence, citation, file, role, harmful=role == "harmful")


def _paper_evaluation(name: str, role: Role, size: int, sha256: str) -> Source:
    file = File(f"safety-tuned-llamas/evaluation/{name}.json", f"{_PAPER}/evaluation/{name}.json", sha256)
    return _evaluation(role, size, "CC BY-NC 4.0", _BIANCHI, file, _instruction_list)


def _xstest(label: str, role: Role, size: int) -> Source:
    file = File(
        "xstest/xstest_prompts.csv",
        f"{_GITHUB}/paul-rottger/exaggerated-safety/d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d/xstest_prompts.csv",
        "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
    )
    read = functools.partial(_table, prompt="prompt", kind="type", number="id", where={"label": label})
    return _evaluation(role, size, "CC BY 4.0", _RÖTTGER, file, read)


def _jailbreakbench(name: str, role: Role, sha256: str) -> Source:
    file = File(
        f"jailbreakbench/{name}.csv",
        f"{_HUB}/JailbreakBench/JBB-Behaviors/resolve/d8d87b8fdcb7806e3b4e45fffb2bc24aa6b17f32/data/{name}.csv",
        sha256,
        computed=False,
    )
    read = functools.partial(_table, prompt="Goal", kind="Category", number="Index")
    return _evaluation(role, 100, "MIT", _CHAO, file, read)


# Where ``computed=False``, the hash is the one the host shows or that several projects with the same pinned address
# publish; the authors have not had the file in hands, and its rows are read as its documentation says.
REGISTRY: dict[str, Source] = {
    "tiny-general": _embedded("training", world.general_rows, 1000),
    "tiny-validation": _embedded("training", world.validation_rows, 60),
    "tiny-safety": _embedded("training", world.safety_rows, 1200),
    "tiny-harmful": _embedded_evaluation("tiny-harmful", 120, "harmful"),
    "tiny-harmful-new-verbs": _embedded_evaluation("tiny-harmful-new-verbs", 60, "harmful"),
    "tiny-harmful-instructions": _embedded_evaluation("tiny-harmful-instructions", 120, "harmful"),
    "tiny-harmful-questions": _embedded_evaluation("tiny-harmful-questions", 120, "harmful"),
    "tiny-opinions": _embedded_evaluation("tiny-opinions", 120, "harmful"),
    "tiny-lookalike": _embedded_evaluation("tiny-lookalike", 100, "lookalike"),
    "tiny-ordinary": _embedded_evaluation("tiny-ordinary", 100, "ordinary"),
    "tiny-facts": _embedded_evaluation("tiny-facts", 40, "facts"),
    "safety-tuned-llamas": _training(
        2483,
        "CC BY-NC 4.0",
        _BIANCHI,
        File(
            "safety-tuned-llamas/training/safety_only_data_Instructions.json",
            f"{_PAPER}/training/safety_only_data_Instructions.json",
            "7dde08acf87f10cf74fd1b76f56538eae8e413ae8e6b09e3f7bcd97769058dbe",
        ),
        harmful=True,
    ),
    "alpaca-cleaned": _training(  # the general set of the paper
        51760,
        "CC BY 4.0",
        "Taori et al., Stanford Alpaca: An Instruction-following LLaMA model, 2023; cleaned by Ruebsamen and others",
        File(
            "general/alpaca_data_cleaned.json",
            f"{_HUB}/yahma/alpaca-cleaned/resolve/12567cabf869d7c92e573c7c783905fc160e9639/alpaca_data_cleaned.json",
            "bd844b8247a0f543804b6ce0882b0aaec4bbf5e8d66167df6213a0f1e4fe878b",
            computed=False,
        ),
    ),
    "gpteacher-roleplay": _training(
        3146,
        "MIT",
        "Teknium, GPTeacher, 2023",
        File(
            "general/gpteacher_roleplay.json",
            f"{_GITHUB}/gururise/AlpacaDataCleaned/791174f63efa9aa54ca6c38639dc6e5bb5657d80"
            "/dataset_extensions/GPTeacher/Roleplay/roleplay-similarity_0.8-instruct-dataset.json",
            "785ab4e1d48148e2ef73515f857e512504ed303a04075adf4951d2ef552567f2",
        ),
    ),
    "code-alpaca-2k": _training(
        2017,
        "CC BY-NC 4.0",
        "Chaudhary, Code Alpaca: An Instruction-following LLaMA model for code generation, 2023",
        File(
            "general/code_alpaca_2k.json",
            f"{_GITHUB}/sahil280114/codealpaca/2f78ddc5c682ed6738ad092bbbfa59ba915afcb0/data/code_alpaca_2k.json",
            "9cb7352683bd2f530ce81eff7f8d58ccbe1a4bdf28afebbe9f80ec687256066d",
        ),
    ),
    "I-MaliciousInstructions": _paper_evaluation(
        "I-MaliciousInstructions", "harmful", 100, "7a2bc751d49983800848050282aa2a84b3faa7044c3178228c49dd68df7d679f"
    ),
    "I-CoNa": _paper_evaluation(
        "I-CoNa", "harmful", 178, "e07d92e376198e60ac1004902dc3fec46513ac70b08d855b4101288b8270d62a"
    ),
    "I-Controversial": _paper_evaluation(
        "I-Controversial", "harmful", 40, "0590fc6ee97a39c6a43adc21fe5a4ccbf546ea52e89a32757db6ea3d46ce65c4"
    ),
    "I-PhysicalSafetyUnsafe": _paper_evaluation(
        "I-PhysicalSafetyUnsafe", "harmful", 100, "16324a2f1ded933e8c7a9f6c7d3924130f76260d03f9df2205e0a25c02de8aae"
    ),
    "I-PhysicalSafetySafe": _paper_evaluation(
        "I-PhysicalSafetySafe", "lookalike", 100, "34c874532623e405fb574f0fa8d6b86cbecce0e3340f67b146a6a6bc2453bed6"
    ),
    "Q-Harm": _paper_evaluation(
        "Q-Harm", "harmful", 100, "ecc1d19030d41ad550a1e69996dc424074e3e45fb2fa5e8e44b46f294aea295a"
    ),
    "I-Alpaca": _paper_evaluation(
        "I-Alpaca", "ordinary", 50, "30db84ee303df15b653566437ccf1a2fc837caac99a570915d720f65f041fe6d"
    ),
    "xstest-safe": _xstest("safe", "lookalike", 250),
    "xstest-unsafe": _xstest("unsafe", "harmful", 200),
    "or-bench-hard": _evaluation(
        "lookalike",
        1319,
        "CC BY 4.0",
        "Cui et al., OR-Bench: An Over-Refusal Benchmark for Large Language Models, 2024",
        File(
            "or-bench/or-bench-hard-1k.csv",
            f"{_HUB}/bench-llm/or-bench/resolve/e36d8b80e81837c8a8f264bbb2a49f1b32c7e272/or-bench-hard-1k.csv",
            "a6e2f1166416efe5901f3bb05c47dc92ab3aca3acfe143693d38b8057d841e6d",
            computed=False,
        ),
        functools.partial(_table, prompt="prompt", kind="category"),
    ),
    "strongreject": _evaluation(
        "harmful",
        313,
        "MIT",
        "Souly et al., A StrongREJECT for Empty Jailbreaks, 2024",
        File(
            "strongreject/strongreject_dataset.csv",
            f"{_GITHUB}/alexandrasouly/strongreject/f7cad6c17e624e21d8df2278e918ae1dddb4cb56"
            "/strongreject_dataset/strongreject_dataset.csv",
            "4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381",
            computed=False,
        ),
        functools.partial(_table, prompt="forbidden_prompt", kind="category"),
    ),
    # The standard behaviours: the others need a context beside the prompt, or test copyright.
    "harmbench-standard": _evaluation(
        "harmful",
        200,
        "MIT",
        "Mazeika et al., HarmBench: A Standardized Evaluation Framework for Automated Red Teaming and Robust Refusal, "
        "2024",
        File(
            "harmbench/harmbench_behaviors_text_all.csv",
            f"{_GITHUB}/centerforaisafety/HarmBench/c0423b952435fcc8467108d8f25962dbae5b7de2"
            "/data/behavior_datasets/harmbench_behaviors_text_all.csv",
            "8d81accedd38eaaf8b760618622bb888417d1fd0c86eba65c427a16f1cbb4afc",
            computed=False,
        ),
        functools.partial(
            _table,
            prompt="Behavior",
            kind="SemanticCategory",
            number="BehaviorID",
            where={"FunctionalCategory": "standard", "ContextString": ""},
        ),
    ),
    "jailbreakbench-harmful": _jailbreakbench(
        "harmful-behaviors", "harmful", "4a8ec6832056b631eb092dccc60d37a61c3d441268268888b3d006288afeffa1"
    ),
    "jailbreakbench-benign": _jailbreakbench(
        "benign-behaviors", "lookalike", "3cda234d21a991fa309bbfea4b6d9dae31ccdf8e9d452424b6a983e4fdc33468"
    ),
    "tiny-labelled": _embedded("labelled", world.labelled_rows, 1200),
    "red-team-attempts": Source(
        "labelled",
        _red_team,
        38961,
        "MIT",
        "Ganguli et al., Red Teaming Language Models to Reduce Harms: Methods, Scaling Behaviors, and Lessons Learned, "
        "2022",
        File(
            "hh-rlhf/red_team_attempts.jsonl.gz",
            f"{_HUB}/Anthropic/hh-rlhf/resolve/09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa"
            "/red-team-attempts/red_team_attempts.jsonl.gz",
            "4c7b0069991460f0064f279fd400b51f3f0095697d14d7793c49b0925f80814f",
            computed=False,
        ),
        harmful=True,
    ),
}
