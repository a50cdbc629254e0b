"""The public names of a package, imported when they are first used: naming them costs nothing."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def public(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Args:
        package: its ``__name__``.
        names: module below the package to the names that it is to hand out of it.
    """
    owner = {name: module for module, of_module in names.items() for name in of_module}

    def getattr_(name: str) -> Any:
        if name not in owner:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{owner[name]}"), name)
        setattr(sys.modules[package], name, value)  # from now on it is found without this function
        return value

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *owner})

    return getattr_, dir_, sorted(owner)
