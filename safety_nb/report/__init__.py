"""From judgements to findings, figures and pages: of a run, of a study, and of judges beside people."""

from safety_nb import _lazy

__getattr__, __dir__, __all__ = _lazy.public(
    __name__,
    {
        "loading": ["Run", "Study", "load_run", "load_study"],
        "study_tables": ["StudyTables", "read_studies", "read_study"],
        "figures": ["draw_dose_response", "draw_trade_off"],
        "writing": ["report_run", "report_study"],
    },
)
