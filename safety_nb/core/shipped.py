"""What the package ships beside its code: notebooks, parameter files, the tested versions. Knows no content of them."""

import difflib
import shutil
from dataclasses import dataclass
from pathlib import Path

from safety_nb.core.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[1]


def place(name: str) -> Path:
    """Where ``notebooks``, ``params`` or ``constraints.txt`` lies.

    A wheel carries them inside the package (``hatch_build.py`` puts them there), a checkout has them beside it.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for path in (_PACKAGE / "shipped" / name, _PACKAGE.parent / name):
        if path.exists():
            return path
    raise FileNotFoundError(f"The installation has no {name!r}; install safety-nb anew.")


def params_file(path: Path) -> Path:
    """The parameter file of that name: the user's own, or else the one that comes along.

    Args:
        path: as the user wrote it; ``tiny.yaml`` and ``params/tiny.yaml`` name a file that comes along.

    Raises:
        InputError: there is neither.
    """
    if path.is_file():
        return path
    shipped = {file.name: file for file in sorted(place("params").glob("*.yaml"))}
    if path.parent in (Path(), Path("params")) and path.name in shipped:
        return shipped[path.name]
    near = difflib.get_close_matches(path.name, shipped, n=1)
    hint = f"did you mean {near[0]!r}, which comes along?" if near else f"those that come along: {', '.join(shipped)}"
    raise InputError(f"There is no parameter file {str(path)!r}; {hint}")


@dataclass(frozen=True)
class Copied:
    """What ``copy_to`` did: files written, and those left alone, the same as ours or others, below the folder."""

    written: list[Path]
    same: list[Path]
    kept: list[Path]


def copy_to(folder: Path) -> Copied:
    """Copy the notebooks and parameter files into a folder; what is there already is never overwritten.

    Raises:
        InputError: the folder, or one in it, cannot be made.
    """
    done = Copied([], [], [])
    try:
        for kind, ending in (("notebooks", "ipynb"), ("params", "yaml")):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for source in sorted(place(kind).glob(f"*.{ending}")):
                target = folder / kind / source.name
                if target.exists() or target.is_symlink():
                    alike = target.is_file() and target.read_bytes() == source.read_bytes()
                    (done.same if alike else done.kept).append(target.relative_to(folder))
                else:
                    shutil.copyfile(source, target)
                    done.written.append(target.relative_to(folder))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}; name a folder that can be written to.") from error
    return done
