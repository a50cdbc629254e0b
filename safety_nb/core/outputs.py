"""Whether results can be written where a user wants them, known before any work is done. Writes nothing."""

import os
import tempfile
from pathlib import Path

from safety_nb.core.errors import InputError

LONGEST_NAME = 230  # bytes, of the 255 that file systems take: what is not whole yet has a longer name
_LONGEST_PATH = 3800  # bytes, of the 4,096 that Linux takes: results lie in folders below
_ROOM = 64 * 1024  # bytes; on a disk with less nothing is worth beginning


def check(path: Path, option: str = "--out") -> None:
    """Check that a file or folder can be made, or written into, at a path.

    Raises:
        InputError: it lies below a file, is a link to nothing or to itself, has too long a name, or the system lets
            nothing be written there.
    """
    place = path.absolute()
    try:
        while not os.path.lexists(place):
            _check_name(place.name, option)
            place = place.parent
        if place.is_symlink() and not place.exists():
            raise InputError(f"{option}: {place} is a link that leads nowhere; remove it, or name another place.")
        if not place.is_dir():
            if place == path.absolute():  # a file that is there: whether it may be is for others to say
                return
            raise InputError(f"{option}: {path} lies below {place}, which is a file; name another place.")
        if len(os.fsencode(path.absolute())) > _LONGEST_PATH:
            raise InputError(f"{option}: the path has more than {_LONGEST_PATH:,} bytes; name a shorter one.")
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(_ROOM))
    except OSError as error:
        raise InputError(
            f"{option}: {path}: {error.strerror or error}; name a place that can be written to."
        ) from error


def _check_name(name: str, option: str = "--out") -> None:
    """Check that a file or folder may have a name. Raises InputError."""
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise InputError(f"{option}: the name {name[:40]}… has more than {LONGEST_NAME} bytes; choose a shorter one.")
