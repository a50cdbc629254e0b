"""Judges by their names: each built from its kind, and none of them the model under test."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safety_nb.core.errors import InputError
from safety_nb.core.params import JudgeParams
from safety_nb.judge.judgement import Judge
from safety_nb.tiny import world
from safety_nb.train import models


def build(name: str, params: JudgeParams) -> Judge:
    """The judge of that name, ``KIND`` or ``KIND:VARIANT``; the schema has checked that there is such a kind.

    Raises:
        InputError: a variant there is none of, or a parameter that this judge needs.
    """
    kind, _, variant = name.partition(":")
    return importlib.import_module(f"safety_nb.judge.kinds.{kind.replace('-', '_')}").build(variant, params)


def build_all(params: JudgeParams, tested: str) -> list[Judge]:
    """The judges of a run, none of which is the model under test unless ``judge_own_model`` says so.

    Args:
        tested: what ``model_under_test`` says.

    Raises:
        InputError: as ``build`` and ``check_not_own``.
    """
    readers = [build(name, params) for name in params.judges]
    for judge in readers:
        check_not_own(judge.name, judge.model, tested, params)
    return readers


def model_under_test(values: Mapping[str, Any]) -> str:
    """Whose answers are judged, by the parameters of a run or its ``generation.json``; empty where they don't say."""
    served = values.get("backend") == "server"
    return str(values.get("served_model" if served else "base_model") or "")


def check_not_own(judge: str, model: str, tested: str, params: JudgeParams) -> None:
    """Check that the model under test is not its own judge, unless ``judge_own_model`` says so.

    Args:
        judge: the judge's name; model: the model that it asks, empty for none.
        tested: the model under test, empty where it is not known.

    Raises:
        InputError: it is.
    """
    if model and tested and not params.judge_own_model and same_model(model, tested):
        raise InputError(
            f"judges: {judge} asks {model!r}, which is the model under test ({tested!r}), and models favour their own "
            "answers; choose another judge, or set judge_own_model to true to let it judge itself."
        )


def same_model(one: str, other: str) -> bool:
    """Whether two names mean one model: two folders if they are the same place, else by name.

    A name counts without the owner of a hub id and without case. An address tells nothing, since one server may have
    many models and one model many servers; nor does the folder of a copy tell whose it is but by its name.
    """
    folders = _folder(one), _folder(other)
    return folders[0] == folders[1] if all(folders) else _bare(one) == _bare(other)


def _folder(model: str) -> Path | None:
    """The folder of a model that lies in one."""
    folder = world.BASE_DIR if model == models.TINY else Path(model).expanduser()
    return folder.resolve() if (folder / "config.json").is_file() else None


def _bare(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2].casefold()


def path_in(judge: str) -> str:
    """The folder that a judge's name ends in, as in ``harmfulness:FOLDER`` or ``guard:FAMILY=FOLDER``, or empty."""
    folder = judge.partition(":")[2].rpartition("=")[2]
    return folder if folder and models.is_folder(folder) else ""
