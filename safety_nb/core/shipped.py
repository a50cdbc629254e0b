"""What the package ships beside its code: notebooks, parameter files, the tested versions. Knows no content of them."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def place(name: str) -> Path:
    """Where ``notebooks``, ``params`` or ``constraints.txt`` lies.

    A wheel carries them inside the package (pyproject.toml puts them there), a checkout has them beside it.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for path in (_PACKAGE / "shipped" / name, _PACKAGE.parent / name):
        if path.exists():
            return path
    raise FileNotFoundError(f"The installation has no {name!r}; install safety-nb anew.")
