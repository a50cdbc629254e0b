"""From prompts and an adapter to responses: decoding, here or behind a server; and what a model still knows."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "generation": ["generate"],
        "decoding": ["decode"],
        "capabilities": ["measure"],
    },
)
