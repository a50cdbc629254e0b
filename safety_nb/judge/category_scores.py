"""Category scores of answers, of judges that give several: a wide table beside the judgements, and read back.

Moderation gives a score of each category of harm; ``judgements.jsonl`` has the highest and the flag. Here stands each,
one column a category. Knows no study and draws nothing.
"""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safety_nb.core import files, run_folder, tables
from safety_nb.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FILE = "category_scores.csv"
COLUMNS = ["dataset", "prompt_id", "judge", "sample", "category", "value"]
_KEYS = ("dataset", "prompt_id", "judge", "sample")  # sample: only where prompts have several answers


def gives(judge: str) -> bool:
    """Whether a judge of that name gives category scores."""
    return judge.partition(":")[0] == "moderation"


def write(run: run_folder.RunFolder, judgements: Sequence[dict[str, Any]]) -> None:
    """Write ``category_scores.csv`` of the judgements of a run, or remove it where no judge gives such scores.

    Columns dataset, prompt_id, judge, sample (with several answers a prompt), and one a category, in the order in which
    they first came. A row a judgement; what is missing of it is an empty cell.

    Raises:
        InputError: a category is called as one of the other columns.
    """
    import pandas as pd

    rows, path = [], run.root / FILE
    for judgement in judgements:
        if gives(judgement["judge"]):
            # The judge leaves the scores as they came, beside a label; without one there is no score of use.
            scores = {} if judgement["missing"] else json.loads(judgement["raw"])
            if taken := scores.keys() & set(_KEYS):
                raise InputError(
                    f"judges: {judgement['judge']} has a category {taken.pop()!r}, which is a column of {FILE} "
                    "already; ask another model."
                )
            rows.append({**{name: judgement[name] for name in _KEYS if name in judgement}, **scores})
    if rows:
        files.write_csv(path, pd.DataFrame(rows))
    else:
        path.unlink(missing_ok=True)


def read(run: run_folder.RunFolder, judgements: Sequence[dict[str, Any]]) -> "pd.DataFrame":
    """The category scores of a run, a row a judgement and category; none where there is no file.

    Args:
        judgements: those of the run, which the file has to be of.

    Returns:
        The columns of COLUMNS: sample from 0, value from 0 to 1, nan where it is missing.

    Raises:
        InputError: the file is of another shape: columns, values or rows.
    """
    import pandas as pd

    path = run.root / FILE
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS)
    wide = tables.read(path)
    keys = [name for name in _KEYS if name in wide or name != "sample"]
    if list(wide.columns[: len(keys)]) != keys or len(wide.columns) == len(keys):
        raise _misshapen(path, f"its columns are {', '.join(map(str, wide.columns)) or 'none'}")
    judged = [_key(row) for row in judgements if gives(row["judge"])]
    if sorted(_key(row) for row in wide[keys].to_dict("records")) != sorted(judged):
        raise _misshapen(path, f"its {len(wide):,} rows are not the {len(judged):,} judgements of the run")
    long = wide.melt(keys, var_name="category", value_name="value")
    long["value"] = [_score(path, row) for row in long.to_dict("records")]
    return long.assign(sample=long["sample"].map(_sample) if "sample" in long else 0)[COLUMNS]


def _misshapen(path: Any, why: str) -> InputError:
    return InputError(
        f"{path}: {why}. It has to have dataset, prompt_id, judge and, with several answers a prompt, sample, then a "
        "column a category with scores from 0 to 1, and a row a judgement; --from judge makes it anew."
    )


def _key(row: dict[str, Any]) -> tuple[str, str, str, int]:
    return row["dataset"], row["prompt_id"], row["judge"], _sample(row.get("sample"))


def _sample(value: Any) -> int:
    text = "0" if value in (None, "") else str(value)
    return int(text) if text.isdecimal() else -1


def _score(path: Any, row: dict[str, Any]) -> float:
    if row["value"] == "":
        return math.nan
    try:
        value = float(row["value"])
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        where = f"{row['category']} of {row['dataset']}, {row['prompt_id']}"
        raise _misshapen(path, f"{where} is {row['value']!r}")
    return value
