"""How far judges agree with people, and rates corrected by what people said."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "calibration": ["Calibration", "error_rates", "of_run", "of_table"],
    },
)
