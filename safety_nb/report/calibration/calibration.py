"""What people's labels say of judges: of any table, of a run or of a study.

Reads what they labelled and what judges said of the same answers, has the two compared, and writes the tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from safety_nb.core import run_folder, tables
from safety_nb.core.columns import N_SAFETY, setting_names
from safety_nb.core.errors import InputError
from safety_nb.core.files import read_jsonl, read_log, read_record, write_csv
from safety_nb.core.labels import DELIVERED
from safety_nb.core.params import JudgeParams
from safety_nb.data.datasets import sources
from safety_nb.judge import annotations, judging
from safety_nb.report import study_tables
from safety_nb.report.calibration.measures import (
    AGREEMENT_COLUMNS,
    ALL_MODELS,
    CONFUSION_COLUMNS,
    CORRECTED_COLUMNS,
    HARM_SCALE,
    KEYS,
    agreement_tables,
    corrected_table,
    family,
    label_of,
    score_table,
    tells_harm,
)
from safety_nb.report.findings import deciding
from safety_nb.report.findings.rates import DELIVERY, labels_of
from safety_nb.stats.prediction_powered import FEWEST_LABELLED

if TYPE_CHECKING:
    import pandas as pd

_PAIR_JUDGE = "llm:pair"


@dataclass(frozen=True)
class Calibration:
    """What people's labels say of judges.

    Attributes:
        agreement: the columns of AGREEMENT_COLUMNS in ``calibration_tables``. classes is ``labels`` (all of them;
            metric accuracy, kappa or mcc), as in ``refusal or not`` two (those, and auc, of the judge's score), or
            ``scores`` (metric mae, bias, the judge's mean less people's, or spearman; the first two nan where the judge
            has another scale). n counts what both told; n_missing what people told and the judge did not.
        confusion: judge, model, human, judged, count.
        corrected: the columns of CORRECTED_COLUMNS; of a table, without rows.
        wins: of a study whose answers people compared in pairs, ``annotations.win_rates``; else without rows.
        n_labelled, n_scored, n_preferred: answers with a human label, with a human score, pairs with a preference.
        n_without: those of all three where people disagree or could not tell.
        n_outdated: those of answers that are not there any more, or in other words.
    """

    agreement: "pd.DataFrame"
    confusion: "pd.DataFrame"
    corrected: "pd.DataFrame"
    wins: "pd.DataFrame"
    n_labelled: int = 0
    n_scored: int = 0
    n_preferred: int = 0
    n_without: int = 0
    n_outdated: int = 0


def of_table(
    table: "pd.DataFrame",
    prompt: str,
    response: str,
    human: str,
    model: str = "",
    names: Sequence[str] = ("refusal",),
    params: JudgeParams | None = None,
    name: str = "the table",
) -> Calibration:
    """Let judges read a table that has people's labels, and compare.

    Args:
        human: the column of labels, or of numbers, which are scores.
        model: that which says whose answer it is, if there is one.
        names: the judges.
        name: what the table is called where a row of it is wrong.

    Raises:
        InputError: a column is not there, a label is none (told by its row), or a judge answers another question than
            people did, or gives no score where people did.
    """
    import pandas as pd

    for column in filter(None, (prompt, response, human, model)):
        if column not in table.columns:
            raise InputError(f"There is no column {column!r}; the table has {', '.join(map(str, table.columns))}.")
    scores = _numbers(table[human])
    said = _labels(table[human], name) if scores is None else scores
    if not any(pd.notna(each) for each in said):
        raise InputError(f"The column {human!r} holds no label at all.")
    known = () if scores is not None else family({label for label in said if label})[0]
    parts = []
    bare = table[
        list(dict.fromkeys([prompt, response, *(["answer"] if "answer" in table and human != "answer" else [])]))
    ]
    for judge in names:
        judged = judging.judge_table(judge, bare, prompt, response, params)
        _check_question(judge, judged, known)
        facts = {"judge": judge, "model": table[model] if model else "", "unit": table[prompt], "human": said}
        told = judged["missing"].isna()
        facts |= {"judged": judged["label"].where(told, None), "score": judged["score"].where(told)}
        parts.append(pd.DataFrame(facts))
    compared = pd.concat(parts, ignore_index=True)
    n = int(pd.notna(pd.Series(said, dtype=object)).sum())
    rest = {"corrected": pd.DataFrame(columns=CORRECTED_COLUMNS), "wins": _no_wins(), "n_without": len(table) - n}
    if scores is None:
        return Calibration(*agreement_tables(compared), **rest, n_labelled=n)
    agreement = score_table(compared, (float(scores.min()), float(scores.max())))
    return Calibration(agreement, pd.DataFrame(columns=CONFUSION_COLUMNS), **rest, n_scored=n)


def _labels(column: "pd.Series", name: str) -> list[str | None]:
    labels = []
    for row, text in enumerate(column, start=1):
        try:
            labels.append(label_of(text))
        except InputError as error:
            raise InputError(f"{name}, row {row}: {error}") from error
    return labels


def _numbers(column: "pd.Series") -> "pd.Series | None":
    """A column of people's as scores, nan where it is empty; None if it holds anything but finite numbers."""
    import pandas as pd

    filled = column.where(column.astype(str).str.strip() != "")
    numbers = pd.to_numeric(filled, errors="coerce").astype(float)
    given = filled.notna()
    return numbers if given.any() and np.isfinite(numbers[given]).all() else None


def _check_question(name: str, judged: "pd.DataFrame", known: Sequence[str]) -> None:
    """Check that a judge can be compared with people's labels, or without any with their scores. Raises InputError."""
    scored, labels = judged["score"].notna().any(), set(judged["label"].dropna())
    if not known and not scored:
        raise InputError(f"Judge {name} gives no score, and people gave numbers: they cannot be compared.")
    if known and (labels - set(known) or not (labels or scored)):
        gives = ", ".join(sorted(labels - set(known))) or "neither label nor score"
        raise InputError(f"Judge {name} gives {gives}, and people {', '.join(known)}: they cannot be compared.")


def _no_wins() -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(columns=annotations.WIN_COLUMNS)


def is_labelled(folder: Path) -> bool:
    """Whether people labelled answers of a run or of a study that others judged, so that ``of_run`` says something."""
    if not any(any(_people(folder, ask).values()) for ask in annotations.QUESTIONS):
        return False
    own = folder / "judgements.jsonl"
    files = [own] if own.is_file() else sorted(folder.glob("*/judgements.jsonl"))
    judges = (str(row.get("judge", "human")) for file in files for row in read_log(file))
    return any(judge.partition(":")[0] != "human" for judge in judges)


def _people(folder: Path, ask: str) -> dict[str, dict]:
    """What people said of a run's or a study's answers, in its folder, its study's, and those of its runs."""
    own = folder.resolve().name if (folder / "responses.jsonl").is_file() else ""
    if own and ask == "pair":
        return {}  # which takes two runs
    places = [folder / "annotations", folder.resolve().parent / "annotations", *sorted(folder.glob("*/annotations"))]
    people: dict[str, dict] = {}
    for place in places:
        for person, lines in annotations.read(place, ask).items():
            mine = {item: line for item, line in lines.items() if own in ("", line["run"])}
            people.setdefault(person, {}).update(mine)
    return people


def of_run(run_dir: Path) -> Calibration:
    """The same of a run or a study that was judged, by what people said in the notebook ``annotate``.

    Of a study, the answers that people compared in pairs are told as win rates, and compared with the llm judge's
    preferences where `safety-nb prefer` asked for them.

    Raises:
        InputError: it has no judgements, nobody labelled any of its answers, or a file is not as it was recorded.
    """
    import pandas as pd

    judgements, by = _judgements(run_dir)
    said = {ask: annotations.consensus(_people(run_dir, ask), ask) for ask in annotations.QUESTIONS}
    if not any(said.values()):
        raise InputError(
            f"Nobody has labelled answers of {run_dir} yet: open notebooks/annotate.ipynb with run_dir set to it."
        )
    for name in judgements["run"].unique():  # of which the answers that people labelled are looked up
        own = run_folder.RunFolder(run_dir if name == run_dir.resolve().name else run_dir / name)
        run_folder.check(own, [own.responses.name])
    answers = annotations.answers_of_folder(run_dir)
    given, told, n_outdated = {}, {}, 0
    for ask, question in annotations.QUESTIONS.items():
        lines = [line for line in said[ask].values() if line["run"] in set(judgements["run"])]
        ids = {item.id for item in _items(answers, ask)} if lines else set()
        valid = [line for line in lines if line["item"] in ids]
        given[ask] = pd.DataFrame(valid, columns=[*KEYS, "other_run", question.field])
        told[ask] = given[ask][given[ask][question.field].notna()]
        n_outdated += len(lines) - len(valid)
    agreement, confusion, corrected = _of_labels(judgements, told["refusal"], by)
    of_delivery = _of_labels(judgements, told["delivery"], by)
    of_scores, corrected_scores = _of_scores(judgements, told["harmfulness"], by)
    of_pairs, pairs = agreement_tables(_pairs(run_dir, told["pair"]))
    return Calibration(
        _joined(agreement, of_delivery[0], of_scores, of_pairs),
        _joined(confusion, of_delivery[1], pairs),
        _joined(corrected, of_delivery[2], corrected_scores),
        annotations.win_rates(given["pair"]) if len(given["pair"]) else _no_wins(),
        len(told["refusal"]) + len(told["delivery"]),
        *map(len, (told["harmfulness"], told["pair"])),
        n_without=sum(map(len, given.values())) - sum(map(len, told.values())),
        n_outdated=n_outdated,
    )


def _items(answers: list[dict], ask: str) -> list[annotations.Item]:
    """What could be labelled, as its labels know it; no pairs where there are none."""
    try:
        return annotations.items(answers, ask)
    except InputError:
        return []


def _of_labels(judgements: "pd.DataFrame", human: "pd.DataFrame", by: list[str]) -> list["pd.DataFrame"]:
    """Agreement, confusion and corrected rates by people's labels, of the judges that give these too."""
    import pandas as pd

    if human.empty:
        return [pd.DataFrame(columns=names) for names in (AGREEMENT_COLUMNS, CONFUSION_COLUMNS, CORRECTED_COLUMNS)]
    known = family(set(human["label"]))[0]
    asked = judgements[judgements["judge"].map(lambda judge: labels_of(judge) == known)]
    labels = _merged(asked, human[[*KEYS, "label"]].rename(columns={"label": "human"}))
    return [*agreement_tables(labels), corrected_table(asked, human[[*KEYS, "label"]], by)]


def _of_scores(judgements: "pd.DataFrame", human: "pd.DataFrame", by: list[str]) -> list["pd.DataFrame"]:
    """Agreement and corrected mean scores by people's scores of harmfulness."""
    import pandas as pd

    asked = judgements[judgements["judge"].map(tells_harm)]
    if human.empty or asked.empty:
        return [pd.DataFrame(columns=names) for names in (AGREEMENT_COLUMNS, CORRECTED_COLUMNS)]
    human = human.assign(score=human["score"].astype(float))[[*KEYS, "score"]]
    scores = _merged(asked, human.rename(columns={"score": "human"}))
    return [score_table(scores, HARM_SCALE), corrected_table(judgements, human, by)]


def _merged(judgements: "pd.DataFrame", human: "pd.DataFrame") -> "pd.DataFrame":
    """Judgements of answers that people read, as they are compared."""
    import pandas as pd

    merged = judgements.merge(human, on=KEYS)
    told = merged["missing"].isna()
    return merged.assign(
        model=merged["run"],
        unit=merged["dataset"] + "/" + merged["prompt_id"].astype(str),
        judged=merged["label"].where(told, None),
        score=pd.to_numeric(merged["score"]).astype(float).where(told),
    )


def _pairs(folder: Path, people: "pd.DataFrame") -> "pd.DataFrame":
    """People's preferences beside the llm judge's of the same answers, in the order of people's runs.

    The judge read the first of several answers to a prompt.
    """
    import pandas as pd

    judged = {}
    for run in sorted(set(people["run"]) | set(people["other_run"])):
        path = run_folder.RunFolder(folder / run).preferences
        for row in read_jsonl(path) if path.is_file() else []:
            for two, seats in (((run, row["against"]), ("left", "right")), ((row["against"], run), ("right", "left"))):
                said = dict(zip(seats, ("run", "other_run"), strict=True)) | {"tie": "tie"}
                judged[*two, row["dataset"], row["prompt_id"]] = None if row["missing"] else said[row["label"]]
    rows = []
    for line in people[people["sample"] == 0].to_dict("records"):
        key = (line["run"], line["other_run"], line["dataset"], line["prompt_id"])
        if key in judged:
            model, unit = f"{line['run']} or {line['other_run']}", f"{line['dataset']}/{line['prompt_id']}"
            rows.append([_PAIR_JUDGE, model, unit, line["preference"], judged[key]])
    return pd.DataFrame(rows, columns=["judge", "model", "unit", "human", "judged"])


def _joined(*tables: "pd.DataFrame") -> "pd.DataFrame":
    """Tables one below the other; those without rows would tell pandas other types."""
    import pandas as pd

    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def _judgements(folder: Path) -> tuple["pd.DataFrame", list[str]]:
    """The judgements of a run or of a study's finished runs, and what the study swept besides the seed."""
    import pandas as pd

    run = run_folder.RunFolder(folder)
    settings: list[str] = []
    if run.judgements.is_file():
        run_folder.check(run, [run.judgements.name, "mix/mixture.json"])
        mixture = read_record(run.mixture, {}) if run.mixture.is_file() else {}
        facts = {"run": folder.resolve().name, N_SAFETY: mixture.get(N_SAFETY), "seed": mixture.get("seed")}
        table = pd.DataFrame([{**facts, **row} for row in read_jsonl(run.judgements, study_tables.JUDGEMENT)])
        roles, decided_by = sources.recorded_roles(run), ""
    else:
        found = study_tables.read_study(folder)
        table, settings = found.judgements, setting_names(found.swept)
        roles, decided_by = found.roles, found.decided_by
    # People compared with themselves would look like the best judge of all.
    table = table[table["judge"].str.partition(":")[0] != "human"] if len(table) else table
    if table.empty:
        raise InputError(f"{folder} has no judgements of other judges than people yet; run its stages up to judge.")
    table = deciding.deliveries(table, roles, deciding.decide(table["judge"], decided_by))
    sample = table["sample"].fillna(0).astype(int) if "sample" in table else 0
    return table.assign(sample=sample), [N_SAFETY, *settings]


def error_rates(folder: Path) -> dict[str, deciding.ErrorRates]:
    """How judges of delivery err by people's labels of a study's answers, by their names.

    Left out are those of which people labelled fewer than FEWEST_LABELLED answers that deliver, or that do not.

    Raises:
        InputError: as ``of_run``.
    """
    if not any(_people(folder, "delivery").values()):
        return {}
    counts = of_run(folder).confusion
    counts = counts[counts["human"].isin(labels_of(DELIVERY)) & counts["judged"].isin(labels_of(DELIVERY))]
    of_all = counts["model"] == ALL_MODELS
    found = {}
    for judge, rows in counts[of_all if of_all.any() else ~of_all].groupby("judge", sort=False):
        given, called = (rows[side] == DELIVERED for side in ("human", "judged"))
        n = {side: int(rows["count"][given == side].sum()) for side in (True, False)}
        if min(n.values()) >= FEWEST_LABELLED:
            wrongly = {side: int(rows["count"][(given == side) & (called != side)].sum()) for side in (True, False)}
            found[judge] = deciding.ErrorRates((wrongly[False], n[False]), (wrongly[True], n[True]), _PEOPLE)
    return found


_PEOPLE = "people's labels of this study"
_FILES = ("agreement", "confusion", "calibration", "wins")


def check_new(folder: Path) -> None:
    """Check that writing into a folder of the user's overwrites nothing. Raises InputError."""
    for name in _FILES:
        tables.check_new(folder / f"{name}.csv")


def write(folder: Path, found: Calibration) -> list[Path]:
    """Write ``agreement.csv``, ``confusion.csv``, ``calibration.csv``, ``wins.csv``, those with rows; the paths."""
    parts = dict(zip(_FILES, (found.agreement, found.confusion, found.corrected, found.wins), strict=True))
    paths = []
    for name, table in parts.items():
        if len(table):
            paths.append(folder / f"{name}.csv")
            write_csv(paths[-1], table)
    return paths
