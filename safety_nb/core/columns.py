"""Names of columns that tables of several rooms share: what names a run, and how many demonstrations it had."""

from collections.abc import Iterable

N_SAFETY = "n_safety"  # as the parameter is called
RUN_KEYS = ["run", N_SAFETY, "seed"]  # what names a run in every table of a study, and heads its columns


def run_keys(swept: Iterable[str]) -> list[str]:
    """The columns that tell runs apart: RUN_KEYS, then what else is swept."""
    return list(dict.fromkeys([*RUN_KEYS, *swept]))


def setting_names(swept: Iterable[str]) -> list[str]:
    """Of the swept parameters, those that make a setting: all but N and the seed, over which a setting is told."""
    return [name for name in swept if name not in (N_SAFETY, "seed")]
