"""Safety demonstrations of one's own: questions reworded, answered, and reviewed by people."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "making": ["answer", "open_job", "reword", "save"],
        "rewording": ["to_instruction", "to_question"],
    },
)
