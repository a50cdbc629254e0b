"""From responses to judgements: judges, one module a kind, what they said kept; people's labels; a reward model."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "building": ["build", "build_all"],
        "judgement": ["Judge", "Judgement"],
        "judging": ["judge_rows", "judge_run", "judge_table"],
    },
)
