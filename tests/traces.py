"""Memory of a training step, traced once for the same parameters and packs: a trace takes a second."""

from safety_nb.core.params import RunParams
from safety_nb.train import memory

_trace = memory.training_memory
_traced: dict[tuple[str, int, int], memory.Memory] = {}


def training_memory(params: RunParams, tokens: int, supervised: int) -> memory.Memory:
    key = params.model_dump_json(exclude={"run_dir"}), tokens, supervised
    if key not in _traced:
        _traced[key] = _trace(params, tokens, supervised)
    return _traced[key]
