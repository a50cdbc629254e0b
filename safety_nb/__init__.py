"""safety-nb: how many safety demonstrations an instruction-tuning mixture needs, and how many are too many.

``load_run`` and ``load_study`` read results as pandas tables. A room each, from the ground up: core, stats, tiny; data;
train; generate; judge; report; run (CONTRIBUTING.md). Importing the package imports nothing heavy, logs nothing and
touches no file.
"""

from safety_nb import _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.public(__name__, {"report.loading": ["load_run", "load_study"]})
