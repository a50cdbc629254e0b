"""One module a kind of judge, each with ``build(variant, params) -> Judge``."""
