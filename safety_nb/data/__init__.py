"""What is trained on and asked: data sets, mixtures, decontamination, templates, demonstrations of one's own."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "mixing": ["Mixture", "draw", "mix", "remarks"],
        "templates": ["alpaca", "messages", "render"],
    },
)
