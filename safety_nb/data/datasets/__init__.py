"""Data sets: by name, by file or by hub id, fetched, checked and read row by row."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "registry": ["REGISTRY", "Source"],
        "sources": ["evaluation_prompts", "labelled_rows", "training_set"],
        "rows": ["TrainingSet"],
    },
)
