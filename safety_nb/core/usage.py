"""What a kernel used: asked of it at its end, by the process that executes its notebook. Imports nothing heavy."""

import json
import sys

try:
    import resource
except ImportError:  # Windows
    resource = None


def peak_memory() -> int | None:
    """The most bytes that were resident of this process so far; None where that can't be known."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def as_json() -> str:
    """The device, and the peaks of memory in bytes, of this process: device, peak_memory, peak_device_memory.

    ``device`` is the GPU's name, or cpu; the peaks are None where they can't be known.
    """
    facts = {"device": "cpu", "peak_memory": peak_memory(), "peak_device_memory": None}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        facts["device"] = torch.cuda.get_device_name()
        facts["peak_device_memory"] = torch.cuda.max_memory_allocated()
    return json.dumps(facts)
