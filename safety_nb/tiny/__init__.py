"""The miniature: its world, its base model and its reward model, all made here and carried along."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "world": [
            "BASE_DIR",
            "EVALUATION_SETS",
            "REWARD_DIR",
            "evaluation_rows",
            "general_rows",
            "safety_rows",
            "validation_rows",
        ],
    },
)
