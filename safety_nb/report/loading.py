"""Runs and studies in Python: their folders as tidy tables, for analyses of one's own.

    import safety_nb

    study = safety_nb.load_study("outputs/tiny-study")
    study.rates[study.rates["metric"] == "refusal_rate"]

Tables are read or computed when they are first asked for, from files that are those the ledger has the hashes of:
an InputError names what does not fit. Nothing is written.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_nb.core import files, grid, run_folder
from safety_nb.core.columns import N_SAFETY, RUN_KEYS
from safety_nb.core.errors import InputError
from safety_nb.data.datasets import sources
from safety_nb.report import study_tables
from safety_nb.report.calibration import calibration
from safety_nb.report.findings import comparison, contrasts, deciding
from safety_nb.report.findings.rates import summarise_run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Run:
    """A run's folder as tables.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    @cached_property
    def params(self) -> "pd.DataFrame":
        """One row: run, then its parameters; of a run made in notebooks only n_safety and seed are known."""
        import pandas as pd

        if self._files.params.is_file():
            values = files.read_yaml(self._files.params)
        else:
            values = dict(zip((N_SAFETY, "seed"), self._n_safety_and_seed, strict=True))
        return pd.DataFrame([{"run": self.folder.name, **values}])

    @cached_property
    def rates(self) -> "pd.DataFrame":
        """run, n_safety, seed, dataset, judge, metric, estimate, low, high, n, n_missing, as in ``summary.csv``.

        Estimates are rates from 0 to 1 or mean scores, with 95 % intervals.
        """
        judged = self.judgements.drop(columns=RUN_KEYS)
        asked = files.read_yaml(self._files.params) if self._files.params.is_file() else {}
        decided_by = asked.get("decided_by", "")
        roles = sources.recorded_roles(self._files) or sources.roles(list(dict.fromkeys(judged["dataset"])))
        judged = deciding.deliveries(judged, roles, deciding.decide(judged["judge"], decided_by))
        return summarise_run(judged, self.folder.name, *self._n_safety_and_seed)

    @cached_property
    def tests(self) -> "pd.DataFrame":
        """No row, since a single run is compared with none; the columns of a study's."""
        import pandas as pd

        return pd.DataFrame(columns=contrasts.TEST_COLUMNS)

    @cached_property
    def judgements(self) -> "pd.DataFrame":
        """run, n_safety, seed, then dataset, prompt_id, judge, label, score, missing: a row a response and judge.

        Capability tasks that were measured are among them, as sets of their own.
        """
        run_folder.check(self._files, [self._files.capabilities.name])
        judged = self._rows(self._files.judgements, study_tables.JUDGEMENT, maker="judge")
        both = study_tables.with_own_capabilities(judged, self._files)
        return both.assign(**{name: judged[name].iloc[0] for name in RUN_KEYS}) if len(judged) else judged

    @cached_property
    def answers(self) -> "pd.DataFrame":
        """run, n_safety, seed, then the columns of ``responses.jsonl``, and label, of the first judge that gave one."""
        responses = self._rows(self._files.responses, study_tables.ANSWER, maker="generate")
        return study_tables.with_labels(responses, self.judgements)

    @cached_property
    def _n_safety_and_seed(self) -> tuple[int, int]:
        run_folder.require(self._files, ["mix/mixture.json"], maker="mix")
        run_folder.check(self._files, ["mix/mixture.json"])
        mixture = files.read_record(self._files.mixture, study_tables.MIXTURE)
        return mixture[N_SAFETY], mixture["seed"]

    @property
    def _files(self) -> run_folder.RunFolder:
        return run_folder.RunFolder(self.folder)

    def _rows(self, path: Path, fields: dict[str, Any], maker: str) -> "pd.DataFrame":
        """The rows of a file that the stage ``maker`` makes, each with what names the run."""
        import pandas as pd

        run_folder.require(self._files, [path.name], maker=maker)
        run_folder.check(self._files, [path.name])
        n_safety, seed = self._n_safety_and_seed
        rows = pd.DataFrame(files.read_jsonl(path, fields))
        return pd.concat(
            [pd.DataFrame({"run": self.folder.name, N_SAFETY: n_safety, "seed": seed}, rows.index), rows], axis=1
        )


@dataclass(frozen=True)
class Study:
    """A study's folder as tables, of its finished runs where nothing else is said.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    @cached_property
    def runs(self) -> "pd.DataFrame":
        """One row a planned run, finished or not.

        run, n_safety, seed, what else is swept, state (waiting, running, done, failed, killed, not needed),
        wall_seconds, cause (of a failure), and a column a stage with its state.
        """
        import pandas as pd

        stages = [
            {name: entry["state"] for name, entry in run_folder.read_ledger(run)["stages"].items()}
            for run in (run_folder.RunFolder(self.folder / name) for name in self._tables.runs["run"])
        ]
        states = pd.DataFrame(stages, self._tables.runs.index).fillna("waiting")
        return pd.concat([self._tables.runs, states], axis=1)

    @cached_property
    def params(self) -> "pd.DataFrame":
        """One row a planned run: run, then all its parameters."""
        import pandas as pd

        planned = grid.plan(grid.study_settings(grid.study_file(self.folder))[1])
        return pd.DataFrame([{"run": one.name, **one.params.model_dump(exclude={"run_dir"})} for one in planned])

    @cached_property
    def rates(self) -> "pd.DataFrame":
        """run, n_safety, seed, dataset, judge, metric, estimate, low, high, n, n_missing, as in ``summary.csv``.

        Estimates are rates from 0 to 1 or mean scores, with 95 % intervals.
        """
        return self._comparison.summary

    @cached_property
    def tests(self) -> "pd.DataFrame":
        """Each N against the smallest over the same prompts: the columns of ``tests.csv`` (``outputs/README.md``)."""
        return self._comparison.tests

    @cached_property
    def judgements(self) -> "pd.DataFrame":
        """run, n_safety, seed, what else is swept, then dataset, prompt_id, judge, label, score, missing.

        A row a response and judge. Tasks of ``safety-nb capabilities`` are among them, as sets of their own.
        """
        return self._tables.judgements

    @cached_property
    def answers(self) -> "pd.DataFrame":
        """run, n_safety, seed, what else is swept, then the columns of ``responses.jsonl``, and label, as of a run."""
        return study_tables.answers(self.folder, self._tables)

    @cached_property
    def _tables(self) -> study_tables.StudyTables:
        return study_tables.read_study(self.folder)

    @cached_property
    def _comparison(self) -> comparison.Comparison:
        return comparison.compare_study(self._tables, calibration.error_rates(self.folder))


def load_run(folder: str | Path) -> Run:
    """A run's folder as tidy tables: ``params``, ``rates``, ``tests``, ``judgements``, ``answers``.

    Raises:
        InputError: there is no run in the folder.
    """
    path = Path(folder).expanduser().resolve()
    if (path / "study.yaml").is_file():
        raise InputError(f"{path} holds a study; read it with load_study, or name one of the runs in it.")
    run = run_folder.RunFolder(path)
    if not (run.ledger.is_file() or run.mixture.is_file()):
        raise InputError(f"{path} holds no run (neither run.json nor mix/mixture.json); make one with `safety-nb run`.")
    return Run(path)


def load_study(folder: str | Path) -> Study:
    """A study's folder as tidy tables: ``runs``, ``params``, ``rates``, ``tests``, ``judgements``, ``answers``.

    Raises:
        InputError: there is no study in the folder.
    """
    path = Path(folder).expanduser().resolve()
    if not (path / "study.yaml").is_file() and (path / "run.json").is_file():
        raise InputError(f"{path} holds a run; read it with load_run.")
    grid.study_file(path)
    return Study(path)
