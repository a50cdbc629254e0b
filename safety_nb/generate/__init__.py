"""From prompts and an adapter to responses: decoding, here or behind a server; and what a model still knows."""
