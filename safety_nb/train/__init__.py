"""From a mixture to an adapter: the frozen base, encoding, packing, the loop, checkpoints, memory, export."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "records": ["TrainingRecord"],
        "training": ["train"],
        "models": ["add_adapter", "load_answering", "load_base", "load_tokenizer"],
        "encoding": ["EncodedRow", "encode_prompt", "encode_row"],
        "memory": ["Memory", "generation_memory", "training_memory"],
        "packed_trainer": ["TrainingDiverged"],
    },
)
