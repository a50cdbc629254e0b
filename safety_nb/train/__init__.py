"""From a mixture to an adapter: the 4-bit base, encoding, packing, the loop, checkpoints, memory, export."""
