"""What the judgements of a run or a study say: rates, contrasts between N, costs, the verdict."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "comparison": ["Comparison", "compare_study"],
        "rates": ["aggregate", "endings", "summarise_run"],
    },
)
