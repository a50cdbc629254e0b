"""safety-nb: how many safety demonstrations an instruction-tuning mixture needs, and how many are too many.

Importing the package imports nothing heavy, logs nothing and touches no file; the modules are listed in
CONTRIBUTING.md.
"""

__version__ = "0.1.0"
