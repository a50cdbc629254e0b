"""Data sets of the model hub: which of a repository's files is meant, and local copies of them.

Knows nothing of what is in a file.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from safety_nb.core import files, reading
from safety_nb.core.errors import InputError
from safety_nb.data.datasets import fetch

_ENTRY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(:(?P<part>[^:@]+))?(@(?P<revision>[^:@\s]+))?")
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*")


@dataclass(frozen=True)
class HubData:
    """What an entry ``owner/name[:part][@revision]`` names; the part is a file or a split."""

    repository: str
    part: str
    revision: str


def parse(entry: str) -> HubData | None:
    """What the entry names; None when it has not the form of a hub data set."""
    found = _ENTRY.fullmatch(entry)
    if found is None or reading.ending(found["repository"]):
        return None
    return HubData(found["repository"], found["part"] or "", found["revision"] or "")


def local_files(data: HubData) -> list[Path]:
    """Local copies of the files that are meant, in order; the hub's client keeps them in its own cache.

    Raises:
        InputError: the repository cannot be reached, is unknown or gated, or several of its splits may be meant.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        commit, names = _listed(data)
        return [
            Path(huggingface_hub.hf_hub_download(data.repository, filename=name, repo_type="dataset", revision=commit))
            for name in choose(data, names)
        ]
    except InputError:
        raise
    # The client lets errors of its HTTP library through (OSError or not, by its version).
    except (HfHubHTTPError, HFValidationError, OSError, RuntimeError) as error:
        raise _cannot(data, error) from error
    except Exception as error:
        if type(error).__module__.startswith(("httpx", "httpcore", "requests", "huggingface_hub")):
            raise _cannot(data, error) from error
        raise


def _cannot(data: HubData, error: Exception) -> InputError:
    cause = next(iter(str(error).splitlines()), "") or type(error).__name__
    return InputError(
        f"Hub data set {data.repository!r} cannot be had ({cause}). Check its name, its revision and your access to "
        "it, or fetch its files elsewhere and name their path."
    )


def _listed(data: HubData) -> tuple[str, list[str]]:
    """The commit that a revision stands for, and its files; without a connection, as they were when there was one."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    record = fetch.cache_dir() / "hub" / data.repository / f"{(data.revision or 'newest').replace('/', '_')}.json"
    try:
        info = huggingface_hub.HfApi().dataset_info(data.repository, revision=data.revision or None, timeout=30)
    except (HfHubHTTPError, HFValidationError):  # the hub's own answer
        raise
    except Exception:
        if not record.is_file():
            raise
        known = files.read_json(record)
        return known["commit"], known["files"]
    known = {"commit": info.sha, "files": [file.rfilename for file in info.siblings or []]}
    files.write_json(record, known)
    return known["commit"], known["files"]


def choose(data: HubData, names: list[str]) -> list[str]:
    """The files that are meant: those of the named part, else of the only one, else of the one called train.

    Raises:
        InputError: there is no such part, or several may be meant.
    """
    parts: dict[str, list[str]] = {}
    for name in sorted(filter(reading.ending, names)):
        # Shards of one split belong together; any other file is a part of its own.
        parts.setdefault(_SHARD.sub("", name), []).append(name)
    if not parts:
        raise InputError(
            f"Hub data set {data.repository!r} holds no file that can be read ({', '.join(reading.ENDINGS)})."
        )
    asked = data.part or (next(iter(parts)) if len(parts) == 1 else "train")
    found = [part for part in parts if asked in (part, part.rpartition("/")[2], reading.stem(part))]
    if len(found) != 1:
        raise InputError(
            f"Hub data set {data.repository!r}: {asked!r} names {'more than one' if found else 'none'} of its parts; "
            f"name one as in {data.repository}:{next(iter(parts))}. It has {', '.join(parts)}."
        )
    return parts[found[0]]
