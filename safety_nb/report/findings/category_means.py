"""Mean scores by category of harm, as a moderation endpoint gives them, for each N: the paper's way to show them.

Scores in, a tidy table out. Reads and draws nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safety_nb.core.columns import N_SAFETY
from safety_nb.report.findings.rates import matrix
from safety_nb.stats.estimates import SHARE, mean_over_seeds

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["dataset", "judge", "category", "estimate", "low", "high", "n", "n_missing", "n_seeds"]


def means(scores: "pd.DataFrame", by: Sequence[str] = (N_SAFETY,)) -> "pd.DataFrame":
    """The mean score of each category over seeds and prompts.

    Args:
        scores: seed, the columns of ``by``, and those of ``category_scores.COLUMNS``, values from 0 to 1 or nan.
        by: what to tell apart besides evaluation set, judge and category.

    Returns:
        The columns of ``by``, then COLUMNS: 95 % intervals as ``mean_over_seeds`` has them; n judged answers. A row a
        combination, in order of ``by``, then of set and judge, then of the category with the highest mean first.
    """
    import pandas as pd

    by = list(by)
    rows = []
    for key, group in scores.groupby([*by, "dataset", "judge", "category"], sort=False):
        found = mean_over_seeds(matrix(group).to_numpy(), bounds=SHARE)
        n = int(group["value"].notna().sum())
        estimates = [found.estimate, found.low, found.high, n, len(group) - n, group["seed"].nunique()]
        rows.append([*key, *estimates])
    table = pd.DataFrame(rows, columns=[*by, *COLUMNS])
    highest = table.groupby(["dataset", "judge", "category"], sort=False)["estimate"].transform("max")
    order = table.assign(highest=-highest, set=pd.factorize(table["dataset"])[0], who=pd.factorize(table["judge"])[0])
    order = order.sort_values([*by, "set", "who", "highest"], kind="stable")
    return order[[*by, *COLUMNS]].reset_index(drop=True)
